// The library in Node.js: the same wasm modules, threads and all.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PocketVL, PocketVLError, picture } from '../../web/lib/node/index.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const DEMO = join(root, 'web', 'models', 'demo');
const PICTURE = join(root, 'web', 'samples', 'shapes.jpg');
const folder = mkdtempSync(join(tmpdir(), 'pocketvl-node-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** @param {string} code */
const withCode = (code) => (/** @type {unknown} */ error) =>
  error instanceof PocketVLError && error.code === code && error.message.length > 10;

/** @param {Blob} image @param {string} text */
const question = (image, text) =>
  /** @type {import('../../web/lib/pocketvl.js').Message[]} */ ([
    {
      role: 'user',
      content: [
        { type: 'image', image },
        { type: 'text', text },
      ],
    },
  ]);

for (const variant of /** @type {const} */ (['relaxed', 'simd'])) {
  test(`${variant}: answers, streams, counts, and is the same with one thread and with two`, async () => {
    const image = await picture(PICTURE);
    /** @type {string[]} */
    const answers = [];
    for (const threads of [1, 2]) {
      const vl = await PocketVL.load(DEMO, { variant, threads });
      assert.equal(vl.info.threads, threads);
      assert.equal(vl.info.variant, variant);
      const answer = vl.chat(question(image, 'How many shapes are there?'), { maxTokens: 16 });
      let pieces = 0;
      for await (const piece of answer) pieces += piece.length > 0 ? 1 : 0;
      assert.ok(pieces > 0 || answer.content === '');
      assert.equal(answer.content, await answer.text());
      assert.ok(['end', 'length'].includes(String(answer.stop)));
      assert.equal(answer.stats?.visualTokens, vl.info.tokensPerTile);
      assert.ok(
        Number(answer.stats?.reusedTokens) > 0,
        'the beginning was ready before the question',
      );
      assert.deepEqual([answer.pictures[0].width, answer.pictures[0].height], [640, 480]);
      answers.push(answer.content);
      // The second turn finds the first in its cache.
      const more = vl.chat(
        [
          ...question(image, 'How many shapes are there?'),
          { role: 'assistant', content: answer.content },
          { role: 'user', content: 'Describe the picture.' },
        ],
        { maxTokens: 4 },
      );
      await more.text();
      assert.ok(Number(more.stats?.reusedTokens) >= vl.info.tokensPerTile);
      assert.equal(more.stats?.tiles, 0);
      assert.ok((await vl.tokenize('Hello')).length > 0);
      assert.deepEqual(await vl.tokenize(''), []);
      vl.dispose();
    }
    assert.equal(answers[0], answers[1]);
  });
}

test('a folder’s manifest counts: title, licence, settings, also after the worker was lost', async (t) => {
  const model = join(folder, 'model');
  mkdirSync(model);
  const manifest = JSON.parse(readFileSync(join(DEMO, 'manifest.json'), 'utf8'));
  symlinkSync(join(DEMO, manifest.files[0].name), join(model, manifest.files[0].name));
  const settings = { maxTiles: 4, context: 512, maxTokens: 2, temperature: 0, kvType: 'q8' };
  const about = { title: 'Of a folder', license: 'Of its own', settings };
  writeFileSync(join(model, 'manifest.json'), JSON.stringify({ ...manifest, ...about }));
  const vl = await PocketVL.load(model);
  t.after(() => vl.dispose());
  const told = () => ({
    title: vl.info.title,
    license: vl.info.license,
    settings: vl.info.settings,
  });
  assert.deepEqual(told(), about);
  assert.equal(vl.stats.context, 512);
  const eight = vl.stats.kvBytes;
  const ask = async () => {
    const answer = vl.chat(question(await picture(PICTURE), 'Describe the picture.'));
    await answer.text();
    return answer;
  };
  const { stop, stats, pictures } = await ask();
  assert.equal(stop, 'length');
  assert.equal(stats?.generatedTokens, 2);
  assert.ok(pictures[0].tiling.tiles > 1, JSON.stringify(pictures[0]));
  vl.client.die(/** @type {any} */ (vl.client.worker), 'the test ended it');
  assert.equal((await ask()).stop, 'length');
  assert.deepEqual(told(), about);
  // What the caller says goes before what the manifest suggests.
  await vl.loadModel(join(model, 'manifest.json'), { context: 256, kvType: 'f32' });
  assert.deepEqual(told(), about);
  assert.equal(vl.stats.context, 256);
  assert.ok(vl.stats.kvBytes > eight, 'as floats, half as many take more');
  // What it says of memory is believed before anything is read.
  const memory = { context: 512, weights: 2 ** 36, kvCache: 1e6, kvCacheQ8: 1e6, scratch: 1e6 };
  writeFileSync(join(model, 'manifest.json'), JSON.stringify({ ...manifest, ...about, memory }));
  await assert.rejects(PocketVL.load(model), withCode('MEMORY'));
});

test('JSON, whatever the model would rather say: JSON.parse takes it', async (t) => {
  /** @type {import('../../web/lib/pocketvl.js').ChatOptions} */
  const json = { responseFormat: { type: 'json_object' }, maxTokens: 80 };
  let ended = 0;
  for (const name of ['qwen2-q8_0', 'internlm2-q4_0', 'phi3-q8_0']) {
    const vl = await PocketVL.load(join(root, 'tests', 'fixtures', 'model', `${name}.gguf`));
    t.after(() => vl.dispose());
    for (let seed = 0; seed < 10; seed++) {
      const sampling = seed ? { temperature: 1, topP: seed % 2 ? 1 : 0.9, seed } : {};
      const answer = vl.chat('Hello', { ...json, ...sampling });
      const text = await answer.text();
      if (answer.stop === 'end') {
        assert.equal(JSON.parse(text) instanceof Object, true, text);
        ended++;
      } else {
        assert.equal(answer.stop, 'length');
        assert.ok(text.startsWith('{'), text);
        assert.throws(() => JSON.parse(text), SyntaxError);
      }
    }
  }
  assert.ok(ended >= 3, `${ended} answers came to an end`);
  // One that was taught something else, and says that again afterwards.
  const vl = await PocketVL.load(DEMO);
  t.after(() => vl.dispose());
  const asked = question(await picture(PICTURE), 'How many shapes are there?');
  const before = await vl.chat(asked).text();
  const answer = vl.chat(asked, json);
  assert.match(await answer.text(), /^\{/);
  assert.equal(await vl.chat(asked).text(), before);
  assert.equal(await vl.chat(asked, { responseFormat: { type: 'text' } }).text(), before);
});

test('a question right after loading is not disturbed by what is prepared meanwhile', async (t) => {
  const model = join(root, 'tests', 'fixtures', 'model', 'qwen2-q8_0.gguf');
  const vl = await PocketVL.load(model);
  t.after(() => vl.dispose());
  const answer = await vl.chat('Hello', { maxTokens: 16 }).text();
  for (let i = 0; i < 4; i++) {
    await vl.loadModel(model);
    if (i % 2) await new Promise((go) => setTimeout(go, i / 2));
    assert.equal(await vl.chat('Hello', { maxTokens: 16 }).text(), answer);
  }
});

test('every sampling option reaches the sampler', async (t) => {
  // Random weights: every token is about as likely as any other.
  const vl = await PocketVL.load(join(root, 'tests', 'fixtures', 'model', 'qwen2-q8_0.gguf'));
  t.after(() => vl.dispose());
  const say = (/** @type {import('../../web/lib/pocketvl.js').ChatOptions} */ options) =>
    vl.chat('Hello', { maxTokens: 16, ...options }).text();
  const greedy = await say({});
  assert.equal(await say({ temperature: 0, seed: 5 }), greedy);
  const warm = await say({ temperature: 3, seed: 1 });
  assert.notEqual(warm, greedy);
  assert.equal(await say({ temperature: 3, seed: 1 }), warm);
  assert.notEqual(await say({ temperature: 3, seed: 2 }), warm);
  assert.equal(await say({ temperature: 3, seed: 1, topK: 1 }), greedy);
  assert.equal(await say({ temperature: 3, seed: 1, topP: 1e-6 }), greedy);
  assert.notEqual(await say({ temperature: 3, seed: 1, topK: 40 }), warm);
  // Below 1 what was said draws the next token to it.
  assert.notEqual(await say({ repetitionPenalty: 0.01 }), greedy);
});

test('a call is stopped in the middle, and the next one works', async () => {
  const vl = await PocketVL.load(DEMO, { threads: 2 });
  const image = await picture(PICTURE);
  // At any moment: before it begins, early, late, or when it has ended already.
  for (const delay of [0, 5, 20]) {
    const controller = new AbortController();
    const answer = vl.chat(question(image, `Describe ${delay}.`), { signal: controller.signal });
    setTimeout(() => controller.abort(), delay);
    await answer.text().catch((error) => assert.ok(withCode('ABORTED')(error), String(error)));
  }
  // In the middle for certain: with the first step of seven new pictures.
  const controller = new AbortController();
  let last = { stage: '', done: 0, total: 0 };
  const names = ['one', 'two', 'three', 'word', 'digits', 'bars-letters', 'bars-colours'];
  const pictures = await Promise.all(
    names.map(async (name) => ({
      type: /** @type {const} */ ('image'),
      image: await picture(join(root, 'web', 'samples', `${name}.jpg`)),
    })),
  );
  const many = vl.chat(
    [{ role: 'user', content: [...pictures, { type: 'text', text: 'Describe them.' }] }],
    {
      signal: controller.signal,
      onProgress: (step) => {
        if (step.stage !== 'vision') return;
        last = step;
        controller.abort();
      },
    },
  );
  await assert.rejects(many.text(), withCode('ABORTED'));
  assert.ok(last.total > 0 && last.done < last.total, JSON.stringify(last));
  // Leaving the loop stops the generation, too.
  for await (const piece of vl.chat(question(image, 'Describe.'))) {
    assert.equal(typeof piece, 'string');
    break;
  }
  const text = await vl.chat(question(image, 'What?'), { maxTokens: 2 }).text();
  assert.equal(typeof text, 'string');
  vl.dispose();
});

test('bad input: one error each, and the next request works', async () => {
  const vl = await PocketVL.load(DEMO);
  const good = await picture(PICTURE);
  const jpeg = readFileSync(PICTURE);
  const bmp = Buffer.alloc(54 + 40);
  bmp.write('BM');
  bmp.writeUInt32LE(bmp.length, 2);
  bmp.writeUInt32LE(54, 10);
  bmp.writeUInt32LE(40, 14);
  bmp.writeInt32LE(60_000, 18);
  bmp.writeInt32LE(60_000, 22);
  bmp.writeUInt16LE(1, 26);
  bmp.writeUInt16LE(24, 28);
  /** @type {[string, Blob, string, string][]} */
  const cases = [
    ['not a picture', new Blob(['hello']), 'What?', 'IMAGE'],
    ['an empty file', new Blob([]), 'What?', 'IMAGE'],
    ['a truncated JPEG', new Blob([jpeg.subarray(0, jpeg.length >> 1)]), 'What?', 'IMAGE'],
    ['absurdly large', new Blob([bmp]), 'What?', 'LIMIT'],
    ['an empty question', good, '  ', 'ARGUMENT'],
    ['a question longer than the context', good, 'word '.repeat(5000), 'CONTEXT'],
  ];
  for (const [name, image, text, code] of cases) {
    await assert.rejects(vl.chat(question(image, text)).text(), withCode(code), name);
    const answer = vl.chat(question(good, 'How many shapes are there?'), { maxTokens: 2 });
    await answer.text();
    assert.equal(answer.stop === null, false, `after ${name}`);
  }
  vl.dispose();
  await assert.rejects(vl.chat('Hi').text(), withCode('STATE'));
});

test('bad models: one error each', async () => {
  const gguf = readFileSync(join(DEMO, 'pocketvl-demo.gguf'));
  const file = (/** @type {string} */ name, /** @type {Uint8Array} */ bytes) => {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    return path;
  };
  await assert.rejects(PocketVL.load(join(folder, 'nothing.gguf')), withCode('IO'));
  await assert.rejects(
    PocketVL.load(file('text.gguf', Buffer.from('this is no model'))),
    withCode('FORMAT'),
  );
  await assert.rejects(PocketVL.load(file('short.gguf', gguf.subarray(0, gguf.length >> 1))), (e) =>
    ['FORMAT', 'MODEL'].includes(/** @type {any} */ (e).code),
  );
  await assert.rejects(PocketVL.load(file('empty.gguf', Buffer.alloc(0))), PocketVLError);
  const magic = Buffer.from(gguf);
  magic[0] = 0x58;
  await assert.rejects(PocketVL.load(file('magic.gguf', magic)), withCode('FORMAT'));
  const counts = Buffer.from(gguf);
  counts.writeBigUInt64LE(1n << 60n, 8);
  await assert.rejects(PocketVL.load(file('counts.gguf', counts)), (e) =>
    ['FORMAT', 'LIMIT'].includes(/** @type {any} */ (e).code),
  );
});

test('the estimate needs only the beginnings of files', async () => {
  const gguf = readFileSync(join(DEMO, 'pocketvl-demo.gguf'));
  const estimate = await PocketVL.estimate([new Blob([gguf])], { context: 512 });
  const larger = await PocketVL.estimate([new Blob([gguf])], { context: 1024 });
  assert.ok(estimate.weights > 3e6 && estimate.weights < 2e7);
  assert.ok(larger.kvCache > estimate.kvCache);
  const vl = await PocketVL.load(DEMO, { context: 1024 });
  assert.ok(Math.abs(vl.info.weightBytes - larger.weights) < 0.1 * larger.weights);
  vl.dispose();
});
