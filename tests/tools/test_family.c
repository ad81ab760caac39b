/* Checkpoints from the published folder to the answer: converted by our command, loaded, asked.
 * Ids, logits and 64 greedy tokens are those of transformers, for prompts that stay within the
 * length of training, cross it while answering, and begin beyond it. Fixtures:
 * tests/oracle/model_fixtures.py and family_fixtures.py. */
#include "folder.h"

#include "../engine.h"
#include "../golden.h"
#include "engine/internal.h"
#include "tools/convert.h"

static const pvl_engine_options exact = {.precision = PVL_PRECISION_F32};

static pvl_image *golden_image(const golden *g) {
    const golden_entry *e = golden_get(g, "image");
    return engine_image(golden_u8(e), e->dim[1], e->dim[0]);
}

/* One prompt of the reference. A session that was used before must answer as a fresh one. */
static void check_run(pvl_session *s, const golden *g, const char *model, const char *run) {
    static const char system[] = "Be short.";
    const golden_entry *question = golden_get(g, "%s.question", run),
                       *ids = golden_get(g, "%s.ids", run),
                       *logits = golden_get(g, "%s.logits", run),
                       *greedy = golden_get(g, "%s.greedy", run);
    pvl_image *image = golden_i32(golden_get(g, "%s.images", run))[0] ? golden_image(g) : NULL;
    pvl_part text = {.text = (const char *)golden_u8(question), .text_bytes = question->count},
             rule = {.text = system, .text_bytes = strlen(system)};
    pvl_part parts[2] = {image ? (pvl_part){.kind = PVL_PART_IMAGE, .image = image} : text, text};
    const pvl_message messages[] = {{PVL_ROLE_SYSTEM, &rule, 1},
                                    {PVL_ROLE_USER, parts, image ? 2 : 1}};
    pvl_prompt_options options = {.max_tiles = golden_i32(golden_get(g, "max_tiles"))[0],
                                  .max_tokens = (int)greedy->count};
    pvl_error err = {0};
    pvl_status status = pvl_session_prompt(s, messages, 2, &options, &err);
    if (status == PVL_OK && s->filled == ids->count) {
        CHECK_MEM(s->ids, golden_i32(ids), ids->count * sizeof(int32_t));
        size_t n = s->engine->model.llm.vocabulary;
        REQUIRE(logits->dim[1] == n);
        CHECK_REL_L2(s->logits, golden_f32(logits) + logits->count - n, n, 1e-4);
    }
    CHECK_MSG(s->filled == ids->count, "%s %s: %zu tokens, expected %zu", model, run, s->filled,
              ids->count);
    size_t same = 0;
    for (pvl_piece piece = {0}; status == PVL_OK && same < greedy->count; same++) {
        status = pvl_session_next(s, &piece, &err);
        if (status != PVL_OK || piece.token != golden_i32(greedy)[same])
            break;
    }
    CHECK_MSG(status == PVL_OK && same == 64, "%s %s: %zu greedy tokens are the reference's: %s",
              model, run, same, err.message);
    pvl_image_free(image);
}

static void check_folder(const test_folder *f, const char *folder, const char *name,
                         const char *const *runs, const char *template_name) {
    char path[128];
    const char *out = folder_file(f, "model.gguf");
    pvl_convert_options o = {.folder = folder,
                             .out = out,
                             .mix = pvl_mix_default(PVL_DTYPE_F32),
                             .threads = 1,
                             .quiet = true};
    pvl_error err = {0};
    golden g;
    if (pvl_convert(&o, &err) != PVL_OK)
        FAIL("%s: %s", folder, err.message);
    snprintf(path, sizeof path, "tests/fixtures/model/%s.golden", name);
    REQUIRE(golden_open(&g, path));
    pvl_engine *e = engine_load(out, &exact);
    REQUIRE(e != NULL);
    pvl_engine_info info;
    pvl_engine_get_info(e, &info);
    CHECK_STR(info.template_name, template_name);
    const pvl_session_options options = {.max_batch = 37}; /* prompts take several steps */
    pvl_session *s = NULL;
    CHECK_MSG(pvl_session_new(&s, e, &options, &err) == PVL_OK, "%s", err.message);
    for (; s && *runs; runs++)
        check_run(s, &g, folder, *runs);
    pvl_session_free(s);
    pvl_engine_free(e);
    golden_close(&g);
}

/* Runs come again behind others: what the cache then holds was rotated another way. */
static const char *const within[] = {"image", "text", NULL}, *const beyond[] = {
                                                                 "text", "long", "text", "image",
                                                                 "long", "long", NULL};

TEST(internvl2) {
    test_folder f;
    REQUIRE(folder_make(&f));
    check_folder(&f, "tests/fixtures/hf/qwen2", "qwen2", within, "hermes-2");
    check_folder(&f, "tests/fixtures/hf/internlm2", "internlm2", within, "internlm2-chat");
    check_folder(&f, "tests/fixtures/hf/phi3", "phi3", beyond, "phi3-chat");
    folder_end(&f);
}

TEST(internvl2_5_and_3) {
    test_folder f;
    REQUIRE(folder_make(&f));
    check_folder(&f, "tests/fixtures/hf/internvl3", "internvl3", beyond, "internvl2_5");
    check_folder(&f, "tests/fixtures/hf/internlm2-hf", "internlm2-dynamic", beyond, "internvl2_5");
    /* The same weights under their published names: fused, as InternVL2.5-2B. */
    char folder[FOLDER_PATH + 32], config[FOLDER_PATH + 64];
    snprintf(folder, sizeof folder, "%s/internvl2_5-2b", f.path);
    snprintf(config, sizeof config, "%s/config.json", folder);
    copy_folder("tests/fixtures/hf/internlm2", folder);
    edit_file(config, "\"max_position_embeddings\": 32768", "\"max_position_embeddings\": 80");
    edit_file(config, "\"internlm2-chat\"", "\"internvl2_5\"");
    check_folder(&f, folder, "internlm2-dynamic", beyond, "internvl2_5");
    folder_end(&f);
}

/* Attention over a window is not computed: a window that the context outgrows ends it; Phi-3's, as
 * published, is longer than the context. */
TEST(a_window_ends_the_context) {
    test_folder f;
    REQUIRE(folder_make(&f));
    char folder[FOLDER_PATH + 32], config[FOLDER_PATH + 64], out[FOLDER_PATH + 32];
    snprintf(folder, sizeof folder, "%s/phi3", f.path);
    snprintf(config, sizeof config, "%s/config.json", folder);
    snprintf(out, sizeof out, "%s/model.gguf", f.path);
    copy_folder("tests/fixtures/hf/phi3", folder);
    for (int i = 0; i < 2; i++) {
        pvl_convert_options o = {.folder = folder,
                                 .out = out,
                                 .mix = pvl_mix_default(PVL_DTYPE_Q8_0),
                                 .threads = 1,
                                 .quiet = true};
        pvl_error err = {0};
        CHECK_MSG(pvl_convert(&o, &err) == PVL_OK, "%s", err.message);
        pvl_engine *e = engine_load(out, &exact);
        REQUIRE(e != NULL);
        CHECK_EQ_UINT(e->model.llm.context, i ? 100 : 4096);
        pvl_engine_free(e);
        if (i == 0)
            edit_file(config, "\"sliding_window\": 262144", "\"sliding_window\": 100");
    }
    folder_end(&f);
}

/* What generation_config.json names ends answers too, if it is an added token: </box> is one, 5 is
 * a letter. */
TEST(ends_of_generation_config) {
    test_folder f;
    REQUIRE(folder_make(&f));
    char folder[FOLDER_PATH + 32], file[FOLDER_PATH + 64], out[FOLDER_PATH + 32];
    snprintf(folder, sizeof folder, "%s/qwen2", f.path);
    snprintf(file, sizeof file, "%s/generation_config.json", folder);
    snprintf(out, sizeof out, "%s/model.gguf", f.path);
    copy_folder("tests/fixtures/hf/qwen2", folder);
    write_text(file, "{\"eos_token_id\": [378, 387, 5]}");
    pvl_convert_options o = {.folder = folder,
                             .out = out,
                             .mix = pvl_mix_default(PVL_DTYPE_Q8_0),
                             .threads = 1,
                             .quiet = true};
    pvl_error err = {0};
    CHECK_MSG(pvl_convert(&o, &err) == PVL_OK, "%s", err.message);
    pvl_engine *e = engine_load(out, &exact);
    REQUIRE(e != NULL);
    CHECK(pvl_tokenizer_is_eog(e->tokenizer, 378));
    CHECK(pvl_tokenizer_is_eog(e->tokenizer, 387));
    CHECK(!pvl_tokenizer_is_eog(e->tokenizer, 386));
    CHECK(!pvl_tokenizer_is_eog(e->tokenizer, 5));
    pvl_engine_free(e);
    folder_end(&f);
}

TEST_MAIN(CASE(internvl2), CASE(ends_of_generation_config), CASE(internvl2_5_and_3),
          CASE(a_window_ends_the_context))
