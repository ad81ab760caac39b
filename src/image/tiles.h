/* Dynamic tiling: into which grid of square tiles a picture is cut.
 *
 * The choice is InternVL's `dynamic_preprocess`: of all grids of columns x rows <= max_tiles the
 * one whose aspect ratio is nearest to the picture's; among grids of exactly that ratio a finer one
 * only if the picture has more than half of the grid's pixels. The picture is then resized to the
 * grid ignoring its aspect ratio and cut row by row; with more than one tile, the whole picture
 * resized to one tile (the thumbnail) comes last. Pure functions, no memory. */
#ifndef PVL_IMAGE_TILES_H
#define PVL_IMAGE_TILES_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

enum { PVL_MAX_TILES = 40 }; /* largest grid; the thumbnail comes on top */

typedef struct pvl_tile_grid {
    int columns, rows;
    int count;      /* columns * rows */
    bool thumbnail; /* count > 1 */
} pvl_tile_grid;

/* Grid for a picture of width x height pixels. tile_size: side of a tile in pixels (the model's
 * image size, 448 in the published models). max_tiles: 1..PVL_MAX_TILES, without the thumbnail.
 * PVL_E_ARGUMENT when max_tiles or tile_size is out of range, PVL_E_IMAGE for a picture without
 * pixels. */
pvl_status pvl_tiles_choose(pvl_tile_grid *out, size_t width, size_t height, int tile_size,
                            int max_tiles, pvl_error *err);

/* Tiles with the thumbnail. */
static inline int pvl_tiles_total(const pvl_tile_grid *grid) {
    return grid->count + (grid->thumbnail ? 1 : 0);
}

#endif
