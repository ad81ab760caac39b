/* Reads the vocabularies of tests/fixtures/text (format: tests/oracle/text_vocab.py) into the
 * arrays that GGUF would give, and the rows of vector files. For test_tokenizer.c and
 * test_template.c. */
#ifndef PVL_TESTS_TEXT_VOCAB_H
#define PVL_TESTS_TEXT_VOCAB_H

#include "../test.h"
#include "base/bytes.h"
#include "text/tokenizer.h"

#define TEXT_FIXTURES "tests/fixtures/text/"

typedef struct text_vocab {
    pvl_vocab vocab;
    pvl_span *tokens, *merges;
    float *scores;
    int32_t *types, *rstrip;
    char *text, *merge_text;
} text_vocab;

static TEST_UNUSED void text_vocab_free(text_vocab *v) {
    free(v->tokens);
    free(v->merges);
    free(v->scores);
    free(v->types);
    free(v->rstrip);
    free(v->text);
    free(v->merge_text);
    memset(v, 0, sizeof *v);
}

static uint32_t text_u24(pvl_cursor *c) {
    const unsigned char *p = pvl_cursor_take(c, 3);
    return p ? (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 : 0;
}

/* short_merges: only those that InternVL2-1B's own merges.txt has. */
static TEST_UNUSED bool text_vocab_load(text_vocab *v, const char *name, bool short_merges) {
    char path[200];
    size_t bytes, count, merges, scores, rstrip, used = 0, kept = 0;
    unsigned char *data;
    pvl_cursor c;
    memset(v, 0, sizeof *v);
    snprintf(path, sizeof path, TEXT_FIXTURES "%s.vocab", name);
    data = test_read_file(path, &bytes);
    if (!data)
        return false;
    c = pvl_cursor_over(data, bytes);
    pvl_cursor_take(&c, 4);
    v->vocab.kind = (pvl_tokenizer_kind)pvl_cursor_u32(&c);
    v->vocab.count = count = pvl_cursor_u32(&c);
    merges = pvl_cursor_u32(&c);
    scores = pvl_cursor_u32(&c);
    v->vocab.bos = (int32_t)pvl_cursor_u32(&c);
    v->vocab.eos = (int32_t)pvl_cursor_u32(&c);
    v->vocab.pad = (int32_t)pvl_cursor_u32(&c);
    v->vocab.unk = (int32_t)pvl_cursor_u32(&c);
    v->vocab.add_bos = pvl_cursor_u8(&c);
    v->vocab.add_space_prefix = pvl_cursor_u8(&c);
    rstrip = pvl_cursor_u16(&c);
    v->tokens = calloc(count, sizeof *v->tokens);
    v->types = calloc(count, sizeof *v->types);
    v->scores = calloc(count, sizeof *v->scores);
    v->merges = calloc(merges + 1, sizeof *v->merges);
    v->rstrip = calloc(rstrip + 1, sizeof *v->rstrip);
    v->text = malloc(count * 32 + 1024);
    v->merge_text = malloc(merges * 64 + 1);
    pvl_cursor order = pvl_cursor_over(pvl_cursor_take(&c, count * 3), count * 3);
    const char *before = v->text;
    for (size_t i = 0; i < count && !c.bad; i++) {
        uint32_t id = text_u24(&order);
        size_t shared = pvl_cursor_u8(&c), rest = pvl_cursor_u8(&c);
        const unsigned char *tail;
        char *text = v->text + used;
        if (rest == 255)
            rest = pvl_cursor_u32(&c);
        tail = pvl_cursor_take(&c, rest);
        if (id >= count || !tail || used + shared + rest > count * 32 + 1024)
            break;
        memmove(text, before, shared);
        memcpy(text + shared, tail, rest);
        v->tokens[id] = (pvl_span){text, shared + rest};
        before = text;
        used += shared + rest;
    }
    for (size_t i = 0; i < count; i++)
        v->types[i] = pvl_cursor_u8(&c);
    for (size_t i = 0; i < scores; i++)
        v->scores[i] = pvl_cursor_f32(&c);
    pvl_cursor left = pvl_cursor_over(pvl_cursor_take(&c, merges * 3), merges * 3);
    pvl_cursor right = pvl_cursor_over(pvl_cursor_take(&c, merges * 3), merges * 3);
    const unsigned char *bits = pvl_cursor_take(&c, (merges + 7) / 8);
    used = 0;
    for (size_t i = 0; i < merges && !c.bad; i++) {
        pvl_span a = v->tokens[text_u24(&left)], b = v->tokens[text_u24(&right)];
        char *text = v->merge_text + used;
        if (short_merges && !(bits[i / 8] >> i % 8 & 1))
            continue;
        memcpy(text, a.data, a.bytes);
        text[a.bytes] = ' ';
        memcpy(text + a.bytes + 1, b.data, b.bytes);
        v->merges[kept++] = (pvl_span){text, a.bytes + 1 + b.bytes};
        used += a.bytes + 1 + b.bytes;
    }
    for (size_t i = 0; i < rstrip; i++)
        v->rstrip[i] = (int32_t)pvl_cursor_u32(&c);
    v->vocab.tokens = v->tokens;
    v->vocab.types = v->types;
    v->vocab.scores = scores ? v->scores : NULL;
    v->vocab.merges = v->merges;
    v->vocab.merge_count = kept;
    v->vocab.rstrip_ids = v->rstrip;
    v->vocab.rstrip_count = rstrip;
    CHECK_MSG(!c.bad && c.at == bytes, "%s is damaged", path);
    bool sound = !c.bad && c.at == bytes;
    free(data);
    return sound;
}

static TEST_UNUSED pvl_tokenizer *text_tokenizer(const char *name, bool short_merges) {
    text_vocab v;
    pvl_tokenizer *t = NULL;
    pvl_error err = {0};
    if (!text_vocab_load(&v, name, short_merges))
        return NULL;
    pvl_status status = pvl_tokenizer_new(&t, NULL, &v.vocab, &err);
    CHECK_MSG(status == PVL_OK, "%s: %s", name, err.message);
    text_vocab_free(&v);
    return t;
}

/* ---- tab-separated rows ---- */

/* The next column of a row, terminated in place; *row moves behind it. */
static TEST_UNUSED char *text_column(char **row) {
    char *column = *row;
    size_t n = strcspn(column, "\t\n");
    *row = column + n + (column[n] != 0);
    column[n] = 0;
    return column;
}

/* Hexadecimal digits ("-" is none) to bytes, malloc'ed. */
static TEST_UNUSED char *text_unhex(const char *hex, size_t *bytes) {
    size_t n = strcmp(hex, "-") == 0 ? 0 : strlen(hex) / 2;
    char *out = malloc(n + 1);
    for (size_t i = 0; i < n; i++) {
        unsigned value;
        sscanf(hex + 2 * i, "%2x", &value);
        out[i] = (char)value;
    }
    out[n] = 0;
    *bytes = n;
    return out;
}

/* A list of decimal ids, "-" is none. */
static TEST_UNUSED void text_ids(pvl_tokens *out, const char *list) {
    out->count = 0;
    while (*list && strcmp(list, "-") != 0) {
        char *end;
        pvl_tokens_push(out, (int32_t)strtol(list, &end, 10), NULL);
        if (end == list)
            break;
        list = end + (*end == ' ');
    }
}

static TEST_UNUSED void text_check_ids(const pvl_tokens *got, const pvl_tokens *expected,
                                       const char *what) {
    size_t at = 0;
    while (at < got->count && at < expected->count && got->ids[at] == expected->ids[at])
        at++;
    CHECK_MSG(at == got->count && at == expected->count,
              "%s: %zu ids, expected %zu; the first that differs is number %zu: %d, expected %d",
              what, got->count, expected->count, at, at < got->count ? (int)got->ids[at] : -1,
              at < expected->count ? (int)expected->ids[at] : -1);
}

#endif
