#include "tools/command.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

pvl_arguments pvl_arguments_over(int argc, char **argv) {
    return (pvl_arguments){.argc = argc, .at = 1, .argv = argv};
}

const char *pvl_next_option(pvl_arguments *a) {
    bool rest = false;
    for (; a->at < a->argc; a->at++) {
        const char *arg = a->argv[a->at];
        if (!rest && strcmp(arg, "--") == 0) {
            rest = true;
        } else if (!rest && strcmp(arg, "-h") == 0) {
            a->at++;
            return "help";
        } else if (!rest && strncmp(arg, "--", 2) == 0) {
            const char *equals = strchr(arg, '=');
            size_t n = equals ? (size_t)(equals - arg) - 2 : strlen(arg) - 2;
            snprintf(a->key, sizeof a->key, "%.*s",
                     (int)(n < sizeof a->key ? n : sizeof a->key - 1), arg + 2);
            a->inline_value = equals ? equals + 1 : NULL;
            a->at++;
            return a->key;
        } else if (a->plain_count < PVL_MAX_PLAIN) {
            a->plain[a->plain_count++] = arg;
        }
    }
    return NULL;
}

const char *pvl_option_value(pvl_arguments *a) {
    if (a->inline_value)
        return a->inline_value;
    if (a->at >= a->argc || strncmp(a->argv[a->at], "--", 2) == 0)
        return NULL;
    return a->argv[a->at++];
}

bool pvl_parse_size(const char *text, uint64_t *out) {
    char *end;
    if (!isdigit((unsigned char)*text))
        return false;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    unsigned shift = 0;
    if (*end == 'k' || *end == 'K')
        shift = 10;
    else if (*end == 'm' || *end == 'M')
        shift = 20;
    else if (*end == 'g' || *end == 'G')
        shift = 30;
    end += shift != 0;
    if (shift && (*end == 'i'))
        end++;
    if (shift && (*end == 'b' || *end == 'B'))
        end++;
    if (errno || *end || v > UINT64_MAX >> shift)
        return false;
    *out = (uint64_t)v << shift;
    return true;
}

bool pvl_parse_int(const char *text, int min, int max, int *out) {
    char *end;
    errno = 0;
    long v = strtol(text, &end, 10);
    if (errno || !*text || *end || v < min || v > max)
        return false;
    *out = (int)v;
    return true;
}

int pvl_print_usage(const char *usage) {
    fputs(usage, stdout);
    return 0;
}

int pvl_wrong_usage(const char *usage, const char *key, const pvl_error *err) {
    if (err && err->code != PVL_OK)
        fprintf(stderr, "pocketvl: %s\n", err->message);
    else if (key)
        fprintf(stderr, "pocketvl: --%s is not an option here, or its value is missing or wrong.\n",
                key);
    else
        fprintf(stderr, "pocketvl: the command needs other arguments.\n");
    fputs(usage, stderr);
    return 2;
}

int pvl_report_error(const pvl_error *err) {
    fprintf(stderr, "pocketvl: %s (%s)\n", err->message, pvl_status_name(err->code));
    return 1;
}

void pvl_progress_begin(pvl_progress_line *p, const char *what, uint64_t total, bool quiet) {
    *p = (pvl_progress_line){
        .what = what, .total = total, .shown = -1, .active = !quiet && total > 0};
    p->terminal = p->active && isatty(2);
}

void pvl_progress_add(pvl_progress_line *p, uint64_t done) {
    p->done += done;
    if (!p->active)
        return;
    int percent = (int)((double)p->done * 100 / (double)p->total), step = p->terminal ? 1 : 10;
    if (percent / step == p->shown / step && p->shown >= 0)
        return;
    p->shown = percent;
    fprintf(stderr, p->terminal ? "\r%s %d%%" : "%s %d%%\n", p->what, percent);
    fflush(stderr);
}

void pvl_progress_end(pvl_progress_line *p) {
    if (p->active && p->terminal && p->shown >= 0)
        fprintf(stderr, "\n");
    p->active = false;
}
