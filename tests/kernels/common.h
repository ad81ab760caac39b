/* Shared by the kernel tests: a compute with scratch, made matrices, and each kernel set by name.
 */
#ifndef PVL_TESTS_KERNELS_COMMON_H
#define PVL_TESTS_KERNELS_COMMON_H

#include "../test.h"
#include "kernels/kernels.h"

typedef struct test_compute {
    pvl_compute c;
    void *memory;
} test_compute;

static TEST_UNUSED test_compute compute_new(const char *set, int threads, size_t scratch) {
    test_compute t = {.c = {0}, .memory = NULL};
    pvl_error err = {0};
    test_check(pvl_kernels_select(&t.c.kernels, set, &err) == PVL_OK, __FILE__, __LINE__, "%s",
               err.message);
    test_check(pvl_team_start(&t.c.team, &pvl_libc_allocator, threads, &err) == PVL_OK, __FILE__,
               __LINE__, "%s", err.message);
    test_check(pvl_malloc(NULL, &t.memory, scratch, 1, "test scratch", &err) == PVL_OK, __FILE__,
               __LINE__, "%s", err.message);
    t.c.scratch = t.memory;
    t.c.scratch_bytes = scratch;
    return t;
}

static TEST_UNUSED void compute_free(test_compute *t) {
    pvl_team_stop(t->c.team);
    pvl_free(NULL, t->memory);
}

static TEST_UNUSED float *floats_new(size_t n) {
    void *p = NULL;
    pvl_error err = {0};
    if (pvl_malloc(NULL, &p, n, sizeof(float), "test floats", &err) != PVL_OK) {
        printf("%s\n", err.message);
        exit(1);
    }
    return p;
}

static TEST_UNUSED float *normals_new(test_rng *rng, size_t n, float deviation) {
    float *x = floats_new(n);
    test_fill_normal(rng, x, n, deviation);
    return x;
}

/* A packed matrix of random weights as a file of `type` would hold them. For types that this
 * library cannot write, the block's bytes are random but for its scales, which are set to sane
 * halves. */
static TEST_UNUSED void *file_rows_new(test_rng *rng, pvl_dtype type, size_t rows, size_t cols) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    size_t n = rows * cols, bytes = n / t->block_length * t->block_bytes;
    void *p = malloc(bytes + 1);
    unsigned char *b = p;
    if (!p)
        exit(1);
    if (t->quantizes) {
        float *x = normals_new(rng, n, 0.5f);
        pvl_dtype_quantize(type, p, x, n);
        pvl_free(NULL, x);
        return p;
    }
    for (size_t i = 0; i < bytes; i++)
        b[i] = (unsigned char)test_rng_u32(rng);
    for (size_t i = 0; i < bytes; i += t->block_bytes) {
        /* Halves 0x1C00 .. 0x1FFF are 0.0039 .. 0.0078. */
        size_t at[2] = {0, 0};
        size_t count = 1;
        if (type == PVL_DTYPE_Q2_K) {
            at[0] = t->block_bytes - 4;
            at[1] = t->block_bytes - 2;
            count = 2;
        } else if (type == PVL_DTYPE_Q3_K || type == PVL_DTYPE_Q6_K) {
            at[0] = t->block_bytes - 2;
        }
        for (size_t j = 0; j < count; j++)
            b[i + at[j] + 1] = 0x1C;
    }
    return p;
}

static TEST_UNUSED pvl_matrix matrix_new(pvl_dtype type, size_t rows, size_t cols, bool f32,
                                         const void *src) {
    pvl_matrix m;
    pvl_error err = {0};
    void *data = NULL;
    test_check(pvl_matrix_plan(&m, type, rows, cols, f32, &err) == PVL_OK, __FILE__, __LINE__, "%s",
               err.message);
    test_check(pvl_malloc(NULL, &data, m.bytes, 1, "test matrix", &err) == PVL_OK, __FILE__,
               __LINE__, "%s", err.message);
    memset(data, 0xA5, m.bytes); /* packing must not rely on what was there */
    m.data = data;
    pvl_matrix_set_rows(&m, 0, rows, src);
    return m;
}

static TEST_UNUSED void matrix_free(pvl_matrix *m) {
    pvl_free(NULL, m->data);
}

#endif
