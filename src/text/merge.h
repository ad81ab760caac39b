/* The merge loop of byte-pair encoding, common to both kinds of vocabulary: neighbours join, the
 * pair with the lowest key first, then the leftmost, until none joins.
 *
 * Short words are searched straight; long ones go through a heap, so n symbols take O(n log n) time
 * and at most 48 bytes of scratch each. */
#ifndef PVL_TEXT_MERGE_H
#define PVL_TEXT_MERGE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define PVL_NO_MERGE UINT32_MAX

/* A piece of the word: bytes begin .. begin of the next symbol. */
typedef struct pvl_symbol {
    uint32_t begin;
    int32_t id; /* of the token that it spells, -1 when there is none */
    uint32_t next, previous;
} pvl_symbol;

/* The key of joining two neighbours (the lower, the sooner) and the id of the whole, or
 * PVL_NO_MERGE. `end`: where the right one ends. */
typedef uint32_t (*pvl_pair_key)(const void *ctx, int32_t *joined, const pvl_symbol *left,
                                 const pvl_symbol *right, uint32_t end);

/* Scratch memory, kept from word to word. Zero it, set the allocator, free it in the end. */
typedef struct pvl_merge_scratch {
    pvl_symbol *symbols;
    size_t symbol_capacity;
    uint64_t *heap; /* key << 32 | index of the left symbol */
    size_t heap_capacity;
    const pvl_allocator *allocator;
} pvl_merge_scratch;

/* Makes room for a word of n symbols; n below 2^31. */
pvl_status pvl_merge_reserve(pvl_merge_scratch *s, size_t n, pvl_error *err);
/* Joins the n symbols in s->symbols, whose begin and id are set, of a word that ends at `end`.
 * Returns how many are left; they stand packed at the front, in order. */
size_t pvl_merge_run(pvl_merge_scratch *s, size_t n, uint32_t end, pvl_pair_key key,
                     const void *ctx);
void pvl_merge_free(pvl_merge_scratch *s);

#endif
