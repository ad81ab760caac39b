/* GGUF files on disk: the head of a file and its tensor data by random access; a split model by its
 * first part. */
#ifndef PVL_TOOLS_GGUF_FILE_H
#define PVL_TOOLS_GGUF_FILE_H

#include <stdio.h>

#include "tensor/gguf.h"

typedef struct pvl_gguf_part {
    char *path;
    FILE *handle;
    uint64_t bytes;
    pvl_gguf *head;
} pvl_gguf_part;

typedef struct pvl_gguf_files {
    pvl_gguf_part *parts; /* one, or all of a split model in order */
    size_t count;
} pvl_gguf_files;

/* Opens a file, and when it is the first part of a split model all parts (a later part:
 * PVL_E_ARGUMENT). A file shorter than its tensors need is PVL_E_FORMAT, a missing part PVL_E_IO.
 * Close in any case. */
pvl_status pvl_gguf_files_open(pvl_gguf_files *out, const char *path, pvl_error *err);
void pvl_gguf_files_close(pvl_gguf_files *f);

/* Parts of the set whose first one is named so (NAME-00001-of-00003.gguf); 0 for any other name. */
unsigned pvl_gguf_parts_of(const char *path);
/* The path of a part (from 1) of such a set, to be freed; NULL without memory. */
char *pvl_gguf_part_path(const char *first, unsigned part);

/* n bytes of a tensor's data from `offset` on. */
pvl_status pvl_gguf_part_read(pvl_gguf_part *part, const pvl_gguf_tensor *t, void *out, size_t n,
                              uint64_t offset, pvl_error *err);

#endif
