// Writes ONNX models for `--peer ort`: the same shapes as the made models, int8 weights with dynamically quantized
// activations, the form that ONNX Runtime runs fastest on WebAssembly. Random weights; no dependency.

/** @typedef {number | bigint | string | Uint8Array} Value */

/** @param {bigint} value */
function varint(value) {
  const bytes = [];
  for (let v = BigInt.asUintN(64, value); ; v >>= 7n) {
    if (v < 128n) return Buffer.from([...bytes, Number(v)]);
    bytes.push(Number(v & 127n) | 128);
  }
}

/** One field of a protocol buffer: whole numbers as varints, strings, messages and bytes by length. */
function field(/** @type {number} */ id, /** @type {Value} */ value) {
  if (typeof value === 'number' || typeof value === 'bigint')
    return Buffer.concat([varint(BigInt(id << 3)), varint(BigInt(value))]);
  const bytes = typeof value === 'string' ? Buffer.from(value) : value;
  return Buffer.concat([varint(BigInt((id << 3) | 2)), varint(BigInt(bytes.length)), bytes]);
}

const FLOAT = 1;
const INT8 = 3;
const INT64 = 7;

/** Bytes without a pattern, made once: weights are cut from it. */
const noise = Buffer.alloc(1 << 20);
for (let i = 0, state = 1; i < noise.length; i++) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  noise[i] = state >>> 24;
}

/** A graph that is written node by node; values are names. */
class Graph {
  constructor() {
    /** @type {Buffer[]} */
    this.nodes = [];
    /** @type {Buffer[]} */
    this.constants = [];
    this.count = 0;
  }

  name() {
    return `v${this.count++}`;
  }

  /** @param {number} type @param {number[]} dims @param {Uint8Array} bytes */
  constant(type, dims, bytes) {
    const name = this.name();
    this.constants.push(
      Buffer.concat([
        ...dims.map((d) => field(1, d)),
        field(2, type),
        field(8, name),
        field(9, bytes),
      ]),
    );
    return name;
  }

  floats(/** @type {number[]} */ values, dims = [values.length]) {
    return this.constant(FLOAT, dims, new Uint8Array(new Float32Array(values).buffer));
  }

  scalar(/** @type {number} */ value) {
    return this.floats([value], []);
  }

  vector(/** @type {number} */ n, value = 0.01) {
    return this.floats(new Array(n).fill(value));
  }

  ints(/** @type {number[]} */ ...values) {
    const list = BigInt64Array.from(values.flat().map(BigInt));
    return this.constant(INT64, [list.length], new Uint8Array(list.buffer));
  }

  /** @param {string} op @param {string[]} inputs @param {Record<string, number | number[]>} attributes */
  op(op, inputs, attributes = {}, outputs = 1) {
    const names = Array.from({ length: outputs }, () => this.name());
    const attribute = Object.entries(attributes).map(([key, value]) =>
      Buffer.concat(
        Array.isArray(value)
          ? [field(1, key), ...value.map((v) => field(8, v)), field(20, 7)]
          : Number.isInteger(value)
            ? [field(1, key), field(3, value), field(20, 2)]
            : [field(1, key), float(2, value), field(20, 1)],
      ),
    );
    this.nodes.push(
      Buffer.concat([
        ...inputs.map((input) => field(1, input)),
        ...names.map((output) => field(2, output)),
        field(4, op),
        ...attribute.map((bytes) => field(5, bytes)),
      ]),
    );
    return outputs === 1 ? names[0] : /** @type {any} */ (names);
  }

  /** x W + bias with int8 weights, the pattern that ONNX Runtime fuses. */
  linear(/** @type {string} */ x, /** @type {number} */ k, /** @type {number} */ n, bias = true) {
    const bytes = Buffer.alloc(k * n);
    for (let at = 0; at < bytes.length; at += noise.length)
      noise.copy(bytes, at, 0, Math.min(noise.length, bytes.length - at));
    const weights = this.constant(INT8, [k, n], bytes);
    const zero = this.constant(INT8, [], new Uint8Array(1));
    const [q, scale, point] = this.op('DynamicQuantizeLinear', [x], {}, 3);
    const product = this.op('Cast', [this.op('MatMulInteger', [q, weights, point, zero])], {
      to: FLOAT,
    });
    const y = this.op('Mul', [product, this.op('Mul', [scale, this.scalar(1 / (80 * k))])]);
    return bias ? this.op('Add', [y, this.vector(n)]) : y;
  }

  norm(/** @type {string} */ x, /** @type {number} */ n) {
    return this.op('LayerNormalization', [x, this.vector(n, 1), this.vector(n)]);
  }

  rms(/** @type {string} */ x, /** @type {number} */ n) {
    const square = this.op('ReduceMean', [this.op('Mul', [x, x]), this.ints(-1)]);
    const root = this.op('Sqrt', [this.op('Add', [square, this.scalar(1e-6)])]);
    return this.op('Mul', [this.op('Div', [x, root]), this.vector(n, 1)]);
  }

  /** [rows, heads * d] to [heads, rows, d] */
  split(/** @type {string} */ x, /** @type {number} */ heads, /** @type {number} */ d) {
    return this.op('Transpose', [this.op('Reshape', [x, this.ints(-1, heads, d)])], {
      perm: [1, 0, 2],
    });
  }

  /** Softmax(q k^T / sqrt d + mask) v, heads back side by side. */
  attention(
    /** @type {string} */ q,
    /** @type {string} */ k,
    /** @type {string} */ v,
    /** @type {number} */ width,
    /** @type {number} */ d,
    mask = '',
  ) {
    const turned = this.op('Transpose', [k], { perm: [0, 2, 1] });
    const scaled = this.op('Mul', [q, this.scalar(1 / Math.sqrt(d))]);
    let scores = this.op('MatMul', [scaled, turned]);
    if (mask) scores = this.op('Add', [scores, mask]);
    const mixed = this.op('MatMul', [this.op('Softmax', [scores], { axis: -1 }), v]);
    return this.op('Reshape', [
      this.op('Transpose', [mixed], { perm: [1, 0, 2] }),
      this.ints(-1, width),
    ]);
  }

  /** @param {string} result @param {[number, number]} input */
  model(result, input) {
    const shape = (/** @type {number[]} */ dims) =>
      Buffer.concat(dims.map((d) => field(1, field(1, d))));
    const value = (/** @type {string} */ name, /** @type {number[]} */ dims) =>
      Buffer.concat([
        field(1, name),
        field(
          2,
          field(
            1,
            Buffer.concat([field(1, FLOAT), ...(dims.length ? [field(2, shape(dims))] : [])]),
          ),
        ),
      ]);
    const graph = Buffer.concat([
      ...this.nodes.map((bytes) => field(1, bytes)),
      field(2, 'made'),
      ...this.constants.map((bytes) => field(5, bytes)),
      field(11, value('x', input)),
      field(12, value(result, [])),
    ]);
    return Buffer.concat([field(1, 9), field(7, graph), field(8, field(2, 20))]);
  }
}

/** A float of a protocol buffer. */
function float(/** @type {number} */ id, /** @type {number} */ value) {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([varint(BigInt((id << 3) | 5)), bytes]);
}

/**
 * InternViT-300M and the projector on one tile: unfolded patches in, visual tokens out.
 * @param {number} out width of the language model
 */
export function visionTower(out) {
  const [D, F, HEADS, PATCHES, PATCH] = [1024, 4096, 16, 1024, 588];
  const g = new Graph();
  const patches = g.linear('x', PATCH, D);
  let x = g.op('Concat', [g.floats(new Array(D).fill(0.02), [1, D]), patches], { axis: 0 });
  for (let layer = 0; layer < 24; layer++) {
    const qkv = g.linear(g.norm(x, D), D, 3 * D);
    const [q, k, v] = g
      .op('Split', [qkv], { axis: -1, num_outputs: 3 }, 3)
      .map((/** @type {string} */ part) => g.split(part, HEADS, D / HEADS));
    const mixed = g.linear(g.attention(q, k, v, D, D / HEADS), D, D);
    x = g.op('Add', [x, g.op('Mul', [mixed, g.vector(D, 0.1)])]);
    const wide = g.op('Gelu', [g.linear(g.norm(x, D), D, F)]);
    x = g.op('Add', [x, g.op('Mul', [g.linear(wide, F, D), g.vector(D, 0.1)])]);
  }
  const grid = g.op('Slice', [x, g.ints(1), g.ints(PATCHES + 1), g.ints(0)]);
  const tokens = g.op('Reshape', [grid, g.ints(PATCHES / 4, 4 * D)]);
  const hidden = g.op('Gelu', [g.linear(g.norm(tokens, 4 * D), 4 * D, out)]);
  return { bytes: g.model(g.linear(hidden, out, out), [PATCHES, PATCH]), input: [PATCHES, PATCH] };
}

/**
 * A prompt through a decoder like Qwen2-0.5B: embedded tokens in, the last one's logits out.
 * @param {number} tokens
 */
export function decoderPrompt(tokens) {
  const [D, F, HEADS, KV, SIZE, VOCABULARY] = [896, 4864, 14, 2, 64, 151655];
  const g = new Graph();
  const below = [];
  for (let i = 0; i < tokens; i++) for (let j = 0; j < tokens; j++) below.push(j <= i ? 0 : -1e30);
  const mask = g.floats(below, [tokens, tokens]);
  const table = Array.from({ length: tokens * SIZE }, (_, i) => Math.cos(i));
  const [cos, sin] = [g.floats(table, [tokens, SIZE]), g.floats(table, [tokens, SIZE])];
  const rotate = (/** @type {string} */ u) => {
    const [a, b] = g.op('Split', [u], { axis: -1, num_outputs: 2 }, 2);
    const turned = g.op('Concat', [g.op('Neg', [b]), a], { axis: -1 });
    return g.op('Add', [g.op('Mul', [u, cos]), g.op('Mul', [turned, sin])]);
  };
  const shared = (/** @type {string} */ u) =>
    g.op('Reshape', [
      g.op('Expand', [
        g.op('Reshape', [u, g.ints(KV, 1, tokens, SIZE)]),
        g.ints(KV, HEADS / KV, tokens, SIZE),
      ]),
      g.ints(HEADS, tokens, SIZE),
    ]);
  let x = 'x';
  for (let layer = 0; layer < 24; layer++) {
    const h = g.rms(x, D);
    const q = rotate(g.split(g.linear(h, D, HEADS * SIZE), HEADS, SIZE));
    const k = rotate(g.split(g.linear(h, D, KV * SIZE), KV, SIZE));
    const v = g.split(g.linear(h, D, KV * SIZE), KV, SIZE);
    const mixed = g.attention(q, shared(k), shared(v), D, SIZE, mask);
    x = g.op('Add', [x, g.linear(mixed, D, D, false)]);
    const n = g.rms(x, D);
    const gate = g.linear(n, D, F, false);
    const silu = g.op('Mul', [gate, g.op('Sigmoid', [gate])]);
    const wide = g.op('Mul', [silu, g.linear(n, D, F, false)]);
    x = g.op('Add', [x, g.linear(wide, F, D, false)]);
  }
  const last = g.op('Slice', [x, g.ints(tokens - 1), g.ints(tokens), g.ints(0)]);
  const logits = g.linear(g.rms(last, D), D, VOCABULARY, false);
  return { bytes: g.model(logits, [tokens, D]), input: [tokens, D] };
}
