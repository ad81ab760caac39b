"""llama.cpp and our engine on the same GGUF files, and both beside transformers.

    python3 tests/oracle/llama_compare.py [fixtures] [converted] [types] [vision]
    (needs: pip install llama-cpp-python gguf numpy; npm run build; a C compiler. Without words: everything)

fixtures    the models in tests/fixtures/model: logits of llama.cpp beside the golden ones of transformers
converted   what `pocketvl convert` makes of tests/fixtures/hf, F32, Q8_0 and Q4_0, whole and split: the same files in both
            engines
types       a model quantized by `pocketvl quantize` to every type that is listed: the same files in both engines, beside
            what the type itself changes
vision      the mmproj of two converted models: visual tokens of one tile. llama.cpp gives each patch the position of the
            one before it and GELU by tanh; with a copy whose position rows are moved to where it looks for them the
            tokens are ours, without it they are not.

Printed are relative L2 distances of logits (rows centred) or of visual tokens. llama.cpp rounds what transformers does
not: activations to 8 bits beside 8- and 4-bit weights and to bf16 beside bf16 weights, keys and values to halves. Our engine
is run as in the page (activations of 7 and 8 bits) and in floats ("exact").
"""

import ctypes
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np
from llama_cpp import Llama, llama_cpp

ROOT = Path(__file__).resolve().parent.parent.parent
FIXTURES = ROOT / "tests" / "fixtures" / "model"
HF = FIXTURES.parent / "hf"
NATIVE = ROOT / "build" / "native"
TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q4_k", "q5_k", "q6_k", "iq4_nl"]
bad = []


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


def rewrite(path, out, keep, change=lambda name, data: data):
    """A copy with the tensors that `keep` wants, and without clip.* keys when it wants none of the vision part."""
    r = gguf.GGUFReader(path)
    vision = any(keep(t.name) for t in r.tensors if t.name.startswith(("v.", "mm.")))
    w = gguf.GGUFWriter(out, r.fields["general.architecture"].contents())
    for f in r.fields.values():
        skipped = ("GGUF.", "split.") + (() if vision else ("clip.",))
        if f.name.startswith(skipped) or f.name == "general.architecture":
            continue
        sub = f.types[-1] if f.types[0] == gguf.GGUFValueType.ARRAY else None
        w.add_key_value(f.name, f.contents(), f.types[0], sub_type=sub)
    for t in r.tensors:
        if keep(t.name):
            w.add_tensor(t.name, change(t.name, t.data), raw_dtype=t.tensor_type)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return out


def language_model_only(path, folder):
    """The file itself, or a copy without the vision part: llama.cpp wants that in a file of its own."""
    if not any(t.name.startswith(("v.", "mm.")) for t in gguf.GGUFReader(path).tensors):
        return path
    return rewrite(path, Path(folder) / f"language-{path.name}", lambda name: not name.startswith(("v.", "mm.")))


def llama_logits(path, ids, context=256):
    model = Llama(str(path), n_ctx=context, n_batch=512, n_threads=1, logits_all=True, verbose=False,
                  type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False)
    model.eval([int(i) for i in ids])
    out = model.scores[: len(ids)].copy()
    model.close()
    return out


class Ours:
    """Our engine, as a small program over the library that npm run build made."""

    def __init__(self, folder):
        self.folder, self.program = Path(folder), Path(folder) / "engine_values"
        libraries = [NATIVE / "libpocketvl_tools.a", NATIVE / "libpocketvl.a"]
        subprocess.run(["cc", "-std=c11", "-O2", "-D_POSIX_C_SOURCE=200809L", "-I", ROOT / "src", "-o", self.program,
                        ROOT / "tests" / "oracle" / "engine_values.c", *libraries, "-lcjson", "-lm", "-lpthread"], check=True)

    def run(self, what, data, files, exact):
        (self.folder / "in").write_bytes(data.tobytes())
        words = ["exact"] * exact + [what, self.folder / "in", self.folder / "out"]
        subprocess.run([self.program, *words, *files], check=True)
        return np.fromfile(self.folder / "out", "<f4")

    def logits(self, files, ids, exact=False):
        return self.run("logits", np.int32(ids), files, exact).reshape(len(ids), -1)

    def visual(self, files, tiles, exact=False):
        return self.run("visual", np.float32(tiles), files, exact)


def command(*words):
    subprocess.run([NATIVE / "pocketvl", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def distance(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    if a.ndim == 2:
        a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def tell(name, error, bound, more=""):
    good = error <= bound
    if not good:
        bad.append(name)
    print(f"{'ok  ' if good else 'FAIL'} {name}: {error:.5f} (bound {bound:.5f}){more}", flush=True)


def bound_of(name):
    return 0.05 if re.search("q[4568]_|iq4", name) else 0.01 if re.search("bf16|internlm2|phi3", name) else 0.001


def fixtures(folder, _):
    for golden_path in sorted(FIXTURES.glob("*.golden")):
        path = golden_path.with_suffix(".gguf")
        if not path.exists():
            continue
        golden, model = read_golden(golden_path), language_model_only(path, folder)
        for run in [k[: -len(".ids")] for k in golden if k.endswith(".ids")]:
            if golden[f"{run}.images"][0]:
                continue
            want = golden[f"{run}.logits"]
            long = golden.get(f"{run}.long_factors", [0])[0]
            got = llama_logits(model, golden[f"{run}.ids"], 512 if long else 256)[-len(want) :]
            tell(f"{path.name} {run}: llama.cpp beside transformers", distance(got, want), bound_of(path.name))


def converted(folder, ours):
    for source, golden_name in (("qwen2", "qwen2"), ("internlm2", "internlm2"), ("phi3", "phi3"), ("internvl3", "internvl3")):
        ids = read_golden(FIXTURES / f"{golden_name}.golden")["text.ids"]
        for kind in ("f32", "q8_0", "q4_0"):
            seen = {}
            for form, more in (("whole", []), ("split", ["--shard-size", "60K"])):
                out = Path(folder) / f"{source}-{kind}-{form}"
                command("convert", HF / source, out, "--name", source, "--type", kind, *more)
                files = sorted(f for f in out.glob("*.gguf") if not f.name.startswith("mmproj-"))
                assert (len(files) > 1) == (form == "split"), files
                seen[form] = llama_logits(files[0], ids)
                mine = ours.logits(sorted(out.glob("*.gguf")), ids, exact=True)
                tell(f"convert {source} {kind} {form}, {len(files)} files: llama.cpp beside ours", distance(seen[form], mine),
                     bound_of(kind + "_"))
            assert np.array_equal(seen["whole"], seen["split"])


def types(folder, ours):
    """A Qwen2 of width 256, so that every block format fits its rows."""
    source = FIXTURES / "mixed-00001-of-00002.gguf"
    ids = read_golden(FIXTURES / "mixed.golden")["text.ids"]
    whole = Path(folder) / "types-f32.gguf"
    command("quantize", source, whole, "--type", "f32")
    truth = ours.logits([whole], ids, exact=True)
    for kind in TYPES:
        path = Path(folder) / f"types-{kind}.gguf"
        if kind != "f32":
            words = [w for k in ("output", "embedding", "vision") for w in (f"--{k}-type", kind)]
            command("quantize", whole, path, "--type", kind, *words)
        model = language_model_only(path, folder)
        held = {t.tensor_type.name for t in gguf.GGUFReader(model).tensors if not t.name.endswith(("norm.weight", "bias"))}
        assert held == {kind.upper()}, held
        theirs, mine = llama_logits(model, ids), ours.logits([path], ids)
        exact = ours.logits([path], ids, exact=True)
        noise = distance(exact, truth)
        tell(f"{kind}: llama.cpp beside ours in floats", distance(theirs, exact), max(noise, 0.03),
             f"; ours as in the page {distance(mine, exact):.5f}; the type itself {noise:.5f}")


def llama_visual(language, projector, rgb):
    """Visual tokens of one picture of a tile's size."""
    from llama_cpp import mtmd_cpp as m

    model = Llama(str(language), n_ctx=256, n_threads=1, verbose=False)
    params = m.mtmd_context_params_default()
    params.use_gpu, params.n_threads, params.warmup, params.print_timings = False, 1, False, False
    context = m.mtmd_init_from_file(str(projector).encode(), model.model, params)
    assert context, projector
    pixels = np.ascontiguousarray(rgb)
    bitmap = m.mtmd_bitmap_init(rgb.shape[1], rgb.shape[0], pixels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    chunks = m.mtmd_input_chunks_init()
    marker = m.mtmd_default_marker()
    text = m.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
    assert m.mtmd_tokenize(context, chunks, ctypes.byref(text), (m.mtmd_bitmap_p_ctypes * 1)(bitmap), 1) == 0
    out = []
    for i in range(m.mtmd_input_chunks_size(chunks)):
        chunk = m.mtmd_input_chunks_get(chunks, i)
        if m.mtmd_input_chunk_get_type(chunk) != m.MTMD_INPUT_CHUNK_TYPE_IMAGE:
            continue
        assert m.mtmd_encode_chunk(context, chunk) == 0
        n = m.mtmd_input_chunk_get_n_tokens(chunk) * model.n_embd()
        out.append(np.ctypeslib.as_array(m.mtmd_get_output_embd(context), (n,)).copy())
    m.mtmd_input_chunks_free(chunks)
    m.mtmd_bitmap_free(bitmap)
    m.mtmd_free(context)
    model.close()
    return np.concatenate(out)


def vision(folder, ours):
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    for source, size in (("internlm2", 56), ("qwen2", 84)):
        rgb = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
        tile = ((rgb.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)
        for kind in ("f32", "q8_0"):
            out = Path(folder) / f"vision-{source}-{kind}"
            command("convert", HF / source, out, "--name", source, "--type", kind)
            language, projector = out / f"{source}-{kind}.gguf", out / f"mmproj-{source}-{kind}.gguf"
            moved = rewrite(projector, out / "moved.gguf", lambda name: True, lambda name, data:
                            np.roll(data, -1, -2) if name == "v.position_embd.weight" else data)
            want = ours.visual([language, projector], tile, exact=True)
            as_is, theirs = (llama_visual(language, p, rgb) for p in (projector, moved))
            tell(f"mmproj {source} {kind}, {len(want)} values: llama.cpp beside ours", distance(theirs, want), 0.05,
                 f"; with its own order of positions {distance(as_is, want):.5f}; "
                 f"ours as in the page {distance(ours.visual([language, projector], tile), want):.5f}")


def main():
    parts = {"fixtures": fixtures, "converted": converted, "types": types, "vision": vision}
    words = sys.argv[1:] or list(parts)
    if not set(words) <= set(parts):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(folder)
        for word in words:
            parts[word](folder, ours)
    sys.exit(f"{len(bad)} beyond their bounds" if bad else 0)


if __name__ == "__main__":
    main()
