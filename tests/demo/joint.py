"""The losses of both phases, and the score on pictures that training does not draw."""

import random

import numpy as np
import torch
import torch.nn.functional as F

from draw import draw, shrink
from questions import KINDS
from rows import LENGTH, conversations, pack, right
from vision import dense_loss, normalise


def visible(seg):
    """Attention mask [B, 1, N, N] of packed rows: everybody sees the picture and the past of its own conversation."""
    same = (seg[:, :, None] == seg[:, None, :]) | (seg[:, None, :] == 0)
    past = torch.ones(LENGTH, LENGTH, dtype=torch.bool, device=seg.device).tril()
    return (same & past)[:, None]


def states(model, visual, at, ids, pos, seg, col):
    """Final hidden states that predict the learned tokens, [B, LEARNED, D]."""
    hidden = model.decode(ids.long(), visual, at, pos.long(), visible(seg))
    return hidden.gather(1, col.long()[:, :, None].expand(-1, -1, hidden.shape[2]))


def vision_losses(model, heads, at, pixels, batch):
    """The dense loss alone."""
    return dense_loss(heads, model.vision(pixels), batch["lab"], batch["box"])


def joint_losses(model, heads, at, pixels, batch, n):
    """Loss of the answers about the first n pictures of a batch plus the dense loss of all of them."""
    patches, visual = model.see(pixels)
    ids, pos, seg, col, tgt, wgt = (batch[k][:n] for k in ("ids", "pos", "seg", "col", "tgt", "wgt"))
    logits = model.head(states(model, visual[:n], at, ids, pos, seg, col)).float()
    each = F.cross_entropy(logits.flatten(0, 1), tgt.long().flatten(), reduction="none")
    wgt = wgt.float().flatten()
    answer = (each * wgt).sum() / wgt.sum()
    dense, share = dense_loss(heads, patches, batch["lab"], batch["box"])
    return answer + 0.4 * dense, share | {"answer": answer}


class Dev:
    """Pictures drawn by the held-out rules from other seeds than the held-out set, with packed questions."""

    def __init__(self, prompt, config, device, n=384, seed=77):
        rng = random.Random(seed)
        self.prompt, self.device, self.batches = prompt, device, []
        items = []
        for i in range(n):
            img, scene = draw(rng, True, ["shapes", "text", "shapes", "chart", "text", "shapes"][i % 6])
            talks = [[q] for [q, *_] in conversations(rng, scene, {"scope": 0.4})]
            items.append((shrink(img, config.image_size), pack(prompt, talks)))
        for i in range(0, n, 32):
            part = items[i : i + 32]
            rows = [torch.from_numpy(np.stack([p[0][k] for _, p in part])) for k in ("ids", "pos", "seg", "col")]
            self.batches.append((np.stack([x for x, _ in part]), rows, [p[1:] for _, p in part]))

    @torch.no_grad()
    def measure(self, model):
        """{kind: (share right, number)} with the right beginning of the answer given (cheap, close to greedy)."""
        score = {}
        for pixels, rows, asked in self.batches:
            with torch.autocast(self.device, torch.bfloat16):
                visual = model.see(normalise(torch.from_numpy(pixels).to(self.device)))[1]
                hidden = states(model, visual, self.prompt.at, *(r.to(self.device) for r in rows))
                best = model.head(hidden).argmax(-1).tolist()
            for tokens, (qas, entries) in zip(best, asked):
                for qa, where in zip(qas, entries):
                    ok = right(qa, [t for t in tokens[where] if t != self.prompt.end], self.prompt.tok)
                    a, b = score.get(qa["kind"], (0, 0))
                    score[qa["kind"]] = (a + ok, b + 1)
        return {k: (score[k][0] / score[k][1], score[k][1]) for k in KINDS if k in score}
