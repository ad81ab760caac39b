"""First phase of training: the vision tower alone, on dense labels of every patch.

A small tower learns to see far faster from "at this patch there is the letter K, second of five"
than from the few answer tokens of a conversation.  The heads are dropped afterwards.
"""

import torch
import torch.nn.functional as F

from draw import AUX, AUX_KEYS

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

# How much a patch with class 0 ("nothing here") counts; 0 = not asked there.
BACKGROUND = {"cls": 0.3, "col": 0.3, "ch": 0.15, "idx": 0.15, "ctr": 0.3}
WEIGHT = {"cls": 1.0, "col": 1.0, "ch": 2.0, "idx": 1.0, "ctr": 0.5, "all": 0.3, "same_shape": 0.3, "same_col": 0.3,
          "val": 0.5, "rank": 0.3, "label": 0.3, "bars": 0.2}  # fmt: skip


def normalise(pix, generator=None):
    """uint8 [B, S, S, 3] -> normalised float [B, 3, S, S]; with a generator, light and noise vary."""
    x = torch.tensor(pix).permute(0, 3, 1, 2).float().div_(255)
    if generator is not None:
        b = x.shape[0]

        def rand(*shape):
            return torch.rand(*shape, generator=generator)

        x.mul_(1 + 0.14 * (rand(b, 1, 1, 1) - 0.5) + 0.06 * (rand(b, 3, 1, 1) - 0.5)).add_(0.08 * (rand(b, 1, 1, 1) - 0.5))
        level = (0.06 * rand(b) * (rand(b) < 0.4)).tolist()
        for i, s in enumerate(level):
            if s:
                x[i].add_(torch.randn(x.shape[1:], generator=generator), alpha=s)
        x.clamp_(0, 1)
    return (x - MEAN) / STD


def dense_loss(heads, patches, lab, box):
    """Sum of weighted losses and a dict of accuracies where something is drawn."""
    b, n, _ = patches.shape
    out = heads(patches)
    lab = torch.from_numpy(lab).long().view(b, len(AUX_KEYS), n)
    total, acc = 0.0, {}
    for i, key in enumerate(AUX_KEYS):
        y = lab[:, i].reshape(-1)
        z = out[key].reshape(-1, AUX[key])
        on = y > 0
        if key not in BACKGROUND:
            z, y, on = z[on], y[on], on[on]
            if not len(y):
                continue
            loss = F.cross_entropy(z.float(), y)
        else:
            w = torch.where(on, 1.0, BACKGROUND[key])
            loss = (F.cross_entropy(z.float(), y, reduction="none") * w).sum() / w.sum()
        total = total + WEIGHT[key] * loss
        if on.any():
            acc[key] = (z.detach().argmax(-1) == y)[on].float().mean().item()
    boxes = torch.from_numpy(box).float().view(b, 4, n).transpose(1, 2)
    on = boxes.abs().sum(-1) > 0
    if on.any():
        miss = (out["box"].float() - boxes)[on].abs()
        total = total + 4.0 * miss.mean()
        acc["box_l1"] = miss.detach().mean().item()
    return total, acc
