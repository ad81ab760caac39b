// The store in IndexedDB. Chunks are Blobs where the browser takes them (both engines keep those as plain
// files: two to four times the reading speed), else ArrayBuffers. One chunk is one transaction, data and
// record together, and nothing ever calls commit(): with it, Firefox completes a transaction whose Blob ran
// into the quota, and WebKit one whose Blob could not be prepared.
import { deleteDB, openDB } from '../vendor/idb.js';
import { readBlob } from './blobs.js';
import { PocketVLError } from './errors.js';
import { recordKey } from './store.js';

/** @typedef {import('./store.js').Store} Store */
/** @typedef {import('./store.js').ChunkRecord} ChunkRecord */

export const DATABASE = 'pocketvl';
export const VERSION = 2;

/** Errors of a Blob whose file is gone: evicted or damaged. The chunk is fetched again. */
const LOST = ['NotFoundError', 'NotReadableError'];

/**
 * Errors of IndexedDB as ours.
 * @param {unknown} thrown
 * @returns {PocketVLError}
 */
export function storageError(thrown) {
  if (thrown instanceof PocketVLError) return thrown;
  const error = /** @type {{name?: string, message?: string}} */ (thrown ?? {});
  if (error.name === 'QuotaExceededError') {
    return new PocketVLError('QUOTA', 'The browser gives this site no more storage.', {
      cause: thrown,
    });
  }
  return new PocketVLError(
    'STORAGE',
    `The browser's storage failed: ${error.message || error.name || thrown}.`,
    {
      cause: thrown,
    },
  );
}

/**
 * Opens the database and brings older ones up to date.
 * @param {string} name
 * @param {() => void} closed called when another tab wants to upgrade or the browser closes it
 */
function open(name, closed) {
  return openDB(name, VERSION, {
    async upgrade(db, from, _to, tx) {
      if (from < 1) {
        db.createObjectStore('models', { keyPath: 'key' });
        db.createObjectStore('chunks');
        db.createObjectStore('index');
      }
      if (from === 1) {
        // Version 1 kept {size, sha} in the records and no times on models.
        for (
          let cursor = await tx.objectStore('index').openCursor();
          cursor;
          cursor = await cursor.continue()
        ) {
          const { size, sha, bytes, sha256 } = cursor.value;
          await cursor.update({ bytes: bytes ?? size, sha256: sha256 ?? sha });
        }
        for (
          let cursor = await tx.objectStore('models').openCursor();
          cursor;
          cursor = await cursor.continue()
        ) {
          const now = Date.now();
          await cursor.update({ created: now, used: now, complete: false, ...cursor.value });
        }
      }
    },
    blocking() {
      closed();
    },
    terminated: closed,
  });
}

/**
 * False in WebKit's private sessions, which refuse Blobs.
 * @param {import('../vendor/idb.js').IDBPDatabase} db
 */
async function takesBlobs(db) {
  if (typeof Blob !== 'function') return false;
  try {
    const tx = db.transaction('chunks', 'readwrite');
    tx.store.put(new Blob([new Uint8Array(1)]), ['', 0, 0]).catch(() => {});
    await tx.done;
    await db.delete('chunks', ['', 0, 0]);
    return true;
  } catch {
    return false;
  }
}

/**
 * @param {string} [name]
 * @returns {Promise<Store>}
 */
export async function idbStore(name = DATABASE) {
  /** @type {import('../vendor/idb.js').IDBPDatabase | null} */
  let db = null;
  const connect = async () => {
    if (db) return db;
    const opened = await open(name, () => {
      db?.close();
      db = null;
    });
    db = opened;
    return opened;
  };
  /**
   * @template T
   * @param {(db: import('../vendor/idb.js').IDBPDatabase) => Promise<T>} work
   */
  const use = async (work) => {
    try {
      return await work(await connect());
    } catch (error) {
      throw storageError(error);
    }
  };
  const blobs = await use(takesBlobs);
  const range = (/** @type {string} */ key) => IDBKeyRange.bound([key], [key, []]);
  return {
    kind: 'indexeddb',
    models: () => use((d) => d.getAll('models')),
    model: (key) => use((d) => d.get('models', key)),
    putModel: (record) =>
      use(async (d) => {
        const tx = d.transaction('models', 'readwrite', { durability: 'relaxed' });
        tx.store.put(record).catch(() => {});
        await tx.done;
      }),
    records: (key) =>
      use(async (d) => {
        const tx = d.transaction('index');
        const [keys, values] = await Promise.all([
          tx.store.getAllKeys(range(key)),
          tx.store.getAll(range(key)),
        ]);
        return new Map(
          keys.map((at, i) => [
            recordKey(/** @type {any} */ (at)),
            /** @type {ChunkRecord} */ (values[i]),
          ]),
        );
      }),
    putChunk(at, bytes, marks) {
      // The Blob copies here and now: the caller may reuse its buffer.
      const value = blobs ? new Blob([bytes]) : bytes.slice().buffer;
      return use(async (d) => {
        const tx = d.transaction(['chunks', 'index'], 'readwrite', { durability: 'relaxed' });
        // A failed put aborts the transaction: its own rejection says nothing more than tx.done.
        tx.objectStore('chunks')
          .put(value, at)
          .catch(() => {});
        tx.objectStore('index')
          .put({ bytes: bytes.length, ...marks }, at)
          .catch(() => {});
        await tx.done;
      });
    },
    async openChunk(at, bytes) {
      /** @type {Blob | ArrayBuffer | undefined} */
      const value = await use((d) => d.get('chunks', at)).catch((error) => {
        if (LOST.includes(/** @type {any} */ (error.cause)?.name)) return undefined;
        throw error;
      });
      if (!value) return null;
      if (value instanceof Blob) return value.size === bytes ? readBlob(value) : null;
      if (value.byteLength !== bytes) return null;
      return async (take) => {
        take(new Uint8Array(value));
        return bytes;
      };
    },
    deleteChunk: (at) =>
      use(async (d) => {
        const tx = d.transaction(['chunks', 'index'], 'readwrite');
        await Promise.all([
          tx.objectStore('chunks').delete(at),
          tx.objectStore('index').delete(at),
          tx.done,
        ]);
      }),
    deleteModel: (key) =>
      use(async (d) => {
        const tx = d.transaction(['chunks', 'index', 'models'], 'readwrite');
        await Promise.all([
          tx.objectStore('chunks').delete(range(key)),
          tx.objectStore('index').delete(range(key)),
          tx.objectStore('models').delete(key),
          tx.done,
        ]);
      }),
    close() {
      db?.close();
      db = null;
    },
  };
}

export { deleteDB };
