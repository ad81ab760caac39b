#include "tools/hf_tensors.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME = 160 };

typedef struct mapper {
    pvl_mappings *out;
    const pvl_hf_config *config;
    pvl_checkpoint *checkpoint;
    pvl_error *err;
} mapper;

/* ---- finding tensors ---- */

/* The names under which the three forms of a checkpoint know a part of the language model. */
static pvl_st_tensor *find_language(const mapper *m, char name[NAME], const char *rest) {
    pvl_st_tensor *t;
    snprintf(name, NAME, "%s%s", m->config->bare ? "" : "language_model.", rest);
    t = pvl_checkpoint_find(m->checkpoint, name);
    if (t || !m->config->native)
        return t;
    /* Newer transformers: model.language_model.layers.0..., and lm_head.weight by itself. */
    char other[NAME + 32];
    if (strncmp(rest, "model.", 6) == 0)
        snprintf(other, sizeof other, "model.language_model.%s", rest + 6);
    else
        snprintf(other, sizeof other, "%s", rest);
    return pvl_checkpoint_find(m->checkpoint, other);
}

static pvl_st_tensor *find_vision(const mapper *m, char name[NAME], const char *rest) {
    snprintf(name, NAME, "%s", rest);
    pvl_st_tensor *t = pvl_checkpoint_find(m->checkpoint, name);
    if (t || !m->config->native)
        return t;
    char other[NAME + 32];
    snprintf(other, sizeof other, "model.%s", rest);
    return pvl_checkpoint_find(m->checkpoint, other);
}

static void shape_text(char *out, size_t capacity, const uint64_t *shape, size_t dims) {
    size_t at = 0;
    out[0] = 0;
    for (size_t i = 0; i < dims && at < capacity; i++) {
        int n = snprintf(out + at, capacity - at, "%s%llu", i ? ", " : "",
                         (unsigned long long)shape[i]);
        at += n > 0 ? (size_t)n : 0;
    }
}

static pvl_status check_source(const mapper *m, pvl_st_tensor *t, const char *name,
                               const uint64_t *shape, size_t dims) {
    char found[120], expected[120];
    shape_text(expected, sizeof expected, shape, dims);
    if (!t)
        return pvl_fail(
            m->err, PVL_E_MODEL,
            "%s has no tensor %s [%s]: the checkpoint is incomplete or of another model than its "
            "config.json says.",
            pvl_checkpoint_path(m->checkpoint), name, expected);
    const char *file = pvl_checkpoint_file(m->checkpoint, t);
    if (t->dtype == PVL_ST_OTHER)
        return pvl_fail(m->err, PVL_E_UNSUPPORTED,
                        "%s: tensor %s is %s, but weights must be BF16, F16 or F32.", file, t->name,
                        t->dtype_name);
    bool same = t->dims == dims;
    for (size_t i = 0; same && i < dims; i++)
        same = t->shape[i] == shape[i];
    if (same) {
        t->used = 1;
        return PVL_OK;
    }
    shape_text(found, sizeof found, t->shape, t->dims);
    return pvl_fail(m->err, PVL_E_MODEL, "%s: tensor %s is [%s], but config.json makes it [%s].",
                    file, t->name, found, expected);
}

/* ---- adding mappings ---- */

static pvl_mapping *add(const mapper *m, const char *format, va_list args) {
    pvl_mappings *list = m->out;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 256;
        pvl_mapping *items = realloc(list->items, capacity * sizeof *items);
        if (!items)
            return NULL;
        list->items = items;
        list->capacity = capacity;
    }
    pvl_mapping *item = &list->items[list->count++];
    memset(item, 0, sizeof *item);
    vsnprintf(item->name, sizeof item->name, format, args);
    return item;
}

static PVL_PRINTF(2, 3) pvl_mapping *add_named(const mapper *m, const char *format, ...) {
    va_list args;
    va_start(args, format);
    pvl_mapping *item = add(m, format, args);
    va_end(args);
    return item;
}

/* A tensor taken whole: ne is the shape reversed. */
static pvl_status whole(const mapper *m, pvl_mapping *item, pvl_st_tensor *t, const char *name,
                        const uint64_t *shape, size_t dims) {
    if (!item)
        return pvl_fail(m->err, PVL_E_MEMORY, "Not enough memory for the list of tensors.");
    PVL_TRY(check_source(m, t, name, shape, dims));
    item->source = t;
    item->dims = (uint32_t)dims;
    size_t rows = 1;
    for (size_t i = 0; i < PVL_GGUF_MAX_DIMS; i++) {
        item->ne[i] = i < dims ? (size_t)shape[dims - 1 - i] : 1;
        rows *= i > 0 ? item->ne[i] : 1;
    }
    item->units = 1;
    item->unit_rows = rows;
    item->per_group = 1;
    return PVL_OK;
}

/* Some rows of a matrix that the caller has checked. */
static pvl_status part(const mapper *m, pvl_mapping *item, const pvl_st_tensor *t, size_t units,
                       size_t unit_rows, size_t base, size_t per_group, size_t group_stride) {
    if (!item)
        return pvl_fail(m->err, PVL_E_MEMORY, "Not enough memory for the list of tensors.");
    item->source = t;
    if (t->dims == 1) { /* a bias, cut like rows: here one row is the cut */
        item->dims = 1;
        item->ne[0] = units * unit_rows;
        item->units = item->unit_rows = item->per_group = 1;
        item->base = base / item->ne[0];
    } else {
        item->dims = 2;
        item->ne[0] = (size_t)t->shape[1];
        item->ne[1] = units * unit_rows;
        item->units = units;
        item->unit_rows = unit_rows;
        item->base = base;
        item->per_group = per_group;
        item->group_stride = group_stride;
    }
    for (size_t i = item->dims; i < PVL_GGUF_MAX_DIMS; i++)
        item->ne[i] = 1;
    return PVL_OK;
}

/* GGUF name, checkpoint name behind the prefix, shape. */
static pvl_status language(const mapper *m, const char *gguf, const char *rest, size_t rows,
                           size_t columns) {
    char name[NAME];
    uint64_t shape[2] = {rows, columns};
    pvl_st_tensor *t = find_language(m, name, rest);
    return whole(m, add_named(m, "%s", gguf), t, name, shape, columns ? 2 : 1);
}

/* The same in block i: both names continue "blk.I." and "model.layers.I.". */
static pvl_status layer(const mapper *m, size_t i, const char *gguf, const char *rest, size_t rows,
                        size_t columns) {
    char to[NAME], from[NAME];
    snprintf(to, sizeof to, "blk.%zu.%s", i, gguf);
    snprintf(from, sizeof from, "model.layers.%zu.%s", i, rest);
    return language(m, to, from, rows, columns);
}

static pvl_status interleaved_layer(const mapper *m, size_t i, const char *gguf, const char *rest,
                                    size_t heads) {
    const pvl_hf_config *c = m->config;
    PVL_TRY(layer(m, i, gguf, rest, heads * c->head_dim, c->hidden));
    pvl_mapping *item = &m->out->items[m->out->count - 1];
    item->units = heads;
    item->unit_rows = c->head_dim;
    item->group_stride = c->head_dim;
    item->interleave = true;
    return PVL_OK;
}

/* ---- language models ---- */

static pvl_status qwen2_layer(const mapper *m, size_t i) {
    const pvl_hf_config *c = m->config;
    size_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    PVL_TRY(layer(m, i, "attn_norm.weight", "input_layernorm.weight", c->hidden, 0));
    PVL_TRY(layer(m, i, "attn_q.weight", "self_attn.q_proj.weight", q, c->hidden));
    PVL_TRY(layer(m, i, "attn_q.bias", "self_attn.q_proj.bias", q, 0));
    PVL_TRY(layer(m, i, "attn_k.weight", "self_attn.k_proj.weight", kv, c->hidden));
    PVL_TRY(layer(m, i, "attn_k.bias", "self_attn.k_proj.bias", kv, 0));
    PVL_TRY(layer(m, i, "attn_v.weight", "self_attn.v_proj.weight", kv, c->hidden));
    PVL_TRY(layer(m, i, "attn_v.bias", "self_attn.v_proj.bias", kv, 0));
    PVL_TRY(layer(m, i, "attn_output.weight", "self_attn.o_proj.weight", c->hidden, q));
    PVL_TRY(layer(m, i, "ffn_norm.weight", "post_attention_layernorm.weight", c->hidden, 0));
    PVL_TRY(layer(m, i, "ffn_gate.weight", "mlp.gate_proj.weight", c->ffn, c->hidden));
    PVL_TRY(layer(m, i, "ffn_up.weight", "mlp.up_proj.weight", c->ffn, c->hidden));
    return layer(m, i, "ffn_down.weight", "mlp.down_proj.weight", c->hidden, c->ffn);
}

/* InternLM2 in transformers' form: rows in half rotation, which GGUF wants interleaved. */
static pvl_status llama_layer(const mapper *m, size_t i) {
    const pvl_hf_config *c = m->config;
    size_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    PVL_TRY(layer(m, i, "attn_norm.weight", "input_layernorm.weight", c->hidden, 0));
    PVL_TRY(interleaved_layer(m, i, "attn_q.weight", "self_attn.q_proj.weight", c->heads));
    PVL_TRY(interleaved_layer(m, i, "attn_k.weight", "self_attn.k_proj.weight", c->kv_heads));
    PVL_TRY(layer(m, i, "attn_v.weight", "self_attn.v_proj.weight", kv, c->hidden));
    PVL_TRY(layer(m, i, "attn_output.weight", "self_attn.o_proj.weight", c->hidden, q));
    PVL_TRY(layer(m, i, "ffn_norm.weight", "post_attention_layernorm.weight", c->hidden, 0));
    PVL_TRY(layer(m, i, "ffn_gate.weight", "mlp.gate_proj.weight", c->ffn, c->hidden));
    PVL_TRY(layer(m, i, "ffn_up.weight", "mlp.up_proj.weight", c->ffn, c->hidden));
    return layer(m, i, "ffn_down.weight", "mlp.down_proj.weight", c->hidden, c->ffn);
}

static pvl_status internlm2_layer(const mapper *m, size_t i) {
    const pvl_hf_config *c = m->config;
    size_t hd = c->head_dim, groups = c->kv_heads, queries = c->heads / groups,
           stride = (queries + 2) * hd;
    char name[NAME], rest[NAME];
    uint64_t shape[2] = {groups * stride, c->hidden};
    PVL_TRY(layer(m, i, "attn_norm.weight", "attention_norm.weight", c->hidden, 0));
    snprintf(rest, sizeof rest, "model.layers.%zu.attention.wqkv.weight", i);
    pvl_st_tensor *fused = find_language(m, name, rest);
    PVL_TRY(check_source(m, fused, name, shape, 2));
    PVL_TRY(
        part(m, add_named(m, "blk.%zu.attn_q.weight", i), fused, c->heads, hd, 0, queries, stride));
    m->out->items[m->out->count - 1].interleave = true;
    PVL_TRY(part(m, add_named(m, "blk.%zu.attn_k.weight", i), fused, groups, hd, queries * hd, 1,
                 stride));
    m->out->items[m->out->count - 1].interleave = true;
    PVL_TRY(part(m, add_named(m, "blk.%zu.attn_v.weight", i), fused, groups, hd, (queries + 1) * hd,
                 1, stride));
    PVL_TRY(layer(m, i, "attn_output.weight", "attention.wo.weight", c->hidden, c->heads * hd));
    PVL_TRY(layer(m, i, "ffn_norm.weight", "ffn_norm.weight", c->hidden, 0));
    PVL_TRY(layer(m, i, "ffn_gate.weight", "feed_forward.w1.weight", c->ffn, c->hidden));
    PVL_TRY(layer(m, i, "ffn_up.weight", "feed_forward.w3.weight", c->ffn, c->hidden));
    return layer(m, i, "ffn_down.weight", "feed_forward.w2.weight", c->hidden, c->ffn);
}

static pvl_status phi3_layer(const mapper *m, size_t i) {
    const pvl_hf_config *c = m->config;
    size_t q = c->heads * c->head_dim, kv = c->kv_heads * c->head_dim;
    PVL_TRY(layer(m, i, "attn_norm.weight", "input_layernorm.weight", c->hidden, 0));
    PVL_TRY(layer(m, i, "attn_qkv.weight", "self_attn.qkv_proj.weight", q + 2 * kv, c->hidden));
    PVL_TRY(layer(m, i, "attn_output.weight", "self_attn.o_proj.weight", c->hidden, q));
    PVL_TRY(layer(m, i, "ffn_norm.weight", "post_attention_layernorm.weight", c->hidden, 0));
    PVL_TRY(layer(m, i, "ffn_up.weight", "mlp.gate_up_proj.weight", 2 * c->ffn, c->hidden));
    return layer(m, i, "ffn_down.weight", "mlp.down_proj.weight", c->hidden, c->ffn);
}

static pvl_status factors(const mapper *m, const char *name, const float *values) {
    pvl_mapping *item = add_named(m, "%s", name);
    if (!item)
        return pvl_fail(m->err, PVL_E_MEMORY, "Not enough memory for the list of tensors.");
    item->values = values;
    item->dims = 1;
    item->ne[0] = m->config->factor_count;
    item->ne[1] = item->ne[2] = item->ne[3] = 1;
    item->units = item->unit_rows = item->per_group = 1;
    return PVL_OK;
}

pvl_status pvl_map_language(pvl_mappings *out, const pvl_hf_config *config,
                            pvl_checkpoint *checkpoint, pvl_error *err) {
    const mapper m = {out, config, checkpoint, err};
    bool internlm2 = config->arch == PVL_HF_INTERNLM2;
    char name[NAME];
    PVL_TRY(language(&m, "token_embd.weight",
                     internlm2 ? "model.tok_embeddings.weight" : "model.embed_tokens.weight",
                     config->vocabulary, config->hidden));
    if (config->factor_count) {
        PVL_TRY(factors(&m, "rope_factors_long.weight", config->long_factors));
        PVL_TRY(factors(&m, "rope_factors_short.weight", config->short_factors));
    }
    static pvl_status (*const layers[])(const mapper *, size_t) = {
        [PVL_HF_QWEN2] = qwen2_layer,
        [PVL_HF_INTERNLM2] = internlm2_layer,
        [PVL_HF_PHI3] = phi3_layer,
        [PVL_HF_LLAMA] = llama_layer,
    };
    for (size_t i = 0; i < config->layers; i++)
        PVL_TRY(layers[config->arch](&m, i));
    PVL_TRY(language(&m, "output_norm.weight", "model.norm.weight", config->hidden, 0));
    const char *output = internlm2 ? "output.weight" : "lm_head.weight";
    /* A tied model has no output matrix of its own; InternVL's always have, whatever config.json
     * says. */
    if (config->tied && !find_language(&m, name, output))
        return PVL_OK;
    return language(&m, "output.weight", output, config->vocabulary, config->hidden);
}

/* ---- vision ---- */

/* shape: outermost first, ends at the first 0. */
static pvl_status vision(const mapper *m, const char *gguf, const char *rest, uint64_t a,
                         uint64_t b, uint64_t c, uint64_t d) {
    char name[NAME];
    uint64_t shape[4] = {a, b, c, d};
    size_t dims = d ? 4 : c ? 3 : b ? 2 : 1;
    pvl_st_tensor *t = find_vision(m, name, rest);
    return whole(m, add_named(m, "%s", gguf), t, name, shape, dims);
}

/* NAME.weight [rows, columns] (or [rows]) and NAME.bias [rows]. */
static pvl_status vision_pair(const mapper *m, const char *gguf, const char *rest, size_t rows,
                              size_t columns) {
    char to[NAME], from[NAME];
    snprintf(to, sizeof to, "%s.weight", gguf);
    snprintf(from, sizeof from, "%s.weight", rest);
    PVL_TRY(vision(m, to, from, rows, columns, 0, 0));
    snprintf(to, sizeof to, "%s.bias", gguf);
    snprintf(from, sizeof from, "%s.bias", rest);
    return vision(m, to, from, rows, 0, 0, 0);
}

static pvl_status vision_layer_pair(const mapper *m, size_t i, const char *gguf, const char *rest,
                                    size_t rows, size_t columns) {
    char to[NAME], from[NAME];
    snprintf(to, sizeof to, "v.blk.%zu.%s", i, gguf);
    snprintf(from, sizeof from,
             m->config->native ? "vision_tower.encoder.layer.%zu.%s"
                               : "vision_model.encoder.layers.%zu.%s",
             i, rest);
    return vision_pair(m, to, from, rows, columns);
}

/* The thirds of qkv, weight and bias. */
static pvl_status fused_attention(const mapper *m, size_t i) {
    size_t width = m->config->v_hidden;
    char name[NAME], rest[NAME];
    static const char *const kinds[] = {"weight", "bias"};
    pvl_st_tensor *fused[2];
    for (size_t k = 0; k < 2; k++) {
        uint64_t shape[2] = {3 * width, width};
        snprintf(rest, sizeof rest, "vision_model.encoder.layers.%zu.attn.qkv.%s", i, kinds[k]);
        fused[k] = find_vision(m, name, rest);
        PVL_TRY(check_source(m, fused[k], name, shape, k == 0 ? 2 : 1));
    }
    for (size_t third = 0; third < 3; third++) {
        for (size_t k = 0; k < 2; k++)
            PVL_TRY(part(m, add_named(m, "v.blk.%zu.attn_%c.%s", i, "qkv"[third], kinds[k]),
                         fused[k], 1, width, third * width, 1, 0));
    }
    return PVL_OK;
}

static pvl_status vision_layer(const mapper *m, size_t i) {
    const pvl_hf_config *c = m->config;
    size_t w = c->v_hidden;
    char to[NAME], from[NAME];
    PVL_TRY(vision_layer_pair(m, i, "ln1", c->native ? "layernorm_before" : "norm1", w, 0));
    if (c->native) {
        PVL_TRY(vision_layer_pair(m, i, "attn_q", "attention.q_proj", w, w));
        PVL_TRY(vision_layer_pair(m, i, "attn_k", "attention.k_proj", w, w));
        PVL_TRY(vision_layer_pair(m, i, "attn_v", "attention.v_proj", w, w));
    } else {
        PVL_TRY(fused_attention(m, i));
    }
    PVL_TRY(vision_layer_pair(m, i, "attn_out",
                              c->native ? "attention.projection_layer" : "attn.proj", w, w));
    for (int k = 1; k <= 2; k++) {
        snprintf(to, sizeof to, "v.blk.%zu.ls%d.weight", i, k);
        if (c->native)
            snprintf(from, sizeof from, "vision_tower.encoder.layer.%zu.lambda_%d", i, k);
        else
            snprintf(from, sizeof from, "vision_model.encoder.layers.%zu.ls%d", i, k);
        PVL_TRY(vision(m, to, from, w, 0, 0, 0));
    }
    PVL_TRY(vision_layer_pair(m, i, "ln2", c->native ? "layernorm_after" : "norm2", w, 0));
    PVL_TRY(vision_layer_pair(m, i, "ffn_up", "mlp.fc1", c->v_ffn, w));
    return vision_layer_pair(m, i, "ffn_down", "mlp.fc2", w, c->v_ffn);
}

pvl_status pvl_map_vision(pvl_mappings *out, const pvl_hf_config *config,
                          pvl_checkpoint *checkpoint, pvl_error *err) {
    const mapper m = {out, config, checkpoint, err};
    bool native = config->native;
    size_t w = config->v_hidden, side = config->image_size / config->patch_size;
    PVL_TRY(vision(&m, "v.class_embd",
                   native ? "vision_tower.embeddings.cls_token"
                          : "vision_model.embeddings.class_embedding",
                   1, 1, w, 0));
    PVL_TRY(vision(&m, "v.position_embd.weight",
                   native ? "vision_tower.embeddings.position_embeddings"
                          : "vision_model.embeddings.position_embedding",
                   1, side * side + 1, w, 0));
    const char *patch = native ? "vision_tower.embeddings.patch_embeddings.projection"
                               : "vision_model.embeddings.patch_embedding";
    char name[NAME];
    snprintf(name, sizeof name, "%s.weight", patch);
    PVL_TRY(vision(&m, "v.patch_embd.weight", name, w, 3, config->patch_size, config->patch_size));
    snprintf(name, sizeof name, "%s.bias", patch);
    PVL_TRY(vision(&m, "v.patch_embd.bias", name, w, 0, 0, 0));
    for (size_t i = 0; i < config->v_layers; i++)
        PVL_TRY(vision_layer(&m, i));
    static const char *const projector[2][3] = {{"mlp1.0", "mlp1.1", "mlp1.3"},
                                                {"multi_modal_projector.layer_norm",
                                                 "multi_modal_projector.linear_1",
                                                 "multi_modal_projector.linear_2"}};
    PVL_TRY(vision_pair(&m, "mm.model.mlp.0", projector[native][0], 4 * w, 0));
    PVL_TRY(vision_pair(&m, "mm.model.mlp.1", projector[native][1], config->hidden, 4 * w));
    return vision_pair(&m, "mm.model.mlp.3", projector[native][2], config->hidden, config->hidden);
}

pvl_status pvl_map_check_rest(pvl_checkpoint *c, pvl_error *err) {
    for (size_t i = 0; i < pvl_checkpoint_count(c); i++) {
        const pvl_st_tensor *t = pvl_checkpoint_at(c, i);
        /* Buffers that some versions saved: they follow from the configuration. */
        bool buffer = strstr(t->name, "rotary_emb.inv_freq") || strstr(t->name, ".position_ids");
        if (t->used || buffer)
            continue;
        if (strstr(t->name, "lora_"))
            return pvl_fail(err, PVL_E_UNSUPPORTED,
                            "%s: tensor %s belongs to a LoRA adapter: merge the adapter into the "
                            "model and save it first.",
                            pvl_checkpoint_file(c, t), t->name);
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: tensor %s is not part of the model that config.json describes.",
                        pvl_checkpoint_file(c, t), t->name);
    }
    return PVL_OK;
}

void pvl_mappings_free(pvl_mappings *m) {
    free(m->items);
    memset(m, 0, sizeof *m);
}
