/* Looking things up in a head, and turning its values into C ones. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "tensor/gguf_private.h"

const char *pvl_gguf_name(const pvl_gguf *g) {
    return g->name;
}
uint32_t pvl_gguf_alignment(const pvl_gguf *g) {
    return g->alignment;
}
uint64_t pvl_gguf_data_start(const pvl_gguf *g) {
    return g->data_start;
}
uint64_t pvl_gguf_file_bytes(const pvl_gguf *g) {
    return g->file_bytes;
}
size_t pvl_gguf_tensor_count(const pvl_gguf *g) {
    return g->tensor_count;
}
size_t pvl_gguf_kv_count(const pvl_gguf *g) {
    return g->kv_count;
}

const pvl_gguf_tensor *pvl_gguf_tensor_at(const pvl_gguf *g, size_t index) {
    return &g->tensors[index];
}

const pvl_gguf_kv *pvl_gguf_kv_at(const pvl_gguf *g, size_t index) {
    return &g->kvs[index];
}

const pvl_gguf_tensor *pvl_gguf_find_tensor(const pvl_gguf *g, const char *name) {
    const pvl_gguf_names *names = &g->tensor_names;
    for (uint32_t at = pvl_gguf_hash(name) & names->mask; names->slots[at];
         at = (at + 1) & names->mask) {
        const pvl_gguf_tensor *t = &g->tensors[names->slots[at] - 1];
        if (strcmp(t->name, name) == 0)
            return t;
    }
    return NULL;
}

const pvl_gguf_kv *pvl_gguf_find_kv(const pvl_gguf *g, const char *key) {
    const pvl_gguf_names *names = &g->kv_names;
    for (uint32_t at = pvl_gguf_hash(key) & names->mask; names->slots[at];
         at = (at + 1) & names->mask) {
        const pvl_gguf_kv *kv = &g->kvs[names->slots[at] - 1];
        if (strcmp(kv->key, key) == 0)
            return kv;
    }
    return NULL;
}

bool pvl_gguf_has(const pvl_gguf *g, const char *key) {
    return pvl_gguf_find_kv(g, key) != NULL;
}

/* ---- numbers ---- */

/* Any number of a file: an integer as sign and magnitude, or a float. */
typedef struct number {
    bool is_float, negative;
    uint64_t magnitude;
    double value;
} number;

static number from_signed(int64_t v) {
    number n = {.negative = v < 0, .value = (double)v};
    n.magnitude = v < 0 ? (uint64_t)0 - (uint64_t)v : (uint64_t)v;
    return n;
}

static number from_unsigned(uint64_t v) {
    return (number){.magnitude = v, .value = (double)v};
}

static number from_double(double v) {
    return (number){.is_float = true, .value = v};
}

/* False for what is no number. */
static bool read_number(number *out, pvl_gguf_type type, const unsigned char *p) {
    switch (type) {
    case PVL_GGUF_U8:
        *out = from_unsigned(p[0]);
        return true;
    case PVL_GGUF_BOOL:
        *out = from_unsigned(p[0] != 0);
        return true;
    case PVL_GGUF_I8:
        *out = from_signed((int8_t)p[0]);
        return true;
    case PVL_GGUF_U16:
        *out = from_unsigned(pvl_load_u16(p));
        return true;
    case PVL_GGUF_I16:
        *out = from_signed((int16_t)pvl_load_u16(p));
        return true;
    case PVL_GGUF_U32:
        *out = from_unsigned(pvl_load_u32(p));
        return true;
    case PVL_GGUF_I32:
        *out = from_signed((int32_t)pvl_load_u32(p));
        return true;
    case PVL_GGUF_U64:
        *out = from_unsigned(pvl_load_u64(p));
        return true;
    case PVL_GGUF_I64:
        *out = from_signed((int64_t)pvl_load_u64(p));
        return true;
    case PVL_GGUF_F32:
        *out = from_double((double)pvl_bits_f32(pvl_load_u32(p)));
        return true;
    case PVL_GGUF_F64: {
        uint64_t bits = pvl_load_u64(p);
        double v;
        memcpy(&v, &bits, sizeof v);
        *out = from_double(v);
        return true;
    }
    case PVL_GGUF_STRING:
    case PVL_GGUF_ARRAY:
        break;
    }
    return false;
}

/* Floats with an integer value below 2^53 become integers. */
static bool as_integer(number *n) {
    if (!n->is_float)
        return true;
    if (!(fabs(n->value) <= 9007199254740992.0) || n->value != floor(n->value))
        return false;
    *n = from_signed((int64_t)n->value);
    return true;
}

static bool as_u64(number n, uint64_t *out) {
    if (!as_integer(&n) || (n.negative && n.magnitude != 0))
        return false;
    *out = n.magnitude;
    return true;
}

static bool as_i32(number n, int32_t *out) {
    if (!as_integer(&n) || n.magnitude > (n.negative ? 2147483648u : 2147483647u))
        return false;
    *out = (int32_t)(n.negative ? -(int64_t)n.magnitude : (int64_t)n.magnitude);
    return true;
}

static bool find_number(const pvl_gguf *g, const char *key, number *out) {
    const pvl_gguf_kv *kv = pvl_gguf_find_kv(g, key);
    return kv && read_number(out, kv->type, kv->value);
}

bool pvl_gguf_u64(const pvl_gguf *g, const char *key, uint64_t *out) {
    number n;
    return find_number(g, key, &n) && as_u64(n, out);
}

bool pvl_gguf_u32(const pvl_gguf *g, const char *key, uint32_t *out) {
    uint64_t v;
    if (!pvl_gguf_u64(g, key, &v) || v > UINT32_MAX)
        return false;
    *out = (uint32_t)v;
    return true;
}

bool pvl_gguf_i32(const pvl_gguf *g, const char *key, int32_t *out) {
    number n;
    return find_number(g, key, &n) && as_i32(n, out);
}

bool pvl_gguf_f32(const pvl_gguf *g, const char *key, float *out) {
    number n;
    if (!find_number(g, key, &n))
        return false;
    *out = (float)n.value;
    return true;
}

bool pvl_gguf_bool(const pvl_gguf *g, const char *key, bool *out) {
    number n;
    if (!find_number(g, key, &n))
        return false;
    *out = n.is_float ? n.value != 0 : n.magnitude != 0;
    return true;
}

bool pvl_gguf_str(const pvl_gguf *g, const char *key, pvl_gguf_string *out) {
    const pvl_gguf_kv *kv = pvl_gguf_find_kv(g, key);
    if (!kv || kv->type != PVL_GGUF_STRING)
        return false;
    out->data = (const char *)kv->value + 8;
    out->bytes = kv->value_bytes - 8;
    return true;
}

bool pvl_gguf_str_is(const pvl_gguf *g, const char *key, const char *text) {
    pvl_gguf_string s;
    return pvl_gguf_str(g, key, &s) && s.bytes == strlen(text) &&
           memcmp(s.data, text, s.bytes) == 0;
}

/* ---- arrays ---- */

/* The array under `key` (NULL when absent) and a block for its elements, `size` bytes each. */
static pvl_status array_of(const pvl_gguf *g, const char *key, bool strings, size_t size,
                           const pvl_gguf_kv **kv, void **out, size_t *count, pvl_error *err) {
    *out = NULL;
    *count = 0;
    *kv = pvl_gguf_find_kv(g, key);
    if (!*kv)
        return PVL_OK;
    if ((*kv)->type != PVL_GGUF_ARRAY || ((*kv)->item == PVL_GGUF_STRING) != strings) {
        return pvl_fail(err, PVL_E_FORMAT, "%s: metadata key %s is %s%s, expected an array of %s.",
                        g->name, key, (*kv)->type == PVL_GGUF_ARRAY ? "an array of " : "of type ",
                        pvl_gguf_type_name((uint32_t)(*kv)->item), strings ? "strings" : "numbers");
    }
    PVL_TRY(pvl_malloc(g->allocator, out, (*kv)->count, size, key, err));
    *count = (*kv)->count;
    return PVL_OK;
}

pvl_status pvl_gguf_array_i32(const pvl_gguf *g, const char *key, int32_t **out, size_t *count,
                              pvl_error *err) {
    const pvl_gguf_kv *kv;
    void *p;
    *out = NULL;
    PVL_TRY(array_of(g, key, false, sizeof(int32_t), &kv, &p, count, err));
    int32_t *v = p;
    for (size_t i = 0; i < *count; i++) {
        number n;
        const unsigned char *items = (const unsigned char *)kv->value + 12;
        if (!read_number(&n, kv->item, items + i * pvl_gguf_type_bytes((uint32_t)kv->item)) ||
            !as_i32(n, &v[i])) {
            pvl_free(g->allocator, v);
            *count = 0;
            return pvl_fail(err, PVL_E_FORMAT, "%s: element %zu of %s is no 32-bit integer.",
                            g->name, i, key);
        }
    }
    *out = v;
    return PVL_OK;
}

pvl_status pvl_gguf_array_f32(const pvl_gguf *g, const char *key, float **out, size_t *count,
                              pvl_error *err) {
    const pvl_gguf_kv *kv;
    void *p;
    *out = NULL;
    PVL_TRY(array_of(g, key, false, sizeof(float), &kv, &p, count, err));
    float *v = p;
    for (size_t i = 0; i < *count; i++) {
        number n = {0};
        const unsigned char *items = (const unsigned char *)kv->value + 12;
        (void)read_number(&n, kv->item, items + i * pvl_gguf_type_bytes((uint32_t)kv->item));
        v[i] = (float)n.value;
    }
    *out = v;
    return PVL_OK;
}

pvl_status pvl_gguf_array_str(const pvl_gguf *g, const char *key, pvl_gguf_string **out,
                              size_t *count, pvl_error *err) {
    const pvl_gguf_kv *kv;
    void *p;
    *out = NULL;
    PVL_TRY(array_of(g, key, true, sizeof(pvl_gguf_string), &kv, &p, count, err));
    pvl_gguf_string *v = p;
    if (!kv)
        return PVL_OK;
    const char *at = (const char *)kv->value + 12;
    for (size_t i = 0; i < *count; i++) { /* lengths were checked when the head was read */
        v[i].bytes = (size_t)pvl_load_u64(at);
        v[i].data = at + 8;
        at += 8 + v[i].bytes;
    }
    *out = v;
    return PVL_OK;
}
