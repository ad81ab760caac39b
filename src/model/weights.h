/* Weights: from tensors of GGUF files to packed matrices in named fields.
 *
 * pvl_model_header() gives every tensor of a file its place and checks name, type and shape;
 * pvl_model_data() packs rows as their bytes arrive, so that loading needs the final size plus one
 * staging buffer (or one q/k matrix where rows must be put back in order). pvl_model_finish() says
 * what is missing. After it the model is read only. */
#ifndef PVL_MODEL_WEIGHTS_H
#define PVL_MODEL_WEIGHTS_H

#include "kernels/kernels.h"
#include "model/config.h"

typedef struct pvl_linear {
    pvl_matrix w; /* [outputs, inputs] */
    float *bias;  /* [outputs] or NULL */
} pvl_linear;

/* One InternViT block; D = hidden, F = ffn. */
typedef struct pvl_vit_block {
    float *ln1_w, *ln1_b, *ln2_w, *ln2_b; /* [D] */
    float *ls1, *ls2;                     /* [D] layer scale */
    pvl_linear q, k, v;                   /* [D, D] each, or */
    pvl_linear qkv;                       /* [3D, D] */
    pvl_linear out;                       /* [D, D] */
    pvl_linear up, down;                  /* [F, D], [D, F] */
} pvl_vit_block;

/* One decoder block; H = hidden, Q = heads*head_dim, K = kv_heads*head_dim, F = ffn. */
typedef struct pvl_llm_block {
    float *attn_norm, *ffn_norm; /* [H] */
    pvl_linear q, k, v;          /* [Q, H], [K, H], [K, H], or */
    pvl_linear qkv;              /* [Q+2K, H] */
    pvl_linear out;              /* [H, Q] */
    pvl_linear gate, up, down;   /* [F, H], [F, H] (fused: [2F, H], gate rows first), [H, F] */
} pvl_llm_block;

/* Rows kept as they are in the file and converted when looked up. */
typedef struct pvl_rows {
    pvl_dtype type;
    size_t rows, cols, row_bytes;
    unsigned char *data;
} pvl_rows;

typedef struct pvl_slot
    pvl_slot; /* where a tensor of the current file goes; private to weights.c */

typedef struct pvl_model {
    const pvl_allocator *allocator;
    pvl_team *team; /* packs in parallel; may be another one between calls, of at most `members` */
    int members;
    bool f32;       /* PVL_PRECISION_F32 */
    bool plan_only; /* count memory, allocate no weights */

    bool has_llm, has_vision;
    pvl_llm_config llm;
    pvl_vit_config vit;

    /* vision */
    pvl_vit_block *vit_blocks;    /* [vit.layers] */
    pvl_linear patch;             /* [D, 3*patch*patch]: row order (channel, y, x) */
    float *class_embedding;       /* [D] */
    float *positions;             /* [grid*grid + 1, D], row 0 for the class token */
    float *mm_norm_w, *mm_norm_b; /* [4D] */
    pvl_linear mm1, mm3;          /* [P, 4D], [P, P] */

    /* language model */
    pvl_llm_block *llm_blocks;     /* [llm.layers] */
    pvl_rows embedding;            /* [V, H] */
    pvl_linear head;               /* [V, H] */
    float *final_norm;             /* [H] */
    float *rope_long, *rope_short; /* [head_dim/2] or NULL */

    uint64_t weight_bytes; /* all of the above */
    uint64_t staging_peak; /* most held besides while loading */
    uint64_t parameters;

    /* the file that is being read */
    const char *file_name;
    pvl_slot *slots; /* one for each tensor of the file */
    size_t slot_count;
    unsigned char *stage;
    size_t stage_bytes, stage_fill;
    bool tied;
} pvl_model;

void pvl_model_init(pvl_model *m, const pvl_allocator *a, pvl_team *team, bool f32, bool plan_only);
/* After the head of a file has been read. `name` is used in messages and must live until the file
 * ends. */
pvl_status pvl_model_header(pvl_model *m, const char *name, const pvl_gguf *g, pvl_error *err);
/* The next n bytes of tensor `index` of the current file, in order. */
pvl_status pvl_model_data(pvl_model *m, const pvl_gguf *g, size_t index, const void *bytes,
                          size_t n, pvl_error *err);
/* The current file is complete. */
void pvl_model_end_file(pvl_model *m);
/* All files are complete: everything is there, the halves fit together. With plan_only,
 * weight_bytes and staging_peak say what loading would take. */
pvl_status pvl_model_finish(pvl_model *m, pvl_error *err);
void pvl_model_free(pvl_model *m);

/* Row `id` of the embedding as floats, out [hidden]. */
void pvl_model_embed(const pvl_model *m, float *out, size_t id);

#endif
