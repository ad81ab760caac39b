// The main path in Firefox as it is shipped, by the same steps as in Chromium. Counted as skipped where there is none.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { serve } from '../../web/serve.mjs';
import { askOnPage, firefox, firefoxPath, modelReady } from './browser.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const SHAPES = join(root, 'web', 'samples', 'shapes.jpg');
const skip = firefoxPath() ? false : 'there is no Firefox on this machine';
const LIMIT = { timeout: 240_000, skip };

/** @type {import('puppeteer-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serve>>} */
let site;

before(async () => {
  if (skip) return;
  site = await serve({ port: 0 });
  browser = await firefox();
});
after(async () => {
  await browser?.close();
  await site?.close();
});

test(
  'first visit, threads, an answer, a second turn; second visit from storage',
  LIMIT,
  async () => {
    const page = await browser.newPage();
    page.setDefaultTimeout(60_000);
    await page.goto(site.url);
    await page.waitForFunction(() => crossOriginIsolated, { timeout: 60_000 });
    await modelReady(page, 90_000);
    const info = await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.info);
    assert.ok(info.threads >= 1);
    assert.equal(info.variant, 'relaxed');
    assert.ok((await askOnPage(page, 'How many shapes are there?', { file: SHAPES })).length > 0);
    assert.ok((await askOnPage(page, 'Describe the picture.')).length > 0);
    const { stats, perTile } = await page.evaluate(() => {
      const { stats, info } = /** @type {any} */ (globalThis).pocketvl;
      return { stats, perTile: info.tokensPerTile };
    });
    assert.ok(stats.reusedTokens >= perTile);
    await page.close();
    const again = await browser.newPage();
    again.setDefaultTimeout(60_000);
    await again.goto(site.url);
    await modelReady(again, 90_000);
    const second = await again.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats);
    assert.equal(second.fromNetwork, 0);
    await askOnPage(again, 'What is this?', { file: fileURLToPath(import.meta.url) });
    assert.equal(
      await again.$eval(
        '.turn:last-of-type .error',
        (box) => /** @type {HTMLElement} */ (box).dataset.code,
      ),
      'IMAGE',
    );
    await again.close();
  },
);

test('a page that is not isolated: one thread, and a running call is stopped', LIMIT, async () => {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  // Outside the service worker's folder there is no isolation on a plain host.
  const other = await serve({ port: 0 });
  await page.goto(`${other.url}icon.svg`);
  const result = await page.evaluate(async () => {
    const { PocketVL } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
    const vl = await PocketVL.load('/models/demo/manifest.json', { kernels: 'scalar' });
    const image = await (await fetch('/samples/word.jpg')).blob();
    const messages = [
      {
        role: 'user',
        content: [
          { type: 'image', image },
          { type: 'text', text: 'What?' },
        ],
      },
    ];
    const controller = new AbortController();
    const code = await vl
      .chat(messages, { signal: controller.signal, onProgress: () => controller.abort() })
      .text()
      .then(
        () => 'done',
        (/** @type {any} */ e) => e.code,
      );
    const text = await vl.chat(messages, { maxTokens: 3 }).text();
    vl.dispose();
    return { code, text, threads: vl.info.threads, isolated: crossOriginIsolated };
  });
  assert.equal(result.isolated, false);
  assert.equal(result.threads, 1);
  assert.equal(result.code, 'ABORTED');
  await page.close();
  await other.close();
});
