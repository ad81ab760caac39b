// What a page reads of a stranger's manifest: sound ones with anything changed. Either one clear refusal, or
// sizes that add up and addresses on the manifest's own host. The seed is fixed; SEED=n tries others.
import assert from 'node:assert/strict';
import test from 'node:test';
import { PocketVLError } from '../../web/lib/errors.js';
import { checkManifest, fileName, fileUrl, splitUrls } from '../../web/lib/manifest.js';

const ROUNDS = 40_000;
const FROM = 'https://models.example:8443/made/manifest.json';

let state = Number(process.env.SEED ?? 20240611) >>> 0;
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let t = state;
  t = Math.imul(t ^ (t >>> 15), t | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return (t ^ (t >>> 14)) >>> 0;
}
const below = (/** @type {number} */ n) => random() % n;
/** @template T @param {T[]} list @returns {T} */
const pick = (list) => list[below(list.length)];

const NAMES = [
  'a.gguf',
  'sub/a b%20.gguf',
  'https://evil.example/x.gguf',
  '//evil.example/x.gguf',
  '\\\\evil.example\\x.gguf',
  '/\\evil.example/x.gguf',
  '../../x.gguf',
  'a/../../b',
  'javascript:alert(1)',
  'data:text/plain,x',
  'file:///etc/passwd',
  'blob:https://evil.example/1',
  '\thttps://evil.example/x',
  ' //evil.example/x',
  'http://models.example:8443/x',
  'https://models.example:8443@evil.example/x',
  'https:evil.example/x',
  '.',
  '',
  '%',
  '%2e%2e/x',
  '\u0000',
  '<img src=x onerror=alert(1)>.gguf',
  '__proto__',
  '\ud800',
  'x'.repeat(5000),
];
const ODD = [
  ...[null, undefined, true, 0, -1, 0.5, 1e300, NaN, Infinity, 2 ** 53, '', '1'],
  ...[[], {}, [null], { length: 3 }, '__proto__', 'f32', 'q8', 'f'.repeat(64)],
];

const sound = () => ({
  format: 1,
  name: 'made',
  title: 'Made',
  license: 'MIT',
  files: Array.from({ length: 1 + below(3) }, (_, i) => ({
    name: pick(NAMES.slice(0, 2)) + i,
    bytes: 30,
    chunks: [
      { bytes: 20, sha256: 'a'.repeat(64) },
      { bytes: 10, sha256: '0'.repeat(64) },
    ],
    ...(below(3) === 0 ? { parts: [{ name: 'a.part', bytes: 30 }] } : {}),
  })),
  settings: { maxTiles: 6, context: 512, maxTokens: 64, temperature: 0, kvType: 'q8' },
});

/** Changes one thing somewhere inside. */
function spoil(/** @type {any} */ value) {
  let at = value;
  for (;;) {
    const keys = Object.keys(at);
    const key = pick(keys.length ? keys : ['x']);
    if (at[key] !== null && typeof at[key] === 'object' && below(4) > 0) {
      at = at[key];
      continue;
    }
    const what = below(4);
    if (what === 0) delete at[key];
    else if (what === 1) at[pick(['url', 'name', 'bytes', 'parts', 'chunks', 'x'])] = pick(NAMES);
    else at[key] = what === 2 ? pick(NAMES) : structuredClone(pick(ODD));
    return;
  }
}

const refused = (/** @type {unknown} */ error) => {
  assert.ok(error instanceof PocketVLError && error.code === 'FORMAT', String(error));
  assert.match(error.message, /\.$/);
};

test('any manifest is refused in one sentence, or is sound', () => {
  let [taken, turned] = [0, 0];
  for (let i = 0; i < ROUNDS; i++) {
    const made = sound();
    for (let n = below(4); n > 0; n--) spoil(made);
    let manifest;
    try {
      manifest = checkManifest(made, FROM);
    } catch (error) {
      refused(error);
      turned++;
      continue;
    }
    taken++;
    assert.equal(typeof manifest.name, 'string');
    for (const text of [manifest.name, manifest.title ?? '', manifest.license ?? ''])
      assert.ok(typeof text === 'string' && text.length <= 255);
    for (const value of Object.values(manifest.settings ?? {}))
      assert.ok(['f32', 'q8'].includes(String(value)) || Number.isFinite(value));
    for (const file of manifest.files) {
      assert.equal(
        file.chunks.reduce((sum, chunk) => sum + chunk.bytes, 0),
        file.bytes,
      );
      let address;
      try {
        address = new URL(fileUrl(file, FROM));
      } catch (error) {
        refused(error);
        continue;
      }
      assert.equal(address.origin, new URL(FROM).origin, file.name);
      assert.equal(address.username + address.password, '');
    }
  }
  assert.ok(taken > ROUNDS / 10 && turned > ROUNDS / 10, `${taken} taken, ${turned} refused`);
});

test('no name leads to another host', () => {
  for (const name of NAMES) {
    for (const url of [undefined, ...NAMES]) {
      try {
        const address = new URL(fileUrl({ name, url }, FROM));
        assert.equal(address.origin, new URL(FROM).origin, `${name} ${url}`);
      } catch (error) {
        refused(error);
      }
    }
  }
  assert.equal(
    fileUrl({ name: 'sub/a b%.gguf' }, FROM),
    'https://models.example:8443/made/sub/a%20b%25.gguf',
  );
  assert.equal(
    fileUrl({ name: 'a', url: '/other/a.gguf?x=1' }, FROM),
    'https://models.example:8443/other/a.gguf?x=1',
  );
});

test('addresses of split files: bounded, whatever they say', () => {
  for (let i = 0; i < ROUNDS; i++) {
    const digits = () => String(random()).padStart(5, '0').slice(-5);
    const url = `https://h/${pick(NAMES)}-${digits()}-of-${digits()}.gguf${pick(['', '?a', '#b', '%'])}`;
    try {
      const list = splitUrls(url);
      assert.ok(list.length >= 1 && list.length <= 1000);
      for (const one of list.slice(0, 3)) assert.equal(typeof fileName(one), 'string');
    } catch (error) {
      refused(error);
    }
  }
});
