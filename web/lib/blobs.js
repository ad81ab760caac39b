// Bytes of a Blob in pieces, with as little memory and copying as the browser allows.

/** @typedef {import('./store.js').ChunkReader} ChunkReader */

const PIECE = 1048576;
const SLICE = 4 * PIECE;

/** Read into again and again: a fresh buffer for every piece would be garbage faster than it is collected. */
const spare = () => new ArrayBuffer(PIECE);
/** @type {ArrayBuffer[]} */
const spares = [];

/** @param {Blob} blob */
function byteReader(blob) {
  try {
    return blob.stream().getReader({ mode: 'byob' });
  } catch {
    return null; // WebKit
  }
}

/**
 * Begins to read. What a browser cannot read any more ends the reading early.
 * @param {Blob} blob
 * @returns {ChunkReader}
 */
export function readBlob(blob) {
  const reader = byteReader(blob);
  return async (take) => {
    let sum = 0;
    if (!reader) {
      for (; sum < blob.size; sum += SLICE) {
        const piece = await slice(blob, sum).catch(() => null);
        if (!piece) return sum;
        take(piece);
      }
      return blob.size;
    }
    let buffer = spares.pop() ?? spare();
    try {
      for (;;) {
        const read = await reader.read(new Uint8Array(buffer)).catch(() => null);
        if (!read?.value) {
          buffer = spare(); // the old one went into the stream
          return sum;
        }
        buffer = read.value.buffer;
        if (read.done) return sum;
        sum += read.value.length;
        take(read.value);
      }
    } finally {
      spares.push(buffer);
      if (sum < blob.size) reader.cancel().catch(() => {});
    }
  };
}

/**
 * @param {Blob} blob
 * @param {number} at
 */
async function slice(blob, at) {
  const part = blob.slice(at, at + SLICE);
  // Firefox reads fastest so, where there are no byte streams; it exists in workers alone.
  const buffer =
    typeof FileReaderSync === 'function'
      ? new FileReaderSync().readAsArrayBuffer(part)
      : await part.arrayBuffer();
  return new Uint8Array(buffer);
}
