// The page for everybody: no violation that axe-core finds in any main state, on a wide screen and on a phone, light and
// dark; all of it by keyboard alone; answers said in whole sentences; stillness where it is asked for. And the page as an
// app: small, installable, the same without a network.
import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { askOnPage, chromium, modelReady } from './browser.mjs';
import {
  answered,
  attach,
  inBrowsers,
  openSettings,
  sample,
  siteWith,
  visit,
  web,
} from './pages.mjs';

const LIMIT = { timeout: 180_000 };
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** @typedef {import('puppeteer-core').Page} Page */

const both = inBrowsers();
/** Of a person who asked their system for dark colours and for stillness. */
const bothDarkAndStill = inBrowsers({
  args: ['--force-dark-mode', '--force-prefers-reduced-motion'],
  prefs: { 'ui.systemUsesDarkTheme': 1, 'ui.prefersReducedMotion': 1 },
});

/** @type {Awaited<ReturnType<typeof siteWith>>} */
let site;
/** @type {import('puppeteer-core').Browser} */
let browser;

before(async () => {
  site = await siteWith((manifest) => (manifest.settings.maxTiles = 12), {}, { isolate: true });
  browser = await chromium();
}, LIMIT);
after(async () => {
  await browser?.close();
  await site?.close();
}, LIMIT);

/**
 * Adds what axe-core finds wrong on the page as it is now.
 * @param {Page} page
 * @param {string} state
 * @param {unknown[]} all
 */
async function look(page, state, all) {
  if (!(await page.evaluate(() => 'axe' in globalThis))) await page.evaluate(axe);
  const found = await page.evaluate(async () => {
    // Colours on their way to others are no one's to read yet.
    const passing = document
      .getAnimations()
      .filter((a) => a.effect?.getComputedTiming().endTime !== Infinity);
    await Promise.allSettled(passing.map((a) => a.finished));
    const { violations } = await /** @type {any} */ (globalThis).axe.run(document);
    return violations.map((/** @type {any} */ v) => ({
      rule: v.id,
      help: v.help,
      where: v.nodes.map((/** @type {any} */ n) => `${n.target.join(' ')}: ${n.failureSummary}`),
    }));
  });
  if (found.length) all.push(state, found);
}

/** Looks at the main states of an open page. @param {Page} page */
async function mainStates(page) {
  /** @type {unknown[]} */
  const wrong = [];
  await look(page, 'empty', wrong);
  await page.click('#ask');
  await page.waitForSelector('#notices .notice');
  await look(page, 'a notice', wrong);
  await attach(page, sample('shapes'), sample('word'));
  await page.waitForSelector('#cost .choice');
  await look(page, 'pictures and the choice of detail', wrong);
  await askOnPage(page, 'Where is the black star?');
  await page.click('.figures summary');
  await page.waitForSelector('.seen');
  await look(page, 'an answer with boxes and figures', wrong);
  await page.click('#export summary');
  await look(page, 'the menu', wrong);
  await page.click('#export summary');
  await askOnPage(page, 'What is this?', { file: join(web, 'app.js') });
  await look(page, 'an error', wrong);
  await openSettings(page);
  await look(page, 'settings', wrong);
  await page.type('#model-url', 'https://models.example/m/manifest.json');
  await page.click('#load-url');
  await page.waitForSelector('#host-dialog[open]');
  await look(page, 'the question about another host', wrong);
  assert.deepEqual(wrong, []);
  const tooWide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(tooWide <= 0, `${tooWide} px too wide`);
}

both('axe-core finds nothing: wide, light', async ({ open }) => mainStates(await open(site.url)));

bothDarkAndStill('axe-core finds nothing: phone, dark', async ({ open }) => {
  const viewport = { width: 390, height: 800, isMobile: true, hasTouch: true };
  const page = await open(site.url, viewport);
  assert.ok(await page.evaluate(() => matchMedia('(prefers-color-scheme: dark)').matches));
  await mainStates(page);
});

both('axe-core finds nothing while a model loads and while it answers', async ({ t, open }) => {
  // Where told so, the host sends the beginning of a model and then nothing more, so that the bar and the button beside it
  // stay.
  let stuck = false;
  const hold = (
    /** @type {import('node:http').IncomingMessage} */ request,
    /** @type {import('node:http').ServerResponse} */ response,
  ) => {
    if (!stuck || !request.url?.endsWith('.gguf')) return;
    const write = response.write.bind(response);
    let sent = 0;
    response.write = (/** @type {any} */ bytes) => {
      sent += bytes.length;
      return sent < 1e6 && write(bytes);
    };
  };
  site.server.prependListener('request', hold);
  t.after(() => site.server.off('request', hold));
  const page = await open(site.url);
  await page.evaluate(() =>
    /** @type {any} */ (globalThis).pocketvl.loadModel('models/demo/manifest.json', {
      kernels: 'scalar',
      threads: 1,
    }),
  );
  await attach(page, sample('shapes'), sample('word'), sample('two'), sample('one'));
  await page.type('#question', 'Describe the picture.');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.answering');
  /** @type {unknown[]} */
  const wrong = [];
  await look(page, 'answering', wrong);
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => !document.querySelector('.answering'));
  await look(page, 'stopped', wrong);
  await page.evaluate(
    () =>
      new Promise((done, fail) => {
        const request = indexedDB.deleteDatabase('pocketvl');
        request.onsuccess = done;
        request.onerror = fail;
      }),
  );
  stuck = true;
  await page.evaluate(() => location.reload());
  await page.waitForSelector('#stop-load:not([hidden])', { timeout: 60_000 });
  await page.waitForSelector('#bar:not([hidden])');
  await look(page, 'loading', wrong);
  await page.click('#stop-load');
  await page.waitForSelector('#notices [data-code="ABORTED"]');
  await look(page, 'a stopped download', wrong);
  stuck = false;
  await page.click('#notices button');
  await modelReady(page);
  assert.deepEqual(wrong, []);
});

both(
  'by keyboard alone: picture, detail, question, stop, figures, settings, new chat',
  async ({ open }) => {
    const page = await open(site.url);
    const at = () =>
      page.evaluate(() => {
        const e = /** @type {HTMLElement} */ (document.activeElement);
        return e.id || e.getAttribute('value') || e.textContent?.trim() || e.tagName;
      });
    /**
     * Presses Tab until the wanted element has the focus; back from there with Shift. Not around the end: what comes there
     * is the browser's own.
     * @param {string | RegExp} wanted
     * @param {'on' | 'back'} [way]
     */
    const tabTo = async (wanted, way = 'on') => {
      const seen = [];
      if (way === 'back') await page.keyboard.down('Shift');
      for (let i = 0; i < 60; i++) {
        await page.keyboard.press('Tab');
        const here = await at();
        seen.push(here);
        if (typeof wanted === 'string' ? here === wanted : wanted.test(here)) break;
      }
      if (way === 'back') await page.keyboard.up('Shift');
      const last = seen[seen.length - 1];
      if (typeof wanted === 'string') assert.equal(last, wanted, seen.join(', '));
      else assert.match(last, wanted, seen.join(', '));
    };
    await page.keyboard.press('Tab');
    assert.match(await at(), /Skip to the question/);
    await tabTo('open-settings');
    await page.keyboard.press('Enter');
    await page.waitForSelector('#settings[open]');
    assert.ok(
      await page.evaluate(() =>
        document.querySelector('#settings')?.contains(document.activeElement),
      ),
      'the focus is inside',
    );
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => !document.querySelector('#settings[open]'));
    assert.equal(await at(), 'open-settings', 'the focus is back');
    await tabTo(/Skip to the question/, 'back');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => location.hash === '#question');
    // The file chooser of the system opens from the keyboard, too.
    await tabTo('file', 'back');
    const [chooser] = await Promise.all([
      page.waitForFileChooser({ timeout: 10_000 }),
      at().then(() => page.keyboard.press(' ')), // an answer: by now the browser knows that somebody waits
    ]);
    await chooser.accept([sample('shapes')]);
    await page.waitForSelector('#pictures li');
    assert.equal(await at(), 'question');
    await page.waitForSelector('#cost .choice');
    await page.evaluate(() =>
      /** @type {HTMLElement} */ (document.querySelector('#question')).focus(),
    );
    await page.keyboard.down('Shift');
    for (let i = 0; i < 12 && !/quick|balanced|fine/.test(await at()); i++)
      await page.keyboard.press('Tab');
    await page.keyboard.up('Shift');
    await page.keyboard.press('ArrowDown');
    await page.waitForFunction(() =>
      localStorage.getItem('pocketvl-settings')?.match(/"detail":"(balanced|fine|quick)"/),
    );
    assert.match(await at(), /quick|balanced|fine/, 'the focus stays on the choice');
    await tabTo('question');
    await page.keyboard.type('How many shapes are there?');
    await page.keyboard.press('Enter');
    await answered(page);
    assert.equal(await page.$('.turn .error'), null);
    await page.evaluate(() => /** @type {HTMLElement} */ (document.querySelector('#log')).focus());
    await tabTo(/first after/);
    await page.keyboard.press('Enter');
    await page.waitForSelector('.figures[open] .seen');
    await page.evaluate(() =>
      /** @type {HTMLElement} */ (document.querySelector('#open-settings')).focus(),
    );
    await page.keyboard.down('Shift');
    await page.keyboard.press('Tab');
    await page.keyboard.up('Shift');
    assert.equal(await at(), 'new-chat');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => !document.querySelector('.turn'));
    assert.equal(await at(), 'question');
  },
);

both('a screen reader hears stages and whole sentences, each once', async ({ open }) => {
  const page = await open(site.url);
  await page.evaluate(() => {
    const heard = /** @type {string[]} */ ([]);
    Object.assign(globalThis, { heard });
    new MutationObserver((list) => {
      for (const { addedNodes } of list)
        for (const node of addedNodes) heard.push(node.textContent ?? '');
    }).observe(/** @type {Element} */ (document.querySelector('#live')), { childList: true });
    const { pocketvl } = /** @type {any} */ (globalThis);
    const pieces = ['One red', ' square. Then', ' a circle', '. And 3.5', ' more', '.'];
    pocketvl.chat = (/** @type {any} */ _, /** @type {any} */ { onProgress }) => ({
      stop: 'end',
      stats: { generatedTokens: 9, tiles: 1 },
      pictures: [],
      async *[Symbol.asyncIterator]() {
        onProgress({ stage: 'vision', done: 0, total: 4 });
        onProgress({ stage: 'vision', done: 4, total: 4 });
        for (const piece of pieces) {
          yield piece;
          await new Promise((go) => requestAnimationFrame(go)); // behind the page's own drawing
        }
      },
    });
  });
  const live = await page.$eval('#live', (e) => [
    e.getAttribute('role'),
    e.getAttribute('aria-live'),
  ]);
  assert.deepEqual(live, ['status', 'polite']);
  assert.equal(await page.$eval('#log', (log) => log.getAttribute('aria-live')), 'off');
  await page.type('#question', 'What is there?');
  await page.keyboard.press('Enter');
  await answered(page);
  const heard = await page.evaluate(() => /** @type {any} */ (globalThis).heard);
  assert.deepEqual(heard, [
    'Looking at the picture',
    'One red square.',
    'Then a circle.',
    'And 3.5 more.',
  ]);
});

bothDarkAndStill('reduced motion: nothing moves', async ({ open }) => {
  const page = await open(site.url);
  const moving = () =>
    page.evaluate(() => {
      const log = /** @type {Element} */ (document.querySelector('#log'));
      log.innerHTML =
        '<article class="turn"><div class="answered answering"><div class="words"></div></div></article>';
      const styles = [...document.querySelectorAll('*')].flatMap((e) => [
        getComputedStyle(e),
        getComputedStyle(e, '::after'),
      ]);
      return styles.filter(
        (s) => s.animationName !== 'none' || parseFloat(s.transitionDuration) > 0,
      ).length;
    });
  assert.equal(await moving(), 0);
  // For everybody else something does: the same page without the rules for those who asked.
  await page.evaluate(() => {
    for (const sheet of document.styleSheets)
      for (let i = sheet.cssRules.length - 1; i >= 0; i--) {
        const rule = sheet.cssRules[i];
        if (rule instanceof CSSMediaRule && /reduced-motion/.test(rule.conditionText))
          sheet.deleteRule(i);
      }
  });
  assert.ok((await moving()) > 0, 'otherwise something does');
});

test('installable: the manifest, its icons, and what Chromium says', LIMIT, async () => {
  const manifest = JSON.parse(readFileSync(join(web, 'manifest.webmanifest'), 'utf8'));
  for (const { src, sizes, type } of manifest.icons) {
    const bytes = readFileSync(join(web, src));
    if (type !== 'image/png') continue;
    assert.equal(bytes.toString('latin1', 1, 4), 'PNG');
    assert.equal(`${bytes.readUInt32BE(16)}x${bytes.readUInt32BE(20)}`, sizes, src);
  }
  const has = (/** @type {string} */ sizes, /** @type {string} */ purpose) =>
    manifest.icons.some((/** @type {any} */ i) => i.sizes === sizes && i.purpose === purpose);
  assert.ok(has('192x192', 'any') && has('512x512', 'any') && has('512x512', 'maskable'));
  const page = await visit(browser, site.url);
  const client = await page.createCDPSession();
  const { errors } = await client.send('Page.getAppManifest');
  assert.deepEqual(errors, []);
  const { installabilityErrors } = await client.send('Page.getInstallabilityErrors');
  assert.deepEqual(
    installabilityErrors.filter(({ errorId }) => errorId !== 'in-incognito'),
    [],
  );
  await page.close();
});

test('the shell is under 150 kB and each engine under 600 kB, compressed', LIMIT, async () => {
  const context = await browser.createBrowserContext();
  const page = await visit(context, site.url);
  const loaded = () => performance.getEntriesByType('resource').map(({ name }) => name);
  // Its threads are asleep in the engine; they load nothing of their own.
  const engine = page.workers().filter((worker) => worker.url().endsWith('/lib/worker.js'));
  const workers = await Promise.all(engine.map((worker) => worker.evaluate(loaded)));
  // Beside what page and workers loaded: what the browser takes by itself.
  const more = ['index.html', 'sw.js', 'precache.js', 'manifest.webmanifest', 'icon.svg'];
  const urls = [...(await page.evaluate(loaded)), ...workers.flat()];
  await context.close();
  const names = urls
    .filter((url) => url.startsWith(site.url))
    .map((url) => new URL(url).pathname.slice(1))
    .filter((name) => name && !/\.(wasm|gguf)$|^(samples|models)\//.test(name));
  const shell = [...new Set([...names, ...more])];
  for (const name of ['app.js', 'app.css', 'page/policy.js', 'lib/worker.js', 'lib/weights.js'])
    assert.ok(shell.includes(name), `${name} in ${shell.join(' ')}`);
  const sum = (/** @type {(bytes: Buffer) => Buffer} */ pack) =>
    shell.reduce((bytes, name) => bytes + pack(readFileSync(join(web, name))).length, 0);
  const [gzip, brotli] = [sum((b) => gzipSync(b)), sum((b) => brotliCompressSync(b))];
  console.log(`page shell: ${gzip} bytes with gzip, ${brotli} with brotli, ${shell.length} files`);
  assert.ok(gzip < 150_000 && brotli < 150_000, `${gzip} bytes with gzip, ${brotli} with brotli`);
  const engines = readdirSync(join(web, 'wasm')).filter((name) => name.endsWith('.wasm'));
  assert.ok(engines.length >= 2);
  for (const name of engines) {
    const bytes = gzipSync(readFileSync(join(web, 'wasm', name))).length;
    assert.ok(bytes < 600_000, `${name}: ${bytes} bytes with gzip`);
  }
});
