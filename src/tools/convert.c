#include "tools/convert.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/config.h"
#include "pocketvl.h"
#include "tools/command.h"
#include "tools/hf_config.h"
#include "tools/hf_metadata.h"
#include "tools/hf_tensors.h"
#include "tools/hf_vocab.h"
#include "tools/manifest.h"
#include "tools/pack.h"

enum {
    HEAD_READ = 16 * 1024 * 1024,
    PART_HEAD_READ = 1024 * 1024,
    DEFAULT_CONTEXT = 4096,
    DEFAULT_TOKENS = 512
};

/* Everything of one run. */
typedef struct run {
    const pvl_convert_options *o;
    pvl_hf_config config;
    pvl_hf_vocab vocab;
    pvl_checkpoint *checkpoint;
    pvl_packer *packer;
    pvl_output output;
    pvl_pack_report report;
    pvl_progress_line progress;
    char name[128];
} run;

/* ---- tensors ---- */

static pvl_status add_tensors(pvl_gguf_writer *w, const pvl_mappings *m, const pvl_mix *mix,
                              pvl_error *err) {
    for (size_t i = 0; i < m->count; i++) {
        const pvl_mapping *item = &m->items[i];
        pvl_dtype type =
            item->values ? PVL_DTYPE_F32 : pvl_mix_type(mix, item->name, item->ne, item->dims);
        PVL_TRY(pvl_gguf_writer_tensor(w, item->name, type, item->ne, item->dims, err));
    }
    return PVL_OK;
}

/* Rows 2i + s from rows s * n/2 + i, through a copy. */
static pvl_status interleave_rows(float *rows, size_t n, size_t columns, pvl_error *err) {
    float *copy = malloc(n * columns * sizeof *copy);
    if (!copy)
        return pvl_fail(err, PVL_E_MEMORY,
                        "Not enough memory to reorder a head of %zu x %zu values.", n, columns);
    memcpy(copy, rows, n * columns * sizeof *copy);
    for (size_t i = 0; i < n / 2; i++) {
        for (size_t s = 0; s < 2; s++)
            memcpy(rows + (2 * i + s) * columns, copy + (s * (n / 2) + i) * columns,
                   columns * sizeof *rows);
    }
    free(copy);
    return PVL_OK;
}

/* One tensor, a few MB at a time: whole units while they fit, else rows of a unit. */
static pvl_status write_tensor(run *r, pvl_gguf_writer *w, const pvl_mapping *m, pvl_dtype type,
                               pvl_error *err) {
    size_t columns = m->ne[0], most = PVL_PACK_VALUES / columns;
    pvl_pack_error sums = {0, 0};
    if (most == 0)
        most = 1;
    if (m->interleave && most < m->unit_rows)
        most = m->unit_rows;
    float *input = pvl_packer_input(r->packer, most * columns);
    if (!input)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to convert %s.", m->name);
    for (size_t unit = 0; unit < m->units; unit++) {
        size_t start =
            m->base + unit / m->per_group * m->group_stride + unit % m->per_group * m->unit_rows;
        for (size_t row = 0; row < m->unit_rows;) {
            size_t n = m->unit_rows - row < most ? m->unit_rows - row : most;
            if (m->values)
                memcpy(input, m->values, columns * sizeof *input);
            else
                PVL_TRY(pvl_checkpoint_read(r->checkpoint, m->source, input,
                                            (uint64_t)(start + row) * columns, n * columns, err));
            if (m->interleave)
                PVL_TRY(interleave_rows(input, n, columns, err));
            PVL_TRY(pvl_pack_rows(r->packer, w, type, n, columns, &sums, m->name, err));
            pvl_progress_add(&r->progress, (uint64_t)n * columns);
            row += n;
        }
    }
    size_t bytes;
    pvl_dtype_bytes(&bytes, type, columns);
    return pvl_pack_report_add(&r->report, m->name, type, pvl_pack_relative(&sums),
                               (uint64_t)bytes * pvl_mapping_rows(m), err);
}

/* All shards of one writer as files PREFIX.gguf or PREFIX-00001-of-00003.gguf. */
static pvl_status write_files(run *r, pvl_gguf_writer *w, const pvl_mappings *m, const char *prefix,
                              uint64_t shard_bytes, pvl_error *err) {
    PVL_TRY(pvl_gguf_writer_plan(w, shard_bytes, err));
    size_t shards = pvl_gguf_writer_shards(w);
    for (size_t s = 0; s < shards; s++) {
        char name[256];
        size_t first, count;
        if (!pvl_gguf_shard_name(name, sizeof name, prefix, s, shards))
            return pvl_fail(err, PVL_E_LIMIT, "The file name %.60s... is too long.", prefix);
        PVL_TRY(pvl_output_begin(&r->output, name, err));
        PVL_TRY(pvl_gguf_writer_begin(w, s, pvl_output_write, &r->output, err));
        pvl_gguf_writer_shard_tensors(w, s, &first, &count);
        for (size_t i = first; i < first + count; i++) {
            const pvl_mapping *item = &m->items[i];
            pvl_dtype type = item->values
                                 ? PVL_DTYPE_F32
                                 : pvl_mix_type(&r->o->mix, item->name, item->ne, item->dims);
            PVL_TRY(write_tensor(r, w, item, type, err));
        }
        PVL_TRY(pvl_gguf_writer_end(w, err));
        PVL_TRY(pvl_output_end(&r->output, err));
    }
    return PVL_OK;
}

/* ---- halves ---- */

enum { LANGUAGE = 1, VISION = 2 };

static pvl_status write_metadata(run *r, pvl_gguf_writer *w, int halves, pvl_error *err) {
    bool language = halves & LANGUAGE;
    const char *arch = language ? pvl_hf_arch_name(r->config.arch) : "clip";
    PVL_TRY(pvl_metadata_general(w, &r->config, arch, language ? "model" : "mmproj", r->name,
                                 &r->o->mix, err));
    if (language) {
        PVL_TRY(pvl_metadata_language(w, &r->config, err));
        PVL_TRY(pvl_metadata_tokenizer(w, &r->config, &r->vocab, err));
    }
    return halves & VISION ? pvl_metadata_vision(w, &r->config, err) : PVL_OK;
}

/* The mappings of the wanted halves; the list is the caller's. */
static pvl_status map_halves(run *r, pvl_mappings *m, int halves, pvl_error *err) {
    if (halves & LANGUAGE)
        PVL_TRY(pvl_map_language(m, &r->config, r->checkpoint, err));
    return halves & VISION ? pvl_map_vision(m, &r->config, r->checkpoint, err) : PVL_OK;
}

static pvl_status write_half(run *r, const pvl_mappings *m, int halves, const char *prefix,
                             uint64_t shard_bytes, pvl_error *err) {
    pvl_gguf_writer *w;
    PVL_TRY(pvl_gguf_writer_new(&w, NULL, err));
    pvl_status status = write_metadata(r, w, halves, err);
    if (status == PVL_OK)
        status = add_tensors(w, m, &r->o->mix, err);
    if (status == PVL_OK)
        status = write_files(r, w, m, prefix, shard_bytes, err);
    pvl_gguf_writer_free(w);
    return status;
}

static uint64_t count_values(const pvl_mappings *m) {
    uint64_t n = 0;
    for (size_t i = 0; i < m->count; i++)
        n += (uint64_t)pvl_mapping_rows(&m->items[i]) * m->items[i].ne[0];
    return n;
}

/* ---- manifest ---- */

/* The first part of a set has all metadata, those behind it names of tensors. */
static uint64_t head_read(const char *name) {
    return strstr(name, "-of-") && !strstr(name, "-00001-of-") ? PART_HEAD_READ : HEAD_READ;
}

/* What the page will need, from the heads of the files that were just written, and the 8-bit form
 * of the cache; left out when it cannot be told. */
static bool estimate(run *r, pvl_memory *out, uint64_t *kv_cache_q8, size_t context) {
    pvl_bytes *heads = calloc(r->output.count, sizeof *heads);
    bool good = heads != NULL;
    for (size_t i = 0; good && i < r->output.count; i++) {
        char path[PVL_IO_PATH];
        uint64_t bytes = r->output.files[i].bytes;
        uint64_t most = head_read(r->output.files[i].name);
        size_t n = (size_t)(bytes < most ? bytes : most);
        void *data = malloc(n ? n : 1);
        heads[i] = (pvl_bytes){data, n};
        FILE *f = pvl_io_path(path, r->output.folder, r->output.files[i].name, NULL) == PVL_OK
                      ? fopen(path, "rb")
                      : NULL;
        good = data && f && pvl_io_read_at(f, data, n, 0, path, NULL) == PVL_OK;
        if (f)
            fclose(f);
    }
    pvl_memory small;
    pvl_session_options session = {.context = (int)context};
    good = good && pvl_estimate(out, heads, r->output.count, NULL, &session, NULL) == PVL_OK;
    session.kv_type = PVL_KV_Q8;
    good = good && pvl_estimate(&small, heads, r->output.count, NULL, &session, NULL) == PVL_OK;
    *kv_cache_q8 = good ? small.kv_cache : 0;
    for (size_t i = 0; heads && i < r->output.count; i++)
        free((void *)(uintptr_t)heads[i].data);
    free(heads);
    return good;
}

static pvl_status write_manifest(run *r, pvl_error *err) {
    pvl_memory memory;
    uint64_t kv_cache_q8 = 0;
    size_t context = r->config.context < DEFAULT_CONTEXT ? r->config.context : DEFAULT_CONTEXT;
    const char *license = r->o->license          ? r->o->license
                          : r->config.license[0] ? r->config.license
                                                 : NULL;
    size_t longest = r->config.context;
    if (r->config.dynamic_factor > 1)
        longest = (size_t)((double)longest * r->config.dynamic_factor);
    if (longest > PVL_MAX_CONTEXT)
        longest = PVL_MAX_CONTEXT; /* as the engine does */
    bool known = estimate(r, &memory, &kv_cache_q8, context);
    pvl_manifest m = {.name = r->name,
                      .title = r->o->title ? r->o->title : r->name,
                      .license = license,
                      .template_name = r->config.template_name,
                      .files = r->output.files,
                      .file_count = r->output.count,
                      .max_tiles = 1,
                      .context = (int)context,
                      .context_length = (int)longest,
                      .max_tokens = DEFAULT_TOKENS,
                      .memory = known ? &memory : NULL,
                      .kv_cache_q8 = kv_cache_q8};
    char *text = pvl_manifest_text(&m);
    if (!text)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory for manifest.json.");
    pvl_output file;
    pvl_output_init(&file, r->output.folder);
    pvl_status status = pvl_output_begin(&file, "manifest.json", err);
    if (status == PVL_OK)
        status = pvl_output_write(&file, text, strlen(text), err);
    if (status == PVL_OK)
        status = pvl_output_end(&file, err);
    if (status == PVL_OK)
        status = pvl_output_commit(&file, err);
    pvl_output_free(&file);
    free(text);
    return status;
}

/* ---- the run ---- */

static const char *type_name(pvl_dtype type, char out[16]) {
    const char *name = pvl_dtype_find((uint32_t)type)->name;
    size_t i = 0;
    for (; name[i] && i < 15; i++)
        out[i] = (char)tolower((unsigned char)name[i]);
    out[i] = 0;
    return out;
}

static bool is_gguf_name(const char *path) {
    size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}

/* One file with everything: out is its path. */
static pvl_status convert_to_file(run *r, pvl_error *err) {
    char folder[PVL_IO_PATH], prefix[256];
    pvl_io_basename(prefix, sizeof prefix, r->o->out);
    size_t dir = strlen(r->o->out) - strlen(prefix);
    snprintf(folder, sizeof folder, "%.*s", dir > 1 ? (int)dir - 1 : (int)dir, r->o->out);
    if (dir == 0)
        snprintf(folder, sizeof folder, ".");
    prefix[strlen(prefix) - 5] = 0;
    pvl_output_init(&r->output, folder);
    pvl_mappings m = {0};
    int halves = LANGUAGE | (r->config.has_vision && !r->o->vocab_only ? VISION : 0);
    pvl_status status = r->o->vocab_only ? PVL_OK : map_halves(r, &m, halves, err);
    if (status == PVL_OK && !r->o->vocab_only)
        status = pvl_map_check_rest(r->checkpoint, err);
    if (status == PVL_OK) {
        pvl_progress_begin(&r->progress, "converting", count_values(&m), r->o->quiet);
        status = write_half(r, &m, halves, prefix, 0, err);
    }
    if (status == PVL_OK)
        status = pvl_output_commit(&r->output, err);
    pvl_mappings_free(&m);
    return status;
}

/* The pair and its manifest: out is a folder. */
static pvl_status convert_to_folder(run *r, pvl_error *err) {
    char prefix[192], type[16], path[PVL_IO_PATH];
    PVL_TRY(pvl_io_make_folder(r->o->out, err));
    pvl_output_init(&r->output, r->o->out);
    pvl_mappings language = {0}, vision = {0};
    pvl_status status = map_halves(r, &language, LANGUAGE, err);
    if (status == PVL_OK && r->config.has_vision)
        status = map_halves(r, &vision, VISION, err);
    if (status == PVL_OK)
        status = pvl_map_check_rest(r->checkpoint, err);
    if (status == PVL_OK) {
        pvl_progress_begin(&r->progress, "converting",
                           count_values(&language) + count_values(&vision), r->o->quiet);
        snprintf(prefix, sizeof prefix, "%s-%s", r->name, type_name(r->o->mix.main, type));
        status = write_half(r, &language, LANGUAGE, prefix, r->o->shard_bytes, err);
    }
    if (status == PVL_OK && r->config.has_vision) {
        snprintf(prefix, sizeof prefix, "mmproj-%s-%s", r->name, type_name(r->o->mix.vision, type));
        status = write_half(r, &vision, VISION, prefix, r->o->shard_bytes, err);
    }
    /* An old manifest must not describe a mixture of old and new files. */
    if (status == PVL_OK)
        status = pvl_io_path(path, r->o->out, "manifest.json", err);
    if (status == PVL_OK && remove(path) != 0 && errno != ENOENT)
        status = pvl_fail(err, PVL_E_IO, "%s cannot be replaced: %s.", path, strerror(errno));
    if (status == PVL_OK)
        status = pvl_output_commit(&r->output, err);
    if (status == PVL_OK)
        status = write_manifest(r, err);
    pvl_mappings_free(&language);
    pvl_mappings_free(&vision);
    return status;
}

static pvl_status convert(run *r, pvl_error *err) {
    const pvl_convert_options *o = r->o;
    if (o->name)
        snprintf(r->name, sizeof r->name, "%s", o->name);
    else
        pvl_io_basename(r->name, sizeof r->name, o->folder);
    if (!r->name[0] || strcmp(r->name, ".") == 0 || strcmp(r->name, "..") == 0)
        snprintf(r->name, sizeof r->name, "model");
    if (strchr(r->name, '/'))
        return pvl_fail(err, PVL_E_ARGUMENT, "--name must be a name without slashes.");
    PVL_TRY(pvl_hf_config_read(&r->config, o->folder, o->vocab_only, err));
    PVL_TRY(pvl_hf_vocab_read(&r->vocab, &r->config, o->folder, err));
    if (o->vocab_only && !is_gguf_name(o->out))
        return pvl_fail(err, PVL_E_ARGUMENT,
                        "With --vocab-only the output is a file: give a name that ends in .gguf.");
    if (!o->vocab_only) {
        PVL_TRY(pvl_checkpoint_open(&r->checkpoint, o->folder, err));
        PVL_TRY(pvl_packer_new(&r->packer, o->threads > 0 ? o->threads : 1, err));
    }
    return is_gguf_name(o->out) ? convert_to_file(r, err) : convert_to_folder(r, err);
}

static void report(const run *r) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < r->output.count; i++)
        bytes += r->output.files[i].bytes;
    if (r->report.count)
        pvl_pack_report_print(&r->report);
    if (r->vocab.padded)
        printf("%zu rows of the embedding have no token\n", r->vocab.padded);
    printf("%zu %s in %s, %.2f MB\n", r->output.count, r->output.count == 1 ? "file" : "files",
           r->output.folder, (double)bytes / 1e6);
}

pvl_status pvl_convert(const pvl_convert_options *options, pvl_error *err) {
    run *r = calloc(1, sizeof *r);
    if (!r)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to convert.");
    r->o = options;
    pvl_status status = convert(r, err);
    pvl_progress_end(&r->progress);
    if (status == PVL_OK && !options->quiet)
        report(r);
    pvl_output_free(&r->output);
    pvl_hf_vocab_free(&r->vocab);
    pvl_checkpoint_close(r->checkpoint);
    pvl_packer_free(r->packer);
    pvl_pack_report_free(&r->report);
    free(r);
    return status;
}

/* ---- command line ---- */

static const char usage[] =
    "usage: pocketvl convert [options] FOLDER OUT\n"
    "  FOLDER              a published InternVL model: config.json, *.safetensors, tokenizer "
    "files\n"
    "  OUT                 a folder: NAME-TYPE.gguf, mmproj-NAME-TYPE.gguf and manifest.json;\n"
    "                      or NAME.gguf: both halves in one file\n"
    "  --type TYPE         q4_0 (default), q8_0, f16, bf16, f32, q4_1, q5_0, q5_1, q4_k, q5_k, "
    "q6_k, iq4_nl\n"
    "  --output-type T     of the output matrix, --embedding-type T, --vision-type T: other than "
    "the\n"
    "                      default mixture (after --type)\n"
    "  --shard-size SIZE   split into files of at most so much data: 64M (default), 0 = whole "
    "files\n"
    "                      (pages read both; llama.cpp wants the mmproj whole)\n"
    "  --vocab-only        the tokenizer alone, into OUT.gguf\n"
    "  --name NAME         default: the folder's name; also --title TEXT, --license TEXT\n"
    "  --threads N         default: all processors\n"
    "  --quiet             no progress and no report\n";

int pvl_tool_convert(int argc, char **argv) {
    pvl_convert_options o = {.mix = pvl_mix_default(PVL_DTYPE_Q4_0), .shard_bytes = 64u << 20};
    pvl_error err = {0};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    o.threads = cpus > PVL_MAX_THREADS ? PVL_MAX_THREADS : cpus > 0 ? (int)cpus : 1;
    pvl_arguments a = pvl_arguments_over(argc, argv);
    const char *key, *value = NULL;
    while ((key = pvl_next_option(&a)) != NULL) {
        bool good = true;
        if (strcmp(key, "help") == 0)
            return pvl_print_usage(usage);
        if (strcmp(key, "vocab-only") == 0)
            o.vocab_only = true;
        else if (strcmp(key, "quiet") == 0)
            o.quiet = true;
        else if ((value = pvl_option_value(&a)) == NULL)
            return pvl_wrong_usage(usage, key, &err);
        else if (strcmp(key, "type") == 0 || strcmp(key, "output-type") == 0 ||
                 strcmp(key, "embedding-type") == 0 || strcmp(key, "vision-type") == 0)
            good = pvl_mix_option(&o.mix, key, value, &err) == PVL_OK;
        else if (strcmp(key, "shard-size") == 0)
            good = pvl_parse_size(value, &o.shard_bytes);
        else if (strcmp(key, "threads") == 0)
            good = pvl_parse_int(value, 1, PVL_MAX_THREADS, &o.threads);
        else if (strcmp(key, "name") == 0)
            o.name = value;
        else if (strcmp(key, "title") == 0)
            o.title = value;
        else if (strcmp(key, "license") == 0)
            o.license = value;
        else
            good = false;
        if (!good)
            return pvl_wrong_usage(usage, key, &err);
    }
    if (a.plain_count != 2)
        return pvl_wrong_usage(usage, NULL, &err);
    o.folder = a.plain[0];
    o.out = a.plain[1];
    return pvl_convert(&o, &err) == PVL_OK ? 0 : pvl_report_error(&err);
}
