#include "tools/tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "text/tokenizer.h"
#include "tools/command.h"
#include "tools/gguf_file.h"
#include "tools/io.h"

enum { MAX_TABLE = 256 * 1024 * 1024 };

/* Arrays of the head, as the tokenizer takes them. */
typedef struct arrays {
    pvl_span *tokens, *merges;
    float *scores;
    int32_t *types, *rstrip;
    size_t token_count, merge_count, score_count, type_count, rstrip_count;
} arrays;

static void arrays_free(arrays *v) {
    pvl_free(NULL, v->tokens);
    pvl_free(NULL, v->merges);
    pvl_free(NULL, v->scores);
    pvl_free(NULL, v->types);
    pvl_free(NULL, v->rstrip);
}

static pvl_status read_spans(pvl_span **out, size_t *count, const pvl_gguf *g, const char *key,
                             pvl_error *err) {
    pvl_gguf_string *strings;
    PVL_TRY(pvl_gguf_array_str(g, key, &strings, count, err));
    void *p = NULL;
    pvl_status status = strings ? pvl_malloc(NULL, &p, *count, sizeof(pvl_span), key, err) : PVL_OK;
    *out = p;
    for (size_t i = 0; p && i < *count; i++)
        (*out)[i] = (pvl_span){strings[i].data, strings[i].bytes};
    pvl_free(NULL, strings);
    return status;
}

static pvl_status read_arrays(arrays *v, const pvl_gguf *g, pvl_error *err) {
    PVL_TRY(read_spans(&v->tokens, &v->token_count, g, "tokenizer.ggml.tokens", err));
    PVL_TRY(read_spans(&v->merges, &v->merge_count, g, "tokenizer.ggml.merges", err));
    PVL_TRY(pvl_gguf_array_f32(g, "tokenizer.ggml.scores", &v->scores, &v->score_count, err));
    PVL_TRY(pvl_gguf_array_i32(g, "tokenizer.ggml.token_type", &v->types, &v->type_count, err));
    PVL_TRY(
        pvl_gguf_array_i32(g, "pocketvl.tokenizer.rstrip_ids", &v->rstrip, &v->rstrip_count, err));
    if (v->token_count == 0 || (v->scores && v->score_count != v->token_count) ||
        (v->types && v->type_count != v->token_count))
        return pvl_fail(
            err, PVL_E_MODEL,
            "%s: tokenizer.ggml.tokens is missing, or scores and types do not have one entry "
            "for each token.",
            pvl_gguf_name(g));
    return PVL_OK;
}

static int32_t token_id(const pvl_gguf *g, const char *key, size_t count) {
    uint32_t id;
    return pvl_gguf_u32(g, key, &id) && id < count ? (int32_t)id : -1;
}

/* The rule of the engine: our key, else the model's kind of tokenizer and architecture. */
static pvl_status kind_of(pvl_tokenizer_kind *out, const pvl_gguf *g, pvl_error *err) {
    bool bpe = pvl_gguf_str_is(g, "tokenizer.ggml.model", "gpt2");
    if (!bpe && !pvl_gguf_str_is(g, "tokenizer.ggml.model", "llama"))
        return pvl_fail(
            err, PVL_E_UNSUPPORTED,
            "%s: tokenizer.ggml.model must be gpt2 (byte-level BPE) or llama (SentencePiece).",
            pvl_gguf_name(g));
    bool slow = pvl_gguf_str_is(g, "pocketvl.tokenizer.kind", "spm-llama-slow") ||
                (!pvl_gguf_has(g, "pocketvl.tokenizer.kind") &&
                 pvl_gguf_str_is(g, "general.architecture", "phi3"));
    *out = bpe    ? PVL_TOKENIZER_BPE
           : slow ? PVL_TOKENIZER_SPM_LLAMA_SLOW
                  : PVL_TOKENIZER_SPM_INTERNLM2;
    return PVL_OK;
}

static pvl_status make_tokenizer(pvl_tokenizer **out, const pvl_gguf *g, pvl_error *err) {
    arrays v = {0};
    pvl_vocab vocab = {0};
    pvl_status status = kind_of(&vocab.kind, g, err);
    if (status == PVL_OK)
        status = read_arrays(&v, g, err);
    if (status == PVL_OK) {
        bool bpe = vocab.kind == PVL_TOKENIZER_BPE;
        vocab.count = v.token_count;
        vocab.tokens = v.tokens;
        vocab.scores = v.scores;
        vocab.types = v.types;
        vocab.merges = v.merges;
        vocab.merge_count = v.merge_count;
        vocab.bos = token_id(g, "tokenizer.ggml.bos_token_id", v.token_count);
        vocab.eos = token_id(g, "tokenizer.ggml.eos_token_id", v.token_count);
        vocab.pad = token_id(g, "tokenizer.ggml.padding_token_id", v.token_count);
        vocab.unk = token_id(g, "tokenizer.ggml.unknown_token_id", v.token_count);
        vocab.rstrip_ids = v.rstrip;
        vocab.rstrip_count = v.rstrip_count;
        vocab.add_bos = vocab.add_space_prefix = !bpe;
        pvl_gguf_bool(g, "tokenizer.ggml.add_bos_token", &vocab.add_bos);
        pvl_gguf_bool(g, "tokenizer.ggml.add_space_prefix", &vocab.add_space_prefix);
        status = pvl_tokenizer_new(out, NULL, &vocab, err);
    }
    arrays_free(&v);
    return status;
}

static int digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* Hexadecimal over itself, to bytes; false when it is none. */
static bool unhex(char *text, size_t n, size_t *bytes) {
    *bytes = 0;
    if (n == 1 && text[0] == '-')
        return true;
    if (n % 2)
        return false;
    for (size_t i = 0; i < n; i += 2) {
        int high = digit(text[i]), low = digit(text[i + 1]);
        if (high < 0 || low < 0)
            return false;
        text[(*bytes)++] = (char)(high * 16 + low);
    }
    return true;
}

static pvl_status print_row(const pvl_tokenizer *t, const char *id, size_t id_bytes,
                            const char *text, size_t bytes, bool chat, pvl_error *err) {
    pvl_tokens ids = {0};
    pvl_status status =
        pvl_tokenizer_encode(t, &ids, text, bytes, chat ? PVL_ENCODE_SPECIAL : 0, err);
    if (status == PVL_OK) {
        printf("%.*s\t", (int)id_bytes, id);
        for (size_t i = 0; i < ids.count; i++)
            printf(i ? " %d" : "%d", (int)ids.ids[i]);
        printf(ids.count ? "\n" : "-\n");
    }
    pvl_tokens_free(&ids);
    return status;
}

static pvl_status print_table(const pvl_tokenizer *t, const char *path, bool chat, pvl_error *err) {
    char *table;
    size_t size, number = 0;
    PVL_TRY(pvl_io_read(&table, &size, path, MAX_TABLE, err));
    pvl_status status = PVL_OK;
    for (char *line = table; status == PVL_OK && line < table + size;) {
        char *end = memchr(line, '\n', size - (size_t)(line - table));
        size_t n = end ? (size_t)(end - line) : size - (size_t)(line - table), bytes = 0;
        char *next = line + n + (end != NULL), *field[4] = {line, NULL, NULL, NULL};
        size_t length[4] = {0};
        number++;
        if (n && line[n - 1] == '\r')
            n--;
        for (size_t k = 0; k < 4 && field[k]; k++) {
            size_t left = n - (size_t)(field[k] - line);
            char *tab = left ? memchr(field[k], '\t', left) : NULL;
            length[k] = tab ? (size_t)(tab - field[k]) : left;
            if (k < 3)
                field[k + 1] = tab ? tab + 1 : NULL;
        }
        if (n && line[0] != '#') {
            if (!field[3] || !unhex(field[3], length[3], &bytes))
                status = pvl_fail(
                    err, PVL_E_FORMAT,
                    "%s: line %zu needs an id, a source, a category and a text in hexadecimal, "
                    "with tabs between them.",
                    path, number);
            else
                status = print_row(t, field[0], length[0], field[3], bytes, chat, err);
        }
        line = next;
    }
    free(table);
    return status;
}

static const char usage[] =
    "usage: pocketvl tokens MODEL.gguf --tsv FILE [--chat]\n"
    "  --tsv FILE   rows of id, source, category, text in hexadecimal, between tabs\n"
    "  --chat       special tokens are recognised and the model's BOS rule applies\n";

int pvl_tool_tokens(int argc, char **argv) {
    pvl_arguments a = pvl_arguments_over(argc, argv);
    const char *key, *table = NULL;
    bool chat = false;
    while ((key = pvl_next_option(&a)) != NULL) {
        if (strcmp(key, "help") == 0)
            return pvl_print_usage(usage);
        if (strcmp(key, "chat") == 0)
            chat = true;
        else if (strcmp(key, "tsv") != 0 || (table = pvl_option_value(&a)) == NULL)
            return pvl_wrong_usage(usage, key, NULL);
    }
    if (a.plain_count != 1 || !table)
        return pvl_wrong_usage(usage, NULL, NULL);
    pvl_gguf_files f;
    pvl_tokenizer *t = NULL;
    pvl_error err = {0};
    pvl_status status = pvl_gguf_files_open(&f, a.plain[0], &err);
    if (status == PVL_OK)
        status = make_tokenizer(&t, f.parts[0].head, &err);
    pvl_gguf_files_close(&f);
    if (status == PVL_OK)
        status = print_table(t, table, chat, &err);
    pvl_tokenizer_free(t);
    if (status == PVL_OK && fflush(stdout) != 0)
        status = pvl_fail(&err, PVL_E_IO, "The ids cannot be written to standard output.");
    return status == PVL_OK ? 0 : pvl_report_error(&err);
}
