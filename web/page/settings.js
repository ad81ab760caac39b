// What the page remembers of the person's choices, and how fast this device was found to be.

const NAME = 'pocketvl-settings';
const MOST_RATES = 12;

/** @typedef {'quick' | 'balanced' | 'fine'} Detail */
/** Times of one build of one model on this device. @typedef {{tileMs: number, promptMs: number, tokenMs: number}} Rate */

/** @type {{detail: '' | Detail, temperature: number, maxTokens: number, threads: number, context: number,
 *   language: string, model: string, remember: boolean, rates: Record<string, Rate>}} */
export const settings = {
  detail: '', // until the person chooses: by how fast the device is
  temperature: 0,
  maxTokens: 256,
  threads: 0, // 0: as the library thinks best
  context: 0,
  language: '',
  model: '',
  remember: true,
  rates: {},
};

export function readSettings() {
  try {
    const kept = JSON.parse(localStorage.getItem(NAME) ?? '{}');
    for (const [name, value] of Object.entries(settings)) {
      if (typeof kept[name] === typeof value && kept[name] !== null)
        Object.assign(settings, { [name]: kept[name] });
    }
    if (!['', 'quick', 'balanced', 'fine'].includes(settings.detail)) settings.detail = '';
    for (const [id, rate] of Object.entries(settings.rates)) {
      if (![rate?.tileMs, rate?.promptMs, rate?.tokenMs].every(Number.isFinite))
        delete settings.rates[id];
    }
  } catch {
    // no storage, or not ours: the defaults
  }
}

export function keepSettings() {
  try {
    localStorage.setItem(NAME, JSON.stringify(settings));
  } catch {
    // remembered for this visit only
  }
}

/** What a rate belongs to. @param {Record<string, any>} info of a loaded model */
const rateId = (info) => [info.key, info.variant, info.kernels, info.threads].join(' ');

/** @param {Record<string, any>} info @returns {Rate | null} */
export const rateOf = (info) => settings.rates[rateId(info)] ?? null;

/**
 * Takes the times of an answer over.
 * @param {Record<string, any>} info
 * @param {Record<string, any>} stats
 */
export function learnRate(info, stats) {
  const old = rateOf(info);
  if (!(stats.tiles > 0 && stats.visionMs > 0)) return;
  const read = stats.promptTokens - stats.reusedTokens;
  /** @type {Rate} */
  const rate = {
    tileMs: stats.visionMs / stats.tiles,
    promptMs: read > 0 ? stats.prefillMs / read : (old?.promptMs ?? 0),
    tokenMs:
      stats.generatedTokens > 4 ? stats.decodeMs / stats.generatedTokens : (old?.tokenMs ?? 0),
  };
  delete settings.rates[rateId(info)];
  settings.rates[rateId(info)] = rate; // the newest is the last
  for (const id of Object.keys(settings.rates).slice(0, -MOST_RATES)) delete settings.rates[id];
  keepSettings();
}
