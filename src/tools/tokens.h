/* pocketvl tokens: a model's tokenizer held against a file of vectors. */
#ifndef PVL_TOOLS_TOKENS_H
#define PVL_TOOLS_TOKENS_H

/* argv[0] is "tokens". Reads a GGUF file (the tokenizer alone is enough) and a table of rows: id,
 * source, category, UTF-8 bytes in hexadecimal ("-" = none), further columns that are not read;
 * lines that begin with # are passed over. Prints for each row its id, a tab and the token ids with
 * spaces between them
 * ("-" when there are none). Exit status: 0, 1 it failed, 2 the command line is wrong. */
int pvl_tool_tokens(int argc, char **argv);

#endif
