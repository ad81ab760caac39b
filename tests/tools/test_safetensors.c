/* Checkpoint files: what is read, and what is refused. */
#include "folder.h"

#include "tools/safetensors.h"

/* A file with this header text and n zero bytes of data. */
static void write_file(const char *path, const char *header, size_t n) {
    size_t length = strlen(header);
    unsigned char *data = calloc(1, 8 + length + n);
    if (!data)
        return;
    for (size_t i = 0; i < 8; i++)
        data[i] = (unsigned char)((uint64_t)length >> 8 * i);
    memcpy(data + 8, header, length);
    for (size_t i = 0; i < n; i++)
        data[8 + length + i] = (unsigned char)i;
    write_bytes(path, data, 8 + length + n);
    free(data);
}

TEST(values_of_each_type) {
    test_folder f;
    REQUIRE(folder_make(&f));
    const char *path = folder_file(&f, "x.safetensors");
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[8,16]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
        "\"c\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[16,18]},"
        "\"e\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[18,18]},"
        "\"d\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[18,26]}}    ";
    static const unsigned char values[26] = {0,    0, 0x80, 0x3F, 0,    0,    0x20, 0xC1, 0x80,
                                             0x3F, 0, 0x40, 0,    0xC0, 0x80, 0x40, 0,    0x3C};
    size_t n;
    write_file(path, header, 26);
    unsigned char *data = test_read_file(path, &n);
    REQUIRE(data);
    memcpy(data + n - 26, values, 26);
    write_bytes(path, data, n);
    free(data);
    pvl_checkpoint *c;
    pvl_error err = {0};
    CHECK_MSG(pvl_checkpoint_open(&c, path, &err) == PVL_OK, "%s", err.message);
    REQUIRE(c);
    CHECK_EQ_UINT(pvl_checkpoint_count(c), 5);
    CHECK_STR(pvl_checkpoint_at(c, 0)->name, "a");
    CHECK_STR(pvl_checkpoint_at(c, 4)->name, "e");
    CHECK(pvl_checkpoint_find(c, "x") == NULL);
    const pvl_st_tensor *b = pvl_checkpoint_find(c, "b");
    REQUIRE(b);
    CHECK(b->dtype == PVL_ST_BF16 && b->dims == 2 && b->elements == 4);
    float v[4];
    CHECK_EQ_INT(pvl_checkpoint_read(c, b, v, 0, 4, &err), PVL_OK);
    CHECK(v[0] == 1.0f && v[1] == 2.0f && v[2] == -2.0f && v[3] == 4.0f);
    CHECK_EQ_INT(pvl_checkpoint_read(c, b, v, 3, 1, &err), PVL_OK);
    CHECK(v[0] == 4.0f);
    CHECK_EQ_INT(pvl_checkpoint_read(c, pvl_checkpoint_find(c, "a"), v, 0, 2, &err), PVL_OK);
    CHECK(v[0] == 1.0f && v[1] == -10.0f);
    CHECK_EQ_INT(pvl_checkpoint_read(c, pvl_checkpoint_find(c, "c"), v, 0, 1, &err), PVL_OK);
    CHECK(v[0] == 1.0f);
    CHECK_EQ_INT(pvl_checkpoint_read(c, b, v, 3, 2, &err), PVL_E_INTERNAL);
    CHECK_EQ_INT(pvl_checkpoint_read(c, pvl_checkpoint_find(c, "d"), v, 0, 1, NULL),
                 PVL_E_INTERNAL);
    pvl_checkpoint_close(c);
    folder_end(&f);
}

/* Found by fuzzing: without tensors there is no list to sort. */
TEST(no_tensors) {
    static const char *const headers[] = {"{}", "{\"__metadata__\":{\"format\":\"pt\"}}"};
    test_folder f;
    REQUIRE(folder_make(&f));
    const char *path = folder_file(&f, "x.safetensors");
    for (size_t i = 0; i < 2; i++) {
        write_file(path, headers[i], 0);
        pvl_checkpoint *c;
        pvl_error err = {0};
        CHECK_MSG(pvl_checkpoint_open(&c, path, &err) == PVL_OK, "%s", err.message);
        REQUIRE(c);
        CHECK_EQ_UINT(pvl_checkpoint_count(c), 0);
        pvl_checkpoint_close(c);
    }
    folder_end(&f);
}

static void check_refused(const char *path, pvl_status code, const char *piece) {
    pvl_checkpoint *c;
    pvl_error err = {0};
    pvl_status status = pvl_checkpoint_open(&c, path, &err);
    CHECK_MSG(status == code, "%s: %s, expected %s", path, err.message, pvl_status_name(code));
    CHECK_CONTAINS(err.message, piece);
    CHECK(c == NULL);
    pvl_checkpoint_close(c);
}

TEST(hostile_headers) {
    static const struct {
        const char *header;
        size_t data;
        pvl_status code;
        const char *piece;
    } cases[] = {
        {"{", 0, PVL_E_FORMAT, "JSON"},
        {"[]", 0, PVL_E_FORMAT, "no list of tensors"},
        {"{\"a\":1}", 0, PVL_E_FORMAT, "tensor a must have"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8, PVL_E_FORMAT,
         "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, PVL_E_FORMAT,
         "ends too early"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,7]}}", 8, PVL_E_FORMAT,
         "span 7 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, PVL_E_FORMAT,
         "span"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, PVL_E_FORMAT,
         "impossible shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,8]}}", 8, PVL_E_FORMAT,
         "impossible shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],\"data_offsets\":["
         "0,0]}}",
         0, PVL_E_FORMAT, "impossible shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
         PVL_E_LIMIT, "dimensions"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, PVL_E_UNSUPPORTED,
         "F31"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
         12, PVL_E_FORMAT, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
         "\"b\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[2,2]},"
         "\"c\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, PVL_E_FORMAT, "overlap"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
         "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
         8, PVL_E_FORMAT, "twice"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1e300,2e300]}}", 4,
         PVL_E_FORMAT, "data_offsets"},
    };
    test_folder f;
    REQUIRE(folder_make(&f));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = folder_file(&f, "x.safetensors");
        write_file(path, cases[i].header, cases[i].data);
        check_refused(path, cases[i].code, cases[i].piece);
    }
    const char *path = folder_file(&f, "x.safetensors");
    write_bytes(path, "\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F{}", 10);
    check_refused(path, PVL_E_FORMAT, "header would be");
    write_bytes(path, "abc", 3);
    check_refused(path, PVL_E_FORMAT, "ends too early");
    check_refused(folder_file(&f, "none.safetensors"), PVL_E_IO, "cannot be opened");
    folder_end(&f);
}

TEST(folders) {
    test_folder f;
    REQUIRE(folder_make(&f));
    check_refused(f.path, PVL_E_IO, "no model.safetensors");
    copy_folder("tests/fixtures/hf/phi3", folder_file(&f, "m"));
    const char *folder = folder_file(&f, "m");
    char index[FOLDER_PATH * 2], second[FOLDER_PATH * 2];
    snprintf(index, sizeof index, "%s/model.safetensors.index.json", folder);
    snprintf(second, sizeof second, "%s/model-00002-of-00002.safetensors", folder);
    pvl_checkpoint *c;
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_checkpoint_open(&c, folder, &err), PVL_OK);
    REQUIRE(c);
    CHECK(pvl_checkpoint_count(c) > 40);
    CHECK(pvl_checkpoint_find(c, "language_model.lm_head.weight") != NULL);
    pvl_checkpoint_close(c);
    size_t n;
    unsigned char *whole = test_read_file(second, &n);
    REQUIRE(whole);
    write_bytes(second, whole, n - 1);
    check_refused(folder, PVL_E_FORMAT, "ends too early");
    remove(second);
    check_refused(folder, PVL_E_IO, "model-00002-of-00002.safetensors is missing");
    write_bytes(second, whole, n);
    edit_file(index, "\"weight_map\"", "\"wait_map\"");
    check_refused(folder, PVL_E_FORMAT, "weight_map");
    write_text(index, "{\"weight_map\": {\"nothing\": \"model-00002-of-00002.safetensors\"}}");
    check_refused(folder, PVL_E_MODEL, "nothing");
    write_text(index, "{\"weight_map\": {\"a\": \"../secret\"}}");
    check_refused(folder, PVL_E_FORMAT, "file of the folder");
    write_text(index, "{\n\n]");
    check_refused(folder, PVL_E_FORMAT, "line 3");
    free(whole);
    folder_end(&f);
}

/* Bytes of the header changed at random: refused or read, never a crash. */
TEST(damaged_at_random) {
    test_folder f;
    REQUIRE(folder_make(&f));
    size_t n, refused = 0;
    unsigned char *whole = test_read_file("tests/fixtures/hf/qwen2/model.safetensors", &n);
    REQUIRE(whole);
    size_t header = 8 + (size_t)(whole[0] | whole[1] << 8);
    test_rng rng = test_rng_start(5);
    const char *path = folder_file(&f, "x.safetensors");
    for (int round = 0; round < 300; round++) {
        unsigned char kept[4];
        size_t at[4], length = round % 3 ? n : test_rng_below(&rng, n);
        for (int i = 0; i < 4; i++) {
            at[i] = test_rng_below(&rng, header);
            kept[i] = whole[at[i]];
            whole[at[i]] = (unsigned char)test_rng_u32(&rng);
        }
        write_bytes(path, whole, length);
        for (int i = 4; i-- > 0;)
            whole[at[i]] = kept[i];
        pvl_checkpoint *c;
        pvl_error err = {0};
        pvl_status status = pvl_checkpoint_open(&c, path, &err);
        CHECK((status == PVL_OK) == (c != NULL));
        CHECK(status == PVL_OK || err.message[0]);
        refused += status != PVL_OK;
        pvl_checkpoint_close(c);
    }
    CHECK(refused > 100);
    free(whole);
    folder_end(&f);
}

TEST_MAIN(CASE(values_of_each_type), CASE(no_tensors), CASE(hostile_headers), CASE(folders),
          CASE(damaged_at_random))
