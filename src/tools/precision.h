/* pocketvl precision: what rounding costs. The same prompts run in floats and as a page would run
 * them; printed is how far apart the distributions of the next token are. */
#ifndef PVL_TOOLS_PRECISION_H
#define PVL_TOOLS_PRECISION_H

/* argv[0] is "precision". Prompts come on standard input, a line each: PICTURE, a tab, QUESTION.
 * Printed: mean and largest Kullback-Leibler divergence KL(float || rounded) in nats over the
 * prompts' next token and the tokens of the float answer, and how often the likeliest token is the
 * same. Exit status as pvl_tool_ask. */
int pvl_tool_precision(int argc, char **argv);

#endif
