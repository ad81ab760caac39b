/* Which token comes next: the sampler's, or in JSON the sampler's among those that keep the answer
 * one. */
#include <math.h>

#include "engine/internal.h"

static pvl_status sample(pvl_session *s, int32_t *token, pvl_error *err) {
    return pvl_sampler_next(&s->sampler, token, s->logits, s->engine->model.llm.vocabulary, s->ids,
                            s->filled, err);
}

/* The guide behind this token; false where it cannot follow. One that shows nothing never does:
 * the answer has to get on. */
static bool follows(const pvl_session *s, pvl_json_guide *guide, int32_t token) {
    const pvl_tokenizer *t = s->engine->tokenizer;
    pvl_span piece = pvl_tokenizer_piece(t, token);
    return piece.bytes > 0 && !pvl_tokenizer_is_hidden(t, token) &&
           pvl_json_guide_push(guide, piece.data, piece.bytes);
}

/* Takes the tokens that cannot follow out of the logits. */
static pvl_status mask(pvl_session *s, pvl_error *err) {
    bool some = false;
    for (size_t i = 0; i < s->engine->model.llm.vocabulary; i++) {
        pvl_json_guide guide = s->json;
        if (follows(s, &guide, (int32_t)i))
            some = true;
        else
            s->logits[i] = -INFINITY;
    }
    if (some)
        return PVL_OK;
    return pvl_fail(err, PVL_E_UNSUPPORTED,
                    "This model's vocabulary cannot write JSON: ask it without.");
}

pvl_status pvl_session_pick(pvl_session *s, pvl_piece *out, bool *shown, pvl_error *err) {
    *shown = true;
    if (!s->options.json) {
        PVL_TRY(sample(s, &out->token, err));
        if (pvl_template_is_stop(&s->engine->chat, out->token)) {
            out->stop = PVL_STOP_END;
            *shown = false;
        }
        return PVL_OK;
    }
    /* One that follows is the likeliest, or a right draw, of those that do as well: most steps need
     * no look at the whole vocabulary. Top-k and top-p count, so they get what is left alone. */
    const pvl_sampler_options *o = &s->sampler.options;
    bool cut = o->temperature != 0.0f && (o->top_k > 0 || o->top_p < 1.0f), right = false;
    if (!cut) {
        PVL_TRY(sample(s, &out->token, err));
        right = follows(s, &s->json, out->token);
    }
    if (!right) {
        PVL_TRY(mask(s, err));
        PVL_TRY(sample(s, &out->token, err));
        follows(s, &s->json, out->token);
    }
    if (pvl_json_guide_done(&s->json))
        out->stop = PVL_STOP_END;
    return PVL_OK;
}
