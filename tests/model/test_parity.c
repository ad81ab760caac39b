/* The model against transformers: every stage of three small random models, logits, greedy tokens;
 * the same weights quantized against their dequantized twins. Fixtures:
 * tests/oracle/model_fixtures.py. */
#include "../test.h"

#include "../golden.h"
#include "model/llm.h"
#include "model/vit.h"
#include "tensor/gguf.h"

/* Logits are spread by about 4 here: two this close may change places under 8-bit rounding. */
#define NEAR_TIE 1.0

typedef struct reader {
    pvl_model *model;
    const char *name;
} reader;

static pvl_status on_header(void *ctx, const pvl_gguf *g, pvl_error *err) {
    reader *r = ctx;
    return pvl_model_header(r->model, r->name, g, err);
}

static pvl_status on_data(void *ctx, const pvl_gguf *g, size_t index, uint64_t offset,
                          const void *bytes, size_t n, pvl_error *err) {
    (void)offset;
    reader *r = ctx;
    return pvl_model_data(r->model, g, index, bytes, n, err);
}

static bool push_file(pvl_model *m, const char *path) {
    size_t size;
    unsigned char *file = test_read_file(path, &size);
    if (!file)
        return false;
    reader r = {m, path};
    pvl_gguf_callbacks callbacks = {&r, on_header, on_data};
    pvl_gguf_stream *s;
    pvl_error err = {0};
    bool good = pvl_gguf_stream_new(&s, NULL, path, size, &callbacks, &err) == PVL_OK;
    for (size_t at = 0; good && at < size; at += 1000)
        good =
            pvl_gguf_stream_push(s, file + at, size - at < 1000 ? size - at : 1000, &err) == PVL_OK;
    good = good && pvl_gguf_stream_finish(s, &err) == PVL_OK;
    test_check(good, __FILE__, __LINE__, "%s", err.message);
    pvl_model_end_file(m);
    pvl_gguf_stream_free(s);
    free(file);
    return good;
}

typedef struct subject {
    const char *name;
    golden g, pixels; /* pixels: the F32 model's */
    pvl_model model;
    pvl_run run;
    double bound; /* of every stage's relative L2 */
    double worst; /* seen since it was last printed */
    bool full;    /* every stage is in the fixture */
    bool exact;   /* computed in floats: every token must be equal */
    pvl_cache_type cache;
    const char *key; /* run that the probe looks at, NULL = the vision part */
    size_t tile;
} subject;

static const char *fixture(const char *name, const char *suffix) {
    static char path[160];
    snprintf(path, sizeof path, "tests/fixtures/model/%s%s", name, suffix);
    return path;
}

static void compare(subject *s, const char *what, const float *x, const float *expected, size_t n,
                    double bound) {
    test_diff d = test_compare(x, expected, n);
    double e = d.not_finite ? (double)INFINITY : d.rel_l2;
    CHECK_MSG(e <= bound, "%s %s: relative L2 %.3g, bound %.3g, max-abs %.3g", s->name, what, e,
              bound, d.max_abs);
    if (e > s->worst)
        s->worst = e;
}

/* Vision stages of tile s->tile, decoder stages of run s->key. */
static void probe(void *ctx, const char *stage, int layer, const float *x, size_t rows,
                  size_t cols) {
    subject *s = ctx;
    char name[64];
    bool vision = s->key == NULL;
    if (vision)
        snprintf(name, sizeof name, layer < 0 ? "%s" : "%s.%d", stage, layer);
    else
        snprintf(name, sizeof name, layer < 0 ? "%s.%s" : "%s.%s.%d", s->key, stage, layer);
    const golden_entry *e = golden_find(&s->g, name);
    if (!e) {
        CHECK_MSG(!s->full || strncmp(name, "long.", 5) == 0, "%s has no %s", s->name, name);
        return;
    }
    size_t n = rows * cols;
    if (vision) {
        REQUIRE(e->dim[0] > s->tile && e->count == e->dim[0] * n);
        compare(s, name, x, golden_f32(e) + s->tile * n, n, s->bound);
    } else {
        /* Logits may be those of the last rows. */
        REQUIRE(e->dim[1] == cols && e->dim[0] <= rows);
        compare(s, name, x + (rows - e->dim[0]) * cols, golden_f32(e), e->count, s->bound);
    }
}

static void *workspace(size_t bytes) {
    void *p = NULL;
    CHECK_EQ_INT(pvl_calloc(NULL, &p, bytes, 1, "workspace", NULL), PVL_OK);
    return p;
}

static void check_vision(subject *s, float *tokens) {
    const pvl_vit_config *v = &s->model.vit;
    const golden_entry *pixels = golden_get(&s->pixels, "pixels");
    size_t tile = 3 * v->image_size * v->image_size, bytes;
    REQUIRE(pixels->count == pixels->dim[0] * tile);
    REQUIRE(pvl_vit_workspace(&bytes, &s->model, pvl_team_size(s->run.team)));
    s->run.workspace = workspace(bytes);
    s->key = NULL;
    for (s->tile = 0; s->tile < pixels->dim[0]; s->tile++) {
        pvl_error err = {0};
        CHECK_EQ_INT(pvl_vit_encode(&s->run, &s->model,
                                    tokens + s->tile * v->tokens * v->projection,
                                    golden_f32(pixels) + s->tile * tile, &err),
                     PVL_OK);
    }
    pvl_free(NULL, s->run.workspace);
}

static void check_run(subject *s, const char *key, const float *tokens, size_t batch) {
    const pvl_llm_config *l = &s->model.llm;
    const golden_entry *ids = golden_get(&s->g, "%s.ids", key);
    const golden_entry *greedy = golden_get(&s->g, "%s.greedy", key);
    const golden_entry *margins = golden_get(&s->g, "%s.margins", key);
    bool images = golden_i32(golden_get(&s->g, "%s.images", key))[0] != 0;
    bool long_factors = golden_i32(golden_get(&s->g, "%s.long_factors", key))[0] != 0;
    size_t n = ids->count, rows = n > batch ? n : batch, bytes;
    float *x = malloc(n * l->hidden * sizeof *x), *logits = malloc(rows * l->vocabulary * 4);
    pvl_kvcache cache;
    pvl_error err = {0};
    REQUIRE(x && logits && n);
    REQUIRE(pvl_kvcache_new(&cache, NULL, l, s->cache, n + greedy->count, &err) == PVL_OK);
    REQUIRE(pvl_llm_workspace(&bytes, &s->model, rows, pvl_team_size(s->run.team)));
    s->run.workspace = workspace(bytes);

    /* <IMG_CONTEXT> is the id that repeats most in a prompt with a picture. */
    size_t next = 0, context = SIZE_MAX, most = 0;
    for (size_t i = 0; images && i < n; i++) {
        size_t run = 0;
        while (i + run < n && golden_i32(ids)[i + run] == golden_i32(ids)[i])
            run++;
        if (run > most) {
            most = run;
            context = (size_t)golden_i32(ids)[i];
        }
    }
    for (size_t i = 0; i < n; i++) {
        size_t id = (size_t)golden_i32(ids)[i];
        if (id == context)
            memcpy(x + i * l->hidden, tokens + next++ * l->hidden, l->hidden * sizeof *x);
        else
            pvl_model_embed(&s->model, x + i * l->hidden, id);
    }
    s->key = key;
    const golden_entry *embeds = golden_find(&s->g, "image.embeds");
    if (images && embeds)
        compare(s, "image.embeds", x, golden_f32(embeds), embeds->count, s->bound);
    if (batch >= n) { /* whole: every row of every stage */
        pvl_llm_step step = {.rows = x,
                             .n = n,
                             .workspace_rows = rows,
                             .rotation = long_factors,
                             .want = PVL_LOGITS_ALL,
                             .logits = logits};
        CHECK_EQ_INT(pvl_llm_forward(&s->run, &s->model, &cache, &step, &err), PVL_OK);
        memmove(logits, logits + (n - 1) * l->vocabulary, l->vocabulary * sizeof *logits);
    } else { /* in pieces: only the last row's logits */
        pvl_probe kept = s->run.probe;
        s->run.probe = NULL;
        for (size_t at = 0; at < n; at += batch) {
            size_t m = n - at < batch ? n - at : batch;
            pvl_llm_step step = {.rows = x + at * l->hidden,
                                 .n = m,
                                 .workspace_rows = rows,
                                 .position = at,
                                 .rotation = long_factors,
                                 .want = at + m == n ? PVL_LOGITS_LAST : PVL_LOGITS_NONE,
                                 .logits = logits};
            CHECK_EQ_INT(pvl_llm_forward(&s->run, &s->model, &cache, &step, &err), PVL_OK);
        }
        s->run.probe = kept;
        const golden_entry *e = golden_get(&s->g, "%s.logits", key);
        compare(s, "last logits", logits, golden_f32(e) + e->count - l->vocabulary, l->vocabulary,
                s->bound);
    }
    /* The reference's tokens are fed; ours must be the same, but where two logits are as good as
     * equal. */
    size_t equal = 0;
    pvl_probe kept = s->run.probe;
    s->run.probe = NULL;
    for (size_t i = 0; i < greedy->count; i++) {
        ptrdiff_t best = pvl_argmax(logits, l->vocabulary);
        double margin = (double)golden_f32(margins)[i];
        bool same = best == golden_i32(greedy)[i];
        CHECK_MSG(same || (!s->exact && margin < NEAR_TIE),
                  "%s %s: token %zu is %td, expected %d, by a margin of %.4f", s->name, key, i,
                  best, golden_i32(greedy)[i], margin);
        equal += same;
        if (i + 1 == greedy->count)
            break;
        pvl_model_embed(&s->model, x, (size_t)golden_i32(greedy)[i]);
        pvl_llm_step step = {.rows = x,
                             .n = 1,
                             .workspace_rows = rows,
                             .position = n + i,
                             .rotation = long_factors,
                             .want = PVL_LOGITS_LAST,
                             .logits = logits};
        CHECK_EQ_INT(pvl_llm_forward(&s->run, &s->model, &cache, &step, &err), PVL_OK);
    }
    CHECK_MSG(equal * 10 >= greedy->count * 8, "%s %s: only %zu of %zu tokens are equal", s->name,
              key, equal, greedy->count);
    s->run.probe = kept;
    printf(
        "  %s %s: %zu tokens, batch %zu, worst relative L2 %.2g, %zu of %zu greedy tokens equal\n",
        s->name, key, n, batch, s->worst, equal, greedy->count);
    s->worst = 0;
    pvl_kvcache_free(&cache);
    pvl_free(NULL, s->run.workspace);
    free(x);
    free(logits);
}

static void check_model(const char *name, const char *base, const char *second, bool f32,
                        pvl_cache_type cache, double bound, pvl_team *team, const char *kernels) {
    subject *s = calloc(1, sizeof *s);
    REQUIRE(s != NULL);
    s->name = name;
    s->bound = bound;
    s->cache = cache;
    s->full = strcmp(name, base) == 0 && strcmp(name, "mixed") != 0;
    s->exact = f32 && cache == PVL_CACHE_F32;
    pvl_error err = {0};
    pvl_model_init(&s->model, NULL, team, f32, false);
    if (strcmp(name, "mixed") == 0) {
        REQUIRE(push_file(&s->model, fixture(name, "-00001-of-00002.gguf")));
        REQUIRE(push_file(&s->model, fixture(name, "-00002-of-00002.gguf")));
    } else {
        REQUIRE(push_file(&s->model, fixture(name, ".gguf")));
    }
    if (second)
        REQUIRE(push_file(&s->model, fixture(name, second)));
    if (pvl_model_finish(&s->model, &err) != PVL_OK)
        FAIL("%s", err.message);
    REQUIRE(golden_open(&s->g, fixture(name, ".golden")));
    REQUIRE(golden_open(&s->pixels, fixture(base, ".golden")));
    REQUIRE(pvl_kernels_select(&s->run.kernels, kernels, &err) == PVL_OK);
    s->run.team = team;
    s->run.probe = probe;
    s->run.probe_ctx = s;

    size_t tiles = golden_get(&s->pixels, "pixels")->dim[0];
    float *tokens = malloc(tiles * s->model.vit.tokens * s->model.vit.projection * sizeof *tokens);
    REQUIRE(tokens != NULL);
    check_vision(s, tokens);
    printf("  %s vision: worst relative L2 %.2g\n", s->name, s->worst);
    s->worst = 0;
    static const char *const keys[] = {"image", "text", "long", "text-long"};
    for (size_t i = 0; i < 4; i++) {
        char ids[32];
        snprintf(ids, sizeof ids, "%s.ids", keys[i]);
        if (!golden_find(&s->g, ids))
            continue;
        check_run(s, keys[i], tokens, 1000);
        check_run(s, keys[i], tokens, 7);
    }
    free(tokens);
    golden_close(&s->g);
    golden_close(&s->pixels);
    pvl_model_free(&s->model);
    free(s);
}

static const char *const names[] = {"qwen2", "internlm2", "phi3"};

TEST(f32_models_agree_stage_by_stage) {
    for (size_t i = 0; i < 3; i++)
        check_model(names[i], names[i], NULL, true, PVL_CACHE_F32, 1e-4, NULL, NULL);
}

TEST(a_team_agrees_as_well) {
    pvl_team *team;
    pvl_error err = {0};
    REQUIRE(pvl_team_start(&team, NULL, 3, &err) == PVL_OK);
    for (size_t i = 0; i < 3; i++)
        check_model(names[i], names[i], NULL, true, PVL_CACHE_F32, 1e-4, team, NULL);
    pvl_team_stop(team);
}

/* Quantized files, computed in floats: what the blocks hold is what transformers was given. */
TEST(quantized_files_agree_in_floats) {
    for (size_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s-q8_0", names[i]);
        check_model(name, names[i], i == 1 ? "-mmproj.gguf" : NULL, true, PVL_CACHE_F32, 1e-4, NULL,
                    NULL);
        snprintf(name, sizeof name, "%s-q4_0", names[i]);
        check_model(name, names[i], NULL, true, PVL_CACHE_F32, 1e-4, NULL, NULL);
    }
}

/* As they are run: integer products. The bounds are some way above what was seen (0.09, 0.04,
 * 0.09). */
TEST(integer_products_stay_close) {
    for (size_t i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s-q8_0", names[i]);
        check_model(name, names[i], i == 1 ? "-mmproj.gguf" : NULL, false, PVL_CACHE_F32, 0.12,
                    NULL, NULL);
        snprintf(name, sizeof name, "%s-q4_0", names[i]);
        check_model(name, names[i], NULL, false, PVL_CACHE_F32, 0.06, NULL, NULL);
        /* 8-bit weights made of floats while loading */
        check_model(names[i], names[i], NULL, false, PVL_CACHE_F32, 0.12, NULL, NULL);
    }
}

/* Twelve quantized types in one model, split in two files. */
TEST(every_type_agrees) {
    check_model("mixed", "mixed", NULL, true, PVL_CACHE_F32, 1e-4, NULL, NULL);
    check_model("mixed", "mixed", NULL, false, PVL_CACHE_F32, 0.08, NULL, NULL);
}

TEST(every_kernel_set_agrees) {
    const char *const *sets = pvl_kernels_list();
    for (size_t i = 0; sets[i]; i++) {
        const pvl_kernels *k;
        if (pvl_kernels_select(&k, sets[i], NULL) != PVL_OK)
            continue; /* not on this processor */
        printf("  with %s\n", sets[i]);
        check_model("phi3", "phi3", NULL, true, PVL_CACHE_F32, 1e-4, NULL, sets[i]);
        check_model("mixed", "mixed", NULL, false, PVL_CACHE_Q8, 0.08, NULL, sets[i]);
    }
}

TEST(an_8_bit_cache_stays_close) {
    for (size_t i = 0; i < 3; i++)
        check_model(names[i], names[i], NULL, true, PVL_CACHE_Q8, 0.03, NULL, NULL);
}

TEST_MAIN(CASE(f32_models_agree_stage_by_stage), CASE(a_team_agrees_as_well),
          CASE(quantized_files_agree_in_floats), CASE(integer_products_stay_close),
          CASE(every_type_agrees), CASE(every_kernel_set_agrees), CASE(an_8_bit_cache_stays_close))
