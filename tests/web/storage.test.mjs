// Weights in IndexedDB in real Chromium, over a model of 200 MB made for the run: speed and memory, a browser killed in the
// middle, a full storage, two tabs, chunks that are lost. The library's own pipeline runs in a worker of its own; the
// engine is left out, so that only network and storage are seen.
import assert from 'node:assert/strict';
import { randomFillSync } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before, beforeEach } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from '../../web/serve.mjs';
import { chromium } from './browser.mjs';
import { faultServer, manifestOver } from './faults.mjs';

const LIMIT = { timeout: 300_000 };
const CHUNK = 16 << 20;
const PIECE = 1 << 20; // most bytes of one read
const SIZE = 12 * CHUNK + 8_000_000; // 209 MB

/** @typedef {import('puppeteer-core').Browser} Browser */
/** @typedef {import('puppeteer-core').Page} Page */

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
/** @type {Awaited<ReturnType<typeof faultServer>>} */
let host;
/** @type {Buffer} */
let body;
const EXPECTED = { sum: 0 };
const profile = mkdtempSync(join(tmpdir(), 'pocketvl-storage-'));

before(async () => {
  site = await serve({ port: 0, isolate: true });
  host = await faultServer();
  body = Buffer.alloc(SIZE);
  randomFillSync(body);
  EXPECTED.sum = sumOf(body);
}, LIMIT);
after(async () => {
  await site?.close();
  await host?.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 300 });
}, LIMIT);
beforeEach(() => {
  host.log.length = 0;
  host.paths.set('/model.gguf', { body });
  const manifest = manifestOver({ 'model.gguf': body }, CHUNK);
  host.paths.set('/manifest.json', { body: Buffer.from(JSON.stringify(manifest)) });
});

/**
 * What runs in the worker: one load, with a sink that counts, and a count of what was taken from the network: what the
 * server sent says less, since systems buffer tens of megabytes.
 */
const WORKER = `
let received = 0;
const bodies = new WeakSet();
const { fetch: ask } = globalThis;
globalThis.fetch = async (...args) => {
  const response = await ask(...args);
  if (response.body) bodies.add(response.body);
  return response;
};
const { getReader } = ReadableStream.prototype;
ReadableStream.prototype.getReader = function (options) {
  const reader = getReader.call(this, options);
  if (!bodies.has(this)) return reader; // of the store
  const read = reader.read.bind(reader);
  reader.read = async (view) => {
    const result = await read(view);
    received += result.value?.length ?? 0;
    return result;
  };
  return reader;
};
onmessage = async ({ data: { site, url, stopAt, unstored, patience } }) => {
  const { streamModel } = await import(site + 'lib/weights.js');
  const { idbStore } = await import(site + 'lib/store_idb.js');
  const controller = new AbortController();
  const store = unstored ? null : await idbStore();
  const notices = [];
  const stages = [];
  let pushed = 0, sum = 0;
  const sink = { start: async () => { pushed = 0; sum = 0; }, beginFile() {}, endFile() {}, push(b) {
    for (let i = (4096 - pushed % 4096) % 4096; i < b.length; i += 4096) sum = (sum * 31 + b[i]) >>> 0;
    pushed += b.length;
    if (stopAt && pushed >= stopAt) controller.abort();
  } };
  const onProgress = (p) => {
    if (stages[stages.length - 1] !== p.stage) stages.push(p.stage);
    postMessage({ progress: p });
  };
  try {
    const begun = performance.now();
    const result = await streamModel({ url }, { store, sink, signal: controller.signal, onProgress, onNotice: (n) => notices.push(n), patience });
    postMessage({ done: { ...result, manifest: undefined, ms: performance.now() - begun, received, pushed, sum, notices, stages } });
  } catch (error) {
    postMessage({ done: { code: error.code, message: error.message, details: error.details, pushed, notices, stages } });
  }
};`;

/**
 * Starts a load in a page; the result comes by `finished`.
 * @param {Page} page
 * @param {{stopAt?: number, path?: string, unstored?: boolean, patience?: import('../../web/lib/download.js').Patience}} [options]
 */
async function begin(page, options = {}) {
  const { path = '/manifest.json', ...more } = options;
  await page.evaluate(
    ({ source, more: given, ...where }) => {
      const state = /** @type {any} */ (globalThis);
      state.loaded = 0;
      state.stage = '';
      state.result = null;
      const worker = new Worker(
        URL.createObjectURL(new Blob([source], { type: 'text/javascript' })),
        {
          type: 'module',
        },
      );
      worker.onerror = (event) => (state.result = { code: 'SCRIPT', message: event.message });
      worker.onmessage = ({ data }) => {
        if (data.progress)
          Object.assign(state, { loaded: data.progress.loaded, stage: data.progress.stage });
        if (data.done) {
          state.result = data.done;
          worker.terminate();
        }
      };
      worker.postMessage({ ...given, ...where });
    },
    { source: WORKER, site: site.url, url: host.url + path, more },
  );
}

/** @param {Page} page */
async function finished(page) {
  await page.waitForFunction(() => /** @type {any} */ (globalThis).result, {
    timeout: 200_000,
    polling: 50,
  });
  return page.evaluate(() => /** @type {any} */ (globalThis).result);
}

/** @param {Browser} browser */
async function open(browser) {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(`${site.url}samples/samples.json`);
  return page;
}

/** The same sum as the worker's, over the real bytes. @param {Buffer} bytes */
function sumOf(bytes) {
  let sum = 0;
  for (let at = 0; at < SIZE; at += CHUNK) {
    const end = Math.min(at + CHUNK, SIZE);
    for (let i = at; i < end; i += 4096) sum = (sum * 31 + bytes[i]) >>> 0;
  }
  return sum;
}

/** @param {import('node:test').TestContext} t @param {string} text */
const report = (t, text) => t.diagnostic(text);

test(
  'killed in mid-download: every stored chunk is used, at most one is lost',
  LIMIT,
  async (t) => {
    let browser = await chromium({ profile });
    const slow = /** @type {import('./faults.mjs').Behaviour} */ (host.paths.get('/model.gguf'));
    slow.slow = 3;
    let page = await open(browser);
    await begin(page);
    await page.waitForFunction(
      (n) => /** @type {any} */ (globalThis).loaded >= n,
      { timeout: 120_000, polling: 50 },
      5 * CHUNK,
    );
    const loaded = await page.evaluate(() => /** @type {any} */ (globalThis).loaded);
    browser.process()?.kill('SIGKILL');
    await sleep(500);
    slow.slow = 0;
    host.log.length = 0;
    browser = await chromium({ profile });
    page = await open(browser);
    await begin(page);
    const result = await finished(page);
    assert.equal(result.code, undefined, result.message);
    assert.equal(result.pushed, SIZE);
    assert.equal(result.sum, EXPECTED.sum);
    const arrived = Math.floor(loaded / CHUNK) * CHUNK; // and a part of the next
    assert.ok(result.fromStore >= arrived - CHUNK, `${result.fromStore} of ${arrived} were kept`);
    assert.equal(result.fromStore + result.received, SIZE);
    report(
      t,
      `killed at ${(loaded / 1e6).toFixed(0)} MB: ${(result.fromStore / 1e6).toFixed(0)} MB kept, ${(result.received / 1e6).toFixed(0)} MB received`,
    );
    await browser.close();
  },
);

/** What the network does to a download. @type {Record<string, Partial<import('./faults.mjs').Behaviour>>} */
const FAULTS = {
  'cut at every kind of boundary': {
    cuts: [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 65536, 2 * CHUNK],
  },
  'a stall': { stallAt: 5 * CHUNK + 777 },
  'wrong bytes, once': { wrongByte: { at: 6 * CHUNK + 5, times: 1 } },
  'no ranges, and a cut': { noRange: true, cuts: [4 * CHUNK + 9] },
  'errors 500, 503, 429 and a cut between': { statuses: [500, 503, 0, 429], cuts: [CHUNK + 2] },
  'a redirect, and a cut behind it': { redirect: '/moved.gguf' },
  'a wrong Content-Length': { contentLength: SIZE - 4000 },
};

test(
  'faults of the network, in Chromium: all bytes arrive, few of them twice',
  LIMIT,
  async (t) => {
    const browser = await chromium();
    t.after(() => browser.close());
    const page = await open(browser);
    const patience = { tries: 8, base: 20, longest: 100, stall: 60_000 };
    for (const [name, fault] of Object.entries(FAULTS)) {
      host.log.length = 0;
      host.paths.set('/model.gguf', { body, ...structuredClone(fault) });
      host.paths.set('/moved.gguf', { body, cuts: [3 * CHUNK + 1] });
      const stall = fault.stallAt === undefined ? patience.stall : 3000;
      await begin(page, { unstored: true, patience: { ...patience, stall } });
      const result = await finished(page);
      assert.equal(result.code, undefined, `${name}: ${result.message}`);
      assert.equal(result.sum, EXPECTED.sum, name);
      // Of wrong bytes a chunk, and the rest of the piece that ended it; without ranges everything before the cut.
      const twice = result.received - SIZE;
      t.diagnostic(`${name}: ${(twice / 1e6).toFixed(1)} MB were received again`);
      const most = fault.noRange ? 4 * CHUNK + 9 : fault.wrongByte ? CHUNK + PIECE : 0;
      const least = fault.wrongByte ? CHUNK : 0;
      assert.ok(twice >= least && twice <= most, `${name}: ${twice}`);
    }
  },
);

test('a model replaced on its host in mid-download, in Chromium', LIMIT, async (t) => {
  const browser = await chromium();
  t.after(() => browser.close());
  const page = await open(browser);
  const fresh = Buffer.from(body);
  fresh.fill(7, 9 * CHUNK, 9 * CHUNK + 5000);
  host.paths.set('/model.gguf', { body, slow: 1, cuts: [7 * CHUNK + 100] });
  await begin(page);
  await page.waitForFunction(
    (n) => /** @type {any} */ (globalThis).loaded >= n,
    { timeout: 120_000, polling: 20 },
    2 * CHUNK,
  );
  const manifest = manifestOver({ 'model.gguf': fresh }, CHUNK);
  host.paths.set('/model.gguf', { body: fresh, cuts: [] });
  host.paths.set('/manifest.json', { body: Buffer.from(JSON.stringify(manifest)) });
  const result = await finished(page);
  assert.equal(result.code, undefined, result.message);
  assert.equal(result.sum, sumOf(fresh));
  assert.ok(result.notices.some((/** @type {any} */ n) => n.code === 'INTEGRITY'));
  assert.equal(result.fromStore + result.fromNetwork, SIZE);
  t.diagnostic(
    `${(result.fromStore / 1e6).toFixed(0)} MB of the old version were still good, ${(result.received / 1e6).toFixed(0)} MB received for ${(SIZE / 1e6).toFixed(0)} MB`,
  );
});

test(
  'refusals in Chromium: other sites, the content policy, a host that is not there',
  LIMIT,
  async (t) => {
    const browser = await chromium();
    t.after(() => browser.close());
    const patience = { tries: 2, base: 20, longest: 50, stall: 60_000 };
    const isolated = await open(browser);
    const plainSite = await serve({ port: 0 });
    t.after(() => plainSite.close());
    const plain = await browser.newPage();
    await plain.goto(`${plainSite.url}samples/samples.json`);
    host.paths.set('/closed.json', { body: Buffer.from('{}'), noCors: true });
    const closed = await faultServer();
    const closedPort = new URL(closed.url).port;
    await closed.close();
    for (const page of [isolated, plain]) {
      const { code, message, details } = await failure(page, `${host.url}/closed.json`, patience);
      assert.equal(code, 'NETWORK');
      // An isolated page is not told whether the host is there: the error names both causes.
      assert.equal(details.reason, page === plain ? 'cors' : 'unreachable', message);
      assert.match(message, /does not allow other sites/);
      const gone = await failure(page, `http://127.0.0.1:${closedPort}/manifest.json`, patience);
      assert.equal(gone.details.reason, 'unreachable', gone.message);
      const lost = await failure(page, `${host.url}/nothing.json`, patience);
      assert.deepEqual([lost.details.reason, lost.details.status], ['status', 404]);
    }
    // The app's page: its service worker gives the worker a policy that knows no other host.
    const app = await browser.newPage();
    await app.goto(plainSite.url);
    await app.waitForFunction(() => crossOriginIsolated, { timeout: 30_000 });
    const refused = await failure(app, `${host.url}/manifest.json`, patience);
    assert.equal(refused.details.reason, 'policy', refused.message);
    assert.match(refused.message, /content policy/);
  },
);

/**
 * The error of a load through the library.
 * @param {Page} page
 * @param {string} url
 * @param {import('../../web/lib/download.js').Patience} patience
 */
const failure = (page, url, patience) =>
  page.evaluate(
    async (address, patient) => {
      const { PocketVL } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      return PocketVL.load(address, { patience: patient, store: 'none' }).then(
        () => ({ code: 'loaded', message: '', details: {} }),
        (/** @type {any} */ e) => ({ code: e.code, message: e.message, details: e.details }),
      );
    },
    url,
    patience,
  );

test(
  'storage that the person has blocked: a word, and the model works for this visit',
  LIMIT,
  async (t) => {
    const blocked = mkdtempSync(join(tmpdir(), 'pocketvl-blocked-'));
    mkdirSync(join(blocked, 'Default'));
    const preferences = { profile: { default_content_setting_values: { cookies: 2 } } };
    writeFileSync(join(blocked, 'Default', 'Preferences'), JSON.stringify(preferences));
    const browser = await chromium({ profile: blocked });
    t.after(async () => {
      await browser.close();
      rmSync(blocked, { recursive: true, force: true, maxRetries: 5, retryDelay: 300 });
    });
    const page = await open(browser);
    const result = await page.evaluate(async () => {
      const { PocketVL } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      /** @type {any[]} */
      const notices = [];
      const vl = await PocketVL.load('/models/demo/manifest.json', {
        onNotice: (/** @type {any} */ n) => notices.push(n),
      });
      const tokens = await vl.tokenize('What is this?');
      vl.dispose();
      return { notices, tokens, stored: vl.info.stored };
    });
    assert.equal(result.stored, false);
    assert.ok(result.tokens.length > 0);
    assert.equal(result.notices[0]?.code, 'STORAGE', JSON.stringify(result.notices));
    assert.match(result.notices[0].message, /downloaded again next time/);
  },
);

test('the second visit: no request, at the speed of the storage', LIMIT, async (t) => {
  const browser = await chromium({ profile });
  const page = await open(browser);
  host.paths.clear();
  await begin(page);
  const result = await finished(page);
  assert.equal(result.code, undefined, result.message);
  assert.equal(result.fromStore, SIZE);
  assert.equal(host.log.length, 0);
  assert.equal(result.sum, EXPECTED.sum);
  // The ceiling: the same chunks read by nothing but IndexedDB, in the same run.
  const raw = await page.evaluate(
    async (source) => {
      const worker = new Worker(
        URL.createObjectURL(new Blob([source], { type: 'text/javascript' })),
      );
      return new Promise((done) => {
        worker.onmessage = ({ data }) => done(data);
        worker.postMessage(0);
      });
    },
    `onmessage = () => { const open = indexedDB.open('pocketvl'); open.onsuccess = () => {
        const begun = performance.now(); let bytes = 0;
        const step = (keys) => { const key = keys.shift(); if (!key) return postMessage({ bytes, ms: performance.now() - begun });
          const get = open.result.transaction('chunks').objectStore('chunks').get(key);
          get.onsuccess = () => { bytes += new FileReaderSync().readAsArrayBuffer(get.result).byteLength; step(keys); }; };
        const all = open.result.transaction('chunks').objectStore('chunks').getAllKeys(); all.onsuccess = () => step(all.result); } }`,
  );
  const rate = SIZE / result.ms / 1e3;
  const ceiling = /** @type {any} */ (raw).bytes / /** @type {any} */ (raw).ms / 1e3;
  report(t, `from storage ${rate.toFixed(0)} MB/s; IndexedDB alone ${ceiling.toFixed(0)} MB/s`);
  assert.ok(rate > 0.4 * ceiling, `${rate} of ${ceiling} MB/s`);
  await browser.close();
});

test('a chunk whose file the system lost: noticed, and fetched again alone', LIMIT, async () => {
  const folder = join(profile, 'Default', 'IndexedDB');
  const files = readdirSync(folder, { recursive: true })
    .map((name) => join(folder, String(name)))
    .filter((name) => /\.blob/.test(name) && statSync(name).size === CHUNK);
  assert.ok(files.length >= 12, `${files.length} chunks lie in files`);
  rmSync(files[5]);
  const browser = await chromium({ profile });
  const page = await open(browser);
  await begin(page);
  const result = await finished(page);
  assert.equal(result.code, undefined, result.message);
  assert.equal(result.sum, EXPECTED.sum);
  assert.equal(result.fromNetwork, CHUNK);
  assert.ok(result.notices.some((/** @type {any} */ n) => /lost/.test(n.message)));
  await browser.close();
});

test(
  'a damaged and a lost chunk: the full check finds them, they alone are fetched',
  LIMIT,
  async () => {
    const browser = await chromium({ profile });
    const page = await open(browser);
    await page.evaluate(
      (key) =>
        new Promise((done, fail) => {
          const open = indexedDB.open('pocketvl');
          open.onerror = () => fail(open.error);
          open.onsuccess = () => {
            const tx = open.result.transaction('chunks', 'readwrite');
            tx.objectStore('chunks').put(new Blob([new Uint8Array(16 << 20)]), [key, 0, 4]);
            tx.objectStore('chunks').delete([key, 0, 7]);
            tx.oncomplete = () => done(open.result.close());
          };
        }),
      `${host.url}/manifest.json`,
    );
    const damaged = await page.evaluate(async (key) => {
      const { models } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      return models.verify(key);
    }, `${host.url}/manifest.json`);
    assert.deepEqual(damaged, { damaged: 2 });
    await begin(page);
    const result = await finished(page);
    assert.equal(result.code, undefined, result.message);
    assert.equal(result.sum, EXPECTED.sum);
    assert.equal(result.fromNetwork, 2 * CHUNK);
    const list = await page.evaluate(async (key) => {
      const { models } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      // Who has stopped before gets nothing done; who stops in the middle of a check, no result.
      const options = { signal: AbortSignal.abort() };
      const midway = new AbortController();
      const calls = [
        models.list(options),
        models.delete(key, options),
        models.export(key, options),
        models.verify(key, options),
        models.verify(key, { signal: midway.signal, onProgress: () => midway.abort() }),
      ];
      const stopped = await Promise.all(
        calls.map((call) =>
          call.then(
            () => 'done',
            (/** @type {any} */ error) => error.code,
          ),
        ),
      );
      const before = await models.list();
      const [file] = await models.export(key);
      await models.delete(key);
      return { stopped, before, exported: file.blob.size, after: await models.list() };
    }, `${host.url}/manifest.json`);
    assert.deepEqual(list.stopped, Array(5).fill('ABORTED'));
    assert.equal(list.before[0].storedBytes, SIZE);
    assert.equal(list.exported, SIZE);
    assert.deepEqual(list.after, []);
    await browser.close();
  },
);

test(
  'a full storage: what fits is kept, the rest is named, and the load goes on',
  LIMIT,
  async () => {
    const browser = await chromium();
    const page = await open(browser);
    const cdp = await page.createCDPSession();
    await cdp.send('Storage.overrideQuotaForOrigin', {
      origin: new URL(site.url).origin,
      quotaSize: 90_000_000,
    });
    await begin(page);
    const result = await finished(page);
    assert.equal(result.code, undefined, result.message);
    assert.equal(result.sum, EXPECTED.sum);
    assert.equal(result.stored, false);
    const notice = result.notices.find((/** @type {any} */ n) => n.code === 'QUOTA');
    assert.ok(notice, JSON.stringify(result.notices));
    assert.ok(
      notice.details.missing >= SIZE - 90_000_000 - 3 * CHUNK && notice.details.missing < SIZE,
      notice.message,
    );
    await cdp.send('Storage.overrideQuotaForOrigin', { origin: new URL(site.url).origin });
    host.log.length = 0;
    await begin(page);
    const again = await finished(page);
    assert.ok(again.fromStore >= 2 * CHUNK, 'what was stored before is used');
    assert.equal(again.fromNetwork, SIZE - again.fromStore);
    assert.equal(again.stored, true);
    await browser.close();
  },
);

test(
  'two tabs share one download; when the first is closed, the second goes on',
  LIMIT,
  async (t) => {
    const browser = await chromium();
    const [a, b] = [await open(browser), await open(browser)];
    const slow = /** @type {import('./faults.mjs').Behaviour} */ (host.paths.get('/model.gguf'));
    slow.slow = 2;
    await begin(a);
    await a.waitForFunction(
      (n) => /** @type {any} */ (globalThis).loaded >= n,
      { timeout: 120_000, polling: 50 },
      CHUNK,
    );
    await begin(b);
    await b.waitForFunction(() => /** @type {any} */ (globalThis).stage === 'waiting', {
      timeout: 20_000,
      polling: 50,
    });
    await a.waitForFunction(
      (n) => /** @type {any} */ (globalThis).loaded >= n,
      { timeout: 120_000, polling: 50 },
      4 * CHUNK,
    );
    await a.close();
    slow.slow = 0;
    const result = await finished(b);
    assert.equal(result.code, undefined, result.message);
    assert.equal(result.sum, EXPECTED.sum);
    assert.ok(result.fromStore >= 2 * CHUNK, `${result.fromStore}`);
    assert.equal(result.fromStore + result.received, SIZE);
    report(t, `the second tab received ${(result.received / 1e6).toFixed(0)} MB`);
    await browser.close();
  },
);
