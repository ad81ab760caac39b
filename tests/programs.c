/*
 * All C test programs as one, for builds whose every link costs seconds: `tests NAME [ARGUMENT]...`
 * is the program NAME with those arguments. programs.def, made by the build, has a line
 * PROGRAM(name) for each.
 */
#include <stdio.h>
#include <string.h>

#define PROGRAM(name) int main_of_##name(int argc, char **argv);
#include "programs.def"
#undef PROGRAM

typedef struct program {
    const char *name;
    int (*run)(int argc, char **argv);
} program;

#define PROGRAM(name) {#name, main_of_##name},
static const program programs[] = {
#include "programs.def"
};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof programs / sizeof programs[0]; i++) {
        if (strcmp(argv[1], programs[i].name) == 0)
            return programs[i].run(argc - 1, argv + 1);
    }
    fprintf(stderr, "Which program is to run? Name one of these first:\n");
    for (size_t i = 0; i < sizeof programs / sizeof programs[0]; i++)
        fprintf(stderr, "  %s\n", programs[i].name);
    return 2;
}
