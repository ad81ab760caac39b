/* The harness checks itself: a check that cannot fail would make every other test worthless. */
#include "../test.h"

/* Runs one failing check quietly and says whether it counted as a failure. */
static bool counts_as_failure(void (*check)(void)) {
    int failed = test_state.failed_checks, printed = test_state.printed;
    test_state.printed = TEST_MAX_PRINTED;
    check();
    bool counted = test_state.failed_checks == failed + 1;
    test_state.failed_checks = failed;
    test_state.printed = printed;
    return counted;
}

static void bad_check(void) {
    CHECK(1 + 1 == 3);
}
static void bad_int(void) {
    CHECK_EQ_INT(-1, 1);
}
static void bad_uint(void) {
    CHECK_EQ_UINT(UINT64_MAX, 0);
}
static void bad_str(void) {
    CHECK_STR("a", "b");
}
static void bad_null(void) {
    CHECK_STR(NULL, "b");
}
static void bad_piece(void) {
    CHECK_CONTAINS("abc", "d");
}
static void bad_mem(void) {
    CHECK_MEM("abc", "abd", 3);
}
static void bad_near(void) {
    CHECK_NEAR(1.0, 1.1, 0.01);
}
static void bad_nan(void) {
    CHECK_NEAR(NAN, NAN, 1e9);
}

static void bad_l2(void) {
    const float a[3] = {1, 2, 3}, b[3] = {1, 2, 4};
    CHECK_REL_L2(a, b, 3, 0.1);
}

static void bad_l2_nan(void) {
    const float a[2] = {NAN, 0}, b[2] = {0, 0};
    CHECK_REL_L2(a, b, 2, 1e9);
}

TEST(failures_are_counted) {
    void (*const all[])(void) = {bad_check, bad_int,  bad_uint, bad_str, bad_null,  bad_piece,
                                 bad_mem,   bad_near, bad_nan,  bad_l2,  bad_l2_nan};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        CHECK_MSG(counts_as_failure(all[i]), "failing check number %zu was not counted", i);
    }
}

TEST(right_values_pass) {
    const float a[3] = {1, 2, 3}, b[3] = {1, 2, 3.0001f};
    CHECK_EQ_INT(INT64_MIN, INT64_MIN);
    CHECK_STR("same", "same");
    CHECK_STR(NULL, NULL);
    CHECK_CONTAINS("one sentence", "sent");
    CHECK_MEM("abc", "abd", 2);
    CHECK_NEAR(1.0, 1.005, 0.01);
    CHECK_REL_L2(a, b, 3, 1e-4);
}

TEST(random_numbers_repeat) {
    test_rng r = test_rng_start(1), s = test_rng_start(1), other = test_rng_start(2);
    uint64_t first = test_rng_u64(&r);
    CHECK_EQ_UINT(first, test_rng_u64(&s));
    CHECK(first != test_rng_u64(&other));
    double sum = 0, squares = 0;
    for (int i = 0; i < 20000; i++) {
        float x = test_rng_normal(&r);
        sum += (double)x;
        squares += (double)x * (double)x;
        CHECK(test_rng_below(&r, 7) < 7);
    }
    CHECK_NEAR(sum / 20000, 0, 0.05);
    CHECK_NEAR(squares / 20000, 1, 0.05);
}

TEST_MAIN(CASE(failures_are_counted), CASE(right_values_pass), CASE(random_numbers_repeat))
