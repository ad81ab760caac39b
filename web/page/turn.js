// How a question and its answer look: one article of the conversation.
import { withoutBoxes } from '../lib/pocketvl.js';
import { picture } from './attachments.js';
import { announce, button, make } from './dom.js';
import { errorBox } from './errors.js';
import { markdown } from './markdown.js';
import { details, drawBoxes, drawTiles, removeTiles, summary } from './seen.js';
import { t } from './strings.js';

/** @typedef {import('./conversation.js').Turn} Turn */

/** The end of the last whole sentence. */
const SENTENCE = /^[\s\S]*(?:[.!?](?=\s)|[。！？；\n])/;

export class TurnView {
  /** @param {Turn} turn */
  constructor(turn) {
    this.turn = turn;
    this.element = make('article', 'turn');
    const asked = make('div', 'asked');
    asked.setAttribute('role', 'group');
    asked.setAttribute('aria-label', t('you'));
    /** Frames of the pictures, for tiles and boxes. @type {HTMLElement[]} */
    this.frames = turn.shots.map((shot) => {
      const frame = make('figure', 'shot');
      frame.append(picture(shot, () => frame.classList.add('unseen')));
      if (!shot.url) frame.classList.add('unseen');
      return frame;
    });
    if (this.frames.length) {
      const shots = make('div', this.frames.length > 1 ? 'shots many' : 'shots');
      shots.append(...this.frames);
      asked.append(shots);
    }
    asked.append(make('div', 'bubble', turn.question));
    this.answered = make('div', 'answered');
    this.answered.setAttribute('role', 'group');
    this.answered.setAttribute('aria-label', t('answer'));
    this.words = make('div', 'words');
    this.stage = make('div', 'stage');
    this.stage.hidden = true;
    this.foot = make('div', 'foot');
    this.answered.append(this.stage, this.words, this.foot);
    this.element.append(asked, this.answered);
    /** How the pictures will be cut, where that is known. @type {(import('./seen.js').Tiling | null)[] | null} */
    this.tilings = null;
    this.shown = '';
    this.spoken = 0;
    this.due = false;
    this.ending = false;
  }

  /** An answer begins. @param {() => void} onGrow */
  begin(onGrow) {
    this.onGrow = onGrow;
    this.answered.classList.add('answering');
    this.stageText = make('span', '', t('stageWait'));
    this.progress = /** @type {HTMLProgressElement} */ (make('progress'));
    this.progress.setAttribute('aria-label', t('stageVision'));
    this.progress.hidden = true;
    this.stage.replaceChildren(this.stageText, this.progress);
    this.stage.hidden = false;
  }

  /** @param {{stage: 'image' | 'vision' | 'prefill', done: number, total: number}} p */
  step({ stage, done, total }) {
    if (this.ending) return;
    const named = { image: t('stageImage'), vision: t('stageVision'), prefill: t('stagePrefill') };
    const words = named[stage] ?? '';
    if (this.stageText && this.progress) {
      if (this.stageText.textContent !== words) announce(words);
      this.stageText.textContent = words;
      this.progress.hidden = total < 2;
      this.progress.max = Math.max(total, 1);
      this.progress.value = done;
    }
    if (stage === 'vision' && this.tilings) this.look(total > 0 ? done / total : 0);
    else if (stage === 'prefill') this.frames.forEach(removeTiles);
  }

  /** The engine has been told to stop, and may need a moment to hear it. */
  stopping() {
    if (!this.stageText || !this.progress) return;
    this.ending = true;
    this.stageText.textContent = t('stopping');
    this.progress.hidden = true;
    this.stage.hidden = false;
  }

  /** Shows which tiles have been looked at. @param {number} part of all of them */
  look(part) {
    /** @type {(import('./seen.js').Tiling | null)[]} */
    const tilings = this.tilings ?? [];
    let left = Math.floor(part * tilings.reduce((sum, tiling) => sum + (tiling?.tiles ?? 0), 0));
    tilings.forEach((tiling, i) => {
      if (!tiling || !this.frames[i]) return;
      drawTiles(this.frames[i], tiling, Math.max(left, 0));
      left -= tiling.tiles;
    });
  }

  /** The answer has grown: it is drawn with the next frame. */
  grow() {
    if (!this.ending) this.stage.hidden = true;
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => this.draw());
  }

  draw() {
    this.due = false;
    const visible = withoutBoxes(this.turn.answer).trim();
    if (visible === this.shown) return;
    this.shown = visible;
    this.words.replaceChildren(markdown(visible));
    this.speak(SENTENCE.exec(visible)?.[0].length ?? 0);
    this.onGrow?.();
  }

  /** Whole sentences are said once, not every piece. @param {number} end */
  speak(end) {
    if (end <= this.spoken || !this.answered.classList.contains('answering')) return;
    announce(this.shown.slice(this.spoken, end).trim());
    this.spoken = end;
  }

  /** What comes when an answer is over, however it ended. */
  end() {
    this.draw();
    this.speak(this.shown.length);
    this.frames.forEach(removeTiles);
    this.stage.hidden = true;
    this.answered.classList.remove('answering');
  }

  /**
   * The line below an answer.
   * @param {{copy: () => unknown, again: (() => unknown) | null, edit: (() => unknown) | null}} actions
   */
  showFoot({ copy, again, edit }) {
    const { turn, foot } = this;
    foot.replaceChildren();
    if (turn.answer) {
      const copied = button(t('copy'), '', async () => {
        await copy();
        copied.textContent = t('copied');
        announce(t('copied'));
        setTimeout(() => (copied.textContent = t('copy')), 1500);
      });
      foot.append(copied);
    }
    if (again) foot.append(button(turn.state === 'done' ? t('another') : t('again'), '', again));
    if (edit) foot.append(button(t('edit'), '', edit));
    const notes = {
      stopped: t('stopped'),
      running: turn.answer ? t('interrupted') : t('unanswered'),
      failed: '',
      done: '',
    };
    if (notes[turn.state]) foot.append(make('span', 'note', notes[turn.state]));
    if (turn.stop === 'length') foot.append(make('span', 'note', t('lengthStop')));
    if (turn.stop === 'context') foot.append(make('span', 'note', t('contextStop')));
    if (turn.stats && turn.state === 'done') this.showFigures();
  }

  /** The figures in one line, and all of them behind it. */
  showFigures() {
    const more = /** @type {HTMLDetailsElement} */ (make('details', 'figures'));
    more.append(make('summary', '', summary(this.turn)));
    more.addEventListener('toggle', () => {
      more.querySelector('.seen')?.remove();
      if (more.open) more.append(details(this.turn));
    });
    this.foot.append(more);
  }

  /**
   * @param {import('./errors.js').PocketVLError} error
   * @param {import('./errors.js').Step | null} step
   */
  fail(error, step) {
    const heading = error.code === 'UNSUPPORTED' ? t('errIMAGE') : undefined; // a kind of picture
    this.foot.before(errorBox(error, step, heading));
  }

  /** @param {string} answer whose boxes are about the last picture here */
  boxes(answer) {
    const frame = this.frames[this.frames.length - 1];
    if (frame) drawBoxes(frame, answer);
  }
}
