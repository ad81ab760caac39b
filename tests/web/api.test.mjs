// What the documentation promises of the library, asked of it in Node.js: the forms of messages, streaming, stopping, seeds,
// stop strings, tokens, figures, boxes.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import test, { after, before } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import {
  PocketVL,
  PocketVLError,
  parseBoxes,
  picture,
  withoutBoxes,
} from '../../web/lib/node/index.js';

const file = (/** @type {string} */ path) =>
  fileURLToPath(new URL(`../../web/${path}`, import.meta.url));
const DEMO = file('models/demo');
const PICTURE = file('samples/shapes.jpg');
/** @type {PocketVL} */
let vl;
before(async () => void (vl = await PocketVL.load(DEMO, { threads: 2 })));
after(() => vl.dispose());

/** @param {string} code */
const withCode = (code) => (/** @type {unknown} */ error) =>
  error instanceof PocketVLError && error.code === code;

/**
 * @param {any} image
 * @param {string} [text]
 * @returns {import('../../web/lib/pocketvl.js').Message[]}
 */
const question = (image, text = 'Describe the picture.') => [
  {
    role: 'user',
    content: [
      { type: 'image', image },
      { type: 'text', text },
    ],
  },
];

test('a picture in every form gives the same answer', async () => {
  const base64 = readFileSync(PICTURE).toString('base64');
  const url = `data:image/jpeg;base64,${base64}`;
  const truth = await vl.chat(question(await picture(PICTURE))).text();
  assert.ok(truth.length > 5);
  for (const image of [
    PICTURE,
    pathToFileURL(PICTURE),
    pathToFileURL(PICTURE).href,
    url,
    new URL(url),
  ]) {
    assert.equal(await vl.chat(question(image)).text(), truth, String(image).slice(0, 40));
  }
  for (const image_url of [{ url }, { url, detail: 'high' }, url]) {
    const content = [
      { type: 'image_url', image_url },
      { type: 'text', text: 'Describe the picture.' },
    ];
    assert.equal(await vl.chat(/** @type {any} */ ([{ role: 'user', content }])).text(), truth);
  }
  await assert.rejects(vl.chat(question('nothing-there.jpg')).text(), withCode('IO'));
});

test('an answer is an async iterable, and all else that it says', async () => {
  /** @type {string[]} */
  const stages = [];
  const answer = vl.chat(question(file('samples/three.jpg')), {
    onProgress: ({ stage }) => stages.push(stage),
  });
  assert.equal(answer.ended, false);
  const pieces = [];
  for await (const piece of answer) pieces.push(piece);
  assert.ok(pieces.length > 2);
  assert.equal(pieces.join(''), answer.content);
  assert.equal(answer.ended, true);
  assert.deepEqual([...new Set(stages)], ['image', 'vision', 'prefill']);
  assert.equal(answer.pictures.length, 1);
  assert.deepEqual(
    answer.pictures[0].tiling,
    await vl.tiling(answer.pictures[0].width, answer.pictures[0].height),
  );
  const stats = /** @type {import('../../web/lib/pocketvl.js').Stats} */ (answer.stats);
  for (const name of [
    'promptTokens',
    'visualTokens',
    'generatedTokens',
    'visionMs',
    'prefillMs',
    'decodeMs',
    'timeToFirstTokenMs',
    'totalMs',
    'tokensPerSecond',
    'weightBytes',
    'memoryBytes',
  ]) {
    assert.ok(stats[name] > 0, name);
  }
  assert.equal(vl.stats, stats);
});

test('a seed makes a sampled answer repeatable, and another seed another answer', async () => {
  const ask = (/** @type {number} */ seed) =>
    vl.chat(question(PICTURE), { temperature: 3, topK: 200, seed, maxTokens: 24 }).text();
  const first = await ask(1);
  assert.equal(await ask(1), first);
  const others = await Promise.all([2, 3, 4].map(ask));
  assert.ok(others.some((text) => text !== first));
  for (const seed of [-1, 0.5, NaN]) await assert.rejects(ask(seed), withCode('ARGUMENT'));
});

test('a stop string ends the answer and is not part of it', async () => {
  const whole = await vl.chat(question(PICTURE)).text();
  const at = Math.floor(whole.length / 2);
  const stop = whole.slice(at, at + 3);
  const answer = vl.chat(question(PICTURE), { stop: ['never said', stop] });
  assert.equal(await answer.text(), whole.slice(0, whole.indexOf(stop)));
  assert.equal(answer.stop, 'stop');
  await assert.rejects(vl.chat('x', { stop: [''] }).text(), withCode('ARGUMENT'));
});

test('every call takes a signal: aborted before, it never begins; the next one works', async () => {
  const gone = AbortSignal.abort();
  /** @type {[string, () => Promise<any>][]} */
  const calls = [
    ['load', () => PocketVL.load(DEMO, { signal: gone })],
    ['loadModel', () => vl.loadModel(DEMO, { signal: gone })],
    ['estimate', () => PocketVL.estimate(DEMO, { signal: gone })],
    ['chat', () => vl.chat('Hello', { signal: gone }).text()],
    ['tokenize', () => vl.tokenize('Hello', { signal: gone })],
    ['countTokens', () => vl.countTokens('Hello', { signal: gone })],
    ['tiling', () => vl.tiling(10, 10, 1, { signal: gone })],
  ];
  for (const [name, call] of calls) await assert.rejects(call(), withCode('ABORTED'), name);
  assert.ok((await vl.tokenize('Hello')).length > 0);
});

test('a call that waits behind another leaves the queue when it is aborted', async () => {
  const long = vl.chat(question(PICTURE));
  const controller = new AbortController();
  const waiting = vl.chat('Hello', { signal: controller.signal, maxTokens: 4 }).text();
  controller.abort();
  await assert.rejects(waiting, withCode('ABORTED'));
  assert.ok((await long.text()).length > 0);
});

test('tokens of a conversation are counted as a chat takes them', async () => {
  const messages = question(file('samples/two.jpg'));
  const counted = await vl.countTokens(messages);
  assert.equal(counted, (await answered(messages)).promptTokens);
  assert.equal(await vl.countTokens('Hello'), (await answered('Hello')).promptTokens);
  const tiling = await vl.tiling(640, 480, 4);
  const more = await vl.countTokens(question(PICTURE), { maxTiles: 4 });
  assert.equal(
    more - (await vl.countTokens(question(PICTURE))),
    tiling.tokens - vl.info.tokensPerTile,
  );
  await assert.rejects(vl.countTokens(' '), withCode('ARGUMENT'));
  await assert.rejects(vl.countTokens('x', { signal: AbortSignal.abort() }), withCode('ABORTED'));
});

/** @param {import('../../web/lib/pocketvl.js').Message[] | string} messages */
async function answered(messages) {
  const answer = vl.chat(messages, { maxTokens: 1 });
  await answer.text();
  return /** @type {import('../../web/lib/pocketvl.js').Stats} */ (answer.stats);
}

test('the command prints the answer of the library and nothing else', async () => {
  const text = 'How many shapes are there?';
  const truth = await vl.chat(question(PICTURE, text)).text();
  const command = file('lib/node/cli/main.js');
  const run = (/** @type {string[]} */ ...args) =>
    spawnSync(process.execPath, [command, 'ask', ...args], { encoding: 'utf8' });
  const done = run('-m', DEMO, PICTURE, text);
  assert.deepEqual([done.status, done.stdout, done.stderr], [0, `${truth}\n`, '']);
  assert.match(run('-m', DEMO, '--json', '--max-tokens', '3', PICTURE, text).stdout, /^\{/);
  const missing = run('-m', DEMO, 'nothing.jpg', text);
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /^pocketvl: The picture nothing\.jpg cannot be opened/);
  assert.equal(run(PICTURE, text).status, 2);
});

test('the estimate takes a folder, as load does', async () => {
  const estimate = await PocketVL.estimate(DEMO, { context: 512 });
  assert.ok(estimate.weights > 3e6 && estimate.total > estimate.weights);
});

test('boxes of an answer', () => {
  const text = '<ref>a red star</ref><box>[[100, 200, 300, 400], [0, 0, 1000, 500]]</box>';
  const boxes = parseBoxes(text, { width: 200, height: 100 });
  assert.deepEqual(
    boxes.map(({ label, box }) => [label, box]),
    [
      ['a red star', [20, 20, 60, 40]],
      ['a red star', [0, 0, 200, 50]],
    ],
  );
  assert.equal(withoutBoxes(`Here: ${text}`), 'Here: a red star');
});
