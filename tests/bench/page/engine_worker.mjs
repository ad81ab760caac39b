// The engine under measurement: the library's own runtime in a worker of ours, so that every stage can be timed alone.
// @ts-ignore -- its address in the folder that bench.mjs serves: web/lib
import { Runtime } from '/lib/runtime.js';
import { answer } from './rpc.mjs';

/** @typedef {import('../../../web/lib/runtime.js').Runtime} RuntimeType */

/** @type {RuntimeType} */
let runtime;
/** @type {number[]} */
let heapMarks = [];

const now = () => performance.now();

/** Address behind the last live block: a large block goes to the end of the heap. */
function heapEnd() {
  const { abi } = runtime;
  const at = abi.module._malloc(96 << 20) >>> 0;
  if (!at) return 0;
  abi.module._free(at);
  abi.refresh();
  return at;
}

const memory = () => ({ heap: runtime.abi.memory.buffer.byteLength, end: heapEnd() });

/** A picture without any repetition, so that no digest is met twice. */
function picture(
  /** @type {number} */ width,
  /** @type {number} */ height,
  /** @type {number} */ seed,
) {
  const rgba = new Uint8ClampedArray(width * height * 4);
  let state = (seed * 2654435761) >>> 0;
  for (let i = 0; i < rgba.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    rgba[i] = (i & 3) === 3 ? 255 : state >>> 24;
  }
  return runtime.imageFromPixels(rgba, width, height);
}

/** Text of n digits: in the made vocabularies one token each. */
function digits(/** @type {number} */ n, /** @type {number} */ seed) {
  let state = (seed * 40503 + 12345) >>> 0;
  let text = '';
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    text += String(((state >>> 20) % 9) + 1);
  }
  return text;
}

/** @typedef {{url: string, name: string, bytes: number}} RemoteFile */

/**
 * A file's bytes in portions.
 * @param {RemoteFile} file
 */
async function* download(file) {
  const response = await fetch(file.url);
  if (!response.ok || !response.body) throw new Error(`${file.url}: ${response.status}`);
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

answer({
  /**
   * Starts the module and loads the files.
   * @param {{files: RemoteFile[], threads: number, variant: 'relaxed' | 'simd', context: number,
   *   kvType: 'f32' | 'q8', preload: boolean, reserve: boolean, kernels?: string}} o `preload`: bytes are in memory
   *   before the clock starts; `reserve`: the memory is made in one piece, as the page does
   */
  async open(o) {
    const portions = [];
    if (o.preload) {
      for (const file of o.files) {
        const parts = [];
        for await (const bytes of download(file)) parts.push(bytes);
        portions.push(parts);
      }
    }
    const total = o.files.reduce((sum, file) => sum + file.bytes, 0);
    const start = now();
    runtime = await Runtime.start({
      threads: o.threads,
      variant: o.variant,
      weightBytes: o.reserve ? total : 0,
    });
    const started = now();
    if (runtime.threads !== o.threads) {
      throw new Error(`Asked for ${o.threads} threads, got ${runtime.threads}: ${runtime.note}`);
    }
    const before = memory();
    const heads = [];
    if (!o.preload) {
      for (const file of o.files) {
        const response = await fetch(file.url, { headers: { Range: 'bytes=0-16777215' } });
        heads.push(new Uint8Array(await response.arrayBuffer()));
      }
    }
    const options = { context: o.context, kvType: o.kvType };
    const estimate = heads.length
      ? runtime.estimate(heads, { ...options, threads: o.threads })
      : null;
    const loading = now();
    runtime.beginLoad({ kernels: o.kernels });
    heapMarks = [];
    for (const [i, file] of o.files.entries()) {
      runtime.beginFile(file.name, file.bytes);
      for await (const bytes of portions[i] ?? download(file)) runtime.push(bytes);
      runtime.endFile();
      portions[i] = [];
    }
    const packed = now();
    heapMarks.push(runtime.abi.memory.buffer.byteLength);
    runtime.finishLoad(options);
    const ready = now();
    const info = runtime.info();
    return {
      info,
      variant: runtime.variant,
      estimate,
      startMs: started - start,
      loadMs: packed - loading,
      sessionMs: ready - packed,
      totalMs: started - start + (ready - loading),
      heapBefore: before,
      heapLoaded: heapMarks[0],
      memory: memory(),
      stats: runtime.stats(),
    };
  },

  /**
   * A prompt in a fresh session: pictures are encoded and the text is prefilled.
   * @param {{digits: number, seed: number, width?: number, height?: number, maxTiles?: number, keep?: boolean}} o
   *   `keep`: go on in the session that is there
   */
  prompt(o) {
    if (!o.keep) runtime.newSession();
    const image = o.width && o.height ? picture(o.width, o.height, o.seed) : 0;
    const text = digits(o.digits, o.seed);
    const start = now();
    runtime.prompt(
      [
        { role: 'system', parts: [{ text: '.' }] },
        { role: 'user', parts: image ? [{ image }, { text }] : [{ text }] },
      ],
      { maxTiles: o.maxTiles ?? 1, temperature: 0 },
    );
    const ms = now() - start;
    if (image) runtime.freeImage(image);
    return { ms, stats: runtime.stats(), memory: memory() };
  },

  /**
   * Tokens of the answer, each timed; the first of them needs no pass through the model and is left out.
   * @param {{count: number}} o
   */
  decode({ count }) {
    const { abi } = runtime;
    const at = abi.malloc(abi.sizeof('pvl_piece'));
    const times = [];
    let text = '';
    for (let i = 0; i <= count; i++) {
      const start = now();
      abi.call('pvl_session_next', runtime.session, at);
      times.push(now() - start);
      const piece = runtime.piece(at);
      text += piece.text;
      if (piece.stop !== abi.constants.STOP_NO) break;
    }
    abi.free(at);
    return { times: times.slice(1), text, stats: runtime.stats(), memory: memory() };
  },
});
