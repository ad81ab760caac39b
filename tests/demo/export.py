"""Writes web/models/demo/pocketvl-demo.gguf and manifest.json from a checkpoint.

    python tests/demo/export.py FOLDER/model.pt [--out web/models/demo] [--f32]

One GGUF holds both halves: the language model under llama.cpp's names for qwen2, the vision tower and
projector under its names for an InternVL mmproj file.  Matrices are Q8_0, the patch embedding F16,
everything else F32; with --f32 all of it, for measurements.  `load` reads such a file back into the PyTorch model with dequantized weights.
"""

import argparse
import hashlib
import json
import os

import gguf
import numpy as np
import torch

from config import Config
from model import PocketVL
from tokenizer import ADDED, SYSTEM, Tokenizer
from tokenizer import load as load_tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "web", "models", "demo")
CHUNK = 16 << 20


def names(c):
    """[(GGUF name, name in model.py, kind)] where kind is m (matrix), v (vector), or a rule of its own."""
    out = [("token_embd.weight", "embed.weight", "m"), ("output_norm.weight", "norm.weight", "v"), ("output.weight", "head.weight", "m")]
    for b in range(c.layers):
        for g, p in (("attn_norm", "norm1"), ("ffn_norm", "norm2")):
            out.append((f"blk.{b}.{g}.weight", f"blocks.{b}.{p}.weight", "v"))
        for p in "qkv":
            out.append((f"blk.{b}.attn_{p}.weight", f"blocks.{b}.{p}.weight", "m"))
            out.append((f"blk.{b}.attn_{p}.bias", f"blocks.{b}.{p}.bias", "v"))
        for g, p in (("attn_output", "o"), ("ffn_gate", "gate"), ("ffn_up", "up"), ("ffn_down", "down")):
            out.append((f"blk.{b}.{g}.weight", f"blocks.{b}.{p}.weight", "m"))
    out += [("v.class_embd", "vision.class_embedding", "class"), ("v.position_embd.weight", "vision.position", "position"),
            ("v.patch_embd.weight", "vision.patch.weight", "patch"), ("v.patch_embd.bias", "vision.patch.bias", "v")]  # fmt: skip
    for b in range(c.v_layers):
        g, p = f"v.blk.{b}.", f"vision.blocks.{b}."
        for x, y in (("ln1", "norm1"), ("ln2", "norm2")):
            out += [(g + x + ".weight", p + y + ".weight", "v"), (g + x + ".bias", p + y + ".bias", "v")]
        for i, x in enumerate(("attn_q", "attn_k", "attn_v")):
            out += [(g + x + ".weight", p + "qkv.weight", f"third m {i}"), (g + x + ".bias", p + "qkv.bias", f"third v {i}")]
        for x, y in (("attn_out", "proj"), ("ffn_up", "fc1"), ("ffn_down", "fc2")):
            out += [(g + x + ".weight", p + y + ".weight", "m"), (g + x + ".bias", p + y + ".bias", "v")]
        out += [(g + "ls1.weight", p + "ls1", "v"), (g + "ls2.weight", p + "ls2", "v")]
    for i, x in ((0, "norm"), (1, "fc1"), (3, "fc2")):
        out += [(f"mm.model.mlp.{i}.weight", f"projector.{x}.weight", "m" if i else "v"), (f"mm.model.mlp.{i}.bias", f"projector.{x}.bias", "v")]
    return out


def write(path, config, state, tok, f32=False):
    c = config
    w = gguf.GGUFWriter(path, "qwen2")
    w.add_name("PocketVL demonstration")
    w.add_type("model")
    w.add_license("Apache-2.0")
    w.add_description("A tiny InternVL-architecture model trained on pictures drawn by a script; see tests/demo.")
    w.add_file_type(gguf.LlamaFileType.ALL_F32 if f32 else gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(2)
    w.add_context_length(c.context)
    w.add_embedding_length(c.hidden)
    w.add_block_count(c.layers)
    w.add_feed_forward_length(c.ffn)
    w.add_head_count(c.heads)
    w.add_head_count_kv(c.kv_heads)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(c.rope_theta)
    w.add_vocab_size(c.vocab)
    w.add_bool("clip.has_vision_encoder", True)
    w.add_string("clip.projector_type", "internvl")
    w.add_bool("clip.use_gelu", True)
    for key, value in (("image_size", c.image_size), ("patch_size", c.patch), ("embedding_length", c.v_hidden), ("feed_forward_length", c.v_ffn),
                       ("block_count", c.v_layers), ("projection_dim", c.hidden), ("attention.head_count", c.v_heads),
                       ("projector.scale_factor", 2), ("preproc_min_tiles", 1), ("preproc_max_tiles", 1)):  # fmt: skip
        w.add_uint32("clip.vision." + key, value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    w.add_array("clip.vision.image_mean", [0.485, 0.456, 0.406])
    w.add_array("clip.vision.image_std", [0.229, 0.224, 0.225])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tok.tokens)
    control = gguf.TokenType.CONTROL
    w.add_token_types([gguf.TokenType.NORMAL] * (len(tok) - len(ADDED)) + [control] * len(ADDED))
    w.add_token_merges(tok.merges)
    w.add_eos_token_id(tok.ids["<|im_end|>"])
    w.add_pad_token_id(tok.ids["<|endoftext|>"])
    w.add_add_bos_token(False)
    w.add_string("pocketvl.template", "hermes-2")
    w.add_string("pocketvl.system_message", SYSTEM)
    w.add_string("pocketvl.tokenizer.kind", "bpe")
    for name, source, kind in names(c):
        x = state[source].detach().float().numpy()
        if kind.startswith("third"):
            n = x.shape[0] // 3
            i = int(kind[-1])
            x, kind = x[n * i : n * (i + 1)], kind.split()[1]
        x = np.ascontiguousarray(x)
        if kind == "m" and not f32:
            q = gguf.GGMLQuantizationType.Q8_0
            w.add_tensor(name, gguf.quants.quantize(x, q), raw_dtype=q)
        elif kind == "patch":
            w.add_tensor(name, x.reshape(-1, 3, c.patch, c.patch).astype(np.float32 if f32 else np.float16))
        elif kind == "class":
            w.add_tensor(name, x.reshape(1, 1, -1))
        elif kind == "position":
            w.add_tensor(name, x[None])
        else:
            w.add_tensor(name, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read_raw(path):
    """(Config, {GGUF name: float32 array, PyTorch order}, Tokenizer) of a demonstration GGUF."""
    r = gguf.GGUFReader(path)

    def get(key):
        return r.fields[key].contents()

    v = "clip.vision."
    c = Config(
        image_size=get(v + "image_size"), patch=get(v + "patch_size"), v_hidden=get(v + "embedding_length"),
        v_heads=get(v + "attention.head_count"), v_ffn=get(v + "feed_forward_length"), v_layers=get(v + "block_count"),
        hidden=get("qwen2.embedding_length"), heads=get("qwen2.attention.head_count"), kv_heads=get("qwen2.attention.head_count_kv"),
        ffn=get("qwen2.feed_forward_length"), layers=get("qwen2.block_count"), vocab=len(get("tokenizer.ggml.tokens")),
        rope_theta=get("qwen2.rope.freq_base"), context=get("qwen2.context_length"),
    )  # fmt: skip
    tensors = {}
    for t in r.tensors:
        data = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
        tensors[t.name] = data.reshape([int(n) for n in reversed(t.shape)])
    tok = Tokenizer(get("tokenizer.ggml.merges"))
    assert tok.tokens == get("tokenizer.ggml.tokens")
    return c, tensors, tok


def load(path):
    """(model with dequantized weights in float32, tokenizer) of a demonstration GGUF."""
    c, tensors, tok = read_raw(path)
    model = PocketVL(c).eval()
    state = model.state_dict()
    thirds = {}
    for name, target, kind in names(c):
        x = torch.from_numpy(tensors[name])
        if kind.startswith("third"):
            thirds.setdefault(target, []).append(x)
        else:
            state[target] = x.reshape(state[target].shape)
    for target, parts in thirds.items():
        state[target] = torch.cat(parts)
    model.load_state_dict(state)
    return model, tok


def write_manifest(folder, file):
    """manifest.json beside the model: sizes and SHA-256 of every 16 MiB, and the default settings."""
    chunks = []
    with open(os.path.join(folder, file), "rb") as f:
        while data := f.read(CHUNK):
            chunks.append({"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    manifest = {
        "format": 1,
        "name": "pocketvl-demo",
        "title": "PocketVL demonstration model",
        "license": "Apache-2.0",
        "template": "hermes-2",
        "files": [{"name": file, "bytes": sum(c["bytes"] for c in chunks), "chunks": chunks}],
        "settings": {"maxTiles": 1, "context": 1024, "maxTokens": 96, "temperature": 0},
    }
    with open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8") as f:
        json.dump(manifest, f, indent=2)
        f.write("\n")


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("checkpoint")
    a.add_argument("--out", default=OUT)
    a.add_argument("--f32", action="store_true")
    args = a.parse_args()
    s = torch.load(args.checkpoint, weights_only=True)
    os.makedirs(args.out, exist_ok=True)
    path = os.path.join(args.out, "pocketvl-demo.gguf")
    write(path, Config(**s["config"]), s["average"], load_tokenizer(), args.f32)
    write_manifest(args.out, "pocketvl-demo.gguf")
    load(path)
    print(os.path.getsize(path), "bytes after", s["step"], "steps")


if __name__ == "__main__":
    main()
