/* The operations that the models are made of: one contract, several kernel sets.
 *
 * A kernel set ("scalar", "simd128", "relaxed", "relaxed-dot") is a table of function pointers
 * chosen once (pvl_kernels_select). The scalar set is the reference and always builds; simd128 uses
 * WebAssembly SIMD (natively through SIMDe); relaxed adds relaxed SIMD, built from the 16-bit dot
 * where the processor has no instruction for the 32-bit one (relaxed-dot). Integer dot products
 * agree exactly between all sets; floats within a bound that grows with k. Results do not depend on
 * the number of threads: work is split by output, never by the order of a sum.
 *
 * All matrices are row-major; `stride` is the distance between rows in elements. Buffers come from
 * base/alloc.h, so PVL_OVERREAD bytes behind each may be read. Nothing here allocates: scratch is
 * handed over in pvl_compute. */
#ifndef PVL_KERNELS_KERNELS_H
#define PVL_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "base/threads.h"
#include "kernels/dtype.h"

typedef struct pvl_kernels pvl_kernels; /* the table, private to kernels/ */

/* The set named, or the best that this build and processor run for NULL. PVL_E_ARGUMENT names what
 * there is. */
pvl_status pvl_kernels_select(const pvl_kernels **out, const char *name, pvl_error *err);
const char *pvl_kernels_name(const pvl_kernels *k);
/* Names of the sets that this build and engine run, best first, NULL-terminated. */
const char *const *pvl_kernels_list(void);

/* What an operation runs on. scratch is used within one call, or between pvl_act_prepare and the
 * products of that pvl_act. *cancel non-zero makes products return early with undefined output (the
 * caller checks the flag afterwards). */
typedef struct pvl_compute {
    const pvl_kernels *kernels;
    pvl_team *team; /* NULL = serial */
    unsigned char *scratch;
    size_t scratch_bytes;
    const volatile int32_t *cancel; /* NULL = never */
} pvl_compute;

/* ---- weights ---- */

/* Forms that a weight matrix takes in memory, whatever the file's type. */
typedef enum pvl_form {
    PVL_FORM_F32, /* exact, for checking */
    PVL_FORM_Q8,  /* 8-bit, scales per block of 32: what the 8-bit and the other quantized types
                     become */
    PVL_FORM_Q8W, /* 8-bit, scales per block of 64: F32, F16 and BF16 matrices, rounded once when
                     packed */
    PVL_FORM_Q4   /* 4-bit, unpacked in registers: Q4_0 exactly, Q4_1 and Q4_K with a minimum */
} pvl_form;

/* The form for a matrix of `file_type` with `cols` columns: F32 when f32 is asked for or cols does
 * not divide by 32. */
pvl_form pvl_form_for(pvl_dtype file_type, size_t cols, bool f32);

/* A weight matrix [rows, cols] = [outputs, inputs], packed into panels in the order that the loops
 * read. */
typedef struct pvl_matrix {
    pvl_form form;
    pvl_dtype file_type;
    size_t rows, cols;
    size_t bytes;        /* of data */
    unsigned char *data; /* owned by whoever allocated it */
    uint32_t block;      /* private: columns per scale */
    uint32_t flags;      /* private: has minimum, ... */
} pvl_matrix;

/* Rows are packed in groups: pvl_matrix_set_rows takes whole groups (but for the last). */
enum { PVL_ROW_GROUP = 8 };

/* Fills in everything but data; bytes is what data needs. PVL_E_MEMORY when it does not fit size_t.
 */
pvl_status pvl_matrix_plan(pvl_matrix *m, pvl_dtype file_type, size_t rows, size_t cols, bool f32,
                           pvl_error *err);
/* Packs rows first..first+count-1 from `src`, blocks of file_type as in the file, rows contiguous.
 * first is a multiple of PVL_ROW_GROUP; count too unless it ends the matrix. Needs no scratch
 * beyond the stack. Thread-safe for disjoint rows. */
void pvl_matrix_set_rows(const pvl_matrix *m, size_t first, size_t count, const void *src);
/* One row back as floats, out[cols]: for tied embeddings and for checking what packing lost. */
void pvl_matrix_get_row(const pvl_matrix *m, size_t row, float *out);

/* ---- activations ---- */

typedef enum pvl_source {
    PVL_SRC_PLAIN,      /* x */
    PVL_SRC_LAYER_NORM, /* (x - mean) / sqrt(var + eps) * weight + bias; biased variance
                           (torch.nn.LayerNorm) */
    PVL_SRC_RMS_NORM,   /* x / sqrt(mean(x^2) + eps) * weight */
    PVL_SRC_SILU_MUL    /* silu(x) * x2 (SwiGLU) */
} pvl_source;

/* Where the left operand of a product comes from: rows of floats, and what is applied to them on
 * the way. */
typedef struct pvl_input {
    pvl_source source;
    const float *x;      /* [n, k] */
    const float *x2;     /* [n, k], PVL_SRC_SILU_MUL only */
    size_t stride;       /* of x and x2 */
    const float *weight; /* [k], norms */
    const float *bias;   /* [k], layer norm */
    float eps;
} pvl_input;

/* Prepared rows in scratch: quantized for the 8-bit and 4-bit forms, float for the F32 form.
 * Private contents. */
typedef struct pvl_act {
    size_t n, k;
    pvl_form form;
    unsigned char *data;
    size_t row_bytes;
    bool wide;
} pvl_act;

/* Scratch that n rows of k columns need for weights of `form`, and that the operations below need
 * besides. */
size_t pvl_act_bytes(size_t n, size_t k, pvl_form form);
/* Applies the source and quantizes, in parallel over rows, into c->scratch (which must hold
 * pvl_act_bytes). One prepared operand serves several products (q, k, v; gate and up) whose
 * matrices have the same form. */
void pvl_act_prepare(const pvl_compute *c, pvl_act *act, const pvl_input *input, size_t n, size_t k,
                     pvl_form form);
/* Only the source, as floats: y [n, k] (final norms, tests). */
void pvl_apply(const pvl_compute *c, float *y, size_t y_stride, const pvl_input *input, size_t n,
               size_t k);

/* ---- products ---- */

typedef enum pvl_activation { PVL_ACT_NONE, PVL_ACT_GELU_ERF } pvl_activation;

/* y = act(x * W^T + bias), then, with `add`: y_old + scale * that (scale NULL = 1; per column:
 * layer scale). */
typedef struct pvl_epilogue {
    const float *bias; /* [rows of W] or NULL */
    pvl_activation activation;
    bool add;           /* accumulate onto what y holds (residual) */
    const float *scale; /* [rows of W] or NULL */
} pvl_epilogue;

/* y [n, w->rows] with stride. e NULL = nothing. n = 1 streams the weights (decode); larger n is
 * blocked for the caches. */
void pvl_matmul(const pvl_compute *c, float *y, size_t y_stride, const pvl_act *act,
                const pvl_matrix *w, const pvl_epilogue *e);

/* ---- attention ---- */

typedef enum pvl_cache_type { PVL_CACHE_F32 = 0, PVL_CACHE_Q8 = 1 } pvl_cache_type;

/* Keys and values of one layer for `capacity` positions, in the layout that pvl_attention reads.
 * head_dim is a multiple of 8. */
typedef struct pvl_kv {
    pvl_cache_type type;
    size_t heads, head_dim, capacity; /* key/value heads */
    unsigned char *data;              /* pvl_kv_bytes, owned by whoever allocated it */
} pvl_kv;

/* Bytes of data; 0 when they do not fit size_t. */
size_t pvl_kv_bytes(pvl_cache_type type, size_t heads, size_t head_dim, size_t capacity);
/* Stores n rows at positions first..first+n-1: k and v are [n, heads*head_dim] with stride. */
void pvl_kv_store(const pvl_compute *c, const pvl_kv *kv, size_t first, size_t n, const float *k,
                  const float *v, size_t stride);

typedef struct pvl_attention_args {
    const float *q; /* [n, heads*head_dim], rotated already */
    size_t q_stride;
    size_t heads; /* query heads: a multiple of kv->heads; head j reads key/value head j / (heads /
                     kv->heads) */
    const pvl_kv *kv;
    size_t positions; /* keys 0..positions-1 are there */
    bool causal;      /* row i sees keys 0..positions-n+i; else all */
    float scale;      /* of q.k before softmax */
} pvl_attention_args;

/* out [n, heads*head_dim]: softmax(scale q k^T) v in float, blocked (online softmax), no score
 * matrix in memory beyond scratch. */
void pvl_attention(const pvl_compute *c, float *out, size_t out_stride, const pvl_attention_args *a,
                   size_t n);
/* Scratch that pvl_attention needs, for any n. */
size_t pvl_attention_scratch(size_t members, size_t heads, size_t head_dim);

/* ---- rows ---- */

/* In place, half rotation (NeoX): for each head u of x [n, heads*head_dim]: u'[i] = u[i] cos -
 * u[i+d/2] sin, u'[i+d/2] = u[i+d/2] cos + u[i] sin, with cos and sin [n, head_dim/2]. */
void pvl_rope(const pvl_compute *c, float *x, size_t stride, size_t n, size_t heads,
              size_t head_dim, const float *cos_, const float *sin_);

/* Index of the largest finite value, lowest index on ties; -1 when there is none. */
ptrdiff_t pvl_argmax(const float *x, size_t n);

#endif
