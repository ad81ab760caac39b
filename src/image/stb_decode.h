/* The decoder behind decode.h: stb_image, with its memory taken from our allocator. */
#ifndef PVL_IMAGE_STB_DECODE_H
#define PVL_IMAGE_STB_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "image/probe.h"

typedef struct pvl_raw_picture {
    void *block;     /* free this one, with pvl_free */
    uint8_t *pixels; /* [height, width, channels], inside the block */
    size_t width, height;
    int channels; /* 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA */
} pvl_raw_picture;

/* Decodes a file that pvl_picture_probe accepted. All memory that the decoder asks for is counted
 * and given back whatever happens, and one piece of it may not be larger than a picture of info's
 * size can explain. */
pvl_status pvl_stb_decode(pvl_raw_picture *out, const pvl_picture_info *info, const void *file,
                          size_t bytes, const pvl_allocator *allocator, pvl_error *err);

#endif
