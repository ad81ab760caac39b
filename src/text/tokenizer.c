/* Making a tokenizer from a vocabulary, and looking tokens up. */
#include "text/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer_internal.h"
#include "text/unicode.h"

static const char *const shown_names[] = {"<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>",
                                          "<ref>", "</ref>", "<box>",         "</box>", NULL};
static const char *const markup_names[] = {"<quad>", "</quad>", "<ref>", "</ref>",
                                           "<box>",  "</box>",  NULL};
static const char *const eog_names[] = {
    "<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|end|>",         "</s>",
    "<|eot_id|>", "<|eom_id|>",   "<end_of_turn>", "<|end_of_text|>", NULL};
/* Phi-3-mini's own tokens that drop the white space after them. */
static const char *const phi3_rstrip_names[] = {"</s>",
                                                "<|assistant|>",
                                                "<|placeholder1|>",
                                                "<|placeholder2|>",
                                                "<|placeholder3|>",
                                                "<|placeholder4|>",
                                                "<|system|>",
                                                "<|end|>",
                                                "<|placeholder5|>",
                                                "<|placeholder6|>",
                                                "<|user|>",
                                                NULL};
static const char *const llama_start_names[] = {"<s>", "<unk>", "<|endoftext|>", NULL};

/* InternLM2's model file spells its control tokens [UNUSED_TOKEN_141] to [UNUSED_TOKEN_146], and
 * the tokenizer's configuration renames them. SentencePiece still finds the first spelling. */
enum { FIRST_ALIAS = 141, LAST_USER_PIECE = 146, NUL_PIECE = 354 };
static const char *const alias_texts[PVL_ALIASES] = {"[UNUSED_TOKEN_141]", "[UNUSED_TOKEN_142]",
                                                     "[UNUSED_TOKEN_143]", "[UNUSED_TOKEN_144]",
                                                     "[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"};
static const char *const alias_names[PVL_ALIASES + 1] = {"<|plugin|>",
                                                         "<|interpreter|>",
                                                         "<|action_end|>",
                                                         "<|action_start|>",
                                                         "<|im_end|>",
                                                         "<|im_start|>",
                                                         NULL};

static bool same(pvl_span a, const char *b) {
    return a.bytes == strlen(b) && memcmp(a.data, b, a.bytes) == 0;
}

static bool among(pvl_span text, const char *const *names) {
    for (; *names; names++)
        if (same(text, *names))
            return true;
    return false;
}

/* ---- hash of ordinary tokens ---- */

static uint32_t hash_bytes(const void *data, size_t bytes) {
    const unsigned char *s = data;
    uint64_t h = bytes * 0x9E3779B97F4A7C15u, chunk;
    for (; bytes >= 8; s += 8, bytes -= 8) {
        memcpy(&chunk, s, 8);
        h = pvl_mix(h ^ chunk);
    }
    chunk = 0;
    memcpy(&chunk, s, bytes);
    return (uint32_t)(pvl_mix(h ^ chunk) >> 8);
}

static uint32_t slot_of(uint32_t hash, uint32_t id) {
    return (hash & 0xFFF00000u) | id;
}

int32_t pvl_tokenizer_lookup(const pvl_tokenizer *t, const void *text, size_t bytes) {
    uint32_t hash = hash_bytes(text, bytes);
    for (size_t at = hash & t->slot_mask;; at = (at + 1) & t->slot_mask) {
        uint32_t slot = t->slots[at], id = slot & PVL_SLOT_EMPTY_ID;
        if (id == PVL_SLOT_EMPTY_ID)
            return -1;
        if (((slot ^ hash) & 0xFFF00000u) == 0 && t->begin[id + 1] - t->begin[id] == bytes &&
            memcmp(t->text + t->begin[id], text, bytes) == 0)
            return (int32_t)id;
    }
}

/* The first of several tokens of one text stays. */
static void slots_insert(pvl_tokenizer *t, uint32_t id) {
    const unsigned char *text = t->text + t->begin[id];
    uint32_t bytes = t->begin[id + 1] - t->begin[id];
    uint32_t hash = hash_bytes(text, bytes);
    size_t at = hash & t->slot_mask;
    if (pvl_tokenizer_lookup(t, text, bytes) >= 0)
        return;
    while ((t->slots[at] & PVL_SLOT_EMPTY_ID) != PVL_SLOT_EMPTY_ID)
        at = (at + 1) & t->slot_mask;
    t->slots[at] = slot_of(hash, id);
}

/* ---- matchers ---- */

static int compare_entries(const void *x, const void *y) {
    const pvl_match_entry *a = x, *b = y;
    size_t shorter = a->bytes < b->bytes ? a->bytes : b->bytes;
    int order = memcmp(a->text, b->text, shorter);
    if (order != 0)
        return order;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? -1 : 1;
    if (a->forged != b->forged)
        return a->forged ? 1 : -1;
    return a->id < b->id ? -1 : a->id > b->id;
}

static void matcher_finish(pvl_matcher *m) {
    size_t at = 0;
    if (m->count)
        qsort(m->entries, m->count, sizeof *m->entries, compare_entries);
    for (uint32_t b = 0; b < 257; b++) {
        while (at < m->count && m->entries[at].text[0] < b)
            at++;
        m->first[b] = (uint32_t)at;
    }
}

size_t pvl_matcher_find(const pvl_matcher *m, const pvl_match_entry **entry, const void *text,
                        size_t bytes, bool user) {
    const unsigned char *s = text;
    size_t found = 0, depth = 1, low, high;
    if (bytes == 0)
        return 0;
    low = m->first[s[0]];
    high = m->first[s[0] + 1];
    while (low < high) {
        /* Entries low .. high-1 share their first `depth` bytes with the text. */
        for (; low < high && m->entries[low].bytes == depth; low++)
            if (found != depth && !(user && m->entries[low].forged)) {
                found = depth;
                *entry = &m->entries[low];
            }
        if (depth == bytes)
            break;
        unsigned char c = s[depth];
        for (size_t a = low, b = high; a < b;) {
            size_t mid = a + (b - a) / 2;
            if (m->entries[mid].text[depth] < c)
                low = a = mid + 1;
            else
                b = mid;
        }
        for (size_t a = low, b = high; a < b;) {
            size_t mid = a + (b - a) / 2;
            if (m->entries[mid].text[depth] <= c)
                a = mid + 1;
            else
                high = b = mid;
        }
        depth++;
    }
    return found;
}

/* ---- making ---- */

/* The byte that a character stands for in byte-to-unicode spelling, -1 when it is none: printable
 * ones stand for themselves, the other 68 bytes are U+0100 on. */
static int byte_of(uint32_t cp) {
    if ((cp >= 33 && cp <= 126) || (cp >= 161 && cp <= 172) || (cp >= 174 && cp <= 255))
        return (int)cp;
    if (cp < 256 || cp >= 256 + 68)
        return -1;
    cp -= 256;
    return cp <= 32 ? (int)cp : cp <= 66 ? (int)(127 + cp - 33) : 173;
}

/* Writes the bytes spelled, at most as many as the spelling has. False when it is no spelling. */
static bool unspell(unsigned char *out, size_t *out_bytes, const char *s, size_t n) {
    *out_bytes = 0;
    for (size_t at = 0; at < n;) {
        uint32_t cp;
        int byte;
        at += pvl_utf8_decode(&cp, s + at, n - at);
        byte = byte_of(cp);
        if (byte < 0)
            return false;
        out[(*out_bytes)++] = (unsigned char)byte;
    }
    return true;
}

static size_t power_above(size_t n) {
    size_t p = 64;
    while (p < n)
        p *= 2;
    return p;
}

static int32_t type_of(const pvl_vocab *v, size_t id) {
    return v->types ? v->types[id] : PVL_TOKEN_NORMAL;
}

/* What the vocabulary's parts come to, before anything is allocated. */
typedef struct plan {
    size_t text, added, user_pieces;
    /* InternLM2: id of [UNUSED_TOKEN_0] minus 0, and one past [UNUSED_TOKEN_146]; 0 when the
     * vocabulary has no such pieces. */
    size_t alias_base, pieces_end;
    bool nul_by_dragon; /* llama.cpp's converter writes U+1F409 for the piece U+0000 */
} plan;

/* How a token takes part. */
typedef enum part { ORDINARY, ADDED, USER_PIECE, BYTE_PIECE, NO_PART } part;

static part part_of(const plan *p, const pvl_vocab *v, size_t id) {
    int32_t type = type_of(v, id);
    bool internlm2 = v->kind == PVL_TOKENIZER_SPM_INTERNLM2;
    bool old_piece = internlm2 && id >= p->alias_base && id < p->pieces_end;
    if (v->tokens[id].bytes == 0)
        return NO_PART;
    if (old_piece && id >= p->alias_base + FIRST_ALIAS)
        return ADDED; /* also where a file left the model's own names and types */
    switch (type) {
    case PVL_TOKEN_UNKNOWN:
    case PVL_TOKEN_CONTROL:
        return ADDED;
    case PVL_TOKEN_USER_DEFINED:
        return internlm2 && !among(v->tokens[id], shown_names) &&
                       !among(v->tokens[id], alias_names) &&
                       (p->pieces_end == 0 || id < p->pieces_end)
                   ? USER_PIECE
                   : ADDED;
    case PVL_TOKEN_BYTE:
        return v->kind == PVL_TOKENIZER_BPE ? ORDINARY : BYTE_PIECE;
    case PVL_TOKEN_UNUSED:
        return old_piece ? USER_PIECE : NO_PART;
    default:
        /* llama.cpp's converter writes the user-defined pieces as normal ones of score 0. They
         * stand just before [UNUSED_TOKEN_0]; the only other such piece is the first of all. */
        if (internlm2 && p->pieces_end && id >= p->alias_base - 45 && id < p->pieces_end &&
            v->scores && v->scores[id] >= 0.0f)
            return USER_PIECE;
        return ORDINARY;
    }
}

static pvl_status make_plan(plan *p, const pvl_vocab *v, pvl_error *err) {
    *p = (plan){0, 0, 0, 0, 0, false};
    if (v->kind < PVL_TOKENIZER_BPE || v->kind > PVL_TOKENIZER_SPM_LLAMA_SLOW)
        return pvl_fail(err, PVL_E_UNSUPPORTED, "Tokenizer kind %d is unknown.", (int)v->kind);
    if (v->count == 0)
        return pvl_fail(err, PVL_E_FORMAT,
                        "The vocabulary is empty: the model file lacks "
                        "tokenizer.ggml.tokens.");
    if (v->count > PVL_TOKENIZER_MAX_TOKENS)
        return pvl_fail(err, PVL_E_LIMIT,
                        "The vocabulary has %zu tokens, more than the %d that "
                        "are supported.",
                        v->count, PVL_TOKENIZER_MAX_TOKENS);
    if (v->merge_count > PVL_TOKENIZER_MAX_MERGES)
        return pvl_fail(err, PVL_E_LIMIT,
                        "The vocabulary has %zu merges, more than the %d that "
                        "are supported.",
                        v->merge_count, PVL_TOKENIZER_MAX_MERGES);
    if (v->kind != PVL_TOKENIZER_BPE && !v->scores)
        return pvl_fail(err, PVL_E_FORMAT,
                        "The SentencePiece vocabulary has no scores: the model "
                        "file lacks tokenizer.ggml.scores.");
    if (v->kind == PVL_TOKENIZER_SPM_INTERNLM2) {
        bool nul = false;
        for (size_t i = 0; i < v->count; i++) {
            nul = nul || (v->tokens[i].bytes == 1 && v->tokens[i].data[0] == 0);
            if (same(v->tokens[i], "[UNUSED_TOKEN_0]") && v->count - i > LAST_USER_PIECE &&
                i >= 45) {
                p->alias_base = i;
                p->pieces_end = i + LAST_USER_PIECE + 1;
            }
        }
        p->nul_by_dragon =
            !nul && v->count > NUL_PIECE && same(v->tokens[NUL_PIECE], "\xF0\x9F\x90\x89");
    }
    for (size_t i = 0; i < v->count; i++) {
        part how = part_of(p, v, i);
        if (v->tokens[i].bytes > PVL_TOKENIZER_MAX_TOKEN_BYTES)
            return pvl_fail(err, PVL_E_LIMIT,
                            "Token %zu is %zu bytes long, more than the %d that "
                            "are supported.",
                            i, v->tokens[i].bytes, PVL_TOKENIZER_MAX_TOKEN_BYTES);
        p->added += how == ADDED;
        p->user_pieces += how == USER_PIECE;
        p->text += v->tokens[i].bytes;
        if (p->text > UINT32_MAX / 2)
            return pvl_fail(err, PVL_E_LIMIT, "The vocabulary's texts pass 2 GiB.");
    }
    for (int i = 0; i < PVL_ALIASES && p->pieces_end; i++)
        p->text += strlen(alias_names[i]);
    return PVL_OK;
}

/* Sizes of the arena's parts; in the order of the enum. */
enum {
    TEXT,
    BEGIN,
    FLAGS,
    SLOTS,
    ADDED_ENTRIES,
    PIECE_ENTRIES,
    PAIRS,
    JOINED,
    KEYS,
    BIGRAMS,
    PARTS
};

static pvl_status allocate(pvl_tokenizer *t, const plan *p, const pvl_vocab *v, pvl_error *err) {
    bool spm = v->kind != PVL_TOKENIZER_BPE;
    size_t slots = power_above(v->count + v->count / 2 + 1), total = 0;
    size_t pairs = spm ? 0 : power_above(v->merge_count + v->merge_count / 2 + 1);
    const struct {
        size_t count, size;
    } need[PARTS] = {
        [TEXT] = {p->text, 1},
        [BEGIN] = {v->count + 1, sizeof *t->begin},
        [FLAGS] = {v->count, sizeof *t->flags},
        [SLOTS] = {slots, sizeof *t->slots},
        [ADDED_ENTRIES] = {p->added, sizeof *t->added.entries},
        [PIECE_ENTRIES] = {p->user_pieces + (p->pieces_end ? PVL_ALIASES : 0),
                           sizeof *t->user_pieces.entries},
        [PAIRS] = {pairs, sizeof *t->pairs},
        [JOINED] = {spm ? 0 : v->merge_count, sizeof *t->joined},
        [KEYS] = {spm ? v->count : 0, sizeof *t->keys},
        [BIGRAMS] = {spm ? PVL_BIGRAM_BITS / 32 : 0, sizeof *t->bigrams},
    };
    void *at[PARTS];
    for (size_t i = 0; i < PARTS; i++)
        if (!pvl_arena_need(&total, need[i].count, need[i].size))
            return pvl_fail(err, PVL_E_LIMIT, "The vocabulary does not fit this machine.");
    PVL_TRY(pvl_arena_init(&t->arena, t->allocator, total, "the tokenizer", err));
    for (size_t i = 0; i < PARTS; i++)
        PVL_TRY(
            pvl_arena_alloc(&t->arena, &at[i], need[i].count, need[i].size, "the tokenizer", err));
    t->text = at[TEXT];
    t->begin = at[BEGIN];
    t->flags = at[FLAGS];
    t->slots = at[SLOTS];
    t->added.entries = at[ADDED_ENTRIES];
    t->user_pieces.entries = at[PIECE_ENTRIES];
    t->pairs = at[PAIRS];
    t->joined = at[JOINED];
    t->keys = at[KEYS];
    t->bigrams = at[BIGRAMS];
    t->slot_mask = slots - 1;
    t->pair_mask = pairs ? pairs - 1 : 0;
    memset(t->flags, 0, v->count);
    memset(t->slots, 0xFF, slots * sizeof *t->slots);
    memset(t->pairs, 0xFF, pairs * sizeof *t->pairs);
    memset(t->bigrams, 0, need[BIGRAMS].count * need[BIGRAMS].size);
    return PVL_OK;
}

/* Copies an SPM piece, U+2581 as a space. A piece with a true space can never match. */
static size_t copy_piece(unsigned char *out, bool *matches, pvl_span piece) {
    size_t n = 0;
    *matches = true;
    for (size_t i = 0; i < piece.bytes; i++) {
        if (piece.bytes - i >= 3 && memcmp(piece.data + i, "\xE2\x96\x81", 3) == 0) {
            out[n++] = ' ';
            i += 2;
        } else {
            out[n++] = (unsigned char)piece.data[i];
            *matches = *matches && piece.data[i] != ' ';
        }
    }
    return n;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte of a piece "<0xHH>", -1 when it is spelled otherwise. */
static int byte_piece(pvl_span s) {
    int high, low;
    if (s.bytes != 6 || memcmp(s.data, "<0x", 3) != 0 || s.data[5] != '>')
        return -1;
    high = hex_digit(s.data[3]);
    low = hex_digit(s.data[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

static void note_bigrams(pvl_tokenizer *t, const unsigned char *s, size_t n) {
    uint32_t before = 0, cp;
    for (size_t at = 0; at < n;) {
        size_t used = pvl_utf8_decode(&cp, s + at, n - at);
        uint32_t bit = pvl_bigram(before, cp);
        if (at > 0)
            t->bigrams[bit / 32] |= 1u << bit % 32;
        before = cp;
        at += used;
    }
}

/* Scores as unsigned numbers in the opposite order. */
static uint32_t key_of_score(float score) {
    uint32_t bits;
    float negated = 0.0f - score;
    memcpy(&bits, &negated, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

static uint8_t added_flags(const pvl_vocab *v, int32_t type, pvl_span text) {
    bool shown = among(text, shown_names);
    bool marker = text.bytes > 4 && memcmp(text.data, "<|", 2) == 0 &&
                  memcmp(text.data + text.bytes - 2, "|>", 2) == 0;
    unsigned flags = PVL_T_ADDED;
    if (among(text, markup_names))
        flags |= PVL_T_MARKUP;
    if (among(text, eog_names))
        flags |= PVL_T_EOG | PVL_T_HIDDEN;
    if (!shown && (type != PVL_TOKEN_USER_DEFINED || marker))
        flags |= PVL_T_HIDDEN;
    if (v->kind == PVL_TOKENIZER_SPM_LLAMA_SLOW) {
        if (shown || among(text, llama_start_names))
            flags |= PVL_T_LLAMA_START;
        if (!v->rstrip_ids && among(text, phi3_rstrip_names))
            flags |= PVL_T_RSTRIP;
    }
    return (uint8_t)flags;
}

static void add_entry(pvl_matcher *m, const void *text, size_t bytes, int32_t id, bool forged) {
    m->entries[m->count++] = (pvl_match_entry){text, (uint32_t)bytes, id, forged};
}

static pvl_status fill_tokens(pvl_tokenizer *t, const plan *p, const pvl_vocab *v, pvl_error *err) {
    bool spm = v->kind != PVL_TOKENIZER_BPE;
    uint32_t end = 0;
    for (int i = 0; i < 256; i++)
        t->byte_ids[i] = -1;
    for (size_t id = 0; id < v->count; id++) {
        part how = part_of(p, v, id);
        pvl_span token = v->tokens[id];
        unsigned char *text = t->text + end;
        size_t bytes = 0;
        bool matches = false;
        t->begin[id] = end;
        if (how == ORDINARY && p->nul_by_dragon && id == NUL_PIECE) {
            text[0] = 0;
            bytes = 1;
            matches = true;
        } else if (how == ORDINARY && !spm) {
            matches = unspell(text, &bytes, token.data, token.bytes);
        } else if (how == ORDINARY || how == USER_PIECE) {
            bytes = copy_piece(text, &matches, token);
        } else if (how == BYTE_PIECE) {
            int byte = byte_piece(token);
            if (byte < 0)
                return pvl_fail(err, PVL_E_FORMAT,
                                "Token %zu is typed as a byte but is not "
                                "spelled <0x00> to <0xFF>: the vocabulary is damaged.",
                                id);
            text[0] = (unsigned char)byte;
            bytes = 1;
            if (t->byte_ids[byte] < 0)
                t->byte_ids[byte] = (int32_t)id;
            t->flags[id] |= PVL_T_BYTE;
        } else if (how == ADDED) {
            for (int i = 0; i < PVL_ALIASES && p->pieces_end; i++)
                if (same(token, alias_texts[i]))
                    token = (pvl_span){alias_names[i], strlen(alias_names[i])};
            t->flags[id] |= added_flags(v, type_of(v, id), token);
        } else {
            t->flags[id] |= PVL_T_HIDDEN;
        }
        if (how == ADDED || (how == ORDINARY && !matches)) {
            memcpy(text, token.data, token.bytes);
            bytes = token.bytes;
        }
        end += (uint32_t)bytes;
        t->begin[id + 1] = end;
        if (how == ADDED)
            add_entry(&t->added, text, bytes, (int32_t)id, false);
        else if (how == USER_PIECE)
            add_entry(&t->user_pieces, text, bytes, (int32_t)id, false);
        else if (how == ORDINARY && matches)
            slots_insert(t, (uint32_t)id);
        if (how == ORDINARY && matches && spm) {
            if (isnan(v->scores[id]))
                return pvl_fail(err, PVL_E_FORMAT,
                                "The score of token %zu is not a number: the "
                                "vocabulary is damaged.",
                                id);
            t->keys[id] = key_of_score(v->scores[id]);
            t->longest = bytes > t->longest ? (uint32_t)bytes : t->longest;
            note_bigrams(t, text, bytes);
        }
    }
    for (size_t i = 0; i < PVL_ALIASES && p->pieces_end; i++)
        add_entry(&t->user_pieces, alias_texts[i], strlen(alias_texts[i]),
                  (int32_t)(p->alias_base + FIRST_ALIAS + i), true);
    matcher_finish(&t->added);
    matcher_finish(&t->user_pieces);
    return PVL_OK;
}

static void insert_pair(pvl_tokenizer *t, uint64_t pair, uint32_t rank) {
    size_t at = (size_t)pvl_mix(pair) & t->pair_mask;
    for (; t->pairs[at] != UINT64_MAX; at = (at + 1) & t->pair_mask)
        if (t->pairs[at] >> 24 == pair)
            return; /* the first of equal merges stays */
    t->pairs[at] = pair << 24 | rank;
}

static pvl_status fill_merges(pvl_tokenizer *t, const pvl_vocab *v, pvl_error *err) {
    unsigned char small[512], *whole = small;
    void *memory = NULL;
    size_t longest = 0, guess = 0;
    pvl_status status = PVL_OK;
    for (size_t i = 0; i < v->merge_count; i++)
        longest = v->merges[i].bytes > longest ? v->merges[i].bytes : longest;
    if (longest > sizeof small) {
        PVL_TRY(pvl_malloc(t->allocator, &memory, longest, 1, "a long merge", err));
        whole = memory;
    }
    for (size_t i = 0; i < v->merge_count && status == PVL_OK; i++) {
        pvl_span m = v->merges[i];
        const char *space = m.bytes > 1 ? memchr(m.data + 1, ' ', m.bytes - 1) : NULL;
        size_t left_bytes = space ? (size_t)(space - m.data) : 0, a = 0, b = 0;
        int32_t left = -1, right = -1, joined = -1;
        if (space && unspell(whole, &a, m.data, left_bytes) &&
            unspell(whole + a, &b, space + 1, m.bytes - left_bytes - 1)) {
            left = pvl_tokenizer_lookup(t, whole, a);
            right = pvl_tokenizer_lookup(t, whole + a, b);
            /* Vocabularies list the wholes by rank, so the next id is the best guess. */
            joined = guess < t->count && !(t->flags[guess] & PVL_T_ADDED) &&
                             t->begin[guess + 1] - t->begin[guess] == a + b &&
                             memcmp(t->text + t->begin[guess], whole, a + b) == 0
                         ? (int32_t)guess
                         : pvl_tokenizer_lookup(t, whole, a + b);
        }
        if (left < 0 || right < 0 || joined < 0) {
            status = pvl_fail(err, PVL_E_FORMAT,
                              "Merge %zu, \"%.*s\", does not name two pieces "
                              "of the vocabulary that make a third: the vocabulary and its merges "
                              "are not from one tokenizer.",
                              i, m.bytes > 80 ? 80 : (int)m.bytes, m.data);
            break;
        }
        t->joined[i] = (uint32_t)joined;
        guess = (size_t)joined + 1;
        insert_pair(t, (uint64_t)(uint32_t)left << 20 | (uint32_t)right, (uint32_t)i);
    }
    pvl_free(t->allocator, memory);
    return status;
}

static pvl_status check_id(int32_t id, const char *what, const pvl_vocab *v, pvl_error *err) {
    if (id < -1 || (id >= 0 && (size_t)id >= v->count))
        return pvl_fail(err, PVL_E_FORMAT, "The %s id %d is outside the vocabulary of %zu tokens.",
                        what, (int)id, v->count);
    return PVL_OK;
}

static pvl_status fill(pvl_tokenizer *t, const pvl_vocab *v, pvl_error *err) {
    plan p;
    PVL_TRY(make_plan(&p, v, err));
    PVL_TRY(check_id(v->bos, "beginning-of-text", v, err));
    PVL_TRY(check_id(v->eos, "end-of-text", v, err));
    PVL_TRY(check_id(v->pad, "padding", v, err));
    PVL_TRY(check_id(v->unk, "unknown-token", v, err));
    if (v->add_bos && v->bos < 0)
        return pvl_fail(err, PVL_E_FORMAT,
                        "The vocabulary wants a beginning-of-text token in "
                        "front of prompts but does not name one.");
    t->kind = v->kind;
    t->count = v->count;
    t->add_bos = v->add_bos;
    t->add_space_prefix = v->add_space_prefix && v->kind != PVL_TOKENIZER_BPE;
    t->bos = v->bos;
    t->eos = v->eos;
    t->unk = v->unk;
    PVL_TRY(allocate(t, &p, v, err));
    PVL_TRY(fill_tokens(t, &p, v, err));
    if (v->kind == PVL_TOKENIZER_BPE) {
        PVL_TRY(fill_merges(t, v, err));
        for (int i = 0; i < 256; i++) {
            unsigned char byte = (unsigned char)i;
            t->byte_ids[i] = pvl_tokenizer_lookup(t, &byte, 1);
        }
    }
    for (size_t i = 0; i < v->count && t->unk < 0; i++)
        if (type_of(v, i) == PVL_TOKEN_UNKNOWN)
            t->unk = (int32_t)i;
    for (size_t i = 0; v->rstrip_ids && i < v->rstrip_count; i++) {
        if (v->rstrip_ids[i] < 0 || (size_t)v->rstrip_ids[i] >= v->count)
            return pvl_fail(err, PVL_E_FORMAT,
                            "The id %d in pocketvl.tokenizer.rstrip_ids is "
                            "outside the vocabulary of %zu tokens.",
                            (int)v->rstrip_ids[i], v->count);
        t->flags[v->rstrip_ids[i]] |= PVL_T_RSTRIP;
    }
    if (t->eos >= 0)
        t->flags[t->eos] |= PVL_T_EOG | PVL_T_HIDDEN;
    for (size_t i = 0; v->stop_ids && i < v->stop_count; i++) {
        if (v->stop_ids[i] < 0 || (size_t)v->stop_ids[i] >= v->count)
            return pvl_fail(err, PVL_E_FORMAT,
                            "The id %d in pocketvl.tokenizer.stop_ids is outside the vocabulary of "
                            "%zu tokens.",
                            (int)v->stop_ids[i], v->count);
        if (t->flags[v->stop_ids[i]] & PVL_T_ADDED)
            t->flags[v->stop_ids[i]] |= PVL_T_EOG | PVL_T_HIDDEN;
    }
    /* An unknown token that ends answers would let a text end the turn. */
    for (int i = 0; i < 256 && (t->unk < 0 || (t->flags[t->unk] & PVL_T_EOG)); i++)
        if (t->byte_ids[i] < 0)
            return pvl_fail(err, PVL_E_FORMAT,
                            "No token spells the byte 0x%02X and there is no "
                            "unknown token: some texts could not be encoded.",
                            (unsigned)i);
    return PVL_OK;
}

pvl_status pvl_tokenizer_new(pvl_tokenizer **out, const pvl_allocator *allocator,
                             const pvl_vocab *vocab, pvl_error *err) {
    pvl_tokenizer *t;
    pvl_status status;
    void *memory;
    *out = NULL;
    PVL_TRY(pvl_calloc(allocator, &memory, 1, sizeof *t, "the tokenizer", err));
    t = memory;
    t->allocator = allocator;
    status = fill(t, vocab, err);
    if (status != PVL_OK) {
        pvl_tokenizer_free(t);
        return status;
    }
    *out = t;
    return PVL_OK;
}

void pvl_tokenizer_free(pvl_tokenizer *t) {
    if (!t)
        return;
    if (t->arena.base)
        pvl_arena_free(&t->arena);
    pvl_free(t->allocator, t);
}

/* ---- questions about tokens ---- */

pvl_tokenizer_kind pvl_tokenizer_get_kind(const pvl_tokenizer *t) {
    return t->kind;
}

size_t pvl_tokenizer_count(const pvl_tokenizer *t) {
    return t->count;
}

size_t pvl_tokenizer_memory(const pvl_tokenizer *t) {
    return sizeof *t + t->arena.size;
}

int32_t pvl_tokenizer_bos(const pvl_tokenizer *t) {
    return t->bos;
}

static bool has_flag(const pvl_tokenizer *t, int32_t id, unsigned flag) {
    return id >= 0 && (size_t)id < t->count && (t->flags[id] & flag);
}

bool pvl_tokenizer_is_eog(const pvl_tokenizer *t, int32_t id) {
    return has_flag(t, id, PVL_T_EOG);
}

bool pvl_tokenizer_is_control(const pvl_tokenizer *t, int32_t id) {
    return has_flag(t, id, PVL_T_ADDED);
}

bool pvl_tokenizer_is_hidden(const pvl_tokenizer *t, int32_t id) {
    return has_flag(t, id, PVL_T_HIDDEN);
}

int32_t pvl_tokenizer_find(const pvl_tokenizer *t, const char *text, size_t bytes) {
    const pvl_match_entry *entry;
    if (bytes == 0)
        return -1;
    if (pvl_matcher_find(&t->added, &entry, text, bytes, true) == bytes ||
        pvl_matcher_find(&t->user_pieces, &entry, text, bytes, true) == bytes)
        return entry->id;
    return pvl_tokenizer_lookup(t, text, bytes);
}

pvl_span pvl_tokenizer_piece(const pvl_tokenizer *t, int32_t id) {
    if (id < 0 || (size_t)id >= t->count)
        return (pvl_span){"", 0};
    return (pvl_span){(const char *)t->text + t->begin[id], t->begin[id + 1] - t->begin[id]};
}
