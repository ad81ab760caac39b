/* Preparing the left operand of a product: source and quantization in one pass over each row. */
#include <string.h>

#include "kernels/private.h"

static size_t act_row_bytes(size_t k, pvl_packing packing) {
    const pvl_packing_traits *t = &pvl_packings[packing];
    return (k / t->block * t->act_bytes + PVL_ALIGN - 1) / PVL_ALIGN * PVL_ALIGN;
}

/* A tile of rows in 16 bits. */
static size_t wide_tile_bytes(size_t k, pvl_packing packing) {
    size_t block = pvl_packings[packing].block;
    size_t bytes = k / block * PVL_WIDE_ACT_BYTES(block);
    return (bytes + PVL_ALIGN - 1) / PVL_ALIGN * PVL_ALIGN;
}

static size_t tiles_of(size_t rows) {
    return rows / PVL_TILE_ROWS + (rows % PVL_TILE_ROWS != 0);
}

size_t pvl_act_bytes(size_t n, size_t k, pvl_form form) {
    pvl_packing packing = pvl_form_packing(form);
    /* Whether many rows are widened is the kernel set's choice; blocks of 32 are the larger ones.
     */
    bool wide = form != PVL_FORM_F32 && n > PVL_TILE_ROWS;
    size_t bytes;
    bool fits = wide ? pvl_size_mul(&bytes, tiles_of(n), wide_tile_bytes(k, PVL_PACK_Q8))
                     : pvl_size_mul(&bytes, n, act_row_bytes(k, packing));
    return fits ? bytes : SIZE_MAX; /* which no allocation grants */
}

struct prepare {
    const pvl_compute *c;
    const pvl_input *in;
    unsigned char *out;
    size_t row_bytes, k;
    pvl_packing packing;
    bool wide;
    float *y; /* pvl_apply: floats instead of blocks */
    size_t y_stride;
};

static void apply_source(const pvl_kernels *kernels, float *y, const pvl_input *in, size_t row,
                         size_t at, size_t n, const float stats[2]) {
    const float *x = in->x + row * in->stride + at;
    switch (in->source) {
    case PVL_SRC_PLAIN:
        memcpy(y, x, n * sizeof *y);
        break;
    case PVL_SRC_LAYER_NORM:
        kernels->normalize(y, x, stats, in->weight + at, in->bias + at, n);
        break;
    case PVL_SRC_RMS_NORM:
        kernels->normalize(y, x, stats, in->weight + at, NULL, n);
        break;
    case PVL_SRC_SILU_MUL:
        kernels->silu_mul(y, x, in->x2 + row * in->stride + at, n);
        break;
    }
}

static void row_stats(const pvl_kernels *kernels, float stats[2], const pvl_input *in, size_t row,
                      size_t k) {
    const float *x = in->x + row * in->stride;
    if (in->source == PVL_SRC_LAYER_NORM)
        kernels->layer_stats(stats, x, k, in->eps);
    if (in->source == PVL_SRC_RMS_NORM)
        kernels->rms_stats(stats, x, k, in->eps);
}

/* Blocks of a row into its place in a tile, at input `at`. */
static void spread_blocks(const struct prepare *p, size_t row, size_t at, const unsigned char *from,
                          size_t n) {
    const pvl_packing_traits *t = &pvl_packings[p->packing];
    size_t lane = row % PVL_TILE_ROWS, bytes = PVL_WIDE_ACT_BYTES(t->block);
    unsigned char *to = p->out + row / PVL_TILE_ROWS * p->row_bytes + at / t->block * bytes;
    int8_t zero = p->packing == PVL_PACK_Q4 ? 0 : PVL_Q8_ZERO;
    for (size_t i = 0; i < n; i += t->block, from += t->act_bytes, to += bytes) {
        memcpy(to + 4 * lane, from, 4);
        memcpy(to + 16 + 4 * lane, from + 4, 4); /* c, or what nobody reads */
        p->c->kernels->widen_row(to + 32 + 4 * lane, from + t->act_bytes - t->block, t->block,
                                 zero);
    }
}

static void prepare_rows(void *arg, size_t begin, size_t end, int member) {
    const struct prepare *p = arg;
    const pvl_kernels *kernels = p->c->kernels;
    const pvl_packing_traits *t = &pvl_packings[p->packing];
    (void)member;
    for (size_t r = begin; r < end; r++) {
        float stats[2] = {0, 0};
        row_stats(kernels, stats, p->in, r, p->k);
        for (size_t at = 0; at < p->k; at += PVL_CHUNK) {
            size_t n = p->k - at < PVL_CHUNK ? p->k - at : PVL_CHUNK;
            _Alignas(16) unsigned char blocks[2 * PVL_CHUNK];
            unsigned char *to =
                p->wide ? blocks : p->out + r * p->row_bytes + at / t->block * t->act_bytes;
            if (p->in->source == PVL_SRC_PLAIN) {
                kernels->quantize[p->packing](to, p->in->x + r * p->in->stride + at, n);
            } else {
                _Alignas(16) float chunk[PVL_CHUNK];
                apply_source(kernels, chunk, p->in, r, at, n, stats);
                kernels->quantize[p->packing](to, chunk, n);
            }
            if (p->wide)
                spread_blocks(p, r, at, blocks, n);
        }
    }
}

/* Rows that are worth handing to a thread at once. */
static size_t row_grain(size_t k) {
    return k >= 4096 ? 2 : 8192 / (k + 1) + 1;
}

void pvl_act_prepare(const pvl_compute *c, pvl_act *act, const pvl_input *input, size_t n, size_t k,
                     pvl_form form) {
    pvl_packing packing = pvl_form_packing(form);
    *act = (pvl_act){.n = n,
                     .k = k,
                     .form = form,
                     .data = c->scratch,
                     .wide = n > PVL_TILE_ROWS && c->kernels->wide[packing]};
    act->row_bytes = act->wide ? wide_tile_bytes(k, packing) : act_row_bytes(k, packing);
    if (act->wide && n % PVL_TILE_ROWS != 0)
        memset(act->data + n / PVL_TILE_ROWS * act->row_bytes, 0, act->row_bytes);
    struct prepare p = {.c = c,
                        .in = input,
                        .out = act->data,
                        .row_bytes = act->row_bytes,
                        .k = k,
                        .packing = packing,
                        .wide = act->wide};
    pvl_parallel_for(c->team, n, row_grain(k), prepare_rows, &p);
}

static void apply_rows(void *arg, size_t begin, size_t end, int member) {
    const struct prepare *p = arg;
    (void)member;
    for (size_t r = begin; r < end; r++) {
        float stats[2] = {0, 0};
        row_stats(p->c->kernels, stats, p->in, r, p->k);
        apply_source(p->c->kernels, p->y + r * p->y_stride, p->in, r, 0, p->k, stats);
    }
}

void pvl_apply(const pvl_compute *c, float *y, size_t y_stride, const pvl_input *input, size_t n,
               size_t k) {
    struct prepare p = {.c = c, .in = input, .y = y, .y_stride = y_stride, .k = k};
    pvl_parallel_for(c->team, n, row_grain(k), apply_rows, &p);
}
