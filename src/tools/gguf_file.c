#include "tools/gguf_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/io.h"

enum { FIRST_READ = 1 << 20, MAX_PARTS = 10000, SUFFIX = 20 /* -00001-of-00003.gguf */ };

static pvl_status no_memory(const char *path, pvl_error *err) {
    return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to read %s.", path);
}

/* Reads more and more of the file until the head is whole. */
static pvl_status read_head(pvl_gguf_part *part, pvl_error *err) {
    for (size_t n = FIRST_READ;; n *= 4) {
        if (n > part->bytes)
            n = (size_t)part->bytes;
        void *data = malloc(n ? n : 1);
        if (!data)
            return no_memory(part->path, err);
        bool more = false;
        pvl_error here = {0};
        pvl_status status = pvl_io_read_at(part->handle, data, n, 0, part->path, &here);
        if (status == PVL_OK)
            status = pvl_gguf_parse_head(&part->head, &more, NULL, part->path, data, n, part->bytes,
                                         &here);
        free(data);
        if (status == PVL_OK || !more || n >= part->bytes || n >= PVL_GGUF_MAX_HEAD) {
            if (status != PVL_OK && err)
                *err = here;
            return status;
        }
    }
}

static pvl_status open_part(pvl_gguf_files *f, const char *path, pvl_error *err) {
    pvl_gguf_part *grown = realloc(f->parts, (f->count + 1) * sizeof *grown);
    if (!grown)
        return no_memory(path, err);
    f->parts = grown;
    pvl_gguf_part *part = &grown[f->count];
    memset(part, 0, sizeof *part);
    part->path = strdup(path);
    if (!part->path)
        return no_memory(path, err);
    f->count++;
    part->handle = pvl_io_is_folder(path) ? NULL : fopen(path, "rb");
    if (!part->handle)
        return pvl_fail(err, PVL_E_IO, "%s cannot be opened: %s.", path,
                        pvl_io_is_folder(path) ? "it is a folder" : strerror(errno));
    PVL_TRY(pvl_io_size(&part->bytes, part->handle, path, err));
    PVL_TRY(read_head(part, err));
    if (pvl_gguf_file_bytes(part->head) > part->bytes && pvl_gguf_tensor_count(part->head))
        return pvl_fail(
            err, PVL_E_FORMAT,
            "%s ends too early: its tensors need %llu bytes, it has %llu; get it again.", path,
            (unsigned long long)pvl_gguf_file_bytes(part->head), (unsigned long long)part->bytes);
    return PVL_OK;
}

unsigned pvl_gguf_parts_of(const char *path) {
    size_t n = strlen(path);
    unsigned part, parts;
    int used = 0;
    bool named = n > SUFFIX && // NOLINTNEXTLINE(cert-err34-c): five digits fit
                 sscanf(path + n - SUFFIX, "-%5u-of-%5u.gguf%n", &part, &parts, &used) == 2 &&
                 used == SUFFIX && part == 1 && parts <= MAX_PARTS;
    return named ? parts : 0;
}

char *pvl_gguf_part_path(const char *first, unsigned part) {
    char *path = strdup(first);
    char *digits = path ? path + strlen(path) - SUFFIX + 1 : NULL;
    for (int i = 4; digits && i >= 0; i--, part /= 10)
        digits[i] = (char)('0' + part % 10);
    return path;
}

static pvl_status open_split(pvl_gguf_files *f, const char *path, uint32_t count, pvl_error *err) {
    if (pvl_gguf_parts_of(path) != count)
        return pvl_fail(
            err, PVL_E_FORMAT,
            "%s is one of %u parts, but is not named NAME-00001-of-%05u.gguf: give the first "
            "part of the set under its own name.",
            path, count, count);
    pvl_status status = PVL_OK;
    for (unsigned i = 2; status == PVL_OK && i <= count; i++) {
        char *name = pvl_gguf_part_path(path, i);
        if (!name)
            return no_memory(path, err);
        status = open_part(f, name, err);
        uint32_t no = 0;
        if (status == PVL_OK &&
            (!pvl_gguf_u32(f->parts[f->count - 1].head, "split.no", &no) || no != i - 1))
            status = pvl_fail(err, PVL_E_FORMAT, "%s is not part %u of its model.", name, i);
        free(name);
    }
    return status;
}

pvl_status pvl_gguf_files_open(pvl_gguf_files *out, const char *path, pvl_error *err) {
    memset(out, 0, sizeof *out);
    PVL_TRY(open_part(out, path, err));
    uint32_t count = 1, no = 0;
    pvl_gguf_u32(out->parts[0].head, "split.count", &count);
    pvl_gguf_u32(out->parts[0].head, "split.no", &no);
    if (no != 0)
        return pvl_fail(err, PVL_E_ARGUMENT, "%s is part %u of %u: give the first part.", path,
                        no + 1, count);
    return count > 1 ? open_split(out, path, count, err) : PVL_OK;
}

void pvl_gguf_files_close(pvl_gguf_files *f) {
    for (size_t i = 0; i < f->count; i++) {
        pvl_gguf_free(f->parts[i].head);
        if (f->parts[i].handle)
            fclose(f->parts[i].handle);
        free(f->parts[i].path);
    }
    free(f->parts);
    memset(f, 0, sizeof *f);
}

pvl_status pvl_gguf_part_read(pvl_gguf_part *part, const pvl_gguf_tensor *t, void *out, size_t n,
                              uint64_t offset, pvl_error *err) {
    return pvl_io_read_at(part->handle, out, n,
                          pvl_gguf_data_start(part->head) + t->offset + offset, part->path, err);
}
