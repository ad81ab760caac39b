// What a browser does to a page that runs for long: memory is refused in the middle of a load, the worker is killed
// between two tokens, the tab is frozen and comes back.
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from '../../web/serve.mjs';
import { chromium } from './browser.mjs';

const LIMIT = { timeout: 240_000 };

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
before(async () => {
  site = await serve({ port: 0, isolate: true });
}, LIMIT);
after(() => site?.close(), LIMIT);

/** @param {import('puppeteer-core').Browser} browser */
async function libraryPage(browser) {
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(`${site.url}samples/samples.json`);
  await page.evaluate(async () => {
    const { PocketVL } = await import(new URL('/lib/pocketvl.js', location.href).href);
    const w = /** @type {any} */ (globalThis);
    w.PocketVL = PocketVL;
    w.load = (/** @type {any} */ options) => PocketVL.load('/models/demo/manifest.json', options);
    w.ask = async (/** @type {any} */ vl, /** @type {any} */ options = {}) => {
      const image = await (await fetch('/samples/shapes.jpg')).blob();
      const text = 'How many shapes are there?';
      const content = [
        { type: 'image', image },
        { type: 'text', text },
      ];
      return vl.chat([{ role: 'user', content }], { maxTokens: 12, ...options });
    };
    w.failure = (/** @type {Promise<any>} */ promise) =>
      promise.then(
        () => ({ code: 'none', message: '' }),
        (/** @type {any} */ e) => ({ code: String(e.code), message: String(e.message) }),
      );
  });
  return page;
}

test(
  'memory is refused in the middle of a load: one error, and less is loaded afterwards',
  LIMIT,
  async () => {
    const browser = await chromium();
    try {
      const page = await libraryPage(browser);
      await page.evaluate(async () => {
        const w = /** @type {any} */ (globalThis);
        w.vl = new w.PocketVL();
        w.vl.client.start();
        await w.vl.client.started;
      });
      // From here on the browser gives the worker no memory beyond 34 MB, whatever it asks for.
      const worker = page.workers().find((one) => /worker\.js/.test(one.url()));
      assert.ok(worker);
      await worker.evaluate(() => {
        const { Memory } = WebAssembly;
        const small = function () {
          return new Memory({ initial: 512, maximum: 520, shared: true });
        };
        Object.defineProperty(WebAssembly, 'Memory', { value: small });
      });
      const { refused, answer } = await page.evaluate(async () => {
        const { vl, ask, failure } = /** @type {any} */ (globalThis);
        const model = '/models/demo/manifest.json';
        const refused = await failure(vl.loadModel(model, { precision: 'f32', threads: 2 }));
        await vl.loadModel(model, { context: 512, threads: 2 });
        const answer = await (await ask(vl)).text();
        return { refused, answer };
      });
      assert.equal(refused.code, 'MEMORY', refused.message);
      assert.match(refused.message, /memory/i);
      assert.ok(answer.length > 0);
      const late = Date.now() + 20_000; // the browser tells of a worker's end when it comes to it
      while (page.workers().includes(worker) && Date.now() < late) await sleep(50);
      assert.ok(!page.workers().includes(worker), 'what the refused load had taken is given back');
    } finally {
      await browser.close();
    }
  },
);

test(
  'the worker is killed between two tokens: an error, and the next question brings the model back',
  LIMIT,
  async () => {
    const browser = await chromium();
    try {
      const page = await libraryPage(browser);
      const expected = await page.evaluate(async () => {
        const { load, ask } = /** @type {any} */ (globalThis);
        const w = /** @type {any} */ (globalThis);
        w.vl = await load({});
        return (await ask(w.vl)).text();
      });
      await page.evaluate(async () => {
        const w = /** @type {any} */ (globalThis);
        // Drawn wildly it does not end soon; its first piece says that tokens are coming.
        const answer = await w.ask(w.vl, { maxTokens: 400, temperature: 2, seed: 5 });
        w.ended = w.failure(answer.text());
        // Ended as by the system, at its first piece: no event tells the page.
        const read = async () => {
          for await (const piece of answer) if (piece) w.vl.client.worker.terminate();
        };
        read().catch(() => {});
      });
      const { ended, again, fromNetwork } = await page.evaluate(async () => {
        const w = /** @type {any} */ (globalThis);
        const ended = await w.ended;
        const again = await (await w.ask(w.vl)).text();
        return { ended, again, fromNetwork: w.vl.stats.fromNetwork };
      });
      assert.equal(ended.code, 'WORKER', ended.message);
      assert.match(ended.message, /starts it again/);
      assert.equal(again, expected);
      assert.ok(!fromNetwork);
    } finally {
      await browser.close();
    }
  },
);

test('a frozen tab goes on where it stopped', LIMIT, async () => {
  const browser = await chromium();
  try {
    const page = await libraryPage(browser);
    const devtools = await page.createCDPSession();
    const expected = await page.evaluate(async () => {
      const w = /** @type {any} */ (globalThis);
      w.vl = await w.load({});
      return (await w.ask(w.vl, { maxTokens: 40, temperature: 1.5, seed: 3 })).text();
    });
    await page.evaluate(async () => {
      const w = /** @type {any} */ (globalThis);
      const answer = await w.ask(w.vl, { maxTokens: 40, temperature: 1.5, seed: 3 });
      w.said = answer.text();
    });
    await devtools.send('Page.setWebLifecycleState', { state: 'frozen' });
    await new Promise((go) => setTimeout(go, 1500));
    await devtools.send('Page.setWebLifecycleState', { state: 'active' });
    const { said, next } = await page.evaluate(async () => {
      const w = /** @type {any} */ (globalThis);
      return { said: await w.said, next: await (await w.ask(w.vl)).text() };
    });
    assert.equal(said, expected);
    assert.ok(next.length > 0);
  } finally {
    await browser.close();
  }
});
