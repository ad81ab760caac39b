/* The three tokenizers against the published vectors, their guarantees, decoding. */
#include "base/alloc.h"
#include "text/merge.h"
#include "text/unicode.h"
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

/* ---- round trips ---- */

static uint32_t random_character(test_rng *rng) {
    static const uint32_t ranges[][2] = {
        {0x20, 0x7E},     {0x20, 0x7E},     {0, 0x2FF},         {0x300, 0x36F},    {0x400, 0x52F},
        {0x900, 0x97F},   {0x1100, 0x11FF}, {0x2000, 0x206F},   {0x3000, 0x30FF},  {0x4E00, 0x9FFF},
        {0xAC00, 0xD7A3}, {0xFF00, 0xFFEF}, {0x1F300, 0x1F6FF}, {0xE000, 0x10FFFF}};
    size_t r = test_rng_below(rng, sizeof ranges / sizeof ranges[0]);
    return ranges[r][0] + (uint32_t)test_rng_below(rng, ranges[r][1] - ranges[r][0] + 1);
}

static size_t random_text(test_rng *rng, char *out, size_t characters) {
    size_t bytes = 0;
    while (characters > 0) {
        uint32_t cp = test_rng_below(rng, 6) == 0 ? ' ' : random_character(rng);
        size_t repeat = test_rng_below(rng, 12) == 0 ? 1 + test_rng_below(rng, characters) : 1;
        for (characters -= repeat; repeat > 0; repeat--)
            bytes += pvl_utf8_encode(out + bytes, cp);
    }
    return bytes;
}

static void decode(const pvl_tokenizer *t, pvl_text *out, const pvl_tokens *ids, unsigned flags) {
    pvl_decoder d;
    out->bytes = 0;
    pvl_decoder_init(&d, t, flags);
    for (size_t i = 0; i < ids->count; i++) {
        CHECK(pvl_decoder_push(&d, out, ids->ids[i], NULL) == PVL_OK);
        if (!pvl_utf8_valid(out->data, out->bytes))
            FAIL("a part of a character came out");
    }
    CHECK(pvl_decoder_finish(&d, out, NULL) == PVL_OK);
}

TEST(decoding_gives_the_text_back) {
    static const char *const names[] = {"qwen2", "internlm2", "phi3"};
    char *text = malloc(4 * 400);
    for (int m = 0; m < 3; m++) {
        pvl_tokenizer *t = text_tokenizer(names[m], m == 0);
        pvl_tokens ids = {0};
        pvl_text back = {0}, expected = {0};
        test_rng rng = test_rng_start((uint64_t)m);
        REQUIRE(t && text);
        for (int round = 0; round < 2000; round++) {
            size_t n = random_text(&rng, text, test_rng_below(&rng, round % 50 == 0 ? 400 : 40));
            unsigned flags = pvl_tokenizer_decode_flags(t) & (unsigned)PVL_DECODE_DROP_SPACE;
            expected.bytes = ids.count = 0;
            if (m == 0)
                CHECK(pvl_nfc(&expected, text, n, NULL) == PVL_OK);
            else
                CHECK(pvl_text_append(&expected, text, n, NULL) == PVL_OK);
            CHECK(pvl_tokenizer_encode(t, &ids, text, n, round % 2 ? PVL_ENCODE_USER : 0, NULL) ==
                  PVL_OK);
            decode(t, &back, &ids, flags);
            bool same = back.bytes == expected.bytes &&
                        (back.bytes == 0 || memcmp(back.data, expected.data, back.bytes) == 0);
            CHECK_MSG(same, "%s, round %d: %zu bytes came back as %zu", names[m], round, n,
                      back.bytes);
        }
        pvl_tokens_free(&ids);
        pvl_text_free(&back);
        pvl_text_free(&expected);
        pvl_tokenizer_free(t);
    }
    free(text);
}

/* Any bytes at all encode to ids in range and decode to valid UTF-8. */
TEST(any_bytes_are_a_text) {
    static const char *const names[] = {"qwen2", "internlm2", "phi3"};
    for (int m = 0; m < 3; m++) {
        pvl_tokenizer *t = text_tokenizer(names[m], false);
        pvl_tokens ids = {0};
        pvl_text back = {0};
        test_rng rng = test_rng_start(90 + (uint64_t)m);
        REQUIRE(t);
        for (int round = 0; round < 2000; round++) {
            char text[60];
            size_t n = test_rng_below(&rng, sizeof text);
            for (size_t i = 0; i < n; i++)
                text[i] = (char)(test_rng_below(&rng, 3) ? 0x80 + test_rng_below(&rng, 0x80)
                                                         : test_rng_below(&rng, 0x100));
            ids.count = 0;
            CHECK(pvl_tokenizer_encode(t, &ids, text, n, (unsigned)round % 3, NULL) == PVL_OK);
            for (size_t i = 0; i < ids.count; i++)
                CHECK(ids.ids[i] >= 0 && (size_t)ids.ids[i] < pvl_tokenizer_count(t));
            decode(t, &back, &ids, PVL_DECODE_ALL | PVL_DECODE_CLEAN_UP | PVL_DECODE_STRIP);
        }
        pvl_tokens_free(&ids);
        pvl_text_free(&back);
        pvl_tokenizer_free(t);
    }
}

/* ---- length ---- */

TEST(long_texts_take_no_time) {
    static const char *const names[] = {"qwen2", "internlm2", "phi3"};
    enum { BYTES = 1 << 20 };
    char *text = malloc(BYTES);
    for (int m = 0; m < 3; m++) {
        pvl_tokenizer *t = text_tokenizer(names[m], false);
        pvl_tokens ids = {0};
        pvl_text back = {0};
        REQUIRE(t && text);
        for (int kind = 0; kind < 4; kind++) {
            size_t checked = 0;
            for (size_t i = 0; i < BYTES; i++)
                text[i] = kind == 0 ? 'a' : kind == 1 ? ' ' : kind == 2 ? '[' : "abababc\n"[i % 7];
            ids.count = 0;
            CHECK(pvl_tokenizer_encode(t, &ids, text, BYTES,
                                       PVL_ENCODE_SPECIAL * (unsigned)(kind % 2), NULL) == PVL_OK);
            for (size_t i = 0; i < ids.count; i++)
                checked += pvl_tokenizer_piece(t, ids.ids[i]).bytes;
            CHECK(checked >= BYTES && ids.count <= BYTES + 2);
        }
        pvl_error err = {0};
        CHECK_EQ_INT(
            pvl_tokenizer_encode(t, &ids, text, (size_t)PVL_TOKENIZER_MAX_TEXT + 1, 0, &err),
            PVL_E_LIMIT);
        pvl_tokens_free(&ids);
        pvl_text_free(&back);
        pvl_tokenizer_free(t);
    }
    free(text);
}

/* A made table of merges: any two of IDS symbols may make a third. */
enum { IDS = 30 };
typedef struct made_merges {
    uint32_t key[IDS][IDS];
    int32_t joined[IDS][IDS];
} made_merges;

static uint32_t made_key(const void *ctx, int32_t *joined, const pvl_symbol *left,
                         const pvl_symbol *right, uint32_t end) {
    const made_merges *m = ctx;
    CHECK(left->begin < right->begin && right->begin < end);
    *joined = m->joined[left->id][right->id];
    return m->key[left->id][right->id];
}

/* The straight search of short words and the heap of long ones, against the definition. */
TEST(merges_are_the_lowest_key_then_leftmost) {
    made_merges m;
    pvl_merge_scratch scratch = {0};
    test_rng rng = test_rng_start(3);
    for (int round = 0; round < 1500; round++) {
        int32_t ids[400];
        uint32_t begin[400];
        size_t n = 1 + test_rng_below(&rng, round % 2 ? 400 : 40), count = n, got;
        size_t alphabet = 1 + test_rng_below(&rng, 6), ranks = 1 + test_rng_below(&rng, 60);
        for (int a = 0; a < IDS; a++)
            for (int b = 0; b < IDS; b++) {
                m.key[a][b] =
                    test_rng_below(&rng, 3) ? (uint32_t)test_rng_below(&rng, ranks) : PVL_NO_MERGE;
                m.joined[a][b] = (int32_t)test_rng_below(&rng, IDS);
            }
        REQUIRE(pvl_merge_reserve(&scratch, n, NULL) == PVL_OK);
        for (size_t i = 0; i < n; i++) {
            ids[i] = (int32_t)test_rng_below(&rng, alphabet);
            begin[i] = (uint32_t)(3 * i);
            scratch.symbols[i] = (pvl_symbol){.begin = begin[i], .id = ids[i]};
        }
        for (;;) {
            size_t best = 0;
            for (size_t i = 1; i + 1 < count; i++)
                if (m.key[ids[i]][ids[i + 1]] < m.key[ids[best]][ids[best + 1]])
                    best = i;
            if (count < 2 || m.key[ids[best]][ids[best + 1]] == PVL_NO_MERGE)
                break;
            ids[best] = m.joined[ids[best]][ids[best + 1]];
            count--;
            memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof ids[0]);
            memmove(begin + best + 1, begin + best + 2, (count - best - 1) * sizeof begin[0]);
        }
        got = pvl_merge_run(&scratch, n, (uint32_t)(3 * n), made_key, &m);
        CHECK_EQ_UINT(got, count);
        for (size_t i = 0; i < got && i < count; i++)
            CHECK_MSG(scratch.symbols[i].id == ids[i] && scratch.symbols[i].begin == begin[i],
                      "round %d, %zu symbols: number %zu differs", round, n, i);
    }
    pvl_merge_free(&scratch);
}

/* ---- segments ---- */

TEST(segments_read_as_one_text) {
    pvl_tokenizer *t = text_tokenizer("phi3", false);
    pvl_tokens got = {0}, expected = {0};
    REQUIRE(t);
    int32_t end = pvl_tokenizer_find(t, "<|end|>", 7),
            context = pvl_tokenizer_find(t, "<IMG_CONTEXT>", 13);
    const pvl_segment segments[] = {{PVL_SEGMENT_TEMPLATE, "<|user|>\n", 9, 0, 0},
                                    {PVL_SEGMENT_USER, "  \n he", 6, 0, 0},
                                    {PVL_SEGMENT_USER, "llo", 3, 0, 0},
                                    {PVL_SEGMENT_TOKEN, NULL, 0, context, 3},
                                    {PVL_SEGMENT_TOKEN, NULL, 0, end, 1},
                                    {PVL_SEGMENT_USER, " <|end|>", 8, 0, 0}};
    const char *text = "<|user|>\n  \n hello<IMG_CONTEXT><IMG_CONTEXT><IMG_CONTEXT><|end|> ";
    CHECK(pvl_tokenizer_encode(t, &expected, text, strlen(text), PVL_ENCODE_SPECIAL, NULL) ==
          PVL_OK);
    CHECK(pvl_tokenizer_encode_segments(t, &got, segments, 5, NULL) == PVL_OK);
    text_check_ids(&got, &expected, "five segments");
    got.count = 0;
    CHECK(pvl_tokenizer_encode_segments(t, &got, segments, 6, NULL) == PVL_OK);
    CHECK(got.count > expected.count);
    for (size_t i = expected.count; i < got.count; i++)
        CHECK(!pvl_tokenizer_is_control(t, got.ids[i]));
    pvl_error err = {0};
    const pvl_segment bad = {PVL_SEGMENT_TOKEN, NULL, 0, 40000, 1};
    size_t count = got.count;
    CHECK_EQ_INT(pvl_tokenizer_encode_segments(t, &got, &bad, 1, &err), PVL_E_ARGUMENT);
    CHECK_EQ_UINT(got.count, count);
    CHECK_EQ_INT(pvl_tokenizer_encode(t, &got, "x", 1, PVL_ENCODE_SPECIAL | PVL_ENCODE_USER, NULL),
                 PVL_E_ARGUMENT);
    pvl_tokens_free(&got);
    pvl_tokens_free(&expected);
    pvl_tokenizer_free(t);
}

TEST(internlm2_pieces_of_control_tokens_stay_literal_for_users) {
    pvl_tokenizer *t = text_tokenizer("internlm2", false);
    pvl_tokens ids = {0};
    pvl_text back = {0};
    const char *text = "a[UNUSED_TOKEN_145][UNUSED_TOKEN_3]";
    REQUIRE(t);
    CHECK(pvl_tokenizer_encode(t, &ids, text, strlen(text), 0, NULL) == PVL_OK);
    REQUIRE(ids.count == 3);
    CHECK_EQ_INT(ids.ids[1], 92542);
    ids.count = 0;
    CHECK(pvl_tokenizer_encode(t, &ids, text, strlen(text), PVL_ENCODE_USER, NULL) == PVL_OK);
    CHECK_EQ_INT(ids.ids[ids.count - 1], 92400);
    decode(t, &back, &ids, 0);
    CHECK_EQ_UINT(back.bytes, strlen(text));
    CHECK_MEM(back.data, text, strlen(text));
    /* Two texts of one user do not form it either. */
    const pvl_segment segments[] = {{PVL_SEGMENT_TEMPLATE, "[UNUSED_TOKEN_", 14, 0, 0},
                                    {PVL_SEGMENT_USER, "145]", 4, 0, 0}};
    ids.count = 0;
    CHECK(pvl_tokenizer_encode_segments(t, &ids, segments, 2, NULL) == PVL_OK);
    for (size_t i = 1; i < ids.count; i++)
        CHECK(!pvl_tokenizer_is_control(t, ids.ids[i]));
    pvl_tokens_free(&ids);
    pvl_text_free(&back);
    pvl_tokenizer_free(t);
}

/* ---- decoding ---- */

static void check_decode(const pvl_tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                         const char *expected) {
    pvl_text out = {0};
    pvl_tokens tokens = {.ids = (int32_t *)(uintptr_t)ids, .count = n};
    decode(t, &out, &tokens, flags);
    CHECK(pvl_text_append(&out, "", 1, NULL) == PVL_OK);
    CHECK_STR(out.data, expected);
    pvl_text_free(&out);
}

TEST(streams_whole_characters) {
    pvl_tokenizer *t = text_tokenizer("phi3", false);
    pvl_decoder d;
    pvl_text out = {0};
    REQUIRE(t);
    /* The bytes of U+1F600, one token each; then a cut one and a letter. */
    static const int32_t ids[] = {3 + 0xF0, 3 + 0x9F, 3 + 0x98, 3 + 0x80,
                                  3 + 0xE4, 3 + 0xBD, 29874};
    static const size_t bytes[] = {0, 0, 0, 4, 4, 4, 4 + 6 + 1};
    pvl_decoder_init(&d, t, PVL_DECODE_DROP_SPACE);
    for (size_t i = 0; i < 7; i++) {
        CHECK(pvl_decoder_push(&d, &out, ids[i], NULL) == PVL_OK);
        CHECK_EQ_UINT(out.bytes, bytes[i]);
    }
    CHECK_MEM(out.data,
              "\xF0\x9F\x98\x80\xEF\xBF\xBD\xEF\xBF\xBD"
              "a",
              11);
    CHECK(pvl_decoder_push(&d, &out, 3 + 0xE4, NULL) == PVL_OK);
    CHECK(pvl_decoder_finish(&d, &out, NULL) == PVL_OK);
    CHECK_EQ_UINT(out.bytes, 14);
    CHECK_EQ_INT(pvl_decoder_push(&d, &out, 32020, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_decoder_push(&d, &out, -1, NULL), PVL_E_ARGUMENT);
    pvl_text_free(&out);
    /* A leading U+2581 goes, once; a byte piece's space does not. */
    check_decode(t, (const int32_t[]){15043, 3186}, 2, PVL_DECODE_DROP_SPACE, "Hello world");
    check_decode(t, (const int32_t[]){29871, 15043}, 2, PVL_DECODE_DROP_SPACE, " Hello");
    check_decode(t, (const int32_t[]){3 + ' ', 15043}, 2, PVL_DECODE_DROP_SPACE, "  Hello");
    pvl_tokenizer_free(t);
}

TEST(shows_boxes_and_hides_turns) {
    pvl_tokenizer *t = text_tokenizer("qwen2", true);
    REQUIRE(t);
    static const int32_t ids[] = {151651, 1782, 8251,   151652, 151653, 15505,
                                  151654, 198,  151645, 151644, 151643};
    check_decode(t, ids, 11, 0, "<ref>the cat</ref><box>[[</box>\n");
    check_decode(t, ids, 11, PVL_DECODE_STRIP, "<ref>the cat</ref><box>[[</box>");
    check_decode(t, ids, 11, PVL_DECODE_SKIP_ADDED, "the cat[[\n");
    check_decode(t, ids, 11, PVL_DECODE_ALL,
                 "<ref>the cat</ref><box>[[</box>\n<|im_end|><|im_start|><|endoftext|>");
    CHECK_EQ_UINT(pvl_tokenizer_piece(t, 151645).bytes, 10);
    CHECK_EQ_UINT(pvl_tokenizer_piece(t, -1).bytes, 0);
    CHECK_EQ_INT(pvl_tokenizer_find(t, "<box>", 5), 151653);
    CHECK_EQ_INT(pvl_tokenizer_find(t, " the", 4), 279);
    CHECK_EQ_INT(pvl_tokenizer_find(t, "no such token at all", 20), -1);
    CHECK(pvl_tokenizer_is_eog(t, 151645) && !pvl_tokenizer_is_eog(t, 151651) &&
          !pvl_tokenizer_is_eog(t, -5));
    pvl_tokenizer_free(t);
}

/* str.replace, first to last, on the whole text: what the stages of the decoder add up to. */
static size_t replace_all(char *text, size_t n, const char *what, const char *with) {
    size_t out = 0, from = strlen(what), to = strlen(with);
    for (size_t at = 0; at < n;) {
        if (n - at >= from && memcmp(text + at, what, from) == 0) {
            memmove(text + out, with, to);
            out += to;
            at += from;
        } else {
            text[out++] = text[at++];
        }
    }
    return out;
}

TEST(cleans_up_as_it_streams) {
    static const char *const pairs[][2] = {
        {" .", "."},     {" ?", "?"},   {" !", "!"},   {" ,", ","},     {" ' ", "'"},
        {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    pvl_tokenizer *t = text_tokenizer("internlm2", false);
    pvl_tokens ids = {0};
    pvl_text out = {0};
    test_rng rng = test_rng_start(4);
    REQUIRE(t);
    CHECK_EQ_UINT(pvl_tokenizer_decode_flags(t), PVL_DECODE_CLEAN_UP);
    for (int round = 0; round < 3000; round++) {
        char text[64];
        size_t n = 0;
        while (n < 50 && test_rng_below(&rng, 25))
            text[n++] = "   ''.?!,nt'msvre"[test_rng_below(&rng, 17)];
        ids.count = 0;
        CHECK(pvl_tokenizer_encode(t, &ids, text, n, PVL_ENCODE_USER, NULL) == PVL_OK);
        decode(t, &out, &ids, PVL_DECODE_CLEAN_UP);
        for (size_t i = 0; i < 10; i++)
            n = replace_all(text, n, pairs[i][0], pairs[i][1]);
        CHECK_MSG(n == out.bytes && (n == 0 || memcmp(text, out.data, n) == 0),
                  "round %d: \"%.*s\", expected \"%.*s\"", round, (int)out.bytes,
                  out.data ? out.data : "", (int)n, text);
    }
    pvl_tokens_free(&ids);
    pvl_text_free(&out);
    pvl_tokenizer_free(t);
}

/* ---- other people's files ---- */

/* llama.cpp's converter: user-defined pieces as normal or unused, U+1F409 for U+0000; or the model
 * file's own spelling of control tokens. */
TEST(internlm2_as_llama_cpp_writes_it) {
    for (int own_names = 0; own_names < 2; own_names++) {
        text_vocab v;
        pvl_tokenizer *t = NULL;
        static char names[6][20];
        REQUIRE(text_vocab_load(&v, "internlm2", false));
        CHECK_EQ_UINT(v.tokens[354].bytes, 1);
        v.tokens[354] = (pvl_span){"\xF0\x9F\x90\x89", 4};
        for (size_t i = 92352; i < 92544; i++) {
            if (i >= 92538 && own_names) {
                snprintf(names[i - 92538], sizeof names[0], "[UNUSED_TOKEN_%zu]", i - 92397);
                v.tokens[i] = (pvl_span){names[i - 92538], strlen(names[i - 92538])};
                v.types[i] = PVL_TOKEN_UNUSED;
            } else if (i < 92538) {
                v.types[i] = i < 92397 ? PVL_TOKEN_NORMAL : PVL_TOKEN_UNUSED;
            }
        }
        CHECK(pvl_tokenizer_new(&t, NULL, &v.vocab, NULL) == PVL_OK);
        text_vocab_free(&v);
        REQUIRE(t);
        CHECK_EQ_INT(check_vectors(t, "internlm2", "plain", "ids", 0), 186);
        CHECK_EQ_INT(check_vectors(t, "internlm2", "chat", "ids", PVL_ENCODE_SPECIAL), 46);
        CHECK(pvl_tokenizer_is_eog(t, 92542));
        pvl_tokenizer_free(t);
    }
}

/* Without the key of ours, Phi-3-mini's own tokens drop white space. */
TEST(phi3_rstrip_by_default) {
    text_vocab v;
    pvl_tokenizer *t = NULL;
    REQUIRE(text_vocab_load(&v, "phi3", false));
    CHECK_EQ_UINT(v.vocab.rstrip_count, 11);
    v.vocab.rstrip_ids = NULL;
    CHECK(pvl_tokenizer_new(&t, NULL, &v.vocab, NULL) == PVL_OK);
    text_vocab_free(&v);
    REQUIRE(t);
    CHECK_EQ_INT(check_vectors(t, "phi3", "chat", "ids_rstrip", PVL_ENCODE_SPECIAL), 45);
    pvl_tokenizer_free(t);
}

static void refuse(const pvl_vocab *v, pvl_status code, const char *words) {
    pvl_tokenizer *t = NULL;
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_tokenizer_new(&t, NULL, v, &err), code);
    CHECK_CONTAINS(err.message, words);
    CHECK(t == NULL);
    pvl_tokenizer_free(t);
}

TEST(refuses_vocabularies_that_do_not_fit_together) {
    text_vocab full;
    pvl_span merge = {"a zz", 4}, noise = {"\xFF\xFE", 2}, tokens[300];
    int32_t types[300], rstrip = 999;
    float scores[300] = {0};
    char spelled[256][4];
    REQUIRE(text_vocab_load(&full, "qwen2", false));
    /* The 256 byte tokens of Qwen2 and two more. */
    for (size_t i = 0; i < 256; i++) {
        memcpy(spelled[i], full.tokens[i].data, full.tokens[i].bytes);
        tokens[i] = (pvl_span){spelled[i], full.tokens[i].bytes};
        types[i] = PVL_TOKEN_NORMAL;
    }
    text_vocab_free(&full);
    tokens[256] = (pvl_span){"<|im_end|>", 10};
    types[256] = PVL_TOKEN_CONTROL;
    pvl_vocab v = {.kind = PVL_TOKENIZER_BPE,
                   .count = 257,
                   .tokens = tokens,
                   .types = types,
                   .bos = -1,
                   .eos = 256,
                   .pad = -1,
                   .unk = -1},
              w;
    pvl_tokenizer *t = NULL;
    REQUIRE(pvl_tokenizer_new(&t, NULL, &v, NULL) == PVL_OK);
    pvl_tokenizer_free(t);

    w = v, w.count = 0;
    refuse(&w, PVL_E_FORMAT, "empty");
    w = v, w.count = PVL_TOKENIZER_MAX_TOKENS + 1;
    refuse(&w, PVL_E_LIMIT, "tokens");
    w = v, w.merge_count = PVL_TOKENIZER_MAX_MERGES + 1;
    refuse(&w, PVL_E_LIMIT, "merges");
    w = v, w.merges = &merge, w.merge_count = 1;
    refuse(&w, PVL_E_FORMAT, "Merge 0, \"a zz\"");
    w = v, w.merges = &noise, w.merge_count = 1;
    refuse(&w, PVL_E_FORMAT, "Merge 0");
    w = v, w.count = 255;
    w.eos = -1;
    refuse(&w, PVL_E_FORMAT, "No token spells the byte");
    w = v, w.eos = 257;
    refuse(&w, PVL_E_FORMAT, "end-of-text id 257");
    w = v, w.unk = -2;
    refuse(&w, PVL_E_FORMAT, "unknown-token");
    w = v, w.add_bos = true;
    refuse(&w, PVL_E_FORMAT, "beginning-of-text");
    w = v, w.rstrip_ids = &rstrip, w.rstrip_count = 1;
    refuse(&w, PVL_E_FORMAT, "rstrip_ids");
    w = v, w.kind = PVL_TOKENIZER_SPM_INTERNLM2;
    refuse(&w, PVL_E_FORMAT, "no scores");
    w.scores = scores;
    refuse(&w, PVL_E_FORMAT, "No token spells the byte 0x00");
    scores[5] = NAN;
    refuse(&w, PVL_E_FORMAT, "score of token 5");
    types[7] = PVL_TOKEN_BYTE;
    scores[5] = 0;
    refuse(&w, PVL_E_FORMAT, "Token 7 is typed as a byte");
    w.kind = (pvl_tokenizer_kind)9;
    refuse(&w, PVL_E_UNSUPPORTED, "kind 9");
}

/* Whatever a file says: an error, or a tokenizer that works. */
TEST(random_vocabularies_do_no_harm) {
    enum { TOKENS = 700, MERGES = 300, TEXT = 60 };
    static const char *const spellings[] = {"<s>",
                                            "</s>",
                                            "<unk>",
                                            "<|im_end|>",
                                            "[UNUSED_TOKEN_0]",
                                            "<img>",
                                            "<0x41>",
                                            "<0xFF>",
                                            "[UNUSED_TOKEN_145]",
                                            "\xE2\x96\x81",
                                            "\xF0\x9F\x90\x89",
                                            "\xC4\xA0",
                                            "\xC4\xA0\xC4\xA0",
                                            "",
                                            " ",
                                            "\xE2\x96"};
    static const char letters[] = "aaabcde <|im_end|>\xE2\x96\x81\xC4\xA0[UNUSED_TOKEN_0]";
    static char store[TOKENS + MERGES][24];
    test_rng rng = test_rng_start(11);
    int made = 0;
    for (int round = 0; round < 1500; round++) {
        pvl_span tokens[TOKENS], merges[MERGES];
        int32_t types[TOKENS], rstrip[3];
        float scores[TOKENS];
        size_t n = test_rng_below(&rng, TOKENS + 1), mild = (size_t)round % 3;
        for (size_t i = 0; i < TOKENS + MERGES; i++) {
            size_t bytes = test_rng_below(&rng, i < TOKENS ? 8 : 5), from = test_rng_below(&rng, 4);
            for (size_t k = 0; k < bytes; k++)
                store[i][k] =
                    (char)(from ? 'a' + test_rng_below(&rng, 5) : test_rng_below(&rng, 256));
            if (i >= TOKENS && mild && n > 0) { /* two tokens' texts */
                pvl_span a = tokens[test_rng_below(&rng, n)], b = tokens[test_rng_below(&rng, n)];
                if (a.bytes + b.bytes < 23) {
                    memcpy(store[i], a.data, a.bytes);
                    store[i][a.bytes] = ' ';
                    memcpy(store[i] + a.bytes + 1, b.data, b.bytes);
                    bytes = a.bytes + 1 + b.bytes;
                }
            }
            if (i >= TOKENS) {
                merges[i - TOKENS] = (pvl_span){store[i], bytes};
                continue;
            }
            tokens[i] = (pvl_span){store[i], bytes};
            if (test_rng_below(&rng, 8) == 0) {
                const char *text =
                    spellings[test_rng_below(&rng, sizeof spellings / sizeof spellings[0])];
                tokens[i] = (pvl_span){text, strlen(text)};
            }
            types[i] = mild && test_rng_below(&rng, 9) ? PVL_TOKEN_NORMAL
                                                       : (int32_t)test_rng_below(&rng, 9) - 1;
            if (types[i] == PVL_TOKEN_BYTE && mild)
                types[i] = PVL_TOKEN_CONTROL;
            scores[i] = test_rng_below(&rng, 5) ? test_rng_normal(&rng) : 0;
        }
        for (int i = 0; i < 3; i++)
            rstrip[i] = (int32_t)test_rng_below(&rng, n + 1) - (mild ? 0 : 1);
        pvl_vocab v = {.kind = (pvl_tokenizer_kind)test_rng_below(&rng, 3),
                       .count = n,
                       .tokens = tokens,
                       .types = test_rng_below(&rng, 5) ? types : NULL,
                       .scores = scores,
                       .merges = merges,
                       .merge_count = mild == 2 ? 0 : test_rng_below(&rng, 3),
                       .add_bos = round % 2,
                       .bos = (int32_t)test_rng_below(&rng, n + 1) - 1,
                       .eos = (int32_t)test_rng_below(&rng, n + 1) - 1,
                       .pad = -1,
                       .unk = (int32_t)test_rng_below(&rng, n + 1) - 1,
                       .add_space_prefix = round % 5 == 0,
                       .rstrip_ids = round % 7 ? rstrip : NULL,
                       .rstrip_count = test_rng_below(&rng, 3)};
        pvl_tokenizer *t = NULL;
        pvl_error err = {0};
        pvl_tokens ids = {0};
        pvl_text back = {0};
        pvl_status status = pvl_tokenizer_new(&t, NULL, &v, &err);
        CHECK((status == PVL_OK) == (t != NULL) && (status == PVL_OK) == (err.message[0] == 0));
        made += t != NULL;
        for (int k = 0; t && k < 20; k++) {
            char text[TEXT];
            size_t bytes = test_rng_below(&rng, TEXT);
            for (size_t i = 0; i < bytes; i++)
                text[i] = k % 4 ? letters[test_rng_below(&rng, sizeof letters - 1)]
                                : (char)test_rng_below(&rng, 256);
            ids.count = 0;
            CHECK(pvl_tokenizer_encode(t, &ids, text, bytes, (unsigned)k % 3, NULL) == PVL_OK);
            for (size_t i = 0; i < ids.count; i++)
                CHECK(ids.ids[i] >= 0 && (size_t)ids.ids[i] < n);
            for (size_t i = 0; i < ids.count && k % 3 == 2; i++)
                CHECK(ids.ids[i] == v.unk || (v.types && types[ids.ids[i]] == PVL_TOKEN_UNKNOWN) ||
                      !pvl_tokenizer_is_control(t, ids.ids[i]));
            for (size_t i = 0; i < ids.count && k % 3 == 2; i++)
                CHECK(!pvl_tokenizer_is_eog(t, ids.ids[i]) || ids.ids[i] == v.eos);
            decode(t, &back, &ids, (unsigned)test_rng_below(&rng, 32));
        }
        pvl_tokens_free(&ids);
        pvl_text_free(&back);
        pvl_tokenizer_free(t);
    }
    CHECK_MSG(made > 100, "only %d of the vocabularies could be used", made);
}

/* ---- memory ---- */

typedef struct failing {
    size_t left, live;
} failing;

static void *failing_alloc(void *ctx, size_t bytes) {
    failing *f = ctx;
    if (f->left == 0)
        return NULL;
    f->left--;
    f->live++;
    return pvl_libc_allocator.alloc(NULL, bytes);
}

static void failing_free(void *ctx, void *p) {
    ((failing *)ctx)->live--;
    pvl_libc_allocator.free(NULL, p);
}

TEST(every_allocation_may_fail) {
    static const char text[] = "<|user|>\nA\xCC\x8A long caf\xC3\xA9\xFF, <|end|> "
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for (int m = 0; m < 2; m++) {
        text_vocab v;
        failing f = {0, 0};
        pvl_allocator a = {failing_alloc, failing_free, &f};
        pvl_tokenizer *t = NULL;
        pvl_status status = PVL_E_MEMORY;
        REQUIRE(text_vocab_load(&v, m ? "phi3" : "qwen2", false));
        if (m == 0) { /* the merges take long, and allocate nothing */
            v.vocab.merge_count = 300;
        }
        for (size_t n = 0; status == PVL_E_MEMORY && n < 100; n++) {
            f.left = n;
            status = pvl_tokenizer_new(&t, &a, &v.vocab, NULL);
            CHECK(status == PVL_OK || (f.live == 0 && t == NULL));
        }
        CHECK_EQ_INT(status, PVL_OK);
        text_vocab_free(&v);
        status = PVL_E_MEMORY;
        for (size_t n = 0; status == PVL_E_MEMORY && n < 100; n++) {
            pvl_tokens ids = {.allocator = &a};
            size_t live = f.live;
            f.left = n;
            status = pvl_tokenizer_encode(t, &ids, text, strlen(text), PVL_ENCODE_SPECIAL, NULL);
            CHECK(status == PVL_OK || (status == PVL_E_MEMORY && ids.count == 0));
            pvl_tokens_free(&ids);
            CHECK_EQ_UINT(f.live, live);
        }
        CHECK_EQ_INT(status, PVL_OK);
        pvl_tokenizer_free(t);
        CHECK_EQ_UINT(f.live, 0);
    }
}

TEST_MAIN(CASE(vectors), CASE(decoding_gives_the_text_back), CASE(any_bytes_are_a_text),
          CASE(long_texts_take_no_time), CASE(merges_are_the_lowest_key_then_leftmost),
          CASE(segments_read_as_one_text),
          CASE(internlm2_pieces_of_control_tokens_stay_literal_for_users),
          CASE(streams_whole_characters), CASE(shows_boxes_and_hides_turns),
          CASE(cleans_up_as_it_streams), CASE(internlm2_as_llama_cpp_writes_it),
          CASE(phi3_rstrip_by_default), CASE(refuses_vocabularies_that_do_not_fit_together),
          CASE(random_vocabularies_do_no_harm), CASE(every_allocation_may_fail))
