#include "tensor/gguf.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "tensor/gguf_private.h"

size_t pvl_gguf_type_bytes(uint32_t type) {
    static const unsigned char bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

const char *pvl_gguf_type_name(uint32_t type) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return type < sizeof names / sizeof names[0] ? names[type] : "unknown";
}

/* ---- walking a head ----
 *
 * The walk stops where bytes are lacking and goes on from there when more have come, one string or
 * tensor at a time, so the work is in proportion to the bytes, however small the portions. The
 * first walk only checks; when it has reached the end, a second over the complete head fills in the
 * tables, whose pointers are then final. */

enum stage { STAGE_FIXED, STAGE_KEYS, STAGE_ITEMS, STAGE_TENSORS, STAGE_DONE };

typedef struct walk {
    const char *file; /* name, for messages */
    const unsigned char *data;
    size_t size, at;
    enum stage stage;
    size_t keys, tensors; /* as announced */
    size_t key, tensor;   /* done */
    size_t items_left;    /* strings of the current array */
    size_t array_at;      /* where its value begins */
    pvl_gguf *store;      /* filled in when not NULL */
} walk;

/* PVL_OK with *more set: the bytes from w->at on are not all there yet. */
static pvl_status need(walk *w, size_t end, bool *more, pvl_error *err) {
    if (end > PVL_GGUF_MAX_HEAD) {
        return pvl_fail(
            err, PVL_E_LIMIT,
            "%s: metadata and tensor list go beyond %d bytes, more than any model needs.", w->file,
            PVL_GGUF_MAX_HEAD);
    }
    *more = end > w->size;
    return PVL_OK;
}

/* A string at `at`: its length, and *end behind it. */
static pvl_status string_at(walk *w, size_t at, size_t longest, const char *what, size_t *bytes,
                            size_t *end, bool *more, pvl_error *err) {
    PVL_TRY(need(w, at + 8, more, err));
    if (*more)
        return PVL_OK;
    uint64_t length = pvl_load_u64(w->data + at);
    if (length > longest) {
        return pvl_fail(err, PVL_E_LIMIT,
                        "%s: %s at byte %zu says it is %llu bytes long, the limit is %zu.", w->file,
                        what, at, (unsigned long long)length, longest);
    }
    *bytes = (size_t)length;
    *end = at + 8 + *bytes;
    return need(w, *end, more, err);
}

static pvl_status walk_fixed(walk *w, bool *more, pvl_error *err) {
    PVL_TRY(need(w, 4, more, err));
    if (*more)
        return PVL_OK;
    if (memcmp(w->data, "GGUF", 4) != 0) {
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s is not a GGUF file: it begins with the bytes %02X %02X %02X %02X, "
                        "expected 47 47 55 46 (\"GGUF\").",
                        w->file, w->data[0], w->data[1], w->data[2], w->data[3]);
    }
    if (w->size >= 8) {
        uint32_t version = pvl_load_u32(w->data + 4);
        if (version != 0 && (version & 0xFFFFu) == 0) {
            return pvl_fail(err, PVL_E_UNSUPPORTED,
                            "%s is a big-endian GGUF file; only little-endian files can be read.",
                            w->file);
        }
        if (version == 0)
            return pvl_fail(err, PVL_E_FORMAT, "%s has GGUF version 0, which does not exist.",
                            w->file);
        if (version != 2 && version != 3) {
            return pvl_fail(err, PVL_E_UNSUPPORTED,
                            "%s has GGUF version %u; versions 2 and 3 can be read.", w->file,
                            (unsigned)version);
        }
    }
    PVL_TRY(need(w, 24, more, err));
    if (*more)
        return PVL_OK;
    uint64_t tensors = pvl_load_u64(w->data + 8), keys = pvl_load_u64(w->data + 16);
    if (tensors > INT64_MAX || keys > INT64_MAX) {
        return pvl_fail(err, PVL_E_FORMAT, "%s announces a negative number of %s.", w->file,
                        tensors > INT64_MAX ? "tensors" : "metadata keys");
    }
    if (tensors > PVL_GGUF_MAX_TENSORS || keys > PVL_GGUF_MAX_KEYS) {
        bool t = tensors > PVL_GGUF_MAX_TENSORS;
        return pvl_fail(err, PVL_E_LIMIT, "%s announces %llu %s, the limit is %d.", w->file,
                        (unsigned long long)(t ? tensors : keys), t ? "tensors" : "metadata keys",
                        t ? PVL_GGUF_MAX_TENSORS : PVL_GGUF_MAX_KEYS);
    }
    w->tensors = (size_t)tensors;
    w->keys = (size_t)keys;
    w->at = 24;
    w->stage = STAGE_KEYS;
    return PVL_OK;
}

/* One key with its value; of an array of strings only what stands before the strings. */
static pvl_status walk_key(walk *w, bool *more, pvl_error *err) {
    size_t key_bytes = 0, at = 0;
    PVL_TRY(string_at(w, w->at, PVL_GGUF_MAX_KEY, "a metadata key", &key_bytes, &at, more, err));
    if (*more)
        return PVL_OK;
    const char *key = (const char *)w->data + w->at + 8;
    if (key_bytes == 0 || memchr(key, 0, key_bytes)) {
        return pvl_fail(err, PVL_E_FORMAT, "%s: metadata key %zu at byte %zu %s.", w->file, w->key,
                        w->at, key_bytes ? "holds a zero byte" : "is empty");
    }
    int shown = key_bytes < 64 ? (int)key_bytes : 64; /* for messages */
    PVL_TRY(need(w, at + 4, more, err));
    if (*more)
        return PVL_OK;
    uint32_t type = pvl_load_u32(w->data + at), item = type;
    size_t value = at + 4, count = 1, ignored;
    at = value;
    if (type == PVL_GGUF_ARRAY) {
        PVL_TRY(need(w, at + 12, more, err));
        if (*more)
            return PVL_OK;
        item = pvl_load_u32(w->data + at);
        uint64_t n = pvl_load_u64(w->data + at + 4);
        if (n > PVL_GGUF_MAX_ARRAY) {
            return pvl_fail(err, PVL_E_LIMIT,
                            "%s: the array %.*s announces %llu elements, the limit is %d.", w->file,
                            shown, key, (unsigned long long)n, PVL_GGUF_MAX_ARRAY);
        }
        count = (size_t)n;
        at += 12;
    }
    if (item != PVL_GGUF_STRING && pvl_gguf_type_bytes(item) == 0) {
        return pvl_fail(err, item == PVL_GGUF_ARRAY ? PVL_E_UNSUPPORTED : PVL_E_FORMAT,
                        "%s: metadata key %.*s has %s type %u, which cannot be read.", w->file,
                        shown, key, type == PVL_GGUF_ARRAY ? "element" : "value", (unsigned)item);
    }
    if (item != PVL_GGUF_STRING) {
        /* At most 64 Mi * 8, so no overflow in 32 bits. */
        at += count * pvl_gguf_type_bytes(item);
        PVL_TRY(need(w, at, more, err));
    } else if (type == PVL_GGUF_STRING) {
        PVL_TRY(string_at(w, at, PVL_GGUF_MAX_STRING, "a string", &ignored, &at, more, err));
    }
    if (*more)
        return PVL_OK;
    if (w->store) {
        w->store->kvs[w->key] = (pvl_gguf_kv){.key = key,
                                              .type = (pvl_gguf_type)type,
                                              .item = (pvl_gguf_type)item,
                                              .count = count,
                                              .value = w->data + value,
                                              .value_bytes = at - value};
    }
    w->at = at;
    if (type == PVL_GGUF_ARRAY && item == PVL_GGUF_STRING) {
        w->array_at = value;
        w->items_left = count;
        w->stage = STAGE_ITEMS;
    } else {
        w->key++;
    }
    return PVL_OK;
}

static pvl_status walk_items(walk *w, bool *more, pvl_error *err) {
    while (w->items_left > 0) {
        size_t ignored = 0, end = 0;
        PVL_TRY(string_at(w, w->at, PVL_GGUF_MAX_STRING, "a string of an array", &ignored, &end,
                          more, err));
        if (*more)
            return PVL_OK;
        w->at = end;
        w->items_left--;
    }
    if (w->store)
        w->store->kvs[w->key].value_bytes = w->at - w->array_at;
    w->key++;
    w->stage = STAGE_KEYS;
    return PVL_OK;
}

/* Element type and shape of one tensor, into t. */
static pvl_status check_shape(walk *w, pvl_gguf_tensor *t, const unsigned char *info, int shown,
                              const char *name, uint32_t type, pvl_error *err) {
    const pvl_dtype_traits *traits = pvl_dtype_find(type);
    if (!traits) {
        const char *known = pvl_dtype_name(type);
        return pvl_fail(err, PVL_E_UNSUPPORTED,
                        "%s: tensor %.*s has type %s (number %u), which this build cannot read: "
                        "use a file of another quantization, such as Q4_0, Q4_K_M or Q8_0.",
                        w->file, shown, name, known ? known : "unknown", (unsigned)type);
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < t->dims; i++) {
        uint64_t ne = pvl_load_u64(info + 8 * (size_t)i);
        if (ne == 0 || ne > (uint64_t)INT64_MAX / elements) {
            return pvl_fail(err, PVL_E_FORMAT, "%s: dimension %u of tensor %.*s is %lld: %s.",
                            w->file, (unsigned)i, shown, name, (long long)ne,
                            ne == 0 || ne > INT64_MAX ? "expected at least 1"
                                                      : "the product is absurd");
        }
        elements *= ne;
    }
    t->type = (pvl_dtype)type;
    bool fits = pvl_size_from_u64(&t->elements, elements);
    for (uint32_t i = 0; fits && i < t->dims; i++)
        fits = pvl_size_from_u64(&t->ne[i], pvl_load_u64(info + 8 * (size_t)i));
    if (fits && t->ne[0] % traits->block_length != 0) {
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s: rows of tensor %.*s have %zu values, expected a multiple of %zu as "
                        "its type %s has.",
                        w->file, shown, name, t->ne[0], traits->block_length, traits->name);
    }
    if (!fits || !pvl_dtype_bytes(&t->bytes, t->type, t->elements)) {
        return pvl_fail(err, PVL_E_LIMIT,
                        "%s: tensor %.*s with %llu values is too large for this machine's %d-bit "
                        "addresses.",
                        w->file, shown, name, (unsigned long long)elements,
                        (int)(8 * sizeof(size_t)));
    }
    return PVL_OK;
}

static pvl_status walk_tensor(walk *w, bool *more, pvl_error *err) {
    size_t name_bytes = 0, at = 0;
    PVL_TRY(string_at(w, w->at, PVL_GGUF_MAX_NAME, "a tensor's name", &name_bytes, &at, more, err));
    if (*more)
        return PVL_OK;
    const char *name = (const char *)w->data + w->at + 8;
    if (name_bytes == 0 || memchr(name, 0, name_bytes)) {
        return pvl_fail(err, PVL_E_FORMAT, "%s: the name of tensor %zu at byte %zu %s.", w->file,
                        w->tensor, w->at, name_bytes ? "holds a zero byte" : "is empty");
    }
    PVL_TRY(need(w, at + 4, more, err));
    if (*more)
        return PVL_OK;
    pvl_gguf_tensor t = {.name = name, .index = w->tensor, .ne = {1, 1, 1, 1}};
    t.dims = pvl_load_u32(w->data + at);
    if (t.dims < 1 || t.dims > PVL_GGUF_MAX_DIMS) {
        return pvl_fail(err, PVL_E_FORMAT, "%s: tensor %.*s has %u dimensions, expected 1 to %d.",
                        w->file, (int)name_bytes, name, (unsigned)t.dims, PVL_GGUF_MAX_DIMS);
    }
    size_t shape = at + 4, type_at = shape + 8 * (size_t)t.dims;
    PVL_TRY(need(w, type_at + 12, more, err));
    if (*more)
        return PVL_OK;
    PVL_TRY(check_shape(w, &t, w->data + shape, (int)name_bytes, name,
                        pvl_load_u32(w->data + type_at), err));
    t.offset = pvl_load_u64(w->data + type_at + 4);
    if (w->store)
        w->store->tensors[w->tensor] = t;
    w->at = type_at + 12;
    w->tensor++;
    return PVL_OK;
}

/* As far as the bytes go; *more tells that they did not reach. */
static pvl_status walk_on(walk *w, bool *more, pvl_error *err) {
    *more = false;
    while (!*more && w->stage != STAGE_DONE) {
        switch (w->stage) {
        case STAGE_FIXED:
            PVL_TRY(walk_fixed(w, more, err));
            break;
        case STAGE_KEYS:
            if (w->key == w->keys)
                w->stage = STAGE_TENSORS;
            else
                PVL_TRY(walk_key(w, more, err));
            break;
        case STAGE_ITEMS:
            PVL_TRY(walk_items(w, more, err));
            break;
        case STAGE_TENSORS:
            if (w->tensor == w->tensors)
                w->stage = STAGE_DONE;
            else
                PVL_TRY(walk_tensor(w, more, err));
            break;
        case STAGE_DONE:
            break;
        }
    }
    return PVL_OK;
}

/* ---- from a complete head to tables ---- */

uint32_t pvl_gguf_hash(const char *text) {
    uint32_t h = 2166136261u;
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        h = (h ^ *p) * 16777619u;
    return h ^ h >> 15;
}

static pvl_status names_new(pvl_gguf_names *names, const pvl_allocator *a, size_t count,
                            pvl_error *err) {
    uint32_t slots = 16;
    while (slots < 2 * count)
        slots *= 2;
    void *p;
    PVL_TRY(pvl_calloc(a, &p, slots, sizeof(uint32_t), "a table of names", err));
    names->slots = p;
    names->mask = slots - 1;
    return PVL_OK;
}

static pvl_status add_names(pvl_gguf *g, pvl_error *err) {
    for (size_t i = 0; i < g->kv_count; i++) {
        uint32_t at = pvl_gguf_hash(g->kvs[i].key) & g->kv_names.mask;
        for (; g->kv_names.slots[at]; at = (at + 1) & g->kv_names.mask) {
            if (strcmp(g->kvs[g->kv_names.slots[at] - 1].key, g->kvs[i].key) == 0) {
                return pvl_fail(err, PVL_E_FORMAT, "%s: metadata key %.64s is there twice.",
                                g->name, g->kvs[i].key);
            }
        }
        g->kv_names.slots[at] = (uint32_t)i + 1;
    }
    for (size_t i = 0; i < g->tensor_count; i++) {
        uint32_t at = pvl_gguf_hash(g->tensors[i].name) & g->tensor_names.mask;
        for (; g->tensor_names.slots[at]; at = (at + 1) & g->tensor_names.mask) {
            if (strcmp(g->tensors[g->tensor_names.slots[at] - 1].name, g->tensors[i].name) == 0) {
                return pvl_fail(err, PVL_E_FORMAT, "%s: tensor %s is there twice.", g->name,
                                g->tensors[i].name);
            }
        }
        g->tensor_names.slots[at] = (uint32_t)i + 1;
    }
    return PVL_OK;
}

/* Names and strings get a terminator: it overwrites the first byte of what follows them in the file
 * (a type, a length, a number of dimensions), all of which has been read by now, or the padding
 * behind the head. */
static void terminate(pvl_gguf *g) {
    /* Tensors first: a string before the first tensor ends where its name's length stands. */
    for (size_t i = 0; i < g->tensor_count; i++) {
        unsigned char *name =
            g->head + ((const unsigned char *)(const void *)g->tensors[i].name - g->head);
        name[pvl_load_u64(name - 8)] = 0;
    }
    for (size_t i = 0; i < g->kv_count; i++) {
        unsigned char *value = g->head + ((const unsigned char *)g->kvs[i].value - g->head);
        value[-4] = 0; /* the value's type stands behind the key */
        if (g->kvs[i].type == PVL_GGUF_STRING)
            value[g->kvs[i].value_bytes] = 0;
    }
}

/* Tensors by offset, then by place: bottom-up merge sort, since qsort has no context and may take
 * any time. */
static void sort_by_offset(uint32_t *order, uint32_t *spare, const pvl_gguf_tensor *t, size_t n) {
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = mid + width < n ? mid + width : n;
            size_t a = lo, b = mid;
            for (size_t i = lo; i < hi; i++) {
                bool left = a < mid && (b == hi || t[order[a]].offset <= t[order[b]].offset);
                spare[i] = left ? order[a++] : order[b++];
            }
        }
        memcpy(order, spare, n * sizeof *order);
    }
}

static pvl_status check_layout(pvl_gguf *g, uint64_t file_bytes, pvl_error *err) {
    uint64_t end = g->data_start;
    const uint64_t most = (uint64_t)INT64_MAX - g->data_start; /* a head fits memory */
    for (size_t i = 0; i < g->tensor_count; i++) {
        const pvl_gguf_tensor *t = &g->tensors[g->order[i]];
        if (t->offset % g->alignment != 0) {
            return pvl_fail(err, PVL_E_FORMAT,
                            "%s: tensor %s is at offset %llu, which is no multiple of the file's "
                            "alignment %u.",
                            g->name, t->name, (unsigned long long)t->offset,
                            (unsigned)g->alignment);
        }
        if (t->bytes > most || t->offset > most - t->bytes) {
            return pvl_fail(err, PVL_E_FORMAT,
                            "%s: tensor %s is at the absurd offset %llu, of %llu bytes.", g->name,
                            t->name, (unsigned long long)t->offset, (unsigned long long)t->bytes);
        }
        uint64_t begin = g->data_start + t->offset;
        if (begin < end) {
            return pvl_fail(err, PVL_E_FORMAT, "%s: tensors %s and %s overlap.", g->name,
                            g->tensors[g->order[i - 1]].name, t->name);
        }
        end = begin + t->bytes;
    }
    g->file_bytes = end;
    if (file_bytes != 0 && g->tensor_count > 0 && file_bytes < end) {
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s has %llu bytes, but its tensor list needs %llu: the file is cut off; "
                        "get it again.",
                        g->name, (unsigned long long)file_bytes, (unsigned long long)end);
    }
    return PVL_OK;
}

static pvl_status build(pvl_gguf *g, const walk *done, uint64_t file_bytes, pvl_error *err) {
    void *p;
    g->kv_count = done->keys;
    g->tensor_count = done->tensors;
    PVL_TRY(pvl_calloc(g->allocator, &p, g->kv_count, sizeof *g->kvs, "the metadata", err));
    g->kvs = p;
    PVL_TRY(
        pvl_calloc(g->allocator, &p, g->tensor_count, sizeof *g->tensors, "the tensor list", err));
    g->tensors = p;
    /* Twice the length: the second half is the sort's scratch. */
    PVL_TRY(pvl_calloc(g->allocator, &p, 2 * g->tensor_count, sizeof *g->order,
                       "the order of tensors", err));
    g->order = p;
    PVL_TRY(names_new(&g->kv_names, g->allocator, g->kv_count, err));
    PVL_TRY(names_new(&g->tensor_names, g->allocator, g->tensor_count, err));

    walk w = {.file = g->name, .data = g->head, .size = g->head_bytes, .store = g};
    bool more;
    PVL_TRY(walk_on(&w, &more, err));
    if (more)
        return pvl_fail(err, PVL_E_INTERNAL, "The second reading of a head went another way.");
    terminate(g);
    PVL_TRY(add_names(g, err));

    g->alignment = PVL_GGUF_DEFAULT_ALIGNMENT;
    if (pvl_gguf_has(g, "general.alignment")) {
        uint32_t v = 0;
        if (!pvl_gguf_u32(g, "general.alignment", &v) || v == 0 || (v & (v - 1)) != 0 ||
            v > PVL_GGUF_MAX_ALIGNMENT) {
            return pvl_fail(err, PVL_E_FORMAT,
                            "%s: general.alignment is %u, expected a power of two up to %d.",
                            g->name, (unsigned)v, PVL_GGUF_MAX_ALIGNMENT);
        }
        g->alignment = v;
    }
    g->data_start = ((uint64_t)g->head_bytes + g->alignment - 1) / g->alignment * g->alignment;
    if (g->tensor_count > 0)
        sort_by_offset(g->order, g->order + g->tensor_count, g->tensors, g->tensor_count);
    return check_layout(g, file_bytes, err);
}

void pvl_gguf_free(pvl_gguf *g) {
    if (!g)
        return;
    const pvl_allocator *a = g->allocator;
    pvl_free(a, g->name);
    pvl_free(a, g->head);
    pvl_free(a, g->kvs);
    pvl_free(a, g->tensors);
    pvl_free(a, g->order);
    pvl_free(a, g->kv_names.slots);
    pvl_free(a, g->tensor_names.slots);
    pvl_free(a, g);
}

/* ---- the stream ---- */

struct pvl_gguf_stream {
    const pvl_allocator *allocator;
    pvl_gguf_callbacks callbacks;
    pvl_gguf *g;
    bool ready; /* the head is complete */
    bool taken;
    pvl_status failed;
    uint64_t file_bytes; /* 0 = unknown */
    uint64_t at;         /* bytes pushed */
    size_t capacity;     /* of g->head while it grows; g->head_bytes are filled */
    walk walk;
    size_t next; /* in g->order */
};

pvl_status pvl_gguf_stream_new(pvl_gguf_stream **out, const pvl_allocator *a, const char *name,
                               uint64_t file_bytes, const pvl_gguf_callbacks *callbacks,
                               pvl_error *err) {
    void *p;
    *out = NULL;
    PVL_TRY(pvl_calloc(a, &p, 1, sizeof(pvl_gguf_stream), "a file reader", err));
    pvl_gguf_stream *s = p;
    s->allocator = a;
    s->file_bytes = file_bytes;
    if (callbacks)
        s->callbacks = *callbacks;
    pvl_status status = pvl_calloc(a, &p, 1, sizeof(pvl_gguf), "a file reader", err);
    if (status == PVL_OK) {
        s->g = p;
        s->g->allocator = a;
        status = pvl_malloc(a, &p, strlen(name) + 1, 1, "a file name", err);
    }
    if (status != PVL_OK) {
        pvl_gguf_stream_free(s);
        return status;
    }
    s->g->name = memcpy(p, name, strlen(name) + 1);
    s->walk.file = s->g->name;
    *out = s;
    return PVL_OK;
}

void pvl_gguf_stream_free(pvl_gguf_stream *s) {
    if (!s)
        return;
    if (!s->taken)
        pvl_gguf_free(s->g);
    pvl_free(s->allocator, s);
}

const pvl_gguf *pvl_gguf_stream_head(const pvl_gguf_stream *s) {
    return s->ready ? s->g : NULL;
}

pvl_gguf *pvl_gguf_stream_take(pvl_gguf_stream *s) {
    if (!s->ready || s->taken)
        return NULL;
    s->taken = true;
    return s->g;
}

/* The head's buffer with `capacity` bytes, contents kept. */
static pvl_status set_capacity(pvl_gguf_stream *s, size_t capacity, pvl_error *err) {
    void *p;
    PVL_TRY(pvl_malloc(s->allocator, &p, capacity, 1, "the metadata", err));
    if (s->g->head_bytes > 0)
        memcpy(p, s->g->head, s->g->head_bytes);
    pvl_free(s->allocator, s->g->head);
    s->g->head = p;
    s->capacity = capacity;
    return PVL_OK;
}

/* Takes head bytes; *used of them belong to the head. */
static pvl_status push_head(pvl_gguf_stream *s, const unsigned char *bytes, size_t n, size_t *used,
                            pvl_error *err) {
    enum { PIECE = 64 * 1024 };
    pvl_gguf *g = s->g;
    *used = 0;
    while (n > 0 && !s->ready) {
        size_t piece = n < PIECE ? n : PIECE, before = g->head_bytes;
        if (before + piece > s->capacity) {
            size_t capacity = s->capacity + s->capacity / 2;
            PVL_TRY(set_capacity(s, before + PIECE > capacity ? before + PIECE : capacity, err));
        }
        memcpy(g->head + before, bytes, piece);
        g->head_bytes += piece;
        s->walk.data = g->head;
        s->walk.size = g->head_bytes;
        bool more;
        PVL_TRY(walk_on(&s->walk, &more, err));
        if (!more) {
            g->head_bytes = s->walk.at;
            PVL_TRY(set_capacity(s, g->head_bytes, err));
            PVL_TRY(build(g, &s->walk, s->file_bytes, err));
            s->ready = true;
            piece = g->head_bytes - before;
        }
        bytes += piece;
        n -= piece;
        *used += piece;
    }
    return PVL_OK;
}

static pvl_status push_data(pvl_gguf_stream *s, const unsigned char *bytes, size_t n,
                            pvl_error *err) {
    const pvl_gguf *g = s->g;
    while (n > 0 && s->next < g->tensor_count) {
        const pvl_gguf_tensor *t = &g->tensors[g->order[s->next]];
        uint64_t begin = g->data_start + t->offset, take;
        if (s->at < begin) { /* padding */
            take = begin - s->at < n ? begin - s->at : n;
        } else {
            uint64_t offset = s->at - begin;
            take = t->bytes - offset < n ? t->bytes - offset : n;
            if (s->callbacks.on_data) {
                PVL_TRY(s->callbacks.on_data(s->callbacks.ctx, g, t->index, offset, bytes,
                                             (size_t)take, err));
            }
            if (offset + take == t->bytes)
                s->next++;
        }
        s->at += take;
        bytes += take;
        n -= (size_t)take;
    }
    s->at += n; /* whatever follows the last tensor */
    return PVL_OK;
}

static pvl_status push(pvl_gguf_stream *s, const unsigned char *bytes, size_t n, pvl_error *err) {
    if (!s->ready) {
        size_t used;
        PVL_TRY(push_head(s, bytes, n, &used, err));
        s->at += used;
        bytes += used;
        n -= used;
        if (!s->ready)
            return PVL_OK;
        if (s->callbacks.on_header)
            PVL_TRY(s->callbacks.on_header(s->callbacks.ctx, s->g, err));
    }
    return push_data(s, bytes, n, err);
}

pvl_status pvl_gguf_stream_push(pvl_gguf_stream *s, const void *bytes, size_t n, pvl_error *err) {
    if (s->failed != PVL_OK || s->taken) {
        return pvl_fail(err, s->taken ? PVL_E_STATE : s->failed,
                        "%s cannot be read on after an error: begin again.", s->g->name);
    }
    if (n == 0)
        return PVL_OK;
    s->failed = push(s, bytes, n, err);
    return s->failed;
}

static pvl_status head_is_cut(const walk *w, uint64_t bytes, pvl_error *err) {
    if (bytes == 0)
        return pvl_fail(err, PVL_E_FORMAT, "%s is empty.", w->file);
    if (w->stage == STAGE_FIXED) {
        return pvl_fail(err, PVL_E_FORMAT, "%s ends after %llu bytes: too short for a GGUF file.",
                        w->file, (unsigned long long)bytes);
    }
    bool tensors = w->stage == STAGE_TENSORS;
    return pvl_fail(err, PVL_E_FORMAT,
                    "%s ends after %llu bytes, inside %s %zu of %zu: the file is cut off; get it "
                    "again.",
                    w->file, (unsigned long long)bytes,
                    tensors ? "the description of tensor" : "metadata key",
                    (tensors ? w->tensor : w->key) + 1, tensors ? w->tensors : w->keys);
}

pvl_status pvl_gguf_stream_finish(pvl_gguf_stream *s, pvl_error *err) {
    const pvl_gguf *g = s->g;
    if (s->failed != PVL_OK)
        return pvl_fail(err, s->failed, "%s could not be read.", g->name);
    if (!s->ready) {
        s->failed = head_is_cut(&s->walk, s->at, err);
    } else if (s->next < g->tensor_count) {
        const pvl_gguf_tensor *t = &g->tensors[g->order[s->next]];
        uint64_t begin = g->data_start + t->offset, there = s->at > begin ? s->at - begin : 0;
        s->failed = pvl_fail(
            err, PVL_E_FORMAT,
            "%s ends after %llu bytes: tensor %s lacks %llu of its %zu bytes and %zu "
            "tensors behind it are missing; get the file again.",
            g->name, (unsigned long long)s->at, t->name, (unsigned long long)(t->bytes - there),
            t->bytes, g->tensor_count - s->next - 1);
    }
    return s->failed;
}

pvl_status pvl_gguf_parse_head(pvl_gguf **out, bool *need_more, const pvl_allocator *a,
                               const char *name, const void *bytes, size_t n, uint64_t file_bytes,
                               pvl_error *err) {
    pvl_gguf_stream *s;
    size_t used;
    *out = NULL;
    if (need_more)
        *need_more = false;
    PVL_TRY(pvl_gguf_stream_new(&s, a, name, file_bytes, NULL, err));
    pvl_status status = push_head(s, bytes, n, &used, err);
    if (status == PVL_OK && !s->ready) {
        if (need_more)
            *need_more = file_bytes == 0 || n < file_bytes;
        status = head_is_cut(&s->walk, n, err);
    }
    if (status == PVL_OK)
        *out = pvl_gguf_stream_take(s);
    pvl_gguf_stream_free(s);
    return status;
}
