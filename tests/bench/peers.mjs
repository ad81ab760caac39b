// `--peer wllama`: the npm package wllama, llama.cpp in WebAssembly, on the same files in the same browser. Two
// versions: 3.8.1 is the newest, 2.3.1 the last one that was built with ggml's SIMD kernels. The packages are fetched
// when they are asked for, into the user's cache; the project does not depend on them.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../wasm/tools/shell.mjs';
import { median, ms, number, table } from './report.mjs';

const VERSIONS = ['2.3.1', '3.8.1'];
const TOKENS = 33;
/** ms after which a round is not repeated. */
const LONG = 45_000;

/**
 * An npm package in the cache.
 * @param {string} cache
 * @param {string} name
 * @param {string} version
 * @param {(text: string) => void} say
 * @returns {Promise<string>} its folder
 */
export async function fetchPackage(cache, name, version, say) {
  const folder = join(cache, 'peers', `${name.replace('/', '+')}-${version}`);
  const target = join(folder, 'node_modules', name);
  if (existsSync(join(target, 'package.json'))) return target;
  say(`  fetching ${name} ${version} from npm ...`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{"private":true}\n');
  const args = [
    'install',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
    `${name}@${version}`,
  ];
  await run('npm', args, { cwd: folder, what: `npm install ${name}` });
  return target;
}

/**
 * @param {import('./surroundings.mjs').Stage} stage
 * @param {import('./options.mjs').Options} options
 * @param {import('./surroundings.mjs').Model} model
 * @param {any[]} results of ours
 * @param {(text: string) => void} say
 */
export async function measurePeer(stage, options, model, results, say) {
  const ours = results.filter((r) => r.model === model.name);
  const threads = ours[0]?.threads ?? options.threads[0];
  /** @type {any[]} */
  const found = [];
  const wanted = VERSIONS.filter((version) =>
    options.peers.some((peer) => peer === 'wllama' || peer === `wllama-${version}`),
  );
  for (const version of wanted) {
    const major = Number(version[0]);
    const folder = await fetchPackage(options.cache, '@wllama/wllama', version, say);
    const mount = `wllama-${version}`;
    stage.mount(folder, mount);
    const vision = major >= 3 && model.files.length > 1;
    say(`  wllama ${version}, ${threads} threads`);
    const page = await stage.newPage('page/wllama.html');
    try {
      await page.waitForFunction(() => 'peer' in globalThis, { timeout: 30_000 });
      const call = (/** @type {string} */ name, /** @type {unknown} */ args) =>
        page.evaluate(
          (verb, values) => /** @type {any} */ (globalThis).peer[verb](values),
          name,
          args,
        );
      const opened = await call('open', {
        major,
        base: `/${mount}/`,
        files: (vision ? model.files : model.files.slice(0, 1)).map((file) => file.url),
        threads,
        context: options.prompt + TOKENS + 320,
      });
      const samples = [];
      // The first one warms up, unless it took so long that it need not.
      for (let round = 0; round <= (options.quick ? 0 : options.repeat); round++) {
        say(`    ${options.prompt} tokens, then ${TOKENS}`);
        const args = { major, prompt: options.prompt, tokens: TOKENS, seed: 77 + round };
        const start = Date.now();
        const sample = await call('text', args);
        const long = Date.now() - start > LONG;
        if (sample.prompt_tokens < options.prompt || sample.tokens < TOKENS) {
          throw new Error(
            `wllama ${version} did ${sample.prompt_tokens} + ${sample.tokens} tokens only.`,
          );
        }
        if (round || options.quick || long) samples.push(sample);
        if (long) break;
      }
      let tile = null;
      if (vision) {
        say('    a picture of one tile (minutes)');
        tile = await call('tile', { size: 448 });
        if (!tile.tile_ms) {
          say(`    its log tells no time for the picture: ${(await call('log', {})).join('\n')}`);
        }
      }
      await call('close', {});
      found.push({
        peer: `wllama ${version}`,
        model: model.name,
        threads: opened.threads,
        load_ms: opened.load_ms,
        prefill_ms: median(samples.map((s) => s.prefill_ms)),
        prefill_tokens_per_second: median(
          samples.map((s) => (s.prompt_tokens / s.prefill_ms) * 1e3),
        ),
        decode_ms: median(samples.map((s) => s.decode_ms)),
        decode_tokens_per_second: 1e3 / median(samples.map((s) => s.decode_ms)),
        tile_ms: tile?.tile_ms || null,
        picture_to_first_token_ms: tile ? tile.first_token_ms : null,
        samples,
      });
    } finally {
      await page.close().catch(() => undefined);
    }
  }
  if (options.peers.includes('ort')) {
    const { measureOrt } = await import('./peer_ort.mjs');
    found.push(await measureOrt(stage, options, model, results, say));
  }
  printPeers(found, ours.find((r) => r.threads === threads) ?? null);
  return found;
}

/**
 * @param {any[]} peers
 * @param {any} our result, or null
 */
export function printPeers(peers, our) {
  const ratio = (/** @type {number} */ theirs, /** @type {number | undefined} */ mine) =>
    theirs && mine ? `${number(theirs / mine)}x` : '';
  const s = our?.stages ?? {};
  const rows = peers.map((p) => [
    p.peer,
    p.tile_ms ? ms(p.tile_ms) : '-',
    ratio(p.tile_ms, s.tile?.ms),
    ms(p.prefill_ms),
    ratio(p.prefill_ms, s.prefill?.ms),
    p.decode_ms ? ms(p.decode_ms) : '-',
    ratio(p.decode_ms, s.decode?.ms),
  ]);
  if (our) {
    rows.push([
      `ours, ${our.variant}`,
      s.tile ? ms(s.tile.ms) : '-',
      '',
      ms(s.prefill.ms),
      '',
      ms(s.decode.ms),
      '',
    ]);
  }
  console.log(`\nother engines, the same shapes and threads (ms; how many times ours is as fast)`);
  console.log(table(['', 'tile', '', 'prefill', '', 'token', ''], rows));
}
