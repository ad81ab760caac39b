// What the stages cost by arithmetic: multiply-adds of the linear maps (done at the rate of 8-bit products) and of
// attention (done in float), and bytes that must come from memory. From the files' own shapes.
//
//   a tile      patch embedding on every patch, linear maps of all blocks on every patch and the class token, attention
//               of every token with every token, the projector on every visual token
//   a prompt    linear maps on every token, attention of every token with itself and what stands before it, the
//               output matrix once
//   a token     the same for one token; every weight is read once, and the keys and values so far
import { open, stat } from 'node:fs/promises';
import { readHead } from './gguf.mjs';

/** @typedef {{linear: number, attention: number, bytes: number}} Cost multiply-adds and bytes */
/** @typedef {import('./gguf.mjs').TensorInfo} TensorInfo */

/** Longest head of a file that is looked at. */
const HEAD = 48 << 20;

export class Costs {
  /**
   * @param {Record<string, any>} meta of all files together
   * @param {TensorInfo[]} tensors
   */
  constructor(meta, tensors) {
    const arch = Object.keys(meta).find(
      (key) => key.endsWith('.block_count') && !key.startsWith('clip.'),
    );
    if (!arch) throw new Error('The files hold no language model.');
    const key = arch.slice(0, -'.block_count'.length);
    const m = (/** @type {string} */ name) => meta[`${key}.${name}`];
    this.tensors = tensors;
    this.layers = m('block_count');
    this.heads = m('attention.head_count');
    this.kvHeads = m('attention.head_count_kv') ?? this.heads;
    this.headDim = m('attention.key_length') ?? m('embedding_length') / this.heads;
    this.hasVision = 'clip.vision.block_count' in meta;
    this.grid = meta['clip.vision.image_size'] / meta['clip.vision.patch_size'];
    this.vitHidden = meta['clip.vision.embedding_length'];
    this.vitLayers = meta['clip.vision.block_count'];
    this.visualTokens = (this.grid / 2) ** 2;
    const names = new Set(tensors.map((tensor) => tensor.name));
    /** Embedding and output matrix may be one. */
    this.headName = names.has('output.weight') ? 'output.weight' : 'token_embd.weight';
  }

  /** @param {string[]} paths of a model's files */
  static async of(paths) {
    /** @type {Record<string, any>} */
    const meta = {};
    const tensors = [];
    for (const path of paths) {
      const file = await open(path);
      const bytes = Buffer.alloc(Math.min(HEAD, (await stat(path)).size));
      await file.read(bytes, 0, bytes.length, 0);
      await file.close();
      const head = readHead(bytes);
      Object.assign(meta, head.meta);
      tensors.push(...head.tensors);
    }
    return new Costs(meta, tensors);
  }

  /** Elements and bytes of all matrices whose names match. @param {RegExp} pattern */
  matrices(pattern) {
    let [elements, bytes] = [0, 0];
    for (const tensor of this.tensors) {
      if (tensor.shape.length < 2 || !tensor.name.endsWith('.weight') || !pattern.test(tensor.name))
        continue;
      elements += tensor.shape.reduce((a, b) => a * b, 1);
      bytes += tensor.bytes;
    }
    return { elements, bytes };
  }

  /** @param {number} tiles @returns {Cost} */
  tile(tiles = 1) {
    const tokens = this.grid ** 2 + 1;
    const patch = this.matrices(/^v\.patch_embd/);
    const blocks = this.matrices(/^v\.blk\./);
    const projector = this.matrices(/^mm\./);
    return {
      linear:
        tiles *
        (patch.elements * this.grid ** 2 +
          blocks.elements * tokens +
          projector.elements * this.visualTokens),
      attention: tiles * this.vitLayers * 2 * tokens ** 2 * this.vitHidden,
      bytes: tiles * (patch.bytes + blocks.bytes + projector.bytes),
    };
  }

  /** @param {number} tokens @param {number} past tokens in the cache before @returns {Cost} */
  prefill(tokens, past = 0) {
    const blocks = this.matrices(/^blk\./);
    const head = this.matrices(new RegExp(`^${this.headName.replace('.', '\\.')}$`));
    const pairs = tokens * past + (tokens * (tokens + 1)) / 2;
    return {
      linear: blocks.elements * tokens + head.elements,
      attention: this.layers * 2 * this.heads * this.headDim * pairs,
      bytes: blocks.bytes + head.bytes,
    };
  }

  /**
   * One token.
   * @param {number} past tokens in the cache before
   * @param {'f32' | 'q8'} kvType
   * @returns {Cost}
   */
  decode(past, kvType) {
    const cost = this.prefill(1, past);
    const valueBytes = kvType === 'q8' ? 34 / 32 : 4;
    cost.bytes += this.layers * 2 * this.kvHeads * this.headDim * (past + 1) * valueBytes;
    return cost;
  }
}

/** @typedef {{int8: number, f32: number, read: number}} Ceilings all threads together: GMAC/s, GMAC/s, GB/s */

/** The least time in ms for a stage that does its products from cache. @param {Cost} cost @param {Ceilings} c */
export const computeFloor = (cost, c) => (cost.linear / c.int8 + cost.attention / c.f32) / 1e6;

/** The least time in ms for a stage that must also read its weights. @param {Cost} cost @param {Ceilings} c */
export const floor = (cost, c) => Math.max(computeFloor(cost, c), cost.bytes / c.read / 1e6);
