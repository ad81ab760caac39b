#include "kernels/dtype.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "kernels/blocks.h"

const int8_t pvl_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

/* Indexed by ggml's number; block_bytes 0 where this build reads no such type, name NULL where ggml
 * has none. */
static const pvl_dtype_traits traits[] = {
    [PVL_DTYPE_F32] = {"F32", 1, sizeof(float), true},
    [PVL_DTYPE_F16] = {"F16", 1, sizeof(uint16_t), true},
    [PVL_DTYPE_Q4_0] = {"Q4_0", PVL_BLOCK, sizeof(pvl_block_q4_0), true},
    [PVL_DTYPE_Q4_1] = {"Q4_1", PVL_BLOCK, sizeof(pvl_block_q4_1), true},
    [PVL_DTYPE_Q5_0] = {"Q5_0", PVL_BLOCK, sizeof(pvl_block_q5_0), true},
    [PVL_DTYPE_Q5_1] = {"Q5_1", PVL_BLOCK, sizeof(pvl_block_q5_1), true},
    [PVL_DTYPE_Q8_0] = {"Q8_0", PVL_BLOCK, sizeof(pvl_block_q8_0), true},
    [9] = {"Q8_1", 0, 0, false},
    [PVL_DTYPE_Q2_K] = {"Q2_K", PVL_SUPER_BLOCK, sizeof(pvl_block_q2_k), false},
    [PVL_DTYPE_Q3_K] = {"Q3_K", PVL_SUPER_BLOCK, sizeof(pvl_block_q3_k), false},
    [PVL_DTYPE_Q4_K] = {"Q4_K", PVL_SUPER_BLOCK, sizeof(pvl_block_q4_k), true},
    [PVL_DTYPE_Q5_K] = {"Q5_K", PVL_SUPER_BLOCK, sizeof(pvl_block_q5_k), true},
    [PVL_DTYPE_Q6_K] = {"Q6_K", PVL_SUPER_BLOCK, sizeof(pvl_block_q6_k), true},
    [15] = {"Q8_K", 0, 0, false},
    [16] = {"IQ2_XXS", 0, 0, false},
    [17] = {"IQ2_XS", 0, 0, false},
    [18] = {"IQ3_XXS", 0, 0, false},
    [19] = {"IQ1_S", 0, 0, false},
    [PVL_DTYPE_IQ4_NL] = {"IQ4_NL", PVL_BLOCK, sizeof(pvl_block_iq4_nl), true},
    [21] = {"IQ3_S", 0, 0, false},
    [22] = {"IQ2_S", 0, 0, false},
    [PVL_DTYPE_IQ4_XS] = {"IQ4_XS", PVL_SUPER_BLOCK, sizeof(pvl_block_iq4_xs), false},
    [24] = {"I8", 0, 0, false},
    [25] = {"I16", 0, 0, false},
    [26] = {"I32", 0, 0, false},
    [27] = {"I64", 0, 0, false},
    [28] = {"F64", 0, 0, false},
    [29] = {"IQ1_M", 0, 0, false},
    [PVL_DTYPE_BF16] = {"BF16", 1, sizeof(uint16_t), true},
    [34] = {"TQ1_0", 0, 0, false},
    [35] = {"TQ2_0", 0, 0, false},
    [39] = {"MXFP4", 0, 0, false},
};

enum { TRAITS = sizeof traits / sizeof traits[0] };

const pvl_dtype_traits *pvl_dtype_find(uint32_t id) {
    return id < TRAITS && traits[id].block_bytes != 0 ? &traits[id] : NULL;
}

const char *pvl_dtype_name(uint32_t id) {
    return id < TRAITS ? traits[id].name : NULL;
}

static char upper(char c) {
    return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

bool pvl_dtype_from_name(pvl_dtype *out, const char *name) {
    for (uint32_t id = 0; id < TRAITS; id++) {
        if (traits[id].block_bytes == 0)
            continue;
        size_t i = 0;
        while (name[i] != '\0' && upper(name[i]) == traits[id].name[i])
            i++;
        if (name[i] == '\0' && traits[id].name[i] == '\0') {
            *out = (pvl_dtype)id;
            return true;
        }
    }
    return false;
}

bool pvl_dtype_bytes(size_t *out, pvl_dtype type, size_t n) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    return t && n % t->block_length == 0 && pvl_size_mul(out, n / t->block_length, t->block_bytes);
}

/* ---- one block to floats ---- */

static void from_q4_0(float *y, const void *p) {
    pvl_block_q4_0 b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        y[j] = (float)((b.qs[j] & 15) - 8) * d;
        y[j + 16] = (float)((b.qs[j] >> 4) - 8) * d;
    }
}

static void from_q4_1(float *y, const void *p) {
    pvl_block_q4_1 b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d), m = pvl_f16_to_f32(b.m);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        y[j] = (float)(b.qs[j] & 15) * d + m;
        y[j + 16] = (float)(b.qs[j] >> 4) * d + m;
    }
}

static int fifth_bit(uint32_t qh, int j) {
    return (int)(qh >> j & 1u) << 4;
}

static void from_q5_0(float *y, const void *p) {
    pvl_block_q5_0 b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d);
    uint32_t qh = pvl_load_u32(b.qh);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        y[j] = (float)(((b.qs[j] & 15) | fifth_bit(qh, j)) - 16) * d;
        y[j + 16] = (float)(((b.qs[j] >> 4) | fifth_bit(qh, j + 16)) - 16) * d;
    }
}

static void from_q5_1(float *y, const void *p) {
    pvl_block_q5_1 b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d), m = pvl_f16_to_f32(b.m);
    uint32_t qh = pvl_load_u32(b.qh);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        y[j] = (float)((b.qs[j] & 15) | fifth_bit(qh, j)) * d + m;
        y[j + 16] = (float)((b.qs[j] >> 4) | fifth_bit(qh, j + 16)) * d + m;
    }
}

static void from_q8_0(float *y, const void *p) {
    pvl_block_q8_0 b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d);
    for (int j = 0; j < PVL_BLOCK; j++)
        y[j] = (float)b.qs[j] * d;
}

static void from_q2_k(float *y, const void *p) {
    pvl_block_q2_k b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d), dmin = pvl_f16_to_f32(b.dmin);
    for (int g = 0; g < 16; g++) { /* group g: half g/8, bit pair (g/2)%4, byte half g%2 */
        float scale = d * (float)(b.scales[g] & 15), min = dmin * (float)(b.scales[g] >> 4);
        const uint8_t *q = b.qs + 32 * (g / 8) + 16 * (g % 2);
        int shift = 2 * (g / 2 % 4);
        for (int l = 0; l < 16; l++)
            y[16 * g + l] = scale * (float)(q[l] >> shift & 3) - min;
    }
}

static void from_q3_k(float *y, const void *p) {
    pvl_block_q3_k b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d);
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? b.scales[g] & 15 : b.scales[g - 8] >> 4;
        int high = b.scales[8 + g % 4] >> 2 * (g / 4) & 3;
        float scale = d * (float)((low | high << 4) - 32);
        const uint8_t *q = b.qs + 32 * (g / 8) + 16 * (g % 2), *mask = b.hmask + 16 * (g % 2);
        int shift = 2 * (g / 2 % 4), bit = g / 2;
        for (int l = 0; l < 16; l++)
            y[16 * g + l] =
                scale * (float)((q[l] >> shift & 3) - ((mask[l] >> bit & 1) != 0 ? 0 : 4));
    }
}

static void from_q4_k(float *y, const void *p) {
    pvl_block_q4_k b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d), dmin = pvl_f16_to_f32(b.dmin);
    for (int g = 0; g < 8; g++) {
        uint8_t sc, mn;
        pvl_k_scale_min(b.scales, g, &sc, &mn);
        float scale = d * (float)sc, min = dmin * (float)mn;
        const uint8_t *q = b.qs + 32 * (g / 2);
        for (int l = 0; l < 32; l++)
            y[32 * g + l] = scale * (float)(q[l] >> 4 * (g % 2) & 15) - min;
    }
}

static void from_q5_k(float *y, const void *p) {
    pvl_block_q5_k b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d), dmin = pvl_f16_to_f32(b.dmin);
    for (int g = 0; g < 8; g++) {
        uint8_t sc, mn;
        pvl_k_scale_min(b.scales, g, &sc, &mn);
        float scale = d * (float)sc, min = dmin * (float)mn;
        const uint8_t *q = b.qs + 32 * (g / 2);
        for (int l = 0; l < 32; l++) {
            int v = (q[l] >> 4 * (g % 2) & 15) | (b.qh[l] >> g & 1) << 4;
            y[32 * g + l] = scale * (float)v - min;
        }
    }
}

static void from_q6_k(float *y, const void *p) {
    pvl_block_q6_k b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d);
    for (int h = 0; h < 2; h++) {
        for (int r = 0; r < 4; r++) { /* run of 32 values */
            const uint8_t *ql = b.ql + 64 * h + 32 * (r % 2), *qh = b.qh + 32 * h;
            for (int l = 0; l < 32; l++) {
                int v = (ql[l] >> 4 * (r / 2) & 15) | (qh[l] >> 2 * r & 3) << 4;
                float scale = d * (float)b.scales[8 * h + 2 * r + l / 16];
                y[128 * h + 32 * r + l] = scale * (float)(v - 32);
            }
        }
    }
}

static void from_iq4_nl(float *y, const void *p) {
    pvl_block_iq4_nl b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d);
    for (int j = 0; j < PVL_BLOCK / 2; j++) {
        y[j] = d * (float)pvl_iq4_values[b.qs[j] & 15];
        y[j + 16] = d * (float)pvl_iq4_values[b.qs[j] >> 4];
    }
}

static void from_iq4_xs(float *y, const void *p) {
    pvl_block_iq4_xs b;
    memcpy(&b, p, sizeof b);
    float d = pvl_f16_to_f32(b.d);
    for (int g = 0; g < 8; g++) {
        int low = b.scales_l[g / 2] >> 4 * (g % 2) & 15, high = b.scales_h >> 2 * g & 3;
        float scale = d * (float)((low | high << 4) - 32);
        const uint8_t *q = b.qs + 16 * g;
        for (int j = 0; j < 16; j++) {
            y[32 * g + j] = scale * (float)pvl_iq4_values[q[j] & 15];
            y[32 * g + 16 + j] = scale * (float)pvl_iq4_values[q[j] >> 4];
        }
    }
}

typedef void (*from_block)(float *y, const void *p);

static from_block block_reader(pvl_dtype type) {
    switch (type) {
    case PVL_DTYPE_Q4_0:
        return from_q4_0;
    case PVL_DTYPE_Q4_1:
        return from_q4_1;
    case PVL_DTYPE_Q5_0:
        return from_q5_0;
    case PVL_DTYPE_Q5_1:
        return from_q5_1;
    case PVL_DTYPE_Q8_0:
        return from_q8_0;
    case PVL_DTYPE_Q2_K:
        return from_q2_k;
    case PVL_DTYPE_Q3_K:
        return from_q3_k;
    case PVL_DTYPE_Q4_K:
        return from_q4_k;
    case PVL_DTYPE_Q5_K:
        return from_q5_k;
    case PVL_DTYPE_Q6_K:
        return from_q6_k;
    case PVL_DTYPE_IQ4_NL:
        return from_iq4_nl;
    case PVL_DTYPE_IQ4_XS:
        return from_iq4_xs;
    case PVL_DTYPE_F32:
    case PVL_DTYPE_F16:
    case PVL_DTYPE_BF16:
        break;
    }
    return NULL;
}

void pvl_dtype_dequantize(pvl_dtype type, float *out, const void *blocks, size_t n) {
    const unsigned char *p = blocks;
    if (type == PVL_DTYPE_F32) {
        memcpy(out, p, n * sizeof(float));
    } else if (type == PVL_DTYPE_F16) {
        for (size_t i = 0; i < n; i += PVL_BLOCK) {
            uint16_t h[PVL_BLOCK] = {0};
            size_t some = n - i < PVL_BLOCK ? n - i : PVL_BLOCK;
            memcpy(h, p + 2 * i, some * sizeof *h);
            for (size_t j = 0; j < some; j++)
                out[i + j] = pvl_f16_to_f32(h[j]);
        }
    } else if (type == PVL_DTYPE_BF16) {
        for (size_t i = 0; i < n; i++)
            out[i] = pvl_bf16_to_f32(pvl_load_u16(p + 2 * i));
    } else {
        from_block read = block_reader(type);
        size_t length = traits[type].block_length, bytes = traits[type].block_bytes;
        for (size_t i = 0; i + length <= n; i += length, p += bytes)
            read(out + i, p);
    }
}

double pvl_dtype_error(pvl_dtype type, const void *blocks, const float *x, size_t n) {
    const unsigned char *p = blocks;
    size_t step = traits[type].block_length == 1 ? PVL_BLOCK : traits[type].block_length;
    double diff = 0, norm = 0;
    float y[PVL_SUPER_BLOCK] = {0};
    for (size_t i = 0; i < n; i += step) {
        size_t m = n - i < step ? n - i : step;
        pvl_dtype_dequantize(type, y, p, m);
        p += m / traits[type].block_length * traits[type].block_bytes;
        for (size_t j = 0; j < m; j++) {
            double e = (double)y[j] - (double)x[i + j];
            diff += e * e;
            norm += (double)x[i + j] * (double)x[i + j];
        }
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}
