// Weights in one pass: network or disk or store -> SHA-256 -> store -> the engine's memory, a chunk at a time.
// No file is ever whole in JavaScript.
import { downloadFile, fetchSize, fetchText } from './download.js';
import { PocketVLError, aborted, checkSignal, sleep } from './errors.js';
import { CHUNK, checkManifest, fileName, isGguf, sha256, splitUrls } from './manifest.js';
import { recordKey } from './store.js';

/** @typedef {import('./manifest.js').Manifest} Manifest */
/** @typedef {import('./manifest.js').ModelFile} ModelFile */
/** @typedef {import('./store.js').Store} Store */
/** @typedef {import('./store.js').ModelRecord} ModelRecord */

const IN_FLIGHT = 3; // transactions being written while the next chunk arrives
const MOST_MANIFEST = 16 * 1048576;
const FIRST_HEAD = 24 * 1048576; // metadata of the largest vocabularies takes some 10 MB
const PART_HEAD = 1048576;
const REFETCH = 3; // times that a chunk with a wrong hash is asked for

/** @typedef {{url: string} | {urls: string[]} | {blobs: {name: string, blob: Blob}[]}} Source */

/**
 * Where bytes go. `start` is called before the first byte, and again if everything has to begin anew.
 * @typedef {object} Sink
 * @property {(manifest: Manifest, stored: boolean) => Promise<void>} start `stored`: all of it is in the store
 * @property {(name: string, bytes: number) => void} beginFile
 * @property {(bytes: Uint8Array) => void} push
 */

/**
 * @typedef {object} LoadProgress
 * @property {'manifest' | 'waiting' | 'network' | 'store' | 'disk' | 'retry' | 'start'} stage what is being done now
 * @property {number} loaded bytes in the engine
 * @property {number} total
 * @property {number} fromNetwork bytes of those that came over the network
 * @property {number} fromStore
 * @property {number} bytesPerSecond
 * @property {number} secondsLeft
 * @property {string} file
 * @property {number} fileLoaded
 * @property {number} fileTotal
 * @property {string} [reason] of a retry or of waiting
 */

/**
 * Something that a person should know though the load goes on.
 * @typedef {object} Notice
 * @property {import('./errors.js').ErrorCode} code
 * @property {string} message
 * @property {Record<string, unknown>} [details]
 */

/**
 * @typedef {object} Context
 * @property {Store | null} store
 * @property {Sink} sink
 * @property {AbortSignal} signal
 * @property {(progress: LoadProgress) => void} onProgress
 * @property {(notice: Notice) => void} onNotice
 * @property {boolean} [refresh] ask the host for the manifest though the model is stored
 * @property {boolean} [keep] store files from disk
 * @property {import('./download.js').Patience} [patience]
 */

/** The name under which a source is stored. */
export function sourceKey(/** @type {Source} */ source) {
  if ('url' in source) return source.url;
  if ('urls' in source) return source.urls.join('\n');
  return `disk:${source.blobs.map(({ name, blob }) => `${name}:${blob.size}`).join('\n')}`;
}

/** Counts bytes and tells them ten times a second. */
class Meter {
  /** @param {Context['onProgress']} tell */
  constructor(tell) {
    this.tell = tell;
    this.begun = performance.now();
    this.told = 0;
    /** @type {LoadProgress} */
    this.state = {
      stage: 'start',
      loaded: 0,
      total: 0,
      fromNetwork: 0,
      fromStore: 0,
      bytesPerSecond: 0,
      secondsLeft: 0,
      file: '',
      fileLoaded: 0,
      fileTotal: 0,
    };
  }

  /** @param {Partial<LoadProgress>} change */
  set(change) {
    const now = performance.now();
    Object.assign(this.state, change);
    if (change.stage === undefined && now - this.told < 100) return;
    this.told = now;
    const s = this.state;
    const seconds = (now - this.begun) / 1000;
    s.bytesPerSecond = seconds > 0 ? s.loaded / seconds : 0;
    s.secondsLeft = s.bytesPerSecond > 0 ? (s.total - s.loaded) / s.bytesPerSecond : 0;
    this.tell({ ...s });
  }

  /**
   * @param {number} bytes
   * @param {'fromNetwork' | 'fromStore' | 'fromDisk'} from
   */
  count(bytes, from) {
    const s = this.state;
    s.loaded += bytes;
    s.fileLoaded += bytes;
    if (from !== 'fromDisk') s[from] += bytes;
    this.set({});
  }

  /** @param {number} total */
  restart(total) {
    this.begun = performance.now();
    this.set({ stage: 'start', loaded: 0, total, fromNetwork: 0, fromStore: 0, fileLoaded: 0 });
  }
}

/** A file without hashes, cut into chunks. */
function uncheckedFile(
  /** @type {string} */ name,
  /** @type {number} */ bytes,
  /** @type {string} */ url,
) {
  const chunks = [];
  for (let at = 0; at < bytes; at += CHUNK)
    chunks.push({ bytes: Math.min(CHUNK, bytes - at), sha256: '' });
  return /** @type {ModelFile} */ ({ name, bytes, chunks, url });
}

const totalBytes = (/** @type {Manifest} */ manifest) =>
  manifest.files.reduce((sum, f) => sum + f.bytes, 0);

/**
 * The manifest from the network: fetched, or made from the sizes of bare GGUF files.
 * @param {Source} source
 * @param {Context} context
 * @returns {Promise<Manifest>}
 */
async function manifestOf(source, context) {
  if ('blobs' in source) {
    const files = source.blobs.map(({ name, blob }) => uncheckedFile(name, blob.size, ''));
    return { format: 1, name: files[0]?.name ?? '', files };
  }
  const given = 'url' in source ? [source.url] : source.urls;
  const urls = given.flatMap(splitUrls);
  if (given.length === 1 && !isGguf(given[0])) {
    const text = await fetchText(given[0], context, MOST_MANIFEST);
    let json;
    try {
      json = JSON.parse(text);
    } catch (error) {
      throw new PocketVLError(
        'FORMAT',
        `${given[0]} is not a manifest: it is not JSON. Is the address right?`,
        {
          cause: error,
        },
      );
    }
    const manifest = checkManifest(json, given[0]);
    const files = manifest.files.map((file) => {
      const url = new URL(file.url ?? file.name, given[0]);
      // Whoever loads a manifest has chosen its host, and no other one.
      if (url.origin !== new URL(given[0]).origin) {
        throw new PocketVLError(
          'FORMAT',
          `The manifest ${given[0]} names a file on another host (${url.origin}), which is not fetched; files have to lie beside their manifest.`,
        );
      }
      return { ...file, url: url.href };
    });
    return { ...manifest, files };
  }
  const files = [];
  for (const url of urls) {
    const { bytes, mark } = await fetchSize(url, context);
    files.push({ ...uncheckedFile(fileName(url), bytes, url), mark });
  }
  return { format: 1, name: fileName(urls[0]).replace(/\.gguf$/i, ''), files };
}

/**
 * The beginnings of a model's files, which hold metadata and the list of tensors. Later parts of a split file have only
 * the list.
 * @param {Source} source
 * @param {Pick<Context, 'signal' | 'patience'>} context
 * @param {Manifest} [known] where it has been fetched already
 * @returns {Promise<{manifest: Manifest, heads: Uint8Array[]}>}
 */
export async function readHeads(source, context, known) {
  const manifest = known ?? (await manifestOf(source, /** @type {Context} */ (context)));
  const heads = [];
  for (const [i, file] of manifest.files.entries()) {
    const later = /-(?!00001-)\d{5}-of-\d{5}\.gguf$/i.test(file.name);
    const bytes = Math.min(later ? PART_HEAD : FIRST_HEAD, file.bytes);
    if ('blobs' in source) {
      heads.push(new Uint8Array(await source.blobs[i].blob.slice(0, bytes).arrayBuffer()));
      continue;
    }
    const head = new Uint8Array(bytes);
    let at = 0;
    await downloadFile(file, { start: 0, end: bytes }, context, async (piece) => {
      head.set(piece, at);
      at += piece.length;
    });
    heads.push(head);
  }
  return { manifest, heads };
}

/**
 * Brings a model into the sink.
 * @param {Source} source
 * @param {Context} context
 * @returns {Promise<{manifest: Manifest, key: string, fromNetwork: number, fromStore: number, ms: number, stored: boolean}>}
 */
export async function streamModel(source, context) {
  const meter = new Meter(context.onProgress);
  const key = sourceKey(source);
  const begun = performance.now();
  const { store } = context;
  const run = async () => {
    const record = store ? await readRecord(context, key) : undefined;
    const useStored = record?.complete && !context.refresh;
    let manifest;
    if (useStored) manifest = record.manifest;
    else {
      meter.set({ stage: 'manifest' });
      try {
        manifest = await manifestOf(source, context);
      } catch (error) {
        // Asking for news failed: what is stored is as good as it was.
        if (!record?.complete || !(error instanceof PocketVLError) || error.code !== 'NETWORK')
          throw error;
        manifest = record.manifest;
      }
    }
    return new Transfer(source, key, manifest, record, context, meter).run();
  };
  /** @returns {Promise<Awaited<ReturnType<Transfer['run']>>>} */
  const twice = async () => {
    try {
      return await run();
    } catch (error) {
      if (!(error instanceof PocketVLError) || !store) throw error;
      if (error.details.changed) {
        // Replaced on the host while it was being downloaded: the new manifest decides which chunks are still good.
        context.onNotice({
          code: 'INTEGRITY',
          message: 'The model changed on its host; what is still valid is kept.',
        });
        return run();
      }
      const doubtful =
        ['FORMAT', 'MODEL', 'INTEGRITY'].includes(error.code) && meter.state.fromStore > 0;
      if (!doubtful || !(await verifyModel(store, key, context.signal)).length) throw error;
      context.onNotice({
        code: 'INTEGRITY',
        message: 'A stored part of the model was damaged; it is fetched again.',
      });
      return run();
    }
  };
  const complete = store ? (await readRecord(context, key))?.complete : false;
  const locks = globalThis.navigator?.locks;
  const result =
    complete || !store || !locks || 'blobs' in source
      ? await twice()
      : await underLock(locks, key, context, meter, twice);
  return { ...result, key, ms: performance.now() - begun };
}

/**
 * One download at a time for all tabs; the others wait, and go on from the records if it dies.
 * @template T
 * @param {LockManager} locks
 * @param {string} key
 * @param {Context} context
 * @param {Meter} meter
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
async function underLock(locks, key, context, meter, work) {
  const name = `pocketvl:${key}`;
  /** @type {{value: T} | null} */
  const first = await locks.request(name, { ifAvailable: true }, async (lock) =>
    lock ? { value: await work() } : null,
  );
  if (first) return first.value;
  const watch = new AbortController();
  const watching = (async () => {
    while (!watch.signal.aborted) {
      const record = await context.store?.model(key);
      const records = (await context.store?.records(key)) ?? new Map();
      let loaded = 0;
      for (const { bytes } of records.values()) loaded += bytes;
      if (watch.signal.aborted) break;
      meter.set({
        stage: 'waiting',
        loaded,
        total: record ? totalBytes(record.manifest) : 0,
        reason: 'another tab',
      });
      await sleep(500, watch.signal);
    }
  })().catch(() => {});
  try {
    return await locks.request(name, { signal: context.signal }, async () => {
      watch.abort();
      await watching;
      return work();
    });
  } catch (error) {
    if (context.signal.aborted) throw aborted();
    throw error;
  } finally {
    watch.abort();
  }
}

/**
 * @param {Context} context
 * @param {string} key
 */
async function readRecord(context, key) {
  try {
    return await context.store?.model(key);
  } catch (error) {
    context.onNotice({ code: 'STORAGE', message: /** @type {Error} */ (error).message });
    return undefined;
  }
}

/** One way of a model into the sink. */
class Transfer {
  /**
   * @param {Source} source
   * @param {string} key
   * @param {Manifest} manifest
   * @param {ModelRecord | undefined} record
   * @param {Context} context
   * @param {Meter} meter
   */
  constructor(source, key, manifest, record, context, meter) {
    this.source = source;
    this.key = key;
    this.manifest = manifest;
    this.record = record;
    this.context = context;
    this.meter = meter;
    this.disk = 'blobs' in source;
    this.store = this.disk && !context.keep ? null : context.store;
    /** @type {Map<string, import('./store.js').ChunkRecord>} */
    this.records = new Map();
    /** @type {Promise<void>[]} */
    this.writes = [];
    /** @type {Error | null} */
    this.writeError = null;
    this.unstored = 0;
    /** Hashes as they were found. @type {string[][]} */
    this.hashes = manifest.files.map((file) => file.chunks.map((chunk) => chunk.sha256));
  }

  async run() {
    const { manifest, context, meter, key } = this;
    const created = this.record?.created ?? Date.now();
    // The sink may refuse a model; then nothing of it is noted in the store.
    await context.sink.start(manifest, Boolean(this.record?.complete));
    if (this.store) await this.prepareStore(created);
    meter.restart(totalBytes(manifest));
    for (let f = 0; f < manifest.files.length; f++) await this.file(f);
    await Promise.all(this.writes);
    let stored = false;
    if (this.store && !this.writeError) {
      const files = manifest.files.map((file, f) => ({
        ...file,
        chunks: file.chunks.map((chunk, c) => ({ ...chunk, sha256: this.hashes[f][c] })),
      }));
      stored = await this.store
        .putModel({
          key,
          manifest: { ...manifest, files },
          complete: true,
          created,
          used: Date.now(),
        })
        .then(() => true)
        .catch(() => false);
    } else if (this.writeError) this.tellUnstored();
    const { fromNetwork, fromStore } = meter.state;
    return { manifest, fromNetwork, fromStore, stored };
  }

  /**
   * Drops what is stored of another version and notes the manifest, so that a broken download is found again.
   * @param {number} created
   */
  async prepareStore(created) {
    const { store, key, manifest, context } = this;
    if (!store) return;
    try {
      this.records = await store.records(key);
      const old = this.record?.manifest;
      const replaced = manifest.files.some((file, f) => {
        const before = old?.files[f];
        const unchecked = file.chunks.some((chunk) => !chunk.sha256);
        const mark = (/** @type {any} */ x) => x?.mark ?? '';
        return unchecked && before && (before.bytes !== file.bytes || mark(before) !== mark(file));
      });
      let stale = 0;
      for (const [at, { bytes, sha256: hash }] of this.records) {
        const [f, c] = at.split('/').map(Number);
        const chunk = manifest.files[f]?.chunks[c];
        if (!replaced && chunk && chunk.bytes === bytes && (!chunk.sha256 || chunk.sha256 === hash))
          continue;
        this.records.delete(at);
        stale += bytes;
        await store.deleteChunk([key, f, c]);
      }
      if (stale) {
        context.onNotice({
          code: 'INTEGRITY',
          message: `The model has a new version; ${(stale / 1e6).toFixed(1)} MB of the old one were dropped.`,
          details: { bytes: stale },
        });
      }
      if (!this.record?.complete || context.refresh) {
        await store.putModel({ key, manifest, complete: false, created, used: Date.now() });
      }
    } catch (error) {
      this.noteWriteError(error);
    }
  }

  /** @param {number} f */
  async file(f) {
    const { manifest, context, meter, key, store } = this;
    const file = manifest.files[f];
    meter.set({ file: file.name, fileLoaded: 0, fileTotal: file.bytes });
    context.sink.beginFile(file.name, file.bytes);
    let offset = 0;
    for (let c = 0; c < file.chunks.length;) {
      checkSignal(context.signal);
      const chunk = file.chunks[c];
      const known = this.records.get(recordKey([key, f, c]));
      const bytes = known && store ? await store.getChunk([key, f, c], chunk.bytes) : null;
      if (bytes) {
        if (meter.state.stage !== 'store') meter.set({ stage: 'store' });
        this.hashes[f][c] = known?.sha256 ?? '';
        context.sink.push(bytes);
        meter.count(bytes.length, 'fromStore');
        offset += chunk.bytes;
        c++;
        continue;
      }
      if (known) {
        // The record is there and the data is not: evicted or damaged.
        context.onNotice({
          code: 'INTEGRITY',
          message: 'A stored part of the model was lost; it is fetched again.',
        });
        this.records.delete(recordKey([key, f, c]));
      }
      let last = c + 1;
      while (last < file.chunks.length && !this.records.has(recordKey([key, f, last]))) last++;
      await (this.disk ? this.fromDisk(f, c, last, offset) : this.fromNetwork(f, c, last, offset));
      for (; c < last; c++) offset += file.chunks[c].bytes;
    }
  }

  /**
   * Chunks first..last of a file from the person's own disk.
   * @param {number} f
   * @param {number} first
   * @param {number} last
   * @param {number} offset
   */
  async fromDisk(f, first, last, offset) {
    const { context, meter } = this;
    if (!('blobs' in this.source)) {
      throw new PocketVLError(
        'STORAGE',
        'A part of this model is lost; load it from its files again.',
      );
    }
    const { blob } = this.source.blobs[f];
    meter.set({ stage: 'disk' });
    for (let c = first; c < last; c++) {
      checkSignal(context.signal);
      const { bytes: size } = this.manifest.files[f].chunks[c];
      let bytes;
      try {
        const part = blob.slice(offset, offset + size);
        bytes = new Uint8Array(
          typeof FileReaderSync === 'function'
            ? new FileReaderSync().readAsArrayBuffer(part)
            : await part.arrayBuffer(),
        );
      } catch (error) {
        const { name } = this.manifest.files[f];
        throw new PocketVLError(
          'IO',
          `${name} cannot be read; it was moved or changed. Pick it again.`,
          { cause: error },
        );
      }
      if (this.store) await this.keep(f, c, bytes, await sha256(bytes));
      context.sink.push(bytes);
      meter.count(bytes.length, 'fromDisk');
      offset += size;
    }
  }

  /**
   * Chunks first..last of a file in one request, or as many as broken connections need.
   * @param {number} f
   * @param {number} first
   * @param {number} last
   * @param {number} offset of chunk `first` in the file
   */
  async fromNetwork(f, first, last, offset) {
    const { context, meter } = this;
    const file = this.manifest.files[f];
    const url = file.url ?? '';
    if (!url)
      throw new PocketVLError(
        'STORAGE',
        'A part of this model is lost; load it from its files again.',
      );
    const end = offset + file.chunks.slice(first, last).reduce((sum, { bytes }) => sum + bytes, 0);
    let c = first;
    let start = offset;
    let wrong = 0;
    meter.set({ stage: 'network' });
    const net = {
      ...context,
      onWait: (/** @type {string} */ reason) => meter.set({ stage: 'retry', reason }),
    };
    while (c < last) {
      let buffer = new Uint8Array(file.chunks[c].bytes);
      let fill = 0;
      try {
        await downloadFile(file, { start, end }, net, async (piece) => {
          if (meter.state.stage !== 'network') meter.set({ stage: 'network' });
          for (let o = 0; o < piece.length;) {
            const n = Math.min(buffer.length - fill, piece.length - o);
            buffer.set(piece.subarray(o, o + n), fill);
            fill += n;
            o += n;
            if (fill < buffer.length) continue;
            await this.arrived(f, c, buffer);
            start += buffer.length;
            wrong = 0;
            c++;
            fill = 0;
            // One buffer for all chunks: the store has made its own copy.
            if (c < last && file.chunks[c].bytes !== buffer.length)
              buffer = new Uint8Array(file.chunks[c].bytes);
          }
        });
      } catch (error) {
        if (!(error instanceof WrongHash)) throw error;
        wrong++;
        if (wrong >= REFETCH) throw await this.integrity(file, c, url);
        meter.set({ stage: 'retry', reason: 'a part came with wrong bytes' });
        await sleep(200 * wrong, context.signal);
      }
    }
  }

  /**
   * A whole chunk from the network.
   * @param {number} f
   * @param {number} c
   * @param {Uint8Array<ArrayBuffer>} bytes
   */
  async arrived(f, c, bytes) {
    const { context, meter } = this;
    const expected = this.manifest.files[f].chunks[c].sha256;
    const hash = expected || this.store ? await sha256(bytes) : '';
    checkSignal(context.signal);
    if (expected && hash !== expected) throw new WrongHash();
    await this.keep(f, c, bytes, hash);
    context.sink.push(bytes);
    meter.count(bytes.length, 'fromNetwork');
  }

  /**
   * Hands a chunk to the store; waits only where too many are on their way.
   * @param {number} f
   * @param {number} c
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @param {string} hash
   */
  async keep(f, c, bytes, hash) {
    this.hashes[f][c] = hash;
    if (!this.store) return;
    if (this.writeError) {
      this.unstored += bytes.length;
      return;
    }
    const size = bytes.length;
    const write = this.store
      .putChunk([this.key, f, c], bytes, hash)
      .catch((error) => {
        this.unstored += size;
        this.noteWriteError(error);
      })
      .finally(() => {
        this.writes.splice(this.writes.indexOf(write), 1);
      });
    this.writes.push(write);
    while (this.writes.length >= IN_FLIGHT) await Promise.race(this.writes);
  }

  /** @param {unknown} error */
  noteWriteError(error) {
    this.writeError ??= /** @type {Error} */ (error);
  }

  /** The load goes on without the store, and says so. */
  tellUnstored() {
    const error = PocketVLError.from(this.writeError, 'STORAGE');
    const missing = this.unstored;
    const mb = `${(missing / 1e6).toFixed(0)} MB`;
    this.context.onNotice({
      code: error.code,
      message:
        error.code === 'QUOTA'
          ? `The browser gives this site no more storage: ${mb} of the model were not stored and will be downloaded again next time. Delete other stored models to make room.`
          : `The model is not stored in this browser and will be downloaded again next time (${error.message})`,
      details: { missing },
    });
  }

  /**
   * The error for a chunk that never came right: replaced on the host, or damaged there.
   * @param {ModelFile} file
   * @param {number} c
   * @param {string} url
   */
  async integrity(file, c, url) {
    let changed = false;
    if ('url' in this.source && !isGguf(this.source.url)) {
      const now = await manifestOf(this.source, this.context).catch(() => null);
      changed = now !== null && JSON.stringify(now.files) !== JSON.stringify(this.manifest.files);
    }
    return new PocketVLError(
      'INTEGRITY',
      `Part ${c + 1} of ${file.name} from ${url} does not match its SHA-256 after ${REFETCH} downloads; the file on the host is damaged or was replaced.`,
      { details: { url, chunk: c, changed } },
    );
  }
}

/** Ends a download whose chunk has another hash than the manifest says. */
class WrongHash extends PocketVLError {
  constructor() {
    super('INTEGRITY', 'A part of the file came with wrong bytes.');
  }
}

/**
 * Reads and hashes all that is stored of a model; what is wrong is deleted, to be fetched again.
 * @param {Store} store
 * @param {string} key
 * @param {AbortSignal} [signal]
 * @param {(done: number, total: number) => void} [onProgress]
 * @returns {Promise<{file: number, chunk: number}[]>} what was wrong
 */
export async function verifyModel(store, key, signal, onProgress) {
  const records = await store.records(key);
  const wrong = [];
  let done = 0;
  for (const [at, record] of records) {
    checkSignal(signal);
    const [file, chunk] = at.split('/').map(Number);
    const bytes = await store.getChunk([key, file, chunk], record.bytes);
    if (!bytes || (await sha256(bytes)) !== record.sha256) {
      await store.deleteChunk([key, file, chunk]);
      wrong.push({ file, chunk });
    }
    onProgress?.(++done, records.size);
  }
  if (wrong.length) {
    const model = await store.model(key);
    if (model) await store.putModel({ ...model, complete: false });
  }
  return wrong;
}
