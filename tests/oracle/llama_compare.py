"""Next-token probabilities of llama.cpp on our GGUF files beside those of transformers: one file, two engines.

    npm install --prefix FOLDER --ignore-scripts node-llama-cpp       (llama.cpp, built; about 700 MB)
    python3 tests/oracle/llama_compare.py FOLDER [FILE.gguf FILE.golden] ...
    (needs: pip install gguf numpy; without files: the models in tests/fixtures/model)

For each run of a .golden file without picture, the token ids go through llama.cpp (tests/oracle/llama_logits.mjs) and the
log-probabilities of the last rows are compared with the golden ones, where those are above 1e-5: the root mean square
difference relative to the deviation of the logits, the mean KL divergence, how often the best token is the same. llama.cpp
wants the vision part in a file of its own, so files that hold both are rewritten without it first. The bounds are those of
what llama.cpp rounds and transformers does not: activations to 8 bits beside 8- and 4-bit weights and to bf16 beside bf16
weights, keys and values to halves.
"""

import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "model"
CONTEXT = {"long": 512, "text-long": 512}


def read_golden(path):
    raw = path.read_bytes()
    assert raw[:4] == b"PVLG", path
    (n,), at, out = struct.unpack_from("<I", raw, 4), 8, {}
    for _ in range(n):
        (k,) = struct.unpack_from("<I", raw, at)
        name = raw[at + 4 : at + 4 + k].decode()
        kind, dims = struct.unpack_from("<2I", raw, at + 4 + k)
        at += 12 + k
        shape = struct.unpack_from(f"<{dims}I", raw, at)
        at += 4 * dims
        a = np.frombuffer(raw, ["<f4", "<i4", "u1"][kind], int(np.prod(shape)), at).reshape(shape)
        at += a.nbytes
        out[name] = a
    assert at == len(raw), path
    return out


def language_model_only(path, folder):
    """The file itself, or a copy without clip.* keys and v.*, mm.* tensors."""
    r = gguf.GGUFReader(path)
    if not any(t.name.startswith(("v.", "mm.")) for t in r.tensors):
        return path
    out = Path(folder) / path.name
    w = gguf.GGUFWriter(out, r.fields["general.architecture"].contents())
    for f in r.fields.values():
        if f.name.startswith(("GGUF.", "clip.")) or f.name == "general.architecture":
            continue
        sub = f.types[-1] if f.types[0] == gguf.GGUFValueType.ARRAY else None
        w.add_key_value(f.name, f.contents(), f.types[0], sub_type=sub)
    for t in r.tensors:
        if not t.name.startswith(("v.", "mm.")):
            w.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return out


def log_softmax(x):
    x = x.astype(np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def jobs_of(pairs, folder):
    for path, golden_path in pairs:
        golden, model = read_golden(golden_path), language_model_only(path, folder)
        for run in [k[: -len(".ids")] for k in golden if k.endswith(".ids")]:
            if not golden[f"{run}.images"][0]:
                want = golden[f"{run}.logits"]
                yield path, run, want, {
                    "model": str(Path(model).resolve()),
                    "ids": golden[f"{run}.ids"].tolist(),
                    "rows": len(want),
                    "context": CONTEXT.get(run, 256),
                }


def report(path, run, want, rows):
    p = np.zeros(want.shape)
    for i, row in enumerate(rows):
        for token, probability in row:
            p[i, token] = probability
    a, b = log_softmax(want), np.log(np.maximum(p, 1e-30))
    seen = np.exp(a) > 1e-5
    error = float(np.sqrt(((b - a)[seen] ** 2).mean()) / want.std())
    kl = float((np.exp(a) * (a - b)).sum(-1).mean())
    same = float((p.argmax(-1) == want.argmax(-1)).mean())
    bound = 0.05 if any(q in path.name for q in ("q8", "q4", "q5", "q6")) else 0.012
    good = error <= bound
    print(f"{'ok  ' if good else 'FAIL'} {path.name} {run}: log-probabilities off by {error:.4f} (bound {bound}), "
          f"KL {kl:.1e}, same best token in {same:.0%} of {len(want)} rows", flush=True)
    return good


def main():
    args = [Path(a) for a in sys.argv[1:]]
    if len(args) % 2 != 1:
        sys.exit(__doc__)
    pairs = list(zip(args[1::2], args[2::2]))
    if not pairs:
        goldens = [g for g in sorted(FIXTURES.glob("*.golden")) if g.with_suffix(".gguf").exists()]
        pairs = [(g.with_suffix(".gguf"), g) for g in goldens]
    script = Path(__file__).resolve().with_name("llama_logits.mjs")
    with tempfile.TemporaryDirectory() as folder:
        jobs = list(jobs_of(pairs, folder))
        asked, answered = Path(folder) / "jobs.json", Path(folder) / "rows.json"
        asked.write_text(json.dumps([j[-1] for j in jobs]))
        subprocess.run(["node", script, args[0], asked, answered], check=True, stdout=subprocess.DEVNULL)
        rows = json.loads(answered.read_text())
    results = [report(path, run, want, r) for (path, run, want, _), r in zip(jobs, rows, strict=True)]
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
