// Seeing the seeing: how a picture was cut into tiles, what the answer points at, and what it took.
import { parseBoxes } from '../lib/pocketvl.js';
import { picture } from './attachments.js';
import { vl } from './engine.js';
import { make, number, seconds, size } from './dom.js';
import { t } from './strings.js';

/** @typedef {{columns: number, rows: number, tiles: number, tokens: number}} Tiling */
/** @typedef {import('./conversation.js').Turn} Turn */

/** Colours of boxes: white letters can be read on each. */
const COLOURS = ['#c4252c', '#0a63ad', '#146c3f', '#99450a', '#7538a8', '#0a6573'];

/**
 * The tiles of a picture, over it. Each is one look; with more than one there is a look at the whole as well.
 * @param {HTMLElement} frame
 * @param {Tiling} tiling
 * @param {number} [looked] how many of them are done; all if not given
 */
export function drawTiles(frame, { columns, rows, tiles }, looked = tiles) {
  let grid = /** @type {HTMLElement | null} */ (frame.querySelector('.tiles'));
  if (!grid) {
    grid = make('div', 'tiles');
    grid.setAttribute('aria-hidden', 'true');
    // A picture's own shape decides: cells share it equally, as the tiles do.
    grid.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    grid.style.gridTemplateRows = `repeat(${rows}, 1fr)`;
    for (let i = 0; i < columns * rows; i++) grid.append(make('i'));
    frame.append(grid);
  }
  [...grid.children].forEach((cell, i) => cell.classList.toggle('looked', i < looked));
}

/** @param {HTMLElement} frame */
export function removeTiles(frame) {
  frame.querySelector('.tiles')?.remove();
}

/**
 * The boxes of an answer, over the picture that they are about.
 * @param {HTMLElement} frame
 * @param {string} answer
 */
export function drawBoxes(frame, answer) {
  const boxes = parseBoxes(answer);
  const labels = [...new Set(boxes.map(({ label }) => label))];
  for (const old of frame.querySelectorAll('.box')) old.remove();
  for (const { label, normalized } of boxes) {
    const [x1, y1, x2, y2] = normalized;
    const box = make('div', `box${y1 < 90 ? ' low' : ''}${x1 > 650 ? ' left' : ''}`);
    box.style.left = `${x1 / 10}%`;
    box.style.top = `${y1 / 10}%`;
    box.style.width = `${(x2 - x1) / 10}%`;
    box.style.height = `${(y2 - y1) / 10}%`;
    box.style.setProperty('--box', COLOURS[labels.indexOf(label) % COLOURS.length]);
    if (label) box.append(make('span', '', label));
    frame.append(box);
  }
}

/** An answer with fewer tokens, or written in less time, says nothing about speed. */
const FEWEST_TOKENS = 5;
const SHORTEST_MS = 5;

/** @param {number} n */
const tokenWords = (n) => (n === 1 ? t('token') : t('tokens', { n: number(n) }));
/** @param {number} n */
const tileWords = (n) => (n === 1 ? t('tile') : t('tiles', { n: number(n) }));

/**
 * How fast an answer was written; '' where it was too short to tell: one token comes with the question's own figures, and
 * clocks of browsers are coarse.
 * @param {Record<string, any>} stats
 */
function rate({ generatedTokens, decodeMs, tokensPerSecond }) {
  if (!(generatedTokens >= FEWEST_TOKENS && decodeMs >= SHORTEST_MS && tokensPerSecond > 0))
    return '';
  return tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0);
}

/** One line about an answer. @param {Turn} turn */
export function summary(turn) {
  const s = turn.stats ?? {};
  const tiles = s.tiles ?? 0;
  const fast = rate(s);
  return [
    tokenWords(s.generatedTokens ?? 0),
    ...(fast ? [t('perSecond', { n: fast })] : []),
    t('firstAfter', { s: seconds(s.timeToFirstTokenMs ?? 0) }),
    tiles === 0 ? t('tilesReused') : tileWords(tiles),
  ].join(' · ');
}

/**
 * A figure of a picture with its tiles.
 * @param {import('./attachments.js').Shot} shot
 * @param {{width: number, height: number, tiling: Tiling}} seen
 */
function cut(shot, { width, height, tiling }) {
  const figure = make('figure', 'cut');
  const frame = make('div', 'shot');
  frame.append(picture(shot));
  drawTiles(frame, tiling);
  const { columns, rows, tiles, tokens } = tiling;
  const side = vl.info.imageSize ?? 0;
  const how = tiles === 1 ? t('cutOne', { side }) : t('cutMany', { columns, rows, side });
  figure.append(
    frame,
    make('figcaption', '', `${width} × ${height}. ${how} ${t('cutTokens', { n: number(tokens) })}`),
  );
  return figure;
}

/** All about how an answer came to be. @param {Turn} turn */
export function details(turn) {
  const box = make('div', 'seen');
  const figures = make('div', 'cuts');
  // The engine tells of all pictures of the conversation; the last ones are this question's.
  const own = turn.pictures.slice(turn.pictures.length - turn.shots.length);
  own.forEach((seen, i) => {
    if (turn.shots[i] && seen?.tiling) figures.append(cut(turn.shots[i], seen));
  });
  const s = turn.stats ?? {};
  const ms = (/** @type {number} */ v) => t('secondsLong', { s: seconds(v ?? 0) });
  const held = (s.weightBytes ?? 0) + (s.kvBytes ?? 0) + (s.scratchBytes ?? 0);
  /** @type {[string, string][]} */
  const rows = [
    [t('factFirst'), ms(s.timeToFirstTokenMs)],
    [
      t('factLook'),
      s.tiles > 0
        ? t('factLookWords', {
            s: ms(s.visionMs),
            tiles: tileWords(s.tiles),
            each: ms(s.visionMs / s.tiles),
          })
        : t('tilesReused'),
    ],
    [
      t('factRead'),
      t('factReadWords', {
        s: ms(s.prefillMs),
        tokens: tokenWords((s.promptTokens ?? 0) - (s.reusedTokens ?? 0)),
        known: number(s.reusedTokens ?? 0),
      }),
    ],
    [
      t('factWrite'),
      t(rate(s) ? 'factWriteRate' : 'factWriteWords', {
        s: ms(s.decodeMs),
        tokens: tokenWords(s.generatedTokens ?? 0),
        rate: rate(s),
      }),
    ],
    [
      t('factRoom'),
      t('factRoomWords', { n: number(s.contextUsed ?? 0), all: number(s.context ?? 0) }),
    ],
    [t('memory'), t('factMemoryWords', { held: size(held), all: size(s.memoryBytes ?? 0) })],
  ];
  if (turn.model) rows.push([t('modelNow'), turn.model]);
  if (turn.build) rows.push([t('build'), turn.build], [t('threadsNow'), turn.threads]);
  const list = make('dl');
  for (const [name, text] of rows) list.append(make('dt', '', name), make('dd', '', text));
  box.append(figures, list);
  return box;
}
