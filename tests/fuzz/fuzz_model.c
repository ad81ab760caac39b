/* A whole model from a stranger: loaded, and where it loads, asked about a picture. The input is
 * the file. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_memory memory = {.limit = 128 << 20};
    pvl_allocator a = {fuzz_alloc, fuzz_free, &memory};
    pvl_engine_options options = {.allocator = &a};
    pvl_loader *loader = NULL;
    pvl_engine *engine = NULL;
    pvl_error err = {0};
    HOLDS(pvl_loader_new(&loader, &options, NULL) == PVL_OK);
    pvl_status status = pvl_loader_begin_file(loader, "fuzz.gguf", size, &err);
    for (size_t at = 0, n; status == PVL_OK && at < size; at += n) {
        n = size - at < 5001 ? size - at : 5001;
        status = pvl_loader_push(loader, data + at, n, &err);
    }
    if (status == PVL_OK)
        status = pvl_loader_finish(loader, &engine, &err);
    else
        pvl_loader_free(loader);
    check_status(status, &err);
    if (status != PVL_OK) {
        HOLDS(memory.alive == 0);
        return 0;
    }
    pvl_engine_info info;
    pvl_engine_get_info(engine, &info);
    uint8_t rgba[6 * 4 * 4];
    for (size_t i = 0; i < sizeof rgba; i++)
        rgba[i] = (uint8_t)(i * 37);
    pvl_image *image = NULL;
    HOLDS(pvl_image_from_rgba(&image, &a, rgba, 6, 4, NULL) == PVL_OK);
    pvl_part parts[] = {{.kind = PVL_PART_IMAGE, .image = image},
                        {.text = "a <|im_end|>", .text_bytes = 12}};
    pvl_message message = {PVL_ROLE_USER, info.has_vision ? parts : parts + 1,
                           info.has_vision ? 2 : 1};
    pvl_session *session = NULL;
    err = (pvl_error){0};
    status = pvl_session_new(&session, engine, &(pvl_session_options){.context = 160}, &err);
    check_status(status, &err);
    if (status == PVL_OK) {
        pvl_prompt_options asked = {
            .max_tokens = 2, .max_tiles = 2, .temperature = 1.0f, .json = size % 2 == 1};
        status = pvl_session_prompt(session, &message, 1, &asked, &err);
        check_status(status, &err);
        pvl_piece piece = {0};
        while (status == PVL_OK && piece.stop == PVL_STOP_NO) {
            status = pvl_session_next(session, &piece, &err);
            HOLDS(status != PVL_OK || is_utf8(piece.text, piece.text_bytes));
        }
        check_status(status, &err);
    }
    pvl_session_free(session);
    pvl_image_free(image);
    pvl_engine_free(engine);
    HOLDS(memory.alive == 0);
    return 0;
}
