"""Second phase of training: pictures, questions and answers.

Many questions share one picture: a row is [system, picture][question 1, answer 1][question 2, answer 2]... and
the attention mask lets every conversation see the picture and itself only, at the positions that it would have
alone.  So each question trains exactly what a first turn sees, and the picture is looked at once.  Some
conversations have several turns; some rows hide the picture, which makes them conversations without one.
"""

import json
import os
import random
import re
import time

import numpy as np
import torch
import torch.nn.functional as F

from draw import draw, shrink
from questions import KINDS, ask, chat, kinds_of
from tokenizer import SYSTEM
from vision import dense_loss, normalise

LENGTH = 208  # tokens of a row


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


def pack(prompt, rows, length=LENGTH):
    """rows: [(list of conversations, each a list of qa; hide picture?)] -> arrays of a batch.

    ids, positions, mask, and for every answer token that is learned: row, column (of the state
    that predicts it), target, weight, and the running number of its question.
    """
    p = len(prompt.prefix)
    b = len(rows)
    ids = np.full((b, length), prompt.end, np.int64)
    pos = np.zeros((b, length), np.int64)
    seg = np.full((b, length), -1, np.int16)
    hide = np.zeros((b, length), bool)
    ids[:, :p] = prompt.prefix
    pos[:, :p] = np.arange(p)
    seg[:, :p] = 0
    where, qas = [], []
    for r, (talks, blind) in enumerate(rows):
        start = len(prompt.system) if blind else p
        if blind:
            hide[r, len(prompt.system) : p] = True
        at = p
        for s, talk in enumerate(talks):
            line, spans = [], []
            for qa in talk:
                if line:
                    line += prompt.user
                turn, first = prompt.turn(qa)
                spans.append((len(line) + first, len(line) + len(turn), qa))
                line += turn
            if at + len(line) > length:
                continue
            ids[r, at : at + len(line)] = line
            pos[r, at : at + len(line)] = np.arange(start, start + len(line))
            seg[r, at : at + len(line)] = s + 1
            for first, last, qa in spans:
                w = (last - first) ** -0.5
                where += [(r, at + i - 1, line[i], w, len(qas)) for i in range(first, last)]
                qas.append(qa)
            at += len(line)
    same = (seg[:, :, None] == seg[:, None, :]) | ((seg == 0) & ~hide)[:, None, :]
    mask = same & np.tri(length, dtype=bool)
    cols = list(zip(*where))
    target = [torch.tensor(c) for c in cols]
    return torch.from_numpy(ids), torch.from_numpy(pos), torch.from_numpy(mask)[:, None], target, qas


def conversations(rng, scene, weights, n=10):
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


def answers(model, hidden, target):
    """Logits of the learned positions."""
    return model.head(hidden[target[0], target[1]])


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


class Dev:
    """Pictures drawn by the held-out rules from other seeds than the held-out set, with packed questions."""

    def __init__(self, prompt, config, n=256, seed=77):
        rng = random.Random(seed)
        self.prompt, self.batches = prompt, []
        items = []
        for i in range(n):
            img, scene = draw(rng, True, ["shapes", "text", "shapes", "chart", "text", "shapes"][i % 6])
            items.append((shrink(img, config.image_size), scene))
        for i in range(0, n, 16):
            part = items[i : i + 16]
            rows = [([[q] for [q, *_] in conversations(rng, s, {"scope": 0.4})], False) for _, s in part]
            self.batches.append((normalise(np.stack([x for x, _ in part])), pack(prompt, rows)))

    @torch.no_grad()
    def measure(self, model, decode=None, see=None):
        """{kind: (share right, number)} with the right beginning of the answer given (cheap, close to greedy)."""
        score = {}
        for pixels, (ids, pos, mask, target, qas) in self.batches:
            with torch.autocast("cpu", torch.bfloat16):
                visual = (see or model.see)(pixels)[1]
                hidden = (decode or model.decode)(ids, visual, self.prompt.at, pos, mask)
            best = answers(model, hidden.float(), target).argmax(-1)
            for n, qa in enumerate(qas):
                got = best[target[4] == n].tolist()
                ok = right(qa, [t for t in got if t != self.prompt.end], self.prompt.tok)
                a, b = score.get(qa["kind"], (0, 0))
                score[qa["kind"]] = (a + ok, b + 1)
        return {k: (score[k][0] / score[k][1], score[k][1]) for k in KINDS if k in score}


class Swap:
    """Puts the averaged weights into the model for a while."""

    def __init__(self, run):
        self.run = run

    def __enter__(self):
        self.keep = {k: v.detach().clone() for k, v in self.run.model.state_dict().items()}
        self.run.model.load_state_dict(self.run.average.state)

    def __exit__(self, *_):
        self.run.model.load_state_dict(self.keep)


def factor(done, warm):
    """Learning rate over the share of the phase that is done: flat, then straight down from 45%."""
    return warm * min(1.0, max(0.02, (1 - done) / 0.55))


def joint_phase(run, pool, tok, path, minutes, batch=16, extra=8):
    """Trains everything until `minutes` have passed; `extra` pictures a step only teach the vision tower."""
    model, prompt = run.model, Prompt(tok, run.model.c)
    run.begin = run.seconds if run.begin is None else run.begin
    dev = Dev(prompt, model.c)
    see, decode = torch.compile(model.see), torch.compile(model.decode)
    rng, gen = random.Random(run.step), torch.Generator().manual_seed(run.step)
    kinds = {k: 1.0 for k in KINDS} | {"scope": 0.25}
    types = {"shapes": 0.42, "text": 0.36, "chart": 0.22}
    pages = {"page": 0.7, "shapes": 0.3}
    control = path.replace("last.pt", "control.json")  # may steer a run: {"types": {}, "kinds": {}, "minutes": n, "aux": w, "lr": x}
    aux, first, started = 0.4, run.step, time.time()
    sums, count, mark, measured = {}, 0, time.time(), time.time()
    weak = {}
    while run.seconds < 60 * minutes:
        t0 = time.time()
        pix, lab, box, scenes = pool.sample(rng, batch, types)
        more = pool.sample(rng, extra, pages)
        pix, lab, box = (np.concatenate(pair) for pair in zip((pix, lab, box), more))
        weights = {k: kinds[k] * weak.get(k, 1.0) for k in KINDS}
        rows = []
        for scene in scenes:
            blind = rng.random() < 0.03
            rows.append(([[chat(rng)] for _ in range(8)] if blind else conversations(rng, scene, weights), blind))
        ids, pos, mask, target, qas = pack(prompt, rows)
        with torch.autocast("cpu", torch.bfloat16):
            patches, visual = see(normalise(pix, gen))
            hidden = decode(ids, visual[:batch], prompt.at, pos, mask)
            logits = answers(model, hidden, target)
            dense, acc = dense_loss(run.heads, patches, lab, box)
        each = F.cross_entropy(logits.float(), target[2], reduction="none")
        loss = (each * target[3]).sum() / target[3].sum()
        (loss + aux * dense).backward()
        done = (run.seconds - run.begin) / (60 * minutes - run.begin)
        run.update(factor(done, min(1.0, (run.step - first + 1) / 100)))
        for k, v in {"lm": loss.item(), "dense": dense.item(), "ch": acc.get("ch"), "idx": acc.get("idx"), "cls": acc.get("cls")}.items():
            if v is not None:
                sums.setdefault(k, []).append(v)
        count += 1
        run.seconds += min(time.time() - t0, 60)
        now = time.time()
        if now - mark > 60:
            line = " ".join(f"{k} {sum(v) / len(v):.3f}" for k, v in sums.items())
            print(f"[{time.strftime('%H:%M')}] joint {run.seconds / 60:.1f} min step {run.step} {count * batch / (now - mark):.1f}/s qa {len(qas)} | {line}", flush=True)  # fmt: skip
            sums, count, mark = {}, 0, now
            pool.refresh()
            run.save(path)
            if os.path.exists(control):
                with open(control) as f:
                    c = json.load(f)
                types, aux, minutes, run.lr = c.get("types", types), c.get("aux", aux), c.get("minutes", minutes), c.get("lr", run.lr)
                kinds = kinds | c.get("kinds", {})
        if now - measured > (360 if now - started > 400 else 180):
            with Swap(run):
                score = dev.measure(model, decode, see)
            weak = {k: 0.5 + 2.0 * (1 - v) for k, (v, _) in score.items() if k != "scope"}
            total = sum(v * n for v, n in score.values()) / sum(n for _, n in score.values())
            print(f"[{time.strftime('%H:%M')}] dev {total:.3f} | " + " ".join(f"{k} {v:.2f}/{n}" for k, (v, n) in score.items()), flush=True)
            measured = mark = time.time()
    run.save(path)
    with Swap(run):
        print("dev at the end:", dev.measure(model, decode, see), flush=True)
