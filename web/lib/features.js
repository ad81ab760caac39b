// What this browser (or Node.js) offers to the engine, found out by trying, with reasons that a person can read.

/**
 * @typedef {object} Features
 * @property {boolean} simd
 * @property {boolean} relaxedSimd
 * @property {boolean} threads more than one thread can be used
 * @property {boolean} isolated
 * @property {number} cores what the system reports; may be too high
 * @property {'relaxed' | 'simd'} variant the build to use
 * @property {string} threadsReason why there are threads, or not
 * @property {string} variantReason why this build
 */

/** A module with one function () -> v128 of the given body. */
const probe = (/** @type {number[]} */ body) =>
  new Uint8Array(
    [
      [0, 97, 115, 109, 1, 0, 0, 0], // magic, version
      [1, 5, 1, 96, 0, 1, 123], // one type: () -> v128
      [3, 2, 1, 0], // one function of it
      [10, body.length + 4, 1, body.length + 2, 0, ...body, 11], // its code
    ].flat(),
  );

const ZERO = [65, 0, 253, 15]; // i32.const 0, i8x16.splat
const PLAIN = probe([...ZERO, 253, 98]); // i8x16.popcnt
const RELAXED = probe([...ZERO, ...ZERO, 253, 128, 2]); // i8x16.relaxed_swizzle

const validate = (/** @type {Uint8Array<ArrayBuffer>} */ bytes) => {
  try {
    return typeof WebAssembly === 'object' && WebAssembly.validate(bytes);
  } catch {
    return false;
  }
};

/** @returns {Features} */
export function detect() {
  const simd = validate(PLAIN);
  const relaxedSimd = simd && validate(RELAXED);
  const browser = typeof window !== 'undefined' || typeof WorkerGlobalScope !== 'undefined';
  const isolated = browser ? globalThis.crossOriginIsolated === true : true;
  const shared = typeof SharedArrayBuffer === 'function';
  const cores = Math.max(1, globalThis.navigator?.hardwareConcurrency ?? 1);
  const threads = isolated && shared;
  const threadsReason = !isolated
    ? 'One thread: the page is not cross-origin isolated. Serve it over https or localhost with its ' +
      'service worker, or with the headers COOP same-origin and COEP require-corp.'
    : !shared
      ? 'One thread: this browser gives pages no shared memory.'
      : cores === 1
        ? 'One thread: the machine has one core.'
        : 'Threads: the page is cross-origin isolated.';
  return {
    simd,
    relaxedSimd,
    threads,
    isolated,
    cores,
    variant: relaxedSimd ? 'relaxed' : 'simd',
    threadsReason,
    variantReason: relaxedSimd
      ? 'Relaxed SIMD: this browser has it.'
      : 'Plain SIMD: this browser has no relaxed SIMD.',
  };
}

/**
 * Threads to use when nobody says: all cores up to 8. Memory bandwidth is used up well before that.
 * @param {Features} features
 */
export function defaultThreads(features) {
  return features.threads ? Math.min(features.cores, 8) : 1;
}
