#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "kernels/sets.h"

void pvl_k_quantize_f32__scalar(unsigned char *out, const float *x, size_t n) {
    memcpy(out, x, n * sizeof *x);
}

/* Below this a block counts as zero: its inverse scale would overflow. */
static const float tiny = 1e-30f;

/* max |x| by comparing bits: infinity and NaN win, so that they show in the scale. */
static float largest(const float *x, size_t n) {
    uint32_t bits = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t v = pvl_f32_bits(x[i]) & 0x7FFFFFFFu;
        if (v > bits)
            bits = v;
    }
    return pvl_bits_f32(bits);
}

/* Nearest integer, ties to even, |v| < 2^22: the sum leaves no bits behind the point. The SIMD sets
 * do the same. */
static int32_t nearest(float v) {
    float shifted = v + 12582912.0f;
    return (int32_t)(pvl_f32_bits(shifted) - 0x4B400000u);
}

static int32_t clamp(int32_t v, int32_t lo, int32_t hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

/* Scale for integers up to `top`, and its inverse. */
static float scale_for(float *inverse, const float *x, size_t n, float top) {
    float amax = largest(x, n);
    if (amax < tiny) {
        *inverse = 0;
        return 0;
    }
    *inverse = top / amax;
    return amax * (1.0f / top);
}

static void offset_block(unsigned char *d, unsigned char *q, const float *x, size_t n) {
    float inverse, scale = scale_for(&inverse, x, n, 63.0f);
    memcpy(d, &scale, sizeof scale);
    for (size_t i = 0; i < n; i++)
        q[i] = (unsigned char)clamp(nearest(x[i] * inverse) + PVL_Q8_ZERO, 1, 127);
}

void pvl_k_quantize_q8__scalar(unsigned char *out, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += 32, out += pvl_packings[PVL_PACK_Q8].act_bytes) {
        memset(out + 4, 0, 4);
        offset_block(out, out + 8, x + i, 32);
    }
}

void pvl_k_quantize_q8w__scalar(unsigned char *out, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += 64, out += pvl_packings[PVL_PACK_Q8W].act_bytes) {
        offset_block(out, out + 4, x + i, 64);
    }
}

void pvl_k_quantize_q4__scalar(unsigned char *out, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += 32, out += pvl_packings[PVL_PACK_Q4].act_bytes) {
        float inverse, scale = scale_for(&inverse, x + i, 32, 127.0f);
        int32_t sum = 0;
        for (size_t j = 0; j < 32; j++) {
            int32_t q = clamp(nearest(x[i + j] * inverse), -127, 127);
            out[8 + j] = (unsigned char)(int8_t)q;
            sum += q;
        }
        float c = -8.0f * scale * (float)sum;
        memcpy(out, &scale, sizeof scale);
        memcpy(out + 4, &c, sizeof c);
    }
}
