// One worker of the ceilings: an instance of ceilings.wasm, and a starting line for all of them.
import { answer } from './rpc.mjs';

/** @type {any} */
let loops;
/** What the loops return goes here, so that none is left out. */
export let sink = 0;

/** How long one call of a loop takes, in ms: short, so that the optimized code is taken up soon. */
const CALL = 1;

answer({
  async prepare({ url }) {
    const { instance } = await WebAssembly.instantiateStreaming(fetch(url), {});
    loops = instance.exports;
    loops._initialize?.();
    loops.prepare();
  },

  /**
   * Runs a loop for `ms` together with the other workers.
   * @param {{name: string, ms: number, line: Int32Array, workers: number}} args `line`: shared, zero before
   * @returns {number} multiply-adds or bytes per nanosecond: GMAC/s or GB/s
   */
  measure({ name, ms, line, workers }) {
    const run = loops[name];
    const unit = name === 'read' ? loops.bytes_per_round() : loops.macs_per_round();
    let rounds = 1;
    for (let warm = performance.now(), took = 0; took < CALL || performance.now() - warm < 15;) {
      const start = performance.now();
      sink ^= run(rounds);
      took = performance.now() - start;
      if (took < CALL) rounds *= 2;
    }
    Atomics.add(line, 0, 1);
    for (let spins = 0; Atomics.load(line, 0) < workers; spins++) {
      if (spins > 3e8) throw new Error('The other workers did not come to the starting line.');
    }
    const start = performance.now();
    let done = 0;
    let now = start;
    for (; now - start < ms; now = performance.now()) {
      sink ^= run(rounds);
      done += rounds;
    }
    return (done * unit) / (now - start) / 1e6;
  },
});
