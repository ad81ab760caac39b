/* What a forward pass runs on: kernels, threads, a workspace, the cancel flag, and a probe for
 * looking at each stage. */
#ifndef PVL_MODEL_RUN_H
#define PVL_MODEL_RUN_H

#include "kernels/kernels.h"
#include "model/weights.h"
#include "model/workspace.h"

/* Called with the result of a stage, x [rows, cols] contiguous, valid during the call. layer is -1
 * where there is none. */
typedef void (*pvl_probe)(void *ctx, const char *stage, int layer, const float *x, size_t rows,
                          size_t cols);

typedef struct pvl_run {
    const pvl_kernels *kernels;
    pvl_team *team;
    const volatile int32_t *cancel; /* may be NULL */
    unsigned char *workspace;       /* as large as the *_workspace function of the pass says */
    pvl_probe probe;                /* may be NULL */
    void *probe_ctx;
    void (*tick)(void *ctx); /* called after each layer; may be NULL */
    void *tick_ctx;
} pvl_run;

static inline bool pvl_run_cancelled(const pvl_run *run) {
    return pvl_flag_is_set(run->cancel);
}

static inline pvl_status pvl_run_check(const pvl_run *run, pvl_error *err) {
    if (!pvl_run_cancelled(run))
        return PVL_OK;
    return pvl_fail(err, PVL_E_CANCELLED, "The answer was stopped.");
}

/* After a layer: tells that one more is done and stops when asked to. */
static inline pvl_status pvl_run_layer(const pvl_run *run, pvl_error *err) {
    if (run->tick)
        run->tick(run->tick_ctx);
    return pvl_run_check(run, err);
}

static inline void pvl_run_probe(const pvl_run *run, const char *stage, int layer, const float *x,
                                 size_t rows, size_t cols) {
    if (run->probe)
        run->probe(run->probe_ctx, stage, layer, x, rows, cols);
}

/* A prepared operand and what it is prepared from: products over weights of several forms (files
 * mix them) share it where they can. */
typedef struct pvl_operand {
    pvl_input input;
    size_t n, k;
    pvl_act act;
    bool ready;
} pvl_operand;

/* Scratch for n rows of k columns in whatever form the weights of this model may ask for. */
static inline size_t pvl_operand_bytes(const pvl_model *m, size_t n, size_t k) {
    if (pvl_form_for(PVL_DTYPE_F16, k, m->f32) == PVL_FORM_F32)
        return pvl_act_bytes(n, k, PVL_FORM_F32);
    size_t q8 = pvl_act_bytes(n, k, PVL_FORM_Q8), q4 = pvl_act_bytes(n, k, PVL_FORM_Q4);
    return q8 > q4 ? q8 : q4;
}

/* y = act(x W^T + bias), as pvl_matmul; prepares x first when it is not, or not in the form that W
 * needs. */
static inline void pvl_linear_apply(const pvl_compute *c, float *y, size_t y_stride, pvl_operand *x,
                                    const pvl_linear *w, pvl_epilogue e) {
    if (!x->ready || x->act.form != w->w.form) {
        pvl_act_prepare(c, &x->act, &x->input, x->n, x->k, w->w.form);
        x->ready = true;
    }
    e.bias = w->bias;
    pvl_matmul(c, y, y_stride, &x->act, &w->w, &e);
}

#endif
