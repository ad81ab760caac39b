/* The command line tool: one program, a command for each job. Results go to standard output,
 * everything else to standard error. Exit status: 0 done, 1 failed (one sentence says why), 2 wrong
 * command line. */
#include <stdio.h>
#include <string.h>

#include "pocketvl.h"
#include "tools/ask.h"
#include "tools/convert.h"
#include "tools/inspect.h"
#include "tools/precision.h"
#include "tools/quantize.h"
#include "tools/tokens.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"ask", pvl_tool_ask, "a picture and a question in, the answer out"},
    {"convert", pvl_tool_convert, "a published model's folder to GGUF files and a manifest"},
    {"quantize", pvl_tool_quantize, "a GGUF file in other element types"},
    {"inspect", pvl_tool_inspect, "what a GGUF file holds"},
    {"tokens", pvl_tool_tokens, "a table of texts as token ids"},
    {"precision", pvl_tool_precision, "what quantized weights and 8-bit activations cost, in nats"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *to) {
    fprintf(to,
            "pocketvl %s: visual question answering with Mini-InternVL\n\nusage: pocketvl COMMAND "
            "...\n\n",
            PVL_VERSION);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
    fprintf(to, "\npocketvl COMMAND --help tells more.\n");
}

int main(int argc, char **argv) {
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
                      strcmp(argv[1], "help") == 0)) {
        print_help(stdout);
        return 0;
    }
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        printf("%s\n", PVL_VERSION);
        return 0;
    }
    for (size_t i = 0; argc >= 2 && i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    }
    if (argc >= 2)
        fprintf(stderr, "pocketvl: there is no command %s.\n", argv[1]);
    print_help(stderr);
    return 2;
}
