// The one engine of the page: loading a model with its progress, and how fast it is on this device.
import { PocketVL, PocketVLError } from '../lib/pocketvl.js';
import { resolveAddresses } from './addresses.js';
import { $, size } from './dom.js';
import { clearNotices, showError, showNotice } from './errors.js';
import { keepSettings, learnRate, rateOf, settings } from './settings.js';
import { t } from './strings.js';

/** @typedef {import('../lib/pocketvl.js').ModelSource} ModelSource */
/**
 * remember: load it at the next visit, too; the page's own model needs none of that, and stands in for any other
 * small: with as little memory as will do
 * @typedef {{refresh?: boolean, remember?: boolean, small?: boolean}} LoadChoice
 */

export const DEMO = 'models/demo/manifest.json';
const SMALL_CONTEXT = 1024;
const PATIENCE = 1000; // ms before stopping a load is offered
const DEAF = 15_000; // ms after which an engine that was told to stop counts as hung

export const vl = new PocketVL();

/** @type {AbortController | null} */
let loading = null;
/** Whether what is being done now waits for somebody else. */
let stoppable = false;
/** @type {AbortController | null} */
let measuring = null;
/** Called when the first load begins. @type {() => void} */
let begun = () => {};
/** Settles when the model being loaded is there, or is not. @type {Promise<void>} */
let ready = new Promise((/** @type {(v: void) => void} */ go) => (begun = go)).then(() => ready);
/** What was asked for last. @type {{source: string | Blob[], choice: LoadChoice}} */
let wanted = { source: DEMO, choice: {} };
/** @type {Set<() => void>} */
const listeners = new Set();

/** Called whenever a model is ready, or how fast it is has become known. @param {() => void} listener */
export const onModel = (listener) => void listeners.add(listener);
const tellModel = () => listeners.forEach((listener) => listener());

/** What is being loaded now is there, or failed. */
export const modelThere = () => ready;
export const isLoading = () => loading !== null;
/** Set by the page: stops an answer before the engine is replaced. @type {{stopAnswer: () => void}} */
export const hooks = { stopAnswer: () => {} };

/**
 * @param {string} text
 * @param {'busy' | 'ready' | 'failed'} state
 */
export function status(text, state) {
  $('status-text').textContent = text;
  $('status-dot').className = `dot ${state}`;
}

/**
 * @param {import('../lib/pocketvl.js').LoadProgress} p
 * @param {number} since
 */
function showLoad(p, since) {
  const bar = $('bar');
  const percent = p.total ? Math.floor((100 * p.loaded) / p.total) : 0;
  const words = {
    start: t('statusStart'),
    pack: t('statusStart'),
    manifest: t('statusManifest'),
    waiting: t('statusWaiting'),
    network: t('statusNetwork'),
    store: t('statusStore'),
    disk: t('statusDisk'),
    retry: t('statusRetry'),
  };
  let text = words[p.stage];
  if (p.total) text += ` · ${size(p.loaded)} / ${size(p.total)}`;
  if (p.stage === 'network' && p.bytesPerSecond > 0 && p.total > 20e6) {
    text += ` · ${size(p.bytesPerSecond)}/s · ${Math.ceil(p.secondsLeft)} s`;
  }
  status(text, 'busy');
  bar.hidden = !p.total;
  bar.setAttribute('aria-valuenow', String(percent));
  bar.setAttribute('aria-label', text);
  $('bar-fill').style.width = `${percent}%`;
  stoppable = ['network', 'retry', 'waiting', 'manifest'].includes(p.stage);
  $('stop-load').hidden = !stoppable || performance.now() - since < PATIENCE;
}

/** Ends a download; what has arrived stays. */
export const stopLoading = () => loading?.abort('stopped');

/**
 * @param {string | Blob[]} source an address, several in lines of their own, or files
 * @param {LoadChoice} [choice]
 * @returns {Promise<void>}
 */
export function load(source, choice = {}) {
  loading?.abort('replaced');
  measuring?.abort();
  hooks.stopAnswer();
  const mine = new AbortController();
  loading = mine;
  wanted = { source, choice };
  clearNotices();
  status(t('statusStart'), 'busy');
  const since = performance.now();
  stoppable = false;
  // Progress may come seldom: a slow host is noticed without it.
  setTimeout(() => {
    if (loading === mine && stoppable) $('stop-load').hidden = false;
  }, PATIENCE);
  const work = (async () => {
    try {
      await vl.loadModel(await found(source, mine.signal), {
        signal: mine.signal,
        onProgress: (p) => loading === mine && showLoad(p, since),
        onNotice: (notice) => showNotice(notice),
        refresh: choice.refresh,
        threads: settings.threads || undefined,
        context: choice.small ? SMALL_CONTEXT : settings.context || undefined,
        kvType: choice.small ? 'q8' : undefined,
      });
      if (choice.remember !== undefined) {
        const { source: loaded } = wanted;
        settings.model = loaded === DEMO ? '' : String(loaded);
        keepSettings();
      }
      showReady();
    } catch (thrown) {
      const error = PocketVLError.from(thrown);
      if (loading === mine && mine.signal.reason !== 'replaced') {
        if (vl.loaded) {
          showReady(); // the model before is still the one that answers
          ready = Promise.resolve();
        } else status(t('statusFailed'), 'failed');
        if (error.code === 'ABORTED') {
          showNotice(
            { code: 'ABORTED', message: t('loadStopped') },
            { label: t('resume'), run: () => load(source, choice).catch(() => {}) },
          );
        } else showError(error, loadStep(error, source, choice));
      }
      throw error;
    } finally {
      if (loading === mine) {
        loading = null;
        $('bar').hidden = true;
        $('stop-load').hidden = true;
      }
    }
  })();
  ready = work;
  work.catch(() => {});
  begun();
  return work;
}

/**
 * What the library is to load. A repository's address stands for the files in it, and is not asked again for them.
 * @param {string | Blob[]} source
 * @param {AbortSignal} signal
 * @returns {Promise<ModelSource>}
 */
async function found(source, signal) {
  if (typeof source !== 'string') return source;
  const given = source.split('\n');
  status(t('statusManifest'), 'busy');
  stoppable = true;
  const files = await resolveAddresses(given, signal);
  if (files !== given && wanted.source === source) wanted.source = files.join('\n');
  return files.length > 1 ? { files } : files[0];
}

/** The model that was wanted last, once more: after a failure, or with other settings. */
export const reload = () => void load(wanted.source, wanted.choice).catch(() => {});

/**
 * The one thing to do about a load that failed.
 * @param {PocketVLError} error
 * @param {string | Blob[]} source
 * @param {LoadChoice} choice
 */
function loadStep(error, source, choice) {
  const again = (/** @type {LoadChoice} */ how, /** @type {string} */ label) => ({
    label,
    run: () => load(source, how).catch(() => {}),
  });
  const demo = {
    label: t('takeDemo'),
    run: () => load(DEMO, { refresh: true, remember: true }).catch(() => {}),
  };
  if (error.code === 'UNSUPPORTED_BROWSER') return null;
  if (error.code === 'MEMORY')
    return choice.small ? demo : again({ ...choice, small: true }, t('lessMemory'));
  const another = source !== DEMO && ['FORMAT', 'MODEL', 'UNSUPPORTED'].includes(error.code);
  return another ? demo : again(choice, t('retry'));
}

export function showReady() {
  status(`${t('statusReady')} · ${vl.info.title ?? vl.info.name}`, 'ready');
  $('honest').hidden = !isDemo();
  tellModel();
}

export const isDemo = () => /demo/i.test(`${vl.info.key}${vl.info.name}`);

/** @param {Record<string, any>} stats of an answer */
export function learn(stats) {
  learnRate(vl.info, stats);
  tellModel();
}

/**
 * Ends an engine that does not hear that a call was stopped: all that waits for it would wait for ever. The next call
 * starts another one.
 * @param {AbortSignal} signal
 * @returns {() => void} to be called at the call's end
 */
export function endIfDeaf(signal) {
  let over = false;
  signal.addEventListener(
    'abort',
    () => {
      const { client } = vl;
      const { worker } = client;
      setTimeout(() => {
        if (!over && worker) client.die(worker, t('deaf'));
      }, DEAF);
    },
    { once: true },
  );
  return () => (over = true);
}

/**
 * Looks at one empty tile, so that the page can say what a picture will cost before anyone waits for it. Done once per
 * model and build, when a picture has been picked; a question ends it.
 */
export async function measure() {
  if (measuring || loading || !vl.info.hasVision || rateOf(vl.info)) return;
  const mine = new AbortController();
  measuring = mine;
  const over = endIfDeaf(mine.signal);
  const kept = vl.stats;
  try {
    const canvas = document.createElement('canvas');
    canvas.width = canvas.height = vl.info.imageSize;
    canvas.getContext('2d')?.fillRect(0, 0, 1, 1);
    const answer = vl.chat(
      [
        {
          role: 'user',
          content: [
            { type: 'image', image: canvas },
            { type: 'text', text: '?' },
          ],
        },
      ],
      { maxTokens: 1, maxTiles: 1, signal: mine.signal },
    );
    await answer.text();
    vl.stats = kept; // it was no one's answer
    learn(answer.stats ?? {});
  } catch {
    // the first answer will tell
  } finally {
    over();
    if (measuring === mine) measuring = null;
  }
}

/** A question comes first. */
export const stopMeasuring = () => measuring?.abort();
