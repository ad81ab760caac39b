#include "model/llm.h"

#include <math.h>
#include <string.h>

bool pvl_kvcache_bytes(size_t *out, const pvl_llm_config *config, pvl_cache_type type,
                       size_t capacity) {
    size_t layer = pvl_kv_bytes(type, config->kv_heads, config->head_dim, capacity);
    pvl_carve carve = {0};
    for (size_t i = 0; i < config->layers; i++)
        pvl_carve_take(&carve, layer, 1);
    *out = carve.used;
    return layer != 0 && !carve.overflow;
}

pvl_status pvl_kvcache_new(pvl_kvcache *out, const pvl_allocator *a, const pvl_llm_config *config,
                           pvl_cache_type type, size_t capacity, pvl_error *err) {
    *out = (pvl_kvcache){.allocator = a, .layer_count = config->layers, .capacity = capacity};
    size_t bytes;
    if (!pvl_kvcache_bytes(&bytes, config, type, capacity)) {
        return pvl_fail(err, PVL_E_MEMORY,
                        "A context of %zu tokens does not fit this machine's address space: choose "
                        "a shorter one.",
                        capacity);
    }
    void *layers, *data;
    PVL_TRY(pvl_calloc(a, &layers, config->layers, sizeof *out->layers, "the list of cache layers",
                       err));
    out->layers = layers;
    pvl_status status = pvl_calloc(a, &data, bytes, 1, "the keys and values of the context", err);
    if (status != PVL_OK) {
        pvl_kvcache_free(out);
        return status;
    }
    out->data = data;
    out->bytes = bytes;
    pvl_carve carve = {.base = out->data};
    size_t layer = pvl_kv_bytes(type, config->kv_heads, config->head_dim, capacity);
    for (size_t i = 0; i < config->layers; i++) {
        out->layers[i] = (pvl_kv){.type = type,
                                  .heads = config->kv_heads,
                                  .head_dim = config->head_dim,
                                  .capacity = capacity,
                                  .data = pvl_carve_take(&carve, layer, 1)};
    }
    return PVL_OK;
}

void pvl_kvcache_free(pvl_kvcache *cache) {
    pvl_free(cache->allocator, cache->data);
    pvl_free(cache->allocator, cache->layers);
    *cache = (pvl_kvcache){0};
}

struct buffers {
    pvl_compute compute;
    float *qkv;         /* [n, Q + 2K] */
    float *mixed;       /* [n, Q] */
    float *gate_up;     /* [n, 2F] */
    float *cos_, *sin_; /* [n, head_dim/2] */
};

static size_t max_size(size_t a, size_t b) {
    return a > b ? a : b;
}

static void lay_out(struct buffers *b, pvl_carve *carve, const pvl_model *m, size_t rows,
                    int members) {
    const pvl_llm_config *l = &m->llm;
    size_t q = l->heads * l->head_dim, k = l->kv_heads * l->head_dim;
    size_t scratch = pvl_attention_scratch((size_t)members, l->heads, l->head_dim);
    scratch = max_size(scratch, pvl_operand_bytes(m, rows, l->hidden));
    scratch = max_size(scratch, pvl_operand_bytes(m, rows, q));
    scratch = max_size(scratch, pvl_operand_bytes(m, rows, l->ffn));
    b->compute.scratch = pvl_carve_take(carve, scratch, 1);
    b->compute.scratch_bytes = scratch;
    b->qkv = pvl_carve_f32(carve, rows, q + 2 * k);
    b->mixed = pvl_carve_f32(carve, rows, q);
    b->gate_up = pvl_carve_f32(carve, rows, 2 * l->ffn);
    b->cos_ = pvl_carve_f32(carve, rows, l->head_dim / 2);
    b->sin_ = pvl_carve_f32(carve, rows, l->head_dim / 2);
}

bool pvl_llm_workspace(size_t *out, const pvl_model *m, size_t rows, int members) {
    struct buffers b;
    pvl_carve carve = {0};
    lay_out(&b, &carve, m, rows, members);
    *out = carve.used;
    return !carve.overflow;
}

size_t pvl_llm_rotation(const pvl_llm_config *config, size_t length) {
    if (!config->original_context || length <= config->original_context)
        return 0;
    return config->dynamic_factor > 0.0f ? length : 1; /* Phi-3's long list is one for all */
}

static float rope_base(const pvl_llm_config *l, size_t rotation) {
    if (!rotation || l->dynamic_factor <= 0.0f)
        return l->rope_theta;
    double f = (double)l->dynamic_factor, d = (double)l->head_dim;
    double grown = f * (double)rotation / (double)l->original_context - (f - 1.0);
    return (float)((double)l->rope_theta * pow(grown, d / (d - 2.0)));
}

/* The reference computes frequencies and angles in float32; doubles would drift from it at large
 * positions. */
static void rotations(const struct buffers *b, const pvl_model *m, const pvl_llm_step *step) {
    const pvl_llm_config *l = &m->llm;
    const float *factors = step->rotation ? m->rope_long : m->rope_short;
    size_t half = l->head_dim / 2;
    float theta = rope_base(l, step->rotation);
    for (size_t i = 0; i < half; i++) {
        float base = powf(theta, (float)(2 * i) / (float)l->head_dim);
        float inv_freq = 1.0f / (factors ? factors[i] * base : base);
        for (size_t r = 0; r < step->n; r++) {
            float angle = (float)(step->position + r) * inv_freq;
            b->cos_[r * half + i] = cosf(angle) * l->rope_attn_factor;
            b->sin_[r * half + i] = sinf(angle) * l->rope_attn_factor;
        }
    }
}

static const pvl_epilogue plain = {0}, residual = {.add = true};

/* Attention of one layer, added onto step->rows from row `from` on. */
static void attention(const struct buffers *b, const pvl_model *m, const pvl_llm_block *w,
                      const pvl_kv *kv, const pvl_llm_step *step, size_t from) {
    const pvl_llm_config *l = &m->llm;
    const pvl_compute *c = &b->compute;
    size_t q = l->heads * l->head_dim, k = l->kv_heads * l->head_dim, stride = q + 2 * k,
           n = step->n;
    pvl_operand x = {.n = n, .k = l->hidden};
    x.input = (pvl_input){.source = PVL_SRC_RMS_NORM,
                          .x = step->rows,
                          .stride = l->hidden,
                          .weight = w->attn_norm,
                          .eps = l->rms_eps};
    if (w->qkv.w.rows) {
        pvl_linear_apply(c, b->qkv, stride, &x, &w->qkv, plain);
    } else {
        pvl_linear_apply(c, b->qkv, stride, &x, &w->q, plain);
        pvl_linear_apply(c, b->qkv + q, stride, &x, &w->k, plain);
        pvl_linear_apply(c, b->qkv + q + k, stride, &x, &w->v, plain);
    }
    /* q and k lie side by side: one call rotates both. */
    pvl_rope(c, b->qkv, stride, n, l->heads + l->kv_heads, l->head_dim, b->cos_, b->sin_);
    pvl_kv_store(c, kv, step->position, n, b->qkv + q, b->qkv + q + k, stride);
    pvl_attention_args args = {.q = b->qkv + from * stride,
                               .q_stride = stride,
                               .heads = l->heads,
                               .kv = kv,
                               .positions = step->position + n,
                               .causal = true,
                               .scale = 1.0f / sqrtf((float)l->head_dim)};
    pvl_attention(c, b->mixed, q, &args, n - from);
    x = (pvl_operand){.input = {.x = b->mixed, .stride = q}, .n = n - from, .k = q};
    pvl_linear_apply(c, step->rows + from * l->hidden, l->hidden, &x, &w->out, residual);
}

static void feed_forward(const struct buffers *b, const pvl_model *m, const pvl_llm_block *w,
                         float *rows, size_t n) {
    const pvl_llm_config *l = &m->llm;
    const pvl_compute *c = &b->compute;
    size_t stride = 2 * l->ffn;
    pvl_operand x = {.n = n, .k = l->hidden};
    x.input = (pvl_input){.source = PVL_SRC_RMS_NORM,
                          .x = rows,
                          .stride = l->hidden,
                          .weight = w->ffn_norm,
                          .eps = l->rms_eps};
    if (l->fused_up) {
        pvl_linear_apply(c, b->gate_up, stride, &x, &w->up, plain); /* gate rows, then up rows */
    } else {
        pvl_linear_apply(c, b->gate_up, stride, &x, &w->gate, plain);
        pvl_linear_apply(c, b->gate_up + l->ffn, stride, &x, &w->up, plain);
    }
    x = (pvl_operand){.n = n, .k = l->ffn};
    x.input = (pvl_input){
        .source = PVL_SRC_SILU_MUL, .x = b->gate_up, .x2 = b->gate_up + l->ffn, .stride = stride};
    pvl_linear_apply(c, rows, l->hidden, &x, &w->down, residual);
}

pvl_status pvl_llm_forward(const pvl_run *run, const pvl_model *m, pvl_kvcache *cache,
                           const pvl_llm_step *step, pvl_error *err) {
    const pvl_llm_config *l = &m->llm;
    if (step->n == 0 || step->n > step->workspace_rows || step->position > cache->capacity ||
        step->n > cache->capacity - step->position) {
        return pvl_fail(err, PVL_E_INTERNAL,
                        "A step of %zu rows at position %zu does not fit its buffers.", step->n,
                        step->position);
    }
    struct buffers b;
    pvl_carve carve = {.base = run->workspace};
    lay_out(&b, &carve, m, step->workspace_rows, pvl_team_size(run->team));
    b.compute.kernels = run->kernels;
    b.compute.team = run->team;
    b.compute.cancel = run->cancel;

    rotations(&b, m, step);
    size_t from = 0; /* first row that is still wanted */
    for (size_t i = 0; i < l->layers; i++) {
        /* Behind the last layer's keys and values only the rows whose logits are wanted matter. */
        if (i + 1 == l->layers && step->want != PVL_LOGITS_ALL)
            from = step->n - 1;
        attention(&b, m, &m->llm_blocks[i], &cache->layers[i], step, from);
        PVL_TRY(pvl_run_check(run, err));
        if (i + 1 == l->layers && step->want == PVL_LOGITS_NONE)
            return PVL_OK;
        feed_forward(&b, m, &m->llm_blocks[i], step->rows + from * l->hidden, step->n - from);
        PVL_TRY(pvl_run_layer(run, err));
        pvl_run_probe(run, "layer", (int)i, step->rows + from * l->hidden, step->n - from,
                      l->hidden);
    }

    size_t rows = step->n - from;
    pvl_operand x = {.n = rows, .k = l->hidden};
    x.input = (pvl_input){.source = PVL_SRC_RMS_NORM,
                          .x = step->rows + from * l->hidden,
                          .stride = l->hidden,
                          .weight = m->final_norm,
                          .eps = l->rms_eps};
    if (run->probe) {
        /* gate_up is free by now; 2 ffn >= hidden is checked with the configuration. */
        pvl_apply(&b.compute, b.gate_up, l->hidden, &x.input, rows, l->hidden);
        pvl_run_probe(run, "norm", -1, b.gate_up, rows, l->hidden);
    }
    pvl_linear_apply(&b.compute, step->logits, l->vocabulary, &x, &m->head, plain);
    PVL_TRY(pvl_run_check(run, err));
    pvl_run_probe(run, "logits", -1, step->logits, rows, l->vocabulary);
    return PVL_OK;
}
