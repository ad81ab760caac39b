"""Trains the demonstration model, on a GPU where PyTorch finds one.

    python tests/demo/train.py --work FOLDER [--minutes 10]

Draws its own pictures while it trains (pool.py, one process for every processor but one), learns to see
from dense labels, then to answer, and leaves FOLDER/last.pt, to go on from, and FOLDER/model.pt, which
`export.py` makes the GGUF of.  The learning rate follows the clock, so the result depends on the
speed of the machine.  Packages: torch, numpy, pillow, regex (export: gguf; parity: transformers).
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import time

import numpy as np
import torch

import joint
import vision
from config import Config
from draw import AUX
from model import AuxHeads, PocketVL
from pool import Ring
from rows import Prompt
from tokenizer import load as load_tokenizer

# Pictures of a batch, by type (pool.TYPES).  Pages come last: they are looked at, nothing is asked of them.
VISION_BATCH = {"cuda": [80, 48, 32, 96], "cpu": [6, 4, 2, 8]}
JOINT_BATCH = {"cuda": [92, 80, 50, 34], "cpu": [7, 6, 4, 3]}
RING = {"cuda": 280_000, "cpu": 20_000}  # pictures kept; 150 kB each


def optimisers(model, heads, lr):
    """Muon for the matrices of the blocks, AdamW for everything else."""
    muon, rest, gentle = [], [], []
    for name, p in model.named_parameters():
        matrix = p.dim() == 2 and ("blocks" in name or "projector" in name)
        (muon if matrix else gentle if "vision.patch" in name else rest).append(p)
    rest += list(heads.parameters())
    groups = [{"params": rest, "share": 1.0}, {"params": gentle, "share": 0.1}]
    return [
        torch.optim.Muon(muon, lr=2 * lr, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw", ns_steps=4),
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

    def __init__(self, config, device):
        torch.manual_seed(0)
        self.model = PocketVL(config).to(device)
        self.heads = AuxHeads(config.v_hidden, AUX).to(device)
        self.opts = optimisers(self.model, self.heads, 1.0)
        self.params = [p for o in self.opts for g in o.param_groups for p in g["params"]]
        self.average = Average(self.model)
        self.step, self.seconds = 0, 0.0

    def save(self, work):
        small = {"config": self.model.c.dict(), "average": {k: v.half().cpu() for k, v in self.average.state.items()}, "step": self.step}
        whole = {"model": self.model.state_dict(), "heads": self.heads.state_dict(), "opts": [o.state_dict() for o in self.opts],
                 "average": self.average.state, "average_n": self.average.n, "step": self.step, "seconds": self.seconds}  # fmt: skip
        for name, state in (("model.pt", small), ("last.pt", whole)):
            torch.save(state, os.path.join(work, name + ".tmp"))
            os.replace(os.path.join(work, name + ".tmp"), os.path.join(work, name))

    def load(self, path, device):
        s = torch.load(path, weights_only=True, map_location=device)
        self.model.load_state_dict(s["model"])
        self.heads.load_state_dict(s["heads"])
        for o, d in zip(self.opts, s["opts"]):
            o.load_state_dict(d)
        self.average.state, self.average.n = s["average"], s["average_n"]
        self.step, self.seconds = s["step"], s["seconds"]

    def update(self, lr):
        torch.nn.utils.clip_grad_norm_([p for p in self.params if p.grad is not None], 1.0)
        for o in self.opts:
            for g in o.param_groups:
                g["lr"] = lr * g.get("share", 2.0)
            o.step()
            o.zero_grad(set_to_none=True)
        self.average.update(self.model)
        self.step += 1

    def score(self, dev):
        """Score of the averaged weights."""
        keep = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average.state)
        with torch.compiler.set_stance("force_eager"):
            score = dev.measure(self.model)
        self.model.load_state_dict(keep)
        return score


def compile_parts(run):
    """Block by block: all blocks of a kind share one compilation, which takes seconds where the whole takes minutes."""
    for block in [*run.model.vision.blocks, *run.model.blocks]:
        block.compile()
    joint.dense_loss = torch.compile(joint.dense_loss)
    vision.normalise = torch.compile(vision.normalise)


def start_pool(folder, device, workers):
    here = os.path.dirname(os.path.abspath(__file__))
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    children = [subprocess.Popen([sys.executable, os.path.join(here, "pool.py"), folder, str(w), str(workers)], env=env) for w in range(workers)]
    return Ring(folder, device, RING[device]), children


def phase(run, ring, args, device, at, answering, until, dev=None):
    """Trains until `until` seconds of training; the learning rate is flat, in the joint phase then straight down from 40%."""
    counts = (JOINT_BATCH if answering else VISION_BATCH)[device]
    asked = sum(counts[:3])
    losses = functools.partial(joint.joint_losses, n=asked) if answering else joint.vision_losses
    rng = np.random.default_rng(run.step)
    begin, first, sums, mark, measured = run.seconds, run.step, {}, time.time(), time.time()
    while run.seconds < until:
        t0 = time.time()
        batch = ring.sample(rng, counts)
        with torch.autocast(device, torch.bfloat16):
            loss, seen = losses(run.model, run.heads, at, vision.normalise(batch["pix"], spoil=True), batch)
        loss.backward()
        done = (run.seconds - begin) / (until - begin)
        lr = args.joint_lr * min(1.0, max(0.01, (1 - done) / 0.6)) if answering else args.lr
        run.update(lr * min(1.0, (run.step - first + 1) / 150))
        if run.step % 20 == 0:
            for k, v in ({"loss": loss} | seen).items():
                sums.setdefault(k, []).append(v.item())
        if device == "cuda" and run.step % 4 == 0:
            torch.cuda.synchronize()  # so that the clock tells the truth
        if run.step > first + 1:  # the first steps compile
            run.seconds += time.time() - t0
        now = time.time()
        if now - mark > args.report and sums:
            line = " ".join(f"{k} {sum(v) / len(v):.3f}" for k, v in sums.items() if k in ("loss", "answer", "cls", "col", "ch", "idx", "all", "box", "val"))
            print(f"{'joint' if answering else 'vision'} {run.seconds:.0f} s step {run.step} pictures {ring.taken} | {line}", flush=True)
            sums, mark = {}, now
            run.save(args.work)
        if dev and now - measured > args.measure:
            show(run, dev, ring)
            measured = time.time()


def show(run, dev, ring):
    """Prints the score, and has the kinds of question that go badly asked more often."""
    score = run.score(dev)
    total = sum(v * n for v, n in score.values()) / sum(n for _, n in score.values())
    print(f"dev {total:.3f} | " + " ".join(f"{k} {v:.2f}/{n}" for k, (v, n) in score.items()), flush=True)
    weights = {k: 0.5 + 2.0 * (1 - v) for k, (v, _) in score.items() if k != "scope"}
    path = os.path.join(ring.folder, "weights.json")
    with open(path + ".tmp", "w") as f:
        json.dump(weights, f)
    os.replace(path + ".tmp", path)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--work", required=True, help="folder for pictures and checkpoints")
    a.add_argument("--minutes", type=float, default=10, help="training time of both phases together")
    a.add_argument("--vision", type=float, default=0.16, help="share of it for the vision phase")
    a.add_argument("--lr", type=float, default=2e-3, help="of the vision phase; the matrices of the blocks take twice that")
    a.add_argument("--joint-lr", type=float, default=1.2e-3, help="of the joint phase")
    a.add_argument("--pictures", type=int, default=8000, help="to draw before training begins")
    a.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that draw")
    a.add_argument("--report", type=float, default=15, help="seconds between reports")
    a.add_argument("--measure", type=float, default=75, help="seconds between measurements")
    a.add_argument("--no-compile", dest="compile", action="store_false")
    args = a.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_float32_matmul_precision("high")
    os.makedirs(args.work, exist_ok=True)
    ring, children = start_pool(os.path.join(args.work, "pool"), device, args.workers)
    try:
        tok = load_tokenizer()
        run = Run(Config(vocab=len(tok)), device)
        if args.compile:
            compile_parts(run)
        last = os.path.join(args.work, "last.pt")
        if os.path.exists(last):
            run.load(last, device)
        prompt = Prompt(tok, run.model.c)
        dev = joint.Dev(prompt, run.model.c, device)
        while len(ring.data) == 0 or ring.taken < args.pictures:
            time.sleep(0.2)
        print(sum(p.numel() for p in run.model.parameters()), "parameters,", device, f"pool {ring.taken}", flush=True)
        total = 60 * args.minutes
        phase(run, ring, args, device, prompt.at, False, total * args.vision)
        phase(run, ring, args, device, prompt.at, True, total, dev)
        run.save(args.work)
        show(run, dev, ring)
    finally:
        for child in children:
            child.kill()


if __name__ == "__main__":
    main()
