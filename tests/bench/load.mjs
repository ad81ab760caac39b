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

/** What runs in a worker: all chunks of the store, read by nothing but IndexedDB and put into shared memory. */
const RAW = `onmessage = ({ data: { how, fresh } }) => {
  const CHUNK = 16 << 20;
  const asked = (request) => new Promise((done, fail) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => fail(request.error);
  });
  (async () => {
    const db = await asked(indexedDB.open('pocketvl'));
    const store = () => db.transaction('chunks').objectStore('chunks');
    const keys = await asked(store().getAllKeys());
    const size = fresh ? keys.length * CHUNK : CHUNK;
    const pages = Math.ceil(size / 65536);
    const memory = new Uint8Array(new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true }).buffer);
    if (!fresh) memory.fill(1);
    let buffer = new ArrayBuffer(1 << 20);
    let bytes = 0;
    const begun = performance.now();
    for (const [i, key] of keys.entries()) {
      const blob = await asked(store().get(key));
      let at = fresh ? i * CHUNK : 0;
      const put = (piece) => {
        memory.set(piece, at);
        at += piece.length;
        bytes += piece.length;
      };
      if (how === 'reader') put(new Uint8Array(new FileReaderSync().readAsArrayBuffer(blob)));
      else if (how === 'buffer') put(new Uint8Array(await blob.arrayBuffer()));
      else {
        const reader = blob.stream().getReader({ mode: 'byob' });
        for (;;) {
          const { done, value } = await reader.read(new Uint8Array(buffer));
          buffer = value.buffer;
          if (done) break;
          put(value);
        }
      }
    }
    postMessage({ bytes, ms: performance.now() - begun });
  })();
};`;

/** Ways of reading a stored Blob: FileReaderSync, Blob.arrayBuffer(), and its stream through one small buffer. */
const WAYS = /** @type {const} */ (['reader', 'buffer', 'stream']);

/**
 * The ceiling: bytes per ms that the browser brings out of IndexedDB into shared memory when nothing else is done.
 * @param {Page} page
 * @param {(typeof WAYS)[number]} how
 * @param {boolean} fresh every chunk to a place that was never written, as those of a model's weights; else all to the same
 * @returns {Promise<number>}
 */
async function rawRead(page, how, fresh) {
  const { bytes, ms } = await page.evaluate(
    async (source, order) => {
      const worker = new Worker(
        URL.createObjectURL(new Blob([source], { type: 'text/javascript' })),
      );
      /** @type {{bytes: number, ms: number}} */
      const result = await new Promise((done) => {
        worker.onmessage = ({ data }) => done(data);
        worker.postMessage(order);
      });
      worker.terminate();
      return result;
    },
    RAW,
    { how, fresh },
  );
  return bytes / ms;
}

const mb = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
const middle = (/** @type {number[]} */ list) => [...list].sort((a, b) => a - b)[list.length >> 1];

/**
 * First visits, one with the heap sampled; then rounds of the raw reads and the second visit, in turns. Each has a page of
 * its own, as visits have, and begins when the memory of the one before has been given back.
 * @param {import('./surroundings.mjs').Stage} stage
 * @param {import('./options.mjs').Options} options
 * @param {import('./surroundings.mjs').Model} model
 */
export async function measureLoad(stage, options, model) {
  const url = '/model/manifest.json';
  /** @template T @param {(page: Page) => Promise<T>} work */
  const alone = async (work) => {
    await sleep(1000);
    const page = await stage.newPage('page/index.html');
    try {
      return await work(page);
    } finally {
      await page.close();
    }
  };
  const first = async (heap = false) => {
    // Another model may be stored under the same address.
    await alone((page) =>
      page.evaluate(async (address) => {
        const { models } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
        await models.delete(new URL(address, location.href).href);
      }, url),
    );
    const got = await alone((page) => visit(page, url, { heap }));
    if (got.fromNetwork !== model.bytes || got.fromStore)
      throw new Error(`A first visit took ${got.fromStore} bytes from the store.`);
    return got;
  };
  const second = async (/** @type {{heap?: boolean, store?: 'auto' | 'opfs'}} */ how) => {
    const got = await alone((page) => visit(page, url, how));
    if (got.fromNetwork) throw new Error('The second visit asked the network for weights.');
    return got;
  };
  const rounds = Math.max(options.repeat, 1);
  const cold = await first();
  const sampled = await first(true);
  const raw = Object.fromEntries(
    WAYS.map((how) => [
      how,
      { written: /** @type {number[]} */ ([]), fresh: /** @type {number[]} */ ([]) },
    ]),
  );
  const warm = [];
  for (let round = 0; round < rounds; round++) {
    for (const how of WAYS) {
      raw[how].written.push((await alone((page) => rawRead(page, how, false))) / 1e3);
      raw[how].fresh.push((await alone((page) => rawRead(page, how, true))) / 1e3);
    }
    warm.push(model.bytes / (await second({})).ms / 1e3);
  }
  const moved = await alone((page) => visit(page, url, { store: 'opfs' }));
  if (moved.fromNetwork !== model.bytes) throw new Error('The other store was not empty.');
  const opfs = [];
  for (let round = 0; round < rounds; round++)
    opfs.push(model.bytes / (await second({ store: 'opfs' })).ms / 1e3);
  const warmSampled = await second({ heap: true });
  return {
    model: model.name,
    bytes: model.bytes,
    cold_mb_s: model.bytes / cold.ms / 1e3,
    opfs_cold_mb_s: model.bytes / moved.ms / 1e3,
    warm_mb_s: warm,
    opfs_mb_s: opfs,
    raw_mb_s: raw,
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
  const each = (/** @type {number[]} */ list) => list.map((v) => v.toFixed(0)).join(', ');
  const raw = (/** @type {'written' | 'fresh'} */ where) =>
    WAYS.map((how) => {
      const rate = middle(r.raw_mb_s[how][where]);
      const name = { reader: 'FileReaderSync', buffer: 'arrayBuffer()', stream: 'stream' }[how];
      return `${name} ${rate.toFixed(0)} MB/s (the visit: ${((100 * warm) / rate).toFixed(0)}%)`;
    }).join(', ');
  console.log(
    `\n${r.model}: ${mb(r.bytes)} of weights\n` +
      `  first visit       ${r.cold_mb_s.toFixed(0)} MB/s, network to ready\n` +
      `  second visit      ${warm.toFixed(0)} MB/s, click to ready (${each(r.warm_mb_s)})\n` +
      `  IndexedDB alone, into shared memory that was written before: ${raw('written')}\n` +
      `                   into memory that is new, as a model needs it: ${raw('fresh')}\n` +
      `  private file system: first visit ${r.opfs_cold_mb_s.toFixed(0)} MB/s, second ${middle(r.opfs_mb_s).toFixed(0)} MB/s (${each(r.opfs_mb_s)})\n` +
      `  JavaScript heap   grows by at most ${mb(r.heap_growth_cold)} on the first visit, ${mb(r.heap_growth_warm)} on ` +
      `the second; with Blobs and other objects of the browser's ${mb(r.all_growth_cold)} and ${mb(r.all_growth_warm)} ` +
      `(${r.heap_samples} samples)\n` +
      `  engine's memory   touched up to ${mb(r.wasm_touched)}: weights ${mb(r.weights)}, session ${mb(r.session)}`,
  );
}
