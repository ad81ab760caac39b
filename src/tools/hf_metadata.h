/* A published model's configuration and tokenizer as GGUF metadata: llama.cpp's keys, and ours
 * beside them for what its cannot say (template, rstrip ids, dynamic RoPE). */
#ifndef PVL_TOOLS_HF_METADATA_H
#define PVL_TOOLS_HF_METADATA_H

#include "tensor/gguf_write.h"
#include "tools/hf_config.h"
#include "tools/hf_vocab.h"
#include "tools/mix.h"

/* general.*: type is "model" or "mmproj". */
pvl_status pvl_metadata_general(pvl_gguf_writer *w, const pvl_hf_config *c,
                                const char *architecture, const char *type, const char *name,
                                const pvl_mix *mix, pvl_error *err);
/* ARCH.*; only what the configuration knows (a vocabulary without config.json has no sizes). */
pvl_status pvl_metadata_language(pvl_gguf_writer *w, const pvl_hf_config *c, pvl_error *err);
/* tokenizer.* and pocketvl.*. */
pvl_status pvl_metadata_tokenizer(pvl_gguf_writer *w, const pvl_hf_config *c, const pvl_hf_vocab *v,
                                  pvl_error *err);
/* clip.* */
pvl_status pvl_metadata_vision(pvl_gguf_writer *w, const pvl_hf_config *c, pvl_error *err);

#endif
