// The local server: types, ranges, what it refuses, busy ports.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { parseArguments, parseRange, serve } from '../../web/serve.mjs';

/** @type {string} */
let folder;
/** @type {Awaited<ReturnType<typeof serve>>} */
let site;

before(async () => {
  const top = mkdtempSync(join(tmpdir(), 'pocketvl-serve-'));
  folder = join(top, 'site');
  mkdirSync(join(folder, 'lib'), { recursive: true });
  writeFileSync(join(top, 'secret.txt'), 'secret');
  writeFileSync(join(folder, 'index.html'), '<p>page</p>');
  writeFileSync(join(folder, 'lib', 'index.html'), '<p>lib</p>');
  writeFileSync(join(folder, '.hidden'), 'hidden');
  writeFileSync(join(folder, 'a.wasm'), Buffer.from([0, 97, 115, 109]));
  writeFileSync(join(folder, 'm.gguf'), 'GGUF0123456789');
  writeFileSync(join(folder, 'empty.json'), '');
  site = await serve({ folder, port: 0 });
});

after(async () => {
  await site.close();
  rmSync(join(folder, '..'), { recursive: true, force: true });
});

/**
 * One request with the path as it is given: fetch would tidy it.
 * @param {string} path
 * @param {{method?: string, headers?: Record<string, string>, port?: number}} [options]
 * @returns {Promise<{status: number, headers: import('node:http').IncomingHttpHeaders, body: string}>}
 */
const ask = (path, { method = 'GET', headers = {}, port = site.port } = {}) =>
  new Promise((done, fail) => {
    const call = request({ host: '127.0.0.1', port, path, method, headers }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text) => (body += text));
      response.on('end', () =>
        done({ status: response.statusCode || 0, headers: response.headers, body }),
      );
    });
    call.on('error', fail);
    call.end();
  });

test('files come with their types, folders as their index', async () => {
  assert.match((await ask('/')).headers['content-type'] || '', /^text\/html/);
  assert.equal((await ask('/a.wasm')).headers['content-type'], 'application/wasm');
  assert.equal((await ask('/m.gguf?v=1')).headers['content-type'], 'application/octet-stream');
  assert.equal((await ask('/empty.json')).body, '');
  assert.equal((await ask('/lib')).headers.location, '/lib/');
  assert.equal((await ask('/lib/')).body, '<p>lib</p>');
  const head = await ask('/m.gguf', { method: 'HEAD' });
  assert.deepEqual([head.status, head.headers['content-length'], head.body], [200, '14', '']);
});

test('byte ranges', async () => {
  const range = async (/** @type {string} */ text) => {
    const { status, body, headers } = await ask('/m.gguf', { headers: { Range: text } });
    return [status, body, headers['content-range']];
  };
  assert.deepEqual(await range('bytes=4-7'), [206, '0123', 'bytes 4-7/14']);
  assert.deepEqual(await range('bytes=10-'), [206, '6789', 'bytes 10-13/14']);
  assert.deepEqual(await range('bytes=-3'), [206, '789', 'bytes 11-13/14']);
  assert.deepEqual(await range('bytes=12-99'), [206, '89', 'bytes 12-13/14']);
  const beyond = await ask('/m.gguf', { headers: { Range: 'bytes=14-' } });
  assert.deepEqual([beyond.status, beyond.headers['content-range']], [416, 'bytes */14']);
  assert.equal(parseRange('bytes=0-1,4-5', 14), 'all');
  assert.equal(parseRange('bytes=5-4', 14), 'all');
  assert.equal(parseRange('bytes=-0', 14), 'none');
  assert.equal(parseRange('bytes=0-', 0), 'none');
});

test('nothing outside the folder, nothing hidden, no other methods', async () => {
  for (const path of [
    '/../secret.txt',
    '/%2e%2e/secret.txt',
    '/lib/..%2f..%2fsecret.txt',
    '/.hidden',
    '/none',
  ]) {
    const { status, body } = await ask(path);
    assert.equal(status, 404, path);
    assert.ok(!body.includes('secret'), path);
  }
  assert.equal((await ask('/%zz')).status, 400);
  assert.equal((await ask('/', { method: 'POST' })).status, 405);
  const moved = await ask('//lib');
  assert.ok(!(moved.headers.location || '').startsWith('//'));
});

test('unchanged files are not sent again', async () => {
  const { headers } = await ask('/m.gguf');
  const again = await ask('/m.gguf', {
    headers: { 'If-Modified-Since': headers['last-modified'] || '' },
  });
  assert.deepEqual([again.status, again.body], [304, '']);
});

test('isolation headers only when asked for', async () => {
  assert.equal((await ask('/')).headers['cross-origin-opener-policy'], undefined);
  const isolated = await serve({ folder, port: 0, isolate: true });
  const { headers } = await ask('/', { port: isolated.port });
  assert.equal(headers['cross-origin-opener-policy'], 'same-origin');
  assert.equal(headers['cross-origin-embedder-policy'], 'require-corp');
  await isolated.close();
});

test('a busy port gives the next free one', async () => {
  const second = await serve({ folder, port: site.port });
  assert.ok(second.port > site.port);
  assert.equal((await ask('/', { port: second.port })).status, 200);
  await second.close();
});

test('the command line is checked', () => {
  assert.equal(parseArguments(['--port', '9000']).port, 9000);
  assert.equal(parseArguments(['--port=9000', '--isolate']).isolate, true);
  assert.throws(() => parseArguments(['--port', 'x']), /--port wants a number/);
  assert.throws(() => parseArguments(['--port', '70000']), /--port wants a number/);
  assert.throws(() => parseArguments(['--prot', '1']), /Unknown option --prot/);
});
