/* The nth allocation fails, for every n, through loading, a picture, a prompt, an answer and
 * closing: a status each time, nothing leaked, and what was there before still works. */
#include "../engine.h"

static const char path[] = "tests/fixtures/model/qwen2-q4_0.gguf";

/* An allocator that counts, fails at will and knows what is alive. */
struct counter {
    long allocations, fail_at; /* fail_at: 0 = never */
    long alive;
};

static void *count_alloc(void *ctx, size_t bytes) {
    struct counter *c = ctx;
    if (++c->allocations == c->fail_at)
        return NULL;
    size_t rounded = (bytes + 63) / 64 * 64;
    void *p = aligned_alloc(64, rounded ? rounded : 64);
    if (p)
        c->alive++;
    return p;
}

static void count_free(void *ctx, void *p) {
    struct counter *c = ctx;
    c->alive--;
    free(p);
}

static unsigned char *file;
static size_t file_bytes;

static pvl_status load(pvl_engine **out, const pvl_allocator *a, pvl_error *err) {
    const engine_file model = {"model.gguf", file, file_bytes};
    return engine_from_files(out, &model, 1, &(pvl_engine_options){.allocator = a, .threads = 2},
                             err);
}

static pvl_status make_picture(pvl_image **out, const pvl_allocator *a, pvl_error *err) {
    uint8_t rgba[40 * 30 * 4];
    for (size_t i = 0; i < sizeof rgba; i++)
        rgba[i] = (uint8_t)(i % 4 == 3 ? 255 : i * 31);
    return pvl_image_from_rgba(out, a, rgba, 40, 30, err);
}

static pvl_status ask(pvl_session *s, const pvl_image *image, pvl_error *err) {
    pvl_part parts[] = {{.kind = PVL_PART_IMAGE, .image = image},
                        {.text = "What is it?", .text_bytes = 11}};
    pvl_message message = {PVL_ROLE_USER, parts, 2};
    static const char *const stops[] = {"zzzz"};
    pvl_prompt_options options = {
        .max_tokens = 6, .max_tiles = 2, .temperature = 0.5f, .stop = stops, .stop_count = 1};
    pvl_status status = pvl_session_prompt(s, &message, 1, &options, err);
    pvl_piece piece = {0};
    while (status == PVL_OK && piece.stop == PVL_STOP_NO)
        status = pvl_session_next(s, &piece, err);
    return status;
}

static void check_error(pvl_status status, const pvl_error *err, long n) {
    CHECK_MSG(status == PVL_E_MEMORY, "allocation %ld: status is %s: %s", n,
              pvl_status_name(status), err->message);
    CHECK(err->code == status && err->message[0]);
}

TEST(every_allocation_of_loading) {
    file = test_read_file(path, &file_bytes);
    REQUIRE(file != NULL);
    struct counter c = {0};
    pvl_allocator a = {count_alloc, count_free, &c};
    pvl_engine *e;
    REQUIRE(load(&e, &a, NULL) == PVL_OK);
    pvl_engine_free(e);
    CHECK_EQ_INT(c.alive, 0);
    long total = c.allocations;
    CHECK(total > 50);
    for (long n = 1; n <= total; n++) {
        pvl_error err = {0};
        c = (struct counter){.fail_at = n};
        pvl_status status = load(&e, &a, &err);
        check_error(status, &err, n);
        CHECK(e == NULL);
        CHECK_MSG(c.alive == 0, "allocation %ld: %ld blocks leaked", n, c.alive);
    }
    printf("  %ld failures injected\n", total);
    free(file);
}

TEST(every_allocation_of_a_conversation) {
    file = test_read_file(path, &file_bytes);
    REQUIRE(file != NULL);
    struct counter c = {0};
    pvl_allocator a = {count_alloc, count_free, &c};
    pvl_engine *e;
    REQUIRE(load(&e, &a, NULL) == PVL_OK);
    long engine_blocks = c.alive;
    for (long n = 1, done = 0; !done; n++) {
        REQUIRE(n < 2000);
        pvl_error err = {0};
        pvl_session *s = NULL;
        pvl_image *image = NULL;
        c.allocations = 0;
        c.fail_at = n;
        pvl_status status = pvl_session_new(&s, e, &(pvl_session_options){.context = 512}, &err);
        if (status == PVL_OK)
            status = make_picture(&image, &a, &err);
        if (status == PVL_OK)
            status = ask(s, image, &err);
        if (c.allocations < n) { /* nothing failed: every allocation has had its turn */
            done = 1;
            CHECK_EQ_INT(status, PVL_OK);
            printf("  %ld failures injected\n", n - 1);
        } else {
            check_error(status, &err, n);
        }
        c.fail_at = 0;
        if (s) { /* the session is still good */
            if (!image)
                CHECK_EQ_INT(make_picture(&image, &a, NULL), PVL_OK);
            CHECK_EQ_INT(ask(s, image, NULL), PVL_OK);
        }
        pvl_image_free(image);
        pvl_session_free(s);
        CHECK_MSG(c.alive == engine_blocks, "allocation %ld: %ld blocks leaked", n,
                  c.alive - engine_blocks);
    }
    pvl_engine_free(e);
    CHECK_EQ_INT(c.alive, 0);
    free(file);
}

/* Every format, and one that is turned upright: the decoder's own requests fail, too. */
TEST(every_allocation_of_a_picture) {
    static const char *const names[] = {"photo_420.jpg",  "photo_progressive.jpg",
                                        "photo_cmyk.jpg", "turned_6.jpg",
                                        "alpha.png",      "interlaced.png",
                                        "grey_alpha.png", "palette_clear.png",
                                        "clear.gif",      "alpha.bmp"};
    long injected = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char picture[200];
        size_t bytes;
        snprintf(picture, sizeof picture, "tests/fixtures/image/%s", names[i]);
        unsigned char *data = test_read_file(picture, &bytes);
        REQUIRE(data != NULL);
        struct counter c = {0};
        pvl_allocator a = {count_alloc, count_free, &c};
        for (long n = 1, done = 0; !done; n++) {
            REQUIRE(n < 2000);
            pvl_error err = {0};
            pvl_image *image = NULL;
            c = (struct counter){.fail_at = n};
            pvl_status status = pvl_image_decode(&image, &a, data, bytes, NULL, &err);
            done = c.allocations < n;
            if (done) {
                CHECK_MSG(status == PVL_OK, "%s: %s", names[i], err.message);
            } else {
                check_error(status, &err, n);
                CHECK(image == NULL);
                injected++;
            }
            pvl_image_free(image);
            CHECK_MSG(c.alive == 0, "%s, allocation %ld: %ld blocks leaked", names[i], n, c.alive);
        }
        free(data);
    }
    printf("  %ld failures injected\n", injected);
}

/* Decoding allocates nothing: with memory gone after the prompt, the answer still comes. */
TEST(an_answer_needs_no_memory) {
    file = test_read_file(path, &file_bytes);
    REQUIRE(file != NULL);
    struct counter c = {0};
    pvl_allocator a = {count_alloc, count_free, &c};
    pvl_engine *e;
    pvl_session *s;
    REQUIRE(load(&e, &a, NULL) == PVL_OK);
    REQUIRE(pvl_session_new(&s, e, &(pvl_session_options){.context = 512}, NULL) == PVL_OK);
    pvl_part parts[] = {{.text = "What is it?", .text_bytes = 11}};
    pvl_message message = {PVL_ROLE_USER, parts, 1};
    pvl_prompt_options options = {
        .max_tokens = 100, .temperature = 1.0f, .top_p = 0.9f, .repetition_penalty = 1.1f};
    REQUIRE(pvl_session_prompt(s, &message, 1, &options, NULL) == PVL_OK);
    long before = c.allocations;
    pvl_piece piece = {0};
    while (piece.stop == PVL_STOP_NO && pvl_session_next(s, &piece, NULL) == PVL_OK)
        ;
    CHECK(piece.stop != PVL_STOP_NO);
    CHECK_EQ_INT(c.allocations, before);
    pvl_session_free(s);
    pvl_engine_free(e);
    CHECK_EQ_INT(c.alive, 0);
    free(file);
}

TEST_MAIN(CASE(every_allocation_of_loading), CASE(every_allocation_of_a_conversation),
          CASE(every_allocation_of_a_picture), CASE(an_answer_needs_no_memory))
