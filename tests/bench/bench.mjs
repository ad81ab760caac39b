// `npm run bench`: what the engine reaches in headless Chromium, as a fraction of what the same loops reach on the same
// cores in the same run. Options: see README.md in this folder, or --help.
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { pathToFileURL } from 'node:url';
import { parseArguments, HELP } from './options.mjs';
import { Costs, computeFloor, floor } from './cost.mjs';
import { browse, provideModel } from './surroundings.mjs';
import { LOOPS, LOOP_MS, ceilingsFrom, gb, median, ms, number, table } from './report.mjs';

/** @typedef {import('./options.mjs').Options} Options */
/** @typedef {import('./cost.mjs').Ceilings} Ceilings */
/** @typedef {import('./cost.mjs').Cost} Cost */
/** @typedef {import('./surroundings.mjs').Stage} Stage */

/** @typedef {{ms: number, samples: number[], gmacs: number, floor_ms: number, fraction: number,
 *   tokens_per_second?: number, tokens?: number, note?: string}} StageResult */

const DECODE_TOKENS = 33;
const CONTEXT_MARGIN = 64;

const say = (/** @type {string} */ text) => process.stderr.write(`${text}\n`);

/** Samples of all ceilings, in rounds between the stages. */
class CeilingSamples {
  /** @param {Stage} stage @param {Options} options */
  constructor(stage, options) {
    this.stage = stage;
    this.options = options;
    /** @type {Record<string, Record<string, number[]>>} threads -> loop -> sums over the workers */
    this.samples = {};
    /** @type {Record<string, number[]>} */
    this.perCore = {};
  }

  /** @param {number} threads */
  async round(threads) {
    const rates = await this.stage.call('ceilings', { names: LOOPS, threads, ms: LOOP_MS });
    const byLoop = (this.samples[threads] ??= {});
    for (const name of LOOPS) {
      (byLoop[name] ??= []).push(
        rates[name].reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0),
      );
    }
  }

  /** @param {number} threads @param {string} name */
  rate(threads, name) {
    return median(this.samples[threads][name]);
  }

  /**
   * The best loop of a build's instructions for each kind of work.
   * @param {number} threads
   * @param {'relaxed' | 'simd'} variant
   * @returns {Ceilings}
   */
  of(threads, variant) {
    return ceilingsFrom((name) => this.rate(threads, name), variant);
  }
}

/**
 * @param {number[]} samples ms
 * @param {Cost} cost
 * @param {number} least ms
 * @param {number} [tokens]
 * @returns {StageResult}
 */
function stageResult(samples, cost, least, tokens) {
  const time = median(samples);
  return {
    ms: time,
    samples,
    gmacs: (cost.linear + cost.attention) / time / 1e6,
    floor_ms: least,
    fraction: least / time,
    ...(tokens ? { tokens, tokens_per_second: (tokens / time) * 1e3 } : {}),
  };
}

/**
 * One model, build and number of threads: stages and ceilings in turns.
 * @param {Stage} stage
 * @param {Options} options
 * @param {import('./surroundings.mjs').Model} model
 * @param {{threads: number, variant: 'relaxed' | 'simd'}} setting
 */
export async function measure(stage, options, model, { threads, variant }) {
  const costs = await Costs.of(model.paths);
  const samples = new CeilingSamples(stage, options);
  const kvType = options.kv ?? (model.name === '4b' ? 'q8' : 'f32');
  const context = options.prompt + DECODE_TOKENS + CONTEXT_MARGIN;
  say(`  loading with ${threads} thread${threads > 1 ? 's' : ''}, ${variant} ...`);
  const loads = [];
  let opened;
  for (let i = 0; i < (options.quick ? 1 : 2); i++) {
    opened = await stage.call('open', {
      files: model.files,
      threads,
      variant,
      context: Math.max(context, 1024),
      kvType,
      kernels: options.kernels,
      preload: model.bytes < 1.5e9,
      reserve: true,
    });
    loads.push(opened);
  }
  // The optimizing compiler takes up the code, and the prompt's overhead is learnt.
  const probe = await stage.call('call', 'prompt', { digits: 32, seed: 1 });
  const overhead = probe.stats.promptTokens - 32;
  const wanted = Math.max(1, options.prompt - overhead);
  /** @type {{tile: number[], prefill: number[], first: number[], decode: number[]}} */
  const times = { tile: [], prefill: [], first: [], decode: [] };
  const size = opened.info.imageSize;
  let seed = 10;
  let tokens = 0;
  let firstTokens = 0;
  const memory = [opened.memory];
  const tile = async () => {
    const rest = Math.max(1, 278 - costs.visualTokens - overhead - 3);
    const done = await stage.call('call', 'prompt', {
      digits: rest,
      seed: seed++,
      width: size,
      height: size,
    });
    memory.push(done.memory);
    if (done.stats.tiles !== 1)
      throw new Error(`${done.stats.tiles} tiles were encoded instead of one.`);
    firstTokens = done.stats.promptTokens;
    return { tile: done.stats.visionMs, first: done.ms };
  };
  const prefill = async () => {
    const done = await stage.call('call', 'prompt', { digits: wanted, seed: seed++ });
    memory.push(done.memory);
    if (done.stats.reusedTokens)
      throw new Error('Tokens were reused, so this was no whole prefill.');
    tokens = done.stats.promptTokens;
    return done.stats.prefillMs;
  };
  const decode = async () => {
    const done = await stage.call('call', 'decode', { count: DECODE_TOKENS });
    if (done.times.length < DECODE_TOKENS)
      throw new Error(`The answer ended after ${done.times.length} tokens.`);
    return /** @type {number[]} */ (done.times);
  };
  // Nothing of the first round counts: code is still being optimized.
  for (let round = 0; round <= options.repeat; round++) {
    say(round ? `  round ${round} of ${options.repeat}` : '  warm-up');
    const keep = round > 0;
    if (keep) await samples.round(threads);
    if (costs.hasVision && !(round === 0 && options.quick)) {
      const { tile: t, first } = await tile();
      if (keep) (times.tile.push(t), times.first.push(first));
    }
    if (keep) await samples.round(threads);
    const p = await prefill();
    const d = await decode();
    if (keep) (times.prefill.push(p), times.decode.push(...d));
  }
  await samples.round(threads);
  const c = samples.of(threads, variant);
  /** @type {Record<string, StageResult>} */
  const stages = {};
  if (times.tile.length) {
    const cost = costs.tile();
    stages.tile = stageResult(times.tile, cost, computeFloor(cost, c));
    const prompt = costs.prefill(firstTokens);
    const both = {
      linear: cost.linear + prompt.linear,
      attention: cost.attention + prompt.attention,
      bytes: 0,
    };
    stages.picture_to_first_token = stageResult(times.first, both, computeFloor(both, c));
    stages.picture_to_first_token.note = `${firstTokens} prompt tokens`;
  }
  const prefillCost = costs.prefill(tokens);
  stages.prefill = stageResult(times.prefill, prefillCost, computeFloor(prefillCost, c), tokens);
  const decodeCost = costs.decode(tokens + DECODE_TOKENS / 2, kvType);
  stages.decode = stageResult(times.decode, decodeCost, floor(decodeCost, c), 1);
  stages.decode.note = `context ${tokens} to ${tokens + DECODE_TOKENS}`;
  const load = loads[loads.length - 1];
  const before = load.heapBefore.end;
  const peak = Math.max(...memory.map((m) => m.end));
  return {
    model: model.name,
    files: model.files.map(({ name, bytes }) => ({ name, bytes })),
    variant,
    kernels: opened.info.kernels,
    threads,
    kv_type: kvType,
    ceilings: {
      int8_gmacs: c.int8,
      f32_gmacs: c.f32,
      read_gb_s: c.read,
      loops: Object.fromEntries(LOOPS.map((name) => [name, samples.samples[threads][name]])),
    },
    start: {
      total_ms: median(loads.map((l) => l.totalMs)),
      module_ms: median(loads.map((l) => l.startMs)),
      load_ms: median(loads.map((l) => l.loadMs)),
      preloaded: model.bytes < 1.5e9,
    },
    stages,
    peak_bytes: peak - before,
    heap_bytes: memory[memory.length - 1].heap,
    renderer_peak_bytes: stage.rendererPeak(),
    weight_bytes: load.stats.weightBytes,
    kv_bytes: load.stats.kvBytes,
    scratch_bytes: load.stats.scratchBytes,
  };
}

/** @param {Awaited<ReturnType<typeof measure>>} r */
export function printResult(r) {
  const c = r.ceilings;
  console.log(
    `\n${r.model}: ${r.files.map(({ name }) => name).join(' + ')}; build ${r.variant}, kernels ${r.kernels}, ` +
      `${r.threads} thread${r.threads > 1 ? 's' : ''}, ${r.kv_type} cache`,
  );
  console.log(
    `ceilings: int8 ${number(c.int8_gmacs)} GMAC/s, f32 ${number(c.f32_gmacs)} GMAC/s, ` +
      `read ${number(c.read_gb_s)} GB/s`,
  );
  const rows = Object.entries(r.stages).map(([name, s]) => [
    name.replaceAll('_', ' '),
    ms(s.ms),
    number(s.gmacs),
    `${number(100 * s.fraction)}%`,
    s.tokens_per_second ? number(s.tokens_per_second) : '',
    s.note ?? '',
  ]);
  console.log(table(['stage', 'ms', 'GMAC/s', 'of ceiling', 'tokens/s', ''], rows));
  const from = r.start.preloaded ? 'from memory' : 'over the local network';
  console.log(
    `start ${ms(r.start.total_ms)} ms (module and threads ${ms(r.start.module_ms)}, weights ${from} ` +
      `${ms(r.start.load_ms)}); peak memory ${gb(r.peak_bytes)} (weights ${gb(r.weight_bytes)}, ` +
      `cache ${gb(r.kv_bytes)}, work ${gb(r.scratch_bytes)}), the page's process ${gb(r.renderer_peak_bytes)}`,
  );
}

const machine = () => ({
  processor: cpus()[0]?.model ?? 'unknown',
  cores: cpus().length,
  memory_bytes: totalmem(),
  platform: `${process.platform} ${process.arch}`,
});

/** @param {Options} options */
async function main(options) {
  /** @type {Record<string, any>} */
  const report = { date: new Date().toISOString(), machine: machine(), results: [] };
  const save = () => {
    if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 1)}\n`);
  };
  mkdirSync(options.cache, { recursive: true });
  const stage = await browse(options);
  try {
    report.browser = stage.browser;
    for (const name of options.models) {
      const model = await provideModel(name, options, say);
      stage.serveModel(model);
      if (options.memory) {
        const { measureMemory, printMemory } = await import('./memory.mjs');
        const result = await measureMemory(stage, options, model);
        (report.memory ??= []).push(result);
        printMemory(result);
        save();
        continue;
      }
      if (options.plots) {
        const { measureGrowth } = await import('./growth.mjs');
        (report.growth ??= []).push(await measureGrowth(stage, options, model, say));
        save();
        continue;
      }
      for (const variant of options.builds) {
        for (const threads of options.threads) {
          const result = await measure(stage, options, model, { threads, variant });
          report.results.push(result);
          printResult(result);
          save();
        }
      }
      for (const peer of options.peers) {
        const { measurePeer } = await import(`./peer_${peer}.mjs`);
        (report.peers ??= []).push(
          ...(await measurePeer(stage, options, model, report.results, say)),
        );
        save();
      }
      if (options.native) {
        const { measureNative } = await import('./native.mjs');
        (report.native ??= []).push(await measureNative(options, model, report.results, say));
        save();
      }
    }
  } finally {
    await stage.close();
  }
  if (options.json) say(`\nwritten: ${options.json}`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    const options = parseArguments(process.argv.slice(2));
    if (options.help) console.log(HELP);
    else await main(options);
  } catch (error) {
    const { message, stack } = /** @type {Error} */ (error);
    say(`bench: ${process.env.DEBUG ? stack : message}`);
    process.exitCode = 1;
  }
}
