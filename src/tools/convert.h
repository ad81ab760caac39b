/* pocketvl convert: a published folder to GGUF files and a manifest. */
#ifndef PVL_TOOLS_CONVERT_H
#define PVL_TOOLS_CONVERT_H

#include "base/status.h"
#include "tools/mix.h"

typedef struct pvl_convert_options {
    const char *folder, *out; /* out: a folder to make or use, or a file NAME.gguf */
    const char *name;         /* of the model, NULL = the folder's */
    const char *title, *license;
    pvl_mix mix;
    uint64_t shard_bytes; /* 0 = whole files */
    bool vocab_only;
    int threads;
    bool quiet; /* no progress on stderr, no report on stdout */
} pvl_convert_options;

/* A folder `out` gets NAME-TYPE.gguf (language model), mmproj-NAME-TYPE.gguf (vision), each perhaps
 * split, and manifest.json. A file `out` gets both halves in one GGUF, or the tokenizer alone with
 * vocab_only. Files are written as NAME.part and named when all are whole, the manifest last. */
pvl_status pvl_convert(const pvl_convert_options *options, pvl_error *err);

/* argv[0] is "convert". Exit status: 0, 1 it failed, 2 the command line is wrong. */
int pvl_tool_convert(int argc, char **argv);

#endif
