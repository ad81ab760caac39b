// The store in the origin private file system: faster than IndexedDB, and not everywhere (no WebKit, no private windows of
// Firefox), so a choice beside it. A folder for each model; a chunk is a file whose name is its record, which it gets
// when it is whole: name and bytes appear together.
import { readBlob } from './blobs.js';
import { PocketVLError } from './errors.js';
import { sha256 } from './manifest.js';
import { recordKey } from './store.js';
import { storageError } from './store_idb.js';

/** @typedef {import('./store.js').Store} Store */
/** @typedef {import('./store.js').ChunkRecord} ChunkRecord */

const FOLDER = 'pocketvl';
const MODEL = 'model.json';
const PIECE = 1048576;

/** @param {number} f @param {number} c @param {ChunkRecord} record */
const nameOf = (f, c, { bytes, sha256: hash, sample }) =>
  `${f}-${c}-${bytes}-${hash}-${sample === undefined ? '' : sample >>> 0}`;

/**
 * @param {string} name
 * @returns {[string, ChunkRecord] | null}
 */
function recordOf(name) {
  const match = /^(\d+)-(\d+)-(\d+)-([0-9a-f]{64})-(\d*)$/.exec(name);
  if (!match) return null;
  const [, f, c, bytes, hash, sample] = match;
  const record = { bytes: Number(bytes), sha256: hash };
  return [`${f}/${c}`, sample ? { ...record, sample: Number(sample) | 0 } : record];
}

/** Resolves to undefined where there is no such file or folder. @template T @param {Promise<T>} work */
const orNothing = (work) =>
  work.catch((error) => {
    if (error.name === 'NotFoundError') return undefined;
    throw error;
  });

/**
 * Whole, under its last name, or not at all.
 * @param {FileSystemDirectoryHandle} folder
 * @param {string} name
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
async function writeFile(folder, name, bytes) {
  const part = `${name.slice(0, 40)}.part`;
  const file = /** @type {any} */ (await folder.getFileHandle(part, { create: true }));
  if (file.createSyncAccessHandle) {
    const access = await file.createSyncAccessHandle();
    try {
      access.truncate(0);
      // Firefox writes less and says nothing where the space ends.
      if (access.write(bytes, { at: 0 }) !== bytes.length)
        throw new DOMException('There is no more space.', 'QuotaExceededError');
      access.flush();
    } finally {
      access.close();
    }
  } else {
    const writable = await file.createWritable();
    await writable.write(bytes);
    await writable.close();
  }
  await orNothing(folder.removeEntry(name));
  await file.move(name);
}

/** Whether this browser has it. */
export const hasOpfs = () =>
  typeof globalThis.navigator?.storage?.getDirectory === 'function' &&
  typeof (/** @type {any} */ (globalThis.FileSystemFileHandle?.prototype)?.move) === 'function';

/**
 * @param {string} [name]
 * @returns {Promise<Store>}
 */
export async function opfsStore(name = FOLDER) {
  /** @template T @param {() => Promise<T>} work @returns {Promise<T>} */
  const guarded = async (work) => {
    try {
      return await work();
    } catch (error) {
      throw storageError(error);
    }
  };
  if (!hasOpfs())
    throw new PocketVLError('STORAGE', 'This browser has no private file system for pages.');
  const base = await guarded(async () =>
    (await navigator.storage.getDirectory()).getDirectoryHandle(name, { create: true }),
  );
  /** File names by `file/chunk`, as last seen. @type {Map<string, Map<string, string>>} */
  const seen = new Map();
  /** @type {Set<{close: () => void}>} */
  const open = new Set();
  const folderName = async (/** @type {string} */ key) =>
    (await sha256(new TextEncoder().encode(key))).slice(0, 32);
  const folder = async (/** @type {string} */ key, create = false) =>
    orNothing(base.getDirectoryHandle(await folderName(key), { create }));
  /** Folders of models that are being read. @type {Map<string, FileSystemDirectoryHandle>} */
  const reading = new Map();
  /** @param {FileSystemDirectoryHandle} at @returns {Promise<import('./store.js').ModelRecord | undefined>} */
  const modelIn = async (at) => {
    const file = await orNothing(at.getFileHandle(MODEL));
    return file && JSON.parse(await (await file.getFile()).text());
  };
  /** @param {string} key @returns {Promise<Map<string, ChunkRecord>>} */
  const records = async (key) => {
    /** @type {Map<string, ChunkRecord>} */
    const found = new Map();
    const names = new Map();
    const at = await folder(key);
    if (at) reading.set(key, at);
    for await (const file of at ? /** @type {any} */ (at).keys() : []) {
      const record = recordOf(file);
      if (!record) continue;
      found.set(...record);
      names.set(record[0], file);
    }
    seen.set(key, names);
    return found;
  };
  /** @param {import('./store.js').ChunkKey} at */
  const fileOf = async (at) => {
    if (!seen.has(at[0])) await records(at[0]);
    return seen.get(at[0])?.get(recordKey(at));
  };
  /** @param {any} handle @param {number} bytes @returns {Promise<import('./store.js').ChunkReader | null>} */
  const reader = async (handle, bytes) => {
    // In a page, and where another tab reads this file in Firefox: as a Blob.
    const access = await handle.createSyncAccessHandle?.({ mode: 'read-only' }).catch(() => null);
    if (!access) {
      const file = await handle.getFile();
      return file.size === bytes ? readBlob(file) : null;
    }
    const close = () => {
      open.delete(access);
      access.close();
    };
    open.add(access);
    if (access.getSize() !== bytes) return (close(), null);
    return async (take, room) => {
      const own = room ? null : new Uint8Array(Math.min(PIECE, bytes));
      let at = 0;
      try {
        while (at < bytes) {
          const all = own ?? /** @type {() => Uint8Array} */ (room)();
          const into = all.subarray(0, bytes - at);
          const n = access.read(into, { at });
          if (!n) break;
          take(into.subarray(0, n));
          at += n;
        }
      } finally {
        close();
      }
      return at;
    };
  };
  return {
    kind: 'opfs',
    models: () =>
      guarded(async () => {
        const found = [];
        for await (const at of /** @type {any} */ (base).values()) {
          const record = at.kind === 'directory' ? await modelIn(at) : undefined;
          if (record) found.push(record);
        }
        return found;
      }),
    model: (key) =>
      guarded(async () => {
        const at = await folder(key);
        return at && modelIn(at);
      }),
    putModel: (record) =>
      guarded(async () => {
        const at = /** @type {FileSystemDirectoryHandle} */ (await folder(record.key, true));
        await writeFile(at, MODEL, new TextEncoder().encode(JSON.stringify(record)));
      }),
    records: (key) => guarded(() => records(key)),
    putChunk(at, bytes, marks) {
      const copy = bytes.slice(); // the caller may reuse its buffer
      return guarded(async () => {
        const [key, f, c] = at;
        const to = /** @type {FileSystemDirectoryHandle} */ (await folder(key, true));
        const before = await fileOf(at);
        const file = nameOf(f, c, { bytes: copy.length, ...marks });
        await writeFile(to, file, copy);
        if (before && before !== file) await orNothing(to.removeEntry(before));
        seen.get(key)?.set(recordKey(at), file);
      });
    },
    openChunk: (at, bytes) =>
      guarded(async () => {
        const file = await fileOf(at);
        const from = file && (reading.get(at[0]) ?? (await folder(at[0])));
        const handle = from && (await orNothing(from.getFileHandle(file)));
        return handle ? reader(handle, bytes) : null;
      }),
    deleteChunk: (at) =>
      guarded(async () => {
        const file = await fileOf(at);
        seen.get(at[0])?.delete(recordKey(at));
        if (file) await orNothing((await folder(at[0]))?.removeEntry(file) ?? Promise.resolve());
      }),
    deleteModel: (key) =>
      guarded(async () => {
        seen.delete(key);
        reading.delete(key);
        await orNothing(base.removeEntry(await folderName(key), { recursive: true }));
      }),
    close() {
      for (const access of open) access.close();
      open.clear();
    },
  };
}
