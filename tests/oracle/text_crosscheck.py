"""Holds the C text layer against the Python tokenizers on random strings.

    python -m venv v && v/bin/pip install transformers==4.37.2 sentencepiece==0.1.99 protobuf unicodedata2==15.0.0
    v/bin/python tests/oracle/text_crosscheck.py VOCAB_FOLDER [--count 4000] [--seed 1]

transformers 4.37.2 is the version that InternVL2 pins; its slow tokenizers are the truth for prompts. VOCAB_FOLDER as in
text_vocab.py. Compiles src/text and src/base into a shared library and calls it. Prints one line per comparison and
exits with 1 when anything differs.
"""

import argparse
import ctypes
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

import sentencepiece
import unicodedata2
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
import transformers.models.qwen2.tokenization_qwen2 as qwen2_module
from transformers import AddedToken, LlamaTokenizer, PreTrainedTokenizer, Qwen2Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import text_vocab  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPECIAL, USER = 1, 2
CLEAN_UP, DROP_SPACE, STRIP, ALL = 1, 2, 4, 8
QWEN2_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                 r"|\s+(?!\S)|\s+")


# ---- the C side ----

class Span(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("bytes", ctypes.c_size_t)]


class CVocab(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("count", ctypes.c_size_t), ("tokens", ctypes.POINTER(Span)),
                ("scores", ctypes.POINTER(ctypes.c_float)), ("types", ctypes.POINTER(ctypes.c_int32)),
                ("merges", ctypes.POINTER(Span)), ("merge_count", ctypes.c_size_t), ("add_bos", ctypes.c_bool),
                ("bos", ctypes.c_int32), ("eos", ctypes.c_int32), ("pad", ctypes.c_int32), ("unk", ctypes.c_int32),
                ("add_space_prefix", ctypes.c_bool), ("rstrip_ids", ctypes.POINTER(ctypes.c_int32)),
                ("rstrip_count", ctypes.c_size_t)]


class Vector(ctypes.Structure):  # pvl_tokens, pvl_text
    _fields_ = [("data", ctypes.c_void_p), ("count", ctypes.c_size_t), ("capacity", ctypes.c_size_t),
                ("allocator", ctypes.c_void_p)]


class Segment(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int), ("text", ctypes.c_char_p), ("bytes", ctypes.c_size_t),
                ("token", ctypes.c_int32), ("repeat", ctypes.c_size_t)]


class Error(ctypes.Structure):
    _fields_ = [("code", ctypes.c_int), ("message", ctypes.c_char * 500)]


def build():
    out = pathlib.Path(tempfile.mkdtemp()) / "text.so"
    sources = [str(p) for folder in ("text", "base") for p in sorted((ROOT / "src" / folder).glob("*.c"))]
    subprocess.run(["cc", "-std=c11", "-O2", "-D_POSIX_C_SOURCE=200809L", "-fPIC", "-shared", "-I", str(ROOT / "src"),
                    *sources, "-o", str(out), "-lm", "-lpthread"], check=True)
    lib = ctypes.CDLL(str(out))
    lib.pvl_tokenizer_decode_flags.restype = ctypes.c_uint
    return lib


class CTokenizer:
    def __init__(self, lib, v, merges=None):
        self.lib, self.handle = lib, ctypes.c_void_p()
        spans = lambda items: (Span * max(1, len(items)))(*[Span(i, len(i)) for i in items])
        c = CVocab(v.kind, len(v.tokens), spans(v.tokens), None, (ctypes.c_int32 * len(v.types))(*v.types), None, 0,
                   v.add_bos, v.bos, v.eos, v.pad, v.unk, v.add_space_prefix,
                   (ctypes.c_int32 * max(1, len(v.rstrip)))(*v.rstrip), len(v.rstrip))
        if v.scores:
            c.scores = (ctypes.c_float * len(v.scores))(*v.scores)
        if merges is not None:
            texts = [v.tokens[a] + b" " + v.tokens[b] for a, b in merges]
            c.merges, c.merge_count = spans(texts), len(texts)
        err = Error()
        if lib.pvl_tokenizer_new(ctypes.byref(self.handle), None, ctypes.byref(c), ctypes.byref(err)):
            raise RuntimeError(err.message.decode())

    def _ids(self, call):
        out = Vector()
        assert call(out) == 0
        ids = list((ctypes.c_int32 * out.count).from_address(out.data)) if out.count else []
        self.lib.pvl_tokens_free(ctypes.byref(out))
        return ids

    def encode(self, data, flags=0):
        return self._ids(lambda out: self.lib.pvl_tokenizer_encode(self.handle, ctypes.byref(out), data,
                                                                   ctypes.c_size_t(len(data)), flags, None))

    def encode_segments(self, parts):
        """parts: (is_user, bytes)."""
        segments = (Segment * max(1, len(parts)))(*[Segment(int(user), t, len(t), -1, 0) for user, t in parts])
        return self._ids(lambda out: self.lib.pvl_tokenizer_encode_segments(
            self.handle, ctypes.byref(out), segments, ctypes.c_size_t(len(parts)), None))

    def decode(self, ids, flags):
        decoder, out = ctypes.create_string_buffer(256), Vector()
        self.lib.pvl_decoder_init(decoder, self.handle, flags)
        for i in ids:
            assert self.lib.pvl_decoder_push(decoder, ctypes.byref(out), i, None) == 0
        assert self.lib.pvl_decoder_finish(decoder, ctypes.byref(out), None) == 0
        data = ctypes.string_at(out.data, out.count) if out.count else b""
        self.lib.pvl_text_free(ctypes.byref(out))
        return data

    def is_control(self, i):
        return bool(self.lib.pvl_tokenizer_is_control(self.handle, i) & 1)


# ---- the reference side ----

class InternLM2Slow(PreTrainedTokenizer):
    """What the model's own slow tokenizer does for encoding: SentencePiece between added tokens, <s> in front."""

    def __init__(self, path, names):
        self.sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.names = names
        added = {i: AddedToken(t, normalized=False, special=True) for i, t in names.items()}
        super().__init__(bos_token="<s>", eos_token="</s>", unk_token="<unk>", added_tokens_decoder=added)

    @property
    def vocab_size(self):
        return self.sp.get_piece_size()

    def get_vocab(self):
        return {self.sp.id_to_piece(i): i for i in range(self.vocab_size)} | self.added_tokens_encoder

    def _tokenize(self, text, **_):
        return self.sp.encode(text, out_type=str)

    def _convert_token_to_id(self, token):
        return self.sp.piece_to_id(token)

    def _convert_id_to_token(self, index):
        return self.sp.id_to_piece(index)

    def build_inputs_with_special_tokens(self, ids, other=None):
        return [1] + ids


def added(names, rstrip=()):
    return {i: AddedToken(t, rstrip=i in rstrip, normalized=False, special=True) for i, t in names.items()}


def fast_qwen2(vocab, merges):
    t = Tokenizer(BPE(vocab, merges))
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated", False),
                                               pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return t


# ---- random texts ----

def pools():
    assigned = [cp for cp in range(0x110000) if not 0xD800 <= cp < 0xE000
                and unicodedata2.category(chr(cp)) != "Cn"]
    marks = [cp for cp in assigned if unicodedata2.combining(chr(cp))]
    decomposing = [cp for cp in assigned if unicodedata2.decomposition(chr(cp))]
    white = [9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 32, 32, 32, 10, 10, 0x85, 0xA0, 0x1680, 0x2003, 0x2028, 0x202F,
             0x3000, 0x200B, 0xFEFF]
    words = ("the of and hello World's I'M don't we'LL they'ſ 'ſ x'S can'T o'clock ## #include <img <|im_ ‘it’s’ Café naïve "
             "user assistant system 今天 是 2024 年 你好 世界 書生 こんにちは 안녕하세요 Привет שלום नमस्ते สวัสดี ẞ ǅ ﬁ １２３ Ａｂｃ —— …… ， 。 "
             "[UNUSED_TOKEN_3] [UNUSED_TOKEN_145] [UNUSED_TOKEN_ ▁ ▁▁ <0x41> <unk> <s> </s> !!! ... == -> :: {} []").split(" ")
    return assigned, marks, decomposing, white, words


class Texts:
    def __init__(self, seed, specials):
        self.random, self.specials = random.Random(seed), specials
        self.assigned, self.marks, self.decomposing, self.white, self.words = pools()

    def piece(self, special):
        r, kind = self.random, self.random.randrange(12 if special else 10)
        some = lambda pool, n: "".join(chr(r.choice(pool)) for _ in range(r.randint(1, n)))
        if kind < 2:
            return some(range(32, 127), 8)
        if kind == 2:
            return some(self.white, 4)
        if kind == 3:
            return some(self.assigned, 3)
        if kind == 4:
            return some(self.decomposing, 2) + some(self.marks, 4)
        if kind == 5:
            return some(range(0x1100, 0x1200), 3) + some([0xAC00, 0xAC01, 0xAC1C], 1)
        if kind == 6:
            return r.choice("aA .'\n0▁你🙂=-\x00") * r.randint(1, 70)
        if kind < 10:
            return " " * r.randrange(2) + r.choice(self.words)
        return r.choice(self.specials)

    def make(self, special=False):
        return "".join(self.piece(special) for _ in range(self.random.randint(0, 9)))


# Both references normalise with other Unicode versions than 15.0 (Python 3.11: 14.0, tokenizers: older), in which newer
# marks have no combining class. Normalised text is given to one, the right tables to the other.
qwen2_module.unicodedata = unicodedata2
nfc = lambda s: unicodedata2.normalize("NFC", s)
# The pattern of tokenizers runs on Unicode 14: letters that came with 15.0 are not letters there.
old = lambda texts: [s for s in texts if all(unicodedata.category(c) != "Cn" for c in s)]
failures = 0


def compare(name, cases, ours, theirs):
    global failures
    bad = count = 0
    for case in cases:
        a, b = ours(case), theirs(case)
        count += 1
        if a != b:
            bad += 1
            if bad <= 3:
                print(f"  {name}: {case!r}\n    ours   {a}\n    theirs {b}")
    failures += bad
    print(f"{'ok  ' if bad == 0 else 'FAIL'} {name}: {count} compared, {bad} differ", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocab", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    lib, n = build(), args.count
    utf8 = lambda s: s.encode("utf-8")

    # Qwen2
    folder = args.vocab / "qwen2-internvl2-1b"
    v = text_vocab.qwen2(folder)
    texts = Texts(args.seed, [t.decode() for t, k in zip(v.tokens, v.types) if k == text_vocab.CONTROL])
    plain, chat = [texts.make() for _ in range(n)], [texts.make(True) for _ in range(n)]
    vocab = json.loads((folder / "vocab.json").read_text("utf-8"))
    full = CTokenizer(lib, v, v.merges)
    short_merges = [m for m, inside in zip(v.merges, v.in_short) if inside]
    short = CTokenizer(lib, v, short_merges)
    spell = lambda merges: [(v.tokens[a].decode(), v.tokens[b].decode()) for a, b in merges]
    fast_full, fast_short = fast_qwen2(vocab, spell(v.merges)), fast_qwen2(vocab, spell(short_merges))
    slow = Qwen2Tokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"),
                          added_tokens_decoder=added({i: t.decode() for i, t in enumerate(v.tokens) if i >= len(vocab)}))
    slow_plain = lambda s: slow.convert_tokens_to_ids(slow._tokenize(nfc(s)))
    compare("Qwen2 full, plain, tokenizers", old(plain), lambda s: full.encode(utf8(s)), lambda s: fast_full.encode(nfc(s)).ids)
    compare("Qwen2 1B, plain, tokenizers", old(plain), lambda s: short.encode(utf8(s)), lambda s: fast_short.encode(nfc(s)).ids)
    compare("Qwen2 1B, plain, transformers slow", plain[:n // 2], lambda s: short.encode(utf8(s)), slow_plain)
    compare("Qwen2 1B, chat, transformers slow", chat[:n // 2], lambda s: short.encode(utf8(s), SPECIAL),
            lambda s: slow(s).input_ids)
    ids = [[texts.random.randrange(len(v.tokens)) for _ in range(texts.random.randint(0, 12))] for _ in range(n)]
    ids += [[texts.random.randrange(256) for _ in range(texts.random.randint(0, 12))] for _ in range(n)]
    compare("Qwen2 decode, transformers slow", ids, lambda i: full.decode(i, ALL),
            lambda i: utf8(slow.decode(i, clean_up_tokenization_spaces=False, spaces_between_special_tokens=False)))
    compare("Qwen2 decode(encode(x)) = NFC(x)", plain, lambda s: full.decode(full.encode(utf8(s)), 0),
            lambda s: utf8(nfc(s)))
    raw = [bytes(texts.random.choice(b"a \xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\x80\xc0\xff\xef\xbf\xbd\xcc\x81") for _ in
                 range(texts.random.randint(0, 9))) for _ in range(n)]
    compare("Qwen2 malformed UTF-8, tokenizers", raw, full.encode,
            lambda b: fast_full.encode(b.decode("utf-8", "replace")).ids)

    # InternLM2
    folder = args.vocab / "internlm2-internvl2-2b"
    v = text_vocab.internlm2(folder)
    ours = CTokenizer(lib, v)
    names = {i: t.decode() for i, t in enumerate(v.tokens) if v.types[i] in (text_vocab.CONTROL, text_vocab.UNKNOWN)}
    slow = InternLM2Slow(folder / "tokenizer.model", names)
    texts = Texts(args.seed + 1, list(names.values()))
    plain, chat = [texts.make() for _ in range(n)], [texts.make(True) for _ in range(n)]
    compare("InternLM2 plain, SentencePiece", plain, lambda s: ours.encode(utf8(s)), slow.sp.encode)
    compare("InternLM2 malformed UTF-8, SentencePiece", raw, ours.encode, slow.sp.encode)
    compare("InternLM2 chat, slow tokenizer", chat, lambda s: ours.encode(utf8(s), SPECIAL), lambda s: slow(s).input_ids)
    compare("InternLM2 user text has no control token", chat, lambda s: [i for i in ours.encode(utf8(s), USER)
                                                                        if ours.is_control(i)], lambda s: [])
    ids = [[texts.random.choice([texts.random.randrange(3, 300), texts.random.randrange(3, 92397)])
            for _ in range(texts.random.randint(0, 12))] for _ in range(n)]
    compare("InternLM2 decode, SentencePiece", ids, lambda i: ours.decode(i, ALL), lambda i: utf8(slow.sp.decode(i)))
    marks = ["".join(texts.random.choice([" ", " ", " ", "'", ".", "?", "!", ",", "n't", "m", "s", "ve", "re", "v", "a", "é"])
                     for _ in range(texts.random.randint(0, 14))) for _ in range(n)]
    compare("InternLM2 clean-up, transformers", marks, lambda s: ours.decode(ours.encode(utf8(s)), CLEAN_UP),
            lambda s: utf8(PreTrainedTokenizer.clean_up_tokenization(s)))
    short_ends = [s for s in plain if len(utf8(s)) - len(utf8(s.replace("▁", " ").rstrip())) <= 64]
    compare("stripped answers, Python", short_ends, lambda s: ours.decode(ours.encode(utf8(s), USER), STRIP),
            lambda s: utf8(s.replace("▁", " ").strip()))

    # Phi-3
    folder = args.vocab / "phi3-internvl2-4b"
    for what, rstrip in (("rstrip", True), ("no rstrip", False)):
        v = text_vocab.phi3(folder)
        v.rstrip = v.rstrip if rstrip else []
        ours = CTokenizer(lib, v)
        names = {i: t.decode() for i, t in enumerate(v.tokens) if v.types[i] != text_vocab.BYTE
                 and v.types[i] != text_vocab.NORMAL}
        nine = [t for i, t in names.items() if i > 32010]
        slow = LlamaTokenizer(str(folder / "tokenizer.model"), legacy=False, eos_token="<|endoftext|>",
                              pad_token="<|endoftext|>", added_tokens_decoder=added(names, v.rstrip),
                              additional_special_tokens=nine)
        texts = Texts(args.seed + 2 + rstrip, list(names.values()))
        plain, chat = [texts.make() for _ in range(n)], [texts.make(True) for _ in range(n)]
        sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        compare(f"Phi-3 {what}, chat, transformers slow", chat, lambda s: ours.encode(utf8(s), SPECIAL),
                lambda s: slow(s).input_ids)
        # The same text in segments must read as one, user text between markers included.
        split = []
        for _ in range(n):
            parts = []
            for _ in range(texts.random.randint(1, 4)):
                parts += [(False, utf8(texts.random.choice(texts.specials) + "\n" * texts.random.randrange(2))),
                          (True, utf8(texts.make()))]
            text = b"".join(p for _, p in parts)
            user = [p for is_user, p in parts if is_user]
            if not any(any(t.encode() in p for t in names.values()) for p in user):
                split.append((parts, text.decode()))
        compare(f"Phi-3 {what}, segments, transformers slow", split, lambda c: ours.encode_segments(c[0]),
                lambda c: slow(c[1]).input_ids)
    compare("Phi-3 plain, SentencePiece", plain, lambda s: ours.encode(utf8(s)), sp.encode)
    compare("Phi-3 malformed UTF-8, SentencePiece", raw, ours.encode, sp.encode)
    ids = [[texts.random.choice([texts.random.randrange(3, 300), texts.random.randrange(3, 32000)])
            for _ in range(texts.random.randint(0, 12))] for _ in range(n)]
    compare("Phi-3 decode, SentencePiece", ids, lambda i: ours.decode(i, ALL | DROP_SPACE), lambda i: utf8(sp.decode(i)))

    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
