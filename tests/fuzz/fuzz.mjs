// Runs the fuzz targets: for a while, or over what is committed, and minimizes what they found.
//
//   npm run fuzz -- [TARGET]... [--minutes N]    each target N minutes (20), two at a time; the corpus grows in
//                                                build/fuzz-corpus, findings go to build/fuzz-findings
//   npm run fuzz -- [TARGET]... --replay         only what tests/fuzz/corpus and tests/fuzz/findings hold
//   npm run fuzz -- [TARGET]... --merge          tests/fuzz/corpus anew: the least that covers as much
//
// `npm test -- fuzz` replays and then fuzzes each target for a minute.
import { cpSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build, buildFolder } from '../../wasm/tools/build.mjs';
import { setup } from '../../wasm/tools/setup.mjs';
import { Trouble, isMain, main, root, run, say } from '../../wasm/tools/shell.mjs';

/** Most bytes of an input that stays in the tree, of all of a target, and how many, without the first ones. */
const COMMITTED_INPUT = 16 << 10;
const COMMITTED_BYTES = 64 << 10;
const COMMITTED_INPUTS = 120;
const LANES = 2;

const here = join(root, 'tests', 'fuzz');
const grown = (/** @type {string} */ target) => join(root, 'build', 'fuzz-corpus', target);
const found = join(root, 'build', 'fuzz-findings');
const committed = (/** @type {string} */ target) =>
  ['corpus', 'findings'].map((kind) => join(here, kind, target)).filter(existsSync);

/** Names of the targets: fuzz_NAME.c. */
export const targets = () =>
  readdirSync(here)
    .map((name) => /^fuzz_(\w+)\.c$/.exec(name)?.[1] || '')
    .filter(Boolean)
    .sort();

const files = (/** @type {string} */ folder) =>
  existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : [];

/** What libFuzzer prints at its end, as numbers. */
function figures(/** @type {string} */ output) {
  const last = (/** @type {RegExp} */ pattern) => Number([...output.matchAll(pattern)].pop()?.[1]);
  return {
    executions: last(/stat::number_of_executed_units: *(\d+)/g),
    edges: last(/ cov: (\d+)/g),
    megabytes: last(/stat::peak_rss_mb: *(\d+)/g),
  };
}

/** What a program of a target may take: an input that is slower or larger than this is a finding. */
const BOUNDS = ['-timeout=300', '-rss_limit_mb=2560', '-print_final_stats=1'];

/**
 * The command that runs a target: over the committed inputs, or for some seconds on from them.
 * @param {string} target
 * @param {number} seconds 0: only what is committed
 * @returns {{command: string, args: string[], env: Record<string, string>}}
 */
export function fuzzCommand(target, seconds) {
  const command = join(buildFolder('fuzz'), 'fuzz', `fuzz_${target}`);
  const env = { ASAN_OPTIONS: 'detect_leaks=1:allocator_may_return_null=1' };
  if (seconds === 0) {
    const inputs = committed(target).flatMap(files);
    if (inputs.length === 0) throw new Trouble(`tests/fuzz/corpus/${target} is empty.`);
    return { command, args: [...BOUNDS, ...inputs], env };
  }
  const corpus = grown(target);
  for (const folder of [corpus, found]) mkdirSync(folder, { recursive: true });
  const artifacts = `-artifact_prefix=${join(found, `${target}-`)}`;
  const args = [...BOUNDS, `-max_total_time=${seconds}`, artifacts, corpus, ...committed(target)];
  return { command, args, env };
}

/** @param {string} target @param {number} seconds */
async function fuzz(target, seconds) {
  const { command, args, env } = fuzzCommand(target, seconds);
  const what = seconds ? `Fuzzing ${target}` : `Replaying ${target}`;
  const output = await run(command, args, { env, what });
  const { executions, edges, megabytes } = figures(output);
  const inputs = args.filter((arg) => arg.startsWith(here)).length;
  if (seconds) {
    const rate = Math.round(executions / seconds);
    say(`${target}: ${executions} executions (${rate}/s), ${edges} edges, ${megabytes} MB, clean`);
  } else say(`${target}: ${inputs} inputs, clean`);
}

/** The first inputs, and the least of what goes beyond them: small ones, a bounded sum of them. */
async function merge(/** @type {string} */ target) {
  const { command, env } = fuzzCommand(target, 1);
  const corpus = join(here, 'corpus', target);
  const part = `${corpus}.part`;
  const first = join(root, 'build', 'fuzz-seeds');
  await run(process.execPath, [join(here, 'seeds.mjs'), first]);
  rmSync(part, { recursive: true, force: true });
  cpSync(join(first, target), part, { recursive: true });
  const from = [grown(target), corpus].filter(existsSync);
  await run(command, ['-merge=1', `-max_len=${COMMITTED_INPUT}`, part, ...from], { env });
  const more = files(part).filter((file) => !basename(file).startsWith('seed-'));
  const sizes = more.map((file) => ({ file, bytes: statSync(file).size }));
  sizes.sort((a, b) => a.bytes - b.bytes);
  let [sum, kept] = [0, 0];
  sizes.forEach(({ file, bytes }, i) => {
    // Of many, some of every size.
    const step = Math.max(1, sizes.length / COMMITTED_INPUTS);
    const wanted = Math.floor(i / step) === kept && sum + bytes <= COMMITTED_BYTES;
    if (!wanted) return rmSync(file);
    sum += bytes;
    kept++;
  });
  rmSync(corpus, { recursive: true, force: true });
  renameSync(part, corpus);
  say(`${target}: ${files(corpus).length} inputs kept`);
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const args = process.argv.slice(2);
    const at = args.indexOf('--minutes');
    const minutes = at < 0 ? 20 : Number(args.splice(at, 2)[1]);
    if (!(minutes > 0)) throw new Trouble('--minutes takes a number.');
    const named = args.filter((arg) => !arg.startsWith('--'));
    const unknown = named.filter((name) => !targets().includes(name));
    if (unknown.length)
      throw new Trouble(`There is no target ${unknown.join(', ')}: ${targets().join(', ')}.`);
    await build(['fuzz'], await setup(['fuzz']));
    const list = named.length ? named : targets();
    const lane = async () => {
      for (let name; (name = list.shift());) {
        if (args.includes('--merge')) await merge(name);
        else await fuzz(name, args.includes('--replay') ? 0 : minutes * 60);
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
  });
}
