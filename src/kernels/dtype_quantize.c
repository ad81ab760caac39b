/* Floats to blocks. The simple types round as ggml's reference does; the K types and IQ4_NL search.
 *
 * The search, for a group of values x with weights w: try several step sizes near the one that the
 * largest value suggests, round the values to integers q with each, solve for the scale (and
 * minimum) that fits x to q best in the weighted least squares sense, keep the best. Large values
 * get more weight, since they matter more in a product. */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "kernels/blocks.h"
#include "kernels/dtype.h"

/* v cut to lo..hi and toward zero; NaN gives lo. */
static int cut(float v, int lo, int hi) {
    if (!(v > (float)lo))
        return lo;
    return v >= (float)hi ? hi : (int)v;
}

/* To the nearest, halves up. */
static int nearest(float v, int lo, int hi) {
    return cut(floorf(v + 0.5f), lo, hi);
}

static float inverse(float v) {
    return v != 0.0f ? 1.0f / v : 0.0f;
}

/* The value of largest magnitude, the first such, with its sign. */
static float extreme(const float *x, int n) {
    float amax = 0, max = 0;
    for (int j = 0; j < n; j++) {
        if (fabsf(x[j]) > amax) {
            amax = fabsf(x[j]);
            max = x[j];
        }
    }
    return max;
}

static void range(const float *x, int n, float *lo, float *hi) {
    *lo = *hi = x[0];
    for (int j = 1; j < n; j++) {
        if (x[j] < *lo)
            *lo = x[j];
        if (x[j] > *hi)
            *hi = x[j];
    }
}

/* ---- simple types: quants use the scale before it is rounded to half, as in the reference ---- */

static void to_q4_0(void *out, const float *x) {
    pvl_block_q4_0 b;
    float d = extreme(x, PVL_BLOCK) / -8.0f, id = inverse(d);
    b.d = pvl_f32_to_f16(d);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        int q0 = cut(x[j] * id + 8.5f, 0, 15), q1 = cut(x[j + 16] * id + 8.5f, 0, 15);
        b.qs[j] = (uint8_t)(q0 | q1 << 4);
    }
    memcpy(out, &b, sizeof b);
}

static void to_q4_1(void *out, const float *x) {
    pvl_block_q4_1 b;
    float lo, hi;
    range(x, PVL_BLOCK, &lo, &hi);
    float d = (hi - lo) / 15.0f, id = inverse(d);
    b.d = pvl_f32_to_f16(d);
    b.m = pvl_f32_to_f16(lo);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        int q0 = cut((x[j] - lo) * id + 0.5f, 0, 15), q1 = cut((x[j + 16] - lo) * id + 0.5f, 0, 15);
        b.qs[j] = (uint8_t)(q0 | q1 << 4);
    }
    memcpy(out, &b, sizeof b);
}

static void store_u32(uint8_t out[4], uint32_t v) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(v >> 8 * i);
}

static void to_q5_0(void *out, const float *x) {
    pvl_block_q5_0 b;
    float d = extreme(x, PVL_BLOCK) / -16.0f, id = inverse(d);
    uint32_t qh = 0;
    b.d = pvl_f32_to_f16(d);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        int q0 = cut(x[j] * id + 16.5f, 0, 31), q1 = cut(x[j + 16] * id + 16.5f, 0, 31);
        b.qs[j] = (uint8_t)((q0 & 15) | (q1 & 15) << 4);
        qh |= (uint32_t)(q0 >> 4) << j | (uint32_t)(q1 >> 4) << (j + 16);
    }
    store_u32(b.qh, qh);
    memcpy(out, &b, sizeof b);
}

static void to_q5_1(void *out, const float *x) {
    pvl_block_q5_1 b;
    float lo, hi;
    range(x, PVL_BLOCK, &lo, &hi);
    float d = (hi - lo) / 31.0f, id = inverse(d);
    uint32_t qh = 0;
    b.d = pvl_f32_to_f16(d);
    b.m = pvl_f32_to_f16(lo);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        int q0 = cut((x[j] - lo) * id + 0.5f, 0, 31), q1 = cut((x[j + 16] - lo) * id + 0.5f, 0, 31);
        b.qs[j] = (uint8_t)((q0 & 15) | (q1 & 15) << 4);
        qh |= (uint32_t)(q0 >> 4) << j | (uint32_t)(q1 >> 4) << (j + 16);
    }
    store_u32(b.qh, qh);
    memcpy(out, &b, sizeof b);
}

static void to_q8_0(void *out, const float *x) {
    pvl_block_q8_0 b;
    float d = fabsf(extreme(x, PVL_BLOCK)) / 127.0f, id = inverse(d);
    b.d = pvl_f32_to_f16(d);
    for (int j = 0; j < PVL_BLOCK; j++)
        b.qs[j] = (int8_t)cut(roundf(x[j] * id), -128, 127);
    memcpy(out, &b, sizeof b);
}

/* ---- searches ---- */

/* Scale and minimum (>= 0) for x ~ scale q - min with q in 0..top, over 32 values. Both are
 * returned, no quants: those follow from the rounded scales. */
static void fit_scale_min(const float *x, int top, float *scale, float *min) {
    float lo, hi, w[PVL_BLOCK];
    double square = 0;
    range(x, PVL_BLOCK, &lo, &hi);
    if (lo > 0)
        lo = 0;
    if (hi <= lo) {
        *scale = 0;
        *min = -lo;
        return;
    }
    for (int j = 0; j < PVL_BLOCK; j++)
        square += (double)x[j] * (double)x[j];
    float level = (float)sqrt(square / 32);
    for (int j = 0; j < PVL_BLOCK; j++)
        w[j] = level + fabsf(x[j]);
    double best = -1;
    for (int step = -10; step <= 10; step++) {
        float inv = ((float)top + 0.1f * (float)step) / (hi - lo);
        double sw = 0, sq = 0, sqq = 0, sx = 0, sqx = 0, sxx = 0;
        for (int j = 0; j < PVL_BLOCK; j++) {
            double q = nearest((x[j] - lo) * inv, 0, top), wj = (double)w[j], xj = (double)x[j];
            sw += wj;
            sq += wj * q;
            sqq += wj * q * q;
            sx += wj * xj;
            sqx += wj * q * xj;
            sxx += wj * xj * xj;
        }
        double det = sw * sqq - sq * sq;
        if (!(det > 0))
            continue;
        double s = (sw * sqx - sq * sx) / det, m = (sq * sqx - sqq * sx) / det;
        if (m < 0) { /* a negative minimum cannot be stored: fit the scale alone */
            m = 0;
            s = sqx / sqq;
        }
        double error = sxx + s * s * sqq + m * m * sw - 2 * s * sqx + 2 * m * sx - 2 * s * m * sq;
        if (s > 0 && (best < 0 || error < best)) {
            best = error;
            *scale = (float)s;
            *min = (float)m;
        }
    }
    if (best < 0) {
        *scale = (hi - lo) / (float)top;
        *min = -lo;
    }
}

/* The parts that Q4_K and Q5_K share: d, dmin, packed scales, and the quants 0..top of all 256
 * values. */
static void fit_k(const float *x, int top, uint16_t *d, uint16_t *dmin, uint8_t packed[12],
                  uint8_t q[PVL_SUPER_BLOCK]) {
    float scale[8], min[8], scale_max = 0, min_max = 0;
    for (int g = 0; g < 8; g++) {
        fit_scale_min(x + 32 * g, top, &scale[g], &min[g]);
        scale_max = fmaxf(scale_max, scale[g]);
        min_max = fmaxf(min_max, min[g]);
    }
    *d = pvl_f32_to_f16(scale_max / 63.0f);
    *dmin = pvl_f32_to_f16(min_max / 63.0f);
    float fd = pvl_f16_to_f32(*d), fm = pvl_f16_to_f32(*dmin);
    float inv_d = inverse(fd), inv_m = inverse(fm);
    memset(packed, 0, 12);
    for (int g = 0; g < 8; g++) {
        int sc = nearest(scale[g] * inv_d, 0, 63), mn = nearest(min[g] * inv_m, 0, 63);
        if (g < 4) {
            packed[g] |= (uint8_t)sc;
            packed[g + 4] |= (uint8_t)mn;
        } else {
            packed[g + 4] = (uint8_t)((sc & 15) | (mn & 15) << 4);
            packed[g - 4] |= (uint8_t)(sc >> 4 << 6);
            packed[g] |= (uint8_t)(mn >> 4 << 6);
        }
        float inv = inverse(fd * (float)sc), offset = fm * (float)mn;
        for (int l = 0; l < 32; l++)
            q[32 * g + l] = (uint8_t)nearest((x[32 * g + l] + offset) * inv, 0, top);
    }
}

static void to_q4_k(void *out, const float *x) {
    pvl_block_q4_k b;
    uint8_t q[PVL_SUPER_BLOCK];
    fit_k(x, 15, &b.d, &b.dmin, b.scales, q);
    for (int c = 0; c < 4; c++) {
        for (int l = 0; l < 32; l++)
            b.qs[32 * c + l] = (uint8_t)(q[64 * c + l] | q[64 * c + 32 + l] << 4);
    }
    memcpy(out, &b, sizeof b);
}

static void to_q5_k(void *out, const float *x) {
    pvl_block_q5_k b;
    uint8_t q[PVL_SUPER_BLOCK];
    fit_k(x, 31, &b.d, &b.dmin, b.scales, q);
    memset(b.qh, 0, sizeof b.qh);
    for (int c = 0; c < 4; c++) {
        for (int l = 0; l < 32; l++) {
            int q0 = q[64 * c + l], q1 = q[64 * c + 32 + l];
            b.qs[32 * c + l] = (uint8_t)((q0 & 15) | (q1 & 15) << 4);
            b.qh[l] |= (uint8_t)((q0 >> 4) << 2 * c | (q1 >> 4) << (2 * c + 1));
        }
    }
    memcpy(out, &b, sizeof b);
}

/* Signed scale for x ~ scale q with q in -32..31, over 16 values. */
static float fit_scale(const float *x) {
    float max = extreme(x, 16), scale = 0;
    if (max == 0.0f)
        return 0;
    double best = -1;
    for (int step = -9; step <= 9; step++) {
        float inv = -(32.0f + 0.1f * (float)step) / max;
        double sqx = 0, sqq = 0;
        for (int j = 0; j < 16; j++) {
            double q = nearest(x[j] * inv, -32, 31), w = (double)x[j] * (double)x[j];
            sqx += w * q * (double)x[j];
            sqq += w * q * q;
        }
        /* The error is sum w x^2 - sqx^2 / sqq. */
        if (sqq > 0 && sqx * sqx / sqq > best) {
            best = sqx * sqx / sqq;
            scale = (float)(sqx / sqq);
        }
    }
    return scale;
}

static void to_q6_k(void *out, const float *x) {
    pvl_block_q6_k b;
    float scale[16];
    for (int g = 0; g < 16; g++)
        scale[g] = fit_scale(x + 16 * g);
    /* Dividing by -128 lets the largest scale use the longer, negative side. */
    b.d = pvl_f32_to_f16(extreme(scale, 16) / -128.0f);
    float d = pvl_f16_to_f32(b.d), inv_d = inverse(d);
    uint8_t q[PVL_SUPER_BLOCK];
    for (int g = 0; g < 16; g++) {
        b.scales[g] = (int8_t)nearest(scale[g] * inv_d, -128, 127);
        float inv = inverse(d * (float)b.scales[g]);
        for (int l = 0; l < 16; l++)
            q[16 * g + l] = (uint8_t)(nearest(x[16 * g + l] * inv, -32, 31) + 32);
    }
    for (int h = 0; h < 2; h++) {
        const uint8_t *r = q + 128 * h;
        for (int l = 0; l < 32; l++) {
            b.ql[64 * h + l] = (uint8_t)((r[l] & 15) | (r[l + 64] & 15) << 4);
            b.ql[64 * h + 32 + l] = (uint8_t)((r[l + 32] & 15) | (r[l + 96] & 15) << 4);
            b.qh[32 * h + l] = (uint8_t)(r[l] >> 4 | (r[l + 32] >> 4) << 2 | (r[l + 64] >> 4) << 4 |
                                         (r[l + 96] >> 4) << 6);
        }
    }
    memcpy(out, &b, sizeof b);
}

/* Index of the nearest IQ4 level, the lower on a tie. */
static int iq4_level(float v) {
    int i = 0;
    while (i < 15 && v > 0.5f * (float)(pvl_iq4_values[i] + pvl_iq4_values[i + 1]))
        i++;
    return i;
}

static void to_iq4_nl(void *out, const float *x) {
    pvl_block_iq4_nl b;
    float max = extreme(x, PVL_BLOCK), d = 0;
    double best = -1;
    for (int step = -7; step <= 7 && max != 0.0f; step++) {
        /* Both ends of the table are tried for the largest value: -127 and 113 differ. */
        for (int end = 0; end < 2; end++) {
            float inv = ((float)pvl_iq4_values[end ? 15 : 0] + (float)step) / max;
            double sqx = 0, sqq = 0;
            for (int j = 0; j < PVL_BLOCK; j++) {
                double q = pvl_iq4_values[iq4_level(x[j] * inv)], w = (double)x[j] * (double)x[j];
                sqx += w * q * (double)x[j];
                sqq += w * q * q;
            }
            if (sqq > 0 && sqx * sqx / sqq > best) {
                best = sqx * sqx / sqq;
                d = (float)(sqx / sqq);
            }
        }
    }
    b.d = pvl_f32_to_f16(d);
    float inv = inverse(pvl_f16_to_f32(b.d));
    for (int j = 0; j < PVL_BLOCK / 2; j++)
        b.qs[j] = (uint8_t)(iq4_level(x[j] * inv) | iq4_level(x[j + 16] * inv) << 4);
    memcpy(out, &b, sizeof b);
}

typedef void (*to_block)(void *out, const float *x);

static to_block block_writer(pvl_dtype type) {
    switch (type) {
    case PVL_DTYPE_Q4_0:
        return to_q4_0;
    case PVL_DTYPE_Q4_1:
        return to_q4_1;
    case PVL_DTYPE_Q5_0:
        return to_q5_0;
    case PVL_DTYPE_Q5_1:
        return to_q5_1;
    case PVL_DTYPE_Q8_0:
        return to_q8_0;
    case PVL_DTYPE_Q4_K:
        return to_q4_k;
    case PVL_DTYPE_Q5_K:
        return to_q5_k;
    case PVL_DTYPE_Q6_K:
        return to_q6_k;
    case PVL_DTYPE_IQ4_NL:
        return to_iq4_nl;
    case PVL_DTYPE_Q2_K:
    case PVL_DTYPE_Q3_K:
    case PVL_DTYPE_IQ4_XS:
    case PVL_DTYPE_F32:
    case PVL_DTYPE_F16:
    case PVL_DTYPE_BF16:
        break;
    }
    return NULL;
}

void pvl_dtype_quantize(pvl_dtype type, void *out, const float *x, size_t n) {
    unsigned char *p = out;
    if (type == PVL_DTYPE_F32) {
        memcpy(p, x, n * sizeof(float));
    } else if (type == PVL_DTYPE_F16 || type == PVL_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++) {
            uint16_t h = type == PVL_DTYPE_F16 ? pvl_f32_to_f16(x[i]) : pvl_f32_to_bf16(x[i]);
            memcpy(p + 2 * i, &h, sizeof h);
        }
    } else {
        const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
        to_block write = block_writer(type);
        if (!t || !write)
            return;
        for (size_t i = 0; i + t->block_length <= n; i += t->block_length) {
            write(p, x + i);
            p += t->block_bytes;
        }
    }
}
