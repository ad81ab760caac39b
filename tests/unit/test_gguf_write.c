/* GGUF writer: what it writes is what the reader reads, whole and split, and the same each time. */
#include "../test.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "tensor/gguf_write.h"

typedef struct file {
    unsigned char *data;
    size_t n, capacity;
    size_t refuse_after; /* 0 = never */
} file;

static pvl_status take(void *ctx, const void *bytes, size_t n, pvl_error *err) {
    file *f = ctx;
    if (f->refuse_after && f->n + n > f->refuse_after)
        return pvl_fail(err, PVL_E_IO, "The disk is full.");
    if (f->n + n > f->capacity) {
        f->capacity = 2 * (f->n + n);
        f->data = realloc(f->data, f->capacity);
        if (!f->data)
            abort();
    }
    memcpy(f->data + f->n, bytes, n);
    f->n += n;
    return PVL_OK;
}

enum { TENSORS = 9 };
static const struct {
    const char *name;
    pvl_dtype type;
    uint32_t dims;
    size_t ne[4];
} tensors[TENSORS] = {{"token_embd.weight", PVL_DTYPE_Q8_0, 2, {64, 10}},
                      {"a", PVL_DTYPE_F32, 1, {3}},
                      {"b", PVL_DTYPE_F16, 4, {5, 3, 2, 2}},
                      {"c", PVL_DTYPE_Q4_0, 2, {32, 3}},
                      {"d", PVL_DTYPE_Q6_K, 2, {256, 2}},
                      {"e", PVL_DTYPE_BF16, 2, {7, 7}},
                      {"f", PVL_DTYPE_F32, 3, {1, 1, 4}},
                      {"g", PVL_DTYPE_IQ4_XS, 1, {256}},
                      {"h", PVL_DTYPE_F32, 1, {200}}};

static pvl_status make(pvl_gguf_writer **out, pvl_error *err) {
    pvl_gguf_writer *w;
    PVL_TRY(pvl_gguf_writer_new(&w, NULL, err));
    *out = w;
    static const int32_t ids[] = {5, -6, 7};
    static const float scores[] = {0.5f, -1};
    static const pvl_gguf_string words[] = {{"one", 3}, {"", 0}, {"t\0o", 3}};
    PVL_TRY(pvl_gguf_writer_str(w, "general.architecture", "qwen2", err));
    PVL_TRY(pvl_gguf_writer_str(w, "general.name", "first", err));
    PVL_TRY(pvl_gguf_writer_u8(w, "u8", 250, err));
    PVL_TRY(pvl_gguf_writer_u16(w, "u16", 65000, err));
    PVL_TRY(pvl_gguf_writer_u32(w, "u32", 4000000000u, err));
    PVL_TRY(pvl_gguf_writer_i32(w, "i32", -5, err));
    PVL_TRY(pvl_gguf_writer_u64(w, "u64", UINT64_MAX, err));
    PVL_TRY(pvl_gguf_writer_f32(w, "f32", 1e-6f, err));
    PVL_TRY(pvl_gguf_writer_bool(w, "yes", true, err));
    PVL_TRY(pvl_gguf_writer_array(w, "ids", PVL_GGUF_I32, ids, 3, err));
    PVL_TRY(pvl_gguf_writer_array(w, "scores", PVL_GGUF_F32, scores, 2, err));
    PVL_TRY(pvl_gguf_writer_array(w, "none", PVL_GGUF_U8, NULL, 0, err));
    PVL_TRY(pvl_gguf_writer_array_str(w, "words", words, 3, err));
    PVL_TRY(pvl_gguf_writer_str(w, "general.name", "ein Name", err)); /* replaces */
    for (size_t i = 0; i < TENSORS; i++)
        PVL_TRY(pvl_gguf_writer_tensor(w, tensors[i].name, tensors[i].type, tensors[i].ne,
                                       tensors[i].dims, err));
    return PVL_OK;
}

static size_t bytes_of(size_t tensor) {
    size_t n = 1, bytes = 0;
    for (uint32_t d = 0; d < tensors[tensor].dims; d++)
        n *= tensors[tensor].ne[d];
    CHECK(pvl_dtype_bytes(&bytes, tensors[tensor].type, n));
    return bytes;
}

static unsigned char byte_at(size_t tensor, size_t at) {
    return (unsigned char)(tensor * 31 + at * 7 + 1);
}

static pvl_status write_shard(pvl_gguf_writer *w, size_t shard, file *f, size_t portion,
                              pvl_error *err) {
    size_t first, count;
    pvl_gguf_writer_shard_tensors(w, shard, &first, &count);
    PVL_TRY(pvl_gguf_writer_begin(w, shard, take, f, err));
    for (size_t t = first; t < first + count; t++) {
        unsigned char data[4096];
        size_t bytes = bytes_of(t);
        for (size_t i = 0; i < bytes; i++)
            data[i] = byte_at(t, i);
        for (size_t at = 0; at < bytes; at += portion) {
            size_t n = bytes - at < portion ? bytes - at : portion;
            PVL_TRY(pvl_gguf_writer_data(w, data + at, n, err));
        }
    }
    return pvl_gguf_writer_end(w, err);
}

typedef struct check_ctx {
    size_t seen, first;
    bool bad;
} check_ctx;

static pvl_status check_data(void *ctx, const pvl_gguf *g, size_t index, uint64_t offset,
                             const void *bytes, size_t n, pvl_error *err) {
    check_ctx *c = ctx;
    const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, index);
    (void)err;
    if (strcmp(t->name, tensors[c->first + index].name) != 0)
        c->bad = true;
    for (size_t i = 0; i < n; i++)
        if (((const unsigned char *)bytes)[i] != byte_at(c->first + index, (size_t)offset + i))
            c->bad = true;
    c->seen += n;
    return PVL_OK;
}

/* Reads one written file back; the head goes to the caller. */
static pvl_gguf *read_back(const file *f, size_t first, size_t *data_bytes) {
    check_ctx c = {0, first, false};
    pvl_gguf_callbacks callbacks = {&c, NULL, check_data};
    pvl_gguf_stream *s;
    pvl_error err = {0};
    pvl_gguf *g = NULL;
    if (pvl_gguf_stream_new(&s, NULL, "w.gguf", f->n, &callbacks, &err) != PVL_OK)
        return NULL;
    if (pvl_gguf_stream_push(s, f->data, f->n, &err) == PVL_OK &&
        pvl_gguf_stream_finish(s, &err) == PVL_OK)
        g = pvl_gguf_stream_take(s);
    CHECK_STR(err.message, "");
    CHECK(!c.bad);
    pvl_gguf_stream_free(s);
    *data_bytes = c.seen;
    return g;
}

static void check_metadata(const pvl_gguf *g) {
    uint32_t u32 = 0;
    int32_t i32 = 0, *ids;
    uint64_t u64 = 0;
    float f32 = 0, *scores;
    bool yes = false;
    size_t n;
    pvl_gguf_string *words;
    CHECK_STR(pvl_gguf_kv_at(g, 0)->key, "general.architecture");
    CHECK_STR(pvl_gguf_kv_at(g, 1)->key, "general.name");
    CHECK(pvl_gguf_str_is(g, "general.name", "ein Name"));
    CHECK(pvl_gguf_u32(g, "u8", &u32) && u32 == 250);
    CHECK(pvl_gguf_u32(g, "u16", &u32) && u32 == 65000);
    CHECK(pvl_gguf_u32(g, "u32", &u32) && u32 == 4000000000u);
    CHECK(pvl_gguf_i32(g, "i32", &i32) && i32 == -5);
    CHECK(pvl_gguf_u64(g, "u64", &u64) && u64 == UINT64_MAX);
    CHECK(pvl_gguf_f32(g, "f32", &f32) && f32 == 1e-6f);
    CHECK(pvl_gguf_bool(g, "yes", &yes) && yes);
    REQUIRE(pvl_gguf_array_i32(g, "ids", &ids, &n, NULL) == PVL_OK);
    CHECK(n == 3 && ids[0] == 5 && ids[1] == -6 && ids[2] == 7);
    pvl_free(NULL, ids);
    REQUIRE(pvl_gguf_array_f32(g, "scores", &scores, &n, NULL) == PVL_OK);
    CHECK(n == 2 && scores[0] == 0.5f && scores[1] == -1);
    pvl_free(NULL, scores);
    CHECK(pvl_gguf_find_kv(g, "none") && pvl_gguf_find_kv(g, "none")->count == 0);
    REQUIRE(pvl_gguf_array_str(g, "words", &words, &n, NULL) == PVL_OK);
    CHECK(n == 3 && words[1].bytes == 0 && words[2].bytes == 3 &&
          memcmp(words[2].data, "t\0o", 3) == 0);
    pvl_free(NULL, words);
}

TEST(writes_what_the_reader_reads) {
    pvl_gguf_writer *w;
    pvl_error err = {0};
    REQUIRE(make(&w, &err) == PVL_OK);
    REQUIRE(pvl_gguf_writer_plan(w, 0, &err) == PVL_OK);
    CHECK_EQ_UINT(pvl_gguf_writer_shards(w), 1);
    file f = {0};
    REQUIRE(write_shard(w, 0, &f, 4096, &err) == PVL_OK);
    CHECK_EQ_UINT(f.n, pvl_gguf_writer_shard_bytes(w, 0));
    CHECK_EQ_UINT(f.n % 32, 0);
    size_t data_bytes;
    pvl_gguf *g = read_back(&f, 0, &data_bytes);
    REQUIRE(g != NULL);
    check_metadata(g);
    CHECK_EQ_UINT(pvl_gguf_kv_count(g), 13);
    /* The strict form: in order, without gaps. */
    uint64_t next = 0;
    for (size_t i = 0; i < TENSORS; i++) {
        const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, i);
        CHECK_STR(t->name, tensors[i].name);
        CHECK(t->type == tensors[i].type && t->dims == tensors[i].dims);
        for (uint32_t d = 0; d < t->dims; d++)
            CHECK_EQ_UINT(t->ne[d], tensors[i].ne[d]);
        CHECK_EQ_UINT(t->offset, next);
        next += (t->bytes + 31) / 32 * 32;
    }
    CHECK_EQ_UINT(pvl_gguf_data_start(g) + next, f.n);

    /* Every value copied gives the same bytes; so does every size of portions. */
    pvl_gguf_writer *copy;
    REQUIRE(pvl_gguf_writer_new(&copy, NULL, &err) == PVL_OK);
    for (size_t i = 0; i < pvl_gguf_kv_count(g); i++)
        CHECK_EQ_INT(pvl_gguf_writer_copy(copy, pvl_gguf_kv_at(g, i), &err), PVL_OK);
    for (size_t i = 0; i < TENSORS; i++)
        CHECK_EQ_INT(pvl_gguf_writer_tensor(copy, tensors[i].name, tensors[i].type, tensors[i].ne,
                                            tensors[i].dims, &err),
                     PVL_OK);
    REQUIRE(pvl_gguf_writer_plan(copy, 0, &err) == PVL_OK);
    file again = {0};
    REQUIRE(write_shard(copy, 0, &again, 5, &err) == PVL_OK);
    CHECK_EQ_UINT(again.n, f.n);
    CHECK_MEM(again.data, f.data, f.n);
    pvl_gguf_writer_free(copy);
    pvl_gguf_free(g);
    pvl_gguf_writer_free(w);
    free(f.data);
    free(again.data);
}

TEST(splits_into_whole_files) {
    static const uint64_t sizes[] = {1, 512, 1000, 1500, 1000000};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        pvl_gguf_writer *w;
        pvl_error err = {0};
        REQUIRE(make(&w, &err) == PVL_OK);
        REQUIRE(pvl_gguf_writer_plan(w, sizes[s], &err) == PVL_OK);
        size_t shards = pvl_gguf_writer_shards(w), next = 0, data = 0, expected = 0;
        CHECK(s == 0 ? shards == TENSORS : s == 4 ? shards == 1 : shards > 1 && shards < TENSORS);
        for (size_t t = 0; t < TENSORS; t++)
            expected += bytes_of(t);
        for (size_t i = 0; i < shards; i++) {
            file f = {0};
            size_t first, count, data_bytes;
            pvl_gguf_writer_shard_tensors(w, i, &first, &count);
            CHECK(first == next && count > 0);
            next += count;
            REQUIRE(write_shard(w, i, &f, 100, &err) == PVL_OK);
            CHECK_EQ_UINT(f.n, pvl_gguf_writer_shard_bytes(w, i));
            pvl_gguf *g = read_back(&f, first, &data_bytes);
            REQUIRE(g != NULL);
            data += data_bytes;
            CHECK(count == 1 || f.n - pvl_gguf_data_start(g) <= sizes[s]);
            if (i == 0)
                check_metadata(g);
            uint32_t no = 99, of = 99, all = 99;
            if (shards > 1) {
                CHECK(pvl_gguf_u32(g, "split.no", &no) && no == i);
                CHECK(pvl_gguf_find_kv(g, "split.no")->type == PVL_GGUF_U16);
                CHECK(pvl_gguf_u32(g, "split.count", &of) && of == shards);
                CHECK(pvl_gguf_u32(g, "split.tensors.count", &all) && all == TENSORS);
                CHECK(pvl_gguf_find_kv(g, "split.tensors.count")->type == PVL_GGUF_I32);
                CHECK(i == 0 || pvl_gguf_kv_count(g) == 3);
            } else {
                CHECK(!pvl_gguf_has(g, "split.no"));
            }
            pvl_gguf_free(g);
            free(f.data);
        }
        CHECK(next == TENSORS && data == expected);
        pvl_gguf_writer_free(w);
    }
    char name[40];
    CHECK(pvl_gguf_shard_name(name, sizeof name, "m/model", 0, 3));
    CHECK_STR(name, "m/model-00001-of-00003.gguf");
    CHECK(pvl_gguf_shard_name(name, sizeof name, "model", 0, 1));
    CHECK_STR(name, "model.gguf");
    CHECK(!pvl_gguf_shard_name(name, 26, "m/model", 0, 3));
}

static pvl_status pass_on(void *ctx, const pvl_gguf *g, size_t index, uint64_t offset,
                          const void *bytes, size_t n, pvl_error *err) {
    (void)g, (void)index, (void)offset;
    return pvl_gguf_writer_data(ctx, bytes, n, err);
}

TEST(copies_a_file_of_the_python_package_byte_for_byte) {
    size_t size;
    unsigned char *data = test_read_file("tests/fixtures/small.gguf", &size);
    REQUIRE(data != NULL);
    pvl_gguf_writer *w;
    pvl_gguf_stream *s;
    pvl_gguf *g;
    pvl_error err = {0};
    file f = {0};
    REQUIRE(pvl_gguf_parse_head(&g, NULL, NULL, "small.gguf", data, size, size, &err) == PVL_OK);
    REQUIRE(pvl_gguf_writer_new(&w, NULL, &err) == PVL_OK);
    for (size_t i = 0; i < pvl_gguf_kv_count(g); i++)
        CHECK_EQ_INT(pvl_gguf_writer_copy(w, pvl_gguf_kv_at(g, i), &err), PVL_OK);
    for (size_t i = 0; i < pvl_gguf_tensor_count(g); i++) {
        const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, i);
        CHECK_EQ_INT(pvl_gguf_writer_tensor(w, t->name, t->type, t->ne, t->dims, &err), PVL_OK);
    }
    REQUIRE(pvl_gguf_writer_plan(w, 0, &err) == PVL_OK);
    REQUIRE(pvl_gguf_writer_begin(w, 0, take, &f, &err) == PVL_OK);
    pvl_gguf_callbacks callbacks = {w, NULL, pass_on};
    REQUIRE(pvl_gguf_stream_new(&s, NULL, "small.gguf", size, &callbacks, &err) == PVL_OK);
    CHECK_EQ_INT(pvl_gguf_stream_push(s, data, size, &err), PVL_OK);
    CHECK_EQ_INT(pvl_gguf_stream_finish(s, &err), PVL_OK);
    CHECK_EQ_INT(pvl_gguf_writer_end(w, &err), PVL_OK);
    CHECK_EQ_UINT(f.n, size);
    CHECK_MEM(f.data, data, f.n < size ? f.n : size);
    pvl_gguf_stream_free(s);
    pvl_gguf_writer_free(w);
    pvl_gguf_free(g);
    free(f.data);
    free(data);
}

TEST(refuses_misuse) {
    pvl_gguf_writer *w;
    pvl_error err = {0};
    file f = {0};
    size_t ne[4] = {32, 2, 1, 1}, zero[1] = {0}, odd[1] = {33};
    REQUIRE(pvl_gguf_writer_new(&w, NULL, &err) == PVL_OK);
    CHECK_EQ_INT(pvl_gguf_writer_u32(w, "", 1, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_u32(w, "general.alignment", 64, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_u16(w, "split.no", 0, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_array(w, "k", PVL_GGUF_STRING, ne, 1, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "", PVL_DTYPE_F32, ne, 1, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "x", PVL_DTYPE_F32, ne, 0, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "x", PVL_DTYPE_F32, ne, 5, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "x", PVL_DTYPE_F32, zero, 1, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "x", PVL_DTYPE_Q4_0, odd, 1, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "x", (pvl_dtype)16, ne, 1, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w,
                                        "a name that has sixty-four bytes, which is one more than "
                                        "allowed",
                                        PVL_DTYPE_F32, ne, 1, NULL),
                 PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_gguf_writer_begin(w, 0, take, &f, NULL), PVL_E_STATE);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "x", PVL_DTYPE_Q8_0, ne, 2, &err), PVL_OK);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "x", PVL_DTYPE_F32, ne, 2, &err), PVL_E_ARGUMENT);
    CHECK_STR(err.message, "Tensor x is there twice.");
    CHECK_EQ_INT(pvl_gguf_writer_plan(w, 0, NULL), PVL_OK);
    CHECK_EQ_INT(pvl_gguf_writer_plan(w, 0, NULL), PVL_E_STATE);
    CHECK_EQ_INT(pvl_gguf_writer_u32(w, "k", 1, NULL), PVL_E_STATE);
    CHECK_EQ_INT(pvl_gguf_writer_tensor(w, "y", PVL_DTYPE_F32, ne, 1, NULL), PVL_E_STATE);
    CHECK_EQ_INT(pvl_gguf_writer_data(w, ne, 1, NULL), PVL_E_STATE);
    CHECK_EQ_INT(pvl_gguf_writer_end(w, NULL), PVL_E_STATE);
    CHECK_EQ_INT(pvl_gguf_writer_begin(w, 1, take, &f, NULL), PVL_E_STATE);
    CHECK_EQ_INT(pvl_gguf_writer_begin(w, 0, take, &f, NULL), PVL_OK);
    CHECK_EQ_INT(pvl_gguf_writer_begin(w, 0, take, &f, NULL), PVL_E_STATE);
    unsigned char data[69] = {0};
    CHECK_EQ_INT(pvl_gguf_writer_data(w, data, 60, NULL), PVL_OK);
    memset(&err, 0, sizeof err);
    CHECK_EQ_INT(pvl_gguf_writer_end(w, &err), PVL_E_STATE);
    CHECK_STR(err.message, "Tensor x lacks 8 of its 68 bytes.");
    memset(&err, 0, sizeof err);
    CHECK_EQ_INT(pvl_gguf_writer_data(w, data, 9, &err), PVL_E_STATE);
    CHECK_STR(err.message, "Tensor x gets 1 bytes too many.");
    CHECK_EQ_INT(pvl_gguf_writer_data(w, data, 8, NULL), PVL_OK);
    CHECK_EQ_INT(pvl_gguf_writer_data(w, data, 1, NULL), PVL_E_STATE);
    CHECK_EQ_INT(pvl_gguf_writer_end(w, NULL), PVL_OK);
    pvl_gguf_writer_free(w);
    free(f.data);
}

TEST(a_full_disk_ends_it) {
    size_t sizes[] = {1, 100, 1500, 3000};
    for (size_t i = 0; i < 4; i++) {
        pvl_gguf_writer *w;
        pvl_error err = {0};
        file f = {.refuse_after = sizes[i]};
        REQUIRE(make(&w, &err) == PVL_OK);
        REQUIRE(pvl_gguf_writer_plan(w, 0, &err) == PVL_OK);
        CHECK_EQ_INT(write_shard(w, 0, &f, 64, &err), PVL_E_IO);
        CHECK_STR(err.message, "The disk is full.");
        pvl_gguf_writer_free(w);
        free(f.data);
    }
}

TEST_MAIN(CASE(writes_what_the_reader_reads), CASE(splits_into_whole_files),
          CASE(copies_a_file_of_the_python_package_byte_for_byte), CASE(refuses_misuse),
          CASE(a_full_disk_ends_it))
