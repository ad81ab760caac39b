// Whether a model fits into a page, told with the figures before its download begins.
import { PocketVLError } from './errors.js';

/** Most that WebAssembly gives a page: 4 GiB, of which malloc cannot use the last 64 KiB. */
export const MOST_BYTES = 65535 * 65536;
/** What the engine takes besides: its code's data, stacks, a picture, a chunk on its way. */
export const BESIDE_BYTES = 160 * 1048576;
/** Files smaller than this fit wherever a page runs: nobody has to look at them first. */
export const LOOK_FIRST = 512 * 1048576;

/**
 * @typedef {object} Need
 * @property {number} weights bytes, as all that follow
 * @property {number} kvCache keys and values of the context
 * @property {number} kvCacheQ8 the same in 8 bits; 0 when it is not known
 * @property {number} scratch
 * @property {number} context tokens
 * @property {'f32' | 'q8'} kvType what kvCache is in
 */

/**
 * What the manifest says that a model needs; null when it says nothing.
 * @param {import('./manifest.js').Manifest} manifest
 * @param {{context?: number, kvType?: 'f32' | 'q8'}} options
 * @returns {Need | null}
 */
export function needOf(manifest, options) {
  const m = manifest.memory;
  const keys = /** @type {const} */ (['context', 'weights', 'kvCache', 'kvCacheQ8', 'scratch']);
  if (!m || !keys.every((key) => typeof m[key] === 'number' && m[key] >= 0) || !m.context)
    return null;
  const longest = m.contextLength || m.context;
  const context = Math.min(options.context || m.context, longest);
  const kvType = options.kvType === 'q8' ? 'q8' : 'f32';
  const part = context / m.context;
  const kvCacheQ8 = Math.ceil(m.kvCacheQ8 * part);
  const kvCache = kvType === 'q8' ? kvCacheQ8 : Math.ceil(m.kvCache * part);
  return { weights: m.weights, kvCache, kvCacheQ8, scratch: m.scratch, context, kvType };
}

/** @param {Pick<Need, 'weights' | 'kvCache' | 'scratch'>} need */
export const totalOf = (need) => need.weights + need.kvCache + need.scratch;

const gb = (/** @type {number} */ bytes) => `${(bytes / 1e9).toFixed(2)} GB`;

/**
 * What a person can do about it, from the figures.
 * @param {Need} need
 * @param {number} most
 */
function advice(need, most) {
  const rest = need.weights + need.scratch;
  if (need.kvType === 'f32' && need.kvCacheQ8 && rest + need.kvCacheQ8 <= most)
    return `with an 8-bit cache (kvType: 'q8') it needs ${gb(rest + need.kvCacheQ8)}`;
  const tokens = need.kvCache ? ((most - rest) * need.context) / need.kvCache : 0;
  const context = Math.floor(tokens / 256) * 256;
  if (context >= 512) return `a context of ${context} tokens would fit`;
  return 'take a smaller model';
}

/**
 * Throws MEMORY when the model cannot be held.
 * @param {Need} need
 * @param {{most?: number, device?: number, grow?: (bytes: number) => boolean}} place `device`: gigabytes that
 *   navigator.deviceMemory tells, a power of two that is nearest to the truth; `grow`: takes so much of the
 *   page's memory now, false when the browser does not give it
 */
export function checkRoom(need, { most = MOST_BYTES, device = 0, grow }) {
  const total = totalOf(need);
  const fail = (/** @type {string} */ why, /** @type {number} */ limit) => {
    const room = Math.max(limit - BESIDE_BYTES, 0);
    throw new PocketVLError(
      'MEMORY',
      `This model needs ${gb(total)} of memory (weights ${gb(need.weights)}, ${gb(need.kvCache)} for a context ` +
        `of ${need.context} tokens, ${gb(need.scratch)} to work in), ${why}: ${advice(need, room)}. ` +
        'Nothing was downloaded.',
      { details: { ...need, total, most: room } },
    );
  };
  if (total + BESIDE_BYTES > most)
    fail(`but a page can have ${gb(Math.max(most - BESIDE_BYTES, 0))}`, most);
  const largest = 1.5 * device * 2 ** 30; // the next power of two would have been nearer
  if (device && total > largest) fail(`but this device has about ${device} GB in all`, largest);
  if (grow && !grow(total + BESIDE_BYTES))
    fail('but the browser does not give this page so much; close other tabs, or', total / 2);
}
