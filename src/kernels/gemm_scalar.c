#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "kernels/sets.h"

static float load_f32(const unsigned char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

static int32_t load_i32(const unsigned char *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

void pvl_k_tile_f32__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                            const unsigned char *panel, size_t blocks) {
    for (size_t r = 0; r < rows; r++) {
        float sum[PVL_PANEL] = {0};
        for (size_t k = 0; k < blocks; k++) {
            float x = load_f32(act + r * row_bytes + 4 * k);
            for (size_t c = 0; c < PVL_PANEL; c++)
                sum[c] += x * load_f32(panel + (k * PVL_PANEL + c) * 4);
        }
        memcpy(tile + r * PVL_PANEL, sum, sizeof sum);
    }
}

/* Integer dots of one block of 8-bit activations with the steps of a panel's block. */
static void dots_q8(int32_t sum[PVL_PANEL], const unsigned char *q, const unsigned char *steps,
                    size_t block) {
    for (size_t c = 0; c < PVL_PANEL; c++)
        sum[c] = 0;
    for (size_t k = 0; k < block; k++) {
        const unsigned char *w = steps + k / PVL_STEP * PVL_STEP * PVL_PANEL + k % PVL_STEP;
        for (size_t c = 0; c < PVL_PANEL; c++)
            sum[c] += (int32_t)q[k] * (int8_t)w[c * PVL_STEP];
    }
}

void pvl_k_tile_q8__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                           const unsigned char *panel, size_t blocks) {
    const pvl_packing_traits *t = &pvl_packings[PVL_PACK_Q8];
    for (size_t r = 0; r < rows; r++) {
        const unsigned char *a = act + r * row_bytes, *w = panel;
        float *out = tile + r * PVL_PANEL;
        for (size_t c = 0; c < PVL_PANEL; c++)
            out[c] = 0;
        for (size_t b = 0; b < blocks; b++, a += t->act_bytes, w += t->panel_bytes) {
            int32_t sum[PVL_PANEL];
            dots_q8(sum, a + 8, w + 4 * PVL_PANEL, t->block);
            float d = load_f32(a);
            for (size_t c = 0; c < PVL_PANEL; c++) {
                int32_t minus = (int16_t)pvl_load_u16(w + 2 * PVL_PANEL + 2 * c);
                float scale = pvl_f16_to_f32(pvl_load_u16(w + 2 * c));
                out[c] += (float)(sum[c] + PVL_Q8_ZERO * minus) * d * scale;
            }
        }
    }
}

void pvl_k_tile_q8w__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                            const unsigned char *panel, size_t blocks) {
    const pvl_packing_traits *t = &pvl_packings[PVL_PACK_Q8W];
    for (size_t r = 0; r < rows; r++) {
        const unsigned char *a = act + r * row_bytes, *w = panel;
        float *out = tile + r * PVL_PANEL;
        for (size_t c = 0; c < PVL_PANEL; c++)
            out[c] = 0;
        for (size_t b = 0; b < blocks; b++, a += t->act_bytes, w += t->panel_bytes) {
            int32_t sum[PVL_PANEL];
            dots_q8(sum, a + 4, w + 8 * PVL_PANEL, t->block);
            float d = load_f32(a);
            for (size_t c = 0; c < PVL_PANEL; c++) {
                out[c] +=
                    (float)(sum[c] + load_i32(w + 4 * PVL_PANEL + 4 * c)) * d * load_f32(w + 4 * c);
            }
        }
    }
}

static void dots_q4(int32_t sum[PVL_PANEL], const unsigned char *q, const unsigned char *steps) {
    for (size_t c = 0; c < PVL_PANEL; c++)
        sum[c] = 0;
    for (size_t k = 0; k < 32; k++) {
        const unsigned char *w = steps + k / PVL_STEP * 16 + k % PVL_STEP;
        for (size_t c = 0; c < PVL_PANEL; c++) {
            unsigned byte = w[c % 4 * PVL_STEP];
            sum[c] += (int8_t)q[k] * (int32_t)(c < 4 ? byte & 15 : byte >> 4);
        }
    }
}

void pvl_k_tile_q4__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                           const unsigned char *panel, size_t blocks) {
    const pvl_packing_traits *t = &pvl_packings[PVL_PACK_Q4];
    for (size_t r = 0; r < rows; r++) {
        const unsigned char *a = act + r * row_bytes, *w = panel;
        float *out = tile + r * PVL_PANEL;
        for (size_t c = 0; c < PVL_PANEL; c++)
            out[c] = 0;
        for (size_t b = 0; b < blocks; b++, a += t->act_bytes, w += t->panel_bytes) {
            int32_t sum[PVL_PANEL];
            dots_q4(sum, a + 8, w + 2 * PVL_PANEL);
            float d = load_f32(a), offset = load_f32(a + 4);
            for (size_t c = 0; c < PVL_PANEL; c++) {
                out[c] += ((float)sum[c] * d + offset) * pvl_f16_to_f32(pvl_load_u16(w + 2 * c));
            }
        }
    }
}

void pvl_k_tile_q4m__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                            const unsigned char *panel, size_t blocks) {
    const pvl_packing_traits *t = &pvl_packings[PVL_PACK_Q4M];
    for (size_t r = 0; r < rows; r++) {
        const unsigned char *a = act + r * row_bytes, *w = panel;
        float *out = tile + r * PVL_PANEL;
        for (size_t c = 0; c < PVL_PANEL; c++)
            out[c] = 0;
        for (size_t b = 0; b < blocks; b++, a += t->act_bytes, w += t->panel_bytes) {
            int32_t sum[PVL_PANEL];
            dots_q4(sum, a + 8, w + 4 * PVL_PANEL);
            float d = load_f32(a), offset = load_f32(a + 4);
            for (size_t c = 0; c < PVL_PANEL; c++) {
                out[c] += (float)sum[c] * d * pvl_f16_to_f32(pvl_load_u16(w + 2 * c));
                out[c] += offset * pvl_f16_to_f32(pvl_load_u16(w + 2 * PVL_PANEL + 2 * c));
            }
        }
    }
}

void pvl_k_finish__scalar(float *y, size_t y_stride, const float *tile, size_t rows, size_t cols,
                          const pvl_epilogue *e) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++) {
            float v = tile[r * PVL_PANEL + c];
            if (e->bias)
                v += e->bias[c];
            if (e->activation == PVL_ACT_GELU_ERF)
                v = 0.5f * v * (1.0f + erff(v * 0.70710678118654752f));
            if (e->scale)
                v *= e->scale[c];
            if (e->add)
                v += y[r * y_stride + c];
            y[r * y_stride + c] = v;
        }
    }
}
