// Brings what building and testing need, where it is not there yet: npm packages, a C compiler, CMake,
// header libraries, Emscripten, Chromium. Says what it does, changes no apt sources, and does
// nothing, offline, in well under a second when all is there.
//
//   node wasm/tools/setup.mjs [page | native | fuzz | test]...     (default: test, which is everything)
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { architecture, hasApt, installPackages, mayInstall, unpackPackages } from './apt.mjs';
import { findEmscripten } from './emscripten.mjs';
import {
  Trouble,
  cache,
  cacheBin,
  capture,
  isMain,
  main,
  root,
  run,
  say,
  step,
  which,
} from './shell.mjs';

/** @typedef {'page' | 'native' | 'fuzz' | 'test'} Purpose */

/**
 * @typedef {object} Tools what setup found
 * @property {string} emcc
 * @property {string} emcmake
 * @property {string} cmake
 * @property {string} clang a compiler with libFuzzer
 * @property {string} include a folder with headers that the system lacks, or ''
 * @property {string} chromium
 */

/** Folder of the packages that were unpacked for the user because nobody may install them. */
const unpacked = join(cache, 'packages');

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
 * What comes as a Debian package: the package's names, whether it is there, who needs it.
 * @type {{packages: string[], there: () => boolean, needs: Purpose[], what: string}[]}
 */
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
    there: () => Boolean(findChromium()),
    needs: ['test'],
  },
];

/** The browser for the tests: $CHROMIUM, or the first of the usual names. */
function findChromium() {
  const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];
  return process.env.CHROMIUM || names.map(which).find(Boolean) || '';
}

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

/** A folder of libraries and those of its folders which hold libraries too (PulseAudio's, for one). */
function withFolders(/** @type {string} */ folder) {
  if (!existsSync(folder)) return [];
  const holds = (/** @type {string} */ path) =>
    readdirSync(path).some((name) => /^lib.*\.so(\.|$)/.test(name));
  const inner = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => join(folder, entry.name));
  return [folder, ...inner.filter(holds)];
}

/** Programs unpacked for the user find their libraries and headers through these scripts. */
function linkUnpacked() {
  const { triple } = architecture();
  mkdirSync(cacheBin, { recursive: true });
  const usr = join(unpacked, 'usr');
  const libraries = [join(usr, 'lib', triple), join(unpacked, 'lib', triple)].flatMap(withFolders);
  const script = (/** @type {string} */ name, /** @type {string} */ command, extra = '') => {
    const file = join(cacheBin, name);
    rmSync(file, { force: true });
    writeFileSync(
      file,
      `#!/bin/sh\nexport LD_LIBRARY_PATH='${libraries.join(':')}'"\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"\n` +
        `${extra}exec ${command} "$@"\n`,
    );
    chmodSync(file, 0o755);
  };
  for (const name of ['cmake', 'ninja']) {
    if (existsSync(join(usr, 'bin', name))) script(name, `'${usr}/bin/${name}'`);
  }
  const browser = join(usr, 'lib/chromium/chromium');
  if (existsSync(browser)) {
    const fontList = join(unpacked, 'fonts.conf');
    const dirs = [join(usr, 'share/fonts'), '/usr/share/fonts'].map((dir) => `<dir>${dir}</dir>`);
    const cached = `<cachedir>${join(unpacked, 'fonts-cache')}</cachedir>`;
    writeFileSync(
      fontList,
      `<?xml version="1.0"?>\n<fontconfig>${dirs.join('')}${cached}</fontconfig>\n`,
    );
    const fonts = existsSync('/etc/fonts/fonts.conf')
      ? ''
      : `export FONTCONFIG_FILE='${fontList}'\n`;
    script('chromium', `'${browser}' --no-sandbox`, fonts);
  }
  const flags = [
    `-B '${usr}/bin'`,
    `-B '${usr}/lib/${triple}'`,
    `-idirafter '${usr}/include'`,
    `-idirafter '${usr}/include/${triple}'`,
    `-L '${usr}/lib/${triple}'`,
    `-Wl,-rpath,'${usr}/lib/${triple}'`,
  ];
  const clang = join(usr, 'bin/clang');
  if (existsSync(clang)) {
    script(
      'clang',
      `'${clang}' --gcc-toolchain='${usr}' -Wno-unused-command-line-argument ${flags.join(' ')}`,
    );
  }
  const gcc = existsSync(join(usr, 'bin'))
    ? readdirSync(join(usr, 'bin')).find((name) => /^([\w]+-linux-gnu-)?gcc-\d+$/.test(name))
    : '';
  if (gcc) {
    // The linker's text files name the system's folders; the parts that are only here get their new place.
    for (const name of ['libc.so', 'libm.so', 'libm.a']) {
      const file = join(usr, 'lib', triple, name);
      if (!existsSync(file) || lstatSync(file).isSymbolicLink()) continue;
      const text = readFileSync(file, 'latin1');
      if (!text.startsWith('/*')) continue;
      const moved = text.replace(/\/(?:usr\/)?lib\/[\w-]+-linux-gnu\/[\w.-]+/g, (path) =>
        existsSync(path) ? path : join(usr, 'lib', triple, basename(path)),
      );
      writeFileSync(file, moved, 'latin1');
    }
    script('cc', `'${usr}/bin/${gcc}' ${flags.join(' ')}`);
    for (const name of ['ar', 'ranlib', 'as', 'ld', 'nm', 'strip', 'objcopy', 'objdump']) {
      const tool = [`${triple}-${name}`, name].find((file) => existsSync(join(usr, 'bin', file)));
      if (tool) script(name, `'${usr}/bin/${tool}'`);
    }
  }
}

/**
 * System packages: installed where we may, else unpacked under the user's cache folder.
 * @param {Purpose[]} purposes
 */
async function systemPackages(purposes) {
  const lacking = () =>
    SYSTEM.filter((item) => item.needs.some((need) => purposes.includes(need)) && !item.there());
  let missing = lacking();
  if (missing.length === 0) return;
  const names = missing.flatMap((item) => item.packages);
  const remedy = `ask for it to be installed: apt-get install ${names.join(' ')}`;
  if (!hasApt()) {
    const what = missing.map((item) => item.what).join(', ');
    throw new Trouble(
      `Not found on this machine: ${what}; please install it by hand and try again.`,
    );
  }
  if (mayInstall()) {
    const chromium = names.includes('chromium') ? ', up to two minutes' : '';
    try {
      await step(`Installing ${names.join(', ')}${chromium}`, () => installPackages(names));
    } catch (error) {
      if (!(error instanceof Trouble)) throw error;
      say(`[pocketvl]   apt-get could not install them (${error.message})`);
    }
    missing = lacking();
    if (missing.length === 0) return;
  }
  // Without rights over the system: everything lacking for any purpose, so that it is done once.
  const wanted = SYSTEM.filter((item) => item.there() === false || existsSync(unpacked));
  const all = [...new Set([...wanted, ...missing].flatMap((item) => item.packages))];
  try {
    rmSync(unpacked, { recursive: true, force: true });
    await step(`No right to install packages: unpacking ${all.join(', ')} in ${unpacked}`, () =>
      unpackPackages(unpacked, all, { exclude: ['./usr/share/doc', './usr/share/man'] }),
    );
    linkUnpacked();
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    throw new Trouble(`${names.join(', ')} could not be brought (${error.message}): ${remedy}.`);
  }
  missing = lacking();
  if (missing.length > 0) {
    throw new Trouble(`${missing.map((item) => item.what).join(', ')} is missing: ${remedy}.`);
  }
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
    chromium: findChromium(),
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
