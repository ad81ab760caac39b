"""Checkpoints of full published shape with made weights, in the published form: for trying convert, load and answer.

    python3 tests/oracle/made_checkpoint.py {1B,2B,4B} OUT_FOLDER TOKENIZER_FOLDER [--layers N] [--seed N]
    (needs numpy; writes 1.9, 4.4 or 8.3 GB)

TOKENIZER_FOLDER holds the model's tokenizer files (vocab.json and merges.txt, or tokenizer.model; added_tokens.json;
tokenizer_config.json): they are copied. Tensor names, shapes and BF16 are those of InternVL2; the 4B comes in two files
with an index, as published. Values are normal with the deviation that keeps activations of order one, norms near one.
--layers makes both towers shorter (everything else keeps its size), for measurements that need not take hours.
"""

import argparse
import json
import shutil
import struct
from pathlib import Path

import numpy as np

POOL = 1 << 24
# Phi-3-mini-128k's lists, as published.
SHORT = (
    [1.05] * 3 + [1.1] * 2 + [1.1500000000000001, 1.2000000000000002, 1.2500000000000002, 1.3000000000000003,
    1.3500000000000003, 1.5000000000000004] + [2.000000000000001] * 21 + [2.0500000000000007] * 3
    + [2.1000000000000005] * 3 + [2.1500000000000004] * 2 + [2.3499999999999996, 2.549999999999999]
    + [2.5999999999999988] * 2 + [2.7499999999999982] + [2.849999999999998] * 2 + [2.9499999999999975]
)
LONG = [
    1.0299999713897705, 1.0499999523162842, 1.0499999523162842, 1.0799999237060547, 1.2299998998641968,
    1.2299998998641968, 1.2999999523162842, 1.4499999284744263, 1.5999999046325684, 1.6499998569488525,
    1.8999998569488525, 2.859999895095825, 3.68999981880188, 5.419999599456787, 5.489999771118164, 5.489999771118164,
    9.09000015258789, 11.579999923706055, 15.65999984741211, 15.769999504089355, 15.789999961853027,
    18.360000610351562, 21.989999771118164, 23.079999923706055, 30.009998321533203, 32.35000228881836,
    32.590003967285156, 35.56000518798828, 39.95000457763672, 53.840003967285156, 56.20000457763672,
    57.95000457763672, 59.29000473022461, 59.77000427246094, 59.920005798339844, 61.190006256103516,
    61.96000671386719, 62.50000762939453, 63.3700065612793, 63.48000717163086, 63.48000717163086, 63.66000747680664,
    63.850006103515625, 64.08000946044922, 64.760009765625, 64.80001068115234, 64.81001281738281, 64.81001281738281,
]
LLM = {
    '1B': dict(hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864,
               vocab_size=151655, rms_norm_eps=1e-6, rope_theta=1e6, max_position_embeddings=32768, model_type='qwen2',
               architectures=['Qwen2ForCausalLM'], use_sliding_window=False, sliding_window=32768),
    '2B': dict(hidden_size=2048, num_hidden_layers=24, num_attention_heads=16, num_key_value_heads=8, intermediate_size=8192,
               vocab_size=92553, rms_norm_eps=1e-5, rope_theta=1e6, max_position_embeddings=32768, model_type='internlm2',
               architectures=['InternLM2ForCausalLM'], rope_scaling=dict(type='dynamic', factor=2.0)),
    '4B': dict(hidden_size=3072, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32, intermediate_size=8192,
               vocab_size=32020, rms_norm_eps=1e-5, rope_theta=1e4, max_position_embeddings=131072, model_type='phi3',
               architectures=['Phi3ForCausalLM'], original_max_position_embeddings=4096, sliding_window=262144,
               rope_scaling=dict(type='su', short_factor=SHORT, long_factor=LONG)),
}
TOKENS = {'1B': (151643, 151645, None, [151644, 151645]), '2B': (1, 2, 2, [92542, 92543]),
          '4B': (1, 32000, 32000, [2, 32000, 32007])}  # bos, eos and pad of the language model; where answers end
TEMPLATE = {'1B': 'Hermes-2', '2B': 'internlm2-chat', '4B': 'phi3-chat'}
VISION = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, patch_size=14,
              image_size=448, qkv_bias=True, qk_normalization=False, norm_type='layer_norm', layer_norm_eps=1e-6,
              hidden_act='gelu', model_type='intern_vit_6b', num_channels=3)


def vision_tensors(width, layers):
    w, f = 1024, 4096
    yield 'vision_model.embeddings.class_embedding', (1, 1, w)
    yield 'vision_model.embeddings.position_embedding', (1, 1025, w)
    yield 'vision_model.embeddings.patch_embedding.weight', (w, 3, 14, 14)
    yield 'vision_model.embeddings.patch_embedding.bias', (w,)
    for i in range(layers):
        b = f'vision_model.encoder.layers.{i}.'
        for name, rows, columns in (('attn.qkv', 3 * w, w), ('attn.proj', w, w), ('mlp.fc1', f, w), ('mlp.fc2', w, f)):
            yield b + name + '.weight', (rows, columns)
            yield b + name + '.bias', (rows,)
        for name in ('norm1', 'norm2'):
            yield b + name + '.weight', (w,)
            yield b + name + '.bias', (w,)
        yield b + 'ls1', (w,)
        yield b + 'ls2', (w,)
    for name, rows, columns in (('mlp1.0', 4 * w, 0), ('mlp1.1', width, 4 * w), ('mlp1.3', width, width)):
        yield name + '.weight', (rows, columns) if columns else (rows,)
        yield name + '.bias', (rows,)


def language_tensors(size, c, layers):
    h, f, v = c['hidden_size'], c['intermediate_size'], c['vocab_size']
    hd = h // c['num_attention_heads']
    kv = c['num_key_value_heads'] * hd
    p = 'language_model.'
    yield p + ('model.tok_embeddings' if size == '2B' else 'model.embed_tokens') + '.weight', (v, h)
    for i in range(layers):
        b = f'{p}model.layers.{i}.'
        if size == '1B':
            for name, rows in (('q', h), ('k', kv), ('v', kv)):
                yield f'{b}self_attn.{name}_proj.weight', (rows, h)
                yield f'{b}self_attn.{name}_proj.bias', (rows,)
            yield b + 'self_attn.o_proj.weight', (h, h)
            yield b + 'mlp.gate_proj.weight', (f, h)
            yield b + 'mlp.up_proj.weight', (f, h)
            yield b + 'mlp.down_proj.weight', (h, f)
        elif size == '2B':
            yield b + 'attention.wqkv.weight', (h + 2 * kv, h)
            yield b + 'attention.wo.weight', (h, h)
            yield b + 'feed_forward.w1.weight', (f, h)
            yield b + 'feed_forward.w3.weight', (f, h)
            yield b + 'feed_forward.w2.weight', (h, f)
        else:
            yield b + 'self_attn.qkv_proj.weight', (3 * h, h)
            yield b + 'self_attn.o_proj.weight', (h, h)
            yield b + 'mlp.gate_up_proj.weight', (2 * f, h)
            yield b + 'mlp.down_proj.weight', (h, f)
        first, second = (('attention_norm', 'ffn_norm') if size == '2B' else ('input_layernorm', 'post_attention_layernorm'))
        yield b + first + '.weight', (h,)
        yield b + second + '.weight', (h,)
    yield p + 'model.norm.weight', (h,)
    yield p + ('output.weight' if size == '2B' else 'lm_head.weight'), (v, h)


class Values:
    """Normal values from a pool that is made once; each tensor begins at its own place in it."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.pool = self.rng.standard_normal(POOL, dtype=np.float32)

    def chunks(self, name, shape):
        n = int(np.prod(shape))
        norm = 'norm' in name or name == 'mlp1.0.weight'
        if norm and name.endswith('weight'):
            scale, offset = 0.1, 1.0
        elif '.ls1' in name or '.ls2' in name:
            scale, offset = 0.02, 0.1
        elif len(shape) == 1:
            scale, offset = 0.02, 0.0
        elif 'embed' in name and 'patch' not in name:
            scale, offset = 1.0 if 'vision' not in name else 0.1, 0.0
        else:
            scale, offset = float(np.prod(shape[1:])) ** -0.5, 0.0
        at = int(self.rng.integers(0, POOL))
        while n:
            k = min(n, POOL - at)
            x = self.pool[at:at + k] * np.float32(scale) + np.float32(offset)
            bits = x.view(np.uint32)
            yield ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype('<u2').tobytes()
            n, at = n - k, 0


def write(path, tensors, values):
    header, end = {'__metadata__': {'format': 'pt'}}, 0
    for name, shape in tensors:
        n = 2 * int(np.prod(shape))
        header[name] = {'dtype': 'BF16', 'shape': list(shape), 'data_offsets': [end, end + n]}
        end += n
    text = json.dumps(header, separators=(',', ':')).encode()
    text += b' ' * (-len(text) % 8)
    with open(path, 'wb') as f:
        f.write(struct.pack('<Q', len(text)) + text)
        for name, shape in tensors:
            for chunk in values.chunks(name, shape):
                f.write(chunk)
    return end


def main():
    args = argparse.ArgumentParser()
    args.add_argument('size', choices=LLM)
    args.add_argument('out', type=Path)
    args.add_argument('tokenizer', type=Path)
    args.add_argument('--layers', type=int)
    args.add_argument('--seed', type=int, default=1)
    a = args.parse_args()
    llm, vision = dict(LLM[a.size]), dict(VISION)
    if a.layers:
        llm['num_hidden_layers'] = vision['num_hidden_layers'] = a.layers
    a.out.mkdir(parents=True, exist_ok=True)
    for name in ('vocab.json', 'merges.txt', 'tokenizer.model', 'added_tokens.json', 'tokenizer_config.json',
                 'special_tokens_map.json'):
        if (a.tokenizer / name).exists():
            shutil.copy(a.tokenizer / name, a.out / name)
            (a.out / name).chmod(0o644)
    config = dict(architectures=['InternVLChatModel'], model_type='internvl_chat', downsample_ratio=0.5, ps_version='v2',
                  select_layer=-1, force_image_size=448, dynamic_image_size=True, use_thumbnail=True, min_dynamic_patch=1,
                  max_dynamic_patch=12, template=TEMPLATE[a.size], torch_dtype='bfloat16', vision_config=vision,
                  llm_config=dict(llm, hidden_act='silu', tie_word_embeddings=False))
    bos, eos, pad, stops = TOKENS[a.size]
    config['llm_config'].update(bos_token_id=bos, eos_token_id=eos, pad_token_id=pad)
    generation = dict(eos_token_id=stops, transformers_version='4.37.2')
    preprocessor = dict(crop_size=448, do_center_crop=True, do_normalize=True, do_resize=True, resample=3, size=448,
                        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    for name, content in (('config', config), ('generation_config', generation), ('preprocessor_config', preprocessor)):
        (a.out / f'{name}.json').write_text(json.dumps(content, indent=2))
    tensors = list(vision_tensors(llm['hidden_size'], vision['num_hidden_layers']))
    tensors += list(language_tensors(a.size, llm, llm['num_hidden_layers']))
    values = Values(a.seed)
    if a.size != '4B':
        size = write(a.out / 'model.safetensors', tensors, values)
    else:
        half, total, files = 0, sum(2 * int(np.prod(s)) for _, s in tensors), ([], [])
        for t in tensors:
            files[half > 0.6 * total].append(t)
            half += 2 * int(np.prod(t[1]))
        names = [f'model-0000{k}-of-00002.safetensors' for k in (1, 2)]
        size = sum(write(a.out / name, part, values) for name, part in zip(names, files))
        index = dict(metadata=dict(total_size=size),
                     weight_map={t[0]: name for name, part in zip(names, files) for t in part})
        (a.out / 'model.safetensors.index.json').write_text(json.dumps(index, indent=2))
    print(f'{a.out}: {len(tensors)} tensors, {size:,} bytes')


if __name__ == '__main__':
    main()
