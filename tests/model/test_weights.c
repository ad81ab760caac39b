/* Weights arrive in pieces of any size: rows that are packed where the caller has them, rows that
 * wait for the rest of their group, and any number of threads make the same model. */
#include "../test.h"

#include "base/threads.h"
#include "engine/internal.h"
#include "tensor/gguf.h"

static const char *const path = "web/models/demo/pocketvl-demo.gguf";

static pvl_status on_header(void *ctx, const pvl_gguf *g, pvl_error *err) {
    return pvl_model_header(ctx, path, g, err);
}

static pvl_status on_data(void *ctx, const pvl_gguf *g, size_t index, uint64_t offset,
                          const void *bytes, size_t n, pvl_error *err) {
    (void)offset;
    return pvl_model_data(ctx, g, index, bytes, n, err);
}

/* Pieces of at most `piece` bytes, the first one of `first`. */
static void load(pvl_model *m, pvl_team *team, const unsigned char *file, size_t size, size_t first,
                 size_t piece) {
    pvl_gguf_callbacks callbacks = {m, on_header, on_data};
    pvl_gguf_stream *s;
    pvl_error err = {0};
    pvl_model_init(m, NULL, team, false, false);
    bool good = pvl_gguf_stream_new(&s, NULL, path, size, &callbacks, &err) == PVL_OK;
    for (size_t at = 0, n = first; good && at < size; at += n, n = piece) {
        n = size - at < n ? size - at : n;
        good = pvl_gguf_stream_push(s, file + at, n, &err) == PVL_OK;
    }
    good = good && pvl_gguf_stream_finish(s, &err) == PVL_OK;
    pvl_model_end_file(m);
    good = good && pvl_model_finish(m, &err) == PVL_OK;
    pvl_gguf_stream_free(s);
    test_check(good, __FILE__, __LINE__, "%s", err.message);
}

static void same_matrix(const pvl_matrix *a, const pvl_matrix *b, size_t piece) {
    CHECK_EQ_UINT(a->bytes, b->bytes);
    if (a->bytes)
        CHECK_MSG(memcmp(a->data, b->data, a->bytes) == 0,
                  "a matrix of %zu rows differs with pieces of %zu bytes", a->rows, piece);
}

static void same_model(const pvl_model *a, const pvl_model *b, size_t piece) {
    same_matrix(&a->head.w, &b->head.w, piece);
    same_matrix(&a->mm1.w, &b->mm1.w, piece);
    for (size_t i = 0; i < a->vit.layers; i++) {
        same_matrix(&a->vit_blocks[i].up.w, &b->vit_blocks[i].up.w, piece);
        same_matrix(&a->vit_blocks[i].down.w, &b->vit_blocks[i].down.w, piece);
    }
    for (size_t i = 0; i < a->llm.layers; i++) {
        same_matrix(&a->llm_blocks[i].q.w, &b->llm_blocks[i].q.w, piece);
        same_matrix(&a->llm_blocks[i].k.w, &b->llm_blocks[i].k.w, piece);
        same_matrix(&a->llm_blocks[i].up.w, &b->llm_blocks[i].up.w, piece);
        same_matrix(&a->llm_blocks[i].down.w, &b->llm_blocks[i].down.w, piece);
    }
}

TEST(pieces_of_any_size_make_the_same_model) {
    size_t size;
    unsigned char *file = test_read_file(path, &size);
    REQUIRE(file != NULL);
    pvl_model expect;
    load(&expect, NULL, file, size, 999, 999);
    pvl_team *team;
    REQUIRE(pvl_team_start(&team, NULL, 3, NULL) == PVL_OK);
    const size_t pieces[] = {size, 4 << 20, (64 << 10) + 1, 300001, 100003, 80000};
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
        pvl_model got;
        load(&got, i % 2 ? team : NULL, file, size, 1234567 % pieces[i], pieces[i]);
        same_model(&got, &expect, pieces[i]);
        pvl_model_free(&got);
    }
    pvl_team_stop(team);
    pvl_model_free(&expect);
    free(file);
}

/* Through two buffers in turns, the free one overwritten at once: what is packed behind the caller
 * must not read it any more. */
static pvl_status load_behind(pvl_engine **out, int threads, const unsigned char *file, size_t size,
                              size_t declared, size_t piece, pvl_error *err) {
    unsigned char *buffer[2] = {malloc(piece), malloc(piece)};
    pvl_loader *loader = NULL;
    pvl_engine_options options = {.threads = threads};
    pvl_status status = pvl_loader_new(&loader, &options, err);
    if (status == PVL_OK)
        status = pvl_loader_begin_file(loader, path, declared, err);
    for (size_t at = 0, turn = 0; status == PVL_OK && at < size; at += piece, turn ^= 1) {
        size_t n = size - at < piece ? size - at : piece;
        memcpy(buffer[turn], file + at, n);
        status = pvl_loader_push_async(loader, buffer[turn], n, err);
        memset(buffer[turn ^ 1], 0xA5, piece);
    }
    *out = NULL;
    if (status == PVL_OK)
        status = pvl_loader_finish(loader, out, err);
    else
        pvl_loader_free(loader);
    free(buffer[0]);
    free(buffer[1]);
    return status;
}

TEST(pushed_behind_the_caller) {
    size_t size;
    unsigned char *file = test_read_file(path, &size);
    REQUIRE(file != NULL);
    pvl_model expect;
    load(&expect, NULL, file, size, 999, 999);
    const size_t pieces[] = {size, 1 << 20, 100003};
    for (int threads = 1; threads <= 5; threads++) {
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            pvl_error err = {0};
            pvl_engine *e;
            load_behind(&e, threads, file, size, size, pieces[i], &err);
            REQUIRE(test_check(e != NULL, __FILE__, __LINE__, "%s", err.message));
            same_model(&e->model, &expect, pieces[i]);
            CHECK(e->model.team == e->team);
            pvl_engine_free(e);
        }
    }
    pvl_model_free(&expect);
    free(file);
}

/* What went wrong behind the caller is told by the call that waits for it, once. */
TEST(errors_from_behind_the_caller) {
    size_t size;
    unsigned char *file = test_read_file(path, &size);
    REQUIRE(file != NULL);
    file[0] ^= 1;
    for (int threads = 1; threads <= 3; threads++) {
        pvl_engine *e;
        pvl_error err = {0};
        CHECK_EQ_INT(load_behind(&e, threads, file, size, size, 100003, &err), PVL_E_FORMAT);
        CHECK(strstr(err.message, "GGUF") != NULL);
        CHECK_EQ_INT(load_behind(&e, threads, file, 4000, size, 4000, &err), PVL_E_FORMAT);
        pvl_loader *loader;
        pvl_engine_options options = {.threads = threads};
        REQUIRE(pvl_loader_new(&loader, &options, &err) == PVL_OK);
        CHECK_EQ_INT(pvl_loader_wait(loader, &err), PVL_OK);
        REQUIRE(pvl_loader_begin_file(loader, path, size, &err) == PVL_OK);
        REQUIRE(pvl_loader_push_async(loader, file, size, &err) == PVL_OK);
        CHECK_EQ_INT(pvl_loader_wait(loader, &err), PVL_E_FORMAT);
        CHECK_EQ_INT(pvl_loader_wait(loader, &err), PVL_OK);
        CHECK_EQ_INT(pvl_loader_push_async(loader, file, size, &err), PVL_OK);
        CHECK_EQ_INT(pvl_loader_push(loader, file, size, &err), PVL_E_STATE);
        pvl_loader_free(loader);
        file[0] ^= 1; /* given up while it packs */
        REQUIRE(pvl_loader_new(&loader, &options, &err) == PVL_OK);
        REQUIRE(pvl_loader_begin_file(loader, path, size, &err) == PVL_OK);
        CHECK_EQ_INT(pvl_loader_push_async(loader, file, size, &err), PVL_OK);
        pvl_loader_free(loader);
        file[0] ^= 1;
    }
    free(file);
}

TEST_MAIN(CASE(pieces_of_any_size_make_the_same_model), CASE(pushed_behind_the_caller),
          CASE(errors_from_behind_the_caller))
