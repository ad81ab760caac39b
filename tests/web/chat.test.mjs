// The conversation as a person has it: over a reload, with copy, edit, another answer and export; pictures of every kind
// and way; how they were seen, and what that costs, said before.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from '../../web/serve.mjs';
import { askOnPage, modelReady, press } from './browser.mjs';
import {
  answerWith,
  answered,
  attach,
  fixture,
  give,
  inBrowsers,
  reload,
  root,
  sample,
  siteWith,
  turnsOf,
} from './pages.mjs';

const folder = mkdtempSync(join(tmpdir(), 'pocketvl-chat-'));
const downloads = join(folder, 'saved');
mkdirSync(downloads);

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
/** The shipped model, allowed to look more than once. @type {Awaited<ReturnType<typeof siteWith>>} */
let tiled;

before(async () => {
  site = await serve({ port: 0, isolate: true }); // one load less for each visit
  tiled = await siteWith((manifest) => (manifest.settings.maxTiles = 12));
});
after(async () => {
  await site?.close();
  await tiled?.close();
  rmSync(folder, { recursive: true, force: true });
});

// With a camera that shows a test picture, and a folder for what is saved.
const both = inBrowsers({
  args: ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'],
  prefs: { 'media.navigator.streams.fake': true, 'media.navigator.permission.disabled': true },
  downloads,
});

both('the conversation survives a reload, with its picture, and goes on', async ({ open }) => {
  const page = await open(site.url);
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
  const other = await open(site.url);
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
});

both(
  'a closed tab’s conversation is offered once more; a duplicate does not share it',
  async ({ context, open }) => {
    const page = await open(site.url);
    await askOnPage(page, 'What number is this?', { file: sample('digits') });
    const before = await turnsOf(page);
    await page.close();
    const next = await open(site.url);
    await next.waitForSelector('#continue:not([hidden])');
    await next.click('#continue-button');
    await next.waitForSelector('.turn .shot img'); // comes behind the text
    assert.deepEqual(await turnsOf(next), before);
    // "Duplicate tab" copies what the tab remembers of itself.
    const tab = await next.evaluate(() => sessionStorage.getItem('pocketvl-chat') ?? '');
    const twin = await context.newPage();
    await twin.goto(`${site.url}icon.svg`);
    await twin.evaluate((id) => sessionStorage.setItem('pocketvl-chat', id), tab);
    await twin.goto(site.url);
    await modelReady(twin); // its conversation would have come meanwhile: it is looked for before the model
    await twin.waitForFunction((id) => sessionStorage.getItem('pocketvl-chat') === id, {}, tab);
    assert.equal((await turnsOf(twin)).length, 0);
    assert.equal((await turnsOf(next)).length, 1);
  },
);

both('no room for pictures: the text survives alone, and says so', async ({ open }) => {
  const page = await open(site.url);
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
});

both('copy, another answer, edit, and the order of what follows', async ({ open }) => {
  const page = await open(site.url);
  // No driver reads Firefox's clipboard: what the page gives it is written down.
  await page.evaluate(() => {
    navigator.clipboard.writeText = async (text) =>
      void Object.assign(globalThis, { copied: text });
  });
  const first = await askOnPage(page, 'Describe the picture.', { file: sample('three') });
  await press(page, 'Copy');
  await page.waitForFunction(
    () => document.querySelector('.foot button')?.textContent === 'Copied',
  );
  assert.equal(await page.evaluate(() => /** @type {any} */ (globalThis).copied), first.trim());

  await press(page, 'Another answer');
  await answered(page);
  let turns = await turnsOf(page);
  assert.equal(turns.length, 1, 'it takes the place of the first');
  assert.equal(turns[0].question, 'Describe the picture.');
  assert.ok(turns[0].answer.length > 0);

  await askOnPage(page, 'How many shapes are there?');
  const edits = await page.$$eval(
    '.turn button',
    (buttons) =>
      buttons.filter((button) => button.checkVisibility() && button.textContent?.trim() === 'Edit')
        .length,
  );
  assert.equal(edits, 1, 'the last question alone can be edited');
  await press(page, 'Edit');
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
  await page.waitForFunction(() => !document.querySelector('.turn'));
  assert.equal(await page.evaluate(() => document.activeElement?.id), 'question');
});

both('export: JSON that the library reads again, and Markdown', async ({ open }) => {
  const page = await open(site.url);
  for (const old of readdirSync(downloads)) rmSync(join(downloads, old));
  const answer = await askOnPage(page, 'Where is the brown ellipse?', { file: sample('two') });
  const saved = async (/** @type {string} */ name, /** @type {string} */ ending) => {
    await page.click('#export summary');
    await press(page, name);
    for (let i = 0; i < 300; i++) {
      const file = readdirSync(downloads).find((f) => f.endsWith(ending));
      const text = file ? readFileSync(join(downloads, file), 'utf8') : '';
      if (text.endsWith('\n')) return text; // all of it
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
});

both(
  'every way in: several at once, drop, paste, camera, a sample; thumbnails and removal',
  async ({ open }) => {
    const page = await open(site.url);
    await attach(page, sample('one'), sample('two'));
    await page.waitForFunction(() => {
      const images = [...document.querySelectorAll('#pictures img')];
      return (
        images.length === 2 &&
        images.every((image) => /** @type {HTMLImageElement} */ (image).naturalWidth > 0)
      );
    });
    const word = (/** @type {string} */ name) => [{ name, from: 'samples/word.jpg' }];
    assert.equal(
      await give(page, 'drop', word('drop.jpg')),
      true,
      'the curtain shows that a picture can be let go',
    );
    await give(page, 'paste', word('paste.jpg'));
    assert.equal((await page.$$('#pictures li')).length, 4);
    await press(page, 'Remove drop.jpg');
    assert.equal((await page.$$('#pictures li')).length, 3);

    await press(page, 'Take a photo');
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
  },
);

both('nine pictures at once: eight are taken, and the page says so', async ({ open }) => {
  const page = await open(site.url);
  const nine = Array.from({ length: 9 }, (_, i) => ({ name: `${i}.jpg`, from: 'samples/one.jpg' }));
  await give(page, 'drop', nine);
  await page.waitForSelector('#notices [data-code="LIMIT"]');
  assert.equal((await page.$$('#pictures li')).length, 8);
});

both('a picture that is added moves nothing under the eye', async ({ open }) => {
  const page = await open(site.url);
  await page.waitForFunction(() => document.querySelectorAll('#samples img').length > 0);
  assert.equal(await page.evaluate(() => scrollY), 0);
  await attach(page, sample('one'));
  await page.waitForFunction(() => document.activeElement?.id === 'question');
  assert.equal(await page.evaluate(() => scrollY), 0);
});

both('WebP and AVIF by the browser, HEIC named, phone photos upright', async ({ open }) => {
  const page = await open(site.url);
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
});

both(
  'seeing the seeing: the price before, the tiles while and after, the figures',
  async ({ open }) => {
    const page = await open(tiled.url);
    assert.equal(await page.$eval('#cost', (box) => /** @type {HTMLElement} */ (box).hidden), true);
    await attach(page, sample('bars-letters'));
    // Nobody has asked anything yet, and the page knows what each choice costs here.
    const measured = await page.waitForFunction(() => {
      const costs = [...document.querySelectorAll('#cost .choice')].map((choice) => ({
        value: choice.querySelector('input')?.value,
        seconds: Number(/about ([\d.]+) s/.exec(choice.textContent ?? '')?.[1]),
      }));
      return costs.length === 3 && costs.every(({ seconds }) => seconds > 0) && costs;
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
      'Writing',
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
  },
);

both('quick is where a slow device starts', async ({ open }) => {
  const page = await open(tiled.url);
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
});

both('boxes with their labels over the picture', async ({ open }) => {
  const page = await open(site.url);
  await answerWith(page, [
    'The <ref>red star</ref><box>[[100, 200, 300, 400]]</box>',
    ' and <ref>a circle</ref><box>[[500, 0, 900, 400]]</box>.',
  ]);
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
});

both('a rate is told of answers that were long enough to have one', async ({ open }) => {
  const page = await open(site.url);
  const told = async (/** @type {Record<string, any>} */ stats) => {
    await answerWith(page, ['5'], stats);
    await askOnPage(page, 'How many?');
    await page.click('.turn:last-of-type .figures summary');
    await page.waitForSelector('.turn:last-of-type .seen');
    return page.$eval('.turn:last-of-type .figures', (figures) => [
      figures.querySelector('summary')?.textContent ?? '',
      figures.querySelector('.seen')?.textContent ?? '',
    ]);
  };
  const short = { generatedTokens: 1, decodeMs: 0.45, tokensPerSecond: 2222 };
  for (const words of await told(short)) assert.doesNotMatch(words, /per second|2,?222/);
  const blink = { generatedTokens: 8, decodeMs: 0, tokensPerSecond: 0 };
  for (const words of await told(blink)) assert.doesNotMatch(words, /per second/);
  const long = { generatedTokens: 40, decodeMs: 8000, tokensPerSecond: 5 };
  for (const words of await told(long)) assert.match(words, /40 tokens.*5\.0 per second/);
});

both(
  'an engine that does not hear Stop is ended, said so, and the next works',
  async ({ open }) => {
    const page = await open(site.url);
    // The time that the page gives it is over when the test says so, and the engine gets no message any more.
    const deafen = () =>
      page.evaluate(() => {
        const seen = /** @type {any} */ (globalThis);
        seen.later ??= setTimeout;
        seen.timeIsOver = () => {
          throw new Error('the page waits for nothing');
        };
        seen.setTimeout = (/** @type {() => void} */ run, /** @type {number} */ ms) => {
          if (ms !== 15_000) return seen.later.call(globalThis, run, ms);
          seen.timeIsOver = run;
          return 0;
        };
        seen.pocketvl.client.worker.post = () => {};
      });
    const timeIsOver = () => page.evaluate(() => /** @type {any} */ (globalThis).timeIsOver());
    await attach(page, sample('shapes'));
    await page.waitForFunction(() =>
      document.querySelector('#cost')?.textContent?.includes('about'),
    ); // the page’s own measuring is over
    await deafen();
    await page.type('#question', 'How many shapes are there?');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.answering');
    await press(page, 'Stop');
    await page.waitForFunction(() =>
      /Stopping/.test(document.querySelector('.answering .stage')?.textContent ?? ''),
    );
    await timeIsOver();
    await page.waitForSelector('.turn .error');
    const { code, words } = await page.$eval('.turn .error', (box) => ({
      code: /** @type {HTMLElement} */ (box).dataset.code,
      words: box.textContent ?? '',
    }));
    assert.equal(code, 'WORKER');
    assert.match(words, /The engine stopped.*did not stop when it was told to/);
    assert.equal(await page.$('.answering'), null);
    await press(page, 'Start it again and ask');
    await page.waitForFunction(
      () =>
        document.querySelector('.turn .words')?.textContent &&
        !document.querySelector('.answering'),
    );
    assert.equal(await page.$('.error'), null);

    // The same, and the person has begun a new chat meanwhile: its question waits for an engine that will never answer.
    await deafen();
    await page.type('#question', 'Describe the picture.');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.answering');
    await page.click('#new-chat');
    await page.type('#question', 'What can you do?');
    await page.keyboard.press('Enter');
    await page.waitForSelector('.answering');
    await timeIsOver();
    await answered(page);
    const [turn, ...more] = await turnsOf(page);
    assert.deepEqual(more, []);
    assert.ok(turn.answer.length > 0);
  },
);
