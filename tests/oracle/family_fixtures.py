"""Small random models of InternVL2.5 and InternVL3 as checkpoints, with the tokens and logits of `transformers`.

    python3 tests/oracle/family_fixtures.py
    (needs: pip install torch transformers gguf numpy pillow sentencepiece; a minute)

Both rotate by "dynamic NTK": beyond 80 positions here, so that the runs "text" and "image" (which cross it while answering)
and "long" (a prompt beyond it) tell whether that is right. Template internvl2_5.

    hf/internvl3             names and files as InternVL3-1B (also InternVL2.5-1B and -4B): Qwen2.5's 22 added tokens
    hf/internlm2-hf          the weights of hf/internlm2 as transformers saves them itself (InternVL2.5-2B-hf): Llama
                             names, rope_parameters inside text_config
    model/internvl3.golden, model/internlm2-dynamic.golden
                             entries as in model_fixtures.py, of each run only the ids, the last row of logits, 64
                             greedy tokens and their margins
"""

import json
import shutil

import gguf
import model_fixtures as base
import numpy as np
import torch

LIMIT = 80
ROPE = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6}
SCALING = {"type": "dynamic", "factor": 2.0}
OWN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
OWN += [f"<|{x}_{y}|>" for x in ("object_ref", "box", "quad", "vision") for y in ("start", "end")]
OWN += ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
PLAIN = ["<tool_call>", "</tool_call>", *(f"<|fim_{x}|>" for x in ("prefix", "middle", "suffix", "pad")), "<|repo_name|>",
         "<|file_sep|>"]


class Qwen25(base.Bpe):
    """Qwen2.5's 22 added tokens, eight of them not special, before InternVL's nine."""

    def __init__(self):
        super().__init__()
        self.special = [*OWN, *PLAIN, *base.NINE]
        self.tokens = self.tokens[: self.base] + self.special
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.markers = PLAIN
        self.context = self.ids["<IMG_CONTEXT>"]


def spec(name, **text):
    s = base.SPECS[name]
    dynamic = dict(max_position_embeddings=LIMIT, rope_parameters=ROPE)
    return dict(s, template="internvl2_5", text=dict(s["text"], **dynamic, **text))


base.SPECS["internvl3"] = spec("qwen2", num_hidden_layers=2)
base.SPECS["internlm2-dynamic"] = spec("internlm2")


def long_question(vocab):
    """The longest beginning of LONG for which prompt and answer stay below twice the limit."""
    words = base.LONG.split()
    while len(vocab.prompt(base.prompt_parts("internvl2_5", " ".join(words), 0))) > 2 * LIMIT - base.GREEDY:
        words.pop()
    return " ".join(words)


def golden_of(name, model, vocab):
    rope = model.model.language_model.rotary_emb
    rgb = base.picture()
    pixels = torch.from_numpy(base.tiles_of(rgb, base.SPECS[name]["image_size"]))
    tokens = model.model.get_image_features(pixel_values=pixels).pooler_output
    g = base.Golden()
    g.add("image", rgb)
    g.add("max_tiles", np.int32([2]))
    worst = np.inf
    questions = dict(text=base.RUNS["text"][0], image=base.RUNS["image"][0], long=long_question(vocab))
    for key, question in questions.items():
        image_tokens = tokens.shape[0] * tokens.shape[1] if key == "image" else 0
        ids = vocab.prompt(base.prompt_parts("internvl2_5", question, image_tokens))
        assert (len(ids) > LIMIT) == (key == "long") and len(ids) + base.GREEDY > LIMIT, (key, len(ids))
        # It would go on with the base of the run before.
        rope.max_seq_len_cached = LIMIT
        rope.inv_freq.copy_(rope.original_inv_freq)
        _, logits, greedy, margins = base.run(model, ids, pixels if image_tokens else None, False)
        worst = min(worst, *margins)
        g.add(f"{key}.question", np.frombuffer(question.encode(), np.uint8))
        g.add(f"{key}.images", np.int32([image_tokens > 0]))
        g.add(f"{key}.ids", np.int32(ids))
        g.add(f"{key}.logits", logits[-1:])
        g.add(f"{key}.greedy", np.int32(greedy))
        g.add(f"{key}.margins", np.float32(margins))
    return g, worst


def write_internvl3():
    from safetensors.torch import save_file

    vocab = Qwen25()
    model = base.build("internvl3", vocab)
    best = (0.0, 0)
    for seed in range(20):
        base.randomise(model, vocab, seed)
        best = max(best, (golden_of("internvl3", model, vocab)[1], seed))
        if best[0] > 0.03:
            break
    base.randomise(model, vocab, best[1])
    golden_of("internvl3", model, vocab)[0].write(base.OUT / "internvl3.golden")
    folder = base.HF / "internvl3"
    folder.mkdir(exist_ok=True)
    tensors = base.published_tensors("internvl3", model)
    save_file({k: v.bfloat16().contiguous().clone() for k, v in tensors.items()}, folder / "model.safetensors",
              metadata={"format": "pt"})
    config = base.published_config("qwen2", model, vocab)
    config |= {"template": "internvl2_5"}
    # As published: the model ends at <|im_end|> whatever stands here.
    config["llm_config"] |= {"rope_scaling": SCALING, "eos_token_id": vocab.ids["<|endoftext|>"], "rope_theta": 1e6}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    base.write_tokenizer(folder, "qwen2", vocab)
    return best


def write_internlm2():
    vocab = base.Spm(False)
    model = base.build("internlm2-dynamic", vocab)
    stored = {t.name: t for t in gguf.GGUFReader(base.OUT / "internlm2.gguf").tensors}
    for name, (array, back) in base.to_gguf("internlm2", model).items():
        t = stored[name]
        back(gguf.quants.dequantize(t.data, t.tensor_type).reshape(array.shape))
    g, worst = golden_of("internlm2-dynamic", model, vocab)
    g.write(base.OUT / "internlm2-dynamic.golden")
    folder = base.HF / "internlm2-hf"
    model.bfloat16().save_pretrained(folder)
    for name in ("tokenizer.model", "tokenizer_config.json", "added_tokens.json"):
        shutil.copy(base.HF / "internlm2" / name, folder / name)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)
    return worst


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("internvl3: smallest margin and seed", write_internvl3())
    print("internlm2-dynamic: smallest margin", write_internlm2())
