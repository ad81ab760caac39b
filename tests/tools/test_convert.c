/* Published folders to GGUF: the same weights and tokenizers as the fixtures that were made another
 * way, the same bytes every time, and one sentence for everything that does not fit. */
#include "folder.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>

#include "base/alloc.h"
#include "pocketvl.h"
#include "tools/convert.h"
#include "tools/gguf_file.h"
#include "tools/inspect.h"
#include "tools/json.h"
#include "tools/quantize.h"
#include "tools/sha256.h"
#include "tools/tokens.h"

static const char *const models[] = {"qwen2", "internlm2", "phi3"};

static pvl_convert_options options_for(const char *folder, const char *out, pvl_dtype type) {
    return (pvl_convert_options){
        .folder = folder, .out = out, .mix = pvl_mix_default(type), .threads = 1, .quiet = true};
}

static const char *fixture(const char *model) {
    static char path[200];
    snprintf(path, sizeof path, "tests/fixtures/hf/%s", model);
    return path;
}

static bool convert_ok(const pvl_convert_options *o) {
    pvl_error err = {0};
    pvl_status status = pvl_convert(o, &err);
    CHECK_MSG(status == PVL_OK, "%s: %s", o->folder, err.message);
    return status == PVL_OK;
}

/* ---- against fixtures ---- */

static float *read_floats(pvl_gguf_part *part, const pvl_gguf_tensor *t) {
    unsigned char *raw = malloc(t->bytes + 1);
    float *out = malloc((t->elements + 1) * sizeof *out);
    if (raw && out && pvl_gguf_part_read(part, t, raw, t->bytes, 0, NULL) == PVL_OK)
        pvl_dtype_dequantize(t->type, out, raw, t->elements);
    free(raw);
    return out;
}

static void check_same_tensors(pvl_gguf_part *a, pvl_gguf_part *b) {
    CHECK_EQ_UINT(pvl_gguf_tensor_count(a->head), pvl_gguf_tensor_count(b->head));
    for (size_t i = 0; i < pvl_gguf_tensor_count(b->head); i++) {
        const pvl_gguf_tensor *y = pvl_gguf_tensor_at(b->head, i),
                              *x = pvl_gguf_find_tensor(a->head, y->name);
        CHECK_MSG(x && x->elements == y->elements && x->ne[0] == y->ne[0], "%s: another shape",
                  y->name);
        if (!x || x->elements != y->elements)
            continue;
        float *u = read_floats(a, x), *v = read_floats(b, y);
        CHECK_MSG(u && v && memcmp(u, v, x->elements * sizeof *u) == 0, "%s: other values",
                  y->name);
        free(u);
        free(v);
    }
}

/* A key's bytes are the same in both files. */
static void check_same_key(const pvl_gguf *a, const pvl_gguf *b, const char *key) {
    const pvl_gguf_kv *x = pvl_gguf_find_kv(a, key), *y = pvl_gguf_find_kv(b, key);
    CHECK_MSG((x != NULL) == (y != NULL), "%s is in one file only", key);
    if (x && y)
        CHECK_MSG(x->type == y->type && x->value_bytes == y->value_bytes &&
                      memcmp(x->value, y->value, x->value_bytes) == 0,
                  "%s differs", key);
}

TEST(equals_the_fixtures) {
    static const char *const keys[] = {
        "general.architecture",
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.scores",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.unknown_token_id",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.add_space_prefix",
        "pocketvl.tokenizer.kind",
        "pocketvl.template",
        "clip.projector_type",
        "clip.vision.image_size",
        "clip.vision.patch_size",
        "clip.vision.embedding_length",
        "clip.vision.feed_forward_length",
        "clip.vision.block_count",
        "clip.vision.projection_dim",
        "clip.vision.attention.head_count",
        "clip.vision.projector.scale_factor",
    };
    static const char *const numbers[] = {"context_length",
                                          "embedding_length",
                                          "block_count",
                                          "feed_forward_length",
                                          "attention.head_count",
                                          "attention.head_count_kv",
                                          "attention.layer_norm_rms_epsilon",
                                          "rope.freq_base",
                                          "rope.scaling.attn_factor",
                                          "rope.scaling.original_context_length"};
    test_folder f;
    REQUIRE(folder_make(&f));
    for (size_t m = 0; m < 3; m++) {
        char other[200], key[100];
        const char *out = folder_file(&f, "x.gguf");
        pvl_convert_options o = options_for(fixture(models[m]), out, PVL_DTYPE_F32);
        if (!convert_ok(&o))
            continue;
        snprintf(other, sizeof other, "tests/fixtures/model/%s.gguf", models[m]);
        pvl_gguf_files a, b;
        pvl_error err = {0};
        pvl_status first = pvl_gguf_files_open(&a, out, &err),
                   second = pvl_gguf_files_open(&b, other, &err);
        CHECK_MSG(first == PVL_OK && second == PVL_OK, "%s", err.message);
        if (first == PVL_OK && second == PVL_OK) {
            check_same_tensors(&a.parts[0], &b.parts[0]);
            for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
                check_same_key(a.parts[0].head, b.parts[0].head, keys[i]);
            for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
                float x = -1, y = -1;
                snprintf(key, sizeof key, "%s.%s", models[m], numbers[i]);
                bool here = pvl_gguf_f32(a.parts[0].head, key, &x),
                     there = pvl_gguf_f32(b.parts[0].head, key, &y);
                CHECK_MSG(here == there && fabsf(x - y) <= 1e-6f * fabsf(y), "%s: %g, expected %g",
                          key, (double)x, (double)y);
            }
        }
        pvl_gguf_files_close(&a);
        pvl_gguf_files_close(&b);
    }
    folder_end(&f);
}

/* tokenizer.json from vocab.json, merges.txt and added_tokens.json: pairs as one text, or as two.
 */
static void write_tokenizer_json(const char *path, bool pairs) {
    size_t n;
    char *vocab = (char *)test_read_file("tests/fixtures/hf/qwen2/vocab.json", &n),
         *merges = (char *)test_read_file("tests/fixtures/hf/qwen2/merges.txt", &n);
    cJSON *added = NULL;
    pvl_error err = {0};
    CHECK_EQ_INT(pvl_json_read(&added, "tests/fixtures/hf/qwen2/added_tokens.json", 1 << 20, &err),
                 PVL_OK);
    FILE *f = fopen(path, "wb");
    REQUIRE(vocab && merges && added && f);
    fprintf(f, "{\"model\": {\"vocab\": %s, \"merges\": [", vocab);
    const char *comma = "";
    for (char *line = strtok(merges, "\n"); line; line = strtok(NULL, "\n")) {
        if (strncmp(line, "#version", 8) == 0)
            continue;
        fprintf(f, pairs ? "%s[\"" : "%s\"", comma);
        for (char *p = line; *p; p++) {
            if (*p == '"' || *p == '\\')
                fputc('\\', f);
            if (pairs && *p == ' ')
                fputs("\", \"", f);
            else
                fputc(*p, f);
        }
        fputs(pairs ? "\"]" : "\"", f);
        comma = ",\n";
    }
    fputs("]}, \"added_tokens\": [", f);
    const cJSON *item;
    cJSON_ArrayForEach(item, added)
        fprintf(f, "%s{\"id\": %d, \"content\": \"%s\", \"special\": true, \"rstrip\": false}",
                item == added->child ? "" : ",", item->valueint, item->string);
    fputs("]}", f);
    fclose(f);
    cJSON_Delete(added);
    free(vocab);
    free(merges);
}

TEST(tokenizer_json_says_the_same) {
    static const char *const keys[] = {"tokenizer.ggml.tokens", "tokenizer.ggml.token_type",
                                       "tokenizer.ggml.merges", "tokenizer.ggml.eos_token_id"};
    test_folder f;
    REQUIRE(folder_make(&f));
    char folder[FOLDER_PATH * 2], path[FOLDER_PATH * 3];
    snprintf(folder, sizeof folder, "%s/json", f.path);
    copy_folder(fixture("qwen2"), folder);
    static const char *const others[] = {"vocab.json", "merges.txt", "added_tokens.json"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, others[i]);
        remove(path);
    }
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    for (int pairs = 0; pairs < 2; pairs++) {
        pvl_gguf_files a, b;
        pvl_error err = {0};
        write_tokenizer_json(path, pairs);
        pvl_convert_options o = options_for(folder, folder_file(&f, "a.gguf"), PVL_DTYPE_Q8_0);
        REQUIRE(convert_ok(&o));
        o = options_for(fixture("qwen2"), folder_file(&f, "b.gguf"), PVL_DTYPE_Q8_0);
        REQUIRE(convert_ok(&o));
        REQUIRE(pvl_gguf_files_open(&a, folder_file(&f, "a.gguf"), &err) == PVL_OK &&
                pvl_gguf_files_open(&b, folder_file(&f, "b.gguf"), &err) == PVL_OK);
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            check_same_key(a.parts[0].head, b.parts[0].head, keys[i]);
        pvl_gguf_files_close(&a);
        pvl_gguf_files_close(&b);
    }
    folder_end(&f);
}

/* ---- the set of files ---- */

static void check_digests(const test_folder *f, const char *folder) {
    char path[2 * FOLDER_PATH];
    snprintf(path, sizeof path, "%s/%s/manifest.json", f->path, folder);
    cJSON *root = NULL;
    pvl_error err = {0};
    CHECK_MSG(pvl_json_read(&root, path, 1 << 20, &err) == PVL_OK, "%s", err.message);
    const cJSON *file;
    size_t files = 0;
    cJSON_ArrayForEach(file, pvl_json_get((pvl_json){path, root}, "files")) {
        pvl_json one = {path, file};
        size_t n, bytes = 0, chunk_bytes = 0;
        snprintf(path, sizeof path, "%s/%s/%s", f->path, folder, pvl_json_string(one, "name", "?"));
        unsigned char *data = test_read_file(path, &n);
        const cJSON *chunk = cJSON_GetArrayItem(pvl_json_get(one, "chunks"), 0);
        pvl_json first = {path, chunk};
        CHECK(pvl_json_size(&bytes, one, "bytes", -1, 1 << 30, &err) == PVL_OK && bytes == n);
        CHECK(pvl_json_size(&chunk_bytes, first, "bytes", -1, 1 << 30, &err) == PVL_OK &&
              chunk_bytes == n);
        if (data) {
            pvl_sha256 s;
            unsigned char digest[32];
            char hex[65];
            pvl_sha256_init(&s);
            pvl_sha256_add(&s, data, n);
            pvl_sha256_end(&s, digest);
            pvl_sha256_hex(hex, digest);
            CHECK_STR(pvl_json_string(first, "sha256", NULL), hex);
        }
        free(data);
        files++;
    }
    CHECK(files >= 3);
    cJSON_Delete(root);
}

/* Loads the files of a folder's manifest into an engine. */
static void check_loads(const test_folder *f, const char *folder, const char *architecture) {
    char path[2 * FOLDER_PATH];
    snprintf(path, sizeof path, "%s/%s/manifest.json", f->path, folder);
    cJSON *root = NULL;
    pvl_error err = {0};
    pvl_loader *loader = NULL;
    pvl_engine *engine = NULL;
    CHECK_EQ_INT(pvl_json_read(&root, path, 1 << 20, &err), PVL_OK);
    pvl_status status = pvl_loader_new(&loader, NULL, &err);
    const cJSON *file;
    cJSON_ArrayForEach(file, pvl_json_get((pvl_json){path, root}, "files")) {
        size_t n;
        const char *name = pvl_json_string((pvl_json){path, file}, "name", "?");
        char whole[3 * FOLDER_PATH];
        snprintf(whole, sizeof whole, "%s/%s/%s", f->path, folder, name);
        unsigned char *data = test_read_file(whole, &n);
        if (status == PVL_OK)
            status = pvl_loader_begin_file(loader, name, n, &err);
        if (status == PVL_OK && data)
            status = pvl_loader_push(loader, data, n, &err);
        free(data);
    }
    if (status == PVL_OK)
        status = pvl_loader_finish(loader, &engine, &err);
    else
        pvl_loader_free(loader);
    CHECK_MSG(status == PVL_OK, "%s", err.message);
    if (engine) {
        pvl_engine_info info;
        pvl_engine_get_info(engine, &info);
        CHECK_STR(info.architecture, architecture);
        CHECK(info.has_vision);
        pvl_engine_free(engine);
    }
    cJSON_Delete(root);
}

static void check_same_folder(const test_folder *f, const char *a, const char *b) {
    char path[2][2 * FOLDER_PATH];
    snprintf(path[0], sizeof path[0], "%s/%s", f->path, a);
    DIR *dir = opendir(path[0]);
    struct dirent *entry;
    size_t files = 0;
    while (dir && (entry = readdir(dir)) != NULL) {
        size_t n, m;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path[0], sizeof path[0], "%s/%s/%s", f->path, a, entry->d_name);
        snprintf(path[1], sizeof path[1], "%s/%s/%s", f->path, b, entry->d_name);
        unsigned char *x = test_read_file(path[0], &n), *y = test_read_file(path[1], &m);
        CHECK_MSG(x && y && n == m && memcmp(x, y, n) == 0, "%s differs", entry->d_name);
        free(x);
        free(y);
        files++;
    }
    if (dir)
        closedir(dir);
    CHECK(files > 3);
}

TEST(folder_with_manifest) {
    static const pvl_dtype types[] = {PVL_DTYPE_Q8_0, PVL_DTYPE_Q4_0, PVL_DTYPE_F16};
    test_folder f;
    REQUIRE(folder_make(&f));
    for (size_t m = 0; m < 3; m++) {
        char name[2][64];
        snprintf(name[0], sizeof name[0], "a%zu", m);
        snprintf(name[1], sizeof name[1], "b%zu", m);
        pvl_convert_options o = options_for(fixture(models[m]), folder_file(&f, name[0]), types[m]);
        o.shard_bytes = 60 * 1024;
        if (!convert_ok(&o))
            continue;
        /* Again, with threads: the same bytes. */
        o.out = folder_file(&f, name[1]);
        o.threads = 3;
        convert_ok(&o);
        check_same_folder(&f, name[0], name[1]);
        CHECK(count_files(folder_file(&f, name[0]), ".part") == 0);
        CHECK(count_files(folder_file(&f, name[0]), "mmproj-") >= 1);
        CHECK(count_files(folder_file(&f, name[0]), "-00001-of-") >= 1);
        check_digests(&f, name[0]);
        check_loads(&f, name[0], models[m]);
        /* Over an existing conversion: the old manifest is replaced. */
        o.mix = pvl_mix_default(PVL_DTYPE_F32);
        convert_ok(&o);
        check_digests(&f, name[1]);
    }
    folder_end(&f);
}

/* ---- what does not fit ---- */

static void check_refused(const test_folder *f, const char *folder, pvl_status code,
                          const char *piece, int line) {
    const char *out = folder_file(f, "out");
    pvl_convert_options o = options_for(folder, out, PVL_DTYPE_Q8_0);
    pvl_error err = {0};
    pvl_status status = pvl_convert(&o, &err);
    test_check(status == code && strstr(err.message, piece), __FILE__, line,
               "%s (%s), expected %s with \"%s\"", err.message, pvl_status_name(status),
               pvl_status_name(code), piece);
    test_check(count_files(out, "") == 0, __FILE__, line, "something was left behind");
    folder_remove_tree(out);
}

/* A fresh copy of a checkpoint with one text replaced in one file. */
static void check_edit(const test_folder *f, const char *model, const char *file, const char *from,
                       const char *to, pvl_status code, const char *piece, int line) {
    char folder[FOLDER_PATH * 2], path[FOLDER_PATH * 3];
    snprintf(folder, sizeof folder, "%s/spoiled", f->path);
    folder_remove_tree(folder);
    copy_folder(fixture(model), folder);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    edit_file(path, from, to);
    check_refused(f, folder, code, piece, line);
}

TEST(one_thing_wrong) {
    static const char *const weights = "model.safetensors";
    test_folder f;
    REQUIRE(folder_make(&f));
#define WRONG(model, file, from, to, code, piece)                                                  \
    check_edit(&f, model, file, from, to, code, piece, __LINE__)
    WRONG("qwen2", weights, "layers.1.self_attn.q_proj.weight", "layers.1.self_attn.q_proj.wait__",
          PVL_E_MODEL, "no tensor language_model.model.layers.1.self_attn.q_proj.weight [64, 64]");
    WRONG("qwen2", "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 2",
          PVL_E_MODEL, "is not part of the model");
    WRONG("qwen2", "config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4",
          PVL_E_MODEL, "layers.3.");
    WRONG("qwen2", "config.json", "\"intermediate_size\": 128", "\"intermediate_size\": 96",
          PVL_E_MODEL, "is [128, 64], but config.json makes it [96, 64]");
    WRONG("qwen2", weights, "\"dtype\":\"BF16\"", "\"dtype\":\"I16\" ", PVL_E_UNSUPPORTED,
          "must be BF16, F16 or F32");
    WRONG("qwen2", "config.json", "Qwen2ForCausalLM", "MambaForCausalLM", PVL_E_UNSUPPORTED,
          "Mamba");
    WRONG("qwen2", "config.json", "Hermes-2", "Vicuna-1", PVL_E_UNSUPPORTED, "Vicuna-1");
    WRONG("qwen2", "config.json", "\"downsample_ratio\": 0.5", "\"downsample_ratio\": 0.25",
          PVL_E_UNSUPPORTED, "downsample_ratio");
    WRONG("qwen2", "config.json", "internvl_chat", "clip", PVL_E_UNSUPPORTED, "model_type");
    WRONG("qwen2", "config.json", "\"vocab_size\": 388", "\"vocab_size\": 380", PVL_E_MODEL,
          "the embedding has 380 rows");
    WRONG("qwen2", "config.json", "\"vocab_size\": 388", "\"vocab_size\": 400", PVL_E_MODEL,
          "[388, 64]");
    WRONG("qwen2", "config.json", "\"hidden_size\": 64", "\"hidden_size\": \"x\"", PVL_E_FORMAT,
          "hidden_size");
    WRONG("qwen2", "config.json", "{", "{,", PVL_E_FORMAT, "line 1");
    WRONG("qwen2", "generation_config.json", "378", "388", PVL_E_MODEL, "end at the id 388");
    WRONG("qwen2", "generation_config.json", "378", "\"x\"", PVL_E_FORMAT, "eos_token_id");
    WRONG("qwen2", "merges.txt", "\n", "\nabc\n", PVL_E_FORMAT, "merges.txt: line 2");
    WRONG("qwen2", "added_tokens.json", "<img>", "<pic>", PVL_E_MODEL, "<pic>");
    WRONG("internlm2", "tokenizer.model", "<unk>", "<un", PVL_E_FORMAT, "no SentencePiece model");
    WRONG("phi3", "config.json", "\"type\": \"su\"", "\"type\": \"yarn\"", PVL_E_UNSUPPORTED,
          "yarn");
    WRONG("phi3", "config.json", "1.05,", "", PVL_E_FORMAT, "short_factor");
    WRONG("phi3", "model.safetensors.index.json", "model-00002-of-00002", "model-00003-of-00002",
          PVL_E_IO, "model-00003-of-00002.safetensors is missing");
    WRONG("internvl3", "config.json", "\"factor\": 2.0", "\"factor\": 1e300", PVL_E_FORMAT,
          "\"factor\" must be from 1 to 64");
    /* A zero byte once ended a line without ending it: for ever. */
    char folder[FOLDER_PATH * 2], path[FOLDER_PATH * 3];
    static const char merges[] = "#version: 0.2\na b\n\0\n";
    snprintf(folder, sizeof folder, "%s/spoiled", f.path);
    folder_remove_tree(folder);
    copy_folder(fixture("qwen2"), folder);
    snprintf(path, sizeof path, "%s/merges.txt", folder);
    write_bytes(path, merges, sizeof merges - 1);
    check_refused(&f, folder, PVL_E_FORMAT, "merges.txt: line 3", __LINE__);
#undef WRONG
    folder_end(&f);
}

TEST(missing_files) {
    static const struct {
        const char *model, *file, *piece;
        pvl_status code;
    } cases[] = {
        {"qwen2", "config.json", "config.json", PVL_E_IO},
        {"qwen2", "model.safetensors", "no model.safetensors", PVL_E_IO},
        {"qwen2", "vocab.json", "vocab.json", PVL_E_IO},
        {"qwen2", "merges.txt", "merges.txt", PVL_E_IO},
        {"internlm2", "tokenizer.model", "tokenizer.model is missing", PVL_E_IO},
        {"phi3", "model-00001-of-00002.safetensors", "model-00001-of-00002.safetensors is missing",
         PVL_E_IO},
    };
    test_folder f;
    REQUIRE(folder_make(&f));
    char folder[FOLDER_PATH * 2], path[FOLDER_PATH * 3];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(folder, sizeof folder, "%s/spoiled", f.path);
        folder_remove_tree(folder);
        copy_folder(fixture(cases[i].model), folder);
        snprintf(path, sizeof path, "%s/%s", folder, cases[i].file);
        remove(path);
        check_refused(&f, folder, cases[i].code, cases[i].piece, __LINE__);
    }
    check_refused(&f, "no/such/folder", PVL_E_IO, "is not a folder", __LINE__);
    /* A base model's tokenizer beside InternVL's weights: too few tokens, and too many. */
    snprintf(folder, sizeof folder, "%s/spoiled", f.path);
    folder_remove_tree(folder);
    copy_folder(fixture("internlm2"), folder);
    snprintf(path, sizeof path, "%s/added_tokens.json", folder);
    remove(path);
    snprintf(path, sizeof path, "%s/tokenizer_config.json", folder);
    write_text(path, "{\"tokenizer_class\": \"InternLM2Tokenizer\"}");
    check_refused(&f, folder, PVL_E_MODEL, "no special token \"<|im_start|>\"", __LINE__);
    write_text(path,
               "{\"added_tokens_decoder\": {\"345\": {\"content\": \"<|im_end|>\", "
               "\"special\": true}, \"346\": {\"content\": \"<|im_start|>\", \"special\": true}}}");
    check_refused(&f, folder, PVL_E_MODEL, "<IMG_CONTEXT> is missing", __LINE__);
    folder_remove_tree(folder);
    copy_folder(fixture("qwen2"), folder);
    static const char *const files[] = {"vocab.json", "merges.txt", "added_tokens.json",
                                        "tokenizer_config.json"};
    for (size_t i = 0; i < 4; i++) {
        size_t bytes;
        snprintf(path, sizeof path, "tests/fixtures/hf/internvl3/%s", files[i]);
        unsigned char *other = test_read_file(path, &bytes);
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        if (other)
            write_bytes(path, other, bytes);
        free(other);
    }
    check_refused(&f, folder, PVL_E_MODEL, "has the id 388, but the embedding has 388 rows",
                  __LINE__);
    /* A value that is no number, in the last tensor's bytes (BF16 infinity). */
    snprintf(folder, sizeof folder, "%s/spoiled", f.path);
    folder_remove_tree(folder);
    copy_folder(fixture("qwen2"), folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    size_t n;
    unsigned char *data = test_read_file(path, &n);
    REQUIRE(data);
    data[n - 2] = 0x80;
    data[n - 1] = 0x7F;
    write_bytes(path, data, n);
    free(data);
    check_refused(&f, folder, PVL_E_FORMAT, "no finite number", __LINE__);
    folder_end(&f);
}

/* The limit on file sizes stands for a full disk: writing fails in the middle. */
TEST(disk_full) {
    test_folder f;
    REQUIRE(folder_make(&f));
    struct rlimit before, small;
    REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
    signal(SIGXFSZ, SIG_IGN);
    static const rlim_t sizes[] = {0, 5000, 50000};
    for (size_t i = 0; i < 3; i++) {
        const char *out = folder_file(&f, "full");
        pvl_convert_options o = options_for(fixture("qwen2"), out, PVL_DTYPE_Q8_0);
        pvl_error err = {0};
        small = before;
        small.rlim_cur = sizes[i];
        REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
        pvl_status status = pvl_convert(&o, &err);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK_EQ_INT(status, PVL_E_IO);
        CHECK_CONTAINS(err.message, "cannot be written");
        CHECK_EQ_UINT(count_files(out, ""), 0);
        /* One file, and quantize, the same. */
        const char *file = folder_file(&f, "full/one.gguf");
        REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
        o.out = file;
        err = (pvl_error){0};
        status = pvl_convert(&o, &err);
        pvl_quantize_options q = {.in = "tests/fixtures/model/qwen2.gguf",
                                  .out = file,
                                  .mix = pvl_mix_default(PVL_DTYPE_Q8_0),
                                  .threads = 1,
                                  .quiet = true};
        pvl_error other = {0};
        pvl_status quantized = pvl_quantize(&q, &other);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK_EQ_INT(status, PVL_E_IO);
        CHECK_CONTAINS(err.message, "one.gguf cannot be written");
        CHECK_EQ_INT(quantized, PVL_E_IO);
        CHECK_CONTAINS(other.message, "one.gguf cannot be written");
        CHECK_EQ_UINT(count_files(folder_file(&f, "full"), ""), 0);
    }
    folder_end(&f);
}

/* ---- the other commands ---- */

TEST(quantize_equals_convert) {
    test_folder f;
    REQUIRE(folder_make(&f));
    static const pvl_dtype types[] = {PVL_DTYPE_Q8_0, PVL_DTYPE_Q4_0, PVL_DTYPE_Q5_1,
                                      PVL_DTYPE_BF16};
    for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
        pvl_convert_options o =
            options_for(fixture("internlm2"), folder_file(&f, "full.gguf"), PVL_DTYPE_F32);
        convert_ok(&o);
        o = options_for(fixture("internlm2"), folder_file(&f, "direct.gguf"), types[k]);
        convert_ok(&o);
        char in[2 * FOLDER_PATH], out[2 * FOLDER_PATH];
        snprintf(in, sizeof in, "%s", folder_file(&f, "full.gguf"));
        snprintf(out, sizeof out, "%s", folder_file(&f, "again.gguf"));
        pvl_quantize_options q = {
            .in = in, .out = out, .mix = pvl_mix_default(types[k]), .threads = 2, .quiet = true};
        pvl_error err = {0};
        CHECK_MSG(pvl_quantize(&q, &err) == PVL_OK, "%s", err.message);
        size_t n, m;
        unsigned char *a = test_read_file(folder_file(&f, "direct.gguf"), &n),
                      *b = test_read_file(out, &m);
        CHECK(a && b && n == m && memcmp(a, b, n) == 0);
        free(a);
        free(b);
        /* Split, read back by the first part, and joined again. */
        q.shard_bytes = 50000;
        snprintf(out, sizeof out, "%s", folder_file(&f, "split.gguf"));
        CHECK_MSG(pvl_quantize(&q, &err) == PVL_OK, "%s", err.message);
        CHECK(count_files(f.path, "split-0000") >= 2);
        q.out = q.in;
        CHECK_EQ_INT(pvl_quantize(&q, &err), PVL_E_ARGUMENT);
        CHECK_CONTAINS(err.message, "is the input");
        folder_remove_tree(f.path);
        mkdir(f.path, 0777);
    }
    folder_end(&f);
}

static void check_command(int (*command)(int, char **), const test_folder *f,
                          const char *const *args, int expected, const char *out_piece,
                          const char *err_piece, int line) {
    char *argv[12] = {0}, *out, *err;
    int argc = 0;
    for (; args[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)args[argc];
    int status = run_captured(command, argc, argv, f, &out, &err);
    test_check(status == expected, __FILE__, line, "status %d, expected %d: %s", status, expected,
               err ? err : "");
    test_check(out && strstr(out, out_piece), __FILE__, line, "no \"%s\" on standard output: %s",
               out_piece, out ? out : "");
    test_check(err && strstr(err, err_piece), __FILE__, line, "no \"%s\" on standard error: %s",
               err_piece, err ? err : "");
    free(out);
    free(err);
}

TEST(tokens_and_inspect) {
    test_folder f;
    REQUIRE(folder_make(&f));
    char gguf[2 * FOLDER_PATH], table[2 * FOLDER_PATH];
    snprintf(gguf, sizeof gguf, "%s", folder_file(&f, "v.gguf"));
    snprintf(table, sizeof table, "%s", folder_file(&f, "t.tsv"));
    pvl_convert_options o = options_for(fixture("phi3"), gguf, PVL_DTYPE_F32);
    o.vocab_only = true;
    convert_ok(&o);
    CHECK_EQ_UINT(count_files(f.path, ".gguf"), 1);
    write_text(table, "#id\tsource\tcategory\tutf8_hex\tids\n"
                      "one\tx\ty\t41\t1\textra\r\n"
                      "none\tx\ty\t-\n"
                      "bos\tx\ty\t3c7c757365727c3e\n");
#define RUN(command, status, out, err, ...)                                                        \
    check_command(command, &f, (const char *const[]){__VA_ARGS__, NULL}, status, out, err, __LINE__)
    RUN(pvl_tool_tokens, 0, "one\t", "", "tokens", gguf, "--tsv", table);
    RUN(pvl_tool_tokens, 0, "none\t-\n", "", "tokens", "--tsv", table, gguf);
    RUN(pvl_tool_tokens, 0, "bos\t1 ", "", "tokens", gguf, "--chat", "--tsv", table);
    RUN(pvl_tool_tokens, 2, "", "needs other arguments", "tokens", gguf);
    RUN(pvl_tool_tokens, 1, "", "cannot be opened", "tokens", "nothing.gguf", "--tsv", table);
    RUN(pvl_tool_inspect, 0, "tokenizer.ggml.tokens", "", "inspect", gguf);
    RUN(pvl_tool_inspect, 1, "", "(IO)", "inspect", "nothing.gguf");
    RUN(pvl_tool_inspect, 2, "", "usage", "inspect", "--wrong", gguf);
    RUN(pvl_tool_convert, 2, "", "q4_0", "convert", "--type", "q9_9", "a", "b");
    RUN(pvl_tool_convert, 0, "--shard-size", "", "convert", "--help");
    RUN(pvl_tool_quantize, 1, "", "NAME.gguf", "quantize", gguf, "out");
    write_text(table, "one\tx\ty\t4g\n");
    RUN(pvl_tool_tokens, 1, "", "line 1", "tokens", gguf, "--tsv", table);
#undef RUN
    folder_end(&f);
}

TEST_MAIN(CASE(equals_the_fixtures), CASE(tokenizer_json_says_the_same), CASE(folder_with_manifest),
          CASE(one_thing_wrong), CASE(missing_files), CASE(disk_full),
          CASE(quantize_equals_convert), CASE(tokens_and_inspect))
