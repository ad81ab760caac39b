#include "tools/precision.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/internal.h"
#include "tools/command.h"
#include "tools/io.h"

enum { MAX_MODELS = 256, MAX_LINE = 65536, ANSWER_TOKENS = 24, MAX_PICTURE = 256 << 20 };

static const char usage[] =
    "usage: pocketvl precision -m MODEL.gguf [-m MMPROJ.gguf] [--kernels NAME] [--tiles N] "
    "[--kv q8] [--context N] [-r REFERENCE.gguf] < LINES\n"
    "  LINES: a picture's path, a tab, a question\n"
    "  -r: the float run uses this file, so that the types of MODEL.gguf count too\n";

struct setup {
    const char *models[MAX_MODELS];
    size_t model_count;
    const char *references[MAX_MODELS]; /* for the float run; none: the models */
    size_t reference_count;
    pvl_engine_options engine;
    pvl_session_options session;
    pvl_prompt_options prompt;
};

struct tally {
    double sum, worst;
    size_t tokens, same, prompts;
};

static bool parse(struct setup *a, int argc, char **argv) {
    a->session.context = 1024;
    a->engine.threads = 2;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        bool good = true;
        if (strcmp(argv[i], "-m") == 0 && a->model_count < MAX_MODELS)
            a->models[a->model_count++] = value;
        else if (strcmp(argv[i], "-r") == 0 && a->reference_count < MAX_MODELS)
            a->references[a->reference_count++] = value;
        else if (strcmp(argv[i], "--kernels") == 0)
            a->engine.kernels = value;
        else if (strcmp(argv[i], "--tiles") == 0)
            good = pvl_parse_int(value, 1, 40, &a->prompt.max_tiles);
        else if (strcmp(argv[i], "--context") == 0)
            good = pvl_parse_int(value, 16, INT_MAX, &a->session.context);
        else if (strcmp(argv[i], "--kv") == 0 && strcmp(value, "q8") == 0)
            a->session.kv_type = PVL_KV_Q8;
        else
            good = false;
        if (!good)
            return false;
    }
    return a->model_count > 0 && argc % 2 == 1;
}

static pvl_status load(pvl_engine **out, const struct setup *a, pvl_precision precision,
                       pvl_error *err) {
    pvl_engine_options options = a->engine;
    options.precision = precision;
    bool reference = precision == PVL_PRECISION_F32 && a->reference_count;
    const char *const *models = reference ? a->references : a->models;
    size_t count = reference ? a->reference_count : a->model_count;
    pvl_loader *loader;
    pvl_status status = pvl_loader_new(&loader, &options, err);
    for (size_t i = 0; status == PVL_OK && i < count; i++) {
        char *file;
        size_t bytes;
        status = pvl_io_read(&file, &bytes, models[i], SIZE_MAX / 2, err);
        if (status != PVL_OK)
            break;
        status = pvl_loader_begin_file(loader, models[i], bytes, err);
        if (status == PVL_OK)
            status = pvl_loader_push(loader, file, bytes, err);
        free(file);
    }
    if (status == PVL_OK)
        return pvl_loader_finish(loader, out, err);
    pvl_loader_free(loader);
    return status;
}

/* log sum exp of logits. */
static double log_sum(const float *x, size_t n) {
    double top = (double)x[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        top = (double)x[i] > top ? (double)x[i] : top;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - top);
    return top + log(sum);
}

static void compare(struct tally *t, const float *exact, const float *rounded, size_t n) {
    double a = log_sum(exact, n), b = log_sum(rounded, n), kl = 0;
    for (size_t i = 0; i < n; i++) {
        double p = (double)exact[i] - a, q = (double)rounded[i] - b;
        kl += exp(p) * (p - q);
    }
    t->sum += kl;
    t->worst = kl > t->worst ? kl : t->worst;
    t->tokens++;
    t->same += pvl_argmax(exact, n) == pvl_argmax(rounded, n);
}

/* Both sessions along the float session's greedy answer. */
static pvl_status follow(struct tally *t, pvl_session *exact, pvl_session *rounded,
                         pvl_error *err) {
    size_t n = exact->engine->model.llm.vocabulary;
    pvl_piece piece = {0}, ignored;
    for (int i = 0; i < ANSWER_TOKENS && piece.stop == PVL_STOP_NO; i++) {
        compare(t, exact->logits, rounded->logits, n);
        pvl_status status = pvl_session_next(exact, &piece, err);
        if (status == PVL_OK)
            status = pvl_session_next(rounded, &ignored, err);
        if (status != PVL_OK)
            return status;
        /* The rounded one goes where the other went, also where it would have stopped. */
        rounded->last_token = piece.token;
        rounded->state = PVL_SESSION_PENDING;
        if (piece.stop != PVL_STOP_NO)
            break;
        /* Runs the token in both: sampling comes first in the next turn, so its logits are made
         * here. */
        status = pvl_session_run_pending(exact, err);
        if (status == PVL_OK)
            status = pvl_session_run_pending(rounded, err);
        if (status != PVL_OK)
            return status;
    }
    return PVL_OK;
}

static pvl_status run_line(const struct setup *a, struct tally *t, char *line, pvl_session *exact,
                           pvl_session *rounded, pvl_error *err) {
    char *tab = strchr(line, '\t');
    if (!tab)
        return pvl_fail(err, PVL_E_ARGUMENT, "A line is a picture, a tab and a question: %.60s",
                        line);
    *tab = '\0';
    char *file;
    size_t bytes;
    pvl_status status = pvl_io_read(&file, &bytes, line, MAX_PICTURE, err);
    if (status != PVL_OK)
        return status;
    pvl_image *image = NULL;
    status = pvl_image_decode(&image, NULL, file, bytes, NULL, err);
    free(file);
    pvl_part parts[] = {{.kind = PVL_PART_IMAGE, .image = image},
                        {.text = tab + 1, .text_bytes = strlen(tab + 1), .markup = true}};
    pvl_message message = {PVL_ROLE_USER, parts, 2};
    if (status == PVL_OK)
        status = pvl_session_prompt(exact, &message, 1, &a->prompt, err);
    if (status == PVL_OK)
        status = pvl_session_prompt(rounded, &message, 1, &a->prompt, err);
    if (status == PVL_OK)
        status = follow(t, exact, rounded, err);
    t->prompts++;
    pvl_image_free(image);
    return status;
}

static pvl_status run(const struct setup *a, struct tally *t, pvl_error *err) {
    pvl_engine *engines[2] = {NULL, NULL};
    pvl_session *sessions[2] = {NULL, NULL};
    pvl_status status = load(&engines[0], a, PVL_PRECISION_F32, err);
    if (status == PVL_OK)
        status = load(&engines[1], a, PVL_PRECISION_AUTO, err);
    pvl_session_options floats = a->session;
    floats.kv_type = PVL_KV_F32;
    if (status == PVL_OK)
        status = pvl_session_new(&sessions[0], engines[0], &floats, err);
    if (status == PVL_OK)
        status = pvl_session_new(&sessions[1], engines[1], &a->session, err);
    char *line = malloc(MAX_LINE);
    while (status == PVL_OK && line && fgets(line, MAX_LINE, stdin)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0])
            status = run_line(a, t, line, sessions[0], sessions[1], err);
    }
    free(line);
    for (int i = 0; i < 2; i++) {
        pvl_session_free(sessions[i]);
        pvl_engine_free(engines[i]);
    }
    return status;
}

int pvl_tool_precision(int argc, char **argv) {
    struct setup a = {0};
    struct tally t = {0};
    pvl_error err = {0};
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (!parse(&a, argc, argv)) {
        fputs(usage, stderr);
        return 2;
    }
    if (run(&a, &t, &err) != PVL_OK) {
        fprintf(stderr, "pocketvl precision: %s\n", err.message);
        return 1;
    }
    if (!t.tokens) {
        fputs("pocketvl precision: no lines came on standard input.\n", stderr);
        return 1;
    }
    printf("%zu prompts, %zu tokens: mean KL %.5f, largest %.4f, same likeliest token %.2f %%\n",
           t.prompts, t.tokens, t.sum / (double)t.tokens, t.worst,
           100.0 * (double)t.same / (double)t.tokens);
    return 0;
}
