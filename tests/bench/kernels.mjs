// Each kernel of a WebAssembly build alone, in Node.js, as a fraction of the ceilings: by the processor's time, so that
// neighbours on the machine disturb less, on one thread.
//
//   npm run build -- bench
//   NODE tests/bench/kernels.mjs [relaxed|simd] [TEXT]     NODE: any version; TEXT: only operations with it in their name
//
// For every kernel set that the engine runs: GMAC/s (one row: GB/s of packed weights) and the fraction of the best
// integer loop, of the float loop for attention.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cpuUsage } from 'node:process';
import { root } from '../../wasm/tools/shell.mjs';
import { median } from './report.mjs';

const [variant = 'relaxed', only = ''] = process.argv.slice(2);
const TYPES = { f16: 1, q4_0: 2, q8_0: 8, q4_k: 12, q5_k: 13, q6_k: 14 };
/** @type {[string, keyof typeof TYPES, number, number, number, number?][]} rows, inputs, outputs, GELU */
const PRODUCTS = [
  ['vit qkv, F16', 'f16', 1025, 1024, 1024],
  ['vit up + gelu, F16', 'f16', 1025, 1024, 1024, 1],
  ['vit up, Q8_0', 'q8_0', 1025, 1024, 1024],
  ['vit down, Q8_0', 'q8_0', 1025, 4096, 512],
  ['1b up, Q4_0', 'q4_0', 256, 896, 2432],
  ['1b down, Q4_0', 'q4_0', 256, 4864, 448],
  ['1b up, Q8_0', 'q8_0', 256, 896, 1216],
  ['4b down, Q4_0', 'q4_0', 128, 8192, 512],
  ['4b up, Q4_K', 'q4_k', 256, 1024, 1216],
  ['one row in cache, Q4_0', 'q4_0', 1, 896, 1792],
  ['one row in cache, Q8_0', 'q8_0', 1, 896, 1792],
  ['one row from memory, Q4_0', 'q4_0', 1, 896, 300000],
  ['one row from memory, Q8_0', 'q8_0', 1, 896, 120000],
];
/** @type {[string, number, number, number, number, number, number][]} */
const ATTENTION = [
  ['vit attention', 1025, 1025, 4, 4, 64, 0],
  ['1b attention', 256, 512, 14, 2, 64, 1],
  ['4b attention, 8-bit cache', 256, 512, 8, 8, 96, 3],
  ['1b attention, one row', 1, 512, 14, 2, 64, 1],
  ['4b attention, one row, 8-bit cache', 1, 512, 32, 32, 96, 3],
];

/** @param {string} file */
function instance(file) {
  const module = new WebAssembly.Module(readFileSync(file));
  /** @type {Record<string, Record<string, any>>} */
  const imports = {};
  let memory;
  for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
    imports[from] ??= {};
    if (kind === 'memory')
      memory = new WebAssembly.Memory({ initial: 16000, maximum: 16000, shared: true });
    imports[from][name] = kind === 'memory' ? memory : () => 0;
  }
  const exports = /** @type {any} */ (new WebAssembly.Instance(module, imports).exports);
  exports._initialize?.();
  return { exports, memory: /** @type {WebAssembly.Memory} */ (memory ?? exports.memory) };
}

const cpu = () => (cpuUsage().user + cpuUsage().system) / 1e3;

/** ms of processor time of one call. @param {() => void} call @param {number} ms */
function time(call, ms) {
  call();
  const begun = cpu();
  call();
  const count = Math.max(1, Math.round(ms / Math.max(0.01, cpu() - begun)));
  const start = cpu();
  for (let i = 0; i < count; i++) call();
  return (cpu() - start) / count;
}

const build = join(root, 'build', 'wasm', 'bench');
const { exports: loops } = instance(join(build, 'ceilings.wasm'));
loops.prepare();
const ceiling = (/** @type {string} */ name) =>
  loops.macs_per_round() / time(() => loops[name](50), 20) / 2e4;
for (let i = 0; i < 300; i++)
  for (const name of ['i8_relaxed', 'i16', 'f32_relaxed', 'f32']) loops[name](100);
const top = (/** @type {boolean} */ floats) => {
  const names = floats ? ['f32'] : ['i16'];
  if (variant === 'relaxed') names.push(floats ? 'f32_relaxed' : 'i8_relaxed');
  return Math.max(...names.map(ceiling));
};

const { exports: kernels, memory } = instance(join(build, `kernel_loops-${variant}.wasm`));
const text = (/** @type {number} */ at) => {
  const bytes = new Uint8Array(memory.buffer);
  return Buffer.from(bytes.slice(at, bytes.indexOf(0, at))).toString();
};

/** @param {string} name @param {() => void} call @param {number} macs @param {number} bytes, 0: GMAC/s */
function report(name, call, macs, bytes, floats = false) {
  const rates = [];
  const fractions = [];
  for (let i = 0; i < 5; i++) {
    const most = top(floats);
    const took = time(call, 60);
    rates.push((bytes || macs) / took / 1e6);
    fractions.push(macs / took / 1e6 / most);
  }
  const unit = bytes ? 'GB/s' : 'GMAC/s';
  const share = (100 * median(fractions)).toFixed(0).padStart(4);
  console.log(
    `  ${name.padEnd(36)} ${median(rates).toFixed(1).padStart(6)} ${unit.padEnd(6)} ${share}%`,
  );
}

console.log(`${process.version}, V8 ${process.versions.v8}, ${variant}`);
for (let set = 0, at; (at = kernels.select_set(set)); set++) {
  const name = text(at);
  if (name === 'scalar') break;
  console.log(`${name}: ceilings ${top(false).toFixed(1)} and ${top(true).toFixed(1)} GMAC/s`);
  for (const [what, type, n, k, outputs, gelu = 0] of PRODUCTS) {
    if (!what.includes(only)) continue;
    const bytes = kernels.product(TYPES[type], n, k, outputs);
    report(what, () => kernels.run_product(gelu), n * k * outputs, n === 1 ? bytes : 0);
  }
  for (const [what, n, seen, heads, kv, d, flags] of ATTENTION) {
    if (!what.includes(only)) continue;
    kernels.attention(n, seen, heads, kv, d, flags);
    const pairs = n * seen - (flags & 1 ? (n * (n - 1)) / 2 : 0);
    report(what, () => kernels.run_attention(), 2 * pairs * heads * d, 0, true);
  }
}
for (const type of /** @type {(keyof typeof TYPES)[]} */ (Object.keys(TYPES))) {
  if (!`packing ${type}`.includes(only)) continue;
  kernels.product(TYPES[type], 1, 1024, 2048);
  let bytes = 0;
  const took = time(() => (bytes = kernels.pack()), 60);
  console.log(`  packing ${type.padEnd(28)} ${(bytes / took / 1e6).toFixed(2)} GB/s of the file`);
}
