#include <math.h>

#include "kernels/sets.h"

/* Sums in double: the reference that the vector sets are held against. */
void pvl_k_layer_stats__scalar(float stats[2], const float *x, size_t k, float eps) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < k; i++)
        sum += (double)x[i];
    double mean = sum / (double)k;
    for (size_t i = 0; i < k; i++)
        squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    stats[0] = (float)mean;
    stats[1] = (float)(1.0 / sqrt(squares / (double)k + (double)eps));
}

void pvl_k_rms_stats__scalar(float stats[2], const float *x, size_t k, float eps) {
    double squares = 0;
    for (size_t i = 0; i < k; i++)
        squares += (double)x[i] * (double)x[i];
    stats[0] = 0;
    stats[1] = (float)(1.0 / sqrt(squares / (double)k + (double)eps));
}

void pvl_k_normalize__scalar(float *y, const float *x, const float stats[2], const float *w,
                             const float *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float v = (x[i] - stats[0]) * stats[1] * w[i];
        y[i] = b ? v + b[i] : v;
    }
}

void pvl_k_silu_mul__scalar(float *y, const float *x, const float *x2, size_t n) {
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] / (1.0f + expf(-x[i])) * x2[i];
}

void pvl_k_rotate__scalar(float *u, const float *cos_, const float *sin_, size_t d) {
    size_t half = d / 2;
    for (size_t i = 0; i < half; i++) {
        float a = u[i], b = u[i + half];
        u[i] = a * cos_[i] - b * sin_[i];
        u[i + half] = b * cos_[i] + a * sin_[i];
    }
}
