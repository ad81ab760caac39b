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
  const details = { status, url, reason: 'status' };
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
 * Why a `fetch` that says nothing failed. Browsers tell a page neither that a host refuses other sites nor that the page's
 * own policy does: the first is found by asking without wanting to read, the second by listening.
 * @typedef {'offline' | 'policy' | 'cors' | 'redirect' | 'unreachable' | 'stall' | 'status' | 'broken'} Reason
 */

/** @type {Record<'offline' | 'policy' | 'cors' | 'redirect' | 'unreachable', (host: string) => string>} */
const WORDS = {
  offline: () => 'this device is offline',
  policy: (name) =>
    `this page's content policy allows no connection to ${name}, or to where it sends on`,
  cors: (name) => `${name} is there, but does not allow other sites to read from it (CORS)`,
  redirect: (name) =>
    `${name} sends on to another host, which cannot be reached or which this page's content policy does not allow`,
  unreachable: (name) =>
    `${name} cannot be reached: it is down, the address is wrong, or it does not allow other sites (CORS)`,
};

/**
 * Notes whether the page's content policy refuses this address while `stop` was not called.
 * @param {string} url
 */
function watchPolicy(url) {
  const watch = { refused: false, stop: () => {} };
  const listen = (/** @type {any} */ { blockedURI }) => {
    watch.refused ||= host(String(blockedURI)) === host(url);
  };
  globalThis.addEventListener?.('securitypolicyviolation', listen);
  watch.stop = () => globalThis.removeEventListener?.('securitypolicyviolation', listen);
  return watch;
}

/**
 * Whether a host answers at all, asked without wanting to read. In an isolated page the browser hides that, too.
 * @param {string} url
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>}
 */
const answers = (url, signal) =>
  fetch(url, { method: 'HEAD', mode: 'no-cors', cache: 'no-store', signal }).then(
    () => true,
    () => false,
  );

/**
 * Whether a host sends on to somewhere else. Firefox tells a worker nothing of a redirect that its policy refuses where a
 * service worker stands between.
 * @param {string} url
 * @param {AbortSignal} signal
 * @returns {Promise<boolean>}
 */
const sendsOn = (url, signal) =>
  fetch(url, { method: 'HEAD', redirect: 'manual', cache: 'no-store', signal }).then(
    ({ type }) => type === 'opaqueredirect',
    () => false,
  );

/**
 * @param {string} url
 * @param {{refused: boolean}} policy
 * @param {AbortSignal} signal
 * @returns {Promise<keyof typeof WORDS>}
 */
async function reasonOf(url, policy, signal) {
  if (globalThis.navigator?.onLine === false) return 'offline';
  await sleep(20, signal); // the report comes after the failure
  if (policy.refused) return 'policy';
  const own = globalThis.location?.origin;
  if (!own || new URL(url).origin === own) return 'unreachable';
  if (await answers(url, signal)) return 'cors';
  return (await sendsOn(url, signal)) ? 'redirect' : 'unreachable';
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
    let came = false;
    const alive = () => {
      came = true;
      tries = 0;
      clearTimeout(timer);
      timer = setTimeout(stall, patience.stall);
    };
    const policy = watchPolicy(url);
    try {
      return await work({ signal: attempt.signal, alive });
    } catch (thrown) {
      clearTimeout(timer);
      if (signal.aborted) throw aborted();
      if (thrown instanceof Final || (thrown instanceof PocketVLError && thrown.code !== 'NETWORK'))
        throw thrown;
      const error = /** @type {any} */ (thrown);
      /** @type {Reason} */
      let reason = error.details?.status ? 'status' : 'broken';
      let words = error.message;
      if (stalled) {
        reason = 'stall';
        words = `no byte for ${Math.round(patience.stall / 1000)} s`;
      } else if (came && error.name === 'TypeError') {
        words = 'the connection broke off';
      } else if (error.name === 'TypeError' || !error.message) {
        const found = await reasonOf(url, policy, signal);
        reason = found;
        words = WORDS[found](host(url));
      }
      const details = { url, reason, status: error.details?.status };
      if (reason === 'policy' || reason === 'cors') {
        throw new Final('NETWORK', `${url} cannot be downloaded: ${words}.`, {
          cause: thrown,
          details,
        });
      }
      if (tries >= patience.tries) {
        throw new PocketVLError(
          'NETWORK',
          `${url} could not be downloaded: ${words}. What has arrived is kept; try again to go on from there.`,
          { cause: thrown, details },
        );
      }
      const backoff = Math.min(patience.base * 2 ** Math.max(tries - 1, 0), patience.longest);
      const wait = Math.max(backoff * (0.5 + Math.random()), error.retryAfter ?? 0);
      context.onWait?.(words);
      await online(signal);
      await sleep(wait, signal);
    } finally {
      policy.stop();
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

const PIECE = 1048576;

/**
 * A body in pieces: into one buffer, over and over, where the browser has byte streams.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {{read: () => Promise<Uint8Array | undefined>, cancel: () => void}} a piece is valid until the next read
 */
function piecesOf(body) {
  /** @type {ReadableStreamBYOBReader | null} */
  let bytes = null;
  try {
    bytes = body.getReader({ mode: 'byob' });
  } catch {
    // WebKit
  }
  if (!bytes) {
    const reader = body.getReader();
    return {
      read: async () => (await reader.read()).value,
      cancel: () => void reader.cancel().catch(() => {}),
    };
  }
  const reader = bytes;
  let buffer = new ArrayBuffer(PIECE);
  return {
    async read() {
      const { done, value } = await reader.read(new Uint8Array(buffer));
      if (value) ({ buffer } = value);
      return done ? undefined : value;
    },
    cancel: () => void reader.cancel().catch(() => {}),
  };
}

/** What tells versions of a file apart. Tags come last: they differ between a host's servers, and with compression. */
const markOf = (/** @type {Response} */ { headers }) =>
  headers.get('last-modified') ?? headers.get('etag')?.replace(/^W\/|-gzip(?="$)/g, '') ?? '';

/**
 * The pieces of bytes start..end of a file, as they come.
 * @param {string} url
 * @param {{start: number, end: number, total: number}} range end: first byte not wanted
 * @param {{signal: AbortSignal, patience?: Patience, onWait?: (reason: string) => void, mark?: string}} context `mark`: of a
 *   file without hashes, as fetchSize gave it; with another one it was replaced
 * @param {(bytes: Uint8Array) => Promise<void>} take awaited: a slow taker slows the connection down. The bytes are valid
 *   until it is done
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
      if (context.mark && markOf(response) && markOf(response) !== context.mark) throw changed(url);
      let skip = 0;
      if (part && response.status !== 206) skip = at; // a host without ranges sends the whole file
      const range = /^bytes (\d+)-\d+\/(\d+|\*)/.exec(response.headers.get('content-range') ?? '');
      if (response.status === 206 && range) {
        if (Number(range[1]) !== at)
          throw new Error(`the host sent other bytes than were asked for`);
        if (range[2] !== '*' && Number(range[2]) !== total) throw changed(url);
      }
      if (!response.body) throw new Error('the answer has no body');
      const exact = response.status === 206 || end === total; // the answer ends where the wish does
      const { read, cancel } = piecesOf(response.body);
      try {
        for (;;) {
          const value = await read();
          if (!value) break;
          alive();
          const from = Math.min(skip, value.length);
          skip -= from;
          const piece = value.subarray(from, from + (end - at));
          if (exact && from + piece.length < value.length) throw changed(url);
          if (piece.length) {
            await take(piece);
            at += piece.length;
          }
          alive(); // storing and packing are no stall of the network
          // An exact answer is read to its end, so that the browser does not count it as broken off.
          if (at >= end && !exact) break;
        }
      } finally {
        cancel();
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
    `The file at ${url} is not the one that was announced: it was replaced, or its host tells a wrong size.`,
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
 * @param {RequestCache} [cache] 'reload' goes past what a service worker keeps of this release
 */
export function fetchText(url, context, most, cache = 'no-cache') {
  return persist(url, context, async ({ signal, alive }) => {
    const response = await fetch(url, { signal, cache });
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
    const head = await fetch(url, { method: 'HEAD', signal, cache: 'no-store' });
    const length = Number(head.headers.get('content-length'));
    if (head.ok && length > 0 && !head.headers.get('content-encoding')) {
      return { bytes: length, mark: markOf(head) };
    }
    if (!head.ok && ![405, 501].includes(head.status)) checkStatus(head, url);
    const one = await fetch(url, { headers: { Range: 'bytes=0-0' }, signal, cache: 'no-store' });
    checkStatus(one, url);
    one.body?.cancel().catch(() => {});
    const range = /\/(\d+)$/.exec(one.headers.get('content-range') ?? '');
    const bytes =
      one.status === 206 ? Number(range?.[1]) : Number(one.headers.get('content-length'));
    if (bytes > 0) return { bytes, mark: markOf(one) };
    throw new Final(
      'NETWORK',
      `${host(url)} does not say how large ${url} is; give a manifest.json beside it.`,
    );
  });
}
