// The worker thread of PocketVL in Node.js.
import { openAsBlob } from 'node:fs';
import process from 'node:process';
import { parentPort } from 'node:worker_threads';
import { setFlagsFromString } from 'node:v8';
import { serve } from '../service.js';
import { PocketVLError } from '../errors.js';

const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort);

// Node.js 20 has relaxed SIMD behind a flag, and its baseline compiler gets our thread team's atomics wrong under
// load (jobs run twice or never; with the optimizing compiler each runs once). Newer ones need neither.
if (Number(process.versions.node.split('.')[0]) < 22) {
  setFlagsFromString('--experimental-wasm-relaxed-simd');
  setFlagsFromString('--no-liftoff');
}

serve({
  port: {
    post: (message, transfer = []) => port.postMessage(message, /** @type {any} */ (transfer)),
    listen: (listener) => port.on('message', listener),
    close: () => port.close(),
  },
  openStore: () => Promise.reject(new PocketVLError('STORAGE', 'Node.js has no IndexedDB')),
  stillWanted: null,
  openPath: (path) => openAsBlob(path),
});
