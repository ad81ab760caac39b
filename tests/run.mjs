// `npm test`: sets everything up, builds, runs every test, and ends with one line of counts.
//
//   npm test -- [SLICE]...     slices: see SLICES below; all but those by name when none is given; `npm test -- --list`
//
// Each test case of a C program, each test of node:test, each lint check and each accuracy gate
// counts as one. What could not be built or started counts as failed, never as skipped.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { analyses } from '../wasm/tools/analyse.mjs';
import { belowReached, measure, table } from '../wasm/tools/accuracy.mjs';
import { build, buildFolder } from '../wasm/tools/build.mjs';
import { fuzzCommand, targets } from './fuzz/fuzz.mjs';
import { checks } from '../wasm/tools/lint.mjs';
import { setup } from '../wasm/tools/setup.mjs';
import { Trouble, environment, relaxedFlags, root, say } from '../wasm/tools/shell.mjs';

/** Longest a C test program, and a file of JavaScript tests, may take, in ms. */
const PROGRAM_LIMIT = 600_000;
const SCRIPT_LIMIT = 900_000;

/** @typedef {import('../wasm/tools/build.mjs').Part} Part */
/** @typedef {import('../wasm/tools/setup.mjs').Purpose} Purpose */
/** @typedef {import('../wasm/tools/setup.mjs').Tools} Tools */
/** @typedef {{passed: number, failed: number, skipped: number}} Counts */
/**
 * @typedef {object} Slice
 * @property {string} about
 * @property {Purpose[]} needs of the setup
 * @property {Part[]} [parts] of the build
 * @property {boolean} [byName] runs only when it is named
 * @property {boolean} [beside] needs nothing but time: runs beside what follows it
 * @property {(tools: Tools, beside: boolean) => Promise<Counts>} run
 */

const none = () => ({ passed: 0, failed: 0, skipped: 0 });

/** @type {string[]} what failed, to be named at the end */
const failures = [];

function fail(/** @type {string} */ name) {
  failures.push(name);
  return { passed: 0, failed: 1, skipped: 0 };
}

function add(/** @type {Counts} */ sum, /** @type {Counts} */ more) {
  sum.passed += more.passed;
  sum.failed += more.failed;
  sum.skipped += more.skipped;
}

const took = (/** @type {number} */ start) => `${((Date.now() - start) / 1000).toFixed(1)} s`;

/**
 * Runs a program to its end and collects what it prints.
 * @param {string} command
 * @param {string[]} args
 * @param {{env?: Record<string, string>, limit: number, show?: boolean}} options
 * @returns {Promise<{code: number | null, why: string, output: string}>}
 */
function collect(command, args, options) {
  return new Promise((done) => {
    const child = spawn(command, args, {
      cwd: root,
      env: environment(options.env),
      detached: true,
    });
    let output = '';
    let why = '';
    const clock = setTimeout(() => {
      why = `ran longer than ${options.limit / 1000} s`;
      try {
        process.kill(-(child.pid || 0), 'SIGKILL'); // the program and what it started
      } catch {
        // it ended meanwhile
      }
    }, options.limit);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8');
      stream.on('data', (text) => {
        output += text;
        if (options.show) process.stdout.write(text);
      });
    }
    child.on('error', (error) => {
      clearTimeout(clock);
      done({ code: null, why: error.message, output });
    });
    child.on('close', (code, signal) => {
      clearTimeout(clock);
      done({ code, why: why || (signal ? `ended by ${signal}` : `exit code ${code}`), output });
    });
  });
}

/**
 * Runs one C test program and reads its closing line.
 * @param {string} name
 * @param {string} command
 * @param {string[]} args
 * @returns {Promise<Counts>}
 */
async function program(name, command, args) {
  const start = Date.now();
  const env = {
    ASAN_OPTIONS: 'detect_leaks=1:allocator_may_return_null=1:detect_stack_use_after_return=1',
    UBSAN_OPTIONS: 'print_stacktrace=1',
  };
  const { code, why, output } = await collect(command, args, { env, limit: PROGRAM_LIMIT });
  const lines = output.trimEnd().split('\n');
  const closing = lines
    .map((line) => /^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$/.exec(line))
    .filter(Boolean)
    .pop();
  const counts = closing
    ? { passed: Number(closing[1]), failed: Number(closing[2]), skipped: Number(closing[3] || 0) }
    : none();
  // A program that stops half-way, or whose sanitizer complains after the last test, has failed too.
  if (!closing || (code !== 0 && counts.failed === 0)) counts.failed++;
  const good = counts.failed === 0;
  if (good) {
    console.log(`ok   ${name}: ${counts.passed} (${took(start)})`);
    for (const line of lines) if (line.startsWith('skip ')) console.log(`     ${line}`);
  } else {
    failures.push(name);
    console.log(`FAIL ${name}: ${why}`);
    console.log(lines.map((line) => `     ${line}`).join('\n'));
  }
  return counts;
}

/**
 * Runs work on a list, a few at a time.
 * @template T
 * @param {T[]} list
 * @param {number} lanes
 * @param {(item: T) => Promise<Counts>} work
 */
async function inLanes(list, lanes, work) {
  const sum = none();
  let next = 0;
  const lane = async () => {
    while (next < list.length) add(sum, await work(list[next++]));
  };
  await Promise.all(Array.from({ length: Math.max(1, lanes) }, lane));
  return sum;
}

/** Names of the C test programs whose sources are in a folder of tests/. */
function programsOf(/** @type {string} */ folder) {
  const path = join(root, 'tests', folder);
  if (!existsSync(path)) return [];
  const sources = readdirSync(path).filter((name) => /^test_\w+\.c$/.test(name));
  return sources.map((name) => name.replace('.c', '')).sort();
}

/** C programs in which several threads meet, and of the long ones the cases that show it: it is slow. */
const THREADED = [
  'test_threads',
  'test_resize equals_pillow_with_a_team',
  'test_gemm products_of_every_type cancelled_products_return',
  'test_attn',
  'test_rows',
  'test_session',
  'test_weights pushed_behind_the_caller errors_from_behind_the_caller',
  'test_endurance',
];

/** A failed test may leave a server or a browser open: its file ends all the same (Node.js 20.14 and later). */
const forceExit = atLeast(process.versions.node, 20, 14) ? ['--test-force-exit'] : [];

function atLeast(/** @type {string} */ version, /** @type {number[]} */ ...least) {
  const have = version.split('.').map(Number);
  return have[0] > least[0] || (have[0] === least[0] && have[1] >= least[1]);
}

/** Fresh fuzzing of each target in a test run, in seconds. */
const FUZZ_SECONDS = 60;

/** Runs a program only while a processor has nothing else to do (Linux). */
const IDLE = ['/usr/bin/chrt', '--idle', '0'];

const C_FOLDERS = ['unit', 'kernels', 'model', 'faults'];

/** The C programs of a folder, in the sanitizer build. */
const nativePrograms = (/** @type {string} */ folder) =>
  inLanes(programsOf(folder), availableParallelism(), (name) =>
    program(`${folder}/${name}`, join(buildFolder('asan'), 'tests', name), []),
  );

/** A slice of C programs in the native sanitizer build. */
function native(/** @type {string} */ folder, /** @type {string} */ about) {
  return {
    about: `${about}: C programs of tests/${folder} under AddressSanitizer and UBSan`,
    needs: /** @type {Purpose[]} */ (['native']),
    parts: /** @type {Part[]} */ (['asan']),
    run: () => nativePrograms(folder),
  };
}

/**
 * Runs the JavaScript tests of a folder, one file after the other: browsers want the machine for themselves.
 * @param {string} folder
 * @param {Tools} tools
 */
async function scripts(folder, tools) {
  const path = join(root, 'tests', folder);
  const names = existsSync(path)
    ? readdirSync(path).filter((name) => name.endsWith('.test.mjs'))
    : [];
  return inLanes(names.sort(), 1, async (name) => {
    const start = Date.now();
    const args = [
      ...relaxedFlags,
      '--test',
      ...forceExit,
      '--test-reporter=spec',
      join(path, name),
    ];
    const env = /** @type {Record<string, string>} */ ({ FORCE_COLOR: '0' });
    if (tools.chromium) env.CHROMIUM = tools.chromium;
    const { code, why, output } = await collect(process.execPath, args, {
      env,
      limit: SCRIPT_LIMIT,
    });
    const total = (/** @type {string} */ word) =>
      Number([...output.matchAll(new RegExp(`^ℹ ${word} (\\d+)$`, 'gm'))].pop()?.[1] || 0);
    const counts = {
      passed: total('pass'),
      failed: total('fail') + total('cancelled'),
      skipped: total('skipped') + total('todo'),
    };
    if (counts.failed === 0 && (code !== 0 || counts.passed + counts.skipped === 0))
      counts.failed++;
    const label = relative(root, join(path, name));
    if (counts.failed === 0) {
      console.log(`ok   ${label}: ${counts.passed} (${took(start)})`);
    } else {
      failures.push(label);
      console.log(`FAIL ${label}: ${counts.failed} failed, ${why} (${took(start)})`);
      console.log(output.trimEnd().replace(/^/gm, '     '));
    }
    return counts;
  });
}

/** @type {Record<string, Slice>} */
const SLICES = {
  lint: {
    about: 'formatting, lint and types',
    needs: ['page'],
    run: async () => {
      const sum = none();
      for (const { name, skip, check } of checks()) {
        const start = Date.now();
        const problem = skip || check();
        if (!problem) console.log(`ok   ${name} (${took(start)})`);
        else console.log(`FAIL ${name}: ${problem}`);
        add(sum, problem ? fail(name) : { passed: 1, failed: 0, skipped: 0 });
      }
      return sum;
    },
  },
  analyse: {
    about: 'static analysis of the C core: clang-tidy and cppcheck',
    needs: ['page', 'native', 'analyse'],
    run: async (tools) =>
      inLanes(analyses(tools), availableParallelism(), async ({ name, check }) => {
        const problem = await check();
        if (!problem) return { passed: 1, failed: 0, skipped: 0 };
        console.log(`FAIL ${name}: ${problem}`);
        return fail(name);
      }),
  },
  unit: native('unit', 'base, tensor, text, image, engine parts'),
  kernels: native('kernels', 'every kernel variant against scalar'),
  model: native('model', 'parity with the reference, stage by stage'),
  faults: native('faults', 'hostile files, failing allocations'),
  threads: {
    about: 'C programs with several threads under ThreadSanitizer',
    needs: ['native'],
    parts: ['tsan'],
    run: () =>
      inLanes(THREADED, 1, (line) => {
        const [name, ...cases] = line.split(' ');
        return program(`threads ${name}`, join(buildFolder('tsan'), 'tests', name), cases);
      }),
  },
  wasm: {
    about:
      'the same C programs as WebAssembly under Node.js, relaxed and plain SIMD; those that run kernels in Chromium',
    needs: ['test'],
    parts: ['page', 'tests'],
    run: async (tools) => {
      const list = ['relaxed', 'simd'].flatMap((variant) =>
        C_FOLDERS.flatMap((folder) =>
          programsOf(folder).map((name) => ({ variant, folder, name })),
        ),
      );
      const sum = await inLanes(list, availableParallelism(), ({ variant, folder, name }) =>
        program(`wasm ${variant} ${folder}/${name}`, process.execPath, [
          ...relaxedFlags,
          join(buildFolder('tests'), `tests-${variant}.cjs`),
          name,
        ]),
      );
      add(sum, await scripts('wasm', tools));
      return sum;
    },
  },
  checked: {
    about:
      "the C programs of the slice wasm with fixed SIMD, under Emscripten's AddressSanitizer and with SAFE_HEAP (many minutes: only by name)",
    byName: true,
    needs: ['page'],
    parts: ['checked', 'heap'],
    run: async () => {
      const names = C_FOLDERS.flatMap(programsOf);
      const list = /** @type {const} */ (['checked', 'heap']).flatMap((part) =>
        names.map((name) => ({ part, name })),
      );
      return inLanes(list, Math.ceil(availableParallelism() / 2), ({ part, name }) => {
        const file = join(buildFolder(part), 'tests-simd.cjs');
        return program(`${part} ${name}`, process.execPath, [...relaxedFlags, file, name]);
      });
    },
  },
  tools: {
    about: 'the command line tool, the converter, the server and the scripts',
    needs: ['page', 'native'],
    parts: ['page', 'native', 'asan'],
    run: async (tools) => {
      const sum = await nativePrograms('tools');
      add(sum, await scripts('tools', tools));
      return sum;
    },
  },
  fuzz: {
    about: `what fuzzing found, and ${FUZZ_SECONDS} s of it anew for each target, in the time that other slices leave`,
    needs: ['fuzz'],
    parts: ['fuzz'],
    beside: true,
    run: async (_, beside) => {
      const list = targets().flatMap((target) => [
        { target, seconds: 0 },
        { target, seconds: FUZZ_SECONDS },
      ]);
      return inLanes(list, beside ? 1 : availableParallelism(), async ({ target, seconds }) => {
        const start = Date.now();
        const { command, args, env } = fuzzCommand(target, seconds);
        const line =
          beside && existsSync(IDLE[0]) ? [...IDLE, command, ...args] : [command, ...args];
        const { code, why, output } = await collect(line[0], line.slice(1), {
          env,
          limit: PROGRAM_LIMIT,
        });
        const label = `fuzz ${target}, ${seconds ? `${seconds} s` : 'replay'}`;
        if (code === 0) {
          const runs = /number_of_executed_units: *(\d+)/.exec(output)?.[1];
          console.log(`ok   ${label}${runs ? `: ${runs} inputs` : ''} (${took(start)})`);
          return { passed: 1, failed: 0, skipped: 0 };
        }
        console.log(`FAIL ${label}: ${why}`);
        console.log(output.trimEnd().split('\n').slice(-60).join('\n').replace(/^/gm, '     '));
        return fail(label);
      });
    },
  },
  web: {
    about: 'the JavaScript library and the page, in Node.js, Chromium, Firefox and WebKitGTK',
    needs: ['test'],
    parts: ['page', 'package', 'site'],
    run: (tools) => scripts('web', tools),
  },
  accuracy: {
    about: 'right answers of the demonstration model on the held-out set',
    needs: ['native'],
    run: async () => {
      const result = await measure();
      const below = belowReached(result);
      console.log(table(result).replace(/^/gm, '     '));
      const sum = none();
      for (const name of ['overall', ...Object.keys(result.kinds)]) {
        const bad = below.includes(name);
        if (bad)
          console.log(
            `FAIL accuracy ${name}: below what the shipped file reached when it was made`,
          );
        add(sum, bad ? fail(`accuracy ${name}`) : { passed: 1, failed: 0, skipped: 0 });
      }
      return sum;
    },
  },
};

/** What was asked for, as names of slices; `native` stands for all native C slices. */
function wanted() {
  const args = process.argv.slice(2);
  if (args.includes('--list')) {
    for (const [name, { about }] of Object.entries(SLICES))
      console.log(`${name.padEnd(10)} ${about}`);
    process.exit(0);
  }
  const names = args.flatMap((name) => (name === 'native' ? C_FOLDERS : [name]));
  const unknown = names.filter((name) => !(name in SLICES));
  if (unknown.length) {
    throw new Trouble(
      `There is no slice ${unknown.join(', ')}: ${Object.keys(SLICES).join(', ')}.`,
    );
  }
  return names.length ? names : Object.keys(SLICES).filter((name) => !SLICES[name].byName);
}

/**
 * @param {string} name
 * @param {Tools} tools
 * @param {boolean} beside others
 */
async function runSlice(name, tools, beside) {
  const start = Date.now();
  try {
    const counts = await SLICES[name].run(tools, beside);
    if (counts.passed + counts.failed + counts.skipped === 0) {
      console.log(`FAIL ${name}: this slice has no tests`);
      add(counts, fail(`${name} (no tests)`));
    }
    add(total, counts);
  } catch (error) {
    sliceFailed(name, error);
  }
  console.log(`   ${name} took ${took(start)}`);
}

function sliceFailed(/** @type {string} */ name, /** @type {unknown} */ error) {
  if (!(error instanceof Trouble)) console.error(error);
  console.log(`FAIL ${name}: ${/** @type {Error} */ (error).message}`);
  add(total, fail(name));
}

const total = none();
const begin = Date.now();
try {
  const names = wanted();
  const tools = await setup([...new Set(names.flatMap((name) => SLICES[name].needs))]);
  const behind = [];
  for (const [i, name] of names.entries()) {
    console.log(`== ${name}: ${SLICES[name].about}`);
    try {
      await build(SLICES[name].parts ?? [], tools);
    } catch (error) {
      sliceFailed(name, error);
      continue;
    }
    const beside = SLICES[name].beside === true && i + 1 < names.length;
    const end = runSlice(name, tools, beside);
    if (beside) behind.push(end);
    else await end;
  }
  await Promise.all(behind);
} catch (error) {
  if (!(error instanceof Trouble)) console.error(error);
  say(`pocketvl: ${/** @type {Error} */ (error).message}`);
  add(total, fail('setup'));
}
if (failures.length) {
  console.log('failed:');
  for (const name of failures) console.log(`  ${name}`);
}
console.log(`all of it took ${took(begin)}`);
const skipped = total.skipped ? `, ${total.skipped} skipped` : '';
console.log(`${total.passed} passed, ${total.failed} failed${skipped}`);
process.exitCode = total.failed ? 1 : 0;
