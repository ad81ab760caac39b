#include "tools/ask.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pocketvl.h"
#include "tools/gguf_file.h"

enum { MAX_FILES = 256, MAX_IMAGES = 16, READ_BYTES = 8 << 20 };

struct arguments {
    char *models[MAX_FILES];
    size_t model_count;
    const char *images[MAX_IMAGES];
    size_t image_count;
    const char *question;
    pvl_engine_options engine;
    pvl_session_options session;
    pvl_prompt_options prompt;
    bool verbose;
};

static const char usage[] =
    "usage: pocketvl ask -m MODEL.gguf [-m MMPROJ.gguf] [options] [IMAGE ...] QUESTION\n"
    "  -m FILE             a model file; of a split model the first part\n"
    "  --threads N         1\n"
    "  --context N         tokens of the conversation, 4096\n"
    "  --kv q8             8-bit keys and values\n"
    "  --tiles N           most tiles of a picture, 1\n"
    "  --max-tokens N      of the answer, 256\n"
    "  --temperature T     0 = greedy; also --top-k K, --top-p P, --repetition-penalty R, --seed "
    "N\n"
    "  --json              the answer is one JSON object\n"
    "  --kernels NAME      a kernel set by name\n"
    "  --f32               all weights as floats: slow, for checking\n"
    "  --verbose           times and counts on stderr\n";

/* ---- command line ---- */

static bool integer(const char *text, long long *out) {
    char *end;
    errno = 0;
    *out = strtoll(text, &end, 10);
    return errno == 0 && *text && !*end;
}

static bool number(const char *text, float *out) {
    char *end;
    errno = 0;
    *out = strtof(text, &end);
    return errno == 0 && *text && !*end;
}

/* "x-00001-of-00003.gguf" stands for its three parts. */
static bool add_model(struct arguments *a, const char *path) {
    unsigned parts = pvl_gguf_parts_of(path), count = parts ? parts : 1;
    for (unsigned i = 1; i <= count; i++) {
        char *name = parts ? pvl_gguf_part_path(path, i) : strdup(path);
        if (!name || a->model_count == MAX_FILES) {
            free(name);
            return false;
        }
        a->models[a->model_count++] = name;
    }
    return true;
}

static bool set_option(struct arguments *a, const char *name, const char *value) {
    long long n = 0;
    bool whole = integer(value, &n) && n >= 0 && n <= 1000000000;
    if (strcmp(name, "-m") == 0)
        return add_model(a, value);
    if (strcmp(name, "--kernels") == 0) {
        a->engine.kernels = value;
        return true;
    }
    if (strcmp(name, "--kv") == 0) {
        a->session.kv_type = strcmp(value, "q8") == 0 ? PVL_KV_Q8 : PVL_KV_F32;
        return strcmp(value, "q8") == 0 || strcmp(value, "f32") == 0;
    }
    if (strcmp(name, "--temperature") == 0)
        return number(value, &a->prompt.temperature);
    if (strcmp(name, "--top-p") == 0)
        return number(value, &a->prompt.top_p);
    if (strcmp(name, "--repetition-penalty") == 0)
        return number(value, &a->prompt.repetition_penalty);
    if (strcmp(name, "--threads") == 0)
        a->engine.threads = (int)n;
    else if (strcmp(name, "--context") == 0)
        a->session.context = (int)n;
    else if (strcmp(name, "--tiles") == 0)
        a->prompt.max_tiles = (int)n;
    else if (strcmp(name, "--max-tokens") == 0)
        a->prompt.max_tokens = (int)n;
    else if (strcmp(name, "--top-k") == 0)
        a->prompt.top_k = (int)n;
    else if (strcmp(name, "--seed") == 0)
        a->prompt.seed = (uint64_t)n;
    else
        return false;
    return whole;
}

static bool parse(struct arguments *a, int argc, char **argv) {
    const char *words[MAX_IMAGES + 1];
    size_t count = 0;
    a->prompt.max_tokens = 256;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--verbose") == 0) {
            a->verbose = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            a->prompt.json = true;
        } else if (strcmp(argv[i], "--f32") == 0) {
            a->engine.precision = PVL_PRECISION_F32;
        } else if (argv[i][0] == '-' && argv[i][1]) {
            if (i + 1 == argc || !set_option(a, argv[i], argv[i + 1])) {
                fprintf(stderr, "pocketvl ask: the option %s%s%s is not understood.\n", argv[i],
                        i + 1 < argc ? " " : "", i + 1 < argc ? argv[i + 1] : "");
                return false;
            }
            i++;
        } else if (count < MAX_IMAGES + 1) {
            words[count++] = argv[i];
        } else {
            fprintf(stderr, "pocketvl ask: at most %d pictures.\n", MAX_IMAGES);
            return false;
        }
    }
    if (!a->model_count || !count) {
        fputs(usage, stderr);
        return false;
    }
    a->question = words[count - 1];
    a->image_count = count - 1;
    for (size_t i = 0; i < a->image_count; i++)
        a->images[i] = words[i];
    return true;
}

/* ---- files ---- */

static pvl_status io_error(pvl_error *err, const char *what, const char *path) {
    err->code = PVL_E_IO;
    snprintf(err->message, sizeof err->message, "%s %s: %s.", what, path, strerror(errno));
    return PVL_E_IO;
}

static pvl_status read_whole(const char *path, unsigned char **out, size_t *bytes, pvl_error *err) {
    FILE *f = fopen(path, "rb");
    if (!f)
        return io_error(err, "Cannot open", path);
    unsigned char *data = NULL;
    size_t n = 0, capacity = 0;
    while (!feof(f) && !ferror(f)) {
        if (n == capacity) {
            capacity = capacity ? capacity * 2 : 1 << 20;
            unsigned char *grown = realloc(data, capacity);
            if (!grown)
                break;
            data = grown;
        }
        n += fread(data + n, 1, capacity - n, f);
    }
    pvl_status status = PVL_OK;
    if (!feof(f))
        status = io_error(err, "Cannot read", path);
    fclose(f);
    if (status != PVL_OK) {
        free(data);
        return status;
    }
    *out = data;
    *bytes = n;
    return PVL_OK;
}

static pvl_status push_file(pvl_loader *loader, const char *path, unsigned char *buffer,
                            pvl_error *err) {
    FILE *f = fopen(path, "rb");
    if (!f)
        return io_error(err, "Cannot open", path);
    const char *slash = strrchr(path, '/');
    off_t size = fseeko(f, 0, SEEK_END) == 0 ? ftello(f) : -1;
    pvl_status status = PVL_OK;
    if (size < 0 || fseeko(f, 0, SEEK_SET) != 0)
        status = io_error(err, "Cannot read", path);
    else
        status = pvl_loader_begin_file(loader, slash ? slash + 1 : path, (uint64_t)size, err);
    while (status == PVL_OK && !feof(f) && !ferror(f)) {
        size_t n = fread(buffer, 1, READ_BYTES, f);
        status = pvl_loader_push(loader, buffer, n, err);
    }
    if (status == PVL_OK && ferror(f))
        status = io_error(err, "Cannot read", path);
    fclose(f);
    return status;
}

static pvl_status load(const struct arguments *a, pvl_engine **out, pvl_error *err) {
    pvl_loader *loader;
    pvl_status status = pvl_loader_new(&loader, &a->engine, err);
    if (status != PVL_OK)
        return status;
    unsigned char *buffer = malloc(READ_BYTES);
    if (!buffer)
        status = io_error(err, "Cannot read", a->models[0]);
    for (size_t i = 0; status == PVL_OK && i < a->model_count; i++) {
        status = push_file(loader, a->models[i], buffer, err);
    }
    free(buffer);
    if (status == PVL_OK)
        return pvl_loader_finish(loader, out, err);
    pvl_loader_free(loader);
    return status;
}

/* ---- the question ---- */

static pvl_status answer(const struct arguments *a, pvl_session *session, pvl_image *const *images,
                         pvl_error *err) {
    pvl_part parts[MAX_IMAGES + 1] = {0};
    for (size_t i = 0; i < a->image_count; i++) {
        parts[i].kind = PVL_PART_IMAGE;
        parts[i].image = images[i];
    }
    parts[a->image_count] =
        (pvl_part){.text = a->question, .text_bytes = strlen(a->question), .markup = true};
    pvl_message message = {PVL_ROLE_USER, parts, a->image_count + 1};
    pvl_status status = pvl_session_prompt(session, &message, 1, &a->prompt, err);
    pvl_piece piece = {0};
    while (status == PVL_OK && piece.stop == PVL_STOP_NO) {
        status = pvl_session_next(session, &piece, err);
        if (status == PVL_OK) {
            fwrite(piece.text, 1, piece.text_bytes, stdout);
            fflush(stdout);
        }
    }
    if (status == PVL_OK)
        putchar('\n');
    return status;
}

static void print_stats(const pvl_session *session) {
    pvl_stats s;
    pvl_session_get_stats(session, &s);
    fprintf(stderr,
            "%d prompt tokens (%d visual, %d tiles), %d answer tokens; picture %.0f ms, vision "
            "%.0f ms, "
            "prefill %.0f ms, decode %.0f ms; weights %.0f MB, cache %.0f MB\n",
            s.prompt_tokens, s.visual_tokens, s.tiles, s.generated_tokens, s.image_ms, s.vision_ms,
            s.prefill_ms, s.decode_ms, (double)s.weight_bytes * 1e-6, (double)s.kv_bytes * 1e-6);
}

static pvl_status run(const struct arguments *a, pvl_error *err) {
    pvl_image *images[MAX_IMAGES] = {0};
    pvl_engine *engine = NULL;
    pvl_session *session = NULL;
    pvl_status status = PVL_OK;
    for (size_t i = 0; status == PVL_OK && i < a->image_count; i++) {
        unsigned char *file = NULL;
        size_t bytes = 0;
        status = read_whole(a->images[i], &file, &bytes, err);
        if (status == PVL_OK)
            status = pvl_image_decode(&images[i], NULL, file, bytes, NULL, err);
        free(file);
    }
    if (status == PVL_OK)
        status = load(a, &engine, err);
    if (status == PVL_OK)
        status = pvl_session_new(&session, engine, &a->session, err);
    if (status == PVL_OK)
        status = answer(a, session, images, err);
    if (status == PVL_OK && a->verbose)
        print_stats(session);
    pvl_session_free(session);
    pvl_engine_free(engine);
    for (size_t i = 0; i < a->image_count; i++)
        pvl_image_free(images[i]);
    return status;
}

int pvl_tool_ask(int argc, char **argv) {
    struct arguments a = {0};
    pvl_error err = {0};
    int exit_status = 2;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        return 0;
    }
    if (parse(&a, argc, argv)) {
        exit_status = run(&a, &err) == PVL_OK ? 0 : 1;
        if (exit_status)
            fprintf(stderr, "pocketvl ask: %s\n", err.message);
    }
    for (size_t i = 0; i < a.model_count; i++)
        free(a.models[i]);
    return exit_status;
}
