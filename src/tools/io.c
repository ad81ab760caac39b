#include "tools/io.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

pvl_status pvl_io_path(char out[PVL_IO_PATH], const char *dir, const char *name, pvl_error *err) {
    int n = snprintf(out, PVL_IO_PATH, "%s/%s", dir, name);
    if (n < 0 || n >= PVL_IO_PATH)
        return pvl_fail(err, PVL_E_LIMIT, "The path %.100s... is longer than %d bytes.", dir,
                        PVL_IO_PATH);
    return PVL_OK;
}

void pvl_io_basename(char *out, size_t capacity, const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    snprintf(out, capacity, "%.*s", (int)(end - begin), path + begin);
}

bool pvl_io_exists(const char *path) {
    struct stat s;
    return stat(path, &s) == 0;
}

bool pvl_io_is_folder(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

pvl_status pvl_io_make_folder(const char *path, pvl_error *err) {
    if (mkdir(path, 0777) == 0 || pvl_io_is_folder(path))
        return PVL_OK;
    return pvl_fail(err, PVL_E_IO, "The folder %s cannot be made: %s.", path, strerror(errno));
}

pvl_status pvl_io_size(uint64_t *out, FILE *f, const char *path, pvl_error *err) {
    off_t end;
    if (fseeko(f, 0, SEEK_END) != 0 || (end = ftello(f)) < 0 || fseeko(f, 0, SEEK_SET) != 0)
        return pvl_fail(err, PVL_E_IO, "%s cannot be read: %s.", path, strerror(errno));
    *out = (uint64_t)end;
    return PVL_OK;
}

pvl_status pvl_io_read_at(FILE *f, void *out, size_t n, uint64_t at, const char *path,
                          pvl_error *err) {
    if (fseeko(f, (off_t)at, SEEK_SET) != 0)
        return pvl_fail(err, PVL_E_IO, "%s cannot be read: %s.", path, strerror(errno));
    if (fread(out, 1, n, f) == n)
        return PVL_OK;
    if (ferror(f))
        return pvl_fail(err, PVL_E_IO, "%s cannot be read: %s.", path, strerror(errno));
    return pvl_fail(err, PVL_E_FORMAT, "%s ends too early: it was cut off; get it again.", path);
}

static pvl_status read_open(char **out, size_t *bytes, FILE *f, const char *path, size_t limit,
                            pvl_error *err) {
    uint64_t size = 0;
    PVL_TRY(pvl_io_size(&size, f, path, err));
    if (size > limit)
        return pvl_fail(err, PVL_E_LIMIT, "%s has %llu bytes, more than the limit of %zu.", path,
                        (unsigned long long)size, limit);
    char *data = malloc((size_t)size + 1);
    if (!data)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to read %s.", path);
    pvl_status status = pvl_io_read_at(f, data, (size_t)size, 0, path, err);
    if (status != PVL_OK) {
        free(data);
        return status;
    }
    data[size] = 0;
    *out = data;
    *bytes = (size_t)size;
    return PVL_OK;
}

pvl_status pvl_io_read(char **out, size_t *bytes, const char *path, size_t limit, pvl_error *err) {
    *out = NULL;
    *bytes = 0;
    FILE *f = pvl_io_is_folder(path) ? NULL : fopen(path, "rb");
    if (!f)
        return pvl_fail(err, PVL_E_IO, "%s cannot be opened: %s.", path,
                        pvl_io_is_folder(path) ? "it is a folder" : strerror(errno));
    pvl_status status = read_open(out, bytes, f, path, limit, err);
    fclose(f);
    return status;
}

/* ---- a set of output files ---- */

void pvl_output_init(pvl_output *out, const char *folder) {
    memset(out, 0, sizeof *out);
    snprintf(out->folder, sizeof out->folder, "%s", folder);
}

static pvl_status part_path(char path[PVL_IO_PATH], const pvl_output *out,
                            const pvl_output_file *file, pvl_error *err) {
    char name[sizeof file->name + 8];
    snprintf(name, sizeof name, "%s.part", file->name);
    return pvl_io_path(path, out->folder, name, err);
}

static pvl_status write_failed(const pvl_output *out, pvl_error *err) {
    return pvl_fail(err, PVL_E_IO, "%s/%s cannot be written: %s.", out->folder,
                    out->files[out->count - 1].name, strerror(errno));
}

pvl_status pvl_output_begin(pvl_output *out, const char *name, pvl_error *err) {
    if (strlen(name) >= sizeof out->files->name)
        return pvl_fail(err, PVL_E_LIMIT, "The file name %.60s... is too long.", name);
    pvl_output_file *files = realloc(out->files, (out->count + 1) * sizeof *files);
    if (!files)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to write %s.", name);
    out->files = files;
    pvl_output_file *file = &files[out->count++];
    memset(file, 0, sizeof *file);
    snprintf(file->name, sizeof file->name, "%s", name);
    char path[PVL_IO_PATH];
    PVL_TRY(part_path(path, out, file, err));
    out->open = fopen(path, "wb");
    if (!out->open)
        return write_failed(out, err);
    pvl_sha256_init(&out->hash);
    out->in_chunk = 0;
    return PVL_OK;
}

static pvl_status end_chunk(pvl_output *out, pvl_error *err) {
    pvl_output_file *file = &out->files[out->count - 1];
    pvl_io_digest *chunks = realloc(file->chunks, (file->chunk_count + 1) * sizeof *chunks);
    if (!chunks)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to write %s.", file->name);
    file->chunks = chunks;
    chunks[file->chunk_count].bytes = out->in_chunk;
    pvl_sha256_end(&out->hash, chunks[file->chunk_count++].sha256);
    pvl_sha256_init(&out->hash);
    out->in_chunk = 0;
    return PVL_OK;
}

pvl_status pvl_output_write(void *ctx, const void *bytes, size_t n, pvl_error *err) {
    pvl_output *out = ctx;
    const unsigned char *p = bytes;
    while (n > 0) {
        size_t take = PVL_IO_CHUNK - (size_t)out->in_chunk;
        if (take > n)
            take = n;
        if (fwrite(p, 1, take, out->open) != take)
            return write_failed(out, err);
        pvl_sha256_add(&out->hash, p, take);
        out->files[out->count - 1].bytes += take;
        out->in_chunk += take;
        p += take;
        n -= take;
        if (out->in_chunk == PVL_IO_CHUNK)
            PVL_TRY(end_chunk(out, err));
    }
    return PVL_OK;
}

pvl_status pvl_output_end(pvl_output *out, pvl_error *err) {
    if (out->in_chunk || out->files[out->count - 1].chunk_count == 0)
        PVL_TRY(end_chunk(out, err));
    FILE *f = out->open;
    out->open = NULL;
    /* A full disk may only show here; the bytes must be down before the file gets its name. */
    bool good = fflush(f) == 0 && fsync(fileno(f)) == 0;
    if (!good) {
        pvl_status status = write_failed(out, err);
        fclose(f);
        return status;
    }
    return fclose(f) == 0 ? PVL_OK : write_failed(out, err);
}

pvl_status pvl_output_commit(pvl_output *out, pvl_error *err) {
    char from[PVL_IO_PATH], to[PVL_IO_PATH];
    for (size_t i = 0; i < out->count; i++) {
        PVL_TRY(part_path(from, out, &out->files[i], err));
        PVL_TRY(pvl_io_path(to, out->folder, out->files[i].name, err));
        if (rename(from, to) != 0)
            return pvl_fail(err, PVL_E_IO, "%s cannot be named %s: %s.", from, out->files[i].name,
                            strerror(errno));
    }
    return PVL_OK;
}

void pvl_output_free(pvl_output *out) {
    char path[PVL_IO_PATH];
    if (out->open)
        fclose(out->open);
    for (size_t i = 0; i < out->count; i++) {
        if (part_path(path, out, &out->files[i], NULL) == PVL_OK)
            remove(path); /* gone already when committed */
        free(out->files[i].chunks);
    }
    free(out->files);
    memset(out, 0, sizeof *out);
}
