#include <string.h>

#include "base/bytes.h"
#include "kernels/blocks.h"
#include "kernels/pack_panel.h"

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

static unsigned char *panel_of(const pvl_matrix *m, size_t row) {
    const pvl_packing_traits *t = &pvl_packings[pvl_matrix_packing(m)];
    return m->data + row / PVL_PANEL * (m->cols / t->block * t->panel_bytes);
}

void pvl_matrix_set_rows(const pvl_matrix *m, size_t first, size_t count, const void *src) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)m->file_type);
    pvl_packing packing = pvl_matrix_packing(m);
    pvl_file_rows r = {.type = m->file_type,
                       .first = src,
                       .row_bytes = m->cols / t->block_length * t->block_bytes,
                       .cols = m->cols};
    for (size_t row = first; row < first + count; row += PVL_PANEL) {
        r.lanes = first + count - row < PVL_PANEL ? first + count - row : PVL_PANEL;
        pvl_pack_panel(panel_of(m, row), &r, packing);
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
