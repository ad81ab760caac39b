// The conversation over a reload: its text in localStorage, written at once, its pictures in IndexedDB if that has room.
// A tab has its own conversation; a new tab is offered the last one. What is given up is deleted.
import { openDB } from '../vendor/idb.js';
import { settings } from './settings.js';

/**
 * A turn as it is kept.
 * @typedef {object} KeptTurn
 * @property {string} question
 * @property {{key: string, name: string}[]} shots
 * @property {string} answer
 * @property {'done' | 'stopped' | 'failed' | 'running'} state
 * @property {Record<string, any> | null} stats
 * @property {{width: number, height: number, tiling: any}[]} pictures
 * @property {string} model
 * @property {string} build which build answered, and why
 * @property {string} threads
 */
/** @typedef {{id: string, time: number, turns: KeptTurn[]}} Kept */

const PREFIX = 'pocketvl-chat:';
const TAB = 'pocketvl-chat';
const DATABASE = 'pocketvl-page';
const lockName = (/** @type {string} */ id) => PREFIX + id;

/** The conversation of this tab. */
let id = '';
/** @type {Promise<import('../vendor/idb.js').IDBPDatabase> | null} */
let database = null;

function pictures() {
  const lost = () => (database = null); // evicted, or wanted by another tab: opened again next time
  database ??= openDB(DATABASE, 1, {
    upgrade: (db) => void db.createObjectStore('pictures'),
    blocking(_before, _after, { target }) {
      /** @type {IDBDatabase} */ (target).close();
      lost();
    },
    terminated: lost,
  });
  database.catch(() => (database = null)); // asked for again next time
  return database;
}

const newId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(8)), (b) =>
    b.toString(16).padStart(2, '0'),
  ).join('');

/** @param {string} key @returns {Kept | null} */
function read(key) {
  try {
    const kept = JSON.parse(localStorage.getItem(key) ?? 'null');
    const good =
      typeof kept?.id === 'string' &&
      Array.isArray(kept.turns) &&
      kept.turns.every(
        (/** @type {any} */ turn) =>
          typeof turn?.question === 'string' &&
          typeof turn.answer === 'string' &&
          Array.isArray(turn.shots),
      );
    return good ? kept : null;
  } catch {
    return null;
  }
}

/** All that is kept, the newest first. */
function all() {
  try {
    return Object.keys(localStorage)
      .filter((key) => key.startsWith(PREFIX))
      .map((key) => read(key))
      .filter((kept) => kept !== null)
      .sort((a, b) => b.time - a.time);
  } catch {
    return [];
  }
}

/** Ids of conversations that are open in some tab. */
async function open() {
  const state = await navigator.locks?.query().catch(() => null);
  return new Set((state?.held ?? []).map(({ name }) => String(name).slice(PREFIX.length)));
}

/**
 * Marks a conversation as this tab's; false if another tab has it, as after "duplicate tab".
 * @param {string} wanted
 * @returns {Promise<boolean>}
 */
async function hold(wanted) {
  if (!navigator.locks) return true;
  for (let tries = 0; tries < 10; tries++) {
    const got = await new Promise((done) => {
      navigator.locks
        .request(lockName(wanted), { ifAvailable: true }, (lock) => {
          done(lock !== null);
          return lock ? new Promise(() => {}) : undefined; // for as long as the page lives
        })
        .catch(() => done(true));
    });
    if (got) return true;
    await new Promise((go) => setTimeout(go, 100)); // the page before a reload may still hold it
  }
  return false;
}

/** @param {string} fresh */
function setId(fresh) {
  id = fresh;
  try {
    sessionStorage.setItem(TAB, id);
  } catch {
    // a reload starts anew
  }
}

/** What this tab had before a reload. @returns {Promise<KeptTurn[]>} */
export async function restore() {
  let before = '';
  try {
    before = sessionStorage.getItem(TAB) ?? '';
  } catch {
    // nothing is kept
  }
  if (before && (await hold(before))) {
    setId(before);
    return read(PREFIX + id)?.turns ?? [];
  }
  return [];
}

/** The last conversation that no tab shows. @returns {Promise<Kept | null>} */
export async function lastOne() {
  const held = await open();
  return all().find((kept) => kept.id !== id && kept.turns.length && !held.has(kept.id)) ?? null;
}

/** Makes a kept conversation this tab's. @param {Kept} kept */
export async function adopt(kept) {
  if (await hold(kept.id)) setId(kept.id);
  return kept.turns;
}

/**
 * Writes the text down; at once, so that no crash comes before it.
 * @param {KeptTurn[]} turns
 */
export function keep(turns) {
  if (!settings.remember) return;
  if (!id) {
    setId(newId());
    void hold(id);
    void prune();
  }
  try {
    localStorage.setItem(PREFIX + id, JSON.stringify({ id, time: Date.now(), turns }));
  } catch {
    // no room: the conversation goes on without being kept
  }
}

/** At most one conversation besides those that are open stays. */
async function prune() {
  const held = await open();
  const others = all().filter((kept) => kept.id !== id && !held.has(kept.id));
  for (const { id: old } of others.slice(1)) await drop(old);
}

/**
 * Keeps a picture, if there is room.
 * @param {import('./attachments.js').Shot} shot
 */
export async function keepPicture(shot) {
  if (!settings.remember || !shot.blob || shot.key || !id) return;
  const key = `${id}/${newId()}`;
  try {
    await (await pictures()).put('pictures', shot.blob, key);
    shot.key = key;
  } catch {
    // the text alone is kept
  }
}

/** @param {string} key @returns {Promise<Blob | null>} */
export async function keptPicture(key) {
  if (!key) return null;
  try {
    const blob = await (await pictures()).get('pictures', key);
    return blob instanceof Blob ? blob : null;
  } catch {
    return null;
  }
}

/** @param {string} old */
async function drop(old) {
  try {
    localStorage.removeItem(PREFIX + old);
    await (await pictures()).delete('pictures', IDBKeyRange.bound(`${old}/`, `${old}/\uffff`));
  } catch {
    // it was not kept
  }
}

/** Gives this tab's conversation up. */
export async function forget() {
  if (!id) return;
  const old = id;
  id = '';
  try {
    sessionStorage.removeItem(TAB);
  } catch {
    // it was not kept
  }
  await drop(old);
}

/** Deletes all that is kept of conversations. */
export async function forgetAll() {
  const held = await open();
  for (const { id: old } of all()) if (old === id || !held.has(old)) await drop(old);
}
