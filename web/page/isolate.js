// Threads need an isolated page. Where the host sends no headers for that, the service worker does, from the second load
// on: this reloads once, when it has just been installed. It also lets a new release in, which an earlier visit fetched.

const KEY = 'pocketvl-isolation-reload';
const LONGEST_WAIT = 5000;

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

/** @returns {Promise<never>} */
function reload() {
  location.reload();
  return new Promise(() => {});
}

/** Waits for the worker to run; a failed installation ends the waiting, too. */
const activated = (/** @type {ServiceWorker} */ worker) =>
  new Promise((done) => {
    const look = () => {
      if (worker.state === 'activated' || worker.state === 'redundant')
        done(worker.state === 'activated');
    };
    worker.addEventListener('statechange', look);
    setTimeout(() => done(false), LONGEST_WAIT);
    look();
  });

/**
 * The worker that serves this page hands over to a release that is there, if no other tab is open; once for each.
 * @param {ServiceWorker} controller
 */
async function takeNewRelease(controller) {
  const { port1, port2 } = new MessageChannel();
  const taken = new Promise((done) => {
    port1.onmessage = ({ data }) => done(data);
    setTimeout(() => done(false), LONGEST_WAIT);
  });
  controller.postMessage('newest release', [port2]);
  if (await taken) await reload();
}

// Asking for an installed worker is no request; the host's own caching rules say how often the browser looks for a new
// one, at most once a day without an answer from there.
const register = (/** @type {string} */ script) =>
  navigator.serviceWorker.register(script, { updateViaCache: 'all' });

/** The registration of this page's own worker; a wider one is somebody else's. @param {string} script */
async function registrationOf(script) {
  const found = await navigator.serviceWorker.getRegistration(script).catch(() => undefined);
  const scope = new URL('./', new URL(script, location.href)).href;
  return found?.scope === scope ? found : undefined;
}

const possible = () => self.isSecureContext && 'serviceWorker' in navigator;

/**
 * Installs the worker where the host isolates the page by itself, for later visits without a network. Asked for when the
 * model is there: what the worker fetches would wait in its way.
 * @param {string} script
 */
export async function install(script) {
  if (!possible() || !ready() || (await registrationOf(script))) return;
  await register(script).catch(() => {});
}

/**
 * True when threads can be used. May reload the page instead of returning.
 * @param {string} script
 * @returns {Promise<boolean>}
 */
export async function isolate(script) {
  if (!possible()) return ready();
  const { serviceWorker } = navigator;
  const registration = await registrationOf(script);
  if (registration?.waiting && serviceWorker.controller)
    await takeNewRelease(serviceWorker.controller);
  if (ready()) {
    mark('remove');
    return true;
  }
  if (mark('get')) return false;
  const made = registration ?? (await register(script).catch(() => null));
  const worker = made?.active ?? made?.installing ?? made?.waiting;
  if (!worker || !(await activated(worker))) return false;
  mark('set'); // one attempt: a host where it fails must not loop
  return reload();
}
