#include "tensor/gguf_write.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "tensor/gguf_private.h"

/* A growing block of bytes. */
typedef struct buffer {
    unsigned char *data;
    size_t bytes, capacity;
} buffer;

/* One metadata entry: bytes at..at+bytes of the buffer of entries, key first. */
typedef struct entry {
    size_t at, bytes, key_bytes;
} entry;

typedef struct out_tensor {
    char name[PVL_GGUF_MAX_NAME + 1];
    pvl_dtype type;
    uint32_t dims;
    size_t ne[PVL_GGUF_MAX_DIMS];
    size_t bytes;
    uint64_t offset; /* in its file's data */
} out_tensor;

typedef struct shard {
    size_t first, count;
    uint64_t head_bytes, file_bytes; /* head with its padding */
} shard;

struct pvl_gguf_writer {
    const pvl_allocator *allocator;
    buffer values;  /* of entries, in any order */
    buffer entries; /* entry[] */
    buffer tensors; /* out_tensor[] */
    shard *shards;
    size_t shard_count;
    /* the file being written */
    pvl_gguf_sink sink;
    void *ctx;
    size_t current; /* shard; shard_count = none */
    size_t tensor;  /* whose data comes next */
    size_t fill;    /* bytes of it that came */
    buffer head;
};

static pvl_status grow(pvl_gguf_writer *w, buffer *b, size_t n, pvl_error *err) {
    size_t end;
    if (!pvl_size_add(&end, b->bytes, n))
        return pvl_fail(err, PVL_E_MEMORY, "The head of a GGUF file does not fit in memory.");
    if (end <= b->capacity)
        return PVL_OK;
    size_t capacity = b->capacity < SIZE_MAX / 2 ? 2 * b->capacity : end;
    if (capacity < end)
        capacity = end;
    if (capacity < 1024)
        capacity = 1024;
    void *p;
    PVL_TRY(pvl_malloc(w->allocator, &p, capacity, 1, "the head of a GGUF file", err));
    if (b->bytes > 0)
        memcpy(p, b->data, b->bytes);
    pvl_free(w->allocator, b->data);
    b->data = p;
    b->capacity = capacity;
    return PVL_OK;
}

static pvl_status put(pvl_gguf_writer *w, buffer *b, const void *bytes, size_t n, pvl_error *err) {
    PVL_TRY(grow(w, b, n, err));
    if (n > 0)
        memcpy(b->data + b->bytes, bytes, n);
    b->bytes += n;
    return PVL_OK;
}

static void store_u32(unsigned char *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> 8 * i);
}

static void store_u64(unsigned char *p, uint64_t v) {
    store_u32(p, (uint32_t)v);
    store_u32(p + 4, (uint32_t)(v >> 32));
}

static pvl_status put_u32(pvl_gguf_writer *w, buffer *b, uint32_t v, pvl_error *err) {
    unsigned char p[4];
    store_u32(p, v);
    return put(w, b, p, sizeof p, err);
}

static pvl_status put_u64(pvl_gguf_writer *w, buffer *b, uint64_t v, pvl_error *err) {
    unsigned char p[8];
    store_u64(p, v);
    return put(w, b, p, sizeof p, err);
}

static pvl_status put_string(pvl_gguf_writer *w, buffer *b, const char *s, size_t n,
                             pvl_error *err) {
    PVL_TRY(put_u64(w, b, n, err));
    return put(w, b, s, n, err);
}

pvl_status pvl_gguf_writer_new(pvl_gguf_writer **out, const pvl_allocator *a, pvl_error *err) {
    void *p;
    *out = NULL;
    PVL_TRY(pvl_calloc(a, &p, 1, sizeof(pvl_gguf_writer), "a file writer", err));
    *out = p;
    (*out)->allocator = a;
    return PVL_OK;
}

void pvl_gguf_writer_free(pvl_gguf_writer *w) {
    if (!w)
        return;
    pvl_free(w->allocator, w->values.data);
    pvl_free(w->allocator, w->entries.data);
    pvl_free(w->allocator, w->tensors.data);
    pvl_free(w->allocator, w->head.data);
    pvl_free(w->allocator, w->shards);
    pvl_free(w->allocator, w);
}

/* ---- metadata ---- */

static entry *entries(const pvl_gguf_writer *w, size_t *count) {
    *count = w->entries.bytes / sizeof(entry);
    return (entry *)(void *)w->entries.data;
}

/* Opens an entry: key and type are written, the value is to be put behind them and then closed. */
static pvl_status open_entry(pvl_gguf_writer *w, entry *e, const char *key, uint32_t type,
                             pvl_error *err) {
    if (w->shards)
        return pvl_fail(err, PVL_E_STATE, "Metadata cannot be added after planning (%s).", key);
    size_t n = strlen(key);
    if (n == 0 || n > PVL_GGUF_MAX_KEY)
        return pvl_fail(err, PVL_E_ARGUMENT, "A metadata key has %zu bytes, expected 1 to %d.", n,
                        PVL_GGUF_MAX_KEY);
    if (strcmp(key, "general.alignment") == 0 || strncmp(key, "split.", 6) == 0)
        return pvl_fail(err, PVL_E_ARGUMENT, "The key %s is the writer's own.", key);
    *e = (entry){.at = w->values.bytes, .key_bytes = n};
    PVL_TRY(put_string(w, &w->values, key, n, err));
    return put_u32(w, &w->values, type, err);
}

static pvl_status close_entry(pvl_gguf_writer *w, entry *e, pvl_error *err) {
    e->bytes = w->values.bytes - e->at;
    size_t count;
    entry *list = entries(w, &count);
    const unsigned char *v = w->values.data;
    for (size_t i = 0; i < count; i++) {
        if (list[i].key_bytes == e->key_bytes &&
            memcmp(v + list[i].at + 8, v + e->at + 8, e->key_bytes) == 0) {
            list[i] = *e; /* the old value stays behind unused */
            return PVL_OK;
        }
    }
    return put(w, &w->entries, e, sizeof *e, err);
}

static pvl_status set(pvl_gguf_writer *w, const char *key, pvl_gguf_type type, const void *v,
                      size_t n, pvl_error *err) {
    entry e;
    PVL_TRY(open_entry(w, &e, key, (uint32_t)type, err));
    PVL_TRY(put(w, &w->values, v, n, err));
    return close_entry(w, &e, err);
}

pvl_status pvl_gguf_writer_u8(pvl_gguf_writer *w, const char *key, uint8_t v, pvl_error *err) {
    return set(w, key, PVL_GGUF_U8, &v, 1, err);
}

pvl_status pvl_gguf_writer_u16(pvl_gguf_writer *w, const char *key, uint16_t v, pvl_error *err) {
    unsigned char p[2] = {(unsigned char)v, (unsigned char)(v >> 8)};
    return set(w, key, PVL_GGUF_U16, p, sizeof p, err);
}

pvl_status pvl_gguf_writer_u32(pvl_gguf_writer *w, const char *key, uint32_t v, pvl_error *err) {
    unsigned char p[4];
    store_u32(p, v);
    return set(w, key, PVL_GGUF_U32, p, sizeof p, err);
}

pvl_status pvl_gguf_writer_i32(pvl_gguf_writer *w, const char *key, int32_t v, pvl_error *err) {
    unsigned char p[4];
    store_u32(p, (uint32_t)v);
    return set(w, key, PVL_GGUF_I32, p, sizeof p, err);
}

pvl_status pvl_gguf_writer_u64(pvl_gguf_writer *w, const char *key, uint64_t v, pvl_error *err) {
    unsigned char p[8];
    store_u64(p, v);
    return set(w, key, PVL_GGUF_U64, p, sizeof p, err);
}

pvl_status pvl_gguf_writer_f32(pvl_gguf_writer *w, const char *key, float v, pvl_error *err) {
    unsigned char p[4];
    store_u32(p, pvl_f32_bits(v));
    return set(w, key, PVL_GGUF_F32, p, sizeof p, err);
}

pvl_status pvl_gguf_writer_bool(pvl_gguf_writer *w, const char *key, bool v, pvl_error *err) {
    unsigned char p = v ? 1 : 0;
    return set(w, key, PVL_GGUF_BOOL, &p, 1, err);
}

pvl_status pvl_gguf_writer_str_n(pvl_gguf_writer *w, const char *key, const char *v, size_t n,
                                 pvl_error *err) {
    entry e;
    PVL_TRY(open_entry(w, &e, key, PVL_GGUF_STRING, err));
    PVL_TRY(put_string(w, &w->values, v, n, err));
    return close_entry(w, &e, err);
}

pvl_status pvl_gguf_writer_str(pvl_gguf_writer *w, const char *key, const char *v, pvl_error *err) {
    return pvl_gguf_writer_str_n(w, key, v, strlen(v), err);
}

static pvl_status open_array(pvl_gguf_writer *w, entry *e, const char *key, uint32_t item,
                             size_t count, pvl_error *err) {
    PVL_TRY(open_entry(w, e, key, PVL_GGUF_ARRAY, err));
    PVL_TRY(put_u32(w, &w->values, item, err));
    return put_u64(w, &w->values, count, err);
}

pvl_status pvl_gguf_writer_array(pvl_gguf_writer *w, const char *key, pvl_gguf_type item,
                                 const void *v, size_t count, pvl_error *err) {
    entry e;
    size_t bytes;
    if (pvl_gguf_type_bytes((uint32_t)item) == 0)
        return pvl_fail(err, PVL_E_ARGUMENT, "%s: an array of %s is not written this way.", key,
                        pvl_gguf_type_name((uint32_t)item));
    if (!pvl_size_mul(&bytes, count, pvl_gguf_type_bytes((uint32_t)item)))
        return pvl_fail(err, PVL_E_MEMORY, "The array %s does not fit in memory.", key);
    PVL_TRY(open_array(w, &e, key, (uint32_t)item, count, err));
    PVL_TRY(put(w, &w->values, v, bytes, err));
    return close_entry(w, &e, err);
}

pvl_status pvl_gguf_writer_array_str(pvl_gguf_writer *w, const char *key, const pvl_gguf_string *v,
                                     size_t count, pvl_error *err) {
    entry e;
    PVL_TRY(open_array(w, &e, key, PVL_GGUF_STRING, count, err));
    for (size_t i = 0; i < count; i++)
        PVL_TRY(put_string(w, &w->values, v[i].data, v[i].bytes, err));
    return close_entry(w, &e, err);
}

pvl_status pvl_gguf_writer_copy(pvl_gguf_writer *w, const pvl_gguf_kv *kv, pvl_error *err) {
    if (strcmp(kv->key, "general.alignment") == 0 || strncmp(kv->key, "split.", 6) == 0)
        return PVL_OK;
    return set(w, kv->key, kv->type, kv->value, kv->value_bytes, err);
}

/* ---- tensors ---- */

static out_tensor *tensors(const pvl_gguf_writer *w) {
    return (out_tensor *)(void *)w->tensors.data;
}

size_t pvl_gguf_writer_tensor_count(const pvl_gguf_writer *w) {
    return w->tensors.bytes / sizeof(out_tensor);
}

pvl_status pvl_gguf_writer_tensor(pvl_gguf_writer *w, const char *name, pvl_dtype type,
                                  const size_t *ne, uint32_t dims, pvl_error *err) {
    size_t n = strlen(name), count = pvl_gguf_writer_tensor_count(w), elements = 1;
    if (w->shards)
        return pvl_fail(err, PVL_E_STATE, "Tensors cannot be added after planning (%s).", name);
    if (n == 0 || n > PVL_GGUF_MAX_NAME || dims < 1 || dims > PVL_GGUF_MAX_DIMS) {
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "Tensor \"%s\" has a name of %zu bytes and %u dimensions, expected 1 to %d "
                        "and 1 to %d.",
                        name, n, (unsigned)dims, PVL_GGUF_MAX_NAME, PVL_GGUF_MAX_DIMS);
    }
    if (count >= PVL_GGUF_MAX_TENSORS)
        return pvl_fail(err, PVL_E_LIMIT, "A GGUF file holds at most %d tensors.",
                        PVL_GGUF_MAX_TENSORS);
    const pvl_dtype_traits *traits = pvl_dtype_find((uint32_t)type);
    out_tensor t = {.type = type, .dims = dims, .ne = {1, 1, 1, 1}};
    memcpy(t.name, name, n + 1);
    for (uint32_t i = 0; i < dims; i++) {
        t.ne[i] = ne[i];
        if (ne[i] == 0 || !pvl_size_mul(&elements, elements, ne[i]))
            return pvl_fail(err, PVL_E_ARGUMENT, "Tensor %s has an impossible dimension %zu.", name,
                            ne[i]);
    }
    if (!traits || t.ne[0] % traits->block_length != 0 ||
        !pvl_dtype_bytes(&t.bytes, type, elements)) {
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "Tensor %s has rows of %zu values, which are no whole blocks of type %s.",
                        name, t.ne[0], traits ? traits->name : "unknown");
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(tensors(w)[i].name, name) == 0)
            return pvl_fail(err, PVL_E_ARGUMENT, "Tensor %s is there twice.", name);
    }
    return put(w, &w->tensors, &t, sizeof t, err);
}

/* ---- files ---- */

static uint64_t aligned(uint64_t n) {
    return (n + PVL_GGUF_DEFAULT_ALIGNMENT - 1) / PVL_GGUF_DEFAULT_ALIGNMENT *
           PVL_GGUF_DEFAULT_ALIGNMENT;
}

/* The head of one file, padding included, into w->head. */
static pvl_status make_head(pvl_gguf_writer *w, size_t index, pvl_error *err) {
    const shard *s = &w->shards[index];
    buffer *b = &w->head;
    size_t count;
    const entry *list = entries(w, &count);
    if (index > 0)
        count = 0;
    uint64_t split_keys = w->shard_count > 1 ? 3 : 0;
    b->bytes = 0;
    PVL_TRY(put(w, b, "GGUF", 4, err));
    PVL_TRY(put_u32(w, b, 3, err));
    PVL_TRY(put_u64(w, b, s->count, err));
    PVL_TRY(put_u64(w, b, count + split_keys, err));
    for (size_t i = 0; i < count; i++)
        PVL_TRY(put(w, b, w->values.data + list[i].at, list[i].bytes, err));
    if (split_keys) {
        unsigned char no[2] = {(unsigned char)index, (unsigned char)(index >> 8)};
        unsigned char of[2] = {(unsigned char)w->shard_count, (unsigned char)(w->shard_count >> 8)};
        PVL_TRY(put_string(w, b, "split.no", 8, err));
        PVL_TRY(put_u32(w, b, PVL_GGUF_U16, err));
        PVL_TRY(put(w, b, no, sizeof no, err));
        PVL_TRY(put_string(w, b, "split.count", 11, err));
        PVL_TRY(put_u32(w, b, PVL_GGUF_U16, err));
        PVL_TRY(put(w, b, of, sizeof of, err));
        PVL_TRY(put_string(w, b, "split.tensors.count", 19, err));
        PVL_TRY(put_u32(w, b, PVL_GGUF_I32, err));
        PVL_TRY(put_u32(w, b, (uint32_t)pvl_gguf_writer_tensor_count(w), err));
    }
    for (size_t i = s->first; i < s->first + s->count; i++) {
        const out_tensor *t = &tensors(w)[i];
        PVL_TRY(put_string(w, b, t->name, strlen(t->name), err));
        PVL_TRY(put_u32(w, b, t->dims, err));
        for (uint32_t d = 0; d < t->dims; d++)
            PVL_TRY(put_u64(w, b, t->ne[d], err));
        PVL_TRY(put_u32(w, b, (uint32_t)t->type, err));
        PVL_TRY(put_u64(w, b, t->offset, err));
    }
    static const unsigned char zeros[PVL_GGUF_DEFAULT_ALIGNMENT] = {0};
    return put(w, b, zeros, (size_t)(aligned(b->bytes) - b->bytes), err);
}

pvl_status pvl_gguf_writer_plan(pvl_gguf_writer *w, uint64_t shard_bytes, pvl_error *err) {
    enum { MOST_SHARDS = 65535 };
    size_t count = pvl_gguf_writer_tensor_count(w);
    void *p;
    if (w->shards)
        return pvl_fail(err, PVL_E_STATE, "This file is planned already.");
    /* At most one file for each tensor, and one when there is none. */
    PVL_TRY(pvl_calloc(w->allocator, &p, count + 1, sizeof(shard), "the list of files", err));
    w->shards = p;
    w->shard_count = 1;
    uint64_t data = 0;
    for (size_t i = 0; i < count; i++) {
        out_tensor *t = &tensors(w)[i];
        shard *s = &w->shards[w->shard_count - 1];
        if (shard_bytes != 0 && s->count > 0 && data + aligned(t->bytes) > shard_bytes) {
            s->file_bytes = data;
            s = &w->shards[w->shard_count++];
            s->first = i;
            data = 0;
        }
        t->offset = data;
        data += aligned(t->bytes);
        s->count++;
    }
    w->shards[w->shard_count - 1].file_bytes = data;
    if (w->shard_count > MOST_SHARDS)
        return pvl_fail(err, PVL_E_LIMIT, "%zu files are too many: choose a larger shard size.",
                        w->shard_count);
    for (size_t i = 0; i < w->shard_count; i++) {
        PVL_TRY(make_head(w, i, err));
        w->shards[i].head_bytes = w->head.bytes;
        w->shards[i].file_bytes += w->head.bytes;
    }
    w->current = w->shard_count;
    return PVL_OK;
}

size_t pvl_gguf_writer_shards(const pvl_gguf_writer *w) {
    return w->shard_count;
}

uint64_t pvl_gguf_writer_shard_bytes(const pvl_gguf_writer *w, size_t index) {
    return w->shards[index].file_bytes;
}

void pvl_gguf_writer_shard_tensors(const pvl_gguf_writer *w, size_t index, size_t *first,
                                   size_t *count) {
    *first = w->shards[index].first;
    *count = w->shards[index].count;
}

bool pvl_gguf_shard_name(char *out, size_t capacity, const char *prefix, size_t index,
                         size_t shards) {
    int n = shards > 1
                ? snprintf(out, capacity, "%s-%05zu-of-%05zu.gguf", prefix, index + 1, shards)
                : snprintf(out, capacity, "%s.gguf", prefix);
    return n > 0 && (size_t)n < capacity;
}

pvl_status pvl_gguf_writer_begin(pvl_gguf_writer *w, size_t index, pvl_gguf_sink sink, void *ctx,
                                 pvl_error *err) {
    if (!w->shards || w->current != w->shard_count || index >= w->shard_count)
        return pvl_fail(err, PVL_E_STATE, "A GGUF file is begun out of order.");
    PVL_TRY(make_head(w, index, err));
    w->sink = sink;
    w->ctx = ctx;
    w->current = index;
    w->tensor = w->shards[index].first;
    w->fill = 0;
    return sink(ctx, w->head.data, w->head.bytes, err);
}

pvl_status pvl_gguf_writer_data(pvl_gguf_writer *w, const void *bytes, size_t n, pvl_error *err) {
    const shard *s = w->shards && w->current < w->shard_count ? &w->shards[w->current] : NULL;
    if (!s || w->tensor >= s->first + s->count)
        return pvl_fail(err, PVL_E_STATE, "No tensor of the GGUF file is open for %zu bytes.", n);
    const out_tensor *t = &tensors(w)[w->tensor];
    if (n > t->bytes - w->fill) {
        return pvl_fail(err, PVL_E_STATE, "Tensor %s gets %zu bytes too many.", t->name,
                        n - (t->bytes - w->fill));
    }
    if (n > 0)
        PVL_TRY(w->sink(w->ctx, bytes, n, err));
    w->fill += n;
    if (w->fill == t->bytes) {
        static const unsigned char zeros[PVL_GGUF_DEFAULT_ALIGNMENT] = {0};
        size_t padding = (size_t)(aligned(t->bytes) - t->bytes);
        if (padding > 0)
            PVL_TRY(w->sink(w->ctx, zeros, padding, err));
        w->tensor++;
        w->fill = 0;
    }
    return PVL_OK;
}

pvl_status pvl_gguf_writer_end(pvl_gguf_writer *w, pvl_error *err) {
    const shard *s = w->shards && w->current < w->shard_count ? &w->shards[w->current] : NULL;
    if (!s)
        return pvl_fail(err, PVL_E_STATE, "No GGUF file is open.");
    if (w->tensor < s->first + s->count) {
        const out_tensor *t = &tensors(w)[w->tensor];
        return pvl_fail(err, PVL_E_STATE, "Tensor %s lacks %zu of its %zu bytes.", t->name,
                        t->bytes - w->fill, t->bytes);
    }
    w->current = w->shard_count;
    return PVL_OK;
}
