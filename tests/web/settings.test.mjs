// What a person can choose: every control of the settings is changed, takes effect and is remembered; models are listed,
// opened from an address and from files, used again and deleted; the whole page speaks Chinese.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { askOnPage, modelReady, press } from './browser.mjs';
import {
  attach,
  give,
  inBrowsers,
  openSettings,
  reload,
  sample,
  siteWith,
  turnsOf,
  web,
} from './pages.mjs';

/** @typedef {import('puppeteer-core').Page} Page */

const GGUF = join(web, 'models/demo/pocketvl-demo.gguf');

/** @type {Awaited<ReturnType<typeof siteWith>>} */
let site;
before(async () => {
  site = await siteWith((manifest) => (manifest.settings.maxTiles = 12), {
    second: (manifest) => (manifest.title = 'Second model'),
  });
});
after(() => site?.close());

const both = inBrowsers();

/** Chooses a detail, the nth of the three. @param {Page} page @param {number} n */
async function choose(page, n) {
  await page.click(`#detail .choice:nth-of-type(${n})`);
  await page.waitForSelector(`#detail .choice:nth-of-type(${n}) input:checked`);
}

/** Closes the settings; where the engine is started anew, until it is there. @param {Page} page */
async function closeSettings(page) {
  await page.click('#settings header button');
  await page.waitForFunction(() => !document.querySelector('#settings[open]'));
  await modelReady(page);
}

/** Types a number over the one that is there. @param {Page} page @param {string} selector @param {number} value */
async function setNumber(page, selector, value) {
  await page.click(selector, { count: 3 });
  await page.type(selector, String(value));
  await page.keyboard.press('Tab');
}

/** The values that the controls show. @param {Page} page */
const shown = (page) =>
  page.evaluate(() => {
    const of = (/** @type {string} */ selector) =>
      /** @type {HTMLInputElement} */ (document.querySelector(selector)).value;
    return {
      detail: of('#detail input:checked'),
      temperature: of('#temperature'),
      maxTokens: of('#max-tokens'),
      context: of('#context'),
      threads: of('#threads'),
    };
  });

const engine = (/** @type {Page} */ page) =>
  page.evaluate(() => {
    const { info, stats } = /** @type {any} */ (globalThis).pocketvl;
    return { title: info.title, threads: info.threads, context: stats.context, key: info.key };
  });

/** Asks, and says what the engine was given and did. @param {Page} page */
async function asked(page) {
  await page.evaluate(() => {
    const { pocketvl } = /** @type {any} */ (globalThis);
    const chat = Object.getPrototypeOf(pocketvl).chat;
    pocketvl.chat = (/** @type {any} */ messages, /** @type {any} */ options) => {
      const answer = chat.call(pocketvl, messages, options);
      Object.assign(globalThis, { last: { answer, options } });
      return answer;
    };
  });
  await askOnPage(page, 'Describe the picture.', { file: sample('shapes') });
  return page.evaluate(() => {
    const { answer, options } = /** @type {any} */ (globalThis).last;
    const { tiles } = answer.pictures[answer.pictures.length - 1].tiling;
    const { generatedTokens } = answer.stats;
    const { temperature, maxTokens } = options;
    return { tiles, generatedTokens, stop: answer.stop, temperature, maxTokens };
  });
}

both('every setting: changed, taking effect, remembered over a reload', async ({ open }) => {
  const page = await open(site.url);
  const named = await page.$eval(
    '#open-settings',
    (button) => button.getAttribute('aria-label') ?? button.textContent?.trim(),
  );
  assert.equal(named, 'Settings');
  await openSettings(page);
  await choose(page, 1);
  await closeSettings(page);
  const first = await asked(page);
  assert.equal(first.temperature, 0);
  assert.equal(first.tiles, 1);
  assert.ok(first.generatedTokens > 2, JSON.stringify(first));
  await page.click('#new-chat');
  await openSettings(page);
  await setNumber(page, '#max-tokens', 2);
  await closeSettings(page);
  const short = await asked(page);
  assert.deepEqual([short.generatedTokens, short.stop], [2, 'length']);
  assert.match(
    await page.$eval('.turn:last-of-type .foot', (foot) => foot.textContent ?? ''),
    /reached its longest length/,
  );
  await page.click('#new-chat');

  await openSettings(page);
  await choose(page, 3);
  await page.focus('#temperature');
  await page.keyboard.press('End');
  await setNumber(page, '#context', 900);
  await setNumber(page, '#threads', 1);
  const chosen = {
    detail: 'fine',
    temperature: '1.5',
    maxTokens: '2',
    context: '900',
    threads: '1',
  };
  assert.deepEqual(await shown(page), chosen);
  assert.equal(await page.$eval('#temperature-out', (out) => out.textContent), '1.5');
  await closeSettings(page);
  await page.waitForFunction(
    () =>
      /** @type {any} */ (globalThis).pocketvl.info.threads === 1 &&
      document.querySelector('#status-dot.ready'),
  );

  for (const when of ['now', 'after a reload']) {
    const { threads, context } = await engine(page);
    assert.deepEqual({ threads, context }, { threads: 1, context: 900 }, when);
    // Freely worded, an answer may end at once.
    const { tiles, temperature, maxTokens, generatedTokens } = await asked(page);
    assert.deepEqual({ temperature, maxTokens }, { temperature: 1.5, maxTokens: 2 }, when);
    assert.ok(generatedTokens <= 2, when);
    assert.ok(tiles > 7, `${tiles} tiles: more than the balanced choice takes`);
    await page.click('#new-chat');
    await openSettings(page);
    assert.deepEqual(await shown(page), chosen, when);
    await page.keyboard.press('Escape');
    await reload(page);
  }

  // Out of range: the nearest that can be. Nothing: what was there.
  await openSettings(page);
  await setNumber(page, '#threads', 99);
  await setNumber(page, '#context', 3);
  await page.click('#max-tokens', { count: 3 });
  await page.keyboard.press('Backspace');
  await page.keyboard.press('Tab');
  const { threads, context, maxTokens } = await shown(page);
  assert.deepEqual(
    { threads, context, maxTokens },
    { threads: '16', context: '256', maxTokens: '2' },
  );
});

both('the conversation is kept only where it is wished', async ({ open }) => {
  const page = await open(site.url);
  await askOnPage(page, 'How many shapes are there?', { file: sample('three') });
  const kept = () =>
    page.evaluate(
      () => Object.keys(localStorage).filter((key) => key.startsWith('pocketvl-chat:')).length,
    );
  assert.equal(await kept(), 1);
  await openSettings(page);
  await page.click('#remember');
  await closeSettings(page);
  await page.waitForFunction(
    () => !Object.keys(localStorage).some((key) => key.startsWith('pocketvl-chat:')),
  );
  await askOnPage(page, 'Describe the picture.');
  assert.equal(await kept(), 0);
  await reload(page);
  assert.deepEqual(await turnsOf(page), []);
  await openSettings(page);
  assert.equal(
    await page.$eval('#remember', (box) => /** @type {HTMLInputElement} */ (box).checked),
    false,
  );
  await page.click('#remember');
  await closeSettings(page);
  await askOnPage(page, 'How many shapes are there?', { file: sample('three') });
  await reload(page);
  await page.waitForSelector('.turn');
});

/** The models in the list, with their words and buttons. @param {Page} page @param {number} count */
async function listed(page, count) {
  await page.waitForFunction(
    (n) =>
      document.querySelectorAll('#models li button').length >= (n ? 1 : 0) &&
      [...document.querySelectorAll('#models li')].filter((li) => li.querySelector('button'))
        .length === n,
    {},
    count,
  );
  return page.$$eval('#models li', (rows) =>
    rows.map((row) => ({
      words: row.querySelector('span')?.textContent ?? row.textContent ?? '',
      buttons: [...row.querySelectorAll('button')].map((button) => button.textContent),
    })),
  );
}

/** @param {Page} page @param {string} title */
const inUse = (page, title) =>
  page.waitForFunction(
    (words) => document.querySelector('#status-text')?.textContent === `Ready · ${words}`,
    {},
    title,
  );

const storedKeys = (/** @type {Page} */ page) =>
  page.evaluate(async () => {
    const { models } = await import(new URL('lib/pocketvl.js', location.href).href);
    return (await models.list()).map((/** @type {any} */ { key }) => new URL(key).pathname);
  });

both('models: listed with sizes, opened by address, used again, deleted', async ({ open }) => {
  const DEMO = 'PocketVL demonstration model';
  const page = await open(site.url);
  await openSettings(page);
  assert.deepEqual(await listed(page, 1), [
    { words: `${DEMO}7.8 MB, in use`, buttons: ['Delete'] },
  ]);
  assert.match(await page.$eval('#room', (room) => room.textContent ?? ''), /^7\.8 MB used/);

  await page.type('#model-url', 'models/second/manifest.json');
  await press(page, 'Load');
  await inUse(page, 'Second model');
  await reload(page);
  await inUse(page, 'Second model');
  assert.ok((await askOnPage(page, 'What does it say?', { file: sample('word') })).length > 0);

  await openSettings(page);
  assert.deepEqual(await listed(page, 2), [
    { words: 'Second model7.8 MB, in use', buttons: ['Delete'] },
    { words: `${DEMO}7.8 MB`, buttons: ['Use', 'Delete'] },
  ]);
  await press(page, 'Use');
  await inUse(page, DEMO);
  assert.equal(
    (await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats)).fromNetwork,
    0,
  );

  await openSettings(page);
  await listed(page, 2);
  await press(page, 'Delete: Second model');
  assert.equal((await listed(page, 1))[0].words, `${DEMO}7.8 MB, in use`);
  assert.deepEqual(await storedKeys(page), ['/models/demo/manifest.json']);
  // The one in use can be deleted, too: it goes on answering, and is fetched at the next visit.
  await press(page, `Delete: ${DEMO}`);
  assert.deepEqual(await listed(page, 0), [{ words: 'Nothing is stored yet.', buttons: [] }]);
  assert.deepEqual(await storedKeys(page), []);
  await closeSettings(page);
  assert.ok((await askOnPage(page, 'What does it say?')).length > 0);
  await reload(page);
  await inUse(page, DEMO);
  const { fromNetwork } = await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats);
  assert.ok(fromNetwork > 1e6, 'nothing of it was left');
});

both('models from files: chosen or dropped, read and not kept', async ({ open }) => {
  const page = await open(site.url);
  await openSettings(page);
  const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
    await page.$('#gguf')
  );
  await input.uploadFile(GGUF);
  await inUse(page, 'pocketvl-demo.gguf');
  assert.ok((await askOnPage(page, 'What does it say?', { file: sample('word') })).length > 0);
  await openSettings(page);
  assert.equal((await listed(page, 1))[0].buttons[0], 'Use');
  await page.keyboard.press('Escape');
  await give(page, 'drop', [{ name: 'dropped.gguf', from: 'models/demo/pocketvl-demo.gguf' }]);
  await inUse(page, 'dropped.gguf');
  assert.ok((await askOnPage(page, 'What does it say?')).length > 0);
  assert.deepEqual(await storedKeys(page), ['/models/demo/manifest.json']);
  await reload(page);
  await inUse(page, 'PocketVL demonstration model');
});

both('addresses that cannot be: one sentence, and the model stays', async ({ open }) => {
  const page = await open(site.url);
  for (const [address, words] of /** @type {const} */ ([
    ['ftp://models.example/m.gguf', /not a web address/],
    ['https://a.example/1.gguf https://b.example/2.gguf', /have to come from one host/],
    ['models/none/manifest.json', /There is no file at/],
    ['index.html', /is not a manifest/],
  ])) {
    await openSettings(page);
    await page.$eval('#model-url', (box) => {
      /** @type {HTMLInputElement} */ (box).value = '';
    });
    await page.type('#model-url', address);
    await page.keyboard.press('Enter');
    await page.waitForSelector('#notices > *');
    assert.match(await page.$eval('#notices', (box) => box.textContent ?? ''), words);
    await inUse(page, 'PocketVL demonstration model');
    await page.evaluate(() => document.querySelector('#notices')?.replaceChildren());
  }
  assert.ok((await askOnPage(page, 'What can you do?')).length > 0);
});

both(
  'the whole page in Chinese, remembered; and from the start where the browser is',
  async ({ context, open }) => {
    const page = await open(site.url);
    await openSettings(page);
    await page.select('#language', 'zh');
    await page.click('#settings header button');
    await attach(page, sample('shapes'));
    await page.waitForFunction(() => document.querySelectorAll('#cost .choice small').length === 3);
    await page.type('#question', '图中有几个图形？');
    await page.keyboard.press('Enter');
    await page.waitForFunction(
      () => document.querySelector('.turn') && !document.querySelector('.answering'),
    );
    await page.click('.figures summary');
    await page.waitForSelector('.seen');
    await reload(page);
    await page.waitForSelector('.turn');
    assert.equal(await page.$eval('html', (html) => html.lang), 'zh-Hans');
    await openSettings(page);
    // Names stay as they are: everything else that the page says has no Latin word in it.
    const foreign = await page.evaluate(() => {
      const NAMES =
        /PocketVL( demonstration model)?|Mini-InternVL|Markdown|JSON|GGUF|manifest\.json|huggingface\.co|OWNER\/NAME|MB|GB|English|Apache-2\.0/g;
      const list = [
        ...document.querySelectorAll('[data-t], #models *, #room, #cost *, #detail *, dt'),
      ];
      return list
        .filter((e) => !e.children.length)
        .map((e) => (e.textContent ?? '').replace(NAMES, ''))
        .filter((words) => /[A-Za-z]{2}/.test(words));
    });
    assert.deepEqual(foreign, []);
    const labels = await page.$$eval(
      '[data-t-label], [data-t-title], [data-t-placeholder]',
      (list) =>
        list
          .map(
            (e) =>
              e.getAttribute('aria-label') ??
              e.getAttribute('title') ??
              e.getAttribute('placeholder') ??
              '',
          )
          .filter((words) => !/[\u4e00-\u9fff]/.test(words)),
    );
    assert.deepEqual(labels, []);
    assert.ok((await page.$$('[data-t]')).length > 40);
    await page.close();

    const other = await context.newPage();
    await other.evaluateOnNewDocument(() =>
      Object.defineProperty(navigator, 'languages', { get: () => ['zh-TW', 'en'] }),
    );
    await other.goto(site.url);
    await other.evaluate(() => localStorage.removeItem('pocketvl-settings'));
    await other.goto(`${site.url}?again`);
    await modelReady(other);
    assert.equal(await other.$eval('#ask', (ask) => ask.textContent), '提问');
  },
);
