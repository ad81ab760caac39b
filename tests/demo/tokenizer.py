"""The demonstration model's own byte-level BPE, with the qwen2 pre-tokenizer.

`python tokenizer.py` learns the merges from generated questions and writes tokenizer.json (tokens and merges
in GPT-2 characters).  Two rules keep printed words spelled letter by letter, which a small model
learns to read much better: pieces of ASCII letters merge only onto a leading space (" circle" is one
token, "circle" is six), and the few exceptions (FIXED) start from a rare pair.
"""

import json
import os
import random
from collections import Counter

import regex

SPLIT = regex.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>",
         "<ref>", "</ref>", "<box>", "</box>"]  # fmt: skip
SYSTEM = "You are the PocketVL demonstration model."
FIXED = ["s s", "ss i", "ssi s", "a ssis", "assis t", "assist a", "assista n", "assistan t", "W h", "Wh a", "Wha t",
         "Wh e", "Whe r", "Wher e", "Wh i", "Whi c", "Whic h", "H o", "Ho w"]  # fmt: skip
PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer.json")


def byte_characters():
    """GPT-2's printable character of every byte, in the order of the vocabulary."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in keep]
    return {b: chr(b) for b in keep} | {b: chr(256 + i) for i, b in enumerate(rest)}


BYTE = byte_characters()
UNBYTE = {c: b for b, c in BYTE.items()}


class Tokenizer:
    def __init__(self, merges):
        base = list(BYTE.values())  # bytes 33..126, 161..172, 174..255, then the other 68
        self.merges = merges
        self.tokens = base + ["".join(m.split(" ")) for m in merges] + ADDED
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        assert len(self.ids) == len(self.tokens)
        self.rank = {tuple(m.split(" ")): i for i, m in enumerate(merges)}
        self.cache = {}
        self.added = regex.compile("(" + "|".join(regex.escape(t) for t in ADDED) + ")")

    def __len__(self):
        return len(self.tokens)

    def word(self, piece):
        if piece not in self.cache:
            parts = [BYTE[b] for b in piece.encode()]
            while len(parts) > 1:
                best = min(zip(parts, parts[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                if best not in self.rank:
                    break
                out, i = [], 0
                while i < len(parts):
                    if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                        out.append(parts[i] + parts[i + 1])
                        i += 2
                    else:
                        out.append(parts[i])
                        i += 1
                parts = out
            if len(self.cache) > 100000:
                self.cache.clear()
            self.cache[piece] = [self.ids[p] for p in parts]
        return self.cache[piece]

    def encode(self, text):
        out = []
        for part in self.added.split(text):
            if part in ADDED:
                out.append(self.ids[part])
            else:
                for piece in SPLIT.findall(part):
                    out += self.word(piece)
        return out

    def decode(self, ids):
        data = b"".join(t.encode() if t in ADDED else bytes(UNBYTE[c] for c in t) for t in (self.tokens[i] for i in ids))
        return data.decode("utf-8", "replace")


def learn(texts, size):
    """Merges of byte-pair encoding over the pieces of `texts`, under the rule above."""
    counts = Counter(p for t in texts for part in regex.split("|".join(regex.escape(x) for x in ADDED), t) for p in SPLIT.findall(part))
    merges = list(FIXED)
    fixed = Tokenizer(merges)
    words = []
    for piece, n in counts.items():
        words.append(([fixed.tokens[i] for i in fixed.word(piece)], n))
    known = set(fixed.tokens)
    while len(merges) < size:
        pairs = Counter()
        for parts, n in words:
            for x, y in zip(parts, parts[1:]):
                letters = (x + y).isascii() and (x + y).isalpha()
                if not letters and (x.startswith("Ġ") or not (x + y).isascii() or not any(c.isalnum() for c in x + y)):
                    pairs[x, y] += n
        pairs = Counter({p: n for p, n in pairs.items() if p[0] + p[1] not in known})
        if not pairs:
            break
        (x, y), n = min(pairs.items(), key=lambda e: (-e[1], e[0]))
        if n < 3:
            break
        merges.append(f"{x} {y}")
        known.add(x + y)
        for k, (parts, n) in enumerate(words):
            if x not in parts:
                continue
            out, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and parts[i] == x and parts[i + 1] == y:
                    out.append(x + y)
                    i += 2
                else:
                    out.append(parts[i])
                    i += 1
            words[k] = (out, n)
    return merges


def load():
    with open(PATH, encoding="utf-8") as f:
        return Tokenizer(json.load(f)["merges"])


if __name__ == "__main__":
    from draw import chart_scene, shapes_scene, text_scene
    from questions import HELLO, HONEST, KINDS, SCOPE_EN, SCOPE_ZH, ask, kinds_of

    rng = random.Random(5)
    texts = [SYSTEM, *HELLO, *HONEST, *SCOPE_EN, *SCOPE_ZH] * 12
    for i in range(900):
        scene = rng.choice([chart_scene, shapes_scene, shapes_scene, text_scene])(rng, False)[1]
        for _ in range(12):
            for kind in rng.sample(kinds_of(scene), 3):
                qa = ask(rng, scene, kind)
                if qa:
                    texts += [qa["question"], qa["answer"]]
    merges = learn(texts, 1000)
    with open(PATH, "w", encoding="utf-8") as f:
        json.dump({"merges": merges}, f, ensure_ascii=False, indent=0)
    tok = Tokenizer(merges)
    n = sum(len(tok.encode(t)) for t in texts)
    print(len(tok), "tokens;", n / len(texts), "per text;", [tok.decode([i]) for i in tok.encode(texts[-1])])
    for t in texts[:3000]:
        assert tok.decode(tok.encode(t)) == t
    for t in ["Where is the red circle?", "红色的圆形在哪里？", "<ref>red circle</ref><box>[[12, 345, 678, 1000]]</box>", 'It says "Glass".', "<|im_start|>assistant\n", "miss"]:
        print([tok.decode([i]) for i in tok.encode(t)])
