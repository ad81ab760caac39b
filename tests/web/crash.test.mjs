// What can break, broken on purpose; in Chromium alone where its own protocol is what breaks it. Each time the page says what happened and offers the one step that helps,
// the step works, and no word of the conversation is lost.
import assert from 'node:assert/strict';
import test, { after, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { askOnPage, chromium, modelReady, press } from './browser.mjs';
import { plainServer } from './plain.mjs';
import {
  attach,
  inBrowsers,
  isolated,
  reload,
  sample,
  siteWith,
  turnsOf,
  visit,
  web,
} from './pages.mjs';

const LIMIT = { timeout: 180_000 };
const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

const both = inBrowsers();

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
/** @type {import('puppeteer-core').Browser} */
let browser;

before(async () => {
  site = await serve({ port: 0 });
  browser = await chromium();
}, LIMIT);
after(async () => {
  await browser?.close();
  await site?.close();
}, LIMIT);

/**
 * The error that is shown, with its code, its words and its one button.
 * @param {import('puppeteer-core').Page} page
 */
async function shownError(page) {
  await page.waitForSelector('.error', { timeout: 60_000 });
  return page.$eval('.error', (box) => ({
    code: /** @type {HTMLElement} */ (box).dataset.code,
    words: box.textContent ?? '',
    buttons: [...box.querySelectorAll('button')].map((button) => button.textContent),
  }));
}

/** Asks something that fails, and says how. @param {import('puppeteer-core').Page} page */
async function askAndFail(page) {
  await page.type('#question', 'How many shapes are there?');
  await page.keyboard.press('Enter');
  return shownError(page);
}

/** The button of the error leads to an answer. @param {import('puppeteer-core').Page} page */
async function stepHelps(page) {
  await page.click('.error button');
  await page.waitForFunction(
    () =>
      document.querySelector('.turn:last-of-type .words')?.textContent &&
      !document.querySelector('.answering'),
    { timeout: 60_000 },
  );
  assert.equal(await page.$('.error'), null);
}

both('a trap in the engine', async ({ open }) => {
  const page = await open(site.url);
  await askOnPage(page, 'Describe the picture.', { file: sample('three') });
  const [first] = await turnsOf(page);
  // The session's own memory around the flag that stops it, overwritten: its pointers lead nowhere.
  await page.evaluate(() => {
    const { memory, address } = /** @type {any} */ (globalThis).pocketvl.client.cancel;
    new Uint8Array(memory, address - 256, 256).fill(0xff);
    new Uint8Array(memory, address + 4, 256).fill(0xff);
  });
  const error = await askAndFail(page);
  assert.equal(error.code, 'WORKER', error.words);
  assert.deepEqual(error.buttons, ['Start it again and ask']);
  await stepHelps(page);
  const turns = await turnsOf(page);
  assert.equal(turns.length, 2);
  assert.deepEqual(turns[0], first);
  await reload(page);
  await page.waitForSelector('.turn');
  assert.deepEqual(await turnsOf(page), turns);
});

test('a lost worker, in the middle of an answer', LIMIT, async () => {
  const page = await visit(browser, site.url);
  await page.evaluate(() =>
    /** @type {any} */ (globalThis).pocketvl.loadModel('models/demo/manifest.json', {
      kernels: 'scalar',
      threads: 1,
    }),
  );
  await attach(page, sample('shapes'));
  // What no one catches ends a worker: here after the first piece of the answer.
  await page.waitForFunction(() => document.querySelector('#cost')?.textContent?.includes('about'));
  const [worker] = page
    .workers()
    .filter((w) => w.url().endsWith('/lib/worker.js'))
    .slice(-1);
  await worker?.evaluate(() => {
    const post = self.postMessage.bind(self);
    Object.assign(self, {
      postMessage: (/** @type {any} */ message) => {
        post(message);
        if (message.event !== 'piece') return;
        setTimeout(() => {
          throw new Error('lost');
        });
      },
    });
  });
  await page.type('#question', 'Describe the picture.');
  await page.keyboard.press('Enter');
  const error = await shownError(page);
  assert.equal(error.code, 'WORKER', error.words);
  await stepHelps(page);
  assert.equal((await turnsOf(page)).length, 1);
  await page.click('#new-chat');
  await page.close();
});

both('no memory for pictures: less detail is offered, and is enough', async ({ t, open }) => {
  const many = await siteWith((manifest) =>
    Object.assign(manifest.settings, { maxTiles: 12, context: 256 }),
  );
  t.after(() => many.close());
  const page = await open(many.url);
  await attach(page, sample('shapes'));
  await page.waitForSelector('#cost .choice');
  await page.click('#cost .choice:nth-of-type(3)');
  const error = await askAndFail(page);
  assert.equal(error.code, 'CONTEXT', error.words);
  assert.deepEqual(error.buttons, ['Look less closely']);
  await stepHelps(page);
});

test(
  'the browser gives no memory: a smaller start is offered, then the demonstration model',
  LIMIT,
  async () => {
    const page = await visit(browser, site.url);
    await askOnPage(page, 'Describe the picture.', { file: sample('three') });
    const before = await turnsOf(page);
    // From now on workers start with a browser that refuses memory.
    const client = await page.createCDPSession();
    await client.send('Target.setAutoAttach', {
      autoAttach: true,
      waitForDebuggerOnStart: true,
      flatten: false,
    });
    client.on('Target.attachedToTarget', ({ sessionId, targetInfo }) => {
      const send = (/** @type {string} */ method, params = {}) =>
        client
          .send('Target.sendMessageToTarget', {
            sessionId,
            message: JSON.stringify({ id: 1, method, params }),
          })
          .catch(() => {});
      if (targetInfo.url.endsWith('/lib/worker.js')) {
        void send('Runtime.evaluate', {
          expression:
            'WebAssembly.Memory = class { constructor() { throw new RangeError("could not allocate memory"); } };',
        });
      }
      void send('Runtime.runIfWaitingForDebugger');
    });
    await page.click('#open-settings');
    await page.$eval('#threads', (input) => {
      /** @type {HTMLInputElement} */ (input).value = '1';
      input.dispatchEvent(new Event('input'));
    });
    await page.click('#settings header button');
    const error = await shownError(page);
    assert.equal(error.code, 'MEMORY', error.words);
    assert.deepEqual(error.buttons, ['Try with less memory']);
    await page.click('.error button');
    await page.waitForFunction(() =>
      document.querySelector('.error button')?.textContent?.includes('demonstration'),
    );
    await client.detach();
    await page.click('.error button');
    await modelReady(page);
    assert.deepEqual(await turnsOf(page), before);
    assert.ok((await askOnPage(page, 'How many shapes are there?')).length > 0);
    await page.click('#new-chat');
    await page.close();
  },
);

test(
  'evicted storage: fetched again; without a network the page says what to do',
  LIMIT,
  async () => {
    const context = await browser.createBrowserContext();
    const page = await visit(context, site.url);
    await askOnPage(page, 'Describe the picture.', { file: sample('three') });
    const before = await turnsOf(page);
    const client = await page.createCDPSession();
    const evict = () =>
      client.send('Storage.clearDataForOrigin', {
        origin: new URL(site.url).origin,
        storageTypes: 'indexeddb',
      });
    await evict();
    // The worker is lost as well, so the model is needed again: it comes over the network.
    await page.evaluate(() => {
      const { client } = /** @type {any} */ (globalThis).pocketvl;
      client.die(client.worker, 'the test ended it');
    });
    assert.ok((await askOnPage(page, 'How many shapes are there?')).length > 0);
    assert.ok(
      (await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.info.key)).length > 0,
    );
    await evict();
    await site.close();
    await page.evaluate(() => {
      Object.assign(globalThis, { before: true });
      location.reload();
    });
    await page.waitForFunction(() => !('before' in globalThis) && crossOriginIsolated);
    await page.waitForSelector('#status-dot.failed', { timeout: 90_000 });
    const error = await shownError(page);
    assert.equal(error.code, 'NETWORK', error.words);
    assert.deepEqual(error.buttons, ['Try again']);
    const after = await turnsOf(page);
    assert.equal(after.length, 2);
    assert.equal(after[0].answer, before[0].answer, 'the text does not lie where the model lay');
    site = await serve({ port: site.port });
    await page.click('.error button');
    await modelReady(page);
    assert.ok((await askOnPage(page, 'How many shapes are there?')).length > 0);
    await context.close();
  },
);

test(
  'a crashed tab: after the reload the conversation is there, the unfinished answer named',
  LIMIT,
  async () => {
    const page = await visit(browser, site.url);
    await askOnPage(page, 'Describe the picture.', { file: sample('three') });
    await page.evaluate(() =>
      /** @type {any} */ (globalThis).pocketvl.loadModel('models/demo/manifest.json', {
        kernels: 'scalar',
        threads: 1,
      }),
    );
    await attach(page, sample('shapes'), sample('two'), sample('word'));
    await page.type('#question', 'How many shapes are there?');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.answering');
    // Pictures are kept behind the text: a crash before that loses them.
    await page.waitForFunction(() =>
      Object.values(localStorage).some((text) => text.match(/"key":"\w/g)?.length === 4),
    );
    const [first] = await turnsOf(page);
    const crashed = new Promise((done) => page.once('error', done));
    await page.goto('chrome://crash').catch(() => {});
    await crashed;
    await page.goto(site.url);
    await isolated(page);
    await page.waitForFunction(() => document.querySelectorAll('.turn').length === 2);
    await modelReady(page);
    const turns = await turnsOf(page);
    assert.deepEqual(turns[0], first);
    assert.equal(turns[1].question, 'How many shapes are there?');
    assert.equal(turns[1].pictures, 3);
    assert.match(
      await page.$eval('.turn:last-of-type .foot', (foot) => foot.textContent ?? ''),
      /Ask again.*not answered/,
    );
    await press(page, 'Ask again');
    await page.waitForFunction(
      () =>
        !document.querySelector('.answering') &&
        document.querySelector('.turn:last-of-type .words')?.textContent,
    );
    await page.click('#new-chat');
    await page.close();
  },
);

test("the engine's code is asked for again where nothing answered", LIMIT, async () => {
  const host = await plainServer(web, { headers: ISOLATION, lost: /pocketvl-\w+\.(wasm|js)$/ });
  const page = await visit(browser, host.url);
  assert.equal(await askOnPage(page, 'How many shapes are there?', { file: sample('three') }), '3');
  const lost = host.log.filter(({ status }) => status === 0);
  assert.deepEqual(new Set(lost.map(({ path }) => path.split('.').pop())), new Set(['js', 'wasm']));
  await page.close();
  await host.close();
});
