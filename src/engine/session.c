#include <limits.h>
#include <string.h>
#include <time.h>

#include "engine/internal.h"

enum {
    DEFAULT_CONTEXT = 4096,
    DEFAULT_BATCH = 256,
    MAX_BATCH = 4096,
    MAX_STOPS = 256,
    MAX_STOP_BYTES = 1024,
    VISUAL_CACHE_BYTES = 64 << 20
};

double pvl_now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* ---- creation ---- */

static pvl_status session_limits(const pvl_model *m, const pvl_session_options *o, size_t *context,
                                 size_t *batch, pvl_error *err) {
    size_t most = m->llm.context;
    *context = most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
    *batch = DEFAULT_BATCH;
    if (o && o->context) {
        if (o->context < 16 || (size_t)o->context > most) {
            return pvl_fail(err, PVL_E_ARGUMENT,
                            "The context must be from 16 to %zu tokens for this model, it is %d.",
                            most, o->context);
        }
        *context = (size_t)o->context;
    }
    if (o && o->max_batch) {
        if (o->max_batch < 1 || o->max_batch > MAX_BATCH) {
            return pvl_fail(err, PVL_E_ARGUMENT, "max_batch must be from 1 to %d, it is %d.",
                            MAX_BATCH, o->max_batch);
        }
        *batch = (size_t)o->max_batch;
    }
    if (*batch > *context)
        *batch = *context;
    if (o && o->kv_type != PVL_KV_F32 && o->kv_type != PVL_KV_Q8) {
        return pvl_fail(err, PVL_E_ARGUMENT, "kv_type must be PVL_KV_F32 or PVL_KV_Q8.");
    }
    return PVL_OK;
}

static pvl_cache_type cache_type(const pvl_session_options *o) {
    return o && o->kv_type == PVL_KV_Q8 ? PVL_CACHE_Q8 : PVL_CACHE_F32;
}

static pvl_status too_large(pvl_error *err) {
    return pvl_fail(err, PVL_E_MEMORY,
                    "The working memory does not fit this machine's address space.");
}

static pvl_status workspace_size(size_t *out, const pvl_model *m, size_t batch, int members,
                                 pvl_error *err) {
    size_t vision = 0;
    if (!pvl_llm_workspace(out, m, batch, members) ||
        (m->has_vision && !pvl_vit_workspace(&vision, m, members))) {
        return too_large(err);
    }
    if (vision > *out)
        *out = vision;
    return PVL_OK;
}

pvl_status pvl_session_sizes(const pvl_model *m, const pvl_session_options *o, int members,
                             size_t *kv, size_t *scratch, pvl_error *err) {
    size_t context, batch, side = m->has_vision ? m->vit.image_size : 0;
    PVL_TRY(session_limits(m, o, &context, &batch, err));
    if (!pvl_kvcache_bytes(kv, &m->llm, cache_type(o), context)) {
        return pvl_fail(err, PVL_E_MEMORY,
                        "A context of %zu tokens does not fit this machine's address space.",
                        context);
    }
    PVL_TRY(workspace_size(scratch, m, batch, members, err));
    /* None of these products can leave 32 bits (config.h has the limits); their sum can. */
    size_t rows = (batch * m->llm.hidden + m->llm.vocabulary + 3 * side * side) * sizeof(float);
    size_t tokens = context * (sizeof(int32_t) + sizeof(uint64_t));
    size_t sampler = m->llm.vocabulary * (sizeof(float) + sizeof(uint32_t) + sizeof(double));
    if (!pvl_size_add(scratch, *scratch, rows) ||
        !pvl_size_add(scratch, *scratch, tokens + sampler))
        return too_large(err);
    return PVL_OK;
}

static pvl_status make_buffers(pvl_session *s, const pvl_session_options *o, pvl_error *err) {
    const pvl_model *m = &s->engine->model;
    const pvl_allocator *a = s->allocator;
    void *p;
    PVL_TRY(session_limits(m, o, &s->context, &s->batch, err));
    PVL_TRY(workspace_size(&s->workspace_bytes, m, s->batch, pvl_team_size(s->engine->team), err));
    PVL_TRY(pvl_malloc(a, &p, s->workspace_bytes, 1, "the working memory", err));
    s->workspace = p;
    PVL_TRY(pvl_malloc(a, &p, s->batch * m->llm.hidden, sizeof(float), "the rows of a step", err));
    s->rows = p;
    PVL_TRY(pvl_malloc(a, &p, m->llm.vocabulary, sizeof(float), "the logits", err));
    s->logits = p;
    PVL_TRY(pvl_malloc(a, &p, s->context, sizeof *s->ids, "the token list", err));
    s->ids = p;
    PVL_TRY(pvl_malloc(a, &p, s->context, sizeof *s->keys, "the token keys", err));
    s->keys = p;
    if (m->has_vision) {
        PVL_TRY(pvl_malloc(a, &p, 3 * m->vit.image_size * m->vit.image_size, sizeof(float),
                           "the pixels of a tile", err));
        s->pixels = p;
    }
    /* Room for a token and a held-back stop string: decoding then allocates nothing. */
    PVL_TRY(pvl_text_reserve(&s->pending, 4096, err));
    PVL_TRY(pvl_sampler_init(&s->sampler, a, m->llm.vocabulary, err));
    return pvl_kvcache_new(&s->cache, a, &m->llm, cache_type(o), s->context, err);
}

pvl_status pvl_session_new(pvl_session **out, pvl_engine *engine,
                           const pvl_session_options *options, pvl_error *err) {
    void *p;
    *out = NULL;
    PVL_TRY(pvl_calloc(engine->allocator, &p, 1, sizeof(pvl_session), "the session", err));
    pvl_session *s = p;
    s->engine = engine;
    s->allocator = engine->allocator;
    s->visuals = (pvl_visual_cache){.allocator = s->allocator,
                                    .width = engine->model.vit.projection,
                                    .max_bytes = VISUAL_CACHE_BYTES};
    s->pending.allocator = s->allocator;
    pvl_status status = make_buffers(s, options, err);
    if (status != PVL_OK) {
        pvl_session_free(s);
        return status;
    }
    *out = s;
    return PVL_OK;
}

void pvl_session_free(pvl_session *s) {
    if (!s)
        return;
    pvl_kvcache_free(&s->cache);
    pvl_visual_cache_free(&s->visuals);
    pvl_sampler_free(&s->sampler);
    pvl_text_free(&s->pending);
    void *blocks[] = {s->workspace, s->rows, s->logits, s->ids, s->keys, s->pixels, s->stop_text};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        pvl_free(s->allocator, blocks[i]);
    pvl_free(s->allocator, s);
}

volatile int32_t *pvl_session_cancel_flag(pvl_session *s) {
    return &s->cancel;
}

void pvl_session_set_progress(pvl_session *s, pvl_progress callback, void *ctx) {
    s->progress = callback;
    s->progress_ctx = ctx;
}

/* ---- progress ---- */

static void report(pvl_session *s) {
    if (s->progress && !s->progress(s->progress_ctx, s->stage, s->ticks, s->total_ticks))
        pvl_flag_set(&s->cancel, 1);
}

static void tick(void *ctx) {
    pvl_session *s = ctx;
    s->ticks++;
    report(s);
}

static void begin_stage(pvl_session *s, const char *stage, uint64_t total) {
    s->stage = stage;
    s->ticks = 0;
    s->total_ticks = total;
    if (total)
        report(s);
}

static pvl_run make_run(pvl_session *s, bool with_ticks) {
    return (pvl_run){.kernels = s->engine->kernels,
                     .team = s->engine->team,
                     .cancel = &s->cancel,
                     .workspace = s->workspace,
                     .tick = with_ticks ? tick : NULL,
                     .tick_ctx = s};
}

/* ---- pictures ---- */

static pvl_status encode_picture(pvl_session *s, const pvl_prompt_image *picture, float *out,
                                 pvl_error *err) {
    const pvl_model *m = &s->engine->model;
    const pvl_image *image = picture->image;
    pvl_normalization norm;
    memcpy(norm.mean, m->vit.mean, sizeof norm.mean);
    memcpy(norm.std, m->vit.std, sizeof norm.std);
    double start = pvl_now_ms();
    pvl_tile_set set;
    PVL_TRY(pvl_tile_set_make(&set, &picture->grid, (int)m->vit.image_size, pvl_image_pixels(image),
                              pvl_image_width(image), pvl_image_height(image), s->engine->team,
                              s->allocator, err));
    pvl_run run = make_run(s, true);
    pvl_status status = PVL_OK;
    for (int t = 0; t < pvl_tiles_total(&picture->grid) && status == PVL_OK; t++) {
        pvl_tile_set_floats(s->pixels, &set, t, &norm);
        double cut = pvl_now_ms();
        status = pvl_vit_encode(&run, m, out + (size_t)t * m->vit.tokens * m->vit.projection,
                                s->pixels, err);
        double end = pvl_now_ms();
        s->stats.image_ms += cut - start;
        s->stats.vision_ms += end - cut;
        s->stats.tiles++;
        start = end;
    }
    pvl_tile_set_free(&set);
    return status;
}

/* Visual tokens of every picture whose span reaches beyond position `from` are in the cache
 * afterwards. */
static pvl_status encode_pictures(pvl_session *s, const pvl_prompt_image *images,
                                  const pvl_prompt *prompt, size_t from, pvl_error *err) {
    uint64_t pinned = s->visuals.clock, tiles = 0;
    for (size_t i = 0; i < prompt->image_count; i++) {
        const pvl_image_span *span = &prompt->images[i];
        if (span->position + span->count <= from)
            continue;
        if (!pvl_visual_cache_find(&s->visuals, images[span->image].digest)) {
            tiles += (uint64_t)pvl_tiles_total(&images[span->image].grid);
        }
    }
    begin_stage(s, "vision", tiles * s->engine->model.vit.layers);
    for (size_t i = 0; i < prompt->image_count; i++) {
        const pvl_image_span *span = &prompt->images[i];
        const pvl_prompt_image *picture = &images[span->image];
        if (span->position + span->count <= from)
            continue;
        if (pvl_visual_cache_find(&s->visuals, picture->digest))
            continue;
        pvl_visual_entry *entry;
        PVL_TRY(
            pvl_visual_cache_add(&s->visuals, &entry, picture->digest, span->count, pinned, err));
        pvl_status status = encode_picture(s, picture, entry->tokens, err);
        if (status != PVL_OK) {
            pvl_visual_cache_remove(&s->visuals, entry);
            return status;
        }
    }
    return PVL_OK;
}

/* ---- prefill ---- */

/* A visual token's key: the picture and the place in it. Never 0, which is text. */
static uint64_t visual_key(pvl_digest d, size_t place) {
    uint64_t k = (d.lo ^ (uint64_t)place * 0x9E3779B97F4A7C15u) * 0xC2B2AE3D27D4EB4Fu ^ d.hi;
    return k ? k : 1;
}

static void fill_row(pvl_session *s, float *row, const pvl_prompt *prompt,
                     const pvl_prompt_image *images, size_t position) {
    const pvl_model *m = &s->engine->model;
    for (size_t i = 0; i < prompt->image_count; i++) {
        const pvl_image_span *span = &prompt->images[i];
        if (position < span->position || position - span->position >= span->count)
            continue;
        const pvl_visual_entry *e = pvl_visual_cache_find(&s->visuals, images[span->image].digest);
        memcpy(row, e->tokens + (position - span->position) * m->llm.hidden,
               m->llm.hidden * sizeof *row);
        return;
    }
    pvl_model_embed(m, row, (size_t)prompt->tokens.ids[position]);
}

static void record(pvl_session *s, const pvl_prompt *prompt, const pvl_prompt_image *images,
                   size_t position) {
    s->ids[position] = prompt->tokens.ids[position];
    s->keys[position] = 0;
    for (size_t i = 0; i < prompt->image_count; i++) {
        const pvl_image_span *span = &prompt->images[i];
        if (position >= span->position && position - span->position < span->count) {
            s->keys[position] = visual_key(images[span->image].digest, position - span->position);
        }
    }
}

/* Positions at the beginning of the prompt that the cache already holds. */
static size_t common_prefix(const pvl_session *s, const pvl_prompt *prompt,
                            const pvl_prompt_image *images) {
    size_t n = 0, most = prompt->tokens.count < s->filled ? prompt->tokens.count : s->filled,
           span = 0;
    for (; n < most; n++) {
        while (span < prompt->image_count &&
               n >= prompt->images[span].position + prompt->images[span].count)
            span++;
        uint64_t key = 0;
        if (span < prompt->image_count && n >= prompt->images[span].position) {
            key = visual_key(images[prompt->images[span].image].digest,
                             n - prompt->images[span].position);
        }
        if (prompt->tokens.ids[n] != s->ids[n] || key != s->keys[n])
            break;
    }
    return n;
}

/* Positions up to `total`; the logits of the prompt's last one. */
static pvl_status prefill(pvl_session *s, const pvl_prompt *prompt, const pvl_prompt_image *images,
                          size_t total, pvl_error *err) {
    const pvl_model *m = &s->engine->model;
    size_t steps = (total - s->filled + s->batch - 1) / s->batch;
    begin_stage(s, "prefill", steps * m->llm.layers);
    pvl_run run = make_run(s, true);
    double start = pvl_now_ms();
    while (s->filled < total) {
        size_t n = total - s->filled < s->batch ? total - s->filled : s->batch;
        for (size_t i = 0; i < n; i++) {
            fill_row(s, s->rows + i * m->llm.hidden, prompt, images, s->filled + i);
            record(s, prompt, images, s->filled + i);
        }
        bool last = s->filled + n == prompt->tokens.count;
        pvl_llm_step step = {.rows = s->rows,
                             .n = n,
                             .workspace_rows = s->batch,
                             .position = s->filled,
                             .rotation = s->rotation,
                             .want = last ? PVL_LOGITS_LAST : PVL_LOGITS_NONE,
                             .logits = last ? s->logits : NULL};
        PVL_TRY(pvl_llm_forward(&run, m, &s->cache, &step, err));
        s->filled += n;
    }
    s->stats.prefill_ms = pvl_now_ms() - start;
    return PVL_OK;
}

/* ---- prompt ---- */

/* `whole`: the pictures are there, and the question. */
static pvl_status check_messages(const pvl_session *s, const pvl_message *messages, size_t count,
                                 bool whole, pvl_error *err) {
    if (count == 0 || messages[count - 1].role != PVL_ROLE_USER) {
        return pvl_fail(err, PVL_E_ARGUMENT, "The last message must be a question from the user.");
    }
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < messages[i].part_count; k++) {
            const pvl_part *part = &messages[i].parts[k];
            if (part->kind == PVL_PART_IMAGE &&
                (messages[i].role != PVL_ROLE_USER || (whole && !part->image))) {
                return pvl_fail(err, PVL_E_ARGUMENT, "Pictures belong to messages of the user.");
            }
            if (part->kind == PVL_PART_IMAGE && !s->engine->model.has_vision) {
                return pvl_fail(
                    err, PVL_E_MODEL,
                    "This model has no vision part: load its mmproj file to ask about pictures.");
            }
            if (i + 1 != count || part->kind != PVL_PART_TEXT)
                continue;
            for (size_t b = 0; b < part->text_bytes; b++)
                any = any || (unsigned char)part->text[b] > ' ';
        }
    }
    if (whole && !any)
        return pvl_fail(err, PVL_E_ARGUMENT, "The question is empty: write one.");
    return PVL_OK;
}

static pvl_status check_options(const pvl_prompt_options *o, pvl_error *err) {
    if (o->max_tokens < 0)
        return pvl_fail(err, PVL_E_ARGUMENT, "max_tokens must not be negative, it is %d.",
                        o->max_tokens);
    if (o->max_tiles < 0 || o->max_tiles > 40) {
        return pvl_fail(err, PVL_E_ARGUMENT, "max_tiles must be from 1 to 40, it is %d.",
                        o->max_tiles);
    }
    return PVL_OK;
}

/* The messages in the form that the template takes, with the pictures in the order of the prompt.
 * One block. */
typedef struct survey {
    pvl_prompt_image *images;
    pvl_prompt_part *parts;
    pvl_prompt_message *messages;
    size_t image_count, part_count;
    void *block;
} survey;

static pvl_status survey_init(survey *v, const pvl_allocator *a, const pvl_message *messages,
                              size_t count, pvl_error *err) {
    *v = (survey){0};
    for (size_t i = 0; i < count; i++) {
        v->part_count += messages[i].part_count;
        for (size_t k = 0; k < messages[i].part_count; k++) {
            v->image_count += messages[i].parts[k].kind == PVL_PART_IMAGE;
        }
    }
    if (count > 100000 || v->part_count > 1000000) {
        return pvl_fail(err, PVL_E_LIMIT,
                        "The conversation has too many messages: start a new one.");
    }
    pvl_carve carve = {0};
    for (int pass = 0; pass < 2; pass++) {
        v->images = pvl_carve_take(&carve, v->image_count, sizeof *v->images);
        v->parts = pvl_carve_take(&carve, v->part_count, sizeof *v->parts);
        v->messages = pvl_carve_take(&carve, count, sizeof *v->messages);
        if (pass == 0) {
            PVL_TRY(pvl_calloc(a, &v->block, carve.used, 1, "the list of messages", err));
            carve = (pvl_carve){.base = v->block};
        }
    }
    return PVL_OK;
}

static pvl_status survey_image(const pvl_session *s, pvl_prompt_image *out, size_t *tokens,
                               const pvl_image *image, int max_tiles, pvl_error *err) {
    const pvl_vit_config *v = &s->engine->model.vit;
    *out = (pvl_prompt_image){.image = image};
    *tokens = v->tokens;
    if (!image) /* one that is still to come */
        return PVL_OK;
    size_t w = pvl_image_width(image), h = pvl_image_height(image);
    PVL_TRY(pvl_tiles_choose(&out->grid, w, h, (int)v->image_size, max_tiles, err));
    uint64_t cut = (uint64_t)out->grid.columns << 32 | (uint64_t)out->grid.rows;
    out->digest = pvl_digest_of(pvl_image_pixels(image), w * h * 3, w, h, cut);
    *tokens = (size_t)pvl_tiles_total(&out->grid) * v->tokens;
    return PVL_OK;
}

static pvl_status survey_fill(const pvl_session *s, survey *v, const pvl_message *messages,
                              size_t count, int max_tiles, pvl_error *err) {
    size_t part = 0, image = 0;
    for (size_t i = 0; i < count; i++) {
        v->messages[i] =
            (pvl_prompt_message){messages[i].role, v->parts + part, messages[i].part_count};
        for (size_t k = 0; k < messages[i].part_count; k++, part++) {
            const pvl_part *from = &messages[i].parts[k];
            v->parts[part] =
                (pvl_prompt_part){.kind = from->kind,
                                  .text = from->text,
                                  .text_bytes = from->text_bytes,
                                  .markup = from->markup || messages[i].role == PVL_ROLE_ASSISTANT};
            if (from->kind != PVL_PART_IMAGE)
                continue;
            PVL_TRY(survey_image(s, &v->images[image++], &v->parts[part].visual_tokens, from->image,
                                 max_tiles, err));
        }
    }
    return PVL_OK;
}

static pvl_status copy_stops(pvl_session *s, const pvl_prompt_options *o, pvl_error *err) {
    pvl_free(s->allocator, s->stop_text);
    s->stop_text = NULL;
    s->stop_count = 0;
    if (!o->stop_count)
        return PVL_OK;
    if (o->stop_count > MAX_STOPS)
        return pvl_fail(err, PVL_E_ARGUMENT, "At most %d stop strings are possible, not %zu.",
                        MAX_STOPS, o->stop_count);
    size_t bytes = 0;
    for (size_t i = 0; i < o->stop_count; i++) {
        size_t len = strlen(o->stop[i]);
        if (len == 0 || len > MAX_STOP_BYTES)
            return pvl_fail(err, PVL_E_ARGUMENT, "A stop string must have 1 to %d bytes.",
                            MAX_STOP_BYTES);
        bytes += len + 1;
    }
    void *p;
    PVL_TRY(pvl_malloc(s->allocator, &p, bytes, 1, "the stop strings", err));
    s->stop_text = p;
    char *at = p;
    for (size_t i = 0; i < o->stop_count; i++) {
        size_t len = strlen(o->stop[i]) + 1;
        memcpy(at, o->stop[i], len);
        at += len;
    }
    s->stop_count = o->stop_count;
    return PVL_OK;
}

static pvl_status start_answer(pvl_session *s, const pvl_prompt_options *o, pvl_error *err) {
    PVL_TRY(copy_stops(s, o, err));
    pvl_sampler_options sampling = {.temperature = o->temperature,
                                    .top_k = o->top_k,
                                    .top_p = o->top_p,
                                    .repetition_penalty = o->repetition_penalty,
                                    .seed = o->seed};
    PVL_TRY(pvl_sampler_set(&s->sampler, &sampling, err));
    const pvl_tokenizer *t = s->engine->tokenizer;
    pvl_decoder_init(&s->decoder, t, pvl_tokenizer_decode_flags(t) | PVL_DECODE_STRIP);
    s->json = (pvl_json_guide){0};
    s->pending.bytes = 0;
    s->given = 0;
    s->generated = 0;
    s->options = *o;
    s->options.stop = NULL; /* the caller's; ours are copies */
    return PVL_OK;
}

static pvl_status run_prompt(pvl_session *s, const pvl_prompt *prompt,
                             const pvl_prompt_image *images, const pvl_prompt_options *o,
                             pvl_error *err) {
    const pvl_llm_config *l = &s->engine->model.llm;
    size_t total = prompt->tokens.count;
    if (total >= s->context) {
        return pvl_fail(err, PVL_E_CONTEXT,
                        "The conversation has %zu tokens, the context holds %zu: ask less, use "
                        "fewer tiles or start anew.",
                        total, s->context);
    }
    /* Phi-3 turns by one of two lists, by the length that prompt and answer may reach, others by a
     * base that follows the length of the prompt; a cache made another way is of no use. */
    size_t reach = o->max_tokens && (size_t)o->max_tokens < s->context - total
                       ? total + (size_t)o->max_tokens
                       : s->context;
    size_t rotation = pvl_llm_rotation(l, l->dynamic_factor > 0.0f ? total : reach);
    if (rotation != s->rotation)
        s->filled = 0;
    s->rotation = rotation;

    size_t same = common_prefix(s, prompt, images);
    if (same == total)
        same--; /* the last token runs again: its logits are wanted */
    s->filled = same;
    s->stats.prompt_tokens = (int)total;
    s->stats.reused_tokens = (int)same;
    for (size_t i = 0; i < prompt->image_count; i++)
        s->stats.visual_tokens += (int)prompt->images[i].count;
    PVL_TRY(encode_pictures(s, images, prompt, same, err));
    PVL_TRY(start_answer(s, o, err));
    return prefill(s, prompt, images, total, err);
}

/* Positions before the first picture whose visual tokens the keys and values do not hold yet: these
 * need no picture. */
static pvl_status run_beginning(pvl_session *s, const pvl_prompt *prompt,
                                const pvl_prompt_image *images, pvl_error *err) {
    size_t same = common_prefix(s, prompt, images), end = prompt->tokens.count - 1;
    for (size_t i = prompt->image_count; i-- > 0;) {
        const pvl_image_span *span = &prompt->images[i];
        if (span->position + span->count > same)
            end = span->position;
    }
    if (end > s->context)
        end = s->context; /* the prompt itself will say that it is too long */
    if (end <= same)
        return PVL_OK;
    s->filled = same;
    return prefill(s, prompt, images, end, err);
}

/* The conversation as tokens, its pictures beside. The caller frees both, also after an error. */
static pvl_status render(const pvl_session *s, survey *v, pvl_prompt *prompt,
                         const pvl_message *messages, size_t count,
                         const pvl_prompt_options *options, bool whole, pvl_error *err) {
    *v = (survey){0};
    *prompt = (pvl_prompt){.tokens.allocator = s->allocator};
    PVL_TRY(check_messages(s, messages, count, whole, err));
    PVL_TRY(check_options(options, err));
    PVL_TRY(survey_init(v, s->allocator, messages, count, err));
    const char *system = s->engine->system_message;
    pvl_prompt_style style = {.system = system, .system_bytes = system ? strlen(system) : 0};
    PVL_TRY(survey_fill(s, v, messages, count, options->max_tiles ? options->max_tiles : 1, err));
    return pvl_template_render(&s->engine->chat, prompt, v->messages, count, &style, err);
}

static const pvl_prompt_options default_options = {0};

static pvl_status render_and_run(pvl_session *s, const pvl_message *messages, size_t count,
                                 const pvl_prompt_options *options, bool whole, pvl_error *err) {
    if (!options)
        options = &default_options;
    s->state = PVL_SESSION_IDLE;
    pvl_flag_set(&s->cancel, 0);
    s->stats = (pvl_stats){0};
    survey v;
    pvl_prompt prompt;
    pvl_status status = render(s, &v, &prompt, messages, count, options, whole, err);
    if (status == PVL_OK)
        status = whole ? run_prompt(s, &prompt, v.images, options, err)
                       : run_beginning(s, &prompt, v.images, err);
    pvl_prompt_free(&prompt);
    pvl_free(s->allocator, v.block);
    return status;
}

pvl_status pvl_session_count(const pvl_session *s, const pvl_message *messages, size_t count,
                             const pvl_prompt_options *options, size_t *tokens, pvl_error *err) {
    survey v;
    pvl_prompt prompt;
    pvl_status status =
        render(s, &v, &prompt, messages, count, options ? options : &default_options, true, err);
    *tokens = prompt.tokens.count;
    pvl_prompt_free(&prompt);
    pvl_free(s->allocator, v.block);
    return status;
}

pvl_status pvl_session_prepare(pvl_session *s, const pvl_message *messages, size_t count,
                               const pvl_prompt_options *options, pvl_error *err) {
    return render_and_run(s, messages, count, options, false, err);
}

pvl_status pvl_session_prompt(pvl_session *s, const pvl_message *messages, size_t count,
                              const pvl_prompt_options *options, pvl_error *err) {
    PVL_TRY(render_and_run(s, messages, count, options, true, err));
    s->state = PVL_SESSION_READY;
    return PVL_OK;
}

/* ---- answer ---- */

/* Bytes at the end of `text` that begin some stop string: they must wait. *stop_at: where a whole
 * one begins. */
static size_t held_back(const pvl_session *s, const char *text, size_t bytes, size_t *stop_at) {
    size_t held = 0;
    *stop_at = SIZE_MAX;
    const char *stop = s->stop_text;
    for (size_t i = 0; i < s->stop_count; i++, stop += strlen(stop) + 1) {
        size_t len = strlen(stop);
        for (size_t at = 0; at < bytes; at++) {
            size_t have = bytes - at < len ? bytes - at : len;
            if (memcmp(text + at, stop, have) != 0)
                continue;
            if (have == len) {
                if (at < *stop_at)
                    *stop_at = at;
            } else if (bytes - at > held) {
                held = bytes - at;
            }
            break;
        }
    }
    return held;
}

static void drop_front(pvl_text *text, size_t bytes) {
    if (!bytes)
        return;
    memmove(text->data, text->data + bytes, text->bytes - bytes);
    text->bytes -= bytes;
}

pvl_status pvl_session_run_pending(pvl_session *s, pvl_error *err) {
    if (s->state != PVL_SESSION_PENDING)
        return PVL_OK;
    const pvl_model *m = &s->engine->model;
    double start = pvl_now_ms();
    pvl_model_embed(m, s->rows, (size_t)s->last_token);
    pvl_run run = make_run(s, false);
    /* As the reference does: a growing base turns the new key, those in the cache stay. */
    size_t rotation =
        m->llm.dynamic_factor > 0.0f ? pvl_llm_rotation(&m->llm, s->filled + 1) : s->rotation;
    if (rotation != s->rotation)
        s->rotation = PVL_ROTATION_MIXED;
    pvl_llm_step step = {.rows = s->rows,
                         .n = 1,
                         .workspace_rows = s->batch,
                         .position = s->filled,
                         .rotation = rotation,
                         .want = PVL_LOGITS_LAST,
                         .logits = s->logits};
    PVL_TRY(pvl_llm_forward(&run, m, &s->cache, &step, err));
    s->ids[s->filled] = s->last_token;
    s->keys[s->filled] = 0;
    s->filled++;
    s->state = PVL_SESSION_READY;
    s->stats.decode_ms += pvl_now_ms() - start;
    return PVL_OK;
}

/* Hands out what is certain of the pending text. */
static void give(pvl_session *s, pvl_piece *out) {
    size_t stop_at, held = held_back(s, s->pending.data, s->pending.bytes, &stop_at);
    if (stop_at != SIZE_MAX)
        out->stop = PVL_STOP_STRING;
    if (out->stop != PVL_STOP_NO) {
        held = 0;
        s->state = PVL_SESSION_IDLE;
    }
    out->text = s->pending.data ? s->pending.data : "";
    out->text_bytes = stop_at != SIZE_MAX ? stop_at : s->pending.bytes - held;
    s->given = out->text_bytes;
}

pvl_status pvl_session_next(pvl_session *s, pvl_piece *out, pvl_error *err) {
    *out = (pvl_piece){.text = "", .token = -1};
    if (s->state == PVL_SESSION_IDLE) {
        return pvl_fail(err, PVL_E_STATE,
                        "There is no answer to go on with: call pvl_session_prompt first.");
    }
    if (pvl_flag_is_set(&s->cancel)) {
        s->state = PVL_SESSION_IDLE;
        return pvl_run_check(&(pvl_run){.cancel = &s->cancel}, err);
    }
    drop_front(&s->pending, s->given);
    s->given = 0;
    pvl_status status = pvl_session_run_pending(s, err);
    bool shown = false;
    if (status == PVL_OK)
        status = pvl_session_pick(s, out, &shown, err);
    if (status == PVL_OK && shown) {
        status = pvl_decoder_push(&s->decoder, &s->pending, out->token, err);
        s->generated++;
        s->stats.generated_tokens = (int)s->generated;
    }
    if (status != PVL_OK) {
        s->state = PVL_SESSION_IDLE;
        return status;
    }
    s->last_token = out->token;
    s->state = PVL_SESSION_PENDING;
    if (out->stop == PVL_STOP_NO && s->options.max_tokens &&
        s->generated >= (size_t)s->options.max_tokens) {
        out->stop = PVL_STOP_LENGTH;
    }
    if (out->stop == PVL_STOP_NO && s->filled >= s->context)
        out->stop = PVL_STOP_CONTEXT;
    if (out->stop != PVL_STOP_NO) {
        status = pvl_decoder_finish(&s->decoder, &s->pending, err);
        if (status != PVL_OK) {
            s->state = PVL_SESSION_IDLE;
            return status;
        }
    }
    give(s, out);
    return PVL_OK;
}

void pvl_session_get_stats(const pvl_session *s, pvl_stats *out) {
    const pvl_model *m = &s->engine->model;
    *out = s->stats;
    out->context = (int)s->context;
    out->context_used = (int)s->filled;
    out->weight_bytes = m->weight_bytes;
    out->kv_bytes = s->cache.bytes;
    out->scratch_bytes =
        s->workspace_bytes + (s->batch * m->llm.hidden + m->llm.vocabulary) * sizeof(float);
    out->visual_cache_bytes = s->visuals.bytes;
}
