#include "tools/hf_config.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "text/template.h"
#include "tools/io.h"
#include "tools/json.h"

enum { MAX_CONFIG = 16 * 1024 * 1024, MAX_WIDTH = 65536, MAX_LAYERS = 256 };
static const uint64_t max_context = 1u << 30;

const char *pvl_hf_arch_name(pvl_hf_arch arch) {
    static const char *const names[] = {"qwen2", "internlm2", "phi3", "llama"};
    return names[arch];
}

static pvl_status refuse(pvl_json from, const char *key, const char *found, const char *expected,
                         pvl_error *err) {
    return pvl_fail(err, PVL_E_UNSUPPORTED, "%s: \"%s\" is %.60s, but only %s can be run.",
                    from.file, key, found, expected);
}

static pvl_status positive(size_t *out, pvl_json from, const char *key, int64_t missing,
                           uint64_t max, pvl_error *err) {
    PVL_TRY(pvl_json_size(out, from, key, missing, max, err));
    if (*out == 0)
        return pvl_fail(err, PVL_E_FORMAT, "%s: \"%s\" must not be 0.", from.file, key);
    return PVL_OK;
}

/* ---- language model ---- */

static pvl_status read_arch(pvl_hf_config *c, pvl_json llm, pvl_error *err) {
    static const struct {
        const char *name;
        pvl_hf_arch arch;
    } known[] = {{"qwen2", PVL_HF_QWEN2},
                 {"internlm2", PVL_HF_INTERNLM2},
                 {"phi3", PVL_HF_PHI3},
                 {"llama", PVL_HF_LLAMA},
                 {"Qwen2ForCausalLM", PVL_HF_QWEN2},
                 {"InternLM2ForCausalLM", PVL_HF_INTERNLM2},
                 {"Phi3ForCausalLM", PVL_HF_PHI3},
                 {"LlamaForCausalLM", PVL_HF_LLAMA}};
    const cJSON *list = pvl_json_get(llm, "architectures");
    const cJSON *first = cJSON_IsArray(list) ? cJSON_GetArrayItem(list, 0) : NULL;
    const char *names[2] = {cJSON_IsString(first) ? first->valuestring : NULL,
                            pvl_json_string(llm, "model_type", NULL)};
    const char *name = names[0] ? names[0] : names[1];
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) {
            c->arch = known[i].arch;
            return PVL_OK;
        }
    }
    return refuse(llm, "architectures", name ? name : "missing",
                  "Qwen2, InternLM2, Phi-3 (and Llama in transformers' form)", err);
}

static pvl_status read_factors(float *out, pvl_json scaling, const char *key, size_t count,
                               pvl_error *err) {
    const cJSON *list = pvl_json_get(scaling, key), *item;
    if (!cJSON_IsArray(list) || (size_t)cJSON_GetArraySize(list) != count ||
        count > PVL_HF_MAX_FACTORS)
        return pvl_fail(err, PVL_E_FORMAT, "%s: \"%s\" must be a list of %zu numbers.",
                        scaling.file, key, count);
    size_t i = 0;
    cJSON_ArrayForEach(item, list) {
        if (!cJSON_IsNumber(item) || !(item->valuedouble > 0) || !isfinite(item->valuedouble))
            return pvl_fail(err, PVL_E_FORMAT, "%s: \"%s\" must hold positive numbers.",
                            scaling.file, key);
        out[i++] = (float)item->valuedouble;
    }
    return PVL_OK;
}

static pvl_status read_longrope(pvl_hf_config *c, pvl_json llm, pvl_json scaling, pvl_error *err) {
    size_t inside;
    c->factor_count = c->head_dim / 2;
    PVL_TRY(read_factors(c->short_factors, scaling, "short_factor", c->factor_count, err));
    PVL_TRY(read_factors(c->long_factors, scaling, "long_factor", c->factor_count, err));
    /* Beside rope_scaling in the published files, inside it in newer ones. */
    PVL_TRY(
        pvl_json_size(&inside, scaling, "original_max_position_embeddings", 0, max_context, err));
    PVL_TRY(positive(&c->original_context, llm, "original_max_position_embeddings",
                     inside ? (int64_t)inside : -1, max_context, err));
    double ratio = (double)c->context / (double)c->original_context;
    c->attn_factor = ratio > 1 ? sqrt(1 + log(ratio) / log((double)c->original_context)) : 1;
    return pvl_json_number(&c->attn_factor, scaling, "attention_factor", c->attn_factor, err);
}

static pvl_status read_rope(pvl_hf_config *c, pvl_json llm, pvl_error *err) {
    /* transformers 5 puts everything in rope_parameters, theta included. */
    pvl_json scaling = pvl_json_object(llm, "rope_parameters");
    if (!scaling.value)
        scaling = pvl_json_object(llm, "rope_scaling");
    double theta;
    PVL_TRY(pvl_json_number(&theta, scaling, "rope_theta", 10000, err));
    PVL_TRY(pvl_json_number(&c->rope_theta, llm, "rope_theta", theta, err));
    if (!(c->rope_theta > 1))
        return pvl_fail(err, PVL_E_FORMAT, "%s: \"rope_theta\" must be larger than 1.", llm.file);
    double part;
    PVL_TRY(pvl_json_number(&part, llm, "partial_rotary_factor", 1, err));
    if (part != 1.0)
        return refuse(llm, "partial_rotary_factor", "not 1", "heads that are rotated whole", err);
    if (!scaling.value)
        return PVL_OK;
    const char *type =
        pvl_json_string(scaling, "rope_type", pvl_json_string(scaling, "type", "default"));
    if (strcmp(type, "default") == 0)
        return PVL_OK;
    if (strcmp(type, "dynamic") == 0) {
        PVL_TRY(pvl_json_number(&c->dynamic_factor, scaling, "factor", NAN, err));
        if (c->dynamic_factor >= 1 && c->dynamic_factor <= PVL_MAX_DYNAMIC_FACTOR)
            return PVL_OK;
        return pvl_fail(err, PVL_E_FORMAT, "%s: \"factor\" must be from 1 to %d.", scaling.file,
                        PVL_MAX_DYNAMIC_FACTOR);
    }
    if (c->arch == PVL_HF_PHI3 && (strcmp(type, "su") == 0 || strcmp(type, "longrope") == 0))
        return read_longrope(c, llm, scaling, err);
    return refuse(llm, "rope_scaling", type, "dynamic, and Phi-3's su and longrope,", err);
}

static pvl_status read_llm(pvl_hf_config *c, pvl_json top, pvl_json llm, pvl_error *err) {
    PVL_TRY(read_arch(c, llm, err));
    if (c->arch == PVL_HF_LLAMA && !c->native)
        return refuse(llm, "architectures", "LlamaForCausalLM", "Qwen2, InternLM2 and Phi-3", err);
    PVL_TRY(positive(&c->layers, llm, "num_hidden_layers", -1, MAX_LAYERS, err));
    PVL_TRY(positive(&c->hidden, llm, "hidden_size", -1, MAX_WIDTH, err));
    PVL_TRY(positive(&c->heads, llm, "num_attention_heads", -1, MAX_WIDTH, err));
    PVL_TRY(positive(&c->kv_heads, llm, "num_key_value_heads", (int64_t)c->heads, MAX_WIDTH, err));
    PVL_TRY(
        positive(&c->head_dim, llm, "head_dim", (int64_t)(c->hidden / c->heads), MAX_WIDTH, err));
    PVL_TRY(positive(&c->ffn, llm, "intermediate_size", -1, MAX_WIDTH, err));
    PVL_TRY(positive(&c->vocabulary, llm, "vocab_size", -1, 1 << 20, err));
    PVL_TRY(positive(&c->context, llm, "max_position_embeddings", 32768, max_context, err));
    PVL_TRY(pvl_json_number(&c->rms_eps, llm, "rms_norm_eps", 1e-6, err));
    if (c->heads % c->kv_heads || c->head_dim % 2)
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s: %zu attention heads of size %zu over %zu key/value heads do not fit "
                        "together.",
                        llm.file, c->heads, c->head_dim, c->kv_heads);
    const char *act = pvl_json_string(llm, "hidden_act", "silu");
    if (strcmp(act, "silu") != 0)
        return refuse(llm, "hidden_act", act, "silu", err);
    /* InternVL's own class unties whatever the file says: an output matrix that is there is used.
     */
    c->tied =
        pvl_json_bool(llm, "tie_word_embeddings", pvl_json_bool(top, "tie_word_embeddings", false));
    if (c->arch == PVL_HF_PHI3 || pvl_json_bool(llm, "use_sliding_window", false))
        PVL_TRY(pvl_json_size(&c->sliding_window, llm, "sliding_window", 0, max_context, err));
    return read_rope(c, llm, err);
}

/* ---- vision ---- */

/* A side in pixels: 448, or [448, 448]. */
static pvl_status read_side(size_t *out, pvl_json from, const char *key, pvl_error *err) {
    const cJSON *item = pvl_json_get(from, key);
    if (!cJSON_IsArray(item))
        return positive(out, from, key, -1, 4096, err);
    double a = -1, b = -2;
    if (cJSON_GetArraySize(item) == 2) {
        a = cJSON_GetArrayItem(item, 0)->valuedouble;
        b = cJSON_GetArrayItem(item, 1)->valuedouble;
    }
    if (!(a >= 1 && a <= 4096 && a == b && floor(a) == a))
        return pvl_fail(err, PVL_E_FORMAT, "%s: \"%s\" must be one length for both sides.",
                        from.file, key);
    *out = (size_t)a;
    return PVL_OK;
}

static pvl_status read_vision(pvl_hf_config *c, pvl_json top, pvl_json v, pvl_error *err) {
    char text[32];
    PVL_TRY(positive(&c->v_layers, v, "num_hidden_layers", -1, MAX_LAYERS, err));
    PVL_TRY(positive(&c->v_hidden, v, "hidden_size", -1, MAX_WIDTH, err));
    PVL_TRY(positive(&c->v_heads, v, "num_attention_heads", -1, MAX_WIDTH, err));
    PVL_TRY(positive(&c->v_ffn, v, "intermediate_size", -1, MAX_WIDTH, err));
    PVL_TRY(read_side(&c->image_size, v, "image_size", err));
    PVL_TRY(read_side(&c->patch_size, v, "patch_size", err));
    PVL_TRY(pvl_json_number(&c->v_eps, v, "layer_norm_eps", 1e-6, err));
    const char *norm = pvl_json_string(v, "norm_type", "layer_norm");
    if (strcmp(norm, "layer_norm") != 0)
        return refuse(v, "norm_type", norm, "the 300M vision tower (layer_norm)", err);
    if (pvl_json_bool(v, "qk_normalization", pvl_json_bool(v, "use_qk_norm", false)))
        return refuse(v, "qk_normalization", "true", "the 300M vision tower (false)", err);
    if (!pvl_json_bool(v, "qkv_bias", pvl_json_bool(v, "attention_bias", true)))
        return refuse(v, "qkv_bias", "false", "the 300M vision tower (true)", err);
    const char *act = pvl_json_string(v, "hidden_act", "gelu");
    if (strcmp(act, "gelu") != 0)
        return refuse(v, "hidden_act", act, "gelu", err);
    double ratio, layer;
    PVL_TRY(pvl_json_number(&ratio, top, "downsample_ratio", 0.5, err));
    if (ratio != 0.5)
        return refuse(top, "downsample_ratio", "not 0.5", "0.5", err);
    const char *shuffle = pvl_json_string(top, "ps_version", "v2");
    if (strcmp(shuffle, "v2") != 0)
        return refuse(top, "ps_version", shuffle, "v2", err);
    PVL_TRY(
        pvl_json_number(&layer, top, c->native ? "vision_feature_layer" : "select_layer", -1, err));
    if (layer != -1.0)
        return refuse(top, c->native ? "vision_feature_layer" : "select_layer", "not -1", "-1",
                      err);
    size_t forced;
    PVL_TRY(pvl_json_size(&forced, top, "force_image_size", (int64_t)c->image_size, 4096, err));
    if (forced != c->image_size) {
        snprintf(text, sizeof text, "%zu", forced);
        return refuse(top, "force_image_size", text, "the vision tower's own image_size", err);
    }
    if (c->image_size % c->patch_size || c->image_size / c->patch_size % 2 ||
        c->v_hidden % c->v_heads)
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s: tiles of %zu pixels in patches of %zu, and a width of %zu in %zu "
                        "heads, do not fit together.",
                        v.file, c->image_size, c->patch_size, c->v_hidden, c->v_heads);
    PVL_TRY(positive(&c->min_tiles, top, "min_dynamic_patch", 1, 40, err));
    return positive(&c->max_tiles, top, "max_dynamic_patch", 12, 40, err);
}

static pvl_status read_three(float out[3], pvl_json from, const char *key, pvl_error *err) {
    const cJSON *list = pvl_json_get(from, key);
    if (!list)
        return PVL_OK;
    for (int i = 0; i < 3; i++) {
        const cJSON *item = cJSON_IsArray(list) && cJSON_GetArraySize(list) == 3
                                ? cJSON_GetArrayItem(list, i)
                                : NULL;
        if (!cJSON_IsNumber(item))
            return pvl_fail(err, PVL_E_FORMAT, "%s: \"%s\" must be three numbers.", from.file, key);
        out[i] = (float)item->valuedouble;
    }
    return PVL_OK;
}

static pvl_status read_preprocessor(pvl_hf_config *c, const char *folder, pvl_error *err) {
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    memcpy(c->mean, mean, sizeof mean);
    memcpy(c->std, std, sizeof std);
    char path[PVL_IO_PATH];
    PVL_TRY(pvl_io_path(path, folder, "preprocessor_config.json", err));
    if (!pvl_io_exists(path))
        return PVL_OK;
    cJSON *root;
    PVL_TRY(pvl_json_read(&root, path, MAX_CONFIG, err));
    pvl_json top = {path, root};
    pvl_status status = read_three(c->mean, top, "image_mean", err);
    if (status == PVL_OK)
        status = read_three(c->std, top, "image_std", err);
    cJSON_Delete(root);
    PVL_TRY(status);
    for (int i = 0; i < 3; i++) {
        if (!(c->std[i] > 0))
            return pvl_fail(err, PVL_E_FORMAT, "%s: \"image_std\" must be positive.", path);
    }
    return PVL_OK;
}

/* generation_config.json's eos_token_id: an id or several. */
static pvl_status read_generation(pvl_hf_config *c, const char *folder, pvl_error *err) {
    char path[PVL_IO_PATH];
    PVL_TRY(pvl_io_path(path, folder, "generation_config.json", err));
    if (!pvl_io_exists(path))
        return PVL_OK;
    cJSON *root;
    PVL_TRY(pvl_json_read(&root, path, MAX_CONFIG, err));
    const cJSON *ids = pvl_json_get((pvl_json){path, root}, "eos_token_id");
    bool list = cJSON_IsArray(ids);
    const cJSON *item = list ? ids->child : ids;
    pvl_status status = PVL_OK;
    for (; item && status == PVL_OK; item = list ? item->next : NULL) {
        double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(id >= 0 && id < (1 << 20)) || floor(id) != id || c->stop_count == PVL_HF_MAX_STOPS)
            status = pvl_fail(err, PVL_E_FORMAT,
                              "%s: \"eos_token_id\" must be an id or a list of at most %d.", path,
                              PVL_HF_MAX_STOPS);
        else if (c->vocabulary && (size_t)id >= c->vocabulary)
            status = pvl_fail(err, PVL_E_MODEL,
                              "%s: an answer would end at the id %.0f, but the embedding has %zu "
                              "rows: the file is of another model.",
                              path, id, c->vocabulary);
        else
            c->stop_ids[c->stop_count++] = (int32_t)id;
    }
    cJSON_Delete(root);
    return status;
}

/* ---- template, licence ---- */

static pvl_status read_template(pvl_hf_config *c, pvl_json top, pvl_error *err) {
    const char *name = pvl_json_string(top, "template", NULL);
    if (!name) {
        /* transformers' form does not say; InternVL2.5 and 3 are what is published in it. */
        name = c->native                     ? "internvl2_5"
               : c->arch == PVL_HF_QWEN2     ? "hermes-2"
               : c->arch == PVL_HF_INTERNLM2 ? "internlm2-chat"
                                             : "phi3-chat";
    }
    size_t n = strlen(name);
    if (n >= sizeof c->template_name)
        return refuse(top, "template", name, "Hermes-2, internlm2-chat, phi3-chat, internvl2_5",
                      err);
    for (size_t i = 0; i <= n; i++)
        c->template_name[i] = (char)tolower((unsigned char)name[i]);
    pvl_template_kind kind;
    if (pvl_template_from_name(&kind, c->template_name, n, NULL) != PVL_OK)
        return refuse(top, "template", name, "Hermes-2, internlm2-chat, phi3-chat, internvl2_5",
                      err);
    return PVL_OK;
}

/* "license: mit" in the head of README.md. */
static void read_license(pvl_hf_config *c, const char *folder) {
    char path[PVL_IO_PATH], *text;
    size_t bytes;
    if (pvl_io_path(path, folder, "README.md", NULL) != PVL_OK || !pvl_io_exists(path) ||
        pvl_io_read(&text, &bytes, path, MAX_CONFIG, NULL) != PVL_OK)
        return;
    char *head = strncmp(text, "---", 3) == 0 ? text + 3 : NULL;
    char *end = head ? strstr(head, "\n---") : NULL;
    char *found = end ? strstr(head, "\nlicense:") : NULL;
    if (found && found < end) {
        found += strlen("\nlicense:");
        while (*found == ' ')
            found++;
        size_t n = strcspn(found, " \r\n#");
        if (n < sizeof c->license) {
            memcpy(c->license, found, n);
            c->license[n] = 0;
        }
    }
    free(text);
}

/* ---- the folder ---- */

static bool has(const char *folder, const char *name) {
    char path[PVL_IO_PATH];
    return pvl_io_path(path, folder, name, NULL) == PVL_OK && pvl_io_exists(path);
}

/* Without config.json: by the tokenizer's files. */
static pvl_status guess_arch(pvl_hf_config *c, const char *folder, pvl_error *err) {
    char path[PVL_IO_PATH];
    if (!has(folder, "tokenizer.model")) {
        c->arch = PVL_HF_QWEN2;
        return PVL_OK;
    }
    PVL_TRY(pvl_io_path(path, folder, "tokenizer_config.json", err));
    c->arch = PVL_HF_PHI3;
    if (!pvl_io_exists(path))
        return PVL_OK;
    cJSON *root;
    PVL_TRY(pvl_json_read(&root, path, MAX_CONFIG, err));
    const char *class = pvl_json_string((pvl_json){path, root}, "tokenizer_class", "");
    if (strncmp(class, "InternLM2", 9) == 0)
        c->arch = PVL_HF_INTERNLM2;
    cJSON_Delete(root);
    return PVL_OK;
}

static pvl_status read_all(pvl_hf_config *c, pvl_json top, const char *folder, pvl_error *err) {
    const char *type = pvl_json_string(top, "model_type", "");
    c->native = strcmp(type, "internvl") == 0;
    if (strcmp(type, "qwen2") == 0 || strcmp(type, "internlm2") == 0 || strcmp(type, "phi3") == 0) {
        c->bare = true;
        PVL_TRY(read_llm(c, top, top, err));
        return read_template(c, top, err);
    }
    if (!c->native && strcmp(type, "internvl_chat") != 0)
        return refuse(top, "model_type", *type ? type : "missing",
                      "internvl_chat, internvl and their language models qwen2, internlm2, phi3",
                      err);
    pvl_json llm = pvl_json_object(top, c->native ? "text_config" : "llm_config");
    pvl_json vision = pvl_json_object(top, "vision_config");
    if (!llm.value || !vision.value)
        return pvl_fail(err, PVL_E_FORMAT, "%s: \"%s\" and \"vision_config\" must be there.",
                        top.file, c->native ? "text_config" : "llm_config");
    c->has_vision = true;
    PVL_TRY(read_llm(c, top, llm, err));
    PVL_TRY(read_vision(c, top, vision, err));
    PVL_TRY(read_template(c, top, err));
    return read_preprocessor(c, folder, err);
}

pvl_status pvl_hf_config_read(pvl_hf_config *out, const char *folder, bool vocab_only,
                              pvl_error *err) {
    memset(out, 0, sizeof *out);
    char path[PVL_IO_PATH];
    if (!pvl_io_is_folder(folder))
        return pvl_fail(err, PVL_E_IO, "%s is not a folder: point at a published model's folder.",
                        folder);
    PVL_TRY(pvl_io_path(path, folder, "config.json", err));
    read_license(out, folder);
    if (!pvl_io_exists(path) && vocab_only) {
        PVL_TRY(guess_arch(out, folder, err));
        return read_template(out, (pvl_json){path, NULL}, err);
    }
    cJSON *root;
    PVL_TRY(pvl_json_read(&root, path, MAX_CONFIG, err));
    pvl_status status = read_all(out, (pvl_json){path, root}, folder, err);
    cJSON_Delete(root);
    return status == PVL_OK ? read_generation(out, folder, err) : status;
}
