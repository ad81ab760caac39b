// Boxes in an answer: `<ref>label</ref><box>[[x1, y1, x2, y2], ...]</box>`, in thousandths of the picture.

/**
 * @typedef {object} Box
 * @property {string} label
 * @property {[number, number, number, number]} box in pixels: left, top, right, bottom
 * @property {[number, number, number, number]} normalized the same from 0 to 1000, as the model wrote it
 * @property {number} index which picture of the conversation, counted from 0
 */

const BLOCK = /(?:<ref>([\s\S]*?)<\/ref>\s*)?<box>([\s\S]*?)<\/box>/g;
const NUMBERS =
  /\[\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*,\s*(-?\d+(?:\.\d+)?)\s*\]/g;

const clamp = (/** @type {number} */ v) => Math.min(1000, Math.max(0, v));

/**
 * The boxes of an answer. Corners are put in order and inside the picture; what has no area is left out.
 * @param {string} text
 * @param {{width: number, height: number}} [picture] for pixels; without it `box` is in thousandths, too
 * @param {number} [index] which picture they belong to
 * @returns {Box[]}
 */
export function parseBoxes(text, picture = { width: 1000, height: 1000 }, index = 0) {
  /** @type {Box[]} */
  const boxes = [];
  for (const [, label = '', list] of text.matchAll(BLOCK)) {
    for (const [, ...four] of list.matchAll(NUMBERS)) {
      const [a, b, c, d] = four.map(Number).map(clamp);
      /** @type {[number, number, number, number]} */
      const normalized = [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];
      const [x1, y1, x2, y2] = normalized;
      if (x2 <= x1 || y2 <= y1) continue;
      const sx = picture.width / 1000;
      const sy = picture.height / 1000;
      boxes.push({
        label: label.trim(),
        box: [x1 * sx, y1 * sy, x2 * sx, y2 * sy],
        normalized,
        index,
      });
    }
  }
  return boxes;
}

/**
 * The answer as a person reads it: the labels stay, the coordinates go.
 * @param {string} text
 */
export function withoutBoxes(text) {
  return text
    .replace(/<box>[\s\S]*?(<\/box>|$)/g, '')
    .replace(/<\/?ref>/g, '')
    .replace(/<\/?(?:r|re|ref|b|bo|box)?$/, ''); // a tag that is still being written
}
