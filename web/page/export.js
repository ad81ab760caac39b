// The conversation as a file: JSON that any chat API reads again, or Markdown for people.
import { parseBoxes, withoutBoxes } from '../lib/pocketvl.js';
import { t } from './strings.js';

/** @typedef {import('./conversation.js').Turn} Turn */

/** @param {Blob} blob @returns {Promise<string>} */
const dataUrl = (blob) =>
  new Promise((done, fail) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result));
    reader.onerror = () => fail(reader.error);
    reader.readAsDataURL(blob);
  });

/**
 * Messages in the ecosystem's form, pictures inside; what is known about the answers beside them.
 * @param {Turn[]} turns
 * @param {string} model
 */
export async function toJson(turns, model) {
  const messages = [];
  const answers = [];
  for (const turn of turns) {
    const content = [];
    for (const { blob, name } of turn.shots) {
      const url = blob ? await dataUrl(blob).catch(() => '') : '';
      content.push(
        url ? { type: 'image_url', image_url: { url }, name } : { type: 'text', text: `[${name}]` },
      );
    }
    content.push({ type: 'text', text: turn.question });
    messages.push({ role: 'user', content });
    messages.push({ role: 'assistant', content: turn.answer });
    answers.push({
      model: turn.model || model,
      state: turn.state,
      boxes: parseBoxes(turn.answer).map(({ label, normalized }) => ({ label, box: normalized })),
      tilings: turn.pictures,
      stats: turn.stats,
    });
  }
  return `${JSON.stringify({ format: 'pocketvl-conversation', version: 1, exported: new Date().toISOString(), messages, answers }, null, 2)}\n`;
}

/** Text in which Markdown finds nothing: names and questions are shown as they are. @param {string} text */
const plain = (text) => text.replace(/[\\`*_{}[\]()<>#+\-.!|~&]/g, '\\$&').replace(/\n/g, '  \n');

/**
 * An answer stays Markdown, but without HTML and links, which a viewer might follow.
 * @param {string} text
 */
const tame = (text) =>
  text
    .split(/(```[\s\S]*?(?:```|$)|`[^`\n]*`)/)
    .map((part, i) => (i % 2 ? part : part.replace(/[<[\]]/g, '\\$&')))
    .join('');

/** @param {Turn[]} turns @param {string} model */
export function toMarkdown(turns, model) {
  const lines = [`# PocketVL, ${new Date().toISOString().slice(0, 10)}`, '', plain(model), ''];
  for (const turn of turns) {
    lines.push(`## ${t('you')}`, '');
    for (const { name } of turn.shots) lines.push(`- ${t('picture')}: ${plain(name)}`);
    if (turn.shots.length) lines.push('');
    lines.push(plain(turn.question), '', `## ${t('answer')}`, '');
    lines.push(tame(withoutBoxes(turn.answer).trim()) || '–', '');
    const boxes = parseBoxes(turn.answer);
    for (const { label, normalized } of boxes)
      lines.push(`- ${plain(label || t('box'))}: ${normalized.join(', ')}`);
    if (boxes.length) lines.push('');
  }
  return `${lines.join('\n').trimEnd()}\n`;
}

/**
 * @param {string} text
 * @param {string} type
 * @param {string} ending
 */
export function save(text, type, ending) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = `pocketvl-${new Date().toISOString().slice(0, 16).replace(/[:T]/g, '-')}.${ending}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
