// build/site on the plainest of hosts, in a subfolder: no header but types, no byte ranges.
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MOST_BYTES, filesOf } from '../../wasm/tools/site.mjs';
import { publish } from '../../web/lib/node/cli/publish.js';
import { askOnPage, chromium, modelReady } from './browser.mjs';
import { plainServer } from './plain.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const work = mkdtempSync(join(tmpdir(), 'pocketvl-site-'));
const folder = join(work, 'site');
/** @type {import('puppeteer-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof plainServer>>} */
let host;

before(async () => {
  cpSync(join(root, 'build', 'site'), folder, { recursive: true });
  // As the README says: a model of one's own beside it.
  await publish([join(root, 'web/models/demo')], join(folder, 'models/mine'), {
    partSize: 3 << 19,
  });
  host = await plainServer(folder, { path: '/some/where/' });
  browser = await chromium();
});

after(async () => {
  await browser?.close();
  await host?.close();
  rmSync(work, { recursive: true, force: true });
});

test('the folder holds the page, and nothing that hosts refuse or visitors do not need', () => {
  const files = filesOf(folder);
  for (const name of [
    'index.html',
    'sw.js',
    'LICENSE',
    'lib/worker.js',
    'wasm/pocketvl-simd.wasm',
    'models/demo/manifest.json',
  ]) {
    assert.ok(files.includes(name), name);
  }
  assert.deepEqual(
    files.filter((name) => statSync(join(folder, name)).size > MOST_BYTES),
    [],
  );
  assert.deepEqual(
    files.filter((name) => /\.(ts|md|map)$|^lib\/node|^(types|examples)\/|(^|\/)\./.test(name)),
    [],
  );
  for (const name of files.filter((path) => /\.(html|css|webmanifest)$/.test(path))) {
    const text = readFileSync(join(folder, name), 'utf8');
    assert.doesNotMatch(
      text,
      /(?:src|href|url)\s*[=:(]\s*["']?\/(?!\/)/,
      `${name} has an address from the root`,
    );
  }
});

test('in a subfolder of a plain host: isolated by the service worker, and a question is answered', async () => {
  const page = await browser.newPage();
  await page.goto(host.url);
  await page.waitForFunction(() => globalThis.crossOriginIsolated, { timeout: 60_000 });
  await modelReady(page);
  const words = await askOnPage(page, 'How many shapes are there?', {
    file: join(root, 'web/samples/three.jpg'),
  });
  assert.match(words, /\S/);
  await page.close();
});

test("a model published beside it is loaded by the page's library, in parts and without byte ranges", async () => {
  const page = await browser.newPage();
  await page.goto(host.url);
  const found = await page.evaluate(async () => {
    const lib = './lib/pocketvl.js';
    const { PocketVL } = await import(new URL(lib, location.href).href);
    const vl = await PocketVL.load('models/mine/manifest.json');
    const ids = await vl.tokenize('Hello');
    const again = await PocketVL.load('models/mine/manifest.json');
    const result = {
      ids,
      first: vl.stats.fromNetwork,
      second: again.stats.fromNetwork,
      threads: vl.info.threads,
    };
    vl.dispose();
    again.dispose();
    return result;
  });
  assert.ok(found.ids.length > 0);
  assert.equal(found.first, statSync(join(folder, 'models/demo/pocketvl-demo.gguf')).size);
  assert.equal(found.second, 0);
  await page.close();
});

test('every address that was asked for is in the folder', () => {
  assert.ok(host.log.length > 10);
  assert.ok(
    host.log.every(({ path }) => path.startsWith('/some/where/') || path === '/favicon.ico'),
  );
  const missing = host.log.filter(({ status, path }) => status !== 200 && path !== '/favicon.ico');
  assert.deepEqual(missing, []);
});
