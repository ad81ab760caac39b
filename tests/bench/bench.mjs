// `npm run bench`: what the engine reaches in headless Chromium, as a fraction of what the same loops reach on the same
// cores in the same run. Options: see README.md in this folder, or --help.
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { pathToFileURL } from 'node:url';
import { parseArguments, HELP } from './options.mjs';
import { measure, printComparison, printResult } from './stages.mjs';
import { browse, provideModel } from './surroundings.mjs';

/** @typedef {import('./options.mjs').Options} Options */

const say = (/** @type {string} */ text) => process.stderr.write(`${text}\n`);

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
      if (options.load) {
        const { measureLoad, printLoad } = await import('./load.mjs');
        const result = await measureLoad(stage, options, model);
        (report.load ??= []).push(result);
        printLoad(result);
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
          const result = await measure(stage, options, model, { threads, variant }, say);
          report.results.push(result);
          printResult(result);
          save();
        }
      }
      printComparison(report.results.filter((/** @type {any} */ r) => r.model === name));
      if (options.peers.length) {
        const { measurePeer } = await import('./peers.mjs');
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
