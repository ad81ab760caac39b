/* Limits that no other test reaches (the table is in src/README.md), and size products that 32 bits
 * do not hold: refused where they would wrap, as in WebAssembly, and right where they do not. */
#include "../engine.h"

#include "engine/internal.h"
#include "model/llm.h"
#include "model/vit.h"
#include "tensor/gguf_write.h"

enum { NARROW = SIZE_MAX <= UINT32_MAX };

/* A vision tower that passes every check of its configuration and whose widest buffer has
 * 65537 * 65536 floats: 65536 of them where the product wraps. */
static pvl_model wide_eyes(void) {
    return (pvl_model){.has_vision = true,
                       .vit = {.layers = 1,
                               .hidden = 8,
                               .heads = 1,
                               .head_dim = 8,
                               .ffn = 65536,
                               .image_size = 512,
                               .patch_size = 2,
                               .grid = 256,
                               .tokens = 128 * 128,
                               .projection = 64},
                       .llm = {.layers = 1,
                               .hidden = 64,
                               .heads = 2,
                               .kv_heads = 1,
                               .head_dim = 32,
                               .ffn = 64,
                               .vocabulary = 300,
                               .context = 4096}};
}

static void check_narrow(bool fits, size_t bytes, uint64_t least, const char *what) {
    if (NARROW)
        CHECK_MSG(!fits, "%s: %zu bytes, but the product does not fit", what, bytes);
    else
        CHECK_MSG(fits && (uint64_t)bytes >= least, "%s: %zu bytes are too few", what, bytes);
}

TEST(buffers_beyond_32_bits) {
    pvl_model m = wide_eyes();
    size_t bytes = 0;
    bool fits = pvl_vit_workspace(&bytes, &m, 1);
    check_narrow(fits, bytes, (uint64_t)65537 * 65536 * 4, "a tile's buffers");
    m.vit.ffn = 8;
    m.vit.grid = 4096;
    m.vit.patch_size = 1;
    m.vit.image_size = 4096;
    m.vit.tokens = (size_t)2048 * 2048;
    m.vit.hidden = m.vit.head_dim = 128;
    fits = pvl_vit_workspace(&bytes, &m, 1);
    check_narrow(fits, bytes, (uint64_t)4096 * 4096 * 128 * 4, "a large tile's buffers");

    m.llm.heads = 65536;
    m.llm.head_dim = 512;
    fits = pvl_llm_workspace(&bytes, &m, 4096, 1);
    check_narrow(fits, bytes, (uint64_t)4096 * 65536 * 512 * 4, "a step's buffers");

    m.llm.kv_heads = 1024;
    fits = pvl_kvcache_bytes(&bytes, &m.llm, PVL_CACHE_F32, 1 << 20);
    check_narrow(fits, bytes, (uint64_t)1024 * 512 * 2 * 4 << 20, "keys and values");

    pvl_matrix w;
    pvl_error err = {0};
    fits = pvl_matrix_plan(&w, PVL_DTYPE_F32, 65536, 65536, true, &err) == PVL_OK;
    check_narrow(fits, w.bytes, (uint64_t)65536 * 65536 * 4, "a matrix");
    bytes = pvl_act_bytes(1 << 20, 1 << 18, PVL_FORM_Q8);
    check_narrow(bytes != SIZE_MAX, bytes, (uint64_t)1 << 38, "rows of a product");
}

TEST(a_session_beyond_32_bits) {
    pvl_model m = wide_eyes();
    pvl_error err = {0};
    size_t kv, scratch;
    pvl_status status = pvl_session_sizes(&m, NULL, 1, &kv, &scratch, &err);
    CHECK_EQ_INT(status, NARROW ? PVL_E_MEMORY : PVL_OK);
    if (NARROW)
        CHECK_CONTAINS(err.message, "address space");
}

typedef struct head {
    unsigned char data[4096];
    size_t bytes;
} head;

static pvl_status keep(void *ctx, const void *bytes, size_t n, pvl_error *err) {
    head *h = ctx;
    if (n > sizeof h->data - h->bytes)
        return pvl_fail(err, PVL_E_INTERNAL, "The head is longer than expected.");
    memcpy(h->data + h->bytes, bytes, n);
    h->bytes += n;
    return PVL_OK;
}

/* A file's head with one tensor: queries of 2^32 - 2^21 bytes, whose rows change places while they
 * are loaded, through eight rows behind them: 2^32 together, which is 0 in 32 bits. */
static void wide_queries(head *out, pvl_error *err) {
    static const struct {
        const char *key;
        uint32_t value;
    } sizes[] = {{"block_count", 1},
                 {"embedding_length", 65536},
                 {"feed_forward_length", 65536},
                 {"attention.head_count", 2047},
                 {"attention.key_length", 8},
                 {"context_length", 4096}};
    const size_t ne[] = {65536, (size_t)2047 * 8};
    const pvl_gguf_string token = {"a", 1};
    pvl_gguf_writer *w;
    *out = (head){0};
    REQUIRE(pvl_gguf_writer_new(&w, NULL, err) == PVL_OK);
    pvl_gguf_writer_str(w, "general.architecture", "internlm2", err);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char key[64];
        snprintf(key, sizeof key, "internlm2.%s", sizes[i].key);
        pvl_gguf_writer_u32(w, key, sizes[i].value, err);
    }
    pvl_gguf_writer_array_str(w, "tokenizer.ggml.tokens", &token, 1, err);
    pvl_gguf_writer_tensor(w, "blk.0.attn_q.weight", PVL_DTYPE_F32, ne, 2, err);
    pvl_gguf_writer_plan(w, 0, err);
    pvl_gguf_writer_begin(w, 0, keep, out, err);
    pvl_gguf_writer_free(w);
}

TEST(a_loading_buffer_beyond_32_bits) {
    pvl_error err = {0};
    head h;
    pvl_gguf *g;
    pvl_model m;
    wide_queries(&h, &err);
    CHECK_MSG(err.code == PVL_OK, "%s", err.message);
    REQUIRE(pvl_gguf_parse_head(&g, NULL, NULL, "wide", h.data, h.bytes, 0, &err) == PVL_OK);
    pvl_model_init(&m, NULL, NULL, false, true);
    CHECK_MSG(pvl_model_header(&m, "wide", g, &err) == PVL_OK, "%s", err.message);
    CHECK_MSG(m.staging_peak >= (uint64_t)65536 * 2047 * 8 * 4,
              "the loading buffer has %llu bytes, fewer than the tensor",
              (unsigned long long)m.staging_peak);
    pvl_model_free(&m);
    pvl_gguf_free(g);
}

static const char small[] = "tests/fixtures/model/qwen2-q4_0.gguf";

TEST(sessions) {
    static const struct {
        pvl_session_options options;
        const char *says;
    } cases[] = {{{.context = 15}, "from 16 to"},        {{.context = -1}, "from 16 to"},
                 {{.context = INT32_MAX}, "from 16 to"}, {{.max_batch = 4097}, "from 1 to 4096"},
                 {{.max_batch = -1}, "from 1 to 4096"},  {{.kv_type = (pvl_kv_type)2}, "kv_type"}};
    pvl_engine *e = engine_load(small, NULL);
    REQUIRE(e);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        pvl_session *s;
        pvl_error err = {0};
        CHECK_EQ_INT(pvl_session_new(&s, e, &cases[i].options, &err), PVL_E_ARGUMENT);
        CHECK(s == NULL);
        CHECK_CONTAINS(err.message, cases[i].says);
    }
    pvl_loader *loader;
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_loader_new(&loader, &(pvl_engine_options){.threads = 17}, &err),
                 PVL_E_ARGUMENT);
    CHECK_CONTAINS(err.message, "from 1 to 16");
    pvl_engine_free(e);
}

TEST(prompts) {
    pvl_engine *e = engine_load(small, NULL);
    REQUIRE(e);
    pvl_session *s;
    REQUIRE(pvl_session_new(&s, e, &(pvl_session_options){.context = 64}, NULL) == PVL_OK);
    pvl_error err = {0};

    size_t many = 100001;
    pvl_part part = {.text = "a", .text_bytes = 1};
    pvl_message *messages = calloc(many, sizeof *messages);
    REQUIRE(messages);
    for (size_t i = 0; i < many; i++)
        messages[i] = (pvl_message){i % 2 ? PVL_ROLE_ASSISTANT : PVL_ROLE_USER, &part, 1};
    CHECK_EQ_INT(pvl_session_prompt(s, messages, many, NULL, &err), PVL_E_LIMIT);
    CHECK_CONTAINS(err.message, "too many messages");
    free(messages);

    size_t bytes = 4 * 1024 * 1024 + 1;
    char *text = malloc(bytes);
    REQUIRE(text);
    memset(text, 'a', bytes);
    err = (pvl_error){0};
    CHECK_EQ_INT(engine_ask(s, text, bytes, NULL, &err), PVL_E_LIMIT);
    CHECK_CONTAINS(err.message, "text");
    err = (pvl_error){0};
    CHECK_EQ_INT(engine_ask(s, text, 5000, NULL, &err), PVL_E_CONTEXT);
    CHECK_CONTAINS(err.message, "the context holds 64");
    text[1025] = 0;
    const char *const stops[] = {text};
    err = (pvl_error){0};
    pvl_prompt_options options = {.stop = stops, .stop_count = 1};
    CHECK_EQ_INT(engine_ask(s, "a", 1, &options, &err), PVL_E_ARGUMENT);
    CHECK_CONTAINS(err.message, "1 to 1024 bytes");
    err = (pvl_error){0};
    options.stop_count = 257; /* counted before one is looked at */
    CHECK_EQ_INT(engine_ask(s, "a", 1, &options, &err), PVL_E_ARGUMENT);
    CHECK_CONTAINS(err.message, "At most 256");
    free(text);

    err = (pvl_error){0};
    CHECK_EQ_INT(engine_ask(s, "a", 1, &(pvl_prompt_options){.max_tiles = 41}, &err),
                 PVL_E_ARGUMENT);
    CHECK_CONTAINS(err.message, "from 1 to 40");
    CHECK_EQ_INT(engine_ask(s, "a", 1, NULL, NULL), PVL_OK); /* still good */
    pvl_session_free(s);
    pvl_engine_free(e);
}

TEST_MAIN(CASE(buffers_beyond_32_bits), CASE(a_session_beyond_32_bits),
          CASE(a_loading_buffer_beyond_32_bits), CASE(sessions), CASE(prompts))
