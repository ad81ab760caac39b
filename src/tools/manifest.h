/* manifest.json: what a page downloads, with the size and SHA-256 of every 16 MiB.
 *
 *   {"format": 1, "name", "title", "license", "template",
 *    "files": [{"name", "bytes", "chunks": [{"bytes", "sha256"}]}],
 *    "settings": {"maxTiles", "context", "maxTokens", "temperature", "kvType"},
 *    "memory": {"context", "contextLength", "weights", "kvCache", "kvCacheQ8", "scratch",
 *               "peakLoad"}}
 *
 * kvType is "q8" where a page could not hold the model with keys and values as floats, else left
 * out; memory is left out when it is not known. contextLength is the longest that the model takes.
 */
#ifndef PVL_TOOLS_MANIFEST_H
#define PVL_TOOLS_MANIFEST_H

#include "pocketvl.h"
#include "tools/io.h"

typedef struct pvl_manifest {
    const char *name, *title, *license, *template_name; /* UTF-8; NULL = left out */
    const pvl_output_file *files;
    size_t file_count;
    int max_tiles, context, context_length, max_tokens;
    const pvl_memory *memory; /* NULL = left out */
    uint64_t kv_cache_q8;     /* what the 8-bit form of memory->kv_cache takes */
} pvl_manifest;

/* The text, free with free(); NULL without memory. The same manifest gives the same bytes. */
char *pvl_manifest_text(const pvl_manifest *m);

#endif
