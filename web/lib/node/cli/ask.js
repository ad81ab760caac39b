// A picture and a question in, the answer out: the browser's WebAssembly in Node.js.
import process from 'node:process';
import { PocketVL, picture } from '../index.js';

/** @typedef {import('../../pocketvl.js').ChatOptions} ChatOptions */

/**
 * @param {{models: string[], pictures: string[], question: string, load: import('../../pocketvl.js').LoadOptions,
 *   chat: ChatOptions, verbose: boolean}} what
 */
export async function ask({ models, pictures, question, load, chat, verbose }) {
  const source = models.length === 1 ? models[0] : { files: models };
  const vl = await PocketVL.load(/** @type {any} */ (source), load);
  try {
    /** @type {import('../../pocketvl.js').Message['content']} */
    const content = [];
    for (const path of pictures) content.push({ type: 'image', image: await picture(path) });
    content.push({ type: 'text', text: question });
    const answer = vl.chat([{ role: 'user', content }], chat);
    for await (const piece of answer) process.stdout.write(piece);
    process.stdout.write('\n');
    if (verbose) {
      const { variant, threads } = vl.info;
      console.error(
        JSON.stringify({ variant, threads, stop: answer.stop, ...answer.stats }, null, 1),
      );
    }
  } finally {
    vl.dispose();
  }
}
