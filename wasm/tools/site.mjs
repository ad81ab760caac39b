// The folder to put on a host: build/site. Everything that a visit needs and nothing else, addresses relative, so that
// it works from a root or a subfolder of any static host.
import { cpSync, existsSync, readdirSync, rmSync, statSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { writePrecache } from './precache.mjs';
import { Trouble, root } from './shell.mjs';

/** Where it is made. */
export const siteFolder = join(root, 'build', 'site');

/** Hosts take files of 100 MB and more, or of 25 MB and less; the models' files are cut for the former. */
export const MOST_BYTES = 64e6;

/** What is in web/ for developers, readers and Node.js. */
const NOT = [
  /^(examples|types|dist)$/,
  /^serve\.mjs$/,
  /^lib\/(node|tsconfig\.json)$/,
  /(^|\/)\./,
  /\.(md|d\.ts|map)$/,
  /^screenshot.*\.png$/,
];

/**
 * All files of a folder, with slashes.
 * @param {string} folder
 * @returns {string[]}
 */
export function filesOf(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath ?? entry.path, entry.name)))
    .map((path) => path.split(sep).join('/'))
    .sort();
}

/** Makes the folder anew, but for models that were put into it. */
export function makeSite() {
  const web = join(root, 'web');
  for (const name of existsSync(siteFolder) ? readdirSync(siteFolder) : []) {
    if (name !== 'models') rmSync(join(siteFolder, name), { recursive: true });
  }
  cpSync(web, siteFolder, {
    recursive: true,
    filter: (source) => {
      const path = relative(web, source).split(sep).join('/');
      return !NOT.some((pattern) => pattern.test(path));
    },
  });
  cpSync(join(root, 'LICENSE'), join(siteFolder, 'LICENSE'));
  writePrecache(siteFolder);
  const large = filesOf(siteFolder).filter(
    (path) => statSync(join(siteFolder, path)).size > MOST_BYTES,
  );
  if (large.length) {
    throw new Trouble(
      `${large.join(', ')} in build/site: larger than ${MOST_BYTES / 1e6} MB, which many hosts refuse; ` +
        'npx pocketvl publish cuts a model into parts that they take.',
    );
  }
}
