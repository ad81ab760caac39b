// The page: pictures and questions in, answers out as they are written.
import {
  PocketVL,
  PocketVLError,
  models as storedModels,
  parseBoxes,
  withoutBoxes,
} from './lib/pocketvl.js';
import { isolate } from './page/isolate.js';
import { markdown } from './page/markdown.js';
import { language, preferred, t, use } from './page/strings.js';

/** @typedef {import('./lib/pocketvl.js').Message} Message */
/** @typedef {{name: string, blob: Blob, url: string}} Shot */
/** @typedef {{question: string, shots: Shot[], answer: string, element: HTMLElement, done: boolean}} Turn */

const DEMO = 'models/demo/manifest.json';
const MOST_PICTURES = 8;
const COLOURS = ['#e5484d', '#0b7bd4', '#198754', '#b8560b', '#8e4ec6', '#0a7d8c'];

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @returns {T}
 */
const $ = (id) => /** @type {T} */ (document.getElementById(id));

/**
 * @param {string} tag
 * @param {string} [className]
 * @param {string} [text]
 */
function make(tag, className = '', text = '') {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/* ---- what is remembered ---- */

const SETTINGS = 'pocketvl-settings';

/** @type {{detail: 'quick' | 'balanced' | 'fine', temperature: number, maxTokens: number, threads: number,
 *   language: string, model: string, tileMs: number}} */
const settings = {
  detail: 'quick',
  temperature: 0,
  maxTokens: 256,
  threads: 0,
  language: '',
  model: '',
  tileMs: 0,
};

function readSettings() {
  try {
    const kept = JSON.parse(localStorage.getItem(SETTINGS) ?? '{}');
    for (const [name, value] of Object.entries(settings)) {
      if (typeof kept[name] === typeof value) Object.assign(settings, { [name]: kept[name] });
    }
  } catch {
    // no storage, or not ours: the defaults
  }
}

function keepSettings() {
  try {
    localStorage.setItem(SETTINGS, JSON.stringify(settings));
  } catch {
    // remembered for this visit only
  }
}

/* ---- state ---- */

const vl = new PocketVL();
/** @type {Turn[]} */
const turns = [];
/** @type {Shot[]} */
let attached = [];
/** @type {AbortController | null} */
let answering = null;
/** @type {AbortController | null} */
let loading = null;
/** Settles when the model being loaded is there, or is not. @type {Promise<void>} */
let ready = Promise.resolve();
/** @type {{file: string, alt: string, question: Record<string, string>}[]} */
let samples = [];

/** @param {number} bytes */
function size(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(1)} MB`;
  return `${Math.ceil(bytes / 1e3)} kB`;
}

/* ---- status ---- */

/**
 * @param {string} text
 * @param {'busy' | 'ready' | 'failed'} state
 */
function status(text, state) {
  $('status-text').textContent = text;
  $('status-dot').className = `dot ${state}`;
}

/** @param {import('./lib/pocketvl.js').LoadProgress} p */
function showLoad(p) {
  const bar = $('bar');
  const percent = p.total ? Math.floor((100 * p.loaded) / p.total) : 0;
  const words = {
    start: t('statusStart'),
    manifest: t('statusManifest'),
    waiting: t('statusWaiting'),
    network: t('statusNetwork'),
    store: t('statusStore'),
    disk: t('statusDisk'),
    retry: t('statusRetry'),
  };
  let text = words[p.stage];
  if (p.total) text += ` · ${size(p.loaded)} / ${size(p.total)}`;
  if (p.stage === 'network' && p.bytesPerSecond > 0 && p.total > 20e6) {
    text += ` · ${size(p.bytesPerSecond)}/s · ${Math.ceil(p.secondsLeft)} s`;
  }
  status(text, 'busy');
  bar.hidden = !p.total;
  bar.setAttribute('aria-valuenow', String(percent));
  bar.setAttribute('aria-label', text);
  $('bar-fill').style.width = `${percent}%`;
}

/** @param {{code: string, message: string}} notice */
function showNotice(notice) {
  const p = make('p', '', notice.message);
  p.dataset.code = notice.code;
  $('notices').replaceChildren(p);
}

/**
 * @param {import('./lib/pocketvl.js').ModelSource} source
 * @param {{refresh?: boolean, remember?: string}} [options]
 */
function load(source, options = {}) {
  loading?.abort();
  answering?.abort();
  const mine = new AbortController();
  loading = mine;
  $('notices').replaceChildren();
  status(t('statusStart'), 'busy');
  const work = (async () => {
    try {
      await vl.loadModel(source, {
        signal: mine.signal,
        onProgress: (p) => loading === mine && showLoad(p),
        onNotice: showNotice,
        refresh: options.refresh,
        threads: settings.threads || undefined,
      });
      if (options.remember !== undefined) {
        settings.model = options.remember;
        keepSettings();
      }
      showReady();
    } catch (thrown) {
      const error = PocketVLError.from(thrown);
      if (loading === mine && error.code !== 'ABORTED') {
        if (vl.loaded) {
          showReady(); // the model before is still the one that answers
          ready = Promise.resolve();
        } else status(t('statusFailed'), 'failed');
        $('notices').replaceChildren(errorBox(error, () => void load(source, options)));
      }
      throw error;
    } finally {
      if (loading === mine) $('bar').hidden = true;
    }
  })();
  ready = work;
  work.catch(() => {});
  return work;
}

function showReady() {
  status(`${t('statusReady')} · ${vl.info.title ?? vl.info.name}`, 'ready');
  $('honest').hidden = !/demo/i.test(`${vl.info.key}${vl.info.name}`);
  showSettings();
}

/* ---- errors ---- */

/**
 * @param {PocketVLError} error
 * @param {(() => void) | null} retry
 */
function errorBox(error, retry) {
  const box = make('div', 'error');
  box.setAttribute('role', 'alert');
  box.dataset.code = error.code;
  const titles = /** @type {Record<string, string>} */ ({
    IMAGE: t('errIMAGE'),
    NETWORK: t('errNETWORK'),
    QUOTA: t('errQUOTA'),
    STORAGE: t('errSTORAGE'),
    MEMORY: t('errMEMORY'),
    WORKER: t('errWORKER'),
    CONTEXT: t('errCONTEXT'),
    LIMIT: t('errLIMIT'),
    ARGUMENT: t('errARGUMENT'),
    UNSUPPORTED_BROWSER: t('errUNSUPPORTED_BROWSER'),
  });
  box.append(
    make('strong', '', titles[error.code] ?? t('errOther')),
    `${error.message} `,
    make('code', '', error.code),
  );
  if (error.code === 'CONTEXT') {
    const fresh = make('button', 'ghost', t('newChat'));
    fresh.addEventListener('click', newChat);
    box.append(make('br'), fresh);
  } else if (retry) {
    const again = make('button', 'ghost', t('retry'));
    again.addEventListener('click', () => {
      box.remove();
      retry();
    });
    box.append(make('br'), again);
  }
  return box;
}

/* ---- pictures ---- */

/** @param {Iterable<File | Blob>} files */
function take(files) {
  const list = [...files];
  const gguf = list.filter((f) => /\.gguf$/i.test(/** @type {File} */ (f).name ?? ''));
  if (gguf.length) {
    void load(gguf).catch(() => {});
    return;
  }
  for (const blob of list) {
    const name = /** @type {File} */ (blob).name || t('pictures');
    if (attached.length >= MOST_PICTURES) {
      showNotice({ code: 'LIMIT', message: t('tooMany', { n: MOST_PICTURES }) });
      break;
    }
    attached.push({ name, blob, url: URL.createObjectURL(blob) });
  }
  showAttached();
  $('question').focus();
}

function showAttached() {
  $('pictures').replaceChildren(
    ...attached.map((shot) => {
      const item = make('li');
      const image = /** @type {HTMLImageElement} */ (make('img'));
      image.src = shot.url;
      image.alt = shot.name;
      image.addEventListener('error', () => image.replaceWith(make('span', 'unseen', shot.name)));
      const remove = make('button', '', '✕');
      remove.setAttribute('type', 'button');
      remove.setAttribute('aria-label', t('remove', { name: shot.name }));
      remove.addEventListener('click', () => {
        attached = attached.filter((other) => other !== shot);
        showAttached();
        $('question').focus();
      });
      item.append(image, remove);
      return item;
    }),
  );
}

/* ---- conversation ---- */

/** The conversation as the model gets it. @returns {Message[]} */
function messages() {
  /** @type {Message[]} */
  const list = [];
  for (const turn of turns) {
    list.push({
      role: 'user',
      content: [
        ...turn.shots.map(({ blob }) => ({ type: /** @type {const} */ ('image'), image: blob })),
        { type: /** @type {const} */ ('text'), text: turn.question },
      ],
    });
    if (turn.done) list.push({ role: 'assistant', content: turn.answer });
  }
  return list;
}

/**
 * Pictures of a question, with places for boxes.
 * @param {Shot[]} shots
 */
function shotList(shots) {
  const list = make('div', 'shots');
  for (const shot of shots) {
    const frame = make('figure', 'shot');
    frame.style.margin = '0';
    const image = /** @type {HTMLImageElement} */ (make('img'));
    image.src = shot.url;
    image.alt = shot.name;
    // What the browser cannot show is named; whether it can be read, the engine says.
    image.addEventListener('error', () => {
      frame.classList.add('unseen');
      frame.replaceChildren(shot.name);
    });
    frame.append(image);
    list.append(frame);
  }
  return list;
}

/**
 * Draws the boxes of an answer over the newest picture of the conversation.
 * @param {Turn} turn
 */
function drawBoxes(turn) {
  const boxes = parseBoxes(turn.answer);
  const before = turns.slice(0, turns.indexOf(turn) + 1).reverse();
  const frames = before.find((other) => other.shots.length)?.element.querySelectorAll('.shot');
  const frame = frames?.[frames.length - 1];
  if (!frame) return;
  const labels = [...new Set(boxes.map(({ label }) => label))];
  for (const old of frame.querySelectorAll('.box')) old.remove();
  for (const { label, normalized } of boxes) {
    const [x1, y1, x2, y2] = normalized;
    const box = make('div', y1 < 90 ? 'box low' : 'box');
    box.style.left = `${x1 / 10}%`;
    box.style.top = `${y1 / 10}%`;
    box.style.width = `${(x2 - x1) / 10}%`;
    box.style.height = `${(y2 - y1) / 10}%`;
    box.style.setProperty('--box', COLOURS[labels.indexOf(label) % COLOURS.length]);
    if (label) box.append(make('span', '', label));
    frame.append(box);
  }
}

/** Keeps the end in sight, unless the person has scrolled away from it. */
function follow() {
  const nearEnd = innerHeight + scrollY > document.documentElement.scrollHeight - 240;
  if (nearEnd) scrollTo({ top: document.documentElement.scrollHeight });
}

/**
 * @param {string} question
 * @param {Shot[]} shots
 */
async function ask(question, shots) {
  const element = make('article', 'turn');
  const asked = make('div', 'asked');
  asked.setAttribute('aria-label', t('you'));
  asked.setAttribute('role', 'group');
  if (shots.length) asked.append(shotList(shots));
  asked.append(make('div', 'bubble', question));
  const answered = make('div', 'answered answering');
  answered.setAttribute('role', 'group');
  answered.setAttribute('aria-label', t('answer'));
  const words = make('div', 'words');
  const stage = make('div', 'stage');
  stage.setAttribute('aria-live', 'off');
  const stageText = make('span', '', t('stageWait'));
  const progress = /** @type {HTMLProgressElement} */ (make('progress'));
  progress.setAttribute('aria-label', t('stageVision'));
  progress.hidden = true;
  stage.append(stageText, progress);
  const foot = make('div', 'foot');
  answered.append(stage, words, foot);
  element.append(asked, answered);
  $('welcome').hidden = true;
  $('new-chat').hidden = false;
  $('log').append(element);
  /** @type {Turn} */
  const turn = { question, shots, answer: '', element, done: false };
  turns.push(turn);
  scrollTo({ top: document.documentElement.scrollHeight });

  const controller = new AbortController();
  answering = controller;
  setBusy(true);
  let drawn = false;
  let shown = '';
  const draw = () => {
    drawn = false;
    const visible = withoutBoxes(turn.answer).trim();
    if (visible === shown) return;
    shown = visible;
    words.replaceChildren(markdown(visible));
    follow();
  };
  try {
    await Promise.race([ready, stopped(controller.signal)]);
    const answer = vl.chat(messages(), {
      signal: controller.signal,
      maxTiles: tilesOf(settings.detail),
      temperature: settings.temperature,
      maxTokens: settings.maxTokens,
      onProgress: ({ stage: name, done, total }) => {
        const named = {
          image: t('stageImage'),
          vision: t('stageVision'),
          prefill: t('stagePrefill'),
        };
        stageText.textContent = named[name] ?? '';
        progress.hidden = total < 2;
        progress.max = Math.max(total, 1);
        progress.value = done;
      },
    });
    for await (const piece of answer) {
      stage.hidden = true;
      turn.answer += piece;
      if (!drawn) {
        drawn = true;
        requestAnimationFrame(draw);
      }
    }
    turn.done = true;
    finish(turn, answer, foot);
  } catch (thrown) {
    const error = PocketVLError.from(thrown);
    if (error.code === 'ABORTED') {
      // What was written stays, and belongs to the conversation.
      turn.done = Boolean(turn.answer);
      foot.append(make('span', '', t('stopped')));
      addButtons(turn, foot);
    } else {
      foot.replaceChildren();
      answered.append(errorBox(error, () => again(turn)));
    }
    if (!turn.done) turns.splice(turns.indexOf(turn), 1);
  } finally {
    draw();
    drawBoxes(turn);
    stage.remove();
    answered.classList.remove('answering');
    if (answering === controller) {
      answering = null;
      setBusy(false);
    }
    follow();
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
 * @param {Turn} turn
 * @param {import('./lib/pocketvl.js').Answer} answer
 * @param {HTMLElement} foot
 */
function finish(turn, answer, foot) {
  /** @type {Record<string, any>} */
  const s = answer.stats ?? {};
  if (s.tiles > 0 && s.visionMs > 0) {
    settings.tileMs = s.visionMs / s.tiles;
    keepSettings();
  }
  const tiles = answer.pictures[answer.pictures.length - 1]?.tiling?.tiles ?? 0;
  addButtons(turn, foot);
  foot.append(
    make(
      'span',
      'figures',
      t('figures', {
        tokens: s.generatedTokens === 1 ? t('token') : t('tokens', { n: s.generatedTokens ?? 0 }),
        rate: (s.tokensPerSecond ?? 0).toFixed(s.tokensPerSecond < 10 ? 1 : 0),
        first: ((s.timeToFirstTokenMs ?? 0) / 1000).toFixed(1),
        tiles:
          s.tiles === 0 ? t('tilesReused') : tiles === 1 ? t('tile') : t('tiles', { n: tiles }),
      }),
    ),
  );
  if (answer.stop === 'length') foot.append(make('span', '', t('lengthStop')));
  if (answer.stop === 'context') foot.append(make('span', '', t('contextStop')));
}

/**
 * @param {Turn} turn
 * @param {HTMLElement} foot
 */
function addButtons(turn, foot) {
  const copy = make('button', '', t('copy'));
  copy.setAttribute('type', 'button');
  copy.addEventListener('click', async () => {
    await navigator.clipboard?.writeText(withoutBoxes(turn.answer).trim()).catch(() => {});
    copy.textContent = t('copied');
    setTimeout(() => (copy.textContent = t('copy')), 1500);
  });
  const repeat = make('button', '', t('again'));
  repeat.setAttribute('type', 'button');
  repeat.addEventListener('click', () => again(turn));
  const edit = make('button', '', t('edit'));
  edit.setAttribute('type', 'button');
  edit.addEventListener('click', () => {
    if (answering) return;
    forget(turn);
    attached = [...turn.shots];
    showAttached();
    const box = /** @type {HTMLTextAreaElement} */ ($('question'));
    box.value = turn.question;
    grow();
    box.focus();
  });
  foot.prepend(copy, repeat, edit);
}

/**
 * Takes a turn and all after it out of the conversation.
 * @param {Turn} turn
 */
function forget(turn) {
  const at = turns.indexOf(turn);
  const gone = at < 0 ? [turn] : turns.splice(at);
  for (const { element } of gone) element.remove();
  if (!turns.length && !$('log').children.length) showWelcome();
}

/** @param {Turn} turn */
function again(turn) {
  if (answering) return;
  forget(turn);
  void ask(turn.question, turn.shots);
}

function newChat() {
  answering?.abort();
  turns.length = 0;
  attached = [];
  showAttached();
  $('log').replaceChildren();
  $('notices').replaceChildren();
  showWelcome();
  $('question').focus();
}

function showWelcome() {
  $('welcome').hidden = false;
  $('new-chat').hidden = true;
}

/** @param {boolean} busy */
function setBusy(busy) {
  const focused = document.activeElement === $('ask') || document.activeElement === $('stop');
  $('ask').hidden = busy;
  $('stop').hidden = !busy;
  $('log').setAttribute('aria-busy', String(busy));
  if (focused) $(busy ? 'stop' : 'ask').focus();
}

function grow() {
  const box = $('question');
  box.style.height = 'auto';
  box.style.height = `${Math.min(box.scrollHeight, 180)}px`;
}

function submit() {
  const box = /** @type {HTMLTextAreaElement} */ ($('question'));
  if (answering) return;
  const question = box.value.trim();
  if (!question) {
    showNotice({ code: 'ARGUMENT', message: t('noQuestion') });
    box.focus();
    return;
  }
  $('notices').querySelector('p')?.remove();
  const shots = attached;
  attached = [];
  showAttached();
  box.value = '';
  grow();
  void ask(question, shots);
}

/* ---- samples ---- */

async function showSamples() {
  if (!samples.length) {
    const found = await fetch('samples/samples.json').catch(() => null);
    samples = found?.ok ? ((await found.json().catch(() => null))?.samples ?? []) : [];
  }
  $('samples-box').hidden = !samples.length;
  $('samples').replaceChildren(
    ...samples.map(({ file, alt, question }) => {
      const item = make('li');
      const button = make('button');
      button.setAttribute('type', 'button');
      const image = /** @type {HTMLImageElement} */ (make('img'));
      image.src = `samples/${file}`;
      image.alt = alt;
      image.loading = 'lazy';
      const words = question[language()] ?? question.en;
      button.append(image, make('span', '', words));
      button.addEventListener('click', async () => {
        const blob = await fetch(`samples/${file}`)
          .then((r) => r.blob())
          .catch(() => null);
        if (!blob) return;
        void ask(words, [{ name: alt, blob, url: URL.createObjectURL(blob) }]);
      });
      item.append(button);
      return item;
    }),
  );
}

/* ---- settings ---- */

/** @param {'quick' | 'balanced' | 'fine'} detail */
function tilesOf(detail) {
  const most = vl.info.settings?.maxTiles ?? 12;
  return Math.min({ quick: 1, balanced: 6, fine: 12 }[detail], most);
}

function showSettings() {
  const choices = /** @type {const} */ (['quick', 'balanced', 'fine']);
  const names = { quick: t('detailQuick'), balanced: t('detailBalanced'), fine: t('detailFine') };
  const only = tilesOf('fine') === 1;
  $('detail').hidden = only;
  $('detail').replaceChildren(
    make('legend', '', t('detail')),
    ...choices.map((choice) => {
      const label = make('label', 'choice');
      const input = /** @type {HTMLInputElement} */ (make('input'));
      input.type = 'radio';
      input.name = 'detail';
      input.value = choice;
      input.checked = settings.detail === choice;
      input.addEventListener('change', () => {
        settings.detail = choice;
        keepSettings();
      });
      const tiles = tilesOf(choice);
      const seconds = ((settings.tileMs * (tiles > 1 ? tiles + 1 : 1)) / 1000).toFixed(1);
      const cost = !settings.tileMs
        ? t('detailUnknown', { tiles })
        : tiles === 1
          ? t('detailCostOne', { seconds })
          : t('detailCost', { tiles, seconds });
      label.append(input, make('span', '', names[choice]), make('small', '', cost));
      return label;
    }),
  );
  const value = (/** @type {string} */ id, /** @type {string | number} */ v) => {
    const input = /** @type {HTMLInputElement} */ ($(id));
    input.value = String(v);
  };
  value('temperature', settings.temperature);
  $('temperature-out').textContent = settings.temperature.toFixed(1);
  value('max-tokens', settings.maxTokens);
  value('threads', settings.threads || (vl.info.threads ?? 1));
  value('language', language());
  const { info, stats } = vl;
  const rows = [
    [t('modelNow'), info.title ?? '–'],
    [t('build'), info.variant ? `${info.kernels}. ${info.variantReason}` : '–'],
    [t('threadsNow'), info.threads ? `${info.threads}. ${info.threadsReason}` : '–'],
    [
      t('memory'),
      stats.memoryBytes ? `${size(stats.weightBytes + stats.kvBytes + stats.scratchBytes)}` : '–',
    ],
    [t('stored'), info.key ? t(info.stored ? 'yes' : 'no') : '–'],
  ];
  $('machine').replaceChildren(
    ...rows.flatMap(([name, text]) => [make('dt', '', name), make('dd', '', text)]),
  );
}

async function showModels() {
  const list = await storedModels.list().catch(() => []);
  const items = list.map(({ key, title, bytes, storedBytes, complete }) => {
    const item = make('li');
    const words = make('span', '', title);
    const current = key === vl.info.key;
    const state = complete
      ? size(bytes)
      : t('modelPartly', { have: size(storedBytes), all: size(bytes) });
    words.append(make('small', '', current ? `${state}, ${t('modelCurrent')}` : state));
    item.append(words);
    if (!current) {
      const use = make('button', 'ghost', t('load'));
      use.setAttribute('type', 'button');
      use.addEventListener(
        'click',
        () => void load(key, { remember: key }).then(showModels, showModels),
      );
      item.append(use);
    }
    const remove = make('button', 'ghost', t('delete'));
    remove.setAttribute('type', 'button');
    remove.setAttribute('aria-label', `${t('delete')}: ${title}`);
    remove.addEventListener('click', async () => {
      await storedModels.delete(key).catch((error) => showNotice(PocketVLError.from(error)));
      await showModels();
    });
    item.append(remove);
    return item;
  });
  $('models').replaceChildren(...(items.length ? items : [make('li', 'small', t('modelNone'))]));
}

/* ---- wiring ---- */

function wire() {
  const question = /** @type {HTMLTextAreaElement} */ ($('question'));
  $('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  question.addEventListener('input', grow);
  question.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  $('stop').addEventListener('click', () => answering?.abort());
  window.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !(/** @type {HTMLDialogElement} */ ($('settings')).open))
      answering?.abort();
  });
  $('new-chat').addEventListener('click', newChat);
  for (const id of ['file', 'camera']) {
    const input = /** @type {HTMLInputElement} */ ($(id));
    input.addEventListener('change', () => {
      take(input.files ?? []);
      input.value = ''; // the same file again is a change, too
    });
  }
  window.addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  let depth = 0;
  const carries = (/** @type {DragEvent} */ event) =>
    event.dataTransfer?.types.includes('Files') ?? false;
  window.addEventListener('dragenter', (event) => {
    if (carries(event)) $('curtain').hidden = ++depth < 1;
  });
  window.addEventListener('dragleave', (event) => {
    if (carries(event) && --depth < 1) $('curtain').hidden = true;
  });
  window.addEventListener('dragover', (event) => {
    if (carries(event)) event.preventDefault();
  });
  window.addEventListener('drop', (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0;
    $('curtain').hidden = true;
    take(event.dataTransfer?.files ?? []);
  });

  const dialog = /** @type {HTMLDialogElement} */ ($('settings'));
  $('open-settings').addEventListener('click', () => {
    showSettings();
    void showModels();
    dialog.showModal();
  });
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  const number = (
    /** @type {string} */ id,
    /** @type {(v: number) => void} */ set,
    /** @type {number} */ least,
    /** @type {number} */ most,
  ) => {
    const input = /** @type {HTMLInputElement} */ ($(id));
    input.addEventListener('input', () => {
      const v = Number(input.value);
      if (!(v >= least && v <= most)) return;
      set(v);
      keepSettings();
    });
  };
  number(
    'temperature',
    (v) => {
      settings.temperature = v;
      $('temperature-out').textContent = v.toFixed(1);
    },
    0,
    2,
  );
  number('max-tokens', (v) => (settings.maxTokens = Math.round(v)), 1, 4096);
  number('threads', (v) => (settings.threads = Math.round(v)), 1, 16);
  $('language').addEventListener('change', (event) => {
    settings.language = /** @type {HTMLSelectElement} */ (event.target).value;
    keepSettings();
    use(preferred(settings.language));
    showSettings();
    void showModels();
    void showSamples();
    if (vl.info.key) showReady();
  });
  const gguf = /** @type {HTMLInputElement} */ ($('gguf'));
  gguf.addEventListener('change', () => {
    const files = [...(gguf.files ?? [])];
    if (files.length) void load(files).then(showModels, () => dialog.close());
  });
  const url = /** @type {HTMLInputElement} */ ($('model-url'));
  $('load-url').addEventListener('click', () => {
    const address = url.value.trim();
    if (address) void load(address, { remember: address }).then(showModels, () => dialog.close());
  });
  url.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    $('load-url').click();
  });
}

readSettings();
use(preferred(settings.language));
wire();
status(t('statusStart'), 'busy');
void showSamples();
if (await isolate('sw.js').then(() => true)) {
  load(settings.model || DEMO, { refresh: !settings.model }).catch(() => {
    // A remembered model that is gone must not keep the page from working.
    if (settings.model) void load(DEMO, { refresh: true, remember: '' }).catch(() => {});
  });
}
// For the tests and for the curious: the engine of this page.
Object.assign(globalThis, { pocketvl: vl });
