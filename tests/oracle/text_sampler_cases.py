"""Writes tests/fixtures/text/sampler.tsv: tokens that the sampler must draw, by transformers' own processors.

    pip install torch transformers
    python tests/oracle/text_sampler_cases.py > tests/fixtures/text/sampler.tsv

Which ids stay, and the penalty, come from RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper
and TopPLogitsWarper; the draw is stated here once more: xoshiro256** seeded through splitmix64, ids by falling score
(lower id first among equals) where something is cut, by rising position from the end where nothing is.
Columns: temperature, top_k, top_p, penalty, seed, history, logits (float32 bits, hexadecimal), drawn tokens.
"""

import random

import numpy as np
import torch
from transformers import (RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper,
                          TopPLogitsWarper)

MASK = (1 << 64) - 1
DRAWS = 24


class Xoshiro:
    def __init__(self, seed):
        self.s = []
        for _ in range(4):
            seed = seed + 0x9E3779B97F4A7C15 & MASK
            z = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & MASK
            z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
            self.s.append(z ^ z >> 31)

    def uniform(self):
        s, rotl = self.s, lambda x, k: (x << k | x >> 64 - k) & MASK
        result, t = rotl(s[1] * 5 & MASK, 7) * 9 & MASK, s[1] << 17 & MASK
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= t
        s[3] = rotl(s[3], 45)
        return (result >> 11) * 2.0**-53


def kept_ids(logits, history, temperature, top_k, top_p, penalty):
    ids, scores = torch.tensor([history], dtype=torch.long), torch.tensor(logits)[None]
    if penalty != 1:
        scores = RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
    penalized = scores[0].numpy().copy()
    scores = TemperatureLogitsWarper(temperature)(ids, scores)
    if top_k:
        scores = TopKLogitsWarper(min(top_k, len(logits)))(ids, scores)
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(ids, scores)
    return penalized, torch.softmax(scores[0], -1).numpy(), [i for i in range(len(logits)) if scores[0, i] > -np.inf]


def main():
    rng = random.Random(7)
    for case in range(120):
        n = rng.choice([1, 2, 5, 17, 64, 300])
        logits = np.float32(np.random.default_rng(case).normal(0, rng.choice([1, 4]), n))
        if case % 3 == 0:
            logits = np.float32(np.round(logits))  # many equals
        history = [rng.randrange(n) for _ in range(rng.choice([0, 3, 30]))]
        temperature = rng.choice([0.2, 0.7, 1.0, 1.5])
        top_k = rng.choice([0, 0, 1, 3, 10, 1000])
        # Among equals at the edge, top-p of torch depends on its sort: with equals only top-k is compared.
        top_p = 1.0 if case % 3 == 0 else rng.choice([1.0, 0.05, 0.5, 0.9, 0.99])
        penalty = rng.choice([1.0, 1.1, 2.0, 0.5])
        penalized, theirs, kept = kept_ids(logits, history, temperature, top_k, top_p, penalty)
        if top_p < 1 or 0 < top_k < n:
            order = sorted(kept, key=lambda i: (-penalized[i], i))
        else:
            order = sorted(kept, reverse=True)
        temperature32 = float(np.float32(temperature))
        weights = [float(np.exp((float(penalized[i]) - float(max(penalized))) / temperature32)) for i in order]
        total = sum(weights)
        assert all(abs(w / total - theirs[i]) < 1e-4 for w, i in zip(weights, order))
        seed = rng.randrange(1 << 64)
        random_numbers, drawn = Xoshiro(seed), []
        for _ in range(DRAWS):
            goal, gathered = random_numbers.uniform() * total, 0.0
            for w, i in zip(weights, order):
                gathered += w
                if gathered > goal:
                    break
            drawn.append(i)
        print(temperature, top_k, top_p, penalty, seed, " ".join(map(str, history)) or "-",
              " ".join(f"{b:08x}" for b in logits.view(np.uint32)), " ".join(map(str, drawn)), sep="\t")


if __name__ == "__main__":
    main()
