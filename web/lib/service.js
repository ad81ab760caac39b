// The worker's side of the protocol: one switch over verbs. Runs in a browser's worker (worker.js) and in one of
// Node.js (node/worker.js); `surroundings` is what differs.
import { PocketVLError, aborted, checkSignal } from './errors.js';
import { loadImage } from './image.js';
import { isCall } from './protocol.js';
import { LOOK_FIRST, checkRoom, needOf } from './room.js';
import { Runtime } from './runtime.js';
import { readHeads, streamModel } from './weights.js';

/** @typedef {import('./protocol.js').Port} Port */
/** @typedef {import('./protocol.js').Call} Call */

/**
 * @typedef {object} Surroundings
 * @property {Port} port
 * @property {(kind: 'auto' | 'opfs') => Promise<import('./store.js').Store>} openStore
 * @property {((url: string) => boolean) | null} stillWanted asks, without leaving the running C call, whether the
 *   caller still holds the Blob URL that it made for this call; null where shared memory does that
 * @property {(path: string) => Promise<Blob>} [openPath] files by path, in Node.js
 */

const IMAGE_BUDGET = 128 * 1048576; // bytes of decoded pictures kept between calls

/** @param {Surroundings} surroundings */
export function serve({ port, openStore, stillWanted, openPath }) {
  /** @type {Runtime | null} */
  let runtime = null;
  /** @type {Map<number, AbortController>} */
  const running = new Map();
  /** Decoded pictures by the caller's key, least recently used first. @type {Map<number, {image: number, bytes: number}>} */
  const pictures = new Map();
  let generation = 0; // of the engine: an abort of an old load must not touch a new one

  /** @returns {Runtime} */
  const ready = () => {
    if (!runtime?.session)
      throw new PocketVLError('STATE', 'No model is loaded; call PocketVL.load first.');
    return runtime;
  };

  /**
   * Files named by path, which only a worker of Node.js can open.
   * @param {any} source
   * @returns {Promise<import('./weights.js').Source>}
   */
  const opened = async (source) => {
    if (!openPath || !source.blobs) return source;
    /** @type {{name: string, blob?: Blob, paths?: string[]}[]} */
    const list = source.blobs;
    const blobs = await Promise.all(
      list.map(async ({ name, blob, paths = [] }) => ({
        name,
        blob: blob ?? new Blob(await Promise.all(paths.map(openPath))), // of a file in parts: all of them
      })),
    );
    return { blobs };
  };

  /* ---- verbs ---- */

  /**
   * Throws MEMORY, with the figures, where the model is too big for this place; before the download.
   * @param {Runtime} engine
   * @param {import('./weights.js').Source} source
   * @param {import('./manifest.js').Manifest} manifest
   * @param {boolean} stored
   * @param {any} options
   * @param {AbortSignal} signal
   * @param {(bytes: number) => void} arriving
   * @returns {Promise<Uint8Array[] | undefined>} the beginnings of the files, where they had to be fetched
   */
  async function checkModel(engine, source, manifest, stored, options, signal, arriving) {
    const context = options.context ?? manifest.settings?.context;
    const kvType = options.kvType ?? manifest.settings?.kvType ?? 'f32';
    let need = needOf(manifest, { context, kvType });
    const bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
    let heads;
    if (!need && !stored && bytes > LOOK_FIRST) {
      const from = { signal, patience: options.patience };
      ({ heads } = await readHeads(source, from, manifest, arriving));
      need = engine.need(heads, { context, kvType });
    }
    if (!need) return heads;
    const device = Number(/** @type {any} */ (globalThis.navigator)?.deviceMemory ?? 0);
    checkRoom(need, { device, grow: (wanted) => engine.reserve(wanted) });
    return heads;
  }

  /**
   * @param {any} args
   * @param {AbortSignal} signal
   * @param {(value: any) => void} tell
   */
  async function load(args, signal, tell) {
    const mine = ++generation;
    const { options } = args;
    const source = await opened(args.source);
    /** What Node.js read in the manifest of a folder; elsewhere the source tells it. @type {object} */
    const about = args.source.about ?? {};
    runtime = null;
    pictures.clear();
    let store = null;
    const onNotice = (/** @type {any} */ notice) => tell({ notice });
    if (options.store !== 'none') {
      store = await openStore(options.store ?? 'auto').catch((error) => {
        onNotice({
          code: 'STORAGE',
          message: `This browser does not let the page keep the model (${error.message}); it will be downloaded again next time.`,
        });
        return null;
      });
    }
    /** @type {Runtime | null} */
    let fresh = null;
    try {
      const result = await streamModel(source, {
        store,
        signal,
        onNotice,
        onProgress: (progress) => tell({ progress }),
        refresh: options.refresh,
        keep: options.keep,
        patience: options.patience,
        sink: {
          async start(manifest, stored, arriving) {
            let heads;
            if (!fresh) {
              const weightBytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
              fresh = await Runtime.start({ ...options, weightBytes });
              const whole = { ...manifest, ...about };
              heads = await checkModel(fresh, source, whole, stored, options, signal, arriving);
            }
            checkSignal(signal);
            fresh.abandonLoad();
            fresh.beginLoad(options);
            return heads;
          },
          beginFile: (name, bytes) => fresh?.beginFile(name, bytes),
          push: (bytes) => fresh?.push(bytes),
          room: () => /** @type {Runtime} */ (fresh).room(),
          endFile: () => fresh?.endFile(),
        },
      });
      const made = /** @type {Runtime} */ (/** @type {unknown} */ (fresh));
      const manifest = { ...result.manifest, ...about };
      const settings = manifest.settings ?? {};
      made.finishLoad({
        context: options.context ?? settings.context,
        kvType: options.kvType ?? settings.kvType,
      });
      if (mine !== generation) throw aborted();
      runtime = made;
      const parts = made.info().hasVision ? [{ image: 0 }] : [{ text: '.' }];
      setTimeout(() => {
        if (runtime === made && running.size === 0)
          void beginning(made, [{ role: 'user', parts }], {}, () => running.size > 0);
      });
      return {
        info: {
          ...made.info(),
          title: manifest.title ?? manifest.name,
          license: manifest.license ?? '',
          settings,
          files: manifest.files.map(({ name, bytes }) => ({ name, bytes })),
          key: result.key,
          stored: result.stored,
          variant: made.variant,
          variantReason: made.features.variantReason,
          threadsReason: made.note || made.features.threadsReason,
          isolated: made.features.isolated,
        },
        stats: {
          ...made.stats(),
          loadMs: result.ms,
          fromNetwork: result.fromNetwork,
          fromStore: result.fromStore,
        },
        // Only where it can be posted: then the page stops a running product by itself.
        cancel: made.features.threads
          ? { memory: made.abi.memory.buffer, address: made.cancelAddress() }
          : null,
      };
    } finally {
      store?.close();
    }
  }

  /**
   * @param {Runtime} engine
   * @param {{key: number, source: any}[]} images
   * @param {AbortSignal} signal
   */
  async function takePictures(engine, images, signal) {
    for (const { key, source } of images) {
      const known = pictures.get(key);
      if (known) {
        pictures.delete(key);
        pictures.set(key, known);
        if (typeof source.close === 'function') source.close();
        continue;
      }
      const image = await loadImage(engine, source, signal);
      const { width, height } = engine.imageSize(image);
      pictures.set(key, { image, bytes: width * height * 3 });
    }
  }

  /** @param {Runtime} engine */
  function dropPictures(engine) {
    let total = 0;
    for (const { bytes } of pictures.values()) total += bytes;
    for (const [key, { image, bytes }] of pictures) {
      if (total <= IMAGE_BUDGET) break;
      engine.freeImage(image);
      pictures.delete(key);
      total -= bytes;
    }
  }

  /**
   * Computes the text before the first picture: while the browser decodes pictures, or before there is a question. The
   * engine's code is then also compiled for speed. What is wrong with the messages the prompt itself will say.
   * @param {Runtime} engine
   * @param {import('./runtime.js').WireMessage[]} messages
   * @param {any} options
   * @param {() => boolean} stopped
   */
  async function beginning(engine, messages, options, stopped) {
    await new Promise((go) => setTimeout(go)); // what was started gets under way
    if (stopped()) return;
    engine.shouldStop = stopped;
    try {
      engine.prepare(messages, options);
    } catch (error) {
      if (!(error instanceof PocketVLError)) throw error;
    } finally {
      engine.shouldStop = () => false;
    }
  }

  /**
   * @param {any[]} messages
   * @returns {import('./runtime.js').WireMessage[]} with 0 for pictures that are not decoded yet
   */
  const wired = (messages) =>
    messages.map((message) => ({
      role: message.role,
      parts: message.parts.map((/** @type {any} */ part) =>
        'picture' in part ? { image: pictures.get(part.picture)?.image ?? 0 } : part,
      ),
    }));

  /**
   * Tokens of a conversation.
   * @param {any} args
   * @param {AbortSignal} signal
   */
  async function count(args, signal) {
    const engine = ready();
    try {
      await takePictures(engine, args.images, signal);
      return engine.count(wired(args.messages), args.options);
    } finally {
      dropPictures(engine);
    }
  }

  /**
   * @param {any} args
   * @param {AbortSignal} signal
   * @param {(value: any) => void} tell
   * @param {(text: string) => void} say
   */
  async function chat(args, signal, tell, say) {
    const engine = ready();
    const begun = performance.now();
    const cell = args.cell ? new Int32Array(args.cell) : null;
    let asked = 0;
    const stopped = () => {
      if (signal.aborted || (cell && Atomics.load(cell, 0) !== 0)) return true;
      if (!stillWanted || !args.token || performance.now() - asked < 100) return false;
      asked = performance.now();
      return !stillWanted(args.token);
    };
    try {
      tell({ progress: { stage: 'image', done: 0, total: args.images.length } });
      const wire = () => wired(args.messages);
      const coming = takePictures(engine, args.images, signal);
      if (args.images.some((/** @type {any} */ { key }) => !pictures.has(key))) {
        coming.catch(() => {}); // it is told below
        await beginning(engine, wire(), args.options, stopped);
      }
      await coming;
      const imageMs = performance.now() - begun;
      /** @type {Map<number, {width: number, height: number}>} */
      const sizes = new Map();
      for (const { key } of args.images) {
        sizes.set(key, engine.imageSize(/** @type {any} */ (pictures.get(key)).image));
      }
      if (stopped()) throw aborted();
      let told = 0;
      engine.shouldStop = stopped;
      engine.onStep = (step) => {
        const now = performance.now();
        if (now - told < 50 && step.done < step.total) return;
        told = now;
        tell({ progress: step });
      };
      engine.prompt(wire(), args.options);
      let firstToken = 0;
      let pieces = 0;
      const answer = engine.answer(signal);
      let step = await answer.next();
      for (; !step.done; step = await answer.next()) {
        firstToken ||= performance.now() - begun;
        pieces++;
        say(step.value);
        if (stopped()) {
          await answer.return('end');
          throw aborted();
        }
      }
      const stats = engine.stats();
      return {
        stop: step.value,
        pictures: args.images.map((/** @type {any} */ { key }) => {
          const size = /** @type {{width: number, height: number}} */ (sizes.get(key));
          return {
            ...size,
            tiling: engine.tiling(size.width, size.height, args.options.maxTiles ?? 1),
          };
        }),
        stats: {
          ...stats,
          imageMs: imageMs + stats.imageMs,
          pieces,
          timeToFirstTokenMs: firstToken || performance.now() - begun,
          totalMs: performance.now() - begun,
          tokensPerSecond: stats.decodeMs > 0 ? (1000 * stats.generatedTokens) / stats.decodeMs : 0,
        },
      };
    } catch (error) {
      if (error instanceof PocketVLError && error.code === 'CANCELLED') throw aborted();
      throw error;
    } finally {
      engine.shouldStop = () => false;
      engine.onStep = () => {};
      dropPictures(engine);
    }
  }

  /**
   * @param {any} args
   * @param {AbortSignal} signal
   */
  async function estimate(args, signal) {
    const { heads } = await readHeads(await opened(args.source), { signal });
    const small = await Runtime.start({
      threads: 1,
      weightBytes: 2 * heads.reduce((n, h) => n + h.length, 0),
    });
    return small.estimate(heads, args.options);
  }

  /* ---- calls ---- */

  /** @param {Call} call */
  async function handle(call) {
    const { id, verb, args } = call;
    if (verb === 'abort') {
      running.get(args.id)?.abort();
      return;
    }
    const controller = new AbortController();
    running.set(id, controller);
    const { signal } = controller;
    const tell = (/** @type {any} */ value) => port.post({ id, event: 'progress', value });
    const say = (/** @type {string} */ value) => port.post({ id, event: 'piece', value });
    try {
      let value;
      if (verb === 'load') value = await load(args, signal, tell);
      else if (verb === 'chat') value = await chat(args, signal, tell, say);
      else if (verb === 'tokenize') value = ready().tokenize(args.text);
      else if (verb === 'count') value = await count(args, signal);
      else if (verb === 'tiling') value = ready().tiling(args.width, args.height, args.maxTiles);
      else if (verb === 'estimate') value = await estimate(args, signal);
      else if (verb === 'dispose') {
        runtime = null;
        value = null;
      }
      port.post({ id, event: 'result', value });
      if (verb === 'dispose') port.close();
    } catch (thrown) {
      const error = PocketVLError.from(thrown);
      // After a trap the module's memory cannot be trusted: the page starts a new worker.
      const fatal = isTrap(thrown);
      if (fatal) runtime = null;
      const wire = fatal ? trap(thrown).toWire() : error.toWire();
      port.post({ id, event: 'error', value: { ...wire, fatal } });
    } finally {
      running.delete(id);
    }
  }

  port.listen((data) => {
    if (isCall(data)) void handle(data);
  });
  port.post({ id: 0, event: 'ready', value: null });
}

/** @param {unknown} thrown */
function isTrap(thrown) {
  return (
    thrown instanceof WebAssembly.RuntimeError || /** @type {any} */ (thrown)?.name === 'ExitStatus'
  );
}

/** @param {unknown} thrown */
function trap(thrown) {
  const { message, stack } = /** @type {Error} */ (thrown);
  return new PocketVLError(
    'WORKER',
    `The engine stopped by a fault of its own (${message}); ask again to start it anew.`,
    {
      details: { trap: stack },
    },
  );
}
