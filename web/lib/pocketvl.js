// PocketVL: questions about pictures, answered in the page. The public module.
//
//   import { PocketVL } from 'pocketvl';
//   const vl = await PocketVL.load('models/demo/manifest.json', { onProgress: (p) => console.log(p.loaded, p.total) });
//   for await (const piece of vl.chat([{ role: 'user', content: [
//     { type: 'image', image: file }, { type: 'text', text: 'What is in this picture?' } ] }])) show(piece);
import { parseBoxes, withoutBoxes } from './boxes.js';
import { Client, abortable, browserWorker } from './client.js';
import { ERROR_CODES, PocketVLError, aborted } from './errors.js';
import { detect } from './features.js';
import { Pictures, checkChatOptions, prepare } from './messages.js';

/** @typedef {import('./boxes.js').Box} Box */
/** @typedef {import('./errors.js').ErrorCode} ErrorCode */
/** @typedef {import('./features.js').Features} Features */
/** @typedef {import('./messages.js').Message} Message */
/** @typedef {import('./messages.js').Picture} Picture */
/** @typedef {import('./messages.js').TextPart} TextPart */
/** @typedef {import('./messages.js').ImagePart} ImagePart */
/** @typedef {import('./messages.js').ImageUrlPart} ImageUrlPart */
/** @typedef {import('./models.js').StoredModel} StoredModel */
/** @typedef {import('./weights.js').LoadProgress} LoadProgress */
/** @typedef {import('./weights.js').Notice} Notice */

/**
 * Where a model comes from: the address of a manifest.json, of a GGUF file (a split one by its first part), several
 * addresses, or files from the person's disk.
 * @typedef {string | URL | {files: (string | URL | Blob)[]} | Blob[]} ModelSource
 */

/**
 * @typedef {object} LoadOptions
 * @property {(progress: LoadProgress) => void} [onProgress]
 * @property {(notice: Notice) => void} [onNotice] something went wrong that does not stop the load
 * @property {AbortSignal} [signal] what has arrived stays stored
 * @property {number} [threads] default: all cores up to 8; 1 where the page is not isolated
 * @property {number} [context] tokens that a conversation can have; default: the model's settings, at most 4096
 * @property {'f32' | 'q8'} [kvType] 8-bit keys and values take a quarter of the memory
 * @property {'auto' | 'opfs' | 'none'} [store] where the browser keeps the model: in IndexedDB, which is everywhere; 'opfs' in
 *   the private file system, which is read faster; 'none': nowhere
 * @property {boolean} [refresh] ask the host whether the stored model has a new version
 * @property {boolean} [keep] with files from disk: store them, too
 * @property {'relaxed' | 'simd'} [variant] default: relaxed where the browser has it
 * @property {'auto' | 'f32'} [precision] 'f32' is slow and large: for checking
 * @property {string} [kernels] a kernel set by name, for checking
 * @property {import('./download.js').Patience} [patience]
 */

/**
 * @typedef {object} ChatOptions
 * @property {number} [maxTokens]
 * @property {number} [maxTiles] most tiles that a picture is cut into; each costs time and tokens
 * @property {number} [temperature] 0: always the likeliest token
 * @property {number} [topK]
 * @property {number} [topP]
 * @property {number} [repetitionPenalty]
 * @property {number} [seed]
 * @property {string | string[]} [stop] strings that end the answer
 * @property {{type: 'text' | 'json_object'}} [responseFormat] 'json_object': the answer is one JSON object, which `JSON.parse`
 *   takes when `stop` is 'end'; say in the question which one. Cut short it is the beginning of one
 * @property {AbortSignal} [signal]
 * @property {(progress: {stage: 'image' | 'vision' | 'prefill', done: number, total: number}) => void} [onProgress]
 */

/**
 * How a picture is cut: a grid of tiles, and a small picture of the whole where there is more than one.
 * @typedef {object} Tiling
 * @property {number} columns
 * @property {number} rows
 * @property {number} tiles all of them, the small whole one included
 * @property {number} tokens that they take in the prompt
 */

/** @typedef {{width: number, height: number, tiling: Tiling}} SeenPicture */

/**
 * Figures of the last answer, in tokens, milliseconds and bytes; what is not listed here may change.
 * @typedef {object} KnownStats
 * @property {number} promptTokens of the last prompt, visual tokens included
 * @property {number} reusedTokens of those, found in the cache
 * @property {number} tiles encoded for the last prompt; pictures seen before cost none
 * @property {number} visualTokens
 * @property {number} generatedTokens
 * @property {number} imageMs decoding and cutting pictures
 * @property {number} visionMs
 * @property {number} prefillMs
 * @property {number} decodeMs
 * @property {number} timeToFirstTokenMs
 * @property {number} totalMs
 * @property {number} tokensPerSecond of the answer, the prompt left out
 * @property {number} context tokens that a conversation can have
 * @property {number} contextUsed
 * @property {number} weightBytes
 * @property {number} kvBytes keys and values of the conversation
 * @property {number} memoryBytes all that the engine holds
 */

/** @typedef {KnownStats & Record<string, any>} Stats */

/**
 * The loaded model and the build that runs it; what is not listed here may change.
 * @typedef {object} KnownInfo
 * @property {string} name
 * @property {string} title
 * @property {string} license
 * @property {string} architecture
 * @property {string} template
 * @property {boolean} hasVision
 * @property {number} contextLength tokens that the model was made for
 * @property {number} parameters
 * @property {number} weightBytes
 * @property {number} imageSize pixels of a tile's side
 * @property {number} tokensPerTile
 * @property {number} threads in use
 * @property {string} threadsReason
 * @property {'relaxed' | 'simd'} variant the build in use
 * @property {string} variantReason
 * @property {string} kernels
 * @property {boolean} isolated the page can have threads
 * @property {{maxTiles?: number, context?: number, maxTokens?: number, temperature?: number}} settings the manifest's
 * @property {{name: string, bytes: number}[]} files
 * @property {string} key under which it is stored
 * @property {boolean} stored
 */

/** @typedef {KnownInfo & Record<string, any>} ModelInfo */

/**
 * An answer on its way: iterate over its pieces, or await `text()`.
 * @implements {AsyncIterable<string>}
 */
export class Answer {
  /**
   * @internal
   * @param {(say: (text: string) => void, signal: AbortSignal) => Promise<any>} begin
   */
  constructor(begin) {
    /** @internal @type {string[]} */
    this.pieces = [];
    /** The text so far. */
    this.content = '';
    /** Why it ended. @type {'end' | 'length' | 'context' | 'stop' | null} */
    this.stop = null;
    /** @type {Stats | null} */
    this.stats = null;
    /** Pictures of the conversation, with how they were cut. @type {SeenPicture[]} */
    this.pictures = [];
    /** @internal @type {(() => void) | null} */
    this.wake = null;
    /** Nothing more will come. */
    this.ended = false;
    /** @internal */
    this.controller = new AbortController();
    const say = (/** @type {string} */ text) => {
      this.content += text;
      this.pieces.push(text);
      this.wake?.();
    };
    /** @internal */
    this.finished = begin(say, this.controller.signal)
      .then((result) => {
        this.stop = result.stop;
        this.stats = result.stats;
        this.pictures = result.pictures;
      })
      .finally(() => {
        this.ended = true;
        this.wake?.();
      });
    this.finished.catch(() => {});
  }

  /** Boxes in the answer so far, in pixels of the last picture. @returns {Box[]} */
  get boxes() {
    const last = this.pictures.length - 1;
    return parseBoxes(this.content, this.pictures[last], Math.max(last, 0));
  }

  /**
   * The answer, piece by piece. Leaving the loop stops it.
   * @returns {AsyncGenerator<string, void, undefined>}
   */
  async *[Symbol.asyncIterator]() {
    let next = 0;
    try {
      for (;;) {
        while (next < this.pieces.length) yield this.pieces[next++];
        if (this.ended) break;
        await new Promise((go) => (this.wake = () => go(undefined)));
      }
      await this.finished;
    } finally {
      if (!this.ended) this.controller.abort(); // the loop was left: nobody reads the rest
    }
  }

  /** The whole answer. @returns {Promise<string>} */
  async text() {
    await this.finished;
    return this.content;
  }
}

/**
 * @param {ModelSource} source
 * @returns {import('./weights.js').Source}
 */
function postedSource(source) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  const absolute = (/** @type {string | URL} */ url) => {
    const text = String(url);
    if (text.startsWith('disk:')) return text;
    try {
      const made = new URL(text, base);
      made.hash = '';
      return made.href;
    } catch (error) {
      throw new PocketVLError('ARGUMENT', `"${text.slice(0, 200)}" is not an address.`, {
        cause: error,
      });
    }
  };
  if (typeof source === 'string' || source instanceof URL) return { url: absolute(source) };
  const list = Array.isArray(source) ? source : source?.files;
  if (!Array.isArray(list) || !list.length) {
    throw new PocketVLError(
      'ARGUMENT',
      'load wants an address, a list of files, or {files: [...]}.',
    );
  }
  if (list.every((item) => item instanceof Blob)) {
    const blobs = list.map((blob, i) => ({
      name: /** @type {any} */ (blob).name ?? `file-${i + 1}.gguf`,
      blob,
    }));
    blobs.sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)); // a split file's parts in their order
    return { blobs };
  }
  if (list.some((item) => item instanceof Blob)) {
    throw new PocketVLError(
      'ARGUMENT',
      'A model comes from addresses or from files, not from both.',
    );
  }
  return { urls: list.map((item) => absolute(/** @type {string} */ (item))) };
}

const LOAD_FIELDS = /** @type {const} */ ([
  'threads',
  'context',
  'kvType',
  'store',
  'refresh',
  'keep',
  'variant',
  'precision',
  'kernels',
  'patience',
]);

export class PocketVL {
  /**
   * Loads a model: from the browser's storage if it is there, else over the network, storing it.
   * @param {ModelSource} source
   * @param {LoadOptions} [options]
   * @returns {Promise<PocketVL>}
   */
  static async load(source, options = {}) {
    const vl = new this();
    try {
      await vl.loadModel(source, options);
    } catch (error) {
      vl.dispose();
      throw error;
    }
    return vl;
  }

  /**
   * What a model will need, in bytes, without loading it.
   * @param {ModelSource} source
   * @param {Pick<LoadOptions, 'context' | 'kvType' | 'threads' | 'signal'>} [options]
   * @returns {Promise<{weights: number, kvCache: number, scratch: number, peakLoad: number, total: number}>}
   */
  static async estimate(source, options = {}) {
    const vl = new this();
    try {
      const { context, kvType, threads, signal } = options;
      return await vl.client.call(
        'estimate',
        { source: await vl.posted(source), options: { context, kvType, threads } },
        { signal },
      );
    } finally {
      vl.dispose();
    }
  }

  /** What this browser offers, and why. */
  static features() {
    return detect();
  }

  /** @internal */
  constructor() {
    /** @internal */
    this.client = new Client(PocketVL.spawn);
    /** @internal */
    this.pictures = new Pictures();
    /** The loaded model. @type {ModelInfo} */
    this.info = /** @type {any} */ ({});
    /** Figures of the load, and then of the last answer. @type {Stats} */
    this.stats = /** @type {any} */ ({});
    /** @internal @type {{source: import('./weights.js').Source, options: LoadOptions} | null} */
    this.loaded = null;
    /** @internal */
    this.lost = false;
    /** Whether the last load came to nothing: what it took is still taken. */
    this.failed = false;
    this.client.onDeath = () => {
      this.lost = this.loaded !== null;
    };
  }

  /**
   * Loads another model into this instance; the one before is given up first, so that both never need memory at once.
   * Where that fails, the next call finds the one before: it is read again, from storage where it is there.
   * @param {ModelSource} source
   * @param {LoadOptions} [options]
   */
  async loadModel(source, options = {}) {
    await this.loadPosted(postedSource(source), options);
  }

  /**
   * A source as the worker takes it; in Node.js that may be a path.
   * @internal
   * @param {ModelSource} source
   * @returns {Promise<import('./weights.js').Source>}
   */
  async posted(source) {
    return postedSource(source);
  }

  /**
   * @internal
   * @param {any} posted a source as the worker takes it
   * @param {LoadOptions} options
   * @returns {Promise<void>}
   */
  loadPosted(posted, options) {
    return this.client.queue(options.signal, async () => {
      const before = this.loaded;
      const end = () => {
        // A new worker gives all memory back to the browser.
        this.client.worker?.terminate();
        this.client.dead = true;
      };
      if (before || this.lost || this.failed) end();
      this.loaded = null;
      this.lost = false;
      this.failed = true;
      try {
        await this.load({ source: posted, options });
        this.failed = false;
      } catch (error) {
        if (!this.client.disposed) {
          end(); // what the failed load took goes back, too
          if (before) {
            this.loaded = before;
            this.lost = true;
          }
        }
        throw error;
      }
    });
  }

  /**
   * @internal
   * @param {{source: import('./weights.js').Source, options: LoadOptions}} what
   */
  async load({ source, options }) {
    /** @type {Record<string, any>} */
    const wanted = {};
    for (const field of LOAD_FIELDS)
      if (options[field] !== undefined) wanted[field] = options[field];
    const result = await this.client.call(
      'load',
      { source, options: wanted },
      {
        signal: options.signal,
        onProgress: ({ progress, notice }) => {
          if (progress) options.onProgress?.(progress);
          if (notice) options.onNotice?.(notice);
        },
      },
    );
    this.info = result.info;
    this.stats = result.stats;
    this.client.cancel = result.cancel;
    this.loaded = { source, options: { ...options, signal: undefined } };
    this.lost = false;
  }

  /**
   * After the worker was lost: the same model again, from storage.
   * @internal
   * @param {AbortSignal} [signal]
   */
  async revive(signal) {
    if (!this.lost || !this.loaded) return;
    const { source, options } = this.loaded;
    await this.load({ source, options: { ...options, signal, refresh: false } });
  }

  /**
   * Asks. The whole conversation is given each time; what was computed before is not computed again.
   * @param {Message[] | string} messages
   * @param {ChatOptions} [options]
   * @returns {Answer}
   */
  chat(messages, options = {}) {
    return new Answer((say, left) => {
      const signal = options.signal ? anySignal([options.signal, left]) : left;
      return this.answer(messages, options, say, signal);
    });
  }

  /**
   * @internal
   * @param {Message[] | string} messages
   * @param {ChatOptions} options
   * @param {(text: string) => void} say
   * @param {AbortSignal} signal
   */
  async answer(messages, options, say, signal) {
    if (!this.loaded) throw new PocketVLError('STATE', 'No model is loaded.');
    const checked = checkChatOptions({ ...this.info.settings, ...withoutUndefined(options) });
    const result = await this.client.queue(signal, async () => {
      await this.revive(signal);
      const posted = await prepare(messages, this.pictures, signal);
      if (signal.aborted) throw aborted();
      return this.client.call(
        'chat',
        { ...posted, options: checked },
        { signal, onPiece: say, onProgress: ({ progress }) => options.onProgress?.(progress) },
      );
    });
    this.stats = result.stats;
    return result;
  }

  /**
   * Token ids of a text.
   * @param {string} text
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<number[]>}
   */
  tokenize(text, options = {}) {
    return this.client.queue(options.signal, async () => {
      await this.revive(options.signal);
      return this.client.call('tokenize', { text: String(text) }, options);
    });
  }

  /**
   * Tokens that a conversation takes of the context, as `chat` would pose it: template, system message and pictures included.
   * @param {Message[] | string} messages
   * @param {{maxTiles?: number, signal?: AbortSignal}} [options]
   * @returns {Promise<number>}
   */
  async countTokens(messages, options = {}) {
    const { signal, maxTiles = this.info.settings?.maxTiles } = options;
    const checked = checkChatOptions({ maxTiles });
    return this.client.queue(signal, async () => {
      await this.revive(signal);
      const posted = await prepare(messages, this.pictures, signal);
      return this.client.call('count', { ...posted, options: checked }, { signal });
    });
  }

  /**
   * How a picture of this size will be cut.
   * @param {number} width
   * @param {number} height
   * @param {number} [maxTiles]
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<Tiling>}
   */
  tiling(width, height, maxTiles = 1, options = {}) {
    return this.client.queue(options.signal, async () => {
      await this.revive(options.signal);
      return this.client.call('tiling', { width, height, maxTiles }, options);
    });
  }

  /** Ends the worker and gives back its memory. */
  dispose() {
    this.loaded = null;
    this.client.dispose();
  }
}

/** How a worker is started; Node.js has its own. @internal @type {() => import('./client.js').WorkerHandle} */
PocketVL.spawn = browserWorker;

/** @param {Record<string, any>} object */
function withoutUndefined(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

/**
 * AbortSignal.any, which browsers of 2023 do not have.
 * @param {AbortSignal[]} signals
 * @returns {AbortSignal}
 */
function anySignal(signals) {
  const controller = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) controller.abort();
    else
      signal.addEventListener('abort', () => controller.abort(), {
        once: true,
        signal: controller.signal,
      });
  }
  return controller.signal;
}

/** What is stored in this browser. Its code is loaded only where it is used. */
export const models = {
  /**
   * All stored models, the last used first.
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<StoredModel[]>}
   */
  list: async (options = {}) =>
    abortable((await import('./models.js')).list(options.signal), options.signal),
  /**
   * Deletes a model, or what has arrived of it.
   * @param {string} key
   * @param {{signal?: AbortSignal}} [options] `signal`: stop waiting; the browser may already be deleting the model, and
   *   then it deletes all of it
   * @returns {Promise<void>}
   */
  delete: async (key, options = {}) =>
    abortable((await import('./models.js')).remove(key, options.signal), options.signal),
  /**
   * Reads and hashes everything; what is wrong is fetched again at the next load.
   * @param {string} key
   * @param {{signal?: AbortSignal, onProgress?: (done: number, total: number) => void}} [options]
   * @returns {Promise<{damaged: number}>}
   */
  verify: async (key, options = {}) => (await import('./models.js')).verify(key, options),
  /**
   * The stored files as Blobs, for saving to disk.
   * @param {string} key
   * @param {{signal?: AbortSignal}} [options]
   * @returns {Promise<{name: string, blob: Blob}[]>}
   */
  export: async (key, options = {}) =>
    abortable((await import('./models.js')).exportFiles(key, options.signal), options.signal),
};

export { ERROR_CODES, PocketVLError, parseBoxes, withoutBoxes };
