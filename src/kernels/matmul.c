/* Products: how the work is cut into tasks and tiles. The tiles themselves are in gemm_*.c. */
#include <assert.h>
#include <string.h>

#include "kernels/private.h"

enum {
    /* Panels of a task stay in the second-level cache while all its rows pass by. */
    PANEL_BYTES = 160 * 1024,
    TASK_ROWS = 128,
    /* A widened piece of a panel stays in the first-level cache, beside the rows that it meets. */
    WIDE_BYTES = 18 * 1024,
    /* Panels whose sums wait for the next piece, so that the rows' part of a piece stays in the
       second-level cache for all of them. */
    WIDE_PANELS = 8,
    /* With one row the weights are only streamed: enough bytes that handing out the task is
       nothing. */
    STREAM_BYTES = 64 * 1024
};

struct product {
    const pvl_compute *c;
    float *y;
    size_t y_stride;
    const unsigned char *act;
    size_t row_bytes, n; /* wide: row_bytes of a tile */
    bool wide;
    const pvl_matrix *w;
    pvl_packing packing;
    pvl_epilogue e;
    size_t blocks, panels;
    size_t task_rows, task_panels, row_tasks; /* task i: rows i % row_tasks, panels i / row_tasks */
};

static size_t min_size(size_t a, size_t b) {
    return a < b ? a : b;
}

/* y of one tile, from the first row and panel. */
static void finish_tile(const struct product *p, const float *tile, size_t row, size_t rows,
                        size_t panel) {
    size_t col = panel * PVL_PANEL;
    pvl_epilogue e = p->e;
    if (e.bias)
        e.bias += col;
    if (e.scale)
        e.scale += col;
    p->c->kernels->finish(p->y + row * p->y_stride + col, p->y_stride, tile, rows,
                          min_size(PVL_PANEL, p->w->rows - col), &e);
}

static void tile_panels(const struct product *p, size_t row, size_t rows, size_t first,
                        size_t last) {
    size_t panel_bytes = p->blocks * pvl_packings[p->packing].panel_bytes;
    const unsigned char *act = p->act + row * p->row_bytes;
    for (size_t i = first; i < last; i++) {
        _Alignas(16) float tile[PVL_TILE_ROWS * PVL_PANEL];
        p->c->kernels->tile[p->packing](tile, act, p->row_bytes, rows, p->w->data + i * panel_bytes,
                                        p->blocks);
        finish_tile(p, tile, row, rows, i);
    }
}

/* One row, several panels at a time: a task's panels are as many streams. */
static void stream_panels(const struct product *p, size_t first, size_t last) {
    size_t panel_bytes = p->blocks * pvl_packings[p->packing].panel_bytes;
    size_t each = (last - first) / PVL_STREAMS;
    for (size_t i = first; i < first + each; i++) {
        _Alignas(16) float tile[PVL_STREAMS * PVL_PANEL];
        p->c->kernels->streams[p->packing](tile, p->act, p->w->data + i * panel_bytes,
                                           each * panel_bytes, p->blocks);
        for (size_t s = 0; s < PVL_STREAMS; s++)
            finish_tile(p, tile + s * PVL_PANEL, 0, 1, i + s * each);
    }
    tile_panels(p, 0, 1, first + PVL_STREAMS * each, last);
}

/* The same on 16-bit integers: a piece of a panel is widened once for all rows of the task. */
static void wide_panels(const struct product *p, size_t row, size_t rows, size_t first,
                        size_t last) {
    const pvl_packing_traits *t = &pvl_packings[p->packing];
    const pvl_wide *wide = p->c->kernels->wide[p->packing];
    size_t piece = WIDE_BYTES / wide->panel_bytes, act_bytes = PVL_WIDE_ACT_BYTES(t->block);
    const unsigned char *act = p->act + row / PVL_TILE_ROWS * p->row_bytes;
    for (; first < last; first += WIDE_PANELS) {
        _Alignas(16) unsigned char panel[WIDE_BYTES];
        _Alignas(16) float tiles[WIDE_PANELS][TASK_ROWS * PVL_PANEL];
        size_t panels = min_size(WIDE_PANELS, last - first);
        memset(tiles, 0, panels * sizeof tiles[0]);
        for (size_t b = 0; b < p->blocks; b += piece) {
            size_t count = min_size(piece, p->blocks - b);
            for (size_t i = 0; i < panels; i++) {
                wide->widen(panel, p->w->data + ((first + i) * p->blocks + b) * t->panel_bytes,
                            count);
                for (size_t r = 0; r < rows; r += PVL_TILE_ROWS) {
                    wide->tile(tiles[i] + r * PVL_PANEL,
                               act + r / PVL_TILE_ROWS * p->row_bytes + b * act_bytes, panel,
                               count);
                }
            }
        }
        for (size_t i = 0; i < panels; i++)
            finish_tile(p, tiles[i], row, rows, first + i);
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
        if (p->wide) {
            wide_panels(p, row, end_row - row, first, last);
        } else if (p->n == 1 && p->c->kernels->streams[p->packing]) {
            stream_panels(p, first, last);
        } else {
            for (; row < end_row; row += PVL_TILE_ROWS)
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
        p->task_panels = round_up(p->task_panels, PVL_STREAMS);
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

void pvl_matmul(const pvl_compute *c, float *y, size_t y_stride, const pvl_act *act,
                const pvl_matrix *w, const pvl_epilogue *e) {
    assert(act->form == w->form);
    if (act->n == 0 || w->rows == 0)
        return;
    struct product p = {.c = c,
                        .y = y,
                        .y_stride = y_stride,
                        .act = act->data,
                        .row_bytes = act->row_bytes,
                        .n = act->n,
                        .wide = act->wide,
                        .w = w,
                        .packing = pvl_matrix_packing(w),
                        .e = e ? *e : (pvl_epilogue){0}};
    p.blocks = w->cols / pvl_packings[p.packing].block;
    p.panels = (w->rows + PVL_PANEL - 1) / PVL_PANEL;
    plan_tasks(&p);
    size_t tasks = p.row_tasks * ((p.panels + p.task_panels - 1) / p.task_panels);
    pvl_parallel_for(c->team, tasks, 1, product_tasks, &p);
}
