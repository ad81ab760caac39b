/* One operation of one kernel set at a time, for kernels.mjs: a WebAssembly module without threads,
 * timed from outside by the processor's time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/kernels.h"

#define EXPORT(name) __attribute__((export_name(name)))

static pvl_compute c;
static pvl_matrix w;
static pvl_kv kv;
static pvl_attention_args args;
static float *x, *y;
static size_t rows, width;

EXPORT("select_set") const char *select_set(int index);
EXPORT("product") double product(int type, int n, int k, int outputs);
EXPORT("run_product") void run_product(int gelu);
EXPORT("attention") void attention(int n, int positions, int heads, int kv_heads, int d, int flags);
EXPORT("run_attention") void run_attention(void);
EXPORT("pack") double pack(void);

static void *make(size_t bytes) {
    void *p = NULL;
    if (pvl_calloc(&pvl_libc_allocator, &p, bytes, 1, "a benchmark's buffer", NULL) != PVL_OK)
        __builtin_trap();
    return p;
}

static void drop(void *p) {
    pvl_free(&pvl_libc_allocator, p);
}

static void *noise(size_t n) {
    static uint32_t seed = 1;
    float *v = make(n * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        v[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
    return v;
}

/* The name of the set, NULL behind the last. */
const char *select_set(int index) {
    const char *const *list = pvl_kernels_list();
    for (int i = 0; list[i]; i++) {
        if (i == index)
            return pvl_kernels_select(&c.kernels, list[i], NULL) == PVL_OK ? list[i] : NULL;
    }
    return NULL;
}

static void clear(size_t x_floats, size_t y_floats, size_t scratch) {
    drop(x);
    drop(y);
    drop(c.scratch);
    x = noise(x_floats);
    y = make(y_floats * sizeof *y);
    c.scratch = make(scratch);
    c.scratch_bytes = scratch;
}

static void *file;
static size_t file_bytes;

/* Bytes that the matrix takes. */
double product(int type, int n, int k, int outputs) {
    const pvl_dtype_traits *t = pvl_dtype_find((uint32_t)type);
    drop(w.data);
    drop(file);
    rows = (size_t)n;
    width = (size_t)k;
    if (pvl_matrix_plan(&w, (pvl_dtype)type, (size_t)outputs, width, false, NULL) != PVL_OK)
        __builtin_trap();
    w.data = make(w.bytes);
    /* Eight rows again and again: as slow to pack and to read as any. */
    size_t group = PVL_ROW_GROUP * width / t->block_length * t->block_bytes;
    file_bytes = group * ((size_t)outputs / PVL_ROW_GROUP);
    file = make(file_bytes);
    float *values = noise(PVL_ROW_GROUP * width);
    pvl_dtype_quantize((pvl_dtype)type, file, values, PVL_ROW_GROUP * width);
    drop(values);
    for (size_t at = group; at < file_bytes; at += group)
        memcpy((char *)file + at, file, group);
    pack();
    clear(rows * width, rows * w.rows, pvl_act_bytes(rows, width, w.form));
    return (double)w.bytes;
}

/* Bytes of the file that were packed. */
double pack(void) {
    pvl_matrix_set_rows(&w, 0, w.rows, file);
    return (double)file_bytes;
}

void run_product(int gelu) {
    pvl_act act;
    pvl_input in = {.source = PVL_SRC_PLAIN, .x = x, .stride = width};
    pvl_epilogue e = {.activation = gelu ? PVL_ACT_GELU_ERF : PVL_ACT_NONE};
    pvl_act_prepare(&c, &act, &in, rows, width, w.form);
    pvl_matmul(&c, y, w.rows, &act, &w, &e);
}

/* flags: 1 causal, 2 an 8-bit cache */
void attention(int n, int positions, int heads, int kv_heads, int d, int flags) {
    size_t size = (size_t)d, seen = (size_t)positions, kv_width = (size_t)kv_heads * size;
    drop(kv.data);
    kv = (pvl_kv){.type = flags & 2 ? PVL_CACHE_Q8 : PVL_CACHE_F32,
                  .heads = (size_t)kv_heads,
                  .head_dim = size,
                  .capacity = seen};
    kv.data = make(pvl_kv_bytes(kv.type, kv.heads, size, seen));
    float *values = noise(seen * kv_width);
    pvl_kv_store(&c, &kv, 0, seen, values, values, kv_width);
    drop(values);
    rows = (size_t)n;
    width = (size_t)heads * size;
    clear(rows * width, rows * width, pvl_attention_scratch(1, (size_t)heads, size));
    args = (pvl_attention_args){.q = x,
                                .q_stride = width,
                                .heads = (size_t)heads,
                                .kv = &kv,
                                .positions = seen,
                                .causal = flags & 1,
                                .scale = 1.0f / sqrtf((float)d)};
}

void run_attention(void) {
    pvl_attention(&c, y, width, &args, rows);
}
