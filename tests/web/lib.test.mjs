// The parts of web/lib that need neither a browser nor the wasm module.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { IMPORTS } from '../../web/lib/abi.js';
import { parseBoxes, withoutBoxes } from '../../web/lib/boxes.js';
import { Client } from '../../web/lib/client.js';
import { ERROR_CODES, PocketVLError } from '../../web/lib/errors.js';
import { detect } from '../../web/lib/features.js';
import { loadImage, sniff } from '../../web/lib/image.js';
import { checkManifest, sha256, sha256Slow, splitUrls } from '../../web/lib/manifest.js';
import { Pictures, checkChatOptions, prepare } from '../../web/lib/messages.js';
import { isCall, isReply } from '../../web/lib/protocol.js';
import { hostThreads, threadsOf } from '../../web/lib/threads.js';
import { chooseFiles, tidy } from '../../web/page/addresses.js';

/** @param {string} code */
const withCode = (code) => (/** @type {unknown} */ error) =>
  error instanceof PocketVLError && error.code === code && error.message.length > 10;

const read = (/** @type {string} */ path) =>
  readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

test('the exports list and the shim name the same functions', () => {
  const listed = read('wasm/exports.txt')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter(Boolean);
  assert.deepEqual([...IMPORTS].sort(), listed.sort());
});

test('error codes contain every status of the core', () => {
  const names = [...read('src/pocketvl.h').matchAll(/PVL_E_([A-Z]+) = \d+/g)].map(
    ([, name]) => name,
  );
  assert.equal(names.length, 12);
  for (const name of names) assert.ok(ERROR_CODES.includes(/** @type {any} */ (name)), name);
});

test('errors cross the worker border with code and details', () => {
  const sent = structuredClone(
    new PocketVLError('QUOTA', 'The storage is full.', { details: { missing: 5 } }).toWire(),
  );
  const got = PocketVLError.fromWire(sent);
  assert.equal(got.code, 'QUOTA');
  assert.equal(got.details.missing, 5);
  assert.equal(PocketVLError.from(new DOMException('x', 'AbortError')).code, 'ABORTED');
});

test('boxes: labels, several boxes, order of corners, clamping, no area', () => {
  const text =
    '<ref>red star</ref><box>[[100, 200, 300, 400], [900, 10, 500, 1200]]</box> and <box>[[5,5,5,9]]</box>';
  const boxes = parseBoxes(text, { width: 500, height: 200 });
  assert.deepEqual(
    boxes.map(({ label, box, normalized }) => ({ label, box, normalized })),
    [
      { label: 'red star', box: [50, 40, 150, 80], normalized: [100, 200, 300, 400] },
      { label: 'red star', box: [250, 2, 450, 200], normalized: [500, 10, 900, 1000] },
    ],
  );
  assert.equal(withoutBoxes(text), 'red star and ');
  for (let cut = 1; cut < text.length; cut++) {
    assert.ok(
      !/<|\[\[/.test(withoutBoxes(text.slice(0, cut))),
      `cut at ${cut}: ${withoutBoxes(text.slice(0, cut))}`,
    );
  }
});

test('SHA-256 without crypto.subtle equals the platform at every tail length', async () => {
  for (const length of [0, 1, 55, 56, 63, 64, 65, 119, 120, 127, 128, 1000, 70_001]) {
    const bytes = new Uint8Array(randomBytes(length));
    const expected = createHash('sha256').update(bytes).digest('hex');
    assert.equal(sha256Slow(bytes), expected, `length ${length}`);
    assert.equal(await sha256(bytes), expected);
  }
});

test('manifests are checked and say what is wrong', () => {
  const good = JSON.parse(read('web/models/demo/manifest.json'));
  assert.equal(checkManifest(good, 'm').files.length, 1);
  const broken = (/** @type {(m: any) => void} */ change) => {
    const copy = structuredClone(good);
    change(copy);
    return () => checkManifest(copy, 'm');
  };
  assert.throws(
    broken((m) => (m.format = 2)),
    withCode('FORMAT'),
  );
  assert.throws(
    broken((m) => (m.files = [])),
    withCode('FORMAT'),
  );
  assert.throws(
    broken((m) => (m.files[0].bytes += 1)),
    withCode('FORMAT'),
  );
  assert.throws(
    broken((m) => (m.files[0].chunks[0].sha256 = 'xyz')),
    withCode('FORMAT'),
  );
  assert.throws(
    broken((m) => (m.files[0].bytes = -1)),
    withCode('FORMAT'),
  );
  assert.throws(() => checkManifest('text', 'm'), withCode('FORMAT'));
});

test('a split file is named by any of its parts', () => {
  assert.deepEqual(splitUrls('https://a/x-00001-of-00003.gguf?y'), [
    'https://a/x-00001-of-00003.gguf?y',
    'https://a/x-00002-of-00003.gguf?y',
    'https://a/x-00003-of-00003.gguf?y',
  ]);
  assert.deepEqual(splitUrls('https://a/x.gguf'), ['https://a/x.gguf']);
});

test('picture types, sizes and missing ends are seen', () => {
  const png = readFileSync(new URL('../demo/heldout/001.png', import.meta.url));
  const jpeg = readFileSync(new URL('../demo/heldout/000.jpg', import.meta.url));
  const a = sniff(png);
  assert.equal(a.type, 'png');
  assert.ok(a.width > 0 && a.height > 0 && a.whole);
  const b = sniff(jpeg);
  assert.equal(b.type, 'jpeg');
  assert.ok(b.width > 0 && b.height > 0 && b.whole);
  for (const part of [0.3, 0.7, 0.99]) {
    assert.equal(sniff(jpeg.subarray(0, Math.floor(jpeg.length * part))).whole, false);
    assert.equal(sniff(png.subarray(0, Math.floor(png.length * part))).whole, false);
  }
  assert.equal(
    sniff(new TextEncoder().encode('<svg xmlns="http://www.w3.org/2000/svg"/>')).type,
    'svg',
  );
  assert.equal(sniff(new TextEncoder().encode('hello')).type, '');
  assert.equal(sniff(new Uint8Array()).type, '');
  const random = new Uint8Array(randomBytes(300));
  for (let n = 0; n < 300; n++) sniff(random.subarray(0, n)); // never throws
});

test('a picture whose header tells no size is measured before a canvas is made for it', async (t) => {
  let closed = 0;
  const bitmap = { width: 16_000, height: 8000, close: () => closed++ };
  Object.assign(globalThis, {
    createImageBitmap: async () => bitmap,
    OffscreenCanvas: class {
      constructor() {
        throw new Error('no canvas may be made');
      }
    },
  });
  t.after(() => {
    for (const name of ['createImageBitmap', 'OffscreenCanvas'])
      Reflect.deleteProperty(globalThis, name);
  });
  const runtime = /** @type {any} */ ({
    abi: { constants: { MAX_PIXELS: 120e6, MAX_SIDE: 65535 } },
    imageFromFile: () => assert.fail('the core must not be asked'),
  });
  const webp = new TextEncoder().encode('RIFF\x04\0\0\0WEBPVP8 ');
  await assert.rejects(
    loadImage(runtime, new Blob([webp]), new AbortController().signal),
    withCode('LIMIT'),
  );
  assert.equal(closed, 1);
});

test('messages are checked', async () => {
  const pictures = new Pictures();
  const blob = new Blob(['x']);
  const { messages, images } = await prepare(
    [
      {
        role: 'user',
        content: [
          { type: 'image', image: blob },
          { type: 'text', text: 'What?' },
        ],
      },
      { role: 'assistant', content: 'A cat.' },
      {
        role: 'user',
        content: [
          { type: 'image', image: blob },
          { type: 'text', text: 'Sure?' },
        ],
      },
    ],
    pictures,
  );
  assert.equal(images.length, 1, 'the same Blob is posted once');
  assert.equal(messages.length, 3);
  assert.deepEqual((await prepare('Hi', pictures)).messages, [
    { role: 'user', parts: [{ text: 'Hi' }] },
  ]);
  const bad = /** @type {any[]} */ ([
    [],
    null,
    [{ role: 'robot', content: 'x' }],
    [{ role: 'user', content: '   ' }],
    [{ role: 'user', content: [{ type: 'video' }] }],
    [{ role: 'assistant', content: 'x' }],
    [{ role: 'user', content: 5 }],
    [{ role: 'user', content: [{ type: 'image', image: 5 }] }],
  ]);
  for (const one of bad) {
    await assert.rejects(prepare(one, pictures), withCode('ARGUMENT'), JSON.stringify(one));
  }
});

test('chat options are checked', () => {
  assert.deepEqual(checkChatOptions({ maxTokens: 5, stop: 'x', unknown: 1, topP: undefined }), {
    maxTokens: 5,
    stop: ['x'],
  });
  assert.deepEqual(checkChatOptions({ responseFormat: { type: 'json_object' } }), { json: true });
  assert.deepEqual(checkChatOptions({ responseFormat: { type: 'text' } }), { json: false });
  for (const bad of [
    { maxTokens: 0 },
    { maxTiles: 41 },
    { temperature: -1 },
    { topK: 1.5 },
    { topP: 2 },
    { stop: [''] },
    { seed: NaN },
    { responseFormat: 'json_object' },
    { responseFormat: { type: 'json_schema' } },
  ]) {
    assert.throws(() => checkChatOptions(bad), withCode('ARGUMENT'), JSON.stringify(bad));
  }
});

test('the protocol refuses what is no message', () => {
  assert.ok(isCall({ id: 1, verb: 'chat', args: {} }));
  for (const bad of [
    null,
    5,
    {},
    { id: 'x', verb: 'chat', args: {} },
    { id: 1, verb: 'eval', args: {} },
    { id: 1, verb: 'chat' },
  ]) {
    assert.equal(isCall(bad), false);
  }
  assert.ok(isReply({ id: 1, event: 'piece', value: 'a' }));
  assert.equal(isReply({ id: 1, event: 'other' }), false);
});

test('features come with reasons', () => {
  const f = detect();
  assert.equal(f.simd, true);
  assert.ok(f.threadsReason.endsWith('.') && f.variantReason.endsWith('.'));
});

/** A worker that answers after a turn, for the client's queue. */
function fakeWorker() {
  /** @type {any} */
  const state = { log: [], listener: null, death: null, terminated: 0, silent: false };
  state.spawn = () => {
    state.log.push('spawn');
    queueMicrotask(() => state.listener({ id: 0, event: 'ready', value: null }));
    return {
      post(/** @type {any} */ message) {
        state.log.push(`${message.verb} ${message.args.name ?? message.args.id}`);
        if (message.verb === 'abort') {
          const error = new PocketVLError('ABORTED', 'The call was stopped.').toWire();
          setImmediate(() => state.listener({ id: message.args.id, event: 'error', value: error }));
        } else if (!state.silent) {
          setImmediate(() =>
            state.listener({ id: message.id, event: 'result', value: message.args.name }),
          );
        }
      },
      onMessage: (/** @type {any} */ l) => (state.listener = l),
      onDeath: (/** @type {any} */ l) => (state.death = l),
      terminate: () => state.terminated++,
    };
  };
  return state;
}

test('calls run one behind another, in the order of asking', async () => {
  const fake = fakeWorker();
  const client = new Client(fake.spawn);
  const done = await Promise.all(
    ['a', 'b', 'c'].map((name) => client.queue(undefined, () => client.call('chat', { name }))),
  );
  assert.deepEqual(done, ['a', 'b', 'c']);
  assert.deepEqual(fake.log, ['spawn', 'chat a', 'chat b', 'chat c']);
  client.dispose();
});

test('an abort ends a running call, and one that waits never runs', async () => {
  const fake = fakeWorker();
  const client = new Client(fake.spawn);
  fake.silent = true;
  const first = new AbortController();
  const second = new AbortController();
  const a = client.queue(first.signal, () =>
    client.call('chat', { name: 'a' }, { signal: first.signal }),
  );
  const b = client.queue(second.signal, () =>
    client.call('chat', { name: 'b' }, { signal: second.signal }),
  );
  await new Promise((go) => setTimeout(go, 20));
  second.abort();
  await assert.rejects(b, withCode('ABORTED'));
  first.abort();
  await assert.rejects(a, withCode('ABORTED'));
  fake.silent = false;
  assert.equal(await client.queue(undefined, () => client.call('chat', { name: 'c' })), 'c');
  assert.ok(!fake.log.includes('chat b'));
  client.dispose();
});

test('a lost worker fails its calls with the next step, and the next call starts another', async () => {
  const fake = fakeWorker();
  const client = new Client(fake.spawn);
  fake.silent = true;
  const call = client.queue(undefined, () => client.call('chat', { name: 'a' }));
  await new Promise((go) => setTimeout(go, 20));
  fake.death('out of memory');
  await assert.rejects(
    call,
    (/** @type {any} */ e) => e.code === 'WORKER' && /next call starts it again/.test(e.message),
  );
  fake.silent = false;
  assert.equal(await client.queue(undefined, () => client.call('chat', { name: 'b' })), 'b');
  assert.equal(fake.log.filter((/** @type {string} */ l) => l === 'spawn').length, 2);
  assert.equal(fake.terminated, 1);
  client.dispose();
});

test('pictures in data: addresses are read without fetch', async () => {
  const pictures = new Pictures();
  const url = 'data:image/png;charset=x;base64,aGVsbG8=';
  const part = { type: 'image_url', image_url: { url, detail: 'low' } };
  const text = { type: 'text', text: 'What?' };
  const messages = /** @type {any} */ ([{ role: 'user', content: [part, text] }]);
  const first = await prepare(messages, pictures);
  const source = /** @type {Blob} */ (first.images[0].source);
  assert.deepEqual([await source.text(), source.type], ['hello', 'image/png']);
  const again = await prepare(messages, pictures);
  assert.equal(again.images[0].key, first.images[0].key); // the worker knows it already
  const plain = await pictures.post('data:,a%20b', undefined);
  assert.equal(await /** @type {Blob} */ (plain.source).text(), 'a b');
  await assert.rejects(pictures.post('data:image/png;base64,%%', undefined), withCode('IMAGE'));
  await assert.rejects(pictures.post('data:nothing', undefined), withCode('IMAGE'));
});

test('addresses as people have them: files and repositories of the hub, pairs, own ones', () => {
  const base = 'https://page.example/vl/';
  const hub = 'https://huggingface.co';
  /** @type {[string, string[]][]} */
  const cases = [
    ['models/mine/manifest.json', [`${base}models/mine/manifest.json`]],
    ['mine/m.gguf', [`${base}mine/m.gguf`]],
    [' https://a.example/m.gguf#x ', ['https://a.example/m.gguf']],
    [`${hub}/o/n/blob/main/d/m.gguf`, [`${hub}/o/n/resolve/main/d/m.gguf`]],
    [
      `${hub}/o/n/resolve/main/m.gguf?download=true`,
      [`${hub}/o/n/resolve/main/m.gguf?download=true`],
    ],
    [`${hub}/o/n/resolve/main/blob/m.gguf`, [`${hub}/o/n/resolve/main/blob/m.gguf`]],
    ['http://hf.co/o/n', [`${hub}/o/n`]],
    ['hf.co/o/n', [`${hub}/o/n`]],
    ['www.huggingface.co/o/n/tree/main', [`${hub}/o/n/tree/main`]],
    ['OpenGVLab/Mini-InternVL2-1B', [`${hub}/OpenGVLab/Mini-InternVL2-1B`]],
    ['https://a.example/o/n/blob/main/m.gguf', ['https://a.example/o/n/blob/main/m.gguf']],
    [
      'https://a.example/1.gguf\nhttps://a.example/2.gguf',
      ['https://a.example/1.gguf', 'https://a.example/2.gguf'],
    ],
  ];
  for (const [text, addresses] of cases) assert.deepEqual(tidy(text, base), addresses, text);
  for (const text of ['file:///m.gguf', 'javascript:1', 'https://', 'data:text/html,x'])
    assert.throws(() => tidy(text, base), text);
});

test('of a repository’s files those that make one model', () => {
  const split = ['big-q4_0-00002-of-00002.gguf', 'big-q4_0-00001-of-00002.gguf'];
  /** @type {[string[], string, string[]][]} */
  const cases = [
    [['README.md', 'model.safetensors'], '', []],
    [['mmproj-x-f16.gguf'], '', []],
    [['a.gguf', 'manifest.json'], '', ['manifest.json']],
    [['a.gguf', 'web/manifest.json'], '', ['a.gguf']],
    [['a.gguf', 'web/manifest.json'], 'web/', ['web/manifest.json']],
    [
      ['m-f16.gguf', 'm-Q8_0.gguf', 'm-Q4_K_M.gguf', 'mmproj-m-f16.gguf', 'mmproj-m-Q8_0.gguf'],
      '',
      ['m-Q8_0.gguf', 'mmproj-m-Q8_0.gguf'],
    ],
    [['m.BF16.gguf', 'm.f16.gguf'], '', ['m.f16.gguf']],
    [split, '', ['big-q4_0-00001-of-00002.gguf']],
  ];
  for (const [files, folder, chosen] of cases)
    assert.deepEqual(chooseFiles(files, folder), chosen, files.join(' '));
});

/** Two ends of a line: what is posted at one comes to the listeners of the other. */
function line() {
  const ends = [0, 1].map(() => {
    /** @type {((event: {data: any}) => void)[]} */
    const listeners = [];
    return {
      listeners,
      addEventListener: (/** @type {string} */ _, /** @type {any} */ listen) =>
        void listeners.push(listen),
      /** @type {(data: any) => void} */
      postMessage: () => {},
    };
  });
  ends.forEach((end, i) => {
    end.postMessage = (data) => ends[1 - i].listeners.forEach((listen) => listen({ data }));
  });
  return ends;
}

test('threads: the page starts them for the engine, and both hear what the other says', (t) => {
  /** @type {any[]} */
  const made = [];
  const before = globalThis.Worker;
  t.after(() => void (globalThis.Worker = before));
  globalThis.Worker = /** @type {any} */ (
    class {
      /** @type {any[]} */
      heard = [];
      ended = false;
      constructor(/** @type {string} */ url, /** @type {WorkerOptions} */ options) {
        Object.assign(this, { url, options });
        made.push(this);
      }
      postMessage(/** @type {any} */ message) {
        this.heard.push(message);
      }
      terminate() {
        this.ended = true;
      }
    }
  );
  const [scope, engine] = line();
  const endAll = hostThreads(/** @type {any} */ (engine));
  const Thread = threadsOf(scope);
  const url = new URL('https://a.example/glue.js');
  const options = /** @type {WorkerOptions} */ ({ type: 'module', name: 'em-pthread' });
  const [first, second, third] = [0, 1, 2].map(() => new Thread(url, options));
  assert.deepEqual(
    made.map((worker) => [worker.url, worker.options]),
    Array(3).fill([url.href, options]),
  );
  second.postMessage({ cmd: 'load' });
  assert.deepEqual(
    made.map(({ heard }) => heard),
    [[], [{ cmd: 'load' }], []],
  );
  /** @type {any[]} */
  const said = [];
  second.onmessage = ({ data }) => said.push(data);
  second.onerror = ({ message }) => said.push(message);
  made[1].onmessage({ data: { cmd: 'loaded' } });
  made[1].onerror({ message: 'a fault', preventDefault() {} });
  made[0].onmessage({ data: 'nobody listens' });
  assert.deepEqual(said, [{ cmd: 'loaded' }, 'a fault']);
  first.terminate();
  first.postMessage('too late');
  assert.deepEqual(
    made.map(({ ended }) => ended),
    [true, false, false],
  );
  assert.deepEqual(made[0].heard, []);
  endAll();
  assert.ok(made.every(({ ended }) => ended));
  assert.equal(third.number, 3);
});
