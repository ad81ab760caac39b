#include "image/decode.h"

#include <string.h>

#include "image/exif.h"
#include "image/probe.h"
#include "image/stb_decode.h"

static pvl_status alloc_pixels(const pvl_allocator *allocator, void **out, size_t width,
                               size_t height, pvl_error *err) {
    size_t row;
    if (!pvl_size_mul(&row, width, 3))
        return pvl_fail(err, PVL_E_MEMORY, "A picture of %zu x %zu pixels does not fit memory.",
                        width, height);
    return pvl_malloc(allocator, out, height, row, "a picture", err);
}

static inline uint8_t over_white(unsigned v, unsigned alpha) {
    return (uint8_t)((v * alpha + 255u * (255u - alpha) + 127u) / 255u);
}

/* RGBA to RGB; out may be in: a pixel is read before its place is written. */
static void drop_alpha(uint8_t *out, const uint8_t *in, size_t pixels, bool composite) {
    for (size_t i = 0; i < pixels; i++, in += 4, out += 3) {
        unsigned alpha = composite ? in[3] : 255u;
        for (int c = 0; c < 3; c++)
            out[c] = over_white(in[c], alpha);
    }
}

/* Grey, with alpha when channels is 2, to RGB. */
static void spread_grey(uint8_t *out, const uint8_t *in, size_t pixels, int channels,
                        bool composite) {
    for (size_t i = 0; i < pixels; i++, in += channels, out += 3) {
        uint8_t v = channels == 2 && composite ? over_white(in[0], in[1]) : in[0];
        out[0] = out[1] = out[2] = v;
    }
}

/* Any number of channels to three. Takes over raw's block: it is in the picture or freed. */
static pvl_status to_rgb(pvl_image *image, pvl_raw_picture *raw, bool composite, pvl_error *err) {
    size_t pixels = raw->width * raw->height;
    if (raw->channels >= 3) {
        if (raw->channels == 4)
            drop_alpha(raw->pixels, raw->pixels, pixels, composite);
        image->memory = raw->block;
        image->pixels = raw->pixels;
        return PVL_OK;
    }
    void *memory;
    pvl_status status = alloc_pixels(image->allocator, &memory, raw->width, raw->height, err);
    if (status == PVL_OK) {
        spread_grey(memory, raw->pixels, pixels, raw->channels, composite);
        image->memory = memory;
        image->pixels = memory;
    }
    pvl_free(image->allocator, raw->block);
    return status;
}

static pvl_status turn_upright(pvl_image *image, int orientation, pvl_error *err) {
    void *memory;
    PVL_TRY(alloc_pixels(image->allocator, &memory, image->width, image->height, err));
    pvl_exif_upright(memory, image->pixels, image->width, image->height, orientation);
    pvl_free(image->allocator, image->memory);
    image->memory = memory;
    image->pixels = memory;
    if (pvl_exif_swaps_axes(orientation)) {
        size_t width = image->width;
        image->width = image->height;
        image->height = width;
    }
    return PVL_OK;
}

static pvl_status decode_into(pvl_image *image, const void *file, size_t bytes,
                              const pvl_image_options *options, pvl_error *err) {
    pvl_picture_info info;
    PVL_TRY(pvl_picture_probe(&info, file, bytes, err));
    pvl_raw_picture raw;
    PVL_TRY(pvl_stb_decode(&raw, &info, file, bytes, image->allocator, err));
    image->width = raw.width;
    image->height = raw.height;
    PVL_TRY(to_rgb(image, &raw, !info.opaque && !options->keep_hidden_colour, err));
    if (info.orientation != 1 && !options->ignore_orientation)
        PVL_TRY(turn_upright(image, info.orientation, err));
    return PVL_OK;
}

static pvl_status new_image(pvl_image **out, const pvl_allocator *allocator, pvl_error *err) {
    void *p;
    PVL_TRY(pvl_calloc(allocator, &p, 1, sizeof(pvl_image), "a picture", err));
    *out = p;
    (*out)->allocator = allocator;
    return PVL_OK;
}

pvl_status pvl_image_decode(pvl_image **out, const pvl_allocator *allocator, const void *file,
                            size_t bytes, const pvl_image_options *options, pvl_error *err) {
    static const pvl_image_options defaults = {false, false};
    *out = NULL;
    if (!file && bytes)
        return pvl_fail(err, PVL_E_ARGUMENT, "pvl_image_decode was called without a file.");
    pvl_image *image;
    PVL_TRY(new_image(&image, allocator, err));
    pvl_status status = decode_into(image, file, bytes, options ? options : &defaults, err);
    if (status == PVL_OK)
        *out = image;
    else
        pvl_image_free(image);
    return status;
}

pvl_status pvl_image_from_rgba(pvl_image **out, const pvl_allocator *allocator, const uint8_t *rgba,
                               size_t width, size_t height, pvl_error *err) {
    *out = NULL;
    if (!rgba)
        return pvl_fail(err, PVL_E_ARGUMENT, "pvl_image_from_rgba was called without pixels.");
    PVL_TRY(pvl_picture_check_size(width, height, err));
    pvl_image *image;
    PVL_TRY(new_image(&image, allocator, err));
    pvl_status status = alloc_pixels(allocator, &image->memory, width, height, err);
    if (status != PVL_OK) {
        pvl_image_free(image);
        return status;
    }
    image->pixels = image->memory;
    image->width = width;
    image->height = height;
    drop_alpha(image->pixels, rgba, width * height, true);
    *out = image;
    return PVL_OK;
}

size_t pvl_image_width(const pvl_image *image) {
    return image->width;
}
size_t pvl_image_height(const pvl_image *image) {
    return image->height;
}
const uint8_t *pvl_image_pixels(const pvl_image *image) {
    return image->pixels;
}

void pvl_image_free(pvl_image *image) {
    if (!image)
        return;
    const pvl_allocator *allocator = image->allocator;
    pvl_free(allocator, image->memory);
    pvl_free(allocator, image);
}
