// Which host the page may load a model from beside its own: the one that the person chose, and no other. The content policy
// enforces it (policy.js), so a change needs a reload.
import { HUB } from './addresses.js';

/** @typedef {{NAME: string, parse: (text: unknown) => string[], policy: (hosts: string[]) => string}} Policy */

const { NAME, parse } = /** @type {{pocketvlPolicy: Policy}} */ (
  /** @type {unknown} */ (globalThis)
).pocketvlPolicy;

/** Hosts that hand downloads on to others of theirs: a policy has to name those, too. */
const HANDS_ON = /** @type {Record<string, string[]>} */ ({
  [HUB]: ['https://*.hf.co', 'https://*.huggingface.co'],
});

/** The host of an address, or '' where it is the page's own. @param {string} address */
export function foreignHost(address) {
  const { origin } = new URL(address, document.baseURI);
  return origin === location.origin ? '' : origin;
}

/** The hosts that the page may connect to now. @returns {string[]} */
export function chosenHosts() {
  try {
    return parse(localStorage.getItem(NAME));
  } catch {
    return [];
  }
}

/** All hosts that loading from this one needs. @param {string} host */
export const hostsOf = (host) => [host, ...(HANDS_ON[host] ?? [])];

/**
 * Makes this host the chosen one, in place of any other; '' for none. It counts from the next load of the page.
 * @param {string} host
 */
export async function chooseHost(host) {
  const text = JSON.stringify(host ? hostsOf(host) : []);
  try {
    if (host) localStorage.setItem(NAME, text);
    else localStorage.removeItem(NAME);
  } catch {
    return; // nothing can be remembered, so the page stays with its own host
  }
  await tellServiceWorker(text);
}

/** @param {string} text */
async function tellServiceWorker(text) {
  if (!('caches' in globalThis)) return;
  const cache = await caches.open(NAME).catch(() => null);
  await cache?.put(new URL(NAME, document.baseURI), new Response(text)).catch(() => {});
}

/** Both places agree again where a browser has emptied one of them. */
export async function syncHosts() {
  const hosts = chosenHosts();
  if (hosts.length) await tellServiceWorker(JSON.stringify(hosts));
}
