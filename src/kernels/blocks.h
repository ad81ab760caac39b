/* Quantized blocks as they lie in a file: the only place that states their layouts.
 *
 * Packed and little-endian, as is every machine that this library runs on. A d, m or dmin is an
 * IEEE half. Blocks in a file need not be aligned: copy one into a local struct (memcpy) before
 * reading fields.
 *
 * Notation: lo(b) = b & 15, hi(b) = b >> 4, y = the values of the block. */
#ifndef PVL_KERNELS_BLOCKS_H
#define PVL_KERNELS_BLOCKS_H

#include <stdint.h>

enum {
    PVL_BLOCK = 32,        /* values of a small block */
    PVL_SUPER_BLOCK = 256, /* values of a K block */
    PVL_K_SCALE_BYTES = 12 /* packed 6-bit scales of Q3_K, Q4_K and Q5_K */
};

/* y[j] = (lo(qs[j]) - 8) d, y[j + 16] = (hi(qs[j]) - 8) d */
typedef struct pvl_block_q4_0 {
    uint16_t d;
    uint8_t qs[PVL_BLOCK / 2];
} pvl_block_q4_0;

/* y[j] = lo(qs[j]) d + m, y[j + 16] = hi(qs[j]) d + m */
typedef struct pvl_block_q4_1 {
    uint16_t d, m;
    uint8_t qs[PVL_BLOCK / 2];
} pvl_block_q4_1;

/* As Q4_0 with a fifth bit, bit j of qh (a little-endian u32) for y[j], and 16 subtracted. */
typedef struct pvl_block_q5_0 {
    uint16_t d;
    uint8_t qh[4];
    uint8_t qs[PVL_BLOCK / 2];
} pvl_block_q5_0;

/* As Q4_1 with a fifth bit. */
typedef struct pvl_block_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[PVL_BLOCK / 2];
} pvl_block_q5_1;

/* y[j] = qs[j] d */
typedef struct pvl_block_q8_0 {
    uint16_t d;
    int8_t qs[PVL_BLOCK];
} pvl_block_q8_0;

/* 16 groups of 16: y = d lo(scales[g]) q - dmin hi(scales[g]), 2-bit q. */
typedef struct pvl_block_q2_k {
    uint8_t scales[PVL_SUPER_BLOCK / 16];
    uint8_t qs[PVL_SUPER_BLOCK / 4];
    uint16_t d, dmin;
} pvl_block_q2_k;

/* 16 groups of 16: y = d (scale - 32) (q - 4), 6-bit scales, two bits of q in qs, the third in
 * hmask. */
typedef struct pvl_block_q3_k {
    uint8_t hmask[PVL_SUPER_BLOCK / 8];
    uint8_t qs[PVL_SUPER_BLOCK / 4];
    uint8_t scales[PVL_K_SCALE_BYTES];
    uint16_t d;
} pvl_block_q3_k;

/* 8 groups of 32: y = d scale q - dmin min, 6-bit scales and mins. Bytes 32c..32c+31 of qs hold
 * group 2c in their low and group 2c + 1 in their high halves. */
typedef struct pvl_block_q4_k {
    uint16_t d, dmin;
    uint8_t scales[PVL_K_SCALE_BYTES];
    uint8_t qs[PVL_SUPER_BLOCK / 2];
} pvl_block_q4_k;

/* As Q4_K with a fifth bit: bit g of qh[l] belongs to value l of group g. */
typedef struct pvl_block_q5_k {
    uint16_t d, dmin;
    uint8_t scales[PVL_K_SCALE_BYTES];
    uint8_t qh[PVL_SUPER_BLOCK / 8];
    uint8_t qs[PVL_SUPER_BLOCK / 2];
} pvl_block_q5_k;

/* 16 groups of 16: y = d scale (q - 32), four bits of q in ql, two in qh. */
typedef struct pvl_block_q6_k {
    uint8_t ql[PVL_SUPER_BLOCK / 2];
    uint8_t qh[PVL_SUPER_BLOCK / 4];
    int8_t scales[PVL_SUPER_BLOCK / 16];
    uint16_t d; /* at the end */
} pvl_block_q6_k;

/* y[j] = d T[lo(qs[j])], y[j + 16] = d T[hi(qs[j])], T = pvl_iq4_values */
typedef struct pvl_block_iq4_nl {
    uint16_t d;
    uint8_t qs[PVL_BLOCK / 2];
} pvl_block_iq4_nl;

/* 8 groups of 32, each as IQ4_NL with d (scale - 32): 6-bit scales, low halves in scales_l, two
 * bits each in scales_h. */
typedef struct pvl_block_iq4_xs {
    uint16_t d, scales_h;
    uint8_t scales_l[PVL_SUPER_BLOCK / 64];
    uint8_t qs[PVL_SUPER_BLOCK / 2];
} pvl_block_iq4_xs;

_Static_assert(sizeof(pvl_block_q4_0) == 18, "Q4_0 has 18 bytes");
_Static_assert(sizeof(pvl_block_q4_1) == 20, "Q4_1 has 20 bytes");
_Static_assert(sizeof(pvl_block_q5_0) == 22, "Q5_0 has 22 bytes");
_Static_assert(sizeof(pvl_block_q5_1) == 24, "Q5_1 has 24 bytes");
_Static_assert(sizeof(pvl_block_q8_0) == 34, "Q8_0 has 34 bytes");
_Static_assert(sizeof(pvl_block_q2_k) == 84, "Q2_K has 84 bytes");
_Static_assert(sizeof(pvl_block_q3_k) == 110, "Q3_K has 110 bytes");
_Static_assert(sizeof(pvl_block_q4_k) == 144, "Q4_K has 144 bytes");
_Static_assert(sizeof(pvl_block_q5_k) == 176, "Q5_K has 176 bytes");
_Static_assert(sizeof(pvl_block_q6_k) == 210, "Q6_K has 210 bytes");
_Static_assert(sizeof(pvl_block_iq4_nl) == 18, "IQ4_NL has 18 bytes");
_Static_assert(sizeof(pvl_block_iq4_xs) == 136, "IQ4_XS has 136 bytes");

/* The sixteen levels of IQ4_NL and IQ4_XS. Defined in dtype.c. */
extern const int8_t pvl_iq4_values[16];

/* Six-bit scale and minimum of group g (0..7) from the 12 packed bytes of Q4_K and Q5_K. */
static inline void pvl_k_scale_min(const uint8_t *s, int g, uint8_t *scale, uint8_t *min) {
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (uint8_t)((s[g + 4] & 15) | (s[g - 4] >> 6) << 4);
        *min = (uint8_t)(s[g + 4] >> 4 | (s[g] >> 6) << 4);
    }
}

#endif
