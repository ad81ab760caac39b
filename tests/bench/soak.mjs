// What only shows after a while: memory that grows, a queue that is unfair, a cancel that leaves something behind.
//
//   npm run soak -- [--questions 500] [--pictures 100] [--chats 20]
//
// In Node.js, with the demonstration model on the page's own WebAssembly. `npm test` runs a short one.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PocketVL } from '../../web/lib/node/index.js';
import { setup } from '../../wasm/tools/setup.mjs';
import { build } from '../../wasm/tools/build.mjs';
import { Trouble, isMain, main, root, say } from '../../wasm/tools/shell.mjs';

const MODEL = join(root, 'web', 'models', 'demo');
const MEGABYTE = 1048576;

/** A picture that no other number gives: a BMP of 64 x 48 pixels. */
export function bitmap(/** @type {number} */ number) {
  const [width, height] = [64, 48];
  const file = Buffer.alloc(54 + width * height * 3);
  file.write('BM', 'latin1');
  file.writeUInt32LE(file.length, 2);
  file.writeUInt32LE(54, 10);
  file.writeUInt32LE(40, 14);
  file.writeInt32LE(width, 18);
  file.writeInt32LE(height, 22);
  file.writeUInt16LE(1, 26);
  file.writeUInt16LE(24, 28);
  for (let i = 54; i < file.length; i++)
    file[i] = (number * 37 + (i % (number + 7)) * 11 + (i >> 6)) & 255;
  return new Blob([file], { type: 'image/bmp' });
}

/** @param {Blob} image @param {string} text */
const question = (image, text) =>
  /** @type {import('../../web/lib/pocketvl.js').Message[]} */ ([
    {
      role: 'user',
      content: [
        { type: 'image', image },
        { type: 'text', text },
      ],
    },
  ]);

const QUESTIONS = ['What is this?', 'How many shapes are there?', 'Which colour is it?'];

/** What the process holds, in bytes, after a full collection where that can be asked for. */
function held() {
  globalThis.gc?.();
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  return { script: heapUsed + external + arrayBuffers, rss };
}

/**
 * Questions over pictures, in turns; growth is counted from the end of the first ten on.
 * @param {PocketVL} vl
 * @param {{questions: number, pictures: number}} how
 */
export async function questions(vl, { questions: count, pictures }) {
  const images = Array.from({ length: pictures }, (_, i) => bitmap(i));
  /** @type {Map<string, string>} */
  const known = new Map();
  let [tokens, changed] = [0, 0];
  let before = { ...held(), engine: 0 };
  for (let i = 0; i < count; i++) {
    const text = QUESTIONS[i % QUESTIONS.length];
    const answer = vl.chat(question(images[i % pictures], text), { maxTokens: 12 });
    const said = await answer.text();
    tokens += Number(answer.stats?.generatedTokens);
    const key = `${i % pictures} ${text}`;
    if (known.has(key) && known.get(key) !== said) changed++;
    known.set(key, said);
    if (i === 9) before = { ...held(), engine: Number(vl.stats.memoryBytes) };
  }
  const after = { ...held(), engine: Number(vl.stats.memoryBytes) };
  return {
    count,
    tokens,
    changed,
    engine: after.engine - before.engine,
    script: after.script - before.script,
    rss: after.rss - before.rss,
  };
}

/**
 * Chats that are all asked at once; every third is stopped while it waits, and the first after its first piece.
 * @param {PocketVL} vl
 * @param {number} count
 */
export async function crowd(vl, count) {
  const image = bitmap(1);
  /** @type {number[]} */
  const order = [];
  const chats = Array.from({ length: count }, (_, i) => {
    const stop = new AbortController();
    const answer = vl.chat(question(image, `${QUESTIONS[i % 3]} (${i})`), {
      maxTokens: i === 0 ? 200 : 6,
      signal: stop.signal,
      // The demonstration model may end at once; drawn at random it goes on.
      temperature: i === 0 ? 2 : 0,
    });
    const end = (async () => {
      try {
        for await (const piece of answer) {
          if (piece && i === 0) stop.abort();
        }
        order.push(i);
        return 'answered';
      } catch (error) {
        return String(/** @type {any} */ (error).code);
      }
    })();
    return { stop, end };
  });
  chats.forEach(({ stop }, i) => {
    if (i % 3 === 2) stop.abort();
  });
  const ends = await Promise.all(chats.map(({ end }) => end));
  return { ends, order };
}

/** @param {string[]} ends @param {number[]} order */
export function crowdIsFair(ends, order) {
  const waited = ends.every((end, i) => end === (i % 3 === 2 ? 'ABORTED' : 'answered') || i === 0);
  return waited && order.every((n, i) => i === 0 || n > order[i - 1]);
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const args = process.argv.slice(2);
    const number = (/** @type {string} */ name, /** @type {number} */ missing) => {
      const at = args.indexOf(`--${name}`);
      const value = at < 0 ? missing : Number(args[at + 1]);
      if (!Number.isInteger(value) || value < 1) throw new Trouble(`--${name} takes a number.`);
      return value;
    };
    const how = { questions: number('questions', 500), pictures: number('pictures', 100) };
    const chats = number('chats', 20);
    await build(['page'], await setup(['page']));
    readFileSync(join(MODEL, 'manifest.json'));
    const vl = await PocketVL.load(MODEL);
    const start = Date.now();
    const long = await questions(vl, how);
    const megabytes = (/** @type {number} */ bytes) => `${(bytes / MEGABYTE).toFixed(2)} MB`;
    say(
      `${long.count} questions over ${how.pictures} pictures, ${long.tokens} tokens, ${((Date.now() - start) / 1000).toFixed(0)} s; ` +
        `since the tenth: engine's memory +${megabytes(long.engine)}, script's +${megabytes(long.script)}, ` +
        `process +${megabytes(long.rss)}; ${long.changed} answers changed`,
    );
    const { ends, order } = await crowd(vl, chats);
    const stopped = ends.filter((end) => end === 'ABORTED').length;
    say(
      `${chats} chats at once: ${order.length} answered in the order of asking, ${stopped} stopped`,
    );
    vl.dispose();
    if (long.engine > 0 || long.changed) throw new Trouble('Memory or answers changed.');
    if (!crowdIsFair(ends, order)) throw new Trouble(`The chats ended so: ${ends.join(' ')}.`);
  });
}
