// What bench.mjs calls from outside: globalThis.bench.
import { caller } from './rpc.mjs';

/** @type {ReturnType<typeof caller>[]} */
let ceilingWorkers = [];
/** @type {Worker | null} */
let worker = null;
/** @type {ReturnType<typeof caller>} */
let engine;

const bench = {
  environment() {
    return {
      isolated: globalThis.crossOriginIsolated,
      cores: navigator.hardwareConcurrency,
      agent: navigator.userAgent,
    };
  },

  /**
   * Every loop on `threads` workers at once: each worker's rate.
   * @param {{names: string[], threads: number, ms: number}} o
   * @returns {Promise<Record<string, number[]>>}
   */
  async ceilings({ names, threads, ms }) {
    while (ceilingWorkers.length < threads) {
      const call = caller(
        new Worker(new URL('ceilings_worker.mjs', import.meta.url), { type: 'module' }),
      );
      await call('prepare', { url: '/ceilings.wasm' });
      ceilingWorkers.push(call);
    }
    /** @type {Record<string, number[]>} */
    const rates = {};
    for (const name of names) {
      const line = new Int32Array(new SharedArrayBuffer(4));
      const calls = ceilingWorkers
        .slice(0, threads)
        .map((call) => call('measure', { name, ms, line, workers: threads }));
      rates[name] = await Promise.all(calls);
    }
    return rates;
  },

  /** A fresh worker with a fresh engine. @param {any} options */
  async open(options) {
    worker?.terminate();
    worker = new Worker(new URL('engine_worker.mjs', import.meta.url), { type: 'module' });
    engine = caller(worker);
    return engine('open', options);
  },

  /** @param {string} verb @param {unknown} args */
  call: (verb, args) => engine(verb, args),

  close() {
    worker?.terminate();
    worker = null;
    ceilingWorkers = [];
  },
};

Object.assign(globalThis, { bench });
