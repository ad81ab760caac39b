/* The manifest that the converter writes, from any names: it is JSON, and a reader gets the names
 * back. */
#include "fuzz.h"

#include <cjson/cJSON.h>

#include "tools/manifest.h"

/* A terminated string of the input, NULL now and then. */
static char *take_string(fuzz_input *in, size_t most) {
    size_t n = take_between(in, 0, most), bytes;
    if (n == most)
        return NULL;
    char *raw = take_bytes(in, n, &bytes), *text = calloc(bytes + 1, 1);
    HOLDS(text != NULL);
    memcpy(text, raw, bytes);
    free(raw);
    return text;
}

static void same(const cJSON *from, const char *key, const char *value) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(from, key);
    if (!value)
        HOLDS(item == NULL);
    else
        HOLDS(cJSON_IsString(item) && strcmp(item->valuestring, value) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    char *name = take_string(&in, 64), *title = take_string(&in, 250),
         *license = take_string(&in, 64), *style = take_string(&in, 32);
    pvl_output_file files[3];
    pvl_io_digest chunks[3];
    memset(files, 0, sizeof files);
    memset(chunks, 0, sizeof chunks);
    pvl_memory memory = {take(&in, 8), take(&in, 8), take(&in, 8), take(&in, 8)};
    pvl_manifest m = {.name = name,
                      .title = title,
                      .license = license,
                      .template_name = style,
                      .files = files,
                      .file_count = take_between(&in, 0, 3),
                      .max_tiles = (int)take(&in, 4),
                      .context = (int)take(&in, 4),
                      .context_length = (int)take(&in, 4),
                      .max_tokens = (int)take(&in, 4),
                      .memory = take(&in, 1) & 1 ? &memory : NULL,
                      .kv_cache_q8 = take(&in, 8)};
    for (size_t i = 0; i < 3; i++) {
        chunks[i].bytes = take(&in, 4);
        chunks[i].sha256[i] = (unsigned char)take(&in, 1);
        files[i].bytes = take(&in, 4);
        files[i].chunks = chunks;
        files[i].chunk_count = take_between(&in, 0, 3);
        char *text = take_string(&in, 255);
        if (text)
            snprintf(files[i].name, sizeof files[i].name, "%s", text);
        free(text);
    }
    char *text = pvl_manifest_text(&m), *again = pvl_manifest_text(&m);
    HOLDS(text && again && strcmp(text, again) == 0);
    cJSON *root = cJSON_Parse(text);
    HOLDS(root != NULL);
    same(root, "name", name);
    same(root, "title", title);
    same(root, "license", license);
    same(root, "template", style);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(root, "files");
    HOLDS(cJSON_IsArray(list) && (size_t)cJSON_GetArraySize(list) == m.file_count);
    for (size_t i = 0; i < m.file_count; i++) {
        const cJSON *file = cJSON_GetArrayItem(list, (int)i);
        same(file, "name", files[i].name);
        HOLDS((size_t)cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(file, "chunks")) ==
              files[i].chunk_count);
    }
    cJSON_Delete(root);
    free(again);
    free(text);
    free(name);
    free(title);
    free(license);
    free(style);
    return 0;
}
