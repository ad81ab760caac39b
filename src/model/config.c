#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

bool pvl_config_has_llm(const pvl_gguf *g) {
    /* The later parts of a split file carry no architecture: only tensors. */
    return pvl_gguf_has(g, "general.architecture") &&
           !pvl_gguf_str_is(g, "general.architecture", "clip");
}

bool pvl_config_has_vision(const pvl_gguf *g) {
    return pvl_gguf_has(g, "clip.vision.embedding_length");
}

/* A size between 1 and max. Absent: the default, or an error when that is 0. */
static pvl_status read_size(size_t *out, const pvl_gguf *g, const char *key, size_t missing,
                            size_t max, pvl_error *err) {
    uint32_t v = 0;
    if (!pvl_gguf_has(g, key) && missing) {
        *out = missing;
        return PVL_OK;
    }
    if (!pvl_gguf_u32(g, key, &v) || v == 0 || v > max) {
        return pvl_fail(
            err, PVL_E_MODEL,
            "%s: %s must be a whole number from 1 to %zu: the file cannot be run as it is.",
            pvl_gguf_name(g), key, max);
    }
    *out = v;
    return PVL_OK;
}

static pvl_status read_float(float *out, const pvl_gguf *g, const char *key, float missing,
                             float min, float max, pvl_error *err) {
    float v = missing;
    if ((pvl_gguf_has(g, key) && !pvl_gguf_f32(g, key, &v)) || !(v >= min && v <= max)) {
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: %s must be a number from %g to %g: the file cannot be run as it is.",
                        pvl_gguf_name(g), key, (double)min, (double)max);
    }
    *out = v;
    return PVL_OK;
}

struct arch_keys {
    const pvl_gguf *g;
    const char *arch;
    char key[96];
};

static const char *arch_key(struct arch_keys *k, const char *suffix) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, suffix);
    return k->key;
}

static pvl_status check_heads(const pvl_gguf *g, size_t hidden, size_t heads, size_t kv_heads,
                              size_t head_dim, pvl_error *err) {
    if (heads % kv_heads || head_dim % 8 || head_dim > 512) {
        return pvl_fail(
            err, PVL_E_UNSUPPORTED,
            "%s: %zu heads over %zu key/value heads of size %zu in a width of %zu cannot be run: "
            "heads must "
            "be a multiple of key/value heads and their size a multiple of 8, at most 512.",
            pvl_gguf_name(g), heads, kv_heads, head_dim, hidden);
    }
    return PVL_OK;
}

/* "Dynamic NTK", which llama.cpp's keys cannot say: the base grows with what goes beyond the length
 * of training, up to `factor` times that length. */
static pvl_status read_dynamic_rope(pvl_llm_config *c, const pvl_gguf *g, pvl_error *err) {
    PVL_TRY(read_float(&c->dynamic_factor, g, "pocketvl.rope.dynamic_factor", 0.0f, 0.0f,
                       (float)PVL_MAX_DYNAMIC_FACTOR, err));
    if (c->dynamic_factor <= 0.0f)
        return PVL_OK;
    PVL_TRY(read_size(&c->original_context, g, "pocketvl.rope.original_context", c->context,
                      PVL_MAX_CONTEXT, err));
    double reach = (double)c->original_context * (double)c->dynamic_factor;
    if (reach > (double)c->context)
        c->context = reach < (double)(size_t)PVL_MAX_CONTEXT ? (size_t)reach : PVL_MAX_CONTEXT;
    return PVL_OK;
}

pvl_status pvl_llm_config_read(pvl_llm_config *out, const pvl_gguf *g, pvl_error *err) {
    pvl_llm_config c = {0};
    pvl_gguf_string arch = {0};
    pvl_gguf_str(g, "general.architecture", &arch);
    static const char *const known[] = {"qwen2", "internlm2", "llama", "phi3"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (arch.data && strcmp(arch.data, known[i]) == 0)
            snprintf(c.architecture, sizeof c.architecture, "%s", known[i]);
    }
    if (!c.architecture[0]) {
        return pvl_fail(err, PVL_E_UNSUPPORTED,
                        "%s: the architecture \"%.40s\" is not one of qwen2, internlm2, llama, "
                        "phi3: choose an InternVL "
                        "model.",
                        pvl_gguf_name(g), arch.data ? arch.data : "");
    }
    bool phi3 = strcmp(c.architecture, "phi3") == 0, qwen2 = strcmp(c.architecture, "qwen2") == 0;
    struct arch_keys k = {.g = g, .arch = c.architecture};

    PVL_TRY(read_size(&c.layers, g, arch_key(&k, "block_count"), 0, PVL_MAX_LAYERS, err));
    PVL_TRY(read_size(&c.hidden, g, arch_key(&k, "embedding_length"), 0, PVL_MAX_WIDTH, err));
    PVL_TRY(read_size(&c.ffn, g, arch_key(&k, "feed_forward_length"), 0, PVL_MAX_WIDTH, err));
    PVL_TRY(read_size(&c.heads, g, arch_key(&k, "attention.head_count"), 0, PVL_MAX_WIDTH, err));
    PVL_TRY(read_size(&c.kv_heads, g, arch_key(&k, "attention.head_count_kv"), c.heads,
                      PVL_MAX_WIDTH, err));
    PVL_TRY(read_size(&c.head_dim, g, arch_key(&k, "attention.key_length"),
                      c.hidden / c.heads ? c.hidden / c.heads : 1, PVL_MAX_WIDTH, err));
    PVL_TRY(check_heads(g, c.hidden, c.heads, c.kv_heads, c.head_dim, err));
    if (2 * c.ffn < c.hidden) {
        return pvl_fail(err, PVL_E_UNSUPPORTED,
                        "%s: a feed-forward width of %zu is too small beside a width of %zu.",
                        pvl_gguf_name(g), c.ffn, c.hidden);
    }
    PVL_TRY(read_size(&c.context, g, arch_key(&k, "context_length"), 32768, SIZE_MAX >> 1, err));
    if (c.context > PVL_MAX_CONTEXT)
        c.context = PVL_MAX_CONTEXT;
    PVL_TRY(read_float(&c.rms_eps, g, arch_key(&k, "attention.layer_norm_rms_epsilon"), 1e-6f, 0.0f,
                       1.0f, err));
    PVL_TRY(
        read_float(&c.rope_theta, g, arch_key(&k, "rope.freq_base"), 10000.0f, 1.0f, 1e12f, err));
    size_t rotated;
    PVL_TRY(read_size(&rotated, g, arch_key(&k, "rope.dimension_count"), c.head_dim, PVL_MAX_WIDTH,
                      err));
    if (rotated != c.head_dim) {
        return pvl_fail(
            err, PVL_E_UNSUPPORTED,
            "%s: only %zu of %zu dimensions of a head are rotated, which no InternVL model does.",
            pvl_gguf_name(g), rotated, c.head_dim);
    }
    c.rope_attn_factor = 1.0f;
    if (phi3) {
        bool factors = pvl_gguf_has(g, arch_key(&k, "rope.scaling.attn_factor"));
        PVL_TRY(read_float(&c.rope_attn_factor, g, arch_key(&k, "rope.scaling.attn_factor"), 1.0f,
                           0.1f, 10.0f, err));
        if (factors) {
            PVL_TRY(read_size(&c.original_context, g,
                              arch_key(&k, "rope.scaling.original_context_length"), 4096,
                              PVL_MAX_CONTEXT, err));
        }
    } else {
        PVL_TRY(read_dynamic_rope(&c, g, err));
    }
    /* A window at least as long as the context masks nothing. */
    size_t window;
    PVL_TRY(read_size(&window, g, arch_key(&k, "attention.sliding_window"), c.context,
                      SIZE_MAX >> 1, err));
    if (window < c.context)
        c.context = window;

    c.interleaved_qk = !phi3 && !qwen2;
    c.fused_qkv = c.fused_up = phi3;
    c.qkv_bias = qwen2;

    const pvl_gguf_kv *tokens = pvl_gguf_find_kv(g, "tokenizer.ggml.tokens");
    if (!tokens || tokens->type != PVL_GGUF_ARRAY || tokens->count == 0 ||
        tokens->count > PVL_MAX_VOCABULARY) {
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: tokenizer.ggml.tokens is missing or not a list of 1 to %d tokens.",
                        pvl_gguf_name(g), PVL_MAX_VOCABULARY);
    }
    c.vocabulary = tokens->count;
    *out = c;
    return PVL_OK;
}

static pvl_status read_three(float out[3], const pvl_gguf *g, const pvl_allocator *a,
                             const char *key, const float missing[3], pvl_error *err) {
    float *values;
    size_t count;
    memcpy(out, missing, 3 * sizeof *out);
    PVL_TRY(pvl_gguf_array_f32(g, key, &values, &count, err));
    if (!values)
        return PVL_OK;
    bool good = count == 3;
    for (size_t i = 0; i < count && i < 3; i++) {
        good = good && isfinite(values[i]);
        out[i] = values[i];
    }
    pvl_free(a, values);
    if (good)
        return PVL_OK;
    return pvl_fail(err, PVL_E_MODEL,
                    "%s: %s must hold three numbers, one for each of red, green and blue.",
                    pvl_gguf_name(g), key);
}

pvl_status pvl_vit_config_read(pvl_vit_config *out, const pvl_gguf *g, const pvl_allocator *a,
                               pvl_error *err) {
    pvl_vit_config c = {0};
    if (pvl_gguf_has(g, "clip.projector_type") &&
        !pvl_gguf_str_is(g, "clip.projector_type", "internvl")) {
        pvl_gguf_string type = {"", 0};
        pvl_gguf_str(g, "clip.projector_type", &type);
        return pvl_fail(err, PVL_E_UNSUPPORTED,
                        "%s: the projector \"%.40s\" is not InternVL's: choose an InternVL model.",
                        pvl_gguf_name(g), type.data);
    }
    PVL_TRY(read_size(&c.layers, g, "clip.vision.block_count", 0, PVL_MAX_LAYERS, err));
    PVL_TRY(read_size(&c.hidden, g, "clip.vision.embedding_length", 0, PVL_MAX_WIDTH, err));
    PVL_TRY(read_size(&c.ffn, g, "clip.vision.feed_forward_length", 0, PVL_MAX_WIDTH, err));
    PVL_TRY(read_size(&c.heads, g, "clip.vision.attention.head_count", 0, PVL_MAX_WIDTH, err));
    PVL_TRY(read_size(&c.image_size, g, "clip.vision.image_size", 0, 4096, err));
    PVL_TRY(read_size(&c.patch_size, g, "clip.vision.patch_size", 0, 256, err));
    PVL_TRY(read_size(&c.projection, g, "clip.vision.projection_dim", 0, PVL_MAX_WIDTH, err));
    PVL_TRY(
        read_float(&c.eps, g, "clip.vision.attention.layer_norm_epsilon", 1e-6f, 0.0f, 1.0f, err));
    size_t scale = 0;
    PVL_TRY(read_size(&scale, g, "clip.vision.projector.scale_factor", 2, 16, err));
    if (c.hidden % c.heads) {
        return pvl_fail(err, PVL_E_MODEL, "%s: %zu vision heads do not divide a width of %zu.",
                        pvl_gguf_name(g), c.heads, c.hidden);
    }
    c.head_dim = c.hidden / c.heads;
    PVL_TRY(check_heads(g, c.hidden, c.heads, c.heads, c.head_dim, err));
    c.grid = c.image_size / c.patch_size;
    if (scale != 2 || c.image_size % c.patch_size || c.grid < 2 || c.grid % 2) {
        return pvl_fail(err, PVL_E_UNSUPPORTED,
                        "%s: tiles of %zu pixels in patches of %zu, shuffled by %zu, cannot be "
                        "run: InternVL needs an even "
                        "number of whole patches and a shuffle by 2.",
                        pvl_gguf_name(g), c.image_size, c.patch_size, scale);
    }
    c.tokens = c.grid / 2 * (c.grid / 2);
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    PVL_TRY(read_three(c.mean, g, a, "clip.vision.image_mean", mean, err));
    PVL_TRY(read_three(c.std, g, a, "clip.vision.image_std", std, err));
    for (int i = 0; i < 3; i++) {
        if (!(c.std[i] > 0.0f)) {
            return pvl_fail(err, PVL_E_MODEL, "%s: clip.vision.image_std must be positive.",
                            pvl_gguf_name(g));
        }
    }
    size_t tiles;
    PVL_TRY(read_size(&tiles, g, "clip.vision.preproc_max_tiles", 12, 40, err));
    c.max_tiles = (int)tiles;
    *out = c;
    return PVL_OK;
}
