/* Attention of the SIMD sets. Include once per file, after defining NAME(op). */
#include "kernels/math_simd.h"
#include "kernels/private.h"

/* One panel of eight keys against `rows` queries. */
PVL_INLINE void score_panel(float *s, size_t s_stride, const float *q, size_t q_stride,
                            const float *keys, size_t d, size_t rows) {
    v128_t sum[PVL_TILE_ROWS][2];
    for (size_t r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = wasm_f32x4_splat(0);
    PVL_KEEP_ROLLED
    for (size_t i = 0; i < d; i++, keys += PVL_PANEL) {
        v128_t k0 = wasm_v128_load(keys), k1 = wasm_v128_load(keys + 4);
        for (size_t r = 0; r < rows; r++) {
            v128_t x = wasm_v128_load32_splat(q + r * q_stride + i);
            sum[r][0] = madd4(x, k0, sum[r][0]);
            sum[r][1] = madd4(x, k1, sum[r][1]);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        wasm_v128_store(s + r * s_stride, sum[r][0]);
        wasm_v128_store(s + r * s_stride + 4, sum[r][1]);
    }
}

PVL_INLINE void score_rows(float *s, size_t s_stride, const float *q, size_t q_stride,
                           const float *keys, size_t panels, size_t d, size_t rows) {
    for (size_t p = 0; p < panels; p++, keys += d * PVL_PANEL) {
        score_panel(s + p * PVL_PANEL, s_stride, q, q_stride, keys, d, rows);
    }
}

void NAME(scores)(float *s, size_t s_stride, const float *q, size_t q_stride, size_t rows,
                  const float *keys, size_t panels, size_t d) {
    switch (rows) {
    case 1:
        score_rows(s, s_stride, q, q_stride, keys, panels, d, 1);
        break;
    case 2:
        score_rows(s, s_stride, q, q_stride, keys, panels, d, 2);
        break;
    case 3:
        score_rows(s, s_stride, q, q_stride, keys, panels, d, 3);
        break;
    default:
        score_rows(s, s_stride, q, q_stride, keys, panels, d, 4);
    }
}

float NAME(max)(const float *x, size_t n) {
    v128_t a = wasm_v128_load(x), b = wasm_v128_load(x + 4);
    for (size_t i = 8; i < n; i += 8) {
        a = wasm_f32x4_pmax(a, wasm_v128_load(x + i));
        b = wasm_f32x4_pmax(b, wasm_v128_load(x + i + 4));
    }
    return max4(wasm_f32x4_pmax(a, b));
}

float NAME(exp_sum)(float *x, size_t n, float top) {
    v128_t t = wasm_f32x4_splat(top), a = wasm_f32x4_splat(0), b = a;
    for (size_t i = 0; i < n; i += 8) {
        v128_t u = exp4(wasm_f32x4_sub(wasm_v128_load(x + i), t));
        v128_t v = exp4(wasm_f32x4_sub(wasm_v128_load(x + i + 4), t));
        wasm_v128_store(x + i, u);
        wasm_v128_store(x + i + 4, v);
        a = wasm_f32x4_add(a, u);
        b = wasm_f32x4_add(b, v);
    }
    return sum4(wasm_f32x4_add(a, b));
}

/* Eight columns of the values. */
PVL_INLINE void mix_columns(float *o, const float *keep, const float *p, size_t p_stride,
                            const float *v, size_t keys, size_t d, size_t rows) {
    v128_t sum[PVL_TILE_ROWS][2];
    for (size_t r = 0; r < rows; r++) {
        v128_t k = wasm_v128_load32_splat(keep + r);
        sum[r][0] = wasm_f32x4_mul(wasm_v128_load(o + r * d), k);
        sum[r][1] = wasm_f32x4_mul(wasm_v128_load(o + r * d + 4), k);
    }
    PVL_KEEP_ROLLED
    for (size_t j = 0; j < keys; j++, v += d) {
        v128_t v0 = wasm_v128_load(v), v1 = wasm_v128_load(v + 4);
        for (size_t r = 0; r < rows; r++) {
            v128_t x = wasm_v128_load32_splat(p + r * p_stride + j);
            sum[r][0] = madd4(x, v0, sum[r][0]);
            sum[r][1] = madd4(x, v1, sum[r][1]);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        wasm_v128_store(o + r * d, sum[r][0]);
        wasm_v128_store(o + r * d + 4, sum[r][1]);
    }
}

PVL_INLINE void mix_rows(float *o, const float *keep, const float *p, size_t p_stride,
                         const float *v, size_t keys, size_t d, size_t rows) {
    for (size_t i = 0; i < d; i += PVL_PANEL)
        mix_columns(o + i, keep, p, p_stride, v + i, keys, d, rows);
}

void NAME(mix)(float *o, const float *keep, const float *p, size_t p_stride, size_t rows,
               const float *v, size_t keys, size_t d) {
    switch (rows) {
    case 1:
        mix_rows(o, keep, p, p_stride, v, keys, d, 1);
        break;
    case 2:
        mix_rows(o, keep, p, p_stride, v, keys, d, 2);
        break;
    case 3:
        mix_rows(o, keep, p, p_stride, v, keys, d, 3);
        break;
    default:
        mix_rows(o, keep, p, p_stride, v, keys, d, 4);
    }
}

PVL_INLINE void widen8(float *out, const unsigned char *q, v128_t scale0, v128_t scale1) {
    v128_t v = wasm_i16x8_load8x8(q);
    wasm_v128_store(
        out, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(v)), scale0));
    wasm_v128_store(
        out + 4, wasm_f32x4_mul(wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(v)), scale1));
}

void NAME(widen_keys)(float *out, const unsigned char *panel, size_t d) {
    v128_t scale0 = wasm_v128_load(panel), scale1 = wasm_v128_load(panel + 16);
    for (size_t i = 0; i < d; i++)
        widen8(out + i * PVL_PANEL, panel + 32 + i * PVL_PANEL, scale0, scale1);
}

void NAME(widen_value)(float *out, const unsigned char *row, size_t d) {
    v128_t scale = wasm_v128_load32_splat(row);
    for (size_t i = 0; i < d; i += 8)
        widen8(out + i, row + 4 + i, scale, scale);
}

typedef struct eight {
    v128_t low, high;
} eight;

PVL_INLINE eight bytes8(const unsigned char *q) {
    v128_t v = wasm_i16x8_load8x8(q);
    return (eight){wasm_f32x4_convert_i32x4(wasm_i32x4_extend_low_i16x8(v)),
                   wasm_f32x4_convert_i32x4(wasm_i32x4_extend_high_i16x8(v))};
}

/* Few rows leave registers for several panels, or groups of columns, at a time: one alone would
 * wait for its own sum. */
PVL_INLINE void score_bytes(float *s, size_t s_stride, const float *q, size_t q_stride,
                            const unsigned char *keys, size_t d, size_t rows, size_t panels) {
    size_t bytes = (4 + d) * PVL_PANEL;
    v128_t sum[PVL_TILE_ROWS][2];
    for (size_t i = 0; i < rows * panels; i++)
        sum[i][0] = sum[i][1] = wasm_f32x4_splat(0);
    PVL_KEEP_ROLLED
    for (size_t i = 0; i < d; i++) {
        for (size_t p = 0; p < panels; p++) {
            eight k = bytes8(keys + p * bytes + 32 + i * PVL_PANEL);
            for (size_t r = 0; r < rows; r++) {
                v128_t x = wasm_v128_load32_splat(q + r * q_stride + i);
                sum[p * rows + r][0] = madd4(x, k.low, sum[p * rows + r][0]);
                sum[p * rows + r][1] = madd4(x, k.high, sum[p * rows + r][1]);
            }
        }
    }
    for (size_t i = 0; i < rows * panels; i++) {
        const unsigned char *scale = keys + i / rows * bytes;
        float *to = s + i % rows * s_stride + i / rows * PVL_PANEL;
        wasm_v128_store(to, wasm_f32x4_mul(sum[i][0], wasm_v128_load(scale)));
        wasm_v128_store(to + 4, wasm_f32x4_mul(sum[i][1], wasm_v128_load(scale + 16)));
    }
}

PVL_INLINE void score_rows_q8(float *s, size_t s_stride, const float *q, size_t q_stride,
                              const unsigned char *keys, size_t panels, size_t d, size_t rows) {
    size_t side = PVL_TILE_ROWS / rows, bytes = (4 + d) * PVL_PANEL, p = 0;
    for (; p + side <= panels; p += side, keys += side * bytes)
        score_bytes(s + p * PVL_PANEL, s_stride, q, q_stride, keys, d, rows, side);
    for (; p < panels; p++, keys += bytes)
        score_bytes(s + p * PVL_PANEL, s_stride, q, q_stride, keys, d, rows, 1);
}

void NAME(scores_q8)(float *s, size_t s_stride, const float *q, size_t q_stride, size_t rows,
                     const unsigned char *keys, size_t panels, size_t d) {
    switch (rows) {
    case 1:
        score_rows_q8(s, s_stride, q, q_stride, keys, panels, d, 1);
        break;
    case 2:
        score_rows_q8(s, s_stride, q, q_stride, keys, panels, d, 2);
        break;
    case 3:
        score_rows_q8(s, s_stride, q, q_stride, keys, panels, d, 3);
        break;
    default:
        score_rows_q8(s, s_stride, q, q_stride, keys, panels, d, 4);
    }
}

PVL_INLINE void mix_bytes(float *o, const float *keep, const float *p, size_t p_stride,
                          const unsigned char *v, size_t keys, size_t d, size_t rows,
                          size_t groups) {
    v128_t sum[PVL_TILE_ROWS][2];
    for (size_t i = 0; i < rows * groups; i++) {
        const float *from = o + i % rows * d + i / rows * 8;
        v128_t k = wasm_v128_load32_splat(keep + i % rows);
        sum[i][0] = wasm_f32x4_mul(wasm_v128_load(from), k);
        sum[i][1] = wasm_f32x4_mul(wasm_v128_load(from + 4), k);
    }
    PVL_KEEP_ROLLED
    for (size_t j = 0; j < keys; j++, v += 4 + d) {
        for (size_t g = 0; g < groups; g++) {
            eight u = bytes8(v + 8 * g);
            for (size_t r = 0; r < rows; r++) {
                v128_t x = wasm_v128_load32_splat(p + r * p_stride + j);
                sum[g * rows + r][0] = madd4(x, u.low, sum[g * rows + r][0]);
                sum[g * rows + r][1] = madd4(x, u.high, sum[g * rows + r][1]);
            }
        }
    }
    for (size_t i = 0; i < rows * groups; i++) {
        float *to = o + i % rows * d + i / rows * 8;
        wasm_v128_store(to, sum[i][0]);
        wasm_v128_store(to + 4, sum[i][1]);
    }
}

PVL_INLINE void mix_rows_q8(float *o, const float *keep, float *p, size_t p_stride,
                            const unsigned char *v, size_t keys, size_t d, size_t rows) {
    size_t side = 8 * (PVL_TILE_ROWS / rows), i = 0;
    for (size_t j = 0; j < keys; j++) {
        for (size_t r = 0; r < rows; r++)
            p[r * p_stride + j] *= load_f32(v + j * (4 + d));
    }
    for (; i + side <= d; i += side)
        mix_bytes(o + i, keep, p, p_stride, v + 4 + i, keys, d, rows, PVL_TILE_ROWS / rows);
    for (; i < d; i += 8)
        mix_bytes(o + i, keep, p, p_stride, v + 4 + i, keys, d, rows, 1);
}

void NAME(mix_q8)(float *o, const float *keep, float *p, size_t p_stride, size_t rows,
                  const unsigned char *v, size_t keys, size_t d) {
    switch (rows) {
    case 1:
        mix_rows_q8(o, keep, p, p_stride, v, keys, d, 1);
        break;
    case 2:
        mix_rows_q8(o, keep, p, p_stride, v, keys, d, 2);
        break;
    case 3:
        mix_rows_q8(o, keep, p, p_stride, v, keys, d, 3);
        break;
    default:
        mix_rows_q8(o, keep, p, p_stride, v, keys, d, 4);
    }
}
