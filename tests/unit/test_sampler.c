/* Sampling: the definitions of transformers (tests/oracle/text_sampler_cases.py), odd logits. */
#include "text/sampler.h"

#include "base/bytes.h"
#include "text_vocab.h"

TEST(draws_what_the_reference_draws) {
    size_t size;
    int rows = 0;
    char *data = (char *)test_read_file(TEXT_FIXTURES "sampler.tsv", &size), *rest = data;
    pvl_tokens history = {0}, expected = {0};
    pvl_sampler s;
    float logits[300];
    REQUIRE(data);
    REQUIRE(pvl_sampler_init(&s, NULL, 300, NULL) == PVL_OK);
    for (char *line = strtok_r(data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        pvl_sampler_options o = {0};
        size_t n = 0;
        o.temperature = strtof(text_column(&line), NULL);
        o.top_k = atoi(text_column(&line));
        o.top_p = strtof(text_column(&line), NULL);
        o.repetition_penalty = strtof(text_column(&line), NULL);
        o.seed = strtoull(text_column(&line), NULL, 10);
        text_ids(&history, text_column(&line));
        for (char *hex = text_column(&line); *hex && n < 300; n++)
            logits[n] = pvl_bits_f32((uint32_t)strtoul(hex, &hex, 16));
        text_ids(&expected, text_column(&line));
        CHECK(pvl_sampler_set(&s, &o, NULL) == PVL_OK);
        for (size_t i = 0; i < expected.count; i++) {
            int32_t id = -1;
            CHECK(pvl_sampler_next(&s, &id, logits, n, history.ids, history.count, NULL) == PVL_OK);
            CHECK_MSG(id == expected.ids[i], "row %d, draw %zu: %d, expected %d", rows, i, (int)id,
                      (int)expected.ids[i]);
        }
        rows++;
    }
    CHECK_EQ_INT(rows, 120);
    pvl_sampler_free(&s);
    pvl_tokens_free(&history);
    pvl_tokens_free(&expected);
    free(data);
}

static int32_t next(pvl_sampler *s, const float *logits, size_t n, const int32_t *history,
                    size_t m) {
    int32_t id = -1;
    CHECK(pvl_sampler_next(s, &id, logits, n, history, m, NULL) == PVL_OK);
    return id;
}

TEST(greedy_takes_the_lowest_id_among_equals) {
    const float logits[] = {1, 3, -2, 3, 3}, negative[] = {-5, -1, -1};
    const int32_t history[] = {1, 1, 3, 99, -4};
    pvl_sampler s;
    REQUIRE(pvl_sampler_init(&s, NULL, 5, NULL) == PVL_OK);
    CHECK_EQ_INT(next(&s, logits, 5, NULL, 0), 1);
    CHECK_EQ_INT(next(&s, negative, 3, NULL, 0), 1);
    pvl_sampler_options o = {.repetition_penalty = 1.5f};
    REQUIRE(pvl_sampler_set(&s, &o, NULL) == PVL_OK);
    CHECK_EQ_INT(next(&s, logits, 5, history, 5), 4);   /* 3 / 1.5 = 2, once */
    CHECK_EQ_INT(next(&s, negative, 3, history, 5), 2); /* -1 * 1.5 */
    pvl_sampler_free(&s);
}

TEST(never_chooses_what_is_not_a_number) {
    pvl_sampler s;
    pvl_error err = {0};
    float logits[64];
    test_rng rng = test_rng_start(1);
    REQUIRE(pvl_sampler_init(&s, NULL, 64, NULL) == PVL_OK);
    for (int round = 0; round < 2000; round++) {
        const int32_t history[] = {3, 5, 3, 60};
        pvl_sampler_options o = {.temperature = (float)(round % 3) * 0.7f,
                                 .top_k = round % 5 * 4,
                                 .top_p = round % 2 ? 0.8f : 0,
                                 .repetition_penalty = round % 7 ? 1.3f : 0,
                                 .seed = (uint64_t)round};
        bool infinite = false;
        for (int i = 0; i < 64; i++) {
            size_t kind = test_rng_below(&rng, 40);
            logits[i] = kind < 8    ? NAN
                        : kind < 12 ? -INFINITY
                        : kind == 12 && round % 4 == 0
                            ? INFINITY
                            : test_rng_normal(&rng) * (kind == 13 ? 1e38f : 3.0f);
            infinite = infinite || logits[i] == INFINITY;
        }
        REQUIRE(pvl_sampler_set(&s, &o, NULL) == PVL_OK);
        int32_t id = next(&s, logits, 64, history, 4);
        REQUIRE(id >= 0 && id < 64);
        CHECK(!isnan(logits[id]) && logits[id] != -INFINITY);
        CHECK(!infinite || logits[id] == INFINITY);
    }
    for (int i = 0; i < 64; i++)
        logits[i] = i % 2 ? NAN : -INFINITY;
    int32_t id = -7;
    for (int temperature = 0; temperature < 2; temperature++) {
        pvl_sampler_options o = {.temperature = (float)temperature};
        pvl_sampler_set(&s, &o, NULL);
        CHECK_EQ_INT(pvl_sampler_next(&s, &id, logits, 64, NULL, 0, &err), PVL_E_MODEL);
    }
    CHECK_EQ_INT(id, -7);
    CHECK_CONTAINS(err.message, "no finite number");
    pvl_sampler_free(&s);
}

TEST(frequencies_follow_the_probabilities) {
    const float logits[] = {0.0f, 0.6931472f, 1.0986123f, -40.0f}; /* 1 : 2 : 3 : nothing */
    int counts[4] = {0};
    pvl_sampler s;
    pvl_sampler_options o = {.temperature = 1.0f, .seed = 5};
    REQUIRE(pvl_sampler_init(&s, NULL, 4, NULL) == PVL_OK);
    REQUIRE(pvl_sampler_set(&s, &o, NULL) == PVL_OK);
    for (int i = 0; i < 60000; i++)
        counts[next(&s, logits, 4, NULL, 0)]++;
    CHECK_NEAR(counts[0], 10000, 500);
    CHECK_NEAR(counts[1], 20000, 600);
    CHECK_NEAR(counts[2], 30000, 600);
    CHECK_EQ_INT(counts[3], 0);
    pvl_sampler_free(&s);
}

TEST(a_seed_repeats_itself) {
    float logits[200];
    int32_t first[50];
    pvl_sampler s;
    pvl_sampler_options o = {.temperature = 1.2f, .top_k = 60, .top_p = 0.95f, .seed = 77};
    test_rng rng = test_rng_start(2);
    test_fill_normal(&rng, logits, 200, 2.0f);
    REQUIRE(pvl_sampler_init(&s, NULL, 200, NULL) == PVL_OK);
    for (int round = 0; round < 2; round++) {
        REQUIRE(pvl_sampler_set(&s, &o, NULL) == PVL_OK);
        for (int i = 0; i < 50; i++) {
            int32_t id = next(&s, logits, 200, NULL, 0);
            if (round == 0)
                first[i] = id;
            CHECK_EQ_INT(id, first[i]);
        }
    }
    pvl_sampler_free(&s);
}

TEST(refuses_options_out_of_range) {
    const pvl_sampler_options bad[] = {
        {.temperature = -1}, {.temperature = NAN},       {.temperature = INFINITY},
        {.top_k = -1},       {.top_p = -0.1f},           {.top_p = 1.1f},
        {.top_p = NAN},      {.repetition_penalty = -2}, {.repetition_penalty = NAN}};
    pvl_sampler s;
    float logits[] = {1, 2, 3};
    REQUIRE(pvl_sampler_init(&s, NULL, 2, NULL) == PVL_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pvl_error err = {0};
        CHECK_EQ_INT(pvl_sampler_set(&s, &bad[i], &err), PVL_E_ARGUMENT);
        CHECK(err.message[0] != 0);
    }
    int32_t id;
    CHECK_EQ_INT(pvl_sampler_next(&s, &id, logits, 3, NULL, 0, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_sampler_next(&s, &id, logits, 0, NULL, 0, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(next(&s, logits, 2, NULL, 0), 1);
    pvl_sampler_free(&s);
    pvl_sampler_free(&s);
    CHECK_EQ_INT(pvl_sampler_init(&s, NULL, 0, NULL), PVL_E_ARGUMENT);
}

TEST_MAIN(CASE(draws_what_the_reference_draws), CASE(greedy_takes_the_lowest_id_among_equals),
          CASE(never_chooses_what_is_not_a_number), CASE(frequencies_follow_the_probabilities),
          CASE(a_seed_repeats_itself), CASE(refuses_options_out_of_range))
