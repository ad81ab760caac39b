/* Attention against a plain softmax in double: causal and full, grouped heads, both caches, all
 * sets, any threads. */
#include "common.h"

typedef struct shape {
    size_t heads, kv_heads, d, n, positions;
    bool causal;
} shape;

static void plain_attention(float *out, const float *q, const float *k, const float *v,
                            const shape *s, float scale) {
    double *p = malloc(s->positions * sizeof *p);
    size_t group = s->heads / s->kv_heads, qs = s->heads * s->d, ks = s->kv_heads * s->d;
    if (!p)
        exit(1);
    for (size_t i = 0; i < s->n; i++) {
        size_t limit = s->causal ? s->positions - s->n + i + 1 : s->positions;
        for (size_t h = 0; h < s->heads; h++) {
            double top = -INFINITY, sum = 0;
            for (size_t j = 0; j < limit; j++) {
                p[j] = 0;
                for (size_t l = 0; l < s->d; l++) {
                    p[j] +=
                        (double)q[i * qs + h * s->d + l] * (double)k[j * ks + h / group * s->d + l];
                }
                p[j] *= (double)scale;
                if (p[j] > top)
                    top = p[j];
            }
            for (size_t j = 0; j < limit; j++) {
                p[j] = exp(p[j] - top);
                sum += p[j];
            }
            for (size_t l = 0; l < s->d; l++) {
                double o = 0;
                for (size_t j = 0; j < limit; j++)
                    o += p[j] * (double)v[j * ks + h / group * s->d + l];
                out[i * qs + h * s->d + l] = (float)(o / sum);
            }
        }
    }
    free(p);
}

/* The cache is filled in two portions, as prefill and the steps after it do, and holds garbage
 * behind the last position. */
static void run_attention(const char *set, int threads, pvl_cache_type type, float *out,
                          const float *q, const float *k, const float *v, const shape *s,
                          float scale) {
    size_t capacity = s->positions + 3, ks = s->kv_heads * s->d, half = s->positions / 2;
    test_compute t =
        compute_new(set, threads, pvl_attention_scratch((size_t)threads, s->heads, s->d));
    size_t bytes = pvl_kv_bytes(type, s->kv_heads, s->d, capacity);
    void *data = NULL;
    pvl_error err = {0};
    REQUIRE(bytes > 0 && pvl_malloc(NULL, &data, bytes, 1, "cache", &err) == PVL_OK);
    memset(data, 0xFF, bytes); /* NaN */
    pvl_kv kv = {
        .type = type, .heads = s->kv_heads, .head_dim = s->d, .capacity = capacity, .data = data};
    pvl_kv_store(&t.c, &kv, 0, half, k, v, ks);
    pvl_kv_store(&t.c, &kv, half, s->positions - half, k + half * ks, v + half * ks, ks);
    pvl_attention_args a = {.q = q,
                            .q_stride = s->heads * s->d,
                            .heads = s->heads,
                            .kv = &kv,
                            .positions = s->positions,
                            .causal = s->causal,
                            .scale = scale};
    pvl_attention(&t.c, out, s->heads * s->d, &a, s->n);
    pvl_free(NULL, data);
    compute_free(&t);
}

static const shape shapes[] = {
    {2, 2, 64, 1, 1, true},     {2, 2, 64, 1, 1, false},    {2, 1, 32, 5, 5, true},
    {2, 2, 64, 65, 65, false},  {14, 2, 64, 1, 130, true},  {14, 2, 64, 9, 73, true},
    {16, 8, 128, 3, 200, true}, {4, 4, 96, 33, 97, true},   {3, 3, 8, 7, 64, false},
    {3, 1, 24, 40, 129, true},  {1, 1, 40, 130, 130, true}, {2, 2, 16, 63, 63, false},
    {4, 2, 112, 1, 9, true},    {3, 3, 72, 1, 131, true},   {3, 1, 40, 1, 77, true},
    {4, 2, 24, 2, 131, true},
};

TEST(shapes_sets_and_caches) {
    test_rng rng = test_rng_start(1);
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const shape *s = &shapes[i];
        size_t nq = s->n * s->heads * s->d, nk = s->positions * s->kv_heads * s->d;
        float *q = normals_new(&rng, nq, 1.5f), *k = normals_new(&rng, nk, 1.5f),
              *v = normals_new(&rng, nk, 1), *expect = floats_new(nq), *out = floats_new(nq),
              *first = floats_new(nq), *scalar[2] = {floats_new(nq), floats_new(nq)};
        float scale = 1.0f / sqrtf((float)s->d);
        plain_attention(expect, q, k, v, s, scale);
        for (int type = 0; type < 2; type++)
            run_attention("scalar", 1, (pvl_cache_type)type, scalar[type], q, k, v, s, scale);
        for (const char *const *set = pvl_kernels_list(); *set; set++) {
            for (int type = 0; type < 2; type++) {
                static const int threads[] = {1, 2, 3, 4, 8};
                for (size_t j = 0; j < 5; j++) {
                    if (j > 1 && i % 3 != 0)
                        continue;
                    run_attention(*set, threads[j], (pvl_cache_type)type, out, q, k, v, s, scale);
                    if (j == 0) {
                        double error = test_rel_l2(out, expect, nq),
                               bound = type == PVL_CACHE_Q8 ? 1.5e-2 : 2e-6;
                        CHECK_MSG(error <= bound, "%s, shape %zu, cache %d: differs by %.3g", *set,
                                  i, type, error);
                        CHECK_REL_L2(out, scalar[type], nq, 2e-6);
                        memcpy(first, out, nq * sizeof *out);
                    } else {
                        CHECK_MSG(memcmp(first, out, nq * sizeof *out) == 0,
                                  "%s, shape %zu, cache %d: %d threads", *set, i, type, threads[j]);
                    }
                }
            }
        }
        pvl_free(NULL, q);
        pvl_free(NULL, k);
        pvl_free(NULL, v);
        pvl_free(NULL, expect);
        pvl_free(NULL, out);
        pvl_free(NULL, first);
        pvl_free(NULL, scalar[0]);
        pvl_free(NULL, scalar[1]);
    }
}

/* Scores far apart and huge: the online rescaling must neither overflow nor lose the winner. */
TEST(steep_scores) {
    shape s = {1, 1, 8, 1, 200, true};
    float q[8] = {100, 0, 0, 0, 0, 0, 0, 0}, out[8];
    float *k = floats_new(200 * 8), *v = floats_new(200 * 8);
    for (size_t j = 0; j < 200; j++) {
        for (size_t l = 0; l < 8; l++)
            k[j * 8 + l] = 0, v[j * 8 + l] = (float)j;
        k[j * 8] = j == 150 ? 50.0f : j < 100 ? -1e4f : (float)(j % 7);
    }
    for (const char *const *set = pvl_kernels_list(); *set; set++) {
        run_attention(*set, 1, PVL_CACHE_F32, out, q, k, v, &s, 1.0f);
        for (size_t l = 0; l < 8; l++)
            CHECK_NEAR(out[l], 150, 1e-4);
    }
    pvl_free(NULL, k);
    pvl_free(NULL, v);
}

TEST(cache_sizes) {
    CHECK_EQ_UINT(pvl_kv_bytes(PVL_CACHE_F32, 2, 64, 100), 2 * 104 * 64 * 4 * 2);
    CHECK(pvl_kv_bytes(PVL_CACHE_Q8, 32, 96, 4096) <
          pvl_kv_bytes(PVL_CACHE_F32, 32, 96, 4096) * 27 / 100);
    CHECK_EQ_UINT(pvl_kv_bytes(PVL_CACHE_F32, 1u << 10, 128, SIZE_MAX / 1024), 0);
    CHECK_EQ_UINT(pvl_kv_bytes(PVL_CACHE_F32, 2, 64, SIZE_MAX), 0);
}

TEST_MAIN(CASE(shapes_sets_and_caches), CASE(steep_scores), CASE(cache_sizes))
