#include "text/sampler.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

/* ---- random numbers: xoshiro256** 1.0 (Blackman and Vigna), seeded through splitmix64 ---- */

static uint64_t rotate_left(uint64_t x, unsigned k) {
    return x << k | x >> (64 - k);
}

static void seed_random(uint64_t state[4], uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        state[i] = z ^ z >> 31;
    }
}

/* Uniform in [0, 1), 53 bits. */
static double next_random(uint64_t s[4]) {
    uint64_t result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

/* e^x for x <= 0, within a few units of the last place, and the same bits everywhere: only sums and
 * products, no libm, whose last bits differ between systems. */
static double exponential(double x) {
    /* 1/n! for n = 2 .. 13; the next term is below 2^-54. */
    static const double c[] = {0x1p-1,
                               0x1.5555555555555p-3,
                               0x1.5555555555555p-5,
                               0x1.1111111111111p-7,
                               0x1.6c16c16c16c17p-10,
                               0x1.a01a01a01a01ap-13,
                               0x1.a01a01a01a01ap-16,
                               0x1.71de3a556c734p-19,
                               0x1.27e4fb7789f5cp-22,
                               0x1.ae64567f544e4p-26,
                               0x1.1eed8eff8d898p-29,
                               0x1.6124613a86d09p-33};
    double k, r, r2, r4, low, high, scale;
    uint64_t bits;
    if (x < -700.0)
        return 0.0;
    /* x = k ln 2 + r, |r| <= ln 2 / 2, with ln 2 in two parts so that k times the first is exact.
     */
    k = floor(x * 1.4426950408889634 + 0.5);
    r = x - k * 0x1.62e42fee00000p-1;
    r = r - k * 0x1.a39ef35793c76p-33;
    r2 = r * r;
    r4 = r2 * r2;
    low = (c[0] + c[1] * r) + r2 * (c[2] + c[3] * r);
    high = (c[4] + c[5] * r) + r2 * (c[6] + c[7] * r) +
           r4 * ((c[8] + c[9] * r) + r2 * (c[10] + c[11] * r));
    bits = (uint64_t)((int64_t)k + 1023) << 52;
    memcpy(&scale, &bits, sizeof scale);
    return scale * (1.0 + (r + r2 * (low + r4 * high)));
}

pvl_status pvl_sampler_init(pvl_sampler *s, const pvl_allocator *allocator, size_t vocabulary,
                            pvl_error *err) {
    pvl_status status;
    void *scores, *order = NULL, *weights = NULL;
    *s = (pvl_sampler){.allocator = allocator, .vocabulary = vocabulary};
    if (vocabulary == 0 || vocabulary > INT32_MAX)
        return pvl_fail(err, PVL_E_ARGUMENT, "A sampler for %zu tokens makes no sense.",
                        vocabulary);
    status = pvl_malloc(allocator, &scores, vocabulary, sizeof *s->scores, "the sampler", err);
    if (status == PVL_OK)
        status = pvl_malloc(allocator, &order, vocabulary, sizeof *s->order, "the sampler", err);
    if (status == PVL_OK)
        status =
            pvl_malloc(allocator, &weights, vocabulary, sizeof *s->weights, "the sampler", err);
    s->scores = scores;
    s->order = order;
    s->weights = weights;
    if (status != PVL_OK) {
        pvl_sampler_free(s);
        return status;
    }
    return pvl_sampler_set(s, NULL, err);
}

void pvl_sampler_free(pvl_sampler *s) {
    pvl_free(s->allocator, s->scores);
    pvl_free(s->allocator, s->order);
    pvl_free(s->allocator, s->weights);
    *s = (pvl_sampler){.allocator = s->allocator};
}

pvl_status pvl_sampler_set(pvl_sampler *s, const pvl_sampler_options *options, pvl_error *err) {
    pvl_sampler_options o = {0};
    if (options)
        o = *options;
    if (o.top_p == 0.0f)
        o.top_p = 1.0f;
    if (o.repetition_penalty == 0.0f)
        o.repetition_penalty = 1.0f;
    if (!(o.temperature >= 0.0f) || isinf(o.temperature))
        return pvl_fail(err, PVL_E_ARGUMENT, "The temperature is %g: it must be 0 or more.",
                        (double)o.temperature);
    if (o.top_k < 0)
        return pvl_fail(err, PVL_E_ARGUMENT, "top_k is %d: it must be 0 (all) or more.", o.top_k);
    if (!(o.top_p > 0.0f && o.top_p <= 1.0f))
        return pvl_fail(err, PVL_E_ARGUMENT, "top_p is %g: it must be above 0 and at most 1.",
                        (double)o.top_p);
    if (!(o.repetition_penalty > 0.0f) || isinf(o.repetition_penalty))
        return pvl_fail(err, PVL_E_ARGUMENT, "The repetition penalty is %g: it must be above 0.",
                        (double)o.repetition_penalty);
    s->options = o;
    seed_random(s->random, o.seed);
    return PVL_OK;
}

/* ---- steps ---- */

/* Scores with the penalty applied; what is not a number becomes -infinity. Infinite products of a
 * penalty are cut to the largest float, so that only an infinite logit is infinite. */
static void penalize(pvl_sampler *s, const float *logits, size_t count, const int32_t *history,
                     size_t history_count) {
    float penalty = s->options.repetition_penalty;
    for (size_t i = 0; i < count; i++)
        s->scores[i] = isnan(logits[i]) ? -INFINITY : logits[i];
    if (penalty == 1.0f)
        return;
    for (size_t i = 0; i < history_count; i++) {
        int32_t id = history[i];
        float score;
        if (id < 0 || (size_t)id >= count)
            continue;
        /* From the logit, not from the score: an id that occurs twice counts once. */
        score = logits[id];
        if (isnan(score) || isinf(score))
            continue;
        score = score < 0.0f ? score * penalty : score / penalty;
        s->scores[id] = isinf(score) ? copysignf(3.402823466e38f, score) : score;
    }
}

/* The lowest index of the largest score; NaN is passed over. `count` where all are NaN. */
static size_t largest(const float *scores, size_t count) {
    enum { LANES = 8 }; /* independent of each other, so that this is vector code */
    float most[LANES], top = -INFINITY;
    size_t i = 0;
    for (size_t l = 0; l < LANES; l++)
        most[l] = -INFINITY;
    for (; i + LANES <= count; i += LANES) {
        for (size_t l = 0; l < LANES; l++)
            most[l] = scores[i + l] > most[l] ? scores[i + l] : most[l];
    }
    for (; i < count; i++)
        top = scores[i] > top ? scores[i] : top;
    for (size_t l = 0; l < LANES; l++)
        top = most[l] > top ? most[l] : top;
    for (i = 0; i < count && scores[i] != top; i++) {
    }
    return i;
}

/* a comes before b: larger score, then lower id. */
static bool before(const float *scores, uint32_t a, uint32_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
}

static void sift_down(const float *scores, uint32_t *heap, size_t n, size_t at) {
    uint32_t item = heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && before(scores, heap[child + 1], heap[child]))
            child++;
        if (!before(scores, heap[child], item))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = item;
}

/* Takes the first of the heap out and puts it behind the others: heap[n - 1]. */
static uint32_t take_first(const float *scores, uint32_t *heap, size_t n) {
    uint32_t first = heap[0];
    heap[0] = heap[n - 1];
    sift_down(scores, heap, n - 1, 0);
    heap[n - 1] = first;
    return first;
}

/* One of the n ids that end at `last`, read backwards, by weight. */
static uint32_t draw(pvl_sampler *s, const uint32_t *last, size_t n, double total) {
    double goal = next_random(s->random) * total, sum = 0.0;
    uint32_t chosen = *last;
    for (size_t i = 0; i < n && sum <= goal; i++) {
        uint32_t id = *(last - i);
        sum += s->weights[id];
        if (s->weights[id] > 0.0)
            chosen = id;
    }
    return chosen;
}

static void weigh(pvl_sampler *s, uint32_t id, size_t best) {
    double below = (double)s->scores[id] - (double)s->scores[best];
    s->weights[id] = exponential(below / (double)s->options.temperature);
}

pvl_status pvl_sampler_next(pvl_sampler *s, int32_t *out, const float *logits, size_t count,
                            const int32_t *history, size_t history_count, pvl_error *err) {
    const pvl_sampler_options *o = &s->options;
    size_t best, live = 0, left, kept = 0, k = (size_t)o->top_k;
    double total = 0.0, gathered = 0.0, goal;
    float last = INFINITY;
    if (count == 0 || count > s->vocabulary)
        return pvl_fail(err, PVL_E_ARGUMENT, "%zu logits for a sampler of %zu tokens.", count,
                        s->vocabulary);
    const float *scores = logits; /* as they are where only the largest is wanted */
    if (o->temperature != 0.0f || o->repetition_penalty != 1.0f) {
        penalize(s, logits, count, history, history_count);
        scores = s->scores;
    }
    best = largest(scores, count);
    if (best == count || scores[best] == -INFINITY)
        return pvl_fail(err, PVL_E_MODEL,
                        "The model gave no finite number for any token: its weights are damaged "
                        "or overflow.");
    *out = (int32_t)best;
    /* At +infinity all weight is there; the lowest such id stands for them. */
    if (o->temperature == 0.0f || scores[best] == INFINITY)
        return PVL_OK;
    for (size_t i = 0; i < count; i++)
        if (s->scores[i] != -INFINITY)
            s->order[live++] = (uint32_t)i;
    left = live;
    if (k > 0 && k < live) {
        /* The k largest and the equals of the last, from behind, the largest last. */
        for (size_t i = live / 2; i-- > 0;)
            sift_down(s->scores, s->order, live, i);
        while (left > 0 && (kept < k || s->scores[s->order[0]] == last)) {
            uint32_t id = take_first(s->scores, s->order, left--);
            weigh(s, id, best);
            total += s->weights[id];
            last = s->scores[id];
            kept++;
        }
        live = kept;
        kept = 0;
        goal = o->top_p < 1.0f ? (double)o->top_p * total : INFINITY;
        for (; kept < live && (kept == 0 || gathered < goal); kept++)
            gathered += s->weights[s->order[left + live - 1 - kept]];
        *out = (int32_t)draw(s, s->order + left + live - 1, kept, gathered);
        return PVL_OK;
    }
    for (size_t i = live; i-- > 0;) {
        weigh(s, s->order[i], best);
        total += s->weights[s->order[i]];
    }
    if (o->top_p >= 1.0f) { /* nothing is cut: no order needed */
        *out = (int32_t)draw(s, s->order + live - 1, live, total);
        return PVL_OK;
    }
    for (size_t i = live / 2; i-- > 0;)
        sift_down(s->scores, s->order, live, i);
    goal = (double)o->top_p * total;
    while (left > 0 && (kept == 0 || gathered < goal)) {
        gathered += s->weights[take_first(s->scores, s->order, left--)];
        kept++;
    }
    *out = (int32_t)draw(s, s->order + live - 1, kept, gathered);
    return PVL_OK;
}
