/* Qwen2's byte-level BPE: words by pattern, then merges by rank. */
#include "text/tokenizer_internal.h"
#include "text/unicode.h"

/* ---- words ----
 *
 * The pattern, alternatives in order, first that matches wins:
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)
 *   [^\r\n\p{L}\p{N}]?\p{L}+
 *   \p{N}
 *    ?[^\s\p{L}\p{N}]+[\r\n]*
 *   \s*[\r\n]+
 *   \s+(?!\S)
 *   \s+
 */

enum { LETTER = PVL_UNICODE_LETTER, NUMBER = PVL_UNICODE_NUMBER, SPACE = PVL_UNICODE_SPACE };

typedef struct character {
    uint32_t cp;
    unsigned class; /* of PVL_UNICODE_*; at the end of the text all bits, so that nothing matches */
    size_t end;     /* where the next one begins */
} character;

static character read_at(const char *text, size_t at, size_t bytes) {
    character c = {0, LETTER | NUMBER | SPACE, at};
    if (at < bytes) {
        c.end = at + pvl_utf8_decode(&c.cp, text + at, bytes - at);
        c.class = pvl_unicode_class(c.cp);
    }
    return c;
}

static bool is_letter(character c) {
    return c.class == LETTER;
}
static bool is_space(character c) {
    return c.class == SPACE;
}
static bool is_symbol(character c) {
    return c.class == 0;
}
static bool is_newline(character c) {
    return is_space(c) && (c.cp == '\r' || c.cp == '\n');
}

/* Lower case of an ASCII letter, and of U+017F, which (?i) takes for an s. */
static uint32_t fold(character c) {
    return c.cp == 0x17F ? 's' : c.cp >= 'A' && c.cp <= 'Z' ? c.cp + 32 : c.cp;
}

/* The end of a contraction after the apostrophe that ends at `at`, 0 when there is none. */
static size_t contraction_end(const char *text, size_t at, size_t bytes) {
    character a = read_at(text, at, bytes), b = read_at(text, a.end, bytes);
    uint32_t x = fold(a), y = b.end > a.end ? fold(b) : 0;
    if (a.end == at)
        return 0;
    if (x == 's' || x == 't' || x == 'm' || x == 'd')
        return a.end;
    if ((x == 'r' && y == 'e') || (x == 'v' && y == 'e') || (x == 'l' && y == 'l'))
        return b.end;
    return 0;
}

static size_t letters_end(const char *text, size_t at, size_t bytes) {
    for (character c = read_at(text, at, bytes); is_letter(c); c = read_at(text, at, bytes))
        at = c.end;
    return at;
}

static size_t symbols_end(const char *text, size_t at, size_t bytes) {
    character c = read_at(text, at, bytes);
    for (; is_symbol(c); c = read_at(text, at, bytes))
        at = c.end;
    for (; is_newline(c); c = read_at(text, at, bytes))
        at = c.end;
    return at;
}

size_t pvl_bpe_word_end(const char *text, size_t at, size_t bytes) {
    character first = read_at(text, at, bytes), second;
    size_t end;
    if (is_letter(first))
        return letters_end(text, first.end, bytes);
    if (first.class == NUMBER)
        return first.end;
    if (first.cp == '\'' && (end = contraction_end(text, first.end, bytes)) != 0)
        return end;
    second = read_at(text, first.end, bytes);
    if (is_letter(second) && !is_newline(first))
        return letters_end(text, second.end, bytes);
    if (is_symbol(first))
        return symbols_end(text, at, bytes);
    if (first.cp == ' ' && is_symbol(second))
        return symbols_end(text, first.end, bytes);

    /* White space: up to its last newline; else all of it but, before other text, the last. */
    size_t newline_end = 0, last_begin = at, space_end = at;
    for (character c = first; is_space(c); c = read_at(text, space_end, bytes)) {
        last_begin = space_end;
        space_end = c.end;
        if (is_newline(c))
            newline_end = c.end;
    }
    if (newline_end)
        return newline_end;
    return space_end == bytes || last_begin == at ? space_end : last_begin;
}

/* ---- merges ---- */

static uint32_t bpe_key(const void *ctx, int32_t *joined, const pvl_symbol *left,
                        const pvl_symbol *right, uint32_t end) {
    const pvl_tokenizer *t = ctx;
    uint64_t pair = (uint64_t)(uint32_t)left->id << 20 | (uint32_t)right->id;
    (void)end;
    if (left->id < 0 || right->id < 0)
        return PVL_NO_MERGE;
    for (size_t at = (size_t)pvl_mix(pair) & t->pair_mask;; at = (at + 1) & t->pair_mask) {
        uint64_t slot = t->pairs[at];
        if (slot == UINT64_MAX)
            return PVL_NO_MERGE;
        if (slot >> 24 == pair) {
            uint32_t rank = (uint32_t)slot & 0xFFFFFF;
            *joined = (int32_t)t->joined[rank];
            return rank;
        }
    }
}

static pvl_status encode_word(const pvl_tokenizer *t, pvl_tokens *out, pvl_merge_scratch *scratch,
                              const char *word, size_t bytes, pvl_error *err) {
    size_t n;
    PVL_TRY(pvl_merge_reserve(scratch, bytes, err));
    for (size_t i = 0; i < bytes; i++)
        scratch->symbols[i] =
            (pvl_symbol){.begin = (uint32_t)i, .id = t->byte_ids[(unsigned char)word[i]]};
    n = pvl_merge_run(scratch, bytes, (uint32_t)bytes, bpe_key, t);
    PVL_TRY(pvl_tokens_reserve(out, n, err));
    for (size_t i = 0; i < n; i++) {
        int32_t id = scratch->symbols[i].id;
        /* A byte without a token: the loader made sure that there is an unknown token then. */
        out->ids[out->count++] = id < 0 ? t->unk : id;
    }
    return PVL_OK;
}

pvl_status pvl_bpe_encode_run(const pvl_tokenizer *t, pvl_tokens *out, pvl_merge_scratch *scratch,
                              const char *run, size_t bytes, pvl_error *err) {
    for (size_t at = 0; at < bytes;) {
        size_t end = pvl_bpe_word_end(run, at, bytes);
        PVL_TRY(encode_word(t, out, scratch, run + at, end - at, err));
        at = end;
    }
    return PVL_OK;
}
