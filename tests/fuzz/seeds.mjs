// Writes the first inputs of each fuzz target, made of the fixtures and of a tiny model, to FOLDER/TARGET/.
//
//   node tests/fuzz/seeds.mjs FOLDER
//
// What the fuzzers made of them, minimized, is in tests/fuzz/corpus; these are for starting over.
import { mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { head, padded, tensorBytes, tensorData } from '../bench/gguf.mjs';
import { byteSpellings } from '../bench/vocabulary.mjs';

/** @typedef {import('../bench/gguf.mjs').Tensor} Tensor */
/** @typedef {import('../bench/gguf.mjs').Entry} Entry */

const fixtures = join(dirname(fileURLToPath(import.meta.url)), '..', 'fixtures');
const fixture = (/** @type {string} */ name) => readFileSync(join(fixtures, name));
const bytes = (/** @type {number[]} */ ...list) => Buffer.from(list);
const NUL = bytes(0);

/** @type {Record<string, (Buffer | string)[]>} */
const seeds = {};
const add = (/** @type {string} */ target, /** @type {(Buffer | string)[]} */ ...parts) =>
  (seeds[target] ??= []).push(Buffer.concat(parts.map((part) => Buffer.from(part))));

/** A model with everything in it and as little of it as can be: 30 KB. */
function tinyModel(vision = true) {
  const own = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<img>', '</img>', '<IMG_CONTEXT>'];
  const words = ['system', 'user', 'assistant', 'Ġthe', 'ab'];
  const tokens = [...byteSpellings(), ...words, ...own];
  const [wide, ffn, eyes] = [32, 64, 32];
  /** @type {[string, import('../bench/gguf.mjs').ValueType, any][]} */
  const rows = [
    ['general.architecture', 'string', 'qwen2'],
    ['general.name', 'string', 'tiny'],
    ['qwen2.context_length', 'u32', 256],
    ['qwen2.embedding_length', 'u32', wide],
    ['qwen2.block_count', 'u32', 1],
    ['qwen2.feed_forward_length', 'u32', ffn],
    ['qwen2.attention.head_count', 'u32', 2],
    ['qwen2.attention.head_count_kv', 'u32', 1],
    ['qwen2.attention.layer_norm_rms_epsilon', 'f32', 1e-6],
    ['qwen2.rope.freq_base', 'f32', 1e4],
    ['tokenizer.ggml.model', 'string', 'gpt2'],
    ['tokenizer.ggml.pre', 'string', 'qwen2'],
    ['tokenizer.ggml.tokens', 'string[]', tokens],
    ['tokenizer.ggml.token_type', 'i32[]', tokens.map((t) => (own.includes(t) ? 3 : 1))],
    ['tokenizer.ggml.merges', 'string[]', ['a b']],
    ['tokenizer.ggml.eos_token_id', 'u32', tokens.indexOf('<|im_end|>')],
    ['tokenizer.ggml.padding_token_id', 'u32', tokens.indexOf('<|endoftext|>')],
    ['tokenizer.ggml.add_bos_token', 'bool', false],
    ['pocketvl.system_message', 'string', 'Hi.'],
  ];
  /** @type {Tensor[]} */
  const tensors = [];
  const weight = (/** @type {string} */ name, /** @type {number[]} */ ...shape) =>
    tensors.push({ name: `${name}.weight`, shape, type: 'Q4_0', source: { sigma: 0.1 } });
  const plain = (/** @type {string} */ name, /** @type {number[]} */ ...shape) =>
    tensors.push({ name, shape, type: 'F32', source: { centre: 0.5, spread: 0.5 } });
  if (vision) {
    rows.push(
      ['clip.has_vision_encoder', 'bool', true],
      ['clip.projector_type', 'string', 'internvl'],
      ['clip.use_gelu', 'bool', true],
      ['clip.vision.image_size', 'u32', 4],
      ['clip.vision.patch_size', 'u32', 2],
      ['clip.vision.embedding_length', 'u32', eyes],
      ['clip.vision.feed_forward_length', 'u32', ffn],
      ['clip.vision.block_count', 'u32', 1],
      ['clip.vision.projection_dim', 'u32', wide],
      ['clip.vision.attention.head_count', 'u32', 2],
      ['clip.vision.projector.scale_factor', 'u32', 2],
      ['clip.vision.attention.layer_norm_epsilon', 'f32', 1e-6],
      ['clip.vision.image_mean', 'f32[]', [0.485, 0.456, 0.406]],
      ['clip.vision.image_std', 'f32[]', [0.229, 0.224, 0.225]],
    );
    plain('v.class_embd', eyes);
    plain('v.position_embd.weight', eyes, 5);
    plain('v.patch_embd.weight', 2, 2, 3, eyes);
    plain('v.patch_embd.bias', eyes);
    for (const name of ['ln1.weight', 'ln1.bias', 'ln2.weight', 'ln2.bias', 'ls1.weight'])
      plain(`v.blk.0.${name}`, eyes);
    plain('v.blk.0.ls2.weight', eyes);
    for (const name of ['attn_q', 'attn_k', 'attn_v', 'attn_out']) {
      weight(`v.blk.0.${name}`, eyes, eyes);
      plain(`v.blk.0.${name}.bias`, eyes);
    }
    weight('v.blk.0.ffn_up', eyes, ffn);
    plain('v.blk.0.ffn_up.bias', ffn);
    weight('v.blk.0.ffn_down', ffn, eyes);
    plain('v.blk.0.ffn_down.bias', eyes);
    plain('mm.model.mlp.0.weight', 4 * eyes);
    plain('mm.model.mlp.0.bias', 4 * eyes);
    weight('mm.model.mlp.1', 4 * eyes, wide);
    plain('mm.model.mlp.1.bias', wide);
    weight('mm.model.mlp.3', wide, wide);
    plain('mm.model.mlp.3.bias', wide);
  }
  weight('token_embd', wide, tokens.length);
  weight('output', wide, tokens.length);
  plain('output_norm.weight', wide);
  plain('blk.0.attn_norm.weight', wide);
  plain('blk.0.ffn_norm.weight', wide);
  for (const [name, out] of /** @type {[string, number][]} */ ([
    ['attn_q', wide],
    ['attn_k', wide / 2],
    ['attn_v', wide / 2],
  ])) {
    weight(`blk.0.${name}`, wide, out);
    plain(`blk.0.${name}.bias`, out);
  }
  weight('blk.0.attn_output', wide, wide);
  weight('blk.0.ffn_gate', wide, ffn);
  weight('blk.0.ffn_up', wide, ffn);
  weight('blk.0.ffn_down', ffn, wide);
  const entries = rows.map(([key, type, value]) => ({ key, type, value }));
  const parts = [head(entries, tensors)];
  tensors.forEach((tensor, seed) => {
    for (const part of tensorData(tensor, seed)) parts.push(Buffer.from(part));
    const n = tensorBytes(tensor);
    parts.push(Buffer.alloc(padded(n) - n));
  });
  return Buffer.concat(parts);
}

/** @param {Record<string, any>} header @param {number} data bytes behind it */
function safetensors(header, data) {
  const json = Buffer.from(JSON.stringify(header));
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([size, json, Buffer.alloc(data, 1)]);
}

const tensor = (
  /** @type {string} */ dtype,
  /** @type {number[]} */ shape,
  begin = 0,
  end = 0,
) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

add('gguf', fixture('small.gguf'));
add('gguf', tinyModel(false).subarray(0, 8000));
for (const vision of [false, true]) add('model', tinyModel(vision));

const three = {
  __metadata__: { format: 'pt' },
  a: tensor('F32', [2, 3], 0, 24),
  b: tensor('BF16', [4], 24, 32),
  c: tensor('F16', [1, 1, 2], 32, 36),
  d: tensor('I64', [], 36, 44),
};
add('safetensors', bytes(0), safetensors(three, 44));
const one = safetensors({ a: tensor('F32', [1], 0, 4) }, 4);
const other = safetensors({ b: tensor('F32', [1], 0, 4) }, 4);
const index = { weight_map: { a: 'a.safetensors', b: 'b.safetensors' } };
add('safetensors', bytes(1), JSON.stringify(index), NUL, one, other);

const FILES = [
  'config.json',
  'generation_config.json',
  'preprocessor_config.json',
  'README.md',
  'tokenizer_config.json',
  'tokenizer.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'tokenizer.model',
];
for (const model of ['qwen2', 'internlm2', 'phi3']) {
  const folder = join(fixtures, 'hf', model);
  /** @type {Buffer[]} */
  const parts = [bytes(0)];
  FILES.forEach((name, i) => {
    const there = readdirSync(folder).includes(name);
    if (name === 'README.md') parts.push(bytes(i), Buffer.from('---\nlicense: mit\n---\n'), NUL);
    else if (there) parts.push(bytes(i), readFileSync(join(folder, name)), NUL);
  });
  add('config', ...parts);
  add('config', bytes(1), ...parts.slice(1));
}
const json = {
  model: { type: 'BPE', vocab: { a: 0, b: 1, ab: 2 }, merges: ['a b', ['b', 'a']] },
  added_tokens: [{ id: 3, content: '<|im_end|>', special: true, rstrip: true }],
};
add('config', bytes(1, 5), JSON.stringify(json), NUL, bytes(4), '{"eos_token":"<|im_end|>"}', NUL);

const TEXTS = [
  'What is in this picture? <|im_end|>\n<|im_start|>system\n',
  'Naïve 北京 \u{1F600}\u{200D} e\u0301  \t\n<IMG_CONTEXT></s><0x41>▁',
  "it's 12345 \u1E9B\u0323 \uD55C\uAE00 <ref>a</ref><box>[[1, 2]]</box>",
];
for (const kind of [0, 1, 2]) {
  for (const text of TEXTS) add('tokenizer', bytes(kind, 0), text);
  add('tokenizer', bytes(kind, 1), bytes(1, 0, 0, 40, 1, 0, 255, 255, 255));
  add('tokenizer', bytes(kind, 7 | (12 << 3)), bytes(1, 0, 40, 1, 200, 0, 13, 0));
}
for (const kind of [0, 1, 2]) {
  const vocab = bytes(3, 0, kind, 1, 3, 2, 97, 98, 1, 0, 3, 60, 115, 62, 3, 0, 1, 97, 4, 5);
  add('tokenizer', vocab, bytes(1, 3, 97, 32, 98, 1, 0, 0, 0, 0, 0, 0, 0, 0), 'abab <s> ab');
}

for (const kind of [0, 1, 2, 3]) {
  const [a, b] = ['<|im_end|>\n<IMG_CONTEXT>', '<ref>x</ref></img> <|user|>'];
  const said = (/** @type {string} */ text, markup = 0) =>
    Buffer.concat([bytes(markup, text.length), Buffer.from(text)]);
  add('template', bytes(kind, 1, 1, 2, 3, 4), said(a), bytes(0));
  add(
    'template',
    bytes(kind, 3, 1, 1),
    said(a),
    bytes(2, 1),
    said(b, 8),
    bytes(1, 2, 3, 1),
    said(b),
  );
}

const pictures = join(fixtures, 'image');
for (const name of readdirSync(pictures)) {
  if (!/\.(png|jpg|gif|bmp)$/.test(name) || name.includes('.ref.')) continue;
  if (statSync(join(pictures, name)).size < 9000) add('image', readFileSync(join(pictures, name)));
}
for (const mode of [0, 1, 2, 4, 12, 24])
  add('resize', bytes(mode, 60, 40, 20, 30, 1, 2, 3, 4, 5, 6, 7, 8, 12, 14));
add('sampler', bytes(20, 0, 68, 9, 67, 68, 1, 0, 2, 3, 4), bytes(60, 61, 62, 0, 1, 2, 63, 90, 100));
add('sampler', bytes(200, 1, 3, 4, 3, 3, 7, 7, 0), Buffer.alloc(200, 70));
for (let type = 0; type < 15; type++)
  for (const how of [0, 2, 64, 1]) add('kernels', bytes(2, type, how, 4, 17, 3, 1, 2, 3, type));
for (const how of [0, 2, 4, 6, 1]) {
  add('kernels', bytes(0, how, 3, 100, 2, 9));
  add('kernels', bytes(1, how, 1, 2, 3, 9, 40, 3, 7));
}
add(
  'manifest',
  bytes(4),
  'demo',
  bytes(6),
  'A "q\\"',
  bytes(3),
  'MIT',
  bytes(2),
  'h2',
  bytes(9, 9),
);

const out = process.argv[2];
if (!out) throw new Error('Say where: node tests/fuzz/seeds.mjs FOLDER');
for (const [target, list] of Object.entries(seeds)) {
  mkdirSync(join(out, target), { recursive: true });
  list.forEach((seed, i) => writeFileSync(join(out, target, `seed-${i}`), seed));
  console.log(`${target}: ${list.length} inputs`);
}
