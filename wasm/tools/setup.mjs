// Brings what building and testing need, where it is not there yet: npm packages, a C compiler, CMake,
// header libraries, Emscripten, browsers. Says what it does, changes no apt sources, and does
// nothing, offline, in well under a second when all is there.
//
//   node wasm/tools/setup.mjs [page | native | fuzz | analyse | test]...     (default: test, which is everything)
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasApt, installPackages, mayInstall, unpackPackages } from './apt.mjs';
import { chromiumPath, firefoxPath, miniBrowserPath } from './browsers.mjs';
import { findEmscripten } from './emscripten.mjs';
import { Trouble, cache, capture, isMain, main, root, run, say, step, which } from './shell.mjs';
import { linkUnpacked, unpacked } from './unpacked.mjs';

/** @typedef {'page' | 'native' | 'fuzz' | 'analyse' | 'test'} Purpose */

/**
 * @typedef {object} Tools what setup found
 * @property {string} emcc
 * @property {string} emcmake
 * @property {string} cmake
 * @property {string} clang a compiler with libFuzzer
 * @property {string} include a folder with headers that the system lacks, or ''
 * @property {string} chromium
 */

const header = (/** @type {string} */ name) =>
  ['/usr/include', '/usr/local/include', join(unpacked, 'usr/include')].some((folder) =>
    existsSync(join(folder, name)),
  );

const cHeader = () => {
  const compiler = which('cc') || which('gcc') || which('clang');
  if (!compiler) return false;
  const triple = capture(compiler, ['-print-multiarch']).stdout.trim();
  return header('stdio.h') || existsSync(join('/usr/include', triple, 'stdio.h'));
};

/** libFuzzer comes with Clang's runtime libraries, which are a package of their own. */
const hasFuzzer = () => {
  const clang = which('clang');
  if (!clang) return false;
  const folder = join(capture(clang, ['-print-resource-dir']).stdout.trim(), 'lib', 'linux');
  return existsSync(folder) && readdirSync(folder).some((name) => /clang_rt\.fuzzer/.test(name));
};

/**
 * What comes as a Debian package: the package's names, whether it is there, who needs it. Without what is `apart` the
 * rest of the tests can run: its own tests fail, by name.
 * @typedef {{packages: string[], there: () => boolean, needs: Purpose[], what: string, apart?: boolean}} Item
 */

/** @type {Item[]} */
const SYSTEM = [
  {
    what: 'a C compiler',
    packages: ['gcc', 'libc6-dev'],
    there: cHeader,
    needs: ['native', 'test'],
  },
  {
    what: 'Clang and its sanitizers',
    packages: ['clang', 'libclang-rt-dev'],
    there: hasFuzzer,
    needs: ['fuzz', 'test'],
  },
  {
    what: 'cppcheck',
    packages: ['cppcheck'],
    there: () => Boolean(which('cppcheck')),
    needs: ['analyse', 'test'],
  },
  {
    what: 'CMake',
    packages: ['cmake'],
    there: () => Boolean(which('cmake')),
    needs: ['page', 'native', 'fuzz', 'test'],
  },
  {
    what: 'Ninja',
    packages: ['ninja-build'],
    there: () => Boolean(which('ninja')),
    needs: ['page', 'native', 'fuzz', 'test'],
  },
  {
    what: 'stb_image',
    packages: ['libstb-dev'],
    there: () => header('stb/stb_image.h'),
    needs: ['page', 'native', 'fuzz', 'test'],
  },
  {
    what: 'SIMDe',
    packages: ['libsimde-dev'],
    there: () => header('simde/wasm/simd128.h'),
    needs: ['native', 'fuzz', 'test'],
  },
  {
    what: 'cJSON',
    packages: ['libcjson-dev'],
    there: () => header('cjson/cJSON.h'),
    needs: ['native', 'fuzz', 'test'],
  },
  {
    what: 'Chromium',
    packages: ['chromium'],
    there: () => Boolean(chromiumPath()),
    needs: ['test'],
  },
  {
    what: 'Firefox',
    packages: ['firefox-esr'],
    there: () => Boolean(firefoxPath()),
    needs: ['test'],
    apart: true,
  },
  {
    what: 'WebKitGTK',
    packages: ['webkit2gtk-driver', 'xvfb'],
    there: () => Boolean(miniBrowserPath()),
    needs: ['test'],
    apart: true,
  },
];

async function npmPackages() {
  const lock = join(root, 'package-lock.json');
  const stamp = join(root, 'node_modules', '.pocketvl-lock');
  const key = createHash('sha256').update(readFileSync(lock)).digest('hex');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === key) return;
  const npm = process.env.npm_execpath;
  const [command, first] = npm && /\.c?js$/.test(npm) ? [process.execPath, [npm]] : ['npm', []];
  const args = [...first, 'ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  await step('npm packages, about 10 s', () => run(command, args, { what: 'npm ci' }));
  writeFileSync(stamp, key);
}

const packagesOf = (/** @type {Item[]} */ items) => [
  ...new Set(items.flatMap((item) => item.packages)),
];

/** The list of what was unpacked, by name. */
const unpackedList = join(unpacked, 'pocketvl-packages');

/**
 * Brings packages: installed where we may, else unpacked under the user's cache folder, together with what is there already.
 * @param {Item[]} items
 * @returns {Promise<string>} why it did not work, or ''
 */
async function bring(items) {
  let names = packagesOf(items);
  if (mayInstall()) {
    const minutes = names.includes('chromium') ? ', some minutes' : '';
    try {
      await step(`Installing ${names.join(', ')}${minutes}`, () => installPackages(names));
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      say(`[pocketvl]   apt-get could not install them (${error.message})`);
    }
    if (items.every((item) => item.there())) return '';
  }
  try {
    const before = existsSync(unpackedList) ? readFileSync(unpackedList, 'utf8').split('\n') : [];
    names = [...new Set([...before, ...names])].filter(Boolean);
    rmSync(unpacked, { recursive: true, force: true });
    await step(`No right to install packages: unpacking ${names.join(', ')} in ${unpacked}`, () =>
      unpackPackages(unpacked, names, { exclude: ['./usr/share/doc', './usr/share/man'] }),
    );
    writeFileSync(unpackedList, names.join('\n'));
    linkUnpacked();
    return '';
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    return ` (${error.message.replace(/\.$/, '')})`;
  }
}

/**
 * System packages. What is lacking for the tests of one browser alone is said, not thrown.
 * @param {Purpose[]} purposes
 */
async function systemPackages(purposes) {
  const lacking = () =>
    SYSTEM.filter((item) => item.needs.some((need) => purposes.includes(need)) && !item.there());
  let missing = lacking();
  if (missing.length === 0) return;
  if (!hasApt()) return report(missing, ' could not be found on this machine');
  let reason = await bring(missing);
  missing = lacking();
  const vital = missing.filter((item) => !item.apart);
  if (vital.length > 0 && vital.length < missing.length) {
    reason = await bring(vital);
    missing = lacking();
  }
  report(missing, ` could not be brought${reason}`);
}

/**
 * What is still lacking, in one sentence.
 * @param {Item[]} missing
 * @param {string} happened
 */
function report(missing, happened) {
  if (missing.length === 0) return;
  const named = missing.map((item) => item.what).join(', ');
  const sentence = `${named}${happened}: ask for it to be installed: apt-get install ${packagesOf(missing).join(' ')}`;
  if (missing.some((item) => !item.apart)) throw new Trouble(`${sentence}.`);
  say(`[pocketvl] ${sentence}; its tests will fail.`);
}

/** `.cache` in the tree leads to the user's cache folder, for people who look for the programs. */
function linkCache() {
  const link = join(root, '.cache');
  if (cache === link) return;
  try {
    if (!existsSync(link)) symlinkSync(cache, link);
  } catch {
    // a convenience only
  }
}

/**
 * Makes ready what the purposes need and says where it is.
 * @param {Purpose[]} purposes
 * @returns {Promise<Tools>}
 */
export async function setup(purposes) {
  const [major] = process.versions.node.split('.').map(Number);
  if (major < 20) {
    throw new Trouble(`Node.js 20 or newer is needed and this is ${process.versions.node}.`);
  }
  linkCache();
  await npmPackages();
  await systemPackages(purposes);
  const wantsWasm = purposes.some((purpose) => purpose === 'page' || purpose === 'test');
  const emscripten = wantsWasm ? await findEmscripten() : { emcc: '', emcmake: '' };
  const include = existsSync(join(unpacked, 'usr/include')) ? join(unpacked, 'usr/include') : '';
  return {
    emcc: emscripten.emcc,
    emcmake: emscripten.emcmake,
    cmake: which('cmake'),
    clang: which('clang'),
    include,
    chromium: chromiumPath(),
  };
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const start = Date.now();
    const purposes = /** @type {Purpose[]} */ (process.argv.slice(2));
    const tools = await setup(purposes.length ? purposes : ['page', 'native', 'test']);
    for (const [name, file] of Object.entries(tools)) if (file) say(`[pocketvl] ${name}: ${file}`);
    say(`[pocketvl] everything is there (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  });
}
