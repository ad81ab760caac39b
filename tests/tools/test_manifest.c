/* manifest.json and the files it lists. */
#include "folder.h"

#include "tools/json.h"
#include "tools/manifest.h"

TEST(text_of_a_manifest) {
    pvl_io_digest chunk = {5, {0xAB, 0xCD}};
    pvl_output_file file = {"a \"b\".gguf", 5, &chunk, 1};
    pvl_memory memory = {1, 2, 3, UINT64_C(4000000000000)};
    pvl_manifest m = {.name = "n",
                      .title = "Titl\xC3\xA9\n",
                      .template_name = "hermes-2",
                      .files = &file,
                      .file_count = 1,
                      .max_tiles = 6,
                      .context = 4096,
                      .max_tokens = 512,
                      .memory = &memory};
    char *text = pvl_manifest_text(&m);
    REQUIRE(text);
    cJSON *root = NULL;
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_json_parse(&root, text, strlen(text), "manifest", &err), PVL_OK);
    pvl_json top = {"manifest", root};
    size_t v;
    CHECK(pvl_json_size(&v, top, "format", -1, 10, &err) == PVL_OK && v == 1);
    CHECK_STR(pvl_json_string(top, "title", NULL), "Titl\xC3\xA9\n");
    CHECK(pvl_json_get(top, "license") == NULL);
    const cJSON *one = cJSON_GetArrayItem(pvl_json_get(top, "files"), 0);
    CHECK_STR(pvl_json_string((pvl_json){"file", one}, "name", NULL), "a \"b\".gguf");
    const cJSON *chunks = cJSON_GetArrayItem(pvl_json_get((pvl_json){"file", one}, "chunks"), 0);
    CHECK_STR(pvl_json_string((pvl_json){"chunk", chunks}, "sha256", NULL),
              "abcd000000000000000000000000000000000000000000000000000000000000");
    CHECK(pvl_json_size(&v, pvl_json_object(top, "memory"), "peakLoad", -1, UINT64_C(1) << 50,
                        &err) == PVL_OK &&
          v == UINT64_C(4000000000000));
    CHECK(pvl_json_size(&v, pvl_json_object(top, "settings"), "maxTiles", -1, 100, &err) ==
              PVL_OK &&
          v == 6);
    CHECK(pvl_json_get(pvl_json_object(top, "settings"), "kvType") == NULL);
    cJSON_Delete(root);
    free(text);
}

/* As the 4B: 5.8 GB with keys and values as floats, 3.5 GB with 8 bits. */
TEST(a_cache_that_a_page_can_hold) {
    static const uint64_t weights[] = {UINT64_C(500000000), UINT64_C(2600000000)};
    for (size_t i = 0; i < 2; i++) {
        pvl_io_digest chunk = {5, {0xAB, 0xCD}};
        pvl_output_file file = {"a.gguf", 5, &chunk, 1};
        pvl_memory memory = {weights[i], UINT64_C(3200000000), 60000000, 0};
        pvl_manifest m = {.name = "n",
                          .files = &file,
                          .file_count = 1,
                          .context = 4096,
                          .memory = &memory,
                          .kv_cache_q8 = 850000000};
        char *text = pvl_manifest_text(&m);
        REQUIRE(text);
        cJSON *root = NULL;
        pvl_error err = {0};
        CHECK_EQ_INT(pvl_json_parse(&root, text, strlen(text), "manifest", &err), PVL_OK);
        pvl_json settings = pvl_json_object((pvl_json){"manifest", root}, "settings");
        CHECK_STR(pvl_json_string(settings, "kvType", "f32"), i ? "q8" : "f32");
        cJSON_Delete(root);
        free(text);
    }
}

TEST(files_get_their_names_at_the_end) {
    test_folder f;
    REQUIRE(folder_make(&f));
    pvl_output out;
    pvl_error err = {0};
    pvl_output_init(&out, f.path);
    CHECK_EQ_INT(pvl_output_begin(&out, "one", &err), PVL_OK);
    CHECK_EQ_INT(pvl_output_write(&out, "abc", 3, &err), PVL_OK);
    CHECK_EQ_INT(pvl_output_end(&out, &err), PVL_OK);
    CHECK_EQ_INT(pvl_output_begin(&out, "two", &err), PVL_OK);
    static unsigned char big[PVL_IO_CHUNK / 4 + 1];
    for (int i = 0; i < 4; i++)
        CHECK_EQ_INT(pvl_output_write(&out, big, sizeof big, &err), PVL_OK);
    CHECK_EQ_INT(pvl_output_end(&out, &err), PVL_OK);
    CHECK_EQ_UINT(count_files(f.path, ".part"), 2);
    CHECK_EQ_UINT(count_files(f.path, ""), 2);
    CHECK_EQ_INT(pvl_output_commit(&out, &err), PVL_OK);
    CHECK_EQ_UINT(count_files(f.path, ".part"), 0);
    REQUIRE(out.count == 2);
    char hex[65];
    pvl_sha256_hex(hex, out.files[0].chunks[0].sha256);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_EQ_UINT(out.files[1].bytes, PVL_IO_CHUNK + 4);
    REQUIRE(out.files[1].chunk_count == 2);
    CHECK_EQ_UINT(out.files[1].chunks[0].bytes, PVL_IO_CHUNK);
    CHECK_EQ_UINT(out.files[1].chunks[1].bytes, 4);
    pvl_output_free(&out);
    size_t n;
    unsigned char *data = test_read_file(folder_file(&f, "one"), &n);
    CHECK(data && n == 3 && memcmp(data, "abc", 3) == 0);
    free(data);
    folder_end(&f);
}

TEST(given_up_leaves_nothing) {
    test_folder f;
    REQUIRE(folder_make(&f));
    pvl_output out;
    pvl_error err = {0};
    pvl_output_init(&out, f.path);
    CHECK_EQ_INT(pvl_output_begin(&out, "one", &err), PVL_OK);
    CHECK_EQ_INT(pvl_output_write(&out, "abc", 3, &err), PVL_OK);
    pvl_output_free(&out);
    CHECK_EQ_UINT(count_files(f.path, ""), 0);
    pvl_output_init(&out, folder_file(&f, "not/there"));
    CHECK_EQ_INT(pvl_output_begin(&out, "one", &err), PVL_E_IO);
    CHECK_CONTAINS(err.message, "cannot be written");
    pvl_output_free(&out);
    folder_end(&f);
}

TEST_MAIN(CASE(text_of_a_manifest), CASE(a_cache_that_a_page_can_hold),
          CASE(files_get_their_names_at_the_end), CASE(given_up_leaves_nothing))
