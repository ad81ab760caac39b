// Threads need an isolated page. Where the host sends no headers for that, the service worker does, from the second load on:
// this reloads once, when it has just been installed.

const KEY = 'pocketvl-isolation-reload';

const ready = () => self.crossOriginIsolated && typeof SharedArrayBuffer === 'function';

/** @param {'get' | 'set' | 'remove'} verb */
function mark(verb) {
  try {
    if (verb === 'get') return sessionStorage.getItem(KEY) !== null;
    if (verb === 'set') sessionStorage.setItem(KEY, '1');
    else sessionStorage.removeItem(KEY);
    return true;
  } catch {
    return verb === 'get'; // no storage: as if the one reload had been
  }
}

/** Waits for the worker to run; a failed installation ends the waiting, too. */
const activated = (/** @type {ServiceWorker} */ worker) =>
  new Promise((done) => {
    const look = () => {
      if (worker.state === 'activated' || worker.state === 'redundant')
        done(worker.state === 'activated');
    };
    worker.addEventListener('statechange', look);
    setTimeout(() => done(false), 5000);
    look();
  });

/**
 * True when threads can be used. May reload the page instead of returning.
 * @param {string} script
 * @returns {Promise<boolean>}
 */
export async function isolate(script) {
  const supported = self.isSecureContext && 'serviceWorker' in navigator;
  if (ready()) {
    mark('remove');
    if (supported) navigator.serviceWorker.register(script).catch(() => {});
    return true;
  }
  if (!supported || mark('get')) return false;
  const registration = await navigator.serviceWorker.register(script).catch(() => null);
  const worker = registration?.installing ?? registration?.waiting ?? registration?.active;
  if (!worker || !(await activated(worker))) return false;
  mark('set'); // one attempt: a host where it fails must not loop
  location.reload();
  return new Promise(() => {});
}
