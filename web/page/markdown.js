// The Markdown of answers as DOM nodes. What a model writes is not to be trusted: no HTML, no links, no pictures ever
// come out of this, only the elements named here with text in them.

/**
 * Emphasis and code within a line.
 * @param {string} text
 * @param {HTMLElement} into
 */
function inline(text, into) {
  const pattern =
    /(`+)([\s\S]*?)\1|\*\*([^*]+)\*\*|__([^_]+)__|\*([^*\s][^*]*)\*|(?<![\w])_([^_\s][^_]*)_(?![\w])/g;
  let at = 0;
  for (const match of text.matchAll(pattern)) {
    into.append(text.slice(at, match.index));
    const [whole, , code, bold1, bold2, soft1, soft2] = match;
    const tag = code !== undefined ? 'code' : (bold1 ?? bold2) !== undefined ? 'strong' : 'em';
    const element = document.createElement(tag);
    element.textContent = code ?? bold1 ?? bold2 ?? soft1 ?? soft2 ?? '';
    into.append(element);
    at = match.index + whole.length;
  }
  into.append(text.slice(at));
}

/**
 * @param {string} text
 * @returns {DocumentFragment}
 */
export function markdown(text) {
  const out = document.createDocumentFragment();
  const lines = text.split('\n');
  /** @type {HTMLElement | null} */
  let list = null;
  /** @type {string[]} */
  let paragraph = [];
  const flush = () => {
    if (!paragraph.length) return;
    const p = document.createElement('p');
    paragraph.forEach((line, i) => {
      if (i) p.append(document.createElement('br'));
      inline(line, p);
    });
    out.append(p);
    paragraph = [];
  };
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i];
    const fence = /^\s*(```|~~~)/.exec(line);
    const bullet = /^\s*[-*+]\s+(.*)$/.exec(line);
    const number = /^\s*\d+[.)]\s+(.*)$/.exec(line);
    const heading = /^#{1,6}\s+(.*)$/.exec(line);
    if (!bullet && !number) list = null;
    if (fence) {
      flush();
      const code = [];
      while (++i < lines.length && !lines[i].trim().startsWith(fence[1])) code.push(lines[i]);
      const pre = document.createElement('pre');
      const element = document.createElement('code');
      element.textContent = code.join('\n');
      pre.append(element);
      out.append(pre);
    } else if (bullet || number) {
      flush();
      const tag = bullet ? 'UL' : 'OL';
      if (/** @type {HTMLElement | null} */ (list)?.tagName !== tag) {
        list = document.createElement(tag);
        out.append(list);
      }
      const item = document.createElement('li');
      inline((bullet ?? number)?.[1] ?? '', item);
      list.append(item);
    } else if (heading) {
      flush();
      const h = document.createElement('h3');
      inline(heading[1], h);
      out.append(h);
    } else if (line.trim()) paragraph.push(line);
    else flush();
  }
  flush();
  return out;
}
