// Made checkpoints at full published shape: the tensor names, shapes and types of llama.cpp's files for
// InternVL2-1B, -2B and -4B, with random weights of plausible scale and a made vocabulary of the real size, the
// real special tokens at their real ids. They answer nonsense; what they are for is speed and memory.
//
//   node tests/bench/make_model.mjs 1b|2b|4b [options] OUT_DIR
//     --type q4_0 | q8_0 | q4_k_m   types of the language model, mixed as llama.cpp mixes them (q4_0)
//     --vision q8_0 | f16           types of the vision tower and projector (q8_0)
//     --pair                        language model and mmproj in two files, which llama.cpp wants
//     --shard-size N[M|G]           split files larger than that (not the mmproj of a pair)
//     --no-vision                   the language model alone
//
// Writes OUT_DIR/*.gguf and OUT_DIR/manifest.json. The same command writes the same bytes every time.
import { createHash } from 'node:crypto';
import { mkdir, open, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ALIGNMENT, elements, head, padded, tensorBytes, tensorData } from './gguf.mjs';
import { vocabulary } from './vocabulary.mjs';

/** @typedef {import('./gguf.mjs').Tensor} Tensor */
/** @typedef {import('./gguf.mjs').TypeName} TypeName */
/** @typedef {import('./gguf.mjs').Entry} Entry */
/** @typedef {'1b' | '2b' | '4b'} ModelName */
/** @typedef {'q4_0' | 'q8_0' | 'q4_k_m'} LlmType */
/** @typedef {'q8_0' | 'f16'} VisionType */

/**
 * @typedef {object} Shape
 * @property {'qwen2' | 'internlm2' | 'phi3'} arch
 * @property {string} title
 * @property {string} template
 * @property {number} hidden
 * @property {number} layers
 * @property {number} heads
 * @property {number} kvHeads
 * @property {number} headDim
 * @property {number} ffn
 * @property {number} vocab
 * @property {number} context
 * @property {number} eps
 * @property {number} theta
 */

/** @type {Record<ModelName, Shape>} */
export const SHAPES = {
  '1b': {
    arch: 'qwen2',
    title: 'Made weights, shape of InternVL2-1B',
    template: 'hermes-2',
    hidden: 896,
    layers: 24,
    heads: 14,
    kvHeads: 2,
    headDim: 64,
    ffn: 4864,
    vocab: 151655,
    context: 32768,
    eps: 1e-6,
    theta: 1e6,
  },
  '2b': {
    arch: 'internlm2',
    title: 'Made weights, shape of InternVL2-2B',
    template: 'internlm2-chat',
    hidden: 2048,
    layers: 24,
    heads: 16,
    kvHeads: 8,
    headDim: 128,
    ffn: 8192,
    vocab: 92553,
    context: 32768,
    eps: 1e-5,
    theta: 1e6,
  },
  '4b': {
    arch: 'phi3',
    title: 'Made weights, shape of InternVL2-4B',
    template: 'phi3-chat',
    hidden: 3072,
    layers: 32,
    heads: 32,
    kvHeads: 32,
    headDim: 96,
    ffn: 8192,
    vocab: 32020,
    context: 131072,
    eps: 1e-5,
    theta: 1e4,
  },
};

/** InternViT-300M, the same in all three. */
export const VIT = {
  hidden: 1024,
  layers: 24,
  heads: 16,
  headDim: 64,
  ffn: 4096,
  patch: 14,
  image: 448,
  grid: 32,
  tokens: 256,
};

const SIGMA = 0.02;

// ---- which type a tensor gets ----

/** Types whose rows are no whole number of 256 fall back as llama.cpp's quantizer does. */
const FALLBACK = /** @type {Partial<Record<TypeName, TypeName>>} */ ({
  Q4_K: 'Q5_0',
  Q6_K: 'Q8_0',
});

const fitting = (/** @type {TypeName} */ wanted, /** @type {number} */ rowLength) =>
  rowLength % 256 && FALLBACK[wanted] ? /** @type {TypeName} */ (FALLBACK[wanted]) : wanted;

/** Layers where Q4_K_M spends more on attn_v and ffn_down. */
const important = (/** @type {number} */ i, /** @type {number} */ n) => {
  const eighth = Math.floor(n / 8);
  return i < eighth || i >= Math.floor((7 * n) / 8) || (i - eighth) % 3 === 2;
};

/**
 * @param {LlmType} type
 * @param {string} part the name without `blk.N.` and `.weight`
 * @param {number} rowLength
 * @param {number} block
 * @param {number} blocks
 * @returns {TypeName}
 */
function llmType(type, part, rowLength, block, blocks) {
  if (type === 'q8_0') return 'Q8_0';
  if (part === 'output') return fitting('Q6_K', rowLength);
  if (type === 'q4_0') return 'Q4_0';
  if (part === 'attn_qkv') return fitting('Q5_K', rowLength);
  const better = (part === 'attn_v' || part === 'ffn_down') && important(block, blocks);
  return fitting(better ? 'Q6_K' : 'Q4_K', rowLength);
}

// ---- tensors ----

const norm = (/** @type {string} */ name, /** @type {number} */ n) =>
  /** @type {Tensor} */ ({ name, shape: [n], type: 'F32', source: { centre: 1, spread: 0.1 } });
const bias = (/** @type {string} */ name, /** @type {number} */ n) =>
  /** @type {Tensor} */ ({ name, shape: [n], type: 'F32', source: { centre: 0, spread: 0.05 } });

/** Published factors of Phi-3-mini-128k, short list; the long one only matters past 4096 tokens. */
const SHORT_FACTORS = [
  1.05,
  1.05,
  1.05,
  1.1,
  1.1,
  1.15,
  1.2,
  1.25,
  1.3,
  1.35,
  1.5,
  ...Array(21).fill(2),
  2.05,
  2.05,
  2.05,
  2.1,
  2.1,
  2.1,
  2.15,
  2.15,
  2.35,
  2.55,
  2.6,
  2.6,
  2.75,
  2.85,
  2.85,
  2.95,
];
/** From 1 to 65 as in the published list, in even ratios. */
const LONG_FACTORS = Array.from(
  { length: 48 },
  (_, i) => 1.03 * (64.8 / 1.03) ** Math.min(1, i / 36),
);

/**
 * @param {Shape} s
 * @param {LlmType} type
 * @param {number[]} silent ids whose rows of the output matrix are zero, so that no greedy answer ends early
 * @returns {Tensor[]}
 */
export function llmTensors(s, type, silent) {
  /** @type {Tensor[]} */
  const out = [];
  const matrix = (
    /** @type {string} */ prefix,
    /** @type {string} */ part,
    /** @type {number} */ from,
    /** @type {number} */ to,
    block = 0,
    /** @type {number[]} */ zeroRows = [],
  ) =>
    out.push({
      name: `${prefix}${part}.weight`,
      shape: [from, to],
      type: llmType(type, part, from, block, s.layers),
      source: { sigma: SIGMA, zeroRows },
    });
  const kv = s.kvHeads * s.headDim;
  matrix('', 'token_embd', s.hidden, s.vocab);
  out.push(norm('output_norm.weight', s.hidden));
  matrix('', 'output', s.hidden, s.vocab, 0, silent);
  if (s.arch === 'phi3') {
    const half = [s.headDim / 2];
    out.push({
      name: 'rope_factors_long.weight',
      shape: half,
      type: 'F32',
      source: { values: LONG_FACTORS },
    });
    out.push({
      name: 'rope_factors_short.weight',
      shape: half,
      type: 'F32',
      source: { values: SHORT_FACTORS },
    });
  }
  for (let b = 0; b < s.layers; b++) {
    const p = `blk.${b}.`;
    out.push(norm(`${p}attn_norm.weight`, s.hidden));
    if (s.arch === 'phi3') {
      matrix(p, 'attn_qkv', s.hidden, s.hidden + 2 * kv, b);
    } else {
      matrix(p, 'attn_q', s.hidden, s.hidden, b);
      matrix(p, 'attn_k', s.hidden, kv, b);
      matrix(p, 'attn_v', s.hidden, kv, b);
      if (s.arch === 'qwen2') {
        out.push(
          bias(`${p}attn_q.bias`, s.hidden),
          bias(`${p}attn_k.bias`, kv),
          bias(`${p}attn_v.bias`, kv),
        );
      }
    }
    matrix(p, 'attn_output', s.hidden, s.hidden, b);
    out.push(norm(`${p}ffn_norm.weight`, s.hidden));
    if (s.arch !== 'phi3') matrix(p, 'ffn_gate', s.hidden, s.ffn, b);
    matrix(p, 'ffn_up', s.hidden, s.arch === 'phi3' ? 2 * s.ffn : s.ffn, b);
    matrix(p, 'ffn_down', s.ffn, s.hidden, b);
  }
  return out;
}

/**
 * @param {number} projection width of the language model
 * @param {VisionType} vision
 * @returns {Tensor[]}
 */
export function visionTensors(projection, vision) {
  const { hidden, layers, ffn, patch, grid } = VIT;
  const type = vision === 'f16' ? 'F16' : 'Q8_0';
  /** @type {Tensor[]} */
  const out = [];
  const linear = (
    /** @type {string} */ name,
    /** @type {number} */ from,
    /** @type {number} */ to,
  ) => {
    out.push({ name: `${name}.weight`, shape: [from, to], type, source: { sigma: SIGMA } });
    out.push(bias(`${name}.bias`, to));
  };
  const layerNorm = (/** @type {string} */ name, /** @type {number} */ n) =>
    out.push(norm(`${name}.weight`, n), bias(`${name}.bias`, n));
  out.push({
    name: 'v.class_embd',
    shape: [hidden],
    type: 'F32',
    source: { centre: 0, spread: 0.1 },
  });
  out.push({
    name: 'v.patch_embd.weight',
    shape: [patch, patch, 3, hidden],
    type: 'F16',
    source: { sigma: SIGMA },
  });
  out.push(bias('v.patch_embd.bias', hidden));
  out.push({
    name: 'v.position_embd.weight',
    shape: [hidden, grid * grid + 1],
    type: 'F32',
    source: { centre: 0, spread: 0.1 },
  });
  for (let b = 0; b < layers; b++) {
    const p = `v.blk.${b}.`;
    for (const part of ['attn_q', 'attn_k', 'attn_v', 'attn_out']) linear(p + part, hidden, hidden);
    layerNorm(`${p}ln1`, hidden);
    layerNorm(`${p}ln2`, hidden);
    linear(`${p}ffn_up`, hidden, ffn);
    linear(`${p}ffn_down`, ffn, hidden);
    for (const part of ['ls1', 'ls2']) {
      out.push({
        name: `${p}${part}.weight`,
        shape: [hidden],
        type: 'F32',
        source: { centre: 0.5, spread: 0.4 },
      });
    }
  }
  layerNorm('mm.model.mlp.0', 4 * hidden);
  linear('mm.model.mlp.1', 4 * hidden, projection);
  linear('mm.model.mlp.3', projection, projection);
  return out;
}

// ---- metadata ----

const FILE_TYPES = { q4_0: 2, q8_0: 7, q4_k_m: 15, f16: 1 };

/** @typedef {[key: string, type: import('./gguf.mjs').ValueType, value: any]} Row */
const entries = (/** @type {Row[]} */ rows) =>
  rows.map(([key, type, value]) => /** @type {Entry} */ ({ key, type, value }));

/**
 * @param {Shape} s
 * @param {LlmType} type
 * @param {ReturnType<typeof vocabulary>} vocab
 */
export function llmEntries(s, type, vocab) {
  const key = (/** @type {string} */ name) => `${s.arch}.${name}`;
  /** @type {Row[]} */
  const phi3 = [
    [key('rope.dimension_count'), 'u32', s.headDim],
    [key('rope.scaling.original_context_length'), 'u32', 4096],
    [key('rope.scaling.attn_factor'), 'f32', Math.sqrt(1 + Math.log(32) / Math.log(4096))],
    [key('attention.sliding_window'), 'u32', 262144],
  ];
  return entries([
    ['general.architecture', 'string', s.arch],
    ['general.type', 'string', 'model'],
    ['general.name', 'string', s.title],
    ['general.file_type', 'u32', FILE_TYPES[type]],
    ['general.quantization_version', 'u32', 2],
    [key('context_length'), 'u32', s.context],
    [key('embedding_length'), 'u32', s.hidden],
    [key('block_count'), 'u32', s.layers],
    [key('feed_forward_length'), 'u32', s.ffn],
    [key('attention.head_count'), 'u32', s.heads],
    [key('attention.head_count_kv'), 'u32', s.kvHeads],
    [key('attention.layer_norm_rms_epsilon'), 'f32', s.eps],
    [key('rope.freq_base'), 'f32', s.theta],
    ...(s.arch === 'phi3' ? phi3 : []),
    ['pocketvl.template', 'string', s.template],
    ...vocab.rows,
  ]);
}

/** @param {number} projection */
function visionEntries(projection) {
  return entries([
    ['clip.has_vision_encoder', 'bool', true],
    ['clip.projector_type', 'string', 'internvl'],
    ['clip.use_gelu', 'bool', true],
    ['clip.vision.image_size', 'u32', VIT.image],
    ['clip.vision.patch_size', 'u32', VIT.patch],
    ['clip.vision.embedding_length', 'u32', VIT.hidden],
    ['clip.vision.feed_forward_length', 'u32', VIT.ffn],
    ['clip.vision.block_count', 'u32', VIT.layers],
    ['clip.vision.projection_dim', 'u32', projection],
    ['clip.vision.attention.head_count', 'u32', VIT.heads],
    ['clip.vision.attention.layer_norm_epsilon', 'f32', 1e-6],
    ['clip.vision.image_mean', 'f32[]', [0.485, 0.456, 0.406]],
    ['clip.vision.image_std', 'f32[]', [0.229, 0.224, 0.225]],
    ['clip.vision.projector.scale_factor', 'u32', 2],
  ]);
}

/** @param {number} projection @param {VisionType} vision @param {string} title */
function mmprojEntries(projection, vision, title) {
  const own = entries([
    ['general.architecture', 'string', 'clip'],
    ['general.type', 'string', 'mmproj'],
    ['general.name', 'string', title],
    ['general.file_type', 'u32', FILE_TYPES[vision]],
    ['general.quantization_version', 'u32', 2],
  ]);
  return [...own, ...visionEntries(projection)];
}

// ---- writing ----

const CHUNK = 16 << 20;
/** Written at once. */
const STEP = 4 << 20;

/**
 * @typedef {{name: string, bytes: number, chunks: {bytes: number, sha256: string}[]}} ManifestFile
 */

/**
 * A file whose parts are hashed as they are written. It has its name only when it is whole.
 * @param {string} folder
 * @param {string} name
 * @param {Iterable<Buffer>} parts
 * @returns {Promise<ManifestFile>}
 */
async function writeHashed(folder, name, parts) {
  const path = join(folder, name);
  const file = await open(`${path}.part`, 'w');
  /** @type {ManifestFile} */
  const result = { name, bytes: 0, chunks: [] };
  let hash = createHash('sha256');
  let inChunk = 0;
  const closeChunk = () => {
    result.chunks.push({ bytes: inChunk, sha256: hash.digest('hex') });
    hash = createHash('sha256');
    inChunk = 0;
  };
  try {
    const step = Buffer.allocUnsafe(STEP);
    let filled = 0;
    const flush = async () => {
      await file.writeFile(step.subarray(0, filled));
      filled = 0;
    };
    for (const part of parts) {
      for (let at = 0; at < part.length;) {
        const n = Math.min(part.length - at, CHUNK - inChunk, STEP - filled);
        part.copy(step, filled, at, at + n);
        hash.update(step.subarray(filled, filled + n));
        filled += n;
        inChunk += n;
        at += n;
        result.bytes += n;
        if (inChunk === CHUNK) closeChunk();
        if (filled === STEP) await flush();
      }
    }
    if (inChunk) closeChunk();
    await flush();
    await file.close();
    await rename(`${path}.part`, path);
  } catch (error) {
    await file.close().catch(() => undefined);
    await rm(`${path}.part`, { force: true });
    throw error;
  }
  return result;
}

/**
 * @param {Entry[]} meta
 * @param {Tensor[]} tensors
 * @returns {Generator<Buffer>}
 */
function* fileParts(meta, tensors) {
  yield head(meta, tensors);
  for (const tensor of tensors) {
    let seed = 2166136261;
    for (const c of Buffer.from(tensor.name)) seed = Math.imul(seed ^ c, 16777619) >>> 0;
    yield* tensorData(tensor, seed);
    const bytes = tensorBytes(tensor);
    if (padded(bytes) > bytes) yield Buffer.alloc(padded(bytes) - bytes);
  }
}

/**
 * Tensors in groups of at most `limit` bytes, as llama.cpp splits: the first part has all metadata.
 * @param {Tensor[]} tensors
 * @param {number} limit 0 = one group
 */
function split(tensors, limit) {
  /** @type {Tensor[][]} */
  const groups = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    const size = padded(tensorBytes(tensor));
    if (limit && bytes && bytes + size > limit) {
      groups.push([]);
      bytes = 0;
    }
    groups[groups.length - 1].push(tensor);
    bytes += size;
  }
  return groups;
}

/**
 * @param {string} folder
 * @param {string} stem
 * @param {Entry[]} meta
 * @param {Tensor[]} tensors
 * @param {number} limit
 */
async function writeModel(folder, stem, meta, tensors, limit) {
  const groups = split(tensors, limit);
  /** @type {ManifestFile[]} */
  const files = [];
  const five = (/** @type {number} */ n) => String(n).padStart(5, '0');
  for (const [i, group] of groups.entries()) {
    const parts = entries([
      ['split.no', 'u16', i],
      ['split.count', 'u16', groups.length],
      ['split.tensors.count', 'i32', tensors.length],
    ]);
    const whole = groups.length === 1;
    const name = whole ? `${stem}.gguf` : `${stem}-${five(i + 1)}-of-${five(groups.length)}.gguf`;
    const own = i === 0 ? (whole ? meta : [...meta, ...parts]) : parts;
    files.push(await writeHashed(folder, name, fileParts(own, group)));
  }
  return files;
}

/**
 * @typedef {object} MakeOptions
 * @property {LlmType} [type]
 * @property {VisionType} [vision]
 * @property {boolean} [pair]
 * @property {boolean} [noVision]
 * @property {number} [shardSize] bytes; 0 or absent: whole files
 * @property {number} [layers] of the language model, for a smaller file
 */

/**
 * Writes the model and its manifest.
 * @param {ModelName} model
 * @param {string} folder
 * @param {MakeOptions} [options]
 */
export async function makeModel(model, folder, options = {}) {
  const shape = { ...SHAPES[model], layers: options.layers ?? SHAPES[model].layers };
  const type = options.type ?? 'q4_0';
  const vision = options.vision ?? 'q8_0';
  const limit = options.shardSize ?? 0;
  const vocab = vocabulary(shape.arch, shape.vocab);
  const llm = llmTensors(shape, type, vocab.silent);
  const tower = options.noVision ? [] : visionTensors(shape.hidden, vision);
  const stem = `made-${model}-${type}`;
  await mkdir(folder, { recursive: true });
  const meta = llmEntries(shape, type, vocab);
  let files;
  if (options.pair && tower.length) {
    const projector = mmprojEntries(shape.hidden, vision, shape.title);
    files = [
      ...(await writeModel(folder, stem, meta, llm, limit)),
      ...(await writeModel(folder, `mmproj-made-${model}-${vision}`, projector, tower, 0)),
    ];
  } else {
    const both = tower.length ? [...meta, ...visionEntries(shape.hidden)] : meta;
    files = await writeModel(folder, stem, both, [...llm, ...tower], limit);
  }
  const manifest = {
    format: 1,
    name: stem,
    title: shape.title,
    license: 'CC0-1.0',
    template: shape.template,
    files,
    settings: {},
  };
  await writeFile(join(folder, 'manifest.json'), `${JSON.stringify(manifest, null, 1)}\n`);
  const parameters = [...llm, ...tower].reduce((sum, tensor) => sum + elements(tensor), 0);
  return { manifest, parameters };
}

// ---- the command ----

/** @param {string} text a number of bytes such as 64M */
export function parseSize(text) {
  const match = /^(\d+)([KMG]?)$/i.exec(text);
  if (!match) throw new Error(`--shard-size wants a number such as 64M, not "${text}".`);
  const unit = { '': 1, K: 1 << 10, M: 1 << 20, G: 1 << 30 }[match[2].toUpperCase()] ?? 1;
  const bytes = Number(match[1]) * unit;
  if (bytes < ALIGNMENT) throw new Error(`--shard-size must be at least ${ALIGNMENT} bytes.`);
  return bytes;
}

/** @param {string[]} args */
function parseArguments(args) {
  /** @type {MakeOptions} */
  const options = {};
  /** @type {string[]} */
  const rest = [];
  for (let i = 0; i < args.length; i++) {
    const [name, inline] = args[i].split(/=(.*)/s);
    const value = () => inline ?? args[++i] ?? '';
    const among = (/** @type {string[]} */ allowed) => {
      const v = value();
      if (!allowed.includes(v))
        throw new Error(`${name} is one of ${allowed.join(', ')}, not "${v}".`);
      return v;
    };
    if (name === '--type')
      options.type = /** @type {LlmType} */ (among(['q4_0', 'q8_0', 'q4_k_m']));
    else if (name === '--vision')
      options.vision = /** @type {VisionType} */ (among(['q8_0', 'f16']));
    else if (name === '--pair') options.pair = true;
    else if (name === '--no-vision') options.noVision = true;
    else if (name === '--shard-size') options.shardSize = parseSize(value());
    else if (name.startsWith('-')) throw new Error(`Unknown option ${name}.`);
    else rest.push(name);
  }
  const [model, folder] = rest;
  if (rest.length !== 2 || !(model in SHAPES)) {
    throw new Error(
      'Say which model and where to: node tests/bench/make_model.mjs 1b|2b|4b [options] OUT_DIR',
    );
  }
  return { model: /** @type {ModelName} */ (model), folder, options };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    const { model, folder, options } = parseArguments(process.argv.slice(2));
    const start = Date.now();
    const { manifest, parameters } = await makeModel(model, folder, options);
    for (const file of manifest.files)
      console.log(`${file.name}  ${(file.bytes / 1e6).toFixed(1)} MB`);
    const seconds = ((Date.now() - start) / 1000).toFixed(1);
    console.log(
      `${parameters.toLocaleString('en')} parameters, ${manifest.files.length} files, ${seconds} s`,
    );
  } catch (error) {
    console.error(`make_model: ${/** @type {Error} */ (error).message}`);
    process.exitCode = 1;
  }
}
