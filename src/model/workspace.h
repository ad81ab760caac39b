/* A carver: takes aligned pieces from one block, or, with base NULL, only counts what they would
 * take. The same function that lays out buffers therefore also sizes them. */
#ifndef PVL_MODEL_WORKSPACE_H
#define PVL_MODEL_WORKSPACE_H

#include "base/alloc.h"

typedef struct pvl_carve {
    unsigned char *base; /* NULL = count only */
    size_t used;
    bool overflow; /* a size product left size_t: `used` is meaningless */
} pvl_carve;

/* count*size bytes aligned to PVL_ALIGN with PVL_OVERREAD bytes behind; NULL while counting. */
static inline void *pvl_carve_take(pvl_carve *c, size_t count, size_t size) {
    size_t bytes, end;
    if (c->overflow || !pvl_size_mul(&bytes, count, size) ||
        !pvl_size_add(&bytes, bytes, PVL_OVERREAD + PVL_ALIGN - 1)) {
        c->overflow = true;
        return NULL;
    }
    bytes -= bytes % PVL_ALIGN;
    if (!pvl_size_add(&end, c->used, bytes)) {
        c->overflow = true;
        return NULL;
    }
    void *p = c->base ? c->base + c->used : NULL;
    c->used = end;
    return p;
}

/* a*b, for sizes that are compared before one is taken. */
static inline size_t pvl_carve_mul(pvl_carve *c, size_t a, size_t b) {
    size_t n = 0;
    if (!pvl_size_mul(&n, a, b))
        c->overflow = true;
    return n;
}

static inline float *pvl_carve_f32(pvl_carve *c, size_t rows, size_t cols) {
    size_t n;
    if (!pvl_size_mul(&n, rows, cols)) {
        c->overflow = true;
        return NULL;
    }
    return pvl_carve_take(c, n, sizeof(float));
}

#endif
