// How closely pictures are looked at, and what that costs on this device, said before anyone waits for it.
import { attachedShots } from './attachments.js';
import { $, make, seconds } from './dom.js';
import { measure, vl } from './engine.js';
import { keepSettings, rateOf, settings } from './settings.js';
import { t } from './strings.js';

/** @typedef {import('./settings.js').Detail} Detail */
/** @typedef {import('./attachments.js').Shot} Shot */

export const DETAILS = /** @type {const} */ (['quick', 'balanced', 'fine']);
const TILES = { quick: 1, balanced: 6, fine: 12 };
/** A device that needs longer than this for a balanced look at a large picture starts with the quick one. */
const SLOW_MS = 6000;

/** Most tiles of the grid for a picture. @param {Detail} detail */
export const tilesOf = (detail) => Math.min(TILES[detail], vl.info.settings?.maxTiles ?? 12);

/** Whether the model in use can look more than once. */
export const hasChoice = () => Boolean(vl.info.hasVision) && tilesOf('fine') > 1;

/** The person's choice; else balanced where the device was measured to be quick enough. @returns {Detail} */
export function detail() {
  if (settings.detail) return settings.detail;
  return hasChoice() && (worst('balanced') ?? Infinity) <= SLOW_MS ? 'balanced' : 'quick';
}

/**
 * Milliseconds for so many tiles, up to the first word of the answer.
 * @param {number} tiles
 */
function cost(tiles) {
  const rate = rateOf(vl.info);
  return rate ? tiles * (rate.tileMs + rate.promptMs * (vl.info.tokensPerTile ?? 0)) : null;
}

/** For a picture that takes all tiles. @param {Detail} choice */
function worst(choice) {
  const tiles = tilesOf(choice);
  return cost(tiles > 1 ? tiles + 1 : 1);
}

/**
 * Tiles that these pictures will be cut into.
 * @param {Shot[]} shots
 * @param {Detail} choice
 */
async function tilesFor(shots, choice) {
  const most = tilesOf(choice);
  let sum = 0;
  for (const shot of shots) {
    if (shot.seen.has(most)) continue;
    if (most === 1 || !shot.width) sum += most > 1 ? most + 1 : 1;
    else sum += (await vl.tiling(shot.width, shot.height, most)).tiles;
  }
  return sum;
}

/** @param {number} tiles @param {number | null} ms */
const words = (tiles, ms) => {
  const count = tiles === 1 ? t('tile') : t('tiles', { n: tiles });
  return ms === null ? count : t('aboutSeconds', { s: seconds(ms) });
};

/**
 * The radio buttons of the three choices. Those that are there stay, with new words: they must not vanish under a finger
 * or take the focus along when the price becomes known.
 * @param {HTMLElement} box
 * @param {string} name of the group
 * @param {(choice: Detail) => string} say
 */
function showChoices(box, name, say) {
  const labels = { quick: t('detailQuick'), balanced: t('detailBalanced'), fine: t('detailFine') };
  const there = [...box.querySelectorAll('.choice')];
  DETAILS.forEach((choice, i) => {
    const label = there[i] ?? makeChoice(choice, name);
    const [input, title, price] = /** @type {HTMLInputElement[]} */ ([...label.children]);
    input.checked = detail() === choice;
    title.textContent = labels[choice];
    price.textContent = say(choice);
    if (!there.length) box.append(label);
  });
}

/** @param {Detail} choice @param {string} name */
function makeChoice(choice, name) {
  const label = make('label', 'choice');
  const input = /** @type {HTMLInputElement} */ (make('input'));
  input.type = 'radio';
  input.name = name;
  input.value = choice;
  const choose = () => {
    if (settings.detail === choice) return;
    settings.detail = choice;
    keepSettings();
    void showDetail();
  };
  input.addEventListener('change', choose);
  // What was proposed and is chosen by a click is no change, and yet a choice: no later measurement overrides it.
  input.addEventListener('click', choose);
  label.append(input, make('span'), make('small'));
  return label;
}

let drawing = 0;

/** Shows the choice in the composer, for the pictures that are attached, and in the settings. */
export async function showDetail() {
  const mine = ++drawing;
  const shots = attachedShots();
  const box = $('cost');
  const quickOnly = !hasChoice();
  $('detail').hidden = quickOnly;
  if (!quickOnly) {
    if (!$('detail').children.length) $('detail').append(make('legend'), make('p', 'small'));
    const [legend, hint] = $('detail').children;
    legend.textContent = t('detail');
    hint.textContent = t('detailHint');
    showChoices($('detail'), 'detail-always', (choice) => {
      const tiles = tilesOf(choice);
      const ms = worst(choice);
      if (tiles === 1) return ms === null ? t('oneLook') : t('oneLookCost', { s: seconds(ms) });
      const most = { tiles: tiles + 1, s: seconds(ms ?? 0) };
      return ms === null ? t('detailUnknown', most) : t('detailCost', most);
    });
  }
  if (!shots.length || !vl.info.hasVision) {
    box.hidden = true;
    return;
  }
  try {
    await Promise.all(shots.map((shot) => shot.sized));
    const tiles = new Map();
    for (const choice of quickOnly ? DETAILS.slice(0, 1) : DETAILS)
      tiles.set(choice, await tilesFor(shots, choice));
    if (mine !== drawing) return;
    const say = (/** @type {Detail} */ choice) => words(tiles.get(choice), cost(tiles.get(choice)));
    if (quickOnly) {
      const ms = cost(tiles.get('quick'));
      box.replaceChildren(
        make('span', 'small', ms === null ? t('measuring') : t('lookCost', { s: seconds(ms) })),
      );
    } else {
      if (!box.querySelector('.choice')) box.replaceChildren();
      showChoices(box, 'detail-now', say);
    }
    box.hidden = false;
    void measure(); // if no one knows yet how fast this device is; calls here again
  } catch {
    // the engine is being replaced; the next model calls again
  }
}
