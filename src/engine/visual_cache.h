/* Visual tokens of pictures that were encoded before, by the content of the picture and how it was
 * cut: a follow-up question about a picture costs no vision work. Bounded; the least recently used
 * go first. */
#ifndef PVL_ENGINE_VISUAL_CACHE_H
#define PVL_ENGINE_VISUAL_CACHE_H

#include "base/alloc.h"

/* 128 bits over size, cutting and pixels. Not cryptographic: a person's pictures are not
 * adversaries of each other. */
typedef struct pvl_digest {
    uint64_t lo, hi;
} pvl_digest;

pvl_digest pvl_digest_of(const void *data, size_t bytes, uint64_t width, uint64_t height,
                         uint64_t cut);
static inline bool pvl_digest_equal(pvl_digest a, pvl_digest b) {
    return a.lo == b.lo && a.hi == b.hi;
}

enum { PVL_VISUAL_CACHE_ENTRIES = 16 };

typedef struct pvl_visual_entry {
    pvl_digest key;
    float *tokens; /* [count, width]; NULL = free */
    size_t count;
    uint64_t used; /* clock of the last use */
} pvl_visual_entry;

typedef struct pvl_visual_cache {
    const pvl_allocator *allocator;
    size_t width;     /* floats of a token */
    size_t max_bytes; /* most that is kept when there is nothing pinned by the current prompt */
    size_t bytes;
    uint64_t clock;
    pvl_visual_entry entries[PVL_VISUAL_CACHE_ENTRIES];
} pvl_visual_cache;

/* The entry, now most recently used, or NULL. Valid until the next add or free. */
pvl_visual_entry *pvl_visual_cache_find(pvl_visual_cache *cache, pvl_digest key);
/* A new entry with room for `count` tokens, contents undefined. Entries used since `pinned` (a
 * clock value) are not dropped; PVL_E_LIMIT when more pictures are pinned than there are entries.
 */
pvl_status pvl_visual_cache_add(pvl_visual_cache *cache, pvl_visual_entry **out, pvl_digest key,
                                size_t count, uint64_t pinned, pvl_error *err);
void pvl_visual_cache_remove(pvl_visual_cache *cache, pvl_visual_entry *entry);
void pvl_visual_cache_free(pvl_visual_cache *cache);

#endif
