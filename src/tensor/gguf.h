/* GGUF reader: pushed bytes in, metadata and tensor bytes out.
 *
 * Format (little-endian): magic "GGUF", u32 version (2 or 3), i64 tensor count, i64 key count; then
 * keys: string name, i32 value type, value; then tensor infos: string name, u32 dimensions (at most
 * 4), i64 each (innermost first), i32 element type, u64 offset; then zero bytes to the next
 * multiple of `general.alignment` (32 unless given); then tensor data, each tensor at data start +
 * offset. A string is a u64 length and bytes; an array an i32 element type, a u64 count and
 * elements.
 *
 * A stream takes the bytes of one file in order and in any portions. It keeps the head alone
 * (metadata and tensor infos) and passes tensor bytes on as they come. Everything that a file says
 * is checked before it is used; the limits are below. What breaks the format is PVL_E_FORMAT, what
 * passes a limit PVL_E_LIMIT, a sound file that this build cannot read PVL_E_UNSUPPORTED; messages
 * name the file and the key or tensor. */
#ifndef PVL_TENSOR_GGUF_H
#define PVL_TENSOR_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/dtype.h"

enum {
    PVL_GGUF_MAX_KEYS = 16384,
    PVL_GGUF_MAX_TENSORS = 16384,
    PVL_GGUF_MAX_DIMS = 4,
    PVL_GGUF_MAX_NAME = 63,                 /* bytes of a tensor's name */
    PVL_GGUF_MAX_KEY = 65535,               /* bytes of a key */
    PVL_GGUF_MAX_STRING = 64 * 1024 * 1024, /* bytes of a string */
    PVL_GGUF_MAX_ARRAY = 64 * 1024 * 1024,  /* elements of an array */
    PVL_GGUF_MAX_HEAD = 256 * 1024 * 1024,  /* bytes before the tensor data */
    PVL_GGUF_MAX_ALIGNMENT = 64 * 1024,
    PVL_GGUF_DEFAULT_ALIGNMENT = 32
};

/* Types of metadata values, with the format's numbers. */
typedef enum pvl_gguf_type {
    PVL_GGUF_U8 = 0,
    PVL_GGUF_I8 = 1,
    PVL_GGUF_U16 = 2,
    PVL_GGUF_I16 = 3,
    PVL_GGUF_U32 = 4,
    PVL_GGUF_I32 = 5,
    PVL_GGUF_F32 = 6,
    PVL_GGUF_BOOL = 7,
    PVL_GGUF_STRING = 8,
    PVL_GGUF_ARRAY = 9,
    PVL_GGUF_U64 = 10,
    PVL_GGUF_I64 = 11,
    PVL_GGUF_F64 = 12
} pvl_gguf_type;

/* The head of one file. Strings in it live as long as it. */
typedef struct pvl_gguf pvl_gguf;

typedef struct pvl_gguf_string {
    const char *data; /* terminated, but for elements of arrays; may hold any bytes */
    size_t bytes;
} pvl_gguf_string;

typedef struct pvl_gguf_kv {
    const char *key;    /* terminated */
    pvl_gguf_type type; /* of the value */
    pvl_gguf_type item; /* of the elements when type is PVL_GGUF_ARRAY */
    size_t count;       /* elements of an array, 1 otherwise */
    const void *
        value; /* as in the file, unaligned: from a string's length or an array's element type on */
    size_t value_bytes;
} pvl_gguf_kv;

typedef struct pvl_gguf_tensor {
    const char *name; /* terminated */
    size_t index;     /* place in the list */
    pvl_dtype type;
    uint32_t dims;                /* 1..4 */
    size_t ne[PVL_GGUF_MAX_DIMS]; /* innermost first, missing ones 1; a matrix [out, in] is {in,
                                     out} */
    size_t elements, bytes;
    uint64_t offset; /* from the beginning of the data */
} pvl_gguf_tensor;

/* ---- reading a file ---- */

typedef struct pvl_gguf_callbacks {
    void *ctx;
    /* Once, when the head is complete and checked. */
    pvl_status (*on_header)(void *ctx, const pvl_gguf *g, pvl_error *err);
    /* The next n bytes of tensor `index`, beginning at `offset` in it. Tensors come in the order of
     * their offsets (the order of the list in files written strictly), each complete before the
     * next. */
    pvl_status (*on_data)(void *ctx, const pvl_gguf *g, size_t index, uint64_t offset,
                          const void *bytes, size_t n, pvl_error *err);
} pvl_gguf_callbacks;

typedef struct pvl_gguf_stream pvl_gguf_stream;

/* name: for messages, copied. file_bytes: size of the file, 0 when unknown; known, it tells a cut
 * file before its data is read. Callbacks may be NULL. */
pvl_status pvl_gguf_stream_new(pvl_gguf_stream **out, const pvl_allocator *a, const char *name,
                               uint64_t file_bytes, const pvl_gguf_callbacks *callbacks,
                               pvl_error *err);
/* The next n bytes. After an error, one of a callback included, every push fails. */
pvl_status pvl_gguf_stream_push(pvl_gguf_stream *s, const void *bytes, size_t n, pvl_error *err);
/* The file has ended: checks that everything came. */
pvl_status pvl_gguf_stream_finish(pvl_gguf_stream *s, pvl_error *err);
/* The head, once complete, else NULL; owned by the stream. */
const pvl_gguf *pvl_gguf_stream_head(const pvl_gguf_stream *s);
/* The head passes to the caller, who frees it; for after a successful finish. NULL before the head
 * is complete. */
pvl_gguf *pvl_gguf_stream_take(pvl_gguf_stream *s);
/* NULL is fine. */
void pvl_gguf_stream_free(pvl_gguf_stream *s);

/* A head from the first n bytes of a file (copied). When the head is longer than n: PVL_E_FORMAT,
 * and *need_more (may be NULL) is true; it is false for every other result. file_bytes as above. */
pvl_status pvl_gguf_parse_head(pvl_gguf **out, bool *need_more, const pvl_allocator *a,
                               const char *name, const void *bytes, size_t n, uint64_t file_bytes,
                               pvl_error *err);
/* NULL is fine. */
void pvl_gguf_free(pvl_gguf *g);

/* ---- the head ---- */

const char *pvl_gguf_name(const pvl_gguf *g); /* as given, for messages */
uint32_t pvl_gguf_alignment(const pvl_gguf *g);
uint64_t pvl_gguf_data_start(const pvl_gguf *g); /* offset in the file */
uint64_t
pvl_gguf_file_bytes(const pvl_gguf *g); /* end of the last tensor: the least size of the file */

size_t pvl_gguf_tensor_count(const pvl_gguf *g);
const pvl_gguf_tensor *pvl_gguf_tensor_at(const pvl_gguf *g, size_t index); /* index < count */
const pvl_gguf_tensor *pvl_gguf_find_tensor(const pvl_gguf *g,
                                            const char *name); /* NULL when there is none */

size_t pvl_gguf_kv_count(const pvl_gguf *g);
const pvl_gguf_kv *pvl_gguf_kv_at(const pvl_gguf *g,
                                  size_t index); /* in file order, index < count */
const pvl_gguf_kv *pvl_gguf_find_kv(const pvl_gguf *g,
                                    const char *key); /* NULL when there is none */
bool pvl_gguf_has(const pvl_gguf *g, const char *key);

/* Values. True and *out set when the key is there and its value fits; false, and *out as it was (so
 * it may hold the default), when not. Any number type is taken as long as the value is kept: 3.0 is
 * a u32, -1 and 3.5 are not. */
bool pvl_gguf_u32(const pvl_gguf *g, const char *key, uint32_t *out);
bool pvl_gguf_i32(const pvl_gguf *g, const char *key, int32_t *out);
bool pvl_gguf_u64(const pvl_gguf *g, const char *key, uint64_t *out);
bool pvl_gguf_f32(const pvl_gguf *g, const char *key, float *out); /* rounded to float */
bool pvl_gguf_bool(const pvl_gguf *g, const char *key, bool *out); /* bool, or 0 and not 0 */
bool pvl_gguf_str(const pvl_gguf *g, const char *key, pvl_gguf_string *out);
/* The string equals `text`; false when absent. */
bool pvl_gguf_str_is(const pvl_gguf *g, const char *key, const char *text);

/* Arrays. Elements of any number type are converted as above; PVL_E_FORMAT when one does not fit or
 * the value is of another type. An absent key gives *out NULL, *count 0 and PVL_OK. Allocated with
 * the reader's allocator; free with pvl_free. */
pvl_status pvl_gguf_array_i32(const pvl_gguf *g, const char *key, int32_t **out, size_t *count,
                              pvl_error *err);
pvl_status pvl_gguf_array_f32(const pvl_gguf *g, const char *key, float **out, size_t *count,
                              pvl_error *err);
/* Views into the head, not terminated. */
pvl_status pvl_gguf_array_str(const pvl_gguf *g, const char *key, pvl_gguf_string **out,
                              size_t *count, pvl_error *err);

#endif
