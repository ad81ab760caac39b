/* Preparing the left operand of a product: source and quantization in one pass over each row. */
#include <string.h>

#include "kernels/private.h"

static size_t act_row_bytes(size_t k, pvl_packing packing) {
    const pvl_packing_traits *t = &pvl_packings[packing];
    return (k / t->block * t->act_bytes + PVL_ALIGN - 1) / PVL_ALIGN * PVL_ALIGN;
}

size_t pvl_act_bytes(size_t n, size_t k, pvl_form form) {
    /* Twice, because a product whose matrix has another quantized form converts the rows: see
     * matmul.c. The narrow rows are the larger ones. */
    size_t row =
        form == PVL_FORM_F32 ? act_row_bytes(k, PVL_PACK_F32) : 2 * act_row_bytes(k, PVL_PACK_Q8);
    size_t bytes;
    return pvl_size_mul(&bytes, n, row) ? bytes : SIZE_MAX; /* which no allocation grants */
}

struct prepare {
    const pvl_compute *c;
    const pvl_input *in;
    unsigned char *out;
    size_t row_bytes, k;
    pvl_packing packing;
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

static void prepare_rows(void *arg, size_t begin, size_t end, int member) {
    const struct prepare *p = arg;
    const pvl_kernels *kernels = p->c->kernels;
    const pvl_packing_traits *t = &pvl_packings[p->packing];
    (void)member;
    for (size_t r = begin; r < end; r++) {
        float stats[2] = {0, 0};
        row_stats(kernels, stats, p->in, r, p->k);
        unsigned char *out = p->out + r * p->row_bytes;
        for (size_t at = 0; at < p->k; at += PVL_CHUNK) {
            size_t n = p->k - at < PVL_CHUNK ? p->k - at : PVL_CHUNK;
            unsigned char *to = out + at / t->block * t->act_bytes;
            if (p->in->source == PVL_SRC_PLAIN) {
                kernels->quantize[p->packing](to, p->in->x + r * p->in->stride + at, n);
            } else {
                _Alignas(16) float chunk[PVL_CHUNK];
                apply_source(kernels, chunk, p->in, r, at, n, stats);
                kernels->quantize[p->packing](to, chunk, n);
            }
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
    *act = (pvl_act){
        .n = n, .k = k, .form = form, .data = c->scratch, .row_bytes = act_row_bytes(k, packing)};
    struct prepare p = {.c = c,
                        .in = input,
                        .out = act->data,
                        .row_bytes = act->row_bytes,
                        .k = k,
                        .packing = packing};
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
