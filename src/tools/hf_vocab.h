/* The tokenizer of a published folder, as the arrays that GGUF holds.
 *
 * Byte-level BPE comes from vocab.json and merges.txt, or from tokenizer.json; SentencePiece from
 * tokenizer.model (a protobuf, read here). Added tokens come from tokenizer_config.json
 * (added_tokens_decoder, with the flags special and rstrip), tokenizer.json and added_tokens.json.
 * Rows of the embedding that no token has are named [PADn], type unused. */
#ifndef PVL_TOOLS_HF_VOCAB_H
#define PVL_TOOLS_HF_VOCAB_H

#include "tensor/gguf.h"
#include "tools/hf_config.h"

typedef struct pvl_hf_vocab {
    bool spm;     /* SentencePiece, else byte-level BPE */
    size_t count; /* rows of the embedding */
    pvl_gguf_string *tokens;
    int32_t *types; /* GGUF's token types */
    float *scores;  /* SentencePiece only, else NULL */
    pvl_gguf_string *merges;
    size_t merge_count;
    bool dummy_prefix;
    int32_t bos, eos, pad, unk; /* -1 = none */
    bool rstrip_known;          /* the folder says which tokens drop white space behind them */
    bool *strips;               /* by id: whether this token does */
    int32_t *rstrip;            /* the ids of those that do, ascending */
    size_t rstrip_count;
    size_t padded; /* rows without a token */
} pvl_hf_vocab;

/* PVL_E_MODEL when the tokenizer has more tokens than the embedding has rows. Free in any case. */
pvl_status pvl_hf_vocab_read(pvl_hf_vocab *out, const pvl_hf_config *config, const char *folder,
                             pvl_error *err);
void pvl_hf_vocab_free(pvl_hf_vocab *v);

/* Exposed for tests: the pieces of a tokenizer.model into v (count, tokens, types, scores,
 * dummy_prefix). */
pvl_status pvl_hf_read_sentencepiece(pvl_hf_vocab *v, const void *file, size_t bytes,
                                     const char *name, pvl_error *err);

#endif
