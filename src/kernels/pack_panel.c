/* Packing is what a start from the browser's store waits for beside reading, so that all of it that
 * models are made of is vector code: plain SIMD, which every build has (natively SIMDe brings it).
 */
#include "kernels/pack_panel.h"

#include <string.h>

#include "base/bytes.h"
#include "kernels/blocks.h"
#include "kernels/simd.h"

/* 16 bytes of each lane, and the steps of a panel that they make. */
enum { VECTOR = 16, VECTOR_STEPS = VECTOR * PVL_PANEL, HALF = PVL_PANEL / 2 };

static const unsigned char *row_of(const pvl_file_rows *r, size_t lane) {
    return r->first + lane * r->row_bytes;
}

/* ---- vectors ---- */

/* Four vectors of one lane each become four steps of those lanes, `stride` bytes apart. */
PVL_INLINE void spread4(unsigned char *steps, size_t stride, v128_t a, v128_t b, v128_t c,
                        v128_t d) {
    v128_t ab = wasm_i32x4_shuffle(a, b, 0, 4, 1, 5), cd = wasm_i32x4_shuffle(c, d, 0, 4, 1, 5);
    wasm_v128_store(steps, wasm_i64x2_shuffle(ab, cd, 0, 2));
    wasm_v128_store(steps + stride, wasm_i64x2_shuffle(ab, cd, 1, 3));
    ab = wasm_i32x4_shuffle(a, b, 2, 6, 3, 7);
    cd = wasm_i32x4_shuffle(c, d, 2, 6, 3, 7);
    wasm_v128_store(steps + 2 * stride, wasm_i64x2_shuffle(ab, cd, 0, 2));
    wasm_v128_store(steps + 3 * stride, wasm_i64x2_shuffle(ab, cd, 1, 3));
}

/* 16 inputs of all lanes. */
PVL_INLINE void spread8(unsigned char *steps, const v128_t q[PVL_PANEL]) {
    spread4(steps, 2 * VECTOR, q[0], q[1], q[2], q[3]);
    spread4(steps + VECTOR, 2 * VECTOR, q[4], q[5], q[6], q[7]);
}

/* Sums of the lanes' integers over all steps, at most 64 inputs: 16 bits hold them. */
PVL_INLINE v128_t sums_of(const unsigned char *steps, size_t inputs) {
    v128_t low = wasm_i32x4_splat(0), high = low;
    for (size_t i = 0; i < inputs; i += PVL_STEP, steps += 2 * VECTOR) {
        low = wasm_i16x8_add(low, wasm_i16x8_extadd_pairwise_i8x16(wasm_v128_load(steps)));
        high =
            wasm_i16x8_add(high, wasm_i16x8_extadd_pairwise_i8x16(wasm_v128_load(steps + VECTOR)));
    }
    return wasm_i16x8_narrow_i32x4(wasm_i32x4_extadd_pairwise_i16x8(low),
                                   wasm_i32x4_extadd_pairwise_i16x8(high));
}

/* The low 16 bits of eight lanes. */
PVL_INLINE v128_t low_halves(v128_t a, v128_t b) {
    return wasm_i16x8_shuffle(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
}

/* pvl_f32_to_f16 of four lanes. */
PVL_INLINE v128_t half4(v128_t x) {
    v128_t sign = wasm_v128_and(wasm_u32x4_shr(x, 16), wasm_i32x4_splat(0x8000));
    v128_t mag = wasm_v128_and(x, wasm_i32x4_splat(0x7FFFFFFF));
    v128_t odd = wasm_v128_and(wasm_u32x4_shr(mag, 13), wasm_i32x4_splat(1));
    v128_t half = wasm_u32x4_shr(
        wasm_i32x4_add(wasm_i32x4_sub(mag, wasm_i32x4_splat(0x38000000 - 0xFFF)), odd), 13);
    /* A sum with 1/2 has 2^-24, the step of subnormal halves, as its last place. */
    v128_t small =
        wasm_i32x4_sub(wasm_f32x4_add(mag, wasm_f32x4_splat(0.5f)), wasm_i32x4_splat(0x3F000000));
    half = wasm_v128_bitselect(small, half, wasm_i32x4_lt(mag, wasm_i32x4_splat(0x38800000)));
    half = wasm_v128_bitselect(wasm_i32x4_splat(0x7C00), half,
                               wasm_i32x4_ge(mag, wasm_i32x4_splat(0x477FF000)));
    v128_t nan = wasm_v128_or(wasm_v128_and(wasm_u32x4_shr(mag, 13), wasm_i32x4_splat(0x1FF)),
                              wasm_i32x4_splat(0x7E00));
    half = wasm_v128_bitselect(nan, half, wasm_i32x4_gt(mag, wasm_i32x4_splat(0x7F800000)));
    return wasm_v128_or(sign, half);
}

static void store_half8(unsigned char *out, const float x[PVL_PANEL]) {
    wasm_v128_store(out, low_halves(half4(wasm_v128_load(x)), half4(wasm_v128_load(x + HALF))));
}

/* max |x|, by comparing bits: NaN is the largest, so that a damaged weight shows in the outputs. n
 * is a multiple of 16. */
PVL_INLINE float largest(const float *x, size_t n) {
    v128_t mask = PVL_LANES(pack.magnitude), most = wasm_i32x4_splat(0), more = most;
    for (size_t i = 0; i < n; i += 8) {
        most = wasm_i32x4_max(most, wasm_v128_and(wasm_v128_load(x + i), mask));
        more = wasm_i32x4_max(more, wasm_v128_and(wasm_v128_load(x + i + 4), mask));
    }
    most = wasm_i32x4_max(most, more);
    most = wasm_i32x4_max(most, wasm_i32x4_shuffle(most, most, 2, 3, 0, 1));
    most = wasm_i32x4_max(most, wasm_i32x4_shuffle(most, most, 1, 0, 3, 2));
    return wasm_f32x4_extract_lane(most, 0);
}

PVL_INLINE v128_t round4(const float *x, v128_t inverse) {
    v128_t v = wasm_f32x4_mul(wasm_v128_load(x), inverse), round = PVL_LANES(exp.round);
    v = wasm_f32x4_pmax(PVL_LANES(pack.least), v); /* NaN -> -127: d is NaN then too */
    v = wasm_f32x4_pmin(PVL_LANES(pack.most), v);
    v = wasm_f32x4_add(v, round);    /* leaves no bits behind the point: */
    return wasm_i32x4_sub(v, round); /* nearest, ties to even */
}

/* q = round(x / d) of 16 values by the inverse of d, 0 for d = 0; x beyond 127 d is cut, which the
 * rounding of d to a half can bring about. */
PVL_INLINE v128_t round16(const float *x, float inverse) {
    v128_t by = wasm_f32x4_splat(inverse);
    return wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(round4(x, by), round4(x + 4, by)),
                                   wasm_i16x8_narrow_i32x4(round4(x + 8, by), round4(x + 12, by)));
}

PVL_INLINE float inverse_of(float d) {
    return d > 0 ? 1.0f / d : 0;
}

/* ---- 8 bits ---- */

/* Scales as they are, sums and steps from the lanes' integers, 16 by 16. */
PVL_INLINE void finish_q8(unsigned char *panel, const uint16_t scale[PVL_PANEL],
                          const v128_t first[PVL_PANEL], const v128_t second[PVL_PANEL]) {
    unsigned char *steps = panel + 4 * PVL_PANEL;
    spread8(steps, first);
    spread8(steps + VECTOR_STEPS, second);
    memcpy(panel, scale, PVL_PANEL * sizeof *scale);
    wasm_v128_store(panel + 2 * PVL_PANEL, wasm_i16x8_neg(sums_of(steps, PVL_BLOCK)));
}

PVL_INLINE void pack_q8_0(unsigned char *panel, const pvl_file_rows *r, size_t lanes) {
    for (size_t at = 0; at < r->cols / PVL_BLOCK;
         at++, panel += pvl_packings[PVL_PACK_Q8].panel_bytes) {
        v128_t first[PVL_PANEL], second[PVL_PANEL];
        uint16_t scale[PVL_PANEL];
        const unsigned char *block = r->first + at * sizeof(pvl_block_q8_0);
        size_t lane = 0;
        for (; lane < lanes; lane++, block += r->row_bytes) {
            scale[lane] = pvl_load_u16(block);
            first[lane] = wasm_v128_load(block + offsetof(pvl_block_q8_0, qs));
            second[lane] = wasm_v128_load(block + offsetof(pvl_block_q8_0, qs) + VECTOR);
        }
        for (; lane < PVL_PANEL; lane++) {
            scale[lane] = 0;
            first[lane] = second[lane] = wasm_i32x4_splat(0);
        }
        finish_q8(panel, scale, first, second);
    }
}

/* Integers and scale of one block of a type whose values are integers of at most 8 bits times one
 * scale: taken over exactly. */
static uint16_t exact_block(int8_t q[PVL_BLOCK], pvl_dtype type, const unsigned char *row,
                            size_t index) {
    if (type == PVL_DTYPE_Q5_0) {
        pvl_block_q5_0 b;
        memcpy(&b, row + index * sizeof b, sizeof b);
        uint32_t high = pvl_load_u32(b.qh);
        for (int j = 0; j < PVL_BLOCK / 2; j++) {
            q[j] = (int8_t)(((b.qs[j] & 15) | (int)(high >> j & 1) << 4) - 16);
            q[j + 16] = (int8_t)(((b.qs[j] >> 4) | (int)(high >> (j + 16) & 1) << 4) - 16);
        }
        return b.d;
    }
    pvl_block_iq4_nl b;
    memcpy(&b, row + index * sizeof b, sizeof b);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        q[j] = pvl_iq4_values[b.qs[j] & 15];
        q[j + 16] = pvl_iq4_values[b.qs[j] >> 4];
    }
    return b.d;
}

static void pack_exact(unsigned char *panel, const pvl_file_rows *r) {
    int8_t q[PVL_PANEL][PVL_BLOCK] = {{0}};
    uint16_t scale[PVL_PANEL] = {0};
    for (size_t at = 0; at < r->cols / PVL_BLOCK;
         at++, panel += pvl_packings[PVL_PACK_Q8].panel_bytes) {
        v128_t first[PVL_PANEL], second[PVL_PANEL];
        for (size_t lane = 0; lane < r->lanes; lane++)
            scale[lane] = exact_block(q[lane], r->type, row_of(r, lane), at);
        for (size_t lane = 0; lane < PVL_PANEL; lane++) {
            first[lane] = wasm_v128_load(q[lane]);
            second[lane] = wasm_v128_load(q[lane] + VECTOR);
        }
        finish_q8(panel, scale, first, second);
    }
}

/* scale q of 16 integers. */
PVL_INLINE void widen16(v128_t y[4], v128_t q, float scale) {
    v128_t low = wasm_i16x8_extend_low_i8x16(q), high = wasm_i16x8_extend_high_i8x16(q);
    v128_t s = wasm_f32x4_splat(scale);
    y[0] = wasm_f32x4_mul(s, wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(low)));
    y[1] = wasm_f32x4_mul(s, wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(low)));
    y[2] = wasm_f32x4_mul(s, wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(high)));
    y[3] = wasm_f32x4_mul(s, wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(high)));
}

/* pvl_dtype_dequantize of one block of Q5_K. */
static void widen_q5_k(float *y, const unsigned char *p) {
    pvl_block_q5_k b;
    memcpy(&b, p, offsetof(pvl_block_q5_k, qh));
    float d = pvl_f16_to_f32(b.d), dmin = pvl_f16_to_f32(b.dmin);
    v128_t low_halves = PVL_LANES(low_halves), one = wasm_i8x16_splat(1);
    for (uint32_t g = 0; g < PVL_SUPER_BLOCK / PVL_BLOCK; g++) {
        uint8_t scale, min;
        pvl_k_scale_min(b.scales, (int)g, &scale, &min);
        v128_t less = wasm_f32x4_splat(dmin * (float)min);
        for (size_t i = 0; i < PVL_BLOCK; i += VECTOR, y += VECTOR) {
            v128_t q = wasm_v128_load(p + offsetof(pvl_block_q5_k, qs) + g / 2 * PVL_BLOCK + i);
            v128_t fifth = wasm_v128_load(p + offsetof(pvl_block_q5_k, qh) + i), x[4];
            q = wasm_v128_and(wasm_u16x8_shr(q, 4 * (g % 2)), low_halves);
            fifth = wasm_v128_and(wasm_u16x8_shr(fifth, g), one);
            widen16(x, wasm_v128_or(q, wasm_i16x8_shl(fifth, 4)), d * (float)scale);
            for (size_t k = 0; k < 4; k++)
                wasm_v128_store(y + 4 * k, wasm_f32x4_sub(x[k], less));
        }
    }
}

/* pvl_dtype_dequantize of one block of Q6_K. */
static void widen_q6_k(float *y, const unsigned char *p) {
    const int8_t *scales = (const int8_t *)p + offsetof(pvl_block_q6_k, scales);
    float d = pvl_f16_to_f32(pvl_load_u16(p + offsetof(pvl_block_q6_k, d)));
    v128_t low_halves = PVL_LANES(low_halves), two = wasm_i8x16_splat(3);
    v128_t zero = wasm_i8x16_splat(32);
    for (size_t half = 0; half < 2; half++) {
        for (uint32_t run = 0; run < 4; run++) {
            for (size_t i = 0; i < PVL_BLOCK; i += VECTOR, y += VECTOR) {
                v128_t q = wasm_v128_load(p + 64 * half + PVL_BLOCK * (run % 2) + i), x[4];
                v128_t high =
                    wasm_v128_load(p + offsetof(pvl_block_q6_k, qh) + PVL_BLOCK * half + i);
                q = wasm_v128_and(wasm_u16x8_shr(q, 4 * (run / 2)), low_halves);
                high = wasm_v128_and(wasm_u16x8_shr(high, 2 * run), two);
                q = wasm_i8x16_sub(wasm_v128_or(q, wasm_i16x8_shl(high, 4)), zero);
                widen16(x, q, d * (float)*scales++);
                for (size_t k = 0; k < 4; k++)
                    wasm_v128_store(y + 4 * k, x[k]);
            }
        }
    }
}

/* `length` values of a row from the block at `p` on. */
static void widen(float *y, pvl_dtype type, const unsigned char *p, size_t length) {
    if (type == PVL_DTYPE_Q6_K) {
        widen_q6_k(y, p);
    } else if (type == PVL_DTYPE_Q5_K) {
        widen_q5_k(y, p);
    } else {
        pvl_dtype_dequantize(type, y, p, length);
    }
}

/* Through floats, once more rounded: a block of the file at a time, and at least PVL_BLOCK. */
static void pack_q8_rounded(unsigned char *panel, const pvl_file_rows *r) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)r->type);
    size_t length = t->block_length < PVL_BLOCK ? PVL_BLOCK : t->block_length;
    float x[PVL_PANEL][PVL_SUPER_BLOCK], most[PVL_PANEL] = {0};
    memset(x, 0, sizeof x);
    for (size_t at = 0; at < r->cols; at += length) {
        for (size_t lane = 0; lane < r->lanes; lane++) {
            widen(x[lane], r->type, row_of(r, lane) + at / t->block_length * t->block_bytes,
                  length);
        }
        for (size_t from = 0; from < length;
             from += PVL_BLOCK, panel += pvl_packings[PVL_PACK_Q8].panel_bytes) {
            v128_t first[PVL_PANEL], second[PVL_PANEL];
            uint16_t scale[PVL_PANEL];
            for (size_t lane = 0; lane < PVL_PANEL; lane++)
                most[lane] = largest(x[lane] + from, PVL_BLOCK) / 127.0f;
            store_half8((unsigned char *)scale, most);
            for (size_t lane = 0; lane < PVL_PANEL; lane++) {
                float inverse = inverse_of(pvl_f16_to_f32(scale[lane]));
                first[lane] = round16(x[lane] + from, inverse);
                second[lane] = round16(x[lane] + from + VECTOR, inverse);
            }
            finish_q8(panel, scale, first, second);
        }
    }
}

static void pack_q8(unsigned char *panel, const pvl_file_rows *r) {
    if (r->type == PVL_DTYPE_Q5_0 || r->type == PVL_DTYPE_IQ4_NL) {
        pack_exact(panel, r);
    } else if (r->type != PVL_DTYPE_Q8_0) {
        pack_q8_rounded(panel, r);
    } else if (r->lanes == PVL_PANEL) {
        pack_q8_0(panel, r, PVL_PANEL);
    } else {
        pack_q8_0(panel, r, r->lanes);
    }
}

/* pvl_f16_to_f32 of four lanes: the bits at their places in a float, times 2^112; infinity and NaN,
 * which that makes 65536 and more, get their exponent back. */
PVL_INLINE v128_t widen4(const unsigned char *p) {
    v128_t bits = wasm_v128_and(wasm_i32x4_shl(wasm_i32x4_load16x4(p), 13), PVL_LANES(half_bits));
    v128_t x = wasm_f32x4_mul(bits, PVL_LANES(half_scale));
    v128_t beyond = wasm_f32x4_ge(wasm_f32x4_abs(x), PVL_LANES(pack.beyond));
    return wasm_v128_or(x, wasm_v128_and(beyond, PVL_LANES(pack.exponent)));
}

static void pack_q8w(unsigned char *panel, const pvl_file_rows *r) {
    enum { BLOCK = 64, VECTORS = BLOCK / VECTOR };
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)r->type);
    float x[BLOCK], scale[PVL_PANEL] = {0};
    v128_t q[VECTORS][PVL_PANEL];
    for (size_t i = 0; i < VECTORS; i++) {
        for (size_t lane = 0; lane < PVL_PANEL; lane++)
            q[i][lane] = wasm_i32x4_splat(0);
    }
    for (size_t at = 0; at < r->cols;
         at += BLOCK, panel += pvl_packings[PVL_PACK_Q8W].panel_bytes) {
        for (size_t lane = 0; lane < r->lanes; lane++) {
            const unsigned char *from = row_of(r, lane) + at * t->block_bytes;
            if (r->type == PVL_DTYPE_F16) {
                for (size_t i = 0; i < BLOCK; i += 4)
                    wasm_v128_store(x + i, widen4(from + 2 * i));
            } else {
                pvl_dtype_dequantize(r->type, x, from, BLOCK);
            }
            scale[lane] = largest(x, BLOCK) / 127.0f;
            float inverse = inverse_of(scale[lane]);
            for (size_t i = 0; i < VECTORS; i++)
                q[i][lane] = round16(x + VECTOR * i, inverse);
        }
        unsigned char *steps = panel + 8 * PVL_PANEL;
        for (size_t i = 0; i < VECTORS; i++)
            spread8(steps + i * VECTOR_STEPS, q[i]);
        memcpy(panel, scale, sizeof scale);
        v128_t sum = sums_of(steps, BLOCK), factor = wasm_i32x4_splat(-PVL_Q8_ZERO);
        unsigned char *sums = panel + 4 * PVL_PANEL;
        wasm_v128_store(sums, wasm_i32x4_mul(wasm_i32x4_extend_low_i16x8(sum), factor));
        wasm_v128_store(sums + VECTOR, wasm_i32x4_mul(wasm_i32x4_extend_high_i16x8(sum), factor));
    }
}

/* ---- 4 bits ---- */

/* Low halves of the bytes, and high halves, of lanes l and l + HALF side by side. */
PVL_INLINE v128_t pair_low(v128_t a, v128_t b) {
    v128_t mask = PVL_LANES(low_halves);
    return wasm_v128_or(wasm_v128_and(a, mask), wasm_i16x8_shl(wasm_v128_and(b, mask), 4));
}
PVL_INLINE v128_t pair_high(v128_t a, v128_t b) {
    v128_t mask = PVL_LANES(low_halves);
    return wasm_v128_or(wasm_v128_and(wasm_u16x8_shr(a, 4), mask), wasm_v128_andnot(b, mask));
}

/* 16 bytes of every lane to the steps of their low halves and those of their high halves. */
PVL_INLINE void spread_halves(unsigned char *low, unsigned char *high, const v128_t q[PVL_PANEL]) {
    spread4(low, VECTOR, pair_low(q[0], q[4]), pair_low(q[1], q[5]), pair_low(q[2], q[6]),
            pair_low(q[3], q[7]));
    spread4(high, VECTOR, pair_high(q[0], q[4]), pair_high(q[1], q[5]), pair_high(q[2], q[6]),
            pair_high(q[3], q[7]));
}

/* Q4_0 and Q4_1, whose bytes are inputs 0..15 in the low halves and 16..31 in the high ones. */
PVL_INLINE void pack_q4_01(unsigned char *panel, const pvl_file_rows *r, size_t lanes, bool min) {
    size_t block_bytes = min ? sizeof(pvl_block_q4_1) : sizeof(pvl_block_q4_0);
    size_t head = min ? 2 : 1; /* in halves */
    for (size_t at = 0; at < r->cols / PVL_BLOCK; at++) {
        v128_t q[PVL_PANEL];
        uint16_t scale[PVL_PANEL];
        float low[PVL_PANEL];
        const unsigned char *block = r->first + at * block_bytes;
        for (size_t lane = 0; lane < PVL_PANEL; lane++, block += r->row_bytes) {
            bool there = lane < lanes;
            scale[lane] = there ? pvl_load_u16(block) : 0;
            if (min) /* y = d q + m */
                low[lane] = pvl_f16_to_f32(there ? pvl_load_u16(block + 2) : 0x8000) * -0.125f;
            q[lane] = there ? wasm_v128_load(block + 2 * head) : wasm_i32x4_splat(0);
        }
        memcpy(panel, scale, sizeof scale);
        if (min)
            store_half8(panel + sizeof scale, low);
        panel += head * sizeof scale;
        spread_halves(panel, panel + PVL_BLOCK / 2 * HALF, q);
        panel += PVL_BLOCK * HALF;
    }
}

/* The scales and minimums of one block of Q4_K: of group g in [g]. As pvl_k_scale_min, four at
 * once. */
static void k_scales(float scale[8], float min[8], const unsigned char *block) {
    pvl_block_q4_k b;
    memcpy(&b, block, offsetof(pvl_block_q4_k, qs));
    uint32_t s0 = pvl_load_u32(b.scales), s1 = pvl_load_u32(b.scales + 4),
             s2 = pvl_load_u32(b.scales + 8);
    uint32_t six = 0x3F3F3F3F, four = 0x0F0F0F0F, two = 0x30303030;
    uint32_t packed[4] = {s0 & six, (s2 & four) | (s0 >> 2 & two), s1 & six,
                          (s2 >> 4 & four) | (s1 >> 2 & two)};
    v128_t bits = wasm_v128_load(packed);
    v128_t s = wasm_u16x8_extend_low_u8x16(bits), m = wasm_u16x8_extend_high_u8x16(bits);
    v128_t d = wasm_f32x4_splat(pvl_f16_to_f32(b.d)),
           dmin = wasm_f32x4_splat(pvl_f16_to_f32(b.dmin)), eighth = wasm_f32x4_splat(0.125f);
    wasm_v128_store(scale,
                    wasm_f32x4_mul(d, wasm_f32x4_convert_u32x4(wasm_u32x4_extend_low_u16x8(s))));
    wasm_v128_store(scale + 4,
                    wasm_f32x4_mul(d, wasm_f32x4_convert_u32x4(wasm_u32x4_extend_high_u16x8(s))));
    v128_t low = wasm_f32x4_mul(dmin, wasm_f32x4_convert_u32x4(wasm_u32x4_extend_low_u16x8(m)));
    v128_t high = wasm_f32x4_mul(dmin, wasm_f32x4_convert_u32x4(wasm_u32x4_extend_high_u16x8(m)));
    wasm_v128_store(min, wasm_f32x4_mul(low, eighth)); /* y = d q - min */
    wasm_v128_store(min + 4, wasm_f32x4_mul(high, eighth));
}

/* Q4_K: 32 bytes are one group in their low halves and the next one in their high halves. */
PVL_INLINE void pack_q4_k(unsigned char *panel, const pvl_file_rows *r, size_t lanes) {
    enum { GROUPS = PVL_SUPER_BLOCK / PVL_BLOCK };
    size_t bytes = pvl_packings[PVL_PACK_Q4M].panel_bytes;
    float scale[PVL_PANEL][GROUPS], min[PVL_PANEL][GROUPS];
    memset(scale, 0, sizeof scale);
    memset(min, 0, sizeof min);
    for (size_t at = 0; at < r->cols / PVL_SUPER_BLOCK; at++) {
        const unsigned char *block = r->first + at * sizeof(pvl_block_q4_k);
        for (size_t lane = 0; lane < lanes; lane++)
            k_scales(scale[lane], min[lane], block + lane * r->row_bytes);
        for (size_t g = 0; g < GROUPS; g += 2, panel += 2 * bytes) {
            for (size_t half = 0; half < 2; half++) {
                float d[PVL_PANEL], m[PVL_PANEL];
                for (size_t lane = 0; lane < PVL_PANEL; lane++) {
                    d[lane] = scale[lane][g + half];
                    m[lane] = min[lane][g + half];
                }
                store_half8(panel + half * bytes, d);
                store_half8(panel + half * bytes + 2 * PVL_PANEL, m);
            }
            unsigned char *steps = panel + 4 * PVL_PANEL;
            for (size_t i = 0; i < PVL_BLOCK; i += VECTOR, steps += VECTOR * HALF) {
                v128_t q[PVL_PANEL];
                const unsigned char *from =
                    block + offsetof(pvl_block_q4_k, qs) + PVL_BLOCK / 2 * g + i;
                for (size_t lane = 0; lane < PVL_PANEL; lane++, from += r->row_bytes)
                    q[lane] = lane < lanes ? wasm_v128_load(from) : wasm_i32x4_splat(0);
                spread_halves(steps, steps + bytes, q);
            }
        }
    }
}

static void pack_q4(unsigned char *panel, const pvl_file_rows *r) {
    bool whole = r->lanes == PVL_PANEL;
    if (r->type == PVL_DTYPE_Q4_K) {
        whole ? pack_q4_k(panel, r, PVL_PANEL) : pack_q4_k(panel, r, r->lanes);
    } else if (r->type == PVL_DTYPE_Q4_1) {
        pack_q4_01(panel, r, r->lanes, true);
    } else {
        whole ? pack_q4_01(panel, r, PVL_PANEL, false) : pack_q4_01(panel, r, r->lanes, false);
    }
}

/* ---- floats ---- */

static void pack_f32(unsigned char *panel, const pvl_file_rows *r) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)r->type);
    float x[PVL_SUPER_BLOCK], zero[PVL_PANEL] = {0};
    for (size_t at = 0; at < r->cols; at += PVL_SUPER_BLOCK) {
        size_t n = r->cols - at < PVL_SUPER_BLOCK ? r->cols - at : PVL_SUPER_BLOCK;
        for (size_t i = 0; r->lanes < PVL_PANEL && i < n; i++)
            memcpy(panel + i * sizeof zero, zero, sizeof zero);
        for (size_t lane = 0; lane < r->lanes; lane++) {
            const unsigned char *src = row_of(r, lane) + at / t->block_length * t->block_bytes;
            pvl_dtype_dequantize(r->type, x, src, n);
            for (size_t i = 0; i < n; i++)
                memcpy(panel + (i * PVL_PANEL + lane) * sizeof *x, x + i, sizeof *x);
        }
        panel += n * sizeof zero;
    }
}

void pvl_pack_panel(unsigned char *panel, const pvl_file_rows *r, pvl_packing packing) {
    switch (packing) {
    case PVL_PACK_Q8:
        pack_q8(panel, r);
        break;
    case PVL_PACK_Q8W:
        pack_q8w(panel, r);
        break;
    case PVL_PACK_Q4:
    case PVL_PACK_Q4M:
        pack_q4(panel, r);
        break;
    default:
        pack_f32(panel, r);
    }
}
