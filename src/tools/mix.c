#include "tools/mix.h"

#include <stdbool.h>
#include <string.h>

static bool is_float(pvl_dtype t) {
    return t == PVL_DTYPE_F32 || t == PVL_DTYPE_F16 || t == PVL_DTYPE_BF16;
}

pvl_mix pvl_mix_default(pvl_dtype main) {
    pvl_dtype careful = is_float(main) || main == PVL_DTYPE_Q6_K ? main : PVL_DTYPE_Q8_0;
    pvl_dtype vision = is_float(main) ? main : PVL_DTYPE_Q8_0;
    return (pvl_mix){main, careful, main, vision};
}

static bool starts(const char *name, const char *with) {
    return strncmp(name, with, strlen(with)) == 0;
}

static bool ends(const char *name, const char *with) {
    size_t n = strlen(name), m = strlen(with);
    return n >= m && strcmp(name + n - m, with) == 0;
}

/* What llama.cpp falls back to when a row is no multiple of 256. */
static pvl_dtype shorter_blocks(pvl_dtype t) {
    switch (t) {
    case PVL_DTYPE_Q4_K:
        return PVL_DTYPE_Q5_0;
    case PVL_DTYPE_Q5_K:
        return PVL_DTYPE_Q5_1;
    case PVL_DTYPE_Q6_K:
        return PVL_DTYPE_Q8_0;
    default:
        return PVL_DTYPE_F16;
    }
}

pvl_dtype pvl_mix_type(const pvl_mix *mix, const char *name, const size_t *ne, uint32_t dims) {
    if (strcmp(name, "v.patch_embd.weight") == 0)
        return mix->main == PVL_DTYPE_F32 || mix->main == PVL_DTYPE_BF16 ? PVL_DTYPE_F32
                                                                         : PVL_DTYPE_F16;
    if (dims < 2 || ends(name, "_norm.weight") || ends(name, ".bias") ||
        starts(name, "v.class_embd") || starts(name, "v.position_embd"))
        return PVL_DTYPE_F32;
    pvl_dtype type = strcmp(name, "output.weight") == 0          ? mix->output
                     : strcmp(name, "token_embd.weight") == 0    ? mix->embedding
                     : starts(name, "v.") || starts(name, "mm.") ? mix->vision
                                                                 : mix->main;
    while (ne[0] % pvl_dtype_find((uint32_t)type)->block_length != 0)
        type = shorter_blocks(type);
    return type;
}

uint32_t pvl_mix_file_type(pvl_dtype main) {
    switch (main) {
    case PVL_DTYPE_F32:
        return 0;
    case PVL_DTYPE_F16:
        return 1;
    case PVL_DTYPE_Q4_0:
        return 2;
    case PVL_DTYPE_Q4_1:
        return 3;
    case PVL_DTYPE_Q8_0:
        return 7;
    case PVL_DTYPE_Q5_0:
        return 8;
    case PVL_DTYPE_Q5_1:
        return 9;
    case PVL_DTYPE_Q4_K:
        return 14;
    case PVL_DTYPE_Q5_K:
        return 16;
    case PVL_DTYPE_Q6_K:
        return 18;
    case PVL_DTYPE_IQ4_NL:
        return 25;
    default:
        return 32; /* BF16 */
    }
}

pvl_status pvl_mix_option(pvl_mix *mix, const char *key, const char *value, pvl_error *err) {
    pvl_dtype type;
    if (!pvl_dtype_from_name(&type, value) || !pvl_dtype_find((uint32_t)type) ||
        (type != PVL_DTYPE_F32 && !pvl_dtype_find((uint32_t)type)->quantizes))
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "--%s %.20s: choose one of q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k, "
                        "iq4_nl, f16, bf16, f32.",
                        key, value);
    if (strcmp(key, "type") == 0)
        *mix = pvl_mix_default(type);
    else if (strcmp(key, "output-type") == 0)
        mix->output = type;
    else if (strcmp(key, "embedding-type") == 0)
        mix->embedding = type;
    else
        mix->vision = type;
    return PVL_OK;
}
