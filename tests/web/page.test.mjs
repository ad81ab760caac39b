// The page driven by role and name: the main job, stopping, isolation, storage, privacy. What the page does is driven in
// Chromium and in Firefox; in Chromium alone is what other files drive in both, and what is the library's.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test, { after, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { askOnPage, chromium, modelReady } from './browser.mjs';
import { attach, inBrowsers, isolated as isIsolated, modelHost, root, sample } from './pages.mjs';

const SHAPES = sample('shapes');
const WORD = sample('word');
const LIMIT = { timeout: 180_000 };

/** @typedef {import('puppeteer-core').Page} Page */

const both = inBrowsers();

/** @type {import('puppeteer-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serve>>} */
let plain;
/** @type {Awaited<ReturnType<typeof serve>>} */
let isolated;

before(async () => {
  plain = await serve({ port: 0 });
  isolated = await serve({ port: 0, isolate: true });
  browser = await chromium();
}, LIMIT);
after(async () => {
  await browser?.close();
  await plain?.close();
  await isolated?.close();
}, LIMIT);

/**
 * The page with its model, and what goes wrong on it unseen.
 * @param {import('puppeteer-core').Browser | import('puppeteer-core').BrowserContext} profile
 * @param {string} [url]
 */
async function openPage(profile, url = plain.url) {
  const page = await profile.newPage();
  page.setDefaultTimeout(60_000);
  await page.setViewport({ width: 1000, height: 800 });
  /** @type {string[]} */
  const errors = [];
  page.on('pageerror', (error) => errors.push(String(error)));
  await page.goto(url);
  await isIsolated(page);
  await modelReady(page);
  return { page, errors };
}

/**
 * A page of the origin without the app, to call the library in.
 * @param {string} url
 */
async function libraryPage(url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(`${url}samples/samples.json`);
  return page;
}

both('a picture, a question, an answer; the page stays responsive', async ({ context }) => {
  const { page, errors } = await openPage(context);
  // The page's heart beats with every turn of its event loop: what keeps it from that for longer than 50 ms is noted.
  await page.evaluate(() => {
    const seen = /** @type {any} */ (globalThis);
    seen.blocked = [];
    let last = performance.now();
    const beat = () => {
      const now = performance.now();
      if (now - last > 50) seen.blocked.push(now - last);
      last = now;
      setTimeout(beat, 1);
    };
    beat();
  });
  // Time is told by the clock on the wall: where other programs take the cores, a turn may count as long that is not. A
  // page that blocks does so every time, so one clean answer out of five is asked for.
  /** @type {number[][]} */
  const blocked = [];
  do {
    await page.evaluate(() => Object.assign(globalThis, { blocked: [] }));
    const file = blocked.length % 2 ? WORD : SHAPES;
    const answer = await askOnPage(page, 'Describe the picture.', { file });
    assert.ok(answer.trim().length > 0, 'there is an answer');
    blocked.push(await page.evaluate(() => /** @type {any} */ (globalThis).blocked));
  } while (blocked[blocked.length - 1].length && blocked.length < 5);
  assert.deepEqual(
    blocked[blocked.length - 1],
    [],
    `the main thread is never blocked for more than 50 ms: ${JSON.stringify(blocked)}`,
  );
  assert.equal(await page.$eval('#log', (log) => log.getAttribute('role')), 'log');

  // A second turn about the same picture, and the same answer as the library gives for the conversation.
  const second = await askOnPage(page, 'How many shapes are there?');
  assert.ok(second.trim().length > 0);
  const { stats, perTile } = await page.evaluate(() => {
    const { stats, info } = /** @type {any} */ (globalThis).pocketvl;
    return { stats, perTile: info.tokensPerTile };
  });
  assert.ok(stats.reusedTokens >= perTile, 'the first turn came from the cache');
  assert.equal(stats.tiles, 0);
  assert.deepEqual(errors, []);
});

both('the answer is written piece by piece, as the library yields it', async ({ open }) => {
  const page = await open(isolated.url);
  // A quick machine computes a short answer between two frames of the page: the reader is held back to a piece a frame, so
  // that what is drawn does not depend on the machine's speed.
  await page.evaluate(() => {
    const seen = /** @type {any} */ (globalThis);
    const { pocketvl } = seen;
    Object.assign(seen, { written: '', stopAtFirst: undefined, drawn: [] });
    const chat = pocketvl.chat.bind(pocketvl);
    pocketvl.chat = (/** @type {any[]} */ ...args) => {
      const answer = chat(...args);
      const pieces = answer[Symbol.asyncIterator].bind(answer);
      answer[Symbol.asyncIterator] = async function* () {
        for await (const piece of pieces()) {
          if (!seen.written) seen.stopAtFirst = answer.stop;
          seen.written += piece;
          yield piece;
          await new Promise((go) => requestAnimationFrame(go)); // behind the page's own drawing
          const words = document.querySelector('.turn:last-of-type .words')?.textContent ?? '';
          seen.drawn.push([seen.written, words]);
        }
      };
      return answer;
    };
  });
  const answer = await askOnPage(page, 'Describe the picture.', { file: SHAPES });
  const { drawn, stopAtFirst } = await page.evaluate(() => {
    const { drawn, stopAtFirst } = /** @type {any} */ (globalThis);
    return { drawn, stopAtFirst };
  });
  assert.equal(stopAtFirst, null, 'the first piece is there before the answer has ended');
  assert.ok(drawn.length >= 2, `several pieces: ${JSON.stringify(drawn)}`);
  for (const [written, words] of drawn) assert.equal(words, written.trim());
  assert.ok(drawn[0][1].length < answer.length, 'the page drew the beginning before the rest');
  assert.equal(drawn[drawn.length - 1][1], answer);
});

test('the first picture does not answer for the second', LIMIT, async () => {
  const { page } = await openPage(browser);
  const ask = (/** @type {string} */ file) =>
    page.evaluate(async (name) => {
      const image = await (await fetch(`samples/${name}`)).blob();
      const { pocketvl } = /** @type {any} */ (globalThis);
      const content = [
        { type: 'image', image },
        { type: 'text', text: 'Describe the picture.' },
      ];
      return pocketvl.chat([{ role: 'user', content }], { maxTokens: 32 }).text();
    }, file);
  const [a, b, again] = [await ask('shapes.jpg'), await ask('word.jpg'), await ask('shapes.jpg')];
  assert.notEqual(a, b);
  assert.equal(a, again);
  await page.close();
});

both('Stop ends a running answer inside a step, and the next question works', async ({ open }) => {
  const page = await open(isolated.url);
  // Slow enough to be stopped: the plain loops of the reference.
  await page.evaluate(() =>
    /** @type {any} */ (globalThis).pocketvl.loadModel('models/demo/manifest.json', {
      kernels: 'scalar',
      threads: 1,
    }),
  );
  // Eight pictures, each looked at for the first time: seconds.
  const samples = [
    'shapes',
    'three',
    'one',
    'two',
    'word',
    'digits',
    'bars-letters',
    'bars-colours',
  ];
  await attach(page, ...samples.map(sample));
  await page.type('::-p-aria([name="Question"][role="textbox"])', 'What does it say?');
  // Stop is pressed at the first sign of progress, however long the machine takes for the rest.
  await page.evaluate(() => {
    const seen = /** @type {any} */ (globalThis);
    const { pocketvl } = seen;
    const chat = pocketvl.chat;
    seen.steps = [];
    pocketvl.chat = (/** @type {any} */ messages, /** @type {any} */ options) => {
      if (!options.onProgress) return chat.call(pocketvl, messages, options); // the page's own measuring
      const onProgress = (/** @type {any} */ step) => {
        options.onProgress(step);
        if (step.stage !== 'vision') return;
        seen.steps.push(step);
        const buttons = [...document.querySelectorAll('button')].filter((button) =>
          button.checkVisibility(),
        );
        buttons.find((button) => button.textContent?.trim() === 'Stop')?.click();
      };
      pocketvl.chat = chat;
      return chat.call(pocketvl, messages, { ...options, onProgress });
    };
  });
  await page.click('::-p-aria([name="Ask"][role="button"])');
  await page.waitForFunction(() => !document.querySelector('.answering'), { timeout: 60_000 });
  const steps = await page.evaluate(() => /** @type {any} */ (globalThis).steps);
  assert.match(await page.$eval('.turn:last-of-type', (turn) => turn.textContent ?? ''), /Stopped/);
  const { stage, done, total } = steps[steps.length - 1];
  assert.equal(stage, 'vision');
  assert.ok(done < total, `stopped at step ${done} of ${total}, not at the end`);
  await page.evaluate(() =>
    /** @type {any} */ (globalThis).pocketvl.loadModel('models/demo/manifest.json'),
  );
  assert.ok((await askOnPage(page, 'What does it say?', { file: WORD })).length > 0);
});

test(
  'a 1x1, a 20000x1 and a transparent picture are answered; the browser decodes what C cannot',
  LIMIT,
  async () => {
    const page = await libraryPage(isolated.url);
    const results = await page.evaluate(async () => {
      const { PocketVL } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      const vl = await PocketVL.load('/models/demo/manifest.json');
      const made = async (
        /** @type {number} */ w,
        /** @type {number} */ h,
        /** @type {string} */ type,
      ) => {
        const canvas = new OffscreenCanvas(w, h);
        const g = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
        g.fillStyle = 'rgb(200 30 30 / 50%)';
        g.fillRect(0, 0, w, h / 2);
        return canvas.convertToBlob({ type });
      };
      const list = [];
      for (const [w, h, type] of /** @type {const} */ ([
        [1, 1, 'image/png'],
        [20000, 1, 'image/png'],
        [64, 48, 'image/webp'],
        [300, 200, 'image/png'],
      ])) {
        const image = await made(w, h, type);
        const content = [
          { type: 'image', image },
          { type: 'text', text: 'What?' },
        ];
        const answer = vl.chat([{ role: 'user', content }], { maxTokens: 3 });
        await answer.text();
        list.push([answer.pictures[0].width, answer.pictures[0].height, answer.stop]);
      }
      const canvas = document.createElement('canvas');
      const image = vl.chat(
        [
          {
            role: 'user',
            content: [
              { type: 'image', image: canvas },
              { type: 'text', text: 'What?' },
            ],
          },
        ],
        { maxTokens: 2 },
      );
      await image.text();
      list.push([image.pictures[0].width, image.pictures[0].height, image.stop]);
      vl.dispose();
      return list;
    });
    assert.deepEqual(
      results.map(([w, h]) => [w, h]),
      [
        [1, 1],
        [20000, 1],
        [64, 48],
        [300, 200],
        [300, 150],
      ],
    );
    await page.close();
  },
);

for (const variant of ['relaxed', 'simd']) {
  for (const [name, threads] of /** @type {const} */ ([
    ['isolated', 2],
    ['plain', 1],
  ])) {
    test(
      `${variant}, ${name} page: ${threads} thread(s), same answer, cancel inside a prompt`,
      LIMIT,
      async () => {
        const context = await browser.createBrowserContext(); // without the service worker of the other tests
        const page = await context.newPage();
        page.setDefaultTimeout(60_000);
        await page.goto(`${name === 'isolated' ? isolated.url : plain.url}samples/samples.json`);
        const result = await page.evaluate(async (build) => {
          const { PocketVL } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
          const vl = await PocketVL.load('/models/demo/manifest.json', {
            variant: build,
            threads: 2,
            store: 'none',
          });
          const image = await (await fetch('/samples/shapes.jpg')).blob();
          const content = [
            { type: 'image', image },
            { type: 'text', text: 'Describe the picture.' },
          ];
          const text = await vl.chat([{ role: 'user', content }], { maxTokens: 24 }).text();
          const { threads, variant, threadsReason } = vl.info;
          // The plain loops and eight pictures: far from done at the first sign of progress, on any machine.
          await vl.loadModel('/models/demo/manifest.json', {
            kernels: 'scalar',
            threads: 1,
            store: 'none',
          });
          const pictures = [];
          for (let i = 0; i < 8; i++) {
            const other = new OffscreenCanvas(100 + i, 100);
            other.getContext('2d');
            pictures.push({ type: 'image', image: await other.convertToBlob() });
          }
          const controller = new AbortController();
          let last = { done: 0, total: 0 };
          const code = await vl
            .chat([{ role: 'user', content: [...pictures, { type: 'text', text: 'What?' }] }], {
              maxTokens: 1,
              signal: controller.signal,
              onProgress: (/** @type {any} */ step) => {
                if (step.stage !== 'vision') return;
                last = step;
                controller.abort();
              },
            })
            .text()
            .then(
              () => 'done',
              (/** @type {any} */ e) => e.code,
            );
          const after = await vl
            .chat([{ role: 'user', content: [pictures[0], { type: 'text', text: 'What?' }] }], {
              maxTokens: 1,
            })
            .text()
            .then(
              () => 'done',
              (/** @type {any} */ e) => e.code,
            );
          vl.dispose();
          return {
            text,
            threads,
            variant,
            threadsReason,
            code,
            last,
            after,
            isolated: crossOriginIsolated,
          };
        }, variant);
        assert.equal(result.isolated, name === 'isolated');
        assert.equal(result.threads, threads, result.threadsReason);
        assert.equal(result.variant, variant);
        assert.ok(result.text.length > 0);
        const known = answers.get(variant);
        if (known !== undefined)
          assert.equal(result.text, known, 'any number of threads gives the same text');
        answers.set(variant, result.text);
        assert.equal(result.code, 'ABORTED');
        const { done, total } = result.last;
        assert.ok(total > 0 && done < total, `stopped at step ${done} of ${total}`);
        assert.equal(result.after, 'done');
        await context.close();
      },
    );
  }
}
/** @type {Map<string, string>} */
const answers = new Map();

test('IndexedDB conforms as a store, and upgrades its first schema', LIMIT, async () => {
  const page = await libraryPage(isolated.url);
  const source = readFileSync(new URL('store_conformance.mjs', import.meta.url), 'utf8');
  const failure = await page.evaluate(async (suite) => {
    const { storeConformance } = await import(
      URL.createObjectURL(new Blob([suite], { type: 'text/javascript' }))
    );
    const { idbStore, deleteDB } = await import(/** @type {any} */ ('/lib/store_idb.js'));
    const assert = {
      equal(/** @type {any} */ a, /** @type {any} */ b, m = '') {
        if (!Object.is(a, b)) throw new Error(`${a} is not ${b} ${m}`);
      },
      deepEqual(/** @type {any} */ a, /** @type {any} */ b, m = '') {
        const plain = (/** @type {any} */ v) =>
          JSON.stringify(v, (_, x) =>
            x && typeof x === 'object' && !Array.isArray(x)
              ? Object.fromEntries(Object.entries(x).sort())
              : x,
          );
        if (plain(a) !== plain(b)) throw new Error(`${plain(a)} is not ${plain(b)} ${m}`);
      },
    };
    try {
      await deleteDB('conformance');
      await storeConformance(await idbStore('conformance'), assert);
      // The first schema, as its version wrote it.
      await deleteDB('old');
      await new Promise((done, fail) => {
        const request = indexedDB.open('old', 1);
        request.onupgradeneeded = () => {
          const db = request.result;
          db.createObjectStore('models', { keyPath: 'key' }).put({
            key: 'm',
            manifest: { files: [] },
          });
          db.createObjectStore('chunks').put(new Blob(['abc']), ['m', 0, 0]);
          db.createObjectStore('index').put({ size: 3, sha: 'f'.repeat(64) }, ['m', 0, 0]);
        };
        request.onsuccess = () => done(request.result.close());
        request.onerror = () => fail(request.error);
      });
      const store = await idbStore('old');
      assert.deepEqual(
        [...(await store.records('m')).values()],
        [{ bytes: 3, sha256: 'f'.repeat(64) }],
      );
      assert.equal((await store.model('m')).complete, false);
      let text = '';
      await (
        await store.openChunk(['m', 0, 0], 3)
      )((/** @type {Uint8Array} */ piece) => (text += new TextDecoder().decode(piece)));
      assert.equal(text, 'abc');
      store.close();
      return '';
    } catch (error) {
      return String(error);
    }
  }, source);
  assert.equal(failure, '');
  await page.close();
});

test(
  'the second visit reads the model from the browser; without a network, too',
  LIMIT,
  async () => {
    const context = await browser.createBrowserContext();
    const server = await serve({ port: 0 });
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    await page.goto(server.url);
    await page.waitForFunction(() => crossOriginIsolated, { timeout: 30_000 });
    await modelReady(page);
    const first = await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats);
    assert.ok(first.fromNetwork > 1e6 || first.fromStore > 1e6);
    /** @type {string[]} */
    const weights = [];
    page.on('request', (request) => request.url().endsWith('.gguf') && weights.push(request.url()));
    await page.evaluate(() => {
      Object.assign(globalThis, { before: true });
      location.reload();
    });
    await page.waitForFunction(() => !('before' in globalThis) && crossOriginIsolated, {
      timeout: 30_000,
    });
    await modelReady(page);
    const second = await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats);
    assert.equal(second.fromNetwork, 0);
    assert.ok(second.fromStore > 1e6);
    assert.deepEqual(weights, []);
    await server.close();
    const offline = await context.newPage();
    offline.setDefaultTimeout(60_000);
    await offline.goto(server.url);
    await modelReady(offline);
    assert.ok(
      (await askOnPage(offline, 'How many shapes are there?', { file: SHAPES })).length > 0,
    );
    await context.close();
  },
);

both(
  'nothing leaves the origin, and the policy forbids it to page and worker',
  async ({ t, open }) => {
    const page = await open(plain.url);
    await page.waitForFunction(() => {
      const images = /** @type {HTMLImageElement[]} */ ([
        ...document.querySelectorAll('#samples img'),
      ]);
      for (const image of images) image.loading = 'eager'; // those out of sight come now, too
      return images.length > 0 && images.every(({ complete }) => complete);
    });
    /** @type {string[]} */
    const requests = [];
    page.on('request', (r) => {
      if (!/^(blob|data):/.test(r.url())) requests.push(`${r.method()} ${r.url()}`);
    });
    await askOnPage(page, 'What does it say?', { file: WORD });
    assert.deepEqual(requests, [], 'no request at all while a picture is answered');
    // A host that everybody may read from: what does not reach it is held back here.
    const other = await modelHost();
    t.after(() => other.close());
    const fromPage = await page.evaluate(
      (url) =>
        fetch(url).then(
          () => 'allowed',
          () => 'blocked',
        ),
      `${other.url}/m/manifest.json`,
    );
    assert.equal(fromPage, 'blocked');
    // The worker that holds the picture. (Its threads run nothing but C, and are asleep.)
    const workers = page.workers().filter((worker) => worker.url().endsWith('/lib/worker.js'));
    assert.equal(workers.length, 1);
    const fromWorker = await page.evaluate(
      (url) =>
        /** @type {any} */ (globalThis).pocketvl.client
          .call('estimate', { source: { url }, options: {} })
          .then(
            () => 'allowed',
            (/** @type {any} */ error) => error.details.reason ?? error.message,
          ),
      `${other.url}/m/manifest.json`,
    );
    assert.equal(fromWorker, 'policy');
    assert.deepEqual(other.log, []);
    const policies = await page.evaluate(async () => {
      const of = async (/** @type {string} */ path) =>
        (await fetch(path)).headers.get('content-security-policy') ?? '';
      return [await of('lib/worker.js'), await of('./'), await of('wasm/pocketvl-simd.js')];
    });
    for (const policy of policies) assert.match(policy, /connect-src 'self' blob:/);
  },
);

test('a lost worker: the error says so, and the next question starts it anew', LIMIT, async () => {
  const { page } = await openPage(browser);
  // The plain loops of the reference, so that the worker is lost in the middle of an answer.
  await page.evaluate(() =>
    /** @type {any} */ (globalThis).pocketvl.loadModel('models/demo/manifest.json', {
      kernels: 'scalar',
      threads: 1,
    }),
  );
  const outcome = await page.evaluate(async () => {
    const { pocketvl } = /** @type {any} */ (globalThis);
    const image = await (await fetch('samples/word.jpg')).blob();
    const content = [
      { type: 'image', image },
      { type: 'text', text: 'What does it say?' },
    ];
    const onProgress = () => pocketvl.client.die(pocketvl.client.worker, 'the test ended it');
    const first = await pocketvl
      .chat([{ role: 'user', content }], { onProgress })
      .text()
      .then(
        () => ({ code: 'done', message: '' }),
        (/** @type {any} */ e) => ({ code: e.code, message: e.message }),
      );
    const second = await pocketvl.chat([{ role: 'user', content }], { maxTokens: 3 }).text();
    return { first, second, fromNetwork: pocketvl.stats.fromNetwork };
  });
  assert.equal(outcome.first.code, 'WORKER');
  assert.match(outcome.first.message, /starts it again/);
  assert.ok(outcome.second.length > 0);
  await page.close();
});

both('works from a subfolder of a host', async ({ t, open }) => {
  const server = await serve({ port: 0, folder: root });
  t.after(() => server.close());
  const page = await open(`${server.url}web/`);
  assert.ok((await askOnPage(page, 'How many shapes are there?', { file: SHAPES })).length > 0);
});

test('by keyboard alone, in Chinese, and on a phone', LIMIT, async () => {
  const { page } = await openPage(browser);
  await page.setViewport({ width: 390, height: 780, isMobile: true, hasTouch: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(wide <= 0, `the page is ${wide} px too wide`);
  const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
    await page.$('#file')
  );
  await input.uploadFile(SHAPES);
  await page.waitForSelector('#pictures li');
  assert.equal(
    await page.evaluate(() => document.activeElement?.id),
    'question',
    'focus waits in the question',
  );
  await page.keyboard.type('图中有几个图形？');
  await page.keyboard.press('Enter');
  await page.waitForFunction(
    () => document.querySelector('.turn') && !document.querySelector('.answering'),
  );
  assert.equal(await page.$('.turn .error'), null);
  await page.select('#language', 'zh');
  assert.equal(await page.$eval('#ask', (button) => button.textContent), '提问');
  await page.select('#language', 'en');
  await page.close();
});
