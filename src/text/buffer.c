#include "text/buffer.h"

#include <string.h>

#include "base/alloc.h"

/* Makes room for `more` elements of `size` bytes behind `count`. */
static pvl_status grow(void **data, size_t *capacity, size_t count, size_t more, size_t size,
                       const pvl_allocator *allocator, const char *what, pvl_error *err) {
    size_t need, bigger;
    void *fresh;
    if (!pvl_size_add(&need, count, more))
        return pvl_fail(err, PVL_E_LIMIT, "%s would need more than this machine can address.",
                        what);
    if (need <= *capacity)
        return PVL_OK;
    bigger = *capacity < 64 ? 64 : *capacity;
    while (bigger < need)
        if (!pvl_size_mul(&bigger, bigger, 2))
            bigger = need;
    PVL_TRY(pvl_malloc(allocator, &fresh, bigger, size, what, err));
    if (count)
        memcpy(fresh, *data, count * size);
    pvl_free(allocator, *data);
    *data = fresh;
    *capacity = bigger;
    return PVL_OK;
}

pvl_status pvl_tokens_reserve(pvl_tokens *tokens, size_t more, pvl_error *err) {
    void *data = tokens->ids;
    PVL_TRY(grow(&data, &tokens->capacity, tokens->count, more, sizeof *tokens->ids,
                 tokens->allocator, "the list of token ids", err));
    tokens->ids = data;
    return PVL_OK;
}

pvl_status pvl_tokens_push(pvl_tokens *tokens, int32_t id, pvl_error *err) {
    PVL_TRY(pvl_tokens_reserve(tokens, 1, err));
    tokens->ids[tokens->count++] = id;
    return PVL_OK;
}

pvl_status pvl_tokens_repeat(pvl_tokens *tokens, int32_t id, size_t count, pvl_error *err) {
    PVL_TRY(pvl_tokens_reserve(tokens, count, err));
    for (size_t i = 0; i < count; i++)
        tokens->ids[tokens->count++] = id;
    return PVL_OK;
}

void pvl_tokens_free(pvl_tokens *tokens) {
    const pvl_allocator *allocator = tokens->allocator;
    pvl_free(allocator, tokens->ids);
    *tokens = (pvl_tokens){NULL, 0, 0, allocator};
}

pvl_status pvl_text_reserve(pvl_text *text, size_t more, pvl_error *err) {
    void *data = text->data;
    PVL_TRY(
        grow(&data, &text->capacity, text->bytes, more, 1, text->allocator, "a text buffer", err));
    text->data = data;
    return PVL_OK;
}

pvl_status pvl_text_append(pvl_text *text, const void *data, size_t bytes, pvl_error *err) {
    if (bytes == 0)
        return PVL_OK;
    PVL_TRY(pvl_text_reserve(text, bytes, err));
    memcpy(text->data + text->bytes, data, bytes);
    text->bytes += bytes;
    return PVL_OK;
}

void pvl_text_free(pvl_text *text) {
    const pvl_allocator *allocator = text->allocator;
    pvl_free(allocator, text->data);
    *text = (pvl_text){NULL, 0, 0, allocator};
}
