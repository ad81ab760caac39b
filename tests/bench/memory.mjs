// `npm run bench -- --memory`: does a model load and answer within 32-bit memory, with a context of 4096 tokens, and
// does the estimate made before hold?
import { gb, ms } from './report.mjs';

const CONTEXT = 4096;
const ANSWER = 8;

/**
 * @param {import('./surroundings.mjs').Stage} stage
 * @param {import('./options.mjs').Options} options
 * @param {import('./surroundings.mjs').Model} model
 */
export async function measureMemory(stage, options, model) {
  const kvType = options.kv ?? model.kvType;
  const threads = options.threads[0];
  const variant = options.builds[0];
  await stage.reload(); // a fresh process, so that its peak is this model's
  const context = model.name === 'demo' ? 1024 : CONTEXT;
  const opened = await stage.call('open', {
    files: model.files,
    threads,
    variant,
    context,
    kvType,
    preload: false,
    reserve: false,
  });
  const size = opened.info.imageSize;
  const prompt = await stage.call('call', 'prompt', {
    digits: 32,
    seed: 1,
    keep: true,
    ...(opened.info.hasVision ? { width: size, height: size } : {}),
  });
  const answer = await stage.call('call', 'decode', { count: ANSWER });
  if (answer.times.length < ANSWER) {
    throw new Error(
      `The ${model.name} model answered ${answer.times.length} tokens, not ${ANSWER}.`,
    );
  }
  const { weights, kvCache, scratch, peakLoad } = opened.estimate;
  const estimate = weights + kvCache + scratch;
  const base = opened.heapBefore.end;
  const used = opened.memory.end - base;
  return {
    model: model.name,
    context,
    kv_type: kvType,
    file_bytes: model.bytes,
    estimate: { total: estimate, weights, kv_cache: kvCache, scratch, peak_load: peakLoad },
    used_bytes: used,
    used_over_estimate: used / estimate,
    // The heap grows in steps of up to 96 MiB: an upper bound.
    load_heap_bytes: opened.heapLoaded - base,
    answered_bytes: answer.memory.end - base,
    heap_bytes: answer.memory.heap,
    renderer_peak_bytes: stage.rendererPeak(),
    load_ms: opened.loadMs,
    prompt_ms: prompt.ms,
    answer_ms: answer.times,
    answer: answer.text,
  };
}

/** @param {Awaited<ReturnType<typeof measureMemory>>} r */
export function printMemory(r) {
  const e = r.estimate;
  const difference = 100 * (r.used_over_estimate - 1);
  console.log(
    `\n${r.model}: files ${gb(r.file_bytes)}, context ${r.context}, ${r.kv_type} cache\n` +
      `  estimated before  ${gb(e.total)} (weights ${gb(e.weights)}, cache ${gb(e.kv_cache)}, ` +
      `work ${gb(e.scratch)}); while loading at most ${gb(e.peak_load)}\n` +
      `  used when loaded  ${gb(r.used_bytes)}, ${difference >= 0 ? '+' : ''}${difference.toFixed(1)}% ` +
      `of the estimate; after an answer about a picture ${gb(r.answered_bytes)}\n` +
      `  heap              ${gb(r.load_heap_bytes)} after loading, ${gb(r.heap_bytes)} of 4.29 GB at the end; ` +
      `the page's process at most ${gb(r.renderer_peak_bytes)}\n` +
      `  loaded in ${ms(r.load_ms)} ms, picture and prompt in ${ms(r.prompt_ms)} ms`,
  );
}
