/* The inside of a head, for gguf.c and gguf_values.c alone. */
#ifndef PVL_TENSOR_GGUF_PRIVATE_H
#define PVL_TENSOR_GGUF_PRIVATE_H

#include "tensor/gguf.h"

/* Names to places: open addressing, place + 1 in each slot, 0 = empty. */
typedef struct pvl_gguf_names {
    uint32_t *slots;
    uint32_t mask;
} pvl_gguf_names;

struct pvl_gguf {
    const pvl_allocator *allocator;
    char *name;
    unsigned char
        *head; /* the file's first head_bytes bytes, with names and strings terminated in place */
    size_t head_bytes;
    pvl_gguf_kv *kvs;
    size_t kv_count;
    pvl_gguf_names kv_names;
    pvl_gguf_tensor *tensors;
    size_t tensor_count;
    pvl_gguf_names tensor_names;
    uint32_t *order; /* [tensor_count] places sorted by offset */
    uint32_t alignment;
    uint64_t data_start, file_bytes;
};

uint32_t pvl_gguf_hash(const char *text);
/* Bytes of a fixed-size value; 0 for strings, arrays and unknown types. */
size_t pvl_gguf_type_bytes(uint32_t type);
const char *pvl_gguf_type_name(uint32_t type);

#endif
