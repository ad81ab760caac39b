// The main path in Firefox as it is shipped.
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { firefoxPath } from '../../wasm/tools/browsers.mjs';
import { RELAXED } from '../../wasm/tools/shell.mjs';
import { chromium, firefox } from './browser.mjs';
import { mainPath, puppeteerVisitor, referenceAnswers } from './main_path.mjs';

const LIMIT = { timeout: 300_000 };

/** @type {import('puppeteer-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serve>>} */
let site;

before(async () => {
  assert.ok(firefoxPath(), 'There is no Firefox on this machine: apt-get install firefox-esr.');
  site = await serve({ port: 0 });
  browser = await firefox();
}, LIMIT);
after(async () => {
  await browser?.close();
  await site?.close();
}, LIMIT);

test('the main path with all that it offers, answers equal to Chromium’s', LIMIT, async () => {
  const { info, answers } = await mainPath(puppeteerVisitor(browser), site.url);
  const page = await browser.newPage();
  const relaxed = await page.evaluate(
    (module) => WebAssembly.validate(new Uint8Array(module)),
    [...RELAXED],
  );
  await page.close();
  assert.equal(info.variant, relaxed ? 'relaxed' : 'simd'); // an older ESR has none
  assert.ok(info.threads >= 1);
  const other = await chromium();
  try {
    assert.deepEqual(answers, await referenceAnswers(other, site.url, info.variant));
  } finally {
    await other.close();
  }
});

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
    await vl.loadModel('/models/demo/manifest.json'); // quicker than the plain loops
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
