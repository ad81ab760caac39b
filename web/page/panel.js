// The settings dialog: everything the person can choose, and what runs on this device.
import { showDetail } from './detail.js';
import { $, button, make, size } from './dom.js';
import { measure, onModel, reload, vl } from './engine.js';
import { forgetAll } from './history.js';
import { chosenHosts } from './hosts.js';
import { forgetHost, showModels, wireModels } from './models.js';
import { keepSettings, settings } from './settings.js';
import { language, preferred, t, use } from './strings.js';

/** What the engine was started with; other values need a new start. */
let started = { threads: 0, context: 0 };

function value(/** @type {string} */ id, /** @type {string | number} */ v) {
  const input = /** @type {HTMLInputElement} */ ($(id));
  if (document.activeElement !== input) input.value = String(v);
}

export function showSettings() {
  void showDetail();
  value('temperature', settings.temperature);
  $('temperature-out').textContent = settings.temperature.toFixed(1);
  value('max-tokens', settings.maxTokens);
  value('threads', settings.threads || (vl.info.threads ?? 1));
  value('context', settings.context || (vl.stats.context ?? 4096));
  value('language', language());
  /** @type {HTMLInputElement} */ ($('remember')).checked = settings.remember;
  const { info, stats } = vl;
  const held = (stats.weightBytes ?? 0) + (stats.kvBytes ?? 0) + (stats.scratchBytes ?? 0);
  const rows = [
    [t('modelNow'), info.title ?? '–'],
    [t('license'), info.license || '–'],
    [t('build'), info.variant ? `${info.kernels}. ${info.variantReason}` : '–'],
    [t('threadsNow'), info.threads ? `${info.threads}. ${info.threadsReason}` : '–'],
    [
      t('memory'),
      held ? t('factMemoryWords', { held: size(held), all: size(stats.memoryBytes ?? 0) }) : '–',
    ],
    [t('stored'), info.key ? t(info.stored ? 'yes' : 'no') : '–'],
  ];
  $('machine').replaceChildren(
    ...rows.flatMap(([name, text]) => [make('dt', '', name), make('dd', '', text)]),
  );
  showHosts();
}

function showHosts() {
  const hosts = chosenHosts();
  $('policy').textContent = hosts.length
    ? t('policyHost', { host: hosts.join(', ') })
    : t('policyOwn');
  $('policy-host').replaceChildren(
    ...(hosts.length ? [button(t('takeBack'), 'ghost', forgetHost)] : []),
  );
}

/** @param {() => void} onLanguage */
export function wirePanel(onLanguage) {
  const dialog = /** @type {HTMLDialogElement} */ ($('settings'));
  onModel(() => {
    started = { threads: settings.threads, context: settings.context };
    showSettings();
  });
  $('open-settings').addEventListener('click', () => {
    started = { threads: settings.threads, context: settings.context };
    showSettings();
    void showModels();
    void measure();
    dialog.showModal();
  });
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener('close', () => {
    const same = started.threads === settings.threads && started.context === settings.context;
    if (!same) reload();
  });
  const number = (
    /** @type {string} */ id,
    /** @type {(v: number) => void} */ set,
    /** @type {number} */ least,
    /** @type {number} */ most,
  ) => {
    const input = /** @type {HTMLInputElement} */ ($(id));
    const take = () => {
      const v = Number(input.value);
      if (!(input.value && v >= least && v <= most)) return;
      set(v);
      keepSettings();
    };
    let before = '';
    input.addEventListener('focus', () => (before = input.value));
    input.addEventListener('input', take);
    // What is out of range becomes what is nearest, and nothing what was there before.
    input.addEventListener('change', () => {
      const v = Number(input.value || before);
      input.value = String(Math.min(Math.max(v, least), most));
      take();
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
  number('context', (v) => (settings.context = Math.round(v)), 256, 32768);
  $('remember').addEventListener('change', (event) => {
    settings.remember = /** @type {HTMLInputElement} */ (event.target).checked;
    keepSettings();
    if (!settings.remember) void forgetAll();
  });
  $('language').addEventListener('change', (event) => {
    settings.language = /** @type {HTMLSelectElement} */ (event.target).value;
    keepSettings();
    use(preferred(settings.language));
    showSettings();
    void showModels();
    onLanguage();
  });
  wireModels();
}
