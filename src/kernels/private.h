/* What the kernel sets share: the packed layouts, and the table of inner loops that a set fills.
 *
 * Weights lie in panels of PVL_PANEL outputs (rows of the matrix), so that one activation broadcast
 * meets PVL_PANEL outputs. A panel is a run of blocks along the inputs:
 *
 *   F32   1 input per step, no blocks: f32 w[8]
 *   Q8    32 inputs: f16 scale[8], i16 -sum[8], 8 steps of i8 w[8][4]                     36 bytes
 * per 32 Q8W   64 inputs: f32 scale[8], i32 -64 sum[8], 16 steps of i8 w[8][4]                 72
 * bytes per 64 Q4    32 inputs: f16 scale[8], 8 steps of 16 bytes 18 bytes per 32 Q4M   32 inputs:
 * f16 scale[8], f16 -min/8[8], 8 steps of 16 bytes                     20 bytes per 32
 *
 * sum is that of the block's integers for one output. A step is 4 inputs of 8 outputs. In a 4-bit
 * step the low halves of bytes 0..15 are outputs 0..3, the high halves outputs 4..7. An output past
 * the last row has scale 0.
 *
 * Activations are rows of blocks, quantized once per product (d = scale):
 *
 *   Q8    32 inputs: f32 d, f32 unused, u8 q[32], x = d (q - 64), q in 1..127
 *   Q8W   64 inputs: f32 d, u8 q[64], likewise
 *   Q4    32 inputs: f32 d, f32 c, i8 q[32], x = d q, q in -127..127, c = -8 d sum(q)
 *
 * so with integer dots D: y += d_w d (D - 64 sum) for Q8 and Q8W, y += d_w (d D + c) for Q4, and
 * y += d_w d D + (-min/8) c for Q4M. The offsets make one operand of every product lie in 0..127:
 * that is what the 8-bit dot of relaxed SIMD takes without depending on the processor.
 *
 * A set without a dot of bytes (pvl_kernels.wide) works on 16-bit integers where there are many
 * rows. They then lie in tiles of PVL_TILE_ROWS rows, the last one filled up with zeros, as blocks
 *
 *   f32 d[4], f32 c[4], then a step for each two inputs: i16 x[4][2], x in -127..127
 *
 * and a panel becomes, for the time of a task, blocks of
 *
 *   f32 scale[8], Q4M: f32 -min/8[8], then a step for each two inputs: i16 w[8][2]
 *
 * with w - 8 in place of w for Q4. */
#ifndef PVL_KERNELS_PRIVATE_H
#define PVL_KERNELS_PRIVATE_H

#include "kernels/kernels.h"

/* WebAssembly has the vectors that it was compiled for; natively SIMDe brings both. */
#if defined(__wasm_simd128__) || !defined(__wasm__)
#define PVL_HAVE_SIMD128
#endif
#if defined(__wasm_relaxed_simd__) || !defined(__wasm__)
#define PVL_HAVE_RELAXED
#endif

enum {
    PVL_PANEL = PVL_ROW_GROUP, /* outputs of a panel */
    PVL_TILE_ROWS = 4,         /* activation rows of a tile */
    PVL_STEP = 4,              /* inputs of a step */
    PVL_STREAMS = 4,           /* panels that one row reads side by side */
    PVL_Q8_ZERO = 64,
    PVL_CHUNK = 256 /* values that act_prepare stages on the stack: a multiple of every block */
};

typedef enum pvl_packing {
    PVL_PACK_F32,
    PVL_PACK_Q8,
    PVL_PACK_Q8W,
    PVL_PACK_Q4,
    PVL_PACK_Q4M,
    PVL_PACKINGS
} pvl_packing;

enum { PVL_MATRIX_MINIMUM = 1 }; /* pvl_matrix.flags */

typedef struct pvl_packing_traits {
    size_t block;       /* inputs of a block */
    size_t panel_bytes; /* of one block of a panel */
    size_t act_bytes;   /* of one block of an activation row */
} pvl_packing_traits;

extern const pvl_packing_traits pvl_packings[PVL_PACKINGS];

pvl_packing pvl_matrix_packing(const pvl_matrix *m);
pvl_packing
pvl_form_packing(pvl_form form); /* Q4 for both 4-bit packings: their activations are the same */

/* tile [rows][PVL_PANEL] = activation rows (`row_bytes` apart) times one panel of `blocks` blocks;
 * rows 1..4. */
typedef void (*pvl_tile_fn)(float *tile, const unsigned char *act, size_t row_bytes, size_t rows,
                            const unsigned char *panel, size_t blocks);

/* Products on 16-bit integers. */
typedef struct pvl_wide {
    size_t panel_bytes; /* of one block of a widened panel */
    void (*widen)(unsigned char *out, const unsigned char *panel, size_t blocks);
    /* tile [PVL_TILE_ROWS][PVL_PANEL] += a tile of rows times a widened panel */
    void (*tile)(float *tile, const unsigned char *act, const unsigned char *panel, size_t blocks);
} pvl_wide;

/* Bytes of one block of a tile of rows in 16 bits. */
#define PVL_WIDE_ACT_BYTES(block) (32 + 2 * PVL_TILE_ROWS * (block))

struct pvl_kernels {
    const char *name;

    pvl_tile_fn tile[PVL_PACKINGS];
    /* y [rows][cols], cols 1..PVL_PANEL, from a tile; e's arrays start at the tile's first column.
     */
    void (*finish)(float *y, size_t y_stride, const float *tile, size_t rows, size_t cols,
                   const pvl_epilogue *e);

    /* tile [PVL_STREAMS][PVL_PANEL]: one row times as many panels, `apart` bytes from each other;
     * the same bits as one at a time. NULL where that is no faster. */
    void (*streams[PVL_PACKINGS])(float *tile, const unsigned char *act, const unsigned char *panel,
                                  size_t apart, size_t blocks);
    /* For more rows than one tile, NULL where bytes are multiplied as fast. */
    const pvl_wide *wide[PVL_PACKINGS];
    /* q [block], from which zero is subtracted, to one row of a tile's block in 16 bits. */
    void (*widen_row)(unsigned char *out, const unsigned char *q, size_t block, int8_t zero);

    /* x [n] to blocks of an activation row; n is a multiple of the block. By pvl_form_packing. */
    void (*quantize[PVL_PACKINGS])(unsigned char *out, const float *x, size_t n);
    /* Mean and 1/sqrt(var + eps), or 0 and 1/sqrt(mean square + eps). */
    void (*layer_stats)(float stats[2], const float *x, size_t k, float eps);
    void (*rms_stats)(float stats[2], const float *x, size_t k, float eps);
    /* y = (x - stats[0]) * stats[1] * w + b; b may be NULL. */
    void (*normalize)(float *y, const float *x, const float stats[2], const float *w,
                      const float *b, size_t n);
    void (*silu_mul)(float *y, const float *x, const float *x2, size_t n);
    /* One head: u [d] in place, cos and sin [d/2]. */
    void (*rotate)(float *u, const float *cos_, const float *sin_, size_t d);

    /* Attention, on blocks of floats. keys: panels [d][PVL_PANEL]; s [rows][s_stride] gets 8 scores
     * per panel. */
    void (*scores)(float *s, size_t s_stride, const float *q, size_t q_stride, size_t rows,
                   const float *keys, size_t panels, size_t d);
    float (*max)(const float *x, size_t n); /* n a multiple of 8 */
    /* x = exp(x - top), 0 where x is -infinity; returns the sum. n a multiple of 8. */
    float (*exp_sum)(float *x, size_t n, float top);
    /* 8-bit cache to floats: a panel (f32 scale[8], i8 [d][8]) to [d][8], a row (f32 scale, i8 [d])
     * to [d]. */
    void (*widen_keys)(float *out, const unsigned char *panel, size_t d);
    void (*widen_value)(float *out, const unsigned char *row, size_t d);
    /* o [rows][d] = o * keep[row] + p [rows][keys] * v [keys][d] */
    void (*mix)(float *o, const float *keep, const float *p, size_t p_stride, size_t rows,
                const float *v, size_t keys, size_t d);
    /* The same two on the 8-bit cache as it lies, for rows that are too few to widen it for. p is
     * multiplied by the values' scales. */
    void (*scores_q8)(float *s, size_t s_stride, const float *q, size_t q_stride, size_t rows,
                      const unsigned char *keys, size_t panels, size_t d);
    void (*mix_q8)(float *o, const float *keep, float *p, size_t p_stride, size_t rows,
                   const unsigned char *v, size_t keys, size_t d);
};

#endif
