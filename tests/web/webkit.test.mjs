// The main path in WebKitGTK as it is shipped: no threads and no relaxed SIMD, so the fallbacks for real.
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { miniBrowserPath } from '../../wasm/tools/browsers.mjs';
import { chromium } from './browser.mjs';
import { mainPath, referenceAnswers, webdriverVisitor } from './main_path.mjs';
import { webkit } from './webkit.mjs';

const LIMIT = { timeout: 300_000 };

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
/** @type {Awaited<ReturnType<typeof webkit>>} */
let session;

before(async () => {
  assert.ok(
    miniBrowserPath(),
    'There is no WebKitGTK on this machine: apt-get install webkit2gtk-driver xvfb.',
  );
  site = await serve({ port: 0 });
  session = await webkit();
}, LIMIT);
after(async () => {
  await session?.close();
  await site?.close();
}, LIMIT);

test('the main path on one thread and plain SIMD, answers equal to Chromium’s', LIMIT, async () => {
  const { info, answers } = await mainPath(webdriverVisitor(session.driver), site.url);
  assert.equal(info.variant, 'simd');
  assert.equal(info.threads, 1);
  const browser = await chromium();
  try {
    assert.deepEqual(answers, await referenceAnswers(browser, site.url, 'simd'));
  } finally {
    await browser.close();
  }
});
