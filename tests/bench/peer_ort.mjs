// `--peer ort`: a tile and a prompt by onnxruntime-web, int8, in the same browser: the fastest WebAssembly peer for both.
// It cannot read GGUF; the models are made here, at the same shapes.
import { writeFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { decoderPrompt, visionTower } from './onnx.mjs';
import { fetchPackage } from './peers.mjs';
import { median } from './report.mjs';

const VERSION = '1.30.0';

/**
 * @param {import('./surroundings.mjs').Stage} stage
 * @param {import('./options.mjs').Options} options
 * @param {import('./surroundings.mjs').Model} model
 * @param {any[]} results of ours
 * @param {(text: string) => void} say
 */
export async function measureOrt(stage, options, model, results, say) {
  if (model.name !== '1b') throw new Error('--peer ort measures the 1b only.');
  const threads = results.find((r) => r.model === model.name)?.threads ?? options.threads[0];
  stage.mount(await fetchPackage(options.cache, 'onnxruntime-web', VERSION, say), 'ort');
  const folder = join(options.cache, 'ort');
  mkdirSync(folder, { recursive: true });
  stage.mount(folder, 'ort-models');
  /** @type {Record<string, any>} */
  const found = {
    peer: `onnxruntime-web ${VERSION}, int8`,
    model: model.name,
    threads,
    prompt: options.prompt,
  };
  const stages = {
    tile: () => visionTower(896),
    prefill: () => decoderPrompt(options.prompt),
  };
  for (const [name, make] of Object.entries(stages)) {
    say(`  onnxruntime-web, ${threads} threads: ${name}`);
    const { bytes, input } = make();
    writeFileSync(join(folder, `${name}.onnx`), bytes);
    const page = await stage.newPage('page/ort.html');
    try {
      await page.waitForFunction(() => 'peer' in globalThis, { timeout: 30_000 });
      const args = {
        base: '/ort/',
        url: `/ort-models/${name}.onnx`,
        input,
        threads,
        repeat: options.quick ? 1 : options.repeat,
      };
      const done = await page.evaluate(
        (values) => /** @type {any} */ (globalThis).peer('run', values),
        args,
      );
      found[`${name}_ms`] = median(done.samples);
      found[`${name}_load_ms`] = done.load_ms;
    } finally {
      await page.close().catch(() => undefined);
    }
  }
  return found;
}
