/* The GGUF reader: one input is one file. The head alone, the stream in odd portions, every value
 * through every getter, and what pvl_estimate makes of the metadata. */
#include "fuzz.h"

#include "base/alloc.h"
#include "tensor/gguf.h"

static unsigned char touched; /* what a callback is given is readable to its end */

static pvl_status on_data(void *ctx, const pvl_gguf *g, size_t index, uint64_t offset,
                          const void *bytes, size_t n, pvl_error *err) {
    (void)err;
    size_t *at = ctx;
    HOLDS(index < pvl_gguf_tensor_count(g));
    const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, index);
    HOLDS(offset == at[index] && n <= t->bytes - offset);
    at[index] += n;
    for (size_t i = 0; i < n; i++)
        touched ^= ((const unsigned char *)bytes)[i];
    return PVL_OK;
}

static void read_values(const pvl_gguf *g, const pvl_allocator *a) {
    for (size_t i = 0; i < pvl_gguf_kv_count(g); i++) {
        const pvl_gguf_kv *kv = pvl_gguf_kv_at(g, i);
        uint32_t u;
        int32_t s;
        uint64_t w;
        float f;
        bool b;
        pvl_gguf_string str;
        pvl_gguf_u32(g, kv->key, &u);
        pvl_gguf_i32(g, kv->key, &s);
        pvl_gguf_u64(g, kv->key, &w);
        pvl_gguf_f32(g, kv->key, &f);
        pvl_gguf_bool(g, kv->key, &b);
        if (pvl_gguf_str(g, kv->key, &str))
            HOLDS(str.data[str.bytes] == 0);
        int32_t *ints = NULL;
        float *floats = NULL;
        pvl_gguf_string *strings = NULL;
        size_t count;
        pvl_gguf_array_i32(g, kv->key, &ints, &count, NULL);
        pvl_gguf_array_f32(g, kv->key, &floats, &count, NULL);
        if (pvl_gguf_array_str(g, kv->key, &strings, &count, NULL) == PVL_OK) {
            for (size_t k = 0; k < count; k++)
                for (size_t n = 0; n < strings[k].bytes; n++)
                    touched ^= (unsigned char)strings[k].data[n];
        }
        pvl_free(a, ints);
        pvl_free(a, floats);
        pvl_free(a, strings);
    }
    for (size_t i = 0; i < pvl_gguf_tensor_count(g); i++) {
        const pvl_gguf_tensor *t = pvl_gguf_tensor_at(g, i);
        HOLDS(t->index == i && t->dims >= 1 && t->dims <= PVL_GGUF_MAX_DIMS);
        HOLDS(t->offset + t->bytes <= pvl_gguf_file_bytes(g) - pvl_gguf_data_start(g));
        HOLDS(pvl_gguf_find_tensor(g, t->name) == t);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_memory memory = {.limit = 64 << 20};
    pvl_allocator a = {fuzz_alloc, fuzz_free, &memory};
    /* The file's own bytes choose how it is pushed and whether a request for memory fails. */
    uint64_t salt = size;
    for (size_t i = 0; i < size; i++)
        salt = (salt ^ data[i]) * 0x100000001b3u;
    if (salt % 4 == 0)
        memory.fail_at = (long)(salt / 4 % 40) + 1;

    pvl_error err = {0};
    pvl_gguf *g = NULL;
    bool more = false;
    pvl_status status =
        pvl_gguf_parse_head(&g, &more, &a, "fuzz.gguf", data, size, salt & 8 ? size : 0, &err);
    check_status(status, &err);
    HOLDS((status == PVL_OK) == (g != NULL) && !(more && status != PVL_E_FORMAT));
    size_t tensors = g ? pvl_gguf_tensor_count(g) : 0;
    if (g)
        read_values(g, &a);
    pvl_gguf_free(g);
    HOLDS(memory.alive == 0);

    size_t *at = calloc(PVL_GGUF_MAX_TENSORS, sizeof *at);
    HOLDS(at != NULL);
    pvl_gguf_callbacks callbacks = {.ctx = at, .on_data = on_data};
    pvl_gguf_stream *s = NULL;
    err = (pvl_error){0};
    status = pvl_gguf_stream_new(&s, &a, "fuzz.gguf", salt & 16 ? size : 0, &callbacks, &err);
    size_t step = salt & 32 ? size + 1 : 1 + salt / 64 % 4096;
    for (size_t from = 0; status == PVL_OK && from < size; from += step)
        status =
            pvl_gguf_stream_push(s, data + from, size - from < step ? size - from : step, &err);
    if (status == PVL_OK)
        status = pvl_gguf_stream_finish(s, &err);
    check_status(status, &err);
    if (status == PVL_OK) {
        const pvl_gguf *head = pvl_gguf_stream_head(s);
        HOLDS(head && (memory.fail_at || pvl_gguf_tensor_count(head) == tensors));
        for (size_t i = 0; i < pvl_gguf_tensor_count(head); i++)
            HOLDS(at[i] == pvl_gguf_tensor_at(head, i)->bytes);
    }
    pvl_gguf_stream_free(s);
    free(at);
    HOLDS(memory.alive == 0);

    pvl_engine_options engine = {.allocator = &a, .threads = 2};
    pvl_bytes heads[2] = {{data, size}, {data, size}};
    pvl_memory needs;
    err = (pvl_error){0};
    check_status(pvl_estimate(&needs, heads, salt & 256 ? 2 : 1, &engine, NULL, &err), &err);
    HOLDS(memory.alive == 0);
    return 0;
}
