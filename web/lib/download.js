// Bytes of one file from the network, over broken connections, stalls and hosts with habits.
import { PocketVLError, aborted, checkSignal, sleep } from './errors.js';

/**
 * @typedef {object} Patience
 * @property {number} tries in a row without a single new byte
 * @property {number} base ms before the second try; doubles, with jitter
 * @property {number} longest ms between two tries
 * @property {number} stall ms without a byte until a connection counts as dead
 */

/** @type {Patience} */
export const PATIENCE = { tries: 6, base: 500, longest: 15000, stall: 30000 };

/** An answer that another try will not change. */
class Final extends PocketVLError {}

const host = (/** @type {string} */ url) => {
  try {
    return new URL(url).host;
  } catch {
    return url;
  }
};

/**
 * What an HTTP status means for a person.
 * @param {number} status
 * @param {string} url
 */
function refusal(status, url) {
  const details = { status, url };
  const say = (/** @type {string} */ text) => new Final('NETWORK', text, { details });
  if (status === 404 || status === 410)
    return say(`There is no file at ${url} (HTTP ${status}); check the address.`);
  if (status === 401 || status === 403) {
    return say(
      `${host(url)} does not allow the download of ${url} (HTTP ${status}); it may need a login or a licence.`,
    );
  }
  return say(`${host(url)} answered HTTP ${status} for ${url}.`);
}

const worthAnotherTry = (/** @type {number} */ status) =>
  status === 408 || status === 425 || status === 429 || status >= 500;

/** @param {Response} response */
function retryAfter(response) {
  const value = response.headers.get('retry-after');
  if (!value) return 0;
  const seconds = Number(value);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now();
  return Math.min(Math.max(ms || 0, 0), 60000);
}

/**
 * Resolves when the browser says that there is a network again.
 * @param {AbortSignal} signal
 */
async function online(signal) {
  while (globalThis.navigator?.onLine === false) await sleep(500, signal);
}

/**
 * Tries until it works, is refused for good, or patience ends.
 * @template T
 * @param {string} url
 * @param {{signal: AbortSignal, patience?: Patience, onWait?: (reason: string) => void}} context
 * @param {(attempt: {signal: AbortSignal, alive: () => void}) => Promise<T>} work calls `alive` whenever bytes came
 * @returns {Promise<T>}
 */
async function persist(url, context, work) {
  const patience = context.patience ?? PATIENCE;
  const { signal } = context;
  for (let tries = 1; ; tries++) {
    checkSignal(signal);
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener('abort', stop, { once: true });
    let stalled = false;
    const stall = () => {
      stalled = true;
      attempt.abort();
    };
    let timer = setTimeout(stall, patience.stall);
    const alive = () => {
      tries = 0;
      clearTimeout(timer);
      timer = setTimeout(stall, patience.stall);
    };
    try {
      return await work({ signal: attempt.signal, alive });
    } catch (thrown) {
      if (signal.aborted) throw aborted();
      if (thrown instanceof Final || (thrown instanceof PocketVLError && thrown.code !== 'NETWORK'))
        throw thrown;
      const error = /** @type {any} */ (thrown);
      const reason = stalled
        ? `no byte for ${Math.round(patience.stall / 1000)} s`
        : error.name === 'TypeError' || !error.message
          ? 'the network is down, the address is wrong, or the host does not allow other sites (CORS)'
          : error.message;
      if (tries >= patience.tries) {
        throw new PocketVLError(
          'NETWORK',
          `${url} could not be downloaded: ${reason}. What has arrived is kept; try again to go on from there.`,
          { cause: thrown, details: { url, status: error.details?.status } },
        );
      }
      const backoff = Math.min(patience.base * 2 ** Math.max(tries - 1, 0), patience.longest);
      const wait = Math.max(backoff * (0.5 + Math.random()), error.retryAfter ?? 0);
      context.onWait?.(globalThis.navigator?.onLine === false ? 'offline' : reason);
      await online(signal);
      await sleep(wait, signal);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', stop);
    }
  }
}

/**
 * @param {Response} response
 * @param {string} url
 */
function checkStatus(response, url) {
  if (response.ok) return;
  if (!worthAnotherTry(response.status)) throw refusal(response.status, url);
  throw Object.assign(
    new PocketVLError('NETWORK', `${host(url)} answered HTTP ${response.status}`, {
      details: { status: response.status },
    }),
    { retryAfter: retryAfter(response) },
  );
}

/**
 * The pieces of bytes start..end of a file, as they come.
 * @param {string} url
 * @param {{start: number, end: number, total: number}} range end: first byte not wanted
 * @param {{signal: AbortSignal, patience?: Patience, onWait?: (reason: string) => void}} context
 * @param {(bytes: Uint8Array) => Promise<void>} take awaited: a slow taker slows the connection down
 */
export async function download(url, range, context, take) {
  const { end, total } = range;
  let at = range.start;
  await persist(url, context, async ({ signal, alive }) => {
    while (at < end) {
      const part = at > 0 || end < total;
      /** @type {Record<string, string>} */
      const headers = part ? { Range: `bytes=${at}-${end < total ? end - 1 : ''}` } : {};
      const response = await fetch(url, { headers, signal, cache: 'no-store' });
      if (response.status === 416) throw changed(url);
      checkStatus(response, url);
      let skip = 0;
      if (part && response.status !== 206) skip = at; // a host without ranges sends the whole file
      const range = /^bytes (\d+)-\d+\/(\d+|\*)/.exec(response.headers.get('content-range') ?? '');
      if (response.status === 206 && range) {
        if (Number(range[1]) !== at)
          throw new Error(`the host sent other bytes than were asked for`);
        if (range[2] !== '*' && Number(range[2]) !== total) throw changed(url);
      }
      if (!response.body) throw new Error('the answer has no body');
      const reader = response.body.getReader();
      try {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          alive();
          const from = Math.min(skip, value.length);
          skip -= from;
          const piece = value.subarray(from, from + (end - at));
          if (piece.length) {
            await take(piece);
            at += piece.length;
          }
          alive(); // storing and packing are no stall of the network
          // The end of an exact answer is read, so that the browser does not count it as broken off.
          if (at >= end && !(response.status === 206 || end === total)) break;
        }
      } finally {
        reader.cancel().catch(() => {});
      }
      if (at < end) throw new Error(`the connection ended after ${at} of ${end} bytes`);
    }
  });
}

/**
 * The same for a file that a host may keep in parts, because it takes no files as large as that.
 * @param {import('./manifest.js').ModelFile} file
 * @param {{start: number, end: number}} range
 * @param {{signal: AbortSignal, patience?: Patience, onWait?: (reason: string) => void}} context
 * @param {(bytes: Uint8Array) => Promise<void>} take
 */
export async function downloadFile(file, { start, end }, context, take) {
  const whole = file.url ?? '';
  if (!file.parts) return download(whole, { start, end, total: file.bytes }, context, take);
  let before = 0;
  for (const { name, bytes } of file.parts) {
    const range = {
      start: Math.max(start - before, 0),
      end: Math.min(end - before, bytes),
      total: bytes,
    };
    if (range.start < range.end) {
      await download(new URL(encodeURIComponent(name), whole).href, range, context, take);
    }
    before += bytes;
  }
}

/** @param {string} url */
function changed(url) {
  return new Final(
    'INTEGRITY',
    `The file at ${url} has another size than the manifest says; it was replaced.`,
    {
      details: { url, changed: true },
    },
  );
}

/**
 * A small file as text.
 * @param {string} url
 * @param {{signal: AbortSignal, patience?: Patience, onWait?: (reason: string) => void}} context
 * @param {number} most bytes
 */
export function fetchText(url, context, most) {
  return persist(url, context, async ({ signal, alive }) => {
    const response = await fetch(url, { signal, cache: 'no-cache' });
    checkStatus(response, url);
    alive();
    const bytes = await response.arrayBuffer();
    if (bytes.byteLength > most) {
      throw new Final(
        'LIMIT',
        `${url} has ${bytes.byteLength} bytes; at most ${most} are expected of a manifest.`,
      );
    }
    return new TextDecoder().decode(bytes);
  });
}

/**
 * Size of a file, and a mark that changes when the file does, where the host shows one.
 * @param {string} url
 * @param {{signal: AbortSignal, patience?: Patience, onWait?: (reason: string) => void}} context
 */
export function fetchSize(url, context) {
  return persist(url, context, async ({ signal }) => {
    const mark = (/** @type {Response} */ r) =>
      r.headers.get('etag') ?? r.headers.get('last-modified') ?? '';
    const head = await fetch(url, { method: 'HEAD', signal, cache: 'no-store' });
    const length = Number(head.headers.get('content-length'));
    if (head.ok && length > 0 && !head.headers.get('content-encoding')) {
      return { bytes: length, mark: mark(head) };
    }
    if (!head.ok && ![405, 501].includes(head.status)) checkStatus(head, url);
    const one = await fetch(url, { headers: { Range: 'bytes=0-0' }, signal, cache: 'no-store' });
    checkStatus(one, url);
    one.body?.cancel().catch(() => {});
    const range = /\/(\d+)$/.exec(one.headers.get('content-range') ?? '');
    const bytes =
      one.status === 206 ? Number(range?.[1]) : Number(one.headers.get('content-length'));
    if (bytes > 0) return { bytes, mark: mark(one) };
    throw new Final(
      'NETWORK',
      `${host(url)} does not say how large ${url} is; give a manifest.json beside it.`,
    );
  });
}
