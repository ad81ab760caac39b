// The person's stored models, from the page: what there is, how large, delete, check, save.
import { PocketVLError, checkSignal } from './errors.js';
import { wholeChunk } from './store.js';
import { idbStore } from './store_idb.js';
import { hasOpfs, opfsStore } from './store_opfs.js';
import { verifyModel } from './weights.js';

/**
 * @typedef {object} StoredModel
 * @property {string} key what it was loaded by: load it with this address
 * @property {string} title
 * @property {number} bytes of the whole model
 * @property {number} storedBytes of those, here
 * @property {boolean} complete
 * @property {number} created ms since 1970
 * @property {number} used
 */

/**
 * @template T
 * @param {(stores: import('./store.js').Store[]) => Promise<T>} work
 */
async function withStores(work) {
  const stores = [await idbStore()];
  // Where the browser has none, or gives none, there is nothing in it.
  if (hasOpfs())
    stores.push(
      ...(await opfsStore().then(
        (store) => [store],
        () => [],
      )),
    );
  try {
    return await work(stores);
  } finally {
    for (const store of stores) store.close();
  }
}

/**
 * The store that has this model; the first one if none has.
 * @template T
 * @param {string} key
 * @param {(store: import('./store.js').Store) => Promise<T>} work
 */
const withStoreOf = (key, work) =>
  withStores(async (stores) => {
    for (const store of stores) if (await store.model(key)) return work(store);
    return work(stores[0]);
  });

/**
 * @param {AbortSignal} [signal]
 * @returns {Promise<StoredModel[]>}
 */
export const list = (signal) =>
  withStores(async (stores) => {
    const found = [];
    for (const store of stores) {
      for (const { key, manifest, complete, created, used } of await store.models()) {
        checkSignal(signal);
        let storedBytes = 0;
        for (const { bytes } of (await store.records(key)).values()) storedBytes += bytes;
        found.push({
          key,
          title: manifest.title ?? manifest.name,
          bytes: manifest.files.reduce((sum, file) => sum + file.bytes, 0),
          storedBytes,
          complete,
          created,
          used,
        });
      }
    }
    return found.sort((a, b) => b.used - a.used);
  });

/**
 * @param {string} key
 * @param {AbortSignal} [signal]
 */
export const remove = (key, signal) =>
  withStores(async (stores) => {
    for (const store of stores) {
      checkSignal(signal);
      await store.deleteModel(key);
    }
  });

/**
 * @param {string} key
 * @param {{signal?: AbortSignal, onProgress?: (done: number, total: number) => void}} options
 */
export const verify = (key, { signal, onProgress }) =>
  withStoreOf(key, async (store) => {
    const wrong = await verifyModel(store, key, signal, onProgress);
    return { damaged: wrong.length };
  });

/**
 * @param {string} key
 * @param {AbortSignal} [signal]
 */
export const exportFiles = (key, signal) =>
  withStoreOf(key, async (store) => {
    const record = await store.model(key);
    if (!record?.complete) {
      throw new PocketVLError('STORAGE', 'This model is not stored as a whole; load it first.');
    }
    const files = [];
    for (const [f, file] of record.manifest.files.entries()) {
      const parts = [];
      for (const [c, chunk] of file.chunks.entries()) {
        checkSignal(signal);
        const bytes = await wholeChunk(store, [key, f, c], chunk.bytes);
        if (!bytes)
          throw new PocketVLError(
            'STORAGE',
            `A part of ${file.name} is missing; load the model again.`,
          );
        parts.push(new Blob([bytes])); // a Blob each: the browser may keep them on disk
      }
      files.push({ name: file.name, blob: new Blob(parts) });
    }
    return files;
  });
