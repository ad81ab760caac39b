/* The small vector vocabulary of the SIMD kernel sets, on top of WebAssembly's 128-bit intrinsics
 * (natively SIMDe's).
 *
 * PVL_SIMD_RELAXED, defined before inclusion, brings the relaxed instructions; natively they are
 * what x86 engines make of them. The i7 operand of the dots must lie in 0..127: then every engine
 * gives the same result. */
#ifndef PVL_KERNELS_SIMD_H
#define PVL_KERNELS_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernels/constants.h"

#if defined(__wasm_simd128__)
#include <wasm_simd128.h>
#else
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/wasm/simd128.h>
#if defined(__SSSE3__)
#include <immintrin.h>
#endif
#endif

/* The tiles need their row count as a constant: left to itself the compiler keeps accumulators in
 * memory. */
#if defined(__GNUC__)
#define PVL_INLINE static inline __attribute__((always_inline, unused))
#else
#define PVL_INLINE static inline
#endif

/* Before a short loop with few accumulators: repeat its body. */
#if defined(__clang__)
#define PVL_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PVL_UNROLL
#endif

/* Before the innermost loop of a tile. Unrolled, its loads move ahead of their uses in V8, and
 * accumulators are spilled: half the speed. */
#if defined(__clang__)
#define PVL_KEEP_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define PVL_KEEP_ROLLED
#endif

/* What lies in memory is read or written on this side of it, not kept in registers across it. */
#if defined(__GNUC__)
#define PVL_FENCE __asm__ volatile("" ::: "memory")
#else
#define PVL_FENCE ((void)0)
#endif

PVL_INLINE float load_f32(const unsigned char *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Four halves to floats, exact, subnormals included; infinities become large numbers. The exponent
 * is rebiased by a product with 2^112. */
PVL_INLINE v128_t load_half4(const unsigned char *p) {
    v128_t h = wasm_i32x4_shl(wasm_i32x4_load16x4(p), 13);
    h = wasm_v128_and(h, PVL_LANES(half_bits));
    return wasm_f32x4_mul(h, PVL_LANES(half_scale));
}

PVL_INLINE float sum4(v128_t v) {
    v = wasm_f32x4_add(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
    v = wasm_f32x4_add(v, wasm_i32x4_shuffle(v, v, 1, 0, 3, 2));
    return wasm_f32x4_extract_lane(v, 0);
}

PVL_INLINE float max4(v128_t v) {
    v = wasm_f32x4_pmax(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
    v = wasm_f32x4_pmax(v, wasm_i32x4_shuffle(v, v, 1, 0, 3, 2));
    return wasm_f32x4_extract_lane(v, 0);
}

#ifdef PVL_SIMD_RELAXED
#if defined(__wasm_relaxed_simd__)
#define madd4(a, b, c) wasm_f32x4_relaxed_madd(a, b, c)
#define dot_i8_i7(a, b) wasm_i16x8_relaxed_dot_i8x16_i7x16(a, b)
#define dot_i8_i7_add(a, b, c) wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, b, c)
#else
PVL_INLINE v128_t madd4(v128_t a, v128_t b, v128_t c) {
#if defined(__FMA__)
    __m128 x, y, z;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    memcpy(&z, &c, sizeof z);
    z = _mm_fmadd_ps(x, y, z);
    memcpy(&c, &z, sizeof c);
    return c;
#else
    return wasm_f32x4_add(wasm_f32x4_mul(a, b), c);
#endif
}
PVL_INLINE v128_t dot_i8_i7(v128_t a, v128_t b) {
#if defined(__SSSE3__)
    __m128i x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    x = _mm_maddubs_epi16(y, x);
    memcpy(&a, &x, sizeof a);
    return a;
#else
    v128_t low = wasm_i16x8_extmul_low_i8x16(a, b), high = wasm_i16x8_extmul_high_i8x16(a, b);
    v128_t even = wasm_i16x8_shuffle(low, high, 0, 2, 4, 6, 8, 10, 12, 14);
    v128_t odd = wasm_i16x8_shuffle(low, high, 1, 3, 5, 7, 9, 11, 13, 15);
    return wasm_i16x8_add_sat(even, odd);
#endif
}
PVL_INLINE v128_t dot_i8_i7_add(v128_t a, v128_t b, v128_t c) {
    return wasm_i32x4_add(c, wasm_i32x4_extadd_pairwise_i16x8(dot_i8_i7(a, b)));
}
#endif
#else
PVL_INLINE v128_t madd4(v128_t a, v128_t b, v128_t c) {
    return wasm_f32x4_add(wasm_f32x4_mul(a, b), c);
}
#endif

#endif
