// A model that a page cannot hold is refused with the figures, before its download.
import assert from 'node:assert/strict';
import { mkdtempSync, openSync, rmSync, truncateSync, writeSync, closeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { PocketVL, PocketVLError } from '../../web/lib/node/index.js';
import { checkRoom, needOf } from '../../web/lib/room.js';
import { readHeads } from '../../web/lib/weights.js';
import { head, padded, tensorBytes } from '../bench/gguf.mjs';
import { SHAPES, llmEntries, llmTensors } from '../bench/make_model.mjs';
import { vocabulary } from '../bench/vocabulary.mjs';
import { faultServer, manifestOver } from './faults.mjs';

/** @type {Awaited<ReturnType<typeof faultServer>>} */
let server;
before(async () => {
  server = await faultServer();
});
after(() => server.close());

/** As convert writes it for the 4B. */
const memory = {
  context: 4096,
  contextLength: 131072,
  weights: 2_600_000_000,
  kvCache: 3_221_225_472,
  kvCacheQ8: 855_638_016,
  scratch: 60_000_000,
};
const manifest = (/** @type {any} */ more = {}) => ({
  ...manifestOver({ 'model.gguf': Buffer.alloc(1000) }, 1000),
  memory: { ...memory, ...more },
});

/** @param {RegExp} words */
const tooBig = (words) => (/** @type {unknown} */ error) => {
  assert.ok(error instanceof PocketVLError, String(error));
  assert.equal(error.code, 'MEMORY');
  assert.match(error.message, words);
  assert.match(
    error.message,
    /^This model needs \d+\.\d\d GB of memory .*Nothing was downloaded\.$/,
  );
  return true;
};

/** @param {any} options @param {any} [more] */
const need = (options, more) => {
  const found = needOf(/** @type {any} */ (manifest(more)), options);
  assert.ok(found);
  return found;
};

test('the message says what is needed, what there is, and what helps', () => {
  assert.throws(
    () => checkRoom(need({}), {}),
    tooBig(
      /needs 5\.88 GB .*weights 2\.60 GB, 3\.22 GB for a context of 4096.*kvType: 'q8'\) it needs 3\.52 GB/,
    ),
  );
  checkRoom(need({ kvType: 'q8' }), {});
  checkRoom(need({ kvType: 'q8', context: 5888 }), {});
  assert.throws(
    () => checkRoom(need({ kvType: 'q8', context: 32768 }), {}),
    tooBig(/for a context of 32768 tokens.*a context of 6912 tokens would fit/),
  );
  assert.throws(
    () => checkRoom(need({ kvType: 'q8' }, { weights: 5e9 }), {}),
    tooBig(/a page can have 4\.13 GB: take a smaller model/),
  );
});

test('a longer context than the model has asks for no more', () => {
  assert.equal(need({ context: 1e6 }).context, 131072);
  assert.equal(need({ context: 8192 }).kvCache, 2 * memory.kvCache);
});

test('a small device, and a browser that gives less', () => {
  const q8 = need({ kvType: 'q8' });
  assert.throws(() => checkRoom(q8, { device: 2 }), tooBig(/this device has about 2 GB in all/));
  checkRoom(q8, { device: 4 });
  /** @type {number[]} */
  const asked = [];
  const grow = (/** @type {number} */ bytes) => asked.push(bytes) > 1;
  assert.throws(
    () => checkRoom(q8, { grow }),
    tooBig(/the browser does not give this page so much/),
  );
  checkRoom(q8, { grow });
  assert.ok(asked.length === 2 && asked[0] > 3.5e9 && asked[0] < 4e9);
});

test('a manifest that says nothing, or nonsense, hinders nobody', () => {
  for (const more of [{ weights: 'x' }, { kvCacheQ8: undefined }, { context: 0 }])
    assert.equal(needOf(/** @type {any} */ (manifest(more)), {}), null);
});

test('loading from an address: only the manifest is fetched', async () => {
  server.paths.set('/big/manifest.json', { body: Buffer.from(JSON.stringify(manifest())) });
  server.paths.set('/big/model.gguf', { body: Buffer.alloc(1000) });
  server.log.length = 0;
  await assert.rejects(PocketVL.load(`${server.url}/big/manifest.json`), tooBig(/5\.88 GB/));
  assert.deepEqual(
    server.log.map(({ path }) => path),
    ['/big/manifest.json'],
  );
});

test('a bare file: its beginning is enough', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'pocketvl-room-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  // The 4B's language model as llama.cpp names it, all zeros behind the head: a file with a hole takes no room.
  const shape = SHAPES['4b'];
  const vocab = vocabulary(shape.arch, shape.vocab);
  const tensors = llmTensors(shape, 'q4_0', vocab.silent);
  const start = head(llmEntries(shape, 'q4_0', vocab), tensors);
  const path = join(folder, 'made.gguf');
  const file = openSync(path, 'w');
  writeSync(file, start);
  closeSync(file);
  truncateSync(
    path,
    tensors.reduce((sum, tensor) => sum + padded(tensorBytes(tensor)), padded(start.length)),
  );
  await assert.rejects(
    PocketVL.load(path, { kvType: 'f32' }),
    tooBig(/3\.22 GB for a context of 4096 tokens.*8-bit cache/),
  );
});

test('of the later parts of a split file only the list of tensors is asked for', async () => {
  const parts = [1, 2].map((n) => `/split/m-0000${n}-of-00002.gguf`);
  for (const path of parts) server.paths.set(path, { body: Buffer.alloc(3 << 20, path) });
  server.log.length = 0;
  const urls = [`${server.url}${parts[0]}`];
  const { heads } = await readHeads({ urls }, { signal: new AbortController().signal });
  assert.deepEqual(
    heads.map((bytes) => bytes.length),
    [3 << 20, 1 << 20],
  );
  assert.deepEqual(
    server.log.filter(({ method }) => method === 'GET').map(({ range }) => range),
    ['', `bytes=0-${(1 << 20) - 1}`],
  );
});
