"""What each mixture of types costs: KL divergence of the next token and size, against a reference file.

    python3 tests/oracle/mixes.py REFERENCE.gguf [--every N] [--only "NAME;NAME"] [--tiles N]
    (needs: npm run build)

REFERENCE.gguf is one file with both halves and the best weights there are: a conversion with --type f32, or the
demonstration model, or a made checkpoint of full shape (made_checkpoint.py, converted with --type bf16; --every 150 --tiles 1). Each mixture is made from it by `pocketvl quantize` and asked every Nth held-out question by
`pocketvl precision`, along the reference's greedy answers. The figures in src/tools/mix.h come from here.
"""

import argparse
import json
import re
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = ROOT / "build" / "native" / "pocketvl"
HELD_OUT = ROOT / "tests" / "demo" / "heldout"
Q4 = ["--type", "q4_0"]
MIXES = {
    "f16": ["--type", "f16"],
    "q8_0": ["--type", "q8_0"],
    "q4_0, the default mix": Q4,
    "the same, embedding q8_0 too": [*Q4, "--embedding-type", "q8_0"],
    "the same, output q6_k": [*Q4, "--output-type", "q6_k"],
    "q4_0, vision q8_0": [*Q4, "--output-type", "q4_0"],
    "q4_0, output q8_0": [*Q4, "--vision-type", "q4_0"],
    "q4_0 throughout": [*Q4, "--output-type", "q4_0", "--vision-type", "q4_0"],
    "q4_k, the default mix": ["--type", "q4_k"],
    "q5_0, the default mix": ["--type", "q5_0"],
    "q6_k, the default mix": ["--type", "q6_k"],
    "iq4_nl, the default mix": ["--type", "iq4_nl"],
}


def main():
    args = argparse.ArgumentParser()
    args.add_argument("reference", type=Path)
    args.add_argument("--every", type=int, default=6)
    args.add_argument("--only", default="")
    args.add_argument("--tiles", default="")
    a = args.parse_args()
    questions = [json.loads(line) for line in (HELD_OUT / "questions.jsonl").read_text().splitlines()][:: a.every]
    lines = "".join(f"{HELD_OUT / q['image']}\t{q['question']}\n" for q in questions)
    tiles = ["--tiles", a.tiles] if a.tiles else []
    wanted = [name.strip() for name in a.only.split(";")] if a.only else list(MIXES)
    print(f"{'':30} mean KL   largest  same token  megabytes")
    with tempfile.TemporaryDirectory() as folder:
        for name in wanted:
            out = Path(folder) / "mix.gguf"
            subprocess.run([COMMAND, "quantize", a.reference, out, *MIXES[name]], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            done = subprocess.run([COMMAND, "precision", *tiles, "-m", out, "-r", a.reference], input=lines, text=True, check=True,
                                  stdout=subprocess.PIPE)
            kl, largest, same = re.search(r"mean KL ([\d.]+), largest ([\d.]+), .* ([\d.]+) %", done.stdout).groups()
            print(f"{name:30} {kl:>7}  {largest:>7}  {same:>8} %  {out.stat().st_size / 1e6:9.2f}", flush=True)
            out.unlink()


if __name__ == "__main__":
    main()
