/* Every kernel set against scalar: products of all types and shapes, sources, attention. Sane
 * numbers must agree within the tests' bounds; numbers of any bits (scales that are NaN, infinite
 * or huge, as a hostile file may hold them) must neither crash nor read or write where they should
 * not. */
#include "fuzz.h"

#include <math.h>

#include "kernels/kernels.h"

static const pvl_dtype types[] = {PVL_DTYPE_F32,  PVL_DTYPE_F16,    PVL_DTYPE_BF16,  PVL_DTYPE_Q4_0,
                                  PVL_DTYPE_Q4_1, PVL_DTYPE_Q5_0,   PVL_DTYPE_Q5_1,  PVL_DTYPE_Q8_0,
                                  PVL_DTYPE_Q2_K, PVL_DTYPE_Q3_K,   PVL_DTYPE_Q4_K,  PVL_DTYPE_Q5_K,
                                  PVL_DTYPE_Q6_K, PVL_DTYPE_IQ4_NL, PVL_DTYPE_IQ4_XS};
enum { TYPES = sizeof types / sizeof types[0] };

static void *block(size_t count, size_t size) {
    void *p = NULL;
    HOLDS(pvl_calloc(NULL, &p, count, size, "a fuzzed buffer", NULL) == PVL_OK);
    return p;
}

static double distance(const float *a, const float *b, size_t n) {
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double x = (double)a[i], y = (double)b[i];
        diff += (x - y) * (x - y);
        norm += y * y;
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

/* n floats: sane ones, or any bits. */
static float *floats(uint64_t *state, fuzz_input *in, size_t n, bool hostile) {
    float *x = block(n, sizeof *x);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)(in->left >= 4 ? take(in, 4) : fuzz_random(state));
        if (hostile)
            memcpy(&x[i], &bits, 4);
        else
            x[i] = fuzz_random_float(state) * 3;
    }
    return x;
}

static pvl_compute compute(const char *set, pvl_team *team, size_t scratch) {
    pvl_compute c = {.team = team, .scratch_bytes = scratch};
    HOLDS(pvl_kernels_select(&c.kernels, set, NULL) == PVL_OK);
    c.scratch = block(scratch, 1);
    return c;
}

/* Sets differ by the rounding of float sums: a part of what the terms come to, however they cancel.
 */
static void check_product(const float *y, const float *expect, const float *x, size_t n,
                          const pvl_matrix *m, const pvl_epilogue *e) {
    float *row = block(m->cols, sizeof *row);
    for (size_t c = 0; c < m->rows; c++) {
        pvl_matrix_get_row(m, c, row);
        for (size_t r = 0; r < n; r++) {
            double terms = 0, largest = 0, weights = 0;
            for (size_t k = 0; k < m->cols; k++) {
                double v = fabs((double)x[r * m->cols + k]), w = fabs((double)row[k]);
                terms += v * w;
                weights += w;
                largest = v > largest ? v : largest;
            }
            terms += weights * largest / 100; /* what rounding the row to 7 bits adds */
            terms += e->bias ? fabs((double)e->bias[c]) : 0;
            terms *= e->scale ? fabs((double)e->scale[c]) : 1;
            double difference = (double)y[r * m->rows + c] - (double)expect[r * m->rows + c];
            HOLDS(fabs(difference) <= 2e-6 * terms + 1e-30);
        }
    }
    pvl_free(NULL, row);
}

static void products(fuzz_input *in, pvl_team *team) {
    pvl_dtype type = types[take_between(in, 0, TYPES - 1)];
    const pvl_dtype_traits *traits = pvl_dtype_find((uint32_t)type);
    unsigned how = (unsigned)take(in, 1);
    bool hostile = how & 1, exact = how & 2;
    size_t n = take_between(in, 1, how & 4 ? 70 : 5), rows = take_between(in, 1, 40), blocks = 1;
    size_t cols =
        traits->block_length * (blocks = take_between(in, 1, traits->block_length > 32 ? 2 : 9));
    if (traits->block_length == 1)
        cols = blocks * (how & 8 ? 32 : 1) * (how & 16 ? 2 : 1);
    uint64_t state = take(in, 8);
    size_t bytes = rows * cols / traits->block_length * traits->block_bytes;
    unsigned char *file = malloc(bytes);
    HOLDS(file != NULL);
    if (hostile || !traits->quantizes) {
        for (size_t i = 0; i < bytes; i++)
            file[i] = (unsigned char)(in->left ? take(in, 1) : fuzz_random(&state));
        hostile = true;
    } else {
        float *w = floats(&state, in, rows * cols, false);
        pvl_dtype_quantize(type, file, w, rows * cols);
        pvl_free(NULL, w);
    }
    float *x = floats(&state, in, n * cols, hostile && how & 32),
          *bias = floats(&state, in, rows, false), *scale = floats(&state, in, rows, false);
    pvl_matrix m;
    HOLDS(pvl_matrix_plan(&m, type, rows, cols, exact, NULL) == PVL_OK);
    m.data = block(m.bytes, 1);
    pvl_matrix_set_rows(&m, 0, rows, file);
    pvl_epilogue e = {.bias = how & 64 ? bias : NULL,
                      .activation = how & 128 ? PVL_ACT_GELU_ERF : PVL_ACT_NONE,
                      .scale = how & 64 ? scale : NULL};
    float *expect = block(n * rows, sizeof *expect), *y = block(n * rows, sizeof *y);
    for (int set = -1; set < 0 || pvl_kernels_list()[set]; set++) {
        float *out = set < 0 ? expect : y;
        pvl_compute c = compute(set < 0 ? "scalar" : pvl_kernels_list()[set], set < 0 ? NULL : team,
                                pvl_act_bytes(n, cols, m.form));
        pvl_act act;
        pvl_input input = {.source = PVL_SRC_PLAIN, .x = x, .stride = cols};
        pvl_act_prepare(&c, &act, &input, n, cols, m.form);
        pvl_matmul(&c, out, rows, &act, &m, &e);
        if (set >= 0 && !hostile)
            check_product(y, expect, x, n, &m, &e);
        pvl_free(NULL, c.scratch);
    }
    float *row = block(cols, sizeof *row);
    for (size_t r = 0; r < rows; r++)
        pvl_matrix_get_row(&m, r, row);
    pvl_argmax(y, n * rows);
    pvl_free(NULL, row);
    pvl_free(NULL, m.data);
    pvl_free(NULL, x);
    pvl_free(NULL, y);
    pvl_free(NULL, bias);
    pvl_free(NULL, scale);
    pvl_free(NULL, expect);
    free(file);
}

static void sources(fuzz_input *in, pvl_team *team) {
    unsigned how = (unsigned)take(in, 1);
    size_t n = take_between(in, 1, 5), k = take_between(in, 1, 200),
           stride = k + take_between(in, 0, 7);
    uint64_t state = take(in, 8);
    bool hostile = how & 1;
    float *x = floats(&state, in, n * stride, hostile),
          *x2 = floats(&state, in, n * stride, hostile), *w = floats(&state, in, k, false),
          *b = floats(&state, in, k, false), *expect = block(n * k, sizeof *expect),
          *y = block(n * k, sizeof *y);
    pvl_input input = {.source = (pvl_source)(how >> 1 & 3),
                       .x = x,
                       .x2 = x2,
                       .stride = stride,
                       .weight = w,
                       .bias = b,
                       .eps = 1e-6f};
    for (int set = -1; set < 0 || pvl_kernels_list()[set]; set++) {
        pvl_compute c = compute(set < 0 ? "scalar" : pvl_kernels_list()[set], team, 64);
        pvl_apply(&c, set < 0 ? expect : y, k, &input, n, k);
        if (set >= 0 && !hostile && k > 1)
            HOLDS(distance(y, expect, n * k) <= 1e-5);
        pvl_free(NULL, c.scratch);
    }
    pvl_free(NULL, x);
    pvl_free(NULL, x2);
    pvl_free(NULL, w);
    pvl_free(NULL, b);
    pvl_free(NULL, y);
    pvl_free(NULL, expect);
}

static void attention(fuzz_input *in, pvl_team *team) {
    unsigned how = (unsigned)take(in, 1);
    size_t kv_heads = take_between(in, 1, 3), heads = kv_heads * take_between(in, 1, 3),
           d = 8 * take_between(in, 1, 8), n = take_between(in, 1, 40),
           positions = n + take_between(in, 0, 90), capacity = positions + take_between(in, 0, 9);
    uint64_t state = take(in, 8);
    bool hostile = how & 1;
    pvl_cache_type type = how & 2 ? PVL_CACHE_Q8 : PVL_CACHE_F32;
    float *q = floats(&state, in, n * heads * d, hostile),
          *k = floats(&state, in, positions * kv_heads * d, hostile),
          *v = floats(&state, in, positions * kv_heads * d, hostile),
          *expect = block(n * heads * d, sizeof *expect), *y = block(n * heads * d, sizeof *y);
    for (int set = -1; set < 0 || pvl_kernels_list()[set]; set++) {
        pvl_compute c = compute(set < 0 ? "scalar" : pvl_kernels_list()[set], set < 0 ? NULL : team,
                                pvl_attention_scratch((size_t)pvl_team_size(team), heads, d));
        pvl_kv kv = {.type = type, .heads = kv_heads, .head_dim = d, .capacity = capacity};
        kv.data = block(pvl_kv_bytes(type, kv_heads, d, capacity), 1);
        size_t half = positions / 2;
        pvl_kv_store(&c, &kv, 0, half, k, v, kv_heads * d);
        pvl_kv_store(&c, &kv, half, positions - half, k + half * kv_heads * d,
                     v + half * kv_heads * d, kv_heads * d);
        pvl_attention_args args = {.q = q,
                                   .q_stride = heads * d,
                                   .heads = heads,
                                   .kv = &kv,
                                   .positions = positions,
                                   .causal = how & 4,
                                   .scale = 1.0f / sqrtf((float)d)};
        pvl_attention(&c, set < 0 ? expect : y, heads * d, &args, n);
        if (set >= 0 && !hostile)
            HOLDS(distance(y, expect, n * heads * d) <= (type == PVL_CACHE_Q8 ? 1.5e-2 : 1e-5));
        pvl_free(NULL, kv.data);
        pvl_free(NULL, c.scratch);
    }
    pvl_free(NULL, q);
    pvl_free(NULL, k);
    pvl_free(NULL, v);
    pvl_free(NULL, y);
    pvl_free(NULL, expect);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static pvl_team *team;
    if (!team)
        HOLDS(pvl_team_start(&team, NULL, 2, NULL) == PVL_OK);
    fuzz_input in = {data, size};
    switch (take(&in, 1) % 4) {
    case 0:
        sources(&in, team);
        break;
    case 1:
        attention(&in, team);
        break;
    default:
        products(&in, team);
    }
    return 0;
}
