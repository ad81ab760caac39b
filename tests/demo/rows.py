"""Conversations about a picture, packed into the rows that the joint phase trains on (no PyTorch here).

Many questions share one picture: a row is [system, picture][question 1, answer 1][question 2, answer 2]... and
the attention mask lets every conversation see the picture and itself only, at the positions that it would have
alone.  So each question trains exactly what a first turn sees, and the picture is looked at once.  Some
conversations have several turns; some rows hide the picture, which makes them conversations without one.
"""

import re

import numpy as np

from questions import ask, chat, kinds_of
from tokenizer import SYSTEM

LENGTH = 256  # tokens of a row
LEARNED = 96  # answer tokens of a row, at most


class Prompt:
    """Token ids of the fixed parts of a conversation (template hermes-2)."""

    def __init__(self, tok, config):
        e = tok.encode
        self.tok = tok
        self.end, self.start = e("<|im_end|>")[0], e("<|im_start|>")[0]
        self.system = e(f"<|im_start|>system\n{SYSTEM}<|im_end|><|im_start|>user\n")
        self.picture = e("<img>" + "<IMG_CONTEXT>" * config.tokens + "</img>\n")
        self.prefix = self.system + self.picture
        self.at = len(self.system) + 1  # index of the first visual token
        self.reply = e("<|im_end|><|im_start|>assistant\n")
        self.user = e("<|im_start|>user\n")

    def turn(self, qa):
        """(ids, index of the first answer token) of one question and answer."""
        head = self.tok.encode(qa["question"]) + self.reply
        return head + self.tok.encode(qa["answer"]) + [self.end], len(head)


def pack(prompt, talks, blind=False):
    """Conversations (lists of qa) -> ({name: array} of one row, [qa of each learned answer], [its entries]).

    ids, pos    tokens and their positions
    seg         conversation of every token: 0 the system and the picture, -1 what nobody sees
    col         of every learned token: the column of the state that predicts it
    tgt, wgt    the token, and how much it counts (0: no entry)
    """
    p = len(prompt.prefix)
    out = {"ids": np.full(LENGTH, prompt.end, np.int16), "pos": np.zeros(LENGTH, np.int16), "seg": np.full(LENGTH, -1, np.int8),
           "col": np.zeros(LEARNED, np.uint8), "tgt": np.zeros(LEARNED, np.int16), "wgt": np.zeros(LEARNED, np.float16)}  # fmt: skip
    out["ids"][:p] = prompt.prefix
    out["pos"][:p] = np.arange(p)
    out["seg"][:p] = 0
    if blind:
        out["seg"][len(prompt.system) : p] = -1
    qas, entries = [], []
    start, at, n = len(prompt.system) if blind else p, p, 0
    for s, talk in enumerate(talks):
        line, spans = [], []
        for qa in talk:
            if line:
                line += prompt.user
            turn, first = prompt.turn(qa)
            spans.append((len(line) + first, len(line) + len(turn), qa))
            line += turn
        if at + len(line) > LENGTH or n + sum(last - first for first, last, _ in spans) > LEARNED:
            continue
        here = slice(at, at + len(line))
        out["ids"][here] = line
        out["pos"][here] = np.arange(start, start + len(line))
        out["seg"][here] = s + 1
        for first, last, qa in spans:
            m = last - first
            out["col"][n : n + m] = np.arange(at + first - 1, at + last - 1)
            out["tgt"][n : n + m] = line[first:last]
            out["wgt"][n : n + m] = m**-0.5
            qas.append(qa)
            entries.append(slice(n, n + m))
            n += m
        at += len(line)
    return out, qas, entries


def conversations(rng, scene, weights, n=12):
    """Conversations about a scene, until a row is surely full."""
    kinds = kinds_of(scene)
    w = [weights.get(k, 1.0) for k in kinds]
    out = []
    many = rng.random() < 0.2
    for _ in range(n):
        talk = []
        for _ in range(rng.choice([2, 3]) if many and rng.random() < 0.5 else 1):
            qa = ask(rng, scene, rng.choices(kinds, w)[0])
            if qa:
                talk.append(qa)
        if talk:
            out.append(talk)
    return out


def training_row(prompt, rng, scene, weights):
    """A packed row about a scene; now and then one whose picture is hidden.  Nothing is asked of a page."""
    if scene["type"] == "page":
        return pack(prompt, [])[0]
    if rng.random() < 0.03:
        return pack(prompt, [[chat(rng)] for _ in range(8)], blind=True)[0]
    return pack(prompt, conversations(rng, scene, weights))[0]


def right(qa, tokens, tok):
    """Is this answer right?  The rule of the held-out set."""
    text = tok.decode(tokens).strip()
    if "boxes" in qa:
        found = [list(map(int, m)) for m in re.findall(r"\[(\d+), (\d+), (\d+), (\d+)\]", text)]
        return len(found) == len(qa["boxes"]) and all(iou(f, g) >= 0.5 for f, g in zip(found, qa["boxes"]))
    if "must" in qa:
        return all(m.lower() in text.lower() for m in qa["must"])

    def plain(s):
        return s.strip().lower().rstrip(".!?。！？").strip()

    return plain(text) in [plain(s) for s in qa["accept"]]


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0, w) * max(0, h)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0
