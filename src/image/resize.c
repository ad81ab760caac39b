#include "image/resize.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"

enum {
    FRACTION_BITS = 22,           /* 32 - 8 bits of pixel - 2 of overshoot */
    RING_BYTES = 4 * 1024 * 1024, /* intermediate rows kept at once, when the filter allows */
    ROW_GRAIN = 4
};

/* For every target index of one axis: which source indices, with which weights. */
typedef struct axis {
    const pvl_allocator *allocator;
    size_t n, m;      /* source and target length */
    size_t stride;    /* weights kept per target index */
    uint32_t *first;  /* [m] first source index */
    uint32_t *taps;   /* [m] how many */
    int32_t *weights; /* [m, stride] */
} axis;

static double bicubic(double x) {
    const double a = -0.5;
    if (x < 0.0)
        x = -x;
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void axis_free(axis *ax) {
    pvl_free(ax->allocator, ax->first);
    pvl_free(ax->allocator, ax->taps);
    pvl_free(ax->allocator, ax->weights);
    *ax = (axis){0};
}

static pvl_status axis_alloc(axis *ax, pvl_error *err) {
    void *p;
    PVL_TRY(
        pvl_malloc(ax->allocator, &p, ax->m, sizeof *ax->first, "a picture's resize table", err));
    ax->first = p;
    PVL_TRY(
        pvl_malloc(ax->allocator, &p, ax->m, sizeof *ax->taps, "a picture's resize table", err));
    ax->taps = p;
    PVL_TRY(pvl_malloc(ax->allocator, &p, ax->m, ax->stride * sizeof *ax->weights,
                       "a picture's resize table", err));
    ax->weights = p;
    return PVL_OK;
}

/* Every expression in the order of Pillow's own, all in double: the weights must come out with the
 * same bits. */
static pvl_status axis_init(axis *ax, size_t n, size_t m, const pvl_allocator *allocator,
                            pvl_error *err) {
    double scale = (double)n / (double)m;
    double filter_scale = scale < 1.0 ? 1.0 : scale;
    double support = 2.0 * filter_scale;
    double inverse = 1.0 / filter_scale;
    *ax = (axis){.allocator = allocator, .n = n, .m = m, .stride = (size_t)ceil(support) * 2 + 1};
    pvl_status status = axis_alloc(ax, err);
    void *scratch = NULL;
    if (status == PVL_OK)
        status = pvl_malloc(allocator, &scratch, ax->stride, sizeof(double),
                            "a picture's resize table", err);
    if (status != PVL_OK) {
        axis_free(ax);
        return status;
    }
    double *w = scratch;
    for (size_t t = 0; t < m; t++) {
        double center = ((double)t + 0.5) * scale;
        double lo = trunc(center - support + 0.5), hi = trunc(center + support + 0.5);
        if (lo < 0)
            lo = 0;
        if (hi > (double)n)
            hi = (double)n;
        size_t taps = (size_t)(hi - lo);
        double sum = 0;
        for (size_t x = 0; x < taps; x++) {
            w[x] = bicubic(((double)x + lo - center + 0.5) * inverse);
            sum += w[x];
        }
        int32_t *fixed = ax->weights + t * ax->stride;
        for (size_t x = 0; x < taps; x++) {
            double v = sum != 0.0 ? w[x] / sum : w[x];
            v *= (double)(1 << FRACTION_BITS);
            fixed[x] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
        }
        ax->first[t] = (uint32_t)lo;
        ax->taps[t] = (uint32_t)taps;
    }
    pvl_free(allocator, scratch);
    return PVL_OK;
}

static inline uint8_t to_byte(int32_t sum) {
    int32_t v = sum < 0 ? 0 : sum >> FRACTION_BITS;
    return (uint8_t)(v > 255 ? 255 : v);
}

/* One row, horizontally. out: [ax->m, 3], in: [ax->n, 3]. */
static void resize_row(uint8_t *out, const uint8_t *in, const axis *ax) {
    for (size_t t = 0; t < ax->m; t++) {
        const int32_t *w = ax->weights + t * ax->stride;
        const uint8_t *p = in + (size_t)ax->first[t] * 3;
        int32_t r = 1 << (FRACTION_BITS - 1), g = r, b = r;
        for (size_t x = 0, taps = ax->taps[t]; x < taps; x++, p += 3) {
            r += p[0] * w[x];
            g += p[1] * w[x];
            b += p[2] * w[x];
        }
        out[3 * t] = to_byte(r);
        out[3 * t + 1] = to_byte(g);
        out[3 * t + 2] = to_byte(b);
    }
}

/* Rows of bytes: row y begins at base + (y % ring) * stride. */
typedef struct rows {
    uint8_t *base;
    size_t stride, ring;
} rows;

static inline uint8_t *row_at(const rows *r, size_t y) {
    return r->base + y % r->ring * r->stride;
}

/* Target row t, vertically, from source rows of `bytes` bytes. */
static void resize_column(uint8_t *out, const rows *in, size_t bytes, const axis *ax, size_t t) {
    enum { BLOCK = 256 };
    const int32_t *w = ax->weights + t * ax->stride;
    size_t first = ax->first[t], taps = ax->taps[t];
    for (size_t x0 = 0; x0 < bytes; x0 += BLOCK) {
        size_t n = bytes - x0 < BLOCK ? bytes - x0 : BLOCK;
        int32_t sum[BLOCK];
        for (size_t i = 0; i < BLOCK; i++)
            sum[i] = 1 << (FRACTION_BITS - 1);
        for (size_t y = 0; y < taps; y++) {
            const uint8_t *p = row_at(in, first + y) + x0;
            int32_t k = w[y];
            for (size_t i = 0; i < n; i++)
                sum[i] += p[i] * k;
        }
        for (size_t i = 0; i < n; i++)
            out[x0 + i] = to_byte(sum[i]);
    }
}

/* One pass over rows begin..end-1 of `out`, shared out over a team. */
typedef struct pass {
    rows out, in;
    const axis *ax;
    size_t begin;
    size_t bytes; /* of a row, vertical pass */
} pass;

static void horizontal_task(void *arg, size_t begin, size_t end, int member) {
    const pass *p = arg;
    (void)member;
    for (size_t y = p->begin + begin; y < p->begin + end; y++)
        resize_row(row_at(&p->out, y), row_at(&p->in, y), p->ax);
}

static void vertical_task(void *arg, size_t begin, size_t end, int member) {
    const pass *p = arg;
    (void)member;
    for (size_t y = p->begin + begin; y < p->begin + end; y++)
        resize_column(row_at(&p->out, y), &p->in, p->bytes, p->ax, y);
}

static size_t last_row(const axis *ax, size_t t) {
    return (size_t)ax->first[t] + ax->taps[t];
}

/* Horizontal, then vertical, over strips of target rows: the intermediate rows of a strip and of
 * the filter's reach live in a ring, so each is computed once and a picture of any height needs a
 * few MB. */
static pvl_status both_passes(const rows *out, const rows *in, const axis *h, const axis *v,
                              pvl_team *team, const pvl_allocator *allocator, pvl_error *err) {
    size_t row_bytes = h->m * 3, ring = RING_BYTES / row_bytes;
    if (ring < v->stride + 1)
        ring = v->stride + 1;
    if (ring > v->n)
        ring = v->n;
    void *memory;
    PVL_TRY(pvl_malloc(allocator, &memory, ring, row_bytes, "a picture's resize rows", err));
    rows mid = {memory, row_bytes, ring};
    size_t have =
        0; /* source rows below this one have been through the horizontal pass, where needed */
    for (size_t t = 0; t < v->m;) {
        size_t end = t + 1;
        while (end < v->m && last_row(v, end) - v->first[t] <= ring)
            end++;
        size_t need = last_row(v, end - 1);
        if (have < v->first[t])
            have = v->first[t];
        if (have < need) {
            pass p = {mid, *in, h, have, 0};
            pvl_parallel_for(team, need - have, ROW_GRAIN, horizontal_task, &p);
            have = need;
        }
        pass p = {*out, mid, v, t, row_bytes};
        pvl_parallel_for(team, end - t, ROW_GRAIN, vertical_task, &p);
        t = end;
    }
    pvl_free(allocator, memory);
    return PVL_OK;
}

/* Vertical, then horizontal. Only chosen when the height shrinks, so the intermediate is smaller
 * than the picture; strips of it keep it small. */
static pvl_status both_passes_vertical_first(const rows *out, const rows *in, const axis *h,
                                             const axis *v, pvl_team *team,
                                             const pvl_allocator *allocator, pvl_error *err) {
    size_t row_bytes = h->n * 3, strip = RING_BYTES / row_bytes + 1;
    if (strip > v->m)
        strip = v->m;
    void *memory;
    PVL_TRY(pvl_malloc(allocator, &memory, strip, row_bytes, "a picture's resize rows", err));
    for (size_t t = 0; t < v->m; t += strip) {
        size_t n = v->m - t < strip ? v->m - t : strip;
        rows mid = {memory, row_bytes, strip};
        pass down = {mid, *in, v, t, row_bytes};
        pvl_parallel_for(team, n, 1, vertical_task, &down);
        pass across = {*out, mid, h, t, 0};
        pvl_parallel_for(team, n, ROW_GRAIN, horizontal_task, &across);
    }
    pvl_free(allocator, memory);
    return PVL_OK;
}

bool pvl_resize_vertical_first(size_t out_width, size_t out_height, size_t width, size_t height) {
    return out_height < height &&
           (double)height - (double)out_height > 2.0 * ((double)width - (double)out_width);
}

/* As pvl_resize_rgb, sides checked, rows of the output out_stride bytes apart. */
static pvl_status resize(uint8_t *out, size_t out_width, size_t out_height, const uint8_t *in,
                         size_t width, size_t height, pvl_team *team,
                         const pvl_allocator *allocator, pvl_error *err) {
    /* The rows are only read through this view. */
    const rows source = {(uint8_t *)in, width * 3, SIZE_MAX};
    const rows target = {out, out_width * 3, SIZE_MAX};
    bool across = out_width != width, down = out_height != height;
    if (!across && !down) {
        memcpy(out, in, width * height * 3);
        return PVL_OK;
    }
    axis h = {0}, v = {0};
    pvl_status status = PVL_OK;
    if (across)
        status = axis_init(&h, width, out_width, allocator, err);
    if (status == PVL_OK && down)
        status = axis_init(&v, height, out_height, allocator, err);
    if (status == PVL_OK) {
        if (!down) {
            pass p = {target, source, &h, 0, 0};
            pvl_parallel_for(team, height, ROW_GRAIN, horizontal_task, &p);
        } else if (!across) {
            pass p = {target, source, &v, 0, width * 3};
            pvl_parallel_for(team, out_height, ROW_GRAIN, vertical_task, &p);
        } else if (pvl_resize_vertical_first(out_width, out_height, width, height)) {
            status = both_passes_vertical_first(&target, &source, &h, &v, team, allocator, err);
        } else {
            status = both_passes(&target, &source, &h, &v, team, allocator, err);
        }
    }
    axis_free(&h);
    axis_free(&v);
    return status;
}

static bool bad_side(size_t n) {
    return n < 1 || n > PVL_MAX_SIDE;
}

pvl_status pvl_resize_rgb(uint8_t *out, size_t out_width, size_t out_height, const uint8_t *in,
                          size_t width, size_t height, pvl_team *team,
                          const pvl_allocator *allocator, pvl_error *err) {
    if (bad_side(out_width) || bad_side(out_height) || bad_side(width) || bad_side(height))
        return pvl_fail(
            err, PVL_E_ARGUMENT,
            "A picture of %zu x %zu pixels cannot be resized to %zu x %zu: sides are 1 to %d.",
            width, height, out_width, out_height, PVL_MAX_SIDE);
    size_t bytes;
    if (!pvl_size_mul3(&bytes, width, height, 3) ||
        !pvl_size_mul3(&bytes, out_width, out_height, 3))
        return pvl_fail(err, PVL_E_MEMORY, "A picture of %zu x %zu pixels does not fit memory.",
                        out_width, out_height);
    return resize(out, out_width, out_height, in, width, height, team, allocator, err);
}

pvl_status pvl_tile_set_make(pvl_tile_set *out, const pvl_tile_grid *grid, int tile_size,
                             const uint8_t *in, size_t width, size_t height, pvl_team *team,
                             const pvl_allocator *allocator, pvl_error *err) {
    *out = (pvl_tile_set){0};
    size_t side = (size_t)tile_size, grid_width, grid_height, grid_bytes, tile_bytes, bytes;
    if (tile_size < 1 || grid->columns < 1 || grid->rows < 1 ||
        !pvl_size_mul(&grid_width, side, (size_t)grid->columns) ||
        !pvl_size_mul(&grid_height, side, (size_t)grid->rows) || bad_side(grid_width) ||
        bad_side(grid_height))
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "A grid of %d x %d tiles of %d pixels is not possible: sides are 1 to %d.",
                        grid->columns, grid->rows, tile_size, PVL_MAX_SIDE);
    bool fits = pvl_size_mul3(&grid_bytes, grid_width, grid_height, 3) &&
                pvl_size_mul3(&tile_bytes, side, side, 3);
    bytes = fits ? grid_bytes : 0;
    if (!fits || (grid->thumbnail && !pvl_size_add(&bytes, grid_bytes, tile_bytes)))
        return pvl_fail(err, PVL_E_MEMORY, "The tiles of a picture do not fit memory.");
    void *pixels;
    PVL_TRY(pvl_malloc(allocator, &pixels, bytes, 1, "a picture's tiles", err));
    pvl_status status =
        pvl_resize_rgb(pixels, grid_width, grid_height, in, width, height, team, allocator, err);
    if (status == PVL_OK && grid->thumbnail)
        status = pvl_resize_rgb((uint8_t *)pixels + grid_bytes, side, side, in, width, height, team,
                                allocator, err);
    if (status != PVL_OK) {
        pvl_free(allocator, pixels);
        return status;
    }
    *out = (pvl_tile_set){
        .grid = *grid, .tile_size = tile_size, .pixels = pixels, .allocator = allocator};
    return PVL_OK;
}

void pvl_tile_set_free(pvl_tile_set *set) {
    pvl_free(set->allocator, set->pixels);
    *set = (pvl_tile_set){0};
}

const pvl_normalization pvl_normalization_imagenet = {{0.485f, 0.456f, 0.406f},
                                                      {0.229f, 0.224f, 0.225f}};

void pvl_tile_set_floats(float *out, const pvl_tile_set *set, int index,
                         const pvl_normalization *norm) {
    assert(index >= 0 && index < pvl_tiles_total(&set->grid));
    size_t side = (size_t)set->tile_size, plane = side * side;
    size_t stride = side * (size_t)set->grid.columns * 3;
    const uint8_t *tile;
    if (index < set->grid.count) {
        size_t column = (size_t)(index % set->grid.columns),
               row = (size_t)(index / set->grid.columns);
        tile = set->pixels + row * side * stride + column * side * 3;
    } else {
        tile = set->pixels + (size_t)set->grid.count * plane * 3;
        stride = side * 3;
    }
    float table[3][256];
    for (size_t c = 0; c < 3; c++) {
        for (int v = 0; v < 256; v++) {
            float x = (float)v / 255.0f;
            x = x - norm->mean[c];
            table[c][v] = x / norm->std[c];
        }
    }
    for (size_t y = 0; y < side; y++) {
        const uint8_t *p = tile + y * stride;
        float *r = out + y * side, *g = r + plane, *b = g + plane;
        for (size_t x = 0; x < side; x++, p += 3) {
            r[x] = table[0][p[0]];
            g[x] = table[1][p[1]];
            b[x] = table[2][p[2]];
        }
    }
}
