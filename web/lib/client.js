// The page's side of the worker: calls with ids, one long call at a time in the order of asking, abort, progress,
// and a new worker when the old one is lost.
import { PocketVLError, aborted } from './errors.js';
import { isReply } from './protocol.js';
import { hostThreads } from './threads.js';

/** @typedef {import('./protocol.js').Verb} Verb */

/**
 * What a worker is to this side; browsers and Node.js differ.
 * @typedef {object} WorkerHandle
 * @property {(message: any, transfer?: Transferable[]) => void} post
 * @property {(listener: (data: unknown) => void) => void} onMessage
 * @property {(listener: (reason: string) => void) => void} onDeath
 * @property {() => void} terminate
 */

/**
 * @typedef {object} CallOptions
 * @property {AbortSignal} [signal]
 * @property {(value: any) => void} [onProgress]
 * @property {(text: string) => void} [onPiece]
 * @property {Transferable[]} [transfer]
 */

/**
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(error: PocketVLError) => void} reject
 * @property {CallOptions} options
 */

const START_DEADLINE = 30000;

export class Client {
  /** @param {() => WorkerHandle} spawn */
  constructor(spawn) {
    this.spawn = spawn;
    this.nextId = 1;
    /** @type {Map<number, Pending>} */
    this.pending = new Map();
    /** The end of the queue. @type {Promise<unknown>} */
    this.tail = Promise.resolve();
    /** @type {WorkerHandle | null} */
    this.worker = null;
    /** @type {Promise<void>} */
    this.started = Promise.resolve();
    this.dead = false;
    this.disposed = false;
    /** Set by the caller: where the engine's cancel flag is. @type {{memory: SharedArrayBuffer, address: number} | null} */
    this.cancel = null;
    /** @type {(error: PocketVLError) => void} */
    this.onDeath = () => {};
  }

  start() {
    const worker = this.spawn();
    this.worker = worker;
    this.dead = false;
    this.cancel = null;
    /** @type {(error: PocketVLError) => void} */
    let failed = () => {};
    this.started = new Promise((done, fail) => {
      failed = fail;
      const timer = setTimeout(() => {
        this.die(worker, 'it did not start within 30 s');
      }, START_DEADLINE);
      /** @type {any} */ (timer).unref?.();
      worker.onMessage((data) => {
        if (!isReply(data)) return;
        if (data.event === 'ready') {
          clearTimeout(timer);
          done();
        } else this.receive(data);
      });
      worker.onDeath((reason) => {
        clearTimeout(timer);
        this.die(worker, reason);
      });
    });
    this.started.catch(() => {});
    this.failStart = failed;
  }

  /**
   * @param {WorkerHandle} worker
   * @param {string} reason
   */
  die(worker, reason) {
    if (worker !== this.worker || this.dead) return;
    this.dead = true;
    this.cancel = null;
    worker.terminate();
    const error = new PocketVLError(
      'WORKER',
      `The engine's worker was lost: ${reason}. The next call starts it again; the model is read from storage.`,
    );
    this.failStart?.(error);
    const pending = [...this.pending.values()];
    this.pending.clear();
    for (const { reject } of pending) reject(error);
    this.onDeath(error);
  }

  /** @param {import('./protocol.js').Reply} reply */
  receive({ id, event, value }) {
    const call = this.pending.get(id);
    if (!call) return;
    if (event === 'progress') call.options.onProgress?.(value);
    else if (event === 'piece') call.options.onPiece?.(value);
    else {
      this.pending.delete(id);
      if (event === 'result') call.resolve(value);
      else {
        const error = PocketVLError.fromWire(value);
        call.reject(error);
        if (value.fatal && this.worker) this.die(this.worker, error.message);
      }
    }
  }

  /**
   * Runs `work` when all earlier ones are done; an abort while waiting takes it out of the queue.
   * @template T
   * @param {AbortSignal | undefined} signal
   * @param {() => Promise<T>} work
   * @returns {Promise<T>}
   */
  queue(signal, work) {
    const before = this.tail;
    const mine = (async () => {
      await abortable(before, signal);
      if (this.disposed)
        throw new PocketVLError('STATE', 'This PocketVL was disposed of; load a model again.');
      return work();
    })();
    // Who comes next waits for both: an aborted wait ends early, the work before it may still run.
    this.tail = Promise.allSettled([before, mine]);
    return mine;
  }

  /**
   * One call of the worker. Not queued here: see `queue`.
   * @param {Verb} verb
   * @param {Record<string, any>} args
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   */
  async call(verb, args, options = {}) {
    const { signal, transfer } = options;
    if (signal?.aborted) throw aborted();
    if (!this.worker || this.dead) this.start();
    await this.started;
    if (signal?.aborted) throw aborted();
    const id = this.nextId++;
    // Three ways to say stop: a cell in shared memory that is asked between steps, the engine's own flag, which ends
    // a running product, and where there is no shared memory a Blob URL that exists as long as the call is wanted.
    const shared = typeof SharedArrayBuffer === 'function' && this.cancel !== null;
    const cell = shared && verb === 'chat' ? new Int32Array(new SharedArrayBuffer(4)) : null;
    const token =
      !shared && verb === 'chat' && typeof URL.createObjectURL === 'function'
        ? URL.createObjectURL(new Blob(['1']))
        : null;
    const forget = () => {
      if (token) URL.revokeObjectURL(token);
    };
    const stop = () => {
      if (cell) Atomics.store(cell, 0, 1);
      if (cell && this.cancel) {
        const flag = new Int32Array(this.cancel.memory, this.cancel.address, 1);
        Atomics.store(flag, 0, 1);
      }
      forget();
      this.worker?.post({ id: 0, verb: 'abort', args: { id } });
    };
    try {
      return await new Promise((resolve, reject) => {
        this.pending.set(id, { resolve, reject, options });
        signal?.addEventListener('abort', stop, { once: true });
        try {
          const extra = cell ? { cell: cell.buffer } : token ? { token } : {};
          this.worker?.post({ id, verb, args: { ...args, ...extra } }, transfer);
        } catch (error) {
          this.pending.delete(id);
          reject(
            new PocketVLError('ARGUMENT', `The call cannot be sent to the worker: ${error}.`, {
              cause: error,
            }),
          );
        }
      });
    } finally {
      signal?.removeEventListener('abort', stop);
      forget();
    }
  }

  dispose() {
    this.disposed = true;
    this.worker?.terminate();
    this.dead = true;
    const error = new PocketVLError('STATE', 'This PocketVL was disposed of.');
    this.failStart?.(error);
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
  }
}

/**
 * Waits for a promise; an abort ends the waiting.
 * @template T
 * @param {Promise<T>} promise
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<T>}
 */
export function abortable(promise, signal) {
  if (!signal) return promise;
  return new Promise((done, fail) => {
    const stop = () => fail(aborted());
    if (signal.aborted) {
      promise.catch(() => {}); // nobody waits for it
      return stop();
    }
    signal.addEventListener('abort', stop, { once: true });
    promise.then(done, fail).finally(() => signal.removeEventListener('abort', stop));
  });
}

/** @returns {WorkerHandle} */
export function browserWorker() {
  if (typeof Worker !== 'function') {
    throw new PocketVLError(
      'UNSUPPORTED_BROWSER',
      'This browser has no workers, which PocketVL needs.',
    );
  }
  const workerName = `pocketvl-${Date.now()}-${Math.random()}`;
  const worker = new Worker(new URL('./worker.js', import.meta.url), {
    type: 'module',
    name: workerName,
  });
  const endThreads = hostThreads(worker);
  return {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    onMessage: (listener) => worker.addEventListener('message', (event) => listener(event.data)),
    onDeath: (listener) => {
      worker.addEventListener('error', (event) => {
        event.preventDefault?.();
        listener(event.message || 'its script could not be loaded');
      });
      worker.addEventListener('messageerror', () => listener('a message could not be read'));
      // A worker that the system ends says nothing, but lets go of its lock.
      const ended = () => listener('it ended without a word');
      const listen = () => navigator.locks.request(workerName, ended).catch(() => {});
      if (navigator.locks) worker.addEventListener('message', listen, { once: true });
    },
    terminate() {
      worker.terminate();
      endThreads();
    },
  };
}
