#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

static void *libc_alloc(void *ctx, size_t bytes) {
    (void)ctx;
    /* aligned_alloc wants a multiple of the alignment. */
    size_t rounded;
    if (!pvl_size_add(&rounded, bytes, PVL_ALIGN - 1))
        return NULL;
    rounded -= rounded % PVL_ALIGN;
    return aligned_alloc(PVL_ALIGN, rounded);
}

static void libc_free(void *ctx, void *p) {
    (void)ctx;
    free(p);
}

const pvl_allocator pvl_libc_allocator = {libc_alloc, libc_free, NULL};

bool pvl_size_mul(size_t *out, size_t a, size_t b) {
    if (b != 0 && a > SIZE_MAX / b)
        return false;
    *out = a * b;
    return true;
}

bool pvl_size_add(size_t *out, size_t a, size_t b) {
    if (a > SIZE_MAX - b)
        return false;
    *out = a + b;
    return true;
}

bool pvl_size_mul3(size_t *out, size_t a, size_t b, size_t c) {
    size_t ab;
    return pvl_size_mul(&ab, a, b) && pvl_size_mul(out, ab, c);
}

bool pvl_size_from_u64(size_t *out, uint64_t v) {
    if (v > (uint64_t)SIZE_MAX)
        return false;
    *out = (size_t)v;
    return true;
}

static pvl_status allocate(const pvl_allocator *a, void **out, size_t count, size_t size, bool zero,
                           const char *what, pvl_error *err) {
    if (!a)
        a = &pvl_libc_allocator;
    size_t bytes, padded;
    *out = NULL;
    if (!pvl_size_mul(&bytes, count, size) || !pvl_size_add(&padded, bytes, PVL_OVERREAD)) {
        return pvl_fail(
            err, PVL_E_MEMORY,
            "The size of %s (%zu x %zu bytes) does not fit this machine's address space.", what,
            count, size);
    }
    unsigned char *p = a->alloc(a->ctx, padded);
    if (!p) {
        return pvl_fail(err, PVL_E_MEMORY,
                        "Not enough memory for %s (%zu bytes): use a smaller model, context or "
                        "number of tiles.",
                        what, bytes);
    }
    if (zero)
        memset(p, 0, bytes);
    memset(p + bytes, 0, PVL_OVERREAD);
    *out = p;
    return PVL_OK;
}

pvl_status pvl_calloc(const pvl_allocator *a, void **out, size_t count, size_t size,
                      const char *what, pvl_error *err) {
    return allocate(a, out, count, size, true, what, err);
}

pvl_status pvl_malloc(const pvl_allocator *a, void **out, size_t count, size_t size,
                      const char *what, pvl_error *err) {
    return allocate(a, out, count, size, false, what, err);
}

void pvl_free(const pvl_allocator *a, void *p) {
    if (!a)
        a = &pvl_libc_allocator;
    if (p)
        a->free(a->ctx, p);
}

bool pvl_arena_need(size_t *total, size_t count, size_t size) {
    size_t bytes;
    if (!pvl_size_mul(&bytes, count, size))
        return false;
    if (!pvl_size_add(&bytes, bytes, PVL_OVERREAD + PVL_ALIGN - 1))
        return false;
    bytes -= bytes % PVL_ALIGN;
    return pvl_size_add(total, *total, bytes);
}

pvl_status pvl_arena_init(pvl_arena *arena, const pvl_allocator *a, size_t bytes, const char *what,
                          pvl_error *err) {
    *arena = (pvl_arena){.allocator = a};
    void *p;
    PVL_TRY(pvl_malloc(a, &p, bytes, 1, what, err));
    arena->base = p;
    arena->size = bytes;
    return PVL_OK;
}

pvl_status pvl_arena_alloc(pvl_arena *arena, void **out, size_t count, size_t size,
                           const char *what, pvl_error *err) {
    size_t end = arena->used;
    *out = NULL;
    if (!pvl_arena_need(&end, count, size) || end > arena->size) {
        return pvl_fail(err, PVL_E_INTERNAL, "The arena has no room for %s (%zu x %zu bytes).",
                        what, count, size);
    }
    *out = arena->base + arena->used;
    arena->used = end;
    if (end > arena->high_water)
        arena->high_water = end;
    return PVL_OK;
}

void pvl_arena_reset(pvl_arena *arena) {
    arena->used = 0;
}

void pvl_arena_free(pvl_arena *arena) {
    pvl_free(arena->allocator, arena->base);
    *arena = (pvl_arena){0};
}
