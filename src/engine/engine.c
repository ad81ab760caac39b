#include <stdio.h>
#include <string.h>

#include "engine/internal.h"
#include "engine/vocabulary.h"
#include "image/tiles.h"

struct pvl_loader {
    const pvl_allocator *allocator;
    pvl_engine *engine;
    pvl_gguf_stream *stream; /* of the file that is being read, NULL between files */
    char *file;
    /* A split model's parts come in order; 0 = whole files. */
    uint32_t parts, next_part;
    bool failed;
    /* The push that runs behind the caller: its bytes, then how it ended. */
    struct {
        const void *data;
        size_t bytes;
        pvl_status status;
        pvl_error error;
    } behind;
};

/* ---- the text side ---- */

static pvl_status copy_string(char **out, const pvl_allocator *a, const pvl_gguf *g,
                              const char *key, pvl_error *err) {
    pvl_gguf_string s = {0};
    *out = NULL;
    if (!pvl_gguf_str(g, key, &s))
        return PVL_OK;
    void *p;
    PVL_TRY(pvl_calloc(a, &p, s.bytes + 1, 1, key, err));
    memcpy(p, s.data, s.bytes);
    *out = p;
    return PVL_OK;
}

/* The template that the file names, else the one that the model was trained with. */
static pvl_status choose_template(pvl_engine *e, const pvl_gguf *g, pvl_error *err) {
    pvl_template_kind kind = PVL_TEMPLATE_INTERNLM2_CHAT;
    const char *arch = e->model.llm.architecture;
    pvl_gguf_string name;
    if (pvl_gguf_str(g, "pocketvl.template", &name)) {
        PVL_TRY(pvl_template_from_name(&kind, name.data, name.bytes, err));
    } else if (strcmp(arch, "phi3") == 0) {
        kind = PVL_TEMPLATE_PHI3_CHAT;
    } else if (strcmp(arch, "qwen2") == 0) {
        /* Qwen2.5 puts 22 added tokens of its own before InternVL's nine: <img> tells which family
         * it is. */
        bool newer = pvl_tokenizer_find(e->tokenizer, "<img>", 5) > 151660;
        kind = newer ? PVL_TEMPLATE_INTERNVL2_5 : PVL_TEMPLATE_HERMES_2;
    }
    return pvl_template_bind(&e->chat, kind, e->tokenizer, err);
}

static pvl_status read_text_side(pvl_engine *e, const pvl_gguf *g, pvl_error *err) {
    PVL_TRY(pvl_vocabulary_read(&e->tokenizer, g, e->allocator, err));
    PVL_TRY(choose_template(e, g, err));
    PVL_TRY(copy_string(&e->system_message, e->allocator, g, "pocketvl.system_message", err));
    return copy_string(&e->name, e->allocator, g, "general.name", err);
}

/* ---- loading ---- */

static pvl_status check_part(pvl_loader *l, const pvl_gguf *g, pvl_error *err) {
    uint32_t count = 0, part = 0;
    pvl_gguf_u32(g, "split.count", &count);
    pvl_gguf_u32(g, "split.no", &part);
    if (count <= 1 && part == 0 && l->next_part == l->parts)
        return PVL_OK;              /* a whole file */
    if (l->next_part == l->parts) { /* the first part of a set */
        l->parts = count;
        l->next_part = 0;
    }
    if (part != l->next_part || (count && count != l->parts)) {
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: part %u of %u was expected here, this is part %u: load the parts of a "
                        "split model in order.",
                        pvl_gguf_name(g), l->next_part + 1, l->parts, part + 1);
    }
    l->next_part++;
    return PVL_OK;
}

static pvl_status on_header(void *ctx, const pvl_gguf *g, pvl_error *err) {
    pvl_loader *l = ctx;
    pvl_engine *e = l->engine;
    PVL_TRY(check_part(l, g, err));
    bool had_llm = e->model.has_llm;
    PVL_TRY(pvl_model_header(&e->model, pvl_gguf_name(g), g, err));
    if (e->model.has_llm && !had_llm && !e->model.plan_only)
        return read_text_side(e, g, err);
    return PVL_OK;
}

static pvl_status on_data(void *ctx, const pvl_gguf *g, size_t index, uint64_t offset,
                          const void *bytes, size_t n, pvl_error *err) {
    (void)offset;
    pvl_loader *l = ctx;
    return pvl_model_data(&l->engine->model, g, index, bytes, n, err);
}

static pvl_status loader_new(pvl_loader **out, const pvl_engine_options *options, bool plan_only,
                             pvl_error *err) {
    static const pvl_engine_options defaults = {0};
    if (!options)
        options = &defaults;
    const pvl_allocator *a = options->allocator ? options->allocator : &pvl_libc_allocator;
    *out = NULL;
    const pvl_kernels *kernels;
    PVL_TRY(pvl_kernels_select(&kernels, options->kernels, err));
    if (options->threads < 0 || options->threads > PVL_MAX_THREADS) {
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "The number of threads must be from 1 to %d, it is %d.", PVL_MAX_THREADS,
                        options->threads);
    }
    void *p;
    PVL_TRY(pvl_calloc(a, &p, 1, sizeof(pvl_loader), "the loader", err));
    pvl_loader *l = p;
    l->allocator = a;
    pvl_status status = pvl_calloc(a, &p, 1, sizeof(pvl_engine), "the engine", err);
    if (status == PVL_OK) {
        l->engine = p;
        l->engine->allocator = a;
        l->engine->kernels = kernels;
        if (!plan_only)
            status = pvl_team_start(&l->engine->team, a, options->threads, err);
    }
    if (status != PVL_OK) {
        pvl_loader_free(l);
        return status;
    }
    pvl_model_init(&l->engine->model, a, l->engine->team, options->precision == PVL_PRECISION_F32,
                   plan_only);
    *out = l;
    return PVL_OK;
}

pvl_status pvl_loader_new(pvl_loader **out, const pvl_engine_options *options, pvl_error *err) {
    return loader_new(out, options, false, err);
}

/* The file that is open must be complete. */
static pvl_status end_file(pvl_loader *l, pvl_error *err) {
    if (!l->stream)
        return PVL_OK;
    pvl_status status = pvl_gguf_stream_finish(l->stream, err);
    pvl_gguf_stream_free(l->stream);
    l->stream = NULL;
    pvl_model_end_file(&l->engine->model);
    if (status != PVL_OK)
        l->failed = true;
    return status;
}

pvl_status pvl_loader_wait(pvl_loader *l, pvl_error *err) {
    pvl_team_wait(l->engine->team);
    pvl_status status = l->behind.status;
    l->behind.status = PVL_OK;
    if (status != PVL_OK && err)
        *err = l->behind.error;
    return status;
}

pvl_status pvl_loader_begin_file(pvl_loader *l, const char *name, uint64_t bytes, pvl_error *err) {
    PVL_TRY(pvl_loader_wait(l, err));
    if (l->failed)
        return pvl_fail(err, PVL_E_STATE, "Loading has failed before: start again.");
    PVL_TRY(end_file(l, err));
    pvl_gguf_callbacks callbacks = {.ctx = l, .on_header = on_header, .on_data = on_data};
    pvl_status status = pvl_gguf_stream_new(&l->stream, l->allocator, name, bytes, &callbacks, err);
    if (status != PVL_OK)
        l->failed = true;
    return status;
}

static pvl_status push(pvl_loader *l, const void *data, size_t n, pvl_error *err) {
    if (l->failed || !l->stream)
        return pvl_fail(err, PVL_E_STATE, "No file is being loaded: begin one first.");
    pvl_status status = pvl_gguf_stream_push(l->stream, data, n, err);
    if (status != PVL_OK)
        l->failed = true;
    return status;
}

pvl_status pvl_loader_push(pvl_loader *l, const void *data, size_t n, pvl_error *err) {
    PVL_TRY(pvl_loader_wait(l, err));
    return push(l, data, n, err);
}

static void push_behind(void *arg, pvl_team *others) {
    pvl_loader *l = arg;
    l->engine->model.team = others;
    l->behind.status = push(l, l->behind.data, l->behind.bytes, &l->behind.error);
    l->engine->model.team = l->engine->team;
}

pvl_status pvl_loader_push_async(pvl_loader *l, const void *data, size_t n, pvl_error *err) {
    PVL_TRY(pvl_loader_wait(l, err));
    l->behind.data = data;
    l->behind.bytes = n;
    pvl_team_behind(l->engine->team, push_behind, l);
    return PVL_OK;
}

static pvl_status finish(pvl_loader *l, pvl_error *err) {
    PVL_TRY(pvl_loader_wait(l, err));
    if (l->failed)
        return pvl_fail(err, PVL_E_STATE, "Loading has failed before: start again.");
    PVL_TRY(end_file(l, err));
    if (l->next_part != l->parts) {
        return pvl_fail(err, PVL_E_MODEL,
                        "Part %u of %u of the split model is missing: load all parts.",
                        l->next_part + 1, l->parts);
    }
    return pvl_model_finish(&l->engine->model, err);
}

pvl_status pvl_loader_finish(pvl_loader *l, pvl_engine **out, pvl_error *err) {
    *out = NULL;
    pvl_status status = finish(l, err);
    if (status == PVL_OK) {
        *out = l->engine;
        l->engine = NULL;
    }
    pvl_loader_free(l);
    return status;
}

void pvl_loader_free(pvl_loader *l) {
    if (!l)
        return;
    if (l->engine) /* a push may still be running */
        pvl_team_wait(l->engine->team);
    pvl_gguf_stream_free(l->stream);
    pvl_engine_free(l->engine);
    pvl_free(l->allocator, l);
}

void pvl_engine_free(pvl_engine *e) {
    if (!e)
        return;
    pvl_model_free(&e->model);
    pvl_tokenizer_free(e->tokenizer);
    pvl_free(e->allocator, e->system_message);
    pvl_free(e->allocator, e->name);
    pvl_team_stop(e->team);
    pvl_free(e->allocator, e);
}

/* ---- what it is ---- */

void pvl_engine_get_info(const pvl_engine *e, pvl_engine_info *out) {
    const pvl_model *m = &e->model;
    *out = (pvl_engine_info){.name = e->name ? e->name : "",
                             .architecture = m->llm.architecture,
                             .template_name = pvl_template_name(e->chat.kind),
                             .kernels = pvl_kernels_name(e->kernels),
                             .threads = pvl_team_size(e->team),
                             .has_vision = m->has_vision,
                             .context_length = (int)m->llm.context,
                             .vocabulary = (int)m->llm.vocabulary,
                             .layers = (int)m->llm.layers,
                             .hidden = (int)m->llm.hidden,
                             .vision_layers = (int)m->vit.layers,
                             .vision_hidden = (int)m->vit.hidden,
                             .image_size = (int)m->vit.image_size,
                             .tokens_per_tile = (int)m->vit.tokens,
                             .weight_bytes = m->weight_bytes,
                             .parameters = m->parameters};
}

pvl_status pvl_engine_tiling(const pvl_engine *e, pvl_tiling *out, size_t width, size_t height,
                             int max_tiles, pvl_error *err) {
    if (!e->model.has_vision) {
        return pvl_fail(err, PVL_E_MODEL,
                        "This model has no vision part: load its mmproj file as well.");
    }
    pvl_tile_grid grid;
    PVL_TRY(pvl_tiles_choose(&grid, width, height, (int)e->model.vit.image_size, max_tiles, err));
    int tiles = pvl_tiles_total(&grid);
    *out = (pvl_tiling){grid.columns, grid.rows, tiles, tiles * (int)e->model.vit.tokens};
    return PVL_OK;
}

pvl_status pvl_engine_tokenize(const pvl_engine *e, int32_t *ids, size_t capacity, size_t *count,
                               const char *text, size_t text_bytes, bool special, pvl_error *err) {
    pvl_tokens tokens = {.allocator = e->allocator};
    *count = 0;
    pvl_status status = pvl_tokenizer_encode(e->tokenizer, &tokens, text, text_bytes,
                                             special ? PVL_ENCODE_SPECIAL : PVL_ENCODE_USER, err);
    if (status == PVL_OK) {
        *count = tokens.count;
        if (tokens.count > capacity) {
            status = pvl_fail(err, PVL_E_LIMIT, "The text has %zu tokens, there is room for %zu.",
                              tokens.count, capacity);
        } else if (tokens.count) {
            memcpy(ids, tokens.ids, tokens.count * sizeof *ids);
        }
    }
    pvl_tokens_free(&tokens);
    return status;
}

pvl_status pvl_engine_token_text(const pvl_engine *e, char *out, size_t capacity, size_t *bytes,
                                 int32_t id, pvl_error *err) {
    pvl_span piece = pvl_tokenizer_piece(e->tokenizer, id);
    *bytes = piece.bytes;
    if (piece.bytes > capacity) {
        return pvl_fail(err, PVL_E_LIMIT, "The token has %zu bytes, there is room for %zu.",
                        piece.bytes, capacity);
    }
    if (piece.bytes)
        memcpy(out, piece.data, piece.bytes);
    return PVL_OK;
}

/* ---- memory ---- */

static pvl_status estimate(pvl_memory *out, pvl_loader *l, const pvl_bytes *heads, size_t files,
                           const pvl_engine_options *engine, const pvl_session_options *session,
                           pvl_error *err) {
    pvl_model *m = &l->engine->model;
    uint64_t head_bytes = 0;
    for (size_t i = 0; i < files; i++) {
        char name[32];
        snprintf(name, sizeof name, "file %zu", i + 1);
        pvl_gguf *g = NULL;
        bool more = false;
        PVL_TRY(pvl_gguf_parse_head(&g, &more, l->allocator, name, heads[i].data, heads[i].bytes, 0,
                                    err));
        pvl_status status = on_header(l, g, err);
        if (pvl_gguf_data_start(g) > head_bytes)
            head_bytes = pvl_gguf_data_start(g);
        pvl_model_end_file(m);
        pvl_gguf_free(g);
        PVL_TRY(status);
    }
    PVL_TRY(finish(l, err));
    int members = engine && engine->threads > 1 ? engine->threads : 1;
    size_t kv, scratch;
    PVL_TRY(pvl_session_sizes(m, session, members, &kv, &scratch, err));
    out->weights = m->weight_bytes;
    out->kv_cache = kv;
    out->scratch = scratch;
    out->peak_load = m->weight_bytes + m->staging_peak + head_bytes;
    return PVL_OK;
}

pvl_status pvl_estimate(pvl_memory *out, const pvl_bytes *file_heads, size_t files,
                        const pvl_engine_options *engine, const pvl_session_options *session,
                        pvl_error *err) {
    pvl_loader *l;
    *out = (pvl_memory){0};
    PVL_TRY(loader_new(&l, engine, true, err));
    pvl_status status = estimate(out, l, file_heads, files, engine, session, err);
    pvl_loader_free(l);
    return status;
}
