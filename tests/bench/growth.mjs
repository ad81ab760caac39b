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
 * @typedef {{x: number, ms: number, floor_ms: number}} Point
 */

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
  /** @type {Record<'tiles' | 'prompt' | 'context', Point[]>} */
  const points = { tiles: [], prompt: [], context: [] };

  if (costs.hasVision) {
    const size = opened.info.imageSize;
    const most = Math.floor((longest - overhead - 8) / costs.visualTokens) - 1;
    for (const columns of TILES.filter((n) => n <= most)) {
      say(`  a picture of ${columns} tiles`);
      const c = await ceilings();
      const done = await stage.call('call', 'prompt', {
        digits: 4,
        seed: seed++,
        width: size * columns,
        height: size,
        maxTiles: columns,
      });
      const tiles = done.stats.tiles;
      points.tiles.push({
        x: tiles,
        ms: done.stats.visionMs,
        floor_ms: computeFloor(costs.tile(tiles), c),
      });
    }
  }
  for (const length of PROMPTS.filter((n) => n <= longest)) {
    say(`  a prompt of ${length} tokens`);
    const c = await ceilings();
    const done = await stage.call('call', 'prompt', {
      digits: Math.max(1, length - overhead),
      seed: seed++,
    });
    const tokens = done.stats.promptTokens;
    points.prompt.push({
      x: tokens,
      ms: done.stats.prefillMs,
      floor_ms: computeFloor(costs.prefill(tokens), c),
    });
    const answer = await stage.call('call', 'decode', { count: TOKENS });
    const context = tokens + Math.floor(TOKENS / 2);
    points.context.push({
      x: context,
      ms: median(answer.times),
      floor_ms: floor(costs.decode(context, kvType), c),
    });
  }

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
