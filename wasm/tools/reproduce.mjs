// Builds the modules a second time, from a copy of the sources in another folder, and compares the bytes with those in web/wasm:
// what was published can be made again by anyone with the same compiler.
//
//   npm run reproduce [-- relaxed | simd]...     (default: both)
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { build } from './build.mjs';
import { setup } from './setup.mjs';
import { Trouble, isMain, main, root, run, step } from './shell.mjs';

const VARIANTS = ['relaxed', 'simd'];
const sha256 = (/** @type {string} */ file) =>
  createHash('sha256').update(readFileSync(file)).digest('hex');

/**
 * @param {string[]} variants
 * @param {import('./setup.mjs').Tools} tools
 * @returns {Promise<{name: string, here: string, there: string}[]>} hashes of both builds
 */
export async function reproduce(variants, tools) {
  const folder = mkdtempSync(join(tmpdir(), 'pocketvl-again-'));
  try {
    for (const name of ['src', 'wasm', 'CMakeLists.txt']) {
      cpSync(join(root, name), join(folder, name), { recursive: true });
    }
    const args = ['-S', folder, '-B', join(folder, 'elsewhere'), '-G', 'Ninja'];
    args.push('-DPVL_TESTS=OFF', '-DPVL_BENCH=OFF', `-DPVL_WEB_OUT=${join(folder, 'out')}`);
    if (tools.include) args.push(`-DPVL_INCLUDE=${tools.include}`);
    await run(tools.emcmake, [tools.cmake, ...args], { what: 'Configuring the second build' });
    const jobs = ['-j', String(availableParallelism())];
    const targets = variants.map((variant) => `pocketvl-${variant}`);
    const build = ['--build', join(folder, 'elsewhere'), '--target', ...targets, ...jobs];
    await run(tools.cmake, build, { what: 'The second build' });
    return variants
      .flatMap((variant) => [`pocketvl-${variant}.wasm`, `pocketvl-${variant}.js`])
      .map((name) => ({
        name,
        here: sha256(join(root, 'web/wasm', name)),
        there: sha256(join(folder, 'out', name)),
      }));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const named = process.argv.slice(2);
    const unknown = named.find((name) => !VARIANTS.includes(name));
    if (unknown) throw new Trouble(`There is no module ${unknown}: ${VARIANTS.join(', ')}.`);
    const tools = await setup(['page']);
    await build(['page'], tools);
    const files = await step('Building the modules in another folder', () =>
      reproduce(named.length ? named : VARIANTS, tools),
    );
    for (const { name, here, there } of files) {
      console.log(
        here === there ? `same  ${here}  ${name}` : `DIFFERENT  ${here}, ${there}  ${name}`,
      );
    }
    if (files.some(({ here, there }) => here !== there))
      throw new Trouble('The two builds differ.');
  });
}
