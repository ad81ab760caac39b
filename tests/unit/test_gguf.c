/* GGUF reader: a file of the Python package, portions of every size, and files that lie. */
#include "../test.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "tensor/gguf.h"

/* ---- a file being made, byte by byte, without the library's writer ---- */

typedef struct file {
    unsigned char data[8192];
    size_t n;
} file;

static void put(file *f, const void *p, size_t n) {
    if (n == 0)
        return;
    if (f->n + n > sizeof f->data)
        abort();
    memcpy(f->data + f->n, p, n);
    f->n += n;
}
static void put_u8(file *f, unsigned v) {
    unsigned char b = (unsigned char)v;
    put(f, &b, 1);
}
static void put_u32(file *f, uint32_t v) {
    for (int i = 0; i < 4; i++)
        put_u8(f, v >> 8 * i & 255);
}
static void put_u64(file *f, uint64_t v) {
    put_u32(f, (uint32_t)v);
    put_u32(f, (uint32_t)(v >> 32));
}
static void put_str(file *f, const char *s) {
    put_u64(f, strlen(s));
    put(f, s, strlen(s));
}
static void put_head(file *f, uint32_t version, uint64_t tensors, uint64_t keys) {
    f->n = 0;
    put(f, "GGUF", 4);
    put_u32(f, version);
    put_u64(f, tensors);
    put_u64(f, keys);
}
static void put_key_u32(file *f, const char *key, uint32_t v) {
    put_str(f, key);
    put_u32(f, PVL_GGUF_U32);
    put_u32(f, v);
}
static void put_tensor(file *f, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1,
                       uint64_t offset) {
    put_str(f, name);
    put_u32(f, 2);
    put_u64(f, ne0);
    put_u64(f, ne1);
    put_u32(f, type);
    put_u64(f, offset);
}
static void pad(file *f, size_t to, size_t data) {
    while (f->n % to)
        put_u8(f, 0);
    for (size_t i = 0; i < data; i++)
        put_u8(f, (unsigned)(i * 7 + 1) & 255);
}

/* A sound file: two keys, two tensors of 64 and 128 bytes. */
static void put_good(file *f) {
    put_head(f, 3, 2, 3);
    put_str(f, "general.architecture");
    put_u32(f, PVL_GGUF_STRING);
    put_str(f, "qwen2");
    put_key_u32(f, "qwen2.block_count", 24);
    put_str(f, "words");
    put_u32(f, PVL_GGUF_ARRAY);
    put_u32(f, PVL_GGUF_STRING);
    put_u64(f, 3);
    put_str(f, "one");
    put_str(f, "");
    put_str(f, "three");
    put_tensor(f, "a", PVL_DTYPE_F32, 8, 2, 0);
    put_tensor(f, "b", PVL_DTYPE_F16, 16, 4, 64);
    pad(f, 32, 64 + 128);
}

/* ---- what a stream delivers ---- */

typedef struct sink {
    int headers;
    size_t next_tensor; /* place in delivery order */
    size_t last;        /* tensor of the last call */
    uint64_t expected_offset;
    bool bad_order;
    unsigned char data[8192];
    size_t bytes;
    pvl_status header_result, data_result;
} sink;

static pvl_status on_header(void *ctx, const pvl_gguf *g, pvl_error *err) {
    sink *s = ctx;
    s->headers++;
    if (pvl_gguf_tensor_count(g) > 4096)
        s->bad_order = true;
    return s->header_result == PVL_OK ? PVL_OK : pvl_fail(err, s->header_result, "refused head");
}

static pvl_status on_data(void *ctx, const pvl_gguf *g, size_t index, uint64_t offset,
                          const void *bytes, size_t n, pvl_error *err) {
    sink *s = ctx;
    if (s->headers != 1 || n == 0 || index >= pvl_gguf_tensor_count(g)) {
        s->bad_order = true;
        return PVL_OK;
    }
    const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, index);
    if (offset == 0) {
        s->expected_offset = 0;
        s->last = index;
        s->next_tensor++;
    }
    if (index != s->last || offset != s->expected_offset || n > t->bytes - offset)
        s->bad_order = true;
    s->expected_offset += n;
    if (s->bytes + n <= sizeof s->data) {
        memcpy(s->data + s->bytes, bytes, n);
        s->bytes += n;
    }
    return s->data_result == PVL_OK ? PVL_OK : pvl_fail(err, s->data_result, "refused data");
}

/* Pushes a file in portions of at most `portion` bytes (0 = random ones). */
static pvl_status feed(sink *s, const unsigned char *data, size_t n, size_t portion,
                       uint64_t announced, const pvl_allocator *a, pvl_gguf **head,
                       pvl_error *err) {
    pvl_gguf_callbacks callbacks = {s, on_header, on_data};
    pvl_gguf_stream *stream;
    test_rng r = test_rng_start(n);
    memset(err, 0, sizeof *err);
    if (head)
        *head = NULL;
    pvl_status status = pvl_gguf_stream_new(&stream, a, "t.gguf", announced, &callbacks, err);
    if (status != PVL_OK)
        return status;
    for (size_t at = 0; at < n && status == PVL_OK;) {
        size_t m = portion ? portion : 1 + test_rng_below(&r, 200);
        if (m > n - at)
            m = n - at;
        /* An exact copy, so that the sanitizer sees a read past it. */
        unsigned char *copy = malloc(m);
        if (!copy)
            abort();
        memcpy(copy, data + at, m);
        status = pvl_gguf_stream_push(stream, copy, m, err);
        free(copy);
        at += m;
    }
    if (status == PVL_OK)
        status = pvl_gguf_stream_finish(stream, err);
    else
        CHECK(pvl_gguf_stream_push(stream, "x", 1, NULL) != PVL_OK); /* stays failed */
    if (status == PVL_OK && head)
        *head = pvl_gguf_stream_take(stream);
    pvl_gguf_stream_free(stream);
    return status;
}

TEST(reads_a_file_of_the_python_package) {
    size_t size;
    unsigned char *data = test_read_file("tests/fixtures/small.gguf", &size);
    REQUIRE(data != NULL);
    sink s = {0};
    pvl_gguf *g;
    pvl_error err;
    REQUIRE(feed(&s, data, size, 0, size, NULL, &g, &err) == PVL_OK);

    uint32_t u32 = 9;
    int32_t i32 = 9;
    uint64_t u64 = 9;
    float f32 = 9;
    bool flag = false;
    pvl_gguf_string str;
    CHECK(pvl_gguf_str_is(g, "general.architecture", "qwen2"));
    CHECK(!pvl_gguf_str_is(g, "general.architecture", "qwen"));
    REQUIRE(pvl_gguf_str(g, "general.name", &str));
    CHECK_STR(str.data, "Kleines Modell äöü 模型");
    CHECK_EQ_UINT(str.bytes, strlen(str.data));
    CHECK(pvl_gguf_u32(g, "t.u8", &u32) && u32 == 200);
    CHECK(pvl_gguf_i32(g, "t.i8", &i32) && i32 == -100);
    CHECK(pvl_gguf_u32(g, "t.u16", &u32) && u32 == 60000);
    CHECK(pvl_gguf_i32(g, "t.i16", &i32) && i32 == -30000);
    CHECK(pvl_gguf_u32(g, "t.u32", &u32) && u32 == 4000000000u);
    CHECK(pvl_gguf_i32(g, "t.i32", &i32) && i32 == -2000000000);
    CHECK(pvl_gguf_f32(g, "t.f32", &f32) && f32 == 1.5e-6f);
    CHECK(pvl_gguf_bool(g, "t.yes", &flag) && flag);
    CHECK(pvl_gguf_bool(g, "t.no", &flag) && !flag);
    CHECK(pvl_gguf_u64(g, "t.u64", &u64) && u64 == 9223372036854775813u);
    CHECK(pvl_gguf_f32(g, "t.i64", &f32) && f32 == -0x1p62f);
    CHECK(pvl_gguf_f32(g, "t.f64", &f32) && f32 == 0.1f);

    /* What does not fit leaves the default. */
    u32 = 5;
    i32 = 5;
    CHECK(!pvl_gguf_u32(g, "t.i8", &u32) && !pvl_gguf_u32(g, "t.u64", &u32));
    CHECK(!pvl_gguf_u32(g, "t.f64", &u32) && !pvl_gguf_u32(g, "general.name", &u32));
    CHECK(!pvl_gguf_u32(g, "t.strings", &u32) && !pvl_gguf_u32(g, "absent", &u32));
    CHECK(!pvl_gguf_i32(g, "t.u32", &i32) && !pvl_gguf_i32(g, "t.i64", &i32));
    CHECK(!pvl_gguf_str(g, "t.u8", &str) && !pvl_gguf_bool(g, "general.name", &flag));
    CHECK(u32 == 5 && i32 == 5);
    CHECK(pvl_gguf_has(g, "t.no") && !pvl_gguf_has(g, "t.n") && !pvl_gguf_has(g, ""));

    pvl_gguf_string *strings;
    int32_t *ints;
    float *floats;
    size_t n;
    REQUIRE(pvl_gguf_array_str(g, "t.strings", &strings, &n, &err) == PVL_OK);
    CHECK_EQ_UINT(n, 5);
    CHECK(strings[0].bytes == 0 && strings[1].bytes == 1 && strings[1].data[0] == 'a');
    CHECK(strings[3].bytes == 9 && memcmp(strings[3].data, "two words", 9) == 0);
    CHECK(strings[4].bytes == 2 && memcmp(strings[4].data, "\0x", 2) == 0);
    pvl_free(NULL, strings);
    REQUIRE(pvl_gguf_array_i32(g, "t.i32s", &ints, &n, &err) == PVL_OK);
    CHECK(n == 3 && ints[0] == 1 && ints[1] == -2 && ints[2] == 3);
    pvl_free(NULL, ints);
    REQUIRE(pvl_gguf_array_i32(g, "t.bools", &ints, &n, &err) == PVL_OK);
    CHECK(n == 3 && ints[0] == 1 && ints[1] == 0 && ints[2] == 1);
    pvl_free(NULL, ints);
    REQUIRE(pvl_gguf_array_f32(g, "t.f32s", &floats, &n, &err) == PVL_OK);
    CHECK(n == 3 && floats[0] == 0.5f && floats[1] == 1.25f && floats[2] == -3.0f);
    pvl_free(NULL, floats);
    REQUIRE(pvl_gguf_array_f32(g, "absent", &floats, &n, &err) == PVL_OK);
    CHECK(n == 0 && floats == NULL);
    CHECK(pvl_gguf_array_i32(g, "t.f32s", &ints, &n, &err) == PVL_E_FORMAT && ints == NULL);
    CHECK_CONTAINS(err.message, "element 0 of t.f32s");
    memset(&err, 0, sizeof err);
    CHECK(pvl_gguf_array_f32(g, "t.strings", &floats, &n, &err) == PVL_E_FORMAT);
    CHECK_CONTAINS(err.message, "t.strings is an array of string, expected an array of numbers");
    memset(&err, 0, sizeof err);
    CHECK(pvl_gguf_array_str(g, "t.u8", &strings, &n, &err) == PVL_E_FORMAT && n == 0);

    static const struct {
        const char *name;
        pvl_dtype type;
        uint32_t dims;
        size_t ne[4];
    } rows[] = {{"a.weight", PVL_DTYPE_F32, 2, {64, 3, 1, 1}},
                {"b.bias", PVL_DTYPE_F32, 1, {5, 1, 1, 1}},
                {"c.conv", PVL_DTYPE_F32, 4, {5, 4, 3, 2}},
                {"d.half", PVL_DTYPE_F16, 2, {3, 7, 1, 1}},
                {"e.q8", PVL_DTYPE_Q8_0, 2, {32, 2, 1, 1}}};
    CHECK_EQ_UINT(pvl_gguf_tensor_count(g), 5);
    const unsigned char *at = s.data;
    for (size_t k = 0; k < 5; k++) {
        const pvl_gguf_tensor *t = pvl_gguf_find_tensor(g, rows[k].name);
        REQUIRE(t != NULL && t == pvl_gguf_tensor_at(g, k));
        CHECK(t->index == k && t->type == rows[k].type && t->dims == rows[k].dims);
        CHECK_MEM(t->ne, rows[k].ne, sizeof t->ne);
        float y[256];
        REQUIRE(t->elements <= 256);
        pvl_dtype_dequantize(t->type, y, at, t->elements);
        for (size_t i = 0; i < t->elements; i++)
            CHECK_NEAR(y[i], k == 4 ? (double)i - 31 : (double)k + (double)i / 8,
                       k == 4 ? 0.13 : 0.0);
        at += t->bytes;
    }
    CHECK_EQ_UINT(s.bytes, at - s.data);
    CHECK(pvl_gguf_find_tensor(g, "a.weigh") == NULL);
    CHECK_EQ_UINT(pvl_gguf_alignment(g), 32);
    CHECK(!s.bad_order && s.headers == 1);
    pvl_gguf_free(g);

    /* The same in portions of every size. */
    for (size_t portion = 1; portion <= 100; portion += portion < 40 ? 1 : 13) {
        sink p = {0};
        CHECK_EQ_INT(feed(&p, data, size, portion, portion % 2 ? size : 0, NULL, NULL, &err),
                     PVL_OK);
        CHECK(p.bytes == s.bytes && !p.bad_order && p.next_tensor == 5);
        CHECK_MEM(p.data, s.data, s.bytes);
    }
    free(data);
}

TEST(delivers_tensors_by_offset) {
    file f;
    put_head(&f, 2, 3, 0);
    put_tensor(&f, "last", PVL_DTYPE_F32, 4, 1, 192);
    put_tensor(&f, "first", PVL_DTYPE_F32, 4, 1, 32); /* a gap before and after */
    put_tensor(&f, "middle", PVL_DTYPE_F32, 16, 1, 96);
    pad(&f, 32, 192 + 16 + 5); /* and more than the tensors need */
    for (size_t portion = 0; portion < 40; portion++) {
        sink s = {0};
        pvl_gguf *g;
        pvl_error err;
        REQUIRE(feed(&s, f.data, f.n, portion, 0, NULL, &g, &err) == PVL_OK);
        const unsigned char *data = f.data + pvl_gguf_data_start(g);
        CHECK(!s.bad_order && s.bytes == 96);
        CHECK_MEM(s.data, data + 32, 16);
        CHECK_MEM(s.data + 16, data + 96, 64);
        CHECK_MEM(s.data + 80, data + 192, 16);
        CHECK_EQ_UINT(pvl_gguf_file_bytes(g), f.n - 5);
        pvl_gguf_free(g);
    }
}

TEST(every_truncation_is_told) {
    file f;
    put_good(&f);
    pvl_error err;
    pvl_gguf *g;
    bool more;
    sink whole = {0};
    REQUIRE(feed(&whole, f.data, f.n, 0, f.n, NULL, &g, &err) == PVL_OK);
    size_t data_start = (size_t)pvl_gguf_data_start(g);
    pvl_gguf_free(g);
    for (size_t n = 0; n < f.n; n++) {
        sink s = {0};
        CHECK_EQ_INT(feed(&s, f.data, n, 0, 0, NULL, NULL, &err), PVL_E_FORMAT);
        CHECK_CONTAINS(err.message, "t.gguf");
        if (n >= 24)
            CHECK_CONTAINS(err.message, n < data_start - 31 ? "cut off" : "");
        /* Announced, the cut is known when the head is there. */
        sink announced = {0};
        CHECK_EQ_INT(feed(&announced, f.data, n, 0, n, NULL, NULL, &err), PVL_E_FORMAT);
        CHECK_EQ_INT(announced.headers, 0);
        CHECK_EQ_UINT(announced.bytes, 0);

        memset(&err, 0, sizeof err);
        pvl_status status = pvl_gguf_parse_head(&g, &more, NULL, "t.gguf", f.data, n, f.n, &err);
        if (status == PVL_OK) {
            CHECK(n > data_start - 32 && !more);
            CHECK_EQ_UINT(pvl_gguf_tensor_count(g), 2);
            CHECK_EQ_UINT(pvl_gguf_file_bytes(g), f.n);
            pvl_gguf_free(g);
        } else {
            CHECK(n < data_start && more && g == NULL && status == PVL_E_FORMAT);
        }
    }
    /* At the end of the file there is no more to be had. */
    memset(&err, 0, sizeof err);
    CHECK_EQ_INT(pvl_gguf_parse_head(&g, &more, NULL, "t.gguf", f.data, 40, 40, &err),
                 PVL_E_FORMAT);
    CHECK(!more);
    sink s = {0};
    CHECK_EQ_INT(feed(&s, f.data, f.n - 1, 0, 0, NULL, NULL, &err), PVL_E_FORMAT);
    CHECK_CONTAINS(err.message, "tensor b lacks 1 of its 128 bytes and 0 tensors behind it");
}

/* One hostile file: expects `code`, and `piece` in the message. */
static void expect_for(int line, const file *f, pvl_status code, const char *piece) {
    static const size_t portions[] = {0, 1, 8192};
    for (size_t i = 0; i < 3; i++) {
        sink s = {0};
        pvl_error err;
        pvl_status status = feed(&s, f->data, f->n, portions[i], 0, NULL, NULL, &err);
        CHECK_MSG(status == code && err.code == code && strstr(err.message, piece) &&
                      strstr(err.message, "t.gguf") && s.headers == 0,
                  "line %d: %s \"%s\", expected %s \"...%s...\"", line, pvl_status_name(status),
                  err.message, pvl_status_name(code), piece);
        pvl_gguf *g;
        bool more;
        memset(&err, 0, sizeof err);
        status = pvl_gguf_parse_head(&g, &more, NULL, "t.gguf", f->data, f->n, 0, &err);
        CHECK_MSG(status == code && !more && g == NULL, "line %d: parse_head gives %s", line,
                  pvl_status_name(status));
    }
}
#define EXPECT(code, piece) expect_for(__LINE__, &f, code, piece)

TEST(refuses_wrong_beginnings) {
    file f = {.n = 0};
    put(&f, "<!DOCTYPE html>", 15);
    EXPECT(PVL_E_FORMAT, "is not a GGUF file: it begins with the bytes 3C 21 44 4F");
    put_head(&f, 0, 0, 0);
    EXPECT(PVL_E_FORMAT, "version 0");
    put_head(&f, 1, 0, 0);
    EXPECT(PVL_E_UNSUPPORTED, "version 1");
    put_head(&f, 4, 0, 0);
    EXPECT(PVL_E_UNSUPPORTED, "version 4");
    put_head(&f, 0x03000000u, 0, 0);
    EXPECT(PVL_E_UNSUPPORTED, "big-endian");
    put_head(&f, 3, UINT64_MAX, 0);
    EXPECT(PVL_E_FORMAT, "negative number of tensors");
    put_head(&f, 3, 0, UINT64_MAX);
    EXPECT(PVL_E_FORMAT, "negative number of metadata keys");
    put_head(&f, 3, 1u << 30, 0);
    EXPECT(PVL_E_LIMIT, "1073741824 tensors");
    put_head(&f, 3, 0, 1u << 30);
    EXPECT(PVL_E_LIMIT, "1073741824 metadata keys");
}

TEST(refuses_wrong_metadata) {
    file f;
    put_head(&f, 3, 0, 1);
    put_u64(&f, UINT64_MAX);
    EXPECT(PVL_E_LIMIT, "a metadata key at byte 24 says it is 18446744073709551615 bytes long");
    put_head(&f, 3, 0, 1);
    put_u64(&f, 0);
    EXPECT(PVL_E_FORMAT, "metadata key 0 at byte 24 is empty");
    put_head(&f, 3, 0, 1);
    put_u64(&f, 3);
    put(&f, "a\0b", 3);
    EXPECT(PVL_E_FORMAT, "zero byte");
    put_head(&f, 3, 0, 1);
    put_str(&f, "k");
    put_u32(&f, 13);
    EXPECT(PVL_E_FORMAT, "metadata key k has value type 13");
    put_head(&f, 3, 0, 1);
    put_str(&f, "k");
    put_u32(&f, PVL_GGUF_STRING);
    put_u64(&f, (uint64_t)1 << 40);
    EXPECT(PVL_E_LIMIT, "a string at byte");
    put_head(&f, 3, 0, 1);
    put_str(&f, "k");
    put_u32(&f, PVL_GGUF_ARRAY);
    put_u32(&f, PVL_GGUF_U8);
    put_u64(&f, (uint64_t)1 << 62);
    EXPECT(PVL_E_LIMIT, "the array k announces 4611686018427387904 elements");
    put_head(&f, 3, 0, 1);
    put_str(&f, "k");
    put_u32(&f, PVL_GGUF_ARRAY);
    put_u32(&f, PVL_GGUF_F64);
    put_u64(&f, 60u * 1024 * 1024);
    EXPECT(PVL_E_LIMIT, "go beyond 268435456 bytes");
    put_head(&f, 3, 0, 1);
    put_str(&f, "k");
    put_u32(&f, PVL_GGUF_ARRAY);
    put_u32(&f, PVL_GGUF_ARRAY);
    put_u64(&f, 1);
    EXPECT(PVL_E_UNSUPPORTED, "metadata key k has element type 9");
    put_head(&f, 3, 0, 1);
    put_str(&f, "k");
    put_u32(&f, PVL_GGUF_ARRAY);
    put_u32(&f, PVL_GGUF_STRING);
    put_u64(&f, 2);
    put_str(&f, "fine");
    put_u64(&f, UINT64_MAX - 7);
    EXPECT(PVL_E_LIMIT, "a string of an array at byte");
    put_head(&f, 3, 0, 3);
    put_key_u32(&f, "k", 1);
    put_key_u32(&f, "l", 1);
    put_key_u32(&f, "k", 1);
    EXPECT(PVL_E_FORMAT, "metadata key k is there twice");
    static const uint32_t alignments[] = {0, 3, 33, 131072, UINT32_MAX};
    for (size_t i = 0; i < 5; i++) {
        put_head(&f, 3, 0, 1);
        put_key_u32(&f, "general.alignment", alignments[i]);
        EXPECT(PVL_E_FORMAT, "general.alignment");
    }
    put_head(&f, 3, 0, 1);
    put_str(&f, "general.alignment");
    put_u32(&f, PVL_GGUF_STRING);
    put_str(&f, "32");
    EXPECT(PVL_E_FORMAT, "general.alignment");
}

TEST(refuses_wrong_tensors) {
    file f;
    put_head(&f, 3, 1, 0);
    put_u64(&f, 64);
    EXPECT(PVL_E_LIMIT, "a tensor's name at byte 24 says it is 64 bytes long");
    put_head(&f, 3, 1, 0);
    put_u64(&f, 0);
    EXPECT(PVL_E_FORMAT, "the name of tensor 0 at byte 24 is empty");
    for (uint32_t dims = 0; dims < 10; dims += 5) {
        put_head(&f, 3, 1, 0);
        put_str(&f, "w");
        put_u32(&f, dims);
        EXPECT(PVL_E_FORMAT, dims ? "tensor w has 5 dimensions" : "tensor w has 0 dimensions");
    }
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, 8, 0, 0);
    EXPECT(PVL_E_FORMAT, "dimension 1 of tensor w is 0");
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, UINT64_MAX, 1, 0);
    EXPECT(PVL_E_FORMAT, "dimension 0 of tensor w is -1");
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, (uint64_t)1 << 40, (uint64_t)1 << 40, 0);
    EXPECT(PVL_E_FORMAT, "the product is absurd");
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, (uint64_t)1 << 61, 2, 0);
    EXPECT(PVL_E_LIMIT, "tensor w with 4611686018427387904 values is too large for this machine");
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", 16, 256, 1, 0);
    EXPECT(PVL_E_UNSUPPORTED, "tensor w has type IQ2_XXS (number 16)");
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", 4000, 256, 1, 0);
    EXPECT(PVL_E_UNSUPPORTED, "tensor w has type unknown (number 4000)");
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_Q4_0, 33, 32, 0);
    EXPECT(PVL_E_FORMAT, "rows of tensor w have 33 values, expected a multiple of 32");
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, 8, 1, 16);
    EXPECT(PVL_E_FORMAT, "tensor w is at offset 16, which is no multiple");
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, 8, 1, UINT64_MAX - 31);
    EXPECT(PVL_E_FORMAT, "absurd offset");
    /* Its end is beyond what a file can have, although size and offset each are not. */
    put_head(&f, 3, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, ((uint64_t)1 << 61) - 8, 1, 64);
    if (sizeof(size_t) == 8)
        EXPECT(PVL_E_FORMAT, "absurd offset 64, of 9223372036854775776 bytes");
    else
        EXPECT(PVL_E_LIMIT, "too large for this machine");
    put_head(&f, 3, 2, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, 16, 1, 0);
    put_tensor(&f, "v", PVL_DTYPE_F32, 16, 1, 32);
    EXPECT(PVL_E_FORMAT, "tensors w and v overlap");
    put_head(&f, 3, 2, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, 16, 1, 64);
    put_tensor(&f, "v", PVL_DTYPE_F32, 16, 1, 64);
    EXPECT(PVL_E_FORMAT, "tensors w and v overlap");
    put_head(&f, 3, 2, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, 16, 1, 0);
    put_tensor(&f, "w", PVL_DTYPE_F32, 16, 1, 64);
    EXPECT(PVL_E_FORMAT, "tensor w is there twice");
}

TEST(alignment_of_the_file_holds) {
    file f;
    put_head(&f, 3, 2, 1);
    put_key_u32(&f, "general.alignment", 128);
    put_tensor(&f, "a", PVL_DTYPE_F32, 3, 1, 0);
    put_tensor(&f, "b", PVL_DTYPE_F32, 2, 1, 128);
    pad(&f, 128, 136);
    sink s = {0};
    pvl_gguf *g;
    pvl_error err;
    REQUIRE(feed(&s, f.data, f.n, 0, f.n, NULL, &g, &err) == PVL_OK);
    CHECK_EQ_UINT(pvl_gguf_alignment(g), 128);
    CHECK_EQ_UINT(pvl_gguf_data_start(g) % 128, 0);
    CHECK(s.bytes == 20 && !s.bad_order);
    CHECK_MEM(s.data, f.data + pvl_gguf_data_start(g), 12);
    CHECK_MEM(s.data + 12, f.data + pvl_gguf_data_start(g) + 128, 8);
    pvl_gguf_free(g);
}

TEST(empty_parts_are_fine) {
    file f;
    put_head(&f, 3, 0, 3);
    put_str(&f, "text");
    put_u32(&f, PVL_GGUF_STRING);
    put_str(&f, "");
    put_str(&f, "none");
    put_u32(&f, PVL_GGUF_ARRAY);
    put_u32(&f, PVL_GGUF_U32);
    put_u64(&f, 0);
    put_str(&f, "no words");
    put_u32(&f, PVL_GGUF_ARRAY);
    put_u32(&f, PVL_GGUF_STRING);
    put_u64(&f, 0);
    sink s = {0};
    pvl_gguf *g;
    pvl_error err;
    REQUIRE(feed(&s, f.data, f.n, 1, f.n, NULL, &g, &err) == PVL_OK);
    int32_t *ints;
    pvl_gguf_string *words;
    size_t n = 9;
    CHECK(pvl_gguf_array_i32(g, "none", &ints, &n, &err) == PVL_OK && n == 0 && ints);
    pvl_free(NULL, ints);
    CHECK(pvl_gguf_array_str(g, "no words", &words, &n, &err) == PVL_OK && n == 0 && words);
    pvl_free(NULL, words);
    CHECK(s.headers == 1 && pvl_gguf_tensor_count(g) == 0 && pvl_gguf_kv_count(g) == 3);
    pvl_gguf_string text;
    CHECK(pvl_gguf_str(g, "text", &text) && text.bytes == 0 && text.data[0] == 0);
    CHECK(pvl_gguf_str_is(g, "text", "") && !pvl_gguf_str_is(g, "absent", ""));
    CHECK_STR(pvl_gguf_kv_at(g, 2)->key, "no words");
    pvl_gguf_free(g);

    put_head(&f, 3, 0, 0);
    REQUIRE(feed(&s, f.data, f.n, 1, f.n, NULL, &g, &err) == PVL_OK);
    CHECK(!pvl_gguf_has(g, "x") && !pvl_gguf_find_tensor(g, "x"));
    pvl_gguf_free(g);
}

TEST(callbacks_can_refuse) {
    file f;
    put_good(&f);
    pvl_error err;
    sink s = {.header_result = PVL_E_MODEL};
    CHECK_EQ_INT(feed(&s, f.data, f.n, 0, 0, NULL, NULL, &err), PVL_E_MODEL);
    CHECK_STR(err.message, "refused head");
    CHECK_EQ_UINT(s.bytes, 0);
    sink t = {.data_result = PVL_E_CANCELLED};
    CHECK_EQ_INT(feed(&t, f.data, f.n, f.n, 0, NULL, NULL, &err), PVL_E_CANCELLED);
    CHECK_STR(err.message, "refused data");
    CHECK_EQ_UINT(t.next_tensor, 1);
}

TEST(many_names_are_found) {
    enum { MANY = 2000 };
    size_t size = 24 + (size_t)MANY * 64;
    unsigned char *data = malloc(size);
    REQUIRE(data != NULL);
    file f;
    put_head(&f, 3, MANY, 0);
    memcpy(data, f.data, f.n);
    size_t n = f.n;
    for (int i = 0; i < MANY; i++) {
        char name[32];
        snprintf(name, sizeof name, "blk.%d.weight", i);
        f.n = 0;
        put_tensor(&f, name, PVL_DTYPE_F32, 8, 1, 32u * (uint64_t)((i * 7) % MANY));
        memcpy(data + n, f.data, f.n);
        n += f.n;
    }
    pvl_gguf *g;
    bool more;
    pvl_error err = {0};
    REQUIRE(pvl_gguf_parse_head(&g, &more, NULL, "many.gguf", data, n, 0, &err) == PVL_OK);
    for (int i = 0; i < MANY; i++) {
        char name[32];
        snprintf(name, sizeof name, "blk.%d.weight", i);
        const pvl_gguf_tensor *t = pvl_gguf_find_tensor(g, name);
        CHECK(t && t->index == (size_t)i && t->offset == 32u * (uint64_t)((i * 7) % MANY));
        snprintf(name, sizeof name, "blk.%d.weight", i + MANY);
        CHECK(pvl_gguf_find_tensor(g, name) == NULL);
    }
    pvl_gguf_free(g);
    free(data);
}

/* ---- memory ---- */

typedef struct counter {
    long live, calls, fail_at;
    size_t bytes, most; /* held now, at most */
} counter;

static void *count_alloc(void *ctx, size_t bytes) {
    counter *c = ctx;
    if (c->calls++ == c->fail_at)
        return NULL;
    unsigned char *p = pvl_libc_allocator.alloc(NULL, bytes + PVL_ALIGN);
    if (!p)
        return NULL;
    memcpy(p, &bytes, sizeof bytes);
    c->live++;
    c->bytes += bytes;
    if (c->bytes > c->most)
        c->most = c->bytes;
    return p + PVL_ALIGN;
}

static void count_free(void *ctx, void *p) {
    counter *c = ctx;
    size_t bytes;
    memcpy(&bytes, (unsigned char *)p - PVL_ALIGN, sizeof bytes);
    c->live--;
    c->bytes -= bytes;
    pvl_libc_allocator.free(NULL, (unsigned char *)p - PVL_ALIGN);
}

TEST(every_failed_allocation_is_told) {
    file f;
    put_good(&f);
    int failures = 0;
    for (long n = 0; n < 100; n++) {
        counter c = {.fail_at = n};
        pvl_allocator a = {count_alloc, count_free, &c};
        sink s = {0};
        pvl_gguf *g;
        pvl_error err;
        pvl_status status = feed(&s, f.data, f.n, 0, f.n, &a, &g, &err);
        pvl_gguf_free(g);
        CHECK_EQ_INT(c.live, 0);
        if (status == PVL_OK)
            break;
        CHECK_EQ_INT(status, PVL_E_MEMORY);
        failures++;
    }
    CHECK(failures > 5 && failures < 100);
}

TEST(heads_stay_lean) {
    /* 100000 strings: the head is held once, at most two and a half times for a moment. */
    enum { WORDS = 100000 };
    size_t size = 24 + 8 + 5 + 4 + 12 + (size_t)WORDS * 16;
    unsigned char *data = calloc(1, size + 32);
    REQUIRE(data != NULL);
    file f;
    put_head(&f, 3, 0, 1);
    put_str(&f, "words");
    put_u32(&f, PVL_GGUF_ARRAY);
    put_u32(&f, PVL_GGUF_STRING);
    put_u64(&f, WORDS);
    memcpy(data, f.data, f.n);
    size_t n = f.n;
    for (int i = 0; i < WORDS; i++) {
        char word[16];
        snprintf(word, sizeof word, "w%07d", i);
        f.n = 0;
        put_str(&f, word);
        memcpy(data + n, f.data, f.n);
        n += f.n;
    }
    counter c = {.fail_at = -1};
    pvl_allocator a = {count_alloc, count_free, &c};
    sink s = {0};
    pvl_gguf *g;
    pvl_error err;
    REQUIRE(feed(&s, data, n, 4096, 0, &a, &g, &err) == PVL_OK);
    CHECK_MSG(c.most < n * 5 / 2 + 100000, "at most %zu bytes were held for a head of %zu", c.most,
              n);
    CHECK_MSG(c.bytes < n + 10000, "%zu bytes are held for a head of %zu", c.bytes, n);
    pvl_gguf_string *words;
    size_t count;
    REQUIRE(pvl_gguf_array_str(g, "words", &words, &count, &err) == PVL_OK);
    CHECK(count == WORDS && memcmp(words[99999].data, "w0099999", 8) == 0);
    pvl_free(&a, words);
    pvl_gguf_free(g);
    CHECK_EQ_INT(c.live, 0);
    free(data);
}

/* ---- mutations ---- */

TEST(mutated_files_never_break_it) {
    enum { ROUNDS = 20000 };
    size_t size;
    unsigned char *small = test_read_file("tests/fixtures/small.gguf", &size);
    REQUIRE(small != NULL && size <= 8192);
    test_rng r = test_rng_start(1);
    int refused = 0, taken = 0;
    for (int round = 0; round < ROUNDS; round++) {
        file f;
        if (round % 2) {
            put_good(&f);
        } else {
            f.n = 0;
            put(&f, small, size);
        }
        size_t changes = 1 + test_rng_below(&r, 4);
        for (size_t i = 0; i < changes; i++) {
            size_t at = test_rng_below(&r, f.n);
            static const unsigned char loved[] = {0, 1, 0x7F, 0x80, 0xFF, 8, 9};
            switch (test_rng_below(&r, 5)) {
            case 0:
                f.data[at] ^= (unsigned char)(1u << test_rng_below(&r, 8));
                break;
            case 1:
                f.data[at] = loved[test_rng_below(&r, sizeof loved)];
                break;
            case 2: /* a number, much too large */
                for (size_t j = 0; j < 8 && at + j < f.n; j++)
                    f.data[at + j] = j < 3 ? f.data[at + j] : (unsigned char)(j == 7 ? 0x7F : 0xFF);
                break;
            case 3: /* a piece moved */
                if (at + 16 < f.n)
                    memmove(f.data + at, f.data + at + 8, 8);
                break;
            default: /* cut */
                f.n = test_rng_below(&r, 20) ? f.n : at;
                break;
            }
            if (f.n == 0)
                break;
        }
        sink s = {0};
        pvl_error err;
        pvl_gguf *g;
        pvl_status status =
            feed(&s, f.data, f.n, round % 3 ? 0 : 8192, round % 5 ? 0 : f.n, NULL, &g, &err);
        if (status == PVL_OK) {
            taken++;
            CHECK(g != NULL && !s.bad_order && err.code == PVL_OK);
            for (size_t i = 0; i < pvl_gguf_kv_count(g); i++) {
                const pvl_gguf_kv *kv = pvl_gguf_kv_at(g, i);
                CHECK(pvl_gguf_find_kv(g, kv->key) == kv);
                pvl_gguf_string *strings = NULL;
                float *floats = NULL;
                int32_t *ints = NULL;
                size_t n;
                (void)pvl_gguf_array_str(g, kv->key, &strings, &n, NULL);
                (void)pvl_gguf_array_f32(g, kv->key, &floats, &n, NULL);
                (void)pvl_gguf_array_i32(g, kv->key, &ints, &n, NULL);
                pvl_free(NULL, strings);
                pvl_free(NULL, floats);
                pvl_free(NULL, ints);
                float v;
                uint32_t u;
                int32_t w;
                (void)pvl_gguf_f32(g, kv->key, &v);
                (void)pvl_gguf_u32(g, kv->key, &u);
                (void)pvl_gguf_i32(g, kv->key, &w);
            }
        } else {
            refused++;
            CHECK_MSG(
                (status == PVL_E_FORMAT || status == PVL_E_LIMIT || status == PVL_E_UNSUPPORTED) &&
                    err.code == status && err.message[0],
                "round %d gives %s", round, pvl_status_name(status));
        }
        pvl_gguf_free(g);
    }
    CHECK_MSG(refused > ROUNDS / 10 && taken > ROUNDS / 10, "%d refused, %d taken", refused, taken);
    free(small);
}

TEST_MAIN(CASE(reads_a_file_of_the_python_package), CASE(delivers_tensors_by_offset),
          CASE(every_truncation_is_told), CASE(refuses_wrong_beginnings),
          CASE(refuses_wrong_metadata), CASE(refuses_wrong_tensors),
          CASE(alignment_of_the_file_holds), CASE(empty_parts_are_fine), CASE(callbacks_can_refuse),
          CASE(many_names_are_found), CASE(every_failed_allocation_is_told), CASE(heads_stay_lean),
          CASE(mutated_files_never_break_it))
