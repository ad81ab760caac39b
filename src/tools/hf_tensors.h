/* Which tensor of a checkpoint becomes which tensor of a GGUF file, by llama.cpp's names.
 *
 * The names are those of the published InternVL checkpoints and of transformers' own form of them.
 * Shapes are checked against the configuration; a tensor that is missing, has another shape or
 * dtype, or is not known is refused by name. */
#ifndef PVL_TOOLS_HF_TENSORS_H
#define PVL_TOOLS_HF_TENSORS_H

#include "tensor/gguf.h"
#include "tools/hf_config.h"
#include "tools/safetensors.h"

/* One tensor to write, in rows of ne[0] values. Its rows are `units` runs of `unit_rows` rows of
 * the source: run u begins at row base + u / per_group * group_stride + u % per_group * unit_rows.
 * (InternLM2's wqkv holds, for each key/value head, its query heads, its key and its value.) */
typedef struct pvl_mapping {
    char name[PVL_GGUF_MAX_NAME + 1];
    uint32_t dims;
    size_t ne[PVL_GGUF_MAX_DIMS]; /* innermost first */
    const pvl_st_tensor *source;  /* NULL: `values` */
    const float *values;          /* [ne[0]], lives as long as the configuration */
    size_t units, unit_rows, base, per_group, group_stride;
    /* Rows of each unit go from half rotation to interleaved: row 2i + s comes from s * n/2 + i. */
    bool interleave;
} pvl_mapping;

typedef struct pvl_mappings {
    pvl_mapping *items;
    size_t count, capacity;
} pvl_mappings;

/* The language model's tensors and the vision side's, in the order in which they are written. Marks
 * what it uses in the checkpoint, and refuses it if tensors stay over. Free in any case. */
pvl_status pvl_map_language(pvl_mappings *out, const pvl_hf_config *config, pvl_checkpoint *c,
                            pvl_error *err);
pvl_status pvl_map_vision(pvl_mappings *out, const pvl_hf_config *config, pvl_checkpoint *c,
                          pvl_error *err);
pvl_status pvl_map_check_rest(pvl_checkpoint *c, pvl_error *err);
void pvl_mappings_free(pvl_mappings *m);

/* Rows of a mapping and values in each. */
static inline size_t pvl_mapping_rows(const pvl_mapping *m) {
    return m->units * m->unit_rows;
}

#endif
