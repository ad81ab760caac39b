/* Speed of each operation at the models' real shapes, as a fraction of what the same processor does
 * in loops over data in its first cache (products) or streaming from memory (decoding), measured in
 * the same run and interleaved with it.
 *
 *   bench_kernels [--threads N] [--set NAME] [--ms N] [--only TEXT]
 *
 * Columns: median time, rate, and the fraction: of the relaxed 32-bit dot for integer products, of
 * f32 multiply-add for attention and F32 products, of streamed bytes for decoding. */
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "kernels/kernels.h"

#if defined(__wasm_simd128__) && !defined(__wasm_relaxed_simd__)
#define PLAIN_ONLY
#else
#define PVL_SIMD_RELAXED
#endif
#include "kernels/simd.h"

enum { REPETITIONS = 7, STREAM_BYTES = 64 << 20, L1_BYTES = 8192 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n) {
    qsort(v, n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

static void *make(size_t bytes) {
    void *p = NULL;
    pvl_error err = {0};
    if (pvl_malloc(NULL, &p, bytes, 1, "a benchmark's buffer", &err) != PVL_OK) {
        printf("%s\n", err.message);
        exit(1);
    }
    return p;
}

/* ---- ceilings ---- */

typedef enum ceiling {
    CEILING_DOT,
    CEILING_PAIRS,
    CEILING_I16,
    CEILING_MADD,
    CEILING_STREAM,
    CEILINGS
} ceiling;
static const char *const ceiling_names[] = {"i32x4 relaxed dot", "i16x8 relaxed dot, pairs by hand",
                                            "i32x4.dot_i16x8", "f32 multiply-add",
                                            "streaming read"};

typedef struct ceilings {
    pvl_compute c;
    unsigned char *l1, *stream; /* L1_BYTES per member; STREAM_BYTES */
    int32_t *sink;              /* keeps results alive: one line per member */
    ceiling kind;
    size_t rounds;
} ceilings;

/* 4 rows x 8 columns, as the tiles do it. */
#define LOOP(step, bytes, one, two)                                                                \
    for (size_t round = 0; round < c->rounds; round++) {                                           \
        const unsigned char *w = base, *x = base + 4096;                                           \
        for (size_t k = 0; k < 128; k++, w += 32, x += (step)) {                                   \
            v128_t w0 = wasm_v128_load(w), w1 = wasm_v128_load(w + 16);                            \
            for (size_t r = 0; r < 4; r++) {                                                       \
                v128_t a = wasm_v128_load32_splat(x + r * 1024);                                   \
                s[r][0] = (one);                                                                   \
                s[r][1] = (two);                                                                   \
            }                                                                                      \
        }                                                                                          \
    }

static void ceiling_member(void *arg, int member) {
    const ceilings *c = arg;
    const unsigned char *base = c->l1 + (size_t)member * L1_BYTES;
    v128_t s[4][2];
    for (size_t r = 0; r < 4; r++)
        s[r][0] = s[r][1] = wasm_i32x4_splat(0);
    switch (c->kind) {
    case CEILING_DOT:
#ifndef PLAIN_ONLY
        LOOP(4, 32, dot_i8_i7_add(w0, a, s[r][0]), dot_i8_i7_add(w1, a, s[r][1]))
#endif
        break;
    case CEILING_PAIRS:
#ifndef PLAIN_ONLY
        LOOP(4, 32,
             wasm_i32x4_add(s[r][0], wasm_i32x4_dot_i16x8(dot_i8_i7(w0, a), wasm_i16x8_splat(1))),
             wasm_i32x4_add(s[r][1], wasm_i32x4_dot_i16x8(dot_i8_i7(w1, a), wasm_i16x8_splat(1))))
#endif
        break;
    case CEILING_I16:
        LOOP(4, 32, wasm_i32x4_add(s[r][0], wasm_i32x4_dot_i16x8(w0, a)),
             wasm_i32x4_add(s[r][1], wasm_i32x4_dot_i16x8(w1, a)))
        break;
    case CEILING_MADD:
        LOOP(4, 32, madd4(w0, a, s[r][0]), madd4(w1, a, s[r][1]))
        break;
    default: {
        size_t members = (size_t)pvl_team_size(c->c.team),
               part = STREAM_BYTES / members / 128 * 128;
        const unsigned char *p = c->stream + part * (size_t)member;
        for (size_t i = 0; i < part; i += 128) {
            for (size_t l = 0; l < 4; l++) {
                s[l][0] = wasm_v128_xor(s[l][0], wasm_v128_load(p + i + 32 * l));
                s[l][1] = wasm_v128_xor(s[l][1], wasm_v128_load(p + i + 32 * l + 16));
            }
        }
    }
    }
    v128_t sum = s[0][0];
    for (size_t r = 0; r < 4; r++)
        sum = wasm_v128_xor(sum, wasm_v128_xor(s[r][0], s[r][1]));
    c->sink[member * 16] = wasm_i32x4_extract_lane(sum, 0);
}

/* Multiply-adds or bytes per second, of all members together. */
static double ceiling_rate(ceilings *c, ceiling kind) {
    static const double per_step[] = {128, 128, 64, 32};
    c->kind = kind;
#ifdef PLAIN_ONLY
    if (kind == CEILING_DOT || kind == CEILING_PAIRS)
        c->kind = kind = CEILING_I16;
#endif
    c->rounds = 4000;
    double start = now();
    pvl_team_run(c->c.team, ceiling_member, c);
    double seconds = now() - start;
    if (kind == CEILING_STREAM)
        return (double)STREAM_BYTES / seconds;
    return per_step[kind] * 128 * (double)c->rounds * pvl_team_size(c->c.team) / seconds;
}

/* ---- operations ---- */

typedef struct op {
    const char *name;
    enum { PRODUCT, ATTENTION, PREPARE } kind;
    pvl_dtype type;
    size_t n, k, rows;         /* product: [n, k] x [rows, k]^T */
    size_t heads, kv_heads, d; /* attention: n queries, `rows` positions */
    bool causal;
    pvl_activation activation;
} op;

static const op ops[] = {
    {.name = "vit qkv", .type = PVL_DTYPE_F16, .n = 1025, .k = 1024, .rows = 3072},
    {.name = "vit out", .type = PVL_DTYPE_F16, .n = 1025, .k = 1024, .rows = 1024},
    {.name = "vit up + gelu",
     .type = PVL_DTYPE_F16,
     .n = 1025,
     .k = 1024,
     .rows = 4096,
     .activation = PVL_ACT_GELU_ERF},
    {.name = "vit down", .type = PVL_DTYPE_F16, .n = 1025, .k = 4096, .rows = 1024},
    {.name = "vit attention",
     .kind = ATTENTION,
     .n = 1025,
     .rows = 1025,
     .heads = 16,
     .kv_heads = 16,
     .d = 64},
    {.name = "vit patches f32", .type = PVL_DTYPE_F32, .n = 1024, .k = 588, .rows = 1024},
    {.name = "projector 1", .type = PVL_DTYPE_F16, .n = 256, .k = 4096, .rows = 896},
    {.name = "projector 3", .type = PVL_DTYPE_F16, .n = 256, .k = 896, .rows = 896},
    {.name = "1b q, o q4", .type = PVL_DTYPE_Q4_0, .n = 512, .k = 896, .rows = 896},
    {.name = "1b k, v q4", .type = PVL_DTYPE_Q4_0, .n = 512, .k = 896, .rows = 128},
    {.name = "1b up q4", .type = PVL_DTYPE_Q4_0, .n = 512, .k = 896, .rows = 4864},
    {.name = "1b down q4", .type = PVL_DTYPE_Q4_0, .n = 512, .k = 4864, .rows = 896},
    {.name = "1b up q4_k", .type = PVL_DTYPE_Q4_K, .n = 512, .k = 1024, .rows = 4864},
    {.name = "1b up q8", .type = PVL_DTYPE_Q8_0, .n = 512, .k = 896, .rows = 4864},
    {.name = "1b down q8", .type = PVL_DTYPE_Q8_0, .n = 512, .k = 4864, .rows = 896},
    {.name = "1b attention",
     .kind = ATTENTION,
     .n = 512,
     .rows = 512,
     .heads = 14,
     .kv_heads = 2,
     .d = 64,
     .causal = true},
    {.name = "2b up q4", .type = PVL_DTYPE_Q4_0, .n = 512, .k = 2048, .rows = 8192},
    {.name = "2b down q4", .type = PVL_DTYPE_Q4_0, .n = 512, .k = 8192, .rows = 2048},
    {.name = "2b attention",
     .kind = ATTENTION,
     .n = 512,
     .rows = 512,
     .heads = 16,
     .kv_heads = 8,
     .d = 128,
     .causal = true},
    {.name = "4b qkv q4", .type = PVL_DTYPE_Q4_0, .n = 512, .k = 3072, .rows = 9216},
    {.name = "4b down q4", .type = PVL_DTYPE_Q4_0, .n = 512, .k = 8192, .rows = 3072},
    {.name = "decode 1b o q4", .type = PVL_DTYPE_Q4_0, .n = 1, .k = 896, .rows = 896},
    {.name = "decode 1b up q4", .type = PVL_DTYPE_Q4_0, .n = 1, .k = 896, .rows = 4864},
    {.name = "decode 1b down q4", .type = PVL_DTYPE_Q4_0, .n = 1, .k = 4864, .rows = 896},
    {.name = "decode 1b up q8", .type = PVL_DTYPE_Q8_0, .n = 1, .k = 896, .rows = 4864},
    {.name = "decode 1b head q8", .type = PVL_DTYPE_Q8_0, .n = 1, .k = 896, .rows = 151655},
    {.name = "decode 1b attention",
     .kind = ATTENTION,
     .n = 1,
     .rows = 512,
     .heads = 14,
     .kv_heads = 2,
     .d = 64,
     .causal = true},
    {.name = "decode 2b up q4", .type = PVL_DTYPE_Q4_0, .n = 1, .k = 2048, .rows = 8192},
    {.name = "decode 4b down q4", .type = PVL_DTYPE_Q4_0, .n = 1, .k = 8192, .rows = 3072},
    {.name = "4 rows 1b up q4", .type = PVL_DTYPE_Q4_0, .n = 4, .k = 896, .rows = 4864},
};

static uint32_t noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static float *make_floats(size_t n, uint32_t *seed) {
    float *x = make(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)noise(seed) / 8388608.0f - 1.0f;
    return x;
}

/* A matrix whose groups of rows are all the same eight: quick to make, as slow to read as any. */
static pvl_matrix make_matrix(pvl_dtype type, size_t rows, size_t cols, uint32_t *seed) {
    pvl_matrix m;
    pvl_error err = {0};
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    if (pvl_matrix_plan(&m, type, rows, cols, type == PVL_DTYPE_F32, &err) != PVL_OK)
        exit(1);
    m.data = make(m.bytes);
    float *x = make_floats(PVL_ROW_GROUP * cols, seed);
    void *file = make(PVL_ROW_GROUP * cols / t->block_length * t->block_bytes);
    pvl_dtype_quantize(type, file, x, PVL_ROW_GROUP * cols);
    size_t group = m.bytes / ((rows + PVL_ROW_GROUP - 1) / PVL_ROW_GROUP);
    pvl_matrix_set_rows(&m, 0, rows < PVL_ROW_GROUP ? rows : PVL_ROW_GROUP, file);
    for (size_t at = group; at < m.bytes; at += group)
        memcpy(m.data + at, m.data, group);
    pvl_free(NULL, file);
    pvl_free(NULL, x);
    return m;
}

enum { MAX_COPIES = 64 };

typedef struct setting {
    pvl_compute c;
    const op *o;
    pvl_matrix m[MAX_COPIES];
    size_t copies; /* decoding walks over several matrices, as a model's layers do, so that none
                      stays in a cache */
    float *x, *y, *bias;
    pvl_act act;
    pvl_kv kv;
} setting;

static void run_once(setting *s) {
    const op *o = s->o;
    if (o->kind == ATTENTION) {
        pvl_attention_args a = {.q = s->x,
                                .q_stride = o->heads * o->d,
                                .heads = o->heads,
                                .kv = &s->kv,
                                .positions = o->rows,
                                .causal = o->causal,
                                .scale = 1.0f / sqrtf((float)o->d)};
        pvl_attention(&s->c, s->y, o->heads * o->d, &a, o->n);
        return;
    }
    pvl_input in = {.source = PVL_SRC_PLAIN, .x = s->x, .stride = o->k};
    pvl_epilogue e = {.bias = s->bias, .activation = o->activation};
    for (size_t i = 0; i < s->copies; i++) {
        pvl_act_prepare(&s->c, &s->act, &in, o->n, o->k, s->m[i].form);
        pvl_matmul(&s->c, s->y, o->rows, &s->act, &s->m[i], &e);
    }
}

static double work_of(const op *o) { /* multiply-adds */
    if (o->kind != ATTENTION)
        return (double)o->n * (double)o->k * (double)o->rows;
    double pairs = (double)o->n * (double)o->rows;
    if (o->causal)
        pairs -= (double)o->n * (double)(o->n - 1) / 2;
    return 2 * pairs * (double)(o->heads * o->d);
}

static void measure(ceilings *c, const op *o, double seconds) {
    uint32_t seed = 1;
    setting s = {.c = c->c, .o = o, .copies = 1};
    size_t scratch;
    if (o->kind == ATTENTION) {
        size_t q = o->heads * o->d, kd = o->kv_heads * o->d;
        s.kv = (pvl_kv){
            .type = PVL_CACHE_F32, .heads = o->kv_heads, .head_dim = o->d, .capacity = o->rows};
        s.kv.data = make(pvl_kv_bytes(s.kv.type, o->kv_heads, o->d, o->rows));
        float *kv = make_floats(o->rows * kd, &seed);
        pvl_kv_store(&s.c, &s.kv, 0, o->rows, kv, kv, kd);
        pvl_free(NULL, kv);
        s.x = make_floats(o->n * q, &seed);
        s.y = make(o->n * q * sizeof(float));
        scratch = pvl_attention_scratch((size_t)pvl_team_size(s.c.team), o->heads, o->d);
    } else {
        s.m[0] = make_matrix(o->type, o->rows, o->k, &seed);
        if (o->n <= 4)
            s.copies = STREAM_BYTES / s.m[0].bytes + 1;
        if (s.copies > MAX_COPIES)
            s.copies = MAX_COPIES;
        for (size_t i = 1; i < s.copies; i++)
            s.m[i] = make_matrix(o->type, o->rows, o->k, &seed);
        s.x = make_floats(o->n * o->k, &seed);
        s.y = make(o->n * o->rows * sizeof(float));
        s.bias = make_floats(o->rows, &seed);
        scratch = pvl_act_bytes(o->n, o->k, s.m[0].form);
    }
    s.c.scratch = make(scratch);
    s.c.scratch_bytes = scratch;

    bool stream = o->n <= 4 && o->kind != ATTENTION;
    ceiling kind = stream                                             ? CEILING_STREAM
                   : o->kind == ATTENTION || o->type == PVL_DTYPE_F32 ? CEILING_MADD
                                                                      : CEILING_DOT;
    double work = stream ? (double)s.m[0].bytes * (double)s.copies : work_of(o) * (double)s.copies;
    double start = now();
    run_once(&s); /* warm */
    size_t calls = (size_t)(seconds / (now() - start + 1e-9));
    if (calls == 0)
        calls = 1;
    if (calls > 2000)
        calls = 2000;
    double times[REPETITIONS], fractions[REPETITIONS];
    for (int r = 0; r < REPETITIONS; r++) {
        double top = ceiling_rate(c, kind);
        start = now();
        for (size_t i = 0; i < calls; i++)
            run_once(&s);
        times[r] = (now() - start) / (double)calls;
        double top2 = ceiling_rate(c, kind);
        fractions[r] = work / times[r] / (0.5 * (top + top2));
    }
    double t = median(times, REPETITIONS);
    printf("%-22s %9.3f ms %8.1f %s %8.1f GMAC/s %6.0f%% of %s\n", o->name,
           1e3 * t / (double)s.copies, work / t * 1e-9, stream ? "GB/s  " : "GMAC/s",
           work_of(o) * (double)s.copies / t * 1e-9, 100 * median(fractions, REPETITIONS),
           ceiling_names[kind]);
    fflush(stdout);
    for (size_t i = 0; i < s.copies; i++)
        pvl_free(NULL, s.m[i].data);
    pvl_free(NULL, s.kv.data);
    pvl_free(NULL, s.x);
    pvl_free(NULL, s.y);
    pvl_free(NULL, s.bias);
    pvl_free(NULL, s.c.scratch);
}

int main(int argc, char **argv) {
    int threads = 1;
    const char *set = NULL, *only = "";
    double seconds = 0.03;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--threads") == 0)
            threads = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--set") == 0)
            set = argv[i + 1];
        if (strcmp(argv[i], "--ms") == 0)
            seconds = atof(argv[i + 1]) * 1e-3;
        if (strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
    }
    ceilings c = {.c = {0}};
    pvl_error err = {0};
    if (pvl_kernels_select(&c.c.kernels, set, &err) != PVL_OK ||
        pvl_team_start(&c.c.team, &pvl_libc_allocator, threads, &err) != PVL_OK) {
        printf("%s\n", err.message);
        return 1;
    }
    size_t members = (size_t)pvl_team_size(c.c.team);
    c.l1 = make(members * L1_BYTES);
    c.stream = make(STREAM_BYTES);
    c.sink = make(members * 64);
    uint32_t seed = 7;
    /* Floats of ordinary size: the multiply-add must not meet denormals. As bytes they are in
     * 0..127 often enough. */
    for (size_t i = 0; i < members * L1_BYTES / 4; i++) {
        float v = (float)noise(&seed) * 0x1p-40f;
        memcpy(c.l1 + 4 * i, &v, 4);
    }
    memset(c.stream, 1, STREAM_BYTES);
    printf("kernels %s, %zu threads\n", pvl_kernels_name(c.c.kernels), members);
    for (int k = 0; k < CEILINGS; k++) {
        double rates[REPETITIONS];
        for (int r = 0; r < REPETITIONS; r++)
            rates[r] = ceiling_rate(&c, (ceiling)k);
        printf("ceiling %-34s %6.1f %s\n", ceiling_names[k], median(rates, REPETITIONS) * 1e-9,
               k == CEILING_STREAM ? "GB/s" : "GMAC/s");
    }
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (strstr(ops[i].name, only))
            measure(&c, &ops[i], seconds);
    }
    pvl_team_stop(c.c.team);
    pvl_free(NULL, c.l1);
    pvl_free(NULL, c.stream);
    pvl_free(NULL, c.sink);
    return 0;
}
