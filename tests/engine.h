/* Engines, pictures and questions for tests. Include it behind test.h or golden.h. */
#ifndef PVL_TESTS_ENGINE_H
#define PVL_TESTS_ENGINE_H

#include "test.h"

#include "pocketvl.h"

typedef struct engine_file {
    const char *name;
    unsigned char *data;
    size_t bytes;
} engine_file;

/* Loads files in odd portions: rows arrive in pieces. On an error nothing is left. */
static TEST_UNUSED pvl_status engine_from_files(pvl_engine **out, const engine_file *files,
                                                size_t count, const pvl_engine_options *options,
                                                pvl_error *err) {
    pvl_loader *loader;
    *out = NULL;
    pvl_status status = pvl_loader_new(&loader, options, err);
    if (status != PVL_OK)
        return status;
    for (size_t i = 0; status == PVL_OK && i < count; i++) {
        status = pvl_loader_begin_file(loader, files[i].name, files[i].bytes, err);
        for (size_t at = 0, step = 1, n; status == PVL_OK && at < files[i].bytes;
             at += n, step = step * 3 % 100003 + 7) {
            n = files[i].bytes - at < step ? files[i].bytes - at : step;
            status = pvl_loader_push(loader, files[i].data + at, n, err);
        }
    }
    if (status == PVL_OK)
        return pvl_loader_finish(loader, out, err);
    pvl_loader_free(loader);
    return status;
}

/* A file by its path; what goes wrong fails the test and gives NULL. */
static TEST_UNUSED pvl_engine *engine_load(const char *path, const pvl_engine_options *options) {
    engine_file file = {.name = path};
    pvl_engine *engine = NULL;
    pvl_error err = {0};
    file.data = test_read_file(path, &file.bytes);
    if (file.data)
        engine_from_files(&engine, &file, 1, options, &err);
    CHECK_MSG(engine != NULL, "%s: %s", path, err.message);
    free(file.data);
    return engine;
}

/* One question, without a picture. */
static TEST_UNUSED pvl_status engine_ask(pvl_session *s, const char *text, size_t bytes,
                                         const pvl_prompt_options *options, pvl_error *err) {
    pvl_part part = {.text = text, .text_bytes = bytes};
    pvl_message message = {PVL_ROLE_USER, &part, 1};
    return pvl_session_prompt(s, &message, 1, options, err);
}

/* A picture of RGB pixels; NULL fails the test. */
static TEST_UNUSED pvl_image *engine_image(const uint8_t *rgb, size_t width, size_t height) {
    size_t pixels = width * height;
    uint8_t *rgba = malloc(pixels * 4);
    pvl_image *image = NULL;
    pvl_error err = {0};
    for (size_t i = 0; rgba && i < pixels; i++) {
        memcpy(rgba + 4 * i, rgb + 3 * i, 3);
        rgba[4 * i + 3] = 255;
    }
    if (rgba)
        pvl_image_from_rgba(&image, NULL, rgba, width, height, &err);
    CHECK_MSG(image != NULL, "%s", err.message);
    free(rgba);
    return image;
}

#endif
