// Weights in one pass: network or disk or store -> SHA-256 -> store -> the engine's memory, a chunk at a time.
// No file is ever whole in JavaScript.
import { readBlob } from './blobs.js';
import { downloadFile, fetchSize, fetchText } from './download.js';
import { PocketVLError, aborted, checkSignal, sleep } from './errors.js';
import {
  CHUNK,
  checkManifest,
  fileName,
  fileUrl,
  isGguf,
  sampled,
  sha256,
  splitUrls,
} from './manifest.js';
import { recordKey, wholeChunk } from './store.js';

/** @typedef {import('./manifest.js').Manifest} Manifest */
/** @typedef {import('./manifest.js').ModelFile} ModelFile */
/** @typedef {import('./store.js').Store} Store */
/** @typedef {import('./store.js').ModelRecord} ModelRecord */

const IN_FLIGHT = 2; // one chunk is written while the next arrives: a browser that is killed loses no more than it
const AHEAD = 3; // stored chunks that are opened before it is their turn
const MOST_MANIFEST = 16 * 1048576;
const FIRST_HEAD = 24 * 1048576; // metadata of the largest vocabularies takes some 10 MB
const PART_HEAD = 1048576;
const REFETCH = 3; // times that a chunk with a wrong hash is asked for
const WINDOW = 5000; // ms that the rate is taken over

/** @typedef {{url: string} | {urls: string[]} | {blobs: {name: string, blob: Blob}[]}} Source */

/**
 * Where bytes go. `start` is called before the first byte, and again if everything has to begin anew.
 * @typedef {object} Sink
 * @property {(manifest: Manifest, stored: boolean, arriving: (bytes: number) => void) => Promise<Uint8Array[] | void>} start
 *   `stored`: all of it is in the store. Resolves to the beginnings of the files where it had to fetch them, and tells
 *   how much of them is there
 * @property {(name: string, bytes: number) => void} beginFile
 * @property {(bytes: Uint8Array) => void} push
 * @property {() => void} endFile all of the file was pushed
 * @property {() => Uint8Array} [room] where the next bytes may be written before they are pushed: a view that one push ends
 */

/**
 * @typedef {object} LoadProgress
 * @property {'manifest' | 'waiting' | 'network' | 'store' | 'disk' | 'retry' | 'start' | 'pack'} stage what is being done
 *   now: asking for the manifest, waiting for another tab, reading from network, store or disk, waiting before another
 *   try, starting the engine, finishing it when everything is there
 * @property {number} loaded bytes that are here; those of a part that turns out wrong are taken back
 * @property {number} packed bytes of those in the engine
 * @property {number} stored bytes of the model in the store
 * @property {number} total
 * @property {number} fromNetwork bytes in the engine that came over the network
 * @property {number} fromStore
 * @property {number} bytesPerSecond of the last seconds, from where bytes come now
 * @property {number} secondsLeft at that rate; 0 while it is not known
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
    this.told = 0;
    /** Bytes of a part that is not whole yet. */
    this.pending = 0;
    /** What the rate is taken over: times and bytes, oldest first. @type {{at: number, loaded: number}[]} */
    this.marks = [];
    /** @type {LoadProgress} */
    this.state = {
      stage: 'start',
      loaded: 0,
      packed: 0,
      stored: 0,
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
    if (change.stage && change.stage !== this.state.stage) this.marks = []; // bytes come from elsewhere now
    Object.assign(this.state, change);
    if (change.stage === undefined && now - this.told < 100) return;
    this.told = now;
    const s = this.state;
    while (this.marks.length > 1 && now - this.marks[0].at > WINDOW) this.marks.shift();
    this.marks.push({ at: now, loaded: s.loaded });
    const [oldest] = this.marks;
    const seconds = (now - oldest.at) / 1000;
    s.bytesPerSecond = seconds > 0 ? Math.max(0, s.loaded - oldest.loaded) / seconds : 0;
    s.secondsLeft = s.bytesPerSecond > 0 ? (s.total - s.loaded) / s.bytesPerSecond : 0;
    this.tell({ ...s });
  }

  /**
   * So much of the next part has come.
   * @param {number} bytes 0: it begins anew
   */
  arriving(bytes) {
    const s = this.state;
    s.loaded += bytes - this.pending;
    s.fileLoaded += bytes - this.pending;
    this.pending = bytes;
    this.set({});
  }

  /**
   * The engine has taken these.
   * @param {number} bytes
   * @param {'fromNetwork' | 'fromStore' | 'fromDisk'} from
   */
  count(bytes, from) {
    const s = this.state;
    s.packed += bytes;
    s.loaded += bytes - this.pending;
    s.fileLoaded += bytes - this.pending;
    this.pending = 0;
    if (from !== 'fromDisk') s[from] += bytes;
    this.set({});
  }

  /**
   * @param {number} total
   * @param {number} stored
   */
  restart(total, stored) {
    this.pending = 0;
    const none = { loaded: 0, packed: 0, fromNetwork: 0, fromStore: 0, fileLoaded: 0 };
    this.set({ stage: 'start', total, stored, ...none });
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

/** @param {Map<string, import('./store.js').ChunkRecord>} records */
function recordedBytes(records) {
  let sum = 0;
  for (const { bytes } of records.values()) sum += bytes;
  return sum;
}

const totalBytes = (/** @type {Manifest} */ manifest) =>
  manifest.files.reduce((sum, f) => sum + f.bytes, 0);

/**
 * The manifest from the network: fetched, or made from the sizes of bare GGUF files.
 * @param {Source} source
 * @param {Context} context
 * @param {RequestCache} [cache]
 * @returns {Promise<Manifest>}
 */
async function manifestOf(source, context, cache) {
  if ('blobs' in source) {
    const files = source.blobs.map(({ name, blob }) => uncheckedFile(name, blob.size, ''));
    return { format: 1, name: files[0]?.name ?? '', files };
  }
  const given = 'url' in source ? [source.url] : source.urls;
  const urls = given.flatMap(splitUrls);
  if (given.length === 1 && !isGguf(given[0])) {
    const text = await fetchText(given[0], context, MOST_MANIFEST, cache);
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
    const files = manifest.files.map((file) => ({
      ...file,
      url: fileUrl(file, given[0]),
    }));
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
 * @param {(bytes: number) => void} [arriving] told how many bytes are there
 * @returns {Promise<{manifest: Manifest, heads: Uint8Array[]}>}
 */
export async function readHeads(source, context, known, arriving = () => {}) {
  const manifest = known ?? (await manifestOf(source, /** @type {Context} */ (context)));
  const heads = [];
  let sum = 0;
  for (const [i, file] of manifest.files.entries()) {
    // No vocabulary in these, so that their heads are short.
    const short = /-(?!00001-)\d{5}-of-\d{5}\.gguf$|mmproj/i.test(file.name);
    const bytes = Math.min(short ? PART_HEAD : FIRST_HEAD, file.bytes);
    if ('blobs' in source) {
      heads.push(new Uint8Array(await source.blobs[i].blob.slice(0, bytes).arrayBuffer()));
      continue;
    }
    const head = new Uint8Array(bytes);
    let at = 0;
    await downloadFile(file, { start: 0, end: bytes }, context, async (piece) => {
      head.set(piece, at);
      at += piece.length;
      arriving((sum += piece.length));
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
  const run = async (/** @type {RequestCache} */ cache = 'no-cache') => {
    const record = store ? await readRecord(context, key) : undefined;
    const useStored = record?.complete && !context.refresh;
    let manifest;
    if (useStored) manifest = record.manifest;
    else {
      meter.set({ stage: 'manifest' });
      try {
        manifest = await manifestOf(source, context, cache);
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
        return run('reload');
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
      const loaded = recordedBytes(records);
      if (watch.signal.aborted) break;
      meter.set({
        stage: 'waiting',
        loaded,
        stored: loaded,
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
    this.buffer = new Uint8Array(0);
    /** Readers of chunks that are opened before their turn. @type {Map<string, Promise<import('./store.js').ChunkReader | null>>} */
    this.ahead = new Map();
    /** @type {Promise<void>[]} */
    this.writes = [];
    /** @type {Error | null} */
    this.writeError = null;
    this.unstored = 0;
    /** Beginnings of files that are here already. @type {(Uint8Array | undefined)[]} */
    this.heads = [];
    /** Hashes as they were found. @type {string[][]} */
    this.hashes = manifest.files.map((file) => file.chunks.map((chunk) => chunk.sha256));
  }

  async run() {
    const { manifest, context, meter, key } = this;
    const created = this.record?.created ?? Date.now();
    // The sink may refuse a model; then nothing of it is noted in the store.
    const total = totalBytes(manifest);
    const arriving = (/** @type {number} */ bytes) => {
      if (meter.state.stage !== 'network') meter.set({ stage: 'network', total });
      meter.arriving(bytes);
    };
    this.heads =
      (await context.sink.start(manifest, Boolean(this.record?.complete), arriving)) ?? [];
    if (this.store) await this.prepareStore(created);
    meter.restart(total, recordedBytes(this.records));
    for (let f = 0; f < manifest.files.length; f++) await this.file(f);
    meter.set({ stage: 'pack' });
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
    } else if (this.writeError) await this.tellUnstored();
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
    const { manifest, context, meter, key } = this;
    const file = manifest.files[f];
    meter.set({ file: file.name, fileLoaded: 0, fileTotal: file.bytes });
    context.sink.beginFile(file.name, file.bytes);
    let offset = 0;
    for (let c = 0; c < file.chunks.length;) {
      checkSignal(context.signal);
      const chunk = file.chunks[c];
      const known = this.records.get(recordKey([key, f, c]));
      const read = known ? await this.open(f, c) : null;
      if (known && read && (await this.fromStore(f, c, known, read))) {
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
    context.sink.endFile();
  }

  /**
   * A stored chunk's reader; the next ones are opened, too: every opening is several turns of the browser, in which it
   * reads on while the engine packs.
   * @param {number} f
   * @param {number} c
   */
  open(f, c) {
    const { files } = this.manifest;
    const opened = (/** @type {number} */ file, /** @type {number} */ chunk) => {
      const at = recordKey([this.key, file, chunk]);
      const before = this.ahead.get(at);
      if (before || !this.store || !this.records.has(at)) return before ?? Promise.resolve(null);
      const begun = this.store.openChunk([this.key, file, chunk], files[file].chunks[chunk].bytes);
      begun.catch(() => {}); // it is told when it is its turn
      this.ahead.set(at, begun);
      return begun;
    };
    const now = opened(f, c);
    this.ahead.delete(recordKey([this.key, f, c]));
    for (let n = 0; n < AHEAD; n++) {
      [f, c] = c + 1 < files[f].chunks.length ? [f, c + 1] : [f + 1, 0];
      if (f >= files.length) break;
      void opened(f, c);
    }
    return now;
  }

  /**
   * A stored chunk, with the check that every load can afford.
   * @param {number} f
   * @param {number} c
   * @param {import('./store.js').ChunkRecord} known
   * @param {import('./store.js').ChunkReader} read
   * @returns {Promise<boolean>} false: there is nothing left of it
   */
  async fromStore(f, c, known, read) {
    const { meter } = this;
    let at = 0;
    let sample = 0;
    if (meter.state.stage !== 'store') meter.set({ stage: 'store' });
    await read((piece) => {
      sample = sampled(sample, piece, at);
      at += piece.length;
      this.context.sink.push(piece);
      meter.count(piece.length, 'fromStore');
    }, this.context.sink.room);
    if (at === 0) return false;
    if (at !== known.bytes || (known.sample !== undefined && known.sample !== sample)) {
      // Some of it is in the engine: everything begins anew, when the full check has found what is wrong.
      throw new PocketVLError(
        'INTEGRITY',
        `Part ${c + 1} of ${this.manifest.files[f].name} is damaged in the browser's storage; load the model again.`,
      );
    }
    this.hashes[f][c] = known.sha256;
    return true;
  }

  /**
   * Where a chunk comes together. One buffer for all of them: the store makes its own copy.
   * @param {number} bytes
   */
  room(bytes) {
    if (this.buffer.length < bytes) this.buffer = new Uint8Array(Math.max(bytes, CHUNK));
    return this.buffer.subarray(0, bytes);
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
      const part = blob.slice(offset, offset + size);
      const whole = this.store ? this.room(size) : null;
      let at = 0;
      await readBlob(part)((piece) => {
        whole?.set(piece, at);
        at += piece.length;
        if (whole) return meter.arriving(at);
        context.sink.push(piece);
        meter.count(piece.length, 'fromDisk');
      });
      if (at !== size) {
        const { name } = this.manifest.files[f];
        throw new PocketVLError(
          'IO',
          `${name} cannot be read; it was moved or changed. Pick it again.`,
        );
      }
      if (whole) {
        await this.keep(f, c, whole, await sha256(whole));
        context.sink.push(whole);
        meter.count(size, 'fromDisk');
      }
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
    let head = first === 0 ? this.heads[f]?.subarray(0, end) : undefined;
    this.heads[f] = undefined;
    meter.set({ stage: 'network' });
    const net = {
      ...context,
      mark: file.mark,
      onWait: (/** @type {string} */ reason) => meter.set({ stage: 'retry', reason }),
    };
    while (c < last) {
      let buffer = this.room(file.chunks[c].bytes);
      let fill = 0;
      try {
        const take = async (/** @type {Uint8Array} */ piece) => {
          if (meter.state.stage !== 'network') meter.set({ stage: 'network' });
          for (let o = 0; o < piece.length;) {
            const n = Math.min(buffer.length - fill, piece.length - o);
            buffer.set(piece.subarray(o, o + n), fill);
            fill += n;
            o += n;
            meter.arriving(fill);
            if (fill < buffer.length) continue;
            await this.arrived(f, c, buffer);
            start += buffer.length;
            wrong = 0;
            c++;
            fill = 0;
            if (c < last) buffer = this.room(file.chunks[c].bytes);
          }
        };
        let from = start;
        if (head) {
          from += head.length;
          const there = head;
          head = undefined;
          await take(there);
        }
        if (from < end) await downloadFile(file, { start: from, end }, net, take);
      } catch (error) {
        if (!(error instanceof WrongHash)) throw error;
        wrong++;
        meter.arriving(0);
        // Replaced on the host, which its manifest tells at once; or damaged on the way, or there.
        const changed = wrong === 1 && (await this.replaced());
        if (changed || wrong >= REFETCH) throw this.integrity(file, c, url, changed);
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
      .putChunk([this.key, f, c], bytes, { sha256: hash, sample: sampled(0, bytes, 0) })
      .then(
        () => void (this.meter.state.stored += size),
        (error) => {
          this.unstored += size;
          this.noteWriteError(error);
        },
      )
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

  /** The load goes on without the store, and says so; with a full one, also which other models could make room. */
  async tellUnstored() {
    const error = PocketVLError.from(this.writeError, 'STORAGE');
    const missing = this.unstored;
    const mb = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(0)} MB`;
    /** @type {{key: string, title: string, bytes: number}[]} */
    const others = [];
    for (const { key, manifest } of (await this.store?.models().catch(() => [])) ?? []) {
      const records = key === this.key ? null : await this.store?.records(key).catch(() => null);
      const title = manifest.title ?? manifest.name;
      if (records?.size) others.push({ key, title, bytes: recordedBytes(records) });
    }
    const room = others.length
      ? `Delete other stored models to make room: ${others.map(({ title, bytes }) => `${title} (${mb(bytes)})`).join(', ')}.`
      : 'No other model is stored here that could make room.';
    this.context.onNotice({
      code: error.code,
      message:
        error.code === 'QUOTA'
          ? `The browser gives this site no more storage: ${mb(missing)} of the model were not stored and will be downloaded again next time. ${room}`
          : `The model is not stored in this browser and will be downloaded again next time (${error.message})`,
      details: error.code === 'QUOTA' ? { missing, others } : { missing },
    });
  }

  /** Whether the host has another manifest by now. */
  async replaced() {
    if (!('url' in this.source) || isGguf(this.source.url)) return false;
    const now = await manifestOf(this.source, this.context, 'reload').catch(() => null);
    return now !== null && JSON.stringify(now.files) !== JSON.stringify(this.manifest.files);
  }

  /**
   * The error for a chunk that never came right.
   * @param {ModelFile} file
   * @param {number} c
   * @param {string} url
   * @param {boolean} changed
   */
  integrity(file, c, url, changed) {
    return new PocketVLError(
      'INTEGRITY',
      `Part ${c + 1} of ${file.name} from ${url} does not match its SHA-256${changed ? '' : ` after ${REFETCH} downloads`}; the file on the host is damaged or was replaced.`,
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
  const buffer = new Uint8Array(Math.max(0, ...[...records.values()].map(({ bytes }) => bytes)));
  let done = 0;
  for (const [at, record] of records) {
    checkSignal(signal);
    const [file, chunk] = at.split('/').map(Number);
    const bytes = await wholeChunk(store, [key, file, chunk], record.bytes, buffer);
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
