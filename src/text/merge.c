#include "text/merge.h"

#include <string.h>

#include "base/alloc.h"

/* Words up to this many symbols are searched straight: faster than a heap, and nearly all words. */
enum { SHORT_WORD = 40 };

static pvl_status room(void **data, size_t *capacity, size_t n, size_t size,
                       const pvl_allocator *allocator, pvl_error *err) {
    size_t bigger = *capacity < 64 ? 64 : *capacity;
    void *fresh;
    if (n <= *capacity)
        return PVL_OK;
    while (bigger < n)
        bigger += bigger / 2;
    PVL_TRY(
        pvl_malloc(allocator, &fresh, bigger, size, "the scratch memory of the tokenizer", err));
    pvl_free(allocator, *data); /* nothing in it is kept from word to word */
    *data = fresh;
    *capacity = bigger;
    return PVL_OK;
}

pvl_status pvl_merge_reserve(pvl_merge_scratch *s, size_t n, pvl_error *err) {
    void *data = s->symbols;
    PVL_TRY(room(&data, &s->symbol_capacity, n, sizeof *s->symbols, s->allocator, err));
    s->symbols = data;
    if (n > SHORT_WORD) {
        /* One entry for each pair at first; a merge takes one out and puts two in. */
        data = s->heap;
        PVL_TRY(room(&data, &s->heap_capacity, 2 * n, sizeof *s->heap, s->allocator, err));
        s->heap = data;
    }
    return PVL_OK;
}

void pvl_merge_free(pvl_merge_scratch *s) {
    pvl_free(s->allocator, s->symbols);
    pvl_free(s->allocator, s->heap);
    *s = (pvl_merge_scratch){.allocator = s->allocator};
}

static size_t run_short(pvl_symbol *s, size_t n, uint32_t end, pvl_pair_key key, const void *ctx) {
    uint32_t keys[SHORT_WORD];
    int32_t joined[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++)
        keys[i] = key(ctx, &joined[i], &s[i], &s[i + 1], i + 2 < n ? s[i + 2].begin : end);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (keys[i] < keys[best])
                best = i;
        if (keys[best] == PVL_NO_MERGE)
            break;
        s[best].id = joined[best];
        n--;
        memmove(s + best + 1, s + best + 2, (n - best - 1) * sizeof *s);
        memmove(keys + best, keys + best + 1, (n - best - 1) * sizeof *keys);
        memmove(joined + best, joined + best + 1, (n - best - 1) * sizeof *joined);
        for (size_t i = best ? best - 1 : 0; i <= best && i + 1 < n; i++)
            keys[i] = key(ctx, &joined[i], &s[i], &s[i + 1], i + 2 < n ? s[i + 2].begin : end);
    }
    return n;
}

static void heap_push(uint64_t *heap, size_t *count, uint64_t item) {
    size_t at = (*count)++;
    while (at > 0 && heap[(at - 1) / 2] > item) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = item;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count) {
    uint64_t top = heap[0], item = heap[--*count];
    size_t at = 0, n = *count;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= item)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
    return top;
}

/* The end of the list; also the mark of a symbol that was joined to its left neighbour. */
#define NOWHERE UINT32_MAX

typedef struct long_word {
    pvl_symbol *s;
    uint64_t *heap;
    size_t heap_count;
    uint32_t end;
    pvl_pair_key key;
    const void *ctx;
} long_word;

static uint32_t key_at(const long_word *w, int32_t *joined, uint32_t left) {
    const pvl_symbol *a = &w->s[left], *b = &w->s[a->next];
    return w->key(w->ctx, joined, a, b, b->next == NOWHERE ? w->end : w->s[b->next].begin);
}

static void offer(long_word *w, uint32_t left) {
    int32_t joined;
    uint32_t k;
    if (left == NOWHERE || w->s[left].next == NOWHERE)
        return;
    k = key_at(w, &joined, left);
    if (k != PVL_NO_MERGE)
        heap_push(w->heap, &w->heap_count, (uint64_t)k << 32 | left);
}

static size_t run_long(pvl_merge_scratch *scratch, size_t n, uint32_t end, pvl_pair_key key,
                       const void *ctx) {
    long_word w = {scratch->symbols, scratch->heap, 0, end, key, ctx};
    pvl_symbol *s = w.s;
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        s[i].previous = i ? (uint32_t)(i - 1) : NOWHERE;
        s[i].next = i + 1 < n ? (uint32_t)(i + 1) : NOWHERE;
    }
    for (size_t i = 0; i + 1 < n; i++)
        offer(&w, (uint32_t)i);
    while (w.heap_count > 0) {
        uint64_t item = heap_pop(w.heap, &w.heap_count);
        uint32_t left = (uint32_t)item, right = s[left].next, after;
        int32_t joined;
        /* An entry may be out of date: its symbol gone (then it points to itself), or paired anew.
         * If the new pair has the same key, joining it now is what its own entry would do. */
        if (right == NOWHERE || right == left || key_at(&w, &joined, left) != item >> 32)
            continue;
        after = s[right].next;
        s[left].id = joined;
        s[left].next = after;
        if (after != NOWHERE)
            s[after].previous = left;
        s[right].next = right;
        offer(&w, s[left].previous);
        offer(&w, left);
    }
    for (uint32_t at = 0, next; at != NOWHERE; at = next) {
        next = s[at].next;
        s[out++] = s[at];
    }
    return out;
}

size_t pvl_merge_run(pvl_merge_scratch *s, size_t n, uint32_t end, pvl_pair_key key,
                     const void *ctx) {
    if (n < 2)
        return n;
    return n <= SHORT_WORD ? run_short(s->symbols, n, end, key, ctx)
                           : run_long(s, n, end, key, ctx);
}
