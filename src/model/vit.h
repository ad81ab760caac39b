/* The vision part: InternViT, pixel shuffle and the projector.
 *
 * Source: InternVL's modeling_intern_vit.py and modeling_internvl_chat.py. One tile in, its visual
 * tokens out: e[p] = W x[patch p] + b                        patch p = grid*Y + X, row order
 * (channel, y, x) t = [class; e] + positions                     [grid^2 + 1, D] t += ls1 *
 * Proj(Attention(LN1(t)))             for each block; no mask, the class token takes part t += ls2
 * * FC2(gelu(FC1(LN2(t))))              gelu with erf no final norm; the class token is dropped
 *   s[y][x][(2dy+dx)D + c] = t[2y+dy][2x+dx][c]    pixel shuffle "v2"
 *   out = W3 gelu(W1 LN(s) + b1) + b3              LN eps 1e-5, not the blocks' 1e-6 */
#ifndef PVL_MODEL_VIT_H
#define PVL_MODEL_VIT_H

#include "model/run.h"

/* Bytes of run->workspace that pvl_vit_encode needs with a team of `members`; false when they do
 * not fit size_t. */
bool pvl_vit_workspace(size_t *out, const pvl_model *m, int members);

/* pixels [3, S, S] normalised -> out [vit.tokens, vit.projection]. Probe stages: "patches", "vit"
 * (layer i), "shuffle", "projector". PVL_E_CANCELLED leaves `out` undefined. */
pvl_status pvl_vit_encode(const pvl_run *run, const pvl_model *m, float *out, const float *pixels,
                          pvl_error *err);

#endif
