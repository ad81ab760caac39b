// `pocketvl check` against hosts with one fault each: every fault is named in one sentence, and a sound host passes.
// `pocketvl publish`, whose folder it has to find sound, and the library has to load.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { appendFileSync, cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { check } from '../../web/lib/node/cli/check.js';
import { publish } from '../../web/lib/node/cli/publish.js';
import { PocketVL, PocketVLError } from '../../web/lib/node/index.js';
import { parseRange } from '../../web/serve.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const site = join(root, 'build', 'site');
const demo = join(root, 'web/models/demo');
/** Bytes of the demonstration model. */
const BYTES = statSync(join(demo, 'pocketvl-demo.gguf')).size;
const MB = `${(BYTES / 1e6).toFixed(1)} MB`;
const work = mkdtempSync(join(tmpdir(), 'pocketvl-check-'));
/** @type {import('node:http').Server[]} */
const servers = [];
after(() => {
  for (const server of servers) {
    server.close();
    server.closeAllConnections();
  }
  rmSync(work, { recursive: true, force: true });
});

const TYPES = /** @type {Record<string, string>} */ ({
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
});

/**
 * What a host is about to answer; a fault changes it.
 * @typedef {{path: string, status: number, body: Buffer, headers: Record<string, string>, gzip: boolean, ranges: boolean}} Reply
 */

/**
 * A sound host, but for the fault.
 * @param {(reply: Reply) => void} [fault]
 * @param {string} [folder]
 */
async function host(fault = () => {}, folder = site) {
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://x').pathname;
    const file = join(folder, path.endsWith('/') ? `${path}index.html` : path);
    const there = statSync(file, { throwIfNoEntry: false })?.isFile() ?? false;
    /** @type {Reply} */
    const reply = {
      path,
      status: there ? 200 : 404,
      body: there ? readFileSync(file) : Buffer.from('no'),
      headers: { 'Content-Type': TYPES[extname(file)] ?? 'application/octet-stream' },
      gzip: false,
      ranges: true,
    };
    fault(reply);
    const { headers } = reply;
    const range = parseRange(reply.ranges ? request.headers.range : '', reply.body.length);
    if (reply.status === 200 && typeof range === 'object') {
      headers['Content-Range'] = `bytes ${range.start}-${range.end}/${reply.body.length}`;
      reply.body = reply.body.subarray(range.start, range.end + 1);
      reply.status = 206;
    }
    if (reply.gzip && /gzip/.test(String(request.headers['accept-encoding']))) {
      headers['Content-Encoding'] = 'gzip';
      reply.body = gzipSync(reply.body);
    }
    headers['Content-Length'] ??= String(reply.body.length);
    response.writeHead(reply.status, headers).end(request.method === 'HEAD' ? '' : reply.body);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', () => done(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  servers.push(server);
  return `http://localhost:${port}/`;
}

/**
 * @param {string} url
 * @param {import('../../web/lib/node/cli/check.js').Options} [options]
 */
async function findings(url, options) {
  /** @type {Record<'ok' | 'note' | 'fix', string[]>} */
  const found = { ok: [], note: [], fix: [] };
  await check(url, (level, text) => found[level].push(text), options);
  return found;
}

/** @param {string[]} args */
const command = (args) =>
  /** @type {Promise<{status: number, stdout: string, stderr: string}>} */ (
    new Promise((done) => {
      const main = join(root, 'web/lib/node/cli/main.js');
      const child = execFile(process.execPath, [main, ...args], (error, stdout, stderr) =>
        done({ status: child.exitCode ?? -1, stdout, stderr }),
      );
    })
  );

test('a sound host: nothing to fix, from the command too', async () => {
  const url = await host();
  const { ok, fix } = await findings(url);
  assert.deepEqual(fix, []);
  assert.match(ok.join(' '), /service worker isolates the page/);
  assert.match(ok.join(' '), /every byte matches the manifest/);
  const { status, stdout } = await command(['check', url]);
  assert.equal(status, 0);
  assert.match(stdout, /^Nothing to fix\.$/m);
});

test('a fault makes the command end with 1, a wrong command line with 2', async () => {
  const url = await host((reply) => void (reply.ranges = false));
  const { status, stdout } = await command(['check', '--quick', url]);
  assert.equal(status, 1);
  assert.match(stdout, /^fix {2}pocketvl-demo\.gguf cannot be had in part/m);
  assert.match(stdout, /^1 to fix\.$/m);
  for (const args of [
    [],
    ['check'],
    ['check', 'models/demo'],
    ['check', url, '--colour'],
    ['paint'],
    ['publish', demo],
  ]) {
    const { status, stderr } = await command(args);
    assert.equal(status, 2, args.join(' '));
    assert.match(stderr, /usage: pocketvl/);
  }
  const nowhere = await command(['check', 'http://localhost:9/']);
  assert.equal(nowhere.status, 1);
  assert.match(nowhere.stdout, /cannot be reached/);
});

const gguf = (/** @type {Reply} */ reply) => reply.path.endsWith('.gguf');
const is = (/** @type {Reply} */ reply, /** @type {string} */ path) => reply.path === `/${path}`;
/** Name of the fault, the sentence, what the host does. @type {[string, RegExp, (reply: Reply) => void][]} */
const FAULTS = [
  ['no page', /answers HTTP 404: upload build\/site/, (r) => { if (is(r, '')) r.status = 404; }],
  ['another page', /is not PocketVL's page/, (r) => { if (is(r, '')) r.body = Buffer.from('<!doctype html><p>Hi'); }],
  ['the page as text', /index\.html has to be sent as text\/html/, (r) => { if (is(r, '')) r.headers['Content-Type'] = 'text/plain'; }],
  ['no service worker', /One thread: there is no usable sw\.js/, (r) => { if (is(r, 'sw.js')) r.status = 404; }],
  ['isolation forbidden', /Permissions-Policy/, (r) => { if (is(r, '')) r.headers['Permissions-Policy'] = 'cross-origin-isolated=()'; }],
  ['a policy against wasm', /'wasm-unsafe-eval'/, (r) => { if (is(r, '')) r.headers['Content-Security-Policy'] = "default-src 'self'"; }],
  ['a policy against workers', /worker-src 'self'/, (r) => { if (is(r, '')) r.headers['Content-Security-Policy'] = "script-src 'self' 'wasm-unsafe-eval'; worker-src 'none'"; }],
  ['a script missing', /lib\/worker\.js is missing \(HTTP 404\)/, (r) => { if (is(r, 'lib/worker.js')) r.status = 404; }],
  ['a page for everything', /wasm\/pocketvl-simd\.wasm is a web page, not the file/, (r) => { if (is(r, 'wasm/pocketvl-simd.wasm')) r.body = Buffer.from('<!DOCTYPE html><title>App</title>'); }],
  ['scripts as text', /lib\/pocketvl\.js has the type "text\/plain", with which browsers run no script/, (r) => { if (is(r, 'lib/pocketvl.js')) r.headers['Content-Type'] = 'text/plain'; }],
  ['no manifest', /There is no manifest at .*manifest\.json \(HTTP 404\)/, (r) => { if (r.path.endsWith('manifest.json')) r.status = 404; }],
  ['a manifest that is none', /manifest\.json is not JSON/, (r) => { if (r.path.endsWith('manifest.json')) r.body = Buffer.from('{'); }],
  ['a manifest of another format', /its format is 2/, (r) => { if (r.path.endsWith('manifest.json')) r.body = Buffer.from('{"format":2}'); }],
  ['no weights', /pocketvl-demo\.gguf is missing \(HTTP 403/, (r) => { if (gguf(r)) r.status = 403; }],
  ['a pointer for weights', /is a Git LFS pointer/, (r) => { if (gguf(r)) r.body = Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'); }],
  ['no ranges', /cannot be had in part \(Range answers HTTP 200\)/, (r) => { r.ranges = false; }],
  ['compressed weights', /is compressed on its way \(Content-Encoding: gzip\)/, (r) => { if (gguf(r)) r.gzip = true; }],
  ['weights as text', /which hosts on the way may rewrite/, (r) => { if (gguf(r)) r.headers['Content-Type'] = 'text/plain'; }],
  ['weights cut off', new RegExp(`has 1000000 bytes on the host, the manifest says ${BYTES}`), (r) => { if (gguf(r)) r.body = r.body.subarray(0, 1e6); }],
  ['one bit wrong', new RegExp(`differs within the ${MB} from byte 0`), (r) => { if (gguf(r)) { r.body = Buffer.from(r.body); r.body[3e6] ^= 1; } }],
  ['weights elsewhere', /where the page's policy allows no connection/, (r) => { if (gguf(r)) { r.status = 302; r.headers.Location = `${elsewhere}models/demo/pocketvl-demo.gguf`; } }],
]; // prettier-ignore
/** Another host with the same files. */
let elsewhere = '';
before(async () => void (elsewhere = await host()));

for (const [name, sentence, fault] of FAULTS) {
  test(`${name}: said in one sentence`, async () => {
    const { fix } = await findings(await host(fault));
    assert.ok(fix.length >= 1, 'nothing was found');
    assert.match(fix.join('\n'), sentence);
    assert.ok(fix.length <= 2, fix.join('\n')); // the fault, and at most one that follows from it
  });
}

test('headers for isolation are seen; without https nothing is isolated', async () => {
  const url = await host(({ headers }) => {
    headers['Cross-Origin-Opener-Policy'] = 'same-origin';
    headers['Cross-Origin-Embedder-Policy'] = 'require-corp';
  });
  assert.match((await findings(url)).ok.join(' '), /the host sends the headers/);
});

test('a model on another host has to allow the page', async () => {
  const origin = 'https://example.org';
  const plain = await host();
  const { fix } = await findings(`${plain}models/demo/manifest.json`, { origin });
  assert.equal(fix.length, 1);
  assert.match(fix[0], /does not let pages of https:\/\/example\.org read manifest\.json/);
  const open = await host(({ headers }) => void (headers['Access-Control-Allow-Origin'] = '*'));
  assert.deepEqual((await findings(`${open}models/demo/manifest.json`, { origin })).fix, []);
  const half = await host((reply) => {
    if (!gguf(reply)) reply.headers['Access-Control-Allow-Origin'] = '*';
  });
  const only = (await findings(`${half}models/demo/manifest.json`, { origin })).fix;
  assert.match(only.join('\n'), /read pocketvl-demo\.gguf/);
});

test('a host that hands its files on is no fault for a page that has chosen it', async () => {
  const open = await host(({ headers }) => void (headers['Access-Control-Allow-Origin'] = '*'));
  const hub = await host((reply) => {
    reply.headers['Access-Control-Allow-Origin'] = '*';
    if (!gguf(reply)) return;
    reply.status = 302;
    reply.headers.Location = `${open}models/demo/pocketvl-demo.gguf`;
  });
  const url = `${hub}models/demo/manifest.json`;
  const { fix, note } = await findings(url, { origin: 'https://example.org' });
  assert.deepEqual(fix, []);
  assert.match(note.join(' '), /is handed on to http:\/\/localhost/);
});

test('publish: parts that hosts take, the same bytes, found sound and loaded; damage is not published', async () => {
  const to = join(work, 'published');
  const manifest = await publish([demo], to, { partSize: 1 << 20, title: 'Mine' });
  assert.equal(manifest.title, 'Mine');
  assert.equal(manifest.files[0].parts?.length, Math.ceil(BYTES / (1 << 20)));
  assert.ok(readdirSync(to).every((name) => statSync(join(to, name)).size <= 1 << 20));
  const parts = (manifest.files[0].parts ?? []).map(({ name }) => readFileSync(join(to, name)));
  assert.ok(Buffer.concat(parts).equals(readFileSync(join(demo, 'pocketvl-demo.gguf'))));
  const url = await host(undefined, to);
  const { fix, ok } = await findings(`${url}manifest.json`);
  assert.deepEqual(fix, []);
  assert.match(ok.join(' '), new RegExp(`pocketvl-demo: 1 file, ${MB}; every byte`));
  const wrong = await host((reply) => {
    if (reply.path.includes('part03')) reply.body = Buffer.alloc(reply.body.length);
  }, to);
  assert.match(
    (await findings(`${wrong}manifest.json`)).fix.join(' '),
    /is not what the manifest describes/,
  );
  // Over the network, and from the folder.
  for (const source of [`${url}manifest.json`, to]) {
    const vl = await PocketVL.load(source, { threads: 1 });
    const ids = await vl.tokenize('Hello').finally(() => vl.dispose());
    assert.ok(ids.length > 0);
    if (source !== to) assert.equal(vl.info.title, 'Mine');
  }
  const damaged = join(work, 'damaged');
  cpSync(demo, damaged, { recursive: true });
  appendFileSync(join(damaged, 'pocketvl-demo.gguf'), 'x');
  await assert.rejects(
    publish([damaged], join(work, 'no')),
    (error) => error instanceof PocketVLError && error.code === 'INTEGRITY',
  );
  assert.ok(!readdirSync(join(work, 'no')).includes('manifest.json'));
  // Without a manifest it makes one.
  const bare = await publish([join(demo, 'pocketvl-demo.gguf')], join(work, 'bare'));
  assert.deepEqual([bare.name, bare.files[0].parts], ['pocketvl-demo', undefined]);
  assert.deepEqual(
    (await findings(`${await host(undefined, join(work, 'bare'))}manifest.json`)).fix,
    [],
  );
});

test('parts of a file have plain names and the right sizes', async () => {
  const manifest = JSON.parse(readFileSync(join(demo, 'manifest.json'), 'utf8'));
  const { bytes } = manifest.files[0];
  for (const [parts, words] of /** @type {[any, RegExp][]} */ ([
    [[], /a wrong list of parts/],
    ['x', /a wrong list of parts/],
    [[{ name: '../x.bin', bytes }], /without a plain name/],
    [[{ name: 'https://example.org/x', bytes }], /without a plain name/],
    [[{ name: '..', bytes }], /without a plain name/],
    [[{ name: 'x.bin', bytes: bytes - 1 }], / make \d+ bytes, not \d+/],
  ])) {
    manifest.files[0].parts = parts;
    writeFileSync(join(work, 'manifest.json'), JSON.stringify(manifest));
    await assert.rejects(
      PocketVL.load(work),
      (error) =>
        error instanceof PocketVLError && error.code === 'FORMAT' && words.test(error.message),
    );
  }
});

test('what the native command does is handed on, or said to be missing', async () => {
  const missing = { ...process.env, POCKETVL_NATIVE: join(work, 'none') };
  const main = join(root, 'web/lib/node/cli/main.js');
  const said = await new Promise((done) =>
    execFile(
      process.execPath,
      [main, 'convert', 'a', 'b'],
      { env: missing },
      (error, stdout, stderr) => done(stderr),
    ),
  );
  assert.match(said, /convert is part of the native command/);
  const echo = { ...process.env, POCKETVL_NATIVE: '/bin/echo' };
  const passed = await new Promise((done) =>
    execFile(
      process.execPath,
      [main, 'convert', 'a', '--type', 'q4_0'],
      { env: echo },
      (error, stdout) => done(stdout),
    ),
  );
  assert.equal(passed, 'convert a --type q4_0\n');
});
