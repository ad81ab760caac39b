// The private file system as a store, in Chromium: the same suite as the other stores, and the library's way through it.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { after, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { chromium } from './browser.mjs';

const LIMIT = { timeout: 120_000 };

/** @type {import('puppeteer-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serve>>} */
let site;

before(async () => {
  site = await serve({ port: 0, isolate: true });
  browser = await chromium();
}, LIMIT);
after(async () => {
  await browser?.close();
  await site?.close();
}, LIMIT);

async function open() {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(`${site.url}samples/samples.json`);
  return page;
}

/** In a worker, where files are read and written synchronously, and in a page, where they are not. */
for (const where of ['worker', 'page']) {
  test(`the private file system conforms as a store, in a ${where}`, LIMIT, async () => {
    const page = await open();
    const suite = readFileSync(new URL('store_conformance.mjs', import.meta.url), 'utf8');
    const failure = await page.evaluate(
      async (text, place) => {
        const source = `${text}
          const assert = {
            equal(a, b, m = '') { if (!Object.is(a, b)) throw new Error(a + ' is not ' + b + ' ' + m); },
            deepEqual(a, b, m = '') {
              const plain = (v) => JSON.stringify(v, (_, x) => x && typeof x === 'object' && !Array.isArray(x)
                ? Object.fromEntries(Object.entries(x).sort()) : x);
              if (plain(a) !== plain(b)) throw new Error(plain(a) + ' is not ' + plain(b) + ' ' + m);
            } };
          export const run = async () => {
            const { opfsStore } = await import('${location.origin}/lib/store_opfs.js');
            return storeConformance(await opfsStore('conformance-${place}'), assert).then(() => '', String);
          };
          if (typeof window === 'undefined') run().then((result) => postMessage(result), (e) => postMessage(String(e)));`;
        const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
        if (place === 'page') return (await import(url)).run();
        return new Promise((done) => {
          const worker = new Worker(url, { type: 'module' });
          worker.onmessage = ({ data }) => done(data);
          worker.onerror = (event) => done(event.message);
        });
      },
      suite,
      where,
    );
    assert.equal(failure, '');
    await page.close();
  });
}

test(
  'a model in the private file system: stored, read again, listed, checked, exported, deleted',
  LIMIT,
  async () => {
    const page = await open();
    const result = await page.evaluate(async () => {
      const { PocketVL, models } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      const visit = async () => {
        const vl = await PocketVL.load('/models/demo/manifest.json', { store: 'opfs' });
        const { stored } = vl.info;
        const { fromNetwork, fromStore } = vl.stats;
        vl.dispose();
        return { stored, fromNetwork, fromStore };
      };
      const first = await visit();
      const second = await visit();
      const list = await models.list();
      const { key } = list[0];
      const verified = await models.verify(key);
      const [file] = await models.export(key);
      await models.delete(key);
      return { first, second, list, verified, size: file.blob.size, after: await models.list() };
    });
    assert.equal(result.first.stored, true);
    assert.ok(result.first.fromNetwork > 1e6);
    assert.deepEqual(result.second, {
      stored: true,
      fromNetwork: 0,
      fromStore: result.first.fromNetwork,
    });
    assert.equal(result.list.length, 1);
    assert.equal(result.list[0].storedBytes, result.first.fromNetwork);
    assert.deepEqual(result.verified, { damaged: 0 });
    assert.equal(result.size, result.first.fromNetwork);
    assert.deepEqual(result.after, []);
    await page.close();
  },
);
