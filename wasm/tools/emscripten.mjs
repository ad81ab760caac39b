// Emscripten 3.1.58 or newer: the one on PATH where it is new enough, else Debian's own package,
// unpacked under the user's cache folder without touching the system.
//
// Debian 12 carries 3.1.6, which neither runs under Node.js 20 nor knows relaxed SIMD; Debian 13 carries
// 3.1.69. Its programs want a newer C library than Debian 12 has, so each is started
// through the loader that came with it. No root, no container, no mount.
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { architecture, debianMirror, hasApt, unpackPackages } from './apt.mjs';
import { Trouble, cache, cacheBin, capture, step, which } from './shell.mjs';

const OLDEST = [3, 1, 58];
const SUITE = 'trixie';

/** Raised when the recipe below changes, so that an older folder is not taken for the new one. */
const RECIPE = 2;
const PACKAGES = ['emscripten', 'clang-format-19', 'clang-tidy-19', 'libclang-common-19-dev'];

/** Packages that would come along and are not used: Node.js is the one running this script. */
const SATISFIED = [
  ...['nodejs', 'ccache', 'perl', 'binutils', 'llvm-19-runtime', 'dpkg', 'tar'],
  ...[
    'libobjc-14-dev',
    'libstdc++-14-dev',
    'libgcc-14-dev',
    'libc6-dev',
    'libc-dev',
    'libclang-cpp1-19',
  ],
];
const EXCLUDE = [
  ...['./usr/share/doc', './usr/share/man', './usr/share/locale', './usr/share/lintian'],
  ...['./usr/share/emscripten/test', './usr/share/emscripten/tests', './usr/share/emscripten/docs'],
  ...['*/wasm32-emscripten/lto', '*/wasm32-emscripten/lto-pic', '*/wasm32-emscripten/pic'],
];

/** Version numbers of `emcc --version`, or null where it does not run. */
function version(/** @type {string} */ emcc) {
  const memo = join(cache, 'emcc-version.json');
  const key = `${emcc} ${statSync(emcc).mtimeMs}`;
  try {
    const known = JSON.parse(readFileSync(memo, 'utf8'));
    if (known.key === key) return /** @type {number[]} */ (known.version);
  } catch {
    // not asked before
  }
  const { status, stdout } = capture(emcc, ['--version']);
  const match = /(\d+)\.(\d+)\.(\d+)/.exec(stdout.split('\n')[0]);
  if (status !== 0 || !match) return null;
  const found = match.slice(1, 4).map(Number);
  writeFileSync(memo, JSON.stringify({ key, version: found }));
  return found;
}

/** Is a at least b? */
function atLeast(/** @type {number[]} */ a, /** @type {number[]} */ b) {
  for (let i = 0; i < b.length; i++) if (a[i] !== b[i]) return a[i] > b[i];
  return true;
}

/** Programs of the unpacked root, each started through its own loader. */
function finish(/** @type {string} */ folder, /** @type {string} */ target) {
  const { triple, loader } = architecture();
  const libraries = `${target}/usr/lib/${triple}`;
  const llvm = `${target}/usr/lib/llvm-19`;
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  const script = (/** @type {string} */ file, /** @type {string} */ text) => {
    rmSync(file, { force: true });
    writeFileSync(file, `#!/bin/sh\n${text}\n`);
    chmodSync(file, 0o755);
  };
  const wrap = (/** @type {string} */ name, /** @type {string} */ program, extra = '') =>
    script(
      join(bin, name),
      `exec '${libraries}/${loader}' --argv0 "$0" --library-path '${libraries}' '${program}' ${extra} "$@"`,
    );
  const resources = `-resource-dir '${llvm}/lib/clang/19'`;
  wrap('clang', `${llvm}/bin/clang`, resources);
  wrap('clang++', `${llvm}/bin/clang++`, resources);
  wrap('wasm-ld', `${llvm}/bin/lld`);
  for (const name of readdirSync(join(folder, 'usr/lib/llvm-19/bin'))) {
    if (/^llvm-(ar|ranlib|nm|objcopy|strip|objdump|dwarfdump|dwp|size|readobj)$/.test(name)) {
      wrap(name, `${llvm}/bin/${name}`);
    }
    if (/^clang-(format|tidy)$/.test(name)) wrap(name, `${llvm}/bin/${name}`);
  }
  for (const name of readdirSync(join(folder, 'usr/bin'))) {
    if (/^wasm-(?!ld)|^wasm2js$/.test(name)) wrap(name, `${target}/usr/bin/${name}`);
  }
  const python = readdirSync(join(folder, 'usr/bin')).find((name) => /^python3\.\d+$/.test(name));
  wrap('python3', `${target}/usr/bin/${python}`);
  symlinkSync('usr/lib', join(folder, 'lib')); // Python looks for its library at ../lib from its program

  const emscripten = join(folder, 'usr/share/emscripten');
  const config = [
    `LLVM_ROOT = '${target}/bin'`,
    `BINARYEN_ROOT = '${target}'`,
    `NODE_JS = '${process.execPath}'`,
    'FROZEN_CACHE = True',
    "CLOSURE_COMPILER = ''",
  ];
  rmSync(join(emscripten, '.emscripten'), { force: true });
  writeFileSync(join(emscripten, '.emscripten'), `${config.join('\n')}\n`);
  const scripts = readdirSync(emscripten).filter((name) =>
    existsSync(join(emscripten, `${name}.py`)),
  );
  for (const name of scripts) {
    const home = `${target}/usr/share/emscripten`;
    const run = `EMSDK_PYTHON='${target}/bin/python3' exec '${target}/bin/python3' '${home}/${name}.py' "$@"`;
    script(join(emscripten, name), run);
    script(join(bin, name), run);
  }
  // Debian's Node.js finds this package in a system folder; the machine's own one may not.
  mkdirSync(join(emscripten, 'node_modules'), { recursive: true });
  if (!existsSync(join(emscripten, 'node_modules/acorn'))) {
    symlinkSync('../../nodejs/acorn', join(emscripten, 'node_modules/acorn'));
  }
}

/** The folder of the unpacked package. */
const home = join(cache, `emscripten-r${RECIPE}`);

/**
 * Finds Emscripten, or brings it.
 * @returns {Promise<{emcc: string, emcmake: string, version: string}>}
 */
export async function findEmscripten() {
  for (const emcc of [which('emcc'), join(home, 'bin/emcc')]) {
    if (!emcc || dirname(emcc) === cacheBin || !existsSync(emcc)) continue;
    const found = version(emcc);
    if (found && atLeast(found, OLDEST)) {
      return { emcc, emcmake: join(dirname(emcc), 'emcmake'), version: found.join('.') };
    }
  }
  const remedy =
    'install the Emscripten SDK (emsdk) 3.1.58 or newer and put its emcc on PATH, then try again';
  if (!hasApt() || !debianMirror()) {
    throw new Trouble(`Emscripten 3.1.58 or newer was not found on PATH: ${remedy}.`);
  }
  try {
    await step(
      'Emscripten: downloading 350 MB of Debian packages and unpacking 1 GB, about a minute',
      () =>
        unpackPackages(home, PACKAGES, {
          suite: SUITE,
          satisfied: SATISFIED,
          exclude: EXCLUDE,
          finish,
        }),
    );
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Trouble(`Emscripten could not be set up (${reason}): ${remedy}.`);
  }
  const emcc = join(home, 'bin/emcc');
  const found = version(emcc);
  if (!found || !atLeast(found, OLDEST)) {
    throw new Trouble(`The Emscripten unpacked in ${home} does not run: ${remedy}.`);
  }
  linkPrograms();
  return { emcc, emcmake: join(home, 'bin/emcmake'), version: found.join('.') };
}

/** Makes the unpacked programs reachable by name after everything else on PATH. */
function linkPrograms() {
  mkdirSync(cacheBin, { recursive: true });
  for (const name of ['emcc', 'em++', 'emar', 'emcmake', 'wasm-opt', 'wasm-dis', 'clang-format']) {
    rmSync(join(cacheBin, name), { force: true });
    if (existsSync(join(home, 'bin', name)))
      symlinkSync(join(home, 'bin', name), join(cacheBin, name));
  }
}

/** clang-format of the same version everywhere, since versions differ in taste; '' where it is not there. */
export function clangTool(/** @type {'clang-format' | 'clang-tidy'} */ name) {
  const own = join(home, 'bin', name);
  if (existsSync(own)) return own;
  for (const candidate of [`${name}-19`, name]) {
    const file = which(candidate);
    if (file && / version 19\./.test(capture(file, ['--version']).stdout)) return file;
  }
  return '';
}

/** What to do where it is not there: it comes with our Emscripten, not with one that was on PATH. */
export const noClangTool = (/** @type {'clang-format' | 'clang-tidy'} */ name) =>
  `${name} 19 was not found (other versions judge otherwise): ask for it to be installed: apt-get install ${name}-19.`;
