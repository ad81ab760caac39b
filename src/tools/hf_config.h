/* A published InternVL folder's configuration: config.json, generation_config.json,
 * preprocessor_config.json, README.md.
 *
 * Two forms are known: the original one (model_type internvl_chat, "llm_config") of InternVL2, 2.5,
 * 3 and the domain-adapted checkpoints, and the one of transformers (model_type internvl,
 * "text_config"). A folder with one of the language models alone is read too. Values that this
 * product cannot run (another vision tower, pixel shuffle v1, scaled positions of an unknown kind)
 * are refused here, with the key's name. */
#ifndef PVL_TOOLS_HF_CONFIG_H
#define PVL_TOOLS_HF_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum pvl_hf_arch {
    PVL_HF_QWEN2,
    PVL_HF_INTERNLM2,
    PVL_HF_PHI3,
    PVL_HF_LLAMA /* InternLM2 in transformers' form */
} pvl_hf_arch;

enum { PVL_HF_MAX_FACTORS = 256, PVL_HF_MAX_STOPS = 16 };

typedef struct pvl_hf_config {
    pvl_hf_arch arch;
    bool native; /* tensor names are transformers' own */
    bool bare;   /* a language model by itself: names without a prefix, no vision */
    bool has_vision;
    /* language model */
    size_t layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary, context;
    double rms_eps, rope_theta;
    bool tied;
    size_t sliding_window; /* 0 = none */
    double dynamic_factor; /* NTK; 0 = none */
    size_t factor_count;   /* Phi-3: head_dim / 2, or 0 */
    float short_factors[PVL_HF_MAX_FACTORS], long_factors[PVL_HF_MAX_FACTORS];
    size_t original_context;
    double attn_factor;
    /* vision */
    size_t v_layers, v_hidden, v_heads, v_ffn, image_size, patch_size;
    double v_eps;
    float mean[3], std[3];
    size_t min_tiles, max_tiles;
    /* prompt */
    int32_t stop_ids[PVL_HF_MAX_STOPS]; /* of generation_config.json */
    size_t stop_count;
    char template_name[24]; /* value of pocketvl.template */
    char license[48];       /* from README.md; "" when not said */
} pvl_hf_config;

/* Reads the folder's files. For a vocabulary alone (`vocab_only`), config.json may be missing: the
 * architecture then follows from the tokenizer's files and sizes are 0. */
pvl_status pvl_hf_config_read(pvl_hf_config *out, const char *folder, bool vocab_only,
                              pvl_error *err);

/* "qwen2", "internlm2", "phi3", "llama". */
const char *pvl_hf_arch_name(pvl_hf_arch arch);

#endif
