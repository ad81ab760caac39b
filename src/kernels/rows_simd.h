/* Rows of the SIMD sets. Include once per file, after defining NAME(op). */
#include <math.h>

#include "kernels/math_simd.h"
#include "kernels/private.h"

/* x * Phi(x), Phi the normal distribution function: GELU with erf. ln(Phi / (1 - Phi)) / x is
 * smooth in x^2, so a polynomial and the logistic function give GELU with an absolute error below
 * 6e-7 (fitted on |x| <= 5.6, behind which Phi is 0 or 1 to 1e-8). */
PVL_INLINE v128_t gelu4(v128_t x) {
    const v128_t edge = PVL_LANES(gelu.edge);
    v128_t u = wasm_f32x4_pmin(edge, wasm_f32x4_pmax(wasm_f32x4_neg(edge), x)),
           t = wasm_f32x4_mul(u, u);
    v128_t p = madd4(t, PVL_LANES(gelu.p[0]), PVL_LANES(gelu.p[1]));
    p = madd4(p, t, PVL_LANES(gelu.p[2]));
    p = madd4(p, t, PVL_LANES(gelu.p[3]));
    p = madd4(p, t, PVL_LANES(gelu.p[4]));
    p = madd4(p, t, PVL_LANES(gelu.p[5]));
    p = madd4(p, t, PVL_LANES(gelu.p[6]));
    v128_t e = exp4(wasm_f32x4_mul(wasm_f32x4_neg(u), p));
    return wasm_f32x4_div(x, wasm_f32x4_add(e, PVL_LANES(exp.one)));
}

/* Four outputs at column c; NaN passes through every step. */
PVL_INLINE v128_t finish4(v128_t v, const pvl_epilogue *e, size_t c, const float *y) {
    if (e->bias)
        v = wasm_f32x4_add(v, wasm_v128_load(e->bias + c));
    if (e->activation == PVL_ACT_GELU_ERF)
        v = gelu4(v);
    if (e->scale)
        v = wasm_f32x4_mul(v, wasm_v128_load(e->scale + c));
    if (e->add)
        v = wasm_f32x4_add(v, wasm_v128_load(y));
    return v;
}

void NAME(finish)(float *y, size_t y_stride, const float *tile, size_t rows, size_t cols,
                  const pvl_epilogue *e) {
    for (size_t r = 0; r < rows; r++, y += y_stride, tile += PVL_PANEL) {
        if (cols == PVL_PANEL) {
            wasm_v128_store(y, finish4(wasm_v128_load(tile), e, 0, y));
            wasm_v128_store(y + 4, finish4(wasm_v128_load(tile + 4), e, 4, y + 4));
            continue;
        }
        /* The matrix's last columns: what lies behind them in y is someone else's. */
        _Alignas(16) float part[PVL_PANEL] = {0};
        memcpy(part, y, cols * sizeof *y);
        wasm_v128_store(part, finish4(wasm_v128_load(tile), e, 0, part));
        if (cols > 4)
            wasm_v128_store(part + 4, finish4(wasm_v128_load(tile + 4), e, 4, part + 4));
        memcpy(y, part, cols * sizeof *y);
    }
}

void NAME(quantize_f32)(unsigned char *out, const float *x, size_t n) {
    memcpy(out, x, n * sizeof *x);
}

/* As the scalar quantizers, bit for bit: see there. Returns the scale and its inverse for integers
 * up to `top`. */
PVL_INLINE float scale_for(float *inverse, const float *x, size_t n, float top) {
    v128_t most = wasm_i32x4_splat(0), mask = wasm_i32x4_splat(0x7FFFFFFF);
    for (size_t i = 0; i < n; i += 4)
        most = wasm_i32x4_max(most, wasm_v128_and(wasm_v128_load(x + i), mask));
    most = wasm_i32x4_max(most, wasm_i32x4_shuffle(most, most, 2, 3, 0, 1));
    most = wasm_i32x4_max(most, wasm_i32x4_shuffle(most, most, 1, 0, 3, 2));
    float amax = wasm_f32x4_extract_lane(most, 0);
    if (amax < 1e-30f) {
        *inverse = 0;
        return 0;
    }
    *inverse = top / amax;
    return amax * (1.0f / top);
}

PVL_INLINE v128_t nearest4(const float *x, v128_t inverse, int32_t offset) {
    v128_t v = wasm_f32x4_add(wasm_f32x4_mul(wasm_v128_load(x), inverse), PVL_LANES(exp.round));
    return wasm_i32x4_sub(v, wasm_i32x4_splat(0x4B400000 - offset));
}

PVL_INLINE void offset_block(unsigned char *d, unsigned char *q, const float *x, size_t n) {
    float inverse, scale = scale_for(&inverse, x, n, 63.0f);
    v128_t by = wasm_f32x4_splat(inverse);
    memcpy(d, &scale, sizeof scale);
    for (size_t i = 0; i < n; i += 16) {
        v128_t a = wasm_i16x8_narrow_i32x4(nearest4(x + i, by, PVL_Q8_ZERO),
                                           nearest4(x + i + 4, by, PVL_Q8_ZERO));
        v128_t b = wasm_i16x8_narrow_i32x4(nearest4(x + i + 8, by, PVL_Q8_ZERO),
                                           nearest4(x + i + 12, by, PVL_Q8_ZERO));
        wasm_v128_store(q + i, wasm_i8x16_narrow_i16x8(a, b));
    }
}

void NAME(quantize_q8)(unsigned char *out, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += 32, out += 40) {
        memset(out + 4, 0, 4);
        offset_block(out, out + 8, x + i, 32);
    }
}

void NAME(quantize_q8w)(unsigned char *out, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += 64, out += 68)
        offset_block(out, out + 4, x + i, 64);
}

void NAME(quantize_q4)(unsigned char *out, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += 32, out += 40) {
        float inverse, scale = scale_for(&inverse, x + i, 32, 127.0f);
        v128_t by = wasm_f32x4_splat(inverse), sum = wasm_i32x4_splat(0);
        for (size_t j = 0; j < 32; j += 16) {
            v128_t a = nearest4(x + i + j, by, 0), b = nearest4(x + i + j + 4, by, 0);
            v128_t c = nearest4(x + i + j + 8, by, 0), d = nearest4(x + i + j + 12, by, 0);
            sum = wasm_i32x4_add(sum, wasm_i32x4_add(wasm_i32x4_add(a, b), wasm_i32x4_add(c, d)));
            wasm_v128_store(out + 8 + j, wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(a, b),
                                                                 wasm_i16x8_narrow_i32x4(c, d)));
        }
        sum = wasm_i32x4_add(sum, wasm_i32x4_shuffle(sum, sum, 2, 3, 0, 1));
        sum = wasm_i32x4_add(sum, wasm_i32x4_shuffle(sum, sum, 1, 0, 3, 2));
        float c = -8.0f * scale * (float)wasm_i32x4_extract_lane(sum, 0);
        memcpy(out, &scale, sizeof scale);
        memcpy(out + 4, &c, sizeof c);
    }
}

/* Sixteen partial sums keep the rounding error of long rows small. */
PVL_INLINE float squares(const float *x, size_t k, float mean) {
    v128_t m = wasm_f32x4_splat(mean), sum[4];
    for (size_t l = 0; l < 4; l++)
        sum[l] = wasm_f32x4_splat(0);
    size_t i = 0;
    for (; i + 16 <= k; i += 16) {
        for (size_t l = 0; l < 4; l++) {
            v128_t v = wasm_f32x4_sub(wasm_v128_load(x + i + 4 * l), m);
            sum[l] = madd4(v, v, sum[l]);
        }
    }
    float rest = 0;
    for (; i < k; i++)
        rest += (x[i] - mean) * (x[i] - mean);
    return rest +
           sum4(wasm_f32x4_add(wasm_f32x4_add(sum[0], sum[1]), wasm_f32x4_add(sum[2], sum[3])));
}

void NAME(layer_stats)(float stats[2], const float *x, size_t k, float eps) {
    v128_t sum[4];
    for (size_t l = 0; l < 4; l++)
        sum[l] = wasm_f32x4_splat(0);
    size_t i = 0;
    for (; i + 16 <= k; i += 16) {
        for (size_t l = 0; l < 4; l++)
            sum[l] = wasm_f32x4_add(sum[l], wasm_v128_load(x + i + 4 * l));
    }
    float rest = 0;
    for (; i < k; i++)
        rest += x[i];
    rest += sum4(wasm_f32x4_add(wasm_f32x4_add(sum[0], sum[1]), wasm_f32x4_add(sum[2], sum[3])));
    stats[0] = rest / (float)k;
    stats[1] = 1.0f / sqrtf(squares(x, k, stats[0]) / (float)k + eps);
}

void NAME(rms_stats)(float stats[2], const float *x, size_t k, float eps) {
    stats[0] = 0;
    stats[1] = 1.0f / sqrtf(squares(x, k, 0) / (float)k + eps);
}

void NAME(normalize)(float *y, const float *x, const float stats[2], const float *w, const float *b,
                     size_t n) {
    v128_t mean = wasm_f32x4_splat(stats[0]), by = wasm_f32x4_splat(stats[1]);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        v128_t v = wasm_f32x4_mul(wasm_f32x4_sub(wasm_v128_load(x + i), mean), by);
        v = b ? madd4(v, wasm_v128_load(w + i), wasm_v128_load(b + i))
              : wasm_f32x4_mul(v, wasm_v128_load(w + i));
        wasm_v128_store(y + i, v);
    }
    for (; i < n; i++) {
        float v = (x[i] - stats[0]) * stats[1] * w[i];
        y[i] = b ? v + b[i] : v;
    }
}

PVL_INLINE v128_t silu_mul4(v128_t x, v128_t x2) {
    v128_t e = exp4(wasm_f32x4_neg(x));
    return wasm_f32x4_mul(wasm_f32x4_div(x, wasm_f32x4_add(e, PVL_LANES(exp.one))), x2);
}

void NAME(silu_mul)(float *y, const float *x, const float *x2, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        wasm_v128_store(y + i, silu_mul4(wasm_v128_load(x + i), wasm_v128_load(x2 + i)));
    if (i < n) { /* inputs may be read past their end, y must not be written there */
        _Alignas(16) float last[4];
        wasm_v128_store(last, silu_mul4(wasm_v128_load(x + i), wasm_v128_load(x2 + i)));
        memcpy(y + i, last, (n - i) * sizeof *y);
    }
}

void NAME(rotate)(float *u, const float *cos_, const float *sin_, size_t d) {
    size_t half = d / 2;
    for (size_t i = 0; i < half; i += 4) { /* d is a multiple of 8 */
        v128_t a = wasm_v128_load(u + i), b = wasm_v128_load(u + half + i);
        v128_t c = wasm_v128_load(cos_ + i), s = wasm_v128_load(sin_ + i);
        wasm_v128_store(u + i, wasm_f32x4_sub(wasm_f32x4_mul(a, c), wasm_f32x4_mul(b, s)));
        wasm_v128_store(u + half + i, wasm_f32x4_add(wasm_f32x4_mul(b, c), wasm_f32x4_mul(a, s)));
    }
}
