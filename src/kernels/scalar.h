/* The scalar set, by file: its table is in dispatch.c. Signatures as in struct pvl_kernels. */
#ifndef PVL_KERNELS_SCALAR_H
#define PVL_KERNELS_SCALAR_H

#include "kernels/private.h"

void pvl_k_tile_f32__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                            const unsigned char *panel, size_t blocks);
void pvl_k_tile_q8__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                           const unsigned char *panel, size_t blocks);
void pvl_k_tile_q8w__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                            const unsigned char *panel, size_t blocks);
void pvl_k_tile_q4__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                           const unsigned char *panel, size_t blocks);
void pvl_k_tile_q4m__scalar(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                            const unsigned char *panel, size_t blocks);
void pvl_k_finish__scalar(float *y, size_t y_stride, const float *tile, size_t rows, size_t cols,
                          const pvl_epilogue *e);

void pvl_k_quantize_f32__scalar(unsigned char *out, const float *x, size_t n);
void pvl_k_quantize_q8__scalar(unsigned char *out, const float *x, size_t n);
void pvl_k_quantize_q8w__scalar(unsigned char *out, const float *x, size_t n);
void pvl_k_quantize_q4__scalar(unsigned char *out, const float *x, size_t n);

void pvl_k_layer_stats__scalar(float stats[2], const float *x, size_t k, float eps);
void pvl_k_rms_stats__scalar(float stats[2], const float *x, size_t k, float eps);
void pvl_k_normalize__scalar(float *y, const float *x, const float stats[2], const float *w,
                             const float *b, size_t n);
void pvl_k_silu_mul__scalar(float *y, const float *x, const float *x2, size_t n);
void pvl_k_rotate__scalar(float *u, const float *cos_, const float *sin_, size_t d);

void pvl_k_scores__scalar(float *s, size_t s_stride, const float *q, size_t q_stride, size_t rows,
                          const float *keys, size_t panels, size_t d);
float pvl_k_max__scalar(const float *x, size_t n);
float pvl_k_exp_sum__scalar(float *x, size_t n, float top);
void pvl_k_widen_keys__scalar(float *out, const unsigned char *panel, size_t d);
void pvl_k_widen_value__scalar(float *out, const unsigned char *row, size_t d);
void pvl_k_mix__scalar(float *o, const float *keep, const float *p, size_t p_stride, size_t rows,
                       const float *v, size_t keys, size_t d);

#endif
