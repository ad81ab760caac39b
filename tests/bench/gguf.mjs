// Writing GGUF from Node.js: the container and the block formats that made checkpoints need. The formats are
// those that src/kernels/dtype.h describes; this is a second, independent writer on purpose.

/** @typedef {'F32' | 'F16' | 'Q4_0' | 'Q5_0' | 'Q8_0' | 'Q4_K' | 'Q5_K' | 'Q6_K'} TypeName */
/** @typedef {{name: string, shape: number[], type: TypeName, source: Source}} Tensor */
/**
 * Where the bytes come from: a value, numbers, random numbers around a centre, or random weights of a scale
 * (rows in `zeroRows` are zero).
 * @typedef {{values: ArrayLike<number>} | {centre: number, spread: number}
 *   | {sigma: number, zeroRows?: number[]}} Source
 */
/** @typedef {{key: string, type: ValueType, value: any}} Entry */
/** @typedef {'u16' | 'u32' | 'i32' | 'f32' | 'bool' | 'string' | 'i32[]' | 'f32[]' | 'string[]'} ValueType */

/** Name: [id in the file, values of a block, bytes of a block]. */
export const TYPES = /** @type {const} */ ({
  F32: [0, 1, 4],
  F16: [1, 1, 2],
  Q4_0: [2, 32, 18],
  Q5_0: [6, 32, 22],
  Q8_0: [8, 32, 34],
  Q4_K: [12, 256, 144],
  Q5_K: [13, 256, 176],
  Q6_K: [14, 256, 210],
});

export const ALIGNMENT = 32;

const count = (/** @type {number[]} */ shape) => shape.reduce((a, b) => a * b, 1);
export const elements = (/** @type {Tensor} */ tensor) => count(tensor.shape);
export const padded = (/** @type {number} */ bytes) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** Bytes of a tensor's data. */
export function tensorBytes(/** @type {Tensor} */ tensor) {
  const [, values, bytes] = TYPES[tensor.type];
  if (tensor.shape[0] % values) {
    throw new Error(
      `${tensor.name}: rows of ${tensor.shape[0]} are no whole blocks of ${tensor.type}`,
    );
  }
  return (elements(tensor) / values) * bytes;
}

// ---- numbers ----

/** A small fast generator (mulberry32): the files are the same wherever they are made. */
export function generator(/** @type {number} */ seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const scratch = new DataView(new ArrayBuffer(4));

/** Nearest half float, ties to even; what is too large becomes infinite. */
export function half(/** @type {number} */ value) {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = Math.abs(Math.fround(value));
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) {
    const scaled = magnitude * 2 ** 24;
    const low = Math.floor(scaled);
    const rest = scaled - low;
    return sign | (low + (rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? 1 : 0));
  }
  const exponent = ((bits >>> 23) & 255) - 112;
  const fraction = bits & 0x7fffff;
  const rest = fraction & 0x1fff;
  const up = rest > 0x1000 || (rest === 0x1000 && (fraction >>> 13) % 2 === 1) ? 1 : 0;
  return sign | ((exponent << 10) + (fraction >>> 13) + up);
}

const gauss = (/** @type {() => number} */ random) =>
  Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());

/** Blocks of one pool; a prime, so that no row of a model begins twice at the same block. */
const POOL_BLOCKS = 65521;
const POOL_K_BLOCKS = 8191;

/** @type {Map<string, Buffer>} */
const pools = new Map();

/**
 * A pool of random blocks of a type, weights of standard deviation 1/64 times a power of two near `sigma`.
 * @param {TypeName} type
 * @param {number} sigma
 */
function pool(type, sigma) {
  const key = `${type} ${sigma}`;
  const known = pools.get(key);
  if (known) return known;
  const [id, values, bytes] = TYPES[type];
  const blocks = values === 256 ? POOL_K_BLOCKS : values === 1 ? POOL_BLOCKS * 16 + 1 : POOL_BLOCKS;
  const out = Buffer.alloc(blocks * bytes);
  const random = generator(0x9e3779b9 ^ (id * 7919));
  const weights = new Float64Array(values);
  for (let b = 0; b < blocks; b++) {
    for (let i = 0; i < values; i++) weights[i] = gauss(random) * sigma;
    WRITERS[type](out, b * bytes, weights, random);
  }
  pools.set(key, out);
  return out;
}

const clamp = (/** @type {number} */ x, /** @type {number} */ low, /** @type {number} */ high) =>
  Math.max(low, Math.min(high, x));

/** The value of largest magnitude, with its sign: what Q4_0 and Q5_0 take their scale from. */
function extreme(/** @type {Float64Array} */ w) {
  let most = 0;
  for (const x of w) if (Math.abs(x) > Math.abs(most)) most = x;
  return most;
}

/** @typedef {(out: Buffer, at: number, w: Float64Array, random: () => number) => void} Writer */

/**
 * Packed scales of Q4_K and Q5_K. Equal scale and minimum with dmin = middle * d centre the values at 0.
 * @param {Buffer} out
 * @param {number} at
 * @param {number[]} scales eight of 0..63
 */
function writeScales(out, at, scales) {
  for (let k = 0; k < 4; k++) {
    out[at + k] = scales[k] | ((scales[k + 4] >> 4) << 6);
    out[at + k + 4] = scales[k] | ((scales[k + 4] >> 4) << 6);
    out[at + k + 8] = (scales[k + 4] & 15) | ((scales[k + 4] & 15) << 4);
  }
}

/**
 * The eight scales of 32 weights each, and the quants, for `levels` levels around the middle.
 * @param {Float64Array} w
 * @param {number} levels
 */
function kScales(w, levels) {
  const reach = [];
  for (let g = 0; g < 8; g++) {
    reach.push(Math.max(1e-9, ...Array.from(w.subarray(32 * g, 32 * g + 32), Math.abs)));
  }
  const middle = (levels - 1) / 2;
  const d = Math.max(...reach) / middle / 63;
  const scales = reach.map((r) => clamp(Math.round(r / middle / d), 1, 63));
  const quants = Array.from(w, (x, i) =>
    clamp(Math.round(x / (d * scales[i >> 5]) + middle), 0, levels - 1),
  );
  return { d, middle, scales, quants };
}

/** @type {Record<TypeName, Writer>} */
const WRITERS = {
  F32: (out, at, w) => void out.writeFloatLE(w[0], at),
  F16: (out, at, w) => void out.writeUInt16LE(half(w[0]), at),
  Q4_0(out, at, w) {
    const d = extreme(w) / -8;
    out.writeUInt16LE(half(d), at);
    const q = Array.from(w, (x) => clamp(Math.trunc(x / d + 8.5), 0, 15));
    for (let j = 0; j < 16; j++) out[at + 2 + j] = q[j] | (q[j + 16] << 4);
  },
  Q5_0(out, at, w) {
    const d = extreme(w) / -16;
    out.writeUInt16LE(half(d), at);
    const q = Array.from(w, (x) => clamp(Math.trunc(x / d + 16.5), 0, 31));
    let high = 0;
    for (let j = 0; j < 32; j++) high |= (q[j] >> 4) << j;
    out.writeUInt32LE(high >>> 0, at + 2);
    for (let j = 0; j < 16; j++) out[at + 6 + j] = (q[j] & 15) | ((q[j + 16] & 15) << 4);
  },
  Q8_0(out, at, w) {
    const d = Math.abs(extreme(w)) / 127;
    out.writeUInt16LE(half(d), at);
    for (let j = 0; j < 32; j++) out.writeInt8(clamp(Math.round(w[j] / d), -127, 127), at + 2 + j);
  },
  Q4_K(out, at, w) {
    const { d, middle, scales, quants } = kScales(w, 16);
    out.writeUInt16LE(half(d), at);
    out.writeUInt16LE(half(d * middle), at + 2);
    writeScales(out, at + 4, scales);
    for (let c = 0; c < 4; c++) {
      for (let l = 0; l < 32; l++) {
        out[at + 16 + 32 * c + l] = quants[64 * c + l] | (quants[64 * c + 32 + l] << 4);
      }
    }
  },
  Q5_K(out, at, w) {
    const { d, middle, scales, quants } = kScales(w, 32);
    out.writeUInt16LE(half(d), at);
    out.writeUInt16LE(half(d * middle), at + 2);
    writeScales(out, at + 4, scales);
    for (let c = 0; c < 4; c++) {
      for (let l = 0; l < 32; l++) {
        const [low, high] = [quants[64 * c + l], quants[64 * c + 32 + l]];
        out[at + 48 + 32 * c + l] = (low & 15) | ((high & 15) << 4);
        out[at + 16 + l] |= ((low >> 4) << (2 * c)) | ((high >> 4) << (2 * c + 1));
      }
    }
  },
  Q6_K(out, at, w) {
    // One scale of 16 weights each; 127 is the block's largest.
    const reach = [];
    for (let g = 0; g < 16; g++) {
      reach.push(Math.max(1e-9, ...Array.from(w.subarray(16 * g, 16 * g + 16), Math.abs)));
    }
    const d = Math.max(...reach) / 31 / 127;
    const scales = reach.map((r) => clamp(Math.round(r / 31 / d), 1, 127));
    const q = Array.from(w, (x, i) => clamp(Math.round(x / (d * scales[i >> 4])) + 32, 0, 63));
    for (let h = 0; h < 2; h++) {
      for (let l = 0; l < 32; l++) {
        const [a, b, c, e] = [0, 32, 64, 96].map((step) => q[128 * h + step + l]);
        out[at + 64 * h + l] = (a & 15) | ((c & 15) << 4);
        out[at + 64 * h + 32 + l] = (b & 15) | ((e & 15) << 4);
        out[at + 128 + 32 * h + l] = (a >> 4) | ((b >> 4) << 2) | ((c >> 4) << 4) | ((e >> 4) << 6);
      }
    }
    for (let g = 0; g < 16; g++) out.writeInt8(scales[g], at + 192 + g);
    out.writeUInt16LE(half(d), at + 208);
  },
};

/**
 * The bytes of a tensor in portions of at most some megabytes; valid until the next one is asked for.
 * @param {Tensor} tensor
 * @param {number} seed
 * @returns {Generator<Buffer>}
 */
export function* tensorData(tensor, seed) {
  const { source, type } = tensor;
  const [, values, bytes] = TYPES[type];
  if ('sigma' in source) {
    const blocks = pool(type, source.sigma);
    let left = tensorBytes(tensor);
    const zero = new Set(source.zeroRows ?? []);
    const rowBytes = (tensor.shape[0] / values) * bytes;
    let at = (Math.imul(seed, 2654435761) >>> 0) % (blocks.length / bytes);
    for (let done = 0; left > 0; at = 0) {
      let part = blocks.subarray(at * bytes, at * bytes + left);
      const [first, last] = [
        Math.floor(done / rowBytes),
        Math.floor((done + part.length - 1) / rowBytes),
      ];
      const hit = [...zero].filter((row) => row >= first && row <= last);
      if (hit.length) {
        part = Buffer.from(part);
        for (const row of hit) {
          part.fill(
            0,
            Math.max(0, row * rowBytes - done),
            Math.min(part.length, (row + 1) * rowBytes - done),
          );
        }
      }
      yield part;
      done += part.length;
      left -= part.length;
    }
    return;
  }
  const n = elements(tensor);
  const random = generator(seed);
  const out = Buffer.alloc(n * bytes);
  const one = new Float64Array(1);
  for (let i = 0; i < n; i++) {
    one[0] =
      'values' in source ? source.values[i] : source.centre + (2 * random() - 1) * source.spread;
    WRITERS[type](out, i * bytes, one, random);
  }
  yield out;
}

// ---- the container ----

const VALUE_IDS = { u16: 2, i32: 5, u32: 4, f32: 6, bool: 7, string: 8 };
const ARRAY_ID = 9;

class Head {
  constructor() {
    this.bytes = Buffer.alloc(1 << 16);
    this.length = 0;
  }

  room(/** @type {number} */ n) {
    if (this.length + n > this.bytes.length) {
      const larger = Buffer.alloc(Math.max(2 * this.bytes.length, this.length + n));
      this.bytes.copy(larger, 0, 0, this.length);
      this.bytes = larger;
    }
    this.length += n;
    return this.length - n;
  }

  u16(/** @type {number} */ v) {
    const at = this.room(2);
    this.bytes.writeUInt16LE(v, at);
  }

  u32(/** @type {number} */ v) {
    const at = this.room(4);
    this.bytes.writeUInt32LE(v, at);
  }

  i32(/** @type {number} */ v) {
    const at = this.room(4);
    this.bytes.writeInt32LE(v, at);
  }

  u64(/** @type {number} */ v) {
    const at = this.room(8);
    this.bytes.writeBigUInt64LE(BigInt(v), at);
  }

  f32(/** @type {number} */ v) {
    const at = this.room(4);
    this.bytes.writeFloatLE(v, at);
  }

  bool(/** @type {boolean} */ v) {
    const at = this.room(1);
    this.bytes[at] = v ? 1 : 0;
  }

  string(/** @type {string} */ v) {
    const n = Buffer.byteLength(v);
    this.u64(n);
    const at = this.room(n);
    this.bytes.write(v, at);
  }

  entry(/** @type {Entry} */ { key, type, value }) {
    this.string(key);
    const array = type.endsWith('[]');
    const base = /** @type {keyof typeof VALUE_IDS} */ (array ? type.slice(0, -2) : type);
    if (array) {
      this.u32(ARRAY_ID);
      this.u32(VALUE_IDS[base]);
      this.u64(value.length);
      for (const v of value) this[base](/** @type {never} */ (v));
    } else {
      this.u32(VALUE_IDS[base]);
      this[base](/** @type {never} */ (value));
    }
  }
}

/**
 * Everything of a file before its tensor data.
 * @param {Entry[]} entries
 * @param {Tensor[]} tensors
 */
export function head(entries, tensors) {
  const out = new Head();
  out.bytes.write('GGUF', out.room(4), 'latin1');
  out.u32(3);
  out.u64(tensors.length);
  out.u64(entries.length);
  for (const entry of entries) out.entry(entry);
  let offset = 0;
  for (const tensor of tensors) {
    out.string(tensor.name);
    out.u32(tensor.shape.length);
    for (const n of tensor.shape) out.u64(n);
    out.u32(TYPES[tensor.type][0]);
    out.u64(offset);
    offset += padded(tensorBytes(tensor));
  }
  out.room(padded(out.length) - out.length);
  return out.bytes.subarray(0, out.length);
}

// ---- reading ----

/** Any type that may occur: [values of a block, bytes of a block]. */
const SIZES = /** @type {Record<number, [number, number]>} */ ({
  ...Object.fromEntries(Object.values(TYPES).map(([id, values, bytes]) => [id, [values, bytes]])),
  3: [32, 20],
  7: [32, 24],
  10: [256, 84],
  11: [256, 110],
  20: [32, 18],
  23: [256, 136],
  30: [1, 2],
});

/** @typedef {{name: string, shape: number[], bytes: number}} TensorInfo */

/**
 * Metadata (lists only by their length) and tensors of a file, from its beginning.
 * @param {Buffer} bytes
 * @returns {{meta: Record<string, any>, tensors: TensorInfo[]}}
 */
export function readHead(bytes) {
  let at = 0;
  const u32 = () => bytes.readUInt32LE((at += 4) - 4);
  const u64 = () => Number(bytes.readBigUInt64LE((at += 8) - 8));
  const string = () => {
    const n = u64();
    return bytes.toString('utf8', at, (at += n));
  };
  /** @type {Record<number, () => any>} */
  const scalars = {
    0: () => bytes.readUInt8((at += 1) - 1),
    1: () => bytes.readInt8((at += 1) - 1),
    2: () => bytes.readUInt16LE((at += 2) - 2),
    3: () => bytes.readInt16LE((at += 2) - 2),
    4: u32,
    5: () => bytes.readInt32LE((at += 4) - 4),
    6: () => bytes.readFloatLE((at += 4) - 4),
    7: () => bytes.readUInt8((at += 1) - 1) !== 0,
    8: string,
    10: u64,
    11: () => Number(bytes.readBigInt64LE((at += 8) - 8)),
    12: () => bytes.readDoubleLE((at += 8) - 8),
  };
  if (bytes.toString('latin1', 0, 4) !== 'GGUF') throw new Error('This is no GGUF file.');
  at = 8;
  const [tensorCount, entryCount] = [u64(), u64()];
  /** @type {Record<string, any>} */
  const meta = {};
  for (let i = 0; i < entryCount; i++) {
    const key = string();
    const type = u32();
    if (type !== ARRAY_ID) {
      meta[key] = scalars[type]();
      continue;
    }
    const [element, n] = [u32(), u64()];
    for (let k = 0; k < n; k++) scalars[element]();
    meta[key] = n;
  }
  /** @type {TensorInfo[]} */
  const tensors = [];
  for (let i = 0; i < tensorCount; i++) {
    const name = string();
    const shape = Array.from({ length: u32() }, u64);
    const type = u32();
    u64();
    if (!SIZES[type]) throw new Error(`${name} has the type ${type}, which is not known here.`);
    const [values, blockBytes] = SIZES[type];
    tensors.push({ name, shape, bytes: (count(shape) / values) * blockBytes });
  }
  return { meta, tensors };
}
