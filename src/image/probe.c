#include "image/probe.h"

#include <limits.h>
#include <string.h>

#include "image/exif.h"

/* A progressive file may be read over and over in a few bytes each time. Browsers stop at about 100
 * scans too. */
enum { MAX_SCANS = 100 };
static const double max_scanned_pixels = 2.5e9;

typedef struct file_view {
    const uint8_t *data;
    size_t bytes;
} file_view;

static unsigned be16(const uint8_t *p) {
    return (unsigned)(p[0] << 8 | p[1]);
}
static uint32_t be32(const uint8_t *p) {
    return (uint32_t)be16(p) << 16 | be16(p + 2);
}
static unsigned le16(const uint8_t *p) {
    return (unsigned)(p[1] << 8 | p[0]);
}
static uint32_t le32(const uint8_t *p) {
    return (uint32_t)le16(p + 2) << 16 | le16(p);
}

const char *pvl_picture_format_name(pvl_picture_format format) {
    switch (format) {
    case PVL_PICTURE_JPEG:
        return "JPEG";
    case PVL_PICTURE_PNG:
        return "PNG";
    case PVL_PICTURE_BMP:
        return "BMP";
    case PVL_PICTURE_GIF:
        break;
    }
    return "GIF";
}

pvl_status pvl_picture_check_size(size_t width, size_t height, pvl_error *err) {
    if (width == 0 || height == 0)
        return pvl_fail(err, PVL_E_IMAGE,
                        "The picture is %zu x %zu pixels, so there is nothing to see.", width,
                        height);
    if (width > PVL_MAX_SIDE || height > PVL_MAX_SIDE ||
        (uint64_t)width * (uint64_t)height > PVL_MAX_PIXELS)
        return pvl_fail(err, PVL_E_LIMIT,
                        "The picture is %zu x %zu pixels, more than the limit of %d million "
                        "pixels and sides of %d; make it smaller first.",
                        width, height, PVL_MAX_PIXELS / 1000000, PVL_MAX_SIDE);
    return PVL_OK;
}

static pvl_status cut_off(const char *format, pvl_error *err) {
    return pvl_fail(err, PVL_E_IMAGE,
                    "The %s file ends too early: it was cut off, perhaps in a download; get it "
                    "again.",
                    format);
}

static pvl_status damaged(const char *format, const char *what, pvl_error *err) {
    return pvl_fail(err, PVL_E_IMAGE, "The %s file is damaged: %s.", format, what);
}

static pvl_status variant(const char *format, const char *what, pvl_error *err) {
    return pvl_fail(err, PVL_E_UNSUPPORTED,
                    "The %s file is %s, which is not supported; save it as an ordinary JPEG or "
                    "PNG.",
                    format, what);
}

/* ---- JPEG ---- */

static pvl_status check_huffman_tables(const uint8_t *p, size_t n, pvl_error *err) {
    while (n > 0) {
        if (n < 17 || p[0] >> 4 > 1 || (p[0] & 15) > 3)
            return damaged("JPEG", "a Huffman table is wrong", err);
        size_t codes = 0;
        long room = 1; /* codes of the current length that are not taken */
        for (int i = 1; i <= 16; i++) {
            codes += p[i];
            room = 2 * room - p[i];
            if (room < 0)
                return damaged("JPEG", "a Huffman table holds too many codes", err);
        }
        if (codes > 256 || n - 17 < codes)
            return damaged("JPEG", "a Huffman table holds too many codes", err);
        /* A code for a DC difference is a number of bits. */
        if (p[0] >> 4 == 0) {
            for (size_t i = 0; i < codes; i++) {
                if (p[17 + i] > 15)
                    return damaged("JPEG", "a Huffman table is wrong", err);
            }
        }
        p += 17 + codes;
        n -= 17 + codes;
    }
    return PVL_OK;
}

static pvl_status check_quantization_tables(const uint8_t *p, size_t n, pvl_error *err) {
    while (n > 0) {
        size_t bytes = p[0] >> 4 ? 129 : 65;
        if (p[0] >> 4 > 1 || (p[0] & 15) > 3 || n < bytes)
            return damaged("JPEG", "a quantization table is wrong", err);
        p += bytes;
        n -= bytes;
    }
    return PVL_OK;
}

static pvl_status read_frame(pvl_picture_info *out, int marker, const uint8_t *p, size_t n,
                             pvl_error *err) {
    if (marker == 0xC3 || (marker >= 0xC5 && marker <= 0xC7))
        return variant("JPEG", "a lossless or hierarchical JPEG", err);
    if (marker >= 0xC9)
        return variant("JPEG", "an arithmetic-coded JPEG", err);
    if (out->width)
        return damaged("JPEG", "it has two frames", err);
    if (n < 6)
        return damaged("JPEG", "the frame header is too short", err);
    if (p[0] != 8)
        return variant("JPEG", "a JPEG of 12 bits a colour", err);
    unsigned components = p[5];
    if (n != 6 + 3 * (size_t)components)
        return damaged("JPEG", "the frame header has the wrong length", err);
    if (components != 1 && components != 3 && components != 4)
        return variant("JPEG", "a JPEG of neither grey, colour nor CMYK", err);
    out->height = be16(p + 1);
    out->width = be16(p + 3);
    if (out->height == 0)
        return variant("JPEG", "a JPEG without a height in its header", err);
    return pvl_picture_check_size(out->width, out->height, err);
}

static pvl_status check_scan(const pvl_picture_info *info, bool progressive, const uint8_t *p,
                             size_t n, pvl_error *err) {
    if (!info->width)
        return damaged("JPEG", "pixels come before the frame header", err);
    if (n < 1 || p[0] < 1 || p[0] > 4 || n != 4 + 2 * (size_t)p[0])
        return damaged("JPEG", "a scan header is wrong", err);
    const uint8_t *spectrum = p + 1 + 2 * (size_t)p[0];
    /* A shift by more than 13 bits leaves nothing of a coefficient. */
    if (progressive && (spectrum[0] > spectrum[1] || spectrum[1] > 63 || spectrum[2] >> 4 > 13 ||
                        (spectrum[2] & 15) > 13))
        return damaged("JPEG", "a scan header is wrong", err);
    return PVL_OK;
}

static pvl_status probe_jpeg(pvl_picture_info *out, file_view f, pvl_error *err) {
    size_t at = 2;
    int scans = 0;
    bool progressive = false, exif = false;
    for (;;) {
        /* Behind a scan this passes over its compressed data, in which FF 00 and FF D0-D7 are not
         * markers. */
        while (at < f.bytes && f.data[at] != 0xFF)
            at++;
        while (at < f.bytes && f.data[at] == 0xFF)
            at++;
        if (at >= f.bytes)
            return cut_off("JPEG", err);
        int marker = f.data[at++];
        if (scans > 0 && (marker == 0 || (marker >= 0xD0 && marker <= 0xD7)))
            continue;
        if (marker == 0xD9)
            break;
        if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD8))
            return damaged("JPEG", "an unknown segment", err);
        if (f.bytes - at < 2)
            return cut_off("JPEG", err);
        size_t length = be16(f.data + at);
        if (length < 2)
            return damaged("JPEG", "a segment has the wrong length", err);
        if (f.bytes - at < length)
            return cut_off("JPEG", err);
        const uint8_t *body = f.data + at + 2;
        size_t n = length - 2;
        at += length;
        if (marker == 0xC4) {
            PVL_TRY(check_huffman_tables(body, n, err));
        } else if (marker == 0xDB) {
            PVL_TRY(check_quantization_tables(body, n, err));
        } else if (marker == 0xCC) {
            return variant("JPEG", "an arithmetic-coded JPEG", err);
        } else if (marker >= 0xC0 && marker <= 0xCF) {
            PVL_TRY(read_frame(out, marker, body, n, err));
            progressive = marker == 0xC2;
        } else if (marker == 0xDA) {
            PVL_TRY(check_scan(out, progressive, body, n, err));
            scans++;
            if (scans > MAX_SCANS ||
                (double)scans * (double)out->width * (double)out->height > max_scanned_pixels)
                return pvl_fail(err, PVL_E_LIMIT,
                                "The JPEG file goes over its picture more than %d times, which "
                                "no camera does; save it again.",
                                scans - 1);
        } else if (marker == 0xE1 && !exif && n > 6 && memcmp(body, "Exif\0\0", 6) == 0) {
            out->orientation = pvl_exif_orientation(body + 6, n - 6);
            exif = true;
        }
    }
    if (scans == 0)
        return damaged("JPEG", "it holds no picture", err);
    return PVL_OK;
}

/* ---- PNG ---- */

static uint32_t crc32(const uint8_t *p, size_t n) {
    uint32_t table[256], c;
    for (uint32_t i = 0; i < 256; i++) {
        c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? 0xEDB88320u ^ c >> 1 : c >> 1;
        table[i] = c;
    }
    c = 0xFFFFFFFFu;
    for (size_t i = 0; i < n; i++)
        c = table[(c ^ p[i]) & 255] ^ c >> 8;
    return ~c;
}

static pvl_status read_png_header(pvl_picture_info *out, const uint8_t *p, size_t n,
                                  pvl_error *err) {
    if (n != 13)
        return damaged("PNG", "the header has the wrong length", err);
    uint32_t width = be32(p), height = be32(p + 4);
    int depth = p[8], colour = p[9];
    bool depth_fits = false;
    switch (colour) {
    case 0:
        depth_fits = depth == 1 || depth == 2 || depth == 4 || depth == 8 || depth == 16;
        break;
    case 3:
        depth_fits = depth == 1 || depth == 2 || depth == 4 || depth == 8;
        break;
    case 2:
    case 4:
    case 6:
        depth_fits = depth == 8 || depth == 16;
        break;
    default:
        break;
    }
    if (!depth_fits || p[10] != 0 || p[11] != 0 || p[12] > 1)
        return damaged("PNG", "the header names a kind of pixel that does not exist", err);
    out->width = width;
    out->height = height;
    return pvl_picture_check_size(width, height, err);
}

static pvl_status probe_png(pvl_picture_info *out, file_view f, pvl_error *err) {
    size_t at = 8;
    bool data = false;
    for (;;) {
        if (f.bytes - at < 12)
            return cut_off("PNG", err);
        size_t n = be32(f.data + at);
        const uint8_t *type = f.data + at + 4, *body = type + 4;
        if (at == 8 && memcmp(type, "CgBI", 4) == 0)
            return variant("PNG", "an app's PNG in Apple's own form", err);
        if (at == 8 && memcmp(type, "IHDR", 4) != 0)
            return damaged("PNG", "it does not begin with its header", err);
        if (f.bytes - at - 12 < n)
            return cut_off("PNG", err);
        bool critical = !(type[0] & 32);
        bool exif = memcmp(type, "eXIf", 4) == 0;
        if ((critical || exif) && crc32(type, n + 4) != be32(body + n)) {
            if (critical)
                return damaged("PNG", "a checksum does not match", err);
            exif = false;
        }
        if (memcmp(type, "IHDR", 4) == 0) {
            if (at != 8)
                return damaged("PNG", "it has two headers", err);
            PVL_TRY(read_png_header(out, body, n, err));
        } else if (memcmp(type, "IDAT", 4) == 0) {
            data = true;
        } else if (exif) {
            out->orientation = pvl_exif_orientation(body, n);
        } else if (memcmp(type, "IEND", 4) == 0) {
            break;
        }
        at += 12 + n;
    }
    return data ? PVL_OK : damaged("PNG", "it holds no picture", err);
}

/* ---- BMP ---- */

static pvl_status probe_bmp(pvl_picture_info *out, file_view f, pvl_error *err) {
    if (f.bytes < 26)
        return cut_off("BMP", err);
    const uint8_t *d = f.data;
    uint32_t offset = le32(d + 10), header = le32(d + 14), compression = 0, bits;
    int64_t width, height;
    if (header == 12) {
        width = le16(d + 18);
        height = le16(d + 20);
        bits = le16(d + 24);
    } else if (header >= 40 && header <= 124) {
        if (f.bytes < 14 + (size_t)header)
            return cut_off("BMP", err);
        width = (int32_t)le32(d + 18);
        height = (int32_t)le32(d + 22); /* negative: rows from the top */
        bits = le16(d + 28);
        compression = le32(d + 30);
    } else {
        return damaged("BMP", "its header has an unknown length", err);
    }
    if (height < 0)
        height = -height;
    if (width < 0)
        return damaged("BMP", "its width is negative", err);
    if (compression == 1 || compression == 2)
        return variant("BMP", "run-length coded", err);
    if (compression != 0 && compression != 3)
        return variant("BMP", "compressed", err);
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
        return damaged("BMP", "it has an impossible number of bits a pixel", err);
    PVL_TRY(pvl_picture_check_size((size_t)width, (size_t)height, err));
    out->width = (size_t)width;
    out->height = (size_t)height;
    /* Without masks the fourth byte of a pixel is padding. */
    out->opaque = compression == 0;
    uint64_t row = ((uint64_t)width * bits + 31) / 32 * 4, last = ((uint64_t)width * bits + 7) / 8;
    if (offset < 14 + header)
        return damaged("BMP", "its pixels begin inside its header", err);
    if (offset + row * ((uint64_t)height - 1) + last > f.bytes)
        return cut_off("BMP", err);
    return PVL_OK;
}

/* ---- GIF ---- */

/* Passes over a chain of sub-blocks, from *at behind it; false when the file ends inside. */
static bool skip_sub_blocks(file_view f, size_t *at) {
    while (*at < f.bytes) {
        size_t n = f.data[*at];
        *at += 1;
        if (n == 0)
            return true;
        if (f.bytes - *at < n)
            return false;
        *at += n;
    }
    return false;
}

static pvl_status probe_gif(pvl_picture_info *out, file_view f, pvl_error *err) {
    if (f.bytes < 13)
        return cut_off("GIF", err);
    out->width = le16(f.data + 6);
    out->height = le16(f.data + 8);
    PVL_TRY(pvl_picture_check_size(out->width, out->height, err));
    bool table = f.data[10] >> 7;
    size_t at = 13 + (table ? (size_t)3 << ((f.data[10] & 7) + 1) : 0);
    for (;;) {
        if (at >= f.bytes)
            return cut_off("GIF", err);
        int kind = f.data[at++];
        if (kind == 0x21) {
            at++; /* label */
            if (!skip_sub_blocks(f, &at))
                return cut_off("GIF", err);
        } else if (kind == 0x2C) {
            if (f.bytes - at < 10)
                return cut_off("GIF", err);
            int flags = f.data[at + 8];
            if (!table && !(flags >> 7))
                return damaged("GIF", "it has no colours", err);
            at += 9 + (flags >> 7 ? (size_t)3 << ((flags & 7) + 1) : 0);
            if (at >= f.bytes)
                return cut_off("GIF", err);
            at++; /* code size; the first picture is all that is wanted */
            return skip_sub_blocks(f, &at) ? PVL_OK : cut_off("GIF", err);
        } else if (kind == 0x3B) {
            return damaged("GIF", "it holds no picture", err);
        } else {
            return damaged("GIF", "an unknown block", err);
        }
    }
}

/* ---- which format ---- */

typedef struct signature {
    const char *name;
    size_t at, bytes;
    const char *magic;
} signature;

/* Formats that people drop on a page and that are not decoded here. */
static const signature others[] = {
    {"WebP", 8, 4, "WEBP"},        {"AVIF", 4, 8, "ftypavif"},
    {"AVIF", 4, 8, "ftypavis"},    {"HEIC", 4, 8, "ftypheic"},
    {"HEIC", 4, 8, "ftypheix"},    {"HEIC", 4, 8, "ftyphevc"},
    {"HEIC", 4, 8, "ftypheim"},    {"HEIC", 4, 8, "ftypmif1"},
    {"HEIC", 4, 8, "ftypmsf1"},    {"video", 4, 4, "ftyp"},
    {"TIFF", 0, 4, "II*\0"},       {"TIFF", 0, 4, "MM\0*"},
    {"JPEG XL", 0, 2, "\xFF\x0A"}, {"JPEG XL", 4, 4, "JXL "},
    {"JPEG 2000", 4, 4, "jP  "},   {"JPEG 2000", 0, 4, "\xFF\x4F\xFF\x51"},
    {"PDF", 0, 5, "%PDF-"},        {"Photoshop", 0, 4, "8BPS"},
    {"icon", 0, 4, "\0\0\1\0"},    {"SVG", 0, 4, "<svg"},
};

static bool has(file_view f, size_t at, const char *magic, size_t n) {
    return f.bytes >= at + n && memcmp(f.data + at, magic, n) == 0;
}

/* An SVG may begin with an XML declaration, a comment or a byte order mark. */
static bool is_svg(file_view f) {
    size_t at = 0, end = f.bytes < 1024 ? f.bytes : 1024;
    if (has(f, 0, "\xEF\xBB\xBF", 3))
        at = 3;
    while (at < end && strchr(" \t\r\n", f.data[at]) && f.data[at])
        at++;
    if (at >= end || f.data[at] != '<')
        return false;
    for (; at + 4 <= end; at++) {
        if (memcmp(f.data + at, "<svg", 4) == 0)
            return true;
    }
    return false;
}

static pvl_status not_decoded(file_view f, pvl_error *err) {
    const char *name = is_svg(f) ? "SVG" : NULL;
    for (size_t i = 0; !name && i < sizeof others / sizeof *others; i++) {
        if (has(f, others[i].at, others[i].magic, others[i].bytes))
            name = others[i].name;
    }
    if (name)
        return pvl_fail(err, PVL_E_UNSUPPORTED,
                        "The file is a %s file, which is not supported here; save the picture as "
                        "JPEG or PNG.",
                        name);
    return pvl_fail(err, PVL_E_IMAGE,
                    "The file is not a picture of a known format: choose a JPEG, PNG, BMP or GIF "
                    "file.");
}

pvl_status pvl_picture_probe(pvl_picture_info *out, const void *file, size_t bytes,
                             pvl_error *err) {
    file_view f = {file, bytes};
    *out = (pvl_picture_info){.orientation = 1};
    if (bytes == 0)
        return pvl_fail(err, PVL_E_IMAGE, "The file is empty: choose a picture.");
    if (bytes > INT_MAX)
        return pvl_fail(err, PVL_E_LIMIT, "The picture file is larger than 2 GB.");
    if (has(f, 0, "\xFF\xD8\xFF", 3)) {
        out->format = PVL_PICTURE_JPEG;
        return probe_jpeg(out, f, err);
    }
    if (has(f, 0, "\x89PNG\r\n\x1A\n", 8)) {
        out->format = PVL_PICTURE_PNG;
        return probe_png(out, f, err);
    }
    if (has(f, 0, "GIF87a", 6) || has(f, 0, "GIF89a", 6)) {
        out->format = PVL_PICTURE_GIF;
        return probe_gif(out, f, err);
    }
    if (has(f, 0, "BM", 2) && bytes >= 18 && le32(f.data + 14) >= 12 && le32(f.data + 14) <= 124) {
        out->format = PVL_PICTURE_BMP;
        return probe_bmp(out, f, err);
    }
    return not_decoded(f, err);
}
