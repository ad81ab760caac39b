/* The three tokenizers against the published vectors, their guarantees, decoding. */
#include "text_vocab.h"

static const struct {
    const char *vocab;
    bool short_merges, no_rstrip;
    const char *plain_column, *chat_column;
    int plain_rows, chat_rows, invalid_rows;
} models[] = {
    {"qwen2", false, false, "ids_qwen2", "ids_qwen2", 187, 45, 14},
    {"qwen2", true, false, "ids_internvl2_1b", "ids_internvl2_1b", 187, 45, 14},
    {"internlm2", false, false, "ids", "ids", 186, 46, 14},
    {"phi3", false, false, "ids", "ids_rstrip", 196, 45, 14},
    {"phi3", false, true, "ids", "ids_no_rstrip", 196, 45, 14},
};

/* Every row of a file: ids as listed, and once more as text from people, which must be equal too
 * unless the plain ids hold a control token. */
static int check_vectors(const pvl_tokenizer *t, const char *name, const char *part,
                         const char *ids_column, unsigned flags) {
    char path[200], *rest, *columns[16] = {0};
    size_t size;
    int rows = 0, hex_at = -1, ids_at = -1, count = 0;
    pvl_tokens got = {0}, expected = {0};
    snprintf(path, sizeof path, TEXT_FIXTURES "%s-%s.tsv", name, part);
    char *data = (char *)test_read_file(path, &size);
    if (!data)
        return -1;
    rest = data;
    for (char *line = strtok_r(data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        if (line[0] == '#') {
            line++;
            for (; *line; count++) {
                char *column = text_column(&line);
                hex_at = strcmp(column, "utf8_hex") == 0 ? count : hex_at;
                ids_at = strcmp(column, ids_column) == 0 ? count : ids_at;
            }
            if (hex_at < 0 || ids_at < 0) {
                FAIL("%s has no column %s", path, ids_column);
                break;
            }
            continue;
        }
        for (int i = 0; i < count; i++)
            columns[i] = text_column(&line);
        size_t bytes;
        char *text = text_unhex(columns[hex_at], &bytes);
        pvl_error err = {0};
        text_ids(&expected, columns[ids_at]);
        got.count = 0;
        pvl_status status = pvl_tokenizer_encode(t, &got, text, bytes, flags, &err);
        CHECK_MSG(status == PVL_OK, "%s: %s", columns[0], err.message);
        text_check_ids(&got, &expected, columns[0]);
        if (!(flags & PVL_ENCODE_SPECIAL)) {
            bool control = false;
            for (size_t i = 0; i < expected.count; i++)
                control = control || pvl_tokenizer_is_control(t, expected.ids[i]);
            got.count = 0;
            CHECK(pvl_tokenizer_encode(t, &got, text, bytes, PVL_ENCODE_USER, &err) == PVL_OK);
            if (!control)
                text_check_ids(&got, &expected, columns[0]);
            for (size_t i = 0; i < got.count; i++)
                CHECK_MSG(!pvl_tokenizer_is_control(t, got.ids[i]), "%s: control token %d",
                          columns[0], (int)got.ids[i]);
        }
        free(text);
        rows++;
    }
    pvl_tokens_free(&got);
    pvl_tokens_free(&expected);
    free(data);
    return rows;
}

TEST(vectors) {
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++) {
        const char *name = models[m].vocab;
        text_vocab v;
        pvl_tokenizer *t = NULL;
        REQUIRE(text_vocab_load(&v, name, models[m].short_merges));
        if (models[m].no_rstrip)
            v.vocab.rstrip_count = 0;
        REQUIRE(pvl_tokenizer_new(&t, NULL, &v.vocab, NULL) == PVL_OK);
        text_vocab_free(&v);
        CHECK_EQ_INT(check_vectors(t, name, "plain", models[m].plain_column, 0),
                     models[m].plain_rows);
        CHECK_EQ_INT(check_vectors(t, name, "chat", models[m].chat_column, PVL_ENCODE_SPECIAL),
                     models[m].chat_rows);
        CHECK_EQ_INT(check_vectors(t, name, "invalid-utf8", models[m].plain_column, 0),
                     models[m].invalid_rows);
        pvl_tokenizer_free(t);
    }
}

TEST_MAIN(CASE(vectors))
