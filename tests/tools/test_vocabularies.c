/* The three real tokenizers as published folders (written back from tests/fixtures/text), through
 * `convert --vocab-only`, and every vector through `tokens`: exactly the ids that are listed. */
#include "folder.h"

#include "../unit/text_vocab.h"
#include "tools/convert.h"
#include "tools/tokens.h"

typedef struct model {
    const char *name, *fixture, *class;
    bool short_merges; /* only the merges of InternVL2-1B's own merges.txt */
    size_t base;       /* tokens of the vocabulary's own files */
    size_t renamed;    /* of these the last ones, spelled [UNUSED_TOKEN_n] in tokenizer.model */
    const char *plain, *chat; /* the columns of ids */
} model;

static const model models[] = {
    {"1B", "qwen2", "Qwen2Tokenizer", true, 151643, 0, "ids_internvl2_1b", "ids_internvl2_1b"},
    {"1B with Qwen2's merges", "qwen2", "Qwen2Tokenizer", false, 151643, 0, "ids_qwen2",
     "ids_qwen2"},
    {"2B", "internlm2", "InternLM2Tokenizer", false, 92544, 6, "ids", "ids"},
    {"4B", "phi3", "LlamaTokenizer", false, 32000, 0, "ids", "ids_rstrip"},
};

static FILE *create(const test_folder *f, const char *name) {
    FILE *file = fopen(folder_file(f, name), "wb");
    test_check(file != NULL, __FILE__, __LINE__, "cannot write %s", name);
    return file;
}

static void put_json(FILE *f, pvl_span text) {
    fputc('"', f);
    for (size_t i = 0; i < text.bytes; i++) {
        if (text.data[i] == '"' || text.data[i] == '\\')
            fputc('\\', f);
        fputc(text.data[i], f);
    }
    fputc('"', f);
}

/* {"text": id} of the tokens from `first` on. */
static void write_ids(const test_folder *f, const char *name, const text_vocab *v, size_t first,
                      size_t end) {
    FILE *file = create(f, name);
    if (!file)
        return;
    for (size_t i = first; i < end; i++) {
        fputs(i > first ? ",\n" : "{", file);
        put_json(file, v->tokens[i]);
        fprintf(file, ": %zu", i);
    }
    fputs("}\n", file);
    fclose(file);
}

static bool listed(const text_vocab *v, size_t id) {
    for (size_t i = 0; i < v->vocab.rstrip_count; i++)
        if (v->rstrip[i] == (int32_t)id)
            return true;
    return false;
}

/* tokenizer_config.json: the class and what is known of every added token. */
static void write_config(const test_folder *f, const model *m, const text_vocab *v) {
    FILE *file = create(f, "tokenizer_config.json");
    if (!file)
        return;
    fprintf(file, "{\"tokenizer_class\": \"%s\", \"added_tokens_decoder\": {", m->class);
    bool first = true;
    for (size_t i = 0; i < v->vocab.count; i++) {
        bool special = v->types[i] == PVL_TOKEN_CONTROL || v->types[i] == PVL_TOKEN_UNKNOWN;
        if (!special && i < m->base && !listed(v, i))
            continue;
        fprintf(file, "%s\n\"%zu\": {\"content\": ", first ? "" : ",", i);
        put_json(file, v->tokens[i]);
        fprintf(file, ", \"special\": %s, \"rstrip\": %s}", special ? "true" : "false",
                listed(v, i) ? "true" : "false");
        first = false;
    }
    fputs("}}\n", file);
    fclose(file);
}

static void put_varint(FILE *f, size_t n) {
    for (; n > 127; n >>= 7)
        fputc((int)(n & 127) | 128, f);
    fputc((int)n, f);
}

/* SentencePiece's file, with the fields that tools/sentencepiece.c lists. */
static void write_sentencepiece(const test_folder *f, const model *m, const text_vocab *v) {
    FILE *file = create(f, "tokenizer.model");
    if (!file)
        return;
    for (size_t i = 0; i < m->base; i++) {
        char unused[32];
        pvl_span text = v->tokens[i];
        int type = v->types[i];
        if (i >= m->base - m->renamed) {
            snprintf(unused, sizeof unused, "[UNUSED_TOKEN_%zu]", i - (m->base - m->renamed) + 141);
            text = (pvl_span){unused, strlen(unused)};
            type = PVL_TOKEN_USER_DEFINED;
        }
        unsigned char score[4];
        memcpy(score, &v->scores[i], 4);
        size_t length = text.bytes > 127 ? 2 : 1, inner = 1 + length + text.bytes + 5 + 2;
        fputc(1 << 3 | 2, file);
        put_varint(file, inner);
        fputc(1 << 3 | 2, file);
        put_varint(file, text.bytes);
        fwrite(text.data, 1, text.bytes, file);
        fputc(2 << 3 | 5, file);
        fwrite(score, 1, 4, file);
        fputc(3 << 3 | 0, file);
        fputc(type, file);
    }
    const unsigned char end[] = {2 << 3 | 2, 2, 3 << 3, 2, /* trainer: BPE */
                                 3 << 3 | 2, 2, 3 << 3, v->vocab.add_space_prefix};
    fwrite(end, 1, sizeof end, file);
    fclose(file);
}

static void write_folder(const test_folder *f, const model *m, const text_vocab *v) {
    if (v->vocab.kind == PVL_TOKENIZER_BPE) {
        write_ids(f, "vocab.json", v, 0, m->base);
        FILE *merges = create(f, "merges.txt");
        if (merges) {
            fputs("#version: 0.2\n", merges);
            for (size_t i = 0; i < v->vocab.merge_count; i++)
                fprintf(merges, "%.*s\n", (int)v->merges[i].bytes, v->merges[i].data);
            fclose(merges);
        }
    } else {
        write_sentencepiece(f, m, v);
    }
    write_ids(f, "added_tokens.json", v, m->base, v->vocab.count);
    write_config(f, m, v);
}

/* Which column of the table's first line has that name. */
static size_t find_column(char *line, const char *name) {
    for (size_t i = 0; *line; i++)
        if (strcmp(text_column(&line), name) == 0)
            return i;
    test_check(false, __FILE__, __LINE__, "no column %s", name);
    return 0;
}

/* Every row of a table against what the command printed, line by line. */
static void check_rows(const char *path, const char *column, char *printed) {
    size_t bytes, wanted = 0, rows = 0;
    char *table = (char *)test_read_file(path, &bytes);
    for (char *row = table, *next; row && *row; row = next) {
        size_t n = strcspn(row, "\n");
        next = row + n + (row[n] != 0);
        row[n] = 0;
        if (*row == '#') {
            wanted = find_column(row, column);
            continue;
        }
        const char *id = text_column(&row), *cell = id;
        for (size_t i = 0; i < wanted; i++)
            cell = text_column(&row);
        char *ids = strchr(printed, '\t'), *end = strchr(printed, '\n');
        REQUIRE(ids && end && ids < end);
        *ids++ = *end = 0;
        CHECK_STR(printed, id);
        CHECK_MSG(strcmp(ids, cell) == 0, "%s: %.80s, expected %.80s", id, ids, cell);
        printed = end + 1;
        rows++;
    }
    CHECK_MSG(rows >= 14 && !*printed, "%s: %zu rows", path, rows);
    free(table);
}

static void check_table(const test_folder *f, const model *m, const char *gguf, const char *table,
                        const char *column, bool chat) {
    char path[200], *out, *err;
    snprintf(path, sizeof path, TEXT_FIXTURES "%s-%s.tsv", m->fixture, table);
    char *argv[] = {(char *)"tokens", (char *)(uintptr_t)gguf, (char *)"--tsv", path,
                    (char *)"--chat"};
    int status = run_captured(pvl_tool_tokens, chat ? 5 : 4, argv, f, &out, &err);
    CHECK_MSG(status == 0, "%s %s: %s", m->name, table, err ? err : "");
    if (status == 0 && out)
        check_rows(path, column, out);
    free(out);
    free(err);
}

static void check_model(const model *m) {
    test_folder f;
    text_vocab v;
    pvl_error err = {0};
    REQUIRE(folder_make(&f));
    REQUIRE(text_vocab_load(&v, m->fixture, m->short_merges));
    write_folder(&f, m, &v);
    text_vocab_free(&v);
    char gguf[2 * FOLDER_PATH];
    snprintf(gguf, sizeof gguf, "%s", folder_file(&f, "v.gguf"));
    pvl_convert_options o = {.folder = f.path,
                             .out = gguf,
                             .mix = pvl_mix_default(PVL_DTYPE_F32),
                             .vocab_only = true,
                             .quiet = true};
    CHECK_MSG(pvl_convert(&o, &err) == PVL_OK, "%s: %s", m->name, err.message);
    check_table(&f, m, gguf, "plain", m->plain, false);
    check_table(&f, m, gguf, "chat", m->chat, true);
    check_table(&f, m, gguf, "invalid-utf8", m->plain, false);
    folder_end(&f);
}

TEST(every_vector_of_the_1b) {
    check_model(&models[0]);
    check_model(&models[1]);
}

TEST(every_vector_of_the_2b) {
    check_model(&models[2]);
}

TEST(every_vector_of_the_4b) {
    check_model(&models[3]);
}

TEST_MAIN(CASE(every_vector_of_the_1b), CASE(every_vector_of_the_2b), CASE(every_vector_of_the_4b))
