#include "engine/vocabulary.h"

#include "base/alloc.h"

/* The lists of the head, as the tokenizer takes them. */
typedef struct lists {
    pvl_span *tokens, *merges; /* views into the head */
    float *scores;
    int32_t *types, *rstrip, *stops;
    size_t token_count, merge_count, score_count, type_count, rstrip_count, stop_count;
} lists;

static const char rstrip_key[] = "pocketvl.tokenizer.rstrip_ids",
                  kind_key[] = "pocketvl.tokenizer.kind";

static void free_lists(const pvl_allocator *a, lists *v) {
    pvl_free(a, v->tokens);
    pvl_free(a, v->merges);
    pvl_free(a, v->scores);
    pvl_free(a, v->types);
    pvl_free(a, v->rstrip);
    pvl_free(a, v->stops);
}

static pvl_status read_spans(pvl_span **out, size_t *count, const pvl_gguf *g,
                             const pvl_allocator *a, const char *key, pvl_error *err) {
    pvl_gguf_string *strings;
    PVL_TRY(pvl_gguf_array_str(g, key, &strings, count, err));
    void *p = NULL;
    pvl_status status = strings ? pvl_malloc(a, &p, *count, sizeof(pvl_span), key, err) : PVL_OK;
    *out = p;
    for (size_t i = 0; p && i < *count; i++)
        (*out)[i] = (pvl_span){strings[i].data, strings[i].bytes};
    pvl_free(a, strings);
    return status;
}

static pvl_status read_lists(lists *v, const pvl_gguf *g, const pvl_allocator *a, pvl_error *err) {
    PVL_TRY(read_spans(&v->tokens, &v->token_count, g, a, "tokenizer.ggml.tokens", err));
    PVL_TRY(read_spans(&v->merges, &v->merge_count, g, a, "tokenizer.ggml.merges", err));
    PVL_TRY(pvl_gguf_array_f32(g, "tokenizer.ggml.scores", &v->scores, &v->score_count, err));
    PVL_TRY(pvl_gguf_array_i32(g, "tokenizer.ggml.token_type", &v->types, &v->type_count, err));
    PVL_TRY(pvl_gguf_array_i32(g, rstrip_key, &v->rstrip, &v->rstrip_count, err));
    PVL_TRY(pvl_gguf_array_i32(g, "pocketvl.tokenizer.stop_ids", &v->stops, &v->stop_count, err));
    if (v->token_count == 0)
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: tokenizer.ggml.tokens is missing: this file has no tokenizer.",
                        pvl_gguf_name(g));
    if ((v->scores && v->score_count != v->token_count) ||
        (v->types && v->type_count != v->token_count)) {
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: tokenizer.ggml.scores and token_type must have one entry for each of "
                        "the %zu tokens.",
                        pvl_gguf_name(g), v->token_count);
    }
    return PVL_OK;
}

/* Byte-level BPE says so itself; of the two SentencePiece kinds our key tells, else the
 * architecture. */
static pvl_status read_kind(pvl_tokenizer_kind *out, const pvl_gguf *g, pvl_error *err) {
    bool bpe = pvl_gguf_str_is(g, "tokenizer.ggml.model", "gpt2");
    if (!bpe && !pvl_gguf_str_is(g, "tokenizer.ggml.model", "llama")) {
        return pvl_fail(
            err, PVL_E_UNSUPPORTED,
            "%s: tokenizer.ggml.model must be gpt2 (byte-level BPE) or llama (SentencePiece).",
            pvl_gguf_name(g));
    }
    bool slow = pvl_gguf_has(g, kind_key) ? pvl_gguf_str_is(g, kind_key, "spm-llama-slow")
                                          : pvl_gguf_str_is(g, "general.architecture", "phi3");
    *out = bpe    ? PVL_TOKENIZER_BPE
           : slow ? PVL_TOKENIZER_SPM_LLAMA_SLOW
                  : PVL_TOKENIZER_SPM_INTERNLM2;
    return PVL_OK;
}

static int32_t token_id(const pvl_gguf *g, const char *key, size_t count) {
    uint32_t id;
    return pvl_gguf_u32(g, key, &id) && id < count ? (int32_t)id : -1;
}

static pvl_status make(pvl_tokenizer **out, const pvl_gguf *g, const lists *v,
                       const pvl_allocator *a, pvl_error *err) {
    static const int32_t none = -1;
    pvl_tokenizer_kind kind = PVL_TOKENIZER_BPE;
    PVL_TRY(read_kind(&kind, g, err));
    bool bpe = kind == PVL_TOKENIZER_BPE;
    pvl_vocab vocab = {.kind = kind,
                       .count = v->token_count,
                       .tokens = v->tokens,
                       .scores = v->scores,
                       .types = v->types,
                       .merges = v->merges,
                       .merge_count = v->merge_count,
                       .add_bos = !bpe,
                       .bos = token_id(g, "tokenizer.ggml.bos_token_id", v->token_count),
                       .eos = token_id(g, "tokenizer.ggml.eos_token_id", v->token_count),
                       .pad = token_id(g, "tokenizer.ggml.padding_token_id", v->token_count),
                       .unk = token_id(g, "tokenizer.ggml.unknown_token_id", v->token_count),
                       .add_space_prefix = !bpe,
                       /* Absent: the default of the kind; present and empty: none. */
                       .rstrip_ids = pvl_gguf_has(g, rstrip_key) && !v->rstrip ? &none : v->rstrip,
                       .rstrip_count = v->rstrip_count,
                       .stop_ids = v->stops,
                       .stop_count = v->stop_count};
    pvl_gguf_bool(g, "tokenizer.ggml.add_bos_token", &vocab.add_bos);
    pvl_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &vocab.add_space_prefix);
    return pvl_tokenizer_new(out, a, &vocab, err);
}

pvl_status pvl_vocabulary_read(pvl_tokenizer **out, const pvl_gguf *g, const pvl_allocator *a,
                               pvl_error *err) {
    lists v = {0};
    *out = NULL;
    pvl_status status = read_lists(&v, g, a, err);
    if (status == PVL_OK)
        status = make(out, g, &v, a, err);
    free_lists(a, &v);
    return status;
}
