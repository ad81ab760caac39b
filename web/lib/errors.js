// The one error class of the library.

/**
 * The codes that `PocketVLError.code` can hold. The first group carries the names of the C core's
 * statuses, the second belongs to the web side.
 *
 * @typedef {'ARGUMENT' | 'MEMORY' | 'CANCELLED' | 'IO' | 'FORMAT' | 'UNSUPPORTED' | 'MODEL' | 'IMAGE' |
 *   'LIMIT' | 'CONTEXT' | 'STATE' | 'INTERNAL' |
 *   'NETWORK' | 'QUOTA' | 'STORAGE' | 'INTEGRITY' | 'ABORTED' | 'WORKER' | 'UNSUPPORTED_BROWSER'} ErrorCode
 */

/** @type {readonly ErrorCode[]} */
export const ERROR_CODES = Object.freeze([
  'ARGUMENT',
  'MEMORY',
  'CANCELLED',
  'IO',
  'FORMAT',
  'UNSUPPORTED',
  'MODEL',
  'IMAGE',
  'LIMIT',
  'CONTEXT',
  'STATE',
  'INTERNAL',
  'NETWORK',
  'QUOTA',
  'STORAGE',
  'INTEGRITY',
  'ABORTED',
  'WORKER',
  'UNSUPPORTED_BROWSER',
]);

/**
 * Every failure of the library: `code` is stable, `message` is one sentence that a person can act on,
 * `details` holds figures that belong to the code (bytes missing, HTTP status, ...).
 */
export class PocketVLError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} message
   * @param {{cause?: unknown, details?: Record<string, unknown>}} [more]
   */
  constructor(code, message, more = {}) {
    super(message, more.cause === undefined ? undefined : { cause: more.cause });
    this.name = 'PocketVLError';
    /** @type {ErrorCode} */
    this.code = code;
    /** @type {Record<string, unknown>} */
    this.details = more.details ?? {};
  }

  /**
   * What crosses a worker's border: structured clone would drop the class and the code.
   * @internal
   */
  toWire() {
    return {
      code: this.code,
      message: this.message,
      details: this.details,
      stack: this.stack ?? '',
    };
  }

  /**
   * @internal
   * @param {{code: ErrorCode, message: string, details?: Record<string, unknown>, stack?: string}} wire
   */
  static fromWire(wire) {
    const error = new PocketVLError(wire.code, wire.message, { details: wire.details });
    if (wire.stack) error.details = { ...error.details, workerStack: wire.stack };
    return error;
  }

  /**
   * Any thrown thing as a PocketVLError.
   * @internal
   * @param {unknown} thrown
   * @param {ErrorCode} [code] for what carries none of its own
   */
  static from(thrown, code = 'INTERNAL') {
    if (thrown instanceof PocketVLError) return thrown;
    const error = /** @type {{name?: string, message?: string}} */ (thrown ?? {});
    if (error.name === 'AbortError') return aborted();
    const message = error.message || String(thrown);
    return new PocketVLError(code, message, { cause: thrown });
  }
}

/** The error of every call whose signal was aborted. */
export function aborted() {
  return new PocketVLError('ABORTED', 'The call was stopped.');
}

/**
 * Throws if the signal is aborted.
 * @param {AbortSignal | null | undefined} signal
 */
export function checkSignal(signal) {
  if (signal?.aborted) throw aborted();
}

/**
 * Waits; ends early with ABORTED.
 * @param {number} ms
 * @param {AbortSignal | null | undefined} signal
 * @returns {Promise<void>}
 */
export function sleep(ms, signal) {
  return new Promise((done, fail) => {
    if (signal?.aborted) return fail(aborted());
    const stop = () => {
      clearTimeout(timer);
      fail(aborted());
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', stop);
      done();
    }, ms);
    signal?.addEventListener('abort', stop, { once: true });
  });
}
