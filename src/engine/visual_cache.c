#include "engine/visual_cache.h"

#include "base/bytes.h"

static uint64_t mix(uint64_t h, uint64_t word, uint64_t prime) {
    h = (h ^ word) * prime;
    return h ^ h >> 29;
}

pvl_digest pvl_digest_of(const void *data, size_t bytes, uint64_t width, uint64_t height,
                         uint64_t cut) {
    /* Two lanes with different odd multipliers; each word enters both. */
    const uint64_t p1 = 0x9E3779B97F4A7C15u, p2 = 0xC2B2AE3D27D4EB4Fu;
    const unsigned char *b = data;
    uint64_t lo = mix(mix(mix(p2, width, p1), height, p1), cut, p1),
             hi = mix(mix(mix(p1, cut, p2), width, p2), height, p2);
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        uint64_t word = pvl_load_u64(b + i);
        lo = mix(lo, word, p1);
        hi = mix(hi, word << 32 | word >> 32, p2);
    }
    uint64_t tail = bytes;
    for (; i < bytes; i++)
        tail = tail << 8 | b[i];
    return (pvl_digest){mix(mix(lo, tail, p1), hi, p1), mix(mix(hi, tail, p2), lo, p2)};
}

pvl_visual_entry *pvl_visual_cache_find(pvl_visual_cache *cache, pvl_digest key) {
    for (size_t i = 0; i < PVL_VISUAL_CACHE_ENTRIES; i++) {
        pvl_visual_entry *e = &cache->entries[i];
        if (!e->tokens || !pvl_digest_equal(e->key, key))
            continue;
        e->used = ++cache->clock;
        return e;
    }
    return NULL;
}

static size_t entry_bytes(const pvl_visual_cache *cache, const pvl_visual_entry *e) {
    return e->count * cache->width * sizeof(float);
}

void pvl_visual_cache_remove(pvl_visual_cache *cache, pvl_visual_entry *e) {
    if (!e->tokens)
        return;
    cache->bytes -= entry_bytes(cache, e);
    pvl_free(cache->allocator, e->tokens);
    *e = (pvl_visual_entry){0};
}

static pvl_visual_entry *oldest(pvl_visual_cache *cache, uint64_t pinned) {
    pvl_visual_entry *found = NULL;
    for (size_t i = 0; i < PVL_VISUAL_CACHE_ENTRIES; i++) {
        pvl_visual_entry *e = &cache->entries[i];
        if (e->tokens && e->used <= pinned && (!found || e->used < found->used))
            found = e;
    }
    return found;
}

pvl_status pvl_visual_cache_add(pvl_visual_cache *cache, pvl_visual_entry **out, pvl_digest key,
                                size_t count, uint64_t pinned, pvl_error *err) {
    pvl_visual_entry *slot = NULL, *old;
    size_t floats, bytes;
    *out = NULL;
    if (!pvl_size_mul(&floats, count, cache->width) ||
        !pvl_size_mul(&bytes, floats, sizeof(float))) {
        return pvl_fail(err, PVL_E_MEMORY,
                        "The picture has too many tiles for this machine's address space.");
    }
    size_t room = bytes < cache->max_bytes ? cache->max_bytes - bytes : 0; /* for the others */
    while (cache->bytes > room && (old = oldest(cache, pinned)) != NULL)
        pvl_visual_cache_remove(cache, old);
    for (size_t i = 0; i < PVL_VISUAL_CACHE_ENTRIES && !slot; i++) {
        if (!cache->entries[i].tokens)
            slot = &cache->entries[i];
    }
    if (!slot) {
        slot = oldest(cache, pinned);
        if (!slot) {
            return pvl_fail(err, PVL_E_LIMIT,
                            "A conversation may hold %d different pictures: start a new one.",
                            PVL_VISUAL_CACHE_ENTRIES);
        }
        pvl_visual_cache_remove(cache, slot);
    }
    void *p;
    PVL_TRY(pvl_malloc(cache->allocator, &p, floats, sizeof(float),
                       "the visual tokens of a picture", err));
    *slot = (pvl_visual_entry){.key = key, .tokens = p, .count = count, .used = ++cache->clock};
    cache->bytes += bytes;
    *out = slot;
    return PVL_OK;
}

void pvl_visual_cache_free(pvl_visual_cache *cache) {
    for (size_t i = 0; i < PVL_VISUAL_CACHE_ENTRIES; i++)
        pvl_visual_cache_remove(cache, &cache->entries[i]);
}
