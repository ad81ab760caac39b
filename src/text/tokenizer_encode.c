/* Texts to ids: runs between added tokens, whichever segments they come from. */
#include <string.h>

#include "text/tokenizer_internal.h"
#include "text/unicode.h"

typedef struct encoder {
    const pvl_tokenizer *t;
    pvl_tokens *out;
    pvl_text run;    /* what stands since the last added token */
    pvl_text clean;  /* a segment with malformed bytes replaced */
    pvl_text normal; /* and normalised */
    pvl_merge_scratch merge;
    bool trusted;     /* BOS and Llama rules apply */
    bool plain;       /* user text, but control pieces by other names are not guarded against */
    bool user_in_run; /* some of the run is from people */
    bool strip;       /* white space at the run's beginning is dropped */
    bool at_start;    /* the run begins with a U+2581 (a space) of ours */
} encoder;

/* Appends to the run; SentencePiece's U+2581 as a space. */
static pvl_status run_append(encoder *e, const char *text, size_t bytes, pvl_error *err) {
    bool spm = e->t->kind != PVL_TOKENIZER_BPE;
    size_t begin = 0;
    if (bytes == 0)
        return PVL_OK;
    /* SentencePiece's dummy prefix; Llama's rule for whole prompts prepared it elsewhere. */
    if (e->t->add_space_prefix && e->run.bytes == 0 && !e->at_start &&
        !(e->trusted && e->t->kind == PVL_TOKENIZER_SPM_LLAMA_SLOW))
        PVL_TRY(pvl_text_append(&e->run, " ", 1, err));
    for (size_t i = 0; spm && i + 3 <= bytes; i++)
        if (text[i] == '\xE2' && text[i + 1] == '\x96' && text[i + 2] == '\x81') {
            PVL_TRY(pvl_text_append(&e->run, text + begin, i - begin, err));
            PVL_TRY(pvl_text_append(&e->run, " ", 1, err));
            begin = i + 3;
            i += 2;
        }
    return pvl_text_append(&e->run, text + begin, bytes - begin, err);
}

/* Encodes the run. `next`: the added token after it, -1 at the end of the text. */
static pvl_status flush(encoder *e, int32_t next, pvl_error *err) {
    const pvl_tokenizer *t = e->t;
    const char *run = e->run.data;
    size_t bytes = e->run.bytes;
    while (e->strip && bytes > 0) {
        uint32_t cp;
        size_t used = pvl_utf8_decode(&cp, run, bytes);
        if (!pvl_unicode_is_python_space(cp))
            break;
        run += used;
        bytes -= used;
    }
    /* Llama: the prompt's own first U+2581 stays alone before an added token, or goes. */
    if (e->at_start && bytes == 1 && (next < 0 || (t->flags[next] & PVL_T_LLAMA_START)))
        bytes = 0;
    e->run.bytes = 0;
    e->strip = next >= 0 && (t->flags[next] & PVL_T_RSTRIP);
    e->at_start = false;
    if (bytes == 0) {
        e->user_in_run = false;
        return PVL_OK;
    }
    if (t->kind == PVL_TOKENIZER_BPE) {
        if (!pvl_nfc_quick(run, bytes)) {
            e->normal.bytes = 0;
            PVL_TRY(pvl_nfc(&e->normal, run, bytes, err));
            run = e->normal.data;
            bytes = e->normal.bytes;
        }
        PVL_TRY(pvl_bpe_encode_run(t, e->out, &e->merge, run, bytes, err));
    } else {
        PVL_TRY(pvl_spm_encode_run(t, e->out, &e->merge, run, bytes, e->user_in_run, err));
    }
    e->user_in_run = false;
    return PVL_OK;
}

static pvl_status add_token(encoder *e, int32_t id, size_t repeat, pvl_error *err) {
    if (repeat == 0)
        return PVL_OK;
    PVL_TRY(flush(e, id, err));
    return pvl_tokens_repeat(e->out, id, repeat, err);
}

static pvl_status add_text(encoder *e, pvl_segment_kind kind, const char *text, size_t bytes,
                           pvl_error *err) {
    const pvl_tokenizer *t = e->t;
    bool bpe = t->kind == PVL_TOKENIZER_BPE;
    size_t begin = 0;
    if (bytes == 0)
        return PVL_OK;
    if (!pvl_utf8_valid(text, bytes)) {
        e->clean.bytes = 0;
        PVL_TRY(pvl_utf8_sanitize(&e->clean, text, bytes,
                                  bpe ? PVL_REPLACE_SUBPARTS : PVL_REPLACE_BYTES, err));
        text = e->clean.data;
        bytes = e->clean.bytes;
    }
    if (kind == PVL_SEGMENT_USER) {
        e->user_in_run = !e->plain;
        return run_append(e, text, bytes, err);
    }
    bool markup = kind == PVL_SEGMENT_MARKUP;
    pvl_text normal = {.allocator = e->out->allocator};
    pvl_status status = PVL_OK;
    e->user_in_run = e->user_in_run || markup;
    /* Qwen2 normalises before it looks for added tokens: `<img>` + U+0338 is no token. */
    if (bpe && !pvl_nfc_quick(text, bytes)) {
        status = pvl_nfc(&normal, text, bytes, err);
        text = normal.data;
        bytes = normal.bytes;
    }
    for (size_t at = 0; at < bytes && status == PVL_OK;) {
        const pvl_match_entry *entry;
        size_t found = pvl_matcher_find(&t->added, &entry, text + at, bytes - at, false);
        if (found && (!markup || (t->flags[entry->id] & PVL_T_MARKUP))) {
            status = run_append(e, text + begin, at - begin, err);
            if (status == PVL_OK)
                status = add_token(e, entry->id, 1, err);
            begin = at += found;
            e->user_in_run = markup;
        } else {
            at++;
        }
    }
    if (status == PVL_OK)
        status = run_append(e, text + begin, bytes - begin, err);
    pvl_text_free(&normal);
    return status;
}

static pvl_status run_segments(encoder *e, const pvl_segment *segments, size_t count,
                               pvl_error *err) {
    const pvl_tokenizer *t = e->t;
    if (e->trusted && t->add_bos)
        PVL_TRY(pvl_tokens_push(e->out, t->bos, err));
    if (e->trusted && t->kind == PVL_TOKENIZER_SPM_LLAMA_SLOW) {
        PVL_TRY(pvl_text_append(&e->run, " ", 1, err));
        e->at_start = true;
    }
    for (size_t i = 0; i < count; i++) {
        const pvl_segment *s = &segments[i];
        if (s->kind != PVL_SEGMENT_TOKEN) {
            PVL_TRY(add_text(e, s->kind, s->text, s->bytes, err));
        } else {
            if (s->token < 0 || (size_t)s->token >= t->count)
                return pvl_fail(err, PVL_E_ARGUMENT,
                                "Token id %d is outside the vocabulary of %zu tokens.",
                                (int)s->token, t->count);
            PVL_TRY(add_token(e, s->token, s->repeat, err));
        }
    }
    return flush(e, -1, err);
}

static pvl_status encode(const pvl_tokenizer *t, pvl_tokens *out, const pvl_segment *segments,
                         size_t count, bool trusted, bool plain, pvl_error *err) {
    encoder e = {.t = t,
                 .out = out,
                 .run = {.allocator = out->allocator},
                 .clean = {.allocator = out->allocator},
                 .normal = {.allocator = out->allocator},
                 .merge = {.allocator = out->allocator},
                 .trusted = trusted,
                 .plain = plain};
    size_t start = out->count, bytes = 0;
    pvl_status status;
    for (size_t i = 0; i < count; i++) {
        size_t more = segments[i].kind == PVL_SEGMENT_TOKEN ? 0 : segments[i].bytes;
        if (more > PVL_TOKENIZER_MAX_TEXT - bytes)
            return pvl_fail(err, PVL_E_LIMIT,
                            "The text is longer than the %d MiB that can be encoded at once: "
                            "shorten it.",
                            PVL_TOKENIZER_MAX_TEXT >> 20);
        bytes += more;
    }
    status = run_segments(&e, segments, count, err);
    pvl_text_free(&e.run);
    pvl_text_free(&e.clean);
    pvl_text_free(&e.normal);
    pvl_merge_free(&e.merge);
    if (status != PVL_OK)
        out->count = start;
    return status;
}

pvl_status pvl_tokenizer_encode(const pvl_tokenizer *t, pvl_tokens *out, const char *text,
                                size_t bytes, unsigned flags, pvl_error *err) {
    bool special = flags & PVL_ENCODE_SPECIAL, user = flags & PVL_ENCODE_USER;
    pvl_segment segment = {special ? PVL_SEGMENT_TEMPLATE : PVL_SEGMENT_USER, text, bytes, -1, 0};
    if (special && user)
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "A text is either trusted (SPECIAL) or from people (USER), not both.");
    return encode(t, out, &segment, 1, special, !user, err);
}

pvl_status pvl_tokenizer_encode_segments(const pvl_tokenizer *t, pvl_tokens *out,
                                         const pvl_segment *segments, size_t count,
                                         pvl_error *err) {
    return encode(t, out, segments, count, true, false, err);
}
