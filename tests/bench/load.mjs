// What a load takes: time from click to ready, JavaScript heap of the page and all its workers, the engine's memory. Used by
// `npm run bench -- --load` and, over a smaller model, by a test.
import { setTimeout as sleep } from 'node:timers/promises';

/** @typedef {import('puppeteer-core').Page} Page */

/**
 * @typedef {object} Visit
 * @property {number} ms from click to ready
 * @property {number} fromNetwork
 * @property {number} fromStore
 * @property {number} heapGrowth most bytes of JavaScript at once, objects and buffers of page and workers, above those before
 * @property {number} allGrowth the same with the browser's own objects behind them: Blobs on their way to the store
 * @property {number} samples of the heap
 * @property {number} weights bytes of the packed weights
 * @property {number} session bytes of keys, values and work space
 * @property {number} touched bytes of the engine's memory up to the last that was ever written
 */

/**
 * Samples the JavaScript heaps of a page and its workers.
 * @param {Page} page
 */
async function heapSampler(page) {
  const own = await page.createCDPSession();
  const use = async (/** @type {import('puppeteer-core').CDPSession} */ session) => {
    const u = /** @type {any} */ (await session.send('Runtime.getHeapUsage'));
    const heap = u.usedSize + (u.backingStorageSize ?? 0);
    return { heap, all: heap + (u.embedderHeapUsedSize ?? 0) };
  };
  /** The last known, since a worker in the middle of C code answers later. @type {Map<object, {heap: number, all: number}>} */
  const known = new Map();
  const peak = { heap: 0, all: 0 };
  const state = { samples: 0, stopped: false };
  const total = (/** @type {'heap' | 'all'} */ what) =>
    [...known.values()].reduce((sum, of) => sum + of[what], 0);
  const look = async () => {
    const sessions = [own, ...page.workers().map((worker) => worker.client)];
    for (const session of known.keys())
      if (!sessions.includes(/** @type {any} */ (session))) known.delete(session);
    const answers = sessions.map((session) =>
      use(session).then(
        (bytes) => void known.set(session, bytes),
        () => {}, // it has ended
      ),
    );
    await Promise.race([sleep(200), Promise.all(answers)]);
    state.samples++;
    for (const what of /** @type {const} */ (['heap', 'all']))
      peak[what] = Math.max(peak[what], total(what));
  };
  await own.send('HeapProfiler.collectGarbage');
  await look();
  const before = { heap: total('heap'), all: total('all') };
  const running = (async () => {
    while (!state.stopped) {
      await look();
      await sleep(20);
    }
  })();
  return async () => {
    state.stopped = true;
    await running;
    await own.detach();
    return {
      heapGrowth: peak.heap - before.heap,
      allGrowth: peak.all - before.all,
      samples: state.samples,
    };
  };
}

/**
 * One load in an isolated page that can import /lib/pocketvl.js.
 * @param {Page} page
 * @param {string} url of the manifest
 * @param {{heap?: boolean, store?: 'auto' | 'opfs'}} [options] sampling slows the load down
 * @returns {Promise<Visit>}
 */
export async function visit(page, url, { heap = false, store = 'auto' } = {}) {
  const stop = heap ? await heapSampler(page) : null;
  const result = await page.evaluate(
    async ({ address, where }) => {
      const { PocketVL } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      const begun = performance.now();
      const vl = await PocketVL.load(address, { context: 256, store: where });
      const ms = performance.now() - begun;
      // Memory that was never written is zero: the last byte that is not tells how far the engine ever came.
      const memory = new Uint32Array(vl.client.cancel.memory);
      let end = memory.length;
      while (end > 0 && memory[end - 1] === 0) end--;
      const { fromNetwork, fromStore, weightBytes, kvBytes, scratchBytes } = vl.stats;
      vl.dispose();
      return {
        ms,
        fromNetwork,
        fromStore,
        weights: weightBytes,
        session: kvBytes + scratchBytes,
        touched: 4 * end,
      };
    },
    { address: url, where: store },
  );
  return { ...result, ...((await stop?.()) ?? { heapGrowth: 0, allGrowth: 0, samples: 0 }) };
}

/** What runs in a worker: all chunks of the store, read by nothing but IndexedDB. */
const RAW = `onmessage = ({ data: how }) => {
  const asked = (request) => new Promise((done, fail) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
  (async () => {
    const db = await asked(indexedDB.open('pocketvl'));
    const store = () => db.transaction('chunks').objectStore('chunks');
    const keys = await asked(store().getAllKeys());
    let buffer = new ArrayBuffer(1 << 20);
    let bytes = 0;
    const begun = performance.now();
    for (const key of keys) {
      const blob = await asked(store().get(key));
      if (how === 'whole') bytes += new FileReaderSync().readAsArrayBuffer(blob).byteLength;
      else if (how === 'promise') bytes += (await blob.arrayBuffer()).byteLength;
      else {
        const reader = blob.stream().getReader({ mode: 'byob' });
        for (;;) {
          const { done, value } = await reader.read(new Uint8Array(buffer));
          buffer = value.buffer;
          if (done) break;
          bytes += value.length;
        }
      }
    }
    postMessage({ bytes, ms: performance.now() - begun });
  })();
};`;

/**
 * The ceiling: bytes per ms that the browser gives out of IndexedDB when nothing is done with them. 'whole': a buffer for
 * each chunk, synchronously; 'promise': the same with Blob.arrayBuffer(); 'stream': into one small buffer again and again.
 * @param {Page} page
 * @param {'whole' | 'promise' | 'stream'} how
 * @returns {Promise<number>}
 */
export async function rawRead(page, how) {
  const { bytes, ms } = await page.evaluate(
    async (source, way) => {
      const worker = new Worker(
        URL.createObjectURL(new Blob([source], { type: 'text/javascript' })),
      );
      /** @type {{bytes: number, ms: number}} */
      const result = await new Promise((done) => {
        worker.onmessage = ({ data }) => done(data);
        worker.postMessage(way);
      });
      worker.terminate();
      return result;
    },
    RAW,
    how,
  );
  return bytes / ms;
}

const mb = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
const middle = (/** @type {number[]} */ list) => [...list].sort((a, b) => a - b)[list.length >> 1];

/**
 * Cold, with the heap sampled; then rounds of the raw read and the second visit, in turns.
 * @param {import('./surroundings.mjs').Stage} stage
 * @param {import('./options.mjs').Options} options
 * @param {import('./surroundings.mjs').Model} model
 */
export async function measureLoad(stage, options, model) {
  const page = await stage.newPage('page/index.html');
  const url = '/model/manifest.json';
  // Another model may be stored under the same address.
  const first = async (heap = false) => {
    await page.evaluate(async (address) => {
      const { models } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      await models.delete(new URL(address, location.href).href);
    }, url);
    const got = await visit(page, url, { heap });
    if (got.fromNetwork !== model.bytes || got.fromStore)
      throw new Error(`A first visit took ${got.fromStore} bytes from the store.`);
    return got;
  };
  const cold = await first();
  const sampled = await first(true);
  /** @type {Record<string, number[]>} */
  const rates = { warm: [], opfs: [], whole: [], promise: [], stream: [] };
  for (let round = 0; round < Math.max(options.repeat, 1); round++) {
    for (const how of /** @type {const} */ (['whole', 'promise', 'stream']))
      rates[how].push(await rawRead(page, how));
    const warm = await visit(page, url);
    if (warm.fromNetwork) throw new Error('The second visit asked the network for weights.');
    rates.warm.push(model.bytes / warm.ms);
  }
  const moved = await visit(page, url, { store: 'opfs' });
  if (moved.fromNetwork !== model.bytes) throw new Error('The other store was not empty.');
  for (let round = 0; round < Math.max(options.repeat, 1); round++) {
    const warm = await visit(page, url, { store: 'opfs' });
    if (warm.fromNetwork) throw new Error('The second visit asked the network for weights.');
    rates.opfs.push(model.bytes / warm.ms);
  }
  const warmSampled = await visit(page, url, { heap: true });
  await page.close();
  return {
    model: model.name,
    bytes: model.bytes,
    cold_mb_s: model.bytes / cold.ms / 1e3,
    warm_mb_s: rates.warm.map((r) => r / 1e3),
    opfs_mb_s: rates.opfs.map((r) => r / 1e3),
    raw_whole_mb_s: rates.whole.map((r) => r / 1e3),
    raw_promise_mb_s: rates.promise.map((r) => r / 1e3),
    raw_stream_mb_s: rates.stream.map((r) => r / 1e3),
    heap_growth_cold: sampled.heapGrowth,
    heap_growth_warm: warmSampled.heapGrowth,
    all_growth_cold: sampled.allGrowth,
    all_growth_warm: warmSampled.allGrowth,
    heap_samples: sampled.samples + warmSampled.samples,
    wasm_touched: sampled.touched,
    weights: sampled.weights,
    session: sampled.session,
    renderer_peak: stage.rendererPeak(),
  };
}

/** @param {Awaited<ReturnType<typeof measureLoad>>} r */
export function printLoad(r) {
  const warm = middle(r.warm_mb_s);
  const rate = (/** @type {number[]} */ list) => `${middle(list).toFixed(0)} MB/s`;
  const share = (/** @type {number[]} */ list) => `${((100 * warm) / middle(list)).toFixed(0)}%`;
  console.log(
    `\n${r.model}: ${mb(r.bytes)} of weights\n` +
      `  first visit       ${r.cold_mb_s.toFixed(0)} MB/s, network to ready\n` +
      `  second visit      ${rate(r.warm_mb_s)}, click to ready (${r.warm_mb_s.map((v) => v.toFixed(0)).join(', ')})\n` +
      `  IndexedDB alone   ${rate(r.raw_whole_mb_s)} chunk by chunk (the visit: ${share(r.raw_whole_mb_s)}), ` +
      `${rate(r.raw_promise_mb_s)} by arrayBuffer() (${share(r.raw_promise_mb_s)}), ` +
      `${rate(r.raw_stream_mb_s)} into one small buffer (${share(r.raw_stream_mb_s)})\n` +
      `  second visit from the private file system ${rate(r.opfs_mb_s)}\n` +
      `  JavaScript heap   grows by at most ${mb(r.heap_growth_cold)} on the first visit, ${mb(r.heap_growth_warm)} on ` +
      `the second; with Blobs and other objects of the browser's ${mb(r.all_growth_cold)} and ${mb(r.all_growth_warm)} ` +
      `(${r.heap_samples} samples)\n` +
      `  engine's memory   touched up to ${mb(r.wasm_touched)}: weights ${mb(r.weights)}, session ${mb(r.session)}`,
  );
}
