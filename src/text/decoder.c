/* Ids to text, streaming: whole characters, clean-up and stripping, each as one stage that holds
 * back what it cannot decide yet.
 *
 *   token bytes -> characters -> clean-up (10 stages) -> stripping -> out
 */
#include <string.h>

#include "text/tokenizer_internal.h"
#include "text/unicode.h"

/* The replacements of InternLM2's tokenizer (Hugging Face's clean_up_tokenization), in its order.
 * Each is a whole pass there, so each is a stage here. */
static const struct {
    const char *pattern, *replacement;
} clean_ups[PVL_CLEAN_UP_STAGES] = {
    {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
};

void pvl_decoder_init(pvl_decoder *d, const pvl_tokenizer *t, unsigned flags) {
    *d = (pvl_decoder){.tokenizer = t, .flags = flags};
}

unsigned pvl_tokenizer_decode_flags(const pvl_tokenizer *t) {
    return t->kind == PVL_TOKENIZER_SPM_INTERNLM2    ? PVL_DECODE_CLEAN_UP
           : t->kind == PVL_TOKENIZER_SPM_LLAMA_SLOW ? PVL_DECODE_DROP_SPACE
                                                     : 0;
}

/* ---- the last stage: stripping ---- */

static pvl_status flush_held(pvl_decoder *d, pvl_text *out, pvl_error *err) {
    PVL_TRY(pvl_text_append(out, d->held, d->held_bytes, err));
    d->held_bytes = 0;
    return PVL_OK;
}

/* One whole character. */
static pvl_status emit(pvl_decoder *d, pvl_text *out, const char *c, size_t bytes, pvl_error *err) {
    uint32_t cp;
    if (!(d->flags & PVL_DECODE_STRIP))
        return pvl_text_append(out, c, bytes, err);
    (void)pvl_utf8_decode(&cp, c, bytes);
    if (!pvl_unicode_is_python_space(cp)) {
        d->shown = true;
        PVL_TRY(flush_held(d, out, err));
        return pvl_text_append(out, c, bytes, err);
    }
    if (!d->shown)
        return PVL_OK;
    /* Longer white space than there is room for is let go, rather than grow without end. */
    if (d->held_bytes + bytes > sizeof d->held)
        PVL_TRY(flush_held(d, out, err));
    memcpy(d->held + d->held_bytes, c, bytes);
    d->held_bytes = (unsigned char)(d->held_bytes + bytes);
    return PVL_OK;
}

/* ---- clean-up ---- */

/* One whole character into clean-up stage `stage`. Patterns begin with a space and have no other
 * but " ' ", whose last is a match, so what a stage holds can only be let go as a whole. */
static pvl_status clean(pvl_decoder *d, pvl_text *out, size_t stage, const char *c, size_t bytes,
                        pvl_error *err) {
    for (; stage < PVL_CLEAN_UP_STAGES; stage++) {
        const char *pattern = clean_ups[stage].pattern;
        unsigned held = d->matched[stage];
        if (bytes == 1 && c[0] == pattern[held]) {
            if (pattern[held + 1] != 0) {
                d->matched[stage]++;
                return PVL_OK;
            }
            d->matched[stage] = 0;
            for (const char *r = clean_ups[stage].replacement; *r; r++)
                PVL_TRY(clean(d, out, stage + 1, r, 1, err));
            return PVL_OK;
        }
        d->matched[stage] = 0;
        for (unsigned i = 0; i < held; i++)
            PVL_TRY(clean(d, out, stage + 1, pattern + i, 1, err));
        if (held > 0 && c[0] == ' ') { /* the beginning of a new match */
            d->matched[stage] = 1;
            return PVL_OK;
        }
    }
    return emit(d, out, c, bytes, err);
}

static pvl_status character(pvl_decoder *d, pvl_text *out, const char *c, size_t bytes,
                            pvl_error *err) {
    if (d->flags & PVL_DECODE_CLEAN_UP)
        return clean(d, out, 0, c, bytes, err);
    return emit(d, out, c, bytes, err);
}

/* ---- characters ---- */

/* Takes whole characters from the pending bytes; the beginning of one stays unless `final`. */
static pvl_status take_characters(pvl_decoder *d, pvl_text *out, bool final, pvl_error *err) {
    while (d->pending_bytes > 0) {
        uint32_t cp;
        size_t used = pvl_utf8_decode(&cp, d->pending, d->pending_bytes);
        char c[4];
        if (cp == PVL_UTF8_SHORT && !final)
            return PVL_OK;
        if (cp > 0x10FFFF) {
            /* SentencePiece replaces bytes, Python subparts. */
            if (d->tokenizer->kind != PVL_TOKENIZER_BPE)
                used = 1;
            cp = PVL_REPLACEMENT;
        }
        PVL_TRY(character(d, out, c, pvl_utf8_encode(c, cp), err));
        d->pending_bytes = (unsigned char)(d->pending_bytes - used);
        memmove(d->pending, d->pending + used, d->pending_bytes);
    }
    return PVL_OK;
}

pvl_status pvl_decoder_push(pvl_decoder *d, pvl_text *out, int32_t id, pvl_error *err) {
    const pvl_tokenizer *t = d->tokenizer;
    pvl_span piece;
    bool hidden, added;
    if (id < 0 || (size_t)id >= t->count)
        return pvl_fail(err, PVL_E_ARGUMENT, "Token id %d is outside the vocabulary of %zu tokens.",
                        (int)id, t->count);
    added = t->flags[id] & PVL_T_ADDED;
    hidden = (t->flags[id] & PVL_T_HIDDEN) || (added && (d->flags & PVL_DECODE_SKIP_ADDED));
    if (hidden && !(d->flags & PVL_DECODE_ALL))
        return PVL_OK;
    piece = pvl_tokenizer_piece(t, id);
    if (added)
        PVL_TRY(take_characters(d, out, true, err));
    /* The reference drops the U+2581 of a first piece, not a space spelled by a byte piece. */
    if (!d->started && (d->flags & PVL_DECODE_DROP_SPACE) && !(t->flags[id] & PVL_T_BYTE) &&
        piece.bytes > 0 && piece.data[0] == ' ') {
        piece.data++;
        piece.bytes--;
    }
    d->started = true;
    for (size_t i = 0; i < piece.bytes; i++) {
        d->pending[d->pending_bytes++] = (unsigned char)piece.data[i];
        PVL_TRY(take_characters(d, out, false, err));
    }
    return PVL_OK;
}

pvl_status pvl_decoder_finish(pvl_decoder *d, pvl_text *out, pvl_error *err) {
    PVL_TRY(take_characters(d, out, true, err));
    if (d->flags & PVL_DECODE_CLEAN_UP)
        for (size_t stage = 0; stage < PVL_CLEAN_UP_STAGES; stage++) {
            unsigned held = d->matched[stage];
            d->matched[stage] = 0;
            for (unsigned i = 0; i < held; i++)
                PVL_TRY(clean(d, out, stage + 1, clean_ups[stage].pattern + i, 1, err));
        }
    pvl_decoder_init(d, d->tokenizer, d->flags);
    return PVL_OK;
}
