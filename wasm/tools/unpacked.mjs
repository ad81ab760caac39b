// Debian packages that were unpacked under the user's cache folder because nobody may install them: the scripts that start
// their programs, and what their installation would have generated.
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { architecture } from './apt.mjs';
import { cache, cacheBin, capture } from './shell.mjs';

/** Their folder. */
export const unpacked = join(cache, 'packages');

const usr = join(unpacked, 'usr');

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
export function linkUnpacked() {
  const { triple } = architecture();
  mkdirSync(cacheBin, { recursive: true });
  const libraries = [join(usr, 'lib', triple), join(unpacked, 'lib', triple)].flatMap(withFolders);
  const script = (/** @type {string} */ name, /** @type {string} */ command, extra = '') =>
    write(
      name,
      `export LD_LIBRARY_PATH='${libraries.join(':')}'"\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"\n${extra}exec ${command} "$@"`,
    );
  for (const name of ['cmake', 'ninja', 'cppcheck']) {
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
  linkMerged(triple, script);
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

/** @param {string} name @param {string} text */
function write(name, text) {
  const file = join(cacheBin, name);
  rmSync(file, { force: true });
  writeFileSync(file, `#!/bin/sh\n${text}\n`);
  chmodSync(file, 0o755);
  return file;
}

/**
 * WebKitGTK and Xvfb look for their parts in /usr and nowhere else. They run in a name space of their own, where what was
 * unpacked lies over the system's folders; that takes no rights, where the kernel lets users make name spaces.
 * @param {string} triple
 * @param {(name: string, command: string) => void} script
 */
function linkMerged(triple, script) {
  if (!existsSync(join(usr, 'bin/WebKitWebDriver')) && !existsSync(join(usr, 'lib/firefox-esr')))
    return;
  const layers = ['usr', 'etc'].filter((name) => existsSync(join(unpacked, name)));
  const mounts = layers.map(
    (name) => `mount -t overlay overlay -o "lowerdir=${unpacked}/${name}:/${name}" /${name} && `,
  );
  const merged = write(
    'pocketvl-merged',
    `exec unshare --user --map-root-user --mount sh -c '${mounts.join('')}exec "$@"' sh "$@"`,
  );
  const inside = (/** @type {string} */ command) => capture(merged, ['sh', '-c', command]).status;
  if (inside('true') !== 0) return;
  // What the packages' own scripts would have made.
  const pixbuf = `usr/lib/${triple}/gdk-pixbuf-2.0`;
  const schemas = 'usr/share/glib-2.0/schemas';
  if (existsSync(join(unpacked, schemas))) {
    const compile = 'PATH="$PATH:/usr/lib/$(uname -m)-linux-gnu/glib-2.0"; glib-compile-schemas';
    inside(`${compile} --targetdir='${unpacked}/${schemas}' /${schemas}`);
  }
  if (existsSync(join(unpacked, pixbuf, '2.10.0')))
    inside(`/${pixbuf}/gdk-pixbuf-query-loaders > '${unpacked}/${pixbuf}/2.10.0/loaders.cache'`);
  if (existsSync(join(usr, 'share/mime'))) inside(`update-mime-database '${usr}/share/mime'`);
  for (const name of ['Xvfb', 'WebKitWebDriver', 'firefox-esr']) {
    if (existsSync(join(usr, 'bin', name))) script(name, `'${merged}' /usr/bin/${name}`);
  }
  // Started by the driver, inside.
  const browser = `/usr/lib/${triple}/webkit2gtk-4.1/MiniBrowser`;
  if (existsSync(join(unpacked, browser))) script('MiniBrowser', browser);
}
