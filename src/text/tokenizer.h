/* The language model's vocabulary: text to token ids and back.
 *
 * Three kinds, each giving the ids of the Python tokenizer that InternVL is run with:
 *
 *   BPE               Qwen2. NFC; split on added tokens; words by Qwen2's pattern (Unicode 15.0
 *                     classes); merges by rank, lowest first, then leftmost.
 *   SPM_INTERNLM2     SentencePiece BPE without a dummy prefix; the user-defined pieces are matched
 *                     first, longest and leftmost, and take no part in merges.
 *   SPM_LLAMA_SLOW    The slow LlamaTokenizer of transformers, legacy false (Phi-3): one U+2581
 *                     before the whole text, none after added tokens, white space dropped after
 *                     added tokens with rstrip; that U+2581, when an added token follows at once,
 *                     is kept unless it is <s>, <unk>, <|endoftext|> or one of InternVL's nine.
 *
 * Malformed UTF-8 becomes U+FFFD: one for each maximal bad subpart in BPE (Python's
 * errors="replace"), one for each bad byte in SentencePiece.
 *
 * Three readings of a text:
 *   flags 0              plain: SentencePiece's Encode or Qwen2's BPE, nothing is special.
 * InternLM2's literal `[UNUSED_TOKEN_145]` gives the end-of-turn id, as it does there.
 *   PVL_ENCODE_SPECIAL   trusted text: added tokens are recognised, longest and leftmost, and the
 *                        BOS rule applies.
 *   PVL_ENCODE_USER      text from people: plain, and no control token's id can come out.
 *
 * A tokenizer is read only once made, so several threads may use one. Encoding takes O(n log n)
 * time and O(n) memory; the scratch memory comes from the output's allocator. */
#ifndef PVL_TEXT_TOKENIZER_H
#define PVL_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "text/buffer.h"

enum {
    PVL_TOKENIZER_MAX_TOKENS = (1 << 20) - 1, /* entries of a vocabulary */
    PVL_TOKENIZER_MAX_MERGES = (1 << 24) - 1, /* merges */
    PVL_TOKENIZER_MAX_TOKEN_BYTES = 65535,    /* spelling of one token */
    PVL_TOKENIZER_MAX_TEXT = 4 * 1024 * 1024  /* bytes of one call's text */
};

typedef enum pvl_tokenizer_kind {
    PVL_TOKENIZER_BPE = 0,
    PVL_TOKENIZER_SPM_INTERNLM2 = 1,
    PVL_TOKENIZER_SPM_LLAMA_SLOW = 2
} pvl_tokenizer_kind;

/* GGUF's token types. */
enum {
    PVL_TOKEN_NORMAL = 1,
    PVL_TOKEN_UNKNOWN = 2,
    PVL_TOKEN_CONTROL = 3,
    PVL_TOKEN_USER_DEFINED = 4,
    PVL_TOKEN_UNUSED = 5,
    PVL_TOKEN_BYTE = 6
};

/* What a tokenizer is made from: GGUF's arrays as they are (spec section 6.5). Absent ids are -1.
 */
typedef struct pvl_vocab {
    pvl_tokenizer_kind kind;
    size_t count;
    const pvl_span *tokens; /* [count] byte-to-unicode spelling (BPE), pieces with U+2581 (SPM) */
    const float *scores;    /* [count] SPM; NULL for BPE */
    const int32_t *types;   /* [count] GGUF token types; NULL = all normal */
    const pvl_span *merges; /* [merge_count] "left right", by rank; BPE only */
    size_t merge_count;
    bool add_bos; /* bos in front of every text encoded with PVL_ENCODE_SPECIAL */
    int32_t bos, eos, pad, unk;
    bool add_space_prefix;     /* SentencePiece's add_dummy_prefix: plain texts begin with U+2581 */
    const int32_t *rstrip_ids; /* [rstrip_count] added tokens after which white space is dropped */
    size_t rstrip_count;
    const int32_t *stop_ids; /* [stop_count] added tokens that end an answer, beside eos and those
                                known by name */
    size_t stop_count;
} pvl_vocab;

typedef struct pvl_tokenizer pvl_tokenizer;

/* Copies what it needs; the arrays may be freed afterwards. PVL_E_FORMAT when the parts do not fit
 * together (a merge of unknown pieces, a byte that no token spells), PVL_E_LIMIT past a limit. */
pvl_status pvl_tokenizer_new(pvl_tokenizer **out, const pvl_allocator *allocator,
                             const pvl_vocab *vocab, pvl_error *err);
void pvl_tokenizer_free(pvl_tokenizer *t); /* NULL is fine */

pvl_tokenizer_kind pvl_tokenizer_get_kind(const pvl_tokenizer *t);
size_t pvl_tokenizer_count(const pvl_tokenizer *t);  /* ids are 0 .. count-1 */
size_t pvl_tokenizer_memory(const pvl_tokenizer *t); /* bytes held */
/* The id of a token by its text (raw bytes; added tokens verbatim), -1 when there is none. Added
 * tokens come before ordinary ones of the same text. */
int32_t pvl_tokenizer_find(const pvl_tokenizer *t, const char *text, size_t bytes);
int32_t pvl_tokenizer_bos(const pvl_tokenizer *t); /* -1 when none */
/* The token ends an answer: eos, and the tokens named <|im_end|>, <|im_start|>, <|endoftext|>,
 * <|end|>, </s>, <|eot_id|>, <end_of_turn>, <|end_of_text|>. False for ids out of range. */
bool pvl_tokenizer_is_eog(const pvl_tokenizer *t, int32_t id);
/* A control or unknown token: one that user text can never produce. */
bool pvl_tokenizer_is_control(const pvl_tokenizer *t, int32_t id);
/* A token that an answer does not show, whatever its piece. */
bool pvl_tokenizer_is_hidden(const pvl_tokenizer *t, int32_t id);

/* ---- encoding ---- */

enum { PVL_ENCODE_SPECIAL = 1u, PVL_ENCODE_USER = 2u };

/* Appends the ids of the text to *out. PVL_E_ARGUMENT when both flags are set. On error *out holds
 * what it held before. */
pvl_status pvl_tokenizer_encode(const pvl_tokenizer *t, pvl_tokens *out, const char *text,
                                size_t bytes, unsigned flags, pvl_error *err);

typedef enum pvl_segment_kind {
    PVL_SEGMENT_TEMPLATE = 0, /* trusted text: added tokens are recognised */
    PVL_SEGMENT_USER = 1,     /* literal text: never a control token */
    PVL_SEGMENT_MARKUP = 3,   /* literal text in which <ref>, </ref>, <box>, </box>, <quad>, </quad>
                                 are the model's tokens */
    PVL_SEGMENT_TOKEN = 2     /* `repeat` times the added token `token`, as if spelled out */
} pvl_segment_kind;

typedef struct pvl_segment {
    pvl_segment_kind kind;
    const char *text;
    size_t bytes;
    int32_t token;
    size_t repeat;
} pvl_segment;

/* Appends the ids of the segments read as one text, BOS rule included: what stands between two
 * added tokens is encoded as one piece whichever segments it comes from, white space after rstrip
 * tokens is dropped in user text as well, and an added token never forms across segments. */
pvl_status pvl_tokenizer_encode_segments(const pvl_tokenizer *t, pvl_tokens *out,
                                         const pvl_segment *segments, size_t count, pvl_error *err);

/* ---- decoding ---- */

/* The bytes of one token: of a BPE or byte piece the raw bytes (perhaps part of a character),
 * U+2581 as a space, added tokens verbatim. A view into the tokenizer; empty for ids out of range
 * and for unused ids. */
pvl_span pvl_tokenizer_piece(const pvl_tokenizer *t, int32_t id);

enum {
    /* InternLM2's clean-up in the reference: " ." -> ".", and so on (spec 6.3). */
    PVL_DECODE_CLEAN_UP = 1u,
    /* One leading space is dropped (SentencePiece models with a dummy prefix). */
    PVL_DECODE_DROP_SPACE = 2u,
    /* White space at both ends is dropped, as the reference strips answers: what may be the end is
     * held back until something follows (64 bytes of it at most; longer is let through). */
    PVL_DECODE_STRIP = 4u,
    /* Every token is shown, control tokens as well (for listings). */
    PVL_DECODE_ALL = 8u,
    /* No added token is shown, not even <ref>, <box>, ... (Hugging Face's skip_special_tokens). */
    PVL_DECODE_SKIP_ADDED = 16u
};

/* The flags with which the reference decodes this kind of tokenizer. */
unsigned pvl_tokenizer_decode_flags(const pvl_tokenizer *t);

enum { PVL_CLEAN_UP_STAGES = 10 };

/* Ids to text, one at a time, in whole characters only: an unfinished character waits for the next
 * token; what can never become one is U+FFFD (one for each maximal bad subpart in BPE, for each bad
 * byte in SentencePiece). Control tokens show nothing, except InternVL's nine (<ref>, <box>, ...),
 * which are text for the reader of boxes. The caller's storage; plain data, may be copied. */
typedef struct pvl_decoder {
    const pvl_tokenizer *tokenizer;
    unsigned flags;
    unsigned char pending[4]; /* an unfinished character */
    unsigned char pending_bytes;
    unsigned char matched[PVL_CLEAN_UP_STAGES]; /* bytes of its pattern each clean-up stage holds */
    bool started;                               /* a first character has passed */
    bool shown;                                 /* with STRIP: one that is not white space */
    unsigned char held_bytes;                   /* with STRIP: white space that may be the end */
    unsigned char held[64];
} pvl_decoder;

void pvl_decoder_init(pvl_decoder *d, const pvl_tokenizer *t, unsigned flags);
/* Appends what the token makes certain to *out. PVL_E_ARGUMENT for an id out of range. */
pvl_status pvl_decoder_push(pvl_decoder *d, pvl_text *out, int32_t id, pvl_error *err);
/* Appends what was held back: the answer has ended. The decoder is then as after init. */
pvl_status pvl_decoder_finish(pvl_decoder *d, pvl_text *out, pvl_error *err);

#endif
