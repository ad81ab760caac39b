/* The tokenizer that a GGUF file describes, in llama.cpp's keys and two of ours. */
#ifndef PVL_ENGINE_VOCABULARY_H
#define PVL_ENGINE_VOCABULARY_H

#include "tensor/gguf.h"
#include "text/tokenizer.h"

/* `a` is the allocator that g was read with; the tokenizer keeps nothing of g. PVL_E_UNSUPPORTED
 * for a kind that is none of ours, PVL_E_MODEL for lists that do not fit together. */
pvl_status pvl_vocabulary_read(pvl_tokenizer **out, const pvl_gguf *g, const pvl_allocator *a,
                               pvl_error *err);

#endif
