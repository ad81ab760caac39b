// What the setup, build and test scripts share: where things are, running programs, saying so.
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdirSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The repository's root folder. */
export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..');

/** A failure that a person can act on: printed as one sentence, without a stack. */
export class Trouble extends Error {}

/** Where setup keeps what it downloads: shared by all checkouts of one user. */
export const cache = findCache();

/** Programs that setup unpacked, last on PATH for everything started from here: the machine's own go first. */
export const cacheBin = join(cache, 'bin');

function findCache() {
  const home = process.env.XDG_CACHE_HOME || join(homedir() || '/nonexistent', '.cache');
  const wanted = process.env.POCKETVL_CACHE || join(home, 'pocketvl');
  try {
    mkdirSync(wanted, { recursive: true });
    accessSync(wanted, constants.W_OK);
    return resolve(wanted);
  } catch {
    const inTree = join(root, '.cache');
    mkdirSync(inTree, { recursive: true });
    return inTree;
  }
}

/** The environment for every program started from here. */
export function environment(extra = {}) {
  const path = [process.env.PATH || '/usr/bin:/bin', '/usr/sbin', '/sbin', cacheBin];
  return {
    ...process.env,
    LC_ALL: 'C.UTF-8',
    EM_NODE_JS: process.execPath, // Emscripten's own scripts run under the Node.js that runs us
    ...extra,
    PATH: path.join(delimiter),
  };
}

/**
 * The full path of a program, or ''. Looks on PATH, then where setup puts its own.
 * @param {string} name
 */
export function which(name) {
  for (const folder of environment().PATH.split(delimiter)) {
    const file = join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      if (statSync(file).isFile()) return file;
    } catch {
      // not in this folder
    }
  }
  return '';
}

/**
 * Runs a short command and returns its output; status is null where it could not start.
 * @param {string} command
 * @param {string[]} args
 * @param {{cwd?: string, env?: Record<string, string>}} [options]
 */
export function capture(command, args, options = {}) {
  const done = spawnSync(command, args, {
    cwd: options.cwd || root,
    env: environment(options.env),
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  return { status: done.status, stdout: done.stdout || '', stderr: done.stderr || '' };
}

/** All that was printed by commands which went well is not worth reading; a failure shows its end. */
const TAIL = 60;

/**
 * Runs a command to its end. Quiet unless it fails (then the end of its output is shown) or
 * `show` is set (then its output goes to standard error as it comes), or `quiet`.
 * @param {string} command
 * @param {string[]} args
 * @param {{cwd?: string, env?: Record<string, string>, show?: boolean, quiet?: boolean, what?: string,
 *   stdin?: import('node:stream').Readable}} [options]
 * @returns {Promise<string>} what it printed
 */
export function run(command, args, options = {}) {
  return new Promise((done, fail) => {
    const child = spawn(command, args, {
      cwd: options.cwd || root,
      env: environment(options.env),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (text) => {
        output += text;
        if (options.show) process.stderr.write(text);
      });
    }
    const name = options.what || `${command} ${args.join(' ')}`;
    child.on('error', (error) => fail(new Trouble(`${name} could not start: ${error.message}.`)));
    child.on('close', (code, signal) => {
      if (code === 0) return done(output);
      const tail = output.trimEnd().split('\n').slice(-TAIL).join('\n');
      if (!options.show && !options.quiet && tail) process.stderr.write(`${tail}\n`);
      fail(new Trouble(`${name} failed (${signal || `exit code ${code}`}).`));
    });
  });
}

const seconds = (/** @type {number} */ since) => `${((Date.now() - since) / 1000).toFixed(1)} s`;

/** Says something on standard error: standard output belongs to answers and results. */
export function say(/** @type {string} */ text) {
  process.stderr.write(`${text}\n`);
}

/** Work that ends sooner than this, in ms, is not worth a line. */
const QUIET = 700;

/**
 * Says what is being done where it takes a while, a sign of life every 10 s, and how long it took.
 * @template T
 * @param {string} what
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function step(what, work) {
  const start = Date.now();
  let said = false;
  const speak = () => {
    if (!said) say(`[pocketvl] ${what} ...`);
    said = true;
  };
  const first = setTimeout(speak, QUIET);
  const life = setInterval(() => say(`[pocketvl]   still at it, ${seconds(start)}`), 10000);
  try {
    const result = await work();
    if (said) say(`[pocketvl]   done in ${seconds(start)}`);
    return result;
  } catch (error) {
    speak();
    throw error;
  } finally {
    clearTimeout(first);
    clearInterval(life);
  }
}

/**
 * Runs a script's main function: a Trouble becomes one sentence and exit code 1.
 * @param {() => Promise<number | void>} work
 */
export async function main(work) {
  try {
    const code = await work();
    if (code) process.exitCode = code;
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    say(`pocketvl: ${error.message}`);
    process.exitCode = 1;
  }
}

/** True where the script was started by its own name, not imported. */
export function isMain(/** @type {string} */ url) {
  return Boolean(process.argv[1]) && fileURLToPath(url) === resolve(process.argv[1]);
}

/** The newest of some files, as milliseconds; missing ones count as never. */
export function newest(/** @type {string[]} */ files) {
  return Math.max(0, ...files.map((file) => (existsSync(file) ? statSync(file).mtimeMs : 0)));
}

/** A module with one relaxed instruction, to ask an engine whether it knows them. */
export const RELAXED = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15,
  65, 2, 253, 15, 253, 128, 2, 11,
]);

/** Flags with which this Node.js runs relaxed SIMD: 20 wants one, later ones do not. */
export const relaxedFlags = WebAssembly.validate(RELAXED)
  ? []
  : // Its baseline compiler spoils locals around atomic waits and computes a relaxed product wrongly.
    ['--experimental-wasm-relaxed-simd', '--no-liftoff'];
