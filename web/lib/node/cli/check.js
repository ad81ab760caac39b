// Looks at a published page or model as a browser will, and says in plain sentences what to change on the host.
import { createHash } from 'node:crypto';
import { PocketVLError } from '../../errors.js';
import { CHUNK, checkManifest, fileName, isGguf, splitUrls } from '../../manifest.js';
import { request } from './http.js';

/** @typedef {import('./http.js').Answer} Answer */
/** @typedef {import('../../manifest.js').Manifest} Manifest */
/** @typedef {import('../../manifest.js').ModelFile} ModelFile */
/** @typedef {'ok' | 'note' | 'fix'} Level fix: has to be changed; note: works, could be better */
/** @typedef {(level: Level, text: string) => void} Say */

/**
 * @typedef {object} Options
 * @property {string} [origin] of the page that will load the model, where it lies on another host
 * @property {boolean} [quick] the first 16 MiB of every file instead of all
 * @property {AbortSignal} [signal]
 * @property {(done: number, total: number) => void} [onProgress] bytes of a model
 */

/** Many hosts take no larger files. */
const MOST_BYTES = 64e6;
const BROWSER = { 'Accept-Encoding': 'gzip, deflate, br', 'User-Agent': 'pocketvl check' };
/** What browsers send with a Range. */
const PLAIN = { 'Accept-Encoding': 'identity', 'User-Agent': 'pocketvl check' };
const JAVASCRIPT = /^(text|application)\/(x-)?(java|ecma)script\b/i;
/** Without these the page does not start; index.html names the others. */
const PAGE_FILES = [
  'app.js',
  'lib/pocketvl.js',
  'lib/worker.js',
  'vendor/idb.js',
  'wasm/pocketvl-relaxed.js',
  'wasm/pocketvl-relaxed.wasm',
  'wasm/pocketvl-simd.js',
  'wasm/pocketvl-simd.wasm',
];

const header = (/** @type {Answer} */ answer, /** @type {string} */ name) =>
  String(answer.headers[name] ?? '');
const typeOf = (/** @type {Answer} */ answer) => header(answer, 'content-type');
const mb = (/** @type {number} */ bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Hosts that do not have a file often send something else with status 200. */
function impostor(/** @type {Buffer} */ body) {
  const text = body.subarray(0, 200).toString('latin1').trimStart().toLowerCase();
  if (text.startsWith('version https://git-lfs')) {
    return 'is a Git LFS pointer, not the file: let the host check out LFS objects, or upload the file itself';
  }
  if (text.startsWith('<!doctype html') || text.startsWith('<html')) {
    return 'is a web page, not the file: the host sends its page for addresses that it does not have, so upload the file';
  }
  return '';
}

/**
 * @param {string} url of a page, a manifest.json or a GGUF file
 * @param {Say} say
 * @param {Options} [options]
 */
export async function check(url, say, options = {}) {
  const { pathname } = new URL(url);
  try {
    if (/\.(json|gguf)$/i.test(pathname)) await checkModel(url, say, options);
    else await checkPage(url, say, options);
  } catch (error) {
    if (!(error instanceof PocketVLError) || error.code === 'ABORTED') throw error;
    say('fix', error.message);
  }
}

/* ---- the page ---- */

/**
 * @param {string} url
 * @param {Say} say
 * @param {Options} options
 */
async function checkPage(url, say, options) {
  const page = await request(url, { headers: BROWSER, signal: options.signal });
  if (page.status !== 200) {
    return say(
      'fix',
      `${url} answers HTTP ${page.status}: upload build/site there, index.html included.`,
    );
  }
  const base = new URL(page.url);
  if (!/(\/|\.html)$/.test(base.pathname)) {
    return say(
      'fix',
      `${page.url} is answered without a slash at its end, so the page's relative addresses lead nowhere: let the host redirect to ${page.url}/, or publish that address.`,
    );
  }
  if (new URL(url).origin !== base.origin) say('note', `${url} leads to ${base.origin}.`);
  const encoded = header(page, 'content-encoding');
  if (!encoded && !/<[^>]*\bapp\.js\b/.test(page.body.toString())) {
    return say(
      'fix',
      `${page.url} is not PocketVL's page: upload the contents of build/site there.`,
    );
  }
  if (!/^text\/html\b/i.test(typeOf(page))) {
    say(
      'fix',
      `${page.url} has the type "${typeOf(page)}"; index.html has to be sent as text/html.`,
    );
  } else say('ok', `The page is at ${page.url}.`);
  checkIsolation(page, await pageFile(base, 'sw.js', () => {}, options.signal), say);
  checkPolicy(page, say);
  let good = 0;
  for (const name of PAGE_FILES) if (await pageFile(base, name, say, options.signal)) good++;
  if (good === PAGE_FILES.length) say('ok', `The ${good} files that it starts with are there.`);
  await checkModel(new URL('models/demo/manifest.json', base).href, say, options);
}

/**
 * @param {URL} base
 * @param {string} name
 * @param {Say} say
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<boolean>} usable
 */
async function pageFile(base, name, say, signal) {
  const url = new URL(name, base).href;
  const answer = await request(url, { headers: BROWSER, most: 4096, signal });
  if (answer.status !== 200) {
    say(
      'fix',
      `${name} is missing (HTTP ${answer.status}): upload all of build/site, folders included.`,
    );
    return false;
  }
  const wrong = header(answer, 'content-encoding') ? '' : impostor(answer.body);
  if (wrong) {
    say('fix', `${name} ${wrong}.`);
    return false;
  }
  const type = typeOf(answer);
  if (name.endsWith('.js') && !JAVASCRIPT.test(type)) {
    say(
      'fix',
      `${name} has the type "${type}", with which browsers run no script: send .js files as text/javascript.`,
    );
    return false;
  }
  if (name.endsWith('.wasm')) {
    if (!/^application\/wasm\b/i.test(type)) {
      say(
        'note',
        `${name} has the type "${type}"; as application/wasm it is compiled while it arrives.`,
      );
    }
    if (!header(answer, 'content-encoding')) {
      say(
        'note',
        `${name} is sent uncompressed; with gzip or Brotli for .wasm and .js the page is there sooner.`,
      );
    }
  }
  return true;
}

/**
 * @param {Answer} page
 * @param {boolean} worker sw.js can be registered
 * @param {Say} say
 */
function checkIsolation(page, worker, say) {
  const { protocol, hostname } = new URL(page.url);
  const local = hostname === 'localhost' || /^127\./.test(hostname) || hostname === '[::1]';
  if (protocol !== 'https:' && !local) {
    say(
      'fix',
      `${page.url} is plain http, where browsers allow neither threads nor a service worker: serve it by https.`,
    );
    return;
  }
  const opener = header(page, 'cross-origin-opener-policy').split(';')[0].trim();
  const embedder = header(page, 'cross-origin-embedder-policy').split(';')[0].trim();
  if (/cross-origin-isolated=\(\)/.test(header(page, 'permissions-policy'))) {
    say(
      'fix',
      'The host forbids isolation (Permissions-Policy: cross-origin-isolated=()), so there is one thread: remove that.',
    );
  } else if (opener === 'same-origin' && embedder === 'require-corp') {
    say('ok', 'Threads: the host sends the headers for isolation.');
  } else if (opener === 'same-origin' && embedder === 'credentialless') {
    say(
      'note',
      'Threads: Cross-Origin-Embedder-Policy is credentialless, which Safari does not know; send require-corp.',
    );
  } else if (worker) {
    say('ok', 'Threads: the service worker isolates the page, at the first visit by one reload.');
  } else {
    say(
      'fix',
      'One thread: there is no usable sw.js beside index.html and the host sends no headers for isolation. Upload sw.js ' +
        'as text/javascript, or send Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp.',
    );
  }
}

/**
 * The host's own content policy comes on top of the page's.
 * @param {Answer} page
 * @param {Say} say
 */
function checkPolicy(page, say) {
  const policy = header(page, 'content-security-policy');
  if (!policy) return;
  const sources = (/** @type {string} */ name) =>
    new RegExp(`(?:^|[;,])\\s*${name}\\s+([^;,]*)`, 'i').exec(policy)?.[1];
  const scripts = sources('script-src') ?? sources('default-src');
  if (scripts !== undefined && !/'(wasm-)?unsafe-eval'/.test(scripts)) {
    say(
      'fix',
      "The host's Content-Security-Policy forbids WebAssembly: add 'wasm-unsafe-eval' to its script-src.",
    );
  }
  const workers = sources('worker-src') ?? sources('child-src') ?? scripts;
  if (workers !== undefined && !/'self'|\*|https?:/.test(workers)) {
    say(
      'fix',
      "The host's Content-Security-Policy forbids the page's worker: add worker-src 'self'.",
    );
  }
}

/* ---- a model ---- */

/**
 * @param {string} url
 * @param {Say} say
 * @param {Options} options
 */
async function checkModel(url, say, options) {
  const manifest = isGguf(url)
    ? await bareModel(url, say, options)
    : await manifestAt(url, say, options);
  if (!manifest) return;
  const total = manifest.files.reduce((sum, { bytes }) => sum + bytes, 0);
  let faults = 0;
  const counted = (/** @type {Level} */ level, /** @type {string} */ text) => {
    if (level === 'fix') faults++;
    say(level, text);
  };
  let before = 0;
  for (const file of manifest.files) {
    /** @type {{name: string, url: string, bytes: number}[]} */
    const pieces = file.parts
      ? file.parts.map(({ name, bytes }) => ({ name, bytes, url: new URL(name, url).href }))
      : [{ name: file.name, bytes: file.bytes, url: new URL(file.url ?? file.name, url).href }];
    let sound = true;
    for (const piece of pieces) sound = (await probe(piece, url, counted, options)) && sound;
    if (sound)
      await hashes(file, pieces, counted, options, (done) =>
        options.onProgress?.(before + done, total),
      );
    before += file.bytes;
  }
  if (faults) return;
  const count = `${manifest.files.length} ${manifest.files.length === 1 ? 'file' : 'files'}, ${mb(total)}`;
  if (isGguf(url)) say('ok', `${manifest.name}: ${count}, there.`);
  else if (options.quick)
    say('ok', `${manifest.name}: ${count}; the first 16 MiB of each match the manifest.`);
  else say('ok', `${manifest.name}: ${count}; every byte matches the manifest.`);
}

/**
 * @param {string} url
 * @param {Say} say
 * @param {Options} options
 * @returns {Promise<Manifest | null>}
 */
async function manifestAt(url, say, options) {
  const headers = { ...PLAIN, ...(options.origin ? { Origin: options.origin } : {}) };
  const answer = await request(url, { headers, most: 16 << 20, signal: options.signal });
  const fix = (/** @type {string} */ text) => {
    say('fix', text);
    return null;
  };
  if (answer.status !== 200) {
    return fix(
      `There is no manifest at ${url} (HTTP ${answer.status}): upload the model's whole folder, manifest.json included.`,
    );
  }
  const wrong = impostor(answer.body);
  if (wrong) return fix(`${url} ${wrong}.`);
  let manifest;
  try {
    manifest = checkManifest(JSON.parse(answer.body.toString()), url);
  } catch (error) {
    const reason = error instanceof PocketVLError ? error.message : `${url} is not JSON.`;
    return fix(`${reason} Make it with pocketvl convert or pocketvl publish.`);
  }
  for (const { name, chunks } of manifest.files) {
    if (!chunks.length) return fix(`The manifest ${url} has no hashes for ${name}.`);
  }
  if (!cors(answer, url, say, options)) return null;
  return manifest;
}

/**
 * A model without a manifest: its files by the address of the first.
 * @param {string} url
 * @param {Say} say
 * @param {Options} options
 * @returns {Promise<Manifest | null>}
 */
async function bareModel(url, say, options) {
  say(
    'note',
    `${url} is loaded without a manifest.json, so damage on the way is not noticed; pocketvl publish makes one.`,
  );
  /** @type {ModelFile[]} */
  const files = [];
  for (const one of splitUrls(url)) {
    const answer = await request(one, { method: 'HEAD', headers: PLAIN, signal: options.signal });
    const bytes = Number(header(answer, 'content-length'));
    if (answer.status !== 200 || !(bytes > 0)) {
      const what = answer.status === 200 ? 'no Content-Length' : `HTTP ${answer.status}`;
      say('fix', `${one} is not there, or has no size (HEAD: ${what}).`);
      return null;
    }
    files.push({ name: fileName(one), bytes, chunks: [], url: one });
  }
  return { format: 1, name: fileName(url), files };
}

/**
 * @param {Answer} answer
 * @param {string} url
 * @param {Say} say
 * @param {Options} options
 */
function cors(answer, url, say, { origin }) {
  if (!origin || new URL(url).origin === origin) return true;
  const allowed = header(answer, 'access-control-allow-origin');
  if (allowed === '*' || allowed === origin) return true;
  say(
    'fix',
    `${new URL(url).origin} does not let pages of ${origin} read ${fileName(url)}: send Access-Control-Allow-Origin: * with the model's files.`,
  );
  return false;
}

/**
 * One file's headers, as at the first download and at one that is resumed.
 * @param {{name: string, url: string, bytes: number}} file
 * @param {string} manifestUrl
 * @param {Say} say
 * @param {Options} options
 * @returns {Promise<boolean>} its bytes can be compared
 */
async function probe({ name, url, bytes }, manifestUrl, say, options) {
  const { origin, signal } = options;
  /** @type {Record<string, string>} */
  const sender = origin ? { Origin: origin } : {};
  const first = await request(url, { headers: { ...BROWSER, ...sender }, most: 4096, signal });
  if (first.status !== 200) {
    say(
      'fix',
      `${name} is missing (HTTP ${first.status} for ${url}): upload it beside manifest.json.`,
    );
    return false;
  }
  const [home, there] = [new URL(manifestUrl).origin, new URL(first.url).origin];
  if (there !== home && (origin ?? home) === home) {
    say(
      'fix',
      `${name} leads to ${there}, where the page's policy allows no connection: keep it beside manifest.json.`,
    );
    return false;
  }
  if (there !== home) {
    say('note', `${name} is handed on to ${there}: a content policy has to allow that host, too.`);
  }
  if (!cors(first, first.url, say, options)) return false;
  const encoding = header(first, 'content-encoding');
  if (encoding) {
    say(
      'fix',
      `${name} is compressed on its way (Content-Encoding: ${encoding}), which gains nothing and hides its size: switch compression off for .gguf and .bin.`,
    );
  } else {
    const wrong = impostor(first.body);
    if (wrong) {
      say('fix', `${name} ${wrong}.`);
      return false;
    }
    const length = header(first, 'content-length');
    if (length && Number(length) !== bytes) {
      say(
        'fix',
        `${name} has ${length} bytes on the host, the manifest says ${bytes}: upload file and manifest anew, from the same folder.`,
      );
      return false;
    }
  }
  if (/^text\//i.test(typeOf(first))) {
    say(
      'fix',
      `${name} has the type "${typeOf(first)}", which hosts on the way may rewrite: send .gguf and .bin as application/octet-stream.`,
    );
  }
  if (bytes > MOST_BYTES) {
    say(
      'note',
      `${name} has ${mb(bytes)}; hosts with a limit for files take the parts that pocketvl publish makes.`,
    );
  }
  const from = Math.min(1, bytes - 1);
  const range = { Range: `bytes=${from}-${from}` };
  const part = await request(url, {
    headers: { ...PLAIN, ...sender, ...range },
    most: 4096,
    signal,
  });
  if (part.status !== 206 || header(part, 'content-range') !== `bytes ${from}-${from}/${bytes}`) {
    say(
      'fix',
      `${name} cannot be had in part (Range answers HTTP ${part.status}), so a broken download begins anew: switch byte ranges on.`,
    );
  }
  return true;
}

/**
 * Compares every chunk with its SHA-256; the first that differs is named.
 * @param {ModelFile} file
 * @param {{name: string, url: string}[]} pieces
 * @param {Say} say
 * @param {Options} options
 * @param {(done: number) => void} tell
 */
async function hashes(file, pieces, say, options, tell) {
  const { signal, quick } = options;
  if (!file.chunks.length) return;
  let chunk = 0;
  let left = file.chunks[0].bytes;
  let hash = createHash('sha256');
  let done = 0;
  let wrong = -1;
  let more = 0;
  const most = quick ? Math.min(CHUNK, file.chunks[0].bytes) : file.bytes;
  const take = (/** @type {Buffer} */ piece) => {
    for (let at = 0; at < piece.length && wrong < 0 && done < most;) {
      if (chunk >= file.chunks.length) return void (more += piece.length - at);
      const n = Math.min(left, piece.length - at);
      hash.update(piece.subarray(at, at + n));
      at += n;
      left -= n;
      done += n;
      if (left) continue;
      if (hash.digest('hex') !== file.chunks[chunk].sha256) wrong = chunk;
      hash = createHash('sha256');
      left = file.chunks[++chunk]?.bytes ?? 0;
    }
    tell(done);
  };
  for (const { url } of pieces) {
    const headers = quick ? { ...PLAIN, Range: `bytes=0-${most - 1}` } : PLAIN;
    const answer = await request(url, { headers, take, signal });
    if (header(answer, 'content-encoding')) return; // said already
    if (wrong >= 0 || done >= most) break;
  }
  const start = file.chunks.slice(0, Math.max(wrong, 0)).reduce((sum, { bytes }) => sum + bytes, 0);
  if (wrong >= 0) {
    say(
      'fix',
      `${file.name} is not what the manifest describes: it differs within the ${mb(file.chunks[wrong].bytes)} from byte ${start}. Upload it again, in binary mode, from the folder of this manifest.`,
    );
  } else if (done < most || more) {
    say('fix', `${file.name} ends after ${done} of ${file.bytes} bytes: upload it again.`);
  }
}
