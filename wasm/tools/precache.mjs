// The list of the page's files with their hashes, and a version made of them, for the service worker: what it keeps for
// visits without a network, and how it learns that there is a new release.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const NAME = 'precache.js';
/** Not part of a visit: weights, what only Node.js or a reader wants, and the worker itself. */
const NOT = [
  /\.(gguf|bin|md|map|ts|LICENSE)$/,
  /(^|\/)tsconfig\.json$/,
  /^(serve\.mjs|sw\.js|precache\.js|licences\.txt|screenshot\.png)$/,
  /^lib\/node\//,
  /^models\/(?!demo(\/|$))/, // the site owner's: they come and go without a release
  /(^|\/)(\.|node_modules\/)/,
  /^(dist|examples|types)\//,
];
const MOST_BYTES = 4 * 1048576;

/**
 * @param {string} folder
 * @param {string} [below]
 * @returns {string[]} paths in the folder, with slashes
 */
function walk(folder, below = '') {
  return readdirSync(join(folder, below), { withFileTypes: true }).flatMap((entry) => {
    const path = below + entry.name;
    if (NOT.some((pattern) => pattern.test(path))) return [];
    if (entry.isDirectory()) return walk(folder, `${path}/`);
    return statSync(join(folder, path)).size <= MOST_BYTES ? [path] : [];
  });
}

/**
 * Writes precache.js into a folder that holds the page.
 * @param {string} folder
 * @returns {string} the version
 */
export function writePrecache(folder) {
  const hash = (/** @type {string | Buffer} */ data) =>
    createHash('sha256').update(data).digest('hex');
  /** @type {Record<string, string>} */
  const files = {};
  for (const path of walk(folder).sort()) {
    // A folder's address, not index.html: hosts send the one on to the other.
    files[path === 'index.html' ? './' : path] = hash(readFileSync(join(folder, path)));
  }
  const version = hash(JSON.stringify(files)).slice(0, 16);
  const text =
    '// Made by the build: the files of this release. The service worker reads it.\n' +
    `self.release = ${JSON.stringify({ version, files }, null, 1)};\n`;
  const file = join(folder, NAME);
  if (!existsSync(file) || readFileSync(file, 'utf8') !== text) writeFileSync(file, text);
  return version;
}
