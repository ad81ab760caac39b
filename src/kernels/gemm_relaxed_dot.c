#include "kernels/sets.h"

#ifdef PVL_HAVE_RELAXED
#define PVL_SIMD_RELAXED
#define TILE_DOT
#define TILE_NAME(op) pvl_k_tile_##op##__relaxed_dot
#include "kernels/gemm_simd.h"

/* Two products of 127 and 255 fill 16 bits beyond saturation. x86 engines without the VNNI
 * instructions make the dot of pmaddubsw, which saturates each pair; VNNI sums exactly, and Arm
 * takes 255 as -1. Both of the latter are one instruction (or as fast as the pairs). The operands
 * are volatile because binaryen cannot fold a relaxed dot. */
bool pvl_relaxed_dot_is_native(void) {
    volatile int8_t most = 127;
    volatile int8_t over = -1; /* 255 where the operand is unsigned */
    v128_t sum = dot_i8_i7_add(wasm_i8x16_splat(most), wasm_i8x16_splat(over), wasm_i32x4_splat(0));
    return wasm_i32x4_extract_lane(sum, 0) != 2 * INT16_MAX;
}
#endif
