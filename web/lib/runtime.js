// The engine in this worker: starts the module, takes weights, answers. Everything here runs on the
// thread that owns the module; C calls block it.
import { Abi } from './abi.js';
import { PocketVLError, aborted } from './errors.js';
import { defaultThreads, detect } from './features.js';

/** @typedef {import('./features.js').Features} Features */

const PAGE = 65536;
const MOST_PAGES = 65535; // with all 65536 of them malloc fails in Chromium
const DEFAULT_CONTEXT = 4096; // of the engine
const RESERVE = 160 * 1048576; // code's own data, stacks, activations, a picture
const STAGING = 4 * 1048576; // bytes pass through here on their way to the loader, while the ones before are packed
const POOL_DEADLINE = 5000;
const ANSWER_DEADLINE = 10000; // of a host, for code

/**
 * @typedef {object} StartOptions
 * @property {number} [threads] 0 or nothing: all cores up to 8
 * @property {'relaxed' | 'simd'} [variant]
 * @property {number} [weightBytes] what the memory should hold from the start
 */

/** @typedef {{stage: string, done: number, total: number}} Step */

/**
 * What a chat call wants, already checked.
 * @typedef {object} ChatOptions
 * @property {number} [maxTokens]
 * @property {number} [maxTiles]
 * @property {number} [temperature]
 * @property {number} [topK]
 * @property {number} [topP]
 * @property {number} [repetitionPenalty]
 * @property {number} [seed]
 * @property {string[]} [stop]
 * @property {boolean} [json]
 */

/** @typedef {{text: string} | {image: number}} WirePart image: address of a pvl_image */
/** @typedef {{role: 'system' | 'user' | 'assistant', parts: WirePart[]}} WireMessage */

/** A turn of the event loop, so that messages come in: setTimeout would wait 4 ms. */
const turn = (() => {
  if (typeof setImmediate === 'function') {
    return () => /** @type {Promise<void>} */ (new Promise((go) => setImmediate(() => go())));
  }
  const { port1, port2 } = new MessageChannel();
  /** @type {(() => void)[]} */
  const waiting = [];
  port1.onmessage = () => waiting.shift()?.();
  return () =>
    /** @type {Promise<void>} */ (
      new Promise((go) => {
        waiting.push(go);
        port2.postMessage(0);
      })
    );
})();

/** The files of each build. Written out, so that bundlers find them, publish them and put their new addresses here. */
const FILES = {
  relaxed: {
    glue: () => new URL('../wasm/pocketvl-relaxed.js', import.meta.url),
    wasm: () => new URL('../wasm/pocketvl-relaxed.wasm', import.meta.url),
  },
  simd: {
    glue: () => new URL('../wasm/pocketvl-simd.js', import.meta.url),
    wasm: () => new URL('../wasm/pocketvl-simd.wasm', import.meta.url),
  },
};

/**
 * The factory of one build. Bundlers must leave the glue code alone: it starts itself again in its threads.
 * @param {'relaxed' | 'simd'} variant
 * @returns {Promise<(options: Record<string, unknown>) => Promise<any>>}
 */
async function factory(variant) {
  const { href } = FILES[variant].glue();
  const load = (/** @type {string} */ url) =>
    import(/* webpackIgnore: true */ /* @vite-ignore */ url);
  const module = await deadline(load(href), ANSWER_DEADLINE).catch((error) => {
    if (error instanceof Late) return load(`${href}?again`); // the same address would wait for the same request
    throw error;
  });
  return module.default;
}

/**
 * The compiled module; null where it is a file, which the glue code reads itself. What gets no answer is asked for again:
 * browsers can lose a request while service workers come and go, and nothing else would ever end the waiting.
 * @param {'relaxed' | 'simd'} variant
 * @returns {Promise<WebAssembly.Module | null>}
 */
async function compiled(variant) {
  const url = FILES[variant].wasm();
  if (url.protocol === 'file:') return null;
  for (let tries = 1; ; tries++) {
    const attempt = new AbortController();
    const timer = tries < 3 ? setTimeout(() => attempt.abort(), ANSWER_DEADLINE) : 0;
    try {
      const response = await fetch(url, { credentials: 'same-origin', signal: attempt.signal });
      clearTimeout(timer);
      if (!response.ok) throw new Error(`${url.href} answered HTTP ${response.status}`);
      const typed = response.headers.get('content-type')?.startsWith('application/wasm');
      return typed
        ? await WebAssembly.compileStreaming(response)
        : await WebAssembly.compile(await response.arrayBuffer());
    } catch (error) {
      if (!attempt.signal.aborted) throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

export class Runtime {
  /**
   * @param {Abi} abi
   * @param {Features} features
   * @param {number} threads
   * @param {'relaxed' | 'simd'} variant
   * @param {string} note why there are fewer threads than wanted, or ''
   */
  constructor(abi, features, threads, variant, note) {
    this.abi = abi;
    this.features = features;
    this.threads = threads;
    this.variant = variant;
    this.note = note;
    this.engine = 0;
    this.session = 0;
    this.loader = 0;
    /** Two buffers in turns, and the one that is being filled. */
    this.staging = [0, 0];
    this.filling = 0;
    this.staged = 0;
    /** @type {{context?: number, kvType?: 'f32' | 'q8'}} */
    this.sessionOptions = {};
    /** Asked between steps of a prompt; true stops it. @type {() => boolean} */
    this.shouldStop = () => false;
    /** @type {(step: Step) => void} */
    this.onStep = () => {};
  }

  /**
   * Starts the module: the pool of threads with a deadline, then once more with one thread.
   * @param {StartOptions} options
   */
  static async start(options) {
    const features = detect();
    if (!features.simd) {
      throw new PocketVLError(
        'UNSUPPORTED_BROWSER',
        'This browser has no WebAssembly SIMD, which PocketVL needs; take Chrome 91, Firefox 89, Safari 16.4 or newer.',
      );
    }
    const variant =
      options.variant === 'simd' || !features.relaxedSimd
        ? 'simd'
        : (options.variant ?? features.variant);
    const wanted = features.threads
      ? Math.min(Math.max(1, Math.floor(options.threads || defaultThreads(features))), 16)
      : 1;
    /** @type {[(options: Record<string, unknown>) => Promise<any>, WebAssembly.Module | null]} */
    const [make, code] = await Promise.all([factory(variant), compiled(variant)]).catch((error) => {
      throw startError(error);
    });
    const bytes = Math.ceil((options.weightBytes ?? 0) * 1.05) + RESERVE;
    const pages = Math.min(Math.ceil(bytes / PAGE), MOST_PAGES);
    const attempt = async (/** @type {number} */ threads) => {
      const memory = Runtime.memory(pages);
      /** @type {(error: unknown) => void} */
      let failed = () => {};
      /** The glue code waits for an instance, and would for ever where there is none. @type {Promise<never>} */
      const failure = new Promise((_, fail) => (failed = fail));
      /** @type {Record<string, unknown>} */
      const init = {
        poolSize: threads - 1,
        wasmMemory: memory,
        locateFile: () => FILES[variant].wasm().href,
        print: () => {},
        printErr: () => {},
        ...(code && {
          instantiateWasm: (
            /** @type {WebAssembly.Imports} */ imports,
            /** @type {(instance: WebAssembly.Instance, module: WebAssembly.Module) => void} */ done,
          ) => {
            WebAssembly.instantiate(code, imports).then((instance) => done(instance, code), failed);
            return {};
          },
        }),
      };
      const module = await Promise.race([make(init), failure]);
      return { module, memory, init };
    };
    let threads = wanted;
    let note = '';
    /** @type {Awaited<ReturnType<typeof attempt>>} */
    let started;
    try {
      started = await (threads > 1 ? deadline(attempt(threads), POOL_DEADLINE) : attempt(1));
    } catch (error) {
      if (threads === 1) throw startError(error);
      note = 'One thread: the others did not start in time.';
      threads = 1;
      started = await attempt(1).catch((again) => {
        throw startError(again);
      });
    }
    const runtime = new Runtime(
      new Abi(started.module, started.memory),
      features,
      threads,
      variant,
      note,
    );
    started.module.onProgress = runtime.progress.bind(runtime);
    return runtime;
  }

  /** @param {number} pages */
  static memory(pages) {
    for (let initial = pages; ; initial = Math.floor(initial / 2)) {
      try {
        return new WebAssembly.Memory({ initial, maximum: 65536, shared: true });
      } catch (error) {
        // The browser refuses so much at once: take less and let it grow.
        if (initial < 1024) {
          throw new PocketVLError(
            'MEMORY',
            'The browser gives this page no memory for the model; close other tabs and reload.',
            { cause: error },
          );
        }
      }
    }
  }

  /**
   * Has the memory at least so large now, so that a refusal does not come in the middle of a download.
   * @param {number} bytes
   * @returns {boolean}
   */
  reserve(bytes) {
    const { memory } = this.abi;
    const pages = Math.ceil(bytes / PAGE) - memory.buffer.byteLength / PAGE;
    try {
      if (pages > 0) memory.grow(pages);
    } catch {
      return false;
    }
    this.abi.refresh();
    return true;
  }

  /**
   * Called by C between the steps of a prompt.
   * @param {number} stage address of its name
   * @param {number} done
   * @param {number} total
   */
  progress(stage, done, total) {
    this.onStep({ stage: this.abi.string(stage), done, total });
    return this.shouldStop() ? 0 : 1;
  }

  /* ---- weights ---- */

  /** @param {{precision?: 'auto' | 'f32', kernels?: string}} [options] */
  beginLoad(options = {}) {
    const { abi } = this;
    const at = abi.malloc(abi.sizeof('pvl_engine_options'));
    const kernels = options.kernels ? abi.newString(options.kernels) : null;
    try {
      abi.write('pvl_engine_options', at, {
        threads: this.threads,
        precision: abi.constants[options.precision === 'f32' ? 'PRECISION_F32' : 'PRECISION_AUTO'],
        kernels: kernels?.at,
      });
      this.loader = abi.create('pvl_loader_new', at);
      for (const i of [0, 1]) this.staging[i] = abi.malloc(STAGING);
      this.staged = 0;
    } finally {
      abi.free(at);
      if (kernels) abi.free(kernels.at);
    }
  }

  /**
   * @param {string} name
   * @param {number} bytes
   */
  beginFile(name, bytes) {
    const string = this.abi.newString(name);
    try {
      this.abi.call('pvl_loader_begin_file', this.loader, string.at, BigInt(bytes));
    } finally {
      this.abi.free(string.at);
    }
  }

  /** Where the file's next bytes may be written, to be pushed from there without a copy. */
  room() {
    const at = this.staging[this.filling];
    return this.abi.refresh().subarray(at + this.staged, at + STAGING);
  }

  /**
   * Collects pieces, so that there is work for all threads when they are woken.
   * @param {Uint8Array} bytes the file's next ones; they may lie in `room()`
   */
  push(bytes) {
    if (bytes.buffer === this.abi.memory.buffer) {
      this.staged += bytes.length;
      if (this.staged === STAGING) this.flush();
      return;
    }
    for (let at = 0; at < bytes.length;) {
      const part = bytes.subarray(at, at + STAGING - this.staged);
      this.abi.refresh().set(part, this.staging[this.filling] + this.staged);
      this.staged += part.length;
      at += part.length;
      if (this.staged === STAGING) this.flush();
    }
  }

  /** Hands over what is collected, to be packed by the other threads while the next is read. */
  flush() {
    const at = this.staging[this.filling];
    const bytes = this.staged;
    this.staged = 0;
    this.filling = 1 - this.filling;
    if (bytes) this.abi.call('pvl_loader_push_async', this.loader, at, bytes);
  }

  /** All of the file was pushed: returns when it is packed. */
  endFile() {
    this.flush();
    this.abi.call('pvl_loader_wait', this.loader);
  }

  /** @param {{context?: number, kvType?: 'f32' | 'q8'}} options */
  finishLoad(options) {
    const { abi } = this;
    this.endFile();
    this.#endStaging();
    const loader = this.loader;
    this.loader = 0; // freed by the call in any case
    abi.view.setUint32(abi.out, 0, true);
    abi.call('pvl_loader_finish', loader, abi.out);
    this.engine = abi.view.getUint32(abi.out, true);
    this.sessionOptions = options;
    this.newSession();
  }

  abandonLoad() {
    if (this.loader) this.abi.module._pvl_loader_free(this.loader);
    this.loader = 0;
    this.#endStaging();
  }

  #endStaging() {
    for (const at of this.staging) if (at) this.abi.free(at);
    this.staging = [0, 0];
    this.staged = 0;
  }

  newSession() {
    const { abi } = this;
    if (this.session) abi.module._pvl_session_free(this.session);
    this.session = 0;
    const at = abi.malloc(abi.sizeof('pvl_session_options'));
    try {
      abi.write('pvl_session_options', at, {
        context: Math.min(this.sessionOptions.context ?? 0, this.info().contextLength),
        kv_type: abi.constants[this.sessionOptions.kvType === 'q8' ? 'KV_Q8' : 'KV_F32'],
      });
      this.session = abi.create('pvl_session_new', this.engine, at);
      abi.module._pvlx_session_report(this.session);
    } finally {
      abi.free(at);
    }
  }

  /** Where to write 1 to stop the running call. */
  cancelAddress() {
    return this.abi.module._pvl_session_cancel_flag(this.session) >>> 0;
  }

  /**
   * What a model will need, from the beginnings of its files.
   * @param {Uint8Array[]} heads
   * @param {{context?: number, kvType?: 'f32' | 'q8', threads?: number}} options
   */
  estimate(heads, options) {
    const { abi } = this;
    /** @type {number[]} */
    const owned = [];
    const alloc = (/** @type {number} */ bytes) => {
      owned.push(abi.malloc(bytes));
      return owned[owned.length - 1];
    };
    try {
      const size = abi.sizeof('pvl_bytes');
      const list = alloc(size * heads.length);
      heads.forEach((head, i) => {
        const data = alloc(head.length);
        abi.refresh().set(head, data);
        abi.write('pvl_bytes', list + i * size, { data, bytes: head.length });
      });
      const engine = alloc(abi.sizeof('pvl_engine_options'));
      abi.write('pvl_engine_options', engine, { threads: options.threads ?? 1 });
      const session = alloc(abi.sizeof('pvl_session_options'));
      abi.write('pvl_session_options', session, {
        context: options.context ?? 0,
        kv_type: abi.constants[options.kvType === 'q8' ? 'KV_Q8' : 'KV_F32'],
      });
      const out = alloc(abi.sizeof('pvl_memory'));
      abi.call('pvl_estimate', out, list, heads.length, engine, session);
      const m = abi.read('pvl_memory', out);
      return {
        weights: m.weights,
        kvCache: m.kv_cache,
        scratch: m.scratch,
        peakLoad: m.peak_load,
        total: m.weights + m.kv_cache + m.scratch,
      };
    } finally {
      for (const at of owned) abi.free(at);
    }
  }

  /**
   * The same as the figures that room.js takes; null when the heads are not usable, which loading them will explain.
   * @param {Uint8Array[]} heads
   * @param {{context?: number, kvType: 'f32' | 'q8'}} options
   * @returns {import('./room.js').Need | null}
   */
  need(heads, { context = DEFAULT_CONTEXT, kvType }) {
    try {
      const of = (/** @type {'f32' | 'q8'} */ type) =>
        this.estimate(heads, { context, kvType: type, threads: this.threads });
      const { weights, kvCache, scratch } = of(kvType);
      return { weights, kvCache, kvCacheQ8: of('q8').kvCache, scratch, context, kvType };
    } catch (error) {
      if (error instanceof PocketVLError) return null;
      throw error;
    }
  }

  /* ---- about ---- */

  info() {
    const { abi } = this;
    const at = abi.malloc(abi.sizeof('pvl_engine_info'));
    abi.module._pvl_engine_get_info(this.engine, at);
    const i = abi.read('pvl_engine_info', at);
    abi.free(at);
    return {
      name: i.name,
      architecture: i.architecture,
      template: i.template_name,
      kernels: i.kernels,
      threads: i.threads,
      hasVision: i.has_vision,
      contextLength: i.context_length,
      vocabulary: i.vocabulary,
      layers: i.layers,
      hidden: i.hidden,
      visionLayers: i.vision_layers,
      visionHidden: i.vision_hidden,
      imageSize: i.image_size,
      tokensPerTile: i.tokens_per_tile,
      weightBytes: i.weight_bytes,
      parameters: i.parameters,
    };
  }

  stats() {
    const { abi } = this;
    const at = abi.malloc(abi.sizeof('pvl_stats'));
    abi.module._pvl_session_get_stats(this.session, at);
    const s = abi.read('pvl_stats', at);
    abi.free(at);
    return {
      promptTokens: s.prompt_tokens,
      reusedTokens: s.reused_tokens,
      tiles: s.tiles,
      visualTokens: s.visual_tokens,
      generatedTokens: s.generated_tokens,
      imageMs: s.image_ms,
      visionMs: s.vision_ms,
      prefillMs: s.prefill_ms,
      decodeMs: s.decode_ms,
      context: s.context,
      contextUsed: s.context_used,
      weightBytes: s.weight_bytes,
      kvBytes: s.kv_bytes,
      scratchBytes: s.scratch_bytes,
      visualCacheBytes: s.visual_cache_bytes,
      memoryBytes: abi.memory.buffer.byteLength,
    };
  }

  /**
   * @param {string} text
   * @param {boolean} [special] recognise special tokens; never for text from people
   * @returns {number[]}
   */
  tokenize(text, special = false) {
    const { abi } = this;
    const string = abi.newString(text);
    const capacity = string.bytes + 16; // every token stands for at least one byte, but for a BOS
    const ids = abi.malloc(capacity * 4);
    try {
      abi.view.setUint32(abi.out, 0, true);
      abi.call(
        'pvl_engine_tokenize',
        this.engine,
        ids,
        capacity,
        abi.out,
        string.at,
        string.bytes,
        special ? 1 : 0,
      );
      const count = abi.view.getUint32(abi.out, true);
      return Array.from({ length: count }, (_, i) => abi.view.getInt32(ids + 4 * i, true));
    } finally {
      abi.free(ids);
      abi.free(string.at);
    }
  }

  /**
   * @param {number} width
   * @param {number} height
   * @param {number} maxTiles
   */
  tiling(width, height, maxTiles) {
    const { abi } = this;
    const at = abi.malloc(abi.sizeof('pvl_tiling'));
    try {
      abi.call('pvl_engine_tiling', this.engine, at, width, height, maxTiles);
      return /** @type {{columns: number, rows: number, tiles: number, tokens: number}} */ (
        abi.read('pvl_tiling', at)
      );
    } finally {
      abi.free(at);
    }
  }

  /* ---- pictures ---- */

  /**
   * @param {Uint8ClampedArray<ArrayBufferLike>} rgba
   * @param {number} width
   * @param {number} height
   */
  imageFromPixels(rgba, width, height) {
    const { abi } = this;
    const at = abi.copyIn(rgba);
    try {
      return abi.create('pvl_image_from_rgba', 0, at, width, height);
    } finally {
      abi.free(at);
    }
  }

  /** @param {Uint8Array<ArrayBufferLike>} file JPEG, PNG, BMP or GIF */
  imageFromFile(file) {
    const { abi } = this;
    const at = abi.copyIn(file);
    try {
      return abi.create('pvl_image_decode', 0, at, file.length, 0);
    } finally {
      abi.free(at);
    }
  }

  /** @param {number} image */
  imageSize(image) {
    const { module } = this.abi;
    return {
      width: module._pvl_image_width(image) >>> 0,
      height: module._pvl_image_height(image) >>> 0,
    };
  }

  /** @param {number} image */
  freeImage(image) {
    this.abi.module._pvl_image_free(image);
  }

  /* ---- conversations ---- */

  /**
   * @param {WireMessage[]} messages
   * @param {ChatOptions} options
   */
  prompt(messages, options) {
    this.#pose('pvl_session_prompt', messages, options);
  }

  /**
   * Computes what a prompt will begin with, up to the first new picture (`image: 0` for one that is still to come).
   * @param {WireMessage[]} messages
   * @param {ChatOptions} options
   */
  prepare(messages, options) {
    this.#pose('pvl_session_prepare', messages, options);
  }

  /**
   * Tokens that a prompt has, pictures included.
   * @param {WireMessage[]} messages
   * @param {ChatOptions} options
   * @returns {number}
   */
  count(messages, options) {
    this.#pose('pvl_session_count', messages, options, this.abi.out);
    return this.abi.view.getUint32(this.abi.out, true);
  }

  /**
   * @param {'pvl_session_prompt' | 'pvl_session_prepare' | 'pvl_session_count'} verb
   * @param {WireMessage[]} messages
   * @param {ChatOptions} options
   * @param {...number} more arguments of the call
   */
  #pose(verb, messages, options, ...more) {
    const { abi } = this;
    const c = abi.constants;
    /** @type {number[]} */
    const owned = [];
    const own = (/** @type {number} */ at) => {
      owned.push(at);
      return at;
    };
    const array = (/** @type {string} */ name, /** @type {number} */ n) =>
      own(abi.malloc(abi.sizeof(name) * n));
    try {
      const list = array('pvl_message', messages.length);
      messages.forEach((message, i) => {
        const parts = array('pvl_part', message.parts.length);
        message.parts.forEach((part, k) => {
          const at = parts + k * abi.sizeof('pvl_part');
          if ('image' in part) {
            abi.write('pvl_part', at, { kind: c.PART_IMAGE, image: part.image });
          } else {
            const text = abi.newString(part.text);
            own(text.at);
            abi.write('pvl_part', at, { kind: c.PART_TEXT, text: text.at, text_bytes: text.bytes });
          }
        });
        abi.write('pvl_message', list + i * abi.sizeof('pvl_message'), {
          role: c[`ROLE_${message.role.toUpperCase()}`],
          parts,
          part_count: message.parts.length,
        });
      });
      const stop = options.stop ?? [];
      const stops = own(abi.malloc(4 * stop.length));
      stop.forEach((text, i) => {
        const at = own(abi.newString(text).at);
        abi.view.setUint32(stops + 4 * i, at, true);
      });
      const at = array('pvl_prompt_options', 1);
      abi.write('pvl_prompt_options', at, {
        max_tiles: options.maxTiles,
        max_tokens: options.maxTokens,
        temperature: options.temperature,
        top_k: options.topK,
        top_p: options.topP,
        repetition_penalty: options.repetitionPenalty,
        seed:
          options.seed === undefined
            ? undefined
            : BigInt.asUintN(64, BigInt(Math.trunc(options.seed))),
        stop: stop.length ? stops : 0,
        stop_count: stop.length,
        json: options.json,
      });
      abi.call(verb, this.session, list, messages.length, at, ...more);
    } finally {
      for (const at of owned) abi.free(at);
    }
  }

  /**
   * The answer, piece by piece; the value returned at the end says why it ended.
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<string, 'end' | 'length' | 'context' | 'stop'>}
   */
  async *answer(signal) {
    const { abi } = this;
    const { STOP_NO, STOP_END, STOP_LENGTH, STOP_CONTEXT } = abi.constants;
    const at = abi.malloc(abi.sizeof('pvl_piece'));
    try {
      for (;;) {
        abi.call('pvl_session_next', this.session, at);
        const piece = this.piece(at);
        if (piece.text) yield piece.text;
        if (piece.stop !== STOP_NO) {
          if (piece.stop === STOP_END) return 'end';
          if (piece.stop === STOP_LENGTH) return 'length';
          return piece.stop === STOP_CONTEXT ? 'context' : 'stop';
        }
        await turn();
        if (signal.aborted) throw aborted();
      }
    } finally {
      abi.free(at);
    }
  }

  /** @param {number} at a pvl_piece: its text is counted, not terminated, so Abi.read would run past it */
  piece(at) {
    const { abi } = this;
    const { fields } = abi.layout.structs.pvl_piece;
    const number = (/** @type {string} */ name) => abi.view.getUint32(at + fields[name][0], true);
    const bytes = number('text_bytes');
    return { text: bytes ? abi.text(number('text'), bytes) : '', stop: number('stop') };
  }
}

/** A deadline has passed. */
class Late extends Error {}

/**
 * @template T
 * @param {Promise<T>} work
 * @param {number} ms
 * @returns {Promise<T>}
 */
function deadline(work, ms) {
  return new Promise((done, fail) => {
    const timer = setTimeout(() => fail(new Late(`not ready after ${ms} ms`)), ms);
    work.then(done, fail).finally(() => clearTimeout(timer));
  });
}

/** @param {unknown} error */
function startError(error) {
  if (error instanceof PocketVLError) return error;
  const text = /** @type {any} */ (error)?.message ?? String(error);
  return new PocketVLError('WORKER', `The engine's code could not be started: ${text}`, {
    cause: error,
  });
}
