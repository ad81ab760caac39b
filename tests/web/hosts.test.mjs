// Where the page may connect to: its own host, and for a model one more that the person has named. Enforced by the
// browser, shown by servers that write down who asked.
import assert from 'node:assert/strict';
import { after, afterEach, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { askOnPage, modelReady, press } from './browser.mjs';
import { attach, inBrowsers, modelHost, openSettings, reload, sample } from './pages.mjs';

/** What a browser looks at by itself, to learn whether the service worker has changed; it carries nothing. */
const LOOKS = ['/sw.js', '/precache.js', '/page/policy.js'];

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
/** @type {string[]} */
const asked = [];
/** Other hosts of a test, which end with it. @type {Awaited<ReturnType<typeof modelHost>>[]} */
let hosts = [];

before(async () => {
  site = await serve({ port: 0 });
  site.server.on('request', (request) => asked.push(String(request.url)));
});
after(() => site?.close());
afterEach(async () => {
  for (const host of hosts) await host.close();
  hosts = [];
});
/** @param {(manifest: any) => void} [change] */
async function otherHost(change) {
  const host = await modelHost(change);
  hosts.push(host);
  return host;
}

const both = inBrowsers();

/** @param {import('puppeteer-core').Page} page @param {string} address */
async function openAddress(page, address) {
  await openSettings(page);
  await page.$eval('#model-url', (input) => {
    /** @type {HTMLInputElement} */ (input).value = '';
  });
  await page.type('#model-url', address);
  await page.keyboard.press('Enter');
}

both(
  'after the load no request leaves the page: pictures, questions, reloads of answers, export',
  async ({ open }) => {
    const page = await open(site.url);
    await page.waitForFunction(() => {
      const images = /** @type {HTMLImageElement[]} */ ([
        ...document.querySelectorAll('#samples img'),
      ]);
      for (const image of images) image.loading = 'eager'; // those out of sight come now, too
      return images.length > 0 && images.every(({ complete }) => complete);
    });
    asked.length = 0;
    /** @type {string[]} */
    const requests = [];
    page.on('request', (r) => {
      if (!/^(blob|data):/.test(r.url())) requests.push(r.url());
    });
    await attach(page, sample('shapes'), sample('word'));
    await askOnPage(page, 'What does it say?');
    await askOnPage(page, 'How many shapes are there?');
    await press(page, 'Another answer');
    await page.waitForFunction(() => !document.querySelector('.answering'));
    await page.click('.turn:last-of-type .figures summary');
    await page.click('#export summary');
    await page.click('#export-markdown');
    await page.click('#new-chat');
    assert.deepEqual(requests, []);
    assert.deepEqual(
      asked.filter((path) => !LOOKS.includes(path)),
      [],
    );
  },
);

both(
  'a model from another host: refused, then allowed by the person, remembered, taken back',
  async ({ name, open }) => {
    const host = await otherHost((manifest) => (manifest.title = 'From elsewhere'));
    const third = await otherHost();
    const page = await open(site.url);
    const reaches = (/** @type {string} */ url) =>
      page.evaluate(
        (address) =>
          fetch(`${address}/m/manifest.json`).then(
            () => true,
            () => false,
          ),
        url,
      );
    assert.equal(await reaches(host.url), false);
    await openAddress(page, `${host.url}/m/manifest.json`);
    await page.waitForSelector('#host-dialog[open]');
    assert.ok((await page.$eval('#host-words', (p) => p.textContent ?? '')).includes(host.url));
    await page.click('#host-cancel');
    assert.deepEqual(host.log, [], 'nothing was asked before the person said so');
    await page.click('#load-url');
    await page.waitForSelector('#host-dialog[open]');
    await page.evaluate(() => Object.assign(globalThis, { before: true }));
    await page.click('#host-allow');
    await page.waitForFunction(() => !('before' in globalThis) && crossOriginIsolated);
    await modelReady(page);
    assert.match(await page.$eval('#status-text', (e) => e.textContent ?? ''), /From elsewhere/);
    assert.ok(host.log.length > 0);
    const policies = await page.evaluate(async () =>
      Promise.all(
        ['./', 'lib/worker.js'].map(
          async (path) => (await fetch(path)).headers.get('content-security-policy') ?? '',
        ),
      ),
    );
    for (const policy of policies)
      assert.match(policy, new RegExp(`connect-src 'self' blob: ${host.url};`));
    assert.equal(await reaches(host.url), true);
    assert.equal(await reaches(third.url), false, 'that host alone');
    if (name === 'Chromium') {
      // From inside the engine's worker, which Chromium's protocol reaches.
      const [worker] = page
        .workers()
        .filter((w) => w.url().endsWith('/lib/worker.js'))
        .slice(-1);
      const fromWorker = await worker.evaluate(
        (address) =>
          fetch(`${address}/m/manifest.json`).then(
            () => true,
            () => false,
          ),
        third.url,
      );
      assert.equal(fromWorker, false);
    }
    assert.deepEqual(third.log, []);

    // The next visit: remembered, from storage, no request.
    host.log.length = 0;
    await reload(page);
    assert.match(await page.$eval('#status-text', (e) => e.textContent ?? ''), /From elsewhere/);
    assert.deepEqual(
      host.log.filter((entry) => /** @type {any} */ (entry).path.endsWith('.gguf')),
      [],
    );
    assert.ok(
      (await askOnPage(page, 'How many shapes are there?', { file: sample('shapes') })).length > 0,
    );
    await openSettings(page);
    await page.evaluate(() => Object.assign(globalThis, { before: true }));
    await page.click('#policy-host button');
    await page.waitForFunction(() => !('before' in globalThis) && crossOriginIsolated);
    await modelReady(page);
    assert.equal(await reaches(host.url), false);
    // Still stored, so it can be used without any connection to where it came from.
    await openAddress(page, `${host.url}/m/manifest.json`);
    await page.waitForFunction(() =>
      /Ready · From elsewhere/.test(document.querySelector('#status-text')?.textContent ?? ''),
    );
  },
);

both(
  'a manifest cannot send the page elsewhere, nor can storage widen the policy',
  async ({ open }) => {
    const third = await otherHost();
    const host = await otherHost((manifest) => {
      manifest.files[0].url = `${third.url}/m/${manifest.files[0].name}`;
    });
    const page = await open(site.url);
    // The person allowed the second host once; the first one's manifest still cannot use it.
    await page.evaluate(
      async (hosts) => {
        const text = JSON.stringify(hosts);
        localStorage.setItem('pocketvl-model-host', text);
        const cache = await caches.open('pocketvl-model-host');
        await cache.put('pocketvl-model-host', new Response(text));
      },
      [host.url, third.url],
    );
    await reload(page);
    await openAddress(page, `${host.url}/m/manifest.json`);
    await page.waitForSelector('#notices .error');
    const words = await page.$eval('#notices .error', (box) => ({
      code: /** @type {HTMLElement} */ (box).dataset.code,
      text: box.textContent ?? '',
    }));
    assert.equal(words.code, 'FORMAT', words.text);
    assert.match(words.text, /another host/);
    assert.deepEqual(third.log, []);

    // What is not a host cannot become a part of the policy.
    for (const bad of [
      '["*"]',
      '["https://a.example; script-src *"]',
      '["data:"]',
      '{}',
      '"x"',
      '[1]',
      '["https://*"]',
    ]) {
      await page.evaluate(async (text) => {
        localStorage.setItem('pocketvl-model-host', text);
        const cache = await caches.open('pocketvl-model-host');
        await cache.put('pocketvl-model-host', new Response(text));
      }, bad);
      const policy = await page.evaluate(
        async () => (await fetch('lib/worker.js')).headers.get('content-security-policy') ?? '',
      );
      assert.match(policy, /connect-src 'self' blob:;/, bad);
    }
    await reload(page); // waits for the new document
    const meta = await page.$$eval('meta[http-equiv]', (list) =>
      list.map((m) => /** @type {HTMLMetaElement} */ (m).content),
    );
    assert.ok(meta.some((content) => content.includes("connect-src 'self' blob:;")));
  },
);
