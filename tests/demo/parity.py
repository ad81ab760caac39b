"""Parity fixture: the shipped file in the published implementation, `transformers`' InternVL classes.

    python tests/demo/parity.py       writes tests/fixtures/demo/

Loads pocketvl-demo.gguf, dequantizes it to float32, builds InternVLForConditionalGeneration of the same sizes,
and records for three pictures the prompt's ids, the greedy answer and some numbers on the way.  Fails
when model.py does not agree with `transformers`.
"""

import hashlib
import json
import os
import random
import zlib

import numpy as np
import torch
from PIL import Image
from transformers import InternVLConfig, InternVLForConditionalGeneration

from draw import draw, shrink
from export import OUT, load, read_raw
from heldout import answer
from rows import Prompt
from vision import normalise

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = os.path.join(HERE, "..", "fixtures", "demo")
QUESTIONS = {
    "shapes": ["Where is the red circle?", "How many shapes are there?", "描述这张图片。"],
    "text": ["What does it say?", "Please provide the bounding box coordinate of the region this sentence describes: <ref>text</ref>", "文字是什么颜色？"],
    "chart": ["Which bar is the highest?", "How many bars are there?", "最大值是多少？"],
}


def published(path):
    """The file as InternVLForConditionalGeneration in float32."""
    c, t, tok = read_raw(path)
    config = InternVLConfig(
        vision_config={"model_type": "internvl_vision", "hidden_size": c.v_hidden, "num_hidden_layers": c.v_layers, "num_attention_heads": c.v_heads,
                       "intermediate_size": c.v_ffn, "image_size": [c.image_size] * 2, "patch_size": [c.patch] * 2, "attention_bias": True,
                       "use_qk_norm": False, "norm_type": "layer_norm", "layer_norm_eps": 1e-6, "hidden_act": "gelu",
                       "use_mask_token": False, "use_absolute_position_embeddings": True, "use_mean_pooling": True},
        text_config={"model_type": "qwen2", "hidden_size": c.hidden, "num_hidden_layers": c.layers, "num_attention_heads": c.heads,
                     "num_key_value_heads": c.kv_heads, "intermediate_size": c.ffn, "vocab_size": c.vocab, "rms_norm_eps": 1e-6,
                     "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta}, "max_position_embeddings": c.context,
                     "tie_word_embeddings": False, "eos_token_id": tok.ids["<|im_end|>"], "pad_token_id": tok.ids["<|endoftext|>"], "bos_token_id": None},
        image_token_id=tok.ids["<IMG_CONTEXT>"], image_seq_length=c.tokens, downsample_ratio=0.5, projector_hidden_act="gelu",
        vision_feature_layer=-1, vision_feature_select_strategy="default", tie_word_embeddings=False,
    )  # fmt: skip
    with torch.no_grad():
        model = InternVLForConditionalGeneration(config).float().eval()
    rename = {"token_embd.weight": "language_model.embed_tokens.weight", "output_norm.weight": "language_model.norm.weight", "output.weight": "lm_head.weight",
              "v.class_embd": "vision_tower.embeddings.cls_token", "v.position_embd.weight": "vision_tower.embeddings.position_embeddings",
              "v.patch_embd.weight": "vision_tower.embeddings.patch_embeddings.projection.weight",
              "v.patch_embd.bias": "vision_tower.embeddings.patch_embeddings.projection.bias"}  # fmt: skip
    text = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
            "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}  # fmt: skip
    eye = {"ln1": "layernorm_before", "ln2": "layernorm_after", "attn_q": "attention.q_proj", "attn_k": "attention.k_proj", "attn_v": "attention.v_proj",
           "attn_out": "attention.projection_layer", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2"}  # fmt: skip
    state = {}
    for name, x in t.items():
        part = name.split(".")
        if name.startswith("blk."):
            new = f"language_model.layers.{part[1]}.{text[part[2]]}.{part[3]}"
        elif name.startswith("v.blk."):
            new = f"vision_tower.encoder.layer.{part[2]}." + (f"lambda_{part[3][2]}" if part[3].startswith("ls") else f"{eye[part[3]]}.{part[4]}")
        elif name.startswith("mm."):
            new = "multi_modal_projector." + {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}[part[3]] + "." + part[4]
        else:
            new = rename[name]
        state[new if new == "lm_head.weight" else "model." + new] = torch.from_numpy(x.copy())
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    assert not [m for m in missing if "mean_pool" not in m and "layernorm.weight" != m.rsplit("tower.")[-1]], missing
    return model, tok


@torch.no_grad()
def main():
    torch.set_num_threads(2)
    os.makedirs(FOLDER, exist_ok=True)
    path = os.path.join(OUT, "pocketvl-demo.gguf")
    reference, tok = published(path)
    mine, _ = load(path)
    prompt = Prompt(tok, mine.c)
    cases = []
    for i, kind in enumerate(("shapes", "text", "chart")):
        rng = random.Random(500 + i)
        while True:
            img, scene = draw(rng, True, kind)
            if kind != "shapes" or {"red", "circle"} <= {v for o in scene["objs"] if o["colour"] == "red" for v in (o["shape"], o["colour"])}:
                break
        img.save(os.path.join(FOLDER, f"{kind}.png"), optimize=True)
        small = shrink(Image.open(os.path.join(FOLDER, f"{kind}.png")), mine.c.image_size)
        pixels = normalise(small[None])
        features = reference.get_image_features(pixel_values=pixels)
        features = getattr(features, "pooler_output", features)
        features = torch.as_tensor(features[0] if isinstance(features, (tuple, list)) else features).reshape(1, mine.c.tokens, -1)
        visual = mine.see(pixels)[1]
        miss = float((visual - features).norm() / features.norm())
        assert miss < 1e-4, f"visual tokens differ from transformers: {miss}"
        for question in QUESTIONS[kind]:
            ids = prompt.prefix + tok.encode(question) + prompt.reply
            out = reference.generate(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long), pixel_values=pixels,
                                     max_new_tokens=72, do_sample=False)[0].tolist()  # fmt: skip
            logits = reference(input_ids=torch.tensor([ids]), pixel_values=pixels).logits[0, -1]
            got = [t for t in (out[len(ids) :] if out[: len(ids)] == ids else out) if t != prompt.end]
            assert answer(mine, prompt, visual, [question])[0] == got, f"greedy answers differ: {question}"
            cases.append({"image": f"{kind}.png", "question": question, "prompt_ids": ids, "answer_ids": got, "answer": tok.decode(got),
                          "first_logits_top": [[int(t), round(float(logits[t]), 4)] for t in logits.topk(4).indices],
                          "pixels_sha256": hashlib.sha256(small.tobytes()).hexdigest(), "pixels_crc32": zlib.crc32(small.tobytes()),
                          "visual_first": [round(float(v), 5) for v in features[0, 0, :8]], "visual_norm": round(float(features.norm()), 3)})  # fmt: skip
            print(kind, question, "=>", tok.decode(got), f"(visual tokens differ by {miss:.1e})")
    with open(path, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    with open(os.path.join(FOLDER, "parity.json"), "w", encoding="utf-8") as f:
        json.dump({"model_sha256": digest, "pixels": "uint8 RGB 224x224, row by row, after Pillow's bicubic resize", "cases": cases}, f, ensure_ascii=False, indent=1)
        f.write("\n")


if __name__ == "__main__":
    main()
