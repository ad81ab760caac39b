/* pocketvl quantize: a GGUF file in other element types. */
#ifndef PVL_TOOLS_QUANTIZE_H
#define PVL_TOOLS_QUANTIZE_H

#include "base/status.h"
#include "tools/mix.h"

typedef struct pvl_quantize_options {
    const char *in, *out; /* out: NAME.gguf; with shards NAME-00001-of-00003.gguf and so on */
    pvl_mix mix;
    uint64_t shard_bytes; /* 0 = one file */
    int threads;
    bool quiet;
} pvl_quantize_options;

/* Metadata is copied, general.file_type set. Tensors whose type stays are copied byte for byte. */
pvl_status pvl_quantize(const pvl_quantize_options *options, pvl_error *err);

/* argv[0] is "quantize". Exit status: 0, 1 it failed, 2 the command line is wrong. */
int pvl_tool_quantize(int argc, char **argv);

#endif
