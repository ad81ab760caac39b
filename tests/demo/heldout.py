"""The held-out set: draws it, and measures a model file on it in PyTorch.

    python tests/demo/heldout.py make                 writes tests/demo/heldout/
    python tests/demo/heldout.py measure [FILE.gguf]  accuracy per kind, greedy, dequantized weights

Pictures and questions come from seeds that training does not use and from the held-out bands of
colour, size, font and word in draw.py (`HELD`).
"""

import io
import json
import os
import random
import sys

import numpy as np
import torch
from PIL import Image

from draw import draw, shrink
from joint import states
from questions import KINDS, ask, kinds_of, scope
from rows import Prompt, pack, right
from vision import normalise

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "heldout")
MODEL = os.path.join(HERE, "..", "..", "web", "models", "demo", "pocketvl-demo.gguf")


def save_small(img, base):
    """PNG where that is small, else JPEG; returns the file name."""
    data = {}
    for ext, kind, more in (("png", "PNG", {"optimize": True}), ("jpg", "JPEG", {"quality": 86})):
        f = io.BytesIO()
        img.save(f, kind, **more)
        data[ext] = f.getvalue()
    ext = "png" if len(data["png"]) < 9000 or len(data["png"]) < len(data["jpg"]) else "jpg"
    with open(f"{base}.{ext}", "wb") as f:
        f.write(data[ext])
    return f"{os.path.basename(base)}.{ext}"


def make(pictures=270, each=100):
    os.makedirs(FOLDER, exist_ok=True)
    for name in os.listdir(FOLDER):
        os.remove(os.path.join(FOLDER, name))
    rng = random.Random(20_000_001)
    items = []
    for i in range(pictures):
        kind = ["shapes", "text", "shapes", "chart", "text", "shapes"][i % 6]
        img, scene = draw(rng, True, kind)
        items.append((save_small(img, os.path.join(FOLDER, f"{i:03d}")), scene, set()))
    lines, done = [], {k: 0 for k in KINDS}
    for turn in range(10):
        for name, scene, asked in items:
            kinds = [k for k in kinds_of(scene) if done[k] < each]
            if not kinds:
                continue
            kind = min(kinds, key=lambda k: done[k])
            zh = rng.random() < 0.4
            if kind == "scope" and rng.random() < 0.25:
                qa = scope(rng, scene, int(zh), held=True)
            else:
                qa = ask(rng, scene, kind, zh)
            if not qa or qa["question"] in asked or (kind == "box" and not big_enough(qa, scene)):
                continue
            asked.add(qa["question"])
            done[kind] += 1
            lines.append({"id": f"q{len(lines):04d}", "image": name, **qa})
    with open(os.path.join(FOLDER, "questions.jsonl"), "w", encoding="utf-8") as f:
        for line in lines:
            f.write(json.dumps(line, ensure_ascii=False) + "\n")
    size = sum(os.path.getsize(os.path.join(FOLDER, n)) for n in os.listdir(FOLDER))
    print(len(items), "pictures,", len(lines), "questions,", size, "bytes;", done)


def big_enough(qa, scene):
    """Boxes thinner than 2% of the picture have no fair IoU."""
    return all(b[2] - b[0] >= 20 and b[3] - b[1] >= 20 for b in qa["boxes"])


@torch.no_grad()
def answer(model, prompt, visual, questions, most=72):
    """Greedy answers (token lists) to questions about pictures; visual [B, tokens, D]."""
    heads = [prompt.tok.encode(q) + prompt.reply for q in questions]
    out = [None] * len(heads)
    for n in sorted({len(h) for h in heads}):  # rows of equal length together, so that no padding is needed
        rows = [i for i, h in enumerate(heads) if len(h) == n]
        ids = torch.tensor([prompt.prefix + heads[i] for i in rows])
        live, texts = list(range(len(rows))), [[] for _ in rows]
        for _ in range(most):
            pos = torch.arange(ids.shape[1])[None].expand(len(live), -1)
            h = model.decode(ids, visual[[rows[i] for i in live]], prompt.at, pos, None)[:, -1]
            best = model.head(h).argmax(-1)
            keep = [j for j in range(len(live)) if best[j] != prompt.end]
            for j in keep:
                texts[live[j]].append(int(best[j]))
            if not keep:
                break
            ids = torch.cat([ids[keep], best[keep, None]], 1)
            live = [live[j] for j in keep]
        for i, t in zip(rows, texts):
            out[i] = t
    return out


@torch.no_grad()
def measure(path, show=True):
    from export import load

    model, tok = load(path)
    prompt = Prompt(tok, model.c)
    with open(os.path.join(FOLDER, "questions.jsonl"), encoding="utf-8") as f:
        lines = [json.loads(line) for line in f]
    names = sorted({q["image"] for q in lines})
    pix = [shrink(Image.open(os.path.join(FOLDER, n)), model.c.image_size) for n in names]
    seen = torch.cat([model.see(normalise(np.stack(pix[i : i + 16])))[1] for i in range(0, len(pix), 16)])
    score, wrong, done = {}, [], {}
    # Where every step of the expected answer is the likeliest one, greedy decoding gives just that answer;
    # the others are decoded in earnest.
    for i in range(0, len(lines), 32):
        part = lines[i : i + 32]
        packed = [pack(prompt, [[q]]) for q in part]
        rows = [torch.from_numpy(np.stack([p[0][k] for p in packed])) for k in ("ids", "pos", "seg", "col")]
        best = model.head(states(model, seen[[names.index(q["image"]) for q in part]], prompt.at, *rows)).argmax(-1).numpy()
        for qa, got, (row, _, [where]) in zip(part, best, packed):
            if (got[where] == row["tgt"][where]).all():
                done[qa["id"]] = row["tgt"][where].tolist()[:-1]
    rest = sorted((q for q in lines if q["id"] not in done), key=lambda q: len(tok.encode(q["question"])))
    for i in range(0, len(rest), 64):
        part = rest[i : i + 64]
        visual = seen[[names.index(q["image"]) for q in part]]
        for qa, got in zip(part, answer(model, prompt, visual, [q["question"] for q in part])):
            done[qa["id"]] = got
    for qa in lines:
        got = done[qa["id"]]
        ok = right(qa, got, tok)
        for key in (qa["kind"], qa["lang"], "all"):
            a, b = score.get(key, (0, 0))
            score[key] = (a + ok, b + 1)
        if not ok:
            wrong.append((qa["kind"], qa["image"], qa["question"], qa["answer"], tok.decode(got)))
    if show:
        for w in sorted(wrong)[:: max(1, len(wrong) // 60)]:
            print(*w, sep=" | ")
    for k in [*KINDS, "en", "zh", "all"]:
        print(f"{k:9s} {score[k][0]:4d} / {score[k][1]:4d} = {100 * score[k][0] / score[k][1]:.1f}%")
    return score


if __name__ == "__main__":
    torch.set_num_threads(2)
    if sys.argv[1] == "make":
        make()
    else:
        measure(sys.argv[2] if len(sys.argv) > 2 else MODEL)
