#include "tools/hf_metadata.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/template.h"

pvl_status pvl_metadata_general(pvl_gguf_writer *w, const pvl_hf_config *c,
                                const char *architecture, const char *type, const char *name,
                                const pvl_mix *mix, pvl_error *err) {
    PVL_TRY(pvl_gguf_writer_str(w, "general.architecture", architecture, err));
    PVL_TRY(pvl_gguf_writer_str(w, "general.type", type, err));
    PVL_TRY(pvl_gguf_writer_str(w, "general.name", name, err));
    if (c->license[0])
        PVL_TRY(pvl_gguf_writer_str(w, "general.license", c->license, err));
    PVL_TRY(pvl_gguf_writer_u32(w, "general.file_type", pvl_mix_file_type(mix->main), err));
    return pvl_gguf_writer_u32(w, "general.quantization_version", 2, err);
}

typedef struct arch_writer {
    pvl_gguf_writer *w;
    const char *arch;
    pvl_error *err;
} arch_writer;

static pvl_status arch_u32(const arch_writer *a, const char *suffix, size_t v) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", a->arch, suffix);
    return pvl_gguf_writer_u32(a->w, key, (uint32_t)v, a->err);
}

static pvl_status arch_f32(const arch_writer *a, const char *suffix, double v) {
    char key[96];
    snprintf(key, sizeof key, "%s.%s", a->arch, suffix);
    return pvl_gguf_writer_f32(a->w, key, (float)v, a->err);
}

pvl_status pvl_metadata_language(pvl_gguf_writer *w, const pvl_hf_config *c, pvl_error *err) {
    const arch_writer a = {w, pvl_hf_arch_name(c->arch), err};
    if (c->layers == 0)
        return PVL_OK;
    PVL_TRY(arch_u32(&a, "context_length", c->context));
    PVL_TRY(arch_u32(&a, "embedding_length", c->hidden));
    PVL_TRY(arch_u32(&a, "block_count", c->layers));
    PVL_TRY(arch_u32(&a, "feed_forward_length", c->ffn));
    PVL_TRY(arch_u32(&a, "attention.head_count", c->heads));
    PVL_TRY(arch_u32(&a, "attention.head_count_kv", c->kv_heads));
    if (c->head_dim * c->heads != c->hidden) {
        PVL_TRY(arch_u32(&a, "attention.key_length", c->head_dim));
        PVL_TRY(arch_u32(&a, "attention.value_length", c->head_dim));
    }
    PVL_TRY(arch_f32(&a, "attention.layer_norm_rms_epsilon", c->rms_eps));
    PVL_TRY(arch_f32(&a, "rope.freq_base", c->rope_theta));
    PVL_TRY(arch_u32(&a, "vocab_size", c->vocabulary));
    if (c->arch == PVL_HF_PHI3 || c->arch == PVL_HF_LLAMA)
        PVL_TRY(arch_u32(&a, "rope.dimension_count", c->head_dim));
    if (c->sliding_window)
        PVL_TRY(arch_u32(&a, "attention.sliding_window", c->sliding_window));
    if (c->factor_count) {
        PVL_TRY(arch_u32(&a, "rope.scaling.original_context_length", c->original_context));
        PVL_TRY(arch_f32(&a, "rope.scaling.attn_factor", c->attn_factor));
    }
    if (c->dynamic_factor > 0) {
        PVL_TRY(
            pvl_gguf_writer_f32(w, "pocketvl.rope.dynamic_factor", (float)c->dynamic_factor, err));
        PVL_TRY(
            pvl_gguf_writer_u32(w, "pocketvl.rope.original_context", (uint32_t)c->context, err));
    }
    return PVL_OK;
}

/* The template as llama.cpp reads it, in Jinja. The one in tokenizer_config.json is the base
 * language model's, with which InternVL was not trained. */
static pvl_status chat_template(pvl_gguf_writer *w, pvl_template_kind kind, pvl_error *err) {
    char text[2048];
    const char *system = pvl_template_system_text(kind);
    const char *end = kind == PVL_TEMPLATE_INTERNVL2_5 ? "<|im_end|>\\n" : "<|im_end|>";
    int n;
    if (kind == PVL_TEMPLATE_PHI3_CHAT)
        n = snprintf(
            text, sizeof text,
            "{%% if messages[0]['role'] != 'system' %%}{{ '<|system|>\\n%s<|end|>' }}{%% endif %%}"
            "{%% for message in messages %%}{{ '<|' + message['role'] + '|>\\n' + "
            "message['content'] "
            "+ '<|end|>' }}{%% endfor %%}"
            "{%% if add_generation_prompt %%}{{ '<|assistant|>\\n' }}{%% endif %%}",
            system);
    else
        n = snprintf(
            text, sizeof text,
            "{%% if messages[0]['role'] != 'system' %%}{{ '<|im_start|>system\\n%s%s' }}{%% endif "
            "%%}"
            "{%% for message in messages %%}{{ '<|im_start|>' + message['role'] + '\\n' + "
            "message['content'] + '%s' }}{%% endfor %%}"
            "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\\n' }}{%% endif %%}",
            system, end, end);
    if (n < 0 || (size_t)n >= sizeof text)
        return pvl_fail(err, PVL_E_INTERNAL, "The chat template is too long.");
    return pvl_gguf_writer_str(w, "tokenizer.chat_template", text, err);
}

static pvl_status token_id(pvl_gguf_writer *w, const char *key, int32_t id, pvl_error *err) {
    return id < 0 ? PVL_OK : pvl_gguf_writer_u32(w, key, (uint32_t)id, err);
}

pvl_status pvl_metadata_tokenizer(pvl_gguf_writer *w, const pvl_hf_config *c, const pvl_hf_vocab *v,
                                  pvl_error *err) {
    bool phi3 = c->arch == PVL_HF_PHI3;
    PVL_TRY(pvl_gguf_writer_str(w, "tokenizer.ggml.model", v->spm ? "llama" : "gpt2", err));
    PVL_TRY(pvl_gguf_writer_str(w, "tokenizer.ggml.pre", v->spm ? "default" : "qwen2", err));
    PVL_TRY(pvl_gguf_writer_array_str(w, "tokenizer.ggml.tokens", v->tokens, v->count, err));
    if (v->spm)
        PVL_TRY(pvl_gguf_writer_array(w, "tokenizer.ggml.scores", PVL_GGUF_F32, v->scores, v->count,
                                      err));
    PVL_TRY(pvl_gguf_writer_array(w, "tokenizer.ggml.token_type", PVL_GGUF_I32, v->types, v->count,
                                  err));
    if (!v->spm)
        PVL_TRY(
            pvl_gguf_writer_array_str(w, "tokenizer.ggml.merges", v->merges, v->merge_count, err));
    PVL_TRY(token_id(w, "tokenizer.ggml.bos_token_id", v->bos, err));
    PVL_TRY(token_id(w, "tokenizer.ggml.eos_token_id", v->eos, err));
    PVL_TRY(token_id(w, "tokenizer.ggml.padding_token_id", v->pad, err));
    PVL_TRY(token_id(w, "tokenizer.ggml.unknown_token_id", v->unk, err));
    /* InternVL always puts BOS before a SentencePiece prompt, whatever the base model's file says.
     */
    PVL_TRY(pvl_gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", v->spm, err));
    PVL_TRY(pvl_gguf_writer_bool(w, "tokenizer.ggml.add_eos_token", false, err));
    if (v->spm)
        PVL_TRY(pvl_gguf_writer_bool(w, "tokenizer.ggml.add_space_prefix", v->dummy_prefix, err));
    PVL_TRY(pvl_gguf_writer_str(w, "pocketvl.tokenizer.kind",
                                !v->spm ? "bpe"
                                : phi3  ? "spm-llama-slow"
                                        : "spm-internlm2",
                                err));
    if (v->rstrip_known && v->spm) {
        static const int32_t none = 0;
        PVL_TRY(pvl_gguf_writer_array(w, "pocketvl.tokenizer.rstrip_ids", PVL_GGUF_I32,
                                      v->rstrip ? v->rstrip : &none, v->rstrip_count, err));
    }
    int32_t stops[PVL_HF_MAX_STOPS];
    size_t stop_count = 0;
    for (size_t i = 0; i < c->stop_count; i++) {
        /* Some published lists are another tokenizer's and name ordinary words of this one. */
        int32_t id = c->stop_ids[i], type = (size_t)id < v->count ? v->types[id] : 0;
        if (type == PVL_TOKEN_CONTROL || type == PVL_TOKEN_USER_DEFINED)
            stops[stop_count++] = id;
    }
    if (stop_count)
        PVL_TRY(pvl_gguf_writer_array(w, "pocketvl.tokenizer.stop_ids", PVL_GGUF_I32, stops,
                                      stop_count, err));
    PVL_TRY(pvl_gguf_writer_str(w, "pocketvl.template", c->template_name, err));
    pvl_template_kind kind;
    PVL_TRY(pvl_template_from_name(&kind, c->template_name, strlen(c->template_name), err));
    return chat_template(w, kind, err);
}

pvl_status pvl_metadata_vision(pvl_gguf_writer *w, const pvl_hf_config *c, pvl_error *err) {
    PVL_TRY(pvl_gguf_writer_bool(w, "clip.has_vision_encoder", true, err));
    PVL_TRY(pvl_gguf_writer_str(w, "clip.projector_type", "internvl", err));
    PVL_TRY(pvl_gguf_writer_bool(w, "clip.use_gelu", true, err));
    const arch_writer a = {w, "clip.vision", err};
    PVL_TRY(arch_u32(&a, "image_size", c->image_size));
    PVL_TRY(arch_u32(&a, "patch_size", c->patch_size));
    PVL_TRY(arch_u32(&a, "embedding_length", c->v_hidden));
    PVL_TRY(arch_u32(&a, "feed_forward_length", c->v_ffn));
    PVL_TRY(arch_u32(&a, "block_count", c->v_layers));
    PVL_TRY(arch_u32(&a, "projection_dim", c->hidden));
    PVL_TRY(arch_u32(&a, "attention.head_count", c->v_heads));
    PVL_TRY(arch_f32(&a, "attention.layer_norm_epsilon", c->v_eps));
    PVL_TRY(pvl_gguf_writer_array(w, "clip.vision.image_mean", PVL_GGUF_F32, c->mean, 3, err));
    PVL_TRY(pvl_gguf_writer_array(w, "clip.vision.image_std", PVL_GGUF_F32, c->std, 3, err));
    PVL_TRY(arch_u32(&a, "projector.scale_factor", 2));
    PVL_TRY(arch_u32(&a, "preproc_min_tiles", c->min_tiles));
    return arch_u32(&a, "preproc_max_tiles", c->max_tiles);
}
