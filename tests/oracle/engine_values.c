/* What our engine computes, as raw floats, for scripts that hold it against another engine:
 *
 *   engine_values logits IN OUT FILE.gguf...    IN: int32 token ids; OUT: logits of every row
 *   engine_values visual IN OUT FILE.gguf...    IN: float32 tiles [3, S, S]; OUT: their visual
 * tokens
 *   ... exact ...                               first word "exact": products in floats
 *
 * Built by the script that needs it, from src and the library of the native build. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/internal.h"
#include "pocketvl.h"
#include "tools/io.h"

static pvl_status load(pvl_engine **out, bool exact, char **files, pvl_error *err) {
    pvl_loader *loader;
    pvl_engine_options options = {.precision = exact ? PVL_PRECISION_F32 : PVL_PRECISION_AUTO};
    pvl_status status = pvl_loader_new(&loader, &options, err);
    for (; *files && status == PVL_OK; files++) {
        char *data;
        size_t bytes;
        status = pvl_io_read(&data, &bytes, *files, SIZE_MAX / 2, err);
        if (status != PVL_OK)
            break;
        status = pvl_loader_begin_file(loader, *files, bytes, err);
        if (status == PVL_OK)
            status = pvl_loader_push(loader, data, bytes, err);
        free(data);
    }
    if (status == PVL_OK)
        return pvl_loader_finish(loader, out, err);
    return status;
}

static pvl_status logits(const pvl_engine *e, const int32_t *ids, size_t n, float **out,
                         size_t *count, pvl_error *err) {
    const pvl_llm_config *l = &e->model.llm;
    pvl_kvcache cache;
    size_t bytes;
    void *workspace;
    float *rows = malloc(n * l->hidden * sizeof *rows);
    *count = n * l->vocabulary;
    *out = malloc(*count * sizeof **out);
    if (!rows || !*out || !pvl_llm_workspace(&bytes, &e->model, n, pvl_team_size(e->team)))
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory for %zu rows.", n);
    PVL_TRY(pvl_kvcache_new(&cache, NULL, l, PVL_CACHE_F32, n, err));
    PVL_TRY(pvl_malloc(NULL, &workspace, bytes, 1, "the working memory", err));
    for (size_t i = 0; i < n; i++)
        pvl_model_embed(&e->model, rows + i * l->hidden, (size_t)ids[i]);
    pvl_run run = {.kernels = e->kernels, .team = e->team, .workspace = workspace};
    pvl_llm_step step = {.rows = rows,
                         .n = n,
                         .workspace_rows = n,
                         .rotation = pvl_llm_rotation(l, n),
                         .want = PVL_LOGITS_ALL,
                         .logits = *out};
    return pvl_llm_forward(&run, &e->model, &cache, &step, err);
}

static pvl_status visual(const pvl_engine *e, const float *pixels, size_t n, float **out,
                         size_t *count, pvl_error *err) {
    const pvl_vit_config *v = &e->model.vit;
    size_t tile = 3 * v->image_size * v->image_size, bytes, one = v->tokens * v->projection;
    void *workspace;
    *count = n / tile * one;
    *out = malloc((*count + 1) * sizeof **out);
    if (!*out || !pvl_vit_workspace(&bytes, &e->model, pvl_team_size(e->team)))
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory for the tiles.");
    PVL_TRY(pvl_malloc(NULL, &workspace, bytes, 1, "the working memory", err));
    pvl_run run = {.kernels = e->kernels, .team = e->team, .workspace = workspace};
    for (size_t i = 0; i < n / tile; i++)
        PVL_TRY(pvl_vit_encode(&run, &e->model, *out + i * one, pixels + i * tile, err));
    return PVL_OK;
}

int main(int argc, char **argv) {
    pvl_error err = {0};
    bool exact = argc > 1 && strcmp(argv[1], "exact") == 0;
    argv += exact;
    argc -= exact;
    if (argc < 5)
        return fputs("usage: engine_values [exact] logits|visual IN OUT FILE.gguf...\n", stderr), 2;
    pvl_engine *e = NULL;
    char *in;
    size_t bytes, count = 0;
    float *values = NULL;
    pvl_status status = pvl_io_read(&in, &bytes, argv[2], SIZE_MAX / 2, &err);
    if (status == PVL_OK)
        status = load(&e, exact, argv + 4, &err);
    if (status == PVL_OK && strcmp(argv[1], "logits") == 0)
        status = logits(e, (const int32_t *)(void *)in, bytes / 4, &values, &count, &err);
    else if (status == PVL_OK)
        status = visual(e, (const float *)(void *)in, bytes / 4, &values, &count, &err);
    FILE *f = status == PVL_OK ? fopen(argv[3], "wb") : NULL;
    if (f && fwrite(values, sizeof *values, count, f) == count && fclose(f) == 0)
        return 0;
    fprintf(stderr, "engine_values: %s\n", err.message[0] ? err.message : "OUT cannot be written");
    return 1;
}
