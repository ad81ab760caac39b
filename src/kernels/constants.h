/* Constants of the vector kernels, in memory. V8 makes a vector constant that it knows anew at each
 * use, of three instructions; one that is loaded stays in a register. They are defined in a file of
 * their own so that the compiler does not know them either. */
#ifndef PVL_KERNELS_CONSTANTS_H
#define PVL_KERNELS_CONSTANTS_H

#include <stdint.h>

typedef struct pvl_constants {
    uint32_t low_halves;   /* 15 in each byte */
    uint32_t low_bytes[4]; /* 255 in each 16 bits; whole, as the compiler would splat behind the AND
                              of two splats */
    uint32_t low_quarters; /* 15 in each 16 bits */
    uint32_t ones;         /* 1 in each 16 bits */
    uint32_t
        half_bits;    /* sign, exponent and fraction of a half, shifted to where a float has them */
    float half_scale; /* 2^112: from the exponent's bias of halves to that of floats */
    struct {
        float round, least, most, log2_e, ln2_high, ln2_low, p[4], one;
    } exp;
    struct {
        float edge, p[7];
    } gelu;
    struct {
        uint32_t magnitude; /* a float without its sign */
        float least, most;  /* of 8-bit integers */
        float beyond;       /* 2^16, the first number that is no half */
        uint32_t exponent;  /* of infinity and NaN */
    } pack;
} pvl_constants;

extern const pvl_constants pvl_k_constants;

/* A field in all four lanes. */
#define PVL_LANES(field) wasm_v128_load32_splat(&pvl_k_constants.field)

#endif
