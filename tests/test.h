/*
 * A small harness for C tests. One program per subject:
 *
 *     #include "../test.h"
 *
 *     TEST(reads_little_endian) {
 *         CHECK_EQ_INT(value, 258);
 *     }
 *
 *     TEST_MAIN(CASE(reads_little_endian), CASE(another_test))
 *
 * A failed check prints file, line and both values, counts, and the test goes on, so that one run
 * shows every failure; REQUIRE ends the current test where going on would crash. Each test prints
 * "ok NAME" or "FAIL NAME", the program ends with the line "N passed, N failed" (", N skipped"
 * where SKIP was used) and exits with 1 when anything failed. Command line: names of tests to run
 * (all when none is given), `--list`, `--seed N` for the seeded random numbers.
 *
 * The functions are static and unused ones are fine; include this header in one file per program.
 */
#ifndef PVL_TESTS_TEST_H
#define PVL_TESTS_TEST_H

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) || defined(__clang__)
#define TEST_UNUSED __attribute__((unused))
#define TEST_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define TEST_UNUSED
#define TEST_PRINTF(f, a)
#endif

static struct {
    int failed_checks;   /* in the current test */
    int printed;         /* failures printed in the current test */
    const char *skipped; /* reason, or NULL */
    long checks;         /* in the whole program */
    uint64_t seed;       /* what test_rng_start() starts from */
} test_state = {0, 0, NULL, 0, 20240611u};

/* At most this many failures of one test are printed: a wrong matrix should not fill the log. */
enum { TEST_MAX_PRINTED = 20 };

TEST_PRINTF(4, 5)
static TEST_UNUSED bool test_check(bool ok, const char *file, int line, const char *format, ...) {
    test_state.checks++;
    if (ok)
        return true;
    test_state.failed_checks++;
    if (test_state.printed++ < TEST_MAX_PRINTED) {
        va_list args;
        printf("FAIL %s:%d: ", file, line);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
        fflush(stdout);
    }
    return false;
}

/* CHECK(condition): counts a failure and goes on. REQUIRE(condition): also leaves the test. */
#define CHECK(condition) ((void)test_check((condition), __FILE__, __LINE__, "%s", #condition))
#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!test_check((condition), __FILE__, __LINE__, "required: %s", #condition))              \
            return;                                                                                \
    } while (0)

/* CHECK_MSG(condition, "format", ...): a check that says more than its own text. */
#define CHECK_MSG(condition, ...) ((void)test_check((condition), __FILE__, __LINE__, __VA_ARGS__))

/* Unconditional failure with a message. */
#define FAIL(...) ((void)test_check(false, __FILE__, __LINE__, __VA_ARGS__))

/* Leaves the current test and counts it as skipped, with the reason. */
#define SKIP(reason)                                                                               \
    do {                                                                                           \
        test_state.skipped = (reason);                                                             \
        return;                                                                                    \
    } while (0)

#define CHECK_EQ_INT(actual, expected)                                                             \
    test_eq_int((int64_t)(actual), (int64_t)(expected), #actual, __FILE__, __LINE__)
#define CHECK_EQ_UINT(actual, expected)                                                            \
    test_eq_uint((uint64_t)(actual), (uint64_t)(expected), #actual, __FILE__, __LINE__)
#define CHECK_STR(actual, expected) test_str((actual), (expected), #actual, __FILE__, __LINE__)
/* The text contains a piece: for error messages. */
#define CHECK_CONTAINS(text, piece) test_contains((text), (piece), #text, __FILE__, __LINE__)
#define CHECK_MEM(actual, expected, bytes)                                                         \
    test_mem((actual), (expected), (bytes), #actual, __FILE__, __LINE__)
/* |actual - expected| <= tolerance; a NaN always fails. */
#define CHECK_NEAR(actual, expected, tolerance)                                                    \
    test_near((double)(actual), (double)(expected), (double)(tolerance), #actual, __FILE__,        \
              __LINE__)
/* Relative L2 distance of two float arrays is at most `bound`, and every value is finite. */
#define CHECK_REL_L2(actual, expected, n, bound)                                                   \
    test_rel_l2_check((actual), (expected), (n), (bound), #actual, __FILE__, __LINE__)

static TEST_UNUSED void test_eq_int(int64_t a, int64_t b, const char *text, const char *file,
                                    int line) {
    test_check(a == b, file, line, "%s is %" PRId64 ", expected %" PRId64, text, a, b);
}

static TEST_UNUSED void test_eq_uint(uint64_t a, uint64_t b, const char *text, const char *file,
                                     int line) {
    test_check(a == b, file, line, "%s is %" PRIu64 ", expected %" PRIu64, text, a, b);
}

static TEST_UNUSED void test_str(const char *a, const char *b, const char *text, const char *file,
                                 int line) {
    bool same = a == b || (a && b && strcmp(a, b) == 0);
    test_check(same, file, line, "%s is \"%s\", expected \"%s\"", text, a ? a : "(null)",
               b ? b : "(null)");
}

static TEST_UNUSED void test_contains(const char *a, const char *piece, const char *text,
                                      const char *file, int line) {
    test_check(a && strstr(a, piece), file, line, "%s is \"%s\", expected it to contain \"%s\"",
               text, a ? a : "(null)", piece);
}

static TEST_UNUSED void test_mem(const void *a, const void *b, size_t bytes, const char *text,
                                 const char *file, int line) {
    const unsigned char *x = a, *y = b;
    size_t at = 0;
    while (at < bytes && x[at] == y[at])
        at++;
    test_check(at == bytes, file, line, "%s differs at byte %zu of %zu: %u, expected %u", text, at,
               bytes, at < bytes ? (unsigned)x[at] : 0u, at < bytes ? (unsigned)y[at] : 0u);
}

static TEST_UNUSED void test_near(double a, double b, double tolerance, const char *text,
                                  const char *file, int line) {
    test_check(fabs(a - b) <= tolerance, file, line, "%s is %.9g, expected %.9g within %.3g", text,
               a, b, tolerance);
}

/* The figures of a float comparison. */
typedef struct test_diff {
    double rel_l2;     /* |a - b| / |b|; |a - b| where b is all zero */
    double max_abs;    /* largest |a - b| */
    size_t max_at;     /* where */
    size_t not_finite; /* values of a that are NaN or infinite; they take no part in the sums */
} test_diff;

static TEST_UNUSED test_diff test_compare(const float *a, const float *b, size_t n) {
    test_diff d = {0, 0, 0, 0};
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        double x = (double)a[i], y = (double)b[i];
        norm += y * y;
        if (!isfinite(x)) {
            d.not_finite++;
            continue;
        }
        diff += (x - y) * (x - y);
        if (fabs(x - y) > d.max_abs) {
            d.max_abs = fabs(x - y);
            d.max_at = i;
        }
    }
    d.rel_l2 = norm > 0 ? sqrt(diff / norm) : sqrt(diff);
    return d;
}

static TEST_UNUSED double test_rel_l2(const float *a, const float *b, size_t n) {
    test_diff d = test_compare(a, b, n);
    return d.not_finite ? (double)INFINITY : d.rel_l2;
}

static TEST_UNUSED void test_rel_l2_check(const float *a, const float *b, size_t n, double bound,
                                          const char *text, const char *file, int line) {
    test_diff d = test_compare(a, b, n);
    bool ok = d.not_finite == 0 && d.rel_l2 <= bound;
    test_check(ok, file, line,
               "%s: relative L2 %.3g (bound %.3g), max-abs %.3g at %zu (%.9g, expected %.9g), "
               "%zu of %zu not finite",
               text, d.rel_l2, bound, d.max_abs, d.max_at, n ? (double)a[d.max_at] : 0.0,
               n ? (double)b[d.max_at] : 0.0, d.not_finite, n);
}

/* xorshift64*: the same numbers on every machine. */
typedef struct test_rng {
    uint64_t state;
} test_rng;

static TEST_UNUSED test_rng test_rng_start(uint64_t salt) {
    test_rng r = {(test_state.seed + salt) * 0x9e3779b97f4a7c15u ^ 0xd1b54a32d192ed03u};
    if (r.state == 0)
        r.state = 1;
    return r;
}

static TEST_UNUSED uint64_t test_rng_u64(test_rng *r) {
    r->state ^= r->state >> 12;
    r->state ^= r->state << 25;
    r->state ^= r->state >> 27;
    return r->state * 0x2545f4914f6cdd1du;
}

static TEST_UNUSED uint32_t test_rng_u32(test_rng *r) {
    return (uint32_t)(test_rng_u64(r) >> 32);
}

/* Uniform in 0 .. n-1; n > 0. */
static TEST_UNUSED size_t test_rng_below(test_rng *r, size_t n) {
    return (size_t)(test_rng_u64(r) % n);
}

/* Uniform in [lo, hi). */
static TEST_UNUSED float test_rng_float(test_rng *r, float lo, float hi) {
    return lo + (hi - lo) * (float)(test_rng_u64(r) >> 40) / 16777216.0f;
}

/* Normal with mean 0 and deviation 1, as the sum of twelve uniforms: no libm, so equal everywhere.
 */
static TEST_UNUSED float test_rng_normal(test_rng *r) {
    float sum = 0;
    for (int i = 0; i < 12; i++)
        sum += test_rng_float(r, 0, 1);
    return sum - 6.0f;
}

static TEST_UNUSED void test_fill_normal(test_rng *r, float *out, size_t n, float deviation) {
    for (size_t i = 0; i < n; i++)
        out[i] = deviation * test_rng_normal(r);
}

/*
 * The whole file as bytes plus a closing 0, malloc'ed (free it), its size in *bytes. A file that
 * cannot be read fails the test and gives NULL. Programs run with the repository root as
 * current folder, so paths read "tests/fixtures/...".
 */
static TEST_UNUSED unsigned char *test_read_file(const char *path, size_t *bytes) {
    FILE *f = fopen(path, "rb");
    unsigned char *data = NULL;
    long size = -1;
    *bytes = 0;
    if (f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0)
        data = malloc((size_t)size + 1);
    if (data && fread(data, 1, (size_t)size, f) == (size_t)size) {
        data[size] = 0;
        *bytes = (size_t)size;
    } else {
        free(data);
        data = NULL;
    }
    if (f)
        fclose(f);
    test_check(data != NULL, __FILE__, __LINE__, "cannot read %s", path);
    return data;
}

typedef struct test_case {
    const char *name;
    void (*run)(void);
} test_case;

static TEST_UNUSED int test_run_all(const test_case *cases, size_t n, int argc, char **argv) {
    int passed = 0, failed = 0, skipped = 0, named = 0;
    for (int a = 1; a < argc; a++) {
        if (strcmp(argv[a], "--list") == 0) {
            for (size_t i = 0; i < n; i++)
                printf("%s\n", cases[i].name);
            return 0;
        }
        if (strcmp(argv[a], "--seed") == 0 && a + 1 < argc)
            test_state.seed = strtoull(argv[++a], NULL, 10);
        else
            named++;
    }
    for (size_t i = 0; i < n; i++) {
        bool wanted = named == 0;
        for (int a = 1; a < argc && !wanted; a++)
            wanted = strcmp(argv[a], cases[i].name) == 0;
        if (!wanted)
            continue;
        test_state.failed_checks = 0;
        test_state.printed = 0;
        test_state.skipped = NULL;
        cases[i].run();
        if (test_state.failed_checks) {
            failed++;
            printf("FAIL %s (%d checks; again: %s --seed %" PRIu64 " %s)\n", cases[i].name,
                   test_state.failed_checks, argv[0], test_state.seed, cases[i].name);
        } else if (test_state.skipped) {
            skipped++;
            printf("skip %s: %s\n", cases[i].name, test_state.skipped);
        } else {
            passed++;
            printf("ok %s\n", cases[i].name);
        }
        fflush(stdout);
    }
    if (passed + failed + skipped == 0) {
        printf("FAIL no test has that name\n");
        failed = 1;
    }
    printf("%d passed, %d failed", passed, failed);
    if (skipped)
        printf(", %d skipped", skipped);
    printf("\n");
    return failed ? 1 : 0;
}

#define TEST(name) static void test_case_##name(void)

/* The list of a program's tests: TEST_MAIN(CASE(first), CASE(second)). One left out does not build.
 */
#define CASE(name) {#name, test_case_##name}
/* Where all programs are linked into one (tests/programs.c), each is compiled with another name. */
#ifndef TEST_MAIN_NAME
#define TEST_MAIN_NAME main
#endif
#define TEST_MAIN(...)                                                                             \
    int TEST_MAIN_NAME(int argc, char **argv) {                                                    \
        static const test_case cases[] = {__VA_ARGS__};                                            \
        return test_run_all(cases, sizeof cases / sizeof cases[0], argc, argv);                    \
    }

#endif
