/* SentencePiece BPE: user-defined pieces first, then merges by score, then bytes. */
#include "text/tokenizer_internal.h"
#include "text/unicode.h"

typedef struct spm_word {
    const pvl_tokenizer *t;
    const char *text;
} spm_word;

static uint32_t spm_key(const void *ctx, int32_t *joined, const pvl_symbol *left,
                        const pvl_symbol *right, uint32_t end) {
    const spm_word *w = ctx;
    uint32_t bytes = end - left->begin;
    (void)right;
    if (bytes > w->t->longest)
        return PVL_NO_MERGE;
    *joined = pvl_tokenizer_lookup(w->t, w->text + left->begin, bytes);
    return *joined < 0 ? PVL_NO_MERGE : w->t->keys[*joined];
}

static pvl_status push_bytes(const pvl_tokenizer *t, pvl_tokens *out, const char *text,
                             size_t bytes, pvl_error *err) {
    for (size_t i = 0; i < bytes; i++) {
        int32_t id = t->byte_ids[(unsigned char)text[i]];
        if (id < 0)
            return pvl_tokens_push(out, t->unk, err); /* one for the whole piece */
        PVL_TRY(pvl_tokens_push(out, id, err));
    }
    return PVL_OK;
}

/* Merges a stretch that no piece reaches out of. */
static pvl_status encode_word(const pvl_tokenizer *t, pvl_tokens *out, pvl_merge_scratch *scratch,
                              const char *text, size_t bytes, size_t symbols, pvl_error *err) {
    spm_word word = {t, text};
    size_t n = 0;
    PVL_TRY(pvl_merge_reserve(scratch, symbols, err));
    for (size_t at = 0; at < bytes;) {
        uint32_t cp;
        size_t used = pvl_utf8_decode(&cp, text + at, bytes - at);
        /* -2: not looked up, most single characters vanish in merges. */
        scratch->symbols[n++] = (pvl_symbol){.begin = (uint32_t)at, .id = -2};
        at += used;
    }
    n = pvl_merge_run(scratch, n, (uint32_t)bytes, spm_key, &word);
    PVL_TRY(pvl_tokens_reserve(out, n, err));
    for (size_t i = 0; i < n; i++) {
        size_t begin = scratch->symbols[i].begin;
        size_t size = (i + 1 < n ? scratch->symbols[i + 1].begin : bytes) - begin;
        int32_t id = scratch->symbols[i].id;
        if (id == -2)
            id = pvl_tokenizer_lookup(t, text + begin, size);
        if (id >= 0)
            PVL_TRY(pvl_tokens_push(out, id, err));
        else
            PVL_TRY(push_bytes(t, out, text + begin, size, err));
    }
    return PVL_OK;
}

pvl_status pvl_spm_encode_run(const pvl_tokenizer *t, pvl_tokens *out, pvl_merge_scratch *scratch,
                              const char *run, size_t bytes, bool user, pvl_error *err) {
    size_t begin = 0, symbols = 0, at = 0;
    uint32_t before = 0;
    while (at < bytes) {
        const pvl_match_entry *entry;
        size_t found = pvl_matcher_find(&t->user_pieces, &entry, run + at, bytes - at, user);
        uint32_t cp, bit;
        size_t used;
        if (found) {
            PVL_TRY(encode_word(t, out, scratch, run + begin, at - begin, symbols, err));
            PVL_TRY(pvl_tokens_push(out, entry->id, err));
            at += found;
            begin = at;
            symbols = 0;
            continue;
        }
        used = pvl_utf8_decode(&cp, run + at, bytes - at);
        bit = pvl_bigram(before, cp);
        /* Two characters that stand side by side in no piece never come into one: the word ends
         * here. It keeps words, and so the scratch memory, short without changing a result. */
        if (symbols > 0 && !(t->bigrams[bit / 32] >> bit % 32 & 1)) {
            PVL_TRY(encode_word(t, out, scratch, run + begin, at - begin, symbols, err));
            begin = at;
            symbols = 0;
        }
        before = cp;
        symbols++;
        at += used;
    }
    return encode_word(t, out, scratch, run + begin, at - begin, symbols, err);
}
