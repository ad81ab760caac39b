// The page's service worker. It gives pages and scripts the headers that plain file servers do not send: isolation,
// without which there are no threads, and a content policy, which a <meta> alone does not give to workers. It answers
// for the files of the release that it was installed with, so that a later visit asks the network for nothing. Weights
// are left alone: the browser fetches them two to four times faster by itself, and the library stores them.
//
// New releases: precache.js, made by the build, names every file with its hash. Browsers look by themselves whether this
// script or that one has changed, when the page is already there; then the new files are fetched into a cache of their
// own, and the next visit that is alone gets all of them at once (page/isolate.js), never a mixture. Whichever worker runs
// then serves them: when a browser exchanges workers is its own affair.
const HEADERS = {
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Embedder-Policy': 'require-corp',
  'Cross-Origin-Resource-Policy': 'same-origin',
};
/** Larger files than this are not part of the page. */
const MOST_BYTES = 4 * 1048576;

const worker = /** @type {any} */ (self);
worker.importScripts('page/policy.js');

/** The policy with the host that the person chose for a model, if there is one. */
async function policy() {
  const { NAME, parse, policy: words } = worker.pocketvlPolicy;
  const kept = await caches
    .match(NAME, { cacheName: NAME })
    .then((response) => response?.text())
    .catch(() => undefined);
  return `${words(parse(kept))}; frame-ancestors 'self'`;
}

/** @typedef {{version: string, files: Record<string, string>}} Release files: SHA-256 by path */

/** The release that this worker came with. @type {Release} */
const own = (() => {
  try {
    worker.importScripts('precache.js');
  } catch {
    // Not built, as in the package: the network is asked first, and what came is kept.
  }
  return worker.release ?? { version: '', files: {} };
})();
const scope = String(worker.registration.scope);
const OURS = `pocketvl-page ${scope} `;
const STATE = `${OURS}state`;
/** What came from the network for want of something better: for visits without it. */
const KEPT = `${OURS}kept`;
const cacheOf = (/** @type {Release} */ { version }) => (version ? OURS + version : KEPT);
const addressIn = (/** @type {string} */ path) => new URL(path, scope).href;

/** What is written down beside the files, since workers come and go. @type {(name: 'current' | 'next') => Promise<Release | null>} */
const read = async (name) => {
  const found = await caches.match(addressIn(name), { cacheName: STATE }).catch(() => undefined);
  return found ? found.json() : null;
};
/** @param {'current' | 'next'} name @param {Release} release */
const write = async (name, release) =>
  (await caches.open(STATE)).put(addressIn(name), new Response(JSON.stringify(release)));

/** The release that pages get. @type {Promise<Release> | null} */
let serving = null;
const current = () => (serving ??= read('current').then((release) => release ?? own));

/** @param {Response} response */
async function withHeaders(response) {
  if (response.type === 'opaque' || response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  headers.set('Content-Security-Policy', await policy());
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}

/** @param {ArrayBuffer} bytes */
async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(digest, (b) => b.toString(16).padStart(2, '0')).join('');
}

/**
 * Brings what is missing of a release into its cache. A file that is not the release's (the host is in the middle of an
 * upload, or changes what it serves) stays out: for it the network is asked.
 * @param {Release} release
 */
async function complete(release) {
  const cache = await caches.open(cacheOf(release));
  const there = new Set((await cache.keys()).map(({ url }) => url));
  const bring = async (/** @type {string} */ url, /** @type {string} */ hash) => {
    const response = await fetch(url, { cache: 'no-cache' });
    const bytes = await response.arrayBuffer();
    if (response.status !== 200 || (await sha256(bytes)) !== hash) return;
    const type = response.headers.get('content-type') ?? '';
    await cache.put(url, new Response(bytes, { headers: { 'Content-Type': type } }));
  };
  await Promise.allSettled(
    Object.entries(release.files)
      .map(([path, hash]) => [addressIn(path), hash])
      .filter(([url]) => !there.has(url))
      .map(([url, hash]) => bring(url, hash)),
  );
}

/** Once in a life of this worker, and never in anybody's way. @type {Promise<void> | null} */
let completing = null;
const completed = (/** @type {Release} */ release) =>
  (completing ??= complete(release).catch(() => {}));

/** Pages get the next release from now on, if no other tab still needs the files of this one. */
async function takeNext() {
  const next = await read('next');
  if (!next || next.version === (await current()).version) return false;
  const windows = await worker.clients.matchAll({ type: 'window', includeUncontrolled: true });
  if (windows.filter((/** @type {any} */ { url }) => url.startsWith(scope)).length > 1)
    return false;
  await write('current', next);
  serving = Promise.resolve(next);
  return true;
}

/**
 * The address under which an answer to this request would be kept.
 * @param {Request} request
 */
function addressOf(request) {
  if (request.mode !== 'navigate') return request.url;
  const url = new URL(request.url);
  return url.origin + url.pathname.replace(/\/index\.html$/, '/');
}

/**
 * @param {Request} request
 * @param {(work: Promise<void>) => void} afterwards
 */
async function answer(request, afterwards) {
  const address = addressOf(request);
  const release = await current();
  const kept = (/** @type {string} */ cacheName) =>
    caches.match(address, { cacheName }).catch(() => undefined); // no storage: the page works, with its network
  const path = address.startsWith(scope) ? address.slice(scope.length) || './' : '';
  const released = Object.hasOwn(release.files, path);
  // Who asks for a reload of a single file wants the host's word. The page itself is the release's, also when reloaded.
  if (released && (request.mode === 'navigate' || request.cache !== 'reload')) {
    const known = await kept(cacheOf(release));
    if (known) return withHeaders(known);
    afterwards(completed(release));
  }
  try {
    let response = await fetch(request);
    // WebKit asks on its own whether what it has is still right, and then cannot take "not modified" from here.
    if (response.status === 304) response = await fetch(address, { cache: 'no-cache' });
    const size = Number(response.headers.get('content-length') ?? 0);
    if (response.status === 200 && !response.redirected && size <= MOST_BYTES) {
      const copy = response.clone();
      const keep = async () => (await caches.open(KEPT)).put(address, copy);
      afterwards(keep().catch(() => {}));
    }
    return withHeaders(response);
  } catch (error) {
    const known = await kept(KEPT);
    if (known) return withHeaders(known);
    throw error;
  }
}

worker.addEventListener('install', (/** @type {any} */ event) => {
  const install = async () => {
    await completed(own);
    await write('next', own);
  };
  event.waitUntil(install().catch(() => {})); // without storage it still isolates
});
worker.addEventListener('activate', (/** @type {any} */ event) => {
  // No page of an older release is open.
  const tidy = async () => {
    serving = Promise.resolve(own);
    await write('current', own);
    for (const name of await caches.keys()) {
      if (name.startsWith(OURS) && ![cacheOf(own), STATE, KEPT].includes(name))
        await caches.delete(name);
    }
  };
  // Pages that are there already stay as they are until their next load: what they are fetching is not disturbed.
  event.waitUntil(tidy().catch(() => {}));
});
worker.addEventListener('message', (/** @type {any} */ event) => {
  if (event.data !== 'newest release') return;
  const tell = (/** @type {boolean} */ taken) => event.ports[0]?.postMessage(taken);
  event.waitUntil(takeNext().then(tell, () => tell(false)));
});
worker.addEventListener('fetch', (/** @type {any} */ event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin) return;
  if (request.headers.has('range') || /\.(gguf|safetensors|bin)$/i.test(url.pathname)) return;
  if (request.cache === 'no-store') return; // weights under another name
  if (request.cache === 'only-if-cached' && request.mode !== 'same-origin') return;
  event.respondWith(answer(request, (work) => event.waitUntil(work)));
});
