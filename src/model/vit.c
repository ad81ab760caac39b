#include "model/vit.h"

#include <math.h>
#include <string.h>

static const float projector_eps = 1e-5f;

struct buffers {
    pvl_compute compute;
    float *tokens; /* [T, D] */
    float *qkv;    /* [T, 3D] */
    float *mixed;  /* [T, D] attention output */
    float
        *wide; /* [T, F]; before the blocks: unfolded patches; after: the shuffled grid [T', 4D] */
    float *narrow; /* [T', P] projector's hidden rows */
    pvl_kv kv;
};

static size_t max_size(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Lays the buffers out in `carve`; the order is the contract between sizing and running. */
static void lay_out(struct buffers *b, pvl_carve *carve, const pvl_model *m, int members) {
    const pvl_vit_config *v = &m->vit;
    size_t patches = v->grid * v->grid, rows = patches + 1,
           patch_len = 3 * v->patch_size * v->patch_size;
    size_t scratch = pvl_attention_scratch((size_t)members, v->heads, v->head_dim);
    scratch = max_size(scratch, pvl_operand_bytes(m, patches, patch_len));
    scratch = max_size(scratch, pvl_operand_bytes(m, rows, v->hidden));
    scratch = max_size(scratch, pvl_operand_bytes(m, rows, v->ffn));
    scratch = max_size(scratch, pvl_operand_bytes(m, v->tokens, 4 * v->hidden));
    scratch = max_size(scratch, pvl_operand_bytes(m, v->tokens, v->projection));
    b->compute.scratch = pvl_carve_take(carve, scratch, 1);
    b->compute.scratch_bytes = scratch;

    b->tokens = pvl_carve_f32(carve, rows, v->hidden);
    b->qkv = pvl_carve_f32(carve, rows, 3 * v->hidden);
    b->mixed = pvl_carve_f32(carve, rows, v->hidden);
    size_t wide =
        max_size(pvl_carve_mul(carve, rows, v->ffn), pvl_carve_mul(carve, patches, patch_len));
    b->wide =
        pvl_carve_f32(carve, max_size(wide, pvl_carve_mul(carve, v->tokens, 4 * v->hidden)), 1);
    b->narrow = pvl_carve_f32(carve, v->tokens, v->projection);
    b->kv = (pvl_kv){
        .type = PVL_CACHE_F32, .heads = v->heads, .head_dim = v->head_dim, .capacity = rows};
    size_t kv_bytes = pvl_kv_bytes(b->kv.type, v->heads, v->head_dim, rows);
    if (kv_bytes == 0)
        carve->overflow = true;
    b->kv.data = pvl_carve_take(carve, kv_bytes, 1);
}

bool pvl_vit_workspace(size_t *out, const pvl_model *m, int members) {
    struct buffers b;
    pvl_carve carve = {0};
    lay_out(&b, &carve, m, members);
    *out = carve.used;
    return !carve.overflow;
}

/* patches [grid^2, 3*patch^2] from pixels [3, S, S]: the convolution's window as a row. */
static void unfold(float *patches, const float *pixels, const pvl_vit_config *v) {
    size_t side = v->image_size, p = v->patch_size;
    for (size_t gy = 0; gy < v->grid; gy++) {
        for (size_t gx = 0; gx < v->grid; gx++) {
            for (size_t c = 0; c < 3; c++) {
                for (size_t y = 0; y < p; y++) {
                    const float *src = pixels + (c * side + gy * p + y) * side + gx * p;
                    memcpy(patches, src, p * sizeof *patches);
                    patches += p;
                }
            }
        }
    }
}

static void block(const struct buffers *b, const pvl_model *m, const pvl_vit_block *w) {
    const pvl_vit_config *v = &m->vit;
    const pvl_compute *c = &b->compute;
    size_t rows = v->grid * v->grid + 1, d = v->hidden;

    pvl_operand x = {.n = rows, .k = d};
    x.input = (pvl_input){.source = PVL_SRC_LAYER_NORM,
                          .x = b->tokens,
                          .stride = d,
                          .weight = w->ln1_w,
                          .bias = w->ln1_b,
                          .eps = v->eps};
    if (w->qkv.w.rows) {
        pvl_linear_apply(c, b->qkv, 3 * d, &x, &w->qkv, (pvl_epilogue){0});
    } else {
        pvl_linear_apply(c, b->qkv, 3 * d, &x, &w->q, (pvl_epilogue){0});
        pvl_linear_apply(c, b->qkv + d, 3 * d, &x, &w->k, (pvl_epilogue){0});
        pvl_linear_apply(c, b->qkv + 2 * d, 3 * d, &x, &w->v, (pvl_epilogue){0});
    }
    pvl_kv_store(c, &b->kv, 0, rows, b->qkv + d, b->qkv + 2 * d, 3 * d);
    pvl_attention_args attention = {.q = b->qkv,
                                    .q_stride = 3 * d,
                                    .heads = v->heads,
                                    .kv = &b->kv,
                                    .positions = rows,
                                    .scale = 1.0f / sqrtf((float)v->head_dim)};
    pvl_attention(c, b->mixed, d, &attention, rows);
    x = (pvl_operand){.input = {.x = b->mixed, .stride = d}, .n = rows, .k = d};
    pvl_linear_apply(c, b->tokens, d, &x, &w->out, (pvl_epilogue){.add = true, .scale = w->ls1});

    x = (pvl_operand){.n = rows, .k = d};
    x.input = (pvl_input){.source = PVL_SRC_LAYER_NORM,
                          .x = b->tokens,
                          .stride = d,
                          .weight = w->ln2_w,
                          .bias = w->ln2_b,
                          .eps = v->eps};
    pvl_linear_apply(c, b->wide, v->ffn, &x, &w->up,
                     (pvl_epilogue){.activation = PVL_ACT_GELU_ERF});
    x = (pvl_operand){.input = {.x = b->wide, .stride = v->ffn}, .n = rows, .k = v->ffn};
    pvl_linear_apply(c, b->tokens, d, &x, &w->down, (pvl_epilogue){.add = true, .scale = w->ls2});
}

static void embed_patches(const struct buffers *b, const pvl_model *m, const float *pixels) {
    const pvl_vit_config *v = &m->vit;
    size_t d = v->hidden, patches = v->grid * v->grid, len = 3 * v->patch_size * v->patch_size;
    unfold(b->wide, pixels, v);
    /* Positions first, products added on top: the patch rows then need no second pass. */
    memcpy(b->tokens, m->positions, (patches + 1) * d * sizeof *b->tokens);
    for (size_t i = 0; i < d; i++)
        b->tokens[i] += m->class_embedding[i];
    pvl_operand x = {.input = {.x = b->wide, .stride = len}, .n = patches, .k = len};
    pvl_linear_apply(&b->compute, b->tokens + d, d, &x, &m->patch, (pvl_epilogue){.add = true});
}

/* out[y][x][(2dy+dx)D + c] = grid[2y+dy][2x+dx][c] */
static void shuffle(float *out, const float *grid, const pvl_vit_config *v) {
    size_t d = v->hidden, half = v->grid / 2;
    for (size_t y = 0; y < half; y++) {
        for (size_t x = 0; x < half; x++) {
            for (size_t k = 0; k < 4; k++, out += d) {
                size_t row = 2 * y + k / 2, col = 2 * x + k % 2;
                memcpy(out, grid + (row * v->grid + col) * d, d * sizeof *out);
            }
        }
    }
}

static void project(const struct buffers *b, const pvl_model *m, float *out) {
    const pvl_vit_config *v = &m->vit;
    size_t wide = 4 * v->hidden;
    pvl_operand x = {.n = v->tokens, .k = wide};
    x.input = (pvl_input){.source = PVL_SRC_LAYER_NORM,
                          .x = b->wide,
                          .stride = wide,
                          .weight = m->mm_norm_w,
                          .bias = m->mm_norm_b,
                          .eps = projector_eps};
    pvl_linear_apply(&b->compute, b->narrow, v->projection, &x, &m->mm1,
                     (pvl_epilogue){.activation = PVL_ACT_GELU_ERF});
    x = (pvl_operand){
        .input = {.x = b->narrow, .stride = v->projection}, .n = v->tokens, .k = v->projection};
    pvl_linear_apply(&b->compute, out, v->projection, &x, &m->mm3, (pvl_epilogue){0});
}

pvl_status pvl_vit_encode(const pvl_run *run, const pvl_model *m, float *out, const float *pixels,
                          pvl_error *err) {
    const pvl_vit_config *v = &m->vit;
    size_t rows = v->grid * v->grid + 1;
    struct buffers b;
    pvl_carve carve = {.base = run->workspace};
    lay_out(&b, &carve, m, pvl_team_size(run->team));
    b.compute.kernels = run->kernels;
    b.compute.team = run->team;
    b.compute.cancel = run->cancel;

    embed_patches(&b, m, pixels);
    PVL_TRY(pvl_run_check(run, err));
    pvl_run_probe(run, "patches", -1, b.tokens, rows, v->hidden);
    for (size_t i = 0; i < v->layers; i++) {
        block(&b, m, &m->vit_blocks[i]);
        PVL_TRY(pvl_run_layer(run, err));
        pvl_run_probe(run, "vit", (int)i, b.tokens, rows, v->hidden);
    }
    shuffle(b.wide, b.tokens + v->hidden, v); /* the class token, row 0, is left out */
    pvl_run_probe(run, "shuffle", -1, b.wide, v->tokens, 4 * v->hidden);
    project(&b, m, out);
    PVL_TRY(pvl_run_check(run, err));
    pvl_run_probe(run, "projector", -1, out, v->tokens, v->projection);
    return PVL_OK;
}
