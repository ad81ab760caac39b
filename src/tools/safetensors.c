#include "tools/safetensors.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/io.h"
#include "tools/json.h"

typedef struct st_file {
    char path[PVL_IO_PATH];
    FILE *handle;
    uint64_t data, bytes; /* where the data begins; size of the file */
} st_file;

struct pvl_checkpoint {
    char path[PVL_IO_PATH];
    st_file *files;
    size_t file_count;
    pvl_st_tensor *tensors; /* sorted by name once all files are read */
    size_t count, capacity;
};

static pvl_status no_memory(pvl_error *err) {
    return pvl_fail(err, PVL_E_MEMORY, "Not enough memory for the checkpoint's list of tensors.");
}

static pvl_status add_tensor(pvl_checkpoint *c, pvl_st_tensor **out, const char *name,
                             pvl_error *err) {
    if (c->count == PVL_ST_MAX_TENSORS)
        return pvl_fail(err, PVL_E_LIMIT, "The checkpoint has more than %d tensors.",
                        PVL_ST_MAX_TENSORS);
    if (c->count == c->capacity) {
        size_t capacity = c->capacity ? 2 * c->capacity : 512;
        pvl_st_tensor *grown = realloc(c->tensors, capacity * sizeof *grown);
        if (!grown)
            return no_memory(err);
        c->tensors = grown;
        c->capacity = capacity;
    }
    pvl_st_tensor *t = &c->tensors[c->count];
    memset(t, 0, sizeof *t);
    t->name = strdup(name);
    if (!t->name)
        return no_memory(err);
    c->count++;
    *out = t;
    return PVL_OK;
}

static bool whole_number(const cJSON *item, uint64_t *out) {
    /* cJSON keeps numbers as double: exact up to 2^53, and no file is larger. */
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0) ||
        item->valuedouble > 9007199254740992.0)
        return false;
    *out = (uint64_t)item->valuedouble;
    return (double)*out == item->valuedouble;
}

static size_t element_bytes(const char *dtype) {
    static const struct {
        const char *name;
        size_t bytes;
    } known[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2},    {"F64", 8},    {"I64", 8}, {"I32", 4},
                 {"I16", 2}, {"I8", 1},  {"U8", 1},      {"BOOL", 1},   {"U16", 2}, {"U32", 4},
                 {"U64", 8}, {"C64", 8}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(dtype, known[i].name) == 0)
            return known[i].bytes;
    }
    return 0;
}

static pvl_status read_entry(pvl_checkpoint *c, size_t file, const cJSON *item, pvl_error *err) {
    const st_file *f = &c->files[file];
    const char *name = item->string;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    uint64_t begin, end;
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || !cJSON_IsArray(offsets) ||
        cJSON_GetArraySize(offsets) != 2 || !whole_number(cJSON_GetArrayItem(offsets, 0), &begin) ||
        !whole_number(cJSON_GetArrayItem(offsets, 1), &end))
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s: tensor %.100s must have a dtype, a shape and two data_offsets.",
                        f->path, name);
    pvl_st_tensor *t = NULL;
    PVL_TRY(add_tensor(c, &t, name, err));
    t->file = file;
    snprintf(t->dtype_name, sizeof t->dtype_name, "%s", dtype->valuestring);
    size_t size = element_bytes(dtype->valuestring);
    t->dtype = strcmp(t->dtype_name, "F32") == 0    ? PVL_ST_F32
               : strcmp(t->dtype_name, "F16") == 0  ? PVL_ST_F16
               : strcmp(t->dtype_name, "BF16") == 0 ? PVL_ST_BF16
                                                    : PVL_ST_OTHER;
    if (size == 0)
        return pvl_fail(err, PVL_E_UNSUPPORTED, "%s: tensor %.100s has the unknown dtype %.20s.",
                        f->path, name, dtype->valuestring);
    if (cJSON_GetArraySize(shape) > PVL_ST_MAX_DIMS)
        return pvl_fail(err, PVL_E_LIMIT, "%s: tensor %.100s has more than %d dimensions.", f->path,
                        name, PVL_ST_MAX_DIMS);
    t->elements = 1;
    const cJSON *dim;
    cJSON_ArrayForEach(dim, shape) {
        uint64_t n;
        if (!whole_number(dim, &n) || (n && t->elements > (UINT64_C(1) << 53) / n))
            return pvl_fail(err, PVL_E_FORMAT, "%s: tensor %.100s has an impossible shape.",
                            f->path, name);
        t->shape[t->dims++] = n;
        t->elements *= n;
    }
    if (end < begin || end - begin != t->elements * size)
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s: tensor %.100s has %llu elements of %s, but its data_offsets span "
                        "%lld bytes.",
                        f->path, name, (unsigned long long)t->elements, t->dtype_name,
                        (long long)end - (long long)begin);
    if (f->data + end > f->bytes)
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s ends too early: tensor %.100s needs %llu bytes, the file has %llu; it "
                        "was cut off; get it again.",
                        f->path, name, (unsigned long long)(f->data + end),
                        (unsigned long long)f->bytes);
    t->begin = f->data + begin;
    t->bytes = end - begin;
    return PVL_OK;
}

static int by_offset(const void *a, const void *b) {
    const pvl_st_tensor *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const pvl_st_tensor *)a)->name, ((const pvl_st_tensor *)b)->name);
}

static pvl_status read_header(pvl_checkpoint *c, size_t file, const char *text, size_t bytes,
                              pvl_error *err) {
    cJSON *root;
    size_t first = c->count;
    PVL_TRY(pvl_json_parse(&root, text, bytes, c->files[file].path, err));
    pvl_status status = PVL_OK;
    if (!cJSON_IsObject(root))
        status = pvl_fail(err, PVL_E_FORMAT, "%s: its header is no list of tensors.",
                          c->files[file].path);
    const cJSON *item;
    cJSON_ArrayForEach(item, root) {
        if (status == PVL_OK && strcmp(item->string, "__metadata__") != 0)
            status = read_entry(c, file, item, err);
    }
    cJSON_Delete(root);
    PVL_TRY(status);
    size_t n = c->count - first;
    if (n < 2)
        return PVL_OK;
    pvl_st_tensor *t = c->tensors + first;
    qsort(t, n, sizeof *t, by_offset);
    const pvl_st_tensor *last = NULL; /* with data: empty ones may stand anywhere */
    for (size_t i = 0; i < n; i++) {
        if (!t[i].bytes)
            continue;
        if (last && t[i].begin < last->begin + last->bytes)
            return pvl_fail(err, PVL_E_FORMAT, "%s: tensors %.100s and %.100s overlap.",
                            c->files[file].path, last->name, t[i].name);
        last = &t[i];
    }
    return PVL_OK;
}

static pvl_status open_file(pvl_checkpoint *c, const char *path, pvl_error *err) {
    st_file *grown = realloc(c->files, (c->file_count + 1) * sizeof *grown);
    if (!grown)
        return no_memory(err);
    c->files = grown;
    st_file *f = &grown[c->file_count];
    memset(f, 0, sizeof *f);
    snprintf(f->path, sizeof f->path, "%s", path);
    f->handle = pvl_io_is_folder(path) ? NULL : fopen(path, "rb");
    if (!f->handle)
        return pvl_fail(err, PVL_E_IO, "%s cannot be opened: %s.", path,
                        pvl_io_is_folder(path) ? "it is a folder" : strerror(errno));
    size_t index = c->file_count++;
    unsigned char head[8];
    PVL_TRY(pvl_io_size(&f->bytes, f->handle, path, err));
    PVL_TRY(pvl_io_read_at(f->handle, head, 8, 0, path, err));
    uint64_t n = pvl_load_u64(head);
    if (n > PVL_ST_MAX_HEADER || n > f->bytes - 8)
        return pvl_fail(err, PVL_E_FORMAT,
                        "%s is not a whole safetensors file: its header would be %llu bytes long.",
                        path, (unsigned long long)n);
    f->data = 8 + n;
    char *text = malloc((size_t)n + 1);
    if (!text)
        return no_memory(err);
    pvl_status status = pvl_io_read_at(f->handle, text, (size_t)n, 8, path, err);
    if (status == PVL_OK)
        status = read_header(c, index, text, (size_t)n, err);
    free(text);
    return status;
}

static size_t find_file(const pvl_checkpoint *c, const char *path) {
    size_t i = 0;
    while (i < c->file_count && strcmp(c->files[i].path, path) != 0)
        i++;
    return i;
}

/* Opens every file that the index names. */
static pvl_status open_indexed(pvl_checkpoint *c, const char *folder, const cJSON *map,
                               const char *index, pvl_error *err) {
    char path[PVL_IO_PATH];
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        if (!cJSON_IsString(item) || strchr(item->valuestring, '/') || !item->valuestring[0])
            return pvl_fail(err, PVL_E_FORMAT, "%s: tensor %.100s must name a file of the folder.",
                            index, item->string);
        PVL_TRY(pvl_io_path(path, folder, item->valuestring, err));
        if (find_file(c, path) < c->file_count)
            continue;
        if (!pvl_io_exists(path))
            return pvl_fail(err, PVL_E_IO,
                            "%s is missing, but %s names it: copy the whole checkpoint.", path,
                            index);
        PVL_TRY(open_file(c, path, err));
    }
    return PVL_OK;
}

static pvl_status check_index(pvl_checkpoint *c, const char *folder, const cJSON *map,
                              const char *index, pvl_error *err) {
    char path[PVL_IO_PATH];
    const cJSON *item;
    cJSON_ArrayForEach(item, map) {
        const pvl_st_tensor *t = pvl_checkpoint_find(c, item->string);
        PVL_TRY(pvl_io_path(path, folder, item->valuestring, err));
        if (!t || strcmp(c->files[t->file].path, path) != 0)
            return pvl_fail(err, PVL_E_MODEL,
                            "%s: tensor %.100s is not in %s, where the index has it.", index,
                            item->string, path);
    }
    return PVL_OK;
}

static pvl_status sort_names(pvl_checkpoint *c, pvl_error *err) {
    if (c->count > 1)
        qsort(c->tensors, c->count, sizeof *c->tensors, by_name);
    for (size_t i = 1; i < c->count; i++) {
        if (strcmp(c->tensors[i - 1].name, c->tensors[i].name) == 0)
            return pvl_fail(err, PVL_E_FORMAT, "%s: tensor %.100s is there twice.",
                            c->files[c->tensors[i].file].path, c->tensors[i].name);
    }
    return PVL_OK;
}

static pvl_status open_folder(pvl_checkpoint *c, const char *folder, pvl_error *err) {
    char path[PVL_IO_PATH];
    PVL_TRY(pvl_io_path(path, folder, "model.safetensors", err));
    if (pvl_io_exists(path)) {
        PVL_TRY(open_file(c, path, err));
        return sort_names(c, err);
    }
    PVL_TRY(pvl_io_path(path, folder, "model.safetensors.index.json", err));
    if (!pvl_io_exists(path))
        return pvl_fail(err, PVL_E_IO,
                        "%s holds no model.safetensors and no model.safetensors.index.json: point "
                        "at the folder of a checkpoint that was saved as safetensors.",
                        folder);
    cJSON *root;
    PVL_TRY(pvl_json_read(&root, path, PVL_ST_MAX_HEADER, err));
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(root, "weight_map");
    pvl_status status = cJSON_IsObject(map)
                            ? open_indexed(c, folder, map, path, err)
                            : pvl_fail(err, PVL_E_FORMAT, "%s: \"weight_map\" is missing.", path);
    if (status == PVL_OK)
        status = sort_names(c, err);
    if (status == PVL_OK)
        status = check_index(c, folder, map, path, err);
    cJSON_Delete(root);
    return status;
}

pvl_status pvl_checkpoint_open(pvl_checkpoint **out, const char *path, pvl_error *err) {
    *out = NULL;
    pvl_checkpoint *c = calloc(1, sizeof *c);
    if (!c)
        return no_memory(err);
    snprintf(c->path, sizeof c->path, "%s", path);
    pvl_status status;
    if (pvl_io_is_folder(path)) {
        status = open_folder(c, path, err);
    } else {
        status = open_file(c, path, err);
        if (status == PVL_OK)
            status = sort_names(c, err);
    }
    if (status == PVL_OK)
        *out = c;
    else
        pvl_checkpoint_close(c);
    return status;
}

void pvl_checkpoint_close(pvl_checkpoint *c) {
    if (!c)
        return;
    for (size_t i = 0; i < c->file_count; i++)
        fclose(c->files[i].handle);
    for (size_t i = 0; i < c->count; i++)
        free(c->tensors[i].name);
    free(c->files);
    free(c->tensors);
    free(c);
}

size_t pvl_checkpoint_count(const pvl_checkpoint *c) {
    return c->count;
}

pvl_st_tensor *pvl_checkpoint_at(pvl_checkpoint *c, size_t index) {
    return &c->tensors[index];
}

pvl_st_tensor *pvl_checkpoint_find(pvl_checkpoint *c, const char *name) {
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(c->tensors[mid].name, name);
        if (order == 0)
            return &c->tensors[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

const char *pvl_checkpoint_path(const pvl_checkpoint *c) {
    return c->path;
}

const char *pvl_checkpoint_file(const pvl_checkpoint *c, const pvl_st_tensor *t) {
    return c->files[t->file].path;
}

pvl_status pvl_checkpoint_read(pvl_checkpoint *c, const pvl_st_tensor *t, float *out,
                               uint64_t first, size_t count, pvl_error *err) {
    st_file *f = &c->files[t->file];
    if (t->dtype == PVL_ST_OTHER || first > t->elements || count > t->elements - first)
        return pvl_fail(err, PVL_E_INTERNAL, "%s: a wrong read of tensor %.100s.", f->path,
                        t->name);
    size_t size = t->dtype == PVL_ST_F32 ? 4 : 2;
    /* 16-bit values are read into the upper half of the output, so that widening from the front
     * never passes what is still to be read. */
    unsigned char *raw = (unsigned char *)out + (4 - size) * count;
    PVL_TRY(pvl_io_read_at(f->handle, raw, size * count, t->begin + first * size, f->path, err));
    for (size_t i = 0; i < count; i++) {
        if (t->dtype == PVL_ST_F32)
            out[i] = pvl_bits_f32(pvl_load_u32(raw + 4 * i));
        else if (t->dtype == PVL_ST_BF16)
            out[i] = pvl_bf16_to_f32(pvl_load_u16(raw + 2 * i));
        else
            out[i] = pvl_f16_to_f32(pvl_load_u16(raw + 2 * i));
    }
    return PVL_OK;
}
