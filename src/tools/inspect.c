#include "tools/inspect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/command.h"
#include "tools/gguf_file.h"

enum { SHOWN_ITEMS = 6, SHOWN_TEXT = 96, TYPES = 64 };

/* Text on one line, control characters and broken UTF-8 as \xHH, cut. */
static void print_text(const void *data, size_t bytes, size_t most) {
    const unsigned char *s = data;
    putchar('"');
    for (size_t i = 0; i < bytes && i < most; i++) {
        if (s[i] == '"' || s[i] == '\\')
            printf("\\%c", s[i]);
        else if (s[i] == '\n')
            printf("\\n");
        else if (s[i] < 32 || s[i] == 127)
            printf("\\x%02x", s[i]);
        else
            putchar(s[i]);
    }
    printf(bytes > most ? "\"... (%zu bytes)" : "\"", bytes);
}

static const char *type_name(pvl_gguf_type t) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return (unsigned)t < sizeof names / sizeof *names ? names[t] : "?";
}

/* One value at p, which is checked by the reader; returns its bytes. */
static size_t print_value(const unsigned char *p, pvl_gguf_type type) {
    switch (type) {
    case PVL_GGUF_U8:
        printf("%u", p[0]);
        return 1;
    case PVL_GGUF_I8:
        printf("%d", (int8_t)p[0]);
        return 1;
    case PVL_GGUF_BOOL:
        printf(p[0] ? "true" : "false");
        return 1;
    case PVL_GGUF_U16:
        printf("%u", pvl_load_u16(p));
        return 2;
    case PVL_GGUF_I16:
        printf("%d", (int16_t)pvl_load_u16(p));
        return 2;
    case PVL_GGUF_U32:
        printf("%" PRIu32, pvl_load_u32(p));
        return 4;
    case PVL_GGUF_I32:
        printf("%" PRId32, (int32_t)pvl_load_u32(p));
        return 4;
    case PVL_GGUF_F32:
        printf("%.9g", (double)pvl_bits_f32(pvl_load_u32(p)));
        return 4;
    case PVL_GGUF_U64:
        printf("%" PRIu64, pvl_load_u64(p));
        return 8;
    case PVL_GGUF_I64:
        printf("%" PRId64, (int64_t)pvl_load_u64(p));
        return 8;
    case PVL_GGUF_F64: {
        uint64_t bits = pvl_load_u64(p);
        double v;
        memcpy(&v, &bits, sizeof v);
        printf("%.17g", v);
        return 8;
    }
    case PVL_GGUF_STRING: {
        size_t n = (size_t)pvl_load_u64(p);
        print_text(p + 8, n, SHOWN_TEXT);
        return 8 + n;
    }
    default:
        return 0;
    }
}

static void print_kv(const pvl_gguf_kv *kv, bool whole) {
    const unsigned char *p = kv->value;
    if (kv->type != PVL_GGUF_ARRAY) {
        printf("  %-46s %-7s ", kv->key, type_name(kv->type));
        print_value(p, kv->type);
        printf("\n");
        return;
    }
    printf("  %-46s %s[%zu] [", kv->key, type_name(kv->item), kv->count);
    p += 12; /* element type, count */
    size_t shown = whole || kv->count <= SHOWN_ITEMS + 2 ? kv->count : SHOWN_ITEMS;
    for (size_t i = 0; i < shown; i++) {
        printf(i ? ", " : "");
        p += print_value(p, kv->item);
    }
    printf(shown < kv->count ? ", ...]\n" : "]\n");
}

static void print_head(const pvl_gguf_part *part, bool whole, bool tensors) {
    const pvl_gguf *g = part->head;
    printf("%s: %" PRIu64 " bytes, %zu keys, %zu tensors, data from %" PRIu64 "\n", part->path,
           part->bytes, pvl_gguf_kv_count(g), pvl_gguf_tensor_count(g), pvl_gguf_data_start(g));
    for (size_t i = 0; i < pvl_gguf_kv_count(g); i++)
        print_kv(pvl_gguf_kv_at(g, i), whole);
    for (size_t i = 0; tensors && i < pvl_gguf_tensor_count(g); i++) {
        const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, i);
        printf("  %-40s %-7s {", t->name, pvl_dtype_name((uint32_t)t->type));
        for (uint32_t d = 0; d < t->dims; d++)
            printf("%s%zu", d ? ", " : "", t->ne[d]);
        printf("}  %zu bytes\n", t->bytes);
    }
}

static void print_sums(const pvl_gguf_files *f) {
    uint64_t count[TYPES] = {0}, elements[TYPES] = {0}, bytes[TYPES] = {0}, all = 0, size = 0;
    for (size_t p = 0; p < f->count; p++) {
        for (size_t i = 0; i < pvl_gguf_tensor_count(f->parts[p].head); i++) {
            const pvl_gguf_tensor *t = pvl_gguf_tensor_at(f->parts[p].head, i);
            size_t k = (size_t)t->type < TYPES ? (size_t)t->type : TYPES - 1;
            count[k]++;
            elements[k] += t->elements;
            bytes[k] += t->bytes;
            all += t->elements;
            size += t->bytes;
        }
    }
    for (uint32_t k = 0; k < TYPES; k++) {
        if (count[k])
            printf("%-7s %6" PRIu64 " tensors %14" PRIu64 " parameters %12.2f MB\n",
                   pvl_dtype_name(k), count[k], elements[k], (double)bytes[k] / 1e6);
    }
    printf("all     %" PRIu64 " parameters, %.2f MB, %.2f bits a parameter\n", all,
           (double)size / 1e6, all ? (double)size * 8 / (double)all : 0.0);
}

static const char usage[] = "usage: pocketvl inspect [--all] [--no-tensors] FILE.gguf\n"
                            "  of a split model the first part; --all shows whole lists\n";

int pvl_tool_inspect(int argc, char **argv) {
    pvl_arguments a = pvl_arguments_over(argc, argv);
    bool whole = false, tensors = true;
    const char *key;
    while ((key = pvl_next_option(&a)) != NULL) {
        if (strcmp(key, "help") == 0)
            return pvl_print_usage(usage);
        if (strcmp(key, "all") == 0)
            whole = true;
        else if (strcmp(key, "no-tensors") == 0)
            tensors = false;
        else
            return pvl_wrong_usage(usage, key, NULL);
    }
    if (a.plain_count != 1)
        return pvl_wrong_usage(usage, NULL, NULL);
    pvl_gguf_files f;
    pvl_error err = {0};
    pvl_status status = pvl_gguf_files_open(&f, a.plain[0], &err);
    for (size_t i = 0; status == PVL_OK && i < f.count; i++)
        print_head(&f.parts[i], whole, tensors);
    if (status == PVL_OK)
        print_sums(&f);
    pvl_gguf_files_close(&f);
    return status == PVL_OK ? 0 : pvl_report_error(&err);
}
