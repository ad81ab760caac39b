/* Memory: checked size products, an allocator of three callbacks, and arenas.
 *
 * All memory of the library comes through a pvl_allocator (pocketvl.h), so that a caller can count,
 * limit or fail it. Arenas hold what lives and dies together. Kernels may read (never write) up to
 * PVL_OVERREAD bytes past the end of a buffer: every allocation made here carries that padding,
 * zeroed, so kernels need not ask. */
#ifndef PVL_BASE_ALLOC_H
#define PVL_BASE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { PVL_ALIGN = 64, PVL_OVERREAD = 64 };

/* The libc allocator, aligned to PVL_ALIGN. */
extern const pvl_allocator pvl_libc_allocator;

/* Checked arithmetic: true and *out set when the result fits size_t; false (and *out untouched)
 * when not. */
bool pvl_size_mul(size_t *out, size_t a, size_t b);
bool pvl_size_add(size_t *out, size_t a, size_t b);
/* a*b*c. */
bool pvl_size_mul3(size_t *out, size_t a, size_t b, size_t c);
/* u64 to size_t (wasm32 has 32 bits). */
bool pvl_size_from_u64(size_t *out, uint64_t v);

/* count*size bytes, zeroed, aligned to PVL_ALIGN, followed by PVL_OVERREAD zeroed bytes. NULL `a`
 * means libc. `what` names the buffer in the error message. count*size == 0 gives a valid pointer.
 * Free with pvl_free. */
pvl_status pvl_calloc(const pvl_allocator *a, void **out, size_t count, size_t size,
                      const char *what, pvl_error *err);
/* As pvl_calloc, contents undefined except the padding, which is zeroed. */
pvl_status pvl_malloc(const pvl_allocator *a, void **out, size_t count, size_t size,
                      const char *what, pvl_error *err);
void pvl_free(const pvl_allocator *a, void *p); /* NULL is fine */

/* A bump arena over one block. init reserves `bytes` at once; alloc never calls the allocator. */
typedef struct pvl_arena {
    const pvl_allocator *allocator;
    unsigned char *base;
    size_t size, used, high_water;
} pvl_arena;

pvl_status pvl_arena_init(pvl_arena *arena, const pvl_allocator *a, size_t bytes, const char *what,
                          pvl_error *err);
/* count*size bytes (not zeroed) aligned to PVL_ALIGN with PVL_OVERREAD behind; PVL_E_INTERNAL when
 * the arena was sized too small. */
pvl_status pvl_arena_alloc(pvl_arena *arena, void **out, size_t count, size_t size,
                           const char *what, pvl_error *err);
/* What pvl_arena_alloc(count*size) takes from an arena, for sizing it; false on overflow. Adds onto
 * *total. */
bool pvl_arena_need(size_t *total, size_t count, size_t size);
void pvl_arena_reset(pvl_arena *arena);
void pvl_arena_free(pvl_arena *arena);

#endif
