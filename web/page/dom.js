// Small helpers for building the page.
import { language } from './strings.js';

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
export const $ = (id) => /** @type {T} */ (document.getElementById(id));

/** The question is always in sight: what the person looks at stays where it is. */
export const focusQuestion = () => $('question').focus({ preventScroll: true });

/**
 * An element with text in it; text from models, files and hosts goes no other way into the page.
 * @param {string} tag
 * @param {string} [className]
 * @param {string} [text]
 */
export function make(tag, className = '', text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/**
 * @param {string} text
 * @param {string} className
 * @param {() => unknown} run
 */
export function button(text, className, run) {
  const element = /** @type {HTMLButtonElement} */ (make('button', className, text));
  element.type = 'button';
  element.addEventListener('click', () => void run());
  return element;
}

/** @param {number} bytes */
export function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
  return `${Math.ceil(bytes / 1e3)} kB`;
}

/** Seconds as a person says them: 0.04, 0.4, 4.2, 42. @param {number} ms */
export function seconds(ms) {
  const s = ms / 1000;
  return s >= 9.95 ? s.toFixed(0) : s >= 0.095 ? s.toFixed(1) : s.toFixed(2);
}

/** @param {number} n */
export const number = (n) => n.toLocaleString(language() === 'zh' ? 'zh-CN' : 'en-US');

/** Says something to people who hear the page: once, when there is time. @param {string} text */
export function announce(text) {
  if (!text) return;
  const live = $('live');
  live.append(make('p', '', text));
  while (live.children.length > 12) live.firstElementChild?.remove();
}
