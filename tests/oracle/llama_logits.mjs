// Next-token probabilities of llama.cpp (through node-llama-cpp), for llama_compare.py.
//
//   node tests/oracle/llama_logits.mjs FOLDER JOBS.json ROWS.json
//
// FOLDER holds node_modules/node-llama-cpp. JOBS: [{model, ids, rows, context}]; ROWS: for each job the last `rows`
// rows, each a list of [token, probability].
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, jobsFile, rowsFile] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${resolve(folder)}/`));
const entry = require.resolve('node-llama-cpp');
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href);

const llama = await getLlama({
  gpu: false,
  build: 'never',
  skipDownload: true,
  progressLogs: false,
  logLevel: LlamaLogLevel.error,
  maxThreads: 2,
});
/** @type {[number, number][][][]} */
const out = [];
for (const job of JSON.parse(readFileSync(jobsFile, 'utf8'))) {
  const model = await llama.loadModel({ modelPath: job.model, gpuLayers: 0, useMmap: false });
  const context = await model.createContext({
    contextSize: job.context,
    batchSize: 512,
    threads: 2,
    flashAttention: false,
  });
  const first = job.ids.length - job.rows;
  const input = job.ids.map((/** @type {number} */ id, /** @type {number} */ i) =>
    i < first ? id : [id, { generateNext: { probabilities: true } }],
  );
  const results = await context.getSequence().controlledEvaluate(input);
  out.push(results.slice(first).map((/** @type {any} */ r) => [...r.next.probabilities]));
  await context.dispose();
  await model.dispose();
}
writeFileSync(rowsFile, JSON.stringify(out));
process.exit(0);
