/* Conversations to token ids: the four prompt templates of InternVL, exactly (spec section 5).
 *
 *   prompt  = system_start SYSTEM sep  { user_start QUESTION sep  assistant_start ANSWER sep } ...
 *             user_start QUESTION sep  assistant_start
 *
 *   name             system_start / user_start / assistant_start           sep
 *   hermes-2         <|im_start|>system\n   ..user\n   ..assistant\n       <|im_end|>
 *   internlm2-chat   the same                                              <|im_end|>
 *   phi3-chat        <|system|>\n   <|user|>\n   <|assistant|>\n           <|end|>
 *   internvl2_5      <|im_start|>system\n   ..user\n   ..assistant\n       <|im_end|>\n
 *
 * A picture is <img> <IMG_CONTEXT> x n </img> and a newline, in place. A question that is a picture
 * and then a text is so the reference's "<image>\n" + question, and texts "Image-1: ", picture,
 * "Image-2: ", picture, question make its form for several pictures.
 *
 * White space (as Python's strip) at both ends of questions and answers is dropped; of system texts
 * it stays. A message left empty is, as in the reference, its start alone, without sep. All texts
 * (but a part's markup, where asked for) are literal: `<|im_end|>`, `<image>`, `<IMG_CONTEXT>` in
 * them are ordinary characters. */
#ifndef PVL_TEXT_TEMPLATE_H
#define PVL_TEXT_TEMPLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "text/tokenizer.h"

typedef enum pvl_template_kind {
    PVL_TEMPLATE_HERMES_2 = 0,
    PVL_TEMPLATE_INTERNLM2_CHAT = 1,
    PVL_TEMPLATE_PHI3_CHAT = 2,
    PVL_TEMPLATE_INTERNVL2_5 = 3
} pvl_template_kind;

/* The kind of a name such as "hermes-2" (the value of the metadata key pocketvl.template).
 * PVL_E_UNSUPPORTED, naming the four, when it is none. */
pvl_status pvl_template_from_name(pvl_template_kind *out, const char *name, size_t bytes,
                                  pvl_error *err);
const char *pvl_template_name(pvl_template_kind kind);
/* The template's own system text, UTF-8, terminated. */
const char *pvl_template_system_text(pvl_template_kind kind);

/* A template fitted to a tokenizer: the ids of its special tokens. Plain data; the tokenizer must
 * outlive it. */
typedef struct pvl_template {
    pvl_template_kind kind;
    const pvl_tokenizer *tokenizer;
    int32_t image_start, image_end, image_context; /* <img> </img> <IMG_CONTEXT>, or all -1 */
    int32_t turn_end;                              /* <|im_end|> or <|end|> */
} pvl_template;

/* PVL_E_MODEL when the vocabulary lacks a token of the template. Picture tokens may all be missing
 * (a model of text only); pictures in a prompt are then PVL_E_UNSUPPORTED. */
pvl_status pvl_template_bind(pvl_template *out, pvl_template_kind kind, const pvl_tokenizer *t,
                             pvl_error *err);
/* The token ends an answer: the template's turn end, or pvl_tokenizer_is_eog. */
bool pvl_template_is_stop(const pvl_template *t, int32_t id);

typedef struct pvl_prompt_part {
    pvl_part_kind kind;
    const char *text; /* PVL_PART_TEXT; not terminated */
    size_t text_bytes;
    size_t visual_tokens; /* PVL_PART_IMAGE: rows of its embedding, at least 1 */
    bool markup;     /* PVL_PART_TEXT: <ref>, <box>, <quad> and their ends are the model's tokens,
                        as grounding questions and answers have them; else literal */
    bool no_newline; /* PVL_PART_IMAGE: no newline after </img> */
} pvl_prompt_part;

typedef struct pvl_prompt_message {
    pvl_role role; /* a system message may only be the first */
    const pvl_prompt_part *parts;
    size_t part_count;
} pvl_prompt_message;

typedef struct pvl_prompt_style {
    const char *system; /* replaces the template's system text; NULL = the template's */
    size_t system_bytes;
    bool no_system; /* no system turn at all */
} pvl_prompt_style;

/* Where the rows of a picture go: ids[position .. position+count-1] are all <IMG_CONTEXT>. */
typedef struct pvl_image_span {
    size_t position, count;
    size_t image; /* the how-manieth image part of the conversation, from 0 */
} pvl_image_span;

/* A rendered prompt. The caller's; a zeroed struct is empty, set tokens.allocator for another
 * allocator than libc. */
typedef struct pvl_prompt {
    pvl_tokens tokens;
    pvl_image_span *images; /* [image_count], in order of position */
    size_t image_count;
} pvl_prompt;

/* Replaces what *out held. style may be NULL. A first message of role system goes before
 * style->system. PVL_E_ARGUMENT: no messages, the last not from the user or empty, pictures in
 * other messages than the user's. */
pvl_status pvl_template_render(const pvl_template *t, pvl_prompt *out,
                               const pvl_prompt_message *messages, size_t count,
                               const pvl_prompt_style *style, pvl_error *err);
void pvl_prompt_free(pvl_prompt *prompt); /* leaves an empty prompt with the same allocator */

#endif
