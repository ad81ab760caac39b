#include "tools/quantize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/command.h"
#include "tools/gguf_file.h"
#include "tools/io.h"
#include "tools/pack.h"

typedef struct run {
    const pvl_quantize_options *o;
    pvl_gguf_files in;
    pvl_gguf_writer *writer;
    pvl_packer *packer;
    pvl_output output;
    pvl_pack_report report;
    pvl_progress_line progress;
    unsigned char *raw;
    size_t raw_bytes;
} run;

static pvl_dtype target_type(const run *r, const pvl_gguf_tensor *t) {
    /* What is float because it must be stays so: RoPE factors, norms, biases. */
    return strncmp(t->name, "rope_factors", 12) == 0
               ? t->type
               : pvl_mix_type(&r->o->mix, t->name, t->ne, t->dims);
}

static pvl_status copy_head(run *r, pvl_error *err) {
    const pvl_gguf *g = r->in.parts[0].head;
    for (size_t i = 0; i < pvl_gguf_kv_count(g); i++) {
        const pvl_gguf_kv *kv = pvl_gguf_kv_at(g, i);
        if (strcmp(kv->key, "general.file_type") == 0)
            PVL_TRY(
                pvl_gguf_writer_u32(r->writer, kv->key, pvl_mix_file_type(r->o->mix.main), err));
        else
            PVL_TRY(pvl_gguf_writer_copy(r->writer, kv, err));
    }
    uint64_t values = 0;
    for (size_t p = 0; p < r->in.count; p++) {
        for (size_t i = 0; i < pvl_gguf_tensor_count(r->in.parts[p].head); i++) {
            const pvl_gguf_tensor *t = pvl_gguf_tensor_at(r->in.parts[p].head, i);
            PVL_TRY(
                pvl_gguf_writer_tensor(r->writer, t->name, target_type(r, t), t->ne, t->dims, err));
            values += t->elements;
        }
    }
    pvl_progress_begin(&r->progress, "quantizing", values, r->o->quiet);
    return PVL_OK;
}

static pvl_status write_tensor(run *r, pvl_gguf_part *part, const pvl_gguf_tensor *t,
                               pvl_error *err) {
    pvl_dtype type = target_type(r, t);
    size_t columns = t->ne[0], rows = columns ? t->elements / columns : 0, row_bytes, new_row;
    if (!pvl_dtype_bytes(&row_bytes, t->type, columns) || !pvl_dtype_bytes(&new_row, type, columns))
        return pvl_fail(err, PVL_E_INTERNAL, "%s: rows of %zu values are no whole blocks.", t->name,
                        columns);
    size_t most = columns ? PVL_PACK_VALUES / columns : 1;
    if (most == 0)
        most = 1;
    float *input = pvl_packer_input(r->packer, most * columns);
    if (most * row_bytes > r->raw_bytes) {
        free(r->raw);
        r->raw = malloc(most * row_bytes);
        r->raw_bytes = r->raw ? most * row_bytes : 0;
    }
    if (!input || !r->raw)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to quantize %s.", t->name);
    pvl_pack_error sums = {0, 0};
    for (size_t row = 0; row < rows;) {
        size_t n = rows - row < most ? rows - row : most;
        PVL_TRY(pvl_gguf_part_read(part, t, r->raw, n * row_bytes, (uint64_t)row * row_bytes, err));
        if (type == t->type) {
            PVL_TRY(pvl_gguf_writer_data(r->writer, r->raw, n * row_bytes, err));
        } else {
            pvl_dtype_dequantize(t->type, input, r->raw, n * columns);
            PVL_TRY(pvl_pack_rows(r->packer, r->writer, type, n, columns, &sums, t->name, err));
        }
        pvl_progress_add(&r->progress, (uint64_t)n * columns);
        row += n;
    }
    return pvl_pack_report_add(&r->report, t->name, type, pvl_pack_relative(&sums),
                               (uint64_t)rows * new_row, err);
}

/* The tensor with this number over all parts. */
static const pvl_gguf_tensor *tensor_at(run *r, size_t index, pvl_gguf_part **part) {
    size_t p = 0;
    while (index >= pvl_gguf_tensor_count(r->in.parts[p].head))
        index -= pvl_gguf_tensor_count(r->in.parts[p++].head);
    *part = &r->in.parts[p];
    return pvl_gguf_tensor_at((*part)->head, index);
}

static pvl_status write_files(run *r, const char *prefix, pvl_error *err) {
    PVL_TRY(pvl_gguf_writer_plan(r->writer, r->o->shard_bytes, err));
    size_t shards = pvl_gguf_writer_shards(r->writer);
    for (size_t s = 0; s < shards; s++) {
        char name[256];
        size_t first, count;
        if (!pvl_gguf_shard_name(name, sizeof name, prefix, s, shards))
            return pvl_fail(err, PVL_E_LIMIT, "The file name %.60s... is too long.", prefix);
        PVL_TRY(pvl_output_begin(&r->output, name, err));
        PVL_TRY(pvl_gguf_writer_begin(r->writer, s, pvl_output_write, &r->output, err));
        pvl_gguf_writer_shard_tensors(r->writer, s, &first, &count);
        for (size_t i = first; i < first + count; i++) {
            pvl_gguf_part *part;
            const pvl_gguf_tensor *t = tensor_at(r, i, &part);
            PVL_TRY(write_tensor(r, part, t, err));
        }
        PVL_TRY(pvl_gguf_writer_end(r->writer, err));
        PVL_TRY(pvl_output_end(&r->output, err));
    }
    return pvl_output_commit(&r->output, err);
}

/* Reading and writing one file at the same time would destroy it. */
static bool same_file(const char *a, const char *b) {
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static pvl_status quantize(run *r, pvl_error *err) {
    char folder[PVL_IO_PATH], prefix[256];
    pvl_io_basename(prefix, sizeof prefix, r->o->out);
    size_t n = strlen(prefix), dir = strlen(r->o->out) - n;
    if (n < 6 || strcmp(prefix + n - 5, ".gguf") != 0)
        return pvl_fail(err, PVL_E_ARGUMENT, "The output %s must be named NAME.gguf.", r->o->out);
    prefix[n - 5] = 0;
    snprintf(folder, sizeof folder, "%.*s", dir > 1 ? (int)dir - 1 : (int)dir, r->o->out);
    PVL_TRY(pvl_gguf_files_open(&r->in, r->o->in, err));
    for (size_t i = 0; i < r->in.count; i++) {
        if (same_file(r->in.parts[i].path, r->o->out))
            return pvl_fail(err, PVL_E_ARGUMENT,
                            "The output %s is the input: give it another name.", r->o->out);
    }
    pvl_output_init(&r->output, dir ? folder : ".");
    PVL_TRY(pvl_packer_new(&r->packer, r->o->threads > 0 ? r->o->threads : 1, err));
    PVL_TRY(pvl_gguf_writer_new(&r->writer, NULL, err));
    PVL_TRY(copy_head(r, err));
    return write_files(r, prefix, err);
}

pvl_status pvl_quantize(const pvl_quantize_options *options, pvl_error *err) {
    run r = {.o = options};
    pvl_status status = quantize(&r, err);
    pvl_progress_end(&r.progress);
    if (status == PVL_OK && !options->quiet)
        pvl_pack_report_print(&r.report);
    pvl_gguf_writer_free(r.writer);
    pvl_output_free(&r.output);
    pvl_gguf_files_close(&r.in);
    pvl_packer_free(r.packer);
    pvl_pack_report_free(&r.report);
    free(r.raw);
    return status;
}

static const char usage[] =
    "usage: pocketvl quantize [options] IN.gguf OUT.gguf\n"
    "  IN.gguf             a language model, an mmproj or both in one; of a split model the first "
    "part\n"
    "  --type TYPE         q4_0 (default), q8_0, f16, bf16, f32, q4_1, q5_0, q5_1, q4_k, q5_k, "
    "q6_k, iq4_nl\n"
    "  --output-type T     also --embedding-type, --vision-type: other than the default mixture\n"
    "  --shard-size SIZE   split into OUT-00001-of-....gguf of at most so much data\n"
    "  --threads N         default: all processors\n"
    "  --quiet             no progress and no report\n";

int pvl_tool_quantize(int argc, char **argv) {
    pvl_quantize_options o = {.mix = pvl_mix_default(PVL_DTYPE_Q4_0)};
    pvl_error err = {0};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    o.threads = cpus > PVL_MAX_THREADS ? PVL_MAX_THREADS : cpus > 0 ? (int)cpus : 1;
    pvl_arguments a = pvl_arguments_over(argc, argv);
    const char *key, *value = NULL;
    while ((key = pvl_next_option(&a)) != NULL) {
        bool good = true;
        if (strcmp(key, "help") == 0)
            return pvl_print_usage(usage);
        if (strcmp(key, "quiet") == 0)
            o.quiet = true;
        else if ((value = pvl_option_value(&a)) == NULL)
            good = false;
        else if (strcmp(key, "type") == 0 || strcmp(key, "output-type") == 0 ||
                 strcmp(key, "embedding-type") == 0 || strcmp(key, "vision-type") == 0)
            good = pvl_mix_option(&o.mix, key, value, &err) == PVL_OK;
        else if (strcmp(key, "shard-size") == 0)
            good = pvl_parse_size(value, &o.shard_bytes);
        else if (strcmp(key, "threads") == 0)
            good = pvl_parse_int(value, 1, PVL_MAX_THREADS, &o.threads);
        else
            good = false;
        if (!good)
            return pvl_wrong_usage(usage, key, &err);
    }
    if (a.plain_count != 2)
        return pvl_wrong_usage(usage, NULL, &err);
    o.in = a.plain[0];
    o.out = a.plain[1];
    return pvl_quantize(&o, &err) == PVL_OK ? 0 : pvl_report_error(&err);
}
