"""Trains the demonstration model on two CPU threads.

    python tests/demo/train.py --work FOLDER [--vision-minutes 40] [--minutes 180]

Draws its own pictures (in a second process, while it trains), learns to see from dense labels, then
to answer, and leaves FOLDER/last.pt; `export.py` makes the GGUF of it.  Interrupted, it goes on where
it was.  The learning rate follows the clock, so the result depends on the speed of the machine.
Packages: torch, numpy, pillow, regex (export: gguf; parity: transformers).
"""

import argparse
import os
import random
import subprocess
import sys
import time

import torch

from draw import AUX
from model import AuxHeads, Config, PocketVL
from pool import Pool
from vision import dense_loss, normalise


def optimisers(model, heads, lr):
    """Muon for the matrices of the blocks, AdamW for everything else."""
    muon, rest, gentle = [], [], []
    for name, p in model.named_parameters():
        matrix = p.dim() == 2 and ("blocks" in name or "projector" in name)
        (muon if matrix else gentle if "vision.patch" in name else rest).append(p)
    rest += list(heads.parameters())
    groups = [{"params": rest, "share": 1.0}, {"params": gentle, "share": 0.1}]
    return [
        torch.optim.Muon(muon, lr=2 * lr, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw", ns_steps=3),
        torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), weight_decay=0.01),
    ]


class Average:
    """Moving average of the weights; this is what is measured and shipped."""

    def __init__(self, model, decay=0.998):
        self.decay, self.n = decay, 0
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model):
        self.n += 1
        d = min(self.decay, (1 + self.n) / (10 + self.n))
        keys = list(self.state)
        now = model.state_dict()
        torch._foreach_lerp_([self.state[k] for k in keys], [now[k] for k in keys], 1 - d)


class Run:
    """Everything that a checkpoint holds."""

    def __init__(self, config, lr):
        torch.manual_seed(0)
        self.model = PocketVL(config)
        self.heads = AuxHeads(config.v_hidden, AUX)
        self.lr = lr
        self.opts = optimisers(self.model, self.heads, lr)
        self.average = Average(self.model)
        self.step, self.seconds, self.begin = 0, 0.0, None  # begin: when the second phase began

    def save(self, path):
        state = {"config": self.model.c.dict(), "model": self.model.state_dict(), "heads": self.heads.state_dict(),
                 "opts": [o.state_dict() for o in self.opts], "average": self.average.state, "average_n": self.average.n,
                 "step": self.step, "seconds": self.seconds, "begin": self.begin}  # fmt: skip
        torch.save(state, path + ".tmp")
        os.replace(path + ".tmp", path)

    def load(self, path, vision_only=False):
        s = torch.load(path, weights_only=True)
        if vision_only:
            self.model.vision.load_state_dict({k[7:]: v for k, v in s["model"].items() if k.startswith("vision.")})
            self.heads.load_state_dict(s["heads"])
            self.step, self.seconds = s["step"], s["seconds"]
            return
        self.model.load_state_dict(s["model"])
        self.heads.load_state_dict(s["heads"])
        for o, d in zip(self.opts, s["opts"]):
            o.load_state_dict(d)
        self.average.state, self.average.n = s["average"], s["average_n"]
        self.step, self.seconds, self.begin = s["step"], s["seconds"], s["begin"]

    def update(self, factor, clip=1.0):
        params = [p for o in self.opts for g in o.param_groups for p in g["params"]]
        torch.nn.utils.clip_grad_norm_([p for p in params if p.grad is not None], clip)
        for o in self.opts:
            for g in o.param_groups:
                g["lr"] = self.lr * factor * g.get("share", 2.0)
            o.step()
            o.zero_grad(set_to_none=True)
        self.average.update(self.model)
        self.step += 1


def start_pool(work, shards):
    here = os.path.dirname(os.path.abspath(__file__))
    folder = os.path.join(work, "pool")
    child = subprocess.Popen([sys.executable, os.path.join(here, "pool.py"), folder, "0", str(shards)],
                             env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    while True:
        pool = Pool(folder)
        if pool.shards:
            return pool
        if child.poll() not in (None, 0):
            raise SystemExit("pool.py failed; see its message above")
        time.sleep(1)


def vision_phase(run, pool, path, minutes, batch=24):
    """Vision tower on dense labels until `minutes` of training time have passed."""
    rng, gen = random.Random(run.step), torch.Generator().manual_seed(run.step)
    see = torch.compile(run.model.vision)
    sums, count, mark, first = {}, 0, time.time(), run.step
    while run.seconds < 60 * minutes:
        t0 = time.time()
        pix, lab, box, _ = pool.sample(rng, batch, {"shapes": 0.3, "page": 0.4, "text": 0.15, "chart": 0.15})
        with torch.autocast("cpu", torch.bfloat16):
            patches = see(normalise(pix, gen))
            loss, acc = dense_loss(run.heads, patches, lab, box)
        loss.backward()
        run.update(min(1.0, (run.step - first + 1) / 150))
        for k, v in {"loss": loss.item(), **acc}.items():
            sums.setdefault(k, []).append(v)
        count += 1
        run.seconds += time.time() - t0
        if time.time() - mark > 60:
            line = " ".join(f"{k} {sum(v) / len(v):.3f}" for k, v in sums.items())
            print(f"[{time.strftime('%H:%M')}] vision {run.seconds / 60:.1f} min step {run.step} "
                  f"{count * batch / (time.time() - mark):.1f}/s pool {len(pool)} | {line}", flush=True)  # fmt: skip
            sums, count, mark = {}, 0, time.time()
            pool.refresh()
            run.save(path)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--work", required=True, help="folder for pictures and checkpoints")
    a.add_argument("--vision-minutes", type=float, default=40)
    a.add_argument("--minutes", type=float, default=180, help="training time of both phases together")
    a.add_argument("--shards", type=int, default=90, help="pictures to draw, in shards of 500")
    a.add_argument("--lr", type=float, default=2e-3, help="of the vision phase; the matrices of the blocks take twice that")
    a.add_argument("--joint-lr", type=float, default=8e-4, help="of the joint phase; 2e-3 was measured to be too loud by far")
    a.add_argument("--only-vision", action="store_true")
    args = a.parse_args()
    torch.set_num_threads(2)
    os.makedirs(args.work, exist_ok=True)
    path = os.path.join(args.work, "last.pt")
    pool = start_pool(args.work, args.shards)
    vision_path = os.path.join(args.work, "vision.pt")
    from tokenizer import load as load_tokenizer

    tok = load_tokenizer()
    run = Run(Config(vocab=len(tok)), args.lr)
    if os.path.exists(path):
        run.load(path)
    elif os.path.exists(vision_path):
        run.load(vision_path, vision_only=True)
    vision_phase(run, pool, vision_path, args.vision_minutes)
    if not args.only_vision:
        from joint import joint_phase

        run.lr = args.joint_lr
        joint_phase(run, pool, tok, path, args.minutes)


if __name__ == "__main__":
    main()
