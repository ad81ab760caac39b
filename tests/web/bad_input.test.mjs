// What a person may hand the page that is no picture, no question or no model, and pictures at the edges of what is one: each
// gives one clear error with a stable code, or an answer, and the next question is answered.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { askOnPage, press } from './browser.mjs';
import { fixture, inBrowsers, root, sample } from './pages.mjs';

/** @typedef {import('puppeteer-core').Page} Page */
/** @typedef {import('./pages.mjs').Visitor} Visitor */

const SHAPES = sample('shapes');
const MODEL = readFileSync(join(root, 'tests', 'fixtures', 'model', 'qwen2-q8_0.gguf'));

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
const folder = mkdtempSync(join(tmpdir(), 'pocketvl-bad-'));

before(async () => {
  site = await serve({ port: 0, isolate: true });
});
after(async () => {
  await site?.close();
  rmSync(folder, { recursive: true, force: true });
});

const inEach = inBrowsers();

/**
 * A test on the page, where nothing may go wrong unseen.
 * @param {string} what
 * @param {(page: Page, browser: Visitor['name']) => Promise<void>} body
 */
const both = (what, body) =>
  inEach(what, async ({ name, open }) => {
    const page = await open(site.url);
    /** @type {string[]} */
    const errors = [];
    // Firefox also names pictures here that it could not show.
    page.on('pageerror', (error) => {
      if (!/Image corrupt or truncated/.test(String(error))) errors.push(String(error));
    });
    await body(page, name);
    assert.deepEqual(errors, []);
  });

/** @param {string} name @param {string | Uint8Array} bytes */
function file(name, bytes) {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** The one error that is shown at a place of the page. @param {Page} page @param {string} where */
const shown = (page, where) =>
  page.$$eval(`${where} [role="alert"]`, (boxes) =>
    boxes.map((box) => ({
      code: /** @type {HTMLElement} */ (box).dataset.code,
      text: box.textContent ?? '',
    })),
  );

/** So that no earlier picture is looked at again. @param {Page} page */
const newChat = (page) =>
  page.$eval('#new-chat', (button) => /** @type {HTMLElement} */ (button).click());

/** The next question is answered, by the demonstration model. @param {Page} page @param {string} what */
async function stillAnswers(page, what) {
  await newChat(page);
  const answer = await askOnPage(page, 'How many shapes are there?', { file: SHAPES });
  assert.deepEqual(await shown(page, '.turn:last-of-type'), [], `after ${what}`);
  assert.ok(answer.length > 0, `after ${what}`);
  assert.match(await page.$eval('#status-text', (box) => box.textContent ?? ''), /demonstration/);
}

/** A bitmap of the old kind that says how large it is and holds almost nothing. */
function bitmap(/** @type {number} */ width, /** @type {number} */ height) {
  const bytes = Buffer.alloc(54 + 40);
  bytes.write('BM');
  bytes.writeUInt32LE(bytes.length, 2);
  bytes.writeUInt32LE(54, 10);
  bytes.writeUInt32LE(40, 14);
  bytes.writeInt32LE(width, 18);
  bytes.writeInt32LE(height, 22);
  bytes.writeUInt16LE(1, 26);
  bytes.writeUInt16LE(24, 28);
  return bytes;
}

both('files that are no picture, or too large a one', async (page, browser) => {
  const jpeg = readFileSync(SHAPES);
  /** @type {[string, string | Uint8Array, string][]} */
  const cases = [
    ['text.jpg', 'this is text', 'IMAGE'],
    ['cut.jpg', jpeg.subarray(0, jpeg.length >> 1), 'IMAGE'],
    ['cut.png', readFileSync(fixture('photo.png')).subarray(0, 3000), 'IMAGE'],
    ['empty.png', '', 'IMAGE'],
    ['poster.bmp', bitmap(60_000, 60_000), 'LIMIT'],
  ];
  // Firefox shows of a bitmap what there is.
  if (browser !== 'Firefox') cases.push(['promise.bmp', bitmap(3000, 3000), 'IMAGE']);
  for (const [name, bytes, code] of cases) {
    await askOnPage(page, 'What is this?', { file: file(name, bytes) });
    const [error, ...more] = await shown(page, '.turn:last-of-type');
    assert.deepEqual(more, [], name);
    assert.equal(error?.code, code, `${name}: ${error?.text}`);
    assert.ok(error.text.length > 30, error.text);
    await stillAnswers(page, name);
  }
});

both('1 x 1, 20000 x 1 and 100 megapixels are pictures', async (page) => {
  for (const [name, width, height] of /** @type {const} */ ([
    ['one.png', 1, 1],
    ['line.png', 20_000, 1],
    ['huge.png', 10_000, 10_000],
  ])) {
    const bytes = readFileSync(fixture(name));
    assert.deepEqual([bytes.readUInt32BE(16), bytes.readUInt32BE(20)], [width, height]);
    await newChat(page);
    const answer = await askOnPage(page, 'What is this?', { file: fixture(name) });
    assert.deepEqual(await shown(page, '.turn:last-of-type'), [], name);
    assert.ok(answer.length > 0, name);
    await stillAnswers(page, name);
  }
});

both('no question, and a question longer than the context', async (page) => {
  for (const text of ['', '   ']) {
    await page.$eval(
      '#question',
      (box, words) => {
        /** @type {HTMLTextAreaElement} */ (box).value = words;
      },
      text,
    );
    const turns = await page.$$eval('.turn', (list) => list.length);
    await press(page, 'Ask');
    await page.waitForSelector('#notices [data-code="ARGUMENT"]', { timeout: 5000 });
    assert.equal(await page.$$eval('.turn', (list) => list.length), turns);
    await stillAnswers(page, 'no question');
  }
  await page.$eval('#question', (box) => {
    /** @type {HTMLTextAreaElement} */ (box).value = 'word '.repeat(4000);
  });
  const before = await page.$$eval('.turn', (turns) => turns.length);
  await press(page, 'Ask');
  await page.waitForFunction(
    (n) => document.querySelectorAll('.turn').length > n && !document.querySelector('.answering'),
    {},
    before,
  );
  const [error] = await shown(page, '.turn:last-of-type');
  assert.equal(error?.code, 'CONTEXT', error?.text);
  await stillAnswers(page, 'a long question');
});

/** A copy of the model's file with what follows a tensor's name in the list changed. */
function changed(
  /** @type {string} */ tensor,
  /** @type {(copy: Buffer, at: {name: number, dims: number, type: number, offset: number}) => void} */ change,
) {
  const copy = Buffer.from(MODEL);
  const name = Buffer.alloc(8 + tensor.length);
  name.writeBigUInt64LE(BigInt(tensor.length));
  name.write(tensor, 8);
  const at = copy.indexOf(name);
  assert.ok(at > 0, tensor);
  const count = copy.readUInt32LE(at + name.length);
  const dims = at + name.length + 4;
  const type = dims + 8 * count;
  change(copy, { name: at + 8, dims, type, offset: type + 4 });
  return copy;
}

both('models that are damaged or none; the one before goes on answering', async (page) => {
  const first = 'blk.0.attn_q.weight';
  const second = 'blk.1.attn_q.weight';
  const magic = Buffer.from(MODEL);
  magic[0] = 0x58;
  const counts = Buffer.from(MODEL);
  counts.writeBigUInt64LE(1n << 60n, 8);
  const pairs = Buffer.from(MODEL);
  pairs.writeBigUInt64LE(1n << 40n, 16);
  /** @type {[string, string | Uint8Array, string, RegExp][]} */
  const cases = [
    ['text.gguf', 'this is no model at all, it is a letter', 'FORMAT', /GGUF/],
    ['empty.gguf', '', 'FORMAT', /empty/],
    ['magic.gguf', magic, 'FORMAT', /GGUF/],
    ['head.gguf', MODEL.subarray(0, 4000), 'FORMAT', /cut off/],
    ['half.gguf', MODEL.subarray(0, MODEL.length >> 1), 'FORMAT', /cut off/],
    ['tensors.gguf', counts, 'LIMIT', /tensors/],
    ['pairs.gguf', pairs, 'LIMIT', /metadata/],
    ['missing.gguf', changed(first, (b, at) => b.write('blk.0.attn_x', at.name)), 'MODEL', /attn_/],
    [
      'overlap.gguf',
      changed(second, (b, at) => {
        const other = changed(first, (copy, { offset }) => {
          b.writeBigUInt64LE(copy.readBigUInt64LE(offset), at.offset);
        });
        assert.equal(other.length, b.length);
      }),
      'FORMAT',
      /attn_q/,
    ],
    [
      'shape.gguf',
      changed(first, (b, at) => {
        b.writeBigUInt64LE(b.readBigUInt64LE(at.dims + 8) - 1n, at.dims + 8);
      }),
      'MODEL',
      /blk\.0\.attn_q\.weight/,
    ],
    ['type.gguf', changed(first, (b, at) => b.writeUInt32LE(250, at.type)), 'UNSUPPORTED', /250/],
  ];
  const load = async (/** @type {string} */ path) => {
    const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
      await page.$('#gguf')
    );
    await page.evaluate(() => document.querySelector('#notices')?.replaceChildren());
    await input.uploadFile(path);
    await page.waitForFunction(
      () =>
        document.querySelector('#notices [role="alert"]') ||
        /made/.test(document.querySelector('#status-text')?.textContent ?? ''),
    );
  };
  for (const [name, bytes, code, words] of cases) {
    await load(file(name, bytes));
    const [error, ...more] = await shown(page, '#notices');
    assert.deepEqual(more, [], name);
    assert.equal(error?.code, code, `${name}: ${error?.text}`);
    assert.match(error.text, words, name);
    await stillAnswers(page, name);
  }
  await load(file('made.gguf', MODEL)); // the changes were what was wrong
  assert.deepEqual(await shown(page, '#notices'), []);
  assert.ok((await askOnPage(page, 'What is this?', { file: SHAPES })).length > 0);
});
