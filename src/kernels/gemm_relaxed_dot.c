#include "kernels/sets.h"

#ifdef PVL_HAVE_RELAXED
#define PVL_SIMD_RELAXED
#define TILE_DOT
#define TILE_NAME(op) pvl_k_tile_##op##__relaxed_dot
#define STREAMS_NAME(op) pvl_k_streams_##op##__relaxed_dot
#include "kernels/gemm_simd.h"

/* Two products of 127 and 255 do not fit 16 bits. x86 engines without the VNNI instructions make
 * the dot of pmaddubsw, which saturates each pair; VNNI sums exactly; Arm takes 255 as -1. The
 * latter two are one instruction, or as fast as the pairs. Anything else is a defect: V8 11.3
 * (Node.js 20) adds the dot to itself instead of to the sum in code that it has not optimized yet.
 * The operands are volatile because binaryen cannot fold a relaxed dot. */
pvl_dot_kind pvl_relaxed_dot_probe(void) {
    volatile int8_t most = 127, over = -1;
    volatile int32_t start = 100;
    v128_t sum =
        dot_i8_i7_add(wasm_i8x16_splat(most), wasm_i8x16_splat(over), wasm_i32x4_splat(start));
    switch (wasm_i32x4_extract_lane(sum, 0)) {
    case 100 + 2 * INT16_MAX:
        return PVL_DOT_PAIRS;
    case 100 + 4 * 127 * 255:
    case 100 - 4 * 127:
        return PVL_DOT_NATIVE;
    default:
        return PVL_DOT_BROKEN;
    }
}
#endif
