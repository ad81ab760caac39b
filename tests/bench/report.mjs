// Ceilings from their samples; numbers and tables as a person reads them.

/** The loops of ceilings.c. */
export const LOOPS = ['i8_relaxed', 'i16', 'f32_relaxed', 'f32', 'read'];
/** ms that each loop runs in a round. */
export const LOOP_MS = 120;

/**
 * The best loop of a build's instructions for each kind of work.
 * @param {(name: string) => number} rate
 * @param {'relaxed' | 'simd'} variant
 * @returns {import('./cost.mjs').Ceilings}
 */
export function ceilingsFrom(rate, variant) {
  const relaxed = variant === 'relaxed';
  return {
    int8: relaxed ? Math.max(rate('i8_relaxed'), rate('i16')) : rate('i16'),
    f32: relaxed ? Math.max(rate('f32_relaxed'), rate('f32')) : rate('f32'),
    read: rate('read'),
  };
}

/** @param {number[]} values */
export function median(values) {
  if (!values.length) return NaN;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Three digits that count. @param {number} value */
export function number(value) {
  if (!Number.isFinite(value)) return '-';
  if (value === 0) return '0';
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 4));
}

/** @param {number} value */
export const ms = (value) => number(value);

/** @param {number} bytes */
export const gb = (bytes) =>
  bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(0)} MB`;

/**
 * @param {string[]} head
 * @param {string[][]} rows the first column is text, the others are numbers
 */
export function table(head, rows) {
  const widths = head.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => (row[i] ?? '').length)),
  );
  const line = (/** @type {string[]} */ row) =>
    `  ${head.map((_, i) => (i ? (row[i] ?? '').padStart(widths[i]) : (row[i] ?? '').padEnd(widths[i]))).join('  ')}`.trimEnd();
  return [line(head), ...rows.map(line)].join('\n');
}
