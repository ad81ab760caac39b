// The pictures of the next question: picked, dropped, pasted or taken with the camera.
import { sniff } from '../lib/image.js';
import { $, button, focusQuestion, make } from './dom.js';
import { showNotice } from './errors.js';
import { t } from './strings.js';

/**
 * A picture of the conversation. `blob` is null where it was not kept over a reload.
 * @typedef {object} Shot
 * @property {string} name
 * @property {Blob | null} blob
 * @property {string} url
 * @property {number} width 0: not known, as of kinds that the browser cannot show
 * @property {number} height
 * @property {Promise<boolean>} viewable whether the browser may try to show it
 * @property {Promise<void>} sized when the size is known, or never will be
 * @property {Set<number>} seen with how many tiles the engine has seen it
 * @property {string} key of the kept copy, or ''
 */

const MOST_PICTURES = 8;
/** The engine's limit. Browsers have none: Firefox works 18 s on a bitmap of 94 bytes that says it has 60000 x 60000. */
const MOST_PIXELS = 120e6;
const HEAD = 1 << 18; // bytes of a file that tell the size

/** @type {Shot[]} */
let attached = [];
/** @type {(files: File[]) => void} */
let openModel = () => {};
/** @type {() => void} */
let changed = () => {};

/** @param {Blob} blob */
async function isViewable(blob) {
  const { width, height } = sniff(new Uint8Array(await blob.slice(0, HEAD).arrayBuffer()));
  return width * height <= MOST_PIXELS;
}

/**
 * @param {string} name
 * @param {Blob | null} blob
 * @param {string} [key]
 * @returns {Shot}
 */
export function makeShot(name, blob, key = '') {
  const url = blob ? URL.createObjectURL(blob) : '';
  /** @type {Shot} */
  const shot = {
    name,
    blob,
    url,
    width: 0,
    height: 0,
    viewable: blob ? isViewable(blob).catch(() => true) : Promise.resolve(false),
    sized: Promise.resolve(),
    seen: new Set(),
    key,
  };
  if (!url) return shot;
  const measure = async () => {
    if (!(await shot.viewable)) return;
    const image = new Image();
    image.src = url;
    await image.decode();
    shot.width = image.naturalWidth;
    shot.height = image.naturalHeight;
  };
  shot.sized = measure().catch(() => {}); // the engine may still read it
  return shot;
}

export const attachedShots = () => attached;

/** @param {Shot[]} shots */
export function setAttached(shots) {
  attached = shots;
  show();
  changed();
}

/** Takes the pictures away for a question. */
export function takeAttached() {
  const shots = attached;
  setAttached([]);
  return shots;
}

/** @param {Iterable<File | Blob>} files pictures, or the files of a model */
export function addFiles(files) {
  const list = [...files];
  const gguf = list.filter((f) => /\.gguf$/i.test(/** @type {File} */ (f).name ?? ''));
  if (gguf.length) {
    openModel(/** @type {File[]} */ (gguf));
    return;
  }
  const room = MOST_PICTURES - attached.length;
  if (list.length > room)
    showNotice({ code: 'LIMIT', message: t('tooMany', { n: MOST_PICTURES }) });
  const fresh = list
    .slice(0, Math.max(room, 0))
    .map((blob) => makeShot(/** @type {File} */ (blob).name || t('picture'), blob));
  setAttached([...attached, ...fresh]);
  focusQuestion();
}

/**
 * An image element, or the name where the browser cannot show the picture.
 * @param {Shot} shot
 * @param {(unseen: HTMLElement) => void} [onUnseen]
 */
export function picture(shot, onUnseen) {
  const named = () => make('span', 'unseen', shot.blob ? shot.name : t('notKept'));
  if (!shot.url) {
    const unseen = named();
    onUnseen?.(unseen);
    return unseen;
  }
  const image = /** @type {HTMLImageElement} */ (make('img'));
  image.alt = shot.name;
  const unsee = () => {
    const unseen = named();
    image.replaceWith(unseen);
    onUnseen?.(unseen);
  };
  image.addEventListener('error', unsee);
  void shot.viewable.then((may) => {
    if (may) image.src = shot.url;
    else unsee();
  });
  return image;
}

function show() {
  $('pictures').replaceChildren(
    ...attached.map((shot) => {
      const item = make('li');
      const remove = button('', 'remove', () => {
        setAttached(attached.filter((other) => other !== shot));
        focusQuestion();
      });
      remove.setAttribute('aria-label', t('remove', { name: shot.name }));
      item.append(picture(shot), remove);
      return item;
    }),
  );
}

/**
 * @param {object} hooks
 * @param {(files: File[]) => void} hooks.onModelFiles
 * @param {() => void} hooks.onChange
 */
export function wireAttachments({ onModelFiles, onChange }) {
  openModel = onModelFiles;
  changed = onChange;
  for (const id of ['file', 'camera']) {
    const input = /** @type {HTMLInputElement} */ ($(id));
    input.addEventListener('change', () => {
      addFiles(input.files ?? []);
      input.value = ''; // the same file again is a change, too
    });
  }
  window.addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    addFiles(files);
  });
  let depth = 0;
  const carries = (/** @type {DragEvent} */ event) =>
    event.dataTransfer?.types.includes('Files') ?? false;
  window.addEventListener('dragenter', (event) => {
    if (carries(event)) $('curtain').hidden = ++depth < 1;
  });
  window.addEventListener('dragleave', (event) => {
    if (carries(event) && --depth < 1) $('curtain').hidden = true;
  });
  window.addEventListener('dragover', (event) => {
    if (carries(event)) event.preventDefault();
  });
  window.addEventListener('drop', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    $('curtain').hidden = true;
    addFiles(event.dataTransfer?.files ?? []);
  });
}
