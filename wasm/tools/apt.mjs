// Debian packages, in two ways:
//
// - `installPackages` asks the system's apt-get, where we are root or sudo asks no password;
// - `unpackPackages` needs no rights at all: apt downloads with a configuration of our own (own
//   lists, own cache, the machine's own mirror and keys), dpkg-deb unpacks into a folder of the
//   user. No maintainer script runs and the system's apt sources, lists and packages stay as they are.
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { Trouble, cache, capture, run, which } from './shell.mjs';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Is this a machine with apt and dpkg at all? */
export const hasApt = () => Boolean(which('apt-get') && which('dpkg-deb'));

/** Debian's name for this machine's architecture, and the folder name of its libraries. */
export function architecture() {
  const names = { x64: 'amd64', arm64: 'arm64' };
  const triples = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' };
  const loaders = { x64: 'ld-linux-x86-64.so.2', arm64: 'ld-linux-aarch64.so.1' };
  const arch = /** @type {keyof typeof names} */ (process.arch);
  if (!names[arch]) throw new Trouble(`No packages are known for the processor ${arch}.`);
  return { debian: names[arch], triple: triples[arch], loader: loaders[arch] };
}

/** What /etc/os-release says, as an object. */
function osRelease() {
  const text = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : '';
  return Object.fromEntries(
    [...text.matchAll(/^(\w+)="?(.*?)"?$/gm)].map((match) => [match[1], match[2]]),
  );
}

/**
 * The mirror that the machine's own apt sources name for its release: the security archive and
 * other vendors' archives do not count.
 * @returns {string} '' where there is none
 */
export function debianMirror() {
  const release = osRelease();
  const ours = new Set([release.VERSION_CODENAME, 'stable', 'oldstable', 'testing']);
  if (release.ID !== 'debian') return '';
  const files = ['/etc/apt/sources.list'];
  const parts = '/etc/apt/sources.list.d';
  if (existsSync(parts)) files.push(...readdirSync(parts).map((name) => join(parts, name)));
  for (const file of files) {
    if (!existsSync(file)) continue;
    const text = readFileSync(file, 'utf8');
    if (file.endsWith('.list')) {
      for (const line of text.split('\n')) {
        const match = /^\s*deb\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)\s+(.*)$/.exec(line);
        if (match && ours.has(match[2]) && /\bmain\b/.test(match[3])) return match[1];
      }
    } else if (file.endsWith('.sources')) {
      for (const stanza of text.replace(/^#.*\n?/gm, '').split(/\n\s*\n/)) {
        const field = (/** @type {string} */ name) =>
          (new RegExp(`^${name}:\\s*(.*(?:\\n[ \\t].*)*)`, 'im').exec(stanza)?.[1] || '').trim();
        if (/^no$/i.test(field('Enabled')) || !/\bdeb\b/.test(field('Types'))) continue;
        const suites = field('Suites').split(/\s+/);
        if (suites.some((suite) => ours.has(suite)) && /\bmain\b/.test(field('Components'))) {
          return field('URIs').split(/\s+/)[0];
        }
      }
    }
  }
  return '';
}

/**
 * How to run apt-get with rights over the system: [] as root, ['sudo', '-n'] where sudo asks no password,
 * null otherwise.
 */
function rights() {
  if (process.getuid?.() === 0) return [];
  if (which('sudo') && capture('sudo', ['-n', 'true']).status === 0) return ['sudo', '-n'];
  return null;
}

/** May we install packages for the whole system? */
export const mayInstall = () => hasApt() && rights() !== null;

/**
 * Installs packages from the machine's own sources.
 * @param {string[]} packages
 */
export async function installPackages(packages) {
  const prefix = rights();
  if (!prefix) throw new Trouble('Installing system packages needs root or sudo.');
  const apt = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get'];
  const options = ['-y', '-q', '--no-install-recommends', '-o', 'DPkg::Lock::Timeout=600'];
  const install = [...apt, 'install', ...options, ...packages];
  // Lists that are there may do; they are brought up to date only where they do not.
  const first = run(install[0], install.slice(1), { cwd: '/', quiet: true });
  const done = await first.then(
    () => true,
    () => false,
  );
  if (done) return;
  const update = [...apt, 'update', '-q', '-o', 'DPkg::Lock::Timeout=600'];
  await run(update[0], update.slice(1), { cwd: '/', what: 'apt-get update' });
  await run(install[0], install.slice(1), {
    cwd: '/',
    what: `apt-get install ${packages.join(' ')}`,
  });
}

/**
 * A private apt: its own lists and cache under the user's cache folder.
 * @param {{suite?: string, satisfied?: string[]}} options `suite`: take packages from this Debian suite at the
 *   machine's own mirror, as for a machine that has nothing but `satisfied`; without it the machine's own
 *   sources count, and what it has installed.
 */
function privateApt(options) {
  const key = createHash('sha256').update(JSON.stringify(options)).digest('hex').slice(0, 8);
  const base = join(cache, `apt-${options.suite || 'host'}-${key}`);
  const { debian } = architecture();
  for (const folder of ['state/lists/partial', 'cache/archives/partial', 'etc/none']) {
    mkdirSync(join(base, folder), { recursive: true });
  }
  const lines = [
    `Dir::State "${base}/state";`,
    `Dir::Cache "${base}/cache";`,
    'APT::Install-Recommends "0";',
    'Acquire::Languages "none";',
    'Acquire::Retries "3";',
    'Debug::NoLocking "1";',
  ];
  if (process.getuid?.() === 0) lines.push('APT::Sandbox::User "root";');
  if (options.suite) {
    const mirror = debianMirror();
    if (!mirror) throw new Trouble('The apt sources of this machine name no Debian mirror.');
    const signed = existsSync(KEYRING) ? `[signed-by=${KEYRING}] ` : '';
    writeFileSync(join(base, 'etc/sources.list'), `deb ${signed}${mirror} ${options.suite} main\n`);
    writeFileSync(
      join(base, 'state/status'),
      (options.satisfied || [])
        .map(
          (name) =>
            `Package: ${name}\nStatus: install ok installed\nArchitecture: ${debian}\n` +
            'Version: 999\nMulti-Arch: allowed\nMaintainer: none <none>\nDescription: not needed\n\n',
        )
        .join(''),
    );
    lines.push(
      `Dir::State::status "${base}/state/status";`,
      `Dir::Etc::sourcelist "${base}/etc/sources.list";`,
      `Dir::Etc::sourceparts "${base}/etc/none";`,
      `Dir::Etc::preferences "${base}/etc/no-preferences";`,
      `Dir::Etc::preferencesparts "${base}/etc/none";`,
    );
  } else {
    lines.push('Dir::State::status "/var/lib/dpkg/status";');
  }
  const config = join(base, 'apt.conf');
  writeFileSync(config, `${lines.join('\n')}\n`);
  return { base, env: { APT_CONFIG: config } };
}

/**
 * Downloads packages and what they depend on, and unpacks them under `target`, all or nothing.
 * @param {string} target made by this call; where it exists nothing is done
 * @param {string[]} packages
 * @param {{suite?: string, satisfied?: string[], exclude?: string[],
 *   finish?: (folder: string, target: string) => void}} options `exclude`: tar patterns of what is not wanted;
 *   `finish` completes the folder before it gets its final name
 */
export async function unpackPackages(target, packages, options) {
  if (existsSync(target)) return;
  if (!hasApt()) throw new Trouble('This machine has no apt-get and dpkg-deb.');
  const { base, env } = privateApt({ suite: options.suite, satisfied: options.satisfied });
  const archives = join(base, 'cache/archives');
  const part = `${target}.part-${process.pid}`;
  try {
    await run('apt-get', ['update', '-q'], { env, cwd: '/' });
    const download = ['install', '-y', '-q', '--download-only', '--reinstall', ...packages];
    await run('apt-get', download, { env, cwd: '/', what: `Downloading ${packages.join(', ')}` });
    mkdirSync(part, { recursive: true });
    const exclude = (options.exclude || []).map((pattern) => `--exclude='${pattern}'`).join(' ');
    for (const name of readdirSync(archives).filter((file) => file.endsWith('.deb'))) {
      const deb = join(archives, name);
      const unpack = `dpkg-deb --fsys-tarfile '${deb}' | tar -x -C '${part}' ${exclude} --no-same-owner`;
      await run('sh', ['-c', unpack], { what: `Unpacking ${name}` });
    }
    options.finish?.(part, target);
    if (!existsSync(target)) renameSync(part, target);
  } finally {
    rmSync(part, { recursive: true, force: true });
    rmSync(base, { recursive: true, force: true });
  }
}
