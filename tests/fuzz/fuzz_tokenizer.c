/* Tokenizers, both ways. Byte 0 chooses one of the three published vocabularies, or one made of the
 * input; byte 1 what is done: a text encoded and decoded again, or any ids decoded. */
#include "fuzz.h"

#include "../unit/text_vocab.h"

static pvl_tokenizer *published(size_t which) {
    static const char *const names[] = {"qwen2", "internlm2", "phi3"};
    static pvl_tokenizer *made[3];
    if (!made[which])
        made[which] = text_tokenizer(names[which], false);
    HOLDS(made[which] != NULL);
    return made[which];
}

/* A small vocabulary of any shape; mostly it is refused. */
static pvl_tokenizer *made_up(fuzz_input *in, const pvl_allocator *a) {
    enum { MOST = 400, TEXT = 16 };
    static pvl_span tokens[MOST], merges[64];
    static float scores[MOST];
    static int32_t types[MOST], rstrip[4];
    pvl_vocab v = {.kind = (pvl_tokenizer_kind)take_between(in, 0, 2), .tokens = tokens};
    unsigned flags = (unsigned)take(in, 1);
    char *owned[MOST + 64];
    size_t own = 0;
    if (flags & 1) { /* all bytes are spelled, so that a BPE vocabulary is accepted */
        static char bytes[256][8];
        for (int b = 0; b < 256; b++) {
            bool plain = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
            int shift = 0;
            for (int i = 0; i < b; i++)
                shift += !((i >= 33 && i <= 126) || (i >= 161 && i != 173));
            int c = plain ? b : 256 + shift, n = 0;
            if (v.kind != PVL_TOKENIZER_BPE) {
                n = snprintf(bytes[b], sizeof bytes[b], "<0x%02X>", (unsigned)b);
                types[v.count] = PVL_TOKEN_BYTE;
            } else {
                if (c >= 0x80) {
                    bytes[b][n++] = (char)(0xC0 | c >> 6);
                    bytes[b][n++] = (char)(0x80 | (c & 0x3F));
                } else {
                    bytes[b][n++] = (char)c;
                }
                types[v.count] = PVL_TOKEN_NORMAL;
            }
            scores[v.count] = 0;
            tokens[v.count++] = (pvl_span){bytes[b], (size_t)n};
        }
    }
    size_t more = take_between(in, 0, MOST - 256 - 1);
    for (size_t i = 0; i < more && in->left; i++) {
        size_t n = take_between(in, 0, TEXT), bytes;
        owned[own] = take_bytes(in, n, &bytes);
        tokens[v.count] = (pvl_span){owned[own++], bytes};
        types[v.count] = (int32_t)take_between(in, 0, 7);
        uint32_t bits = (uint32_t)take(in, flags & 2 ? 4 : 1);
        memcpy(&scores[v.count++], &bits, 4);
    }
    v.merges = merges;
    for (size_t i = take_between(in, 0, 63); i > 0 && in->left; i--) {
        size_t bytes;
        owned[own] = take_bytes(in, take_between(in, 0, TEXT), &bytes);
        merges[v.merge_count++] = (pvl_span){owned[own++], bytes};
    }
    v.scores = flags & 4 ? NULL : scores;
    v.types = flags & 8 ? NULL : types;
    v.add_bos = flags & 16;
    v.add_space_prefix = flags & 32;
    v.bos = (int32_t)take(in, 2) - 1;
    v.eos = (int32_t)take(in, 2) - 1;
    v.pad = (int32_t)take(in, 2) - 1;
    v.unk = (int32_t)take(in, 2) - 1;
    v.rstrip_ids = rstrip;
    for (size_t i = take_between(in, 0, 4); i > 0; i--)
        rstrip[v.rstrip_count++] = (int32_t)take(in, 2) - 1;
    pvl_tokenizer *t = NULL;
    pvl_error err = {0};
    pvl_status status = pvl_tokenizer_new(&t, a, &v, &err);
    check_status(status, &err);
    HOLDS((status == PVL_OK) == (t != NULL));
    for (size_t i = 0; i < own; i++)
        free(owned[i]); /* the tokenizer has copies */
    return t;
}

static pvl_text decode(const pvl_tokenizer *t, const pvl_tokens *ids, unsigned flags,
                       const pvl_allocator *a) {
    pvl_text text = {.allocator = a};
    pvl_decoder d;
    pvl_error err = {0};
    pvl_decoder_init(&d, t, flags);
    for (size_t i = 0; i < ids->count; i++) {
        bool known = ids->ids[i] >= 0 && (size_t)ids->ids[i] < pvl_tokenizer_count(t);
        pvl_error one = {0};
        pvl_status status = pvl_decoder_push(&d, &text, ids->ids[i], &one);
        check_status(status, &one);
        HOLDS((status == PVL_OK) == known);
        HOLDS(is_utf8(text.data, text.bytes)); /* whole characters at every step */
    }
    HOLDS(pvl_decoder_finish(&d, &text, &err) == PVL_OK);
    HOLDS(is_utf8(text.data, text.bytes));
    return text;
}

/* Encodes; checks the ids; decodes and, where nothing is lost on purpose, compares. */
static void there_and_back(const pvl_tokenizer *t, bool sound, const char *text, size_t bytes,
                           const pvl_allocator *a) {
    static const unsigned readings[] = {0, PVL_ENCODE_SPECIAL, PVL_ENCODE_USER};
    for (size_t r = 0; r < 3; r++) {
        pvl_tokens ids = {.allocator = a};
        pvl_error err = {0};
        pvl_status status = pvl_tokenizer_encode(t, &ids, text, bytes, readings[r], &err);
        check_status(status, &err);
        if (status == PVL_OK) {
            for (size_t i = 0; i < ids.count; i++) {
                HOLDS(ids.ids[i] >= 0 && (size_t)ids.ids[i] < pvl_tokenizer_count(t));
                if (readings[r] == PVL_ENCODE_USER && sound)
                    HOLDS(!pvl_tokenizer_is_control(t, ids.ids[i]));
            }
            pvl_text back = decode(t, &ids, pvl_tokenizer_decode_flags(t), a);
            pvl_text all = decode(t, &ids, PVL_DECODE_ALL, a);
            bool ascii = true;
            for (size_t i = 0; i < bytes; i++)
                ascii = ascii && text[i] > 0 && text[i] < 127;
            /* NFC leaves ASCII alone: a BPE vocabulary with all bytes gives it back. */
            if (sound && ascii && readings[r] == PVL_ENCODE_USER &&
                pvl_tokenizer_get_kind(t) == PVL_TOKENIZER_BPE)
                HOLDS(all.bytes == bytes && memcmp(all.data ? all.data : "", text, bytes) == 0);
            pvl_text_free(&back);
            pvl_text_free(&all);
        } else {
            HOLDS(ids.count == 0);
        }
        pvl_tokens_free(&ids);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    fuzz_memory memory = {.limit = 64 << 20};
    pvl_allocator a = {fuzz_alloc, fuzz_free, &memory};
    size_t which = take_between(&in, 0, 4);
    unsigned mode = (unsigned)take(&in, 1);
    pvl_tokenizer *own = which >= 3 ? made_up(&in, &a) : NULL;
    const pvl_tokenizer *t = which >= 3 ? own : published(which);
    if (!t) {
        HOLDS(memory.alive == 0);
        return 0;
    }
    long alive = memory.alive;
    if (mode & 1) {
        pvl_tokens ids = {.allocator = &a};
        while (in.left)
            HOLDS(pvl_tokens_push(&ids,
                                  (int32_t)take(&in, mode & 2   ? 4
                                                     : mode & 4 ? 2
                                                                : 3),
                                  NULL) == PVL_OK);
        pvl_text text = decode(t, &ids, mode >> 3 & 31, &a);
        pvl_text_free(&text);
        pvl_tokens_free(&ids);
    } else {
        size_t bytes;
        char *text = take_bytes(&in, 1 << 16, &bytes);
        there_and_back(t, which < 3, text, bytes, &a);
        pvl_tokenizer_find(t, text, bytes);
        free(text);
    }
    HOLDS(memory.alive == alive);
    pvl_tokenizer_free(own);
    HOLDS(memory.alive == 0);
    return 0;
}
