/* The tokenizer's parts, seen by tokenizer*.c and decoder.c alone. */
#ifndef PVL_TEXT_TOKENIZER_INTERNAL_H
#define PVL_TEXT_TOKENIZER_INTERNAL_H

#include "base/alloc.h"
#include "text/merge.h"
#include "text/tokenizer.h"

/* What a token is, a set of bits. */
enum {
    PVL_T_ADDED = 1,       /* recognised in trusted text; user text never gives it */
    PVL_T_EOG = 2,         /* ends an answer */
    PVL_T_RSTRIP = 4,      /* white space after it is dropped */
    PVL_T_HIDDEN = 8,      /* shows nothing in an answer */
    PVL_T_BYTE = 16,       /* SPM: a byte piece */
    PVL_T_MARKUP = 64,     /* <ref>, <box>, <quad> and their ends */
    PVL_T_LLAMA_START = 32 /* SPM_LLAMA_SLOW: the leading U+2581 before it is dropped */
};

/* A set of texts to find in a text: sorted, and searched one byte at a time by narrowing a range.
 */
typedef struct pvl_match_entry {
    const unsigned char *text;
    uint32_t bytes;
    int32_t id;
    bool forged; /* a control token by another name: not from user text */
} pvl_match_entry;

typedef struct pvl_matcher {
    pvl_match_entry *entries; /* [count] */
    size_t count;
    uint32_t first[257]; /* entries that begin with byte b: first[b] .. first[b + 1] */
} pvl_matcher;

enum {
    PVL_ALIASES = 6,            /* InternLM2's control pieces by their names in the model file */
    PVL_BIGRAM_BITS = 1 << 19,  /* size of the filter of neighbours */
    PVL_SLOT_EMPTY_ID = 0xFFFFF /* id bits of an empty slot */
};

struct pvl_tokenizer {
    const pvl_allocator *allocator;
    pvl_tokenizer_kind kind;
    bool add_bos, add_space_prefix;
    int32_t bos, eos, unk;
    size_t count;
    pvl_arena arena;     /* everything below */
    unsigned char *text; /* raw bytes of all tokens; U+2581 of SPM pieces as a space */
    uint32_t *begin;     /* [count + 1] token i is text[begin[i] .. begin[i + 1]] */
    uint8_t *flags;      /* [count] PVL_T_* */
    uint32_t *slots;     /* [slot_mask + 1] ordinary tokens by text: tag << 20 | id */
    size_t slot_mask;
    int32_t byte_ids[256];   /* token of one byte, -1 when there is none */
    pvl_matcher added;       /* cut out of trusted text */
    pvl_matcher user_pieces; /* SentencePiece's user-defined pieces */
    /* BPE */
    uint64_t *pairs; /* [pair_mask + 1] left << 44 | right << 24 | rank, or all ones */
    size_t pair_mask;
    uint32_t *joined; /* [merges] id of the whole, by rank */
    /* SPM */
    uint32_t *keys;    /* [count] the higher the score, the lower the key */
    uint32_t *bigrams; /* [PVL_BIGRAM_BITS / 32] code points that stand together in some piece */
    uint32_t longest;  /* bytes of the longest ordinary piece */
};

static inline uint64_t pvl_mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

static inline uint32_t pvl_bigram(uint32_t a, uint32_t b) {
    return (uint32_t)(pvl_mix((uint64_t)a << 32 | b) % PVL_BIGRAM_BITS);
}

/* The ordinary token of these bytes, -1 when there is none. */
int32_t pvl_tokenizer_lookup(const pvl_tokenizer *t, const void *text, size_t bytes);

/* The longest entry at the beginning of the text: its length and *entry, or 0. `user` leaves out
 * forged entries. */
size_t pvl_matcher_find(const pvl_matcher *m, const pvl_match_entry **entry, const void *text,
                        size_t bytes, bool user);

/* Appends the ids of a run: valid UTF-8 between two added tokens. `user`: some of it is from
 * people. SPM runs have spaces for U+2581. */
pvl_status pvl_bpe_encode_run(const pvl_tokenizer *t, pvl_tokens *out, pvl_merge_scratch *scratch,
                              const char *run, size_t bytes, pvl_error *err);
pvl_status pvl_spm_encode_run(const pvl_tokenizer *t, pvl_tokens *out, pvl_merge_scratch *scratch,
                              const char *run, size_t bytes, bool user, pvl_error *err);

/* The end of Qwen2's word that begins at `at` < bytes. */
size_t pvl_bpe_word_end(const char *text, size_t at, size_t bytes);

#endif
