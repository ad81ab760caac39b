// Addresses of models as people have them at hand: of a manifest or a GGUF file, of two files that belong together, and what
// the Hugging Face hub shows in its address line: a file's own page, a folder, or a repository's bare name.
import { PocketVLError } from '../lib/errors.js';

export const HUB = 'https://huggingface.co';
const HUB_NAMES = /^(?:www\.)?(?:huggingface\.co|hf\.co)$/i;
/** Where several files offer the same model: small enough for a page, good enough to be taken. */
const PREFERRED = ['q8_0', 'q6_k', 'q5_k_m', 'q4_k_m', 'q4_0', 'f16', 'bf16'];

/**
 * @param {string} text one address
 * @param {string} base what a relative one is relative to
 */
function tidyOne(text, base) {
  let given = text;
  if (/^(?:www\.)?(?:huggingface\.co|hf\.co)\//i.test(given)) given = `https://${given}`;
  else if (/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(given) && !/\.(gguf|json)$/i.test(given))
    given = `${HUB}/${given}`;
  const url = new URL(given, base);
  if (!/^https?:$/.test(url.protocol)) throw new Error(`${url.protocol} is not of the web`);
  url.hash = '';
  if (!HUB_NAMES.test(url.hostname)) return url.href;
  // The page that shows a file, and the file.
  const path = url.pathname.replace(/^(\/[^/]+\/[^/]+)\/blob\//, '$1/resolve/');
  return `${HUB}${path}${url.search}`;
}

/**
 * Addresses as they can be fetched. Throws what is none.
 * @param {string} text one, or several with space between them
 * @param {string} base
 * @returns {string[]}
 */
export function tidy(text, base) {
  const parts = text.trim().split(/\s+(?=https?:\/\/)/i);
  return parts.map((part) => tidyOne(part, base));
}

/**
 * What an address means of the hub where it names no file: a repository or a folder in it.
 * @param {string} address
 */
function repositoryOf(address) {
  if (!address.startsWith(`${HUB}/`)) return null;
  const path = new URL(address).pathname.replace(/\/$/, '');
  const match = /^\/([^/]+\/[^/]+)(?:\/tree\/([^/]+)((?:\/[^/]+)*))?$/.exec(path);
  if (!match) return null;
  const [, name, revision = 'main', folder = ''] = match;
  return { name, revision, folder: folder && `${decodeURIComponent(folder).slice(1)}/` };
}

/**
 * The files of a repository that make one model.
 * @param {string[]} files paths in the repository
 * @param {string} folder '' or with a slash at its end
 * @returns {string[]} a manifest, or a language model and what belongs to it; none where there is no GGUF file
 */
export function chooseFiles(files, folder = '') {
  const here = files.filter((path) => path.startsWith(folder));
  const manifest = `${folder}manifest.json`;
  if (here.includes(manifest)) return [manifest];
  const firsts = here.filter(
    (path) => /\.gguf$/i.test(path) && !/-(?!00001-)\d{5}-of-\d{5}\.gguf$/i.test(path),
  );
  const best = (/** @type {string[]} */ list) => {
    const rank = (/** @type {string} */ path) => {
      const at = PREFERRED.findIndex((type) =>
        new RegExp(`(^|[^a-z0-9])${type}([^a-z0-9]|$)`, 'i').test(path),
      );
      return at < 0 ? PREFERRED.length : at;
    };
    return [...list].sort((a, b) => rank(a) - rank(b)).slice(0, 1);
  };
  const vision = firsts.filter((path) => /mmproj/i.test(path));
  const language = firsts.filter((path) => !vision.includes(path));
  return language.length ? [...best(language), ...best(vision)] : [];
}

/**
 * The addresses that stand behind given ones: those of a repository's files, which the hub is asked for.
 * @param {string[]} addresses
 * @param {AbortSignal} signal
 * @returns {Promise<string[]>}
 */
export async function resolveAddresses(addresses, signal) {
  const repository = addresses.length === 1 ? repositoryOf(addresses[0]) : null;
  if (!repository) return addresses;
  const { name, revision, folder } = repository;
  const details = { url: addresses[0] };
  const response = await fetch(`${HUB}/api/models/${name}/revision/${revision}`, { signal }).catch(
    (cause) => {
      signal.throwIfAborted();
      throw new PocketVLError('NETWORK', `${HUB} cannot be reached to ask what ${name} holds.`, {
        cause,
        details,
      });
    },
  );
  if (!response.ok) {
    throw new PocketVLError(
      'NETWORK',
      `${HUB} has no open repository ${name} (HTTP ${response.status}); check the name.`,
      { details },
    );
  }
  const listed = (await response.json().catch(() => null))?.siblings;
  const files = (Array.isArray(listed) ? listed : []).map((file) => String(file?.rfilename ?? ''));
  const chosen = chooseFiles(files, folder);
  if (!chosen.length) {
    throw new PocketVLError(
      'FORMAT',
      `${name} at ${HUB} holds no GGUF file, which this page needs: take a repository with one, or convert the model.`,
      { details },
    );
  }
  const path = (/** @type {string} */ file) => file.split('/').map(encodeURIComponent).join('/');
  return chosen.map((file) => `${HUB}/${name}/resolve/${revision}/${path(file)}`);
}
