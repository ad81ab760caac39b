/* Tiling and resize at any sizes: in bounds, the same with any number of threads, one colour stays
 * that colour, and no value leaves the range of its neighbours by more than bicubic overshoot
 * allows (clipped). */
#include "fuzz.h"

#include "base/threads.h"
#include "image/resize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static pvl_team *team;
    if (!team)
        HOLDS(pvl_team_start(&team, NULL, 2, NULL) == PVL_OK);
    fuzz_input in = {data, size};
    fuzz_memory memory = {.limit = 64 << 20};
    pvl_allocator a = {fuzz_alloc, fuzz_free, &memory};
    size_t mode = take(&in, 1), wide = mode & 1 ? 3000 : 90, w = take_between(&in, 1, wide),
           h = take_between(&in, 1, mode & 2 ? 3000 : 90), ow = take_between(&in, 1, 200),
           oh = take_between(&in, 1, 200);
    while (w * h > 200000)
        *(w > h ? &w : &h) /= 2;
    uint64_t state = take(&in, 8);
    bool flat = mode & 4;
    uint8_t colour[3] = {(uint8_t)state, (uint8_t)(state >> 8), (uint8_t)(state >> 16)};
    uint8_t *pixels = malloc(w * h * 3), *one = malloc(ow * oh * 3), *two = malloc(ow * oh * 3);
    HOLDS(pixels && one && two);
    for (size_t i = 0; i < w * h * 3; i++)
        pixels[i] = flat      ? colour[i % 3]
                    : in.left ? (uint8_t)take(&in, 1)
                              : (uint8_t)fuzz_random(&state);
    memset(two, 0xA5, ow * oh * 3);
    HOLDS(pvl_resize_rgb(one, ow, oh, pixels, w, h, NULL, &a, NULL) == PVL_OK);
    HOLDS(pvl_resize_rgb(two, ow, oh, pixels, w, h, mode & 32 ? team : NULL, &a, NULL) == PVL_OK);
    HOLDS(memcmp(one, two, ow * oh * 3) == 0);
    for (size_t i = 0; flat && i < ow * oh * 3; i++)
        HOLDS(one[i] == colour[i % 3]);
    if (w == ow && h == oh)
        HOLDS(memcmp(one, pixels, w * h * 3) == 0);

    int most = (int)take_between(&in, 0, PVL_MAX_TILES + 1), side = (int)take_between(&in, 0, 40);
    pvl_tile_grid grid;
    pvl_error err = {0};
    pvl_status status = pvl_tiles_choose(&grid, w, h, side, most, &err);
    check_status(status, &err);
    HOLDS((status == PVL_OK) == (most >= 1 && most <= PVL_MAX_TILES && side >= 1));
    if (status == PVL_OK) {
        HOLDS(grid.columns >= 1 && grid.rows >= 1 && grid.count == grid.columns * grid.rows &&
              grid.count <= most && grid.thumbnail == (grid.count > 1));
        memory.fail_at = mode & 8 ? memory.requests + 1 + (long)(mode >> 4) : 0;
        pvl_tile_set set = {0};
        err = (pvl_error){0};
        status =
            pvl_tile_set_make(&set, &grid, side, pixels, w, h, mode & 32 ? team : NULL, &a, &err);
        check_status(status, &err);
        HOLDS(status == PVL_OK || (memory.fail_at && status == PVL_E_MEMORY && !set.pixels));
        float *out = malloc((size_t)side * (size_t)side * 3 * sizeof *out);
        HOLDS(out != NULL);
        for (int i = 0; status == PVL_OK && i < pvl_tiles_total(&grid); i++)
            pvl_tile_set_floats(out, &set, i, &pvl_normalization_imagenet);
        free(out);
        pvl_tile_set_free(&set);
    }
    free(pixels);
    free(one);
    free(two);
    HOLDS(memory.alive == 0);
    return 0;
}
