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

static float load_f32(const unsigned char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* max |x|, by comparing bits: NaN is the largest, so that a damaged weight shows in the outputs. */
static float largest(const float *x, size_t n) {
    uint32_t most = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = pvl_f32_bits(x[i]) & 0x7FFFFFFFu;
        most = bits > most ? bits : most;
    }
    return pvl_bits_f32(most);
}

/* q = round(x / d); x beyond 127 d is cut, which the rounding of d to a half can bring about. */
static void round_to(int8_t *q, const float *x, size_t n, float d) {
    float inverse = d > 0 ? 1.0f / d : 0;
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * inverse;
        v = v > -127 ? v : -127; /* NaN -> -127: d is NaN then too */
        v = v < 127 ? v : 127;
        v += 12582912.0f; /* leaves no bits behind the point: nearest, ties to even */
        q[i] = (int8_t)(pvl_f32_bits(v) - 0x4B400000u);
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

/* The file's rows that become one panel; lanes behind the last row are zero. */
struct rows {
    pvl_dtype type;
    const unsigned char *first;
    size_t row_bytes, lanes, cols;
};

static const unsigned char *row_of(const struct rows *r, size_t lane) {
    return r->first + lane * r->row_bytes;
}

/* Steps of 4 inputs, PVL_PANEL outputs side by side. */
static void spread(unsigned char *steps, const int8_t *q, size_t n) {
    for (size_t i = 0; i < n; i += PVL_STEP) {
        for (size_t lane = 0; lane < PVL_PANEL; lane++, steps += PVL_STEP)
            memcpy(steps, q + lane * n + i, PVL_STEP);
    }
}

static void pack_q8(unsigned char *panel, const struct rows *r) {
    int8_t q[PVL_PANEL * PVL_BLOCK] = {0};
    uint16_t scale[PVL_PANEL] = {0}, sum[PVL_PANEL] = {0};
    for (size_t at = 0; at < r->cols;
         at += PVL_BLOCK, panel += pvl_packings[PVL_PACK_Q8].panel_bytes) {
        for (size_t lane = 0; lane < r->lanes; lane++) {
            int8_t *block = q + lane * PVL_BLOCK;
            scale[lane] = block_q8(block, r->type, row_of(r, lane), at);
            sum[lane] = (uint16_t)-sum_of(block, PVL_BLOCK);
        }
        memcpy(panel, scale, sizeof scale);
        memcpy(panel + sizeof scale, sum, sizeof sum);
        spread(panel + sizeof scale + sizeof sum, q, PVL_BLOCK);
    }
}

static void pack_q8w(unsigned char *panel, const struct rows *r) {
    enum { BLOCK = 64 };
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)r->type);
    float x[BLOCK], scale[PVL_PANEL] = {0};
    int32_t sum[PVL_PANEL] = {0};
    int8_t q[PVL_PANEL * BLOCK] = {0};
    for (size_t at = 0; at < r->cols;
         at += BLOCK, panel += pvl_packings[PVL_PACK_Q8W].panel_bytes) {
        for (size_t lane = 0; lane < r->lanes; lane++) {
            int8_t *block = q + lane * BLOCK;
            pvl_dtype_dequantize(r->type, x, row_of(r, lane) + at * t->block_bytes, BLOCK);
            scale[lane] = largest(x, BLOCK) / 127.0f;
            round_to(block, x, BLOCK, scale[lane]);
            sum[lane] = -PVL_Q8_ZERO * sum_of(block, BLOCK);
        }
        memcpy(panel, scale, sizeof scale);
        memcpy(panel + sizeof scale, sum, sizeof sum);
        spread(panel + sizeof scale + sizeof sum, q, BLOCK);
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

static void pack_q4(unsigned char *panel, const struct rows *r, pvl_packing packing) {
    enum { HALF = PVL_PANEL / 2 };
    uint8_t q[PVL_PANEL][PVL_BLOCK] = {{0}};
    uint16_t scale[PVL_PANEL] = {0}, minimum[PVL_PANEL] = {0};
    size_t head = packing == PVL_PACK_Q4M ? sizeof scale + sizeof minimum : sizeof scale;
    for (size_t i = 0; i < r->cols / PVL_BLOCK; i++, panel += pvl_packings[packing].panel_bytes) {
        for (size_t lane = 0; lane < r->lanes; lane++)
            block_q4(q[lane], &scale[lane], &minimum[lane], r->type, row_of(r, lane), i);
        memcpy(panel, scale, sizeof scale);
        if (packing == PVL_PACK_Q4M)
            memcpy(panel + sizeof scale, minimum, sizeof minimum);
        uint8_t pairs[HALF][PVL_BLOCK];
        for (size_t l = 0; l < HALF; l++) {
            for (size_t k = 0; k < PVL_BLOCK; k++)
                pairs[l][k] = (uint8_t)(q[l][k] | q[l + HALF][k] << 4);
        }
        unsigned char *steps = panel + head;
        for (size_t k = 0; k < PVL_BLOCK; k += PVL_STEP) {
            for (size_t l = 0; l < HALF; l++, steps += PVL_STEP)
                memcpy(steps, pairs[l] + k, PVL_STEP);
        }
    }
}

static void pack_f32(unsigned char *panel, const struct rows *r) {
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

static unsigned char *panel_of(const pvl_matrix *m, size_t row) {
    const pvl_packing_traits *t = &pvl_packings[pvl_matrix_packing(m)];
    return m->data + row / PVL_PANEL * (m->cols / t->block * t->panel_bytes);
}

void pvl_matrix_set_rows(const pvl_matrix *m, size_t first, size_t count, const void *src) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)m->file_type);
    pvl_packing packing = pvl_matrix_packing(m);
    struct rows r = {.type = m->file_type,
                     .first = src,
                     .row_bytes = m->cols / t->block_length * t->block_bytes,
                     .cols = m->cols};
    for (size_t row = first; row < first + count; row += PVL_PANEL) {
        unsigned char *panel = panel_of(m, row);
        r.lanes = first + count - row < PVL_PANEL ? first + count - row : PVL_PANEL;
        switch (packing) {
        case PVL_PACK_Q8:
            pack_q8(panel, &r);
            break;
        case PVL_PACK_Q8W:
            pack_q8w(panel, &r);
            break;
        case PVL_PACK_Q4:
        case PVL_PACK_Q4M:
            pack_q4(panel, &r, packing);
            break;
        default:
            pack_f32(panel, &r);
        }
        r.first += PVL_PANEL * r.row_bytes;
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
