/* Growable vectors of the text layer: token ids and bytes.
 *
 * The caller owns them: a zeroed struct is an empty vector on the libc allocator; set `allocator`
 * for another one. Growing doubles the capacity, so n appends cost O(n). After an error the vector
 * is as it was. */
#ifndef PVL_TEXT_BUFFER_H
#define PVL_TEXT_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Bytes that somebody else owns; not terminated. */
typedef struct pvl_span {
    const char *data;
    size_t bytes;
} pvl_span;

typedef struct pvl_tokens {
    int32_t *ids;
    size_t count, capacity;
    const pvl_allocator *allocator; /* NULL = libc */
} pvl_tokens;

typedef struct pvl_text {
    char *data; /* not terminated */
    size_t bytes, capacity;
    const pvl_allocator *allocator; /* NULL = libc */
} pvl_text;

pvl_status pvl_tokens_reserve(pvl_tokens *tokens, size_t more, pvl_error *err);
pvl_status pvl_tokens_push(pvl_tokens *tokens, int32_t id, pvl_error *err);
pvl_status pvl_tokens_repeat(pvl_tokens *tokens, int32_t id, size_t count, pvl_error *err);
void pvl_tokens_free(pvl_tokens *tokens); /* leaves an empty vector with the same allocator */

pvl_status pvl_text_reserve(pvl_text *text, size_t more, pvl_error *err);
pvl_status pvl_text_append(pvl_text *text, const void *data, size_t bytes, pvl_error *err);
void pvl_text_free(pvl_text *text); /* as above */

#endif
