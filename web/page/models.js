// The model manager: what is kept in this browser, and models from this device or from an address.
import { PocketVLError, models as stored } from '../lib/pocketvl.js';
import { $, button, make, size } from './dom.js';
import { load, vl } from './engine.js';
import { showError, showNotice } from './errors.js';
import { chooseHost, chosenHosts, foreignHost } from './hosts.js';
import { keepSettings, settings } from './settings.js';
import { t } from './strings.js';

const dialog = () => /** @type {HTMLDialogElement} */ ($('settings'));

/**
 * Loads a model by its address. From another host only after the person has said so, which takes a reload: the content
 * policy of the page that runs now does not let it.
 * @param {string} address
 */
export async function openAddress(address) {
  let url;
  try {
    url = new URL(address, document.baseURI);
    if (!/^https?:$/.test(url.protocol)) throw new Error(url.protocol);
  } catch {
    showNotice({ code: 'ARGUMENT', message: t('notAddress', { address: address.slice(0, 200) }) });
    dialog().close();
    return;
  }
  const host = foreignHost(url.href);
  const here = (await stored.list().catch(() => [])).some(
    ({ key, complete }) => key === url.href && complete,
  );
  if (host && !here && !chosenHosts().includes(host)) {
    askHost(host, url.href);
    return;
  }
  if (!host && chosenHosts().length) await chooseHost(''); // the other host is no longer needed
  dialog().close();
  await load(url.href, { remember: url.href }).catch(() => {});
}

/**
 * @param {string} host
 * @param {string} address
 */
function askHost(host, address) {
  const ask = /** @type {HTMLDialogElement} */ ($('host-dialog'));
  $('host-name').textContent = host;
  $('host-words').textContent = t('hostWords', { host });
  $('host-allow').onclick = async () => {
    await chooseHost(host);
    settings.model = address;
    keepSettings();
    location.reload();
  };
  ask.showModal();
}

/** Takes the host's permission back. */
export async function forgetHost() {
  await chooseHost('');
  if (settings.model && foreignHost(settings.model)) settings.model = '';
  keepSettings();
  location.reload();
}

/** @param {File[]} files */
export async function openFiles(files) {
  dialog().close();
  await load(files).catch(() => {});
}

export async function showModels() {
  const list = await stored.list().catch(() => []);
  const items = list.map((model) => item(model));
  $('models').replaceChildren(...(items.length ? items : [make('li', 'small', t('modelNone'))]));
  const used = list.reduce((sum, { storedBytes }) => sum + storedBytes, 0);
  const room = await navigator.storage?.estimate().catch(() => null);
  const free = (room?.quota ?? 0) - (room?.usage ?? 0);
  $('room').textContent = free > 0 ? t('room', { used: size(used), free: size(free) }) : '';
}

/** @param {import('../lib/models.js').StoredModel} model */
function item({ key, title, bytes, storedBytes, complete }) {
  const row = make('li');
  const words = make('span', '', title);
  const current = key === vl.info.key;
  const state = complete
    ? size(bytes)
    : t('modelPartly', { have: size(storedBytes), all: size(bytes) });
  words.append(make('small', '', current ? `${state}, ${t('modelCurrent')}` : state));
  row.append(words);
  if (!current) {
    row.append(button(complete ? t('use') : t('resume'), 'ghost', () => openAddress(key)));
  }
  const remove = button(t('delete'), 'ghost', async () => {
    await stored
      .delete(key)
      .catch((error) => showError(PocketVLError.from(error, 'STORAGE'), null));
    await showModels();
  });
  remove.setAttribute('aria-label', `${t('delete')}: ${title}`);
  row.append(remove);
  return row;
}

export function wireModels() {
  const gguf = /** @type {HTMLInputElement} */ ($('gguf'));
  gguf.addEventListener('change', () => {
    const files = [...(gguf.files ?? [])];
    gguf.value = '';
    if (files.length) void openFiles(files);
  });
  const url = /** @type {HTMLInputElement} */ ($('model-url'));
  $('load-url').addEventListener('click', () => {
    if (url.value.trim()) void openAddress(url.value.trim());
  });
  url.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    $('load-url').click();
  });
  $('host-cancel').addEventListener('click', () =>
    /** @type {HTMLDialogElement} */ ($('host-dialog')).close(),
  );
}
