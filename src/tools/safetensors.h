/* Checkpoints in safetensors: one file, or several with an index.
 *
 * A file is a little-endian u64 N, N bytes of JSON, then the data. The JSON maps tensor names to
 * {"dtype", "shape", "data_offsets": [begin, end]} with offsets from the first byte behind it, and
 * may hold "__metadata__". Everything is checked when the file is opened: offsets inside the file,
 * sizes that fit shape and dtype, no overlap. A folder holds model.safetensors, or
 * model.safetensors.index.json whose "weight_map" maps each tensor to its file. */
#ifndef PVL_TOOLS_SAFETENSORS_H
#define PVL_TOOLS_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum {
    PVL_ST_MAX_HEADER = 100 * 1024 * 1024, /* as the reference reader */
    PVL_ST_MAX_DIMS = 8,
    PVL_ST_MAX_TENSORS = 65536
};

typedef enum pvl_st_dtype { PVL_ST_F32, PVL_ST_F16, PVL_ST_BF16, PVL_ST_OTHER } pvl_st_dtype;

typedef struct pvl_st_tensor {
    char *name;
    pvl_st_dtype dtype;
    char dtype_name[12];
    size_t dims;
    uint64_t shape[PVL_ST_MAX_DIMS]; /* outermost first */
    uint64_t elements;
    uint64_t begin, bytes; /* in the file */
    size_t file;           /* index into files */
    int used;              /* for the caller */
} pvl_st_tensor;

typedef struct pvl_checkpoint pvl_checkpoint;

/* Opens the checkpoint of a folder, or one .safetensors file. */
pvl_status pvl_checkpoint_open(pvl_checkpoint **out, const char *path, pvl_error *err);
void pvl_checkpoint_close(pvl_checkpoint *c); /* NULL is fine */

size_t pvl_checkpoint_count(const pvl_checkpoint *c);
pvl_st_tensor *pvl_checkpoint_at(pvl_checkpoint *c, size_t index);       /* by name, ascending */
pvl_st_tensor *pvl_checkpoint_find(pvl_checkpoint *c, const char *name); /* NULL when absent */
/* The folder or file that was opened. */
const char *pvl_checkpoint_path(const pvl_checkpoint *c);

const char *pvl_checkpoint_file(const pvl_checkpoint *c, const pvl_st_tensor *t); /* its path */

/* `count` elements from element `first` on, as floats. The dtype must not be PVL_ST_OTHER. */
pvl_status pvl_checkpoint_read(pvl_checkpoint *c, const pvl_st_tensor *t, float *out,
                               uint64_t first, size_t count, pvl_error *err);

#endif
