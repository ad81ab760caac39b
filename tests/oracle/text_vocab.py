"""Reads the three published tokenizers and writes the vocabularies that the C tests load.

    python tests/oracle/text_vocab.py VOCAB_FOLDER tests/fixtures/text

VOCAB_FOLDER holds qwen2-internvl2-1b/, internlm2-internvl2-2b/ and phi3-internvl2-4b/ with the files named in
tests/fixtures/text/README.md. Written: NAME.vocab for each model and a copy of its vectors, NAME-{plain,chat,
invalid-utf8}.tsv. The vocabulary is what GGUF's arrays would hold, so the tests feed the tokenizer as an engine does.

A .vocab file, little-endian. Strings are front-coded: u8 bytes shared with the string before, u8 further bytes, those
bytes; a length of 255 is followed by a u32.
    "PVLV", u32 kind (0 BPE, 1 InternLM2, 2 Llama slow), u32 tokens, u32 merges, u32 scores (0 or tokens),
    i32 bos, eos, pad, unk, u8 add_bos, u8 add_space_prefix, u16 rstrip ids
    u24 order[tokens]: ids in the order of the strings that follow (sorted, so that they share beginnings)
    strings of the tokens in that order
    u8 type[tokens]
    f32 score[scores]
    u24 left[merges], u24 right[merges]: ids of the two pieces, by rank (u24: three bytes)
    u8 in_short[(merges + 7) / 8]: bits, merges that InternVL2-1B's own merges.txt has as well
    i32 rstrip[rstrip ids]
"""

import argparse
import json
import pathlib
import shutil
import struct

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
NINE = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def fields(data):
    """(number, value) of a protobuf message: ints for varints, bytes for the rest."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 1:
            value, at = data[at:at + 8], at + 8
        elif key & 7 == 5:
            value, at = data[at:at + 4], at + 4
        else:
            size, at = varint(data, at)
            value, at = data[at:at + size], at + size
        yield key >> 3, value


def sentencepiece(path):
    """[(piece bytes, score, type)], and the normaliser's add_dummy_prefix."""
    pieces, prefix = [], True
    for number, value in fields(path.read_bytes()):
        if number == 1:
            piece, score, kind = b"", 0.0, NORMAL
            for n, v in fields(value):
                if n == 1:
                    piece = v
                elif n == 2:
                    score = struct.unpack("<f", v)[0]
                elif n == 3:
                    kind = v
            pieces.append((piece, score, kind))
        elif number == 3:
            prefix = bool(dict(fields(value)).get(3, 1))
    return pieces, prefix


class Vocab:
    def __init__(self, kind):
        self.kind, self.tokens, self.types, self.scores, self.merges, self.in_short = kind, [], [], [], [], []
        self.bos = self.eos = self.pad = self.unk = -1
        self.add_bos, self.add_space_prefix, self.rstrip = False, False, []


def qwen2(folder):
    v = Vocab(0)
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    added = json.loads((folder / "added_tokens.json").read_text("utf-8"))
    by_id = {i: t for t, i in vocab.items()} | {i: t for t, i in added.items()}
    v.tokens = [by_id[i].encode() for i in range(len(by_id))]
    v.types = [CONTROL if i >= len(vocab) else NORMAL for i in range(len(by_id))]
    short = (folder / "merges.txt").read_text("utf-8").splitlines()
    short = set(short[1:] if short[0].startswith("#version") else short)
    for line in (folder / "merges-qwen2-full.txt").read_text("utf-8").splitlines():
        left, right = line.split(" ")
        v.merges.append((vocab[left], vocab[right]))
        v.in_short.append(line in short)
    assert sum(v.in_short) == len(short)
    v.eos, v.pad = added["<|im_end|>"], added["<|endoftext|>"]
    return v


def internlm2(folder):
    v = Vocab(1)
    pieces, v.add_space_prefix = sentencepiece(folder / "tokenizer.model")
    added = json.loads((folder / "added_tokens.json").read_text("utf-8"))
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    names = {int(i): t["content"] for i, t in config["added_tokens_decoder"].items()}
    names |= {i: t for t, i in added.items()}
    for i in range(max(names) + 1):
        piece, score, kind = pieces[i] if i < len(pieces) else (b"", -1000.0, CONTROL)
        if i in names and i > 2:
            piece, kind = names[i].encode(), CONTROL
        v.tokens.append(piece)
        v.scores.append(score)
        v.types.append(kind)
    v.bos, v.eos, v.pad, v.unk, v.add_bos = 1, 92542, 2, 0, True
    return v


def phi3(folder):
    v = Vocab(2)
    pieces, v.add_space_prefix = sentencepiece(folder / "tokenizer.model")
    added = json.loads((folder / "added_tokens-derived.json").read_text("utf-8"))
    config = json.loads((folder / "phi-3-mini-4k-tokenizer_config.json").read_text("utf-8"))
    names = {i: t for t, i in added.items()}
    for i in range(max(names) + 1):
        piece, score, kind = pieces[i] if i < len(pieces) else (names[i].encode(), -1000.0, CONTROL)
        v.tokens.append(piece)
        v.scores.append(score)
        v.types.append(kind)
    v.bos, v.eos, v.pad, v.unk, v.add_bos = 1, 32000, 32000, 0, True
    v.rstrip = sorted(int(i) for i, t in config["added_tokens_decoder"].items() if t["rstrip"])
    return v


def write(path, v):
    out = bytearray(b"PVLV")
    out += struct.pack("<4I4i2BH", v.kind, len(v.tokens), len(v.merges), len(v.scores), v.bos, v.eos, v.pad, v.unk,
                       v.add_bos, v.add_space_prefix, len(v.rstrip))
    order = sorted(range(len(v.tokens)), key=lambda i: (v.tokens[i], i))
    out += b"".join(struct.pack("<I", i)[:3] for i in order)
    before = b""
    for i in order:
        token = v.tokens[i]
        same = 0
        while same < min(len(before), len(token), 255) and before[same] == token[same]:
            same += 1
        rest = token[same:]
        out += bytes([same]) + (bytes([len(rest)]) if len(rest) < 255 else b"\xff" + struct.pack("<I", len(rest)))
        out += rest
        before = token
    out += bytes(v.types)
    out += struct.pack(f"<{len(v.scores)}f", *v.scores)
    for side in (0, 1):
        out += b"".join(struct.pack("<I", m[side])[:3] for m in v.merges)
    bits = bytearray((len(v.merges) + 7) // 8)
    for i, inside in enumerate(v.in_short):
        bits[i // 8] |= inside << i % 8
    out += bits
    out += struct.pack(f"<{len(v.rstrip)}i", *v.rstrip)
    path.write_bytes(out)
    print(f"{path}: {len(v.tokens)} tokens, {len(v.merges)} merges, {len(out)} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocab", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, folder, read in (("qwen2", "qwen2-internvl2-1b", qwen2), ("internlm2", "internlm2-internvl2-2b", internlm2),
                               ("phi3", "phi3-internvl2-4b", phi3)):
        write(args.out / f"{name}.vocab", read(args.vocab / folder))
        for part in ("plain", "chat", "invalid-utf8"):
            shutil.copyfile(args.vocab / folder / "vectors" / f"{part}.tsv", args.out / f"{name}-{part}.tsv")


if __name__ == "__main__":
    main()
