/* Grid choice against the published algorithm (tests/oracle/image_tiles.py). */
#include "../test.h"

#include "image/tiles.h"

static pvl_tile_grid choose(size_t width, size_t height, int tile, int max_tiles) {
    pvl_tile_grid grid;
    pvl_error err = {0};
    pvl_status status = pvl_tiles_choose(&grid, width, height, tile, max_tiles, &err);
    CHECK_MSG(status == PVL_OK, "%zu x %zu, %d: %s", width, height, max_tiles, err.message);
    return grid;
}

/* The table of the model's documentation: grid and tiles at most 6 and at most 12. */
TEST(known_pictures) {
    static const struct {
        int width, height, c6, r6, t6, c12, r12, t12;
    } rows[] = {
        {448, 448, 1, 1, 1, 1, 1, 1},    {1, 1, 1, 1, 1, 1, 1, 1},
        {633, 633, 1, 1, 1, 1, 1, 1},    {634, 634, 2, 2, 5, 2, 2, 5},
        {777, 777, 2, 2, 5, 2, 2, 5},    {1000, 1000, 2, 2, 5, 3, 3, 10},
        {640, 480, 3, 2, 7, 4, 3, 13},   {480, 640, 2, 3, 7, 3, 4, 13},
        {3840, 2160, 2, 1, 3, 4, 2, 9},  {1080, 1920, 1, 2, 3, 2, 4, 9},
        {500, 333, 3, 2, 7, 3, 2, 7},    {600, 300, 2, 1, 3, 2, 1, 3},
        {1344, 448, 3, 1, 4, 3, 1, 4},   {2688, 896, 3, 1, 4, 6, 2, 13},
        {1000, 100, 6, 1, 7, 10, 1, 11}, {4000, 100, 6, 1, 7, 12, 1, 13},
        {100, 1000, 1, 6, 7, 1, 10, 11},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int twelve = 0; twelve < 2; twelve++) {
            pvl_tile_grid g =
                choose((size_t)rows[i].width, (size_t)rows[i].height, 448, twelve ? 12 : 6);
            CHECK_EQ_INT(g.columns, twelve ? rows[i].c12 : rows[i].c6);
            CHECK_EQ_INT(g.rows, twelve ? rows[i].r12 : rows[i].r6);
            CHECK_EQ_INT(pvl_tiles_total(&g), twelve ? rows[i].t12 : rows[i].t6);
            CHECK_EQ_INT(g.count, g.columns * g.rows);
            CHECK(g.thumbnail == (g.count > 1));
        }
    }
}

static uint32_t step(uint32_t *state) {
    return *state = *state * 1664525u + 1013904223u;
}

/* The sizes of image_tiles.py, pair after pair. */
static void next_size(uint32_t *state, size_t *width, size_t *height) {
    uint32_t side[2];
    for (int i = 0; i < 2; i++) {
        uint32_t s = step(state);
        side[i] = 1 + (s >> 8 & 0xFFFF) % (1u << (1 + (s >> 24) % 14));
    }
    uint32_t s = *state;
    if (s >> 30 == 0) {
        side[1] = side[0] * (1 + (s >> 9) % 4) / (1 + (s >> 5) % 4) + 1 - (s >> 7) % 2;
        if (side[1] < 1)
            side[1] = 1;
    }
    *width = side[0];
    *height = side[1];
}

TEST(published_algorithm) {
    size_t bytes;
    unsigned char *text = test_read_file("tests/fixtures/image/tiles.csv", &bytes);
    REQUIRE(text);
    int grids = 0, sums = 0;
    for (char *line = (char *)text; *line; line = strchr(line, '\n') + 1) {
        int width, height, tile, max_tiles, columns, rows, cases;
        uint64_t expected;
        if (sscanf(line, "grid,%d,%d,%d,%d,%d,%d", &width, &height, &tile, &max_tiles, &columns,
                   &rows) == 6) {
            pvl_tile_grid g = choose((size_t)width, (size_t)height, tile, max_tiles);
            CHECK_MSG(g.columns == columns && g.rows == rows,
                      "%d x %d, at most %d tiles of %d: %d x %d, expected %d x %d", width, height,
                      max_tiles, tile, g.columns, g.rows, columns, rows);
            grids++;
        } else if (sscanf(line, "sum,%d,%d,%d,%" SCNx64, &max_tiles, &tile, &cases, &expected) ==
                   4) {
            uint32_t state = 12345;
            uint64_t h = 0xCBF29CE484222325u;
            for (int i = 0; i < cases; i++) {
                size_t w, ht;
                next_size(&state, &w, &ht);
                pvl_tile_grid g = choose(w, ht, tile, max_tiles);
                h = (h ^ (uint64_t)g.columns) * 0x100000001B3u;
                h = (h ^ (uint64_t)g.rows) * 0x100000001B3u;
            }
            CHECK_MSG(h == expected, "%d sizes, at most %d tiles of %d: checksum differs", cases,
                      max_tiles, tile);
            sums++;
        } else {
            FAIL("tiles.csv holds a line of no known kind");
        }
    }
    CHECK_EQ_INT(grids, 33 * 6);
    CHECK_EQ_INT(sums, 80);
    free(text);
}

TEST(refuses) {
    pvl_tile_grid g;
    static const int bad[] = {0, -1, 41, 1000000};
    for (size_t i = 0; i < 4; i++) {
        pvl_error err = {0};
        CHECK_EQ_INT(pvl_tiles_choose(&g, 10, 10, 448, bad[i], &err), PVL_E_ARGUMENT);
        CHECK_CONTAINS(err.message, "between 1 and 40");
    }
    CHECK_EQ_INT(pvl_tiles_choose(&g, 10, 10, 0, 1, NULL), PVL_E_ARGUMENT);
    CHECK_EQ_INT(pvl_tiles_choose(&g, 0, 10, 448, 1, NULL), PVL_E_IMAGE);
    CHECK_EQ_INT(pvl_tiles_choose(&g, 10, 0, 448, 1, NULL), PVL_E_IMAGE);
    CHECK_EQ_INT(g.count, 0);
}

TEST_MAIN(CASE(known_pictures), CASE(published_algorithm), CASE(refuses))
