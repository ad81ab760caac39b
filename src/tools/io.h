/* Files for the native tools: whole reads with a limit, paths, and output files that only get their
 * name when they are complete. Messages name the file. */
#ifndef PVL_TOOLS_IO_H
#define PVL_TOOLS_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/status.h"
#include "tools/sha256.h"

enum { PVL_IO_PATH = 4096, PVL_IO_CHUNK = 16 * 1024 * 1024 };

/* dir/name into out; PVL_E_LIMIT when longer than PVL_IO_PATH. */
pvl_status pvl_io_path(char out[PVL_IO_PATH], const char *dir, const char *name, pvl_error *err);
/* The part behind the last slash; a slash at the end does not count. Copied into out, cut to fit.
 */
void pvl_io_basename(char *out, size_t capacity, const char *path);
bool pvl_io_exists(const char *path);
bool pvl_io_is_folder(const char *path);
pvl_status pvl_io_make_folder(const char *path, pvl_error *err); /* fine when it exists */

/* The whole file plus a closing 0; free with free(). PVL_E_LIMIT above `limit` bytes. */
pvl_status pvl_io_read(char **out, size_t *bytes, const char *path, size_t limit, pvl_error *err);
/* Size of an open file. */
pvl_status pvl_io_size(uint64_t *out, FILE *f, const char *path, pvl_error *err);
/* n bytes from offset `at`; a short file is PVL_E_FORMAT. */
pvl_status pvl_io_read_at(FILE *f, void *out, size_t n, uint64_t at, const char *path,
                          pvl_error *err);

/* ---- a set of output files ---- */

typedef struct pvl_io_digest {
    uint64_t bytes;
    unsigned char sha256[32];
} pvl_io_digest;

/* One file: written as NAME.part, renamed by pvl_output_commit. */
typedef struct pvl_output_file {
    char name[256]; /* within the folder */
    uint64_t bytes;
    pvl_io_digest *chunks; /* [chunk_count] of PVL_IO_CHUNK bytes, the last shorter */
    size_t chunk_count;
} pvl_output_file;

typedef struct pvl_output {
    char folder[PVL_IO_PATH];
    pvl_output_file *files;
    size_t count;
    FILE *open; /* the last file, while it is written */
    pvl_sha256 hash;
    uint64_t in_chunk;
} pvl_output;

/* folder must exist. */
void pvl_output_init(pvl_output *out, const char *folder);
pvl_status pvl_output_begin(pvl_output *out, const char *name, pvl_error *err);
/* A pvl_gguf_sink; ctx is the pvl_output. */
pvl_status pvl_output_write(void *ctx, const void *bytes, size_t n, pvl_error *err);
pvl_status pvl_output_end(pvl_output *out, pvl_error *err);
/* All files get their names, in order. */
pvl_status pvl_output_commit(pvl_output *out, pvl_error *err);
/* Removes what is not committed and frees. */
void pvl_output_free(pvl_output *out);

#endif
