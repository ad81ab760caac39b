/* Products: packing keeps what the file says, the scalar set agrees with a plain sum in double,
 * every other set agrees with scalar, and any number of threads gives the same bits. */
#include "common.h"

static const pvl_dtype all_types[] = {
    PVL_DTYPE_F32,  PVL_DTYPE_F16,  PVL_DTYPE_BF16, PVL_DTYPE_Q4_0,   PVL_DTYPE_Q4_1,
    PVL_DTYPE_Q5_0, PVL_DTYPE_Q5_1, PVL_DTYPE_Q8_0, PVL_DTYPE_Q2_K,   PVL_DTYPE_Q3_K,
    PVL_DTYPE_Q4_K, PVL_DTYPE_Q5_K, PVL_DTYPE_Q6_K, PVL_DTYPE_IQ4_NL, PVL_DTYPE_IQ4_XS};
enum { TYPES = sizeof all_types / sizeof all_types[0] };

static double packing_bound(pvl_dtype type, bool f32) {
    if (f32)
        return 0;
    switch (type) {
    case PVL_DTYPE_Q4_0:
    case PVL_DTYPE_Q8_0:
    case PVL_DTYPE_Q5_0:
    case PVL_DTYPE_IQ4_NL:
        return 1e-7; /* the integers and the scale of the file */
    case PVL_DTYPE_Q4_1:
    case PVL_DTYPE_Q4_K:
        return 1e-3; /* scale and minimum rounded to halves */
    default:
        return 8e-3; /* rounded to 8 bits */
    }
}

TEST(packing_keeps_every_type) {
    test_rng rng = test_rng_start(1);
    for (size_t t = 0; t < TYPES; t++) {
        for (int f32 = 0; f32 < 2; f32++) {
            size_t rows = 19, cols = 512;
            void *file = file_rows_new(&rng, all_types[t], rows, cols);
            pvl_matrix m = matrix_new(all_types[t], rows, cols, f32 != 0, file);
            float *expect = floats_new(rows * cols), *got = floats_new(rows * cols);
            pvl_dtype_dequantize(all_types[t], expect, file, rows * cols);
            for (size_t r = 0; r < rows; r++)
                pvl_matrix_get_row(&m, r, got + r * cols);
            double error = test_rel_l2(got, expect, rows * cols);
            CHECK_MSG(error <= packing_bound(all_types[t], f32 != 0), "%s: packing loses %.3g",
                      pvl_dtype_name((uint32_t)all_types[t]), error);
            pvl_free(NULL, expect);
            pvl_free(NULL, got);
            matrix_free(&m);
            free(file);
        }
    }
}

/* Where the halves that scale a block lie; -1 for none. */
static void scale_places(pvl_dtype type, int at[2]) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    int end = (int)t->block_bytes;
    at[0] = 0;
    at[1] = -1;
    if (type == PVL_DTYPE_Q4_1 || type == PVL_DTYPE_Q5_1 || type == PVL_DTYPE_Q4_K ||
        type == PVL_DTYPE_Q5_K) {
        at[1] = 2;
    } else if (type == PVL_DTYPE_Q2_K) {
        at[0] = end - 4;
        at[1] = end - 2;
    } else if (type == PVL_DTYPE_Q3_K || type == PVL_DTYPE_Q6_K) {
        at[0] = end - 2;
    }
}

/* Bits without infinities and NaN, of every exponent up to 1, subnormals included; the same in
 * every run, so not of test_rng. */
static unsigned char *bits_new(uint32_t *seed, pvl_dtype type, size_t values) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    size_t bytes = values / t->block_length * t->block_bytes;
    unsigned char *b = malloc(bytes);
    if (!b)
        exit(1);
    for (size_t i = 0; i < bytes; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        b[i] = (unsigned char)(*seed >> 24);
    }
    int at[2];
    scale_places(type, at);
    for (size_t i = 0; i < bytes; i += t->block_bytes) {
        if (t->block_length == 1) {
            b[i + t->block_bytes - 1] &= 0xBF;
            continue;
        }
        for (int k = 0; k < 2; k++) {
            if (at[k] >= 0)
                b[i + (size_t)at[k] + 1] &= 0xBF;
        }
    }
    return b;
}

/* The packed bytes of every type, as plain loops made them once: vector code must not change one.
 */
TEST(packing_is_the_same_to_the_byte) {
    static const struct {
        size_t rows, cols;
    } shapes[] = {{19, 512}, {8, 96}, {3, 256}, {16, 588}};
    static const uint64_t expect[TYPES] = {
        0x45F495815868FC59u, 0x163F8432A7EFFEAFu, 0x6310263D7E72621Au, 0x40D2582730A71206u,
        0xB9AFB5154C143481u, 0x2B1ACB48AAA5B1E7u, 0x399465CAA66BE6DDu, 0xCDCD4ED4B06D7FA5u,
        0xDA8BB73597BADFE5u, 0xF1844635FD984423u, 0xB84D6309C27F1006u, 0x4DF7F80774EF2AB4u,
        0x0461D50C4C3BF844u, 0xEDA2B0EBB5BC4853u, 0x89634BBAA201C8A2u};
    for (size_t t = 0; t < TYPES; t++) {
        uint32_t seed = (uint32_t)t;
        const pvl_dtype_traits *traits = pvl_dtype_find((uint32_t)all_types[t]);
        uint64_t hash = 0xCBF29CE484222325u;
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
            for (int f32 = 0; f32 < 2; f32++) {
                size_t rows = shapes[s].rows, cols = shapes[s].cols;
                if (cols % traits->block_length != 0)
                    continue;
                unsigned char *file = bits_new(&seed, all_types[t], rows * cols);
                pvl_matrix m = matrix_new(all_types[t], rows, cols, f32 != 0, file);
                for (size_t i = 0; i < m.bytes; i++)
                    hash = (hash ^ m.data[i]) * 0x100000001B3u;
                matrix_free(&m);
                free(file);
            }
        }
        CHECK_MSG(hash == expect[t], "%s: the packed bytes have hash 0x%016llX",
                  pvl_dtype_name((uint32_t)all_types[t]), (unsigned long long)hash);
    }
}

TEST(forms_and_sizes) {
    pvl_matrix m;
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_form_for(PVL_DTYPE_Q4_0, 896, false), PVL_FORM_Q4);
    CHECK_EQ_INT(pvl_form_for(PVL_DTYPE_Q4_0, 896, true), PVL_FORM_F32);
    CHECK_EQ_INT(pvl_form_for(PVL_DTYPE_F16, 588, false), PVL_FORM_F32);
    CHECK_EQ_INT(pvl_form_for(PVL_DTYPE_F16, 1024, false), PVL_FORM_Q8W);
    CHECK_EQ_INT(pvl_form_for(PVL_DTYPE_F16, 96, false), PVL_FORM_Q8);
    CHECK_EQ_INT(pvl_form_for(PVL_DTYPE_Q6_K, 1024, false), PVL_FORM_Q8);
    CHECK_EQ_INT(pvl_matrix_plan(&m, PVL_DTYPE_Q4_0, 16, 64, false, &err), PVL_OK);
    CHECK_EQ_UINT(m.bytes, 16 * 64 / 32 * 18);
    CHECK_EQ_INT(pvl_matrix_plan(&m, PVL_DTYPE_F32, SIZE_MAX / 16, 1024, true, &err), PVL_E_MEMORY);
    CHECK_CONTAINS(err.message, "does not fit");
}

/* y = x W^T in double from what packing kept. */
static void plain_product(float *y, const float *x, size_t n, const pvl_matrix *w) {
    float *row = floats_new(w->cols);
    for (size_t c = 0; c < w->rows; c++) {
        pvl_matrix_get_row(w, c, row);
        for (size_t r = 0; r < n; r++) {
            double sum = 0;
            for (size_t k = 0; k < w->cols; k++)
                sum += (double)x[r * w->cols + k] * (double)row[k];
            y[r * w->rows + c] = (float)sum;
        }
    }
    pvl_free(NULL, row);
}

static void product(const char *set, int threads, float *y, size_t stride, const float *x, size_t n,
                    const pvl_matrix *w, const pvl_epilogue *e) {
    test_compute t = compute_new(set, threads, pvl_act_bytes(n, w->cols, w->form));
    pvl_act act;
    pvl_input in = {.source = PVL_SRC_PLAIN, .x = x, .stride = w->cols};
    pvl_act_prepare(&t.c, &act, &in, n, w->cols, w->form);
    pvl_matmul(&t.c, y, stride, &act, w, e);
    compute_free(&t);
}

/* What rounding the activations may cost: 7 bits against 8-bit weights, 8 bits against 4-bit
 * weights. */
static double product_bound(pvl_form form) {
    return form == PVL_FORM_F32 ? 1e-6 : form == PVL_FORM_Q4 ? 8e-3 : 1.4e-2;
}

TEST(products_of_every_type) {
    test_rng rng = test_rng_start(2);
    for (size_t t = 0; t < TYPES; t++) {
        size_t rows = 37, cols = 512, n = 6;
        void *file = file_rows_new(&rng, all_types[t], rows, cols);
        float *x = normals_new(&rng, n * cols, 1.0f), *expect = floats_new(n * rows),
              *scalar = floats_new(n * rows), *y = floats_new(n * rows);
        pvl_matrix m = matrix_new(all_types[t], rows, cols, false, file);
        plain_product(expect, x, n, &m);
        product("scalar", 1, scalar, rows, x, n, &m, NULL);
        double error = test_rel_l2(scalar, expect, n * rows);
        CHECK_MSG(error <= product_bound(m.form), "%s: product differs by %.3g",
                  pvl_dtype_name((uint32_t)all_types[t]), error);
        for (const char *const *set = pvl_kernels_list(); *set; set++) {
            product(*set, 1, y, rows, x, n, &m, NULL);
            CHECK_REL_L2(y, scalar, n * rows, 1e-6);
        }
        pvl_free(NULL, x);
        pvl_free(NULL, y);
        pvl_free(NULL, expect);
        pvl_free(NULL, scalar);
        matrix_free(&m);
        free(file);
    }
}

static const pvl_dtype form_types[] = {PVL_DTYPE_F32, PVL_DTYPE_Q8_0, PVL_DTYPE_F16, PVL_DTYPE_Q4_0,
                                       PVL_DTYPE_Q4_1};

/* One shape: every set against scalar, with a stride and a guard around y, 1 to 8 threads. */
static void check_shape(test_rng *rng, pvl_dtype type, size_t n, size_t rows, size_t cols) {
    void *file = file_rows_new(rng, type, rows, cols);
    pvl_matrix m = matrix_new(type, rows, cols, type == PVL_DTYPE_F32, file);
    size_t stride = rows + 5;
    float *x = normals_new(rng, n * cols, 2.0f), *expect = floats_new(n * stride),
          *y = floats_new(n * stride), *first = floats_new(n * stride);
    for (size_t i = 0; i < n * stride; i++)
        expect[i] = 12345.0f;
    product("scalar", 1, expect, stride, x, n, &m, NULL);
    for (const char *const *set = pvl_kernels_list(); *set; set++) {
        static const int threads[] = {1, 2, 3, 4, 8};
        for (size_t i = 0; i < 5; i++) {
            if (i > 1 && n * rows * cols > 400000)
                continue;
            for (size_t j = 0; j < n * stride; j++)
                y[j] = 12345.0f;
            product(*set, threads[i], y, stride, x, n, &m, NULL);
            if (i == 0) {
                double error = test_rel_l2(y, expect, n * stride);
                CHECK_MSG(error <= 1e-6, "%s, %s, %zu x %zu x %zu: differs from scalar by %.3g",
                          *set, pvl_dtype_name((uint32_t)type), n, rows, cols, error);
                memcpy(first, y, n * stride * sizeof *y);
            } else {
                CHECK_MSG(memcmp(first, y, n * stride * sizeof *y) == 0,
                          "%s, %s, %zu x %zu x %zu: %d threads differ", *set,
                          pvl_dtype_name((uint32_t)type), n, rows, cols, threads[i]);
            }
        }
        for (size_t r = 0; r < n; r++) {
            for (size_t c = rows; c < stride; c++)
                CHECK(y[r * stride + c] == 12345.0f);
        }
    }
    pvl_free(NULL, x);
    pvl_free(NULL, y);
    pvl_free(NULL, expect);
    pvl_free(NULL, first);
    matrix_free(&m);
    free(file);
}

TEST(awkward_sizes) {
    static const size_t ns[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 63, 64, 65};
    static const size_t outputs[] = {1, 7, 8, 9, 33, 64, 130};
    test_rng rng = test_rng_start(3);
    for (size_t t = 0; t < sizeof form_types / sizeof form_types[0]; t++) {
        for (size_t i = 0; i < sizeof ns / sizeof ns[0]; i++) {
            for (size_t j = 0; j < sizeof outputs / sizeof outputs[0]; j++) {
                if ((i + j + t) % 3 != 0 && !(i < 5 && j < 4))
                    continue; /* a third of the large ones */
                check_shape(&rng, form_types[t], ns[i], outputs[j], 32 * (1 + (i + j) % 5));
            }
        }
    }
    check_shape(&rng, PVL_DTYPE_F32, 5, 11, 37); /* columns that no block divides */
    check_shape(&rng, PVL_DTYPE_F16, 3, 10, 588);
    check_shape(&rng, PVL_DTYPE_Q4_0, 130, 264, 896); /* several tasks of each kind */
    check_shape(&rng, PVL_DTYPE_F16, 133, 520, 1024);
    check_shape(&rng, PVL_DTYPE_Q8_0, 1, 2051, 128);
}

/* Largest products: every weight and every activation at the end of its range, the case that
 * saturates a 16-bit sum. */
TEST(extreme_values) {
    size_t rows = 16, cols = 256, n = 5;
    for (size_t t = 0; t < sizeof form_types / sizeof form_types[0]; t++) {
        for (int signs = 0; signs < 4; signs++) {
            float *w = floats_new(rows * cols), *x = floats_new(n * cols),
                  *expect = floats_new(n * rows), *y = floats_new(n * rows);
            pvl_dtype type = form_types[t];
            for (size_t i = 0; i < rows * cols; i++)
                w[i] = signs & 1 ? -1.0f : 1.0f;
            for (size_t i = 0; i < n * cols; i++)
                x[i] = signs & 2 ? -3.0f : 3.0f;
            const pvl_dtype_traits *traits = pvl_dtype_find((uint32_t)type);
            void *file = malloc(rows * cols / traits->block_length * traits->block_bytes);
            REQUIRE(file);
            pvl_dtype_quantize(type, file, w, rows * cols);
            if (type == PVL_DTYPE_Q8_0) { /* -128 is a legal byte too */
                unsigned char *b = file;
                for (size_t i = 0; i < rows * cols / 32 * 34; i++) {
                    if (i % 34 >= 2)
                        b[i] = signs & 1 ? 0x80 : 0x7F;
                }
            }
            pvl_matrix m = matrix_new(type, rows, cols, false, file);
            plain_product(expect, x, n, &m);
            for (const char *const *set = pvl_kernels_list(); *set; set++) {
                product(*set, 1, y, rows, x, n, &m, NULL);
                double error = test_rel_l2(y, expect, n * rows);
                CHECK_MSG(error <= 1e-6, "%s, %s, signs %d: %.3g", *set, traits->name, signs,
                          error);
            }
            pvl_free(NULL, w);
            pvl_free(NULL, x);
            pvl_free(NULL, y);
            pvl_free(NULL, expect);
            matrix_free(&m);
            free(file);
        }
    }
}

TEST(zeros_and_not_finite) {
    size_t rows = 9, cols = 64;
    test_rng rng = test_rng_start(4);
    for (size_t t = 0; t < sizeof form_types / sizeof form_types[0]; t++) {
        void *file = file_rows_new(&rng, form_types[t], rows, cols);
        pvl_matrix m = matrix_new(form_types[t], rows, cols, false, file);
        float *x = floats_new(3 * cols), *y = floats_new(3 * rows);
        for (const char *const *set = pvl_kernels_list(); *set; set++) {
            for (size_t i = 0; i < 3 * cols; i++)
                x[i] = 0;
            for (size_t i = cols; i < 2 * cols; i++)
                x[i] = 1e-38f;
            x[2 * cols + 40] = NAN;
            product(*set, 1, y, rows, x, 3, &m, NULL);
            for (size_t i = 0; i < rows; i++) {
                CHECK(y[i] == 0);
                CHECK(fabsf(y[rows + i]) < 1e-35f);
                CHECK(isnan(y[2 * rows + i])); /* damage shows */
            }
        }
        pvl_free(NULL, x);
        pvl_free(NULL, y);
        matrix_free(&m);
        free(file);
    }
}

TEST(epilogues) {
    size_t rows = 21, cols = 96, n = 6, stride = 40;
    test_rng rng = test_rng_start(5);
    float *w = normals_new(&rng, rows * cols, 0.2f), *x = normals_new(&rng, n * cols, 1),
          *plain = floats_new(n * rows), *y = floats_new(n * stride),
          *before = normals_new(&rng, n * stride, 1), *bias = normals_new(&rng, rows, 1),
          *scale = normals_new(&rng, rows, 1);
    pvl_matrix m = matrix_new(PVL_DTYPE_F32, rows, cols, true, w);
    plain_product(plain, x, n, &m);
    for (const char *const *set = pvl_kernels_list(); *set; set++) {
        for (int bits = 0; bits < 16; bits++) {
            pvl_epilogue e = {.bias = bits & 1 ? bias : NULL,
                              .activation = bits & 2 ? PVL_ACT_GELU_ERF : PVL_ACT_NONE,
                              .add = (bits & 4) != 0,
                              .scale = bits & 8 ? scale : NULL};
            memcpy(y, before, n * stride * sizeof *y);
            product(*set, 1, y, stride, x, n, &m, &e);
            for (size_t r = 0; r < n; r++) {
                for (size_t c = 0; c < rows; c++) {
                    double v = (double)plain[r * rows + c];
                    if (e.bias)
                        v += (double)bias[c];
                    if (bits & 2)
                        v = 0.5 * v * (1 + erf(v * 0.7071067811865476));
                    if (e.scale)
                        v *= (double)scale[c];
                    if (e.add)
                        v += (double)before[r * stride + c];
                    CHECK_NEAR(y[r * stride + c], v, 2e-5);
                }
                for (size_t c = rows; c < stride; c++)
                    CHECK(y[r * stride + c] == before[r * stride + c]);
            }
        }
    }
    pvl_free(NULL, w);
    pvl_free(NULL, x);
    pvl_free(NULL, y);
    pvl_free(NULL, plain);
    pvl_free(NULL, before);
    pvl_free(NULL, bias);
    pvl_free(NULL, scale);
    matrix_free(&m);
}

TEST(cancelled_products_return) {
    size_t rows = 64, cols = 64;
    test_rng rng = test_rng_start(7);
    void *file = file_rows_new(&rng, PVL_DTYPE_Q4_0, rows, cols);
    pvl_matrix m = matrix_new(PVL_DTYPE_Q4_0, rows, cols, false, file);
    float *x = normals_new(&rng, cols, 1), *y = floats_new(rows);
    test_compute t = compute_new(NULL, 2, pvl_act_bytes(1, cols, m.form));
    volatile int32_t cancel = 1;
    t.c.cancel = &cancel;
    pvl_act act;
    pvl_input in = {.source = PVL_SRC_PLAIN, .x = x, .stride = cols};
    for (size_t i = 0; i < rows; i++)
        y[i] = 7;
    pvl_act_prepare(&t.c, &act, &in, 1, cols, m.form);
    pvl_matmul(&t.c, y, rows, &act, &m, NULL);
    for (size_t i = 0; i < rows; i++)
        CHECK(y[i] == 7);
    compute_free(&t);
    pvl_free(NULL, x);
    pvl_free(NULL, y);
    matrix_free(&m);
    free(file);
}

TEST(selection) {
    const pvl_kernels *k = NULL;
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_kernels_select(&k, "scalar", &err), PVL_OK);
    CHECK_STR(pvl_kernels_name(k), "scalar");
    CHECK_EQ_INT(pvl_kernels_select(&k, NULL, &err), PVL_OK);
    bool listed = false;
    for (const char *const *set = pvl_kernels_list(); *set; set++)
        listed |= strcmp(*set, pvl_kernels_name(k)) == 0;
    CHECK(listed);
    CHECK(!pvl_kernels_list()[1] || strcmp(pvl_kernels_name(k), "scalar") != 0);
    CHECK_EQ_INT(pvl_kernels_select(&k, "avx9000", &err), PVL_E_ARGUMENT);
    CHECK_CONTAINS(err.message, "avx9000");
    CHECK_CONTAINS(err.message, "scalar");
    printf("%s\n", err.message); /* names the sets that were tested here */
}

TEST_MAIN(CASE(packing_keeps_every_type), CASE(packing_is_the_same_to_the_byte),
          CASE(forms_and_sizes), CASE(products_of_every_type), CASE(awkward_sizes),
          CASE(extreme_values), CASE(zeros_and_not_finite), CASE(epilogues),
          CASE(cancelled_products_return), CASE(selection))
