// Pictures: any kind that the browser can decode, to RGBA; what it refuses goes to the C core's decoder.
// No resizing here: engines differ in it, C does it the reference's way.
import { PocketVLError, checkSignal } from './errors.js';

/** Side of the largest canvas that every browser makes; larger pictures go to the C core. */
const MOST_SIDE = 16384;

/**
 * What the first and last bytes of a picture say.
 * @typedef {object} Sniffed
 * @property {string} type 'jpeg', 'png', 'gif', 'bmp', 'webp', 'avif', 'heic', 'tiff', 'svg' or ''
 * @property {number} width 0: unknown
 * @property {number} height
 * @property {boolean} whole false: the end is missing
 */

/**
 * @param {Uint8Array} b the file
 * @returns {Sniffed}
 */
export function sniff(b) {
  const view = new DataView(b.buffer, b.byteOffset, b.byteLength);
  const ascii = (/** @type {number} */ at, /** @type {number} */ n) =>
    String.fromCharCode(...b.subarray(at, at + n));
  const result = (/** @type {string} */ type, width = 0, height = 0, whole = true) => ({
    type,
    width,
    height,
    whole,
  });
  if (b.length >= 4 && b[0] === 0xff && b[1] === 0xd8) return sniffJpeg(b, view);
  if (b.length >= 24 && ascii(1, 3) === 'PNG') {
    return result(
      'png',
      view.getUint32(16),
      view.getUint32(20),
      ascii(b.length - 64, 64).includes('IEND'),
    );
  }
  if (b.length >= 10 && ascii(0, 3) === 'GIF') {
    return result('gif', view.getUint16(6, true), view.getUint16(8, true));
  }
  if (b.length >= 26 && ascii(0, 2) === 'BM') {
    return result(
      'bmp',
      Math.abs(view.getInt32(18, true)),
      Math.abs(view.getInt32(22, true)),
      b.length >= view.getUint32(2, true) || view.getUint32(2, true) === 0,
    );
  }
  if (b.length >= 12 && ascii(0, 4) === 'RIFF' && ascii(8, 4) === 'WEBP') {
    return result('webp', 0, 0, b.length >= view.getUint32(4, true) + 8);
  }
  if (b.length >= 12 && ascii(4, 4) === 'ftyp') {
    const brand = ascii(8, 4);
    if (brand.startsWith('avi')) return result('avif');
    if (/^(hei|hev|mif1|msf1)/.test(brand)) return result('heic');
  }
  if (/^(II\*\0|MM\0\*)/.test(ascii(0, 4))) return result('tiff');
  if (/^\s*(<\?xml[\s\S]*?)?(<!--[\s\S]*?-->\s*)?<svg/i.test(ascii(0, 512))) return result('svg');
  return result('');
}

/**
 * Walks the segments: an embedded thumbnail has an end mark of its own, which must not count.
 * @param {Uint8Array} b
 * @param {DataView} view
 * @returns {Sniffed}
 */
function sniffJpeg(b, view) {
  let width = 0;
  let height = 0;
  let at = 2;
  while (at + 4 <= b.length && b[at] === 0xff) {
    const marker = b[at + 1];
    if (marker === 0xff) {
      at++;
      continue;
    }
    const length = view.getUint16(at + 2);
    if (
      marker >= 0xc0 &&
      marker <= 0xcf &&
      ![0xc4, 0xc8, 0xcc].includes(marker) &&
      at + 9 <= b.length
    ) {
      height = view.getUint16(at + 5);
      width = view.getUint16(at + 7);
    }
    at += 2 + length;
    if (marker !== 0xda) continue;
    for (let i = b.indexOf(0xff, at); i >= 0 && i + 1 < b.length; i = b.indexOf(0xff, i + 1)) {
      if (b[i + 1] === 0xd9) return { type: 'jpeg', width, height, whole: true };
    }
    return { type: 'jpeg', width, height, whole: false };
  }
  return { type: 'jpeg', width, height, whole: false };
}

/** @param {Sniffed} s */
function refused(s) {
  const named = /** @type {Record<string, string>} */ ({
    heic: 'This is a HEIC picture, which this browser cannot read; save it as JPEG or PNG and try again.',
    avif: 'This AVIF picture cannot be read by this browser; save it as JPEG or PNG and try again.',
    tiff: 'This is a TIFF picture, which cannot be read here; save it as JPEG or PNG and try again.',
    svg: 'This is an SVG drawing, not a picture of pixels; save it as PNG and try again.',
  });
  return new PocketVLError(
    'IMAGE',
    named[s.type] ??
      'This file is not a picture that can be read here; JPEG, PNG, WebP, GIF, BMP and AVIF work.',
  );
}

/**
 * Before memory is taken for the pixels.
 * @param {import('./runtime.js').Runtime} runtime
 * @param {{width: number, height: number}} size
 */
function checkSize(runtime, { width, height }) {
  const { MAX_PIXELS, MAX_SIDE } = runtime.abi.constants;
  if (width * height <= MAX_PIXELS && Math.max(width, height) <= MAX_SIDE) return;
  throw new PocketVLError(
    'LIMIT',
    `The picture has ${width} x ${height} pixels; at most ${MAX_PIXELS / 1e6} million can be taken. Make it smaller.`,
    { details: { width, height } },
  );
}

/**
 * Pixels as the model's own tools see them: upright, without colour management, white behind transparency.
 * @param {ImageBitmap} bitmap closed here
 */
function draw(bitmap) {
  try {
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const g = canvas.getContext('2d', { willReadFrequently: true });
    if (!g) throw new Error('no 2d context');
    g.fillStyle = 'white';
    g.fillRect(0, 0, canvas.width, canvas.height);
    g.drawImage(bitmap, 0, 0);
    return g.getImageData(0, 0, canvas.width, canvas.height);
  } finally {
    bitmap.close();
  }
}

const canDecode = () =>
  typeof createImageBitmap === 'function' && typeof OffscreenCanvas === 'function';

/**
 * A picture in the engine's memory; the caller frees it with runtime.freeImage.
 * @param {import('./runtime.js').Runtime} runtime
 * @param {Blob | ImageData | ImageBitmap} source
 * @param {AbortSignal} signal
 * @returns {Promise<number>} address of a pvl_image
 */
export async function loadImage(runtime, source, signal) {
  checkSignal(signal);
  if (typeof ImageBitmap === 'function' && source instanceof ImageBitmap) {
    const { data, width, height } = draw(source);
    return runtime.imageFromPixels(data, width, height);
  }
  if (!(source instanceof Blob)) {
    const { data, width, height } = /** @type {ImageData} */ (source);
    return runtime.imageFromPixels(data, width, height);
  }
  /** @type {Uint8Array} */
  let bytes;
  try {
    bytes = new Uint8Array(await source.arrayBuffer());
  } catch (error) {
    throw new PocketVLError(
      'IMAGE',
      'The picture file cannot be read any more; it may have been moved or changed. Pick it again.',
      { cause: error },
    );
  }
  checkSignal(signal);
  if (!bytes.length) throw new PocketVLError('IMAGE', 'The picture file is empty.');
  const seen = sniff(bytes);
  if (!seen.whole) {
    throw new PocketVLError(
      'IMAGE',
      `The ${seen.type.toUpperCase()} picture is cut off: its end is missing. Copy or download it again.`,
    );
  }
  checkSize(runtime, seen);
  const large = Math.max(seen.width, seen.height) > MOST_SIDE;
  if (canDecode() && !large && seen.type !== 'svg') {
    try {
      const bitmap = await createImageBitmap(source, {
        colorSpaceConversion: 'none',
        premultiplyAlpha: 'none',
      });
      try {
        checkSignal(signal);
        checkSize(runtime, bitmap); // WebP and AVIF do not tell before
      } catch (error) {
        bitmap.close();
        throw error;
      }
      const { data, width, height } = draw(bitmap);
      return runtime.imageFromPixels(data, width, height);
    } catch (error) {
      if (error instanceof PocketVLError) throw error;
      // What the browser refuses, the core may still read.
    }
  }
  try {
    return runtime.imageFromFile(bytes);
  } catch (error) {
    if (!(error instanceof PocketVLError) || error.code !== 'IMAGE') throw error;
    if (['heic', 'avif', 'tiff', 'svg', ''].includes(seen.type)) throw refused(seen);
    throw error;
  }
}
