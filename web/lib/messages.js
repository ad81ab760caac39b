// Chat messages as people write them, to what is posted to the worker. Runs on the caller's side, because
// elements of a page cannot be posted.
import { PocketVLError, aborted } from './errors.js';

/**
 * A picture: a Blob or File, an address (`data:` too), or anything that can be drawn; in Node.js also a path.
 * @typedef {Blob | URL | string | ImageData | ImageBitmap | HTMLImageElement | HTMLCanvasElement |
 *   OffscreenCanvas | HTMLVideoElement | VideoFrame} Picture
 */

/** @typedef {{type: 'text', text: string}} TextPart */
/** @typedef {{type: 'image', image: Picture}} ImagePart */
/** @typedef {{type: 'image_url', image_url: {url: string} | string}} ImageUrlPart */
/** @typedef {{role: 'system' | 'user' | 'assistant', content: string | (TextPart | ImagePart | ImageUrlPart)[]}} Message */

/** @typedef {{text: string} | {picture: number}} PostedPart picture: a key of the call's pictures */
/** @typedef {{role: 'system' | 'user' | 'assistant', parts: PostedPart[]}} PostedMessage */
/** @typedef {{key: number, source: Blob | ImageData | ImageBitmap}} PostedPicture */

const ROLES = ['system', 'user', 'assistant'];

/** @param {string} message */
const wrong = (message) => new PocketVLError('ARGUMENT', message);

/** Remembers pictures that cannot change, so that the worker decodes each of them once. */
export class Pictures {
  constructor() {
    this.next = 1;
    /** @type {WeakMap<object, number>} */
    this.keys = new WeakMap();
    /** @type {Map<string, Blob>} */
    this.fetched = new Map();
  }

  /** @param {object} picture */
  keyOf(picture) {
    let key = this.keys.get(picture);
    if (!key) this.keys.set(picture, (key = this.next++));
    return key;
  }

  /**
   * @param {string} url
   * @param {AbortSignal | undefined} signal
   */
  async fetch(url, signal) {
    const known = this.fetched.get(url);
    if (known) return known;
    let blob;
    try {
      const response = await fetch(url, { signal });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      blob = await response.blob();
    } catch (error) {
      if (signal?.aborted) throw aborted();
      throw new PocketVLError(
        'NETWORK',
        `The picture at ${url.slice(0, 200)} could not be fetched: ${/** @type {Error} */ (error).message}.`,
        { cause: error },
      );
    }
    return this.remember(url, blob);
  }

  /**
   * A `data:` address, without fetch, which content policies forbid for them.
   * @param {string} url
   */
  decode(url) {
    const known = this.fetched.get(url);
    if (known) return known;
    try {
      const [, type, base64, data] =
        /^data:([^,;]*)(?:;[^,;]*)*?(;base64)?,([^]*)$/i.exec(url) ?? [];
      const text = base64 ? atob(data) : decodeURIComponent(data ?? '%');
      const bytes = base64 ? Uint8Array.from(text, (c) => c.charCodeAt(0)) : text;
      return this.remember(url, new Blob([bytes], { type }));
    } catch (error) {
      throw new PocketVLError('IMAGE', 'The picture in the data: address is not well formed.', {
        cause: error,
      });
    }
  }

  /**
   * @param {string} url
   * @param {Blob} blob
   */
  remember(url, blob) {
    if (this.fetched.size > 16) this.fetched.delete([...this.fetched.keys()][0]);
    this.fetched.set(url, blob);
    return blob;
  }

  /**
   * @param {Picture} picture
   * @param {AbortSignal | undefined} signal
   * @returns {Promise<PostedPicture>}
   */
  async post(picture, signal) {
    if (picture instanceof Blob) return { key: this.keyOf(picture), source: picture };
    if (typeof picture === 'string' || picture instanceof URL) {
      const url = String(picture);
      const blob = url.startsWith('data:') ? this.decode(url) : await this.fetch(url, signal);
      return { key: this.keyOf(blob), source: blob };
    }
    // All else can change between two calls: a key of its own each time.
    const key = this.next++;
    if (typeof ImageData === 'function' && picture instanceof ImageData)
      return { key, source: picture };
    if (isPixels(picture)) return { key, source: picture };
    if (typeof createImageBitmap === 'function' && typeof picture === 'object' && picture) {
      try {
        const source = /** @type {ImageBitmapSource} */ (picture);
        return { key, source: await createImageBitmap(source, { premultiplyAlpha: 'none' }) };
      } catch (error) {
        throw new PocketVLError(
          'IMAGE',
          'The picture given cannot be drawn: it may not be loaded yet.',
          {
            cause: error,
          },
        );
      }
    }
    throw wrong(
      'A picture must be a Blob, File, URL, ImageData, ImageBitmap, canvas or image element.',
    );
  }
}

/**
 * Pixels without the DOM's class, as in Node.js.
 * @param {unknown} value
 * @returns {value is ImageData}
 */
function isPixels(value) {
  const v = /** @type {any} */ (value);
  return (
    typeof v === 'object' &&
    v !== null &&
    ArrayBuffer.isView(v.data) &&
    Number.isInteger(v.width) &&
    Number.isInteger(v.height) &&
    /** @type {Uint8Array} */ (v.data).length === v.width * v.height * 4
  );
}

/**
 * Checks messages and makes them ready to be posted.
 * @param {Message[] | string} messages
 * @param {Pictures} pictures
 * @param {AbortSignal} [signal]
 */
export async function prepare(messages, pictures, signal) {
  /** @type {Message[]} */
  const list = typeof messages === 'string' ? [{ role: 'user', content: messages }] : messages;
  if (!Array.isArray(list) || !list.length)
    throw wrong('chat wants a list of at least one message.');
  /** @type {PostedMessage[]} */
  const posted = [];
  /** @type {Map<number, PostedPicture>} */
  const images = new Map();
  for (const [i, message] of list.entries()) {
    if (!message || !ROLES.includes(message.role)) {
      throw wrong(
        `Message ${i} has the role "${message?.role}"; there are system, user and assistant.`,
      );
    }
    const content =
      typeof message.content === 'string'
        ? [{ type: 'text', text: message.content }]
        : message.content;
    if (!Array.isArray(content))
      throw wrong(`Message ${i} has no content: a string or a list of parts.`);
    /** @type {PostedPart[]} */
    const parts = [];
    for (const part of /** @type {any[]} */ (content)) {
      if (part?.type === 'text' && typeof part.text === 'string') parts.push({ text: part.text });
      else if (part?.type === 'image' || part?.type === 'image_url') {
        const picture =
          part.type === 'image' ? part.image : (part.image_url?.url ?? part.image_url);
        const one = await pictures.post(picture, signal);
        images.set(one.key, one);
        parts.push({ picture: one.key });
      } else {
        throw wrong(
          `Message ${i} has a part of the type "${part?.type}"; there are text, image and image_url.`,
        );
      }
    }
    posted.push({ role: message.role, parts });
  }
  const last = posted[posted.length - 1];
  if (last.role !== 'user') throw wrong('The last message must be from the user.');
  if (!last.parts.some((part) => 'text' in part && part.text.trim())) {
    throw wrong('The question is empty; type one.');
  }
  return { messages: posted, images: [...images.values()] };
}

const NUMBERS = /** @type {const} */ ({
  maxTokens: [1, 1e6, true],
  maxTiles: [1, 40, true],
  temperature: [0, 100, false],
  topK: [0, 1e9, true],
  topP: [0, 1, false],
  repetitionPenalty: [0.01, 100, false],
  seed: [0, Number.MAX_SAFE_INTEGER, true],
});

/**
 * Checks the options of a chat; what is undefined stays out.
 * @param {Record<string, any>} options
 * @returns {import('./runtime.js').ChatOptions}
 */
export function checkChatOptions(options) {
  /** @type {Record<string, any>} */
  const checked = {};
  for (const [name, [least, most, whole]] of Object.entries(NUMBERS)) {
    const value = options[name];
    if (value === undefined || value === null) continue;
    if (
      typeof value !== 'number' ||
      !(value >= least && value <= most) ||
      (whole && !Number.isInteger(value))
    ) {
      throw wrong(
        `${name} must be a ${whole ? 'whole ' : ''}number from ${least} to ${most}, it is ${value}.`,
      );
    }
    checked[name] = value;
  }
  if (options.stop !== undefined && options.stop !== null) {
    const stop = typeof options.stop === 'string' ? [options.stop] : options.stop;
    if (!Array.isArray(stop) || stop.some((s) => typeof s !== 'string' || !s) || stop.length > 16) {
      throw wrong('stop must be a string or a list of up to 16 strings that are not empty.');
    }
    checked.stop = stop;
  }
  const format = options.responseFormat;
  if (format !== undefined && format !== null) {
    if (format.type !== 'json_object' && format.type !== 'text')
      throw wrong("responseFormat must be {type: 'json_object'} or {type: 'text'}.");
    checked.json = format.type === 'json_object';
  }
  return checked;
}
