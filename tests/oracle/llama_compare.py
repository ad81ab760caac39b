"""Logits of llama.cpp on our GGUF files beside those of transformers: one file, two engines.

    python3 tests/oracle/llama_compare.py [FILE.gguf FILE.golden] ...
    (needs: pip install llama-cpp-python gguf numpy; without arguments: the models in tests/fixtures/model)

For each run of a .golden file without picture, the token ids go through llama.cpp and the logits are compared with the
golden ones: relative L2, the mean KL divergence, and how often the best token is the same. llama.cpp wants the vision part
in a file of its own, so files that hold both are rewritten without it first. The bounds are those of the types: what llama.cpp
rounds (activations to 8 bits beside quantized weights, keys and values to halves) and transformers does not.
"""

import struct
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


def compare(path, golden, bound):
    from llama_cpp import Llama

    ok = True
    with tempfile.TemporaryDirectory() as folder:
        model = language_model_only(path, folder)
        for run in [k[: -len(".ids")] for k in golden if k.endswith(".ids")]:
            if golden[f"{run}.images"][0]:
                continue
            ids, want = golden[f"{run}.ids"].tolist(), golden[f"{run}.logits"]
            llama = Llama(str(model), n_ctx=CONTEXT.get(run, 256), n_batch=512, logits_all=True, verbose=False)
            llama.eval(ids)
            got = np.array(llama.scores[len(ids) - len(want) : len(ids)], dtype=np.float32)
            error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
            a, b = log_softmax(want), log_softmax(got)
            kl = float((np.exp(a) * (a - b)).sum(-1).mean())
            same = float((got.argmax(-1) == want.argmax(-1)).mean())
            good = error <= bound
            ok = ok and good
            print(f"{'ok  ' if good else 'FAIL'} {path.name} {run}: relative L2 {error:.2e} (bound {bound}), "
                  f"KL {kl:.2e}, same best token {same:.0%} of {len(want)} rows", flush=True)
            llama.close()
    return ok


def main():
    args = [Path(a) for a in sys.argv[1:]]
    pairs = list(zip(args[::2], args[1::2]))
    if not pairs:
        pairs = [(p, p.with_suffix(".golden")) for p in sorted(FIXTURES.glob("*.gguf")) if "mmproj" not in p.name]
    results = []
    for path, golden in pairs:
        quantized = any(q in path.name for q in ("q8", "q4", "q5", "q6"))
        results.append(compare(path, read_golden(golden), 0.06 if quantized else 0.005))
    sys.exit(0 if results and all(results) else 1)


if __name__ == "__main__":
    main()
