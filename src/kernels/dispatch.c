#include <string.h>

#include "kernels/scalar.h"

const pvl_kernels pvl_kernels_scalar = {
    .name = "scalar",
    .tile = {[PVL_PACK_F32] = pvl_k_tile_f32__scalar,
             [PVL_PACK_Q8] = pvl_k_tile_q8__scalar,
             [PVL_PACK_Q8W] = pvl_k_tile_q8w__scalar,
             [PVL_PACK_Q4] = pvl_k_tile_q4__scalar,
             [PVL_PACK_Q4M] = pvl_k_tile_q4m__scalar},
    .finish = pvl_k_finish__scalar,
    .quantize = {[PVL_PACK_F32] = pvl_k_quantize_f32__scalar,
                 [PVL_PACK_Q8] = pvl_k_quantize_q8__scalar,
                 [PVL_PACK_Q8W] = pvl_k_quantize_q8w__scalar,
                 [PVL_PACK_Q4] = pvl_k_quantize_q4__scalar,
                 [PVL_PACK_Q4M] = pvl_k_quantize_q4__scalar},
    .layer_stats = pvl_k_layer_stats__scalar,
    .rms_stats = pvl_k_rms_stats__scalar,
    .normalize = pvl_k_normalize__scalar,
    .silu_mul = pvl_k_silu_mul__scalar,
    .rotate = pvl_k_rotate__scalar,
    .scores = pvl_k_scores__scalar,
    .max = pvl_k_max__scalar,
    .exp_sum = pvl_k_exp_sum__scalar,
    .widen_keys = pvl_k_widen_keys__scalar,
    .widen_value = pvl_k_widen_value__scalar,
    .mix = pvl_k_mix__scalar,
};

static const pvl_kernels *const sets[] = {
#ifdef PVL_HAVE_RELAXED
    &pvl_kernels_relaxed,
#endif
#ifdef PVL_HAVE_SIMD128
    &pvl_kernels_simd128,
#endif
    &pvl_kernels_scalar,
};

static const char *const names[] = {
#ifdef PVL_HAVE_RELAXED
    "relaxed",
#endif
#ifdef PVL_HAVE_SIMD128
    "simd128",
#endif
    "scalar",
    NULL,
};

#if defined(PVL_HAVE_RELAXED)
#define NAMES "relaxed, simd128, scalar"
#elif defined(PVL_HAVE_SIMD128)
#define NAMES "simd128, scalar"
#else
#define NAMES "scalar"
#endif

pvl_status pvl_kernels_select(const pvl_kernels **out, const char *name, pvl_error *err) {
    *out = sets[0];
    if (!name)
        return PVL_OK;
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        if (strcmp(sets[i]->name, name) == 0) {
            *out = sets[i];
            return PVL_OK;
        }
    }
    return pvl_fail(err, PVL_E_ARGUMENT,
                    "There is no kernel set \"%s\" in this build: choose one of %s.", name, NAMES);
}

const char *pvl_kernels_name(const pvl_kernels *k) {
    return k->name;
}

const char *const *pvl_kernels_list(void) {
    return names;
}
