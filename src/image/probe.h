/* A look at a picture file before it is decoded: which format, how large, which way up, and whether
 * it is whole.
 *
 * The walk visits the structure of the file (JPEG segments, PNG chunks with their checksums, GIF
 * blocks, the BMP header) and nothing of the compressed pixels. It is stricter than the decoder
 * behind it, for two reasons: the decoder would fill a file that was cut off with grey or black and
 * call it a picture, and tables that overrun its buffers must never reach it (Huffman tables of
 * more than 256 codes). */
#ifndef PVL_IMAGE_PROBE_H
#define PVL_IMAGE_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef enum pvl_picture_format {
    PVL_PICTURE_JPEG,
    PVL_PICTURE_PNG,
    PVL_PICTURE_BMP,
    PVL_PICTURE_GIF
} pvl_picture_format;

typedef struct pvl_picture_info {
    pvl_picture_format format;
    size_t width, height; /* as stored, within PVL_MAX_SIDE and PVL_MAX_PIXELS */
    int orientation;      /* EXIF, 1..8 */
    bool opaque;          /* a fourth channel that comes out of the decoder means nothing */
} pvl_picture_info;

/* Name for messages: "JPEG", ... Static storage. */
const char *pvl_picture_format_name(pvl_picture_format format);

/* Errors as in decode.h. */
pvl_status pvl_picture_probe(pvl_picture_info *out, const void *file, size_t bytes, pvl_error *err);

/* The two limits, for pictures of any origin: PVL_E_LIMIT, or PVL_E_IMAGE for a side of 0. */
pvl_status pvl_picture_check_size(size_t width, size_t height, pvl_error *err);

#endif
