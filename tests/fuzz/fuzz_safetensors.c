/* The safetensors reader. Byte 0 chooses: one file, or a folder with an index (its JSON up to the
 * first NUL) and two files that share the rest. */
#include "fuzz.h"

#include "tools/safetensors.h"

enum { READ = 64 };

static void read_all(const char *path) {
    pvl_checkpoint *c = NULL;
    pvl_error err = {0};
    pvl_status status = pvl_checkpoint_open(&c, path, &err);
    check_status(status, &err);
    if (status != PVL_OK)
        return;
    for (size_t i = 0; i < pvl_checkpoint_count(c); i++) {
        pvl_st_tensor *t = pvl_checkpoint_at(c, i);
        HOLDS(pvl_checkpoint_find(c, t->name) == t && pvl_checkpoint_file(c, t));
        HOLDS(t->dims <= PVL_ST_MAX_DIMS);
        for (size_t k = 0; k < i; k++) {
            const pvl_st_tensor *u = pvl_checkpoint_at(c, k);
            HOLDS(u->file != t->file || !u->bytes || !t->bytes || u->begin + u->bytes <= t->begin ||
                  t->begin + t->bytes <= u->begin);
        }
        if (t->dtype == PVL_ST_OTHER)
            continue;
        float out[READ];
        size_t n = t->elements < READ ? (size_t)t->elements : READ;
        HOLDS(pvl_checkpoint_read(c, t, out, 0, n, &err) == PVL_OK);
        HOLDS(pvl_checkpoint_read(c, t, out, t->elements - n, n, &err) == PVL_OK);
        HOLDS(pvl_checkpoint_read(c, t, out, t->elements, 1, NULL) != PVL_OK);
    }
    pvl_checkpoint_close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    if (take(&in, 1) % 2 == 0) {
        char path[256];
        fuzz_file("one.safetensors", in.data, in.left);
        snprintf(path, sizeof path, "%s/one.safetensors", fuzz_folder());
        read_all(path);
        return 0;
    }
    const uint8_t *end = in.left ? memchr(in.data, 0, in.left) : NULL;
    size_t index = end ? (size_t)(end - in.data) : in.left;
    fuzz_file("model.safetensors.index.json", in.data, index);
    size_t rest = end ? in.left - index - 1 : 0, half = rest / 2;
    fuzz_file("a.safetensors", in.data + in.left - rest, half);
    fuzz_file("b.safetensors", in.data + in.left - rest + half, rest - half);
    read_all(fuzz_folder());
    return 0;
}
