/* pocketvl ask: a picture and a question in, the answer on stdout; everything else on stderr. */
#ifndef PVL_TOOLS_ASK_H
#define PVL_TOOLS_ASK_H

/* argv[0] is "ask". Exit status: 0 the answer was written, 1 it could not be, 2 the command line is
 * wrong. */
int pvl_tool_ask(int argc, char **argv);

#endif
