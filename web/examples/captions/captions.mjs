// A caption for every picture of a folder, in Node.js 20 or newer:
//
//   node captions.mjs FOLDER MODEL > captions.tsv
//
// MODEL is a folder with a manifest, a GGUF file or an address. Ctrl+C stops between two layers, not two pictures.
import { readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { PocketVL, PocketVLError, picture } from 'pocketvl';

const [folder, model] = process.argv.slice(2);
if (!folder || !model) {
  console.error('usage: node captions.mjs FOLDER MODEL');
  process.exit(2);
}
const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
const { signal } = stop;

const names = (await readdir(folder)).sort();
const pictures = names.filter((name) => /^\.(jpe?g|png|gif|bmp)$/i.test(extname(name)));
const vl = await PocketVL.load(model, { signal });
let failed = 0;
for (const [i, name] of pictures.entries()) {
  try {
    const image = await picture(join(folder, name));
    const content = [
      { type: 'image', image },
      { type: 'text', text: 'Describe the picture.' },
    ];
    const answer = vl.chat([{ role: 'user', content }], { maxTokens: 96, signal });
    console.log(`${name}\t${(await answer.text()).replace(/\s+/g, ' ').trim()}`);
    console.error(`${i + 1} of ${pictures.length}, ${Math.round(answer.stats.totalMs)} ms`);
  } catch (error) {
    if (!(error instanceof PocketVLError)) throw error;
    if (error.code === 'ABORTED') break;
    failed++; // one bad picture must not cost the others
    console.error(`${name}: ${error.message}`);
  }
}
vl.dispose();
process.exitCode = failed || signal.aborted ? 1 : 0;
