"""Small random InternVL models as GGUF, with what `transformers` computes for them, stage by stage.

    python3 tests/oracle/model_fixtures.py [NAME ...]
    (needs: pip install torch transformers gguf numpy pillow; about two minutes)

Writes tests/fixtures/model/NAME.gguf and NAME.golden for NAME in

    qwen2, internlm2, phi3        F32 (qwen2) or BF16, one file each, every stage; every weight is a BF16 value
    NAME-q8_0, NAME-q4_0          the same weights quantized; golden values are those of the dequantized weights.
                                  internlm2-q8_0 is a pair: internlm2-q8_0.gguf and internlm2-q8_0-mmproj.gguf
    mixed                         Qwen2 again, every matrix of another type (twelve of them), split in two files

and the first three as published checkpoints, tests/fixtures/hf/NAME/: BF16 safetensors (phi3 in two shards), config.json,
tokenizer files, all under the names of InternVL2-1B, -2B and -4B. What is converted from them must answer as the .golden says.

InternLM2 is computed by transformers' Llama, which is the same model with the fused wqkv taken apart; its q and k rows are
put in the interleaved order that GGUF files of that architecture have. Every parameter is random, also norms and biases.

A .golden file, little-endian: "PVLG", u32 entries; each entry: u32 bytes of its name, the name, u32 type (0 f32, 1 i32, 2 u8),
u32 dimensions, u32 each (outermost first), the values. tests/golden.h reads it. Entries:

    image                 u8 [height, width, 3], the picture; max_tiles i32 [1], what it was cut with
    pixels                [tiles, 3, S, S] normalised, thumbnail last        (not for quantized models, as the next three)
    patches               [tiles, grid^2 + 1, D] after the patch convolution, class token and positions
    vit.I                 [tiles, grid^2 + 1, D] after block I
    shuffle               [tiles, T, 4D] after the pixel shuffle
    projector             [tiles, T, H]
    RUN.question          u8, the user's text; RUN.images i32 [1], 1 when the picture comes before it
    RUN.long_factors      i32 [1], 1 when Phi-3's long list holds for the whole run
    RUN.ids               i32 [n] prompt
    RUN.embeds            [n, H] with the picture's rows in place                  (not for quantized models nor mixed)
    RUN.layer.I           [n, H] after decoder block I                             (not for quantized models nor mixed)
    RUN.norm              [n, H] after the final norm
    RUN.logits            [m, V], the last m rows: 16 for quantized models, else 32, 1 in the run "long"
    RUN.greedy            i32 [64] tokens that follow
    RUN.margins           [64] distance from the best to the second best logit at each of them

Runs: image (one picture), text, and for phi3 long (a prompt beyond original_max_position_embeddings) and text-long (the
text prompt with the long list, as in a session whose context is longer than that; not for quantized models).
"""

import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from dtype_fixtures import HALVES
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from PIL import Image
from transformers import InternVLConfig, InternVLForConditionalGeneration

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "model"
HF = OUT.parent / "hf"
GREEDY = 64
SYSTEM = "Be short."
CORPUS = (
    "be short. system user assistant what is in the picture? the answer is the colour of the thing: red green blue. "
    "how many circles are there? there are three of them in the image and one on the left of the other. "
    "what does the sign say? it says stop. is the square larger than the triangle? yes, it is. describe this."
)
NINE = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
SPACE = "\u2581"


# ---- vocabularies ----


def learn_merges(words, count):
    """Pairs by frequency, most frequent first, ties in order of appearance."""
    words = [list(w) for w in words]
    merges = []
    while len(merges) < count:
        pairs = {}
        for w in words:
            for pair in zip(w, w[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        if not pairs:
            break
        best = max(pairs, key=pairs.get)
        merges.append(best)
        for w in words:
            i = 0
            while i + 1 < len(w):
                if (w[i], w[i + 1]) == best:
                    w[i : i + 2] = [w[i] + w[i + 1]]
                i += 1
    return merges


def byte_letters():
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(rest)}}


class Bpe:
    """A byte-level vocabulary of Qwen2's kind."""

    def __init__(self):
        letters = byte_letters()
        self.letters = letters
        words = [letters[32] + w for w in CORPUS.split()] + CORPUS.split()
        self.merges = learn_merges(words, 120)
        self.tokens = [letters[b] for b in sorted(letters, key=lambda b: letters[b])]
        self.tokens += [a + b for a, b in self.merges if a + b not in self.tokens]
        self.base = len(self.tokens)
        self.special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *NINE]
        self.tokens += self.special
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.types = [1] * self.base + [3] * len(self.special)
        self.context = self.ids["<IMG_CONTEXT>"]

    def encode_plain(self, text):
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        pattern = (
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
            r"\s*[\r\n]+|\s+(?!\S)|\s+"
        )
        t = Tokenizer(models.BPE({k: v for k, v in self.ids.items() if v < self.base}, self.merges))
        t.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        return t.encode(text, add_special_tokens=False).ids

    def prompt(self, parts):
        out = []
        for p in parts:
            out += [self.ids[p[0]]] * p[1] if isinstance(p, tuple) else self.encode_plain(p)
        return out

    def metadata(self, w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre("qwen2")
        w.add_token_list(self.tokens)
        w.add_token_types(self.types)
        w.add_token_merges([f"{a} {b}" for a, b in self.merges])
        w.add_eos_token_id(self.ids["<|im_end|>"])
        w.add_pad_token_id(self.ids["<|endoftext|>"])
        w.add_add_bos_token(False)
        w.add_string("pocketvl.tokenizer.kind", "bpe")


class Spm:
    """A SentencePiece BPE vocabulary with byte pieces; `phi3` adds Phi-3's markers and white-space rules."""

    def __init__(self, phi3):
        self.phi3 = phi3
        words = [SPACE + w for w in CORPUS.split()] + CORPUS.split()
        merges = learn_merges(words, 60)
        letters = sorted(set(CORPUS.replace(" ", SPACE)))
        pieces = [m[0] + m[1] for m in merges] + letters
        pieces = list(dict.fromkeys(pieces))
        self.tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + pieces
        self.scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
        self.types = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
        self.base = len(self.tokens)
        self.spelled = []
        if phi3:
            self.markers = ["<|assistant|>", "<|system|>", "<|end|>", "<|user|>"]
            self.special = ["<|endoftext|>", *self.markers, *NINE]
        else:
            # Two pieces of the model file that tokenizer_config.json renames, as in InternLM2.
            self.markers = []
            self.special = ["<|im_end|>", "<|im_start|>", *NINE]
            self.spelled = ["[UNUSED_TOKEN_145]", "[UNUSED_TOKEN_146]"]
        self.tokens += self.special
        self.scores += [-1000.0] * len(self.special)
        self.types += [4 if phi3 and s in self.markers else 3 for s in self.special]
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.context = self.ids["<IMG_CONTEXT>"]

    def encode_plain(self, text):
        symbols = list(text.replace(" ", SPACE))
        while True:
            best = None
            for i in range(len(symbols) - 1):
                piece = self.ids.get(symbols[i] + symbols[i + 1])
                if piece is not None and 259 <= piece < self.base:
                    if best is None or self.scores[piece] > self.scores[best[1]]:
                        best = (i, piece)
            if best is None:
                break
            symbols[best[0] : best[0] + 2] = [self.tokens[best[1]]]
        out = []
        for s in symbols:
            if s in self.ids:
                out.append(self.ids[s])
            else:
                out += [3 + b for b in s.encode()]
        return out

    def prompt(self, parts):
        out = [self.ids["<s>"]]
        if self.phi3:
            out.append(self.ids[SPACE])
        strip = False
        for p in parts:
            if isinstance(p, tuple):
                out += [self.ids[p[0]]] * p[1]
                strip = p[0] in self.markers
            else:
                out += self.encode_plain(p.lstrip() if strip else p)
                strip = False
        return out

    def metadata(self, w):
        w.add_tokenizer_model("llama")
        w.add_tokenizer_pre("default")
        w.add_token_list(self.tokens)
        w.add_token_scores(self.scores)
        w.add_token_types(self.types)
        w.add_bos_token_id(1)
        w.add_eos_token_id(self.ids["<|endoftext|>" if self.phi3 else "<|im_end|>"])
        w.add_unk_token_id(0)
        w.add_add_bos_token(True)
        w.add_add_space_prefix(self.phi3)
        w.add_string("pocketvl.tokenizer.kind", "spm-llama-slow" if self.phi3 else "spm-internlm2")
        if self.phi3:
            w.add_array("pocketvl.tokenizer.rstrip_ids", [2, *(self.ids[m] for m in self.markers)])


# ---- models ----

PHI3_SHORT = [1.0, 1.05, 1.1, 1.2, 1.25, 1.3, 1.5, 1.6, 1.8, 2.0, 2.25, 2.5]
PHI3_LONG = [1.0, 1.1, 1.3, 1.6, 2.0, 2.9, 4.0, 5.5, 8.0, 12.0, 16.0, 20.0]
PHI3_ORIGINAL = 256
PHI3_MAX = 4096

SPECS = {
    "qwen2": dict(
        template="hermes-2",
        image_size=84,
        vit=dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64),
        text=dict(
            model_type="qwen2",
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=128,
            rms_norm_eps=1e-6,
            max_position_embeddings=32768,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            use_sliding_window=False,
        ),
    ),
    "internlm2": dict(
        template="internlm2-chat",
        image_size=56,
        vit=dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96),
        text=dict(
            model_type="llama",
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=160,
            rms_norm_eps=1e-5,
            max_position_embeddings=32768,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
    ),
    "phi3": dict(
        template="phi3-chat",
        image_size=56,
        vit=dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64),
        text=dict(
            model_type="phi3",
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            intermediate_size=96,
            rms_norm_eps=1e-5,
            max_position_embeddings=PHI3_MAX,
            original_max_position_embeddings=PHI3_ORIGINAL,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": PHI3_SHORT,
                "long_factor": PHI3_LONG,
                "original_max_position_embeddings": PHI3_ORIGINAL,
            },
            pad_token_id=None,
            sliding_window=None,
        ),
    ),
}

SPECS["mixed"] = dict(
    template="internvl2_5",
    image_size=56,
    vit=dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64),
    text=dict(
        SPECS["qwen2"]["text"],
        hidden_size=256,
        num_hidden_layers=1,
        intermediate_size=256,
    ),
)
# As in a file that was quantized to Q4_K_M or the like, only more so.
MIXED = {
    "token_embd": T.IQ4_XS,
    "output": T.Q6_K,
    "blk.0.attn_q": T.Q4_K,
    "blk.0.attn_k": T.Q5_K,
    "blk.0.attn_v": T.Q6_K,
    "blk.0.attn_output": T.Q5_0,
    "blk.0.ffn_gate": T.Q4_1,
    "blk.0.ffn_up": T.Q5_1,
    "blk.0.ffn_down": T.IQ4_NL,
    "v.patch_embd": T.F16,
    "v.blk.0.attn_q": T.BF16,
    "v.blk.0.attn_k": T.F16,
    "v.blk.0.attn_v": T.Q8_0,
    "v.blk.0.attn_out": T.Q4_0,
    "v.blk.0.ffn_up": T.Q5_0,
    "v.blk.0.ffn_down": T.F32,
    "mm.model.mlp.1": T.Q2_K,
    "mm.model.mlp.3": T.Q3_K,
}
# Where there is a minimum: how many d make up dmin so that random blocks are centred at zero.
CENTRE = {T.Q2_K: 1.5, T.Q4_K: 7.5, T.Q5_K: 15.5}


def random_blocks(array, t):
    """Blocks of a type that the gguf package cannot write: random bits, scaled to the deviation of the array."""
    rng = np.random.default_rng(int(t))
    length, size = GGML_QUANT_SIZES[t]
    b = rng.integers(0, 256, (array.size // length, size), dtype=np.uint8)

    def scale_by(d):
        for k, at in enumerate(HALVES[t]):
            half = np.float16(d * CENTRE[t] if k else d).view(np.uint8).reshape(-1, 2)
            b[:, at : at + 2] = half
        return gguf.quants.dequantize(b, t)

    # Random factors keep blocks apart; rows that are nearly zero stay so.
    d = rng.uniform(0.5, 1.5, len(b))
    d *= array.std() / scale_by(d * 0.01).std() * 0.01
    small = array.reshape(-1, array.shape[-1]).std(-1) < 0.1 * array.std()
    d[np.repeat(small, array.shape[-1] // length)] *= 0.01
    floats = scale_by(d).reshape(array.shape)
    return b.reshape(*array.shape[:-1], -1), floats


def build(name, vocab):
    s = SPECS[name]
    config = InternVLConfig(
        vision_config=dict(
            s["vit"],
            attention_bias=True,
            image_size=[s["image_size"]] * 2,
            patch_size=[14, 14],
            layer_norm_eps=1e-6,
            hidden_act="gelu",
            norm_type="layer_norm",
            use_mean_pooling=True,
        ),
        text_config=dict(s["text"], vocab_size=len(vocab.tokens), tie_word_embeddings=False, bos_token_id=None,
                         eos_token_id=None),
        image_token_id=vocab.context,
        image_seq_length=(s["image_size"] // 28) ** 2,
        downsample_ratio=0.5,
        projector_hidden_act="gelu",
        vision_feature_layer=-1,
        tie_word_embeddings=False,
    )
    config._attn_implementation = "eager"
    model = InternVLForConditionalGeneration(config).float().eval()
    model.set_attn_implementation("eager")
    return model


def randomise(model, vocab, seed):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            if "norm" in name and name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            elif "lambda_" in name:
                p.copy_(0.5 + 0.2 * noise)
            elif name.endswith("bias"):
                p.copy_(0.2 * noise)
            elif p.dim() >= 2 and not any(x in name for x in ("embed_tokens", "position", "cls")):
                p.copy_(noise * 1.3 / p[0].numel() ** 0.5)
            else:
                p.copy_(noise)
        head = model.lm_head.weight
        head.copy_(torch.randn(head.shape, generator=g) * 4 / head.shape[1] ** 0.5)
        # Special tokens never win, so that generation does not end.
        head[vocab.base :] *= 0.01
        if isinstance(vocab, Spm):
            head[:3] *= 0.01
        for p in model.parameters():
            p.copy_(p.bfloat16().float())


# ---- GGUF names ----


def to_gguf(name, model):
    """Tensor name -> (float32 array in PyTorch shape, function that puts an array back into the model)."""
    sd = {k.removeprefix("model."): v for k, v in model.named_parameters()}
    out = {}

    def put(gguf_name, *keys, order=None):
        parts = [sd.pop(k) for k in keys]
        full = torch.cat([p.detach() for p in parts]) if len(parts) > 1 else parts[0].detach()
        array = full.numpy().copy()
        if order is not None:
            array = array[order]

        def back(a):
            a = np.array(a, dtype=np.float32)
            if order is not None:
                plain = np.empty_like(a)
                plain[order] = a
                a = plain
            at = 0
            with torch.no_grad():
                for p in parts:
                    n = p.shape[0] if len(parts) > 1 else len(a)
                    p.copy_(torch.from_numpy(a[at : at + n]).reshape(p.shape))
                    at += n

        out[gguf_name] = (array, back)

    def pair(gguf_name, key):
        put(gguf_name + ".weight", key + ".weight")
        if key + ".bias" in sd:
            put(gguf_name + ".bias", key + ".bias")

    v = "vision_tower."
    put("v.class_embd", v + "embeddings.cls_token")
    put("v.position_embd.weight", v + "embeddings.position_embeddings")
    pair("v.patch_embd", v + "embeddings.patch_embeddings.projection")
    for i in range(model.config.vision_config.num_hidden_layers):
        a, b = f"v.blk.{i}.", v + f"encoder.layer.{i}."
        pair(a + "ln1", b + "layernorm_before")
        pair(a + "ln2", b + "layernorm_after")
        for x in "qkv":
            pair(a + "attn_" + x, b + f"attention.{x}_proj")
        pair(a + "attn_out", b + "attention.projection_layer")
        put(a + "ls1.weight", b + "lambda_1")
        put(a + "ls2.weight", b + "lambda_2")
        pair(a + "ffn_up", b + "mlp.fc1")
        pair(a + "ffn_down", b + "mlp.fc2")
    pair("mm.model.mlp.0", "multi_modal_projector.layer_norm")
    pair("mm.model.mlp.1", "multi_modal_projector.linear_1")
    pair("mm.model.mlp.3", "multi_modal_projector.linear_2")

    t = model.config.text_config
    hd = t.hidden_size // t.num_attention_heads

    def interleaved(heads):
        # GGUF row 2i + s of a head is row s * hd / 2 + i here.
        rows = [h * hd + s * (hd // 2) + i for h in range(heads) for i in range(hd // 2) for s in (0, 1)]
        return np.array(rows)

    put("token_embd.weight", "language_model.embed_tokens.weight")
    put("output_norm.weight", "language_model.norm.weight")
    put("output.weight", "lm_head.weight")
    for i in range(t.num_hidden_layers):
        a, b = f"blk.{i}.", f"language_model.layers.{i}."
        put(a + "attn_norm.weight", b + "input_layernorm.weight")
        put(a + "ffn_norm.weight", b + "post_attention_layernorm.weight")
        put(a + "attn_output.weight", b + "self_attn.o_proj.weight")
        put(a + "ffn_down.weight", b + "mlp.down_proj.weight")
        if name == "phi3":
            put(a + "attn_qkv.weight", b + "self_attn.qkv_proj.weight")
            put(a + "ffn_up.weight", b + "mlp.gate_up_proj.weight")
            continue
        llama = name == "internlm2"
        put(a + "attn_q.weight", b + "self_attn.q_proj.weight",
            order=interleaved(t.num_attention_heads) if llama else None)
        put(a + "attn_k.weight", b + "self_attn.k_proj.weight",
            order=interleaved(t.num_key_value_heads) if llama else None)
        put(a + "attn_v.weight", b + "self_attn.v_proj.weight")
        if not llama:
            for x in "qkv":
                put(a + f"attn_{x}.bias", b + f"self_attn.{x}_proj.bias")
        put(a + "ffn_gate.weight", b + "mlp.gate_proj.weight")
        put(a + "ffn_up.weight", b + "mlp.up_proj.weight")
    assert not sd, sorted(sd)
    return out


def type_of(name, tensor, array, variant):
    if array.ndim < 2 or "position_embd" in tensor or "class_embd" in tensor:
        return T.F32
    if name == "mixed":
        return MIXED[tensor.removesuffix(".weight")]
    if variant is None:
        return T.F32 if name == "qwen2" else T.BF16
    if "patch_embd" in tensor:
        return T.F16
    assert array.shape[-1] % 32 == 0, tensor
    return T.Q8_0 if variant == "q8_0" or tensor == "output.weight" else T.Q4_0


def quantized(array, t):
    """(bytes as the writer wants them, the floats that they stand for)"""
    if t == T.F32:
        return array, array
    if t == T.F16:
        half = array.astype(np.float16)
        return half, half.astype(np.float32)
    if t in (T.Q2_K, T.Q3_K, T.Q4_K, T.Q5_K, T.Q6_K, T.IQ4_NL, T.IQ4_XS):
        return random_blocks(array, t)
    blocks = gguf.quants.quantize(array, t)
    floats = gguf.quants.dequantize(blocks, t).reshape(array.shape)
    assert t != T.BF16 or np.array_equal(floats, array)
    return blocks, floats


def llm_metadata(w, name, model, vocab):
    s, t = SPECS[name], model.config.text_config
    w.add_name(f"random {name}")
    w.add_context_length(t.max_position_embeddings)
    w.add_embedding_length(t.hidden_size)
    w.add_block_count(t.num_hidden_layers)
    w.add_feed_forward_length(t.intermediate_size)
    w.add_head_count(t.num_attention_heads)
    w.add_head_count_kv(t.num_key_value_heads)
    w.add_layer_norm_rms_eps(t.rms_norm_eps)
    w.add_rope_freq_base(t.rope_parameters["rope_theta"])
    w.add_vocab_size(len(vocab.tokens))
    if name == "phi3":
        w.add_rope_dimension_count(t.hidden_size // t.num_attention_heads)
        w.add_rope_scaling_orig_ctx_len(PHI3_ORIGINAL)
        w.add_rope_scaling_attn_factors(float(model.model.language_model.rotary_emb.attention_scaling))
    vocab.metadata(w)
    w.add_string("pocketvl.template", s["template"])
    w.add_string("pocketvl.system_message", SYSTEM)


def clip_metadata(w, name, model):
    v = model.config.vision_config
    w.add_bool("clip.has_vision_encoder", True)
    w.add_string("clip.projector_type", "internvl")
    w.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": v.image_size[0],
        "patch_size": 14,
        "embedding_length": v.hidden_size,
        "feed_forward_length": v.intermediate_size,
        "block_count": v.num_hidden_layers,
        "projection_dim": model.config.text_config.hidden_size,
        "attention.head_count": v.num_attention_heads,
        "projector.scale_factor": 2,
    }.items():
        w.add_uint32("clip.vision." + key, value)
    w.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    w.add_array("clip.vision.image_mean", [0.485, 0.456, 0.406])
    w.add_array("clip.vision.image_std", [0.229, 0.224, 0.225])


def write_gguf(name, variant, model, vocab, tensors):
    stem = name if variant is None else f"{name}-{variant}"
    pair = stem == "internlm2-q8_0"
    arch = SPECS[name]["text"]["model_type"]
    split = {"split_max_tensors": 22} if name == "mixed" else {}
    w = gguf.GGUFWriter(OUT / f"{stem}.gguf", {"llama": "internlm2"}.get(arch, arch), **split)
    llm_metadata(w, name, model, vocab)
    writers = [w]
    if pair:
        writers.append(gguf.GGUFWriter(OUT / f"{stem}-mmproj.gguf", "clip"))
        writers[1].add_type("mmproj")
    clip_metadata(writers[-1], name, model)
    for tensor, (array, _) in tensors.items():
        t = type_of(name, tensor, array, variant)
        data, _ = quantized(array, t)
        vision = tensor.startswith(("v.", "mm."))
        if tensor in ("v.class_embd", "v.position_embd.weight"):
            data = data.reshape(data.shape[1:] if "position" in tensor else -1)
        writers[-1 if vision else 0].add_tensor(tensor, data, raw_dtype=None if t in (T.F32, T.F16) else t)
    if name == "phi3":
        w.add_tensor("rope_factors_long.weight", np.array(PHI3_LONG, np.float32))
        w.add_tensor("rope_factors_short.weight", np.array(PHI3_SHORT, np.float32))
    for x in writers:
        x.write_header_to_file()
        x.write_kv_data_to_file()
        x.write_tensors_to_file()
        x.close()
    return stem


# ---- published checkpoints ----


def published_tensors(name, model):
    """Names and shapes of the checkpoints that InternVL2 was published as."""
    sd = {k.removeprefix("model."): v.detach() for k, v in model.named_parameters()}
    out = {}
    v, p = "vision_tower.", "vision_model."
    out[p + "embeddings.class_embedding"] = sd[v + "embeddings.cls_token"]
    out[p + "embeddings.position_embedding"] = sd[v + "embeddings.position_embeddings"]
    for x in ("weight", "bias"):
        out[p + f"embeddings.patch_embedding.{x}"] = sd[v + f"embeddings.patch_embeddings.projection.{x}"]
    for i in range(model.config.vision_config.num_hidden_layers):
        a, b = p + f"encoder.layers.{i}.", v + f"encoder.layer.{i}."
        for x in ("weight", "bias"):
            out[a + "attn.qkv." + x] = torch.cat([sd[b + f"attention.{q}_proj.{x}"] for q in "qkv"])
            out[a + "attn.proj." + x] = sd[b + "attention.projection_layer." + x]
            out[a + "norm1." + x] = sd[b + "layernorm_before." + x]
            out[a + "norm2." + x] = sd[b + "layernorm_after." + x]
            out[a + "mlp.fc1." + x] = sd[b + "mlp.fc1." + x]
            out[a + "mlp.fc2." + x] = sd[b + "mlp.fc2." + x]
        out[a + "ls1"], out[a + "ls2"] = sd[b + "lambda_1"], sd[b + "lambda_2"]
    for x in ("weight", "bias"):
        out["mlp1.0." + x] = sd["multi_modal_projector.layer_norm." + x]
        out["mlp1.1." + x] = sd["multi_modal_projector.linear_1." + x]
        out["mlp1.3." + x] = sd["multi_modal_projector.linear_2." + x]
    t = model.config.text_config
    hd, groups = t.hidden_size // t.num_attention_heads, t.num_key_value_heads
    for key, value in sd.items():
        if key.startswith("language_model.") and name != "internlm2":
            out["language_model.model." + key.removeprefix("language_model.")] = value
    if name != "internlm2":
        out["language_model.lm_head.weight"] = sd["lm_head.weight"]
        return out
    out["language_model.model.tok_embeddings.weight"] = sd["language_model.embed_tokens.weight"]
    out["language_model.model.norm.weight"] = sd["language_model.norm.weight"]
    out["language_model.output.weight"] = sd["lm_head.weight"]
    for i in range(t.num_hidden_layers):
        a, b = f"language_model.model.layers.{i}.", f"language_model.layers.{i}."
        q, k, w = (sd[b + f"self_attn.{x}_proj.weight"].reshape(groups, -1, hd, t.hidden_size) for x in "qkv")
        # For each key/value head: its query heads, its key, its value.
        out[a + "attention.wqkv.weight"] = torch.cat([q, k, w], 1).reshape(-1, t.hidden_size)
        out[a + "attention.wo.weight"] = sd[b + "self_attn.o_proj.weight"]
        out[a + "attention_norm.weight"] = sd[b + "input_layernorm.weight"]
        out[a + "ffn_norm.weight"] = sd[b + "post_attention_layernorm.weight"]
        for x, y in (("w1", "gate"), ("w2", "down"), ("w3", "up")):
            out[a + f"feed_forward.{x}.weight"] = sd[b + f"mlp.{y}_proj.weight"]
    return out


def published_config(name, model, vocab):
    t, v = model.config.text_config, model.config.vision_config
    arch = {"qwen2": "Qwen2ForCausalLM", "internlm2": "InternLM2ForCausalLM", "phi3": "Phi3ForCausalLM"}[name]
    llm = {
        "architectures": [arch],
        "hidden_size": t.hidden_size,
        "intermediate_size": t.intermediate_size,
        "max_position_embeddings": t.max_position_embeddings,
        "model_type": name,
        "num_attention_heads": t.num_attention_heads,
        "num_hidden_layers": t.num_hidden_layers,
        "num_key_value_heads": t.num_key_value_heads,
        "rms_norm_eps": t.rms_norm_eps,
        "rope_theta": t.rope_parameters["rope_theta"],
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": len(vocab.tokens),
    }
    ids = vocab.ids
    if name == "qwen2":
        llm |= {"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"], "rope_scaling": None}
        llm |= {"sliding_window": 32768, "use_sliding_window": False}
    elif name == "internlm2":
        llm |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "bias": False}
        llm |= {"rope_scaling": {"factor": 2.0, "type": "dynamic"}}
    else:
        end = ids["<|endoftext|>"]
        llm |= {"bos_token_id": 1, "eos_token_id": end, "pad_token_id": end, "sliding_window": 262144}
        llm["original_max_position_embeddings"] = PHI3_ORIGINAL
        llm["rope_scaling"] = {"long_factor": PHI3_LONG, "short_factor": PHI3_SHORT, "type": "su"}
    vision_config = {
        "architectures": ["InternVisionModel"],
        "hidden_act": "gelu",
        "hidden_size": v.hidden_size,
        "image_size": v.image_size[0],
        "initializer_factor": 1.0,
        "intermediate_size": v.intermediate_size,
        "layer_norm_eps": 1e-6,
        "model_type": "intern_vit_6b",
        "norm_type": "layer_norm",
        "num_attention_heads": v.num_attention_heads,
        "num_channels": 3,
        "num_hidden_layers": v.num_hidden_layers,
        "patch_size": 14,
        "qk_normalization": False,
        "qkv_bias": True,
        "torch_dtype": "bfloat16",
        "use_flash_attn": True,
    }
    return {
        "architectures": ["InternVLChatModel"],
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "force_image_size": v.image_size[0],
        "llm_config": llm,
        "max_dynamic_patch": 12,
        "min_dynamic_patch": 1,
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "select_layer": -1,
        "template": {"qwen2": "Hermes-2"}.get(name, SPECS[name]["template"]),
        "torch_dtype": "bfloat16",
        "transformers_version": "4.37.2",
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "use_thumbnail": True,
        "vision_config": vision_config,
    }


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    """One field of a protocol buffer: bytes, float or integer."""
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    return varint(number << 3) + varint(value)


def sentencepiece_model(vocab):
    pieces = list(zip(vocab.tokens[: vocab.base], vocab.scores, vocab.types))
    pieces += [(s, 0.0, 4) for s in vocab.spelled]
    out = b"".join(field(1, field(1, p.encode()) + field(2, float(s)) + field(3, t)) for p, s, t in pieces)
    trainer = field(3, 2) + field(4, len(pieces)) + field(35, 1) + field(40, 0) + field(41, 1) + field(42, 2)
    # add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces
    normalizer = field(1, b"identity") + field(3, int(vocab.phi3)) + field(4, 0) + field(5, 1)
    return out + field(2, trainer) + field(3, normalizer)


def write_tokenizer(folder, name, vocab):
    added = {t: i for t, i in vocab.ids.items() if i >= vocab.base + len(getattr(vocab, "spelled", []))}
    decoder = {i: t for t, i in vocab.ids.items() if t in vocab.special}
    config = {"clean_up_tokenization_spaces": False, "model_max_length": 8192}
    if name == "qwen2":
        plain = {t: i for i, t in enumerate(vocab.tokens[: vocab.base])}
        (folder / "vocab.json").write_text(json.dumps(plain, ensure_ascii=False))
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in vocab.merges))
        config |= {"add_prefix_space": False, "add_eos_token": False, "bos_token": None, "eos_token": "<|im_end|>"}
        config |= {"pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer", "unk_token": None, "errors": "replace"}
    else:
        (folder / "tokenizer.model").write_bytes(sentencepiece_model(vocab))
        decoder |= {0: "<unk>", 1: "<s>", 2: "</s>"}
        config |= {"bos_token": "<s>", "unk_token": "<unk>"}
        if name == "phi3":
            config |= {"add_bos_token": True, "add_eos_token": False, "eos_token": "<|endoftext|>", "legacy": False}
            config |= {"pad_token": "<|endoftext|>", "sp_model_kwargs": {}, "tokenizer_class": "LlamaTokenizer"}
        else:
            config |= {"eos_token": "</s>", "pad_token": "</s>", "tokenizer_class": "InternLM2Tokenizer"}
    markers = getattr(vocab, "markers", [])
    config["added_tokens_decoder"] = {
        str(i): {
            "content": t,
            "lstrip": False,
            "normalized": False,
            "rstrip": t in markers or (name == "phi3" and t == "</s>"),
            "single_word": False,
            "special": t not in markers,
        }
        for i, t in sorted(decoder.items())
    }
    config["additional_special_tokens"] = [t for t in vocab.special if t not in markers and t != "<|endoftext|>"]
    (folder / "added_tokens.json").write_text(json.dumps(added, indent=2) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def check_sentencepiece(folder, vocab):
    """Our own encoder above gives SentencePiece's ids."""
    import sentencepiece

    sp = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in (CORPUS, "Image and the\ncircles, 12 \u00e9!  two  spaces ", "system\nBe short."):
        want = sp.encode(text)
        got = vocab.encode_plain((SPACE if vocab.phi3 else "") + text)
        assert got == want, (text, got, want)


def write_published(name, model, vocab):
    from safetensors.torch import save_file

    folder = HF / name
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.bfloat16().contiguous().clone() for k, v in published_tensors(name, model).items()}
    assert sum(t.numel() for t in tensors.values()) == sum(p.numel() for p in model.parameters())
    if name == "phi3":
        keys, index = sorted(tensors), {}
        for i, part in enumerate((keys[: len(keys) // 2], keys[len(keys) // 2 :])):
            file = f"model-{i + 1:05}-of-00002.safetensors"
            save_file({k: tensors[k] for k in part}, folder / file, metadata={"format": "pt"})
            index |= {k: file for k in part}
        total = sum(t.numel() * 2 for t in tensors.values())
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=2) + "\n"
        )
    else:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    ids = vocab.ids
    eos = {"qwen2": ["<|im_start|>", "<|im_end|>"], "internlm2": ["<|im_end|>", "<|im_start|>"]}
    stops = [ids[t] for t in eos.get(name, [])] or [2, ids["<|endoftext|>"], ids["<|end|>"]]
    files = {
        "config.json": published_config(name, model, vocab),
        "generation_config.json": {"eos_token_id": stops, "transformers_version": "4.37.2"},
        "preprocessor_config.json": {
            "crop_size": SPECS[name]["image_size"],
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "resample": 3,
            "size": SPECS[name]["image_size"],
        },
    }
    for file, content in files.items():
        (folder / file).write_text(json.dumps(content, indent=2) + "\n")
    write_tokenizer(folder, name, vocab)
    if name != "qwen2":
        check_sentencepiece(folder, vocab)


# ---- runs ----


def picture():
    """Soft gradients and two shapes: 100 x 60."""
    y, x = np.mgrid[0:60, 0:100]
    rgb = np.stack([x * 2.5, y * 4.0, 255 - x - y * 1.5], -1)
    rgb[(x - 30) ** 2 + (y - 30) ** 2 < 300] = (220, 30, 40)
    rgb[15:45, 60:90] = (250, 240, 90)
    return np.clip(np.round(rgb), 0, 255).astype(np.uint8)


def tiles_of(rgb, size):
    """Two tiles side by side (the grid that InternVL chooses for 100 x 60 and at most 2 tiles), then the thumbnail."""
    image = Image.fromarray(rgb)
    wide = image.resize((2 * size, size), Image.BICUBIC)
    tiles = [wide.crop((0, 0, size, size)), wide.crop((size, 0, 2 * size, size)), image.resize((size, size), Image.BICUBIC)]
    x = np.stack([np.asarray(t, dtype=np.float32) for t in tiles]) / 255
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return np.ascontiguousarray(((x - mean) / std).transpose(0, 3, 1, 2))


def prompt_parts(template, question, image_tokens):
    picture_part = [("<img>", 1), ("<IMG_CONTEXT>", image_tokens), ("</img>", 1)] if image_tokens else []
    text = ("\n" if image_tokens else "") + question
    if template == "phi3-chat":
        start, end = (lambda role: [(f"<|{role}|>", 1), "\n"]), [("<|end|>", 1)]
    else:
        start = lambda role: [("<|im_start|>", 1), role + "\n"]
        end = [("<|im_end|>", 1), *(["\n"] if template == "internvl2_5" else [])]
    parts = [*start("system"), SYSTEM, *end, *start("user"), *picture_part, text, *end, *start("assistant")]
    joined = []  # text between two special tokens is one piece
    for p in parts:
        if isinstance(p, str) and joined and isinstance(joined[-1], str):
            joined[-1] += p
        else:
            joined.append(p)
    return joined


def capture(modules):
    store = {}

    def hook(key):
        def f(_, __, output):
            store[key] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return f

    return store, [m.register_forward_hook(hook(k)) for k, m in modules.items()]


@torch.no_grad()
def run(model, ids, pixels, long_factors):
    """(stages of the prompt, logits, greedy tokens, margins)"""
    lm = model.model.language_model
    rope = getattr(lm, "rotary_emb", None)
    saved = rope.original_inv_freq.clone()
    if long_factors:
        rope.original_inv_freq.copy_(1.0 / (torch.tensor(PHI3_LONG) * 10000.0 ** (torch.arange(0, 24, 2).float() / 24)))
    modules = {f"layer.{i}": layer for i, layer in enumerate(lm.layers)}
    modules["norm"] = lm.norm
    store, handles = capture(modules)
    embeds = []
    handles.append(lm.layers[0].register_forward_pre_hook(lambda _, args: embeds.append(args[0].detach().clone())))
    out = model(input_ids=torch.tensor([ids]), pixel_values=pixels, use_cache=True)
    for h in handles:
        h.remove()
    stages = {"embeds": embeds[0], **store}
    logits = out.logits[0]
    greedy, margins, past, last = [], [], out.past_key_values, logits[-1]
    for step in range(GREEDY):
        top = torch.topk(last, 2)
        greedy.append(int(top.indices[0]))
        margins.append(float(top.values[0] - top.values[1]))
        out = model(input_ids=torch.tensor([[greedy[-1]]]), past_key_values=past, use_cache=True)
        past, last = out.past_key_values, out.logits[0, -1]
    rope.original_inv_freq.copy_(saved)
    return {k: v[0].numpy() for k, v in stages.items()}, logits.numpy(), greedy, margins


@torch.no_grad()
def vision(model, pixels):
    m = model.model
    tower = m.vision_tower
    modules = {f"vit.{i}": layer for i, layer in enumerate(tower.encoder.layer)}
    modules["patches"] = tower.embeddings
    modules["projector"] = m.multi_modal_projector
    store, handles = capture(modules)
    handles.append(
        m.multi_modal_projector.register_forward_pre_hook(
            lambda _, args: store.__setitem__("shuffle", args[0].detach().clone())
        )
    )
    m.get_image_features(pixel_values=pixels)
    for h in handles:
        h.remove()
    order = ["patches", *[k for k in modules if k.startswith("vit.")], "shuffle", "projector"]
    return {k: store[k].numpy() for k in order}


RUNS = {"image": ("what is in the picture?", True), "text": ("how many circles are there?", False)}
LONG = " ".join(["there are three red circles and one green square on the left"] * 8) + ": what is blue?"


def runs_of(name, vocab, image_tokens):
    template = SPECS[name]["template"]
    out = {}
    for key, (question, with_image) in RUNS.items():
        parts = prompt_parts(template, question, image_tokens if with_image else 0)
        out[key] = (question, with_image, vocab.prompt(parts), False)
    if name == "phi3":
        for key, question in (("long", LONG), ("text-long", RUNS["text"][0])):
            ids = vocab.prompt(prompt_parts(template, question, 0))
            out[key] = (question, False, ids, True)
        assert len(out["long"][2]) > PHI3_ORIGINAL, len(out["long"][2])
        assert len(out["image"][2]) + GREEDY <= PHI3_ORIGINAL
    return out


class Golden:
    def __init__(self):
        self.entries = []

    def add(self, name, array):
        array = np.ascontiguousarray(array)
        kind = {np.dtype("float32"): 0, np.dtype("int32"): 1, np.dtype("uint8"): 2}[array.dtype]
        self.entries.append((name, kind, array))

    def write(self, path):
        with path.open("wb") as f:
            f.write(b"PVLG" + struct.pack("<I", len(self.entries)))
            for name, kind, a in self.entries:
                raw = name.encode()
                f.write(struct.pack("<I", len(raw)) + raw + struct.pack("<2I", kind, a.ndim))
                f.write(struct.pack(f"<{a.ndim}I", *a.shape) + a.tobytes())


def golden_of(name, model, vocab, full):
    rgb = picture()
    pixels = torch.from_numpy(tiles_of(rgb, SPECS[name]["image_size"]))
    g = Golden()
    g.add("image", rgb)
    g.add("max_tiles", np.int32([2]))
    if full:
        g.add("pixels", pixels.numpy())
    stages = vision(model, pixels)
    for key, value in stages.items():
        if full or key == "projector":
            g.add(key, value)
    image_tokens = stages["projector"].shape[0] * stages["projector"].shape[1]
    worst, variety = np.inf, np.inf
    for key, (question, with_image, ids, long_factors) in runs_of(name, vocab, image_tokens).items():
        if key == "text-long" and not full:
            continue
        s, logits, greedy, margins = run(model, ids, pixels if with_image else None, long_factors)
        worst, variety = min(worst, *margins), min(variety, len(set(greedy)))
        g.add(f"{key}.question", np.frombuffer(question.encode(), np.uint8))
        g.add(f"{key}.images", np.int32([with_image]))
        g.add(f"{key}.long_factors", np.int32([long_factors]))
        g.add(f"{key}.ids", np.int32(ids))
        for k, v in s.items():
            if k == "norm" or (full and key != "long" and name != "mixed"):
                g.add(f"{key}.{k}", v)
        g.add(f"{key}.logits", logits[-1:] if key == "long" else logits[-32:] if full else logits[-16:])
        g.add(f"{key}.greedy", np.int32(greedy))
        g.add(f"{key}.margins", np.float32(margins))
    return g, worst, variety


def best_seed(name, model, vocab, prepare):
    """Greedy tokens can be compared only where no two logits are nearly equal: the seed with the widest margins."""
    best = None
    for seed in range(40):
        prepare(seed)
        _, worst, variety = golden_of(name, model, vocab, True)
        score = worst if variety >= 12 else -1
        if best is None or score > best[0]:
            best = (score, seed)
        if score > 0.05:
            break
    return best[1]


def main():
    torch.set_num_threads(1)
    OUT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or SPECS:
        vocab = Spm(name == "phi3") if name in ("internlm2", "phi3") else Bpe()
        model = build(name, vocab)

        def prepare(seed):
            randomise(model, vocab, seed)
            if name == "mixed":
                for tensor, (array, back) in to_gguf(name, model).items():
                    back(quantized(array, type_of(name, tensor, array, None))[1])

        seed = best_seed(name, model, vocab, prepare)
        randomise(model, vocab, seed)
        tensors = to_gguf(name, model)
        if name != "mixed":
            write_published(name, model, vocab)
        for variant in (None,) if name == "mixed" else (None, "q8_0", "q4_0"):
            stem = write_gguf(name, variant, model, vocab, tensors)
            for tensor, (array, back) in tensors.items():
                back(quantized(array, type_of(name, tensor, array, variant))[1])
            g, worst, variety = golden_of(name, model, vocab, variant is None)
            g.write(OUT / f"{stem}.golden")
            files = [p for p in sorted(OUT.glob(f"{stem}*.gguf")) if p.stem[len(stem) :][:2] in ("", "-m", "-0")]
            print(f"{stem}: seed {seed}, smallest margin {worst:.4f}, at least {variety} different tokens, "
                  f"{sum(p.stat().st_size for p in files)} bytes in {len(files)} files", flush=True)


if __name__ == "__main__":
    main()
