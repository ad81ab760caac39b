// A converted model as a folder for static hosts: large files in parts that hosts take, a manifest over all.
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdir, readFile, readdir, rename, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { PocketVLError, checkSignal } from '../../errors.js';
import { CHUNK, checkManifest, splitUrls } from '../../manifest.js';

/** @typedef {import('../../manifest.js').Manifest} Manifest */
/** @typedef {import('../../manifest.js').ModelFile} ModelFile */

/** Bytes of a part: three chunks, 50.3 MB. */
export const PART = 3 * CHUNK;

/**
 * @param {string} text such as 24M, in units of 1024
 * @returns {number} NaN where it is no size
 */
export function parseSize(text) {
  const match = /^(\d+)([KMG]?)$/i.exec(text);
  const unit = { '': 1, K: 1024, M: 1 << 20, G: 1 << 30 }[match?.[2].toUpperCase() ?? ''] ?? NaN;
  return match ? Number(match[1]) * unit : NaN;
}

/**
 * What lies in a folder or is named by a path, and what its manifest says, where there is one.
 * @param {string} from
 * @returns {Promise<{folder: string, manifest: Manifest | null, names: string[]}>}
 */
async function source(from) {
  const info = await stat(from).catch(() => null);
  if (!info) throw new PocketVLError('IO', `There is no ${from}.`);
  if (!info.isDirectory()) {
    const names = splitUrls(from).map((path) => basename(path));
    return { folder: dirname(from), manifest: null, names };
  }
  const text = await readFile(join(from, 'manifest.json'), 'utf8').catch(() => null);
  if (text !== null) {
    let json;
    try {
      json = JSON.parse(text);
    } catch {
      throw new PocketVLError('FORMAT', `${join(from, 'manifest.json')} is not JSON.`);
    }
    const manifest = checkManifest(json, join(from, 'manifest.json'));
    return { folder: from, manifest, names: manifest.files.map(({ name }) => name) };
  }
  const names = (await readdir(from)).filter((name) => /\.gguf$/i.test(name)).sort();
  if (!names.length)
    throw new PocketVLError('IO', `${from} holds neither a manifest.json nor .gguf files.`);
  return { folder: from, manifest: null, names };
}

/**
 * Copies one file, in parts where it is larger than one, and hashes it on the way.
 * @param {string} path
 * @param {string} name
 * @param {string} to
 * @param {number} most bytes of a part
 * @param {AbortSignal | undefined} signal
 * @returns {Promise<ModelFile>}
 */
async function copyFile(path, name, to, most, signal) {
  const { size } = await stat(path).catch(() => {
    throw new PocketVLError('IO', `The model file ${path} is missing.`);
  });
  if (!size) throw new PocketVLError('FORMAT', `The model file ${path} is empty.`);
  const count = Math.ceil(size / most);
  const digits = Math.max(2, String(count).length);
  const partName = (/** @type {number} */ i) =>
    count === 1 ? name : `${name}.part${String(i + 1).padStart(digits, '0')}.bin`;
  /** @type {ModelFile} */
  const file = { name, bytes: size, chunks: [] };
  let hash = createHash('sha256');
  let hashed = 0;
  for (let i = 0; i < count; i++) {
    checkSignal(signal);
    const start = i * most;
    const end = Math.min(size, start + most);
    const out = createWriteStream(join(to, partName(i)));
    for await (const piece of createReadStream(path, {
      start,
      end: end - 1,
      highWaterMark: 1 << 20,
    })) {
      for (let at = 0; at < piece.length;) {
        const n = Math.min(CHUNK - hashed, piece.length - at);
        hash.update(piece.subarray(at, at + n));
        at += n;
        hashed += n;
        if (hashed < CHUNK) continue;
        file.chunks.push({ bytes: hashed, sha256: hash.digest('hex') });
        hash = createHash('sha256');
        hashed = 0;
      }
      if (!out.write(piece)) await new Promise((go) => out.once('drain', () => go(undefined)));
    }
    await new Promise((done, fail) => out.on('error', fail).end(() => done(undefined)));
    if (count > 1) (file.parts ??= []).push({ name: partName(i), bytes: end - start });
  }
  if (hashed) file.chunks.push({ bytes: hashed, sha256: hash.digest('hex') });
  return file;
}

/**
 * @param {string[]} from a converted folder, or GGUF files
 * @param {string} to a folder, made if it is not there
 * @param {{partSize?: number, title?: string, license?: string, signal?: AbortSignal, say?: (text: string) => void}} [options]
 * @returns {Promise<Manifest>}
 */
export async function publish(from, to, options = {}) {
  const { partSize = PART, title, license, signal, say = () => {} } = options;
  const given = await Promise.all(from.map(source));
  const known = given.length === 1 ? given[0].manifest : null;
  if (known?.files.some(({ parts }) => parts)) {
    throw new PocketVLError('ARGUMENT', `${from[0]} is published already: its files are in parts.`);
  }
  await mkdir(to, { recursive: true });
  /** @type {ModelFile[]} */
  const files = [];
  for (const { folder, names } of given) {
    for (const name of names) {
      const file = await copyFile(join(folder, name), name, to, partSize, signal);
      const before = known?.files.find((one) => one.name === name);
      if (before && JSON.stringify(flat(before)) !== JSON.stringify(flat(file))) {
        throw new PocketVLError(
          'INTEGRITY',
          `${join(folder, name)} is not the file that its manifest describes; convert the model again.`,
        );
      }
      say(`${name}: ${file.bytes} bytes${file.parts ? ` in ${file.parts.length} parts` : ''}`);
      files.push(file);
    }
  }
  /** @type {Manifest} */
  const manifest = {
    ...(known ?? { format: 1, name: files[0].name.replace(/(-\d{5}-of-\d{5})?\.gguf$/i, '') }),
    ...(title ? { title } : {}),
    ...(license ? { license } : {}),
    files,
  };
  checkManifest(manifest, to);
  // Last, and under its name only when whole: a folder with a manifest is complete.
  await writeFile(join(to, 'manifest.json.new'), `${JSON.stringify(manifest, null, 2)}\n`);
  await rename(join(to, 'manifest.json.new'), join(to, 'manifest.json'));
  return manifest;
}

/** Size and hashes alone: manifests may cut chunks differently. */
function flat(/** @type {ModelFile} */ { bytes, chunks }) {
  const same = chunks.every((chunk, i) => chunk.bytes === CHUNK || i === chunks.length - 1);
  return same ? { bytes, hashes: chunks.map(({ sha256 }) => sha256) } : { bytes };
}
