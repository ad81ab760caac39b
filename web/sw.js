// The page's service worker. It gives pages and scripts the headers that plain file servers do not send: isolation,
// without which there are no threads, and a content policy, which a <meta> alone does not give to workers. It keeps the
// page for visits without a network. Weights are left alone: the browser fetches them two to four times faster by
// itself, and the library stores them.
const CACHE = 'pocketvl-page';
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

/** @param {Response} response */
async function withHeaders(response) {
  if (response.type === 'opaque' || response.status === 0) return response;
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  headers.set('Content-Security-Policy', await policy());
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}

/** @param {Request} request */
async function answer(request) {
  try {
    const response = await fetch(request);
    const size = Number(response.headers.get('content-length') ?? 0);
    if (response.ok && response.status === 200 && !response.redirected && size <= MOST_BYTES) {
      const copy = response.clone();
      caches
        .open(CACHE)
        .then((cache) => cache.put(request, copy))
        .catch(() => {}); // no storage: the page works, only not without a network
    }
    return withHeaders(response);
  } catch (error) {
    const kept = await caches
      .match(request, { ignoreSearch: request.mode === 'navigate' })
      .catch(() => undefined);
    if (kept) return withHeaders(kept);
    throw error;
  }
}

worker.addEventListener('install', () => worker.skipWaiting());
worker.addEventListener('activate', (/** @type {any} */ event) =>
  event.waitUntil(worker.clients.claim()),
);
worker.addEventListener('fetch', (/** @type {any} */ event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || url.origin !== location.origin) return;
  if (request.headers.has('range') || /\.(gguf|safetensors|bin)$/i.test(url.pathname)) return;
  if (request.cache === 'only-if-cached' && request.mode !== 'same-origin') return;
  event.respondWith(answer(request));
});
