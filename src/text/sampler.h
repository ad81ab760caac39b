/* The next token from a row of logits.
 *
 * Steps, in Hugging Face's order and with its definitions:
 *   1. repetition penalty r: of each id that occurs in `history` (prompt and answer), once: a logit
 *      below 0 is multiplied by r, others divided by it;
 *   2. temperature 0: the largest logit, the lowest id among equals; done. Otherwise logits / t;
 *   3. top-k: those that are at least the k-th largest stay (equals of the k-th too);
 *   4. top-p: by falling probability (lower id first among equals), those stay before which less
 *      than p is gathered; at least one;
 *   5. one of them by its probability.
 *
 * A NaN is never chosen and an infinite logit does not spread: all weight goes to the ids at +inf.
 * Random numbers are xoshiro256** seeded through splitmix64, one 53-bit number a token, and the
 * exponential is our own in double precision: equal logits and seed give equal tokens on every
 * machine. */
#ifndef PVL_TEXT_SAMPLER_H
#define PVL_TEXT_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct pvl_sampler_options {
    float temperature;        /* 0 = greedy */
    int top_k;                /* 0 = all */
    float top_p;              /* 0 = 1 */
    float repetition_penalty; /* 0 = 1 */
    uint64_t seed;
} pvl_sampler_options;

typedef struct pvl_sampler {
    pvl_sampler_options options;
    uint64_t random[4];
    size_t vocabulary;
    float *scores;   /* [vocabulary] logits after the penalty */
    uint32_t *order; /* [vocabulary] a heap of ids */
    double *weights; /* [vocabulary] exp(score - largest) */
    const pvl_allocator *allocator;
} pvl_sampler;

/* Allocates the workspace (16 bytes an id) and sets default options: greedy. */
pvl_status pvl_sampler_init(pvl_sampler *s, const pvl_allocator *allocator, size_t vocabulary,
                            pvl_error *err);
void pvl_sampler_free(pvl_sampler *s); /* a zeroed struct is fine */
/* Sets options and starts the random numbers anew. NULL = defaults. PVL_E_ARGUMENT, the options as
 * they were, when one is out of range: temperature >= 0, top_k >= 0, 0 < top_p <= 1 (or 0),
 * repetition_penalty > 0 (or 0), all finite. */
pvl_status pvl_sampler_set(pvl_sampler *s, const pvl_sampler_options *options, pvl_error *err);
/* logits: [count], count <= vocabulary. history: [history_count] ids, others than 0..count-1 are
 * passed over. Allocates nothing. PVL_E_MODEL when no logit is a number above -infinity. */
pvl_status pvl_sampler_next(pvl_sampler *s, int32_t *out, const float *logits, size_t count,
                            const int32_t *history, size_t history_count, pvl_error *err);

#endif
