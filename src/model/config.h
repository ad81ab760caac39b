/* Hyperparameters of the two halves, read from GGUF metadata and validated once, so that everything
 * behind can trust them.
 *
 * Key names and defaults are llama.cpp's (LM: `ARCH.*`; vision: `clip.*`); keys of ours start with
 * `pocketvl.`. */
#ifndef PVL_MODEL_CONFIG_H
#define PVL_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "tensor/gguf.h"

/* Limits: far above any model that fits 4 GB, low enough that no product of three overflows 64
 * bits. */
enum {
    PVL_MAX_LAYERS = 256,
    PVL_MAX_WIDTH = 65536,
    PVL_MAX_VOCABULARY = 2 * 1024 * 1024,
    PVL_MAX_CONTEXT = 1024 * 1024,
    PVL_MAX_DYNAMIC_FACTOR = 64
};

typedef struct pvl_llm_config {
    char architecture[16]; /* "qwen2", "internlm2", "llama", "phi3" */
    size_t layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary;
    size_t context; /* longest sequence that the rotation serves */
    float rms_eps, rope_theta;
    float rope_attn_factor;  /* on cos and sin; 1 but for Phi-3 */
    size_t original_context; /* longer sequences are rotated another way: Phi-3's with its long
                                list, InternLM2's with a larger base; 0 = all the same way */
    float dynamic_factor;    /* of that larger base ("dynamic NTK"); 0 = none */
    bool interleaved_qk;     /* rows of q and k are stored for the interleaved rotation: put back at
                                load */
    bool fused_qkv, fused_up; /* Phi-3: one matrix for q, k, v; gate and up rows in ffn_up */
    bool qkv_bias;
} pvl_llm_config;

typedef struct pvl_vit_config {
    size_t layers, hidden, heads, head_dim, ffn;
    size_t image_size, patch_size; /* pixels */
    size_t grid;                   /* patches along a side */
    size_t tokens;                 /* visual tokens of a tile: (grid / 2)^2 */
    size_t projection;             /* width of a visual token = hidden size of the language model */
    float eps;
    float mean[3], std[3];
    int max_tiles; /* that the model was trained with, thumbnail not counted; 12 unless the file
                      says otherwise */
} pvl_vit_config;

/* Is there a language model (general.architecture other than clip) or a vision part (clip.* keys)
 * in this file? */
bool pvl_config_has_llm(const pvl_gguf *g);
bool pvl_config_has_vision(const pvl_gguf *g);

/* `a` is the allocator that g was read with. PVL_E_UNSUPPORTED for an architecture that is none of
 * ours, PVL_E_MODEL for values that make no sense. */
pvl_status pvl_llm_config_read(pvl_llm_config *out, const pvl_gguf *g, pvl_error *err);
pvl_status pvl_vit_config_read(pvl_vit_config *out, const pvl_gguf *g, const pvl_allocator *a,
                               pvl_error *err);

#endif
