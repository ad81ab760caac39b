"""Pixels and dense labels: what the vision tower learns from, before and beside the questions.

A small tower learns to see far faster from "at this patch there is the letter K, second of five"
than from the few answer tokens of a conversation.  The heads are dropped afterwards.
"""

import torch
import torch.nn.functional as F

from draw import AUX, AUX_KEYS

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# How much a patch with class 0 ("nothing here") counts; where a key is missing it is not asked there.
BACKGROUND = {"cls": 0.3, "col": 0.3, "ch": 0.15, "idx": 0.15, "ctr": 0.3}
WEIGHT = {"cls": 1.0, "col": 1.0, "ch": 2.0, "idx": 1.0, "ctr": 0.5, "all": 0.3, "same_shape": 0.3, "same_col": 0.3,
          "val": 0.5, "rank": 0.3, "label": 0.3, "bars": 0.2}  # fmt: skip


def normalise(pix, spoil=False):
    """uint8 [B, S, S, 3] -> normalised float [B, 3, S, S]; `spoil` varies light and noise."""
    x = torch.as_tensor(pix).permute(0, 3, 1, 2).float() / 255
    if spoil:
        b = x.shape[0]

        def rand(*shape):
            return torch.rand(*shape, device=x.device)

        x = x * (1 + 0.14 * (rand(b, 1, 1, 1) - 0.5) + 0.06 * (rand(b, 3, 1, 1) - 0.5)) + 0.08 * (rand(b, 1, 1, 1) - 0.5)
        level = 0.06 * rand(b, 1, 1, 1) * (rand(b, 1, 1, 1) < 0.4)
        x = (x + level * torch.randn_like(x)).clamp(0, 1)
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (x - mean) / std


def dense_loss(heads, patches, lab, box):
    """Sum of weighted losses, and the share of right classes where something is drawn, per key."""
    b, n, _ = patches.shape
    out = heads(patches)
    lab = lab.long().view(b, len(AUX_KEYS), n)
    total, share = 0.0, {}
    for i, key in enumerate(AUX_KEYS):
        y = lab[:, i].reshape(-1)
        z = out[key].reshape(-1, AUX[key]).float()
        on = (y > 0).float()
        w = on + (1 - on) * BACKGROUND.get(key, 0.0)
        total = total + WEIGHT[key] * (F.cross_entropy(z, y, reduction="none") * w).sum() / w.sum().clamp(min=1)
        share[key] = ((z.argmax(-1) == y) * on).sum() / on.sum().clamp(min=1)
    boxes = box.float().view(b, 4, n).transpose(1, 2)
    on = (boxes.abs().sum(-1) > 0).float()
    miss = ((out["box"].float() - boxes).abs().mean(-1) * on).sum() / on.sum().clamp(min=1)
    return total + 4.0 * miss, share | {"box": miss}
