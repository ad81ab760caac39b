/* pocketvl inspect: what a GGUF file holds. */
#ifndef PVL_TOOLS_INSPECT_H
#define PVL_TOOLS_INSPECT_H

/* argv[0] is "inspect". Metadata, tensors and sums on stdout. Exit status: 0, 1 the file cannot be
 * read, 2 the command line is wrong. */
int pvl_tool_inspect(int argc, char **argv);

#endif
