#include "text/template.h"

#include <string.h>

#include "base/alloc.h"
#include "text/unicode.h"

/* The texts are InternVL's, character for character: changing one changes the answers. */
static const char system_internvl2[] =
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, "
    "是一个有用无害的人工智能助手。";
static const char system_internvl2_5[] = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、"
                                         "清华大学及多家合作单位联合开发的多模态"
                                         "大语言模型。";

typedef struct description {
    const char *name, *system_text;
    const char *start[3]; /* by pvl_role */
    const char *sep, *turn_end;
} description;

#define CHATML_START {"<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n"}

static const description descriptions[] = {
    [PVL_TEMPLATE_HERMES_2] = {"hermes-2", system_internvl2, CHATML_START, "<|im_end|>",
                               "<|im_end|>"},
    [PVL_TEMPLATE_INTERNLM2_CHAT] = {"internlm2-chat", system_internvl2, CHATML_START, "<|im_end|>",
                                     "<|im_end|>"},
    [PVL_TEMPLATE_PHI3_CHAT] = {"phi3-chat",
                                system_internvl2,
                                {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"},
                                "<|end|>",
                                "<|end|>"},
    [PVL_TEMPLATE_INTERNVL2_5] = {"internvl2_5", system_internvl2_5, CHATML_START, "<|im_end|>\n",
                                  "<|im_end|>"},
};
enum { TEMPLATES = sizeof descriptions / sizeof descriptions[0] };

/* More visual tokens in one prompt than any context holds. */
enum { MAX_VISUAL_TOKENS = 1 << 24 };

pvl_status pvl_template_from_name(pvl_template_kind *out, const char *name, size_t bytes,
                                  pvl_error *err) {
    for (int i = 0; i < TEMPLATES; i++)
        if (bytes == strlen(descriptions[i].name) &&
            memcmp(name, descriptions[i].name, bytes) == 0) {
            *out = (pvl_template_kind)i;
            return PVL_OK;
        }
    return pvl_fail(err, PVL_E_UNSUPPORTED,
                    "The prompt template \"%.*s\" is unknown: it must be hermes-2, "
                    "internlm2-chat, phi3-chat or internvl2_5.",
                    bytes > 60 ? 60 : (int)bytes, name);
}

const char *pvl_template_name(pvl_template_kind kind) {
    return descriptions[kind].name;
}

const char *pvl_template_system_text(pvl_template_kind kind) {
    return descriptions[kind].system_text;
}

/* The id of an added token; -1 when the text is no token or only an ordinary one. */
static int32_t special_id(const pvl_tokenizer *t, const char *text, size_t bytes) {
    int32_t id = pvl_tokenizer_find(t, text, bytes);
    return pvl_tokenizer_is_control(t, id) ? id : -1;
}

pvl_status pvl_template_bind(pvl_template *out, pvl_template_kind kind, const pvl_tokenizer *t,
                             pvl_error *err) {
    const description *d = &descriptions[kind];
    int32_t start = special_id(t, "<img>", 5), end = special_id(t, "</img>", 6);
    int32_t context = special_id(t, "<IMG_CONTEXT>", 13);
    for (int i = 0; i < 4; i++) {
        const char *text = i < 3 ? d->start[i] : d->sep;
        size_t bytes = (size_t)(strchr(text, '>') - text) + 1;
        if (special_id(t, text, bytes) < 0)
            return pvl_fail(err, PVL_E_MODEL,
                            "The vocabulary has no special token \"%.*s\", which the prompt "
                            "template %s needs: the template is another model's.",
                            (int)bytes, text, d->name);
    }
    if ((start < 0) != (end < 0) || (start < 0) != (context < 0))
        return pvl_fail(err, PVL_E_MODEL,
                        "The vocabulary has some but not all of the special tokens <img>, </img> "
                        "and <IMG_CONTEXT>: the model file is damaged.");
    *out = (pvl_template){kind, t,       start,
                          end,  context, special_id(t, d->turn_end, strlen(d->turn_end))};
    return PVL_OK;
}

bool pvl_template_is_stop(const pvl_template *t, int32_t id) {
    return id == t->turn_end || pvl_tokenizer_is_eog(t->tokenizer, id);
}

/* ---- rendering ---- */

typedef struct render {
    const pvl_template *t;
    pvl_segment *segments;
    size_t count;
    size_t visual; /* visual tokens so far */
} render;

static void add_template(render *r, const char *text) {
    r->segments[r->count++] = (pvl_segment){PVL_SEGMENT_TEMPLATE, text, strlen(text), -1, 0};
}

static void add_user(render *r, const char *text, size_t bytes, bool markup) {
    pvl_segment_kind kind = markup ? PVL_SEGMENT_MARKUP : PVL_SEGMENT_USER;
    if (bytes > 0)
        r->segments[r->count++] = (pvl_segment){kind, text, bytes, -1, 0};
}

static void add_token(render *r, int32_t id, size_t repeat) {
    r->segments[r->count++] = (pvl_segment){PVL_SEGMENT_TOKEN, NULL, 0, id, repeat};
}

/* The text of part `i` of parts[first .. last], without white space at the message's ends. */
static pvl_span part_text(const pvl_prompt_part *parts, size_t i, size_t first, size_t last) {
    pvl_span text = {parts[i].text, parts[i].text_bytes}, stripped = pvl_unicode_strip(text);
    const char *begin = i == first ? stripped.data : text.data;
    const char *end = i == last ? stripped.data + stripped.bytes : text.data + text.bytes;
    return (pvl_span){begin, (size_t)(end - begin)};
}

static bool is_blank(const pvl_prompt_part *part) {
    return part->kind == PVL_PART_TEXT &&
           (part->text_bytes == 0 ||
            pvl_unicode_strip((pvl_span){part->text, part->text_bytes}).bytes == 0);
}

static pvl_status check_part(const render *r, const pvl_prompt_message *m,
                             const pvl_prompt_part *part, pvl_error *err) {
    if (part->kind == PVL_PART_TEXT)
        return PVL_OK;
    if (part->kind != PVL_PART_IMAGE)
        return pvl_fail(err, PVL_E_ARGUMENT, "A message part has the unknown kind %d.",
                        (int)part->kind);
    if (m->role != PVL_ROLE_USER)
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "A picture stands in a message that is not the user's: only questions "
                        "have pictures.");
    if (r->t->image_context < 0)
        return pvl_fail(err, PVL_E_UNSUPPORTED,
                        "This model reads no pictures: its vocabulary has no <IMG_CONTEXT>.");
    if (part->visual_tokens == 0)
        return pvl_fail(err, PVL_E_ARGUMENT, "A picture has no visual tokens.");
    if (part->visual_tokens > MAX_VISUAL_TOKENS - r->visual)
        return pvl_fail(err, PVL_E_LIMIT,
                        "The pictures take more than %d tokens: use fewer pictures or tiles.",
                        MAX_VISUAL_TOKENS);
    return PVL_OK;
}

/* A question or an answer, with its start and sep; without sep when it is empty. */
static pvl_status add_message(render *r, const pvl_prompt_message *m, bool *empty, pvl_error *err) {
    const description *d = &descriptions[r->t->kind];
    size_t first = 0, last = m->part_count;
    for (size_t i = 0; i < m->part_count; i++)
        PVL_TRY(check_part(r, m, &m->parts[i], err));
    while (first < last && is_blank(&m->parts[first]))
        first++;
    while (last > first && is_blank(&m->parts[last - 1]))
        last--;
    add_template(r, d->start[m->role]);
    *empty = first == last;
    for (size_t i = first; i < last; i++) {
        const pvl_prompt_part *part = &m->parts[i];
        if (part->kind == PVL_PART_TEXT) {
            pvl_span text = part_text(m->parts, i, first, last - 1);
            add_user(r, text.data, text.bytes, part->markup);
            continue;
        }
        PVL_TRY(check_part(r, m, part, err)); /* now with the pictures before it counted */
        r->visual += part->visual_tokens;
        add_token(r, r->t->image_start, 1);
        add_token(r, r->t->image_context, part->visual_tokens);
        add_token(r, r->t->image_end, 1);
        if (!part->no_newline && i + 1 < last)
            add_template(r, "\n");
    }
    if (!*empty)
        add_template(r, d->sep);
    return PVL_OK;
}

static pvl_status add_system(render *r, const pvl_prompt_message *message,
                             const pvl_prompt_style *style, pvl_error *err) {
    const description *d = &descriptions[r->t->kind];
    if (!message && style && style->no_system)
        return PVL_OK;
    add_template(r, d->start[PVL_ROLE_SYSTEM]);
    if (message) {
        for (size_t i = 0; i < message->part_count; i++) {
            PVL_TRY(check_part(r, message, &message->parts[i], err));
            add_user(r, message->parts[i].text, message->parts[i].text_bytes, false);
        }
    } else if (style && style->system) {
        add_user(r, style->system, style->system_bytes, false);
    } else {
        add_user(r, d->system_text, strlen(d->system_text), false);
    }
    add_template(r, d->sep);
    return PVL_OK;
}

static pvl_status add_all(render *r, const pvl_prompt_message *messages, size_t count,
                          const pvl_prompt_style *style, pvl_error *err) {
    size_t first = count > 0 && messages[0].role == PVL_ROLE_SYSTEM;
    bool empty = true;
    PVL_TRY(add_system(r, first ? &messages[0] : NULL, style, err));
    for (size_t i = first; i < count; i++) {
        if (messages[i].role != PVL_ROLE_USER && messages[i].role != PVL_ROLE_ASSISTANT)
            return pvl_fail(err, PVL_E_ARGUMENT,
                            "Message %zu has the role %d: after the first, messages are the "
                            "user's or the assistant's.",
                            i, (int)messages[i].role);
        PVL_TRY(add_message(r, &messages[i], &empty, err));
    }
    if (count == 0 || messages[count - 1].role != PVL_ROLE_USER)
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "The conversation must end with a question from the user.");
    if (empty)
        return pvl_fail(err, PVL_E_ARGUMENT, "The question is empty: ask something.");
    add_template(r, descriptions[r->t->kind].start[PVL_ROLE_ASSISTANT]);
    return PVL_OK;
}

/* Finds the pictures' rows: text can never give the placeholder's id. */
static pvl_status find_images(const render *r, pvl_prompt *out, pvl_error *err) {
    const pvl_tokens *tokens = &out->tokens;
    size_t at = 0, images = 0;
    void *memory;
    for (size_t i = 0; i < r->count; i++)
        images +=
            r->segments[i].kind == PVL_SEGMENT_TOKEN && r->segments[i].token == r->t->image_context;
    PVL_TRY(pvl_malloc(tokens->allocator, &memory, images, sizeof *out->images,
                       "the places of the pictures", err));
    out->images = memory;
    for (size_t i = 0; i < r->count; i++) {
        const pvl_segment *s = &r->segments[i];
        if (s->kind != PVL_SEGMENT_TOKEN || s->token != r->t->image_context)
            continue;
        while (at < tokens->count && tokens->ids[at] != s->token)
            at++;
        out->images[out->image_count] = (pvl_image_span){at, s->repeat, out->image_count};
        out->image_count++;
        at += s->repeat;
    }
    return PVL_OK;
}

static void clear(pvl_prompt *prompt) {
    pvl_free(prompt->tokens.allocator, prompt->images);
    prompt->images = NULL;
    prompt->image_count = 0;
    prompt->tokens.count = 0;
}

pvl_status pvl_template_render(const pvl_template *t, pvl_prompt *out,
                               const pvl_prompt_message *messages, size_t count,
                               const pvl_prompt_style *style, pvl_error *err) {
    render r = {t, NULL, 0, 0};
    size_t need = 8, parts;
    pvl_status status;
    void *memory;
    clear(out);
    for (size_t i = 0; i < count; i++)
        if (!pvl_size_mul(&parts, messages[i].part_count, 4) || !pvl_size_add(&parts, parts, 2) ||
            !pvl_size_add(&need, need, parts))
            return pvl_fail(err, PVL_E_LIMIT, "The conversation has too many parts.");
    PVL_TRY(pvl_malloc(out->tokens.allocator, &memory, need, sizeof *r.segments,
                       "the parts of a prompt", err));
    r.segments = memory;
    status = add_all(&r, messages, count, style, err);
    if (status == PVL_OK)
        status =
            pvl_tokenizer_encode_segments(t->tokenizer, &out->tokens, r.segments, r.count, err);
    if (status == PVL_OK)
        status = find_images(&r, out, err);
    pvl_free(out->tokens.allocator, memory);
    if (status != PVL_OK)
        clear(out);
    return status;
}

void pvl_prompt_free(pvl_prompt *prompt) {
    clear(prompt);
    pvl_tokens_free(&prompt->tokens);
}
