// Builds what is asked for, each in its own folder under build/, and only what changed.
//
//   node wasm/tools/build.mjs [page | package | site | native | asan | tsan | fuzz | tests | checked | heap | bench]...
//                                                          (default: page package site native)
//
//   page    the two WebAssembly modules in web/wasm, the vendored scripts in web/vendor, the list of files web/precache.js
//   package what the npm package has besides: web/types
//   site    build/site: the page as one folder for any static host
//   native  the command line tool and the benchmarks, for this machine's processor: build/native
//   asan    the C tests under AddressSanitizer and UBSan: build/asan
//   tsan    the C tests under ThreadSanitizer: build/tsan
//   fuzz    the fuzz targets, by Clang: build/fuzz
//   tests   the C tests as WebAssembly, once per module: build/wasm
//   checked the same under Emscripten's AddressSanitizer, fixed SIMD alone: build/checked
//   heap    the same with every access checked (SAFE_HEAP): build/heap
//   bench   the loops that measure the machine's ceilings in the browser: build/wasm/bench
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { Trouble, isMain, main, newest, root, run, say, step } from './shell.mjs';
import { writePrecache } from './precache.mjs';
import { setup } from './setup.mjs';
import { makeSite } from './site.mjs';
import { makeTypes } from './types.mjs';

/** @typedef {'page' | 'native' | 'asan' | 'tsan' | 'fuzz' | 'tests' | 'checked' | 'heap' | 'bench'} Compiled made by CMake */
/** @typedef {Compiled | 'package' | 'site'} Part */
/** @typedef {import('./setup.mjs').Tools} Tools */

const FOLDERS = {
  page: 'wasm',
  tests: 'wasm',
  bench: 'wasm',
  native: 'native',
  asan: 'asan',
  tsan: 'tsan',
  fuzz: 'fuzz',
  checked: 'checked',
  heap: 'heap',
};

/** Parts that Emscripten compiles. */
const WASM = ['page', 'tests', 'checked', 'heap', 'bench'];
const TARGETS = {
  page: 'modules',
  tests: 'c_tests',
  checked: 'c_tests',
  heap: 'c_tests',
  native: 'programs',
  asan: 'c_tests',
  tsan: 'c_tests',
  fuzz: 'fuzzers',
  bench: 'programs',
};
const NAMES = {
  page: 'the WebAssembly modules',
  tests: 'the C tests as WebAssembly',
  checked: 'the C tests as WebAssembly with the address sanitizer',
  heap: 'the C tests as WebAssembly with every access checked',
  native: 'the command line tool and benchmarks',
  asan: 'the C tests with sanitizers',
  tsan: 'the C tests with the thread sanitizer',
  fuzz: 'the fuzz targets',
  bench: 'the loops behind the ceilings',
};

/** The folder of a part's build. */
export const buildFolder = (/** @type {Compiled} */ part) => join(root, 'build', FOLDERS[part]);

/** What a build folder was configured with, so that another compiler starts it afresh. */
function options(/** @type {Compiled} */ part, /** @type {Tools} */ tools) {
  const common = ['-G', 'Ninja'];
  if (tools.include) common.push(`-DPVL_INCLUDE=${tools.include}`);
  if (part === 'native') return [...common, '-DPVL_NATIVE=ON', '-DPVL_TESTS=OFF'];
  if (part === 'asan') {
    return [...common, '-DPVL_SANITIZE=ON', '-DPVL_BENCH=OFF', '-DCMAKE_BUILD_TYPE=RelWithDebInfo'];
  }
  if (part === 'tsan') {
    return [...common, '-DPVL_TSAN=ON', '-DPVL_BENCH=OFF', '-DCMAKE_BUILD_TYPE=RelWithDebInfo'];
  }
  if (part === 'checked' || part === 'heap') {
    const how = part === 'heap' ? '-DPVL_SAFE_HEAP=ON' : '-DPVL_SANITIZE=ON';
    return [...common, how, '-DPVL_BENCH=OFF', '-DPVL_MODULES=OFF'];
  }
  if (part === 'fuzz') {
    const clang = [`-DCMAKE_C_COMPILER=${tools.clang}`, '-DPVL_FUZZ=ON', '-DPVL_TESTS=OFF'];
    return [...common, ...clang, '-DPVL_BENCH=OFF', '-DCMAKE_BUILD_TYPE=RelWithDebInfo'];
  }
  return common;
}

async function configure(/** @type {Compiled} */ part, /** @type {Tools} */ tools) {
  const folder = buildFolder(part);
  const wasm = WASM.includes(part);
  const args = ['-S', root, '-B', folder, ...options(part, tools)];
  const command = wasm ? [tools.emcmake, tools.cmake, ...args] : [tools.cmake, ...args];
  const stamp = join(folder, 'pocketvl-configured');
  const key = command.join(' ');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === key) return;
  rmSync(folder, { recursive: true, force: true });
  await run(command[0], command.slice(1), { what: 'Configuring the build (CMake)' });
  writeFileSync(stamp, key);
}

/** Scripts of other people that the page loads: copied from their packages, no bundler needed. */
export function vendor() {
  const folder = join(root, 'web', 'vendor');
  mkdirSync(folder, { recursive: true });
  const from = join(root, 'node_modules', 'idb');
  const to = join(folder, 'idb.js');
  if (newest([to]) < newest([join(from, 'build', 'index.js')])) {
    copyFileSync(join(from, 'build', 'index.js'), to);
    copyFileSync(join(from, 'LICENSE'), join(folder, 'idb.LICENSE'));
    for (const name of readdirSync(join(from, 'build')).filter((file) => file.endsWith('.d.ts'))) {
      copyFileSync(
        join(from, 'build', name),
        join(folder, name === 'index.d.ts' ? 'idb.d.ts' : name),
      );
    }
  }
}

/**
 * Builds the parts.
 * @param {Part[]} parts
 * @param {Tools} tools from `setup`
 */
export async function build(parts, tools) {
  for (const part of parts) {
    if (part === 'package' || part === 'site') {
      vendor();
      if (part === 'site') makeSite();
      else await step('Making the types of the package', makeTypes);
      continue;
    }
    if (part === 'page') vendor();
    await step(`Building ${NAMES[part]}`, async () => {
      await configure(part, tools);
      const jobs = String(availableParallelism());
      const args = ['--build', buildFolder(part), '--target', TARGETS[part], '-j', jobs];
      await run(tools.cmake, args, { what: `Building ${NAMES[part]}` });
    });
    if (part === 'page' && !existsSync(join(root, 'web', 'wasm', 'pocketvl-simd.wasm'))) {
      throw new Trouble(
        'The build made no web/wasm/pocketvl-simd.wasm: is wasm/exports.txt there?',
      );
    }
    if (part === 'page') writePrecache(join(root, 'web'));
  }
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const named = /** @type {Part[]} */ (process.argv.slice(2));
    for (const part of named) {
      if (!(part in FOLDERS) && part !== 'package' && part !== 'site') {
        const known = 'page, package, site, native, asan, tsan, fuzz, tests, checked, heap, bench';
        throw new Trouble(`There is no part "${part}": ${known}.`);
      }
    }
    /** @type {Part[]} */
    const parts = named.length ? named : ['page', 'package', 'site', 'native'];
    const NATIVE = ['native', 'asan', 'tsan', 'fuzz'];
    const native = parts.some((part) => NATIVE.includes(part));
    const wasm = parts.some((part) => !NATIVE.includes(part));
    /** @type {import('./setup.mjs').Purpose[]} */
    const purposes = [];
    if (wasm) purposes.push('page');
    if (native) purposes.push('native');
    if (parts.includes('fuzz')) purposes.push('fuzz');
    await build(parts, await setup(purposes));
    if (parts.includes('site')) say('[pocketvl] build/site is the folder for a static host.');
    say('[pocketvl] Next: npm start, or npm test.');
  });
}
