/* What engine and session are made of; seen by engine/ and the model tests alone. */
#ifndef PVL_ENGINE_INTERNAL_H
#define PVL_ENGINE_INTERNAL_H

#include "engine/visual_cache.h"
#include "image/resize.h"
#include "model/llm.h"
#include "model/vit.h"
#include "text/json_guide.h"
#include "text/sampler.h"
#include "text/template.h"
#include "text/tokenizer.h"

struct pvl_engine {
    const pvl_allocator *allocator;
    const pvl_kernels *kernels;
    pvl_team *team;
    pvl_model model;
    pvl_tokenizer *tokenizer;
    pvl_template chat;
    char *system_message; /* overrides the template's; NULL = the template's own */
    char *name;
};

/* A picture of the current prompt: which cache entry holds its tokens, and how it is cut. */
typedef struct pvl_prompt_image {
    const pvl_image *image;
    pvl_tile_grid grid;
    pvl_digest digest;
} pvl_prompt_image;

typedef enum pvl_session_state {
    PVL_SESSION_IDLE,   /* no prompt, or it failed */
    PVL_SESSION_READY,  /* logits hold the next token's */
    PVL_SESSION_PENDING /* last_token was given out and not yet run */
} pvl_session_state;

/* Keys of several rotations: good for going on, not for another prompt. */
#define PVL_ROTATION_MIXED SIZE_MAX

struct pvl_session {
    pvl_engine *engine;
    const pvl_allocator *allocator;
    size_t context, batch;
    pvl_kvcache cache;
    size_t rotation; /* that the cache was made with: pvl_llm_rotation, or PVL_ROTATION_MIXED */
    unsigned char *workspace; /* of the larger of a tile and a batch */
    size_t workspace_bytes;
    float *rows;   /* [batch, hidden] */
    float *logits; /* [vocabulary] */
    float *pixels; /* [3, S, S]; NULL without vision */

    /* What the cache holds: filled positions; ids, and for visual tokens a key of picture and place
     * (0 for text). */
    int32_t *ids;   /* [context] */
    uint64_t *keys; /* [context] */
    size_t filled;

    pvl_visual_cache visuals;
    volatile int32_t cancel;
    pvl_progress progress;
    void *progress_ctx;
    const char *stage;
    uint64_t ticks, total_ticks;

    pvl_session_state state;
    pvl_sampler sampler;
    pvl_decoder decoder;
    pvl_json_guide json; /* of the answer so far, where options.json */
    pvl_prompt_options options;
    int32_t last_token;
    size_t generated;
    pvl_text pending; /* bytes decoded and not yet given out: may begin a stop string */
    size_t given;     /* bytes of pending that the last piece handed out */
    char *stop_text;  /* copies of the stop strings, each terminated */
    size_t stop_count;
    pvl_stats stats;
};

double pvl_now_ms(void);

/* The next token by the logits, which may be changed. Sets out->token, and out->stop where it
 * ends the answer; *shown: it is part of the answer. */
pvl_status pvl_session_pick(pvl_session *s, pvl_piece *out, bool *shown, pvl_error *err);

/* Runs the token that was given out last, so that the logits are those of the next; nothing to do
 * otherwise. */
pvl_status pvl_session_run_pending(pvl_session *s, pvl_error *err);

/* What a session with these options will allocate, for teams of `members`. */
pvl_status pvl_session_sizes(const pvl_model *m, const pvl_session_options *o, int members,
                             size_t *kv, size_t *scratch, pvl_error *err);

#endif
