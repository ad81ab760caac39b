// `--native`: the same language model file in llama.cpp, through llama-cpp-python, on as many threads.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root } from '../../wasm/tools/shell.mjs';
import { number, table } from './report.mjs';

/**
 * Runs native.py; null where llama-cpp-python is not installed.
 * @param {string} python
 * @param {Record<string, string | number>} options
 * @returns {Promise<any>}
 */
function run(python, options) {
  const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
  return new Promise((done, fail) => {
    const child = spawn(python, [join(root, 'tests', 'bench', 'native.py'), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [out, err] = ['', ''];
    child.stdout.on('data', (text) => (out += text));
    child.stderr.on('data', (text) => (err += text));
    child.on('error', () => done(null));
    child.on('close', (code) => {
      if (code === 3) return done(null);
      if (code !== 0) return fail(new Error(`llama.cpp failed: ${err.trim().split('\n').pop()}`));
      done(JSON.parse(out.trim().split('\n').pop() ?? ''));
    });
  });
}

/**
 * @param {import('./options.mjs').Options} options
 * @param {import('./surroundings.mjs').Model} model
 * @param {any[]} results of ours
 * @param {(text: string) => void} say
 */
export async function measureNative(options, model, results, say) {
  const ours = results.filter((r) => r.model === model.name);
  const threads = ours[0]?.threads ?? options.threads[0];
  say(`  llama.cpp, ${threads} threads`);
  const native = await run(options.python, {
    model: model.paths[0],
    threads,
    prompt: options.prompt,
    tokens: 33,
    repeat: options.repeat,
  });
  if (!native) {
    console.log(
      `\nllama-cpp-python is not installed for ${options.python}: pip install llama-cpp-python, or name another in $PYTHON.`,
    );
    return { model: model.name, installed: false };
  }
  console.log(`\nllama.cpp, native (llama-cpp-python ${native.version}), ${threads} threads`);
  const rows = ours
    .filter((r) => r.threads === threads)
    .flatMap((r) => [
      [
        `prefill, ${r.variant}`,
        number(native.prefill_tokens_per_second),
        number(r.stages.prefill.tokens_per_second),
        `${number(r.stages.prefill.tokens_per_second / native.prefill_tokens_per_second)}x`,
      ],
      [
        `decode, ${r.variant}`,
        number(native.decode_tokens_per_second),
        number(r.stages.decode.tokens_per_second),
        `${number(r.stages.decode.tokens_per_second / native.decode_tokens_per_second)}x`,
      ],
    ]);
  console.log(table(['tokens/s', 'native', 'ours', 'ours/native'], rows));
  return { model: model.name, installed: true, ...native };
}
