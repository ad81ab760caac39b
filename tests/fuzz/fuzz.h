/* Shared by the fuzz targets: input read piece by piece, an allocator that stops a hostile size
 * early and knows what leaked, files for code that reads files, and an end that a fuzzer sees.
 *
 * A target is one file fuzz_NAME.c with LLVMFuzzerTestOneInput. Beside not crashing (the sanitizers
 * watch), each holds what must be true of any input with HOLDS. tests/fuzz/README.md tells how they
 * are run. */
#ifndef PVL_TESTS_FUZZ_H
#define PVL_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pocketvl.h"

#define FUZZ_UNUSED __attribute__((unused))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property: what does not hold ends the program, and the fuzzer keeps the input. */
#define HOLDS(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A status and its error slot belong together: a code of the header, one sentence when it failed.
 */
static FUZZ_UNUSED void check_status(pvl_status status, const pvl_error *err) {
    HOLDS(status >= PVL_OK && status < PVL_E_INTERNAL);
    HOLDS(err->code == status);
    HOLDS((status == PVL_OK) == (err->message[0] == 0));
    HOLDS(memchr(err->message, 0, sizeof err->message) != NULL);
}

/* ---- input ---- */

/* The input as a stream of numbers and bytes; an empty one gives zeros. */
typedef struct fuzz_input {
    const uint8_t *data;
    size_t left;
} fuzz_input;

static FUZZ_UNUSED uint64_t take(fuzz_input *in, size_t bytes) {
    uint64_t v = 0;
    for (size_t i = 0; i < bytes && in->left; i++, in->left--)
        v |= (uint64_t)*in->data++ << 8 * i;
    return v;
}

/* low .. high */
static FUZZ_UNUSED size_t take_between(fuzz_input *in, size_t low, size_t high) {
    return low + (size_t)(take(in, high - low > 255 ? 4 : 1) % (high - low + 1));
}

/* A copy of the next bytes (at most `most`), so that reads past their end are seen; free() it. */
static FUZZ_UNUSED char *take_bytes(fuzz_input *in, size_t most, size_t *bytes) {
    *bytes = most < in->left ? most : in->left;
    char *copy = malloc(*bytes ? *bytes : 1);
    HOLDS(copy != NULL);
    memcpy(copy, in->data, *bytes);
    in->data += *bytes;
    in->left -= *bytes;
    return copy;
}

static FUZZ_UNUSED uint64_t fuzz_random(uint64_t *state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* -1 .. 1 */
static FUZZ_UNUSED float fuzz_random_float(uint64_t *state) {
    return (float)(fuzz_random(state) >> 40) / 8388608.0f - 1.0f;
}

/* ---- memory ---- */

/* Refuses the fail_at-th request (0 = none) and what goes past `limit` bytes in all. */
typedef struct fuzz_memory {
    size_t limit, used;
    long requests, fail_at, alive;
} fuzz_memory;

enum { FUZZ_HEAD = 64 }; /* in front of each block: its size */

static FUZZ_UNUSED void *fuzz_alloc(void *ctx, size_t bytes) {
    fuzz_memory *m = ctx;
    if (++m->requests == m->fail_at || bytes > m->limit - m->used)
        return NULL;
    unsigned char *p = aligned_alloc(64, FUZZ_HEAD + (bytes + 63) / 64 * 64);
    if (!p)
        return NULL;
    memcpy(p, &bytes, sizeof bytes);
    m->used += bytes;
    m->alive++;
    return p + FUZZ_HEAD;
}

static FUZZ_UNUSED void fuzz_free(void *ctx, void *block) {
    fuzz_memory *m = ctx;
    unsigned char *p = (unsigned char *)block - FUZZ_HEAD;
    size_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    m->used -= bytes;
    m->alive--;
    free(p);
}

/* ---- text ---- */

static FUZZ_UNUSED bool is_utf8(const char *text, size_t bytes) {
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0; i < bytes;) {
        size_t n = s[i] < 0x80                   ? 1
                   : s[i] >= 0xC2 && s[i] < 0xE0 ? 2
                   : (s[i] & 0xF0) == 0xE0       ? 3
                                                 : 4;
        if (n > bytes - i || (n == 4 && (s[i] < 0xF0 || s[i] > 0xF4)))
            return false;
        for (size_t k = 1; k < n; k++)
            if ((s[i + k] & 0xC0) != 0x80)
                return false;
        if ((s[i] == 0xE0 && s[i + 1] < 0xA0) || (s[i] == 0xED && s[i + 1] > 0x9F) ||
            (s[i] == 0xF0 && s[i + 1] < 0x90) || (s[i] == 0xF4 && s[i + 1] > 0x8F))
            return false;
        i += n;
    }
    return true;
}

/* ---- files ---- */

/* A folder of this process, in memory where the system has such; one folder, so nothing is cleaned
 * up. */
static FUZZ_UNUSED const char *fuzz_folder(void) {
    static char folder[64];
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/dev/shm/pocketvl-fuzz-XXXXXX");
        if (!mkdtemp(folder)) {
            snprintf(folder, sizeof folder, "/tmp/pocketvl-fuzz-XXXXXX");
            HOLDS(mkdtemp(folder) != NULL);
        }
    }
    return folder;
}

static FUZZ_UNUSED void fuzz_file(const char *name, const void *data, size_t bytes) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    FILE *f = fopen(path, "wb");
    HOLDS(f != NULL);
    HOLDS(fwrite(data, 1, bytes, f) == bytes);
    HOLDS(fclose(f) == 0);
}

static FUZZ_UNUSED void fuzz_no_file(const char *name) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    remove(path);
}

#endif
