#include "image/tiles.h"

#include <math.h>

pvl_status pvl_tiles_choose(pvl_tile_grid *out, size_t width, size_t height, int tile_size,
                            int max_tiles, pvl_error *err) {
    *out = (pvl_tile_grid){0};
    if (max_tiles < 1 || max_tiles > PVL_MAX_TILES)
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "The largest number of tiles is %d, but must be between 1 and %d.",
                        max_tiles, PVL_MAX_TILES);
    if (tile_size < 1 || tile_size > PVL_MAX_SIDE)
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "The side of a tile is %d pixels, but must be between 1 and %d.", tile_size,
                        PVL_MAX_SIDE);
    if (width == 0 || height == 0)
        return pvl_fail(err, PVL_E_IMAGE,
                        "The picture is %zu x %zu pixels, so there is nothing to see.", width,
                        height);

    double aspect = (double)width / (double)height;
    double area = (double)width * (double)height;
    double tile_area = (double)tile_size * (double)tile_size;
    double best_diff = HUGE_VAL;
    int best_columns = 1, best_rows = 1;
    /* In order of the number of tiles, as the reference sorts; the order within one number never
     * changes the result. */
    for (int count = 1; count <= max_tiles; count++) {
        for (int columns = 1; columns <= count; columns++) {
            if (count % columns != 0)
                continue;
            int rows = count / columns;
            double diff = fabs(aspect - (double)columns / (double)rows);
            /* The equality is meant exactly: 2x2 after 1x1 has the same quotient, bit for bit. */
            bool nearer = diff < best_diff;
            bool finer =
                diff == best_diff && area > 0.5 * tile_area * (double)columns * (double)rows;
            if (nearer || finer) {
                best_diff = diff;
                best_columns = columns;
                best_rows = rows;
            }
        }
    }
    out->columns = best_columns;
    out->rows = best_rows;
    out->count = best_columns * best_rows;
    out->thumbnail = out->count > 1;
    return PVL_OK;
}
