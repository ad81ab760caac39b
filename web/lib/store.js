// Where chunks of models are kept. Three stores have this interface: IndexedDB (store_idb.js), the private file
// system (store_opfs.js) and memory.

/**
 * What tells a chunk's bytes: `sample` is `sampled` of all of them; chunks of older versions have none.
 * @typedef {{sha256: string, sample?: number}} Marks
 */

/**
 * A chunk is addressed by model key, file and index; its record says what is stored.
 * @typedef {{bytes: number} & Marks} ChunkRecord
 */

/**
 * What is known about a stored model. Written once before the first chunk (complete: false) and once after the last.
 * @typedef {object} ModelRecord
 * @property {string} key the address that it was loaded by
 * @property {import('./manifest.js').Manifest} manifest hashes are empty strings where the source gave none
 * @property {boolean} complete all chunks are stored, with their hashes in the manifest
 * @property {number} created ms since 1970
 * @property {number} used
 */

/** @typedef {[string, number, number]} ChunkKey model key, file, chunk */

/**
 * @typedef {object} Store
 * @property {'indexeddb' | 'opfs' | 'memory'} kind
 * @property {() => Promise<ModelRecord[]>} models
 * @property {(key: string) => Promise<ModelRecord | undefined>} model
 * @property {(record: ModelRecord) => Promise<void>} putModel
 * @property {(key: string) => Promise<Map<string, ChunkRecord>>} records by `file/chunk`
 * @property {(at: ChunkKey, bytes: Uint8Array<ArrayBuffer>, marks: Marks) => Promise<void>} putChunk resolves when
 *   it is stored; `bytes` is a buffer of its own that may be reused once the call has returned its promise
 * @property {(at: ChunkKey, bytes: number) => Promise<ChunkReader | null>} openChunk null: missing or of another size.
 *   May be called ahead: where a browser reads in the background, it begins
 * @property {(at: ChunkKey) => Promise<void>} deleteChunk
 * @property {(key: string) => Promise<void>} deleteModel
 * @property {() => void} close
 */

/**
 * Gives a chunk's bytes in pieces, each valid only during the call that hands it over. A store that can read into memory
 * of another's reads into `room()`, once for each piece.
 * @typedef {(take: (piece: Uint8Array) => void, room?: () => Uint8Array) => Promise<number>} ChunkReader resolves to how
 *   many bytes came: fewer than the chunk has where the browser lost it
 */

/**
 * A chunk in one piece; null if it is not there as it should be.
 * @param {Store} store
 * @param {ChunkKey} at
 * @param {number} bytes
 * @param {Uint8Array<ArrayBuffer>} [into] at least as large
 * @returns {Promise<Uint8Array<ArrayBuffer> | null>}
 */
export async function wholeChunk(store, at, bytes, into = new Uint8Array(bytes)) {
  const whole = into.subarray(0, bytes);
  let fill = 0;
  const read = await store.openChunk(at, bytes);
  await read?.((piece) => {
    whole.set(piece, fill);
    fill += piece.length;
  });
  return fill === bytes ? whole : null;
}

/** @param {ChunkKey} at */
export const recordKey = (at) => `${at[1]}/${at[2]}`;

/**
 * Keeps everything as long as the worker lives: where the browser has no storage, and for tests.
 * @returns {Store}
 */
export function memoryStore() {
  /** @type {Map<string, ModelRecord>} */
  const models = new Map();
  /** @type {Map<string, Map<string, {record: ChunkRecord, bytes: Uint8Array<ArrayBuffer>}>>} */
  const chunks = new Map();
  return {
    kind: 'memory',
    models: async () => [...models.values()].map((record) => structuredClone(record)),
    model: async (key) => structuredClone(models.get(key)),
    putModel: async (record) => void models.set(record.key, structuredClone(record)),
    records: async (key) =>
      new Map([...(chunks.get(key) ?? [])].map(([at, { record }]) => [at, { ...record }])),
    putChunk(at, bytes, marks) {
      const copy = bytes.slice();
      const of = chunks.get(at[0]) ?? new Map();
      chunks.set(at[0], of);
      of.set(recordKey(at), { record: { bytes: copy.length, ...marks }, bytes: copy });
      return Promise.resolve();
    },
    async openChunk(at, bytes) {
      const found = chunks.get(at[0])?.get(recordKey(at));
      if (!found || found.bytes.length !== bytes) return null;
      return async (take) => {
        take(found.bytes);
        return bytes;
      };
    },
    deleteChunk: async (at) => void chunks.get(at[0])?.delete(recordKey(at)),
    async deleteModel(key) {
      models.delete(key);
      chunks.delete(key);
    },
    close() {},
  };
}
