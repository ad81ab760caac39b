// Workers for the engine's threads, started by the page. In Firefox (153 ESR) `new Worker` in a worker now and then blocks
// that worker for ever: in 2 % of the loads of our page, and once in 2 to 200 calls in a loop of nothing else; from a page
// it did not in 1800 calls. So the Worker that the engine's glue code knows is this stand-in, which asks the page.
//
//   engine -> page   { thread, start: {url, options} }   { thread, message }   { thread, end: true }
//   page -> engine   { thread, message }                 { thread, error }
//
// Messages are few: threads are started once and then meet in shared memory.

/**
 * @typedef {object} ThreadMessage
 * @property {number} thread
 * @property {{url: string, options: WorkerOptions}} [start]
 * @property {any} [message]
 * @property {string} [error]
 * @property {boolean} [end]
 */

/** @param {any} data @returns {data is ThreadMessage} */
const isThreadMessage = (data) =>
  typeof data === 'object' && data !== null && Number.isInteger(data.thread);

/**
 * In the engine's worker: a class to take the place of `Worker`, with what the glue code uses of it.
 * @param {any} scope the worker's global one
 */
export function threadsOf(scope) {
  /** @type {Map<number, Thread>} */
  const threads = new Map();
  let started = 0;

  class Thread {
    /** @param {URL | string} url @param {WorkerOptions} options */
    constructor(url, options) {
      this.number = ++started;
      /** @type {((event: {data: any}) => void) | null} */
      this.onmessage = null;
      /** @type {((event: {message: string}) => void) | null} */
      this.onerror = null;
      threads.set(this.number, this);
      const { type, name } = options;
      scope.postMessage({
        thread: this.number,
        start: { url: String(url), options: { type, name } },
      });
    }
    /** @param {any} message @param {Transferable[]} [transfer] */
    postMessage(message, transfer = []) {
      scope.postMessage({ thread: this.number, message }, transfer);
    }
    terminate() {
      threads.delete(this.number);
      scope.postMessage({ thread: this.number, end: true });
    }
  }

  scope.addEventListener('message', (/** @type {MessageEvent} */ { data }) => {
    if (!isThreadMessage(data)) return;
    const thread = threads.get(data.thread);
    if (data.error !== undefined) thread?.onerror?.({ message: data.error });
    else thread?.onmessage?.({ data: data.message });
  });
  return Thread;
}

/**
 * In the page: starts the threads that the engine's worker asks for.
 * @param {Worker} engine
 * @returns {() => void} ends them all; they do not end with the engine's worker by themselves
 */
export function hostThreads(engine) {
  /** @type {Map<number, Worker>} */
  const threads = new Map();
  /** @param {number} thread @param {{url: string, options: WorkerOptions}} how */
  const start = (thread, { url, options }) => {
    const worker = new Worker(url, options);
    threads.set(thread, worker);
    worker.onmessage = ({ data }) => engine.postMessage({ thread, message: data });
    worker.onerror = (event) => {
      event.preventDefault();
      engine.postMessage({ thread, error: event.message || 'its script could not be loaded' });
    };
  };
  engine.addEventListener('message', ({ data }) => {
    if (!isThreadMessage(data)) return;
    if (data.start) return start(data.thread, data.start);
    const worker = threads.get(data.thread);
    if (data.end) {
      worker?.terminate();
      threads.delete(data.thread);
    } else worker?.postMessage(data.message);
  });
  return () => {
    for (const worker of threads.values()) worker.terminate();
    threads.clear();
  };
}
