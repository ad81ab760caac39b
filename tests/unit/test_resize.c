/* Resizing against Pillow, byte for byte, and tiles against torch, bit for bit
 * (tests/oracle/image_resize.py). */
#include "../test.h"

#include "base/alloc.h"
#include "image/resize.h"

static uint64_t fnv(uint64_t h, const void *data, size_t bytes) {
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++)
        h = (h ^ p[i]) * 0x100000001B3u;
    return h;
}
static const uint64_t fnv_start = 0xCBF29CE484222325u;

/* The source pictures of image_resize.py. */
static uint8_t *picture(const char *kind, size_t width, size_t height) {
    size_t n = width * height * 3;
    uint8_t *out = malloc(n);
    for (size_t k = 0; out && k < n; k++) {
        uint64_t i = k, x = i / 3 % width, y = i / 3 / width, c = i % 3, v;
        uint32_t product = (uint32_t)(i * 2654435761u);
        uint32_t noise = ((product + 12345u) ^ product >> 15) * 2246822519u >> 24;
        if (kind[0] == 'n')
            v = noise;
        else if (kind[0] == 'e')
            v = (x + 2 * y + 5 * c) / 37 % 2 == 1 ? 255 : 0;
        else
            v = x * 255 / width + y * (c + 1) + noise / 16;
        out[k] = (uint8_t)v;
    }
    return out;
}

static void check_resize(const char *kind, size_t w, size_t h, size_t w2, size_t h2, bool in_two,
                         uint64_t expected, pvl_team *team) {
    uint8_t *in = picture(kind, w, h), *out = malloc(w2 * h2 * 3), *mid = malloc(w2 * h * 3);
    REQUIRE(in && out && mid);
    pvl_error err = {0};
    pvl_status status = PVL_OK;
    if (in_two) {
        status = pvl_resize_rgb(mid, w2, h, in, w, h, team, NULL, &err);
        if (status == PVL_OK)
            status = pvl_resize_rgb(out, w2, h2, mid, w2, h, team, NULL, &err);
    } else {
        status = pvl_resize_rgb(out, w2, h2, in, w, h, team, NULL, &err);
    }
    CHECK_MSG(status == PVL_OK, "%s", err.message);
    CHECK_MSG(fnv(fnv_start, out, w2 * h2 * 3) == expected,
              "%s %zu x %zu to %zu x %zu%s: not Pillow's bytes", kind, w, h, w2, h2,
              in_two ? " in two calls" : "");
    free(in);
    free(out);
    free(mid);
}

static void check_tiles(const char *kind, size_t w, size_t h, int columns, int rows, int tile,
                        uint64_t expected, pvl_team *team) {
    pvl_tile_grid grid = {columns, rows, columns * rows, columns * rows > 1};
    pvl_tile_set set;
    pvl_error err = {0};
    uint8_t *in = picture(kind, w, h);
    size_t n = (size_t)tile * (size_t)tile * 3;
    float *out = malloc(n * sizeof *out);
    REQUIRE(in && out);
    pvl_status status = pvl_tile_set_make(&set, &grid, tile, in, w, h, team, NULL, &err);
    CHECK_MSG(status == PVL_OK, "%s", err.message);
    free(in);
    uint64_t sum = fnv_start;
    for (int k = 0; status == PVL_OK && k < pvl_tiles_total(&grid); k++) {
        pvl_tile_set_floats(out, &set, k, &pvl_normalization_imagenet);
        sum = fnv(sum, out, n * sizeof *out);
    }
    CHECK_MSG(sum == expected, "%s %zu x %zu as %d x %d tiles of %d: not torch's floats", kind, w,
              h, columns, rows, tile);
    pvl_tile_set_free(&set);
    free(out);
}

/* Every line of the fixture with the given team; returns how many lines held. */
static int check_fixture(pvl_team *team) {
    size_t bytes;
    unsigned char *text = test_read_file("tests/fixtures/image/resize.csv", &bytes);
    int lines = 0;
    for (char *line = (char *)text; line && *line; line = strchr(line, '\n') + 1) {
        char kind[16];
        size_t w, h, w2, h2;
        int columns, rows, tile;
        uint64_t sum;
        if (sscanf(line, "resize,%15[a-z],%zu,%zu,%zu,%zu,%" SCNx64, kind, &w, &h, &w2, &h2,
                   &sum) == 6)
            check_resize(kind, w, h, w2, h2, false, sum, team);
        else if (sscanf(line, "across,%15[a-z],%zu,%zu,%zu,%zu,%" SCNx64, kind, &w, &h, &w2, &h2,
                        &sum) == 6)
            check_resize(kind, w, h, w2, h2, true, sum, team);
        else if (sscanf(line, "tiles,%15[a-z],%zu,%zu,%d,%d,%d,%" SCNx64, kind, &w, &h, &columns,
                        &rows, &tile, &sum) == 7)
            check_tiles(kind, w, h, columns, rows, tile, sum, team);
        else if (sscanf(line, "values,%" SCNx64, &sum) != 1)
            FAIL("resize.csv holds a line of no known kind");
        lines++;
    }
    free(text);
    return lines;
}

TEST(equals_pillow) {
    CHECK_EQ_INT(check_fixture(NULL), 69);
}

TEST(equals_pillow_with_a_team) {
    pvl_team *team;
    pvl_error err = {0};
    REQUIRE(pvl_team_start(&team, NULL, 3, &err) == PVL_OK);
    CHECK_EQ_INT(check_fixture(team), 69);
    pvl_team_stop(team);
}

/* All 256 levels under the three channels' constants. */
TEST(levels_as_floats) {
    size_t bytes;
    unsigned char *text = test_read_file("tests/fixtures/image/resize.csv", &bytes);
    REQUIRE(text);
    const char *line = strstr((char *)text, "values,");
    uint64_t expected = 0;
    REQUIRE(line && sscanf(line, "values,%" SCNx64, &expected) == 1);
    free(text);
    uint8_t in[256 * 3];
    for (size_t i = 0; i < sizeof in; i++)
        in[i] = (uint8_t)(i / 3);
    pvl_tile_grid grid = {1, 1, 1, false};
    pvl_tile_set set;
    REQUIRE(pvl_tile_set_make(&set, &grid, 16, in, 16, 16, NULL, NULL, NULL) == PVL_OK);
    float out[3 * 256];
    pvl_tile_set_floats(out, &set, 0, &pvl_normalization_imagenet);
    CHECK_EQ_UINT(fnv(fnv_start, out, sizeof out), expected);
    CHECK_NEAR(out[0], -0.485 / 0.229, 1e-6);
    CHECK_NEAR(out[767], (1 - 0.406) / 0.225, 1e-6);
    pvl_tile_set_free(&set);
}

/* Memory: what the largest single request was, and failing the nth request. */
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

TEST(little_memory_for_a_large_picture) {
    counter c = {0};
    pvl_allocator a = {counted_alloc, counted_free, &c};
    static const size_t sizes[][2] = {{4000, 3000}, {3000, 4000}, {1000, 12000}, {12000, 1000}};
    for (size_t i = 0; i < 4; i++) {
        uint8_t *in = picture("scene", sizes[i][0], sizes[i][1]),
                *out = malloc((size_t)448 * 448 * 3);
        REQUIRE(in && out);
        CHECK_EQ_INT(pvl_resize_rgb(out, 448, 448, in, sizes[i][0], sizes[i][1], NULL, &a, NULL),
                     PVL_OK);
        CHECK_EQ_UINT(c.live, 0);
        free(in);
        free(out);
    }
    CHECK_MSG(c.peak < 6 << 20, "%zu bytes beside the output", c.peak);
}

TEST(every_allocation_may_fail) {
    uint8_t *in = picture("noise", 60, 90);
    REQUIRE(in);
    pvl_tile_grid grid = {2, 2, 4, true};
    for (size_t n = 1;; n++) {
        counter c = {.fail_at = n};
        pvl_allocator a = {counted_alloc, counted_free, &c};
        pvl_tile_set set;
        pvl_error err = {0};
        pvl_status status = pvl_tile_set_make(&set, &grid, 28, in, 60, 90, NULL, &a, &err);
        if (status == PVL_OK) {
            CHECK(n > 10);
            pvl_tile_set_free(&set);
            CHECK_EQ_UINT(c.live, 0);
            break;
        }
        CHECK_EQ_INT(status, PVL_E_MEMORY);
        CHECK_EQ_INT(err.code, PVL_E_MEMORY);
        CHECK(set.pixels == NULL);
        CHECK_EQ_UINT(c.live, 0);
        REQUIRE(n < 1000);
    }
    free(in);
}

TEST(refuses) {
    uint8_t one[3] = {0};
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_resize_rgb(one, 0, 1, one, 1, 1, NULL, NULL, &err), PVL_E_ARGUMENT);
    CHECK_CONTAINS(err.message, "sides are 1 to 65535");
    CHECK_EQ_INT(pvl_resize_rgb(one, 1, 1, one, 65536, 1, NULL, NULL, NULL), PVL_E_ARGUMENT);
    pvl_tile_set set;
    pvl_tile_grid none = {0, 0, 0, false}, huge = {40, 1, 40, true};
    CHECK_EQ_INT(pvl_tile_set_make(&set, &none, 448, one, 1, 1, NULL, NULL, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_tile_set_make(&set, &huge, 65535, one, 1, 1, NULL, NULL, NULL),
                 PVL_E_ARGUMENT);
    CHECK(set.pixels == NULL);
}

TEST_MAIN(CASE(equals_pillow), CASE(equals_pillow_with_a_team), CASE(levels_as_floats),
          CASE(little_memory_for_a_large_picture), CASE(every_allocation_may_fail), CASE(refuses))
