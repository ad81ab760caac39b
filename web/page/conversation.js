// The conversation: its turns, asking, stopping, asking again, and what of it survives a reload.
import { PocketVLError, withoutBoxes } from '../lib/pocketvl.js';
import { makeShot, setAttached } from './attachments.js';
import { detail, tilesOf } from './detail.js';
import { $, announce, focusQuestion } from './dom.js';
import { endIfDeaf, hooks, learn, modelThere, reload, stopMeasuring, vl } from './engine.js';
import { clearNotices } from './errors.js';
import * as history from './history.js';
import { keepSettings, settings } from './settings.js';
import { t } from './strings.js';
import { TurnView } from './turn.js';

/** @typedef {import('../lib/pocketvl.js').Message} Message */
/** @typedef {import('./attachments.js').Shot} Shot */

/**
 * @typedef {object} Turn
 * @property {string} question
 * @property {Shot[]} shots
 * @property {string} answer as the model wrote it
 * @property {'running' | 'done' | 'stopped' | 'failed'} state
 * @property {string | null} stop why a whole answer ended
 * @property {Record<string, any> | null} stats
 * @property {{width: number, height: number, tiling: any}[]} pictures how the engine cut them
 * @property {string} model
 * @property {string} build
 * @property {string} threads
 * @property {TurnView} view
 */

/** How freely another answer to the same question is worded, where the person's setting always gives the same. */
const ANOTHER_TEMPERATURE = 0.8;
const KEEP_EVERY = 500; // ms between notes of a growing answer

/** @type {Turn[]} */
const turns = [];
/** @type {AbortController | null} */
let answering = null;
let kept = 0;

export const allTurns = () => turns;
export const isAnswering = () => answering !== null;

/** Ends the running answer. */
export const stopAnswer = () => answering?.abort();
hooks.stopAnswer = stopAnswer;

/** @param {string} question @param {Shot[]} shots @returns {Turn} */
function makeTurn(question, shots) {
  const turn = /** @type {Turn} */ (
    /** @type {unknown} */ ({
      question,
      shots,
      answer: '',
      state: 'running',
      stop: null,
      stats: null,
      pictures: [],
      model: '',
      build: '',
      threads: '',
    })
  );
  turn.view = new TurnView(turn);
  return turn;
}

/**
 * The conversation up to a turn, as the model gets it: questions without an answer are left out.
 * @param {Turn} last
 * @returns {Message[]}
 */
function messages(last) {
  /** @type {Message[]} */
  const list = [];
  for (const turn of turns) {
    if (turn !== last && (!turn.answer || turn.state === 'failed')) continue;
    /** @type {import('../lib/messages.js').ImagePart[]} */
    const images = turn.shots.flatMap(({ blob }) => (blob ? [{ type: 'image', image: blob }] : []));
    list.push({ role: 'user', content: [...images, { type: 'text', text: turn.question }] });
    if (turn === last) break;
    list.push({ role: 'assistant', content: turn.answer });
  }
  return list;
}

/** Writes the conversation down. */
function keep() {
  kept = performance.now();
  history.keep(
    turns.map(({ question, shots, answer, state, stats, pictures, model, build, threads }) => ({
      question,
      shots: shots.map(({ key, name }) => ({ key, name })),
      answer,
      state,
      stats,
      pictures,
      model,
      build,
      threads,
    })),
  );
}

/** @param {Turn} turn */
async function keepPictures(turn) {
  for (const shot of turn.shots) await history.keepPicture(shot);
  if (turn.shots.some(({ key }) => key) && turns.includes(turn)) keep();
}

/** Keeps the end in sight, unless the person has scrolled away from it. */
function follow() {
  const nearEnd = innerHeight + scrollY > document.documentElement.scrollHeight - 240;
  if (nearEnd) scrollTo({ top: document.documentElement.scrollHeight });
}

/** Buttons: copy for each answer; another answer and edit for the last question alone, what follows depends on the rest. */
function showFeet() {
  turns.forEach((turn, i) => {
    if (turn.state === 'running' && answering) return;
    const last = i === turns.length - 1;
    turn.view.showFoot({
      copy: () => navigator.clipboard?.writeText(withoutBoxes(turn.answer).trim()).catch(() => {}),
      again: last && turn.state !== 'failed' ? () => again(turn) : null,
      edit: last ? () => edit(turn) : null,
    });
  });
}

/** Draws the boxes of the newest answer that has some over the picture that it is about. @param {Turn} turn */
function drawBoxes(turn) {
  const before = turns.slice(0, turns.indexOf(turn) + 1).reverse();
  before.find((other) => other.shots.length)?.view.boxes(turn.answer);
}

function showState() {
  const empty = turns.length === 0;
  $('welcome').hidden = !empty;
  $('chat-tools').hidden = empty;
  $('export').removeAttribute('open');
  document.body.classList.toggle('talking', !empty);
}

/**
 * @param {string} question
 * @param {Shot[]} shots
 * @param {{temperature?: number, seed?: number}} [options]
 */
export async function ask(question, shots, options = {}) {
  if (answering) return;
  stopMeasuring();
  const controller = new AbortController();
  answering = controller;
  const over = endIfDeaf(controller.signal);
  controller.signal.addEventListener('abort', () => view.stopping(), { once: true });
  const turn = makeTurn(question, shots);
  const { view } = turn;
  turns.push(turn);
  showState();
  showFeet();
  $('log').append(view.element);
  view.begin(follow);
  setBusy(true);
  scrollTo({ top: document.documentElement.scrollHeight });
  keep();
  void keepPictures(turn);
  try {
    await Promise.race([modelThere(), stopped(controller.signal)]);
    const maxTiles = tilesOf(detail());
    view.tilings = await tilings(turn, maxTiles, controller.signal);
    const { info } = vl;
    turn.model = info.title ?? info.name ?? '';
    turn.build = `${info.kernels}. ${info.variantReason}`;
    turn.threads = `${info.threads}. ${info.threadsReason}`;
    const answer = vl.chat(messages(turn), {
      signal: controller.signal,
      maxTiles,
      temperature: settings.temperature,
      maxTokens: settings.maxTokens,
      ...options,
      onProgress: (p) => view.step(p),
    });
    for await (const piece of answer) {
      turn.answer += piece;
      view.grow();
      if (performance.now() - kept > KEEP_EVERY) keep();
    }
    turn.state = 'done';
    turn.stop = answer.stop;
    turn.stats = answer.stats;
    turn.pictures = answer.pictures;
    for (const { shots: all } of turns) for (const shot of all) shot.seen.add(maxTiles);
    learn(answer.stats ?? {});
  } catch (thrown) {
    const error = PocketVLError.from(thrown);
    turn.state = error.code === 'ABORTED' ? 'stopped' : 'failed';
    if (turn.state === 'failed') view.fail(error, step(error, turn));
    else announce(t('stopped'));
  } finally {
    over();
    if (answering === controller) {
      answering = null;
      setBusy(false);
    }
    view.end();
    if (turns.includes(turn)) {
      drawBoxes(turn);
      showFeet();
      keep();
    }
    follow();
  }
}

/**
 * How the pictures of a question will be cut; for the eye alone, so a failure is none.
 * @param {Turn} turn
 * @param {number} maxTiles
 * @param {AbortSignal} signal
 */
async function tilings(turn, maxTiles, signal) {
  try {
    await Promise.all(turn.shots.map(({ sized }) => sized));
    return await Promise.all(
      turn.shots.map(({ width, height }) =>
        width ? vl.tiling(width, height, maxTiles) : Promise.resolve(null),
      ),
    );
  } catch (error) {
    if (signal.aborted) throw error; // the engine was ended, since it did not hear it
    return null;
  }
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<never>}
 */
const stopped = (signal) =>
  new Promise((_, fail) =>
    signal.addEventListener('abort', () => fail(new PocketVLError('ABORTED', t('stopped')))),
  );

/**
 * The one thing to do about an answer that failed.
 * @param {PocketVLError} error
 * @param {Turn} turn
 * @returns {import('./errors.js').Step | null}
 */
function step(error, turn) {
  if (!vl.loaded) {
    const both = () => {
      reload();
      again(turn);
    };
    return { label: t('retry'), run: both };
  }
  if (['CONTEXT', 'MEMORY'].includes(error.code) && turn.shots.length && tilesOf(detail()) > 1) {
    return { label: t('lessDetail'), run: () => lookLess(turn) };
  }
  if (error.code === 'CONTEXT') {
    return turns.length > 1
      ? { label: t('newChatAsk'), run: () => startOver(turn) }
      : { label: t('edit'), run: () => edit(turn) };
  }
  if (turn.shots.length && ['IMAGE', 'LIMIT', 'UNSUPPORTED'].includes(error.code)) {
    return { label: t('otherPicture'), run: () => otherPicture(turn) };
  }
  if (error.code === 'MEMORY' && turns.length > 1)
    return { label: t('newChatAsk'), run: () => startOver(turn) };
  if (error.code === 'WORKER') return { label: t('restart'), run: () => again(turn) };
  if (error.code === 'ARGUMENT') return { label: t('edit'), run: () => edit(turn) };
  return { label: t('retry'), run: () => again(turn) };
}

/** Takes a turn out of the conversation. @param {Turn} turn */
function remove(turn) {
  const at = turns.indexOf(turn);
  if (at >= 0) turns.splice(at, 1);
  turn.view.element.remove();
  showState();
  showFeet();
  keep();
}

/** The same question once more; after a whole answer, for another one. @param {Turn} turn */
function again(turn) {
  if (answering) return;
  const another = turn.state === 'done';
  remove(turn);
  const options = another
    ? {
        temperature: settings.temperature || ANOTHER_TEMPERATURE,
        seed: crypto.getRandomValues(new Uint32Array(1))[0],
      }
    : {};
  void ask(turn.question, turn.shots, options);
}

/** Puts a question back into the composer. @param {Turn} turn */
function edit(turn) {
  if (answering) return;
  remove(turn);
  setAttached(turn.shots.filter(({ blob }) => blob));
  write(turn.question);
}

/** @param {Turn} turn */
function otherPicture(turn) {
  edit(turn);
  setAttached([]);
  $('file').click();
}

/** @param {Turn} turn */
function lookLess(turn) {
  settings.detail = 'quick';
  keepSettings();
  again(turn);
}

/** @param {Turn} turn */
async function startOver(turn) {
  const { question, shots } = turn;
  await newChat(); // gives the pictures up, so they are made anew
  void ask(
    question,
    shots.map(({ name, blob }) => makeShot(name, blob)),
  );
}

/** @param {string} question */
export function write(question) {
  const box = /** @type {HTMLTextAreaElement} */ ($('question'));
  box.value = question;
  grow();
  focusQuestion();
}

export function grow() {
  const box = $('question');
  box.style.height = 'auto';
  box.style.height = `${Math.min(box.scrollHeight, 180)}px`;
}

export async function newChat() {
  stopAnswer();
  answering = null;
  setBusy(false);
  for (const { shots } of turns) for (const { url } of shots) if (url) URL.revokeObjectURL(url);
  turns.length = 0;
  setAttached([]);
  $('log').replaceChildren();
  $('live').replaceChildren();
  clearNotices();
  showState();
  scrollTo({ top: 0 });
  focusQuestion();
  await history.forget();
}

/** @param {boolean} busy */
function setBusy(busy) {
  const focused = document.activeElement === $('ask') || document.activeElement === $('stop');
  $('ask').hidden = busy;
  $('stop').hidden = !busy;
  $('log').setAttribute('aria-busy', String(busy));
  if (focused) $(busy ? 'stop' : 'ask').focus();
}

/** Shows turns that were kept. @param {import('./history.js').KeptTurn[]} list */
async function show(list) {
  for (const old of list) {
    const shots = await Promise.all(
      old.shots.map(async ({ key, name }) =>
        makeShot(String(name), await history.keptPicture(String(key ?? '')), String(key ?? '')),
      ),
    );
    const turn = makeTurn(old.question, shots);
    turn.answer = old.answer;
    turn.state = ['done', 'stopped', 'failed'].includes(old.state) ? old.state : 'running';
    turn.stats = old.stats ?? null;
    turn.pictures = Array.isArray(old.pictures) ? old.pictures : [];
    turn.model = String(old.model ?? '');
    turn.build = String(old.build ?? '');
    turn.threads = String(old.threads ?? '');
    turns.push(turn);
    $('log').append(turn.view.element);
    turn.view.draw();
    if (turn.answer) drawBoxes(turn);
  }
  showState();
  showFeet();
  scrollTo({ top: document.documentElement.scrollHeight });
}

/** Brings back what a reload interrupted, or offers what another visit left. */
export async function restoreChat() {
  const before = await history.restore();
  if (before.length) return show(before);
  const last = await history.lastOne();
  const box = $('continue');
  box.hidden = !last;
  if (!last) return;
  $('continue-question').textContent = last.turns[last.turns.length - 1].question;
  $('continue-button').onclick = async () => {
    box.hidden = true;
    if (!turns.length) await show(await history.adopt(last));
  };
}
