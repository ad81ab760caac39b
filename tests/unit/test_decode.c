/* Decoding against Pillow (tests/oracle/image_pictures.py), and files that are damaged, hostile or
 * no pictures at all. */
#include "../test.h"

#include "base/alloc.h"
#include "image/exif.h"
#include "image/probe.h"
#include "pocketvl.h"

static const char folder[] = "tests/fixtures/image/";

static uint64_t fnv(const void *data, size_t bytes) {
    const unsigned char *p = data;
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * 0x100000001B3u;
    return h;
}

static unsigned char *read_fixture(const char *name, size_t *bytes) {
    char path[200];
    snprintf(path, sizeof path, "%s%s", folder, name);
    return test_read_file(path, bytes);
}

static pvl_image *decode_fixture(const char *name, const pvl_image_options *options) {
    size_t bytes;
    unsigned char *file = read_fixture(name, &bytes);
    pvl_image *image = NULL;
    pvl_error err = {0};
    if (file) {
        pvl_status status = pvl_image_decode(&image, NULL, file, bytes, options, &err);
        CHECK_MSG(status == PVL_OK, "%s: %s", name, err.message);
        CHECK((status == PVL_OK) == (image != NULL));
    }
    free(file);
    return image;
}

/* ---- pictures that must come out right ---- */

static void check_exact(const char *name, const pvl_image_options *options, size_t width,
                        size_t height, uint64_t sum) {
    pvl_image *image = decode_fixture(name, options);
    if (!image)
        return;
    CHECK_EQ_UINT(pvl_image_width(image), width);
    CHECK_EQ_UINT(pvl_image_height(image), height);
    CHECK_MSG(fnv(pvl_image_pixels(image), pvl_image_width(image) * pvl_image_height(image) * 3) ==
                  sum,
              "%s: not the pixels that Pillow sees", name);
    pvl_image_free(image);
}

static void check_near(const char *name, const char *reference, double max_bound,
                       double mean_bound) {
    pvl_image *a = decode_fixture(name, NULL), *b = decode_fixture(reference, NULL);
    if (a && b) {
        CHECK_EQ_UINT(pvl_image_width(a), pvl_image_width(b));
        CHECK_EQ_UINT(pvl_image_height(a), pvl_image_height(b));
        size_t n = pvl_image_width(a) * pvl_image_height(a) * 3;
        const uint8_t *x = pvl_image_pixels(a), *y = pvl_image_pixels(b);
        int largest = 0;
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            int d = abs(x[i] - y[i]);
            largest = d > largest ? d : largest;
            sum += d;
        }
        CHECK_MSG(largest <= max_bound && sum <= mean_bound * (double)n,
                  "%s: largest difference to Pillow %d (at most %g), mean %.3f (at most %g)", name,
                  largest, max_bound, sum / (double)n, mean_bound);
    }
    pvl_image_free(a);
    pvl_image_free(b);
}

TEST(pictures) {
    static const pvl_image_options hidden = {.keep_hidden_colour = true},
                                   as_is = {.ignore_orientation = true};
    size_t bytes;
    unsigned char *text = read_fixture("pictures.csv", &bytes);
    REQUIRE(text);
    int lines = 0;
    for (char *line = (char *)text; *line; line = strchr(line, '\n') + 1, lines++) {
        char name[64], reference[64];
        size_t w, h;
        uint64_t sum;
        double largest, mean;
        if (sscanf(line, "exact,%63[^,],%zu,%zu,%" SCNx64, name, &w, &h, &sum) == 4)
            check_exact(name, NULL, w, h, sum);
        else if (sscanf(line, "hidden,%63[^,],%zu,%zu,%" SCNx64, name, &w, &h, &sum) == 4)
            check_exact(name, &hidden, w, h, sum);
        else if (sscanf(line, "asis,%63[^,],%zu,%zu,%" SCNx64, name, &w, &h, &sum) == 4)
            check_exact(name, &as_is, w, h, sum);
        else if (sscanf(line, "near,%63[^,],%63[^,],%lf,%lf", name, reference, &largest, &mean) ==
                 4)
            check_near(name, reference, largest, mean);
        else
            FAIL("pictures.csv holds a line of no known kind");
    }
    CHECK(lines > 40);
    free(text);
}

TEST(from_rgba) {
    static const uint8_t rgba[] = {10, 20, 30, 255, 0, 0, 0, 0, 0, 100, 200, 128, 255, 255, 255, 7};
    static const uint8_t rgb[] = {10, 20, 30, 255, 255, 255, 127, 177, 227, 255, 255, 255};
    pvl_image *image;
    REQUIRE(pvl_image_from_rgba(&image, NULL, rgba, 2, 2, NULL) == PVL_OK);
    CHECK_EQ_UINT(pvl_image_width(image), 2);
    CHECK_EQ_UINT(pvl_image_height(image), 2);
    CHECK_MEM(pvl_image_pixels(image), rgb, sizeof rgb);
    pvl_image_free(image);
    pvl_image_free(NULL);
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_image_from_rgba(&image, NULL, rgba, 0, 2, &err), PVL_E_IMAGE);
    CHECK(image == NULL);
    CHECK_EQ_INT(pvl_image_from_rgba(&image, NULL, rgba, 65536, 1, NULL), PVL_E_LIMIT);
    CHECK_EQ_INT(pvl_image_from_rgba(&image, NULL, rgba, 60000, 60000, NULL), PVL_E_LIMIT);
    CHECK_EQ_INT(pvl_image_from_rgba(&image, NULL, NULL, 1, 1, NULL), PVL_E_ARGUMENT);
}

/* ---- what is refused, and how ---- */

static void check_refused(const char *what, const void *file, size_t bytes, pvl_status code,
                          const char *piece) {
    pvl_image *image = NULL;
    pvl_error err = {0};
    pvl_status status = pvl_image_decode(&image, NULL, file, bytes, NULL, &err);
    CHECK_MSG(status == code && err.code == code, "%s: %s (%s), expected %s", what,
              pvl_status_name(status), err.message, pvl_status_name(code));
    CHECK_CONTAINS(err.message, piece);
    CHECK(image == NULL);
    pvl_image_free(image);
}

TEST(not_pictures) {
    check_refused("empty", "", 0, PVL_E_IMAGE, "empty");
    check_refused("no bytes", NULL, 0, PVL_E_IMAGE, "empty");
    check_refused("no file", NULL, 5, PVL_E_ARGUMENT, "without a file");
    check_refused("text", "Hello, this is a letter.", 24, PVL_E_IMAGE, "not a picture");
    check_refused("one byte", "\xFF", 1, PVL_E_IMAGE, "not a picture");
    check_refused("zeros", (const char[64]){0}, 64, PVL_E_IMAGE, "not a picture");
    check_refused("BM and words", "BMX is a sport on small bicycles, with jumps.", 45, PVL_E_IMAGE,
                  "not a picture");
    static const struct {
        const char *magic;
        size_t bytes;
        const char *name;
    } others[] = {
        {"RIFF\x10\0\0\0WEBPVP8 ", 16, "WebP"},
        {"\0\0\0\x1C"
         "ftypavif\0\0\0\0",
         16, "AVIF"},
        {"\0\0\0\x1C"
         "ftypheic\0\0\0\0",
         16, "HEIC"},
        {"\0\0\0\x1C"
         "ftypmp42\0\0\0\0",
         16, "video"},
        {"II*\0\x08\0\0\0", 8, "TIFF"},
        {"MM\0*\0\0\0\x08", 8, "TIFF"},
        {"%PDF-1.7\n", 9, "PDF"},
        {"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", 41, "SVG"},
        {"\xEF\xBB\xBF<?xml version=\"1.0\"?>\n<svg/>", 31, "SVG"},
        {"\xFF\x0A\xFA\x7F", 4, "JPEG XL"},
        {"8BPS\0\1", 6, "Photoshop"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        check_refused(others[i].name, others[i].magic, others[i].bytes, PVL_E_UNSUPPORTED,
                      others[i].name);
}

static void put32(unsigned char *p, uint32_t v) {
    for (int i = 0; i < 4; i++)
        p[i] = (unsigned char)(v >> (24 - 8 * i));
}

static uint32_t crc(const unsigned char *p, size_t n) {
    uint32_t c = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
    }
    return ~c;
}

/* The size is judged by the header, before anything is allocated for it. */
TEST(too_large) {
    size_t bytes;
    unsigned char *file = read_fixture("one.png", &bytes);
    REQUIRE(file);
    static const struct {
        uint32_t width, height;
        pvl_status code;
    } sizes[] = {
        {20000, 20000, PVL_E_LIMIT}, {65536, 1, PVL_E_LIMIT},
        {1, 65536, PVL_E_LIMIT},     {0xFFFFFFFF, 0xFFFFFFFF, PVL_E_LIMIT},
        {0, 1, PVL_E_IMAGE},         {10000, 12001, PVL_E_LIMIT},
        {1, 0, PVL_E_IMAGE},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        put32(file + 16, sizes[i].width);
        put32(file + 20, sizes[i].height);
        put32(file + 29, crc(file + 12, 17));
        check_refused("a changed size", file, bytes, sizes[i].code,
                      sizes[i].code == PVL_E_LIMIT ? "limit of 120" : "nothing to see");
    }
    /* A size within the limits that the data does not fill. */
    put32(file + 16, 3000);
    put32(file + 20, 3000);
    put32(file + 29, crc(file + 12, 17));
    check_refused("too few pixels", file, bytes, PVL_E_IMAGE, "PNG");
    free(file);
}

/* A small file that unpacks to much more than its picture must not take the memory for it. */
typedef struct counter {
    size_t live, peak, fail_at, calls;
} counter;

static void *counted_alloc(void *ctx, size_t bytes) {
    counter *c = ctx;
    if (++c->calls == c->fail_at)
        return NULL;
    size_t *p = aligned_alloc(64, (bytes + 127) / 64 * 64);
    if (!p)
        return NULL;
    *p = bytes;
    c->live += bytes;
    if (c->live > c->peak)
        c->peak = c->live;
    return (char *)p + 64;
}

static void counted_free(void *ctx, void *p) {
    counter *c = ctx;
    size_t *head = (size_t *)(void *)((char *)p - 64);
    c->live -= *head;
    free(head);
}

TEST(unpacks_to_too_much) {
    size_t bytes;
    unsigned char *file = read_fixture("bomb.png", &bytes);
    REQUIRE(file);
    counter c = {0};
    pvl_allocator a = {counted_alloc, counted_free, &c};
    pvl_image *image;
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_image_decode(&image, &a, file, bytes, NULL, &err), PVL_E_IMAGE);
    CHECK_CONTAINS(err.message, "unpacks to more");
    CHECK_EQ_UINT(c.live, 0);
    CHECK(c.peak < 8 << 20);
    free(file);
}

TEST(a_hundred_megapixels) {
    pvl_image *image = decode_fixture("huge.png", NULL);
    REQUIRE(image);
    CHECK_EQ_UINT(pvl_image_width(image), 10000);
    CHECK_EQ_UINT(pvl_image_height(image), 10000);
    const uint8_t *p = pvl_image_pixels(image);
    CHECK(p[0] == 255 && p[299999999] == 255 && p[(size_t)5000 * 30000 + 15000] == 0);
    pvl_image_free(image);
}

static const char *const all[] = {
    "photo_420.jpg",  "photo_progressive.jpg", "photo_restart.jpg", "photo_cmyk.jpg",
    "photo_grey.jpg", "turned_6.jpg",          "one.jpg",           "alpha.png",
    "palette_16.png", "palette_clear.png",     "interlaced.png",    "grey_16.png",
    "turned_6.png",   "animated.gif",          "interlaced.gif",    "clear.gif",
    "photo.bmp",      "palette.bmp",           "alpha.bmp",         "bits.bmp",
};
enum { ALL = sizeof all / sizeof *all };

/* Cut at every byte: refused, or, where what is missing carries no pixel, the same picture. */
TEST(cut_off_anywhere) {
    for (size_t k = 0; k < ALL; k++) {
        size_t bytes, accepted = 0;
        unsigned char *file = read_fixture(all[k], &bytes);
        REQUIRE(file);
        for (size_t n = 0; n < bytes; n++) {
            unsigned char *part = malloc(n ? n : 1); /* exact size, for the address sanitizer */
            REQUIRE(part);
            memcpy(part, file, n);
            pvl_image *image = NULL;
            pvl_error err = {0};
            pvl_status status = pvl_image_decode(&image, NULL, part, n, NULL, &err);
            if (status == PVL_OK)
                accepted++;
            else
                CHECK_MSG(status == PVL_E_IMAGE && err.message[0], "%s cut to %zu: %s", all[k], n,
                          err.message);
            pvl_image_free(image);
            free(part);
        }
        /* Behind the first picture a GIF may hold more pictures and an end mark. A BMP may lack its
         * padding. */
        bool gif = strstr(all[k], ".gif"), bmp = strstr(all[k], ".bmp");
        CHECK_MSG(accepted == 0 || gif || (bmp && accepted < 4), "%s: %zu cut files accepted",
                  all[k], accepted);
        if (gif && strcmp(all[k], "animated.gif") != 0)
            CHECK_EQ_UINT(accepted, 1);
        free(file);
    }
}

/* Bytes changed at random: any status, but no crash, no leak, no read outside. */
TEST(damaged_at_random) {
    test_rng rng = test_rng_start(77);
    size_t refused = 0, tried = 0;
    for (size_t k = 0; k < ALL; k++) {
        size_t bytes;
        unsigned char *file = read_fixture(all[k], &bytes);
        REQUIRE(file);
        bool png = strstr(all[k], ".png");
        unsigned char *copy = malloc(bytes);
        REQUIRE(copy);
        for (int round = 0; round < 150; round++) {
            memcpy(copy, file, bytes);
            size_t changes = 1 + test_rng_below(&rng, 4);
            for (size_t i = 0; i < changes; i++) {
                /* Half of the changes in the first bytes, where the structure is. */
                size_t span = test_rng_below(&rng, 2) && bytes > 700 ? 700 : bytes;
                copy[test_rng_below(&rng, span)] = (unsigned char)test_rng_u32(&rng);
            }
            /* PNG: mend the checksums, or nothing behind them would ever be reached. */
            for (size_t at = 8; png && at + 12 <= bytes;) {
                size_t n = (size_t)copy[at] << 24 | (size_t)copy[at + 1] << 16 |
                           (size_t)copy[at + 2] << 8 | copy[at + 3];
                if (n > bytes - at - 12)
                    break;
                put32(copy + at + 8 + n, crc(copy + at + 4, n + 4));
                at += 12 + n;
            }
            counter c = {0};
            pvl_allocator a = {counted_alloc, counted_free, &c};
            pvl_image *image = NULL;
            pvl_error err = {0};
            pvl_status status = pvl_image_decode(&image, &a, copy, bytes, NULL, &err);
            CHECK((status == PVL_OK) == (image != NULL));
            CHECK(status == PVL_OK || (err.code == status && err.message[0]));
            CHECK_MSG(status == PVL_OK || status == PVL_E_IMAGE || status == PVL_E_UNSUPPORTED ||
                          status == PVL_E_LIMIT,
                      "%s: %s", all[k], err.message);
            pvl_image_free(image);
            CHECK_EQ_UINT(c.live, 0);
            refused += status != PVL_OK;
            tried++;
        }
        free(copy);
        free(file);
    }
    CHECK(refused > tried / 10);
}

TEST(every_allocation_may_fail) {
    static const char *const names[] = {"photo_420.jpg", "photo_progressive.jpg", "turned_6.jpg",
                                        "alpha.png",     "grey_16.png",           "animated.gif",
                                        "palette.bmp"};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        size_t bytes;
        unsigned char *file = read_fixture(names[k], &bytes);
        REQUIRE(file);
        for (size_t n = 1;; n++) {
            counter c = {.fail_at = n};
            pvl_allocator a = {counted_alloc, counted_free, &c};
            pvl_image *image;
            pvl_error err = {0};
            pvl_status status = pvl_image_decode(&image, &a, file, bytes, NULL, &err);
            if (status == PVL_OK) {
                CHECK(n > 2);
                pvl_image_free(image);
                CHECK_EQ_UINT(c.live, 0);
                break;
            }
            CHECK_MSG(status == PVL_E_MEMORY, "%s, request %zu: %s", names[k], n, err.message);
            CHECK_EQ_UINT(c.live, 0);
            REQUIRE(n < 1000);
        }
        free(file);
    }
}

/* A Huffman table of more than 256 codes overruns the decoder's buffers; it must not get there. */
TEST(hostile_huffman_table) {
    unsigned char file[2 + 4 + 17 + 300] = {0xFF, 0xD8, 0xFF, 0xC4, 0, 0, 0x10};
    size_t length = 2 + 17 + 300;
    file[4] = (unsigned char)(length >> 8);
    file[5] = (unsigned char)length;
    file[6 + 16] = 255;
    file[6 + 15] = 45;
    check_refused("table of 300 codes", file, sizeof file, PVL_E_IMAGE, "Huffman");
    file[6 + 1] = 3; /* three codes of one bit */
    check_refused("impossible code", file, sizeof file, PVL_E_IMAGE, "Huffman");
}

/* A progressive file that repeats its scans in a few bytes each would keep the decoder busy for
 * minutes. */
TEST(endless_scans) {
    size_t bytes;
    unsigned char *file = read_fixture("photo_progressive.jpg", &bytes);
    REQUIRE(file);
    size_t scan = 0;
    for (size_t i = 2; i + 1 < bytes && !scan; i++) {
        if (file[i] == 0xFF && file[i + 1] == 0xDA)
            scan = i;
    }
    REQUIRE(scan > 0);
    size_t header = 2 + ((size_t)file[scan + 2] << 8) + file[scan + 3],
           total = scan + 200 * header + 2;
    unsigned char *copy = malloc(total);
    REQUIRE(copy);
    memcpy(copy, file, scan);
    for (size_t i = 0; i < 200; i++)
        memcpy(copy + scan + i * header, file + scan, header);
    memcpy(copy + total - 2, "\xFF\xD9", 2);
    check_refused("200 scans", copy, total, PVL_E_LIMIT, "100 times");
    free(copy);
    free(file);
}

/* ---- EXIF ---- */

TEST(exif_orientation) {
    unsigned char tiff[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0,
                            3,   0,   0, 0,  1, 0, 6, 0, 0, 0, 0, 0,    0};
    CHECK_EQ_INT(pvl_exif_orientation(tiff, sizeof tiff), 6);
    for (size_t n = 0; n < 22; n++) {
        unsigned char *part = malloc(n ? n : 1);
        REQUIRE(part);
        memcpy(part, tiff, n);
        CHECK_EQ_INT(pvl_exif_orientation(part, n), 1);
        free(part);
    }
    tiff[19] = 9;
    CHECK_EQ_INT(pvl_exif_orientation(tiff, sizeof tiff), 1);
    tiff[19] = 0;
    CHECK_EQ_INT(pvl_exif_orientation(tiff, sizeof tiff), 1);
    memcpy(tiff + 4, "\xFF\xFF\xFF\xFF", 4);
    CHECK_EQ_INT(pvl_exif_orientation(tiff, sizeof tiff), 1);
    const unsigned char little[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12,
                                    1,   3,   0,  1, 0, 0, 0, 8, 0, 0, 0};
    CHECK_EQ_INT(pvl_exif_orientation(little, sizeof little), 8);
}

/* The corners of a 2x3 picture, by the letters of where they must end up. */
TEST(exif_turns) {
    static const char *const upright[9] = {NULL,     "abcdef", "badcfe", "fedcba", "efcdab",
                                           "acebdf", "ecafdb", "fdbeca", "bdface"};
    uint8_t in[18], out[18];
    for (int i = 0; i < 18; i++)
        in[i] = (uint8_t)("abcdef"[i / 3]);
    for (int o = 1; o <= 8; o++) {
        pvl_exif_upright(out, in, 2, 3, o);
        char got[7] = {0};
        for (int i = 0; i < 6; i++)
            got[i] = (char)out[3 * i];
        CHECK_STR(got, upright[o]);
    }
}

TEST_MAIN(CASE(pictures), CASE(from_rgba), CASE(not_pictures), CASE(too_large),
          CASE(unpacks_to_too_much), CASE(a_hundred_megapixels), CASE(cut_off_anywhere),
          CASE(damaged_at_random), CASE(every_allocation_may_fail), CASE(hostile_huffman_table),
          CASE(endless_scans), CASE(exif_orientation), CASE(exif_turns))
