/* Products of many rows in plain SIMD, which multiplies 16-bit integers and no bytes: activations
 * are quantized into 16 bits, and a panel is widened once for all rows of a task. The integers are
 * those of the other sets. */
#include <stdbool.h>

#include "kernels/sets.h"

#ifdef PVL_HAVE_SIMD128
#include "kernels/simd.h"

/* Four weights of eight outputs, from bytes to 16 bits: two steps. */
PVL_INLINE void widen_step(unsigned char *out, v128_t w0, v128_t w1) {
    v128_t a = wasm_i16x8_extend_low_i8x16(w0), b = wasm_i16x8_extend_high_i8x16(w0);
    v128_t c = wasm_i16x8_extend_low_i8x16(w1), d = wasm_i16x8_extend_high_i8x16(w1);
    wasm_v128_store(out, wasm_i32x4_shuffle(a, b, 0, 2, 4, 6));
    wasm_v128_store(out + 16, wasm_i32x4_shuffle(c, d, 0, 2, 4, 6));
    wasm_v128_store(out + 32, wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
    wasm_v128_store(out + 48, wasm_i32x4_shuffle(c, d, 1, 3, 5, 7));
}

PVL_INLINE void widen_bytes(unsigned char *out, const unsigned char *steps, size_t block) {
    for (size_t k = 0; k < block; k += PVL_STEP, out += 64, steps += 32)
        widen_step(out, wasm_v128_load(steps), wasm_v128_load(steps + 16));
}

PVL_INLINE void widen_nibbles(unsigned char *out, const unsigned char *steps, int8_t zero) {
    v128_t mask = PVL_LANES(low_halves), minus = wasm_i8x16_splat(zero);
    for (size_t k = 0; k < 32; k += PVL_STEP, out += 64, steps += 16) {
        v128_t v = wasm_v128_load(steps);
        widen_step(out, wasm_i8x16_sub(wasm_v128_and(v, mask), minus),
                   wasm_i8x16_sub(wasm_v128_and(wasm_u16x8_shr(v, 4), mask), minus));
    }
}

/* Halves of eight outputs to floats. */
PVL_INLINE void widen_halves(unsigned char *out, const unsigned char *halves) {
    wasm_v128_store(out, load_half4(halves));
    wasm_v128_store(out + 16, load_half4(halves + 8));
}

static void widen_q8(unsigned char *out, const unsigned char *panel, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, panel += 36 * PVL_PANEL, out += 32 + 512) {
        widen_halves(out, panel);
        widen_bytes(out + 32, panel + 32, 32);
    }
}

static void widen_q8w(unsigned char *out, const unsigned char *panel, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, panel += 72 * PVL_PANEL, out += 32 + 1024) {
        memcpy(out, panel, 32);
        widen_bytes(out + 32, panel + 64, 64);
    }
}

static void widen_q4(unsigned char *out, const unsigned char *panel, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, panel += 18 * PVL_PANEL, out += 32 + 512) {
        widen_halves(out, panel);
        widen_nibbles(out + 32, panel + 16, 8);
    }
}

static void widen_q4m(unsigned char *out, const unsigned char *panel, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, panel += 20 * PVL_PANEL, out += 64 + 512) {
        widen_halves(out, panel);
        widen_halves(out + 32, panel + 16);
        widen_nibbles(out + 64, panel + 32, 0);
    }
}

PVL_INLINE void add_to(float *tile, v128_t v) {
    wasm_v128_store(tile, wasm_f32x4_add(wasm_v128_load(tile), v));
}

PVL_INLINE void tile_blocks(float *tile, const unsigned char *act, const unsigned char *panel,
                            size_t blocks, size_t block, bool minimum) {
    size_t head = minimum ? 64 : 32;
    for (size_t b = 0; b < blocks; b++) {
        v128_t sum[PVL_TILE_ROWS][2], start = PVL_LANES(exp.round); /* see gemm_simd.h */
        for (size_t r = 0; r < PVL_TILE_ROWS; r++)
            sum[r][0] = sum[r][1] = start;
        const unsigned char *w = panel + head, *x = act + 32;
        PVL_KEEP_ROLLED
        for (size_t k = 0; k < block; k += 2, w += 32, x += 16) {
            v128_t w0 = wasm_v128_load(w), w1 = wasm_v128_load(w + 16);
            for (size_t r = 0; r < PVL_TILE_ROWS; r++) {
                v128_t q = wasm_v128_load32_splat(x + 4 * r);
                sum[r][0] = wasm_i32x4_add(sum[r][0], wasm_i32x4_dot_i16x8(w0, q));
                sum[r][1] = wasm_i32x4_add(sum[r][1], wasm_i32x4_dot_i16x8(w1, q));
            }
        }
        PVL_FENCE; /* or the tile's floats would take registers while the loop runs */
        v128_t scale0 = wasm_v128_load(panel), scale1 = wasm_v128_load(panel + 16);
        v128_t zero = PVL_LANES(exp.round);
        for (size_t r = 0; r < PVL_TILE_ROWS; r++) {
            v128_t d = wasm_v128_load32_splat(act + 4 * r);
            v128_t y0 = wasm_f32x4_mul(wasm_f32x4_sub(sum[r][0], zero), d);
            v128_t y1 = wasm_f32x4_mul(wasm_f32x4_sub(sum[r][1], zero), d);
            add_to(tile + r * PVL_PANEL, wasm_f32x4_mul(y0, scale0));
            add_to(tile + r * PVL_PANEL + 4, wasm_f32x4_mul(y1, scale1));
        }
        if (minimum) {
            v128_t min0 = wasm_v128_load(panel + 32), min1 = wasm_v128_load(panel + 48);
            for (size_t r = 0; r < PVL_TILE_ROWS; r++) {
                v128_t c = wasm_v128_load32_splat(act + 16 + 4 * r);
                add_to(tile + r * PVL_PANEL, wasm_f32x4_mul(c, min0));
                add_to(tile + r * PVL_PANEL + 4, wasm_f32x4_mul(c, min1));
            }
        }
        act += 32 + 8 * block;
        panel += head + 16 * block;
    }
}

static void tile_32(float *tile, const unsigned char *act, const unsigned char *panel,
                    size_t blocks) {
    tile_blocks(tile, act, panel, blocks, 32, false);
}

static void tile_64(float *tile, const unsigned char *act, const unsigned char *panel,
                    size_t blocks) {
    tile_blocks(tile, act, panel, blocks, 64, false);
}

static void tile_32m(float *tile, const unsigned char *act, const unsigned char *panel,
                     size_t blocks) {
    tile_blocks(tile, act, panel, blocks, 32, true);
}

const pvl_wide pvl_k_wide_q8__simd128 = {32 + 512, widen_q8, tile_32};
const pvl_wide pvl_k_wide_q8w__simd128 = {32 + 1024, widen_q8w, tile_64};
const pvl_wide pvl_k_wide_q4__simd128 = {32 + 512, widen_q4, tile_32};
const pvl_wide pvl_k_wide_q4m__simd128 = {64 + 512, widen_q4m, tile_32m};

void pvl_k_widen_row__simd128(unsigned char *out, const unsigned char *q, size_t block,
                              int8_t zero) {
    v128_t minus = wasm_i8x16_splat(zero);
    for (size_t k = 0; k < block; k += 16, out += 128) {
        v128_t v = wasm_i8x16_sub(wasm_v128_load(q + k), minus);
        v128_t low = wasm_i16x8_extend_low_i8x16(v), high = wasm_i16x8_extend_high_i8x16(v);
        wasm_v128_store32_lane(out, low, 0);
        wasm_v128_store32_lane(out + 16, low, 1);
        wasm_v128_store32_lane(out + 32, low, 2);
        wasm_v128_store32_lane(out + 48, low, 3);
        wasm_v128_store32_lane(out + 64, high, 0);
        wasm_v128_store32_lane(out + 80, high, 1);
        wasm_v128_store32_lane(out + 96, high, 2);
        wasm_v128_store32_lane(out + 112, high, 3);
    }
}
#endif
