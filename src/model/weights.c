#include "model/weights.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"

/* Rows are packed from a staging buffer: large enough that the team shares the work, small beside
 * any model. */
enum { STAGE_BYTES = 4 << 20 };
/* From so many bytes on, whole groups of rows are packed from where the caller has them. */
enum { DIRECT_BYTES = 64 << 10 };

typedef enum slot_kind {
    SLOT_SKIP,     /* known and not needed */
    SLOT_MATRIX,   /* packed in row groups as rows complete */
    SLOT_PERMUTED, /* as SLOT_MATRIX, but rows go back to half-rotation order: staged whole */
    SLOT_VECTOR,   /* floats */
    SLOT_ROWS      /* kept as in the file */
} slot_kind;

struct pvl_slot {
    slot_kind kind;
    pvl_dtype type;
    pvl_matrix *matrix;
    float *vector;
    pvl_rows *rows;
    size_t heads; /* SLOT_PERMUTED */
    size_t row_count, row_elems, row_bytes;
    size_t rows_done;
    uint64_t bytes_done;
};

/* ---- names ---- */

/* Shapes in terms of the configuration. */
typedef enum dim {
    DIM_ONE,
    V_D,
    V_3D,
    V_F,
    V_PATCH,
    V_ROWS,
    V_4D,
    V_P,
    L_H,
    L_Q,
    L_K,
    L_QKV,
    L_F,
    L_UP,
    L_V,
    L_HALF
} dim;

static size_t dim_size(const pvl_model *m, dim d) {
    const pvl_vit_config *v = &m->vit;
    const pvl_llm_config *l = &m->llm;
    switch (d) {
    case DIM_ONE:
        return 1;
    case V_D:
        return v->hidden;
    case V_3D:
        return 3 * v->hidden;
    case V_F:
        return v->ffn;
    case V_PATCH:
        return 3 * v->patch_size * v->patch_size;
    case V_ROWS:
        return v->grid * v->grid + 1;
    case V_4D:
        return 4 * v->hidden;
    case V_P:
        return v->projection;
    case L_H:
        return l->hidden;
    case L_Q:
        return l->heads * l->head_dim;
    case L_K:
        return l->kv_heads * l->head_dim;
    case L_QKV:
        return (l->heads + 2 * l->kv_heads) * l->head_dim;
    case L_F:
        return l->ffn;
    case L_UP:
        return l->fused_up ? 2 * l->ffn : l->ffn;
    case L_V:
        return l->vocabulary;
    case L_HALF:
        return l->head_dim / 2;
    }
    return 0;
}

typedef enum place { IN_MODEL, IN_VIT_BLOCK, IN_LLM_BLOCK } place;

typedef struct binding {
    const char *name; /* for blocks: what follows "blk.N." */
    place where;
    slot_kind kind;
    size_t offset; /* of the pvl_linear's matrix, the float pointer or the pvl_rows */
    dim rows, cols;
} binding;

#define MATRIX(name, where, type, field, rows, cols)                                               \
    {name ".weight", where, SLOT_MATRIX, offsetof(type, field.w), rows, cols}, {                   \
        name ".bias", where, SLOT_VECTOR, offsetof(type, field.bias), DIM_ONE, rows                \
    }
#define VECTOR(name, where, type, field, rows, cols)                                               \
    {name, where, SLOT_VECTOR, offsetof(type, field), rows, cols}

static const binding bindings[] = {
    VECTOR("v.class_embd", IN_MODEL, pvl_model, class_embedding, DIM_ONE, V_D),
    VECTOR("v.position_embd.weight", IN_MODEL, pvl_model, positions, V_ROWS, V_D),
    MATRIX("v.patch_embd", IN_MODEL, pvl_model, patch, V_D, V_PATCH),
    VECTOR("mm.model.mlp.0.weight", IN_MODEL, pvl_model, mm_norm_w, DIM_ONE, V_4D),
    VECTOR("mm.model.mlp.0.bias", IN_MODEL, pvl_model, mm_norm_b, DIM_ONE, V_4D),
    MATRIX("mm.model.mlp.1", IN_MODEL, pvl_model, mm1, V_P, V_4D),
    MATRIX("mm.model.mlp.3", IN_MODEL, pvl_model, mm3, V_P, V_P),

    VECTOR("ln1.weight", IN_VIT_BLOCK, pvl_vit_block, ln1_w, DIM_ONE, V_D),
    VECTOR("ln1.bias", IN_VIT_BLOCK, pvl_vit_block, ln1_b, DIM_ONE, V_D),
    VECTOR("ln2.weight", IN_VIT_BLOCK, pvl_vit_block, ln2_w, DIM_ONE, V_D),
    VECTOR("ln2.bias", IN_VIT_BLOCK, pvl_vit_block, ln2_b, DIM_ONE, V_D),
    VECTOR("ls1.weight", IN_VIT_BLOCK, pvl_vit_block, ls1, DIM_ONE, V_D),
    VECTOR("ls2.weight", IN_VIT_BLOCK, pvl_vit_block, ls2, DIM_ONE, V_D),
    MATRIX("attn_q", IN_VIT_BLOCK, pvl_vit_block, q, V_D, V_D),
    MATRIX("attn_k", IN_VIT_BLOCK, pvl_vit_block, k, V_D, V_D),
    MATRIX("attn_v", IN_VIT_BLOCK, pvl_vit_block, v, V_D, V_D),
    MATRIX("attn_qkv", IN_VIT_BLOCK, pvl_vit_block, qkv, V_3D, V_D),
    MATRIX("attn_out", IN_VIT_BLOCK, pvl_vit_block, out, V_D, V_D),
    MATRIX("ffn_up", IN_VIT_BLOCK, pvl_vit_block, up, V_F, V_D),
    MATRIX("ffn_down", IN_VIT_BLOCK, pvl_vit_block, down, V_D, V_F),

    {"token_embd.weight", IN_MODEL, SLOT_ROWS, offsetof(pvl_model, embedding), L_V, L_H},
    MATRIX("output", IN_MODEL, pvl_model, head, L_V, L_H),
    VECTOR("output_norm.weight", IN_MODEL, pvl_model, final_norm, DIM_ONE, L_H),
    VECTOR("rope_factors_long.weight", IN_MODEL, pvl_model, rope_long, DIM_ONE, L_HALF),
    VECTOR("rope_factors_short.weight", IN_MODEL, pvl_model, rope_short, DIM_ONE, L_HALF),

    VECTOR("attn_norm.weight", IN_LLM_BLOCK, pvl_llm_block, attn_norm, DIM_ONE, L_H),
    VECTOR("ffn_norm.weight", IN_LLM_BLOCK, pvl_llm_block, ffn_norm, DIM_ONE, L_H),
    MATRIX("attn_q", IN_LLM_BLOCK, pvl_llm_block, q, L_Q, L_H),
    MATRIX("attn_k", IN_LLM_BLOCK, pvl_llm_block, k, L_K, L_H),
    MATRIX("attn_v", IN_LLM_BLOCK, pvl_llm_block, v, L_K, L_H),
    MATRIX("attn_qkv", IN_LLM_BLOCK, pvl_llm_block, qkv, L_QKV, L_H),
    MATRIX("attn_output", IN_LLM_BLOCK, pvl_llm_block, out, L_H, L_Q),
    MATRIX("ffn_gate", IN_LLM_BLOCK, pvl_llm_block, gate, L_F, L_H),
    MATRIX("ffn_up", IN_LLM_BLOCK, pvl_llm_block, up, L_UP, L_H),
    MATRIX("ffn_down", IN_LLM_BLOCK, pvl_llm_block, down, L_H, L_F),
};
enum { BINDINGS = sizeof bindings / sizeof bindings[0] };

/* Splits "PREFIXblk.N.rest"; false when `name` is not of that form or N is not below `layers`. */
static bool block_name(const char *name, const char *prefix, size_t layers, size_t *index,
                       const char **rest) {
    size_t len = strlen(prefix);
    if (strncmp(name, prefix, len) != 0)
        return false;
    const char *p = name + len;
    size_t n = 0;
    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9' && n <= PVL_MAX_LAYERS; p++)
        n = n * 10 + (size_t)(*p - '0');
    if (*p != '.' || n >= layers)
        return false;
    *index = n;
    *rest = p + 1;
    return true;
}

static const binding *find_binding(pvl_model *m, const char *name, unsigned char **base,
                                   bool *is_qk) {
    size_t index = 0;
    const char *rest = name;
    place where = IN_MODEL;
    *base = (unsigned char *)m;
    if (m->has_vision && block_name(name, "v.blk.", m->vit.layers, &index, &rest)) {
        where = IN_VIT_BLOCK;
        *base = (unsigned char *)&m->vit_blocks[index];
    } else if (m->has_llm && block_name(name, "blk.", m->llm.layers, &index, &rest)) {
        where = IN_LLM_BLOCK;
        *base = (unsigned char *)&m->llm_blocks[index];
    }
    *is_qk = where == IN_LLM_BLOCK &&
             (strncmp(rest, "attn_q.", 7) == 0 || strncmp(rest, "attn_k.", 7) == 0);
    for (size_t i = 0; i < BINDINGS; i++) {
        if (bindings[i].where != where || strcmp(bindings[i].name, rest) != 0)
            continue;
        bool vision = where == IN_VIT_BLOCK || rest[0] == 'v' || rest[0] == 'm';
        return (vision ? m->has_vision : m->has_llm) ? &bindings[i] : NULL;
    }
    return NULL;
}

/* ---- placing ---- */

static pvl_status allocate(pvl_model *m, void **out, size_t bytes, const char *what,
                           pvl_error *err) {
    m->weight_bytes += bytes;
    *out = NULL;
    return m->plan_only ? PVL_OK : pvl_malloc(m->allocator, out, bytes, 1, what, err);
}

static pvl_status wrong_shape(const pvl_model *m, const pvl_gguf_tensor *t, size_t rows,
                              size_t cols, pvl_error *err) {
    return pvl_fail(
        err, PVL_E_MODEL,
        "%s: tensor %s has shape {%zu, %zu, %zu, %zu}, expected %zu rows of %zu: the file does not "
        "match its own configuration, convert it again.",
        m->file_name, t->name, t->ne[0], t->ne[1], t->ne[2], t->ne[3], rows, cols);
}

/* Dimensions may be grouped differently (patch_embd is {14, 14, 3, D}): what counts is that a row
 * is contiguous. */
static bool shape_fits(const pvl_gguf_tensor *t, size_t rows, size_t cols) {
    if ((uint64_t)t->elements != (uint64_t)rows * cols)
        return false;
    size_t inner = 1;
    for (int i = 0; i < PVL_GGUF_MAX_DIMS && inner < cols; i++)
        inner *= t->ne[i];
    return inner == cols || rows == 1 || cols == 1;
}

static pvl_status place_tensor(pvl_model *m, pvl_slot *slot, const pvl_gguf_tensor *t,
                               pvl_error *err) {
    unsigned char *base;
    bool is_qk;
    const binding *b = find_binding(m, t->name, &base, &is_qk);
    if (!b) {
        /* Written by some converters, and never used with a stored list of frequencies. */
        if (strcmp(t->name, "rope_freqs.weight") == 0)
            return PVL_OK;
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: tensor %s is not part of this architecture: the file is of another "
                        "model, or of a variant "
                        "that cannot be run.",
                        m->file_name, t->name);
    }
    size_t rows = dim_size(m, b->rows), cols = dim_size(m, b->cols);
    if (!shape_fits(t, rows, cols))
        return wrong_shape(m, t, rows, cols, err);
    slot->kind = b->kind;
    slot->type = t->type;
    slot->row_count = rows;
    slot->row_elems = cols;
    if (!pvl_dtype_bytes(&slot->row_bytes, t->type, cols)) {
        return pvl_fail(
            err, PVL_E_MODEL,
            "%s: tensor %s of type %s has rows of %zu, which is not a whole number of blocks.",
            m->file_name, t->name, pvl_dtype_name(t->type), cols);
    }
    void *p;
    m->parameters += (uint64_t)rows * cols;
    switch (b->kind) {
    case SLOT_MATRIX: {
        pvl_matrix *w = (pvl_matrix *)(void *)(base + b->offset);
        if (w->rows)
            break; /* a second file brings it again */
        PVL_TRY(pvl_matrix_plan(w, t->type, rows, cols, m->f32, err));
        PVL_TRY(allocate(m, &p, w->bytes, t->name, err));
        w->data = p;
        slot->matrix = w;
        if (is_qk && m->llm.interleaved_qk) {
            slot->kind = SLOT_PERMUTED;
            slot->heads = rows / m->llm.head_dim;
        }
        return PVL_OK;
    }
    case SLOT_VECTOR: {
        float **v = (float **)(void *)(base + b->offset);
        if (*v)
            break;
        size_t bytes;
        if (!pvl_size_mul3(&bytes, rows, cols, sizeof(float)))
            return wrong_shape(m, t, rows, cols, err);
        PVL_TRY(allocate(m, &p, bytes, t->name, err));
        /* While planning there is no memory, but "is it there" must still hold. */
        static float planned;
        *v = m->plan_only ? &planned : p;
        slot->vector = *v;
        return PVL_OK;
    }
    case SLOT_ROWS: {
        pvl_rows *r = (pvl_rows *)(void *)(base + b->offset);
        if (r->rows)
            break;
        *r = (pvl_rows){.type = t->type, .rows = rows, .cols = cols, .row_bytes = slot->row_bytes};
        PVL_TRY(allocate(m, &p, rows * slot->row_bytes, t->name, err));
        r->data = p;
        slot->rows = r;
        return PVL_OK;
    }
    case SLOT_SKIP:
    case SLOT_PERMUTED:
        return PVL_OK;
    }
    return pvl_fail(err, PVL_E_MODEL,
                    "%s: tensor %s was already in an earlier file: load one model at a time.",
                    m->file_name, t->name);
}

/* Bytes that are collected before rows are packed: whole row groups, or the whole tensor where rows
 * change places. */
static size_t stage_capacity(const pvl_slot *slot) {
    size_t total;
    if (!pvl_size_mul(&total, slot->row_count, slot->row_bytes))
        return SIZE_MAX;
    if (slot->kind == SLOT_SKIP || slot->kind == SLOT_ROWS)
        return 0;
    if (slot->kind == SLOT_PERMUTED || slot->kind == SLOT_VECTOR)
        return total;
    size_t group = slot->row_bytes * PVL_ROW_GROUP;
    size_t bytes = group > STAGE_BYTES ? group : STAGE_BYTES - STAGE_BYTES % group;
    return bytes < total ? bytes : total;
}

void pvl_model_init(pvl_model *m, const pvl_allocator *a, pvl_team *team, bool f32,
                    bool plan_only) {
    *m = (pvl_model){.allocator = a,
                     .team = team,
                     .members = pvl_team_size(team),
                     .f32 = f32,
                     .plan_only = plan_only};
}

static pvl_status read_configs(pvl_model *m, const pvl_gguf *g, pvl_error *err) {
    void *p;
    if (pvl_config_has_vision(g)) {
        if (m->has_vision) {
            return pvl_fail(err, PVL_E_MODEL,
                            "%s: the model has a vision part already: load one mmproj file.",
                            m->file_name);
        }
        PVL_TRY(pvl_vit_config_read(&m->vit, g, m->allocator, err));
        PVL_TRY(pvl_calloc(m->allocator, &p, m->vit.layers, sizeof *m->vit_blocks,
                           "the list of vision blocks", err));
        m->vit_blocks = p;
        m->has_vision = true;
    }
    if (pvl_config_has_llm(g)) {
        if (m->has_llm) {
            return pvl_fail(err, PVL_E_MODEL,
                            "%s: the model has a language model already: load one at a time.",
                            m->file_name);
        }
        PVL_TRY(pvl_llm_config_read(&m->llm, g, err));
        PVL_TRY(pvl_calloc(m->allocator, &p, m->llm.layers, sizeof *m->llm_blocks,
                           "the list of decoder blocks", err));
        m->llm_blocks = p;
        m->has_llm = true;
    }
    return PVL_OK;
}

pvl_status pvl_model_header(pvl_model *m, const char *name, const pvl_gguf *g, pvl_error *err) {
    m->file_name = name;
    PVL_TRY(read_configs(m, g, err));
    size_t count = pvl_gguf_tensor_count(g);
    void *p;
    PVL_TRY(pvl_calloc(m->allocator, &p, count, sizeof *m->slots, "the list of tensors", err));
    m->slots = p;
    m->slot_count = count;
    size_t stage = 0;
    for (size_t i = 0; i < count; i++) {
        PVL_TRY(place_tensor(m, &m->slots[i], pvl_gguf_tensor_at(g, i), err));
        size_t need = stage_capacity(&m->slots[i]);
        /* Rows that change places are gathered behind the tensor, a group for each member. */
        size_t gathered = 0;
        if (m->slots[i].kind == SLOT_PERMUTED &&
            (!pvl_size_mul(&gathered, (size_t)m->members * PVL_ROW_GROUP, m->slots[i].row_bytes) ||
             !pvl_size_add(&need, need, gathered)))
            need = SIZE_MAX; /* which no allocation grants */
        if (need > stage)
            stage = need;
    }
    if (stage > m->staging_peak)
        m->staging_peak = stage;
    m->stage_fill = 0;
    m->stage_bytes = stage;
    if (!m->plan_only && stage) {
        PVL_TRY(pvl_malloc(m->allocator, &p, stage, 1, "the loading buffer", err));
        m->stage = p;
    }
    return PVL_OK;
}

/* ---- data ---- */

struct pack_job {
    const pvl_matrix *matrix;
    const unsigned char *src;
    size_t first, count, row_bytes;
};

static void pack_range(void *arg, size_t begin, size_t end, int member) {
    (void)member;
    const struct pack_job *job = arg;
    size_t row = begin * PVL_ROW_GROUP, stop = end * PVL_ROW_GROUP;
    if (stop > job->count)
        stop = job->count;
    pvl_matrix_set_rows(job->matrix, job->first + row, stop - row, job->src + row * job->row_bytes);
}

static void pack(const pvl_model *m, const pvl_matrix *w, const unsigned char *src, size_t first,
                 size_t count, size_t row_bytes) {
    struct pack_job job = {w, src, first, count, row_bytes};
    pvl_parallel_for(m->team, (count + PVL_ROW_GROUP - 1) / PVL_ROW_GROUP, 2, pack_range, &job);
}

struct permuted_job {
    const pvl_slot *slot;
    unsigned char *stage;
};

/* File row 2i+s of a head is row s*(d/2)+i of the half-rotation order. */
static void pack_permuted_range(void *arg, size_t begin, size_t end, int member) {
    const struct permuted_job *job = arg;
    const pvl_slot *slot = job->slot;
    size_t d = slot->row_count / slot->heads, half = d / 2, bytes = slot->row_bytes;
    unsigned char *group = job->stage + (slot->row_count + (size_t)member * PVL_ROW_GROUP) * bytes;
    for (size_t first = begin * PVL_ROW_GROUP; first < end * PVL_ROW_GROUP;
         first += PVL_ROW_GROUP) {
        size_t rest = slot->row_count - first, count = rest < PVL_ROW_GROUP ? rest : PVL_ROW_GROUP;
        for (size_t j = 0; j < count; j++) {
            size_t row = first + j, head = row / d, s = row % d / half, i = row % half;
            memcpy(group + j * bytes, job->stage + (head * d + 2 * i + s) * bytes, bytes);
        }
        pvl_matrix_set_rows(slot->matrix, first, count, group);
    }
}

static void pack_permuted(const pvl_model *m, const pvl_slot *slot) {
    struct permuted_job job = {slot, m->stage};
    pvl_parallel_for(m->team, (slot->row_count + PVL_ROW_GROUP - 1) / PVL_ROW_GROUP, 2,
                     pack_permuted_range, &job);
}

static void drain(pvl_model *m, pvl_slot *slot) {
    size_t rows = m->stage_fill / slot->row_bytes;
    if (slot->kind == SLOT_MATRIX) {
        pack(m, slot->matrix, m->stage, slot->rows_done, rows, slot->row_bytes);
    } else if (slot->kind == SLOT_PERMUTED) {
        pack_permuted(m, slot);
    } else if (slot->kind == SLOT_VECTOR) {
        for (size_t r = 0; r < rows; r++) {
            pvl_dtype_dequantize(slot->type, slot->vector + r * slot->row_elems,
                                 m->stage + r * slot->row_bytes, slot->row_elems);
        }
    }
    slot->rows_done += rows;
    m->stage_fill = 0;
}

/* Packs what it can of the next n bytes without staging them; returns how many those are. */
static size_t pack_direct(pvl_model *m, pvl_slot *slot, const unsigned char *src, size_t n) {
    size_t group = slot->row_bytes * PVL_ROW_GROUP;
    if (slot->kind != SLOT_MATRIX || n < DIRECT_BYTES || m->stage_fill % group != 0)
        return 0;
    drain(m, slot);
    size_t rows = n / slot->row_bytes;
    if (slot->rows_done + rows < slot->row_count)
        rows -= rows % PVL_ROW_GROUP;
    pack(m, slot->matrix, src, slot->rows_done, rows, slot->row_bytes);
    slot->rows_done += rows;
    slot->bytes_done += rows * slot->row_bytes;
    return rows * slot->row_bytes;
}

/* How many of n bytes go to the stage next: to the end of a group of rows where packing goes on
 * without it behind them. */
static size_t stage_room(const pvl_model *m, const pvl_slot *slot, size_t n) {
    size_t group = slot->row_bytes * PVL_ROW_GROUP, over = m->stage_fill % group;
    size_t room = stage_capacity(slot) - m->stage_fill;
    if (slot->kind == SLOT_MATRIX && over && n >= DIRECT_BYTES + group && group - over < room)
        room = group - over;
    return n < room ? n : room;
}

pvl_status pvl_model_data(pvl_model *m, const pvl_gguf *g, size_t index, const void *bytes,
                          size_t n, pvl_error *err) {
    (void)g;
    if (m->plan_only || index >= m->slot_count) {
        return pvl_fail(err, PVL_E_INTERNAL, "Tensor data came where none was planned.");
    }
    pvl_slot *slot = &m->slots[index];
    if (slot->kind == SLOT_SKIP)
        return PVL_OK;
    size_t total = slot->row_count * slot->row_bytes; /* fits: it was allocated */
    if (n > total - slot->bytes_done)
        return pvl_fail(err, PVL_E_INTERNAL, "More tensor data came than was planned.");
    if (slot->kind == SLOT_ROWS) {
        memcpy(slot->rows->data + slot->bytes_done, bytes, n);
        slot->bytes_done += n;
        return PVL_OK;
    }
    size_t capacity = stage_capacity(slot);
    const unsigned char *src = bytes;
    while (n) {
        size_t take = pack_direct(m, slot, src, n);
        if (!take) {
            take = stage_room(m, slot, n);
            memcpy(m->stage + m->stage_fill, src, take);
            m->stage_fill += take;
            slot->bytes_done += take;
            if (m->stage_fill == capacity || slot->bytes_done == total)
                drain(m, slot);
        }
        src += take;
        n -= take;
    }
    return PVL_OK;
}

void pvl_model_end_file(pvl_model *m) {
    pvl_free(m->allocator, m->stage);
    pvl_free(m->allocator, m->slots);
    m->stage = NULL;
    m->slots = NULL;
    m->slot_count = 0;
    m->stage_bytes = m->stage_fill = 0;
}

/* ---- the whole ---- */

static pvl_status missing(const char *name, int block, pvl_error *err) {
    char full[96];
    if (block < 0) {
        snprintf(full, sizeof full, "%s", name);
    } else {
        snprintf(full, sizeof full, name, block);
    }
    return pvl_fail(err, PVL_E_MODEL,
                    "Tensor %s is missing: the model is incomplete, load all of its files.", full);
}

static pvl_status check_vision(const pvl_model *m, pvl_error *err) {
    if (!m->class_embedding)
        return missing("v.class_embd", -1, err);
    if (!m->positions)
        return missing("v.position_embd.weight", -1, err);
    if (!m->patch.w.rows)
        return missing("v.patch_embd.weight", -1, err);
    if (!m->patch.bias)
        return missing("v.patch_embd.bias", -1, err);
    if (!m->mm_norm_w || !m->mm_norm_b)
        return missing("mm.model.mlp.0.weight or .bias", -1, err);
    if (!m->mm1.w.rows || !m->mm1.bias)
        return missing("mm.model.mlp.1.weight or .bias", -1, err);
    if (!m->mm3.w.rows || !m->mm3.bias)
        return missing("mm.model.mlp.3.weight or .bias", -1, err);
    for (size_t i = 0; i < m->vit.layers; i++) {
        const pvl_vit_block *b = &m->vit_blocks[i];
        int n = (int)i;
        if (!b->ln1_w || !b->ln1_b)
            return missing("v.blk.%d.ln1.weight or .bias", n, err);
        if (!b->ln2_w || !b->ln2_b)
            return missing("v.blk.%d.ln2.weight or .bias", n, err);
        if (!b->ls1)
            return missing("v.blk.%d.ls1.weight", n, err);
        if (!b->ls2)
            return missing("v.blk.%d.ls2.weight", n, err);
        if (b->qkv.w.rows) {
            if (!b->qkv.bias)
                return missing("v.blk.%d.attn_qkv.bias", n, err);
        } else {
            if (!b->q.w.rows || !b->q.bias)
                return missing("v.blk.%d.attn_q.weight or .bias", n, err);
            if (!b->k.w.rows || !b->k.bias)
                return missing("v.blk.%d.attn_k.weight or .bias", n, err);
            if (!b->v.w.rows || !b->v.bias)
                return missing("v.blk.%d.attn_v.weight or .bias", n, err);
        }
        if (!b->out.w.rows || !b->out.bias)
            return missing("v.blk.%d.attn_out.weight or .bias", n, err);
        if (!b->up.w.rows || !b->up.bias)
            return missing("v.blk.%d.ffn_up.weight or .bias", n, err);
        if (!b->down.w.rows || !b->down.bias)
            return missing("v.blk.%d.ffn_down.weight or .bias", n, err);
    }
    return PVL_OK;
}

static pvl_status check_llm(const pvl_model *m, pvl_error *err) {
    const pvl_llm_config *l = &m->llm;
    if (!m->embedding.rows)
        return missing("token_embd.weight", -1, err);
    if (!m->final_norm)
        return missing("output_norm.weight", -1, err);
    if (l->original_context && l->dynamic_factor <= 0.0f && (!m->rope_long || !m->rope_short)) {
        return missing("rope_factors_long.weight or rope_factors_short.weight", -1, err);
    }
    for (size_t i = 0; i < l->layers; i++) {
        const pvl_llm_block *b = &m->llm_blocks[i];
        int n = (int)i;
        if (!b->attn_norm)
            return missing("blk.%d.attn_norm.weight", n, err);
        if (!b->ffn_norm)
            return missing("blk.%d.ffn_norm.weight", n, err);
        if (!b->qkv.w.rows) {
            if (!b->q.w.rows)
                return missing("blk.%d.attn_q.weight", n, err);
            if (!b->k.w.rows)
                return missing("blk.%d.attn_k.weight", n, err);
            if (!b->v.w.rows)
                return missing("blk.%d.attn_v.weight", n, err);
            if (l->qkv_bias && !b->q.bias)
                return missing("blk.%d.attn_q.bias", n, err);
            if (l->qkv_bias && !b->k.bias)
                return missing("blk.%d.attn_k.bias", n, err);
            if (l->qkv_bias && !b->v.bias)
                return missing("blk.%d.attn_v.bias", n, err);
        }
        if (!b->out.w.rows)
            return missing("blk.%d.attn_output.weight", n, err);
        if (!l->fused_up && !b->gate.w.rows)
            return missing("blk.%d.ffn_gate.weight", n, err);
        if (!b->up.w.rows)
            return missing("blk.%d.ffn_up.weight", n, err);
        if (!b->down.w.rows)
            return missing("blk.%d.ffn_down.weight", n, err);
    }
    return PVL_OK;
}

/* Without an output matrix the head is the embedding (tied): packed once more for the products, the
 * rows stay for lookup only where packing would lose something. */
static pvl_status tie_head(pvl_model *m, pvl_error *err) {
    pvl_rows *e = &m->embedding;
    PVL_TRY(pvl_matrix_plan(&m->head.w, e->type, e->rows, e->cols, m->f32, err));
    void *p;
    PVL_TRY(allocate(m, &p, m->head.w.bytes, "the output matrix", err));
    m->head.w.data = p;
    m->tied = true;
    if (!m->plan_only)
        pack(m, &m->head.w, e->data, 0, e->rows, e->row_bytes);
    return PVL_OK;
}

pvl_status pvl_model_finish(pvl_model *m, pvl_error *err) {
    if (!m->has_llm) {
        return pvl_fail(err, PVL_E_MODEL,
                        "There is no language model in the files: an mmproj file needs the model "
                        "it belongs to.");
    }
    PVL_TRY(check_llm(m, err));
    if (m->has_vision) {
        PVL_TRY(check_vision(m, err));
        if (m->vit.projection != m->llm.hidden) {
            return pvl_fail(err, PVL_E_MODEL,
                            "The vision part makes tokens of width %zu, the language model wants "
                            "%zu: the files belong to "
                            "different models.",
                            m->vit.projection, m->llm.hidden);
        }
    }
    if (!m->head.w.rows)
        PVL_TRY(tie_head(m, err));
    return PVL_OK;
}

static void free_linear(pvl_model *m, pvl_linear *l) {
    pvl_free(m->allocator, l->w.data);
    pvl_free(m->allocator, l->bias);
}

void pvl_model_free(pvl_model *m) {
    pvl_model_end_file(m);
    if (m->plan_only) { /* vectors point at a placeholder, matrices at nothing */
        pvl_free(m->allocator, m->vit_blocks);
        pvl_free(m->allocator, m->llm_blocks);
        *m = (pvl_model){0};
        return;
    }
    for (size_t i = 0; m->vit_blocks && i < m->vit.layers; i++) {
        pvl_vit_block *b = &m->vit_blocks[i];
        float *vectors[] = {b->ln1_w, b->ln1_b, b->ln2_w, b->ln2_b, b->ls1, b->ls2};
        for (size_t k = 0; k < sizeof vectors / sizeof vectors[0]; k++)
            pvl_free(m->allocator, vectors[k]);
        pvl_linear *linears[] = {&b->q, &b->k, &b->v, &b->qkv, &b->out, &b->up, &b->down};
        for (size_t k = 0; k < sizeof linears / sizeof linears[0]; k++)
            free_linear(m, linears[k]);
    }
    for (size_t i = 0; m->llm_blocks && i < m->llm.layers; i++) {
        pvl_llm_block *b = &m->llm_blocks[i];
        pvl_free(m->allocator, b->attn_norm);
        pvl_free(m->allocator, b->ffn_norm);
        pvl_linear *linears[] = {&b->q, &b->k, &b->v, &b->qkv, &b->out, &b->gate, &b->up, &b->down};
        for (size_t k = 0; k < sizeof linears / sizeof linears[0]; k++)
            free_linear(m, linears[k]);
    }
    pvl_linear *linears[] = {&m->patch, &m->mm1, &m->mm3, &m->head};
    for (size_t k = 0; k < sizeof linears / sizeof linears[0]; k++)
        free_linear(m, linears[k]);
    float *vectors[] = {m->class_embedding, m->positions, m->mm_norm_w, m->mm_norm_b,
                        m->final_norm,      m->rope_long, m->rope_short};
    for (size_t k = 0; k < sizeof vectors / sizeof vectors[0]; k++)
        pvl_free(m->allocator, vectors[k]);
    pvl_free(m->allocator, m->embedding.data);
    pvl_free(m->allocator, m->vit_blocks);
    pvl_free(m->allocator, m->llm_blocks);
    *m = (pvl_model){0};
}

void pvl_model_embed(const pvl_model *m, float *out, size_t id) {
    const pvl_rows *e = &m->embedding;
    pvl_dtype_dequantize(e->type, out, e->data + id * e->row_bytes, e->cols);
}
