/* Answers until the context is full, again and again. The policy is a clear stop: an answer ends
 * with PVL_STOP_CONTEXT when its last place is taken, a question that does not fit is
 * PVL_E_CONTEXT, nothing is dropped silently. Through all of it memory stays as it is, and the
 * cache: at the end the session answers as a fresh one.
 *
 * POCKETVL_TOKENS=24000 makes it longer. */
#include "../engine.h"

enum { CONTEXT = 192, TOKENS = 2400 };

static struct {
    size_t bytes, blocks;
} alive;

static void *counting_alloc(void *ctx, size_t bytes) {
    (void)ctx;
    size_t whole = 64 + (bytes + 63) / 64 * 64;
    unsigned char *p = aligned_alloc(64, whole);
    if (!p)
        return NULL;
    memcpy(p, &bytes, sizeof bytes);
    alive.bytes += bytes;
    alive.blocks++;
    return p + 64;
}

static void counting_free(void *ctx, void *block) {
    (void)ctx;
    unsigned char *p = (unsigned char *)block - 64;
    size_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    alive.bytes -= bytes;
    alive.blocks--;
    free(p);
}

static const pvl_allocator counting = {counting_alloc, counting_free, NULL};

static pvl_status ask(pvl_session *s, const char *text, const pvl_prompt_options *options,
                      pvl_error *err) {
    return engine_ask(s, text, strlen(text), options, err);
}

/* Tokens of a whole answer; how it stopped in *stop, a sum of its ids in *digest. */
static size_t answer(pvl_session *s, pvl_stop *stop, uint64_t *digest) {
    size_t n = 0;
    *digest = 14695981039346656037u;
    pvl_piece piece = {0};
    for (; piece.stop == PVL_STOP_NO; n++) {
        pvl_error err = {0};
        if (pvl_session_next(s, &piece, &err) != PVL_OK) {
            FAIL("token %zu: %s", n, err.message);
            break;
        }
        *digest = (*digest ^ (uint64_t)(uint32_t)piece.token) * 1099511628211u;
    }
    *stop = piece.stop;
    return n;
}

TEST(over_the_end_of_the_context) {
    const char *wanted = getenv("POCKETVL_TOKENS");
    size_t total = wanted ? (size_t)strtoul(wanted, NULL, 10) : TOKENS, done = 0, stops = 0,
           rounds = 0, settled = 0;
    pvl_engine *e = engine_load("tests/fixtures/model/qwen2-q4_0.gguf",
                                &(pvl_engine_options){.threads = 2, .allocator = &counting});
    REQUIRE(e);
    for (int kv = 0; kv < 2; kv++) {
        pvl_session_options shape = {.context = CONTEXT, .kv_type = (pvl_kv_type)kv};
        pvl_session *s, *fresh;
        REQUIRE(pvl_session_new(&s, e, &shape, NULL) == PVL_OK);
        uint64_t digest, expected;
        pvl_stop stop;
        pvl_stats stats;
        for (size_t until = done + total / 2; done < until; rounds++) {
            char question[64];
            snprintf(question, sizeof question, "Question %zu: what is it?", rounds);
            pvl_prompt_options options = {.temperature = 1.5f, .seed = rounds};
            pvl_error err = {0};
            REQUIRE(ask(s, question, &options, &err) == PVL_OK);
            done += answer(s, &stop, &digest);
            pvl_session_get_stats(s, &stats);
            CHECK(stop == PVL_STOP_CONTEXT || stop == PVL_STOP_END);
            CHECK(stats.context_used <= CONTEXT);
            if (stop == PVL_STOP_CONTEXT) {
                CHECK_EQ_INT(stats.context_used, CONTEXT);
                stops++;
            }
            CHECK_EQ_INT(pvl_session_next(s, &(pvl_piece){0}, NULL), PVL_E_STATE);
            if (rounds == 3)
                settled = alive.bytes;
            if (rounds > 3 && kv == 0)
                CHECK_MSG(alive.bytes == settled, "round %zu: %zu bytes, %zu before", rounds,
                          alive.bytes, settled);
        }
        /* The cache is what it was: the same answer as in a session without a past. */
        pvl_prompt_options options = {.max_tokens = 40, .temperature = 1.0f, .seed = 7};
        REQUIRE(pvl_session_new(&fresh, e, &shape, NULL) == PVL_OK);
        CHECK_EQ_INT(ask(s, "And this?", &options, NULL), PVL_OK);
        CHECK_EQ_INT(ask(fresh, "And this?", &options, NULL), PVL_OK);
        answer(s, &stop, &digest);
        answer(fresh, &stop, &expected);
        CHECK_EQ_UINT(digest, expected);

        /* A question that does not fit: an error, and the session goes on. */
        char *text = malloc(4 * CONTEXT + 1);
        REQUIRE(text);
        for (size_t i = 0; i < 4 * CONTEXT; i++)
            text[i] = (char)(i % 2 ? ' ' : 'a' + (int)(i / 2 % 26));
        text[4 * CONTEXT] = 0;
        pvl_error err = {0};
        CHECK_EQ_INT(ask(s, text, &options, &err), PVL_E_CONTEXT);
        CHECK_CONTAINS(err.message, "the context holds 192");
        CHECK_EQ_INT(ask(s, "And this?", &options, NULL), PVL_OK);
        answer(s, &stop, &digest);
        CHECK_EQ_UINT(digest, expected);
        free(text);
        pvl_session_free(fresh);
        pvl_session_free(s);
    }
    CHECK(stops > 0);
    pvl_engine_free(e);
    CHECK_EQ_UINT(alive.blocks, 0);
    printf("  %zu tokens in %zu answers, %zu of them to the end of the context\n", done, rounds,
           stops);
}

TEST_MAIN(CASE(over_the_end_of_the_context))
