/* Products: how the work is cut into tasks and tiles. The tiles themselves are in gemm_*.c. */
#include <string.h>

#include "kernels/private.h"

enum {
    /* Panels of a task stay in the second-level cache while all its rows pass by. */
    PANEL_BYTES = 160 * 1024,
    TASK_ROWS = 128,
    /* With one row the weights are only streamed: enough bytes that handing out the task is
       nothing. */
    STREAM_BYTES = 32 * 1024
};

struct product {
    const pvl_compute *c;
    float *y;
    size_t y_stride;
    const unsigned char *act;
    size_t row_bytes, n;
    const pvl_matrix *w;
    pvl_packing packing;
    pvl_epilogue e;
    size_t blocks, panels;
    size_t task_rows, task_panels, row_tasks; /* task i: rows i % row_tasks, panels i / row_tasks */
};

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

static void tile_panels(const struct product *p, size_t row, size_t rows, size_t first,
                        size_t last) {
    size_t panel_bytes = p->blocks * pvl_packings[p->packing].panel_bytes;
    const unsigned char *act = p->act + row * p->row_bytes;
    for (size_t i = first; i < last; i++) {
        _Alignas(16) float tile[PVL_TILE_ROWS * PVL_PANEL];
        p->c->kernels->tile[p->packing](tile, act, p->row_bytes, rows, p->w->data + i * panel_bytes,
                                        p->blocks);
        size_t col = i * PVL_PANEL;
        pvl_epilogue e = p->e;
        if (e.bias)
            e.bias += col;
        if (e.scale)
            e.scale += col;
        p->c->kernels->finish(p->y + row * p->y_stride + col, p->y_stride, tile, rows,
                              min_size(PVL_PANEL, p->w->rows - col), &e);
    }
}

static void product_tasks(void *arg, size_t begin, size_t end, int member) {
    const struct product *p = arg;
    (void)member;
    for (size_t i = begin; i < end; i++) {
        if (pvl_flag_is_set(p->c->cancel))
            return;
        size_t first = i / p->row_tasks * p->task_panels,
               last = min_size(first + p->task_panels, p->panels);
        size_t row = i % p->row_tasks * p->task_rows, end_row = min_size(row + p->task_rows, p->n);
        for (; row < end_row; row += PVL_TILE_ROWS) {
            tile_panels(p, row, min_size(PVL_TILE_ROWS, end_row - row), first, last);
        }
    }
}

static size_t round_up(size_t v, size_t to) {
    return (v + to - 1) / to * to;
}

/* Cuts into tasks of at most task_rows x task_panels, and smaller where the team would otherwise
 * wait for its last member. */
static void plan_tasks(struct product *p) {
    size_t panel_bytes = p->blocks * pvl_packings[p->packing].panel_bytes + 1;
    size_t members = (size_t)pvl_team_size(p->c->team), want = members > 1 ? 8 * members : 1;
    if (p->n <= PVL_TILE_ROWS) {
        p->task_rows = PVL_TILE_ROWS;
        p->task_panels = STREAM_BYTES / panel_bytes + 1;
        if (want > 1)
            p->task_panels = min_size(p->task_panels, p->panels / want + 1);
    } else {
        p->task_panels = PANEL_BYTES / panel_bytes + 1;
        p->task_rows = TASK_ROWS;
        size_t tasks = (p->n / p->task_rows + 1) * (p->panels / p->task_panels + 1);
        if (tasks > 0 && tasks < want) {
            size_t parts = (want + tasks - 1) / tasks;
            p->task_panels = p->task_panels / parts + 1;
        }
    }
    p->task_rows = round_up(p->task_rows, PVL_TILE_ROWS);
    p->row_tasks = (p->n + p->task_rows - 1) / p->task_rows;
}

/* Rows prepared for one quantized form, as blocks of another: q, k and v of one layer may have
 * different types. */
struct conversion {
    const pvl_kernels *kernels;
    const unsigned char *in;
    unsigned char *out;
    size_t in_bytes, out_bytes, k;
    pvl_packing from, to;
};

static void convert_rows(void *arg, size_t begin, size_t end, int member) {
    const struct conversion *v = arg;
    const pvl_packing_traits *from = &pvl_packings[v->from], *to = &pvl_packings[v->to];
    (void)member;
    for (size_t r = begin; r < end; r++) {
        for (size_t at = 0; at < v->k; at += PVL_CHUNK) {
            _Alignas(16) float x[PVL_CHUNK];
            size_t n = min_size(PVL_CHUNK, v->k - at);
            const unsigned char *in = v->in + r * v->in_bytes + at / from->block * from->act_bytes;
            for (size_t i = 0; i < n; i += from->block, in += from->act_bytes) {
                float d;
                memcpy(&d, in, sizeof d);
                const unsigned char *q = in + from->act_bytes - from->block;
                for (size_t j = 0; j < from->block; j++) {
                    int v_ = v->from == PVL_PACK_Q4 ? (int8_t)q[j] : (int)q[j] - PVL_Q8_ZERO;
                    x[i + j] = d * (float)v_;
                }
            }
            v->kernels->quantize[v->to](v->out + r * v->out_bytes + at / to->block * to->act_bytes,
                                        x, n);
        }
    }
}

void pvl_matmul(const pvl_compute *c, float *y, size_t y_stride, const pvl_act *act,
                const pvl_matrix *w, const pvl_epilogue *e) {
    if (act->n == 0 || w->rows == 0)
        return;
    struct product p = {.c = c,
                        .y = y,
                        .y_stride = y_stride,
                        .act = act->data,
                        .row_bytes = act->row_bytes,
                        .n = act->n,
                        .w = w,
                        .packing = pvl_matrix_packing(w),
                        .e = e ? *e : (pvl_epilogue){0}};
    p.blocks = w->cols / pvl_packings[p.packing].block;
    p.panels = (w->rows + PVL_PANEL - 1) / PVL_PANEL;
    if (act->form != w->form) {
        pvl_packing to = pvl_form_packing(w->form);
        struct conversion v = {.kernels = c->kernels,
                               .in = act->data,
                               .out = act->data + act->n * act->row_bytes,
                               .in_bytes = act->row_bytes,
                               .k = act->k,
                               .from = pvl_form_packing(act->form),
                               .to = to};
        v.out_bytes =
            round_up(act->k / pvl_packings[to].block * pvl_packings[to].act_bytes, PVL_ALIGN);
        pvl_parallel_for(c->team, act->n, 8, convert_rows, &v);
        p.act = v.out;
        p.row_bytes = v.out_bytes;
    }
    plan_tasks(&p);
    size_t tasks = p.row_tasks * ((p.panels + p.task_panels - 1) / p.task_panels);
    pvl_parallel_for(c->team, tasks, 1, product_tasks, &p);
}
