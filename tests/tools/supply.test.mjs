// What is shipped and what is installed: licences, pinned versions, no scripts at installation, modules that can be made again.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { licences, listFile } from '../../wasm/tools/licences.mjs';
import { reproduce } from '../../wasm/tools/reproduce.mjs';
import { setup } from '../../wasm/tools/setup.mjs';
import { root } from '../../wasm/tools/shell.mjs';

const json = (/** @type {string} */ name) => JSON.parse(readFileSync(join(root, name), 'utf8'));

test('the list of licences is what this build ships', () => {
  const text = licences();
  for (const name of [
    'idb',
    'stb_image',
    'Unicode',
    'musl',
    'dlmalloc',
    'compiler-rt',
    'Emscripten',
  ]) {
    assert.match(text, new RegExp(`^${name}|^LLVM ${name}`, 'm'));
  }
  assert.equal(
    readFileSync(listFile, 'utf8'),
    text,
    'npm run licences makes web/licences.txt anew',
  );
});

test('packages have exact versions and hashes, and the package itself needs none', () => {
  const { dependencies = {}, devDependencies } = json('package.json');
  assert.deepEqual(dependencies, {});
  for (const [name, version] of Object.entries(devDependencies))
    assert.match(version, /^\d+\.\d+\.\d+$/, name);
  const { packages } = json('package-lock.json');
  for (const [path, entry] of Object.entries(packages)) {
    if (path !== '') assert.match(entry.integrity ?? '', /^sha512-/, path);
  }
});

test('nothing that a package brings is run when it is installed', () => {
  const said = execFileSync('npm', ['config', 'get', 'ignore-scripts'], {
    cwd: root,
    encoding: 'utf8',
  });
  assert.equal(said.trim(), 'true');
});

test('a clean build in another folder gives the same bytes', async () => {
  const files = await reproduce(['simd'], await setup(['page']));
  assert.equal(files.length, 2);
  for (const { name, here, there } of files) assert.equal(there, here, name);
});
