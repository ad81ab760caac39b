/* The functions of each kernel set; the tables are in dispatch.c. Signatures as in struct
 * pvl_kernels, names pvl_k_<op>__<set>. */
#ifndef PVL_KERNELS_SETS_H
#define PVL_KERNELS_SETS_H

#include "kernels/private.h"

#define PVL_TILE(op, set)                                                                          \
    void pvl_k_tile_##op##__##set(float *tile, const unsigned char *act, size_t row_bytes,         \
                                  size_t rows, const unsigned char *panel, size_t blocks)
#define PVL_TILES(set)                                                                             \
    PVL_TILE(f32, set);                                                                            \
    PVL_TILE(q8, set);                                                                             \
    PVL_TILE(q8w, set);                                                                            \
    PVL_TILE(q4, set);                                                                             \
    PVL_TILE(q4m, set)

#define PVL_STREAM(op, set)                                                                        \
    void pvl_k_streams_##op##__##set(float *tile, const unsigned char *act,                        \
                                     const unsigned char *panel, size_t apart, size_t blocks)
#define PVL_STREAMED(set)                                                                          \
    PVL_STREAM(q8, set);                                                                           \
    PVL_STREAM(q8w, set);                                                                          \
    PVL_STREAM(q4, set);                                                                           \
    PVL_STREAM(q4m, set)

#define PVL_ROWS(set)                                                                              \
    void pvl_k_finish__##set(float *y, size_t y_stride, const float *tile, size_t rows,            \
                             size_t cols, const pvl_epilogue *e);                                  \
    void pvl_k_quantize_f32__##set(unsigned char *out, const float *x, size_t n);                  \
    void pvl_k_quantize_q8__##set(unsigned char *out, const float *x, size_t n);                   \
    void pvl_k_quantize_q8w__##set(unsigned char *out, const float *x, size_t n);                  \
    void pvl_k_quantize_q4__##set(unsigned char *out, const float *x, size_t n);                   \
    void pvl_k_layer_stats__##set(float stats[2], const float *x, size_t k, float eps);            \
    void pvl_k_rms_stats__##set(float stats[2], const float *x, size_t k, float eps);              \
    void pvl_k_normalize__##set(float *y, const float *x, const float stats[2], const float *w,    \
                                const float *b, size_t n);                                         \
    void pvl_k_silu_mul__##set(float *y, const float *x, const float *x2, size_t n);               \
    void pvl_k_rotate__##set(float *u, const float *cos_, const float *sin_, size_t d)

#define PVL_ATTENTION(set)                                                                         \
    void pvl_k_scores__##set(float *s, size_t s_stride, const float *q, size_t q_stride,           \
                             size_t rows, const float *keys, size_t panels, size_t d);             \
    float pvl_k_max__##set(const float *x, size_t n);                                              \
    float pvl_k_exp_sum__##set(float *x, size_t n, float top);                                     \
    void pvl_k_widen_keys__##set(float *out, const unsigned char *panel, size_t d);                \
    void pvl_k_widen_value__##set(float *out, const unsigned char *row, size_t d);                 \
    void pvl_k_mix__##set(float *o, const float *keep, const float *p, size_t p_stride,            \
                          size_t rows, const float *v, size_t keys, size_t d);                     \
    void pvl_k_scores_q8__##set(float *s, size_t s_stride, const float *q, size_t q_stride,        \
                                size_t rows, const unsigned char *keys, size_t panels, size_t d);  \
    void pvl_k_mix_q8__##set(float *o, const float *keep, float *p, size_t p_stride, size_t rows,  \
                             const unsigned char *v, size_t keys, size_t d)

PVL_TILES(scalar);
PVL_ROWS(scalar);
PVL_ATTENTION(scalar);
#ifdef PVL_HAVE_SIMD128
PVL_TILES(simd128);
PVL_STREAMED(simd128);
PVL_ROWS(simd128);
PVL_ATTENTION(simd128);
extern const pvl_wide pvl_k_wide_q8__simd128, pvl_k_wide_q8w__simd128, pvl_k_wide_q4__simd128,
    pvl_k_wide_q4m__simd128;
void pvl_k_widen_row__simd128(unsigned char *out, const unsigned char *q, size_t block,
                              int8_t zero);
#endif
#ifdef PVL_HAVE_RELAXED
PVL_TILES(relaxed);
PVL_STREAMED(relaxed);
PVL_TILES(relaxed_dot);
PVL_STREAMED(relaxed_dot);
PVL_ROWS(relaxed);
PVL_ATTENTION(relaxed);
/* What the engine makes of the 32-bit relaxed dot. */
typedef enum pvl_dot_kind { PVL_DOT_BROKEN, PVL_DOT_PAIRS, PVL_DOT_NATIVE } pvl_dot_kind;
pvl_dot_kind pvl_relaxed_dot_probe(void);
#endif

#endif
