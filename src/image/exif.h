/* EXIF orientation: a reader of the one tag that changes how a picture stands, and what it asks
 * for. */
#ifndef PVL_IMAGE_EXIF_H
#define PVL_IMAGE_EXIF_H

#include <stddef.h>
#include <stdint.h>

/* Orientation 1..8 from a TIFF structure (the payload of a JPEG APP1 segment behind "Exif\0\0", or
 * of a PNG eXIf chunk), either byte order; 1 when it is absent, damaged or out of range. Reads
 * nothing outside data[0..bytes-1]. */
int pvl_exif_orientation(const uint8_t *data, size_t bytes);

/* True when `orientation` swaps width and height (5..8). */
static inline int pvl_exif_swaps_axes(int orientation) {
    return orientation >= 5 && orientation <= 8;
}

/* The upright picture. in: [height, width, 3]; out: as many bytes, [width, height, 3] for
 * orientations 5..8. No overlap. */
void pvl_exif_upright(uint8_t *out, const uint8_t *in, size_t width, size_t height,
                      int orientation);

#endif
