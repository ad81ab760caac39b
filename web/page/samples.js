// Pictures to try the page with, each with a question.
import { makeShot } from './attachments.js';
import { $, make } from './dom.js';
import { language } from './strings.js';

/** @type {{file: string, alt: string, question: Record<string, string>}[] | null} */
let samples = null;

/** @param {(question: string, shots: import('./attachments.js').Shot[]) => void} ask */
export async function showSamples(ask) {
  if (!samples) {
    const found = await fetch('samples/samples.json').catch(() => null);
    samples = found?.ok ? ((await found.json().catch(() => null))?.samples ?? []) : [];
  }
  const list = samples ?? [];
  $('samples-box').hidden = !list.length;
  $('samples').replaceChildren(
    ...list.map(({ file, alt, question }) => {
      const item = make('li');
      const card = make('button');
      card.setAttribute('type', 'button');
      const image = /** @type {HTMLImageElement} */ (make('img'));
      image.src = `samples/${file}`;
      image.alt = alt;
      image.loading = 'lazy';
      const words = question[language()] ?? question.en;
      card.append(image, make('span', '', words));
      card.addEventListener('click', async () => {
        const blob = await fetch(`samples/${file}`)
          .then((r) => r.blob())
          .catch(() => null);
        if (blob) ask(words, [makeShot(alt, blob)]);
      });
      item.append(card);
      return item;
    }),
  );
}
