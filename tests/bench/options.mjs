// The command line of `npm run bench`.
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { cache, root } from '../../wasm/tools/shell.mjs';

/**
 * @typedef {object} Options
 * @property {boolean} help
 * @property {('1b' | '2b' | '4b' | 'demo' | 'folder')[]} models
 * @property {string} folder of a converted model, for the model "folder"
 * @property {'q4_0' | 'q8_0' | 'q4_k_m'} type
 * @property {'q8_0' | 'f16'} vision
 * @property {number[]} threads
 * @property {('relaxed' | 'simd')[]} builds
 * @property {string | undefined} kernels
 * @property {'f32' | 'q8' | undefined} kv
 * @property {number} prompt
 * @property {number} repeat
 * @property {boolean} quick
 * @property {string} json
 * @property {('wllama' | 'wllama-2.3.1' | 'wllama-3.8.1' | 'ort')[]} peers
 * @property {boolean} native
 * @property {boolean} memory
 * @property {boolean} load
 * @property {string} plots
 * @property {('tiles' | 'prompt')[]} of what the plots are of; prompts bring the context with them
 * @property {string} modules folder of the built modules
 * @property {string} ceilings file of the ceilings' module
 * @property {string} cache folder of made models and peers
 * @property {string} python
 */

export const HELP = `npm run bench [-- OPTIONS]
  --model 1b|2b|4b|demo     which model, several with commas (1b); all but demo are made, at full shape
  --folder FOLDER           instead: what convert wrote, with its manifest.json
  --type q4_0|q8_0|q4_k_m   types of a made language model (q4_0)
  --vision q8_0|f16         types of a made vision tower (q8_0)
  --threads N               several with commas (all cores, at most 8)
  --build relaxed|simd      several with commas (relaxed)
  --kernels NAME            a kernel set of the build, such as scalar
  --kv f32|q8               the cache's type (f32; 4b: q8)
  --prompt N                tokens of the prefill, and the context of the decode (512)
  --repeat N                rounds (3)
  --quick                   one round, no warm-up of the tile
  --json FILE               all samples as JSON
  --peer wllama|ort         the same work by another engine, several with commas; wllama-2.3.1, wllama-3.8.1: one version
  --native                  the same work by llama.cpp, through llama-cpp-python ($PYTHON or python3)
  --memory                  instead: load with a context of 4096, answer, compare with the estimate
  --load                    instead: first and second visit, against IndexedDB alone, with the heap sampled
  --plots FOLDER            instead: time against tiles, prompt and context, as SVG
  --of tiles|prompt         only these plots (both); with --quick half of the points`;

/**
 * @param {string[]} args
 * @returns {Options}
 */
export function parseArguments(args) {
  const bench = join(cache, 'bench');
  /** @type {Options} */
  const options = {
    help: false,
    models: ['1b'],
    folder: '',
    type: 'q4_0',
    vision: 'q8_0',
    threads: [Math.min(8, availableParallelism())],
    builds: ['relaxed'],
    kernels: undefined,
    kv: undefined,
    prompt: 512,
    repeat: 3,
    quick: false,
    json: '',
    peers: [],
    native: false,
    memory: false,
    load: false,
    plots: '',
    of: ['tiles', 'prompt'],
    modules: join(root, 'web', 'wasm'),
    ceilings: join(root, 'build', 'wasm', 'bench', 'ceilings.wasm'),
    cache: bench,
    python: process.env.PYTHON || 'python3',
  };
  for (let i = 0; i < args.length; i++) {
    const [name, inline] = args[i].split(/=(.*)/s);
    const value = () => {
      const v = inline ?? args[++i];
      if (!v) throw new Error(`${name} wants a value.`);
      return v;
    };
    const among = (/** @type {string[]} */ ...allowed) => {
      const v = value();
      if (!allowed.includes(v))
        throw new Error(`${name} is one of ${allowed.join(', ')}, not "${v}".`);
      return /** @type {any} */ (v);
    };
    const list = (/** @type {string[]} */ ...allowed) => {
      const parts = value().split(',');
      for (const part of parts) {
        if (!allowed.includes(part))
          throw new Error(`${name} is one of ${allowed.join(', ')}, not "${part}".`);
      }
      return /** @type {any} */ (parts);
    };
    const whole = (
      /** @type {string} */ text,
      /** @type {number} */ least,
      /** @type {number} */ most,
    ) => {
      if (!/^\d+$/.test(text) || Number(text) < least || Number(text) > most) {
        throw new Error(`${name} wants a whole number from ${least} to ${most}, not "${text}".`);
      }
      return Number(text);
    };
    if (name === '--help' || name === '-h') options.help = true;
    else if (name === '--model') options.models = list('1b', '2b', '4b', 'demo');
    else if (name === '--folder') ((options.folder = value()), (options.models = ['folder']));
    else if (name === '--type') options.type = among('q4_0', 'q8_0', 'q4_k_m');
    else if (name === '--vision') options.vision = among('q8_0', 'f16');
    else if (name === '--threads')
      options.threads = value()
        .split(',')
        .map((text) => whole(text, 1, 16));
    else if (name === '--build') options.builds = list('relaxed', 'simd');
    else if (name === '--kernels') options.kernels = value();
    else if (name === '--kv') options.kv = among('f32', 'q8');
    else if (name === '--prompt') options.prompt = whole(value(), 32, 16384);
    else if (name === '--repeat') options.repeat = whole(value(), 1, 100);
    else if (name === '--quick') ((options.quick = true), (options.repeat = 1));
    else if (name === '--json') options.json = value();
    else if (name === '--peer')
      options.peers = list('wllama', 'wllama-2.3.1', 'wllama-3.8.1', 'ort');
    else if (name === '--native') options.native = true;
    else if (name === '--memory') options.memory = true;
    else if (name === '--load') options.load = true;
    else if (name === '--plots') options.plots = value();
    else if (name === '--of') options.of = list('tiles', 'prompt');
    else if (name === '--modules') options.modules = value();
    else if (name === '--ceilings') options.ceilings = value();
    else throw new Error(`Unknown option ${args[i]}; npm run bench -- --help lists them.`);
  }
  return options;
}
