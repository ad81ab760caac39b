/*
 * Reads the .golden files that tests/oracle/model_fixtures.py writes (the format and the entries
 * are described there):
 *
 *     golden g;
 *     REQUIRE(golden_open(&g, "tests/fixtures/model/qwen2.golden"));
 *     const golden_entry *pixels = golden_get(&g, "pixels");        fails the test when absent
 *     CHECK_REL_L2(mine, golden_f32(pixels), pixels->count, 1e-4);
 *     golden_close(&g);
 *
 * Include it after test.h, in one file per program.
 */
#ifndef PVL_TESTS_GOLDEN_H
#define PVL_TESTS_GOLDEN_H

#include "test.h"

enum { GOLDEN_MAX_ENTRIES = 256, GOLDEN_MAX_DIMS = 4 };

typedef enum golden_type { GOLDEN_F32 = 0, GOLDEN_I32 = 1, GOLDEN_U8 = 2 } golden_type;

typedef struct golden_entry {
    char name[64];
    golden_type type;
    uint32_t dims;
    size_t dim[GOLDEN_MAX_DIMS]; /* outermost first, missing ones 1 */
    size_t count;                /* product */
    void *data;                  /* aligned copy, owned by the golden */
} golden_entry;

typedef struct golden {
    golden_entry entries[GOLDEN_MAX_ENTRIES];
    size_t count;
    const char *path;
} golden;

static TEST_UNUSED void golden_close(golden *g) {
    for (size_t i = 0; i < g->count; i++)
        free(g->entries[i].data);
    g->count = 0;
}

static TEST_UNUSED uint32_t golden_u32(const unsigned char *file, size_t size, size_t *at) {
    if (size - *at < 4) {
        *at = size;
        return 0;
    }
    const unsigned char *p = file + *at;
    *at += 4;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* False, and a failed check, when the file cannot be read or is damaged. */
static TEST_UNUSED bool golden_open(golden *g, const char *path) {
    size_t size, at = 4;
    unsigned char *file = test_read_file(path, &size);
    memset(g, 0, sizeof *g);
    g->path = path;
    if (!file)
        return false;
    bool good = size >= 8 && memcmp(file, "PVLG", 4) == 0;
    uint32_t n = good ? golden_u32(file, size, &at) : 0;
    good = good && n <= GOLDEN_MAX_ENTRIES;
    for (uint32_t i = 0; good && i < n; i++) {
        golden_entry *e = &g->entries[i];
        uint32_t name = golden_u32(file, size, &at);
        good = name < sizeof e->name && name <= size - at;
        if (!good)
            break;
        memcpy(e->name, file + at, name);
        at += name;
        e->type = (golden_type)golden_u32(file, size, &at);
        e->dims = golden_u32(file, size, &at);
        e->count = 1;
        for (uint32_t d = 0; d < GOLDEN_MAX_DIMS; d++) {
            e->dim[d] = d < e->dims ? golden_u32(file, size, &at) : 1;
            e->count *= e->dim[d];
        }
        size_t bytes = e->count * (e->type == GOLDEN_U8 ? 1 : 4);
        good = e->dims <= GOLDEN_MAX_DIMS && bytes <= size - at;
        if (!good)
            break;
        e->data = malloc(bytes ? bytes : 1);
        if (!e->data)
            abort();
        memcpy(e->data, file + at, bytes);
        at += bytes;
        g->count++;
    }
    good = good && at == size;
    test_check(good, __FILE__, __LINE__, "%s is no sound golden file", path);
    if (!good)
        golden_close(g);
    free(file);
    return good;
}

/* NULL when there is none. */
static TEST_UNUSED const golden_entry *golden_find(const golden *g, const char *name) {
    for (size_t i = 0; i < g->count; i++)
        if (strcmp(g->entries[i].name, name) == 0)
            return &g->entries[i];
    return NULL;
}

/* The entry named by the format; absent: a failed check and an empty entry. */
TEST_PRINTF(2, 3)
static TEST_UNUSED const golden_entry *golden_get(const golden *g, const char *format, ...) {
    static const golden_entry empty;
    char name[64];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const golden_entry *e = golden_find(g, name);
    test_check(e != NULL, __FILE__, __LINE__, "%s has no entry %s", g->path, name);
    return e ? e : &empty;
}

static TEST_UNUSED const float *golden_f32(const golden_entry *e) {
    test_check(e->type == GOLDEN_F32, __FILE__, __LINE__, "%s is not f32", e->name);
    return e->data;
}
static TEST_UNUSED const int32_t *golden_i32(const golden_entry *e) {
    test_check(e->type == GOLDEN_I32, __FILE__, __LINE__, "%s is not i32", e->name);
    return e->data;
}
static TEST_UNUSED const unsigned char *golden_u8(const golden_entry *e) {
    test_check(e->type == GOLDEN_U8, __FILE__, __LINE__, "%s is not u8", e->name);
    return e->data;
}

#endif
