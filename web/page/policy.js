// The page's content policy: it may connect to its own host and, where the person loads a model from another one, to that one
// alone. A classic script, because it has to come first: in the page's head it adds the policy before anything else runs,
// and the service worker, which gives the policy to workers as well, takes the same words from here.
(() => {
  /** What the person chose: localStorage for the page, a cache entry for the service worker, which has no localStorage. */
  const NAME = 'pocketvl-model-host';
  /** A host as a policy names it. Whatever else lies in the storage cannot become part of a policy. */
  const HOST = /^https?:\/\/(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*(:\d{1,5})?$/;
  const MOST_HOSTS = 4;

  /**
   * @param {unknown} text JSON: a list of hosts
   * @returns {string[]}
   */
  const parse = (text) => {
    try {
      const list = JSON.parse(String(text ?? '[]'));
      return Array.isArray(list) && list.length <= MOST_HOSTS && list.every((h) => HOST.test(h))
        ? list
        : [];
    } catch {
      return [];
    }
  };

  /** @param {string[]} hosts beside the page's own */
  const policy = (hosts) =>
    [
      "default-src 'none'",
      "script-src 'self' 'wasm-unsafe-eval'",
      "worker-src 'self'",
      ["connect-src 'self' blob:", ...hosts].join(' '),
      "img-src 'self' blob: data:",
      "style-src 'self'",
      "manifest-src 'self'",
      "base-uri 'none'",
      "form-action 'none'",
    ].join('; ');

  Object.assign(self, { pocketvlPolicy: { NAME, parse, policy } });

  if (typeof document === 'undefined') return;
  /** @type {string | null} */
  let kept = null;
  try {
    kept = localStorage.getItem(NAME);
  } catch {
    // no storage: the page's own host alone
  }
  const meta = document.createElement('meta');
  meta.httpEquiv = 'Content-Security-Policy';
  meta.content = policy(parse(kept));
  document.head.append(meta);
})();
