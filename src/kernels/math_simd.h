/* Vector exponential, shared by rows and attention. */
#ifndef PVL_KERNELS_MATH_SIMD_H
#define PVL_KERNELS_MATH_SIMD_H

#include "kernels/simd.h"

/* e^x, relative error below 3e-7; 0 below -87.3, at most e^88. x = n ln 2 + r with |r| <= ln 2 / 2,
 * then the polynomial of degree 5 with the least relative error there (fitted for this file), and n
 * added to the exponent. */
PVL_INLINE v128_t exp4(v128_t x) {
    const v128_t round = PVL_LANES(exp.round), least = PVL_LANES(exp.least),
                 one = PVL_LANES(exp.one);
    v128_t seen = wasm_f32x4_ge(x, least);
    x = wasm_f32x4_pmin(PVL_LANES(exp.most), wasm_f32x4_pmax(least, x));
    v128_t t = madd4(x, PVL_LANES(exp.log2_e), round);
    v128_t n = wasm_f32x4_sub(t, round);
    v128_t r = madd4(n, PVL_LANES(exp.ln2_high), x);
    r = madd4(n, PVL_LANES(exp.ln2_low), r);
    v128_t p = madd4(r, PVL_LANES(exp.p[0]), PVL_LANES(exp.p[1]));
    p = madd4(p, r, PVL_LANES(exp.p[2]));
    p = madd4(p, r, PVL_LANES(exp.p[3]));
    p = madd4(p, r, one);
    p = madd4(p, r, one);
    return wasm_v128_and(wasm_i32x4_add(p, wasm_i32x4_shl(t, 23)), seen);
}

#endif
