/* SHA-256 against the examples of FIPS 180-4. */
#include "../test.h"

#include "tools/sha256.h"

static void check_digest(const char *text, size_t n, size_t portion, const char *expected) {
    pvl_sha256 s;
    unsigned char digest[32];
    char hex[65];
    pvl_sha256_init(&s);
    for (size_t at = 0; at < n; at += portion)
        pvl_sha256_add(&s, text + at, n - at < portion ? n - at : portion);
    pvl_sha256_end(&s, digest);
    pvl_sha256_hex(hex, digest);
    CHECK_STR(hex, expected);
}

TEST(published_examples) {
    static const char two[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check_digest("", 0, 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_digest("abc", 3, 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_digest(two, 56, 56, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(any_portions) {
    static char text[1000000];
    static const char expected[] =
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
    memset(text, 'a', sizeof text);
    static const size_t portions[] = {1, 7, 55, 56, 63, 64, 65, 119, 120, 1000, 65536, sizeof text};
    for (size_t i = 0; i < sizeof portions / sizeof *portions; i++)
        check_digest(text, sizeof text, portions[i], expected);
}

TEST_MAIN(CASE(published_examples), CASE(any_portions))
