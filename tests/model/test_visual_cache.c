/* The cache of visual tokens: what is found again, what is dropped, what is pinned. */
#include "../test.h"

#include "engine/visual_cache.h"

static pvl_visual_cache make_cache(size_t width, size_t max_bytes) {
    return (pvl_visual_cache){.width = width, .max_bytes = max_bytes};
}

TEST(digest_tells_pictures_apart) {
    unsigned char a[37], b[37];
    for (size_t i = 0; i < sizeof a; i++)
        a[i] = b[i] = (unsigned char)(i * 7);
    pvl_digest first = pvl_digest_of(a, sizeof a, 37, 1, 5);
    CHECK(pvl_digest_equal(first, pvl_digest_of(b, sizeof b, 37, 1, 5)));
    CHECK(!pvl_digest_equal(first, pvl_digest_of(a, sizeof a, 1, 37, 5)));
    CHECK(!pvl_digest_equal(first, pvl_digest_of(a, sizeof a, 37, 1, 6)));
    for (size_t i = 0; i < sizeof a; i++) { /* any one bit of any byte, the tail included */
        for (int bit = 0; bit < 8; bit++) {
            b[i] ^= (unsigned char)(1 << bit);
            CHECK(!pvl_digest_equal(first, pvl_digest_of(b, sizeof b, 37, 1, 5)));
            b[i] ^= (unsigned char)(1 << bit);
        }
    }
    /* Equal words in another order. */
    uint64_t words[2] = {1, 2}, swapped[2] = {2, 1};
    CHECK(
        !pvl_digest_equal(pvl_digest_of(words, 16, 1, 1, 1), pvl_digest_of(swapped, 16, 1, 1, 1)));
}

TEST(finds_and_drops_the_oldest) {
    pvl_visual_cache cache = make_cache(4, 3 * 2 * 4 * sizeof(float));
    pvl_error err = {0};
    pvl_visual_entry *e;
    pvl_digest keys[4] = {{1, 1}, {2, 2}, {3, 3}, {4, 4}};
    for (int i = 0; i < 3; i++) {
        REQUIRE(pvl_visual_cache_add(&cache, &e, keys[i], 2, cache.clock, &err) == PVL_OK);
        for (int k = 0; k < 8; k++)
            e->tokens[k] = (float)(i * 10 + k);
    }
    e = pvl_visual_cache_find(&cache, keys[0]); /* now the most recent */
    REQUIRE(e != NULL);
    CHECK_NEAR(e->tokens[7], 7.0f, 0);
    REQUIRE(pvl_visual_cache_add(&cache, &e, keys[3], 2, cache.clock, &err) == PVL_OK);
    CHECK(pvl_visual_cache_find(&cache, keys[1]) == NULL);
    CHECK(pvl_visual_cache_find(&cache, keys[0]) != NULL);
    CHECK(pvl_visual_cache_find(&cache, keys[2]) != NULL);
    CHECK_EQ_UINT(cache.bytes, 3 * 2 * 4 * sizeof(float));
    pvl_visual_cache_free(&cache);
    CHECK_EQ_UINT(cache.bytes, 0);
}

TEST(keeps_what_the_prompt_needs) {
    pvl_visual_cache cache = make_cache(1, 4);
    pvl_error err = {0};
    pvl_visual_entry *e;
    uint64_t pinned = cache.clock;
    for (uint64_t i = 0; i < PVL_VISUAL_CACHE_ENTRIES; i++) {
        REQUIRE(pvl_visual_cache_add(&cache, &e, (pvl_digest){i, i}, 1, pinned, &err) == PVL_OK);
    }
    for (uint64_t i = 0; i < PVL_VISUAL_CACHE_ENTRIES; i++) {
        CHECK(pvl_visual_cache_find(&cache, (pvl_digest){i, i}) != NULL);
    }
    CHECK_EQ_INT(pvl_visual_cache_add(&cache, &e, (pvl_digest){99, 99}, 1, pinned, &err),
                 PVL_E_LIMIT);
    CHECK_CONTAINS(err.message, "16 different pictures");
    err = (pvl_error){0};
    CHECK_EQ_INT(
        pvl_visual_cache_add(&cache, &e, (pvl_digest){99, 99}, SIZE_MAX, cache.clock, &err),
        PVL_E_MEMORY);
    /* Beside what is there its bytes pass the largest size: the others go all the same. */
    err = (pvl_error){0};
    CHECK_EQ_INT(pvl_visual_cache_add(&cache, &e, (pvl_digest){99, 99}, SIZE_MAX / sizeof(float),
                                      cache.clock, &err),
                 PVL_E_MEMORY);
    CHECK_EQ_UINT(cache.bytes, 0);
    pvl_visual_cache_free(&cache);
}

TEST_MAIN(CASE(digest_tells_pictures_apart), CASE(finds_and_drops_the_oldest),
          CASE(keeps_what_the_prompt_needs))
