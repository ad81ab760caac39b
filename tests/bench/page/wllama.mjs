// The work of bench.mjs done by wllama: globalThis.peer, for versions 2 and 3.

/** Digits, one token each in the made vocabularies. @param {number} n @param {number} seed */
function digits(n, seed) {
  let state = (seed * 40503 + 12345) >>> 0;
  let text = '';
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    text += String(((state >>> 20) % 9) + 1);
  }
  return text;
}

/** @param {number} size @returns {Promise<ArrayBuffer>} a PNG */
async function picture(size) {
  const canvas = new OffscreenCanvas(size, size);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
  const pixels = context.createImageData(size, size);
  for (let i = 0; i < pixels.data.length; i++)
    pixels.data[i] = (i & 3) === 3 ? 255 : Math.random() * 256;
  context.putImageData(pixels, 0, 0);
  return (await canvas.convertToBlob({ type: 'image/png' })).arrayBuffer();
}

/** @type {any} */
let wllama;
/** @type {{text: string, at: number}[]} what it logs, and when */
const lines = [];

const peer = {
  /**
   * @param {{major: number, base: string, files: string[], threads: number, context: number}} o
   * @returns {Promise<{load_ms: number, threads: number}>}
   */
  async open({ major, base, files, threads, context }) {
    const { Wllama } = await import(`${base}esm/index.js`);
    const blobs = [];
    for (const file of files) blobs.push(await (await fetch(file)).blob());
    const log = (/** @type {any[]} */ ...parts) =>
      void lines.push({ text: parts.join(' '), at: performance.now() });
    const logger = { debug: log, log, warn: log, error: log };
    const paths =
      major >= 3
        ? { default: `${base}esm/wasm/wllama.wasm` }
        : {
            'single-thread/wllama.wasm': `${base}esm/single-thread/wllama.wasm`,
            'multi-thread/wllama.wasm': `${base}esm/multi-thread/wllama.wasm`,
          };
    wllama = new Wllama(paths, { logger });
    const start = performance.now();
    const common = { n_ctx: context, n_threads: threads, n_batch: 512 };
    await wllama.loadModel(
      blobs,
      major >= 3 ? { ...common, n_gpu_layers: 0, n_parallel: 1, warmup: false } : common,
    );
    return { load_ms: performance.now() - start, threads: wllama.getNumThreads() };
  },

  /**
   * A prompt of n tokens, then an answer of some.
   * @param {{major: number, prompt: number, tokens: number, seed: number}} o
   */
  async text({ major, prompt, tokens, seed }) {
    if (major >= 3) {
      const done = await wllama.createCompletion({
        prompt: digits(prompt, seed),
        max_tokens: tokens,
        temperature: 0,
        cache_prompt: false,
        ignore_eos: true,
      });
      const t = done.timings;
      return {
        prompt_tokens: t.prompt_n,
        prefill_ms: t.prompt_ms,
        decode_ms: t.predicted_ms / Math.max(1, t.predicted_n - 1),
        tokens: t.predicted_n,
      };
    }
    const ids = await wllama.tokenize(digits(prompt, seed));
    await wllama.kvClear();
    await wllama.samplingInit({ temp: 0 });
    const start = performance.now();
    await wllama.decode(ids, {});
    const prefill = performance.now() - start;
    const times = [];
    for (let i = 0; i < tokens; i++) {
      const from = performance.now();
      const { token } = await wllama.samplingSample();
      await wllama.samplingAccept([token]);
      await wllama.decode([token], {});
      times.push(performance.now() - from);
    }
    times.sort((a, b) => a - b);
    return {
      prompt_tokens: ids.length,
      prefill_ms: prefill,
      decode_ms: times[times.length >> 1],
      tokens,
    };
  },

  /** One tile through the vision tower. @param {{size: number}} o */
  async tile({ size }) {
    const data = await picture(size);
    const from = lines.length;
    const start = performance.now();
    await wllama.createChatCompletion({
      messages: [
        {
          role: 'user',
          content: [
            { type: 'image', data },
            { type: 'text', text: '1' },
          ],
        },
      ],
      max_tokens: 1,
      temperature: 0,
      cache_prompt: false,
    });
    const all = performance.now() - start;
    // Its log tells when the decoder takes over, and in some versions when the tower starts; else the few tokens of the
    // prompt before the picture are in that time.
    const when = (/** @type {RegExp} */ what) =>
      lines.slice(from).find(({ text }) => what.test(text))?.at;
    const tile = (when(/decoding image batch/) ?? NaN) - (when(/encoding mtmd batch/) ?? start);
    return { first_token_ms: all, tile_ms: tile || 0 };
  },

  log: () => lines.slice(-60).map(({ text, at }) => `${Math.round(at)} ${text}`),

  async close() {
    await wllama?.exit();
    wllama = undefined;
  },
};

Object.assign(globalThis, { peer });
