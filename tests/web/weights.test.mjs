// Weights on their way: every fault of network and host, against a server that makes them, over both ways of
// describing a model. Node.js runs the same code as the browser's worker, with the store in memory.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import test, { after, before, beforeEach } from 'node:test';
import { PocketVLError } from '../../web/lib/errors.js';
import { memoryStore } from '../../web/lib/store.js';
import { streamModel, verifyModel } from '../../web/lib/weights.js';
import { faultServer, manifestOver } from './faults.mjs';
import { storeConformance } from './store_conformance.mjs';

const CHUNK = 1 << 20;
const SIZE = 5 * CHUNK + 12_345;
const PATIENCE = { tries: 4, base: 5, longest: 20, stall: 60_000 }; // a busy machine is no stall

/** @type {Awaited<ReturnType<typeof faultServer>>} */
let server;
/** @type {Buffer} */
let body;

before(async () => {
  server = await faultServer();
});
after(() => server.close());
beforeEach(() => {
  body = randomBytes(SIZE);
  server.paths.clear();
  server.log.length = 0;
  server.paths.set('/m/model.gguf', { body });
  publish({ 'model.gguf': body });
});

/** @param {Record<string, Buffer>} files */
function publish(files) {
  server.paths.set('/m/manifest.json', {
    body: Buffer.from(JSON.stringify(manifestOver(files, CHUNK))),
  });
}

const behaviour = () =>
  /** @type {import('./faults.mjs').Behaviour} */ (server.paths.get('/m/model.gguf'));

/** Takes what arrives and compares it at the end. */
function collector() {
  const state = {
    starts: 0,
    /** @type {{name: string, bytes: number, hash: import('node:crypto').Hash, got: number, ended?: boolean}[]} */
    files: [],
    sink: {
      async start() {
        state.starts++;
        state.files = [];
      },
      beginFile(/** @type {string} */ name, /** @type {number} */ bytes) {
        state.files.push({ name, bytes, hash: createHash('sha256'), got: 0 });
      },
      push(/** @type {Uint8Array} */ bytes) {
        const file = state.files[state.files.length - 1];
        file.hash.update(bytes);
        file.got += bytes.length;
      },
      endFile() {
        state.files[state.files.length - 1].ended = true;
      },
    },
  };
  return state;
}

/**
 * @param {Partial<import('../../web/lib/weights.js').Context>} [options]
 * @param {any} [source]
 */
async function load(options = {}, source = { url: `${server.url}/m/manifest.json` }) {
  const got = collector();
  /** @type {import('../../web/lib/weights.js').Notice[]} */
  const notices = [];
  /** @type {import('../../web/lib/weights.js').LoadProgress[]} */
  const progress = [];
  const result = await streamModel(source, {
    store: null,
    sink: got.sink,
    signal: new AbortController().signal,
    onProgress: (p) => progress.push(p),
    onNotice: (n) => notices.push(n),
    patience: PATIENCE,
    ...options,
  });
  return { result, got, notices, progress };
}

/** @param {{got: ReturnType<typeof collector>}} loaded */
function assertWhole({ got }, expected = body) {
  assert.equal(got.files.length, 1);
  assert.equal(got.files[0].got, expected.length);
  assert.equal(
    got.files[0].hash.digest('hex'),
    createHash('sha256').update(expected).digest('hex'),
  );
}

/** Tells how many bytes the host sent beyond those of the model. */
function reportSent(
  /** @type {import('node:test').TestContext} */ t,
  /** @type {number} */ needed = SIZE,
) {
  const sent = sentBytes();
  t.diagnostic(`${sent - needed} bytes were sent again, in ${weightRequests().length} requests`);
  return sent - needed;
}

const sentBytes = () => weightRequests().reduce((sum, { sent: n }) => sum + n, 0);

const weightRequests = () =>
  server.log.filter(({ path, method }) => path.endsWith('.gguf') && method === 'GET');

/** @param {string} code @param {RegExp} [words] */
const withCode =
  (code, words = /./) =>
  (/** @type {any} */ error) =>
    error instanceof PocketVLError && error.code === code && words.test(error.message);

test('the first visit is one request; the second asks the network for nothing', async () => {
  const store = memoryStore();
  const first = await load({ store });
  assertWhole(first);
  assert.equal(weightRequests().length, 1);
  assert.equal(first.result.stored, true);
  assert.equal(first.result.fromNetwork, SIZE);
  server.log.length = 0;
  const second = await load({ store });
  assertWhole(second);
  assert.equal(server.log.length, 0);
  assert.equal(second.result.fromStore, SIZE);
});

test('what the sink had to fetch beforehand is not fetched again, and shows as progress', async () => {
  for (const bytes of [1000, CHUNK + 5, SIZE]) {
    server.log.length = 0;
    const got = collector();
    /** @type {number[]} */
    const loaded = [];
    await load({
      store: memoryStore(),
      sink: {
        ...got.sink,
        async start(_manifest, _stored, arriving) {
          await got.sink.start();
          arriving(0);
          await new Promise((go) => setTimeout(go, 120)); // progress is told ten times a second
          arriving(bytes);
          return [new Uint8Array(body.subarray(0, bytes))];
        },
      },
      onProgress: (p) => loaded.push(p.loaded),
    });
    assertWhole({ got });
    assert.equal(got.files[0].ended, true);
    assert.ok(loaded.includes(bytes));
    assert.equal(sentBytes(), SIZE - bytes);
  }
});

test('connections cut at every kind of boundary are resumed from the byte', async (t) => {
  const cuts = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 65536, 3];
  behaviour().cuts = [...cuts];
  const loaded = await load({ store: memoryStore(), patience: { ...PATIENCE, tries: 8 } });
  assertWhole(loaded);
  assert.ok(reportSent(t) <= cuts.length * 65536);
  assert.ok(loaded.progress.some(({ stage }) => stage === 'retry'));
});

test('a broken visit leaves its chunks, and the next asks for the rest alone', async () => {
  const store = memoryStore();
  behaviour().cuts = Array(20).fill(0);
  behaviour().cuts = [3 * CHUNK + 77, ...Array(20).fill(0)];
  await assert.rejects(load({ store }), withCode('NETWORK', /try again to go on/));
  behaviour().cuts = [];
  server.log.length = 0;
  const again = await load({ store });
  assertWhole(again);
  assert.deepEqual(
    weightRequests().map(({ range }) => range),
    [`bytes=${3 * CHUNK}-`],
  );
  assert.equal(again.result.fromStore, 3 * CHUNK);
});

test('a cancelled visit leaves its chunks, too', async () => {
  const store = memoryStore();
  behaviour().slow = 10;
  const controller = new AbortController();
  await assert.rejects(
    load({
      store,
      signal: controller.signal,
      onProgress: (p) => p.loaded >= 2 * CHUNK && controller.abort(),
    }),
    withCode('ABORTED'),
  );
  const again = await load({ store });
  assertWhole(again);
  assert.ok(again.result.fromStore >= 2 * CHUNK);
});

test('a stalled connection is given up and resumed', async (t) => {
  behaviour().stallAt = CHUNK + 500;
  assertWhole(await load({ patience: { ...PATIENCE, tries: 20, stall: 500 } }));
  assert.ok(weightRequests().length >= 2);
  reportSent(t);
});

test('a host without ranges: what is known of its answer is skipped', async (t) => {
  Object.assign(behaviour(), { noRange: true, cuts: [2 * CHUNK + 9, 3 * CHUNK] });
  assertWhole(await load());
  reportSent(t); // it sends all of it each time
});

test('a host that compresses unasked', async () => {
  body = Buffer.alloc(SIZE, 'weights ');
  server.paths.set('/m/model.gguf', { body, gzip: true });
  publish({ 'model.gguf': body });
  assertWhole(await load());
});

test('passing errors of a host are outlasted: 500, 503, 429', async (t) => {
  behaviour().statuses = [500, 503, 429];
  assertWhole(await load());
  assert.ok(reportSent(t) <= 0);
});

test('lasting errors are told in words: 404, 403, 500', async () => {
  behaviour().statuses = [404];
  await assert.rejects(load(), withCode('NETWORK', /no file at .* \(HTTP 404\)/));
  behaviour().statuses = [403];
  await assert.rejects(load(), withCode('NETWORK', /does not allow/));
  behaviour().statuses = Array(20).fill(500);
  await assert.rejects(load(), withCode('NETWORK', /HTTP 500/));
});

test('no host at all', async () => {
  const source = { url: 'http://127.0.0.1:9/m/manifest.json' };
  await assert.rejects(load({}, source), withCode('NETWORK', /could not be downloaded/));
});

test('a redirect is followed', async (t) => {
  server.paths.set('/m/model.gguf', { body, redirect: '/elsewhere.gguf' });
  server.paths.set('/elsewhere.gguf', { body });
  assertWhole(await load());
  reportSent(t);
});

test('wrong bytes once: that chunk alone is fetched again', async (t) => {
  behaviour().wrongByte = { at: 2 * CHUNK + 5, times: 1 };
  const loaded = await load();
  assertWhole(loaded);
  assert.deepEqual(
    weightRequests().map(({ range }) => range),
    ['', `bytes=${2 * CHUNK}-`],
  );
  reportSent(t); // that chunk, and what was on its way behind it when the connection was given up
});

test('wrong bytes for ever: an error that names the part', async () => {
  behaviour().wrongByte = { at: 2 * CHUNK + 5, times: 99 };
  await assert.rejects(load(), withCode('INTEGRITY', /Part 3 of model\.gguf/));
});

test('a model replaced on its host in mid-download: the new one arrives, whole', async (t) => {
  const store = memoryStore();
  const fresh = Buffer.from(body);
  fresh.fill(7, 3 * CHUNK, 4 * CHUNK);
  behaviour().cuts = [2 * CHUNK + 100];
  let replaced = false;
  const loaded = await load({
    store,
    onProgress: (p) => {
      if (replaced || p.stage !== 'retry') return;
      replaced = true;
      server.paths.set('/m/model.gguf', { body: fresh });
      publish({ 'model.gguf': fresh });
    },
  });
  assert.ok(replaced);
  assertWhole(loaded, fresh);
  assert.equal(loaded.got.starts, 2);
  assert.ok(loaded.result.fromStore >= 2 * CHUNK, 'chunks that are the same in both were kept');
  assert.ok(loaded.notices.some(({ code }) => code === 'INTEGRITY'));
  reportSent(t);
});

test('a new version after the first visit: refresh fetches what changed', async () => {
  const store = memoryStore();
  await load({ store });
  const fresh = Buffer.from(body);
  fresh[4 * CHUNK + 1] ^= 1;
  server.paths.set('/m/model.gguf', { body: fresh });
  publish({ 'model.gguf': fresh });
  assertWhole(await load({ store }), body);
  const refreshed = await load({ store, refresh: true });
  assertWhole(refreshed, fresh);
  assert.equal(refreshed.result.fromNetwork, CHUNK);
  assert.ok(refreshed.notices.some(({ message }) => /new version/.test(message)));
});

test('refresh without a network: what is stored does', async () => {
  const store = memoryStore();
  await load({ store });
  server.paths.clear();
  assertWhole(await load({ store, refresh: true }));
});

test('a stored chunk that is lost is fetched again alone', async () => {
  const store = memoryStore();
  const key = `${server.url}/m/manifest.json`;
  await load({ store });
  const lost = {
    ...store,
    openChunk: async (/** @type {any} */ at, /** @type {number} */ n) =>
      at[2] === 3 ? null : store.openChunk(at, n),
  };
  server.log.length = 0;
  assertWhole(await load({ store: lost }));
  assert.deepEqual(
    weightRequests().map(({ range }) => range),
    [`bytes=${3 * CHUNK}-${4 * CHUNK - 1}`],
  );
  await store.putChunk([key, 0, 1], new Uint8Array(CHUNK), {
    sha256: 'f'.repeat(64),
  });
  assert.deepEqual(await verifyModel(store, key), [{ file: 0, chunk: 1 }]);
  const repaired = await load({ store });
  assertWhole(repaired);
  assert.equal(repaired.result.fromNetwork, CHUNK);
});

test('a full storage does not stop the load, and says what is missing', async () => {
  const inner = memoryStore();
  let writes = 0;
  const store = {
    ...inner,
    putChunk: (/** @type {any} */ at, /** @type {any} */ bytes, /** @type {any} */ marks) =>
      ++writes > 2
        ? Promise.reject(new PocketVLError('QUOTA', 'Full.'))
        : inner.putChunk(at, bytes, marks),
  };
  await inner.putModel({
    key: 'other',
    manifest: { format: 1, name: 'other', title: 'Another model', files: [] },
    complete: false,
    created: 1,
    used: 1,
  });
  await inner.putChunk(['other', 0, 0], new Uint8Array(3e6), { sha256: '0'.repeat(64) });
  const loaded = await load({ store });
  assertWhole(loaded);
  assert.equal(loaded.result.stored, false);
  const notice = loaded.notices.find(({ code }) => code === 'QUOTA');
  assert.equal(notice?.details?.missing, SIZE - 2 * CHUNK);
  assert.match(notice?.message ?? '', /make room: Another model \(3 MB\)/);
  assert.deepEqual(notice?.details?.others, [{ key: 'other', title: 'Another model', bytes: 3e6 }]);
  const again = await load({ store: inner });
  assertWhole(again);
  assert.equal(again.result.fromStore, 2 * CHUNK, 'what was stored is kept');
});

test('a bare GGUF address: hashes are recorded on the first visit', async () => {
  const store = memoryStore();
  const source = { url: `${server.url}/m/model.gguf` };
  assertWhole(await load({ store }, source));
  server.log.length = 0;
  assertWhole(await load({ store }, source));
  assert.equal(server.log.length, 0);
  assert.deepEqual(await verifyModel(store, source.url), []);
  behaviour().noHead = true;
  assertWhole(await load({}, source));
});

test('several addresses, and a split file by its first part', async () => {
  const parts = [body.subarray(0, 2 * CHUNK), body.subarray(2 * CHUNK)];
  parts.forEach((part, i) => server.paths.set(`/s/x-0000${i + 1}-of-00002.gguf`, { body: part }));
  const { got } = await load({}, { url: `${server.url}/s/x-00001-of-00002.gguf` });
  assert.deepEqual(
    got.files.map(({ name, got: n }) => [name, n]),
    [
      ['x-00001-of-00002.gguf', 2 * CHUNK],
      ['x-00002-of-00002.gguf', SIZE - 2 * CHUNK],
    ],
  );
});

test('files from disk are read in pieces and not stored unless asked', async () => {
  const store = memoryStore();
  const source = { blobs: [{ name: 'model.gguf', blob: new Blob([new Uint8Array(body)]) }] };
  assertWhole(await load({ store }, source));
  assert.equal((await store.models()).length, 0);
  assertWhole(await load({ store, keep: true }, source));
  assert.equal((await store.models())[0].complete, true);
});

test('a host that tells a wrong Content-Length: too much, too little', async (t) => {
  for (const wrong of [SIZE + 1000, SIZE - 1000, 10]) {
    behaviour().contentLength = wrong;
    server.log.length = 0;
    assertWhole(await load());
    reportSent(t);
  }
});

test('a file that is longer than its manifest says was replaced', async () => {
  behaviour().body = Buffer.concat([body, randomBytes(5000)]);
  await assert.rejects(load(), withCode('INTEGRITY', /not the one that was announced/));
});

test('a bare address whose host tells a wrong size: an error, not half a model', async () => {
  const source = { url: `${server.url}/m/model.gguf` };
  for (const wrong of [SIZE - 1000, SIZE + 1000]) {
    behaviour().headLength = wrong;
    await assert.rejects(load({ store: memoryStore() }, source), withCode('INTEGRITY', /size/));
  }
});

test('a bare address replaced in mid-download: the new file, whole, nothing of the old one', async () => {
  const store = memoryStore();
  const source = { url: `${server.url}/m/model.gguf` };
  const fresh = randomBytes(SIZE);
  Object.assign(behaviour(), {
    cuts: [2 * CHUNK + 5],
    lastModified: 'Mon, 01 Jan 2024 00:00:00 GMT',
  });
  let replaced = false;
  const loaded = await load(
    {
      store,
      onProgress: (p) => {
        if (replaced || p.stage !== 'retry') return;
        replaced = true;
        server.paths.set('/m/model.gguf', {
          body: fresh,
          lastModified: 'Tue, 02 Jan 2024 00:00:00 GMT',
        });
      },
    },
    source,
  );
  assert.ok(replaced);
  assertWhole(loaded, fresh);
  assert.equal(loaded.result.fromNetwork, SIZE);
  assert.deepEqual(await verifyModel(store, source.url), []);
});

test('offline: the load waits, says so, and goes on', async () => {
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  const navigator = { onLine: true };
  Object.defineProperty(globalThis, 'navigator', { value: navigator, configurable: true });
  try {
    behaviour().cuts = [CHUNK + 10];
    behaviour().statuses = [0, 503];
    let requests = 0;
    const loaded = await load({
      onProgress: (p) => {
        if (p.stage !== 'retry' || !navigator.onLine) return;
        navigator.onLine = false;
        requests = server.log.length;
        setTimeout(() => {
          assert.equal(server.log.length, requests, 'nothing is asked while there is no network');
          navigator.onLine = true;
        }, 700);
      },
    });
    assertWhole(loaded);
  } finally {
    if (before) Object.defineProperty(globalThis, 'navigator', before);
    else delete (/** @type {any} */ (globalThis).navigator);
  }
});

test('cancelled in any stage: ABORTED, and the next load goes on from what is there', async () => {
  for (const stage of ['manifest', 'network', 'retry', 'store', 'pack']) {
    const store = memoryStore();
    Object.assign(behaviour(), { slow: 2, cuts: [3 * CHUNK] });
    if (stage === 'store') {
      await load({ store });
      const [record] = await store.models();
      await store.putModel({ ...record, complete: false });
      await store.deleteChunk([record.key, 0, 4]);
    }
    const controller = new AbortController();
    await assert.rejects(
      load({
        store,
        signal: controller.signal,
        onProgress: (p) => p.stage === stage && controller.abort(),
      }).then(() => {
        // Everything had arrived: there was nothing left to cancel.
        if (stage === 'pack') throw new PocketVLError('ABORTED', 'Too late to stop.');
      }),
      withCode('ABORTED'),
      stage,
    );
    Object.assign(behaviour(), { slow: 0, cuts: [] });
    const again = await load({ store });
    assertWhole(again);
    if (stage === 'retry') assert.equal(again.result.fromStore, 3 * CHUNK);
  }
});

test('progress: bytes, rate, stages, for each file and for all of them', async () => {
  const parts = { 'a.gguf': body.subarray(0, 2 * CHUNK), 'b.gguf': body.subarray(2 * CHUNK) };
  for (const [name, part] of Object.entries(parts))
    server.paths.set(`/m/${name}`, { body: part, slow: 5 });
  publish(parts);
  const store = memoryStore();
  const { progress } = await load({ store });
  const stages = new Set(progress.map(({ stage }) => stage));
  for (const stage of ['manifest', 'start', 'network', 'pack'])
    assert.ok(stages.has(/** @type {any} */ (stage)), stage);
  assert.ok(
    progress.some(({ loaded, packed }) => loaded > packed && loaded % CHUNK !== 0),
    'bytes count as they come, not by the part',
  );
  let last = 0;
  for (const p of progress.filter(({ stage }) => stage === 'network')) {
    assert.ok(p.loaded >= last && p.loaded <= p.total && p.packed <= p.loaded);
    assert.ok(
      p.fileLoaded <= p.fileTotal && p.fileTotal === parts[/** @type {'a.gguf'} */ (p.file)].length,
    );
    last = p.loaded;
  }
  const rated = progress.filter(({ bytesPerSecond }) => bytesPerSecond > 0);
  assert.ok(rated.length > 0);
  for (const p of rated)
    assert.ok(Math.abs(p.secondsLeft - (p.total - p.loaded) / p.bytesPerSecond) < 1e-6);
  const end = progress[progress.length - 1];
  assert.deepEqual([end.loaded, end.packed, end.total, end.fromNetwork], [SIZE, SIZE, SIZE, SIZE]);
  const again = await load({ store });
  assert.ok(again.progress.some(({ stage }) => stage === 'store'));
  assert.equal(again.progress[again.progress.length - 1].stored, SIZE);
});

test('a stored chunk that changed unnoticed: every load checks a sample, and repairs', async () => {
  const store = memoryStore();
  const key = `${server.url}/m/manifest.json`;
  await load({ store });
  const { sha256, sample } = /** @type {any} */ ((await store.records(key)).get('0/2'));
  assert.equal(typeof sample, 'number');
  const bad = new Uint8Array(body.subarray(2 * CHUNK, 3 * CHUNK));
  bad.fill(0, 8192, 8192 + 4096); // a lost block
  await store.putChunk([key, 0, 2], bad, { sha256, sample });
  server.log.length = 0;
  const loaded = await load({ store });
  assertWhole(loaded);
  assert.equal(loaded.got.starts, 2, 'what is in the engine already is given up');
  assert.ok(
    loaded.notices.some(({ code, message }) => code === 'INTEGRITY' && /damaged/.test(message)),
  );
  assert.deepEqual(
    weightRequests().map(({ range }) => range),
    [`bytes=${2 * CHUNK}-${3 * CHUNK - 1}`],
  );
  // Chunks that were stored before there were samples are read as they are.
  const other = new Uint8Array(body.subarray(0, CHUNK));
  const record = /** @type {any} */ ((await store.records(key)).get('0/0'));
  await store.putChunk([key, 0, 0], other, { sha256: record.sha256 });
  assertWhole(await load({ store }));
});

test('several models side by side; a pair by two addresses', async () => {
  const store = memoryStore();
  server.paths.set('/p/model.gguf', { body: body.subarray(0, 2 * CHUNK) });
  server.paths.set('/p/mmproj.gguf', { body: body.subarray(2 * CHUNK) });
  const pair = { urls: [`${server.url}/p/model.gguf`, `${server.url}/p/mmproj.gguf`] };
  await load({ store });
  const { got } = await load({ store }, pair);
  assert.deepEqual(
    got.files.map(({ name, got: n }) => [name, n]),
    [
      ['model.gguf', 2 * CHUNK],
      ['mmproj.gguf', SIZE - 2 * CHUNK],
    ],
  );
  assert.equal((await store.models()).length, 2);
  await store.deleteModel(pair.urls.join('\n'));
  server.paths.clear();
  assertWhole(await load({ store }));
  await assert.rejects(load({ store }, pair), withCode('NETWORK'));
});

test('what is not a manifest is refused', async () => {
  server.paths.set('/m/manifest.json', { body: Buffer.from('<!doctype html>') });
  await assert.rejects(load(), withCode('FORMAT', /not JSON/));
  server.paths.set('/m/manifest.json', { body: Buffer.from('{"format":1}') });
  await assert.rejects(load(), withCode('FORMAT', /lists no files/));
});

test('a smaller file on the host than in the manifest', async () => {
  behaviour().body = body.subarray(0, CHUNK);
  await assert.rejects(load({ patience: { ...PATIENCE, tries: 2 } }), (/** @type {any} */ e) =>
    ['INTEGRITY', 'NETWORK'].includes(e.code),
  );
});

test('the memory store conforms', () => storeConformance(memoryStore(), assert));
