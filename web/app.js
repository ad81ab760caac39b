// The page: pictures and questions in, answers out as they are written. What it consists of is in page/.
import { takeAttached, wireAttachments } from './page/attachments.js';
import { wireCamera } from './page/camera.js';
import {
  allTurns,
  ask,
  grow,
  isAnswering,
  newChat,
  restoreChat,
  stopAnswer,
} from './page/conversation.js';
import { showDetail } from './page/detail.js';
import { $, focusQuestion } from './page/dom.js';
import { DEMO, load, showReady, status, stopLoading, vl } from './page/engine.js';
import { showNotice } from './page/errors.js';
import { save, toJson, toMarkdown } from './page/export.js';
import { syncHosts } from './page/hosts.js';
import { install, isolate } from './page/isolate.js';
import { openFiles } from './page/models.js';
import { wirePanel } from './page/panel.js';
import { showSamples } from './page/samples.js';
import { readSettings, settings } from './page/settings.js';
import { preferred, t, use } from './page/strings.js';

function submit() {
  const box = /** @type {HTMLTextAreaElement} */ ($('question'));
  if (isAnswering()) return;
  const question = box.value.trim();
  if (!question) {
    showNotice({ code: 'ARGUMENT', message: t('noQuestion') });
    focusQuestion();
    return;
  }
  $('notices').querySelector('.notice')?.remove();
  box.value = '';
  grow();
  void ask(question, takeAttached());
}

function wireComposer() {
  const question = $('question');
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
  $('stop').addEventListener('click', stopAnswer);
  window.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && !document.querySelector('dialog[open]')) stopAnswer();
  });
}

function wireHead() {
  $('new-chat').addEventListener('click', () => void newChat());
  $('stop-load').addEventListener('click', stopLoading);
  const menu = /** @type {HTMLDetailsElement} */ ($('export'));
  const model = () => vl.info.title ?? vl.info.name ?? '';
  $('export-markdown').addEventListener('click', () => {
    menu.open = false;
    save(toMarkdown(allTurns(), model()), 'text/markdown', 'md');
  });
  $('export-json').addEventListener('click', async () => {
    menu.open = false;
    save(await toJson(allTurns(), model()), 'application/json', 'json');
  });
  document.addEventListener('click', (event) => {
    if (!menu.contains(/** @type {Node} */ (event.target))) menu.open = false;
  });
  menu.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || !menu.open) return;
    event.stopPropagation();
    menu.open = false;
    menu.querySelector('summary')?.focus();
  });
}

const samples = () =>
  void showSamples((question, shots) => {
    if (!isAnswering()) void ask(question, shots);
  });

/** The remembered model; where it is gone, the page works with its own, and says why. */
async function start() {
  if (!(await isolate('sw.js').then(() => true))) return;
  void syncHosts();
  try {
    await load(settings.model || DEMO, settings.model ? { remember: true } : { refresh: true });
  } catch (error) {
    if (!settings.model) return;
    const gone = settings.model;
    await load(DEMO, { refresh: true }).catch(() => {});
    const message = t('modelGone', {
      address: gone,
      reason: /** @type {Error} */ (error).message,
    });
    showNotice(
      { code: 'MODEL', message },
      { label: t('retry'), run: () => load(gone, { remember: true }).catch(() => {}) },
    );
  }
}

readSettings();
use(preferred(settings.language));
wireComposer();
wireHead();
wireCamera();
wireAttachments({
  onModelFiles: (files) => void openFiles(files),
  onChange: () => void showDetail(),
});
wirePanel(() => {
  samples();
  if (vl.info.key) showReady();
});
status(t('statusStart'), 'busy');
samples();
void restoreChat();
void start().then(() => install('sw.js'));
// For the tests and for the curious: the engine of this page.
Object.assign(globalThis, { pocketvl: vl });
