// PocketVL in Node.js 20 and newer: the same wasm module in a worker thread. Models and pictures may be paths.
import { readFile, stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { PocketVLError } from '../errors.js';
import { checkManifest, splitUrls } from '../manifest.js';
import { Pictures } from '../messages.js';
import { PocketVL as Base } from '../pocketvl.js';

export * from '../pocketvl.js';

/** @returns {import('../client.js').WorkerHandle} */
function threadWorker() {
  const worker = new Worker(new URL('./worker.js', import.meta.url), { name: 'pocketvl' });
  return {
    post: (message, transfer = []) => worker.postMessage(message, /** @type {any} */ (transfer)),
    onMessage: (listener) => worker.on('message', listener),
    onDeath: (listener) => {
      worker.on('error', (error) => listener(error.message));
      worker.on('exit', (code) => listener(`it ended with code ${code}`));
    },
    terminate: () => void worker.terminate(),
  };
}

/**
 * @template T
 * @param {string} path
 * @param {string} what
 * @param {() => Promise<T>} work
 */
async function opening(path, what, work) {
  try {
    if ((await stat(path)).isDirectory()) throw new Error('it is a folder');
    return await work();
  } catch (error) {
    throw new PocketVLError(
      'IO',
      `The ${what} ${path} cannot be opened: ${/** @type {Error} */ (error).message}.`,
      { cause: error },
    );
  }
}

/**
 * Files of a model on disk: a GGUF file, the first part of a split one, a manifest, or a folder with a manifest.
 * @param {string} path
 */
async function localFiles(path) {
  const folder = await stat(path).then(
    (s) => s.isDirectory(),
    () => false,
  );
  const file = folder ? join(path, 'manifest.json') : path;
  if (file.endsWith('.json')) {
    let json;
    try {
      json = JSON.parse(await readFile(file, 'utf8'));
    } catch (error) {
      throw new PocketVLError(
        'IO',
        `The manifest ${file} cannot be read: ${/** @type {Error} */ (error).message}.`,
      );
    }
    const manifest = checkManifest(json, file);
    const { files: listed, ...about } = manifest;
    const files = listed.map(({ name, parts }) => ({
      name,
      paths: (parts ?? [{ name }]).map((part) => join(dirname(file), part.name)),
    }));
    return { files, about };
  }
  const files = splitUrls(file).map((path) => ({ name: basename(path), paths: [path] }));
  return { files };
}

const isUrl = (/** @type {unknown} */ text) => /^(https?|disk):/i.test(String(text));

/** Pictures of Node.js: an address may be a path. */
class LocalPictures extends Pictures {
  /**
   * @param {string} url
   * @param {AbortSignal | undefined} signal
   */
  async fetch(url, signal) {
    if (/^(https?|blob):/i.test(url)) return super.fetch(url, signal);
    return picture(/^file:/i.test(url) ? fileURLToPath(url) : url); // read anew each time: files change
  }
}

export class PocketVL extends Base {
  /** @internal */
  constructor() {
    super();
    this.pictures = new LocalPictures();
  }

  /**
   * @param {import('../pocketvl.js').ModelSource} source an address, or a path to a GGUF file, manifest or folder
   * @param {import('../pocketvl.js').LoadOptions} [options]
   */
  async loadModel(source, options = {}) {
    const threads = options.threads ?? Math.min(availableParallelism(), 8);
    const posted = await this.posted(source);
    return this.loadPosted(posted, { store: 'none', ...options, threads });
  }

  /**
   * @internal
   * @param {any} source
   */
  async posted(source) {
    const list = Array.isArray(source)
      ? source
      : Array.isArray(source?.files)
        ? source.files
        : [source];
    const local = (/** @type {unknown} */ one) =>
      one instanceof URL ? one.protocol === 'file:' : typeof one === 'string' && !isUrl(one);
    if (!list.length || !list.every(local)) return super.posted(source);
    const paths = list.map((/** @type {unknown} */ one) =>
      one instanceof URL ? fileURLToPath(one) : String(one),
    );
    const models = await Promise.all(paths.map(localFiles));
    const files = models.flatMap((model) => model.files);
    for (const path of files.flatMap((file) => file.paths))
      await opening(path, 'model file', async () => {});
    const about = models.length === 1 ? models[0].about : undefined; // of several models none speaks for all
    return /** @type {any} */ ({ blobs: files, about });
  }
}

/**
 * A picture file for `{ type: 'image', image }`.
 * @param {string} path
 */
export function picture(path) {
  return opening(path, 'picture', async () => new Blob([await readFile(path)]));
}

Base.spawn = threadWorker;
