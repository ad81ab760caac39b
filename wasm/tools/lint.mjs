// Formatting, lint and types. `npm run lint` checks, `npm run format` (--fix) repairs what a program can repair.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { vendor } from './build.mjs';
import { clangTool, noClangTool } from './emscripten.mjs';
import { setup } from './setup.mjs';
import { Trouble, capture, isMain, main, root, say } from './shell.mjs';

const npmTool = (/** @type {string} */ path) => join(root, 'node_modules', path);

/** All C files of ours. */
export function cFiles() {
  /** @type {string[]} */
  const found = [];
  const walk = (/** @type {string} */ folder) => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = `${folder}/${entry.name}`;
      if (entry.isDirectory() && entry.name !== 'fixtures') walk(path);
      else if (/\.[ch]$/.test(entry.name)) found.push(path);
    }
  };
  for (const folder of ['src', 'wasm', 'tests']) walk(folder);
  return found.sort();
}

/**
 * One check: its name, and a function that gives '' or what is wrong. `null`: it cannot be made
 * here, with the reason in `skip`.
 * @typedef {{name: string, skip?: string, check: () => string}} Check
 */

/**
 * @param {boolean} fix
 * @returns {Check[]}
 */
export function checks(fix = false) {
  const node =
    (/** @type {string[]} */ ...args) =>
    () => {
      const { status, stdout, stderr } = capture(process.execPath, args);
      return status === 0 ? '' : (stdout + stderr).trim() || 'failed without a word';
    };
  vendor(); // types are checked against the vendored scripts
  const clangFormat = clangTool('clang-format');
  return [
    {
      name: 'format of JavaScript, JSON, CSS and HTML (prettier)',
      check: node(
        npmTool('prettier/bin/prettier.cjs'),
        fix ? '--write' : '--check',
        '--log-level=warn',
        '.',
      ),
    },
    {
      name: 'lint of JavaScript (eslint)',
      check: node(
        npmTool('eslint/bin/eslint.js'),
        '--max-warnings=0',
        ...(fix ? ['--fix'] : []),
        '.',
      ),
    },
    {
      name: 'types of JavaScript (tsc)',
      check: node(npmTool('typescript/bin/tsc'), '--noEmit', '-p', root),
    },
    {
      name: 'format of C (clang-format)',
      skip: clangFormat ? undefined : noClangTool('clang-format'),
      check: () => {
        const args = fix ? ['-i'] : ['--dry-run', '--Werror'];
        const { status, stderr } = capture(clangFormat, [...args, ...cFiles()]);
        if (status === 0) return '';
        const files = new Set(
          [...stderr.matchAll(/^(\S+?):\d+:\d+: error/gm)].map((match) => match[1]),
        );
        return files.size ? `npm run format repairs: ${[...files].join(', ')}` : stderr.trim();
      },
    },
  ];
}

if (isMain(import.meta.url)) {
  await main(async () => {
    await setup(['page']);
    let failed = 0;
    for (const { name, skip, check } of checks(process.argv.includes('--fix'))) {
      const problem = skip ? '' : check();
      say(`${skip ? 'skip' : problem ? 'FAIL' : 'ok'} ${name}${skip ? `: ${skip}` : ''}`);
      if (problem) say(problem);
      if (problem) failed++;
    }
    if (failed) throw new Trouble(`${failed} of the checks found something.`);
  });
}
