/* Attention with an online softmax: for a block of query rows, keys pass in blocks of KEYS; per row
 * the largest score so far, the sum of exponentials and the weighted values are kept, and rescaled
 * when a larger score appears. Query heads that share a key/value head are rows of the same block,
 * so that decoding with grouped heads reads each key once per four heads. */
#include <math.h>
#include <string.h>

#include "kernels/private.h"

enum {
    KEYS = 64,      /* keys of a block: a multiple of PVL_PANEL */
    MAX_ROWS = 32,  /* query rows of a task */
    SCALE_BYTES = 4 /* before 8-bit keys or values */
};

/* Layout of one head in pvl_kv.data, capacity rounded up to panels:
 *   F32  keys as panels f32 [d][8], then values f32 [capacity][d]
 *   Q8   keys as panels f32 scale[8], i8 [d][8], then values as rows f32 scale, i8 [d] */
static size_t panel_bytes(const pvl_kv *kv) {
    return kv->type == PVL_CACHE_F32 ? kv->head_dim * PVL_PANEL * 4
                                     : (SCALE_BYTES + kv->head_dim) * PVL_PANEL;
}

static size_t value_bytes(const pvl_kv *kv) {
    return kv->type == PVL_CACHE_F32 ? kv->head_dim * 4 : SCALE_BYTES + kv->head_dim;
}

static size_t panels_of(size_t keys) {
    return (keys + PVL_PANEL - 1) / PVL_PANEL;
}

static unsigned char *keys_of(const pvl_kv *kv, size_t head) {
    size_t panels = panels_of(kv->capacity);
    return kv->data + head * panels * (panel_bytes(kv) + PVL_PANEL * value_bytes(kv));
}

static unsigned char *values_of(const pvl_kv *kv, size_t head) {
    return keys_of(kv, head) + panels_of(kv->capacity) * panel_bytes(kv);
}

size_t pvl_kv_bytes(pvl_cache_type type, size_t heads, size_t head_dim, size_t capacity) {
    pvl_kv kv = {.type = type, .head_dim = head_dim};
    size_t bytes, padded;
    if (!pvl_size_add(&padded, capacity, PVL_PANEL - 1))
        return 0;
    padded -= padded % PVL_PANEL;
    size_t position = panel_bytes(&kv) / PVL_PANEL + value_bytes(&kv);
    return pvl_size_mul3(&bytes, heads, padded, position) ? bytes : 0;
}

/* ---- storing ---- */

struct store {
    const pvl_kv *kv;
    size_t first, stride;
    const float *k, *v;
};

/* d integers of at most 127 in magnitude, `step` bytes apart; returns their scale. */
static float round_row(unsigned char *out, size_t step, const float *x, size_t d) {
    float amax = 0;
    for (size_t i = 0; i < d; i++) {
        float v = fabsf(x[i]);
        amax = v > amax || isnan(v) ? v : amax;
    }
    float inverse = amax > 1e-30f ? 127.0f / amax : 0;
    for (size_t i = 0; i < d; i++) {
        float v = x[i] * inverse;
        v = v > 127 ? 127 : v > -127 ? v : -127;
        out[i * step] = (unsigned char)(int8_t)(v + (v < 0 ? -0.5f : 0.5f));
    }
    return inverse > 0 || isnan(amax) ? amax / 127.0f : 0;
}

static void store_head(const pvl_kv *kv, size_t head, size_t position, const float *k,
                       const float *v) {
    size_t d = kv->head_dim, lane = position % PVL_PANEL;
    unsigned char *panel = keys_of(kv, head) + position / PVL_PANEL * panel_bytes(kv);
    unsigned char *value = values_of(kv, head) + position * value_bytes(kv);
    if (kv->type == PVL_CACHE_F32) {
        float *to = (float *)(void *)panel + lane;
        for (size_t i = 0; i < d; i++)
            to[i * PVL_PANEL] = k[i];
        memcpy(value, v, d * sizeof *v);
        return;
    }
    float scale = round_row(panel + PVL_PANEL * SCALE_BYTES + lane, PVL_PANEL, k, d);
    memcpy(panel + lane * SCALE_BYTES, &scale, sizeof scale);
    scale = round_row(value + SCALE_BYTES, 1, v, d);
    memcpy(value, &scale, sizeof scale);
}

static void store_rows(void *arg, size_t begin, size_t end, int member) {
    const struct store *s = arg;
    size_t d = s->kv->head_dim;
    (void)member;
    for (size_t h = 0; h < s->kv->heads; h++) {
        for (size_t r = begin; r < end; r++) {
            const float *k = s->k + r * s->stride + h * d, *v = s->v + r * s->stride + h * d;
            store_head(s->kv, h, s->first + r, k, v);
        }
    }
}

void pvl_kv_store(const pvl_compute *c, const pvl_kv *kv, size_t first, size_t n, const float *k,
                  const float *v, size_t stride) {
    struct store s = {.kv = kv, .first = first, .stride = stride, .k = k, .v = v};
    pvl_parallel_for(c->team, n, 16, store_rows, &s);
}

/* ---- attention ---- */

struct attention {
    const pvl_compute *c;
    const pvl_attention_args *a;
    float *out;
    size_t out_stride, n;
    size_t group;      /* query heads of a key/value head */
    size_t rows;       /* n * group: row t is query t / group, head t % group of its group */
    size_t block_rows; /* rows of a task */
    size_t blocks;     /* tasks of a key/value head */
    size_t member_bytes;
};

/* A member's part of the scratch. */
struct block {
    float *q, *o;         /* [MAX_ROWS][d] */
    float *s;             /* [PVL_TILE_ROWS][KEYS] */
    float *keys, *values; /* [KEYS][d], where 8 bits are widened */
    float top[MAX_ROWS], sum[MAX_ROWS];
    size_t limit[MAX_ROWS]; /* keys that a row sees */
};

static size_t member_floats(size_t head_dim) {
    return 2 * MAX_ROWS * head_dim + PVL_TILE_ROWS * KEYS + 2 * KEYS * head_dim;
}

static size_t member_bytes(size_t head_dim) {
    return (member_floats(head_dim) * sizeof(float) + PVL_ALIGN - 1) / PVL_ALIGN * PVL_ALIGN;
}

size_t pvl_attention_scratch(size_t members, size_t heads, size_t head_dim) {
    (void)heads;
    return (members ? members : 1) * member_bytes(head_dim);
}

/* Some keys, as panels, and values, as rows, of a head: of the cache as they lie, or widened. */
struct piece {
    const void *keys, *values;
    bool bytes;
};

static struct piece fetch_block(const struct attention *t, const struct block *b, size_t head,
                                size_t at, size_t count) {
    const pvl_kernels *kernels = t->c->kernels;
    const pvl_kv *kv = t->a->kv;
    size_t d = kv->head_dim;
    const unsigned char *panel = keys_of(kv, head) + at / PVL_PANEL * panel_bytes(kv);
    const unsigned char *value = values_of(kv, head) + at * value_bytes(kv);
    /* By all rows, not those of a block: blocks depend on the number of threads. */
    bool bytes = kv->type == PVL_CACHE_Q8 && t->rows <= PVL_TILE_ROWS;
    if (bytes || kv->type == PVL_CACHE_F32)
        return (struct piece){panel, value, bytes};
    for (size_t p = 0; p < panels_of(count); p++, panel += panel_bytes(kv)) {
        kernels->widen_keys(b->keys + p * d * PVL_PANEL, panel, d);
    }
    for (size_t j = 0; j < count; j++, value += value_bytes(kv))
        kernels->widen_value(b->values + j * d, value, d);
    return (struct piece){b->keys, b->values, false};
}

/* One tile of rows against one block of keys. */
static void tile_block(const pvl_kernels *kernels, struct block *b, size_t row, size_t rows,
                       const struct piece *piece, size_t at, size_t count, size_t d) {
    size_t panels = panels_of(count);
    _Alignas(16) float keep[PVL_PANEL] = {0};
    if (piece->bytes)
        kernels->scores_q8(b->s, KEYS, b->q + row * d, d, rows, piece->keys, panels, d);
    else
        kernels->scores(b->s, KEYS, b->q + row * d, d, rows, piece->keys, panels, d);
    for (size_t r = 0; r < rows; r++) {
        float *s = b->s + r * KEYS;
        size_t limit = b->limit[row + r], seen = limit > at ? limit - at : 0;
        for (size_t j = seen; j < panels * PVL_PANEL; j++)
            s[j] = -INFINITY;
        float top = kernels->max(s, panels * PVL_PANEL), before = b->top[row + r];
        if (!(top > before))
            top = before;
        keep[r] = before - top;
        b->top[row + r] = top;
    }
    kernels->exp_sum(keep, PVL_PANEL, 0);
    for (size_t r = 0; r < rows; r++) {
        float sum = kernels->exp_sum(b->s + r * KEYS, panels * PVL_PANEL, b->top[row + r]);
        b->sum[row + r] = b->sum[row + r] * keep[r] + sum;
    }
    if (piece->bytes)
        kernels->mix_q8(b->o + row * d, keep, b->s, KEYS, rows, piece->values, count, d);
    else
        kernels->mix(b->o + row * d, keep, b->s, KEYS, rows, piece->values, count, d);
}

static void attend(const struct attention *t, size_t head, size_t first, size_t rows,
                   struct block *b) {
    const pvl_attention_args *a = t->a;
    size_t d = a->kv->head_dim, most = 0;
    for (size_t r = 0; r < rows; r++) {
        size_t query = (first + r) / t->group, h = head * t->group + (first + r) % t->group;
        const float *q = a->q + query * a->q_stride + h * d;
        for (size_t i = 0; i < d; i++)
            b->q[r * d + i] = q[i] * a->scale;
        b->limit[r] = a->causal ? a->positions - t->n + query + 1 : a->positions;
        if (b->limit[r] > most)
            most = b->limit[r];
        b->top[r] = -INFINITY;
        b->sum[r] = 0;
    }
    memset(b->o, 0, rows * d * sizeof *b->o);
    for (size_t at = 0; at < most; at += KEYS) {
        size_t count = most - at < KEYS ? most - at : KEYS;
        struct piece piece = fetch_block(t, b, head, at, count);
        for (size_t r = 0; r < rows; r += PVL_TILE_ROWS) {
            size_t tile = rows - r < PVL_TILE_ROWS ? rows - r : PVL_TILE_ROWS;
            /* Limits grow with the row: the last one tells whether the tile sees any of these keys.
             */
            size_t limit = b->limit[r + tile - 1];
            if (limit <= at)
                continue;
            tile_block(t->c->kernels, b, r, tile, &piece, at,
                       limit - at < count ? limit - at : count, d);
        }
    }
    for (size_t r = 0; r < rows; r++) {
        size_t query = (first + r) / t->group, h = head * t->group + (first + r) % t->group;
        float *out = t->out + query * t->out_stride + h * d, inverse = 1.0f / b->sum[r];
        for (size_t i = 0; i < d; i++)
            out[i] = b->o[r * d + i] * inverse;
    }
}

static void attention_tasks(void *arg, size_t begin, size_t end, int member) {
    const struct attention *t = arg;
    size_t d = t->a->kv->head_dim;
    struct block b;
    b.q = (float *)(void *)(t->c->scratch + (size_t)member * t->member_bytes);
    b.o = b.q + MAX_ROWS * d;
    b.keys = b.o + MAX_ROWS * d;
    b.values = b.keys + KEYS * d;
    b.s = b.values + KEYS * d;
    for (size_t i = begin; i < end; i++) {
        if (pvl_flag_is_set(t->c->cancel))
            return;
        size_t first = i % t->blocks * t->block_rows;
        size_t rows = t->rows - first < t->block_rows ? t->rows - first : t->block_rows;
        attend(t, i / t->blocks, first, rows, &b);
    }
}

void pvl_attention(const pvl_compute *c, float *out, size_t out_stride, const pvl_attention_args *a,
                   size_t n) {
    struct attention t = {.c = c, .a = a, .out = out, .out_stride = out_stride, .n = n};
    size_t members = (size_t)pvl_team_size(c->team);
    t.group = a->heads / a->kv->heads;
    t.rows = n * t.group;
    t.member_bytes = member_bytes(a->kv->head_dim);
    /* Smaller blocks where there are few rows, so that each member finds work. A row's result does
     * not depend on the block it is in. */
    t.block_rows = t.rows * a->kv->heads / (4 * members);
    t.block_rows =
        t.block_rows > MAX_ROWS ? MAX_ROWS : (t.block_rows / PVL_TILE_ROWS + 1) * PVL_TILE_ROWS;
    if (t.block_rows > MAX_ROWS)
        t.block_rows = MAX_ROWS;
    t.blocks = (t.rows + t.block_rows - 1) / t.block_rows;
    pvl_parallel_for(c->team, a->kv->heads * t.blocks, 1, attention_tasks, &t);
}
