// The main path as one test body for every browser: first visit, a picture, a question, an answer, a second turn, Stop, a bad
// file, second visit. Buttons and boxes are found by role and name, as a person (or a screen reader) finds them.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const SHAPES = join(root, 'web', 'samples', 'shapes.jpg');
const QUESTIONS = ['How many shapes are there?', 'Describe the picture.'];

/**
 * What the body needs of a browser.
 * @typedef {object} Visitor
 * @property {(url: string) => Promise<void>} open in a fresh tab, where the browser's driver has tabs
 * @property {(script: Function, ...args: any[]) => Promise<any>} evaluate
 * @property {(path: string) => Promise<void>} upload to the page's file input
 * @property {(name: string, text: string) => Promise<void>} type into a textbox
 * @property {(name: string) => Promise<void>} click a button
 */

/**
 * Through puppeteer-core.
 * @param {import('puppeteer-core').Browser} browser
 * @returns {Visitor}
 */
export function puppeteerVisitor(browser) {
  /** @type {import('puppeteer-core').Page} */
  let page;
  return {
    async open(url) {
      await page?.close();
      page = await browser.newPage();
      page.setDefaultTimeout(60_000);
      await page.goto(url);
    },
    evaluate: (script, ...args) => page.evaluate(/** @type {any} */ (script), ...args),
    async upload(path) {
      const input = await page.$('#file');
      await /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
        input
      ).uploadFile(path);
    },
    type: (name, text) => page.type(`::-p-aria([name="${name}"][role="textbox"])`, text),
    click: (name) => page.click(`::-p-aria([name="${name}"][role="button"])`),
  };
}

/**
 * Through WebDriver.
 * @param {import('selenium-webdriver').WebDriver} driver
 * @returns {Visitor}
 */
export function webdriverVisitor(driver) {
  const find = async (/** @type {string} */ role, /** @type {string} */ name) => {
    for (const element of await driver.findElements({ css: 'button, textarea, input' })) {
      if (!(await element.isDisplayed())) continue;
      if ((await element.getAccessibleName()) !== name) continue;
      if ((await element.getAriaRole()) === role) return element;
    }
    throw new Error(`The page shows no ${role} named "${name}".`);
  };
  return {
    open: (url) => driver.get(url),
    async evaluate(script, ...args) {
      const call = `const done = arguments[arguments.length - 1];
        Promise.resolve().then(() => (${script})(...[...arguments].slice(0, -1)))
          .then((value) => done({ value }), (error) => done({ error: String(error) }));`;
      const { value, error } = /** @type {any} */ (await driver.executeAsyncScript(call, ...args));
      if (error) throw new Error(error);
      return value;
    },
    upload: async (path) => driver.findElement({ css: '#file' }).sendKeys(path),
    type: async (name, text) => (await find('textbox', name)).sendKeys(text),
    click: async (name) => (await find('button', name)).click(),
  };
}

/**
 * Waits until something holds in the page. Asked from outside, so that it outlives the page's reload into isolation.
 * @param {Visitor} visitor
 * @param {string} what
 * @param {(...args: any[]) => boolean} holds
 * @param {any[]} args
 */
async function until(visitor, what, holds, ...args) {
  const end = Date.now() + 120_000;
  for (let reason = ''; ; await new Promise((go) => setTimeout(go, 100))) {
    try {
      if (await visitor.evaluate(holds, ...args)) return;
    } catch (error) {
      reason = ` (${error})`; // the page that was asked is being left
    }
    assert.ok(Date.now() < end, `waited in vain: ${what}${reason}`);
  }
}

/** @param {Visitor} visitor */
async function loaded(visitor) {
  await until(visitor, 'a page that is isolated', () => crossOriginIsolated);
  await until(
    visitor,
    'a model that is loaded or refused',
    () => document.querySelector('#status-dot.ready, #status-dot.failed') !== null,
  );
  const said = await visitor.evaluate(() =>
    document.querySelector('#status-dot.failed')
      ? (document.querySelector('#notices')?.textContent ?? 'failed')
      : '',
  );
  assert.equal(said, '', 'the page says that the model cannot be loaded');
}

/**
 * @param {Visitor} visitor
 * @param {string} question
 * @param {string} [file]
 */
async function ask(visitor, question, file) {
  if (file) {
    await visitor.upload(file);
    await until(
      visitor,
      'the uploaded picture',
      () => document.querySelector('#pictures li') !== null,
    );
  }
  const before = await visitor.evaluate(() => document.querySelectorAll('.turn').length);
  await visitor.type('Question', question);
  await visitor.click('Ask');
  await until(
    visitor,
    `the end of the answer to "${question}"`,
    (/** @type {number} */ n) =>
      document.querySelectorAll('[role="log"] .turn').length > n &&
      !document.querySelector('.answering'),
    before,
  );
  return visitor.evaluate(() => {
    const turn = document.querySelector('.turn:last-of-type');
    const error = /** @type {HTMLElement | null} */ (turn?.querySelector('[role="alert"]'));
    return {
      words: turn?.querySelector('.words')?.textContent ?? '',
      code: error?.dataset.code ?? '',
      stopped: /Stopped/.test(turn?.textContent ?? ''),
    };
  });
}

/**
 * Runs the main path.
 * @param {Visitor} visitor
 * @param {string} url of a plain file server
 * @returns {Promise<{info: any, answers: string[]}>} the engine's figures and both answers of the first conversation
 */
export async function mainPath(visitor, url) {
  await visitor.open(url);
  await loaded(visitor);
  const info = await visitor.evaluate(() => /** @type {any} */ (globalThis).pocketvl.info);
  const first = await ask(visitor, QUESTIONS[0], SHAPES);
  const second = await ask(visitor, QUESTIONS[1]);
  for (const { words, code } of [first, second]) {
    assert.equal(code, '');
    assert.ok(words.length > 0);
  }
  const stats = await visitor.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats);
  assert.ok(stats.reusedTokens >= info.tokensPerTile, 'the first turn came from the cache');
  assert.equal(stats.tiles, 0);

  // Stop, pressed at the first sign of progress, while the plain loops of the reference look at a new picture.
  await visitor.evaluate(async () => {
    const { pocketvl } = /** @type {any} */ (globalThis);
    await pocketvl.loadModel('models/demo/manifest.json', { kernels: 'scalar', threads: 1 });
    const { chat } = pocketvl;
    pocketvl.chat = (/** @type {any} */ messages, /** @type {any} */ options) => {
      if (!options.onProgress) return chat.call(pocketvl, messages, options); // the page's own measuring
      pocketvl.chat = chat;
      const onProgress = (/** @type {any} */ step) => {
        options.onProgress(step);
        if (step.stage !== 'vision') return;
        Object.assign(globalThis, { lastStep: step });
        const buttons = [...document.querySelectorAll('button')];
        buttons.find((button) => button.textContent === 'Stop')?.click();
      };
      return chat.call(pocketvl, messages, { ...options, onProgress });
    };
  });
  const word = join(root, 'web', 'samples', 'word.jpg');
  const stopped = await ask(visitor, 'What does it say?', word);
  assert.deepEqual(stopped, { words: '', code: '', stopped: true });
  const { done, total } = await visitor.evaluate(() => /** @type {any} */ (globalThis).lastStep);
  assert.ok(done < total, `stopped at step ${done} of ${total}, not at the end`);
  await visitor.evaluate(() =>
    /** @type {any} */ (globalThis).pocketvl.loadModel('models/demo/manifest.json'),
  );

  const bad = await ask(visitor, 'What is this?', fileURLToPath(import.meta.url));
  assert.equal(bad.code, 'IMAGE');
  const next = await ask(visitor, QUESTIONS[0], SHAPES);
  assert.equal(next.code, '');
  assert.ok(next.words.length > 0);

  await visitor.open(url);
  await loaded(visitor);
  const again = await visitor.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats);
  assert.equal(again.fromNetwork, 0, 'the second visit reads the model from the browser');
  assert.ok(again.fromStore > 1e6);
  return { info, answers: [first.words, second.words] };
}

/**
 * The same conversation through the library in Chromium, one thread: the answers that every browser must give. The build is
 * the same, browsers decode a JPEG to the same bytes, and any number of threads gives the same bits, so the bound is equality.
 * @param {import('puppeteer-core').Browser} browser
 * @param {string} url
 * @param {'relaxed' | 'simd'} variant
 * @returns {Promise<string[]>}
 */
export async function referenceAnswers(browser, url, variant) {
  const page = await browser.newPage();
  await page.goto(`${url}samples/samples.json`);
  const answers = await page.evaluate(
    async (variant, questions) => {
      const { PocketVL } = await import(/** @type {any} */ ('/lib/pocketvl.js'));
      const vl = await PocketVL.load('/models/demo/manifest.json', {
        variant,
        threads: 1,
        store: 'none',
      });
      const image = await (await fetch('/samples/shapes.jpg')).blob();
      /** @type {any[]} */
      const messages = [];
      for (const text of questions) {
        const content = messages.length
          ? text
          : [
              { type: 'image', image },
              { type: 'text', text },
            ];
        messages.push({ role: 'user', content });
        const answer = await vl.chat(messages, { maxTiles: 1, maxTokens: 256 }).text();
        messages.push({ role: 'assistant', content: answer });
      }
      vl.dispose();
      return messages.filter(({ role }) => role === 'assistant').map(({ content }) => content);
    },
    variant,
    QUESTIONS,
  );
  await page.close();
  return answers.map((answer) => answer.trim());
}
