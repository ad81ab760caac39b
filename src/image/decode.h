/* Pictures: implements pvl_image_decode, pvl_image_from_rgba, the getters and pvl_image_free of
 * pocketvl.h.
 *
 * The format is told by its first bytes, never by a name. JPEG (baseline, progressive; grey, YCbCr,
 * RGB, CMYK, YCCK), PNG (every colour type and depth, 16 bits by their high byte), BMP and GIF
 * (first frame) are decoded; other formats are named in the error (PVL_E_UNSUPPORTED). Each file's
 * own structure is walked first (probe.h): size limits before any pixel is decoded, EXIF
 * orientation, and whether the file is whole, since the decoder would fill a torn one with grey.
 * Grey becomes R = G = B; transparent pixels are laid over white unless keep_hidden_colour; colour
 * profiles are ignored, as the Python reference does.
 *
 * Errors: PVL_E_IMAGE (not a picture, damaged, cut off), PVL_E_UNSUPPORTED (a format or a variant
 * that is not decoded), PVL_E_LIMIT (PVL_MAX_PIXELS, PVL_MAX_SIDE), PVL_E_MEMORY, PVL_E_ARGUMENT.
 */
#ifndef PVL_IMAGE_DECODE_H
#define PVL_IMAGE_DECODE_H

#include "base/alloc.h"

struct pvl_image {
    const pvl_allocator *allocator; /* must outlive the picture */
    void *memory;                   /* what is freed */
    size_t width, height;
    uint8_t *pixels; /* [height, width, 3], inside memory */
};

#endif
