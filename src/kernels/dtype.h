/* Element types of tensors: names, sizes, and conversion from and to float.
 *
 * The numbers are those of ggml, as they stand in GGUF files. Conversion to float is bit for bit
 * that of the `gguf` Python package for every type listed (NaN payloads aside). Build without
 * contraction of a*b + c into one rounding. */
#ifndef PVL_KERNELS_DTYPE_H
#define PVL_KERNELS_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum pvl_dtype {
    PVL_DTYPE_F32 = 0,
    PVL_DTYPE_F16 = 1,
    PVL_DTYPE_Q4_0 = 2,
    PVL_DTYPE_Q4_1 = 3,
    PVL_DTYPE_Q5_0 = 6,
    PVL_DTYPE_Q5_1 = 7,
    PVL_DTYPE_Q8_0 = 8,
    PVL_DTYPE_Q2_K = 10,
    PVL_DTYPE_Q3_K = 11,
    PVL_DTYPE_Q4_K = 12,
    PVL_DTYPE_Q5_K = 13,
    PVL_DTYPE_Q6_K = 14,
    PVL_DTYPE_IQ4_NL = 20,
    PVL_DTYPE_IQ4_XS = 23,
    PVL_DTYPE_BF16 = 30
} pvl_dtype;

typedef struct pvl_dtype_traits {
    const char *name;    /* "Q4_0" */
    size_t block_length; /* values in a block; 1 for plain types */
    size_t block_bytes;
    bool quantizes; /* pvl_dtype_quantize writes it */
} pvl_dtype_traits;

/* Traits of a type number, NULL when this build cannot read it. Static storage. */
const pvl_dtype_traits *pvl_dtype_find(uint32_t id);
/* Name of any type number that ggml knows, also of those that this build cannot read ("IQ2_XXS");
 * NULL for others. */
const char *pvl_dtype_name(uint32_t id);
/* By name, letter case ignored ("q4_0"). False when there is none. */
bool pvl_dtype_from_name(pvl_dtype *out, const char *name);

/* Bytes of n values in whole blocks; false when n is no multiple of the block length or the result
 * leaves size_t. */
bool pvl_dtype_bytes(size_t *out, pvl_dtype type, size_t n);

/* n values (whole blocks) to floats; `blocks` needs no alignment. */
void pvl_dtype_dequantize(pvl_dtype type, float *out, const void *blocks, size_t n);

/* n finite floats (whole blocks) to blocks; the type must have `quantizes`. Same bytes on every
 * machine. F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1   ggml's reference rounding Q4_K Q5_K Q6_K IQ4_NL
 * searches for the scales of least weighted squared error; valid files, not ggml's bytes Values
 * beyond the largest half (in F16, or as a scale) become infinite there: pvl_dtype_error shows it.
 */
void pvl_dtype_quantize(pvl_dtype type, void *out, const float *x, size_t n);

/* Relative L2 distance of what the blocks hold from x, n values: sqrt(sum (y - x)^2 / sum x^2); 0
 * for all zeros. */
double pvl_dtype_error(pvl_dtype type, const void *blocks, const float *x, size_t n);

#endif
