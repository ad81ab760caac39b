"""The pool of training pictures: a process draws shard after shard while training goes on.

A shard is one .npz-like trio in the pool folder: N-pix.npy (uint8 [P, S, S, 3]), N-lab.npy
(uint8 [P, keys, G, G]), N-box.npy (float16 [P, 4, G, G]) and N-scene.pkl (list of scenes).
Shard k is drawn from seed `1000 + k`, so the pool is the same on every machine with the same fonts.
"""

import glob
import os
import pickle
import random
import sys

import numpy as np

from draw import dense_labels, draw, shrink

PER_SHARD = 500


def make_shard(folder, k, size=168, grid=12):
    rng = random.Random(1000 + k)
    np.random.seed(1000 + k)
    pix = np.empty((PER_SHARD, size, size, 3), np.uint8)
    lab, box, scenes = [], [], []
    for i in range(PER_SHARD):
        picture, scene = draw(rng)
        pix[i] = shrink(picture, size)
        a, b = dense_labels(scene, grid)
        lab.append(a)
        box.append(b)
        scenes.append(scene)
    base = os.path.join(folder, f"{k:04d}")
    np.save(base + "-pix.npy", pix)
    np.save(base + "-lab.npy", np.stack(lab))
    np.save(base + "-box.npy", np.stack(box))
    with open(base + "-scene.tmp", "wb") as f:
        pickle.dump(scenes, f)
    os.rename(base + "-scene.tmp", base + "-scene.pkl")  # the shard exists from here on


class Pool:
    """All finished shards, memory mapped; `refresh` finds new ones."""

    def __init__(self, folder):
        self.folder, self.shards = folder, []
        self.refresh()

    def refresh(self):
        names = sorted(glob.glob(os.path.join(self.folder, "*-scene.pkl")))
        for name in names[len(self.shards) :]:
            base = name[: -len("-scene.pkl")]
            with open(name, "rb") as f:
                scenes = pickle.load(f)
            arrays = [np.load(base + f"-{part}.npy", mmap_mode="r") for part in ("pix", "lab", "box")]
            self.shards.append((*arrays, scenes))

    def __len__(self):
        return len(self.shards) * PER_SHARD

    def sample(self, rng, n, types=None):
        """n pictures: uint8 [n, S, S, 3], labels, boxes, scenes; `types` gives shares of the kinds of scene."""
        picks = []
        while len(picks) < n:
            want = rng.choices(list(types), list(types.values()))[0] if types else None
            while True:
                shard, i = rng.choice(self.shards), rng.randrange(PER_SHARD)
                if not want or shard[3][i]["type"] == want:
                    break
            picks.append((shard, i))
        return (*(np.stack([s[part][i] for s, i in picks]) for part in range(3)), [s[3][i] for s, i in picks])


if __name__ == "__main__":  # python pool.py FOLDER FIRST COUNT
    folder, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.makedirs(folder, exist_ok=True)
    os.nice(10)  # training goes first
    for k in range(first, first + count):
        if not os.path.exists(os.path.join(folder, f"{k:04d}-scene.pkl")):
            make_shard(folder, k)
