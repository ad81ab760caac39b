// Where a benchmark happens: an isolated local page in headless Chromium, and model files in a cache.
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import puppeteer from 'puppeteer-core';
import { environment, root, which } from '../../wasm/tools/shell.mjs';
import { serve } from '../../web/serve.mjs';
import { makeModel } from './make_model.mjs';

/** @typedef {import('./options.mjs').Options} Options */
/**
 * @typedef {object} Model
 * @property {string} name
 * @property {string} folder
 * @property {'f32' | 'q8'} kvType what its manifest asks for
 * @property {string[]} paths
 * @property {{url: string, name: string, bytes: number}[]} files
 * @property {number} bytes of all files
 */

const here = join(root, 'tests', 'bench');

/**
 * The model's files, made if they are not there yet. What an older version of the generator made is removed.
 * @param {'1b' | '2b' | '4b' | 'demo' | 'folder'} name
 * @param {Options} options
 * @param {(text: string) => void} say
 * @returns {Promise<Model>}
 */
export async function provideModel(name, options, say) {
  let folder = options.folder || join(root, 'web', 'models', 'demo');
  if (name !== 'demo' && name !== 'folder') {
    const hash = createHash('sha256');
    for (const file of ['gguf', 'vocabulary', 'make_model']) {
      hash.update(readFileSync(join(here, `${file}.mjs`)));
    }
    const stem = `${name}-${options.type}-${options.vision}-`;
    const wanted = stem + hash.digest('hex').slice(0, 8);
    for (const old of readdirSync(options.cache)) {
      if (old.startsWith(stem) && old !== wanted)
        rmSync(join(options.cache, old), { recursive: true });
    }
    folder = join(options.cache, wanted);
    if (!existsSync(join(folder, 'manifest.json'))) {
      say(`  making the ${name} model ...`);
      await makeModel(name, folder, { type: options.type, vision: options.vision, pair: true });
    }
  }
  const manifest = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'));
  const files = manifest.files.map((/** @type {{name: string, bytes: number}} */ file) => ({
    url: `/model/${file.name}`,
    name: file.name,
    bytes: file.bytes,
  }));
  return {
    name: name === 'folder' ? manifest.name : name,
    kvType: manifest.settings?.kvType ?? (name === '4b' ? 'q8' : 'f32'),
    folder,
    paths: files.map((/** @type {{name: string}} */ file) => join(folder, file.name)),
    files,
    bytes: files.reduce(
      (/** @type {number} */ sum, /** @type {{bytes: number}} */ file) => sum + file.bytes,
      0,
    ),
  };
}

/** VmHWM of the browser's largest page process, 0 where /proc does not tell. @param {number} pid of the browser */
function largestRenderer(pid) {
  if (!existsSync('/proc/self/status')) return 0;
  /** @type {Map<number, number[]>} */
  const children = new Map();
  let most = 0;
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const parent = Number(
        /^PPid:\s*(\d+)/m.exec(readFileSync(`/proc/${name}/status`, 'utf8'))?.[1],
      );
      children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
    } catch {
      // gone in the meantime
    }
  }
  for (const queue = [pid]; queue.length;) {
    const id = /** @type {number} */ (queue.pop());
    queue.push(...(children.get(id) ?? []));
    try {
      const command = readFileSync(`/proc/${id}/cmdline`, 'latin1');
      if (!command.includes('--type=renderer')) continue;
      const peak = /^VmHWM:\s*(\d+) kB/m.exec(readFileSync(`/proc/${id}/status`, 'utf8'));
      most = Math.max(most, Number(peak?.[1] ?? 0) * 1024);
    } catch {
      // gone in the meantime
    }
  }
  return most;
}

/**
 * @typedef {object} Stage
 * @property {string} browser name and version
 * @property {(name: string, ...args: any[]) => Promise<any>} call a function of the page's `bench`
 * @property {(model: Model) => void} serveModel puts its folder at /model/
 * @property {(folder: string, name: string) => void} mount puts a folder at /NAME/
 * @property {(path: string) => Promise<import('puppeteer-core').Page>} newPage
 * @property {() => Promise<void>} reload a fresh page, and with it a fresh process
 * @property {() => number} rendererPeak most memory of a page's process so far, bytes
 * @property {() => Promise<void>} close
 */

/**
 * @param {Options} options
 * @returns {Promise<Stage>}
 */
export async function browse(options) {
  const needed = {
    modules: join(options.modules, 'pocketvl-relaxed.wasm'),
    ceilings: options.ceilings,
  };
  for (const [what, file] of Object.entries(needed)) {
    if (!existsSync(file))
      throw new Error(`The ${what} are not built: ${file} is missing; run npm run build.`);
  }
  const chromium = process.env.CHROMIUM || which('chromium') || which('google-chrome');
  if (!chromium)
    throw new Error('Chromium was not found: run npm run setup, or name it in $CHROMIUM.');
  const folder = mkdtempSync(join(tmpdir(), 'pocketvl-bench-'));
  const link = (/** @type {string} */ target, /** @type {string} */ name) => {
    rmSync(join(folder, name), { force: true });
    symlinkSync(resolve(target), join(folder, name));
  };
  link(join(here, 'page'), 'page');
  link(join(root, 'web', 'lib'), 'lib');
  link(join(root, 'web', 'vendor'), 'vendor');
  link(options.modules, 'wasm');
  link(options.ceilings, 'ceilings.wasm');
  const server = await serve({ folder, port: 0, isolate: true });
  const profile = join(folder, '.profile');
  mkdirSync(profile);
  const browser = await puppeteer.launch({
    executablePath: chromium,
    ignoreDefaultArgs: true,
    protocolTimeout: 3_600_000,
    handleSIGINT: false,
    handleSIGTERM: false,
    env: environment(),
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--disable-renderer-backgrounding',
      '--disable-background-timer-throttling',
      '--remote-debugging-port=0',
      `--user-data-dir=${profile}`,
      'about:blank',
    ],
  });
  const newPage = async (/** @type {string} */ path) => {
    const page = await browser.newPage();
    page.on('pageerror', (error) =>
      process.stderr.write(`  page: ${/** @type {Error} */ (error).message}\n`),
    );
    if (process.env.DEBUG)
      page.on('console', (message) => process.stderr.write(`  page: ${message.text()}\n`));
    await page.goto(server.url + path);
    return page;
  };
  /** @type {import('puppeteer-core').Page} */
  let page;
  const reload = async () => {
    await page?.close();
    page = await newPage('page/index.html');
    await page.waitForFunction(() => 'bench' in globalThis, { timeout: 30_000 });
    const state = await page.evaluate(() => globalThis.crossOriginIsolated);
    if (!state) throw new Error('The page is not cross-origin isolated.');
  };
  let closed = false;
  const close = async () => {
    if (closed) return;
    closed = true;
    // A page that computes may not let the browser end in order.
    const late = setTimeout(() => browser.process()?.kill('SIGKILL'), 5000);
    await browser.close().catch(() => undefined);
    clearTimeout(late);
    await server.close();
    rmSync(folder, { recursive: true, force: true });
  };
  for (const signal of /** @type {NodeJS.Signals[]} */ (['SIGINT', 'SIGTERM'])) {
    process.once(signal, () => void close().finally(() => process.exit(1)));
  }
  try {
    await reload();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    browser: await browser.version(),
    call: (name, ...args) =>
      page.evaluate(
        (verb, values) => /** @type {any} */ (globalThis).bench[verb](...values),
        name,
        args,
      ),
    serveModel: (model) => link(model.folder, 'model'),
    mount: link,
    newPage,
    reload,
    rendererPeak: () => largestRenderer(browser.process()?.pid ?? 0),
    close,
  };
}

/** Size of a file, 0 where there is none. @param {string} path */
export const sizeOf = (path) => (existsSync(path) ? statSync(path).size : 0);
