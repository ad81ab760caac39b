/* The kernel sets as tables, and the choice among them. */
#include <stdio.h>
#include <string.h>

#include "kernels/sets.h"

#define TILES(set)                                                                                 \
    .tile = {[PVL_PACK_F32] = pvl_k_tile_f32__##set,                                               \
             [PVL_PACK_Q8] = pvl_k_tile_q8__##set,                                                 \
             [PVL_PACK_Q8W] = pvl_k_tile_q8w__##set,                                               \
             [PVL_PACK_Q4] = pvl_k_tile_q4__##set,                                                 \
             [PVL_PACK_Q4M] = pvl_k_tile_q4m__##set}

#define STREAMED(set)                                                                              \
    .streams = {[PVL_PACK_Q8] = pvl_k_streams_q8__##set,                                           \
                [PVL_PACK_Q8W] = pvl_k_streams_q8w__##set,                                         \
                [PVL_PACK_Q4] = pvl_k_streams_q4__##set,                                           \
                [PVL_PACK_Q4M] = pvl_k_streams_q4m__##set}

#define REST(set)                                                                                  \
    .finish = pvl_k_finish__##set,                                                                 \
    .quantize = {[PVL_PACK_F32] = pvl_k_quantize_f32__##set,                                       \
                 [PVL_PACK_Q8] = pvl_k_quantize_q8__##set,                                         \
                 [PVL_PACK_Q8W] = pvl_k_quantize_q8w__##set,                                       \
                 [PVL_PACK_Q4] = pvl_k_quantize_q4__##set,                                         \
                 [PVL_PACK_Q4M] = pvl_k_quantize_q4__##set},                                       \
    .layer_stats = pvl_k_layer_stats__##set, .rms_stats = pvl_k_rms_stats__##set,                  \
    .normalize = pvl_k_normalize__##set, .silu_mul = pvl_k_silu_mul__##set,                        \
    .rotate = pvl_k_rotate__##set, .scores = pvl_k_scores__##set, .max = pvl_k_max__##set,         \
    .exp_sum = pvl_k_exp_sum__##set, .widen_keys = pvl_k_widen_keys__##set,                        \
    .widen_value = pvl_k_widen_value__##set, .mix = pvl_k_mix__##set,                              \
    .scores_q8 = pvl_k_scores_q8__##set, .mix_q8 = pvl_k_mix_q8__##set

static const pvl_kernels scalar = {.name = "scalar", TILES(scalar), REST(scalar)};
#ifdef PVL_HAVE_SIMD128
static const pvl_kernels simd128 = {.name = "simd128",
                                    TILES(simd128),
                                    STREAMED(simd128),
                                    REST(simd128),
                                    .wide = {[PVL_PACK_Q8] = &pvl_k_wide_q8__simd128,
                                             [PVL_PACK_Q8W] = &pvl_k_wide_q8w__simd128,
                                             [PVL_PACK_Q4] = &pvl_k_wide_q4__simd128,
                                             [PVL_PACK_Q4M] = &pvl_k_wide_q4m__simd128},
                                    .widen_row = pvl_k_widen_row__simd128};
#endif
#ifdef PVL_HAVE_RELAXED
static const pvl_kernels relaxed = {
    .name = "relaxed", TILES(relaxed), STREAMED(relaxed), REST(relaxed)};
static const pvl_kernels relaxed_dot = {
    .name = "relaxed-dot", TILES(relaxed_dot), STREAMED(relaxed_dot), REST(relaxed)};
#endif

static const pvl_kernels *const sets[] = {
#ifdef PVL_HAVE_RELAXED
    &relaxed_dot,
    &relaxed,
#endif
#ifdef PVL_HAVE_SIMD128
    &simd128,
#endif
    &scalar,
};
enum { SETS = sizeof sets / sizeof sets[0] };

#ifdef PVL_HAVE_RELAXED
static const char *const names_native[] = {"relaxed-dot", "relaxed", "simd128", "scalar", NULL};
static const char *const names_pairs[] = {"relaxed", "relaxed-dot", "simd128", "scalar", NULL};
static const char *const names_broken[] = {"relaxed", "simd128", "scalar", NULL};

const char *const *pvl_kernels_list(void) {
    switch (pvl_relaxed_dot_probe()) {
    case PVL_DOT_NATIVE:
        return names_native;
    case PVL_DOT_PAIRS:
        return names_pairs;
    default:
        return names_broken;
    }
}
#else
const char *const *pvl_kernels_list(void) {
#ifdef PVL_HAVE_SIMD128
    static const char *const names[] = {"simd128", "scalar", NULL};
#else
    static const char *const names[] = {"scalar", NULL};
#endif
    return names;
}
#endif

pvl_status pvl_kernels_select(const pvl_kernels **out, const char *name, pvl_error *err) {
    const char *const *names = pvl_kernels_list();
    char text[64];
    int used = 0;
    for (const char *const *n = names; *n; n++) {
        used +=
            snprintf(text + used, sizeof text - (size_t)used, "%s%s", n == names ? "" : ", ", *n);
        if (name && strcmp(*n, name) != 0)
            continue;
        for (size_t i = 0; i < SETS; i++) {
            if (strcmp(sets[i]->name, *n) == 0)
                *out = sets[i];
        }
        return PVL_OK;
    }
    return pvl_fail(err, PVL_E_ARGUMENT, "There is no kernel set \"%s\" here: choose one of %s.",
                    name, text);
}

const char *pvl_kernels_name(const pvl_kernels *k) {
    return k->name;
}
