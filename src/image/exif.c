#include "image/exif.h"

#include <stdbool.h>
#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, ENTRY_BYTES = 12 };

static unsigned u16(const uint8_t *p, bool big) {
    return big ? (unsigned)(p[0] << 8 | p[1]) : (unsigned)(p[1] << 8 | p[0]);
}

static uint32_t u32(const uint8_t *p, bool big) {
    uint32_t hi = u16(big ? p : p + 2, big), lo = u16(big ? p + 2 : p, big);
    return hi << 16 | lo;
}

int pvl_exif_orientation(const uint8_t *data, size_t bytes) {
    if (bytes < 8)
        return 1;
    bool big = data[0] == 'M' && data[1] == 'M';
    if (!big && !(data[0] == 'I' && data[1] == 'I'))
        return 1;
    if (u16(data + 2, big) != 42)
        return 1;
    uint32_t at = u32(data + 4, big);
    if (at > bytes - 2)
        return 1;
    size_t entries = u16(data + at, big), room = (bytes - at - 2) / ENTRY_BYTES;
    if (entries > room)
        entries = room;
    for (size_t i = 0; i < entries; i++) {
        const uint8_t *entry = data + at + 2 + i * ENTRY_BYTES;
        if (u16(entry, big) != TAG_ORIENTATION)
            continue;
        if (u16(entry + 2, big) != TYPE_SHORT || u32(entry + 4, big) != 1)
            return 1;
        unsigned value = u16(entry + 8, big);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

void pvl_exif_upright(uint8_t *out, const uint8_t *in, size_t width, size_t height,
                      int orientation) {
    bool swap = pvl_exif_swaps_axes(orientation);
    /* Which ends of the stored picture the upright one begins at. */
    bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    size_t out_width = swap ? height : width, out_height = swap ? width : height;
    for (size_t y = 0; y < out_height; y++) {
        for (size_t x = 0; x < out_width; x++) {
            size_t sx = swap ? y : x, sy = swap ? x : y;
            if (from_right)
                sx = width - 1 - sx;
            if (from_bottom)
                sy = height - 1 - sy;
            memcpy(out, in + (sy * width + sx) * 3, 3);
            out += 3;
        }
    }
}
