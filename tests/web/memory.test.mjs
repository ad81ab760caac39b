// What a load needs of memory, over a model of more than 200 MB made for the run, through the library as a page uses it: the
// JavaScript heap of page and workers is sampled by the DevTools protocol, the engine's memory is looked through for the
// last byte that was ever written. The same over a whole gigabyte: npm run bench -- --load --model 2b
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { visit } from '../bench/load.mjs';
import { makeModel } from '../bench/make_model.mjs';
import { serve } from '../../web/serve.mjs';
import { chromium } from './browser.mjs';

const LIMIT = { timeout: 300_000 };
const MB = 1e6;
const folder = mkdtempSync(join(tmpdir(), 'pocketvl-memory-'));

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
/** @type {number} */
let bytes;

before(async () => {
  const web = fileURLToPath(new URL('../../web', import.meta.url));
  for (const name of ['lib', 'vendor', 'wasm', 'samples'])
    symlinkSync(join(web, name), join(folder, name));
  // Two layers: nearly all of it are the two large matrices of the vocabulary, the largest tensors of the real models.
  const { manifest } = await makeModel('1b', join(folder, 'made'), { noVision: true, layers: 2 });
  bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
  site = await serve({ port: 0, folder, isolate: true });
}, LIMIT);
after(async () => {
  await site?.close();
  rmSync(folder, { recursive: true, force: true });
}, LIMIT);

test('no visit holds the model in JavaScript, and the engine needs it once', LIMIT, async (t) => {
  assert.ok(bytes > 200 * MB, `${bytes} bytes`);
  const browser = await chromium();
  t.after(() => browser.close());
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(`${site.url}samples/samples.json`);
  for (const name of ['first visit', 'second visit']) {
    const result = await visit(page, `${site.url}made/manifest.json`, { heap: true });
    t.diagnostic(
      `${name}: ${(bytes / MB).toFixed(0)} MB, JavaScript heap grew by at most ${(result.heapGrowth / MB).toFixed(1)} MB ` +
        `(with the browser's own objects, such as Blobs being stored, ${(result.allGrowth / MB).toFixed(1)} MB) ` +
        `in ${result.samples} samples, wasm touched up to ${(result.touched / MB).toFixed(0)} MB ` +
        `(weights ${(result.weights / MB).toFixed(0)} MB, session ${(result.session / MB).toFixed(0)} MB)`,
    );
    assert.equal(result[name === 'first visit' ? 'fromNetwork' : 'fromStore'], bytes);
    assert.ok(result.samples >= 3, `${result.samples} samples`);
    assert.ok(result.heapGrowth < 64 * MB, `the heap grew by ${result.heapGrowth}`);
    assert.ok(result.allGrowth < 128 * MB, `with Blobs it grew by ${result.allGrowth}`);
    // The head of the file with its vocabulary, and the engine's own data, are no weights.
    const most = result.weights + result.session + 48 * MB;
    assert.ok(
      result.touched < most,
      `${result.touched} bytes were touched, at most ${most} expected`,
    );
  }
});
