/* GGUF writer: the strict form that every reader takes (version 3, tensors in order without gaps,
 * zero padding), whole or split. The same calls give the same bytes.
 *
 *   pvl_gguf_writer_new(&w, NULL, &err);
 *   pvl_gguf_writer_str(w, "general.architecture", "qwen2", &err);          // metadata, in the
 * order written pvl_gguf_writer_tensor(w, "token_embd.weight", PVL_DTYPE_Q8_0, ne, 2, &err);   //
 * tensors, in the order written pvl_gguf_writer_plan(w, shard_bytes, &err); for (size_t s = 0; s <
 * pvl_gguf_writer_shards(w); s++) { pvl_gguf_writer_begin(w, s, sink, ctx, &err); // writes the
 * head for each tensor t of the shard: pvl_gguf_writer_data(w, bytes, n, &err);   // any portions;
 * padding is added pvl_gguf_writer_end(w, &err);
 *   }
 *   pvl_gguf_writer_free(w);
 *
 * A split file is PREFIX-00001-of-00003.gguf and so on, each a whole GGUF; the first carries the
 * metadata, all carry split.no, split.count and split.tensors.count. */
#ifndef PVL_TENSOR_GGUF_WRITE_H
#define PVL_TENSOR_GGUF_WRITE_H

#include "tensor/gguf.h"

typedef struct pvl_gguf_writer pvl_gguf_writer;

/* Takes n bytes; what it returns ends the writing when it is not PVL_OK. */
typedef pvl_status (*pvl_gguf_sink)(void *ctx, const void *bytes, size_t n, pvl_error *err);

pvl_status pvl_gguf_writer_new(pvl_gguf_writer **out, const pvl_allocator *a, pvl_error *err);
void pvl_gguf_writer_free(pvl_gguf_writer *w); /* NULL is fine */

/* Metadata. A key that is there already is replaced in its place. PVL_E_ARGUMENT for an empty key,
 * and for `general.alignment` (always the default) and `split.*`, which the writer sets itself. */
pvl_status pvl_gguf_writer_u8(pvl_gguf_writer *w, const char *key, uint8_t v, pvl_error *err);
pvl_status pvl_gguf_writer_u16(pvl_gguf_writer *w, const char *key, uint16_t v, pvl_error *err);
pvl_status pvl_gguf_writer_u32(pvl_gguf_writer *w, const char *key, uint32_t v, pvl_error *err);
pvl_status pvl_gguf_writer_i32(pvl_gguf_writer *w, const char *key, int32_t v, pvl_error *err);
pvl_status pvl_gguf_writer_u64(pvl_gguf_writer *w, const char *key, uint64_t v, pvl_error *err);
pvl_status pvl_gguf_writer_f32(pvl_gguf_writer *w, const char *key, float v, pvl_error *err);
pvl_status pvl_gguf_writer_bool(pvl_gguf_writer *w, const char *key, bool v, pvl_error *err);
pvl_status pvl_gguf_writer_str(pvl_gguf_writer *w, const char *key, const char *v, pvl_error *err);
pvl_status pvl_gguf_writer_str_n(pvl_gguf_writer *w, const char *key, const char *v, size_t n,
                                 pvl_error *err);
/* count elements of a number type, little-endian, packed. */
pvl_status pvl_gguf_writer_array(pvl_gguf_writer *w, const char *key, pvl_gguf_type item,
                                 const void *v, size_t count, pvl_error *err);
pvl_status pvl_gguf_writer_array_str(pvl_gguf_writer *w, const char *key, const pvl_gguf_string *v,
                                     size_t count, pvl_error *err);
/* A value of another file as it is; passes over the keys that are the writer's own. */
pvl_status pvl_gguf_writer_copy(pvl_gguf_writer *w, const pvl_gguf_kv *kv, pvl_error *err);

/* Adds a tensor: name unique and at most 63 bytes, ne innermost first, ne[0] whole blocks. */
pvl_status pvl_gguf_writer_tensor(pvl_gguf_writer *w, const char *name, pvl_dtype type,
                                  const size_t *ne, uint32_t dims, pvl_error *err);
size_t pvl_gguf_writer_tensor_count(const pvl_gguf_writer *w);

/* Ends metadata and tensors and shares tensors out, in order, to files with at most shard_bytes of
 * data each (a larger tensor gets a file of its own); 0 = one file. */
pvl_status pvl_gguf_writer_plan(pvl_gguf_writer *w, uint64_t shard_bytes, pvl_error *err);
/* After planning. */
size_t pvl_gguf_writer_shards(const pvl_gguf_writer *w);
uint64_t pvl_gguf_writer_shard_bytes(const pvl_gguf_writer *w, size_t shard); /* size of the file */
/* Tensors first..first+count-1 are in the shard. */
void pvl_gguf_writer_shard_tensors(const pvl_gguf_writer *w, size_t shard, size_t *first,
                                   size_t *count);

/* PREFIX.gguf, or PREFIX-00001-of-00003.gguf when shards > 1 (shard counts from 0). False when it
 * does not fit. */
bool pvl_gguf_shard_name(char *out, size_t capacity, const char *prefix, size_t shard,
                         size_t shards);

pvl_status pvl_gguf_writer_begin(pvl_gguf_writer *w, size_t shard, pvl_gguf_sink sink, void *ctx,
                                 pvl_error *err);
/* The next n bytes of the current tensor; never across its end. PVL_E_STATE when they are too many.
 */
pvl_status pvl_gguf_writer_data(pvl_gguf_writer *w, const void *bytes, size_t n, pvl_error *err);
/* PVL_E_STATE when data is missing. */
pvl_status pvl_gguf_writer_end(pvl_gguf_writer *w, pvl_error *err);

#endif
