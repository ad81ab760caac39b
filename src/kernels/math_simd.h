/* Vector exponential, shared by rows and attention. */
#ifndef PVL_KERNELS_MATH_SIMD_H
#define PVL_KERNELS_MATH_SIMD_H

#include "kernels/simd.h"

/* e^x, relative error below 3e-7; 0 below -87.3, at most e^88. x = n ln 2 + r with |r| <= ln 2 / 2,
 * then the polynomial of degree 5 with the least relative error there (fitted for this file), and n
 * added to the exponent. */
PVL_INLINE v128_t exp4(v128_t x) {
    const v128_t shift =
        wasm_f32x4_splat(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    v128_t seen = wasm_f32x4_ge(x, wasm_f32x4_splat(-87.3f));
    x = wasm_f32x4_pmin(wasm_f32x4_splat(88.0f), wasm_f32x4_pmax(wasm_f32x4_splat(-87.3f), x));
    v128_t t = madd4(x, wasm_f32x4_splat(1.44269504f), shift);
    v128_t n = wasm_f32x4_sub(t, shift);
    v128_t r = madd4(n, wasm_f32x4_splat(-0.693145751953125f),
                     x); /* ln 2, high part: n times it is exact */
    r = madd4(n, wasm_f32x4_splat(-1.42860677e-6f), r);
    v128_t p =
        madd4(r, wasm_f32x4_splat(0.008312049321830273f), wasm_f32x4_splat(0.04189449921250343f));
    p = madd4(p, r, wasm_f32x4_splat(0.16667133569717407f));
    p = madd4(p, r, wasm_f32x4_splat(0.4999920129776001f));
    p = madd4(p, r, wasm_f32x4_splat(1.0f));
    p = madd4(p, r, wasm_f32x4_splat(1.0f));
    return wasm_v128_and(wasm_i32x4_add(p, wasm_i32x4_shl(t, 23)), seen);
}

#endif
