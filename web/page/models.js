// The model manager: what is kept in this browser, and models from this device or from an address.
import { PocketVLError, models as stored } from '../lib/pocketvl.js';
import { tidy } from './addresses.js';
import { $, button, make, size } from './dom.js';
import { load, vl } from './engine.js';
import { showError, showNotice } from './errors.js';
import { chooseHost, chosenHosts, foreignHost, hostsOf } from './hosts.js';
import { keepSettings, settings } from './settings.js';
import { t } from './strings.js';

const dialog = () => /** @type {HTMLDialogElement} */ ($('settings'));

/**
 * Loads a model by its address, or by the addresses of its files. From another host only after the person has said so, which
 * takes a reload: the content policy of the page that runs now does not let it.
 * @param {string} text
 */
export async function openAddress(text) {
  const refuse = (/** @type {string} */ message) => {
    showNotice({ code: 'ARGUMENT', message });
    dialog().close();
  };
  let addresses;
  try {
    addresses = tidy(text, document.baseURI);
  } catch {
    return refuse(t('notAddress', { address: text.slice(0, 200) }));
  }
  const hosts = [...new Set(addresses.map(foreignHost))];
  if (hosts.length > 1) return refuse(t('oneHost'));
  const [host] = hosts;
  const key = addresses.join('\n');
  const here = (await stored.list().catch(() => [])).some(
    (model) => model.key === key && model.complete,
  );
  if (host && !here && !chosenHosts().includes(host)) return askHost(host, key);
  if (!host && chosenHosts().length) await chooseHost(''); // the other host is no longer needed
  dialog().close();
  await load(key, { remember: true }).catch(() => {});
}

/**
 * @param {string} host
 * @param {string} address
 */
function askHost(host, address) {
  const ask = /** @type {HTMLDialogElement} */ ($('host-dialog'));
  $('host-name').textContent = host;
  const others = hostsOf(host)
    .slice(1)
    .map((other) => other.replace(/^https:\/\/\*\./, ''));
  $('host-words').textContent =
    t('hostWords', { host }) +
    (others.length ? ` ${t('hostOthers', { host, others: others.join(t('and')) })}` : '');
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
  if (settings.model && foreignHost(settings.model.split('\n')[0])) settings.model = '';
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
