#include <math.h>
#include <string.h>

#include "kernels/sets.h"

void pvl_k_scores__scalar(float *s, size_t s_stride, const float *q, size_t q_stride, size_t rows,
                          const float *keys, size_t panels, size_t d) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t p = 0; p < panels; p++) {
            float sum[PVL_PANEL] = {0};
            for (size_t i = 0; i < d; i++) {
                const float *key = keys + (p * d + i) * PVL_PANEL;
                for (size_t c = 0; c < PVL_PANEL; c++)
                    sum[c] += q[r * q_stride + i] * key[c];
            }
            for (size_t c = 0; c < PVL_PANEL; c++)
                s[r * s_stride + p * PVL_PANEL + c] = sum[c];
        }
    }
}

float pvl_k_max__scalar(const float *x, size_t n) {
    float top = -INFINITY;
    for (size_t i = 0; i < n; i++)
        top = x[i] > top ? x[i] : top;
    return top;
}

float pvl_k_exp_sum__scalar(float *x, size_t n, float top) {
    float sum = 0;
    for (size_t i = 0; i < n; i++) {
        x[i] = expf(x[i] - top);
        sum += x[i];
    }
    return sum;
}

void pvl_k_mix__scalar(float *o, const float *keep, const float *p, size_t p_stride, size_t rows,
                       const float *v, size_t keys, size_t d) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < d; i++)
            o[r * d + i] *= keep[r];
        for (size_t j = 0; j < keys; j++) {
            for (size_t i = 0; i < d; i++)
                o[r * d + i] += p[r * p_stride + j] * v[j * d + i];
        }
    }
}

void pvl_k_widen_keys__scalar(float *out, const unsigned char *panel, size_t d) {
    float scale[PVL_PANEL];
    memcpy(scale, panel, sizeof scale);
    const unsigned char *q = panel + sizeof scale;
    for (size_t i = 0; i < d * PVL_PANEL; i++)
        out[i] = (float)(int8_t)q[i] * scale[i % PVL_PANEL];
}

void pvl_k_widen_value__scalar(float *out, const unsigned char *row, size_t d) {
    float scale;
    memcpy(&scale, row, sizeof scale);
    for (size_t i = 0; i < d; i++)
        out[i] = (float)(int8_t)row[sizeof scale + i] * scale;
}

void pvl_k_scores_q8__scalar(float *s, size_t s_stride, const float *q, size_t q_stride,
                             size_t rows, const unsigned char *keys, size_t panels, size_t d) {
    for (size_t p = 0; p < panels; p++, keys += (sizeof(float) + d) * PVL_PANEL) {
        float scale[PVL_PANEL];
        memcpy(scale, keys, sizeof scale);
        for (size_t r = 0; r < rows; r++) {
            for (size_t c = 0; c < PVL_PANEL; c++) {
                float sum = 0;
                for (size_t i = 0; i < d; i++)
                    sum +=
                        q[r * q_stride + i] * (float)(int8_t)keys[sizeof scale + i * PVL_PANEL + c];
                s[r * s_stride + p * PVL_PANEL + c] = sum * scale[c];
            }
        }
    }
}

void pvl_k_mix_q8__scalar(float *o, const float *keep, float *p, size_t p_stride, size_t rows,
                          const unsigned char *v, size_t keys, size_t d) {
    for (size_t r = 0; r < rows; r++) {
        for (size_t i = 0; i < d; i++)
            o[r * d + i] *= keep[r];
        for (size_t j = 0; j < keys; j++) {
            const unsigned char *row = v + j * (sizeof(float) + d);
            float scale;
            memcpy(&scale, row, sizeof scale);
            p[r * p_stride + j] *= scale;
            for (size_t i = 0; i < d; i++)
                o[r * d + i] += p[r * p_stride + j] * (float)(int8_t)row[sizeof scale + i];
        }
    }
}
