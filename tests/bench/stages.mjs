// The stages of one model under one setting (build, threads), in turns with the ceilings, and their table.
import { Costs, computeFloor, floor } from './cost.mjs';
import { LOOPS, LOOP_MS, ceilingsFrom, gb, median, ms, number, table } from './report.mjs';

/** @typedef {import('./cost.mjs').Ceilings} Ceilings */
/** @typedef {import('./cost.mjs').Cost} Cost */
/** @typedef {import('./options.mjs').Options} Options */
/** @typedef {import('./surroundings.mjs').Model} Model */
/** @typedef {import('./surroundings.mjs').Stage} Stage */
/** @typedef {{threads: number, variant: 'relaxed' | 'simd'}} Setting */

/**
 * @typedef {object} StageResult
 * @property {number} ms median
 * @property {number[]} samples ms
 * @property {number} gmacs multiply-adds per nanosecond
 * @property {number} floor_ms what the ceilings of the same run allow
 * @property {number} fraction floor_ms / ms
 * @property {number} [tokens]
 * @property {number} [tokens_per_second]
 * @property {string} [note]
 */

/** Tokens of the answer that are timed in a round. */
const DECODE_TOKENS = 33;
/** Prompt of a picture and a short question, as the peers were measured. */
const PICTURE_PROMPT = 278;
/** Larger models are not held in the page's memory beside the engine's. */
const MOST_PRELOADED = 1.5e9;

const sum = (/** @type {number[]} */ values) => values.reduce((a, b) => a + b, 0);

/** The engine in the page, with the prompts that the stages need. */
class Engine {
  /**
   * @param {Stage} stage
   * @param {number} promptTokens of the prefill
   */
  constructor(stage, promptTokens) {
    this.stage = stage;
    this.promptTokens = promptTokens;
    this.seed = 10;
    this.overhead = 0;
    /** End of the heap's last live block, at its highest. */
    this.peak = 0;
    this.heap = 0;
  }

  /** @param {string} verb @param {Record<string, unknown>} args */
  async call(verb, args) {
    const done = await this.stage.call('call', verb, args);
    this.peak = Math.max(this.peak, done.memory.end);
    this.heap = done.memory.heap;
    return done;
  }

  /**
   * @param {Options} options
   * @param {Model} model
   * @param {Setting} setting
   * @param {'f32' | 'q8'} kvType
   */
  async open(options, model, { threads, variant }, kvType) {
    const opened = await this.stage.call('open', {
      files: model.files,
      threads,
      variant,
      context: Math.max(this.promptTokens + 2 * DECODE_TOKENS, 1024),
      kvType,
      kernels: options.kernels,
      preload: model.bytes < MOST_PRELOADED,
      reserve: true,
    });
    this.peak = opened.memory.end;
    return opened;
  }

  /** Learns how many tokens the template adds; the browser's optimizing compiler takes up the code. */
  async learn() {
    const digits = 32;
    const done = await this.call('prompt', { digits, seed: this.seed++ });
    this.overhead = done.stats.promptTokens - digits;
  }

  /**
   * A picture of one tile and a short question.
   * @param {number} size pixels of a side
   * @param {number} visualTokens
   */
  async picture(size, visualTokens) {
    const digits = Math.max(1, PICTURE_PROMPT - visualTokens - this.overhead - 3);
    const done = await this.call('prompt', {
      digits,
      seed: this.seed++,
      width: size,
      height: size,
    });
    if (done.stats.tiles !== 1) {
      throw new Error(`${done.stats.tiles} tiles were encoded instead of one.`);
    }
    return { tile: done.stats.visionMs, first: done.ms, tokens: done.stats.promptTokens };
  }

  async prefill() {
    const digits = Math.max(1, this.promptTokens - this.overhead);
    const done = await this.call('prompt', { digits, seed: this.seed++ });
    if (done.stats.reusedTokens) throw new Error('Tokens were reused: this was no whole prefill.');
    return { ms: done.stats.prefillMs, tokens: done.stats.promptTokens };
  }

  /** Times of tokens behind such a prompt; models that end their answer early are asked again. */
  async decode() {
    /** @type {number[]} */
    const times = [];
    for (let prompts = 0; times.length < DECODE_TOKENS && prompts < DECODE_TOKENS; prompts++) {
      if (prompts) await this.prefill();
      times.push(...(await this.call('decode', { count: DECODE_TOKENS - times.length })).times);
    }
    if (!times.length) throw new Error('The model gave no answer to be timed.');
    return times;
  }
}

/**
 * @param {number[]} samples ms
 * @param {Cost} cost
 * @param {number} least ms
 * @param {Partial<StageResult>} more
 * @returns {StageResult}
 */
function stageResult(samples, cost, least, more = {}) {
  const time = median(samples);
  /** @type {StageResult} */
  const result = {
    ms: time,
    samples,
    gmacs: (cost.linear + cost.attention) / time / 1e6,
    floor_ms: least,
    fraction: least / time,
    ...more,
  };
  if (more.tokens) result.tokens_per_second = (more.tokens / time) * 1e3;
  return result;
}

/**
 * @param {Stage} stage
 * @param {Options} options
 * @param {Model} model
 * @param {Setting} setting
 * @param {(text: string) => void} say
 */
export async function measure(stage, options, model, setting, say) {
  const { threads, variant } = setting;
  const costs = await Costs.of(model.paths);
  const kvType = options.kv ?? model.kvType;
  const engine = new Engine(stage, options.prompt);
  /** @type {Record<string, number[]>} */
  const rates = {};
  const ceilings = async () => {
    const found = await stage.call('ceilings', { names: LOOPS, threads, ms: LOOP_MS });
    for (const name of LOOPS) (rates[name] ??= []).push(sum(found[name]));
  };

  say(`  loading with ${threads} thread${threads > 1 ? 's' : ''}, ${variant} ...`);
  const loads = [];
  for (let i = 0; i < (options.quick ? 1 : 2); i++) {
    loads.push(await engine.open(options, model, setting, kvType));
  }
  const opened = loads[loads.length - 1];
  await engine.learn();
  /** @type {{tile: number[], first: number[], prefill: number[], decode: number[]}} */
  const times = { tile: [], first: [], prefill: [], decode: [] };
  let [tokens, firstTokens] = [0, 0];
  // Round 0 does not count: code is still being optimized.
  for (let round = 0; round <= options.repeat; round++) {
    say(round ? `  round ${round} of ${options.repeat}` : '  warm-up');
    if (round) await ceilings();
    if (costs.hasVision && (round || !options.quick)) {
      const done = await engine.picture(opened.info.imageSize, costs.visualTokens);
      firstTokens = done.tokens;
      if (round) (times.tile.push(done.tile), times.first.push(done.first));
    }
    if (round) await ceilings();
    const prompt = await engine.prefill();
    const answer = await engine.decode();
    tokens = prompt.tokens;
    if (round) (times.prefill.push(prompt.ms), times.decode.push(...answer));
  }
  await ceilings();

  const c = ceilingsFrom((name) => median(rates[name]), variant);
  /** @type {Record<string, StageResult>} */
  const stages = {};
  if (times.tile.length) {
    const tile = costs.tile();
    stages.tile = stageResult(times.tile, tile, computeFloor(tile, c));
    const prompt = costs.prefill(firstTokens);
    const both = {
      linear: tile.linear + prompt.linear,
      attention: tile.attention + prompt.attention,
      bytes: 0,
    };
    stages.picture_to_first_token = stageResult(times.first, both, computeFloor(both, c), {
      note: `${firstTokens} prompt tokens`,
    });
  }
  const prefill = costs.prefill(tokens);
  stages.prefill = stageResult(times.prefill, prefill, computeFloor(prefill, c), { tokens });
  const decode = costs.decode(tokens + DECODE_TOKENS / 2, kvType);
  stages.decode = stageResult(times.decode, decode, floor(decode, c), {
    tokens: 1,
    note: `context ${tokens} and more`,
  });
  return {
    model: model.name,
    files: model.files.map(({ name, bytes }) => ({ name, bytes })),
    variant,
    kernels: opened.info.kernels,
    threads,
    kv_type: kvType,
    ceilings: { int8_gmacs: c.int8, f32_gmacs: c.f32, read_gb_s: c.read, loops: rates },
    start: {
      total_ms: median(loads.map((load) => load.totalMs)),
      module_ms: median(loads.map((load) => load.startMs)),
      load_ms: median(loads.map((load) => load.loadMs)),
      preloaded: model.bytes < MOST_PRELOADED,
    },
    stages,
    peak_bytes: engine.peak - opened.heapBefore.end,
    heap_bytes: engine.heap,
    renderer_peak_bytes: stage.rendererPeak(),
    weight_bytes: opened.stats.weightBytes,
    kv_bytes: opened.stats.kvBytes,
    scratch_bytes: opened.stats.scratchBytes,
  };
}

/** @typedef {Awaited<ReturnType<typeof measure>>} Result */

/** @param {Result} r */
export function printResult(r) {
  const c = r.ceilings;
  const files = r.files.map(({ name }) => name).join(' + ');
  const threads = `${r.threads} thread${r.threads > 1 ? 's' : ''}`;
  console.log(`\n${r.model}: ${files}`);
  console.log(`build ${r.variant}, kernels ${r.kernels}, ${threads}, ${r.kv_type} cache`);
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
    `start ${ms(r.start.total_ms)} ms: module and threads ${ms(r.start.module_ms)}, ` +
      `weights ${from} ${ms(r.start.load_ms)}`,
  );
  console.log(
    `peak memory ${gb(r.peak_bytes)}: weights ${gb(r.weight_bytes)}, cache ${gb(r.kv_bytes)}, ` +
      `work ${gb(r.scratch_bytes)}; the page's process ${gb(r.renderer_peak_bytes)}`,
  );
}

/**
 * How one model's settings compare: more threads with one, relaxed SIMD with plain.
 * @param {Result[]} results of one model
 */
export function printComparison(results) {
  /** @type {string[][]} */
  const rows = [];
  const compare = (
    /** @type {string} */ what,
    /** @type {Result} */ slow,
    /** @type {Result} */ fast,
  ) => {
    const row = ['tile', 'prefill', 'decode'].map((name) =>
      slow.stages[name] && fast.stages[name]
        ? `${number(slow.stages[name].ms / fast.stages[name].ms)}x`
        : '-',
    );
    rows.push([what, ...row]);
  };
  for (const r of results) {
    const one = results.find((other) => other.variant === r.variant && other.threads === 1);
    if (one && r.threads > 1) compare(`${r.variant}: ${r.threads} threads over one`, one, r);
    const plain = results.find((other) => other.variant === 'simd' && other.threads === r.threads);
    if (plain && r.variant === 'relaxed')
      compare(`${r.threads} threads: relaxed over simd`, plain, r);
  }
  if (rows.length) console.log(`\n${table(['', 'tile', 'prefill', 'decode'], rows)}`);
}
