/* What this machine can do at most, measured by loops that do nothing but the work:
 * register-blocked inner products over data in the first-level cache, and reading memory. Built as
 * a WebAssembly module of its own without imports; the page runs one instance in each worker.
 *
 * Every function does `rounds` short rounds and returns what it computed, so that nothing is left
 * out. Its work is the given number of multiply-adds or bytes a round. Calls are kept short by the
 * caller: the browser replaces code by its optimized form only between calls. */
#include <stdint.h>
#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(name)))

/* Products of a block: ROWS activations x COLS weights, DEPTH deep; both fit a cache of 32 KB. The
 * stream is half of what one token of the 1B reads: servers have last-level caches of 300 MB, in
 * which a short stream would stay. */
enum { ROWS = 4, COLS = 8, DEPTH = 512, STREAM_BYTES = 192 << 20 };

static _Alignas(64) int8_t weights8[DEPTH * COLS];
static _Alignas(64) int8_t acts8[ROWS * DEPTH];
static _Alignas(64) int16_t weights16[DEPTH * COLS];
static _Alignas(64) int16_t acts16[ROWS * DEPTH];
static _Alignas(64) float weights32[DEPTH * COLS];
static _Alignas(64) float acts32[ROWS * DEPTH];
static _Alignas(64) v128_t stream[STREAM_BYTES / sizeof(v128_t)];

EXPORT("macs_per_round") int32_t macs_per_round(void);
EXPORT("bytes_per_round") int32_t bytes_per_round(void);
EXPORT("prepare") void prepare(void);
EXPORT("i8_relaxed") int32_t i8_relaxed(int32_t rounds);
EXPORT("i16") int32_t i16(int32_t rounds);
EXPORT("f32_relaxed") float f32_relaxed(int32_t rounds);
EXPORT("f32") float f32(int32_t rounds);
EXPORT("read") int32_t read_stream(int32_t rounds);

int32_t macs_per_round(void) {
    return ROWS * COLS * DEPTH;
}

/* A round of reading goes over 1 MiB, the next round over what comes next. */
enum { PIECE = 1 << 20 };
int32_t bytes_per_round(void) {
    return PIECE;
}

void prepare(void) {
    for (int i = 0; i < DEPTH * COLS; i++) {
        weights8[i] = (int8_t)(i * 37 % 127); /* 0..127, what the relaxed product asks for */
        weights16[i] = (int16_t)(i * 37 % 255 - 127);
        weights32[i] = (float)(i % 13 - 6) * 0.125f;
    }
    for (int i = 0; i < ROWS * DEPTH; i++) {
        acts8[i] = (int8_t)(i * 29 % 255 - 127);
        acts16[i] = (int16_t)(i * 29 % 255 - 127);
        acts32[i] = (float)(i % 7 - 3) * 0.25f;
    }
    for (int i = 0; i < (int)(STREAM_BYTES / sizeof(v128_t)); i++)
        stream[i] = wasm_i32x4_splat(i);
}

/* ROWS x 2 vectors of accumulators; STEP weights of a column share a 32-bit lane. */
#define PRODUCT(NAME, RESULT, ZERO, ACTS, WEIGHTS, STEP, SPLAT, FMA, SUM)                          \
    RESULT NAME(int32_t rounds) {                                                                  \
        v128_t c00 = ZERO, c01 = ZERO, c10 = ZERO, c11 = ZERO;                                     \
        v128_t c20 = ZERO, c21 = ZERO, c30 = ZERO, c31 = ZERO;                                     \
        for (int32_t r = 0; r < rounds; r++) {                                                     \
            for (int k = 0; k < DEPTH; k += STEP) {                                                \
                v128_t w0 = wasm_v128_load(WEIGHTS + k * COLS);                                    \
                v128_t w1 = wasm_v128_load(WEIGHTS + k * COLS + COLS / 2 * STEP);                  \
                v128_t a = SPLAT(ACTS + k);                                                        \
                c00 = FMA(a, w0, c00);                                                             \
                c01 = FMA(a, w1, c01);                                                             \
                a = SPLAT(ACTS + DEPTH + k);                                                       \
                c10 = FMA(a, w0, c10);                                                             \
                c11 = FMA(a, w1, c11);                                                             \
                a = SPLAT(ACTS + 2 * DEPTH + k);                                                   \
                c20 = FMA(a, w0, c20);                                                             \
                c21 = FMA(a, w1, c21);                                                             \
                a = SPLAT(ACTS + 3 * DEPTH + k);                                                   \
                c30 = FMA(a, w0, c30);                                                             \
                c31 = FMA(a, w1, c31);                                                             \
            }                                                                                      \
        }                                                                                          \
        v128_t low = SUM(SUM(c00, c10), SUM(c20, c30));                                            \
        v128_t high = SUM(SUM(c01, c11), SUM(c21, c31));                                           \
        v128_t all = SUM(low, high);                                                               \
        return (RESULT)(wasm_i32x4_extract_lane(all, 0) ^ wasm_i32x4_extract_lane(all, 1) ^        \
                        wasm_i32x4_extract_lane(all, 2) ^ wasm_i32x4_extract_lane(all, 3));        \
    }

#define I8_DOT(a, w, c) wasm_i32x4_relaxed_dot_i8x16_i7x16_add(a, w, c)
#define I16_DOT(a, w, c) wasm_i32x4_add(c, wasm_i32x4_dot_i16x8(a, w))
#define F32_MADD(a, w, c) wasm_f32x4_relaxed_madd(a, w, c)
#define F32_MUL_ADD(a, w, c) wasm_f32x4_add(c, wasm_f32x4_mul(a, w))

PRODUCT(i8_relaxed, int32_t, wasm_i32x4_splat(0), acts8, weights8, 4, wasm_v128_load32_splat,
        I8_DOT, wasm_i32x4_add)
PRODUCT(i16, int32_t, wasm_i32x4_splat(0), acts16, weights16, 2, wasm_v128_load32_splat, I16_DOT,
        wasm_i32x4_add)
PRODUCT(f32_relaxed, float, wasm_f32x4_splat(0), acts32, weights32, 1, wasm_v128_load32_splat,
        F32_MADD, wasm_f32x4_add)
PRODUCT(f32, float, wasm_f32x4_splat(0), acts32, weights32, 1, wasm_v128_load32_splat, F32_MUL_ADD,
        wasm_f32x4_add)

/* Four streams side by side: one alone leaves the prefetchers short of work, about a tenth slower.
 */
int32_t read_stream(int32_t rounds) {
    enum { VECTORS = STREAM_BYTES / sizeof(v128_t), APART = VECTORS / 4, STEPS = PIECE / 64 };
    static int at;
    v128_t s0 = wasm_i32x4_splat(0), s1 = s0, s2 = s0, s3 = s0;
    for (int32_t r = 0; r < rounds; r++) {
        const v128_t *p = stream + at;
        for (int i = 0; i < STEPS; i++) {
            s0 = wasm_i32x4_add(s0, p[i]);
            s1 = wasm_i32x4_add(s1, p[i + APART]);
            s2 = wasm_i32x4_add(s2, p[i + 2 * APART]);
            s3 = wasm_i32x4_add(s3, p[i + 3 * APART]);
        }
        at = (at + STEPS) % APART;
    }
    v128_t all = wasm_i32x4_add(wasm_i32x4_add(s0, s1), wasm_i32x4_add(s2, s3));
    return wasm_i32x4_extract_lane(all, 0) ^ wasm_i32x4_extract_lane(all, 1) ^
           wasm_i32x4_extract_lane(all, 2) ^ wasm_i32x4_extract_lane(all, 3);
}
