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

/** The browsers that a test body is run in. */
export const BROWSERS = /** @type {const} */ ([
  ['Chromium', chromium],
  ['Firefox', firefox],
]);

/** The shipped model with other words in its manifest. @param {(manifest: any) => void} change */
function manifestOf(change) {
  const manifest = JSON.parse(readFileSync(join(web, 'models/demo/manifest.json'), 'utf8'));
  change(manifest);
  return JSON.stringify(manifest);
}

/**
 * The page as it is, with a model whose manifest was changed.
 * @param {(manifest: any) => void} change
 */
export async function siteWith(change) {
  const folder = mkdtempSync(join(tmpdir(), 'pocketvl-site-'));
  for (const name of readdirSync(web))
    if (name !== 'models') symlinkSync(join(web, name), join(folder, name));
  const model = join(folder, 'models', 'demo');
  mkdirSync(model, { recursive: true });
  for (const name of readdirSync(join(web, 'models/demo')))
    if (name.endsWith('.gguf')) symlinkSync(join(web, 'models/demo', name), join(model, name));
  writeFileSync(join(model, 'manifest.json'), manifestOf(change));
  const site = await serve({ port: 0, folder });
  const close = async () => {
    await site.close();
    rmSync(folder, { recursive: true, force: true });
  };
  return { ...site, close };
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

/** Question, answer and number of pictures of each turn, as shown. @param {Page} page */
export const turnsOf = (page) =>
  page.$$eval('.turn', (turns) =>
    turns.map((turn) => ({
      question: turn.querySelector('.bubble')?.textContent ?? '',
      answer: turn.querySelector('.words')?.textContent ?? '',
      pictures: turn.querySelectorAll('.asked .shot img').length,
    })),
  );
