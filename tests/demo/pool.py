"""Training pictures, drawn by several processes while training goes on.

    python pool.py FOLDER WORKER WORKERS     draws shard WORKER, WORKER + WORKERS, ... until it is ended

A shard is one file of PER_SHARD pictures with their dense labels and ROWS packed rows of questions
each (rows.py).  Shard k is drawn from seed `1000 + k`.  Training deletes a shard once it is in
memory; a worker waits while WAITING shards are unread.  weights.json in the folder, written by
training, says how often each kind of question is asked.
"""

import glob
import json
import os
import random
import sys
import threading
import time

import numpy as np

from config import Config
from draw import dense_labels, draw, shrink
from questions import KINDS
from rows import Prompt, training_row
from tokenizer import load

PER_SHARD = 200
ROWS = 3
WAITING = 60
TYPES = ["shapes", "text", "chart", "page"]
SHARES = [0.38, 0.34, 0.18, 0.10]


def make_shard(k, prompt, config, weights):
    """{name: array} of one shard."""
    rng = random.Random(1000 + k)
    np.random.seed(1000 + k)
    out = {name: [] for name in ("kind", "pix", "lab", "box")}
    rows = []
    for kind in rng.choices(TYPES, SHARES, k=PER_SHARD):
        picture, scene = draw(rng, kind=kind)
        lab, box = dense_labels(scene, config.grid)
        for name, value in (("kind", TYPES.index(kind)), ("pix", shrink(picture, config.image_size)), ("lab", lab), ("box", box)):
            out[name].append(value)
        rows.append([training_row(prompt, rng, scene, weights) for _ in range(ROWS)])
    out = {name: np.stack(part) for name, part in out.items()}
    return out | {name: np.stack([[r[name] for r in several] for several in rows]) for name in rows[0][0]}


class Ring:
    """The newest pictures, on the training device; a thread of its own takes up new shards."""

    def __init__(self, folder, device, pictures):
        self.folder, self.device = folder, device
        self.size = pictures // PER_SHARD * PER_SHARD
        self.kind = np.full(self.size, 255, np.uint8)
        self.data, self.taken, self.lock = {}, 0, threading.Lock()
        threading.Thread(target=self.watch, daemon=True).start()

    def watch(self):
        while True:
            for name in sorted(glob.glob(os.path.join(self.folder, "*.npz"))):
                with np.load(name) as f:
                    self.take({key: f[key] for key in f.files})
                os.remove(name)
            time.sleep(0.1)

    def take(self, arrays):
        import torch

        kind = arrays.pop("kind")
        fresh = {key: torch.from_numpy(a).to(self.device) for key, a in arrays.items()}
        with self.lock:
            at = self.taken % self.size
            for key, new in fresh.items():
                if key not in self.data:
                    self.data[key] = torch.empty((self.size, *new.shape[1:]), dtype=new.dtype, device=self.device)
                self.data[key][at : at + PER_SHARD].copy_(new)
            self.kind[at : at + PER_SHARD] = kind
            self.taken += PER_SHARD

    def sample(self, rng, counts):
        """{name: tensor} of counts[t] pictures of every type t, in that order, with one packed row each."""
        import torch

        with self.lock:
            picks = np.concatenate([rng.choice(np.flatnonzero(self.kind == t), n) for t, n in enumerate(counts)])
            picks = torch.from_numpy(picks).to(self.device)
            row = int(rng.integers(ROWS))
            return {key: a[picks] if key in ("pix", "lab", "box") else a[picks, row] for key, a in self.data.items()}


def main():
    folder, worker, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.makedirs(folder, exist_ok=True)
    os.nice(10)  # training goes first
    tok = load()
    config = Config(vocab=len(tok))
    prompt, k = Prompt(tok, config), worker
    while True:
        while len(glob.glob(os.path.join(folder, "*.npz"))) >= WAITING:
            time.sleep(0.5)
        weights = {kind: 1.0 for kind in KINDS} | {"scope": 0.25}
        try:
            with open(os.path.join(folder, "weights.json")) as f:
                weights |= json.load(f)
        except (OSError, ValueError):
            pass
        part = os.path.join(folder, f"{k:06d}.part")
        with open(part, "wb") as f:
            np.savez(f, **make_shard(k, prompt, config, weights))
        os.rename(part, part.replace(".part", ".npz"))  # the shard exists from here on
        k += workers


if __name__ == "__main__":
    main()
