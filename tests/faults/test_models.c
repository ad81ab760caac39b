/* Damaged, incomplete and hostile models at the loader: one sentence and a stable code each,
 * nothing leaked, and the next load works. The files are copies of a sound one with one thing
 * changed. */
#include "../engine.h"

#include "tensor/gguf_write.h"

static const char sound[] = "tests/fixtures/model/qwen2-q8_0.gguf";

typedef struct bytes {
    unsigned char *data;
    size_t size, capacity;
} bytes;

static pvl_status append(void *ctx, const void *data, size_t n, pvl_error *err) {
    (void)err;
    bytes *b = ctx;
    if (b->size + n > b->capacity) {
        b->capacity = (b->size + n) * 2;
        b->data = realloc(b->data, b->capacity);
        if (!b->data)
            abort();
    }
    memcpy(b->data + b->size, data, n);
    b->size += n;
    return PVL_OK;
}

static pvl_status load(const bytes *files, size_t count, pvl_error *err) {
    engine_file named[2] = {{0}};
    pvl_engine *engine;
    for (size_t i = 0; i < count; i++)
        named[i] = (engine_file){"model.gguf", files[i].data, files[i].size};
    pvl_status status = engine_from_files(&engine, named, count, NULL, err);
    pvl_engine_free(engine);
    return status;
}

/* What to change in a copy. */
typedef struct change {
    const char *drop_tensor, *rename_tensor, *to; /* to: the new name */
    const char *transpose_tensor;
    const char *cut_tensor;        /* one row less */
    const char *drop_key;          /* metadata */
    const char *u32_key, *str_key; /* set to */
    uint32_t u32;
    const char *str;
    const char *f32_key;
    float f32;
    const char *extra_tensor;
    bool vision_only;
} change;

static bool is(const char *a, const char *b) {
    return a && strcmp(a, b) == 0;
}

static bool in_vision(const char *name) {
    return strncmp(name, "v.", 2) == 0 || strncmp(name, "mm.", 3) == 0;
}

static bytes altered(const bytes *file, const change *c) {
    pvl_error err = {0};
    pvl_gguf *g;
    pvl_gguf_writer *w;
    bytes out = {0};
    bool need_more;
    pvl_status status = pvl_gguf_parse_head(&g, &need_more, NULL, "sound", file->data, file->size,
                                            file->size, &err);
    CHECK_EQ_INT(status, PVL_OK);
    pvl_gguf_writer_new(&w, NULL, &err);
    for (size_t i = 0; i < pvl_gguf_kv_count(g); i++) {
        const pvl_gguf_kv *kv = pvl_gguf_kv_at(g, i);
        if (is(c->drop_key, kv->key) ||
            (c->vision_only && strcmp(kv->key, "general.architecture") == 0))
            continue;
        pvl_gguf_writer_copy(w, kv, &err);
    }
    if (c->u32_key)
        pvl_gguf_writer_u32(w, c->u32_key, c->u32, &err);
    if (c->str_key)
        pvl_gguf_writer_str(w, c->str_key, c->str, &err);
    if (c->f32_key)
        pvl_gguf_writer_f32(w, c->f32_key, c->f32, &err);
    bool *kept = calloc(pvl_gguf_tensor_count(g) + 1, sizeof *kept);
    size_t *cut = calloc(pvl_gguf_tensor_count(g) + 1, sizeof *cut);
    for (size_t i = 0; kept && i < pvl_gguf_tensor_count(g); i++) {
        const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, i);
        if (is(c->drop_tensor, t->name) || (c->vision_only && !in_vision(t->name)))
            continue;
        size_t ne[4] = {t->ne[0], t->ne[1], t->ne[2], t->ne[3]};
        if (is(c->transpose_tensor, t->name)) {
            ne[0] = t->ne[1];
            ne[1] = t->ne[0];
        }
        if (is(c->cut_tensor, t->name)) {
            cut[i] = t->bytes / t->ne[t->dims - 1];
            ne[t->dims - 1]--;
        }
        kept[i] = true;
        pvl_gguf_writer_tensor(w, is(c->rename_tensor, t->name) ? c->to : t->name, t->type, ne,
                               t->dims, &err);
    }
    size_t extra[] = {32};
    if (c->extra_tensor)
        pvl_gguf_writer_tensor(w, c->extra_tensor, PVL_DTYPE_F32, extra, 1, &err);
    pvl_gguf_writer_plan(w, 0, &err);
    pvl_gguf_writer_begin(w, 0, append, &out, &err);
    for (size_t i = 0; kept && i < pvl_gguf_tensor_count(g); i++) {
        const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, i);
        if (kept[i])
            pvl_gguf_writer_data(w, file->data + pvl_gguf_data_start(g) + t->offset,
                                 t->bytes - cut[i], &err);
    }
    float zeros[32] = {0};
    if (c->extra_tensor)
        pvl_gguf_writer_data(w, zeros, sizeof zeros, &err);
    pvl_gguf_writer_end(w, &err);
    CHECK_MSG(err.code == PVL_OK, "%s", err.message);
    free(kept);
    free(cut);
    pvl_gguf_writer_free(w);
    pvl_gguf_free(g);
    return out;
}

static bytes read_sound(void) {
    bytes b = {0};
    b.data = test_read_file(sound, &b.size);
    CHECK(b.data != NULL);
    return b;
}

TEST(one_thing_wrong) {
    static const struct {
        change change;
        pvl_status status;
        const char *says;
    } cases[] = {
        {{.drop_tensor = "blk.1.ffn_down.weight"}, PVL_E_MODEL, "blk.1.ffn_down.weight is missing"},
        {{.drop_tensor = "blk.0.attn_q.bias"}, PVL_E_MODEL, "blk.0.attn_q.bias is missing"},
        {{.drop_tensor = "blk.0.attn_norm.weight"},
         PVL_E_MODEL,
         "blk.0.attn_norm.weight is missing"},
        {{.drop_tensor = "token_embd.weight"}, PVL_E_MODEL, "token_embd.weight is missing"},
        {{.drop_tensor = "output_norm.weight"}, PVL_E_MODEL, "output_norm.weight is missing"},
        {{.drop_tensor = "v.class_embd"}, PVL_E_MODEL, "v.class_embd is missing"},
        {{.drop_tensor = "v.blk.0.ls1.weight"}, PVL_E_MODEL, "v.blk.0.ls1.weight is missing"},
        {{.drop_tensor = "mm.model.mlp.3.weight"}, PVL_E_MODEL, "mm.model.mlp.3.weight"},
        {{.rename_tensor = "blk.0.ffn_up.weight", .to = "blk.0.ffn_upp.weight"},
         PVL_E_MODEL,
         "blk.0.ffn_upp.weight is not part"},
        {{.rename_tensor = "blk.0.ffn_up.weight", .to = "blk.99.ffn_up.weight"},
         PVL_E_MODEL,
         "blk.99.ffn_up.weight is not part"},
        {{.rename_tensor = "blk.0.ffn_up.weight", .to = "blk.4294967296.ffn_up.weight"},
         PVL_E_MODEL,
         "is not part"},
        {{.extra_tensor = "blk.0.attn_q_norm.weight"},
         PVL_E_MODEL,
         "blk.0.attn_q_norm.weight is not part"},
        {{.cut_tensor = "output.weight"}, PVL_E_MODEL, "output.weight has shape"},
        {{.cut_tensor = "token_embd.weight"}, PVL_E_MODEL, "token_embd.weight has shape"},
        {{.cut_tensor = "v.position_embd.weight"}, PVL_E_MODEL, "v.position_embd.weight has shape"},
        {{.transpose_tensor = "blk.0.attn_k.weight"}, PVL_E_MODEL, "blk.0.attn_k.weight has shape"},
        {{.u32_key = "qwen2.block_count", .u32 = 0}, PVL_E_MODEL, "qwen2.block_count must be"},
        {{.u32_key = "qwen2.block_count", .u32 = 0xFFFFFFFFu},
         PVL_E_MODEL,
         "qwen2.block_count must be"},
        {{.u32_key = "qwen2.block_count", .u32 = 200}, PVL_E_MODEL, "is missing"},
        {{.u32_key = "qwen2.embedding_length", .u32 = 65536}, PVL_E_UNSUPPORTED, "heads"},
        {{.u32_key = "qwen2.attention.head_count", .u32 = 3}, PVL_E_UNSUPPORTED, "heads"},
        {{.u32_key = "qwen2.attention.head_count_kv", .u32 = 60000}, PVL_E_UNSUPPORTED, "heads"},
        {{.u32_key = "qwen2.feed_forward_length", .u32 = 1}, PVL_E_UNSUPPORTED, "feed-forward"},
        {{.f32_key = "qwen2.rope.freq_base", .f32 = -1.0f}, PVL_E_MODEL, "rope.freq_base"},
        {{.f32_key = "qwen2.attention.layer_norm_rms_epsilon", .f32 = NAN}, PVL_E_MODEL, "epsilon"},
        {{.str_key = "general.architecture", .str = "mamba"},
         PVL_E_UNSUPPORTED,
         "\"mamba\" is not one of"},
        {{.str_key = "clip.projector_type", .str = "ldp"},
         PVL_E_UNSUPPORTED,
         "\"ldp\" is not InternVL's"},
        {{.str_key = "tokenizer.ggml.model", .str = "bert"},
         PVL_E_UNSUPPORTED,
         "tokenizer.ggml.model"},
        {{.str_key = "pocketvl.template", .str = "vicuna"}, PVL_E_UNSUPPORTED, "vicuna"},
        {{.drop_key = "tokenizer.ggml.tokens"}, PVL_E_MODEL, "tokenizer.ggml.tokens"},
        {{.drop_key = "tokenizer.ggml.merges"},
         PVL_OK,
         ""}, /* a vocabulary of bytes is a vocabulary */
        {{.u32_key = "clip.vision.patch_size", .u32 = 0}, PVL_E_MODEL, "clip.vision.patch_size"},
        {{.u32_key = "clip.vision.patch_size", .u32 = 5}, PVL_E_UNSUPPORTED, "patches of 5"},
        {{.u32_key = "clip.vision.image_size", .u32 = 100000},
         PVL_E_MODEL,
         "clip.vision.image_size"},
        {{.u32_key = "clip.vision.projection_dim", .u32 = 32}, PVL_E_MODEL, ""},
        {{.u32_key = "clip.vision.projector.scale_factor", .u32 = 4},
         PVL_E_UNSUPPORTED,
         "shuffled by 4"},
        {{.vision_only = true}, PVL_E_MODEL, "no language model"},
        {{0}, PVL_OK, ""},
    };
    bytes file = read_sound();
    REQUIRE(file.data != NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pvl_error err = {0};
        bytes copy = altered(&file, &cases[i].change);
        pvl_status status = load(&copy, 1, &err);
        CHECK_MSG(status == cases[i].status, "case %zu: %s, expected %s: %s", i,
                  pvl_status_name(status), pvl_status_name(cases[i].status), err.message);
        CHECK_EQ_INT(err.code, status);
        CHECK_CONTAINS(err.message, cases[i].says);
        free(copy.data);
    }
    free(file.data);
}

TEST(cut_anywhere) {
    bytes file = read_sound();
    REQUIRE(file.data != NULL);
    test_rng rng = test_rng_start(1);
    for (int i = 0; i < 200; i++) {
        bytes part = {file.data, i < 40 ? (size_t)i : test_rng_below(&rng, file.size), 0};
        pvl_error err = {0};
        pvl_status status = load(&part, 1, &err);
        CHECK_MSG(status != PVL_OK && err.message[0], "%zu bytes were taken for a whole model",
                  part.size);
        CHECK_MSG(status == PVL_E_FORMAT, "%zu bytes: %s: %s", part.size, pvl_status_name(status),
                  err.message);
    }
    pvl_error err = {0};
    CHECK_EQ_INT(load(&file, 1, &err), PVL_OK);
    free(file.data);
}

TEST(wrong_company) {
    bytes file = read_sound(), other = {0};
    other.data = test_read_file("tests/fixtures/model/internlm2-q8_0-mmproj.gguf", &other.size);
    REQUIRE(file.data && other.data);
    pvl_error err = {0};
    bytes twice[] = {file, file}, with_vision[] = {file, other};
    CHECK_EQ_INT(load(twice, 2, &err), PVL_E_MODEL);
    CHECK_CONTAINS(err.message, "already");
    err = (pvl_error){0};
    CHECK_EQ_INT(load(with_vision, 2, &err), PVL_E_MODEL);
    CHECK_CONTAINS(err.message, "already");
    err = (pvl_error){0};
    CHECK_EQ_INT(load(&other, 1, &err), PVL_E_MODEL);
    CHECK_CONTAINS(err.message, "no language model");
    err = (pvl_error){0};
    CHECK_EQ_INT(load(NULL, 0, &err), PVL_E_MODEL);
    free(file.data);
    free(other.data);
}

/* Single bytes changed anywhere: whatever comes out, it comes out as a status. */
TEST(random_damage) {
    bytes file = read_sound();
    REQUIRE(file.data != NULL);
    test_rng rng = test_rng_start(2);
    for (int i = 0; i < 400; i++) {
        size_t at = test_rng_below(&rng, i % 2 ? file.size : 20000);
        unsigned char old = file.data[at];
        file.data[at] = (unsigned char)test_rng_u32(&rng);
        pvl_error err = {0};
        pvl_status status = load(&file, 1, &err);
        CHECK(err.code == status);
        CHECK(status == PVL_OK || err.message[0]);
        CHECK(status != PVL_E_INTERNAL);
        file.data[at] = old;
    }
    free(file.data);
}

/* The estimate needs the heads alone, and says what loading then takes. */
TEST(estimate_is_what_is_used) {
    bytes file = read_sound();
    REQUIRE(file.data != NULL);
    pvl_error err = {0};
    pvl_memory m;
    pvl_gguf *g;
    REQUIRE(pvl_gguf_parse_head(&g, NULL, NULL, "sound", file.data, file.size, 0, &err) == PVL_OK);
    pvl_bytes head = {file.data, (size_t)pvl_gguf_data_start(g)};
    pvl_gguf_free(g);
    CHECK_EQ_INT(pvl_estimate(&m, &head, 1, NULL, &(pvl_session_options){.context = 256}, &err),
                 PVL_OK);
    CHECK(m.weights > 0 && m.kv_cache > 0 && m.scratch > 0 && m.peak_load >= m.weights);
    head.bytes /= 2;
    CHECK_EQ_INT(pvl_estimate(&m, &head, 1, NULL, NULL, &err), PVL_E_FORMAT);
    free(file.data);
}

TEST_MAIN(CASE(one_thing_wrong), CASE(cut_anywhere), CASE(wrong_company), CASE(random_damage),
          CASE(estimate_is_what_is_used))
