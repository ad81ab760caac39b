/* Pictures from strangers: probe, decoder, EXIF orientation; what comes out is cut into tiles. The
 * whole input is the file; how it is read follows from its last byte, which no format minds. */
#include "fuzz.h"

#include "image/probe.h"
#include "image/resize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_memory memory = {.limit = 48 << 20};
    pvl_allocator a = {fuzz_alloc, fuzz_free, &memory};
    unsigned how = size ? data[size - 1] : 0;
    /* A copy without anything behind it: a decoder that reads on is seen. */
    uint8_t *file = malloc(size ? size : 1);
    HOLDS(file != NULL);
    memcpy(file, data, size);
    if (how % 16 == 15)
        memory.fail_at = (long)(how / 16) + 1;

    pvl_picture_info info;
    pvl_error err = {0};
    pvl_status probed = pvl_picture_probe(&info, file, size, &err);
    check_status(probed, &err);
    if (probed == PVL_OK) {
        HOLDS(info.width >= 1 && info.height >= 1 && info.width <= PVL_MAX_SIDE &&
              info.height <= PVL_MAX_SIDE && info.width * info.height <= PVL_MAX_PIXELS);
        HOLDS(info.orientation >= 1 && info.orientation <= 8);
    }
    pvl_image *image = NULL;
    pvl_image_options options = {.ignore_orientation = how & 1, .keep_hidden_colour = how & 2};
    err = (pvl_error){0};
    pvl_status status = pvl_image_decode(&image, &a, file, size, &options, &err);
    check_status(status, &err);
    HOLDS((status == PVL_OK) == (image != NULL) && (status != PVL_OK || probed == PVL_OK));
    free(file);
    if (image) {
        size_t w = pvl_image_width(image), h = pvl_image_height(image);
        bool turned = info.orientation >= 5 && !options.ignore_orientation;
        HOLDS(w == (turned ? info.height : info.width) && h == (turned ? info.width : info.height));
        pvl_tile_grid grid;
        pvl_tile_set set = {0};
        HOLDS(pvl_tiles_choose(&grid, w, h, 14, 1 + (int)(how % 12), NULL) == PVL_OK);
        if (w * h <= 1 << 20 && pvl_tile_set_make(&set, &grid, 14, pvl_image_pixels(image), w, h,
                                                  NULL, &a, NULL) == PVL_OK) {
            float out[3 * 14 * 14];
            for (int i = 0; i < pvl_tiles_total(&grid); i++) {
                pvl_tile_set_floats(out, &set, i, &pvl_normalization_imagenet);
                for (size_t k = 0; k < sizeof out / sizeof *out; k++)
                    HOLDS(out[k] > -3 && out[k] < 3);
            }
        }
        pvl_tile_set_free(&set);
        pvl_image_free(image);
    }
    HOLDS(memory.alive == 0);
    return 0;
}
