/* Which element type each tensor of a quantized file gets.
 *
 * Norms, biases, positions, layer scales and RoPE factors stay F32, the patch convolution F16 (F32
 * in F32 and BF16 files; its rows of 14 are no whole blocks). Matrices get the main type, but:
 *
 *   output.weight            Q8_0 under a 4- or 5-bit type: its errors go straight into the logits
 *   v.*, mm.* matrices       Q8_0 under a smaller type: the picture is seen once and read by every
 *                            layer behind, and the vision side is small beside the language model
 *   rows not in whole blocks the nearest type of shorter blocks, at last F16 (llama.cpp's fallback)
 *
 * Measured on the demonstration model against its weights as floats (50 held-out questions;
 * `python3 tests/oracle/mixes.py`, which runs `pocketvl quantize` and `pocketvl precision`): mean
 * KL divergence of the next token in nats, how often the likeliest token stays, size.
 *
 *   Q8_0                                    0.00002   100.0 %   7.82 MB
 *   Q4_0, output and vision Q8_0 (default)  0.00006    99.6 %   6.41 MB
 *   the same, embedding Q8_0 too            0.00005   100.0 %   6.53 MB
 *   Q4_0, vision Q8_0                       0.00008    99.6 %   6.29 MB
 *   Q4_0, output Q8_0                       0.00033    99.6 %   4.55 MB
 *   Q4_0 throughout                         0.00041    99.6 %   4.42 MB
 *   Q5_0, output and vision Q8_0            0.00002   100.0 %   6.76 MB
 *
 * Made checkpoints of full shape (tests/oracle/made_checkpoint.py; random weights, one tile, two
 * questions of 24 tokens; the 2B and 4B with 6 of their layers). Their next token is nearly a draw
 * from the whole vocabulary, so that figures are far above those of a trained model, and only
 * their order says something:
 *
 *                                           1B         2B, 6 layers   4B, 6 layers
 *   Q8_0                                    0.0010     0.0005         0.0006
 *   Q4_0, output and vision Q8_0 (default)  0.072      0.026          0.032
 *   the same, embedding Q8_0 too            0.067
 *   Q4_0, vision Q8_0                       0.076      0.029          0.036
 *   Q4_0, output Q8_0                       0.103      0.038          0.044
 *   Q4_0 throughout                         0.107      0.041          0.048
 *
 * All agree: the vision side is what pays, about a third of the loss; an output matrix of 8 bits
 * adds a little for a little. The embedding stays Q4_0: in the 1B it would cost 68 MB more for
 * what is left. */
#ifndef PVL_TOOLS_MIX_H
#define PVL_TOOLS_MIX_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/dtype.h"

typedef struct pvl_mix {
    pvl_dtype main, output, embedding, vision;
} pvl_mix;

pvl_mix pvl_mix_default(pvl_dtype main);

/* For a tensor of this GGUF name and shape (innermost first). */
pvl_dtype pvl_mix_type(const pvl_mix *mix, const char *name, const size_t *ne, uint32_t dims);

/* general.file_type of llama.cpp for the main type. */
uint32_t pvl_mix_file_type(pvl_dtype main);

/* "--KEY VALUE" of the command line: type, output-type, embedding-type, vision-type. --type sets
 * the others to its defaults, so it comes first. PVL_E_ARGUMENT, naming the types, for a type that
 * cannot be written. */
pvl_status pvl_mix_option(pvl_mix *mix, const char *key, const char *value, pvl_error *err);

#endif
