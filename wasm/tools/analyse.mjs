// Static analysis of the C core: clang-tidy (see .clang-tidy) and cppcheck, clean or failed.
//
//   node wasm/tools/analyse.mjs [FILE]...
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { clangTool, noClangTool } from './emscripten.mjs';
import { cFiles } from './lint.mjs';
import { setup } from './setup.mjs';
import { Trouble, isMain, main, root, run, say } from './shell.mjs';

/** @typedef {import('./setup.mjs').Tools} Tools */

const DEFINITIONS = ['-D_POSIX_C_SOURCE=200809L', '-D_FILE_OFFSET_BITS=64'];

/** Sources of the core and the tools. */
const sources = () => cFiles().filter((file) => file.startsWith('src/') && file.endsWith('.c'));

/** Folder of the compiler's own headers: the clang-tidy of the cache does not find them by itself. */
function resources(/** @type {string} */ tidy) {
  const folder = join(dirname(tidy), '../usr/lib/llvm-19/lib/clang/19');
  return existsSync(folder) ? ['-resource-dir', folder] : [];
}

/** @param {string} file @param {Tools} tools @returns {Promise<string>} '' or what was found */
async function tidy(file, tools) {
  const program = clangTool('clang-tidy');
  const include = tools.include ? ['-isystem', tools.include] : [];
  const flags = ['-std=c11', '-Isrc', '-msse4.2', ...DEFINITIONS, ...include];
  const args = ['--quiet', file, '--', ...flags, ...resources(program)];
  try {
    await run(program, args, { what: `clang-tidy ${file}` });
    return '';
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    return error.message;
  }
}

/**
 * What cppcheck believes and is not so:
 * - memleak: it does not follow a pointer into a compound literal; the leak sanitizer watches every test
 * - arrayIndexThenCheck: an id compared with another id is no check of its range
 * - invalidFunctionArg: log of a sum whose largest term is 1
 */
const DISBELIEVED = ['memleak', 'arrayIndexThenCheck', 'invalidFunctionArg'];

/** @returns {Promise<string>} */
async function cppcheck() {
  const suppressed = ['missingIncludeSystem', ...DISBELIEVED].map((id) => `--suppress=${id}`);
  const args = ['--std=c11', '--enable=warning,portability,performance', '--error-exitcode=1'];
  const jobs = ['-q', '-j', String(availableParallelism())];
  try {
    const what = ['-Isrc', ...DEFINITIONS, 'src'];
    await run('cppcheck', [...args, ...suppressed, ...jobs, ...what], { what: 'cppcheck' });
    return '';
  } catch (error) {
    if (!(error instanceof Trouble)) throw error;
    return error.message;
  }
}

/**
 * The checks, each a name and a function that gives '' or what is wrong.
 * @param {Tools} tools
 * @param {string[]} [files]
 * @returns {{name: string, check: () => Promise<string>}[]}
 */
export function analyses(tools, files = sources()) {
  const list = clangTool('clang-tidy')
    ? files.map((file) => ({
        name: `clang-tidy ${relative(root, join(root, file))}`,
        check: () => tidy(file, tools),
      }))
    : [{ name: 'clang-tidy', check: async () => noClangTool('clang-tidy') }];
  return [...list, { name: 'cppcheck src', check: cppcheck }];
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const named = process.argv.slice(2);
    const tools = await setup(['page', 'native', 'analyse']);
    const list = analyses(tools, named.length ? named : sources());
    let failed = 0;
    const lane = async () => {
      for (let item; (item = list.shift());) {
        const problem = await item.check();
        say(problem ? `FAIL ${item.name}` : `ok ${item.name}`);
        if (problem) failed++;
      }
    };
    await Promise.all(Array.from({ length: availableParallelism() }, lane));
    if (failed) throw new Trouble(`${failed} of the checks found something.`);
  });
}
