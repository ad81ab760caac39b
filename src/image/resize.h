/* Pillow's bicubic resize, bit for bit, and the tiles of a picture as the vision tower takes them.
 *
 * pvl_resize_rgb equals Pillow's `Image.resize(size)` (BICUBIC, mode RGB, no reducing_gap) in every
 * byte. Per axis, source length n, target length m: the kernel (a = -0.5) is stretched by max(n/m,
 * 1), so that shrinking filters; weights are normalized in double and rounded to 22 fractional
 * bits; sums are int32 from 2^21 up and shifted right by 22. Two passes, each rounded to 8 bits; a
 * pass is skipped where its axis keeps its size; equal sizes are a copy.
 *
 * Which pass comes first changes single bytes, and Pillow changed its mind: to version 12
 * horizontal first, from 13 on vertical first where the height shrinks by more than twice what the
 * width does (pvl_resize_vertical_first). This is version 13's rule. Two calls, the first changing
 * the width alone, give the bytes of older versions; noise and sharp edges then differ by a few
 * levels, photographs by one.
 *
 * Memory: beside the output at most a few MB of intermediate rows, whatever the size of the
 * picture. Rows are shared out over the team; any number of members gives the same bytes. */
#ifndef PVL_IMAGE_RESIZE_H
#define PVL_IMAGE_RESIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "base/threads.h"
#include "image/tiles.h"

/* True when the vertical pass goes first. */
bool pvl_resize_vertical_first(size_t out_width, size_t out_height, size_t width, size_t height);

/* out: [out_height, out_width, 3], caller's. in: [height, width, 3]; the two do not overlap. Sides
 * are 1..PVL_MAX_SIDE. team may be NULL. PVL_E_ARGUMENT for a side out of range, PVL_E_MEMORY. */
pvl_status pvl_resize_rgb(uint8_t *out, size_t out_width, size_t out_height, const uint8_t *in,
                          size_t width, size_t height, pvl_team *team,
                          const pvl_allocator *allocator, pvl_error *err);

/* The tiles of one picture as 8-bit pixels: 13 tiles of 448 take 7.8 MB where floats would take 31.
 */
typedef struct pvl_tile_set {
    pvl_tile_grid grid;
    int tile_size;
    uint8_t *
        pixels; /* the grid, [rows*S, columns*S, 3], then the thumbnail [S, S, 3] if there is one */
    const pvl_allocator *allocator;
} pvl_tile_set;

/* Resizes in [height, width, 3] to the grid and, if it has one, to the thumbnail. On error *out is
 * empty; otherwise free it with pvl_tile_set_free. The picture is not needed any more afterwards.
 */
pvl_status pvl_tile_set_make(pvl_tile_set *out, const pvl_tile_grid *grid, int tile_size,
                             const uint8_t *in, size_t width, size_t height, pvl_team *team,
                             const pvl_allocator *allocator, pvl_error *err);
void pvl_tile_set_free(pvl_tile_set *set); /* an empty one is fine */

/* Mean and deviation of each channel, R G B, for pixel values in 0..1. */
typedef struct pvl_normalization {
    float mean[3], std[3];
} pvl_normalization;

/* What InternVL uses: mean 0.485 0.456 0.406, std 0.229 0.224 0.225. */
extern const pvl_normalization pvl_normalization_imagenet;

/* Tile `index` (0 .. pvl_tiles_total-1, row by row, the thumbnail last) as out [3, S, S]:
 * ((v / 255) - mean) / std, each step rounded to float: the bits of torchvision's ToTensor and
 * Normalize. Cannot fail; index out of range is a mistake of the caller. */
void pvl_tile_set_floats(float *out, const pvl_tile_set *set, int index,
                         const pvl_normalization *norm);

#endif
