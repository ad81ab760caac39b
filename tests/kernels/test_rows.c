/* Norms, SwiGLU, GELU, rotation, quantizers and argmax: each set against double, quantizers bit for
 * bit. */
#include "common.h"

static const size_t widths[] = {32, 64, 96, 128, 320, 588, 896, 1024, 37, 5};
enum { WIDTHS = sizeof widths / sizeof widths[0] };

static void plain_source(float *y, const pvl_input *in, size_t n, size_t k) {
    for (size_t r = 0; r < n; r++) {
        const float *x = in->x + r * in->stride;
        double mean = 0, square = 0;
        if (in->source == PVL_SRC_LAYER_NORM) {
            for (size_t i = 0; i < k; i++)
                mean += (double)x[i] / (double)k;
        }
        for (size_t i = 0; i < k; i++)
            square += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)k;
        double inverse = 1 / sqrt(square + (double)in->eps);
        for (size_t i = 0; i < k; i++) {
            double v = (double)x[i];
            if (in->source == PVL_SRC_LAYER_NORM || in->source == PVL_SRC_RMS_NORM) {
                v = (v - mean) * inverse * (double)in->weight[i];
            }
            if (in->source == PVL_SRC_LAYER_NORM)
                v += (double)in->bias[i];
            if (in->source == PVL_SRC_SILU_MUL)
                v = v / (1 + exp(-v)) * (double)in->x2[r * in->stride + i];
            y[r * k + i] = (float)v;
        }
    }
}

TEST(sources) {
    test_rng rng = test_rng_start(1);
    for (size_t j = 0; j < WIDTHS; j++) {
        size_t k = widths[j], n = 5, stride = 2 * k + 3;
        float *x = normals_new(&rng, n * stride, 3), *w = normals_new(&rng, k, 1),
              *b = normals_new(&rng, k, 1), *expect = floats_new(n * k), *y = floats_new(n * k);
        for (size_t i = 0; i < n * stride; i++)
            x[i] += 10; /* a mean that is large beside the deviation */
        for (int source = 0; source < 4; source++) {
            pvl_input in = {.source = (pvl_source)source,
                            .x = x,
                            .x2 = x + k,
                            .stride = stride,
                            .weight = w,
                            .bias = b,
                            .eps = 1e-6f};
            plain_source(expect, &in, n, k);
            for (const char *const *set = pvl_kernels_list(); *set; set++) {
                test_compute t = compute_new(*set, 2, 64);
                pvl_apply(&t.c, y, k, &in, n, k);
                CHECK_REL_L2(y, expect, n * k, 2e-6);
                compute_free(&t);
            }
        }
        pvl_free(NULL, x);
        pvl_free(NULL, w);
        pvl_free(NULL, b);
        pvl_free(NULL, expect);
        pvl_free(NULL, y);
    }
}

TEST(silu_over_its_range) {
    enum { N = 4096 };
    float *x = floats_new(N), *one = floats_new(N), *y = floats_new(N);
    for (size_t i = 0; i < N; i++)
        x[i] = -110.0f + 220.0f * (float)i / (N - 1), one[i] = 1;
    pvl_input in = {.source = PVL_SRC_SILU_MUL, .x = x, .x2 = one, .stride = N};
    for (const char *const *set = pvl_kernels_list(); *set; set++) {
        test_compute t = compute_new(*set, 1, 64);
        pvl_apply(&t.c, y, N, &in, 1, N);
        for (size_t i = 0; i < N; i++) {
            double v = (double)x[i] / (1 + exp(-(double)x[i]));
            CHECK_NEAR(y[i], v, 1e-6 * fabs(v) + 1e-30);
        }
        compute_free(&t);
    }
    pvl_free(NULL, x);
    pvl_free(NULL, one);
    pvl_free(NULL, y);
}

/* GELU through the epilogue of a product with the identity. */
TEST(gelu_over_its_range) {
    enum { N = 2048, K = 8 };
    float identity[K * K] = {0}, *x = floats_new(N * K), *y = floats_new(N * K);
    for (size_t i = 0; i < K; i++)
        identity[i * K + i] = 1;
    for (size_t i = 0; i < N * K; i++)
        x[i] = -12.0f + 24.0f * (float)i / (N * K - 1);
    pvl_matrix m = matrix_new(PVL_DTYPE_F32, K, K, true, identity);
    pvl_epilogue e = {.activation = PVL_ACT_GELU_ERF};
    for (const char *const *set = pvl_kernels_list(); *set; set++) {
        test_compute t = compute_new(*set, 1, pvl_act_bytes(N, K, m.form));
        pvl_act act;
        pvl_input in = {.source = PVL_SRC_PLAIN, .x = x, .stride = K};
        pvl_act_prepare(&t.c, &act, &in, N, K, m.form);
        pvl_matmul(&t.c, y, K, &act, &m, &e);
        double worst = 0;
        for (size_t i = 0; i < N * K; i++) {
            double v = (double)x[i], gelu = 0.5 * v * (1 + erf(v * 0.7071067811865476));
            if (fabs((double)y[i] - gelu) > worst)
                worst = fabs((double)y[i] - gelu);
        }
        CHECK_MSG(worst <= 1e-6, "%s: GELU is off by %.3g", *set, worst);
        compute_free(&t);
    }
    pvl_free(NULL, x);
    pvl_free(NULL, y);
    matrix_free(&m);
}

TEST(rotation) {
    test_rng rng = test_rng_start(2);
    static const size_t dims[] = {8, 24, 32, 64, 96, 128};
    for (size_t j = 0; j < 6; j++) {
        size_t d = dims[j], heads = 3, n = 5, stride = heads * d + 7;
        float *x = normals_new(&rng, n * stride, 1), *y = floats_new(n * stride),
              *c = normals_new(&rng, n * d / 2, 1), *s = normals_new(&rng, n * d / 2, 1);
        for (const char *const *set = pvl_kernels_list(); *set; set++) {
            test_compute t = compute_new(*set, 2, 64);
            memcpy(y, x, n * stride * sizeof *x);
            pvl_rope(&t.c, y, stride, n, heads, d, c, s);
            for (size_t r = 0; r < n; r++) {
                for (size_t i = 0; i < stride; i++) {
                    size_t at = i % d, half = d / 2, l = at % half;
                    const float *u = x + r * stride + i - at;
                    double expect = (double)x[r * stride + i];
                    if (i < heads * d) {
                        double co = (double)c[r * half + l], si = (double)s[r * half + l];
                        expect = at < half ? (double)u[l] * co - (double)u[l + half] * si
                                           : (double)u[l + half] * co + (double)u[l] * si;
                    }
                    CHECK_NEAR(y[r * stride + i], expect, 2e-6);
                }
            }
            compute_free(&t);
        }
        pvl_free(NULL, x);
        pvl_free(NULL, y);
        pvl_free(NULL, c);
        pvl_free(NULL, s);
    }
}

TEST(quantizers_agree_bit_for_bit) {
    static const pvl_form forms[] = {PVL_FORM_F32, PVL_FORM_Q8, PVL_FORM_Q8W, PVL_FORM_Q4};
    test_rng rng = test_rng_start(3);
    size_t k = 704, n = 40, group = 4; /* more rows may be prepared in another layout */
    float *x = floats_new(n * k);
    for (size_t r = 0; r < n; r++) {
        float size = test_rng_float(&rng, 0, 1);
        for (size_t i = 0; i < k; i++) {
            float v = test_rng_normal(&rng) * size;
            /* Exact halves between two integers, zeros, and outliers. */
            if (r % 4 == 1)
                v = (float)(int)test_rng_below(&rng, 127) * 0.5f - 31.5f;
            if (r % 4 == 2 && i % 50 < 35)
                v = 0;
            if (r % 4 == 3 && i % 97 == 0)
                v *= 1000;
            x[r * k + i] = v;
        }
    }
    for (size_t f = 0; f < 4; f++) {
        size_t bytes = pvl_act_bytes(group, k, forms[f]);
        for (const char *const *set = pvl_kernels_list(); *set; set++) {
            test_compute t = compute_new(*set, 1, bytes), s = compute_new("scalar", 1, bytes);
            for (size_t r = 0; r < n; r += group) {
                memset(t.memory, 0, bytes);
                memset(s.memory, 0, bytes);
                pvl_act act;
                pvl_input in = {.source = PVL_SRC_PLAIN, .x = x + r * k, .stride = k};
                pvl_act_prepare(&t.c, &act, &in, group, k, forms[f]);
                pvl_act_prepare(&s.c, &act, &in, group, k, forms[f]);
                CHECK_MEM(t.memory, s.memory, group * act.row_bytes);
            }
            compute_free(&t);
            compute_free(&s);
        }
    }
    pvl_free(NULL, x);
}

TEST(largest_index) {
    float x[133];
    for (size_t n = 1; n <= 133; n++) {
        for (size_t i = 0; i < n; i++)
            x[i] = -5;
        CHECK_EQ_INT(pvl_argmax(x, n), 0);
        x[n / 2] = 3;
        x[n - 1] = 3;
        CHECK_EQ_INT(pvl_argmax(x, n), n / 2);
        x[0] = INFINITY;
        x[n / 3] = NAN;
        CHECK(n < 4 || pvl_argmax(x, n) == (ptrdiff_t)(n / 2));
        for (size_t i = 0; i < n; i++)
            x[i] = i % 2 ? NAN : -INFINITY;
        CHECK_EQ_INT(pvl_argmax(x, n), -1);
    }
    CHECK_EQ_INT(pvl_argmax(x, 0), -1);
}

TEST_MAIN(CASE(sources), CASE(silu_over_its_range), CASE(gelu_over_its_range), CASE(rotation),
          CASE(quantizers_agree_bit_for_bit), CASE(largest_index))
