#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "kernels/blocks.h"
#include "kernels/private.h"

const pvl_packing_traits pvl_packings[PVL_PACKINGS] = {
    [PVL_PACK_F32] = {1, 4 * PVL_PANEL, 4},
    [PVL_PACK_Q8] = {32, (2 + 2 + 32) * PVL_PANEL, 4 + 4 + 32},
    [PVL_PACK_Q8W] = {64, (4 + 4 + 64) * PVL_PANEL, 4 + 64},
    [PVL_PACK_Q4] = {32, (2 + 16) * PVL_PANEL, 4 + 4 + 32},
    [PVL_PACK_Q4M] = {32, (2 + 2 + 16) * PVL_PANEL, 4 + 4 + 32},
};

pvl_packing pvl_form_packing(pvl_form form) {
    switch (form) {
    case PVL_FORM_Q8:
        return PVL_PACK_Q8;
    case PVL_FORM_Q8W:
        return PVL_PACK_Q8W;
    case PVL_FORM_Q4:
        return PVL_PACK_Q4;
    case PVL_FORM_F32:
        break;
    }
    return PVL_PACK_F32;
}

pvl_packing pvl_matrix_packing(const pvl_matrix *m) {
    return m->form == PVL_FORM_Q4 && (m->flags & PVL_MATRIX_MINIMUM) ? PVL_PACK_Q4M
                                                                     : pvl_form_packing(m->form);
}

pvl_form pvl_form_for(pvl_dtype file_type, size_t cols, bool f32) {
    if (f32 || cols % PVL_BLOCK != 0)
        return PVL_FORM_F32;
    switch (file_type) {
    case PVL_DTYPE_Q4_0:
    case PVL_DTYPE_Q4_1:
    case PVL_DTYPE_Q4_K:
        return PVL_FORM_Q4;
    case PVL_DTYPE_F32:
    case PVL_DTYPE_F16:
    case PVL_DTYPE_BF16:
        return cols % pvl_packings[PVL_PACK_Q8W].block == 0 ? PVL_FORM_Q8W : PVL_FORM_Q8;
    default:
        return PVL_FORM_Q8;
    }
}

pvl_status pvl_matrix_plan(pvl_matrix *m, pvl_dtype file_type, size_t rows, size_t cols, bool f32,
                           pvl_error *err) {
    *m = (pvl_matrix){.form = pvl_form_for(file_type, cols, f32),
                      .file_type = file_type,
                      .rows = rows,
                      .cols = cols};
    if (m->form == PVL_FORM_Q4 && file_type != PVL_DTYPE_Q4_0)
        m->flags = PVL_MATRIX_MINIMUM;
    const pvl_packing_traits *t = &pvl_packings[pvl_matrix_packing(m)];
    size_t panels = rows / PVL_PANEL + (rows % PVL_PANEL != 0);
    m->block = (uint32_t)t->block;
    if (!pvl_size_mul3(&m->bytes, panels, cols / t->block, t->panel_bytes)) {
        return pvl_fail(err, PVL_E_MEMORY,
                        "A matrix of %zu x %zu weights does not fit this machine's address space: "
                        "take a smaller "
                        "model.",
                        rows, cols);
    }
    return PVL_OK;
}

static void store_u16(unsigned char *p, uint16_t v) {
    memcpy(p, &v, sizeof v);
}
static void store_i32(unsigned char *p, int32_t v) {
    memcpy(p, &v, sizeof v);
}
static void store_f32(unsigned char *p, float v) {
    memcpy(p, &v, sizeof v);
}
static float load_f32(const unsigned char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* max |x|; NaN when there is one, so that a damaged weight shows in the outputs. */
static float largest(const float *x, size_t n) {
    float amax = 0;
    for (size_t i = 0; i < n; i++) {
        float v = fabsf(x[i]);
        if (isnan(v))
            return v;
        if (v > amax)
            amax = v;
    }
    return amax;
}

/* q = round(x / d); x beyond 127 d is cut, which the rounding of d to a half can bring about. */
static void round_to(int8_t *q, const float *x, size_t n, float d) {
    float inverse = d > 0 ? 1.0f / d : 0;
    for (size_t i = 0; i < n; i++) {
        float v = nearbyintf(x[i] * inverse);
        q[i] = (int8_t)(v >= 127 ? 127 : v > -127 ? v : -127); /* NaN -> -127: d is NaN then too */
    }
}

/* Integers and scale of one block of one row of the file that becomes Q8. Types whose values are
 * integers of at most 8 bits times one scale are taken over exactly; others go through floats, once
 * more rounded. */
static uint16_t block_q8(int8_t q[PVL_BLOCK], pvl_dtype type, const unsigned char *row, size_t at) {
    size_t index = at / PVL_BLOCK;
    if (type == PVL_DTYPE_Q8_0) {
        pvl_block_q8_0 b;
        memcpy(&b, row + index * sizeof b, sizeof b);
        memcpy(q, b.qs, sizeof b.qs);
        return b.d;
    }
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
    if (type == PVL_DTYPE_IQ4_NL) {
        pvl_block_iq4_nl b;
        memcpy(&b, row + index * sizeof b, sizeof b);
        for (int j = 0; j < PVL_BLOCK / 2; j++) {
            q[j] = pvl_iq4_values[b.qs[j] & 15];
            q[j + 16] = pvl_iq4_values[b.qs[j] >> 4];
        }
        return b.d;
    }
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    size_t length = t->block_length < PVL_BLOCK ? PVL_BLOCK : t->block_length;
    float x[PVL_SUPER_BLOCK];
    const unsigned char *src = row + at / length * (length / t->block_length) * t->block_bytes;
    pvl_dtype_dequantize(type, x, src, length);
    const float *from = x + at % length;
    uint16_t d = pvl_f32_to_f16(largest(from, PVL_BLOCK) / 127.0f);
    round_to(q, from, PVL_BLOCK, pvl_f16_to_f32(d));
    return d;
}

static int32_t sum_of(const int8_t *q, size_t n) {
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += q[i];
    return sum;
}

/* Bytes of output `lane`: steps of 4 inputs, PVL_PANEL outputs side by side. */
static void spread(unsigned char *steps, size_t lane, const int8_t *q, size_t n) {
    for (size_t i = 0; i < n; i += PVL_STEP)
        memcpy(steps + i * PVL_PANEL + lane * PVL_STEP, q + i, PVL_STEP);
}

static void pack_q8(unsigned char *panel, size_t lane, pvl_dtype type, const unsigned char *row,
                    size_t cols) {
    int8_t q[PVL_BLOCK];
    for (size_t at = 0; at < cols;
         at += PVL_BLOCK, panel += pvl_packings[PVL_PACK_Q8].panel_bytes) {
        store_u16(panel + 2 * lane, block_q8(q, type, row, at));
        store_u16(panel + 2 * PVL_PANEL + 2 * lane, (uint16_t)-sum_of(q, PVL_BLOCK));
        spread(panel + 4 * PVL_PANEL, lane, q, PVL_BLOCK);
    }
}

static void pack_q8w(unsigned char *panel, size_t lane, pvl_dtype type, const unsigned char *row,
                     size_t cols) {
    enum { BLOCK = 64 };
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    float x[BLOCK];
    int8_t q[BLOCK];
    for (size_t at = 0; at < cols; at += BLOCK, panel += pvl_packings[PVL_PACK_Q8W].panel_bytes) {
        pvl_dtype_dequantize(type, x, row + at * t->block_bytes, BLOCK);
        float d = largest(x, BLOCK) / 127.0f;
        round_to(q, x, BLOCK, d);
        store_f32(panel + 4 * lane, d);
        store_i32(panel + 4 * PVL_PANEL + 4 * lane, -PVL_Q8_ZERO * sum_of(q, BLOCK));
        spread(panel + 8 * PVL_PANEL, lane, q, BLOCK);
    }
}

/* Integers 0..15, scale and minimum (y = d q + m) of block `index` of one row. */
static void block_q4(uint8_t q[PVL_BLOCK], uint16_t *d, uint16_t *m_eighth, pvl_dtype type,
                     const unsigned char *row, size_t index) {
    *m_eighth = 0;
    if (type == PVL_DTYPE_Q4_K) {
        pvl_block_q4_k b;
        memcpy(&b, row + index / 8 * sizeof b, sizeof b);
        int g = (int)(index % 8);
        uint8_t scale, min;
        pvl_k_scale_min(b.scales, g, &scale, &min);
        for (int l = 0; l < PVL_BLOCK; l++)
            q[l] = b.qs[32 * (g / 2) + l] >> 4 * (g % 2) & 15;
        *d = pvl_f32_to_f16(pvl_f16_to_f32(b.d) * (float)scale);
        *m_eighth =
            pvl_f32_to_f16(pvl_f16_to_f32(b.dmin) * (float)min * 0.125f); /* y = d q - min */
        return;
    }
    uint8_t qs[PVL_BLOCK / 2];
    if (type == PVL_DTYPE_Q4_1) {
        pvl_block_q4_1 b;
        memcpy(&b, row + index * sizeof b, sizeof b);
        memcpy(qs, b.qs, sizeof qs);
        *d = b.d;
        *m_eighth = pvl_f32_to_f16(pvl_f16_to_f32(b.m) * -0.125f);
    } else {
        pvl_block_q4_0 b;
        memcpy(&b, row + index * sizeof b, sizeof b);
        memcpy(qs, b.qs, sizeof qs);
        *d = b.d;
    }
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        q[j] = qs[j] & 15;
        q[j + 16] = qs[j] >> 4;
    }
}

static void pack_q4(unsigned char *panel, size_t lane, pvl_dtype type, const unsigned char *row,
                    size_t cols, pvl_packing packing) {
    size_t head = packing == PVL_PACK_Q4M ? 4 * PVL_PANEL : 2 * PVL_PANEL;
    unsigned shift = lane < 4 ? 0 : 4;
    unsigned mask = 0xF0u >> shift;
    for (size_t i = 0; i < cols / PVL_BLOCK; i++, panel += pvl_packings[packing].panel_bytes) {
        uint8_t q[PVL_BLOCK];
        uint16_t d, m;
        block_q4(q, &d, &m, type, row, i);
        store_u16(panel + 2 * lane, d);
        if (packing == PVL_PACK_Q4M)
            store_u16(panel + 2 * PVL_PANEL + 2 * lane, m);
        unsigned char *steps = panel + head + lane % 4 * PVL_STEP;
        for (size_t k = 0; k < PVL_BLOCK; k++) {
            unsigned char *byte = steps + k / PVL_STEP * 16 + k % PVL_STEP;
            *byte = (unsigned char)((*byte & mask) | (unsigned)q[k] << shift);
        }
    }
}

static void pack_f32(unsigned char *panel, size_t lane, pvl_dtype type, const unsigned char *row,
                     size_t cols) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    float x[PVL_SUPER_BLOCK];
    for (size_t at = 0; at < cols; at += PVL_SUPER_BLOCK) {
        size_t n = cols - at < PVL_SUPER_BLOCK ? cols - at : PVL_SUPER_BLOCK;
        pvl_dtype_dequantize(type, x, row + at / t->block_length * t->block_bytes, n);
        for (size_t i = 0; i < n; i++, panel += 4 * PVL_PANEL)
            store_f32(panel + 4 * lane, x[i]);
    }
}

static unsigned char *panel_of(const pvl_matrix *m, size_t row) {
    const pvl_packing_traits *t = &pvl_packings[pvl_matrix_packing(m)];
    return m->data + row / PVL_PANEL * (m->cols / t->block * t->panel_bytes);
}

void pvl_matrix_set_rows(const pvl_matrix *m, size_t first, size_t count, const void *src) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)m->file_type);
    pvl_packing packing = pvl_matrix_packing(m);
    size_t row_bytes = m->cols / t->block_length * t->block_bytes;
    const unsigned char *row = src;
    for (size_t r = first; r < first + count; r++, row += row_bytes) {
        unsigned char *panel = panel_of(m, r);
        size_t lane = r % PVL_PANEL;
        if (lane == 0 && m->rows - r < PVL_PANEL) {
            memset(panel, 0, m->cols / m->block * pvl_packings[packing].panel_bytes);
        }
        switch (packing) {
        case PVL_PACK_Q8:
            pack_q8(panel, lane, m->file_type, row, m->cols);
            break;
        case PVL_PACK_Q8W:
            pack_q8w(panel, lane, m->file_type, row, m->cols);
            break;
        case PVL_PACK_Q4:
        case PVL_PACK_Q4M:
            pack_q4(panel, lane, m->file_type, row, m->cols, packing);
            break;
        default:
            pack_f32(panel, lane, m->file_type, row, m->cols);
        }
    }
}

void pvl_matrix_get_row(const pvl_matrix *m, size_t row, float *out) {
    pvl_packing packing = pvl_matrix_packing(m);
    const pvl_packing_traits *t = &pvl_packings[packing];
    const unsigned char *panel = panel_of(m, row);
    size_t lane = row % PVL_PANEL, blocks = m->cols / t->block;
    for (size_t b = 0; b < blocks; b++, panel += t->panel_bytes, out += t->block) {
        const unsigned char *steps = panel + t->panel_bytes;
        float d = packing == PVL_PACK_Q8W || packing == PVL_PACK_F32
                      ? load_f32(panel + 4 * lane)
                      : pvl_f16_to_f32(pvl_load_u16(panel + 2 * lane));
        if (packing == PVL_PACK_F32) {
            out[0] = d;
        } else if (packing == PVL_PACK_Q8 || packing == PVL_PACK_Q8W) {
            steps -= t->block * PVL_PANEL;
            for (size_t k = 0; k < t->block; k++) {
                int q = (int8_t)
                    steps[k / PVL_STEP * PVL_STEP * PVL_PANEL + lane * PVL_STEP + k % PVL_STEP];
                out[k] = d * (float)q;
            }
        } else {
            float m_ = packing == PVL_PACK_Q4M
                           ? -8.0f * pvl_f16_to_f32(pvl_load_u16(panel + 2 * PVL_PANEL + 2 * lane))
                           : -8.0f * d;
            steps -= t->block * PVL_PANEL / 2;
            for (size_t k = 0; k < t->block; k++) {
                unsigned byte = steps[k / PVL_STEP * 16 + lane % 4 * PVL_STEP + k % PVL_STEP];
                out[k] = d * (float)(lane < 4 ? byte & 15 : byte >> 4) + m_;
            }
        }
    }
}
