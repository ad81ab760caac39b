// The dedicated worker of a page: owns the wasm module and its threads.
import { serve } from './service.js';
import { idbStore } from './store_idb.js';

/** @typedef {import('./protocol.js').Reply} Reply */

const scope = /** @type {any} */ (self);

/**
 * The caller revokes the Blob URL of a call that is no longer wanted: a way to hear of it in the middle of a C call,
 * where no message comes in and there is no shared memory.
 * @param {string} url
 */
function stillWanted(url) {
  try {
    const request = new XMLHttpRequest();
    request.open('GET', url, false);
    request.send();
    return request.status === 200;
  } catch {
    return false;
  }
}

serve({
  port: {
    post: (message, transfer = []) => scope.postMessage(message, transfer),
    listen: (listener) =>
      scope.addEventListener('message', (/** @type {MessageEvent} */ event) =>
        listener(event.data),
      ),
    close: () => scope.close(),
  },
  openStore: () => idbStore(),
  stillWanted: scope.crossOriginIsolated ? null : stillWanted,
});
