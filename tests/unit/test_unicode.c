/* UTF-8, character classes and normalisation against Python (tests/oracle/text_unicode_cases.py).
 */
#include "text/unicode.h"

#include "text_vocab.h"

static const uint64_t fnv_start = 0xCBF29CE484222325u, fnv_prime = 0x100000001B3u;

TEST(rows_from_python) {
    size_t size;
    int rows[4] = {0};
    char *data = (char *)test_read_file(TEXT_FIXTURES "unicode.tsv", &size), *rest = data;
    REQUIRE(data);
    for (char *line = strtok_r(data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const char *kind = text_column(&line), *in_hex = text_column(&line);
        const char *out_hex = text_column(&line);
        size_t n, m;
        char *in = text_unhex(in_hex, &n), *expected = text_unhex(out_hex, &m);
        pvl_text out = {0};
        if (strcmp(kind, "nfc") == 0) {
            CHECK(pvl_nfc(&out, in, n, NULL) == PVL_OK);
            CHECK(!pvl_nfc_quick(in, n) || (n == m && memcmp(in, expected, n) == 0));
            rows[0]++;
        } else if (strcmp(kind, "replace") == 0) {
            CHECK(pvl_utf8_sanitize(&out, in, n, PVL_REPLACE_SUBPARTS, NULL) == PVL_OK);
            CHECK(pvl_utf8_valid(in, n) == (n == m && memcmp(in, expected, n) == 0));
            rows[1]++;
        } else if (strcmp(kind, "strip") == 0) {
            pvl_span s = pvl_unicode_strip((pvl_span){in, n});
            CHECK(pvl_text_append(&out, s.data, s.bytes, NULL) == PVL_OK);
            rows[2]++;
        } else {
            uint64_t digest = fnv_start;
            for (uint32_t cp = 0; cp < 0x110000; cp++) {
                char c[4];
                if (cp >= 0xD800 && cp < 0xE000)
                    continue;
                if (strcmp(in, "class") == 0) {
                    unsigned value =
                        pvl_unicode_class(cp) | (pvl_unicode_is_python_space(cp) ? 8u : 0);
                    digest = (digest ^ value) * fnv_prime;
                    continue;
                }
                out.bytes = 0;
                CHECK(pvl_nfc(&out, c, pvl_utf8_encode(c, cp), NULL) == PVL_OK);
                for (size_t i = 0; i < out.bytes; i++)
                    digest = (digest ^ (unsigned char)out.data[i]) * fnv_prime;
            }
            CHECK_MSG(digest == strtoull(out_hex, NULL, 16), "digest of %s: %016" PRIx64, in,
                      digest);
            pvl_text_free(&out);
            free(in);
            free(expected);
            rows[3]++;
            continue;
        }
        CHECK_MSG(out.bytes == m && (m == 0 || memcmp(out.data, expected, m) == 0),
                  "%s of %s is not %s", kind, in_hex, out_hex);
        pvl_text_free(&out);
        free(in);
        free(expected);
    }
    free(data);
    CHECK_EQ_INT(rows[0], 431);
    CHECK_EQ_INT(rows[1], 300);
    CHECK_EQ_INT(rows[2], 60);
    CHECK_EQ_INT(rows[3], 2);
}

TEST(every_code_point_goes_there_and_back) {
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char c[4];
        uint32_t back;
        size_t n = pvl_utf8_encode(c, cp);
        bool surrogate = cp >= 0xD800 && cp < 0xE000;
        size_t used = pvl_utf8_decode(&back, c, n);
        if (surrogate ? back != PVL_UTF8_BAD : (back != cp || used != n))
            FAIL("U+%04X comes back as U+%04X, %zu of %zu bytes", cp, back, used, n);
        if (n > 1 && !surrogate) {
            used = pvl_utf8_decode(&back, c, n - 1);
            if (back != PVL_UTF8_SHORT || used != n - 1)
                FAIL("cut U+%04X: U+%04X, %zu bytes", cp, back, used);
        }
    }
}

TEST(bad_bytes_are_replaced_one_by_one_for_sentencepiece) {
    pvl_text out = {0};
    CHECK(pvl_utf8_sanitize(&out, "a\xE4\xBD\xF0\x9F\x98z", 7, PVL_REPLACE_BYTES, NULL) == PVL_OK);
    REQUIRE(out.bytes == 2 + 5 * 3);
    CHECK_MEM(out.data, "a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz", 17);
    pvl_text_free(&out);
}

TEST(long_runs_of_marks_are_sorted_in_linear_time) {
    enum { PAIRS = 300000 };
    char *text = malloc(1 + PAIRS * 4);
    pvl_text out = {0};
    REQUIRE(text);
    text[0] = 'q';
    for (size_t i = 0; i < PAIRS; i++)
        memcpy(text + 1 + 4 * i, "\xCC\x87\xCC\xA3", 4);
    CHECK(pvl_nfc(&out, text, 1 + PAIRS * 4, NULL) == PVL_OK);
    REQUIRE(out.bytes == 1 + PAIRS * 4);
    size_t wrong = out.data[0] != 'q';
    for (size_t i = 0; i < 2 * (size_t)PAIRS; i++)
        wrong += memcmp(out.data + 1 + 2 * i, i < PAIRS ? "\xCC\xA3" : "\xCC\x87", 2) != 0;
    CHECK_EQ_UINT(wrong, 0);
    pvl_text_free(&out);
    free(text);
}

TEST_MAIN(CASE(rows_from_python), CASE(every_code_point_goes_there_and_back),
          CASE(bad_bytes_are_replaced_one_by_one_for_sentencepiece),
          CASE(long_runs_of_marks_are_sorted_in_linear_time))
