// What can break, broken on purpose. Each time the page says what happened and offers the one step that helps, the step works,
// and no word of the conversation is lost.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { after, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { askOnPage, modelReady, press } from './browser.mjs';
import { plainServer } from './plain.mjs';
import {
  attach,
  inBrowsers,
  isolated,
  lessPatience,
  openSettings,
  reload,
  sample,
  siteWith,
  turnsOf,
} from './pages.mjs';

/** @typedef {import('puppeteer-core').Page} Page */
/** @typedef {import('./pages.mjs').Visitor} Visitor */

const ISOLATION = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
};

/** Engines with a fault: scripts that a host has beside the page's own, and that drivers need not reach into. */
const FAULTY = {
  // Told so, it is lost behind the next piece of an answer: by an error that no one catches.
  'lost.js': `import './lib/worker.js';
    const { postMessage } = self;
    let told = false;
    let lost = false;
    addEventListener('message', ({ data }) => (told ||= data === 'be lost'));
    self.postMessage = (message, transfer) => {
      if (lost) return;
      postMessage.call(self, message, transfer);
      lost = told && message.event === 'piece';
      if (lost) queueMicrotask(() => { throw new Error('lost'); });
    };`,
  'no_memory.js': `import './lib/worker.js';
    WebAssembly.Memory = class {
      constructor() { throw new RangeError('could not allocate memory'); }
    };`,
  // Waits for the answers of hosts as others do, but not as long.
  'hurried.js': `import './lib/worker.js';
    const later = setTimeout;
    self.setTimeout = (run, ms, ...more) => later(run, ms === 10_000 ? 500 : ms, ...more);`,
};

const both = inBrowsers();

/** @type {Awaited<ReturnType<typeof siteWith>>} */
let site;

before(async () => {
  site = await siteWith(() => {}, {}, { files: FAULTY, isolate: true });
});
after(() => site?.close());

/**
 * In the page: from now on its engine is started from this script, or from its own where none is named.
 * @param {string} [script]
 */
function engineFrom(script) {
  const seen = /** @type {any} */ (globalThis);
  const Plain = (seen.PlainWorker ??= Worker);
  seen.Worker = class extends Plain {
    constructor(/** @type {string | URL} */ url, /** @type {WorkerOptions} */ options) {
      super(script && String(url).endsWith('/lib/worker.js') ? script : url, options);
    }
  };
}

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

both('a lost worker, in the middle of an answer', async ({ open }) => {
  const page = await open(site.url);
  await page.evaluate(engineFrom, 'lost.js');
  await page.evaluate(() =>
    /** @type {any} */ (globalThis).pocketvl.loadModel('models/demo/manifest.json'),
  );
  await page.evaluate(engineFrom);
  await attach(page, sample('shapes'));
  // The page’s own measuring is over.
  await page.waitForFunction(() => document.querySelector('#cost')?.textContent?.includes('about'));
  await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.client.worker.post('be lost'));
  await page.type('#question', 'Describe the picture.');
  await page.keyboard.press('Enter');
  const error = await shownError(page);
  assert.equal(error.code, 'WORKER', error.words);
  await stepHelps(page);
  assert.equal((await turnsOf(page)).length, 1);
});

both('no memory for pictures: less detail is offered, and is enough', async ({ t, open }) => {
  const change = (/** @type {any} */ { settings }) =>
    Object.assign(settings, { maxTiles: 12, context: 256 });
  const many = await siteWith(change, {}, { isolate: true });
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

both(
  'the browser gives no memory: a smaller start is offered, then the demonstration model',
  async ({ open }) => {
    const page = await open(site.url);
    await askOnPage(page, 'Describe the picture.', { file: sample('three') });
    const before = await turnsOf(page);
    await page.evaluate(engineFrom, 'no_memory.js');
    await openSettings(page);
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
    await page.evaluate(engineFrom);
    await page.click('.error button');
    await modelReady(page);
    assert.deepEqual(await turnsOf(page), before);
    assert.ok((await askOnPage(page, 'How many shapes are there?')).length > 0);
  },
);

/**
 * Takes what the page has stored away, as a browser does that has no room. No driver has Firefox do so: there everything is
 * deleted under the page's hands.
 * @param {Page} page
 * @param {Visitor['name']} browser
 */
async function evict(page, browser) {
  if (browser === 'Chromium') {
    const client = await page.createCDPSession();
    const { origin } = new URL(page.url());
    await client.send('Storage.clearDataForOrigin', { origin, storageTypes: 'indexeddb' });
    return client.detach();
  }
  return page.evaluate(async () => {
    for (const { name = '' } of await indexedDB.databases())
      await new Promise((done, fail) => {
        const request = indexedDB.deleteDatabase(name);
        request.onsuccess = done;
        request.onerror = fail;
        setTimeout(() => fail(new Error(`${name} is in use`)), 20_000);
      });
  });
}

/** Until so many pictures of the conversation are kept: that comes behind the text. @param {Page} page @param {number} count */
const picturesKept = (page, count) =>
  page.waitForFunction(
    (n) => Object.values(localStorage).some((text) => text.match(/"key":"\w/g)?.length === n),
    {},
    count,
  );

both(
  'evicted storage: fetched again; without a network the page says what to do',
  async ({ name, t, open }) => {
    let host = await serve({ port: 0 }); // not isolated by it: the service worker is there from the first visit on
    t.after(() => host.close());
    /** @type {(string | undefined)[]} */
    const asked = [];
    host.server.on('request', ({ url }) => asked.push(url));
    const page = await open(host.url);
    await askOnPage(page, 'Describe the picture.', { file: sample('three') });
    await picturesKept(page, 1);
    const before = await turnsOf(page);
    asked.length = 0;
    await evict(page, name);
    // The worker is lost as well, so the model is needed again: it comes over the network.
    await page.evaluate(() => {
      const { client } = /** @type {any} */ (globalThis).pocketvl;
      client.die(client.worker, 'the test ended it');
    });
    const again = await askOnPage(page, 'How many shapes are there?', { file: sample('two') });
    assert.ok(again.length > 0);
    assert.ok(
      asked.some((path) => path?.endsWith('.gguf')),
      'it was gone',
    );
    assert.ok(
      (await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.info.key)).length > 0,
    );
    await picturesKept(page, 2); // there is a place for them again
    await evict(page, name);
    await host.close();
    await lessPatience(page);
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
    host = await serve({ port: host.port });
    await page.click('.error button');
    await modelReady(page);
    assert.ok((await askOnPage(page, 'How many shapes are there?')).length > 0);
  },
);

/** Processes under this one in which Firefox shows pages. @param {number} above @returns {number[]} */
function contentProcesses(above) {
  const below = (/** @type {string} */ id) => {
    try {
      const status = readFileSync(`/proc/${id}/status`, 'latin1');
      if (Number(/^PPid:\s*(\d+)/m.exec(status)?.[1]) !== above) return [];
      const command = readFileSync(`/proc/${id}/cmdline`, 'latin1').replaceAll('\0', ' ');
      const shows = / -contentproc .* tab *$/.test(command);
      return [...(shows ? [Number(id)] : []), ...contentProcesses(Number(id))];
    } catch {
      return []; // it has ended meanwhile
    }
  };
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap(below);
}

/**
 * Ends the process behind a page, as a fault in the browser does or a system without memory.
 * @param {Page} page
 * @param {Visitor['name']} browser
 */
async function crash(page, browser) {
  if (browser === 'Chromium') {
    const crashed = new Promise((done) => page.once('error', done));
    await page.goto('chrome://crash').catch(() => {});
    await crashed;
    return;
  }
  const { pid } = page.browser().process() ?? {};
  assert.ok(pid);
  const ids = contentProcesses(pid);
  assert.ok(ids.length > 0);
  for (const id of ids) {
    try {
      process.kill(id, 'SIGKILL');
    } catch {
      // it has ended meanwhile
    }
  }
  // Until Firefox has noticed: it says so in a page of its own process, where no driver may run anything.
  const end = Date.now() + 30_000;
  for (let reason = ''; !/parent process/.test(reason);) {
    assert.ok(Date.now() < end, `the page goes on: ${reason}`);
    reason = await page.evaluate(() => document.URL).catch(String);
  }
}

both(
  'a crashed tab: after the reload the conversation is there, the unfinished answer named',
  async ({ name, open }) => {
    const page = await open(site.url);
    await askOnPage(page, 'Describe the picture.', { file: sample('three') });
    // The plain loops of the reference: an answer takes its time.
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
    await picturesKept(page, 4); // a crash before that loses them
    const [first] = await turnsOf(page);
    await crash(page, name);
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
  },
);

both("the engine's code is asked for again where nothing answered", async ({ t, context }) => {
  const lost = /pocketvl-\w+\.(wasm|js)$/;
  const host = await plainServer(site.folder, { headers: ISOLATION, lost });
  t.after(() => host.close());
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  await page.evaluateOnNewDocument(engineFrom, 'hurried.js');
  await page.goto(host.url);
  await isolated(page);
  await modelReady(page);
  assert.equal(await askOnPage(page, 'How many shapes are there?', { file: sample('three') }), '3');
  const unanswered = host.log.filter(({ status }) => status === 0);
  assert.deepEqual(
    new Set(unanswered.map(({ path }) => path.split('.').pop())),
    new Set(['js', 'wasm']),
  );
});
