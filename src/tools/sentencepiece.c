/* SentencePiece's tokenizer.model: a protobuf message of which four fields matter.
 *
 *   ModelProto   1 pieces (repeated), 2 trainer_spec, 3 normalizer_spec
 *   piece        1 text, 2 score (fixed32), 3 type
 *   trainer      3 model_type (1 unigram, 2 BPE)
 *   normalizer   1 name, 3 add_dummy_prefix */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "tools/hf_vocab.h"

enum { MAX_PIECES = 1 << 20, BPE = 2 };

typedef struct field {
    uint32_t number, wire;
    uint64_t value; /* varint and fixed */
    const unsigned char *data;
    size_t bytes; /* length-delimited */
} field;

static bool varint(pvl_cursor *c, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = pvl_cursor_u8(c);
        *out |= (uint64_t)(byte & 127) << shift;
        if (c->bad || byte < 128)
            return !c->bad;
    }
    return false;
}

/* The next field; false at the end or when the message is broken (then c->bad). */
static bool next_field(pvl_cursor *c, field *f) {
    uint64_t key, size;
    if (c->at == c->size)
        return false;
    *f = (field){0};
    bool good = varint(c, &key);
    f->number = (uint32_t)(key >> 3);
    f->wire = (uint32_t)(key & 7);
    if (good && f->wire == 0) {
        good = varint(c, &f->value);
    } else if (good && f->wire == 1) {
        f->value = pvl_cursor_u64(c);
    } else if (good && f->wire == 5) {
        f->value = pvl_cursor_u32(c);
    } else if (good && f->wire == 2) {
        good = varint(c, &size) && size <= c->size - c->at;
        if (good) {
            f->bytes = (size_t)size;
            f->data = pvl_cursor_take(c, f->bytes);
        }
    } else {
        good = false;
    }
    if (!good)
        c->bad = true;
    return !c->bad;
}

static pvl_status broken(const char *name, pvl_error *err) {
    return pvl_fail(err, PVL_E_FORMAT, "%s is no SentencePiece model, or it is damaged.", name);
}

static pvl_status read_piece(pvl_hf_vocab *v, size_t index, field piece, const char *name,
                             pvl_error *err) {
    pvl_cursor c = pvl_cursor_over(piece.data, piece.bytes);
    field f, text = {0};
    uint32_t score = 0;
    uint64_t type = 1;
    while (next_field(&c, &f)) {
        if (f.number == 1 && f.wire == 2)
            text = f;
        else if (f.number == 2 && f.wire == 5)
            score = (uint32_t)f.value;
        else if (f.number == 3 && f.wire == 0)
            type = f.value;
    }
    float value = pvl_bits_f32(score);
    if (c.bad || type < 1 || type > 6 || !isfinite(value))
        return broken(name, err);
    char *copy = malloc(text.bytes + 1);
    if (!copy)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to read %s.", name);
    if (text.bytes)
        memcpy(copy, text.data, text.bytes);
    copy[text.bytes] = 0;
    v->tokens[index] = (pvl_gguf_string){copy, text.bytes};
    v->types[index] = (int32_t)type;
    v->scores[index] = value;
    return PVL_OK;
}

pvl_status pvl_hf_read_sentencepiece(pvl_hf_vocab *v, const void *file, size_t bytes,
                                     const char *name, pvl_error *err) {
    pvl_cursor c = pvl_cursor_over(file, bytes), inner;
    field f, g;
    size_t pieces = 0, index = 0;
    uint64_t model_type = 1;
    v->spm = true;
    v->dummy_prefix = true; /* the format's default */
    while (next_field(&c, &f)) {
        pieces += f.number == 1 && f.wire == 2;
        if ((f.number != 2 && f.number != 3) || f.wire != 2)
            continue;
        inner = pvl_cursor_over(f.data, f.bytes);
        while (next_field(&inner, &g)) {
            if (f.number == 2 && g.number == 3 && g.wire == 0)
                model_type = g.value;
            else if (f.number == 3 && g.number == 3 && g.wire == 0)
                v->dummy_prefix = g.value != 0;
        }
        if (inner.bad)
            return broken(name, err);
    }
    if (c.bad || pieces == 0)
        return broken(name, err);
    if (model_type != BPE)
        return pvl_fail(err, PVL_E_UNSUPPORTED,
                        "%s is a SentencePiece model of another type than BPE, which no InternVL "
                        "model has.",
                        name);
    if (pieces > MAX_PIECES)
        return pvl_fail(err, PVL_E_LIMIT, "%s has %zu pieces, more than %d.", name, pieces,
                        MAX_PIECES);
    v->tokens = calloc(pieces, sizeof *v->tokens);
    v->types = calloc(pieces, sizeof *v->types);
    v->scores = calloc(pieces, sizeof *v->scores);
    v->strips = calloc(pieces, sizeof *v->strips);
    if (!v->tokens || !v->types || !v->scores || !v->strips)
        return pvl_fail(err, PVL_E_MEMORY, "Not enough memory to read %s.", name);
    v->count = pieces;
    c = pvl_cursor_over(file, bytes);
    while (next_field(&c, &f)) {
        if (f.number == 1 && f.wire == 2)
            PVL_TRY(read_piece(v, index++, f, name, err));
    }
    return PVL_OK;
}
