#include "tools/tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/vocabulary.h"
#include "tools/command.h"
#include "tools/gguf_file.h"
#include "tools/io.h"

enum { MAX_TABLE = 256 * 1024 * 1024 };

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
        status = pvl_vocabulary_read(&t, f.parts[0].head, NULL, &err);
    pvl_gguf_files_close(&f);
    if (status == PVL_OK)
        status = print_table(t, table, chat, &err);
    pvl_tokenizer_free(t);
    if (status == PVL_OK && fflush(stdout) != 0)
        status = pvl_fail(&err, PVL_E_IO, "The ids cannot be written to standard output.");
    return status == PVL_OK ? 0 : pvl_report_error(&err);
}
