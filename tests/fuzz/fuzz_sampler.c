/* The sampler with any bits for logits and options: never a token that is not there, never a NaN,
 * never one at -infinity beside a finite one, and the same again from the same seed. */
#include "fuzz.h"

#include <math.h>

#include "text/sampler.h"

enum { MOST = 300 };

static float take_float(fuzz_input *in) {
    static const float odd[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 3.4e38f, -3.4e38f, 1e-40f};
    uint8_t tag = (uint8_t)take(in, 1);
    if (tag < 8)
        return odd[tag];
    if (tag < 128)
        return (float)(tag - 64) / 4.0f;
    uint32_t bits = (uint32_t)take(in, 4);
    float f;
    memcpy(&f, &bits, 4);
    return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    fuzz_memory memory = {.limit = 1 << 20};
    pvl_allocator a = {fuzz_alloc, fuzz_free, &memory};
    size_t count = take_between(&in, 1, MOST), vocabulary = count + take_between(&in, 0, 5);
    pvl_sampler s;
    HOLDS(pvl_sampler_init(&s, &a, vocabulary, NULL) == PVL_OK);
    pvl_sampler_options options = {.temperature = take_float(&in),
                                   .top_k = (int)take(&in, 1) - 4,
                                   .top_p = take_float(&in),
                                   .repetition_penalty = take_float(&in),
                                   .seed = take(&in, 2)};
    pvl_error err = {0};
    pvl_status set = pvl_sampler_set(&s, &options, &err);
    check_status(set, &err);
    bool good = options.temperature >= 0 && isfinite(options.temperature) && options.top_k >= 0 &&
                options.top_p >= 0 && options.top_p <= 1 && options.repetition_penalty >= 0 &&
                isfinite(options.repetition_penalty);
    HOLDS((set == PVL_OK) == good);
    float *logits = malloc(count * sizeof *logits);
    HOLDS(logits != NULL);
    int32_t history[16];
    size_t past = take_between(&in, 0, 16);
    for (size_t i = 0; i < past; i++)
        history[i] = (int32_t)take(&in, i % 5 ? 1 : 4);
    bool some = false, infinite = false;
    for (size_t i = 0; i < count; i++) {
        logits[i] = take_float(&in);
        some = some || logits[i] > -INFINITY;
        infinite = infinite || logits[i] == INFINITY;
    }
    int32_t first[4] = {0};
    for (int round = 0; round < 2; round++) {
        if (set == PVL_OK)
            HOLDS(pvl_sampler_set(&s, &options, NULL) == PVL_OK);
        else
            HOLDS(pvl_sampler_set(&s, NULL, NULL) == PVL_OK);
        for (int i = 0; i < 4; i++) {
            int32_t id = -1;
            err = (pvl_error){0};
            pvl_status status = pvl_sampler_next(&s, &id, logits, count, history, past, &err);
            check_status(status, &err);
            if (!some) {
                HOLDS(status == PVL_E_MODEL);
                break;
            }
            /* The penalty may carry a finite logit out of float's range; only then may nothing be
             * left. */
            if (status != PVL_OK) {
                HOLDS(set == PVL_OK && options.repetition_penalty != 0 &&
                      options.repetition_penalty != 1);
                break;
            }
            HOLDS(id >= 0 && (size_t)id < count && logits[id] > -INFINITY);
            if (infinite)
                HOLDS(logits[id] == INFINITY);
            if (round == 0)
                first[i] = id;
            else
                HOLDS(first[i] == id);
            if (set == PVL_OK && options.temperature == 0)
                HOLDS(i == 0 || id == first[0]);
        }
    }
    free(logits);
    pvl_sampler_free(&s);
    HOLDS(memory.alive == 0);
    return 0;
}
