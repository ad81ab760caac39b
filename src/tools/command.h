/* What the commands share: options in any place of the command line, sizes, progress, error
 * reports. */
#ifndef PVL_TOOLS_COMMAND_H
#define PVL_TOOLS_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* ---- options: --KEY, --KEY VALUE, --KEY=VALUE, anywhere; what is no option is plain ---- */

enum { PVL_MAX_PLAIN = 64 };

typedef struct pvl_arguments {
    int argc, at;
    char **argv;
    const char *inline_value; /* behind the = of the current option */
    char key[40];
    const char *plain[PVL_MAX_PLAIN];
    size_t plain_count;
} pvl_arguments;

pvl_arguments pvl_arguments_over(int argc, char **argv); /* argv[0] is the command */
/* The next option's key, NULL when all are read. "help" also for -h. Behind "--" all is plain. */
const char *pvl_next_option(pvl_arguments *a);
/* The value of the option just read, NULL when there is none. */
const char *pvl_option_value(pvl_arguments *a);

/* "64M", "1G", "500K", "1000" (powers of 1024). */
bool pvl_parse_size(const char *text, uint64_t *out);
bool pvl_parse_int(const char *text, int min, int max, int *out);

int pvl_print_usage(const char *usage); /* on stdout; returns 0 */
/* One sentence (err's, if it has one) and the usage on stderr; returns 2. key: the option that is
 * wrong, NULL when it is the rest. */
int pvl_wrong_usage(const char *usage, const char *key, const pvl_error *err);
/* "pocketvl: SENTENCE (CODE)" on stderr; returns 1. */
int pvl_report_error(const pvl_error *err);

/* ---- progress on stderr: a line that is rewritten on a terminal, else one each tenth ---- */

typedef struct pvl_progress_line {
    const char *what;
    uint64_t done, total;
    int shown; /* percent */
    bool active, terminal;
} pvl_progress_line;

void pvl_progress_begin(pvl_progress_line *p, const char *what, uint64_t total, bool quiet);
void pvl_progress_add(pvl_progress_line *p, uint64_t done);
void pvl_progress_end(pvl_progress_line *p);

#endif
