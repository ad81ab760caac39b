// Starting browsers for the tests. Chromium and Firefox through one API; every wait has a deadline of its own, and a
// browser is ended by the process that was started.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import puppeteer from 'puppeteer-core';
import { chromiumPath, firefoxPath } from '../../wasm/tools/browsers.mjs';

/** @typedef {import('puppeteer-core').Browser} Browser */
/** @typedef {import('puppeteer-core').Page} Page */

/** @param {string} [folder] */
function profileFolder(folder) {
  return folder ?? mkdtempSync(join(tmpdir(), 'pocketvl-profile-'));
}

/**
 * @param {{args?: string[], profile?: string}} [options]
 * @returns {Promise<Browser>}
 */
export async function chromium(options = {}) {
  const profile = profileFolder(options.profile);
  const browser = await puppeteer.launch({
    executablePath: chromiumPath(),
    ignoreDefaultArgs: true,
    protocolTimeout: 180_000,
    timeout: 60_000,
    args: [
      '--headless',
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--disable-dev-shm-usage',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--lang=en-US',
      '--remote-debugging-port=0',
      `--user-data-dir=${profile}`,
      ...(options.args ?? []),
      'about:blank',
    ],
  });
  if (!options.profile) browser.once('disconnected', () => setTimeout(() => drop(profile), 500));
  return browser;
}

/**
 * @param {{prefs?: Record<string, unknown>, profile?: string, anyCertificate?: boolean}} [options]
 * @returns {Promise<Browser>}
 */
export async function firefox(options = {}) {
  const profile = profileFolder(options.profile);
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: firefoxPath(),
    headless: true,
    acceptInsecureCerts: options.anyCertificate,
    userDataDir: profile,
    extraPrefsFirefox: { 'intl.accept_languages': 'en-US', ...options.prefs },
    protocolTimeout: 180_000,
    timeout: 90_000,
  });
  if (!options.profile) browser.once('disconnected', () => setTimeout(() => drop(profile), 500));
  return browser;
}

/** @param {string} folder */
function drop(folder) {
  try {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  } catch {
    // the browser is still writing to it; temporary folders are cleaned by the system
  }
}

/**
 * Waits until the page's model is loaded; fails with what the page says.
 * @param {Page} page
 * @param {number} [timeout]
 */
export async function modelReady(page, timeout = 60_000) {
  await page
    .waitForFunction(() => document.querySelector('#status-dot.ready, #status-dot.failed'), {
      timeout,
    })
    .catch(async (cause) => {
      const status = await page.$eval('#status', (box) => box.textContent).catch(() => 'none');
      throw new Error(`No model within ${timeout / 1000} s; status: ${status}`, { cause });
    });
  const failed = await page.$eval('body', () => {
    const failure = document.querySelector('#status-dot.failed');
    return failure ? (document.querySelector('#notices')?.textContent ?? 'failed') : '';
  });
  if (failed) throw new Error(`The page says: ${failed}`);
}

/**
 * Presses the button that is named so, by its label or its words. Not by the driver's own search by role and name, which
 * main_path.mjs uses: that one takes Firefox more than a second.
 * @param {Page} page
 * @param {string} name
 */
export async function press(page, name) {
  const find = (/** @type {string} */ wanted) =>
    [...document.querySelectorAll('button')].find(
      (button) =>
        button.checkVisibility() &&
        (button.getAttribute('aria-label') ?? button.textContent?.trim()) === wanted,
    ) ?? null;
  const button = await page.waitForFunction(find, { timeout: 10_000 }, name);
  await /** @type {import('puppeteer-core').ElementHandle} */ (button).click();
}

/**
 * Asks on the page and waits for the answer's end.
 * @param {Page} page
 * @param {string} question
 * @param {{file?: string, timeout?: number}} [options]
 * @returns {Promise<string>} the answer as shown
 */
export async function askOnPage(page, question, options = {}) {
  if (options.file) {
    const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
      await page.$('#file')
    );
    await input.uploadFile(options.file);
    await page.waitForSelector('#pictures li', { timeout: 10_000 });
  }
  const before = await page.$$eval('.turn', (turns) => turns.length);
  await page.type('#question', question);
  await press(page, 'Ask');
  await page.waitForFunction(
    (n) =>
      document.querySelectorAll('.turn').length > n && !document.querySelector('.turn .answering'),
    { timeout: options.timeout ?? 120_000 },
    before,
  );
  return page.$eval('.turn:last-of-type .words', (words) => words.textContent ?? '');
}
