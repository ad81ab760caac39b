#include "tools/manifest.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct text {
    char *data;
    size_t bytes, capacity;
    bool failed;
} text;

static void put(text *t, const char *s, size_t n) {
    if (t->failed)
        return;
    if (t->bytes + n + 1 > t->capacity) {
        size_t capacity = 2 * (t->bytes + n + 1);
        char *data = realloc(t->data, capacity);
        if (!data) {
            t->failed = true;
            return;
        }
        t->data = data;
        t->capacity = capacity;
    }
    memcpy(t->data + t->bytes, s, n);
    t->bytes += n;
    t->data[t->bytes] = 0;
}

static PVL_PRINTF(2, 3) void put_format(text *t, const char *format, ...) {
    char line[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof line)
        t->failed = true;
    else
        put(t, line, (size_t)n);
}

static void put_string(text *t, const char *s) {
    put(t, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            put_format(t, "\\%c", c);
        else if (c < 32)
            put_format(t, "\\u%04x", c);
        else
            put(t, s, 1);
    }
    put(t, "\"", 1);
}

static void put_member(text *t, const char *key, const char *value) {
    if (!value)
        return;
    put_format(t, "  \"%s\": ", key);
    put_string(t, value);
    put(t, ",\n", 2);
}

static void put_file(text *t, const pvl_output_file *file, bool last) {
    put_format(t, "    {\n      \"name\": ");
    put_string(t, file->name);
    put_format(t, ",\n      \"bytes\": %llu,\n      \"chunks\": [\n",
               (unsigned long long)file->bytes);
    for (size_t i = 0; i < file->chunk_count; i++) {
        char hex[65];
        pvl_sha256_hex(hex, file->chunks[i].sha256);
        put_format(t, "        { \"bytes\": %llu, \"sha256\": \"%s\" }%s\n",
                   (unsigned long long)file->chunks[i].bytes, hex,
                   i + 1 < file->chunk_count ? "," : "");
    }
    put_format(t, "      ]\n    }%s\n", last ? "" : ",");
}

/* A page's memory ends at 4 GiB; of that the engine's stacks, a picture and what is being loaded
 * take something besides. */
#define PAGE_BYTES ((UINT64_C(4) << 30) - (UINT64_C(256) << 20))

static bool needs_q8(const pvl_memory *m) {
    return m && m->weights + m->kv_cache + m->scratch > PAGE_BYTES;
}

char *pvl_manifest_text(const pvl_manifest *m) {
    text t = {0};
    put_format(&t, "{\n  \"format\": 1,\n");
    put_member(&t, "name", m->name);
    put_member(&t, "title", m->title);
    put_member(&t, "license", m->license);
    put_member(&t, "template", m->template_name);
    put_format(&t, "  \"files\": [\n");
    for (size_t i = 0; i < m->file_count; i++)
        put_file(&t, &m->files[i], i + 1 == m->file_count);
    put_format(&t,
               "  ],\n  \"settings\": {\n    \"maxTiles\": %d,\n    \"context\": %d,\n    "
               "\"maxTokens\": %d,\n",
               m->max_tiles, m->context, m->max_tokens);
    put_format(&t, "    \"temperature\": 0%s\n  }",
               needs_q8(m->memory) ? ",\n    \"kvType\": \"q8\"" : "");
    if (m->memory) {
        put_format(&t,
                   ",\n  \"memory\": {\n    \"context\": %d,\n    \"contextLength\": %d,\n    "
                   "\"weights\": %llu,\n    "
                   "\"kvCache\": %llu,\n    \"kvCacheQ8\": %llu,\n",
                   m->context, m->context_length, (unsigned long long)m->memory->weights,
                   (unsigned long long)m->memory->kv_cache, (unsigned long long)m->kv_cache_q8);
        put_format(&t, "    \"scratch\": %llu,\n    \"peakLoad\": %llu\n  }",
                   (unsigned long long)m->memory->scratch,
                   (unsigned long long)m->memory->peak_load);
    }
    put_format(&t, "\n}\n");
    if (!t.failed)
        return t.data;
    free(t.data);
    return NULL;
}
