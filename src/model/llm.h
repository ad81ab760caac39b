/* The language model: one decoder, driven by its configuration, for Qwen2, InternLM2 (Llama) and
 * Phi-3.
 *
 * Sources: transformers' modeling_qwen2.py, InternVL's modeling_internlm2.py and modeling_phi3.py.
 *   h += O(Attention(RMS1(h)));  h += Down(silu(Gate(x)) * Up(x)), x = RMS2(h);  logits =
 * Head(RMS(h)) Rotation: half (NeoX), inv_freq[i] = theta^(-2i/d) / factor[i]; cos and sin times
 * attn_factor (Phi-3). Beyond original_context: Phi-3 takes its other list of factors; with a
 * dynamic factor f and a sequence of L, theta times (f L / original_context - (f - 1))^(d / (d-2)).
 */
#ifndef PVL_MODEL_LLM_H
#define PVL_MODEL_LLM_H

#include "model/run.h"

/* Keys and values of every layer for a number of positions. */
typedef struct pvl_kvcache {
    pvl_kv *layers; /* [llm.layers] */
    size_t layer_count, capacity;
    size_t bytes;
    unsigned char *data;
    const pvl_allocator *allocator;
} pvl_kvcache;

/* Bytes of a cache; false when they do not fit size_t. */
bool pvl_kvcache_bytes(size_t *out, const pvl_llm_config *config, pvl_cache_type type,
                       size_t capacity);
pvl_status pvl_kvcache_new(pvl_kvcache *out, const pvl_allocator *a, const pvl_llm_config *config,
                           pvl_cache_type type, size_t capacity, pvl_error *err);
void pvl_kvcache_free(pvl_kvcache *cache);

typedef enum pvl_logits { PVL_LOGITS_NONE, PVL_LOGITS_LAST, PVL_LOGITS_ALL } pvl_logits;

/* Bytes of run->workspace for steps of up to `rows` rows; false when they do not fit size_t. */
bool pvl_llm_workspace(size_t *out, const pvl_model *m, size_t rows, int members);

/* How a sequence of that length is rotated: 0 as in training, else as one of its length. */
size_t pvl_llm_rotation(const pvl_llm_config *config, size_t length);

typedef struct pvl_llm_step {
    float *rows; /* [n, hidden]: embeddings; overwritten */
    size_t n;    /* <= the rows that the workspace was made for */
    size_t workspace_rows;
    size_t position; /* of the first row; positions 0..position-1 are in the cache */
    size_t rotation; /* of pvl_llm_rotation */
    pvl_logits want;
    float *logits; /* [vocabulary] or [n, vocabulary] or NULL, as `want` says */
} pvl_llm_step;

/* Runs the rows through the decoder and stores their keys and values. Probe stages: "layer" (layer
 * i; the last one only the rows that are wanted), "norm", "logits". PVL_E_CANCELLED: positions from
 * step->position on are undefined. */
pvl_status pvl_llm_forward(const pvl_run *run, const pvl_model *m, pvl_kvcache *cache,
                           const pvl_llm_step *step, pvl_error *err);

#endif
