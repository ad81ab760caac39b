// A plain SVG plot: measured points, and the least that the machine's ceilings allow.

/** A round step that cuts a range in four to ten. @param {number} range */
function stepOf(range) {
  const power = 10 ** Math.floor(Math.log10(range));
  for (const factor of [0.1, 0.2, 0.5, 1]) if (range / (power * factor) <= 8) return power * factor;
  return power;
}

const escape = (/** @type {string} */ text) =>
  text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c] ?? c);

/**
 * @param {{title: string, x: string, y: string, points: {x: number, ms: number, floor_ms: number}[]}} o
 * @returns {string}
 */
export function plot({ title, x, y, points }) {
  const [width, height, left, right, top, bottom] = [720, 440, 80, 24, 48, 56];
  const mostX = Math.max(...points.map((p) => p.x)) * 1.04;
  const mostY = Math.max(...points.map((p) => Math.max(p.ms, p.floor_ms))) * 1.08;
  const px = (/** @type {number} */ v) => left + (v / mostX) * (width - left - right);
  const py = (/** @type {number} */ v) => height - bottom - (v / mostY) * (height - top - bottom);
  const at = (/** @type {number} */ a, /** @type {number} */ b) =>
    `${px(a).toFixed(1)},${py(b).toFixed(1)}`;
  const out = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="13">`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    `<text x="${left}" y="26" font-size="16">${escape(title)}</text>`,
  ];
  for (let v = 0, step = stepOf(mostY); v <= mostY; v += step) {
    out.push(`<path d="M${at(0, v)} L${at(mostX, v)}" stroke="#ddd"/>`);
    const label = Number(v.toPrecision(6));
    out.push(
      `<text x="${left - 8}" y="${(py(v) + 4).toFixed(1)}" text-anchor="end">${label}</text>`,
    );
  }
  for (let v = 0, step = stepOf(mostX); v <= mostX; v += step) {
    const label = Number(v.toPrecision(6));
    out.push(
      `<text x="${px(v).toFixed(1)}" y="${height - bottom + 20}" text-anchor="middle">${label}</text>`,
    );
  }
  const middle = (left + width - right) / 2;
  out.push(`<text x="${middle}" y="${height - 14}" text-anchor="middle">${escape(x)}</text>`);
  out.push(
    `<text x="18" y="${height / 2}" transform="rotate(-90 18 ${height / 2})" text-anchor="middle">${escape(y)}</text>`,
  );
  const line = (/** @type {'ms' | 'floor_ms'} */ key) =>
    points.map((p) => at(p.x, p[key])).join(' L');
  out.push(
    `<path d="M${line('floor_ms')}" fill="none" stroke="#c60" stroke-dasharray="6 4" stroke-width="2"/>`,
  );
  out.push(`<path d="M${line('ms')}" fill="none" stroke="#06c" stroke-width="2"/>`);
  for (const p of points)
    out.push(`<circle cx="${px(p.x).toFixed(1)}" cy="${py(p.ms).toFixed(1)}" r="4" fill="#06c"/>`);
  out.push(`<text x="${left + 16}" y="${top + 16}" fill="#06c">measured</text>`);
  out.push(
    `<text x="${left + 16}" y="${top + 34}" fill="#c60">by the ceilings of the same moment</text>`,
  );
  out.push('</svg>\n');
  return out.join('\n');
}
