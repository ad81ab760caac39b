// What a model consists of: manifest.json, a bare GGUF address or pair, or files of the person's own.
import { PocketVLError } from './errors.js';

/** Bytes of a chunk: one SHA-256, one record in the store. */
export const CHUNK = 16 * 1048576;

/** @typedef {{bytes: number, sha256: string}} Chunk */
/** @typedef {{name: string, bytes: number}} Part a piece of a file, lying beside the manifest as a file of its own */
/**
 * @typedef {{name: string, bytes: number, chunks: Chunk[], url?: string, parts?: Part[], mark?: string}} ModelFile mark: of
 *   a file without hashes, what its host tells versions apart by
 */

/**
 * @typedef {object} Manifest
 * @property {1} format
 * @property {string} name
 * @property {string} [title]
 * @property {string} [license]
 * @property {string} [template]
 * @property {ModelFile[]} files
 * @property {{maxTiles?: number, context?: number, maxTokens?: number, temperature?: number, kvType?: 'f32' | 'q8'}} [settings]
 * @property {{context: number, contextLength?: number, weights: number, kvCache: number, kvCacheQ8: number,
 *   scratch: number, peakLoad?: number}} [memory] bytes for that context; kvCache as floats, kvCacheQ8 as 8 bits
 */

const MOST_FILES = 1000;
const MOST_BYTES = 2 ** 40;
const MOST_TEXT = 255; // characters of a name or title
const MOST_SETTING = 2 ** 20;

/** Absolute, with a scheme, or up the folders. */
const ELSEWHERE = /^[/\\]|^[a-z][a-z0-9+.-]*:|(^|[/\\])\.\.([/\\]|$)/i;

/** @param {string} message */
const bad = (message) => new PocketVLError('FORMAT', message);

const size = (/** @type {unknown} */ value) =>
  typeof value === 'number' && Number.isInteger(value) && value > 0 && value <= MOST_BYTES;

/**
 * Checks a parsed manifest.json.
 * @param {any} value
 * @param {string} from its address, for the message
 * @returns {Manifest}
 */
export function checkManifest(value, from) {
  const fail = (/** @type {string} */ what) => bad(`The manifest ${from} is not usable: ${what}.`);
  if (typeof value !== 'object' || value === null) throw fail('it is not an object');
  if (value.format !== 1)
    throw fail(`its format is ${JSON.stringify(value.format)}, this page reads format 1`);
  if (!Array.isArray(value.files) || !value.files.length) throw fail('it lists no files');
  if (value.files.length > MOST_FILES) throw fail(`it lists more than ${MOST_FILES} files`);
  for (const file of value.files) {
    if (typeof file?.name !== 'string' || !file.name) throw fail('a file has no name');
    if (file.name.length > MOST_TEXT || ELSEWHERE.test(file.name))
      throw fail(`${JSON.stringify(file.name.slice(0, 60))} is not the name of a file beside it`);
    if (file.url !== undefined && typeof file.url !== 'string')
      throw fail(`the address of ${file.name} is not a text`);
    if (!size(file.bytes)) throw fail(`the size of ${file.name} is missing`);
    if (!Array.isArray(file.chunks)) throw fail(`${file.name} has no chunks`);
    let sum = 0;
    for (const chunk of file.chunks) {
      if (!size(chunk?.bytes) || chunk.bytes > 4 * CHUNK)
        throw fail(`${file.name} has a chunk of a wrong size`);
      if (!/^[0-9a-f]{64}$/.test(chunk.sha256))
        throw fail(`${file.name} has a chunk without a SHA-256`);
      sum += chunk.bytes;
    }
    if (sum !== file.bytes)
      throw fail(`the chunks of ${file.name} make ${sum} bytes, not ${file.bytes}`);
    checkParts(file, fail);
  }
  const texts = Object.fromEntries(
    ['title', 'license', 'template']
      .filter((key) => value[key] !== undefined)
      .map((key) => [key, String(value[key]).slice(0, MOST_TEXT)]),
  );
  const name = String(value.name ?? 'model').slice(0, MOST_TEXT);
  return /** @type {Manifest} */ ({ ...value, ...texts, name, settings: settingsOf(value) });
}

/** What a manifest suggests, as far as it makes sense: an odd value is as good as none. */
function settingsOf(/** @type {any} */ { settings }) {
  /** @type {Record<string, number | string>} */
  const kept = {};
  for (const key of ['maxTiles', 'context', 'maxTokens'])
    if (size(settings?.[key]) && settings[key] <= MOST_SETTING) kept[key] = settings[key];
  const { temperature, kvType } = settings ?? {};
  if (typeof temperature === 'number' && temperature >= 0 && temperature <= 100)
    kept.temperature = temperature;
  if (kvType === 'f32' || kvType === 'q8') kept.kvType = kvType;
  return kept;
}

/**
 * The address of a manifest's file. A manifest names files of its own host alone: the person chose that one.
 * @param {Pick<ModelFile, 'name' | 'url'>} file
 * @param {string} from the manifest's address
 */
export function fileUrl({ name, url }, from) {
  const base = new URL(from);
  let made = null;
  try {
    made = new URL(url ?? name.split('/').map(encodeURIComponent).join('/'), base);
  } catch {
    // told below
  }
  if (!made || made.protocol !== base.protocol || made.host !== base.host)
    throw bad(
      `The manifest ${from} is not usable: ${name} would come from another host (${made?.host || 'none'}); only files of ${base.host} are taken.`,
    );
  return made.href;
}

/**
 * @param {any} file
 * @param {(what: string) => PocketVLError} fail
 */
function checkParts({ name, bytes, parts }, fail) {
  if (parts === undefined) return;
  if (!Array.isArray(parts) || !parts.length || parts.length > MOST_FILES)
    throw fail(`${name} has a wrong list of parts`);
  let sum = 0;
  for (const part of parts) {
    // A plain name: parts lie beside the manifest, nowhere else.
    if (typeof part?.name !== 'string' || !/^[\w.-]+$/.test(part.name) || /^\.+$/.test(part.name))
      throw fail(`${name} has a part without a plain name`);
    if (!size(part.bytes)) throw fail(`the size of ${part.name} is missing`);
    sum += part.bytes;
  }
  if (sum !== bytes) throw fail(`the parts of ${name} make ${sum} bytes, not ${bytes}`);
}

/**
 * The addresses of a split GGUF (NAME-00001-of-00005.gguf), or the one address.
 * @param {string} url
 * @returns {string[]}
 */
export function splitUrls(url) {
  const match = /-(\d{5})-of-(\d{5})\.gguf(?=$|[?#])/i.exec(url);
  if (!match) return [url];
  const count = Number(match[2]);
  if (count < 1 || count > MOST_FILES) throw bad(`The address ${url} names ${count} parts.`);
  return Array.from({ length: count }, (_, i) =>
    url.replace(match[0], `-${String(i + 1).padStart(5, '0')}-of-${match[2]}.gguf`),
  );
}

/** @param {string} url */
export const fileName = (url) => {
  const path = url.split(/[?#]/)[0];
  const last = path.slice(path.lastIndexOf('/') + 1);
  try {
    return decodeURIComponent(last) || url;
  } catch {
    return last; // a lone % is no escape
  }
};

/** @param {string} url */
export const isGguf = (url) => /\.gguf(?=$|[?#])/i.test(url);

const STRIDE = 512;

/**
 * One byte of every 512, folded into 32 bits: what a load can afford to check of a stored chunk. Several of them lie in
 * every block of a file system, so that a block that was lost or belongs to something else shows.
 * @param {number} value of the bytes before, 0 at the start
 * @param {Uint8Array} bytes
 * @param {number} offset of them in the chunk
 */
export function sampled(value, bytes, offset) {
  for (let i = (STRIDE - (offset % STRIDE)) % STRIDE; i < bytes.length; i += STRIDE)
    value = (Math.imul(value, 31) + bytes[i]) | 0;
  return value;
}

/**
 * @param {ArrayBuffer | Uint8Array<ArrayBuffer>} bytes
 * @returns {Promise<string>} SHA-256 in hexadecimal
 */
export async function sha256(bytes) {
  if (!globalThis.crypto?.subtle)
    return sha256Slow(bytes instanceof Uint8Array ? bytes : new Uint8Array(bytes));
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (b) => b.toString(16).padStart(2, '0')).join('');
}

/** The constants of FIPS 180-4: fractional parts of roots of the first primes. */
const { K, H } = (() => {
  /** @type {number[]} */
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const fraction = (/** @type {number} */ x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
  return {
    K: Int32Array.from(primes, (p) => fraction(Math.cbrt(p))),
    H: Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p))),
  };
})();

/**
 * SHA-256 for pages that are served over plain http, where browsers have no crypto.subtle.
 * @param {Uint8Array} bytes
 */
export function sha256Slow(bytes) {
  const h = H.slice();
  const w = new Int32Array(64);
  const tail = new Uint8Array(bytes.length % 64 < 56 ? 64 : 128);
  const whole = bytes.length - (bytes.length % 64);
  tail.set(bytes.subarray(whole));
  tail[bytes.length - whole] = 0x80;
  new DataView(tail.buffer).setBigUint64(tail.length - 8, BigInt(bytes.length) * 8n);
  const block = (/** @type {DataView} */ view, /** @type {number} */ at) => {
    for (let i = 0; i < 16; i++) w[i] = view.getInt32(at + 4 * i);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15];
      const y = w[i - 2];
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3);
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let [a, b, c, d, e, f, g, k] = h;
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (k + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i]) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [k, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    [a, b, c, d, e, f, g, k].forEach((v, i) => (h[i] = (h[i] + v) | 0));
  };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < whole; at += 64) block(view, at);
  for (let at = 0; at < tail.length; at += 64) block(new DataView(tail.buffer), at);
  return Array.from(h, (v) => (v >>> 0).toString(16).padStart(8, '0')).join('');
}
