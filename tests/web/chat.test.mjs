// The conversation as a person has it: over a reload, with copy, edit, another answer and export; pictures of every kind
// and way; how they were seen, and what that costs, said before.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from '../../web/serve.mjs';
import { askOnPage, chromium } from './browser.mjs';
import {
  BROWSERS,
  answered,
  attach,
  fixture,
  reload,
  root,
  sample,
  siteWith,
  turnsOf,
  visit,
} from './pages.mjs';

const LIMIT = { timeout: 180_000 };
const folder = mkdtempSync(join(tmpdir(), 'pocketvl-chat-'));

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
/** @type {import('puppeteer-core').Browser} */
let browser;

before(async () => {
  site = await serve({ port: 0 });
  browser = await chromium({
    args: ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
  });
}, LIMIT);
after(async () => {
  await browser?.close();
  await site?.close();
  rmSync(folder, { recursive: true, force: true });
}, LIMIT);

for (const [name, launch] of BROWSERS) {
  test(
    `${name}: the conversation survives a reload, with its picture, and goes on`,
    { timeout: 240_000 },
    async () => {
      const own = name === 'Chromium' ? browser : await launch();
      const page = await visit(own, site.url);
      await askOnPage(page, 'How many shapes are there?', { file: sample('shapes') });
      await askOnPage(page, 'Describe the picture.');
      await page.waitForFunction(() =>
        Object.entries(localStorage).some(([, text]) => /"key":"\w/.test(text)),
      );
      const before = await turnsOf(page);
      assert.equal(before.length, 2);
      await reload(page);
      await page.waitForFunction(() => document.querySelectorAll('.turn').length === 2);
      assert.deepEqual(await turnsOf(page), before);
      await askOnPage(page, 'How many shapes are there?');
      const after = await turnsOf(page);
      assert.equal(after.length, 3);
      const tiles = await page.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats.tiles);
      assert.ok(tiles >= 1, 'the kept picture was looked at again');

      // Another tab has a conversation of its own; a new chat deletes this one.
      const other = await visit(own, site.url);
      assert.equal((await turnsOf(other)).length, 0);
      assert.equal(
        await other.$eval('#continue', (box) => /** @type {HTMLElement} */ (box).hidden),
        true,
        'it is open elsewhere',
      );
      await other.close();
      await page.bringToFront();
      await page.click('#new-chat');
      await page.waitForFunction(() => !document.querySelector('.turn'));
      await page.waitForFunction(
        () => !Object.keys(localStorage).some((key) => key.startsWith('pocketvl-chat:')),
      );
      await reload(page);
      assert.equal((await turnsOf(page)).length, 0);
      await page.close();
      if (own !== browser) await own.close();
    },
  );
}

test(
  'a closed tab’s conversation is offered once more; a duplicate does not share it',
  LIMIT,
  async () => {
    const page = await visit(browser, site.url);
    await askOnPage(page, 'What number is this?', { file: sample('digits') });
    const before = await turnsOf(page);
    await page.close();
    const next = await visit(browser, site.url);
    await next.waitForSelector('#continue:not([hidden])');
    await next.click('#continue-button');
    await next.waitForSelector('.turn');
    assert.deepEqual(await turnsOf(next), before);
    // "Duplicate tab" copies what the tab remembers of itself.
    const tab = await next.evaluate(() => sessionStorage.getItem('pocketvl-chat') ?? '');
    const twin = await browser.newPage();
    await twin.goto(`${site.url}icon.svg`);
    await twin.evaluate((id) => sessionStorage.setItem('pocketvl-chat', id), tab);
    await twin.goto(site.url);
    await sleep(1500);
    assert.equal((await turnsOf(twin)).length, 0);
    await twin.close();
    await next.bringToFront();
    await next.click('#new-chat');
    await next.close();
  },
);

test('no room for pictures: the text survives alone, and says so', LIMIT, async () => {
  const page = await visit(browser, site.url);
  await page.evaluate(() => {
    IDBObjectStore.prototype.put = () => {
      throw new DOMException('full', 'QuotaExceededError');
    };
  });
  await askOnPage(page, 'How many shapes are there?', { file: sample('shapes') });
  const [{ question, answer }] = await turnsOf(page);
  await reload(page);
  const [after] = await turnsOf(page);
  assert.deepEqual(after, { question, answer, pictures: 0 });
  assert.match(await page.$eval('.shot', (shot) => shot.textContent ?? ''), /not kept/);
  assert.ok((await askOnPage(page, 'Describe the picture.')).length > 0);
  await page.click('#new-chat');
  await page.close();
});

test('copy, another answer, edit, and the order of what follows', LIMIT, async () => {
  const page = await visit(browser, site.url);
  const context = browser.defaultBrowserContext();
  await context.overridePermissions(new URL(site.url).origin, [
    'clipboard-read',
    'clipboard-write',
    'clipboard-sanitized-write',
  ]);
  const first = await askOnPage(page, 'Describe the picture.', { file: sample('three') });
  await page.bringToFront();
  await page.click('::-p-aria([name="Copy"][role="button"])');
  await page.waitForFunction(
    () => document.querySelector('.foot button')?.textContent === 'Copied',
  );
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), first.trim());

  await page.click('::-p-aria([name="Another answer"][role="button"])');
  await answered(page);
  let turns = await turnsOf(page);
  assert.equal(turns.length, 1, 'it takes the place of the first');
  assert.equal(turns[0].question, 'Describe the picture.');
  assert.ok(turns[0].answer.length > 0);

  await askOnPage(page, 'How many shapes are there?');
  assert.equal(
    (await page.$$('::-p-aria([name="Edit"][role="button"])')).length,
    1,
    'the last question alone can be edited',
  );
  await page.click('::-p-aria([name="Edit"][role="button"])');
  turns = await turnsOf(page);
  assert.equal(turns.length, 1);
  const box = await page.$eval('#question', (element) => ({
    text: /** @type {HTMLTextAreaElement} */ (element).value,
    focused: document.activeElement === element,
  }));
  assert.deepEqual(box, { text: 'How many shapes are there?', focused: true });
  await page.$eval('#question', (element) => {
    /** @type {HTMLTextAreaElement} */ (element).value = '';
  });
  await askOnPage(page, 'What is on the left?');
  turns = await turnsOf(page);
  assert.equal(turns.length, 2);
  assert.equal(turns[1].question, 'What is on the left?');
  await page.click('#new-chat');
  await page.close();
});

test('export: JSON that the library reads again, and Markdown', LIMIT, async () => {
  const page = await visit(browser, site.url);
  const client = await page.createCDPSession();
  await client.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: folder });
  const answer = await askOnPage(page, 'Where is the brown ellipse?', { file: sample('two') });
  const saved = async (/** @type {string} */ name, /** @type {string} */ ending) => {
    await page.click('#export summary');
    await page.click(`::-p-aria([name="${name}"][role="button"])`);
    for (let i = 0; i < 100; i++) {
      const file = readdirSync(folder).find((f) => f.endsWith(ending));
      if (file) return readFileSync(join(folder, file), 'utf8');
      await sleep(100);
    }
    throw new Error(`no ${ending} was saved`);
  };
  const json = JSON.parse(await saved('As JSON', '.json'));
  assert.equal(json.format, 'pocketvl-conversation');
  assert.deepEqual(
    json.messages.map((/** @type {any} */ m) => m.role),
    ['user', 'assistant'],
  );
  assert.match(json.messages[0].content[0].image_url.url, /^data:image\/jpeg;base64,/);
  assert.ok(json.answers[0].stats.generatedTokens > 0);
  assert.ok(json.answers[0].tilings[0].tiling.tiles >= 1);
  const markdown = await saved('As Markdown', '.md');
  assert.ok(markdown.includes('Where is the brown ellipse?'));
  if (answer.trim()) assert.ok(markdown.includes(answer.trim().split(' ')[0]));
  // The pictures in it are what the library fetches as addresses.
  const content = [...json.messages[0].content];
  const url = content[0].image_url.url;
  const again = await page.evaluate(async (data) => {
    const image = new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]);
    const { pocketvl } = /** @type {any} */ (globalThis);
    const parts = [
      { type: 'image', image },
      { type: 'text', text: 'Where is the brown ellipse?' },
    ];
    return pocketvl.chat([{ role: 'user', content: parts }]).text();
  }, url.split(',')[1]);
  assert.equal(again, json.messages[1].content);
  await page.click('#new-chat');
  await page.close();
});

test(
  'every way in: several at once, drop, paste, camera, a sample; thumbnails and removal',
  LIMIT,
  async () => {
    const page = await visit(browser, site.url);
    await attach(page, sample('one'), sample('two'));
    await page.waitForFunction(() => {
      const images = [...document.querySelectorAll('#pictures img')];
      return (
        images.length === 2 &&
        images.every((image) => /** @type {HTMLImageElement} */ (image).naturalWidth > 0)
      );
    });
    const give = (/** @type {'drop' | 'paste'} */ way) =>
      page.evaluate(async (how) => {
        const blob = await (await fetch('samples/word.jpg')).blob();
        const data = new DataTransfer();
        data.items.add(new File([blob], `${how}.jpg`, { type: 'image/jpeg' }));
        if (how === 'drop') {
          window.dispatchEvent(new DragEvent('dragenter', { dataTransfer: data }));
          const shown = !(/** @type {HTMLElement} */ (document.querySelector('#curtain')).hidden);
          window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
          return shown;
        }
        window.dispatchEvent(
          new ClipboardEvent('paste', { clipboardData: data, cancelable: true }),
        );
        return true;
      }, way);
    assert.equal(await give('drop'), true, 'the curtain shows that a picture can be let go');
    await give('paste');
    assert.equal((await page.$$('#pictures li')).length, 4);
    await page.click('::-p-aria([name="Remove drop.jpg"][role="button"])');
    assert.equal((await page.$$('#pictures li')).length, 3);

    await page.click('::-p-aria([name="Take a photo"][role="button"])');
    await page.waitForFunction(
      () => /** @type {HTMLVideoElement} */ (document.querySelector('#viewfinder')).videoWidth > 0,
    );
    await page.click('#shoot');
    await page.waitForFunction(() => document.querySelectorAll('#pictures li').length === 4);
    const camera = await page.$eval(
      '#viewfinder',
      (v) => /** @type {HTMLVideoElement} */ (v).srcObject,
    );
    assert.equal(camera, null, 'the camera is off');
    await page.type('#question', 'What is this?');
    await page.keyboard.press('Enter');
    await answered(page);
    let turns = await turnsOf(page);
    assert.equal(turns[0].pictures, 4);
    assert.ok(turns[0].answer.length > 0);
    await askOnPage(page, 'What does it say?', { file: sample('word') });
    turns = await turnsOf(page);
    assert.equal(turns[1].pictures, 1, 'another picture in the same conversation');
    await page.click('#new-chat');
    await page.click('#samples button');
    await answered(page);
    turns = await turnsOf(page);
    assert.equal(turns.length, 1);
    assert.equal(turns[0].pictures, 1);
    await page.click('#new-chat');
    await page.close();
  },
);

test('WebP and AVIF by the browser, HEIC named, phone photos upright', LIMIT, async () => {
  const page = await visit(browser, site.url);
  const webp = join(folder, 'made.webp');
  writeFileSync(
    webp,
    Buffer.from(
      await page.evaluate(async () => {
        const canvas = new OffscreenCanvas(120, 80);
        canvas.getContext('2d')?.fillRect(10, 10, 50, 50);
        const blob = await canvas.convertToBlob({ type: 'image/webp' });
        return [...new Uint8Array(await blob.arrayBuffer())];
      }),
    ),
  );
  const heic = join(folder, 'phone.heic');
  writeFileSync(heic, Buffer.from('\0\0\0\x18ftypheic\0\0\0\0heicmif1', 'latin1'));
  const sizeOf = async (/** @type {string} */ file) => {
    await askOnPage(page, 'What is this?', { file });
    const error = await page.$('.turn:last-of-type .error');
    if (error) return error.evaluate((box) => box.textContent ?? '');
    await page.click('.turn:last-of-type .figures summary');
    await page.waitForSelector('.turn:last-of-type figcaption');
    return page.$eval(
      '.turn:last-of-type figcaption',
      (words) => (words.textContent ?? '').split('.')[0],
    );
  };
  assert.equal(await sizeOf(webp), '120 × 80');
  assert.equal(await sizeOf(join(root, 'tests/fixtures/web/small.avif')), '64 × 48');
  assert.match(
    await sizeOf(heic),
    /The picture cannot be used.*HEIC.*JPEG or PNG.*Choose another picture/,
  );
  // A phone held upright writes the rows of its sensor, 40 x 26, and says how to turn them.
  assert.equal(await sizeOf(fixture('turned_6.jpg')), '26 × 40');
  const shown = await page.$eval('.turn:last-of-type .asked img', (image) => {
    const { naturalWidth, naturalHeight } = /** @type {HTMLImageElement} */ (image);
    return `${naturalWidth} × ${naturalHeight}`;
  });
  assert.equal(shown, '26 × 40', 'person and model see the same');
  await page.click('#new-chat');
  await page.close();
});

test(
  'seeing the seeing: the price before, the tiles while and after, the figures',
  LIMIT,
  async () => {
    const many = await siteWith((manifest) => (manifest.settings.maxTiles = 12));
    const page = await visit(browser, many.url);
    assert.equal(await page.$eval('#cost', (box) => /** @type {HTMLElement} */ (box).hidden), true);
    await attach(page, sample('bars-letters'));
    // Nobody has asked anything yet, and the page knows what each choice costs here.
    const measured = await page.waitForFunction(() => {
      const costs = [...document.querySelectorAll('#cost .choice')].map((choice) => ({
        value: choice.querySelector('input')?.value,
        seconds: Number(/about ([\d.]+) s/.exec(choice.textContent ?? '')?.[1]),
      }));
      return costs.length && costs.every(({ seconds }) => seconds > 0) && costs;
    });
    const costs = /** @type {{value: string, seconds: number}[]} */ (await measured.jsonValue());
    assert.deepEqual(
      costs.map(({ value }) => value),
      ['quick', 'balanced', 'fine'],
    );
    assert.ok(
      costs[0].seconds < costs[1].seconds && costs[1].seconds < costs[2].seconds,
      JSON.stringify(costs),
    );
    await page.evaluate(() => {
      const seen = /** @type {any} */ (globalThis);
      seen.grids = [];
      new MutationObserver(() => {
        const grid = document.querySelector('.asked .tiles');
        if (grid) seen.grids.push(grid.children.length);
      }).observe(/** @type {Element} */ (document.querySelector('#log')), {
        childList: true,
        subtree: true,
      });
    });
    await page.click('#cost .choice:nth-of-type(2)');
    const expected = await page.evaluate(() =>
      /** @type {any} */ (globalThis).pocketvl.tiling(640, 480, 6),
    );
    assert.ok(expected.tiles > 1);
    await askOnPage(page, 'Which bar is the highest?');
    const grids = await page.evaluate(() => /** @type {any} */ (globalThis).grids);
    assert.ok(
      grids.includes(expected.columns * expected.rows),
      'the grid was there while it looked',
    );
    assert.equal(await page.$('.asked .tiles'), null, 'and is gone from the picture afterwards');
    await page.click('.figures summary');
    await page.waitForSelector('.seen');
    const seen = await page.$eval('.seen', (box) => ({
      cells: box.querySelectorAll('.tiles i').length,
      words: box.textContent ?? '',
    }));
    assert.equal(seen.cells, expected.columns * expected.rows);
    for (const word of [
      `${expected.columns} × ${expected.rows} tiles`,
      `${expected.tokens} visual tokens`,
      'First word after',
      'per second',
      'MB',
      'Relaxed SIMD',
      'Threads',
    ]) {
      assert.ok(seen.words.includes(word), `"${word}" in ${seen.words}`);
    }
    // Remembered over a reload.
    await reload(page);
    await attach(page, sample('one'));
    await page.waitForSelector('#cost .choice');
    assert.equal(
      await page.$eval(
        '#cost input:checked',
        (input) => /** @type {HTMLInputElement} */ (input).value,
      ),
      'balanced',
    );
    await page.close();
    await many.close();
  },
);

test('quick is where a slow device starts', LIMIT, async () => {
  const many = await siteWith((manifest) => (manifest.settings.maxTiles = 12));
  const page = await visit(browser, many.url);
  const chosen = async (/** @type {number} */ tileMs) => {
    await page.evaluate((ms) => {
      const { info } = /** @type {any} */ (globalThis).pocketvl;
      const id = [info.key, info.variant, info.kernels, info.threads].join(' ');
      const rates = { [id]: { tileMs: ms, promptMs: 0, tokenMs: 1 } };
      localStorage.setItem('pocketvl-settings', JSON.stringify({ rates }));
    }, tileMs);
    await reload(page);
    await attach(page, sample('bars-letters'));
    await page.waitForSelector('#cost .choice');
    return page.$eval(
      '#cost input:checked',
      (input) => /** @type {HTMLInputElement} */ (input).value,
    );
  };
  assert.equal(await chosen(20_000), 'quick');
  assert.equal(await chosen(100), 'balanced');
  await page.close();
  await many.close();
});

test('boxes with their labels over the picture', LIMIT, async () => {
  const page = await visit(browser, site.url);
  await page.evaluate(() => {
    // What a model says is given; how it is shown is tested.
    const { pocketvl } = /** @type {any} */ (globalThis);
    pocketvl.chat = () => ({
      stop: 'end',
      stats: { generatedTokens: 9, tiles: 0 },
      pictures: [],
      async *[Symbol.asyncIterator]() {
        yield 'The <ref>red star</ref><box>[[100, 200, 300, 400]]</box>';
        yield ' and <ref>a circle</ref><box>[[500, 0, 900, 400]]</box>.';
      },
    });
  });
  const answer = await askOnPage(page, 'Where?', { file: sample('shapes') });
  assert.equal(answer, 'The red star and a circle.');
  const boxes = await page.$$eval('.asked .box', (list) =>
    list.map((box) => {
      const { left, top, width, height } = /** @type {HTMLElement} */ (box).style;
      return [box.textContent, left, top, width, height];
    }),
  );
  assert.deepEqual(boxes, [
    ['red star', '10%', '20%', '20%', '20%'],
    ['a circle', '50%', '0%', '40%', '40%'],
  ]);
  await page.click('#new-chat');
  await page.close();
});
