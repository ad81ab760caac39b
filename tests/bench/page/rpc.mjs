// Calls from the page into a worker: one message there, one back, errors as errors.

/**
 * @param {Worker} worker
 * @returns {(verb: string, args?: unknown) => Promise<any>}
 */
export function caller(worker) {
  /** @type {Map<number, {done: (value: any) => void, fail: (error: Error) => void}>} */
  const waiting = new Map();
  let last = 0;
  worker.onmessage = ({ data }) => {
    const call = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) call?.fail(new Error(data.error));
    else call?.done(data.value);
  };
  const failAll = (/** @type {string} */ text) => {
    for (const { fail } of waiting.values()) fail(new Error(text));
    waiting.clear();
  };
  worker.onerror = (event) => failAll(event.message || 'The worker could not be started.');
  worker.onmessageerror = () => failAll('A message of the worker could not be read.');
  return (verb, args) =>
    new Promise((done, fail) => {
      waiting.set(++last, { done, fail });
      worker.postMessage({ id: last, verb, args });
    });
}

/**
 * In a worker: answers calls with the functions of `verbs`.
 * @param {Record<string, (args: any) => unknown>} verbs
 */
export function answer(verbs) {
  globalThis.onmessage = async ({ data: { id, verb, args } }) => {
    try {
      postMessage({ id, value: await verbs[verb](args) });
    } catch (error) {
      const { code, message, stack } = /** @type {any} */ (error);
      postMessage({ id, error: code ? `${message} (${code})` : `${message}\n${stack}` });
    }
  };
}
