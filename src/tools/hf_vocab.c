#include "tools/hf_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "text/template.h"
#include "text/tokenizer.h"
#include "tools/io.h"
#include "tools/json.h"

enum { MAX_FILE = 256 * 1024 * 1024 };

/* llama.cpp stores the piece of the character U+0000 as this, since its strings end there. */
static const char nul_stand_in[] = "\xF0\x9F\x90\x89";

static const char *const nine[] = {"<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>",
                                   "<ref>", "</ref>", "<box>",         "</box>"};

static bool is_one_of_nine(const char *text) {
    for (size_t i = 0; i < sizeof nine / sizeof *nine; i++) {
        if (strcmp(text, nine[i]) == 0)
            return true;
    }
    return false;
}

static pvl_status no_memory(pvl_error *err) {
    return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to read the tokenizer.");
}

/* ---- the arrays ---- */

/* More rows: empty texts, type 0. */
static pvl_status grow(pvl_hf_vocab *v, size_t count, pvl_error *err) {
    if (count <= v->count)
        return PVL_OK;
    pvl_gguf_string *tokens = realloc(v->tokens, count * sizeof *tokens);
    if (!tokens)
        return no_memory(err);
    v->tokens = tokens;
    int32_t *types = realloc(v->types, count * sizeof *types);
    if (!types)
        return no_memory(err);
    v->types = types;
    bool *strips = realloc(v->strips, count * sizeof *strips);
    if (!strips)
        return no_memory(err);
    v->strips = strips;
    if (v->spm) {
        float *scores = realloc(v->scores, count * sizeof *scores);
        if (!scores)
            return no_memory(err);
        v->scores = scores;
    }
    for (size_t i = v->count; i < count; i++) {
        v->tokens[i] = (pvl_gguf_string){0};
        v->types[i] = 0;
        v->strips[i] = false;
        if (v->spm)
            v->scores[i] = 0;
    }
    v->count = count;
    return PVL_OK;
}

static pvl_status set_token(pvl_hf_vocab *v, size_t id, const char *text, size_t bytes,
                            int32_t type, pvl_error *err) {
    char *copy = malloc(bytes + 1);
    if (!copy)
        return no_memory(err);
    memcpy(copy, text, bytes);
    copy[bytes] = 0;
    free((void *)(uintptr_t)v->tokens[id].data);
    v->tokens[id] = (pvl_gguf_string){copy, bytes};
    v->types[id] = type;
    return PVL_OK;
}

static pvl_status add_merge(pvl_hf_vocab *v, size_t *capacity, const char *left, size_t left_bytes,
                            const char *right, size_t right_bytes, pvl_error *err) {
    if (v->merge_count == *capacity) {
        size_t wanted = *capacity ? 2 * *capacity : 65536;
        pvl_gguf_string *merges = realloc(v->merges, wanted * sizeof *merges);
        if (!merges)
            return no_memory(err);
        v->merges = merges;
        *capacity = wanted;
    }
    size_t bytes = left_bytes + 1 + right_bytes;
    char *copy = malloc(bytes + 1);
    if (!copy)
        return no_memory(err);
    memcpy(copy, left, left_bytes);
    copy[left_bytes] = ' ';
    memcpy(copy + left_bytes + 1, right, right_bytes);
    copy[bytes] = 0;
    v->merges[v->merge_count++] = (pvl_gguf_string){copy, bytes};
    return PVL_OK;
}

/* ---- byte-level BPE ---- */

/* {"token": id, ...} */
static pvl_status read_vocab_object(pvl_hf_vocab *v, pvl_json vocab, pvl_error *err) {
    const cJSON *item;
    if (!vocab.value)
        return pvl_fail(err, PVL_E_FORMAT, "%s holds no vocabulary.", vocab.file);
    size_t entries = 0;
    cJSON_ArrayForEach(item, vocab.value) entries++;
    cJSON_ArrayForEach(item, vocab.value) {
        double id = cJSON_IsNumber(item) ? item->valuedouble : -1;
        /* Ids have few gaps; a wild one must not ask for memory. */
        if (!(id >= 0 && id < (double)entries + 4096) || id != (double)(size_t)id)
            return pvl_fail(err, PVL_E_FORMAT, "%s: the token \"%.60s\" has an impossible id.",
                            vocab.file, item->string);
        PVL_TRY(grow(v, (size_t)id < entries ? entries : (size_t)id + 1, err));
        if (v->tokens[(size_t)id].data)
            return pvl_fail(err, PVL_E_FORMAT,
                            "%s: the tokens \"%.60s\" and \"%.60s\" share an id.", vocab.file,
                            v->tokens[(size_t)id].data, item->string);
        PVL_TRY(
            set_token(v, (size_t)id, item->string, strlen(item->string), PVL_TOKEN_NORMAL, err));
    }
    return PVL_OK;
}

/* Lines "left right"; only a first line that begins with #version is a comment. */
static pvl_status read_merges(pvl_hf_vocab *v, const char *path, pvl_error *err) {
    char *text;
    size_t bytes, capacity = 0, number = 0;
    PVL_TRY(pvl_io_read(&text, &bytes, path, MAX_FILE, err));
    pvl_status status = PVL_OK;
    const char *end = text + bytes; /* a zero byte is no end, and no part of a piece */
    for (const char *line = text, *next; status == PVL_OK && line < end; number++) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t used = (size_t)((newline ? newline : end) - line);
        next = newline ? newline + 1 : end;
        if (used && line[used - 1] == '\r')
            used--;
        const char *space = memchr(line, ' ', used);
        if (used && !(number == 0 && strncmp(line, "#version", 8) == 0)) {
            size_t left = space ? (size_t)(space - line) : 0, right = space ? used - left - 1 : 0;
            if (!left || !right || memchr(space + 1, ' ', right) || memchr(line, 0, used))
                status = pvl_fail(err, PVL_E_FORMAT, "%s: line %zu is not two pieces and a space.",
                                  path, number + 1);
            else
                status = add_merge(v, &capacity, line, left, space + 1, right, err);
        }
        line = next;
    }
    free(text);
    return status;
}

static pvl_status read_json_merges(pvl_hf_vocab *v, pvl_json model, pvl_error *err) {
    const cJSON *list = pvl_json_get(model, "merges"), *item;
    size_t capacity = 0;
    if (!cJSON_IsArray(list))
        return pvl_fail(err, PVL_E_FORMAT, "%s: \"merges\" must be a list.", model.file);
    cJSON_ArrayForEach(item, list) {
        const char *left = NULL, *right = NULL;
        size_t left_bytes = 0;
        if (cJSON_IsString(item)) {
            left = item->valuestring;
            left_bytes = strcspn(left, " ");
            right = left[left_bytes] ? left + left_bytes + 1 : NULL;
        } else if (cJSON_IsArray(item) && cJSON_GetArraySize(item) == 2 &&
                   cJSON_IsString(cJSON_GetArrayItem(item, 0)) &&
                   cJSON_IsString(cJSON_GetArrayItem(item, 1))) {
            left = cJSON_GetArrayItem(item, 0)->valuestring;
            left_bytes = strlen(left);
            right = cJSON_GetArrayItem(item, 1)->valuestring;
        }
        if (!right || !left_bytes || !*right)
            return pvl_fail(err, PVL_E_FORMAT, "%s: merge %zu is not two pieces.", model.file,
                            v->merge_count);
        PVL_TRY(add_merge(v, &capacity, left, left_bytes, right, strlen(right), err));
    }
    return PVL_OK;
}

/* ---- added tokens ---- */

/* flags: -1 = the file does not say. */
static pvl_status add_token(pvl_hf_vocab *v, const pvl_hf_config *config, const char *file,
                            double id_value, const char *text, int special, int rstrip, size_t base,
                            pvl_error *err) {
    if (!(id_value >= 0 && id_value < (1 << 20)) || id_value != (double)(size_t)id_value || !text)
        return pvl_fail(err, PVL_E_FORMAT, "%s: an added token has an impossible id or no text.",
                        file);
    size_t id = (size_t)id_value;
    if (config->vocabulary && id >= config->vocabulary)
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: the token \"%.60s\" has the id %zu, but the embedding has %zu rows: "
                        "the tokenizer is of another model.",
                        file, text, id, config->vocabulary);
    PVL_TRY(grow(v, id + 1, err));
    bool known = id >= base && v->tokens[id].data;
    if (known && strcmp(v->tokens[id].data, text) != 0)
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: the id %zu is \"%.60s\" here and \"%.60s\" in another file.", file, id,
                        text, v->tokens[id].data);
    if (known && special < 0)
        return PVL_OK; /* flags came with another file */
    bool control = special < 0 || special || is_one_of_nine(text);
    int32_t type = control ? PVL_TOKEN_CONTROL : PVL_TOKEN_USER_DEFINED;
    /* <unk> keeps its own type. */
    if (v->tokens[id].data && v->types[id] == PVL_TOKEN_UNKNOWN)
        type = PVL_TOKEN_UNKNOWN;
    /* A piece of the model keeps its score unless it gets another meaning (InternLM2's last six).
     */
    bool renamed = !v->tokens[id].data || strcmp(v->tokens[id].data, text) != 0;
    PVL_TRY(set_token(v, id, text, strlen(text), type, err));
    if (v->spm && (id >= base || renamed))
        v->scores[id] = -1000.0f;
    if (rstrip >= 0)
        v->rstrip_known = true;
    if (rstrip > 0)
        v->strips[id] = true;
    return PVL_OK;
}

/* The ids of the tokens that were flagged, ascending. */
static pvl_status list_rstrip(pvl_hf_vocab *v, pvl_error *err) {
    size_t flagged = 0;
    for (size_t i = 0; i < v->count; i++)
        flagged += v->strips[i];
    if (!flagged)
        return PVL_OK;
    v->rstrip = malloc(flagged * sizeof *v->rstrip);
    if (!v->rstrip)
        return no_memory(err);
    for (size_t i = 0; i < v->count; i++)
        if (v->strips[i])
            v->rstrip[v->rstrip_count++] = (int32_t)i;
    return PVL_OK;
}

static int flag(pvl_json from, const char *key) {
    const cJSON *item = pvl_json_get(from, key);
    return cJSON_IsBool(item) ? cJSON_IsTrue(item) : 0;
}

/* tokenizer_config.json's added_tokens_decoder: {"id": {"content", "special", "rstrip", ...}}. */
static pvl_status read_decoder(pvl_hf_vocab *v, const pvl_hf_config *config, pvl_json top,
                               size_t base, pvl_error *err) {
    const cJSON *item;
    pvl_json decoder = pvl_json_object(top, "added_tokens_decoder");
    cJSON_ArrayForEach(item, decoder.value) {
        char *end;
        pvl_json token = {top.file, item};
        double id = strtod(item->string, &end);
        if (*end || !item->string[0])
            id = -1;
        PVL_TRY(add_token(v, config, top.file, id, pvl_json_string(token, "content", NULL),
                          flag(token, "special"), flag(token, "rstrip"), base, err));
    }
    return PVL_OK;
}

/* tokenizer.json's added_tokens: [{"id", "content", "special", "rstrip", ...}]. */
static pvl_status read_added_list(pvl_hf_vocab *v, const pvl_hf_config *config, pvl_json top,
                                  size_t base, pvl_error *err) {
    const cJSON *item, *list = pvl_json_get(top, "added_tokens");
    cJSON_ArrayForEach(item, list) {
        pvl_json token = {top.file, item};
        const cJSON *id = pvl_json_get(token, "id");
        PVL_TRY(add_token(v, config, top.file, cJSON_IsNumber(id) ? id->valuedouble : -1,
                          pvl_json_string(token, "content", NULL), flag(token, "special"),
                          flag(token, "rstrip"), base, err));
    }
    return PVL_OK;
}

/* added_tokens.json: {"text": id}. */
static pvl_status read_added_object(pvl_hf_vocab *v, const pvl_hf_config *config, pvl_json top,
                                    size_t base, pvl_error *err) {
    const cJSON *item;
    cJSON_ArrayForEach(item, top.value) {
        PVL_TRY(add_token(v, config, top.file, cJSON_IsNumber(item) ? item->valuedouble : -1,
                          item->string, -1, -1, base, err));
    }
    return PVL_OK;
}

/* ---- ids with a role ---- */

static int32_t find(const pvl_hf_vocab *v, const char *text) {
    size_t n = text ? strlen(text) : 0;
    for (size_t i = v->count; text && i-- > 0;) {
        if (v->tokens[i].bytes == n && (n == 0 || memcmp(v->tokens[i].data, text, n) == 0))
            return (int32_t)i;
    }
    return -1;
}

/* "eos_token": "text" or {"content": "text"}. */
static int32_t role(const pvl_hf_vocab *v, pvl_json top, const char *key, const char *missing) {
    const char *text = pvl_json_string(top, key, NULL);
    if (!text)
        text = pvl_json_string(pvl_json_object(top, key), "content", NULL);
    return find(v, text ? text : missing);
}

static void read_roles(pvl_hf_vocab *v, const pvl_hf_config *config, pvl_json top) {
    bool phi3 = config->arch == PVL_HF_PHI3;
    v->eos = role(v, top, "eos_token", phi3 ? "<|endoftext|>" : "<|im_end|>");
    if (!phi3 && find(v, "<|im_end|>") >= 0)
        v->eos = find(v, "<|im_end|>"); /* what ends a turn, whatever the base model says */
    v->bos = v->spm ? role(v, top, "bos_token", "<s>") : -1;
    v->unk = v->spm ? role(v, top, "unk_token", "<unk>") : -1;
    v->pad = role(v, top, "pad_token", v->spm ? "</s>" : "<|endoftext|>");
}

/* ---- the folder ---- */

typedef struct files {
    char path[PVL_IO_PATH];
    cJSON *tokenizer, *config,
        *added; /* tokenizer.json, tokenizer_config.json, added_tokens.json */
} files;

static pvl_status optional(cJSON **out, files *f, const char *folder, const char *name,
                           pvl_error *err) {
    PVL_TRY(pvl_io_path(f->path, folder, name, err));
    return pvl_io_exists(f->path) ? pvl_json_read(out, f->path, MAX_FILE, err) : PVL_OK;
}

static pvl_status read_sentencepiece(pvl_hf_vocab *v, const char *path, pvl_error *err) {
    char *data;
    size_t bytes;
    PVL_TRY(pvl_io_read(&data, &bytes, path, MAX_FILE, err));
    pvl_status status = pvl_hf_read_sentencepiece(v, data, bytes, path, err);
    free(data);
    for (size_t i = 0; status == PVL_OK && i < v->count; i++) {
        if (v->tokens[i].bytes == 1 && v->tokens[i].data[0] == 0)
            status = set_token(v, i, nul_stand_in, strlen(nul_stand_in), v->types[i], err);
    }
    return status;
}

static pvl_status read_base(pvl_hf_vocab *v, files *f, const pvl_hf_config *config,
                            const char *folder, pvl_error *err) {
    if (config->arch != PVL_HF_QWEN2) {
        PVL_TRY(pvl_io_path(f->path, folder, "tokenizer.model", err));
        if (!pvl_io_exists(f->path))
            return pvl_fail(err, PVL_E_IO, "%s is missing: the tokenizer of %s is read from it.",
                            f->path, pvl_hf_arch_name(config->arch));
        return read_sentencepiece(v, f->path, err);
    }
    PVL_TRY(pvl_io_path(f->path, folder, "vocab.json", err));
    if (pvl_io_exists(f->path)) {
        cJSON *root;
        PVL_TRY(pvl_json_read(&root, f->path, MAX_FILE, err));
        pvl_status status =
            read_vocab_object(v, (pvl_json){f->path, cJSON_IsObject(root) ? root : NULL}, err);
        cJSON_Delete(root);
        PVL_TRY(status);
        PVL_TRY(pvl_io_path(f->path, folder, "merges.txt", err));
        return read_merges(v, f->path, err);
    }
    PVL_TRY(optional(&f->tokenizer, f, folder, "tokenizer.json", err));
    if (!f->tokenizer)
        return pvl_fail(err, PVL_E_IO,
                        "%s holds no vocab.json with merges.txt and no tokenizer.json: copy the "
                        "tokenizer's files too.",
                        folder);
    pvl_json model = pvl_json_object((pvl_json){f->path, f->tokenizer}, "model");
    PVL_TRY(read_vocab_object(v, pvl_json_object(model, "vocab"), err));
    return read_json_merges(v, model, err);
}

static pvl_status read_folder(pvl_hf_vocab *v, files *f, const pvl_hf_config *config,
                              const char *folder, pvl_error *err) {
    PVL_TRY(read_base(v, f, config, folder, err));
    size_t base = v->count;
    if (config->vocabulary && base > config->vocabulary)
        return pvl_fail(err, PVL_E_MODEL,
                        "%s: the tokenizer has %zu tokens, but the embedding has %zu rows: the "
                        "tokenizer is of another model.",
                        folder, base, config->vocabulary);
    if (f->tokenizer)
        PVL_TRY(read_added_list(v, config, (pvl_json){f->path, f->tokenizer}, base, err));
    PVL_TRY(optional(&f->config, f, folder, "tokenizer_config.json", err));
    PVL_TRY(read_decoder(v, config, (pvl_json){f->path, f->config}, base, err));
    PVL_TRY(optional(&f->added, f, folder, "added_tokens.json", err));
    PVL_TRY(read_added_object(v, config, (pvl_json){f->path, f->added}, base, err));
    if (config->vocabulary)
        PVL_TRY(grow(v, config->vocabulary, err));
    read_roles(v, config, (pvl_json){"tokenizer_config.json", f->config});
    for (size_t i = 0; i < v->count; i++) {
        char name[32];
        if (v->tokens[i].data)
            continue;
        snprintf(name, sizeof name, "[PAD%zu]", i);
        PVL_TRY(set_token(v, i, name, strlen(name), PVL_TOKEN_UNUSED, err));
        if (v->spm)
            v->scores[i] = -10000.0f;
        v->padded++;
    }
    return list_rstrip(v, err);
}

/* What prompts are made of must be there: the template's markers, and for pictures <IMG_CONTEXT>.
 */
static pvl_status check_prompts(const pvl_tokenizer *t, const pvl_hf_config *config,
                                pvl_error *err) {
    pvl_template_kind kind;
    pvl_template chat;
    PVL_TRY(
        pvl_template_from_name(&kind, config->template_name, strlen(config->template_name), err));
    PVL_TRY(pvl_template_bind(&chat, kind, t, err));
    if (chat.image_context >= 0)
        return PVL_OK;
    return pvl_fail(
        err, PVL_E_MODEL,
        "the token <IMG_CONTEXT> is missing, which pictures need: copy added_tokens.json "
        "and tokenizer_config.json of the same model.");
}

/* Makes the tokenizer once, so that what does not fit together shows here and not in the page. */
static pvl_status check_tokenizer(const pvl_hf_vocab *v, const pvl_hf_config *config,
                                  const char *folder, pvl_error *err) {
    pvl_span *spans = malloc((v->count + v->merge_count + 1) * sizeof *spans);
    if (!spans)
        return no_memory(err);
    for (size_t i = 0; i < v->count; i++)
        spans[i] = (pvl_span){v->tokens[i].data, v->tokens[i].bytes};
    for (size_t i = 0; i < v->merge_count; i++)
        spans[v->count + i] = (pvl_span){v->merges[i].data, v->merges[i].bytes};
    pvl_vocab vocab = {.kind = !v->spm                       ? PVL_TOKENIZER_BPE
                               : config->arch == PVL_HF_PHI3 ? PVL_TOKENIZER_SPM_LLAMA_SLOW
                                                             : PVL_TOKENIZER_SPM_INTERNLM2,
                       .count = v->count,
                       .tokens = spans,
                       .scores = v->scores,
                       .types = v->types,
                       .merges = spans + v->count,
                       .merge_count = v->merge_count,
                       .bos = v->bos,
                       .eos = v->eos,
                       .pad = v->pad,
                       .unk = v->unk,
                       .add_bos = v->spm,
                       .add_space_prefix = v->dummy_prefix};
    pvl_tokenizer *t = NULL;
    pvl_error why = {0};
    pvl_status status = pvl_tokenizer_new(&t, NULL, &vocab, &why);
    if (status == PVL_OK && config->has_vision)
        status = check_prompts(t, config, &why);
    pvl_tokenizer_free(t);
    free(spans);
    if (status != PVL_OK)
        return pvl_fail(err, status, "The tokenizer of %s cannot be used: %.300s", folder,
                        why.message);
    return PVL_OK;
}

pvl_status pvl_hf_vocab_read(pvl_hf_vocab *out, const pvl_hf_config *config, const char *folder,
                             pvl_error *err) {
    files f = {0};
    memset(out, 0, sizeof *out);
    out->bos = out->eos = out->pad = out->unk = -1;
    pvl_status status = read_folder(out, &f, config, folder, err);
    cJSON_Delete(f.tokenizer);
    cJSON_Delete(f.config);
    cJSON_Delete(f.added);
    return status == PVL_OK ? check_tokenizer(out, config, folder, err) : status;
}

void pvl_hf_vocab_free(pvl_hf_vocab *v) {
    for (size_t i = 0; i < v->count; i++)
        free((void *)(uintptr_t)v->tokens[i].data);
    for (size_t i = 0; i < v->merge_count; i++)
        free((void *)(uintptr_t)v->merges[i].data);
    free(v->tokens);
    free(v->types);
    free(v->scores);
    free(v->merges);
    free(v->strips);
    free(v->rstrip);
    memset(v, 0, sizeof *v);
}
