#include "tools/pack.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dtype.h"

struct pvl_packer {
    pvl_team *team;
    float *input;
    size_t input_values;
    unsigned char *output;
    size_t output_bytes;
    pvl_pack_error *rows; /* of each row, so that sums do not depend on the threads */
    size_t row_count;
};

double pvl_pack_relative(const pvl_pack_error *e) {
    return e->norm > 0 ? sqrt(e->difference / e->norm) : sqrt(e->difference);
}

pvl_status pvl_packer_new(pvl_packer **out, int threads, pvl_error *err) {
    *out = NULL;
    pvl_packer *p = calloc(1, sizeof *p);
    if (!p)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to convert.");
    pvl_status status = pvl_team_start(&p->team, NULL, threads, err);
    if (status != PVL_OK) {
        free(p);
        return status;
    }
    *out = p;
    return PVL_OK;
}

void pvl_packer_free(pvl_packer *p) {
    if (!p)
        return;
    pvl_team_stop(p->team);
    free(p->input);
    free(p->output);
    free(p->rows);
    free(p);
}

float *pvl_packer_input(pvl_packer *p, size_t values) {
    if (values < PVL_PACK_VALUES)
        values = PVL_PACK_VALUES;
    if (values > p->input_values) {
        free(p->input);
        p->input = malloc(values * sizeof *p->input);
        p->input_values = p->input ? values : 0;
    }
    return p->input;
}

struct job {
    pvl_packer *p;
    pvl_dtype type;
    size_t columns, row_bytes;
};

static void pack_task(void *arg, size_t begin, size_t end, int member) {
    const struct job *job = arg;
    (void)member;
    for (size_t r = begin; r < end; r++) {
        const float *x = job->p->input + r * job->columns;
        unsigned char *blocks = job->p->output + r * job->row_bytes;
        pvl_pack_error *row = &job->p->rows[r];
        double norm = 0;
        for (size_t i = 0; i < job->columns; i++)
            norm += (double)x[i] * (double)x[i];
        row->norm = norm;
        row->difference = 0;
        if (!isfinite(norm))
            continue;
        if (job->type == PVL_DTYPE_F32) {
            memcpy(blocks, x, job->row_bytes);
            continue;
        }
        pvl_dtype_quantize(job->type, blocks, x, job->columns);
        double error = pvl_dtype_error(job->type, blocks, x, job->columns);
        row->difference = norm > 0 ? error * error * norm : 0;
    }
}

pvl_status pvl_pack_rows(pvl_packer *p, pvl_gguf_writer *w, pvl_dtype type, size_t rows,
                         size_t columns, pvl_pack_error *sums, const char *what, pvl_error *err) {
    struct job job = {p, type, columns, 0};
    if (!pvl_dtype_bytes(&job.row_bytes, type, columns))
        return pvl_fail(err, PVL_E_INTERNAL, "%s: rows of %zu values are no whole blocks.", what,
                        columns);
    if (rows * job.row_bytes > p->output_bytes) {
        free(p->output);
        p->output_bytes = rows * job.row_bytes;
        p->output = malloc(p->output_bytes);
    }
    if (rows > p->row_count) {
        free(p->rows);
        p->row_count = rows;
        p->rows = calloc(rows, sizeof *p->rows);
    }
    if (!p->output || !p->rows) {
        p->output_bytes = p->output ? p->output_bytes : 0;
        p->row_count = p->rows ? p->row_count : 0;
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to convert %s.", what);
    }
    pvl_parallel_for(p->team, rows, columns < 4096 ? 16 : 2, pack_task, &job);
    for (size_t r = 0; r < rows; r++) {
        if (!isfinite(p->rows[r].norm) || !isfinite(p->rows[r].difference))
            return pvl_fail(err, PVL_E_FORMAT,
                            "%s holds a value that is no finite number, or too large for %s: the "
                            "checkpoint is damaged.",
                            what, pvl_dtype_find((uint32_t)type)->name);
        sums->norm += p->rows[r].norm;
        sums->difference += p->rows[r].difference;
    }
    return pvl_gguf_writer_data(w, p->output, rows * job.row_bytes, err);
}

/* ---- report ---- */

static void class_name(char out[64], const char *name) {
    size_t at = 0;
    for (const char *p = name; *p && at < 62; p++) {
        if (isdigit((unsigned char)*p) && p > name && p[-1] == '.' && strstr(name, "blk.") &&
            p == strstr(name, "blk.") + 4) {
            out[at++] = 'N';
            while (isdigit((unsigned char)p[1]))
                p++;
        } else {
            out[at++] = *p;
        }
    }
    out[at] = 0;
}

pvl_status pvl_pack_report_add(pvl_pack_report *r, const char *name, pvl_dtype type, double error,
                               uint64_t bytes, pvl_error *err) {
    char class[64];
    class_name(class, name);
    size_t i = 0;
    while (i < r->count && (strcmp(r->classes[i].name, class) != 0 || r->classes[i].type != type))
        i++;
    if (i == r->count) {
        pvl_pack_class *classes = realloc(r->classes, (r->count + 1) * sizeof *classes);
        if (!classes)
            return pvl_fail(err, PVL_E_MEMORY, "Not enough memory for the report.");
        r->classes = classes;
        memset(&classes[r->count++], 0, sizeof *classes);
        snprintf(classes[i].name, sizeof classes[i].name, "%s", class);
        classes[i].type = type;
        classes[i].worst = -1;
    }
    pvl_pack_class *c = &r->classes[i];
    c->count++;
    c->bytes += bytes;
    r->tensors++;
    r->bytes += bytes;
    if (error > c->worst) {
        c->worst = error;
        snprintf(c->worst_name, sizeof c->worst_name, "%s", name);
    }
    return PVL_OK;
}

void pvl_pack_report_print(const pvl_pack_report *r) {
    printf("%-28s %5s  %-6s %9s  %s\n", "tensors", "count", "type", "MB", "worst relative error");
    for (size_t i = 0; i < r->count; i++) {
        const pvl_pack_class *c = &r->classes[i];
        printf("%-28s %5zu  %-6s %9.2f  %.3g", c->name, c->count,
               pvl_dtype_find((uint32_t)c->type)->name, (double)c->bytes / 1e6, c->worst);
        if (c->worst > 0 && c->count > 1)
            printf(" (%s)", c->worst_name);
        printf("\n");
    }
    printf("%llu tensors, %.2f MB\n", (unsigned long long)r->tensors, (double)r->bytes / 1e6);
}

void pvl_pack_report_free(pvl_pack_report *r) {
    free(r->classes);
    memset(r, 0, sizeof *r);
}
