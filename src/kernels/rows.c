#include <math.h>

#include "kernels/private.h"

struct rope {
    const pvl_kernels *kernels;
    float *x;
    size_t stride, heads, head_dim;
    const float *cos_, *sin_;
};

static void rope_rows(void *arg, size_t begin, size_t end, int member) {
    const struct rope *r = arg;
    (void)member;
    for (size_t i = begin; i < end; i++) {
        size_t half = r->head_dim / 2;
        for (size_t h = 0; h < r->heads; h++) {
            r->kernels->rotate(r->x + i * r->stride + h * r->head_dim, r->cos_ + i * half,
                               r->sin_ + i * half, r->head_dim);
        }
    }
}

void pvl_rope(const pvl_compute *c, float *x, size_t stride, size_t n, size_t heads,
              size_t head_dim, const float *cos_, const float *sin_) {
    struct rope r = {.kernels = c->kernels,
                     .x = x,
                     .stride = stride,
                     .heads = heads,
                     .head_dim = head_dim,
                     .cos_ = cos_,
                     .sin_ = sin_};
    pvl_parallel_for(c->team, n, 16, rope_rows, &r);
}

ptrdiff_t pvl_argmax(const float *x, size_t n) {
    ptrdiff_t best = -1;
    for (size_t i = 0; i < n; i++) {
        if (isfinite(x[i]) && (best < 0 || x[i] > x[best]))
            best = (ptrdiff_t)i;
    }
    return best;
}
