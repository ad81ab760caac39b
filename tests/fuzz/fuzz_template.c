/* Prompts of any messages. Whatever people write, the tokens that mean something (turns, pictures)
 * are those of the structure: a second conversation of the same shape with harmless words has the
 * same ones. */
#include "fuzz.h"

#include "../unit/text_vocab.h"
#include "text/template.h"
#include "text/unicode.h"

enum { MESSAGES = 4, PARTS = 3 };

static const pvl_template *template_of(size_t which) {
    static const char *const names[] = {"qwen2", "internlm2", "phi3", "qwen2"};
    static pvl_template made[4];
    if (!made[which].tokenizer) {
        pvl_tokenizer *t = text_tokenizer(names[which], false);
        HOLDS(t != NULL);
        HOLDS(pvl_template_bind(&made[which], (pvl_template_kind)which, t, NULL) == PVL_OK);
    }
    return &made[which];
}

/* The nine that a part with markup may produce are left out: they depend on the words. */
static size_t controls(const pvl_template *t, const pvl_tokens *tokens, int32_t *out) {
    static const char *const markup[] = {"<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>"};
    size_t n = 0;
    for (size_t i = 0; i < tokens->count; i++) {
        bool free_to_use = false;
        for (size_t m = 0; m < 6; m++)
            free_to_use =
                free_to_use ||
                tokens->ids[i] == pvl_tokenizer_find(t->tokenizer, markup[m], strlen(markup[m]));
        if (pvl_tokenizer_is_control(t->tokenizer, tokens->ids[i]) && !free_to_use)
            out[n++] = tokens->ids[i];
    }
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    fuzz_memory memory = {.limit = 64 << 20};
    pvl_allocator a = {fuzz_alloc, fuzz_free, &memory};
    const pvl_template *t = template_of(take_between(&in, 0, 3));
    pvl_prompt_part parts[MESSAGES][PARTS], plain[MESSAGES][PARTS];
    pvl_prompt_message messages[MESSAGES], harmless[MESSAGES];
    char *texts[MESSAGES * PARTS + 1];
    size_t text_count = 0, count = take_between(&in, 0, MESSAGES), pictures = 0, rows = 0;
    memset(parts, 0, sizeof parts);
    for (size_t m = 0; m < count; m++) {
        unsigned role = (unsigned)take(&in, 1);
        size_t n = take_between(&in, 0, PARTS);
        messages[m] = (pvl_prompt_message){role % 8 == 7 ? (pvl_role)role : (pvl_role)(role % 3),
                                           parts[m], n};
        for (size_t p = 0; p < n; p++) {
            pvl_prompt_part *part = &parts[m][p];
            unsigned kind = (unsigned)take(&in, 1);
            if (kind % 4 == 3) {
                part->kind = PVL_PART_IMAGE;
                part->visual_tokens = take_between(&in, 0, 5);
                part->no_newline = kind & 4;
                pictures++;
                rows += part->visual_tokens;
            } else {
                part->markup = kind & 8;
                part->text = texts[text_count++] =
                    take_bytes(&in, take_between(&in, 0, 64), &part->text_bytes);
            }
        }
    }
    size_t system_bytes;
    char *system = take_bytes(&in, take_between(&in, 0, 40), &system_bytes);
    texts[text_count++] = system;
    pvl_prompt_style style = {.system = take(&in, 1) & 1 ? system : NULL,
                              .system_bytes = system_bytes,
                              .no_system = take(&in, 1) % 4 == 3};

    pvl_prompt prompt = {.tokens = {.allocator = &a}}, other = prompt;
    pvl_error err = {0};
    pvl_status status = pvl_template_render(t, &prompt, messages, count, &style, &err);
    check_status(status, &err);
    if (status == PVL_OK) {
        HOLDS(prompt.image_count == pictures);
        size_t placeholders = 0;
        for (size_t i = 0; i < prompt.tokens.count; i++)
            placeholders += prompt.tokens.ids[i] == t->image_context;
        HOLDS(placeholders == rows);
        for (size_t i = 0; i < prompt.image_count; i++)
            for (size_t k = 0; k < prompt.images[i].count; k++)
                HOLDS(prompt.tokens.ids[prompt.images[i].position + k] == t->image_context);
        /* The same shape in harmless words. */
        memcpy(plain, parts, sizeof plain);
        for (size_t m = 0; m < count; m++) {
            harmless[m] = messages[m];
            harmless[m].parts = plain[m];
            for (size_t p = 0; p < messages[m].part_count; p++) {
                pvl_span text = {parts[m][p].text, parts[m][p].text_bytes};
                if (parts[m][p].kind == PVL_PART_TEXT && pvl_unicode_strip(text).bytes) {
                    plain[m][p].text = "word";
                    plain[m][p].text_bytes = 4;
                }
            }
        }
        if (style.system && style.system_bytes) {
            style.system = "word";
            style.system_bytes = 4;
        }
        HOLDS(pvl_template_render(t, &other, harmless, count, &style, NULL) == PVL_OK);
        int32_t *one = malloc((prompt.tokens.count + 1) * sizeof *one),
                *two = malloc((other.tokens.count + 1) * sizeof *two);
        HOLDS(one && two);
        size_t n = controls(t, &prompt.tokens, one);
        HOLDS(n == controls(t, &other.tokens, two) && memcmp(one, two, n * sizeof *one) == 0);
        free(one);
        free(two);
    }
    pvl_prompt_free(&prompt);
    pvl_prompt_free(&other);
    for (size_t i = 0; i < text_count; i++)
        free(texts[i]);
    HOLDS(memory.alive == 0);
    return 0;
}
