/* A folder for a test's files, emptied and removed at the end; copies of the small checkpoints to
 * spoil; what a command prints. */
#ifndef PVL_TESTS_FOLDER_H
#define PVL_TESTS_FOLDER_H

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../test.h"

enum { FOLDER_PATH = 1024 };

typedef struct test_folder {
    char path[FOLDER_PATH];
} test_folder;

static TEST_UNUSED bool folder_make(test_folder *f) {
    const char *base = getenv("TMPDIR");
    snprintf(f->path, sizeof f->path, "%s/pocketvl-test-XXXXXX", base && *base ? base : "/var/tmp");
    bool made = mkdtemp(f->path) != NULL;
    test_check(made, __FILE__, __LINE__, "no folder for the test's files: %s", f->path);
    return made;
}

/* NAME in the folder; the text lives until the fourth call after this one. */
static TEST_UNUSED const char *folder_file(const test_folder *f, const char *name) {
    static char paths[4][2 * FOLDER_PATH];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", f->path, name);
    return path;
}

static TEST_UNUSED void folder_remove_tree(const char *path) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    while (dir && (entry = readdir(dir)) != NULL) {
        char inner[2 * FOLDER_PATH];
        struct stat s;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        if (stat(inner, &s) == 0 && S_ISDIR(s.st_mode))
            folder_remove_tree(inner);
        else
            remove(inner);
    }
    if (dir)
        closedir(dir);
    rmdir(path);
}

static TEST_UNUSED void folder_end(test_folder *f) {
    folder_remove_tree(f->path);
}

static TEST_UNUSED void write_bytes(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    bool good = f && fwrite(data, 1, n, f) == n;
    if (f)
        good = fclose(f) == 0 && good;
    test_check(good, __FILE__, __LINE__, "cannot write %s", path);
}

static TEST_UNUSED void write_text(const char *path, const char *text) {
    write_bytes(path, text, strlen(text));
}

/* All files of one folder into another. */
static TEST_UNUSED void copy_folder(const char *from, const char *to) {
    DIR *dir = opendir(from);
    struct dirent *entry;
    test_check(dir != NULL, __FILE__, __LINE__, "no folder %s", from);
    mkdir(to, 0777);
    while (dir && (entry = readdir(dir)) != NULL) {
        char source[2 * FOLDER_PATH], target[2 * FOLDER_PATH];
        size_t n;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(source, sizeof source, "%s/%s", from, entry->d_name);
        snprintf(target, sizeof target, "%s/%s", to, entry->d_name);
        unsigned char *data = test_read_file(source, &n);
        if (data)
            write_bytes(target, data, n);
        free(data);
    }
    if (dir)
        closedir(dir);
}

/* Replaces the first `from` in a file by `to`. */
static TEST_UNUSED void edit_file(const char *path, const char *from, const char *to) {
    size_t n, at = 0, a = strlen(from), b = strlen(to);
    unsigned char *data = test_read_file(path, &n);
    if (!data)
        return;
    while (at + a <= n && memcmp(data + at, from, a) != 0)
        at++;
    test_check(at + a <= n, __FILE__, __LINE__, "%s has no \"%s\" to replace", path, from);
    if (at + a <= n) {
        unsigned char *out = malloc(n + b + 1);
        if (out) {
            memcpy(out, data, at);
            memcpy(out + at, to, b);
            memcpy(out + at + b, data + at + a, n - at - a);
            write_bytes(path, out, n - a + b);
        }
        free(out);
    }
    free(data);
}

/* Number of entries whose name contains `piece`. */
static TEST_UNUSED size_t count_files(const char *path, const char *piece) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    size_t n = 0;
    while (dir && (entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.' && strstr(entry->d_name, piece) != NULL;
    if (dir)
        closedir(dir);
    return n;
}

/* Runs a command with standard output and error in files; `out` and `err` are its texts, to be
 * freed. */
static TEST_UNUSED int run_captured(int (*command)(int, char **), int argc, char **argv,
                                    const test_folder *f, char **out, char **err) {
    size_t n;
    char path[2][2 * FOLDER_PATH];
    snprintf(path[0], sizeof path[0], "%s/stdout", f->path);
    snprintf(path[1], sizeof path[1], "%s/stderr", f->path);
    fflush(stdout);
    fflush(stderr);
    int kept[2] = {dup(1), dup(2)};
    bool good = kept[0] >= 0 && kept[1] >= 0 && freopen(path[0], "wb", stdout) &&
                freopen(path[1], "wb", stderr);
    int status = good ? command(argc, argv) : -1;
    fflush(stdout);
    fflush(stderr);
    dup2(kept[0], 1);
    dup2(kept[1], 2);
    close(kept[0]);
    close(kept[1]);
    *out = (char *)test_read_file(path[0], &n);
    *err = (char *)test_read_file(path[1], &n);
    return status;
}

#endif
