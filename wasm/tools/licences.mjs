// web/licences.txt: what is shipped (in the page and in the package) that others wrote, with their licences. What that
// is, is read from what was linked and copied: an archive that is in no component below is an error.
//
//   node wasm/tools/licences.mjs [--check]      after a build; --check only compares
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { build, buildFolder } from './build.mjs';
import { setup } from './setup.mjs';
import { Trouble, isMain, main, root, say } from './shell.mjs';

export const listFile = join(root, 'web', 'licences.txt');

const MIT = `Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.`;

/** A part of a text file, from a line that matches to one before another that matches. */
function excerpt(/** @type {string} */ file, /** @type {RegExp} */ from, /** @type {RegExp} */ to) {
  const lines = readFileSync(file, 'utf8').split('\n');
  const start = lines.findIndex((line) => from.test(line));
  const length = lines.slice(start + 1).findIndex((line) => to.test(line));
  if (start < 0 || length < 0) throw new Trouble(`The licence was not found in ${file}.`);
  return lines
    .slice(start, start + 1 + length)
    .join('\n')
    .trim();
}

/** The line of a source file that claims its copyright. */
function claim(/** @type {string} */ file) {
  const line = /Copyright .*/.exec(readFileSync(file, 'utf8'))?.[0];
  if (!line) throw new Trouble(`No copyright was found in ${file}.`);
  return line.trim();
}

/**
 * Somebody's work: where it is, under which licence, and by which linked archives or copied files it is recognised.
 * @typedef {{name: string, where: string, licence: string, linked?: RegExp, copied?: RegExp, text: () => string}} Component
 */

/**
 * @param {string} emscripten its folder
 * @param {string} stb the header in use
 * @returns {Component[]}
 */
function components(emscripten, stb) {
  const idb = JSON.parse(readFileSync(join(root, 'node_modules/idb/package.json'), 'utf8'));
  const lib = join(emscripten, 'system', 'lib');
  return [
    {
      name: `idb ${idb.version}`,
      where: 'vendor/idb.js, unchanged: IndexedDB with promises',
      licence: 'ISC',
      copied: /^(idb|entry|util|wrap-idb-value|async-iterators|database-extras)\./,
      text: () => readFileSync(join(root, 'node_modules/idb/LICENSE'), 'utf8'),
    },
    {
      name: 'stb_image',
      where: 'in the wasm modules: decoding of pictures that the browser refuses',
      licence: 'MIT or public domain',
      linked: /^stb_decode\.c\.o(bj)?$/,
      text: () =>
        excerpt(stb, /^ALTERNATIVE A - MIT License/, /^ALTERNATIVE B/).replace(/\n-+$/, ''),
    },
    {
      name: 'Unicode character data',
      where: 'in the wasm modules: tables of letters, numbers and compositions',
      licence: 'Unicode data files and software',
      linked: /^unicode_tables\.c\.o(bj)?$/,
      text: () =>
        excerpt(
          join(root, 'node_modules/typescript/ThirdPartyNoticeText.txt'), // which carries it, too
          /^Copyright \(c\) 1991-\d+ Unicode/,
          /^-{20}/,
        ),
    },
    {
      name: 'musl',
      where: 'in the wasm modules: the C library',
      licence: 'MIT',
      linked: /^lib(c|m|pthread)(-\w+)*\.a$/,
      text: () => excerpt(join(lib, 'libc/musl/COPYRIGHT'), /^Copyright ©/, /^-{20}/),
    },
    {
      name: 'dlmalloc',
      where: 'in the wasm modules: memory',
      licence: 'public domain (CC0 1.0)',
      linked: /^libdlmalloc[-\w]*\.a$/,
      text: () => excerpt(join(lib, 'dlmalloc.c'), /This is a version \(aka dlmalloc\)/, /^\s*$/),
    },
    {
      name: 'LLVM compiler-rt',
      where: 'in the wasm modules: arithmetic that WebAssembly lacks',
      licence: 'Apache-2.0 WITH LLVM-exception',
      linked: /^libcompiler_rt[-\w]*\.a$/,
      text: () =>
        'Part of the LLVM Project, under the Apache License v2.0 (the text in LICENSE) with LLVM Exceptions: as an ' +
        'exception, if,\nas a result of your compiling your source code, portions of this Software are embedded into an ' +
        'Object form of such source\ncode, you may redistribute such embedded portions in such Object form without ' +
        'complying with the conditions of Sections\n4(a), 4(b) and 4(d) of the License.',
    },
    {
      name: 'Emscripten',
      where: 'wasm/*.js and in the wasm modules: the glue between JavaScript and C, threads',
      licence: 'MIT',
      linked: /^(crt\w*[-\w]*\.o|lib(stubs|bulkmemory|noexit)[-\w]*\.a)$/,
      text: () => `${claim(join(emscripten, 'src/preamble.js'))}\n\n${MIT}`,
    },
  ];
}

/** Archives, and objects of ours, whose code or data a linker's map shows in the module. */
function linkedBy(/** @type {string} */ map) {
  const found = new Set();
  for (const [, path, member] of readFileSync(map, 'utf8').matchAll(
    /^\s*(?:[-0-9a-f]+\s+){3}(\S+?)(?:\((\S+?)\))?:\(/gm,
  )) {
    if (path === '<internal>') continue; // made by the linker itself
    const archive = basename(path);
    found.add(/^libpocketvl|^pocketvl/.test(archive) && member ? member : archive);
  }
  return found;
}

/** The list as text; Trouble where something is in no component. */
export function licences() {
  const folder = buildFolder('page');
  const cached = readFileSync(join(folder, 'CMakeCache.txt'), 'utf8');
  const toolchain = /^CMAKE_TOOLCHAIN_FILE:\w+=(.*)$/m.exec(cached)?.[1] ?? '';
  const list = components(
    resolve(toolchain, '../../../..'),
    join(folder, 'include', 'stb', 'stb_image.h'),
  );
  const maps = readdirSync(folder).filter((name) => /^pocketvl-\w+\.map$/.test(name));
  if (maps.length !== 2) throw new Trouble('The modules are not built: npm run build.');
  const linked = new Set(maps.flatMap((name) => [...linkedBy(join(folder, name))]));
  const used = new Set();
  for (const name of linked) {
    const of = list.find((component) => component.linked?.test(name));
    if (of) used.add(of);
    // Our own objects: the sources of src/ and wasm/.
    else if (!/\.c\.o(bj)?$/.test(name)) {
      throw new Trouble(
        `${name} is linked into the modules and its licence is not in wasm/tools/licences.mjs.`,
      );
    }
  }
  for (const name of readdirSync(join(root, 'web/vendor'))) {
    const of = list.find((component) => component.copied?.test(name));
    if (!of)
      throw new Trouble(
        `web/vendor/${name} is shipped and its licence is not in wasm/tools/licences.mjs.`,
      );
    used.add(of);
  }
  const idle = list.filter((component) => !used.has(component));
  if (idle.length)
    throw new Trouble(`Not shipped any more: ${idle.map(({ name }) => name).join(', ')}.`);
  const line = '='.repeat(100);
  const head =
    'PocketVL is under the Apache License 2.0 (LICENSE), its demonstration model and sample pictures too. It ships this\n' +
    'work of others. Made by `npm run licences`.\n';
  return `${head}\n${list
    .map(
      ({ name, where, licence, text }) =>
        `${line}\n${name}: ${licence}\n${where}\n\n${text().trim()}\n`,
    )
    .join('\n')}`;
}

if (isMain(import.meta.url)) {
  await main(async () => {
    await build(['page'], await setup(['page']));
    const text = licences();
    if (process.argv.includes('--check')) {
      if (!existsSync(listFile) || readFileSync(listFile, 'utf8') !== text) {
        throw new Trouble(
          'web/licences.txt is not what this build ships: npm run licences makes it anew.',
        );
      }
      return say('web/licences.txt lists what this build ships.');
    }
    writeFileSync(listFile, text);
    say('[pocketvl] web/licences.txt is made.');
  });
}
