// What several of the page's tests need: sites to visit, pages that are ready, pictures in the composer.
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { serve } from '../../web/serve.mjs';
import { faultServer } from './faults.mjs';
import { chromium, firefox, modelReady } from './browser.mjs';

/** @typedef {import('puppeteer-core').Browser} Browser */
/** @typedef {import('puppeteer-core').Page} Page */

export const root = fileURLToPath(new URL('../..', import.meta.url));
export const web = join(root, 'web');
export const sample = (/** @type {string} */ name) => join(web, 'samples', `${name}.jpg`);
export const fixture = (/** @type {string} */ name) =>
  join(root, 'tests', 'fixtures', 'image', name);

/**
 * @typedef {object} Visitor
 * @property {'Chromium' | 'Firefox'} name
 * @property {import('node:test').TestContext} t
 * @property {import('puppeteer-core').BrowserContext} context a profile that nobody has used before
 * @property {(url: string, viewport?: import('puppeteer-core').Viewport) => Promise<Page>} open visits the page, until its
 *   model is there
 */

/**
 * For tests that run with one body in Chromium and in Firefox. A file starts each of them once, when it is needed.
 * @param {{args?: string[], prefs?: Record<string, unknown>, downloads?: string, proxy?: number}} [options] `args` of
 *   Chromium, `prefs` of Firefox, the folder where both save what the page hands out, and the port of a proxy on this machine
 *   for https, behind which any certificate will do
 */
export function inBrowsers({ args = [], prefs, downloads, proxy } = {}) {
  /** @type {Map<string, Promise<Browser>>} */
  const started = new Map();
  const saving = downloads
    ? { 'browser.download.folderList': 2, 'browser.download.dir': downloads }
    : {};
  const throughProxy = proxy
    ? {
        args: [`--proxy-server=https=127.0.0.1:${proxy}`, '--ignore-certificate-errors'],
        prefs: {
          'network.proxy.type': 1,
          'network.proxy.ssl': '127.0.0.1',
          'network.proxy.ssl_port': proxy,
        },
      }
    : { args: [], prefs: {} };
  const launch = {
    Chromium: () => chromium({ args: [...args, ...throughProxy.args] }),
    Firefox: () =>
      firefox({
        prefs: { ...saving, ...throughProxy.prefs, ...prefs },
        anyCertificate: proxy !== undefined,
      }),
  };
  after(async () => {
    for (const browser of started.values()) await (await browser.catch(() => null))?.close();
  });
  /**
   * @param {string} what
   * @param {(visitor: Visitor) => Promise<void>} body
   */
  return (what, body) => {
    for (const name of /** @type {const} */ (['Chromium', 'Firefox'])) {
      test(`${name}: ${what}`, { timeout: 240_000 }, async (t) => {
        if (!started.has(name)) started.set(name, launch[name]());
        const browser = await /** @type {Promise<Browser>} */ (started.get(name));
        const context = await browser.createBrowserContext(
          downloads && name === 'Chromium'
            ? { downloadBehavior: { policy: 'allow', downloadPath: downloads } }
            : {},
        );
        try {
          await body({ name, t, context, open: (url, viewport) => visit(context, url, viewport) });
        } finally {
          await context.close();
        }
      });
    }
  };
}

/** The shipped model with other words in its manifest. @param {(manifest: any) => void} change */
function manifestOf(change) {
  const manifest = JSON.parse(readFileSync(join(web, 'models/demo/manifest.json'), 'utf8'));
  change(manifest);
  return JSON.stringify(manifest);
}

/**
 * The page as it is, with a model whose manifest was changed, and others of the same weights beside it.
 * @param {(manifest: any) => void} change
 * @param {Record<string, (manifest: any) => void>} [others] by the names of their folders
 * @param {{files?: Record<string, string>, isolate?: boolean}} [options] further files by their names; whether the host
 *   isolates the page by itself, which makes a first visit one load instead of two
 */
export async function siteWith(change, others = {}, { files = {}, isolate } = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'pocketvl-site-'));
  for (const name of readdirSync(web))
    if (name !== 'models') symlinkSync(join(web, name), join(folder, name));
  for (const [model, differs] of Object.entries({ ...others, demo: change })) {
    const path = join(folder, 'models', model);
    mkdirSync(path, { recursive: true });
    for (const name of readdirSync(join(web, 'models/demo')))
      if (name.endsWith('.gguf')) symlinkSync(join(web, 'models/demo', name), join(path, name));
    writeFileSync(join(path, 'manifest.json'), manifestOf(differs));
  }
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const site = await serve({ port: 0, folder, isolate });
  const close = async () => {
    await site.close();
    rmSync(folder, { recursive: true, force: true });
  };
  return { ...site, folder, close };
}

/** Another host, with the shipped model on it. @param {(manifest: any) => void} [change] */
export async function modelHost(change = () => {}) {
  const host = await faultServer();
  for (const name of readdirSync(join(web, 'models/demo')))
    if (name.endsWith('.gguf'))
      host.paths.set(`/m/${name}`, { body: readFileSync(join(web, 'models/demo', name)) });
  host.paths.set('/m/manifest.json', { body: Buffer.from(manifestOf(change)) });
  return host;
}

/**
 * @param {Browser | import('puppeteer-core').BrowserContext} browser
 * @param {string} url
 * @param {import('puppeteer-core').Viewport} [viewport]
 */
export async function visit(browser, url, viewport = { width: 1000, height: 800 }) {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  await page.setViewport(viewport);
  await page.goto(url);
  await isolated(page);
  await modelReady(page);
  return page;
}

/** @param {Page} page */
export const isolated = (page) =>
  page.waitForFunction(() => crossOriginIsolated, { timeout: 30_000 });

/**
 * From its next load on the page gives up soon: how long it goes on trying is the library's own affair.
 * @param {Page} page
 */
export const lessPatience = (page) =>
  page.evaluateOnNewDocument(() => {
    /** @type {any} */
    let engine;
    Object.defineProperty(globalThis, 'pocketvl', {
      get: () => engine,
      set(vl) {
        engine = vl;
        const load = vl.loadModel;
        const patience = { tries: 3, base: 50, longest: 100, stall: 30_000 };
        vl.loadModel = (/** @type {any} */ source, /** @type {any} */ options) =>
          load.call(vl, source, { ...options, patience });
      },
    });
  });

/** Reloads as a person does, and waits for the new page. @param {Page} page */
export async function reload(page) {
  await page.evaluate(() => {
    Object.assign(globalThis, { before: true });
    location.reload();
  });
  await page.waitForFunction(() => !('before' in globalThis) && crossOriginIsolated, {
    timeout: 30_000,
  });
  await modelReady(page);
}

/**
 * The settings, where they are going to stay: a click on the way there, or before the list of models is there, would meet
 * something else.
 * @param {Page} page
 */
export async function openSettings(page) {
  await page.click('#open-settings');
  await page.waitForSelector('#settings[open]');
  await page.waitForSelector('#models li');
  await page.waitForFunction(() => document.querySelector('#room')?.textContent);
  await page.$eval('#settings', (box) =>
    Promise.all(box.getAnimations({ subtree: true }).map((moving) => moving.finished)),
  );
}

/** @param {Page} page @param {...string} files */
export async function attach(page, ...files) {
  const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
    await page.$('#file')
  );
  const before = (await page.$$('#pictures li')).length;
  await input.uploadFile(...files);
  await page.waitForFunction(
    (n) => document.querySelectorAll('#pictures li').length === n,
    {},
    before + files.length,
  );
}

/** @param {Page} page */
export const answered = (page) =>
  page.waitForFunction(
    () => document.querySelector('.turn') && !document.querySelector('.answering'),
  );

/**
 * Gives files as a drop or a paste does: to the window, without a file input.
 * @param {Page} page
 * @param {'drop' | 'paste'} way
 * @param {{name: string, type?: string, from?: string, text?: string}[]} files their bytes `from` the site, or a text
 * @returns {Promise<boolean>} whether the page showed, before the drop, that a picture can be let go
 */
export const give = (page, way, files) =>
  page.evaluate(
    async (how, list) => {
      const data = new DataTransfer();
      for (const { name, type = 'image/jpeg', from, text = '' } of list) {
        const bytes = from ? await (await fetch(from)).blob() : text;
        data.items.add(new File([bytes], name, { type }));
      }
      if (how === 'paste') {
        // Browsers differ in what the constructor of a ClipboardEvent takes.
        const event = new Event('paste', { bubbles: true, cancelable: true });
        Object.defineProperty(event, 'clipboardData', { value: data });
        window.dispatchEvent(event);
        return true;
      }
      window.dispatchEvent(new DragEvent('dragenter', { dataTransfer: data }));
      const shown = !(/** @type {HTMLElement} */ (document.querySelector('#curtain')).hidden);
      window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
      return shown;
    },
    way,
    files,
  );

/**
 * Answers as if by the model: what it says is given, how it is shown is tested.
 * @param {Page} page
 * @param {string[]} pieces
 * @param {Record<string, any>} [stats]
 */
export const answerWith = (page, pieces, stats = {}) =>
  page.evaluate(
    (said, figures) => {
      const { pocketvl } = /** @type {any} */ (globalThis);
      pocketvl.chat = () => ({
        stop: 'end',
        stats: { generatedTokens: said.length, tiles: 0, ...figures },
        pictures: [],
        async *[Symbol.asyncIterator]() {
          yield* said;
        },
      });
    },
    pieces,
    stats,
  );

/** Question, answer and number of pictures of each turn, as shown. @param {Page} page */
export const turnsOf = (page) =>
  page.$$eval('.turn', (turns) =>
    turns.map((turn) => ({
      question: turn.querySelector('.bubble')?.textContent ?? '',
      answer: turn.querySelector('.words')?.textContent ?? '',
      pictures: turn.querySelectorAll('.asked .shot img').length,
    })),
  );
