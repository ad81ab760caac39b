// `npm run bench -- --plots FOLDER`: time against tiles, prompt length and context, beside what the arithmetic says.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Costs, computeFloor, floor } from './cost.mjs';
import { LOOPS, LOOP_MS, ceilingsFrom, median } from './report.mjs';
import { plot } from './plot.mjs';

const TILES = [1, 2, 3, 4, 6, 9, 12];
const PROMPTS = [64, 128, 256, 512, 1024, 2048, 4096];
const TOKENS = 9;

/**
 * @param {import('./surroundings.mjs').Stage} stage
 * @param {import('./options.mjs').Options} options
 * @param {import('./surroundings.mjs').Model} model
 * @param {(text: string) => void} say
 */
export async function measureGrowth(stage, options, model, say) {
  const costs = await Costs.of(model.paths);
  const threads = options.threads[0];
  const variant = options.builds[0];
  const kvType = options.kv ?? (model.name === '4b' ? 'q8' : 'f32');
  const demo = model.name === 'demo';
  const longest = demo ? 900 : PROMPTS[PROMPTS.length - 1];
  const opened = await stage.call('open', {
    files: model.files,
    threads,
    variant,
    context: longest + TOKENS + 16,
    kvType,
    preload: model.bytes < 1.5e9,
    reserve: true,
  });
  const ceilings = async () => {
    const rates = await stage.call('ceilings', { names: LOOPS, threads, ms: LOOP_MS });
    const sum = (/** @type {number[]} */ values) => values.reduce((a, b) => a + b, 0);
    return ceilingsFrom((name) => sum(rates[name]), variant);
  };
  let seed = 1000;
  const warm = await stage.call('call', 'prompt', { digits: 64, seed: seed++ });
  const overhead = warm.stats.promptTokens - 64;
  /** @type {Record<'tiles' | 'prompt' | 'context', Map<number, {ms: number[], floor: number[]}>>} */
  const samples = { tiles: new Map(), prompt: new Map(), context: new Map() };
  const add = (
    /** @type {'tiles' | 'prompt' | 'context'} */ name,
    /** @type {number} */ x,
    /** @type {number} */ time,
    /** @type {number} */ least,
  ) => {
    const at = samples[name].get(x) ?? { ms: [], floor: [] };
    at.ms.push(time);
    at.floor.push(least);
    samples[name].set(x, at);
  };
  const size = opened.info.imageSize;
  const mostTiles = Math.floor((longest - overhead - 8) / (costs.visualTokens || longest)) - 1;
  const some = (/** @type {number[]} */ list) =>
    options.quick ? list.filter((_, i) => i % 2 === 0) : list;
  const tiles = options.of.includes('tiles') && costs.hasVision ? some(TILES) : [];
  const prompts = options.of.includes('prompt') ? some(PROMPTS) : [];
  for (let round = 1; round <= options.repeat; round++) {
    for (const columns of tiles.filter((n) => n <= mostTiles)) {
      say(`  round ${round}: a picture of ${columns} tiles`);
      const c = await ceilings();
      const done = await stage.call('call', 'prompt', {
        digits: 4,
        seed: seed++,
        width: size * columns,
        height: size,
        maxTiles: columns,
      });
      const { tiles: count, visionMs } = done.stats;
      add('tiles', count, visionMs, computeFloor(costs.tile(count), c));
    }
    for (const length of prompts.filter((n) => n <= longest)) {
      say(`  round ${round}: a prompt of ${length} tokens`);
      const c = await ceilings();
      const digits = Math.max(1, length - overhead);
      const done = await stage.call('call', 'prompt', { digits, seed: seed++ });
      const tokens = done.stats.promptTokens;
      add('prompt', tokens, done.stats.prefillMs, computeFloor(costs.prefill(tokens), c));
      const answer = await stage.call('call', 'decode', { count: TOKENS });
      const context = tokens + (TOKENS >> 1);
      add('context', context, median(answer.times), floor(costs.decode(context, kvType), c));
    }
  }
  const points = Object.fromEntries(
    Object.entries(samples).map(([name, list]) => [
      name,
      [...list]
        .map(([x, at]) => ({ x, ms: median(at.ms), floor_ms: median(at.floor) }))
        .sort((a, b) => a.x - b.x),
    ]),
  );

  mkdirSync(options.plots, { recursive: true });
  const titles = {
    tiles: ['Vision tower and projector', 'tiles', 'ms'],
    prompt: ['Prefill', 'tokens of the prompt', 'ms'],
    context: ['One token of the answer', 'tokens in the cache', 'ms'],
  };
  for (const [name, list] of Object.entries(points)) {
    if (!list.length) continue;
    const [title, x, y] = titles[/** @type {keyof typeof titles} */ (name)];
    const file = join(options.plots, `${model.name}-${name}.svg`);
    const label = `${title}, ${model.name}, ${threads} threads, ${variant}`;
    writeFileSync(file, plot({ title: label, x, y, points: list }));
    console.log(`\n${label}`);
    for (const p of list) {
      const fraction = ((100 * p.floor_ms) / p.ms).toFixed(0);
      console.log(
        `  ${String(p.x).padStart(6)} ${p.ms.toFixed(1).padStart(10)} ms  ${fraction}% of the ceiling`,
      );
    }
    say(`  written: ${file}`);
  }
  return { model: model.name, threads, variant, kv_type: kvType, points };
}
