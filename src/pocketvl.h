/* PocketVL: visual question answering with Mini-InternVL, in C11.
 *
 *   pvl_loader    bytes of GGUF files go in, in any portions, and are packed as they arrive
 *   pvl_engine    loaded weights and tokenizer: read only, shared by sessions
 *   pvl_image     one picture, upright 8-bit RGB
 *   pvl_session   one conversation with its KV cache; one thread calls it at a time
 *
 *   pvl_loader *loader; pvl_engine *engine; pvl_session *session; pvl_image *image;
 *   pvl_loader_new(&loader, NULL, &err);
 *   pvl_loader_begin_file(loader, "model.gguf", file_size, &err);
 *   while (more) pvl_loader_push(loader, bytes, n, &err);
 *   pvl_loader_finish(loader, &engine, &err);                       // frees the loader
 *   pvl_image_decode(&image, NULL, file, file_bytes, NULL, &err);
 *   pvl_session_new(&session, engine, NULL, &err);
 *   pvl_part parts[] = {{.kind = PVL_PART_IMAGE, .image = image}, {.kind = PVL_PART_TEXT, .text =
 * q, .text_bytes = strlen(q)}}; pvl_message message = {PVL_ROLE_USER, parts, 2};
 *   pvl_session_prompt(session, &message, 1, NULL, &err);           // encodes pictures, prefills
 *   pvl_piece piece;
 *   while (pvl_session_next(session, &piece, &err) == PVL_OK && !piece.stop) write(piece.text,
 * piece.text_bytes);
 *
 * Every fallible function returns a status and fills the error slot (NULL allowed; zero it before
 * use). Options are structs where zero means the default. The library never prints, exits or aborts
 * on input. Strings are UTF-8. */
#ifndef POCKETVL_H
#define POCKETVL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PVL_VERSION "0.1.0"

/* ---- status ---- */

typedef enum pvl_status {
    PVL_OK = 0,
    PVL_E_ARGUMENT = 1,    /* a call that makes no sense: empty question, option out of range */
    PVL_E_MEMORY = 2,      /* not enough memory */
    PVL_E_CANCELLED = 3,   /* pvl_session_cancel was called */
    PVL_E_IO = 4,          /* reading or writing a file failed (native tools only) */
    PVL_E_FORMAT = 5,      /* a file that is damaged or is not what it should be */
    PVL_E_UNSUPPORTED = 6, /* a sound file that this build cannot run */
    PVL_E_MODEL = 7,    /* a model whose parts do not fit together: missing tensor, wrong shape */
    PVL_E_IMAGE = 8,    /* not a picture, or a damaged one */
    PVL_E_LIMIT = 9,    /* larger than a stated limit */
    PVL_E_CONTEXT = 10, /* the conversation does not fit the context */
    PVL_E_STATE = 11,   /* calls out of order */
    PVL_E_INTERNAL = 12 /* our bug */
} pvl_status;

typedef struct pvl_error {
    pvl_status code;
    char message[500]; /* one sentence, UTF-8, terminated */
} pvl_error;

/* "OK", "MEMORY", ...: the same names that the JavaScript error code carries. Static storage. */
const char *pvl_status_name(pvl_status code);

/* alloc: `bytes` aligned to 64, or NULL. free: never NULL. Called from the thread that calls the
 * library, but for pvl_loader_push_async. */
typedef struct pvl_allocator {
    void *(*alloc)(void *ctx, size_t bytes);
    void (*free)(void *ctx, void *p);
    void *ctx;
} pvl_allocator;

/* ---- engine ---- */

typedef enum pvl_precision {
    PVL_PRECISION_AUTO = 0, /* 8-bit for F32/F16/BF16 matrices, quantized types as they are */
    PVL_PRECISION_F32 = 1   /* everything in float, slow and large: for checking */
} pvl_precision;

typedef struct pvl_engine_options {
    int threads; /* 0 = 1 */
    pvl_precision precision;
    const char *kernels; /* name of a kernel set ("scalar", "simd128", "relaxed"), NULL = the best
                            that runs */
    const pvl_allocator *allocator; /* NULL = libc; must outlive the engine */
} pvl_engine_options;

typedef struct pvl_engine pvl_engine;
typedef struct pvl_loader pvl_loader;

pvl_status pvl_loader_new(pvl_loader **out, const pvl_engine_options *options, pvl_error *err);
/* Files in any order, but a split file's parts in their order; each begun, pushed whole, before the
 * next is begun. */
pvl_status pvl_loader_begin_file(pvl_loader *loader, const char *name, uint64_t bytes,
                                 pvl_error *err);
/* The next n bytes of the file. They are used before the call returns; the caller keeps them. */
pvl_status pvl_loader_push(pvl_loader *loader, const void *data, size_t n, pvl_error *err);
/* The same behind the caller, on the engine's other threads: n bytes at `data` have to stay as they
 * are until pvl_loader_wait, or any other call with this loader, has returned. How it ended is told
 * by that call. With one thread it is done before this one returns. The allocator is called from
 * another thread meanwhile. */
pvl_status pvl_loader_push_async(pvl_loader *loader, const void *data, size_t n, pvl_error *err);
/* Waits for the push behind the caller; PVL_OK where there is none. */
pvl_status pvl_loader_wait(pvl_loader *loader, pvl_error *err);
/* Checks that everything is there and hands over the engine. The loader is freed in any case. */
pvl_status pvl_loader_finish(pvl_loader *loader, pvl_engine **out, pvl_error *err);
/* Gives up. NULL is fine. */
void pvl_loader_free(pvl_loader *loader);
/* The engine must have no sessions left. NULL is fine. */
void pvl_engine_free(pvl_engine *engine);

typedef struct pvl_engine_info {
    const char *name;         /* general.name; lives as long as the engine, as all strings here */
    const char *architecture; /* "qwen2", "internlm2", "phi3" */
    const char *template_name;
    const char *kernels; /* kernel set in use */
    int threads;
    bool has_vision;
    int context_length; /* longest that the model was made for */
    int vocabulary, layers, hidden, vision_layers, vision_hidden;
    int image_size;      /* pixels of a tile's side */
    int tokens_per_tile; /* visual tokens */
    uint64_t weight_bytes;
    uint64_t parameters;
} pvl_engine_info;

void pvl_engine_get_info(const pvl_engine *engine, pvl_engine_info *out);

/* ---- memory ---- */

typedef enum pvl_kv_type { PVL_KV_F32 = 0, PVL_KV_Q8 = 1 } pvl_kv_type;

typedef struct pvl_session_options {
    int context;         /* tokens; 0 = the smaller of 4096 and the model's length */
    pvl_kv_type kv_type; /* 8-bit keys and values take a quarter of the memory */
    int max_batch;       /* rows of one prefill step; 0 = 256 */
} pvl_session_options;

typedef struct pvl_memory {
    uint64_t weights, kv_cache, scratch,
        peak_load; /* bytes; peak_load: most during loading, weights included */
} pvl_memory;

typedef struct pvl_bytes {
    const void *data;
    size_t bytes;
} pvl_bytes;

/* What a model will need, from the beginnings of its files (metadata and tensor list, no tensor
 * data needed), before anything is allocated for it. */
pvl_status pvl_estimate(pvl_memory *out, const pvl_bytes *file_heads, size_t files,
                        const pvl_engine_options *engine, const pvl_session_options *session,
                        pvl_error *err);

/* ---- pictures ---- */

typedef struct pvl_image pvl_image;

enum {
    PVL_MAX_PIXELS = 120 * 1000 * 1000, /* larger pictures are refused with PVL_E_LIMIT */
    PVL_MAX_SIDE = 65535
};

typedef struct pvl_image_options {
    bool ignore_orientation; /* EXIF orientation is applied unless set (the Python reference ignores
                                it) */
    bool keep_hidden_colour; /* transparent pixels keep their colour, as Python's convert("RGB"),
                                instead of white behind */
} pvl_image_options;

/* JPEG, PNG, BMP, GIF (first frame) from memory. The bytes may be freed afterwards. */
pvl_status pvl_image_decode(pvl_image **out, const pvl_allocator *allocator, const void *file,
                            size_t bytes, const pvl_image_options *options, pvl_error *err);
/* Copies pixels: RGBA, 8 bits, rows without padding; transparent pixels over white. */
pvl_status pvl_image_from_rgba(pvl_image **out, const pvl_allocator *allocator, const uint8_t *rgba,
                               size_t width, size_t height, pvl_error *err);
size_t pvl_image_width(const pvl_image *image);
size_t pvl_image_height(const pvl_image *image);
/* RGB, 3 bytes a pixel, [height, width, 3]; lives as long as the image. */
const uint8_t *pvl_image_pixels(const pvl_image *image);
void pvl_image_free(pvl_image *image); /* NULL is fine */

/* How a picture will be cut. tiles counts the thumbnail. */
typedef struct pvl_tiling {
    int columns, rows, tiles, tokens;
} pvl_tiling;

/* max_tiles: most tiles of the grid, 1..40 (the thumbnail comes on top when there is more than
 * one). */
pvl_status pvl_engine_tiling(const pvl_engine *engine, pvl_tiling *out, size_t width, size_t height,
                             int max_tiles, pvl_error *err);

/* ---- conversations ---- */

typedef enum pvl_role { PVL_ROLE_SYSTEM = 0, PVL_ROLE_USER = 1, PVL_ROLE_ASSISTANT = 2 } pvl_role;
typedef enum pvl_part_kind { PVL_PART_TEXT = 0, PVL_PART_IMAGE = 1 } pvl_part_kind;

typedef struct pvl_part {
    pvl_part_kind kind;
    const char *text; /* not terminated; special tokens in it are plain text */
    size_t text_bytes;
    const pvl_image *image;
    bool markup; /* <ref>, <box>, <quad> and their ends in the text are the model's tokens
                    (questions about places use them); nothing else is. Always so in answers of the
                    assistant. */
} pvl_part;

typedef struct pvl_message {
    pvl_role role;
    const pvl_part *parts;
    size_t part_count;
} pvl_message;

typedef struct pvl_prompt_options {
    int max_tiles;            /* per picture, 0 = 1 */
    int max_tokens;           /* 0 = until the context is full */
    float temperature;        /* 0 = greedy */
    int top_k;                /* 0 = all */
    float top_p;              /* 0 = 1 */
    float repetition_penalty; /* 0 = 1 */
    uint64_t seed;
    const char *const *stop; /* strings that end the answer and are not part of it: up to 256 */
    size_t stop_count;
    bool json; /* the answer is one JSON object: say in the question which one. It ends when the
                  object does; cut short (any pvl_stop but PVL_STOP_END) it is the beginning of one.
                  At most 64 levels deep */
} pvl_prompt_options;

typedef enum pvl_stop {
    PVL_STOP_NO = 0,
    PVL_STOP_END = 1,     /* the model ended its answer */
    PVL_STOP_LENGTH = 2,  /* max_tokens */
    PVL_STOP_CONTEXT = 3, /* the context is full */
    PVL_STOP_STRING = 4   /* one of the stop strings */
} pvl_stop;

typedef struct pvl_piece {
    const char
        *text; /* whole characters only, may be empty; valid until the next call on the session */
    size_t text_bytes;
    int32_t token;
    pvl_stop stop; /* not PVL_STOP_NO: nothing more will come, text holds the rest */
} pvl_piece;

typedef struct pvl_session pvl_session;

pvl_status pvl_session_new(pvl_session **out, pvl_engine *engine,
                           const pvl_session_options *options, pvl_error *err);
void pvl_session_free(pvl_session *session); /* NULL is fine */

/* Called with work done so far: during pvl_session_prompt, between steps. stage: "vision" or
 * "prefill". Return false to cancel. */
typedef bool (*pvl_progress)(void *ctx, const char *stage, uint64_t done, uint64_t total);
void pvl_session_set_progress(pvl_session *session, pvl_progress callback, void *ctx);

/* The whole conversation, the last message from the user. What equals the beginning of what the
 * session has already computed (text and pictures) is not computed again. On error the session
 * stays usable. */
pvl_status pvl_session_prompt(pvl_session *session, const pvl_message *messages, size_t count,
                              const pvl_prompt_options *options, pvl_error *err);
/* Computes what such a prompt will begin with, up to the first picture that is new: called while
 * pictures are still being decoded (their parts have no image then) or before there is a question,
 * it saves the prompt that time. Changes no answer. */
pvl_status pvl_session_prepare(pvl_session *session, const pvl_message *messages, size_t count,
                               const pvl_prompt_options *options, pvl_error *err);
/* Tokens that such a prompt has, pictures included; computes nothing and changes nothing. */
pvl_status pvl_session_count(const pvl_session *session, const pvl_message *messages, size_t count,
                             const pvl_prompt_options *options, size_t *tokens, pvl_error *err);
/* One token of the answer. */
pvl_status pvl_session_next(pvl_session *session, pvl_piece *out, pvl_error *err);
/* The address of the cancel flag: set it to non-zero from any thread and the running call returns
 * PVL_E_CANCELLED within one matrix product. The next pvl_session_prompt clears it. */
volatile int32_t *pvl_session_cancel_flag(pvl_session *session);

typedef struct pvl_stats {
    int prompt_tokens; /* of the last prompt, visual tokens included */
    int reused_tokens; /* of those, found in the KV cache */
    int tiles;         /* encoded for the last prompt; pictures seen before cost none */
    int visual_tokens;
    int generated_tokens;
    double image_ms, vision_ms, prefill_ms, decode_ms; /* of the last prompt and its answer */
    int context, context_used;
    uint64_t weight_bytes, kv_bytes, scratch_bytes, visual_cache_bytes;
} pvl_stats;

void pvl_session_get_stats(const pvl_session *session, pvl_stats *out);

/* ---- tokens, for tools and counters ---- */

/* Ids of a text. special: recognise special tokens and apply the model's BOS rule (never for text
 * from people). *count is always set to the number of ids; PVL_E_LIMIT when capacity is smaller. */
pvl_status pvl_engine_tokenize(const pvl_engine *engine, int32_t *ids, size_t capacity,
                               size_t *count, const char *text, size_t text_bytes, bool special,
                               pvl_error *err);
/* Bytes of one token as it is shown in an answer; *bytes set always, PVL_E_LIMIT when capacity is
 * smaller. */
pvl_status pvl_engine_token_text(const pvl_engine *engine, char *out, size_t capacity,
                                 size_t *bytes, int32_t id, pvl_error *err);

#ifdef __cplusplus
}
#endif

#endif
