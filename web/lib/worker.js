// The dedicated worker of a page: owns the wasm module and its threads.
import { serve } from './service.js';
import { idbStore } from './store_idb.js';
import { opfsStore } from './store_opfs.js'; // not on demand: bundlers make one file of a worker
import { threadsOf } from './threads.js';

/** @typedef {import('./protocol.js').Reply} Reply */

const scope = /** @type {any} */ (self);
scope.Worker = threadsOf(scope); // for the engine's glue code

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

/**
 * A lock that is held as long as this worker lives, however it ends: the page, which waits for it, hears of that (see
 * client.js). It asks for it after the worker's first word, so the worker has to have it before.
 * @returns {Promise<void>}
 */
const alive = () =>
  new Promise((have) => {
    const held = () => new Promise(() => have());
    if (scope.navigator.locks) scope.navigator.locks.request(scope.name, held).catch(have);
    else have();
  });

/** @type {Parameters<typeof serve>[0]} */
const surroundings = {
  port: {
    post: (message, transfer = []) => scope.postMessage(message, transfer),
    listen: (listener) =>
      scope.addEventListener('message', (/** @type {MessageEvent} */ event) =>
        listener(event.data),
      ),
    close: () => scope.close(),
  },
  openStore: (kind) => (kind === 'opfs' ? opfsStore() : idbStore()),
  stillWanted, // asked where the page has no shared memory: WebKit may be isolated and yet have none
};
void alive().then(() => serve(surroundings));
