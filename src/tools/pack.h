/* Writing tensors in another element type: rows in, blocks out, shared out over threads, with the
 * error that the type costs. The same input gives the same bytes with any number of threads. */
#ifndef PVL_TOOLS_PACK_H
#define PVL_TOOLS_PACK_H

#include "base/threads.h"
#include "tensor/gguf_write.h"

enum { PVL_PACK_VALUES = 4 * 1024 * 1024 }; /* most values of one call to pvl_pack_rows */

/* Sums of one tensor. */
typedef struct pvl_pack_error {
    double difference, norm; /* squared */
} pvl_pack_error;

/* Relative L2 error of what was packed so far. */
double pvl_pack_relative(const pvl_pack_error *e);

typedef struct pvl_packer pvl_packer;

pvl_status pvl_packer_new(pvl_packer **out, int threads, pvl_error *err);
void pvl_packer_free(pvl_packer *p); /* NULL is fine */
/* Room for PVL_PACK_VALUES floats (at least `values`, when a row is longer): the input of
 * pvl_pack_rows. NULL without memory. */
float *pvl_packer_input(pvl_packer *p, size_t values);

/* Packs the first `rows` rows of the input, `columns` values each, to `type` and hands them to the
 * writer. what: the tensor's name, for messages. PVL_E_FORMAT when a value is not finite. */
pvl_status pvl_pack_rows(pvl_packer *p, pvl_gguf_writer *w, pvl_dtype type, size_t rows,
                         size_t columns, pvl_pack_error *sums, const char *what, pvl_error *err);

/* ---- report ---- */

/* Worst relative error of each class of tensors: names that differ only in the block's number. */
typedef struct pvl_pack_class {
    char name[64]; /* "blk.N.attn_q.weight" */
    char worst_name[64];
    pvl_dtype type;
    size_t count;
    double worst;
    uint64_t bytes;
} pvl_pack_class;

typedef struct pvl_pack_report {
    pvl_pack_class *classes;
    size_t count;
    uint64_t tensors, bytes;
} pvl_pack_report;

pvl_status pvl_pack_report_add(pvl_pack_report *r, const char *name, pvl_dtype type, double error,
                               uint64_t bytes, pvl_error *err);
/* A table on stdout. */
void pvl_pack_report_print(const pvl_pack_report *r);
void pvl_pack_report_free(pvl_pack_report *r);

#endif
