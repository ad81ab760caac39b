/* Tiles of the SIMD sets: one text, three ways to multiply bytes. Include once per file, after
 * defining
 *
 *   TILE_NAME(op)   name of the function for up to four rows and one panel
 *   STREAMS_NAME(op) for one row and several panels
 *   and one of
 *   TILE_PLAIN      i32x4.dot_i16x8 on widened bytes
 *
 *   TILE_PAIRS      i16x8.relaxed_dot, then pairs to 32 bits by hand: where the engine makes the
 *                   32-bit relaxed dot of several instructions (x86 without AVX-VNNI) this needs
 *                   three instead of five, and for 4-bit weights a block of 32 is summed in 16 bits
 *                   (8 steps * 2 * 15 * 127 = 30480) and widened once
 *
 *   TILE_DOT        i32x4.relaxed_dot_add: one instruction where the processor has it
 *
 * Float accumulators stay in `tile`, in memory: integers need the registers. */
#include <stdbool.h>

#include "kernels/private.h"
#include "kernels/simd.h"

/* 16 weights or activations, as the multiplication wants them. */
typedef struct operand {
    v128_t even, odd; /* TILE_PLAIN: bytes 0, 2, ... and 1, 3, ... as 16 bits; else only `even`, all
                         16 bytes */
} operand;

#ifdef TILE_PLAIN
PVL_INLINE operand signed_bytes(v128_t v) {
    return (operand){wasm_i16x8_shr(wasm_i16x8_shl(v, 8), 8), wasm_i16x8_shr(v, 8)};
}
PVL_INLINE operand unsigned_bytes(v128_t v) {
    return (operand){wasm_v128_and(v, wasm_v128_load(pvl_k_constants.low_bytes)),
                     wasm_u16x8_shr(v, 8)};
}
PVL_INLINE operand low_nibbles(v128_t v) {
    v128_t mask = PVL_LANES(low_quarters);
    return (operand){wasm_v128_and(v, mask), wasm_v128_and(wasm_u16x8_shr(v, 8), mask)};
}
PVL_INLINE operand high_nibbles(v128_t v) {
    return (operand){wasm_v128_and(wasm_u16x8_shr(v, 4), PVL_LANES(low_quarters)),
                     wasm_u16x8_shr(v, 12)};
}
PVL_INLINE v128_t dot_add(operand i8, operand i7, v128_t sum) {
    sum = wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(i8.even, i7.even));
    return wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(i8.odd, i7.odd));
}
PVL_INLINE v128_t nibble_dot_add(operand i8, operand i7, v128_t sum) {
    return dot_add(i8, i7, sum);
}
#else
PVL_INLINE operand signed_bytes(v128_t v) {
    return (operand){v, v};
}
PVL_INLINE operand unsigned_bytes(v128_t v) {
    return (operand){v, v};
}
PVL_INLINE operand low_nibbles(v128_t v) {
    v = wasm_v128_and(v, PVL_LANES(low_halves));
    return (operand){v, v};
}
PVL_INLINE operand high_nibbles(v128_t v) {
    v = wasm_v128_and(wasm_u16x8_shr(v, 4), PVL_LANES(low_halves));
    return (operand){v, v};
}
#ifdef TILE_DOT
PVL_INLINE v128_t dot_add(operand i8, operand i7, v128_t sum) {
    return dot_i8_i7_add(i8.even, i7.even, sum);
}
PVL_INLINE v128_t nibble_dot_add(operand i8, operand i7, v128_t sum) {
    return dot_add(i8, i7, sum);
}
#else
PVL_INLINE v128_t dot_add(operand i8, operand i7, v128_t sum) {
    return wasm_i32x4_add(sum, wasm_i32x4_dot_i16x8(dot_i8_i7(i8.even, i7.even), PVL_LANES(ones)));
}
PVL_INLINE v128_t nibble_dot_add(operand i8, operand i7, v128_t sum) {
    return wasm_i16x8_add(sum, dot_i8_i7(i8.even, i7.even));
}
PVL_INLINE v128_t nibble_sums(v128_t sum) {
    return wasm_i32x4_dot_i16x8(sum, PVL_LANES(ones));
}
#endif
#endif

/* Integer sums begin at the bits of 1.5 * 2^23: read as floats they are that plus the sum, exactly
 * as long as the sum is below 2^22. Subtracting converts them, where the processor has a port that
 * products leave free. */
PVL_INLINE v128_t sum_start(v128_t sum) {
    return wasm_i32x4_add(sum, PVL_LANES(exp.round));
}
PVL_INLINE v128_t sum_float(v128_t sum) {
    return wasm_f32x4_sub(sum, PVL_LANES(exp.round));
}
#ifdef TILE_PAIRS
/* 4-bit blocks are summed in 16 bits. */
#define NIBBLE_START wasm_i32x4_splat(0)
#define nibble_float(sum) wasm_f32x4_convert_i32x4(nibble_sums(sum))
#else
#define NIBBLE_START PVL_LANES(exp.round)
#define nibble_float(sum) sum_float(sum)
#endif

PVL_INLINE void clear_tile(float *tile, size_t rows) {
    for (size_t i = 0; i < rows * PVL_PANEL; i += 4)
        wasm_v128_store(tile + i, wasm_f32x4_splat(0));
}

PVL_INLINE void add_to(float *tile, v128_t v, v128_t scale) {
    wasm_v128_store(tile, madd4(v, scale, wasm_v128_load(tile)));
}

/* One step of 8-bit weights. */
PVL_INLINE void q8_step(v128_t sum[][2], const unsigned char *q, size_t row_bytes,
                        const unsigned char *step, size_t rows) {
    operand w0 = signed_bytes(wasm_v128_load(step)), w1 = signed_bytes(wasm_v128_load(step + 16));
    for (size_t r = 0; r < rows; r++) {
        operand x = unsigned_bytes(wasm_v128_load32_splat(q + r * row_bytes));
        sum[r][0] = dot_add(w0, x, sum[r][0]);
        sum[r][1] = dot_add(w1, x, sum[r][1]);
    }
}

/* One row repeats the step: the registers suffice, and the loop's own work would weigh most. Not
 * with the 32-bit dot, whose sum is its last operand: the compiler nests a chain of them and loads
 * all operands before the first, more than there are registers. There it takes several blocks at
 * once, see GROUP. */
PVL_INLINE void q8_steps(v128_t sum[][2], const unsigned char *q, size_t row_bytes,
                         const unsigned char *steps, size_t rows, size_t count) {
#ifndef TILE_DOT
    if (rows == 1) {
        PVL_UNROLL
        for (size_t j = 0; j < count; j++)
            q8_step(sum, q + 4 * j, row_bytes, steps + 32 * j, rows);
        return;
    }
#endif
    PVL_KEEP_ROLLED
    for (size_t j = 0; j < count; j++)
        q8_step(sum, q + 4 * j, row_bytes, steps + 32 * j, rows);
}

PVL_INLINE void tile_q8(float *tile, const unsigned char *act, size_t row_bytes,
                        const unsigned char *panel, size_t blocks, size_t rows) {
    clear_tile(tile, rows);
    for (size_t b = 0; b < blocks; b++, act += 40, panel += 36 * PVL_PANEL) {
        v128_t sum[PVL_TILE_ROWS][2];
        v128_t start0 = sum_start(wasm_i32x4_shl(wasm_i32x4_load16x4(panel + 16), 6));
        v128_t start1 = sum_start(wasm_i32x4_shl(wasm_i32x4_load16x4(panel + 24), 6));
        for (size_t r = 0; r < rows; r++) {
            sum[r][0] = start0;
            sum[r][1] = start1;
        }
        q8_steps(sum, act + 8, row_bytes, panel + 32, rows, 8);
        PVL_FENCE;
        v128_t scale0 = load_half4(panel), scale1 = load_half4(panel + 8);
        for (size_t r = 0; r < rows; r++) {
            v128_t d = wasm_v128_load32_splat(act + r * row_bytes);
            add_to(tile + r * PVL_PANEL, wasm_f32x4_mul(sum_float(sum[r][0]), d), scale0);
            add_to(tile + r * PVL_PANEL + 4, wasm_f32x4_mul(sum_float(sum[r][1]), d), scale1);
        }
    }
}

PVL_INLINE void tile_q8w(float *tile, const unsigned char *act, size_t row_bytes,
                         const unsigned char *panel, size_t blocks, size_t rows) {
    clear_tile(tile, rows);
    for (size_t b = 0; b < blocks; b++, act += 68, panel += 72 * PVL_PANEL) {
        v128_t sum[PVL_TILE_ROWS][2];
        v128_t start0 = sum_start(wasm_v128_load(panel + 32));
        v128_t start1 = sum_start(wasm_v128_load(panel + 48));
        for (size_t r = 0; r < rows; r++) {
            sum[r][0] = start0;
            sum[r][1] = start1;
        }
        q8_steps(sum, act + 4, row_bytes, panel + 64, rows, 16);
        PVL_FENCE;
        v128_t scale0 = wasm_v128_load(panel), scale1 = wasm_v128_load(panel + 16);
        for (size_t r = 0; r < rows; r++) {
            v128_t d = wasm_v128_load32_splat(act + r * row_bytes);
            add_to(tile + r * PVL_PANEL, wasm_f32x4_mul(sum_float(sum[r][0]), d), scale0);
            add_to(tile + r * PVL_PANEL + 4, wasm_f32x4_mul(sum_float(sum[r][1]), d), scale1);
        }
    }
}

PVL_INLINE void q4_step(v128_t sum[][2], const unsigned char *q, size_t row_bytes,
                        const unsigned char *step, size_t rows) {
    v128_t v = wasm_v128_load(step);
    operand w0 = low_nibbles(v), w1 = high_nibbles(v);
    for (size_t r = 0; r < rows; r++) {
        operand x = signed_bytes(wasm_v128_load32_splat(q + r * row_bytes));
        sum[r][0] = nibble_dot_add(x, w0, sum[r][0]);
        sum[r][1] = nibble_dot_add(x, w1, sum[r][1]);
    }
}

/* One block of 4-bit weights; the sums come back as floats. */
PVL_INLINE void q4_steps(v128_t sum[][2], const unsigned char *q, size_t row_bytes,
                         const unsigned char *steps, size_t rows) {
    for (size_t r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = NIBBLE_START;
#ifndef TILE_DOT
    if (rows == 1) {
        PVL_UNROLL
        for (size_t j = 0; j < 8; j++)
            q4_step(sum, q + 4 * j, row_bytes, steps + 16 * j, rows);
    } else
#endif
    {
        PVL_KEEP_ROLLED
        for (size_t j = 0; j < 8; j++)
            q4_step(sum, q + 4 * j, row_bytes, steps + 16 * j, rows);
    }
    PVL_FENCE; /* or the tile's floats would take registers while the loop runs */
    for (size_t r = 0; r < rows; r++) {
        sum[r][0] = nibble_float(sum[r][0]);
        sum[r][1] = nibble_float(sum[r][1]);
    }
}

PVL_INLINE void tile_q4(float *tile, const unsigned char *act, size_t row_bytes,
                        const unsigned char *panel, size_t blocks, size_t rows) {
    clear_tile(tile, rows);
    for (size_t b = 0; b < blocks; b++, act += 40, panel += 18 * PVL_PANEL) {
        v128_t sum[PVL_TILE_ROWS][2];
        q4_steps(sum, act + 8, row_bytes, panel + 16, rows);
        v128_t scale0 = load_half4(panel), scale1 = load_half4(panel + 8);
        for (size_t r = 0; r < rows; r++) {
            v128_t d = wasm_v128_load32_splat(act + r * row_bytes),
                   c = wasm_v128_load32_splat(act + r * row_bytes + 4);
            add_to(tile + r * PVL_PANEL, madd4(sum[r][0], d, c), scale0);
            add_to(tile + r * PVL_PANEL + 4, madd4(sum[r][1], d, c), scale1);
        }
    }
}

PVL_INLINE void tile_q4m(float *tile, const unsigned char *act, size_t row_bytes,
                         const unsigned char *panel, size_t blocks, size_t rows) {
    clear_tile(tile, rows);
    for (size_t b = 0; b < blocks; b++, act += 40, panel += 20 * PVL_PANEL) {
        v128_t sum[PVL_TILE_ROWS][2];
        q4_steps(sum, act + 8, row_bytes, panel + 32, rows);
        v128_t scale0 = load_half4(panel), scale1 = load_half4(panel + 8);
        v128_t min0 = load_half4(panel + 16), min1 = load_half4(panel + 24);
        for (size_t r = 0; r < rows; r++) {
            v128_t d = wasm_v128_load32_splat(act + r * row_bytes),
                   c = wasm_v128_load32_splat(act + r * row_bytes + 4);
            add_to(tile + r * PVL_PANEL, wasm_f32x4_mul(sum[r][0], d), scale0);
            add_to(tile + r * PVL_PANEL + 4, wasm_f32x4_mul(sum[r][1], d), scale1);
            add_to(tile + r * PVL_PANEL, c, min0);
            add_to(tile + r * PVL_PANEL + 4, c, min1);
        }
    }
}

PVL_INLINE void tile_f32(float *tile, const unsigned char *act, size_t row_bytes,
                         const unsigned char *panel, size_t blocks, size_t rows) {
    v128_t sum[PVL_TILE_ROWS][2];
    for (size_t r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = wasm_f32x4_splat(0);
    PVL_KEEP_ROLLED
    for (size_t k = 0; k < blocks; k++, act += 4, panel += 4 * PVL_PANEL) {
        v128_t w0 = wasm_v128_load(panel), w1 = wasm_v128_load(panel + 16);
        for (size_t r = 0; r < rows; r++) {
            v128_t x = wasm_v128_load32_splat(act + r * row_bytes);
            sum[r][0] = madd4(x, w0, sum[r][0]);
            sum[r][1] = madd4(x, w1, sum[r][1]);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        wasm_v128_store(tile + r * PVL_PANEL, sum[r][0]);
        wasm_v128_store(tile + r * PVL_PANEL + 4, sum[r][1]);
    }
}

/* One row: blocks side by side, so that the loop has enough to do and the sums stay in registers.
 * They are of several panels where there are: their bytes come from memory, and several streams
 * come faster than one. */
enum { GROUP = 4 };

PVL_INLINE void group_4bit(v128_t y[][2], const unsigned char *act, const unsigned char *panel,
                           size_t apart, size_t panels, size_t group, bool minimum) {
    size_t head = minimum ? 32 : 16, bytes = head + 128;
    v128_t sum[GROUP][2];
    for (size_t i = 0; i < group * panels; i++)
        sum[i][0] = sum[i][1] = NIBBLE_START;
    PVL_KEEP_ROLLED
    for (size_t j = 0; j < 8; j++) {
        for (size_t i = 0; i < group * panels; i++) {
            size_t g = i / panels;
            q4_step(sum + i, act + 40 * g + 8 + 4 * j, 0,
                    panel + i % panels * apart + bytes * g + head + 16 * j, 1);
        }
    }
    for (size_t i = 0; i < group * panels; i++) {
        const unsigned char *a = act + 40 * (i / panels),
                            *w = panel + i % panels * apart + bytes * (i / panels);
        v128_t *to = y[i % panels];
        v128_t d = wasm_v128_load32_splat(a), c = wasm_v128_load32_splat(a + 4);
        for (size_t l = 0; l < 2; l++) {
            v128_t v = nibble_float(sum[i][l]), scale = load_half4(w + 8 * l);
            if (minimum) {
                to[l] = madd4(wasm_f32x4_mul(v, d), scale, to[l]);
                to[l] = madd4(c, load_half4(w + 16 + 8 * l), to[l]);
            } else {
                to[l] = madd4(madd4(v, d, c), scale, to[l]);
            }
        }
    }
}

PVL_INLINE void group_8bit(v128_t y[][2], const unsigned char *act, const unsigned char *panel,
                           size_t apart, size_t panels, size_t group, bool wide) {
    size_t head = wide ? 64 : 32, steps = wide ? 16 : 8, bytes = head + 32 * steps;
    size_t act_head = wide ? 4 : 8, act_bytes = act_head + 4 * steps;
    v128_t sum[GROUP][2];
    for (size_t i = 0; i < group * panels; i++) {
        for (size_t l = 0; l < 2; l++) {
            const unsigned char *start =
                panel + i % panels * apart + bytes * (i / panels) + head / 2;
            sum[i][l] = sum_start(wide ? wasm_v128_load(start + 16 * l)
                                       : wasm_i32x4_shl(wasm_i32x4_load16x4(start + 8 * l), 6));
        }
    }
    PVL_KEEP_ROLLED
    for (size_t j = 0; j < steps; j++) {
        for (size_t i = 0; i < group * panels; i++) {
            size_t g = i / panels;
            q8_step(sum + i, act + act_bytes * g + act_head + 4 * j, 0,
                    panel + i % panels * apart + bytes * g + head + 32 * j, 1);
        }
    }
    for (size_t i = 0; i < group * panels; i++) {
        const unsigned char *w = panel + i % panels * apart + bytes * (i / panels);
        v128_t *to = y[i % panels], d = wasm_v128_load32_splat(act + act_bytes * (i / panels));
        for (size_t l = 0; l < 2; l++) {
            v128_t v = wasm_f32x4_mul(sum_float(sum[i][l]), d);
            to[l] = madd4(v, wide ? wasm_v128_load(w + 16 * l) : load_half4(w + 8 * l), to[l]);
        }
    }
}

#define ROWS(op, group, act_bytes, panel_bytes, flag)                                              \
    PVL_INLINE void rows_##op(float *tile, const unsigned char *act, const unsigned char *panel,   \
                              size_t apart, size_t panels, size_t blocks) {                        \
        v128_t y[PVL_STREAMS][2];                                                                  \
        for (size_t i = 0; i < panels; i++)                                                        \
            y[i][0] = y[i][1] = wasm_f32x4_splat(0);                                               \
        size_t side = GROUP / panels, b = 0;                                                       \
        for (; b + side <= blocks; b += side, act += side * (act_bytes))                           \
            group(y, act, panel + b * (panel_bytes), apart, panels, side, flag);                   \
        for (; b < blocks; b++, act += (act_bytes))                                                \
            group(y, act, panel + b * (panel_bytes), apart, panels, 1, flag);                      \
        for (size_t i = 0; i < panels; i++) {                                                      \
            wasm_v128_store(tile + i * PVL_PANEL, y[i][0]);                                        \
            wasm_v128_store(tile + i * PVL_PANEL + 4, y[i][1]);                                    \
        }                                                                                          \
    }                                                                                              \
    void STREAMS_NAME(op)(float *tile, const unsigned char *act, const unsigned char *panel,       \
                          size_t apart, size_t blocks) {                                           \
        rows_##op(tile, act, panel, apart, PVL_STREAMS, blocks);                                   \
    }
ROWS(q8, group_8bit, 40, 288, false)
ROWS(q8w, group_8bit, 68, 576, true)
ROWS(q4, group_4bit, 40, 144, false)
ROWS(q4m, group_4bit, 40, 160, true)

/* The panels that are left over. */
#ifdef TILE_DOT
#define row_q8(tile, act, panel, blocks) rows_q8(tile, act, panel, 0, 1, blocks)
#define row_q8w(tile, act, panel, blocks) rows_q8w(tile, act, panel, 0, 1, blocks)
#define row_q4(tile, act, panel, blocks) rows_q4(tile, act, panel, 0, 1, blocks)
#define row_q4m(tile, act, panel, blocks) rows_q4m(tile, act, panel, 0, 1, blocks)
#else
#define row_q8(tile, act, panel, blocks) tile_q8(tile, act, 0, panel, blocks, 1)
#define row_q8w(tile, act, panel, blocks) tile_q8w(tile, act, 0, panel, blocks, 1)
#define row_q4(tile, act, panel, blocks) tile_q4(tile, act, 0, panel, blocks, 1)
#define row_q4m(tile, act, panel, blocks) tile_q4m(tile, act, 0, panel, blocks, 1)
#endif
#define row_f32(tile, act, panel, blocks) tile_f32(tile, act, 0, panel, blocks, 1)

#define TILE(op)                                                                                   \
    void TILE_NAME(op)(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,       \
                       const unsigned char *panel, size_t blocks) {                                \
        switch (rows) {                                                                            \
        case 1:                                                                                    \
            row_##op(tile, act, panel, blocks);                                                    \
            break;                                                                                 \
        case 2:                                                                                    \
            tile_##op(tile, act, row_bytes, panel, blocks, 2);                                     \
            break;                                                                                 \
        case 3:                                                                                    \
            tile_##op(tile, act, row_bytes, panel, blocks, 3);                                     \
            break;                                                                                 \
        default:                                                                                   \
            tile_##op(tile, act, row_bytes, panel, blocks, 4);                                     \
        }                                                                                          \
    }

TILE(f32)
TILE(q8)
TILE(q8w)
TILE(q4)
TILE(q4m)
