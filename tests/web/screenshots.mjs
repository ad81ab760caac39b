// `npm run screenshots`: pictures of the page's main states, to be looked at. They go to build/screenshots, or to the
// folder that is named.
import { mkdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import { serve } from '../../web/serve.mjs';
import { askOnPage, chromium, modelReady } from './browser.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = resolve(process.argv[2] ?? join(root, 'build', 'screenshots'));
const sample = (/** @type {string} */ name) => join(root, 'web', 'samples', name);
mkdirSync(folder, { recursive: true });

const server = await serve({ port: 0 });
const browser = await chromium({ args: ['--hide-scrollbars', '--force-device-scale-factor=1'] });

/**
 * @param {{width: number, height: number, dark?: boolean, language?: string, phone?: boolean}} look
 */
async function open(look) {
  // A visitor of its own each time: nothing is remembered from the picture before.
  const page = await (await browser.createBrowserContext()).newPage();
  page.setDefaultTimeout(60_000);
  await page.setViewport({
    width: look.width,
    height: look.height,
    isMobile: Boolean(look.phone),
    hasTouch: Boolean(look.phone),
    deviceScaleFactor: look.phone ? 2 : 1,
  });
  await page.emulateMediaFeatures([
    { name: 'prefers-color-scheme', value: look.dark ? 'dark' : 'light' },
    { name: 'prefers-reduced-motion', value: 'reduce' },
  ]);
  await page.goto(server.url);
  await page.waitForFunction(() => crossOriginIsolated, { timeout: 30_000 });
  await modelReady(page);
  if (look.language) await page.select('#language', look.language);
  await sleep(600);
  return page;
}

/** @param {import('puppeteer-core').Page} page @param {string} name */
async function shoot(page, name) {
  await sleep(300);
  await page.screenshot({ path: /** @type {`${string}.png`} */ (join(folder, `${name}.png`)) });
  console.log(join(folder, `${name}.png`));
}

try {
  const wide = { width: 1100, height: 860 };
  const phone = { width: 390, height: 800, phone: true };

  let page = await open(wide);
  await shoot(page, 'empty');
  await askOnPage(page, 'How many shapes are there?', { file: sample('shapes.jpg') });
  await shoot(page, 'answer');
  await askOnPage(page, 'Where is the black star?');
  await shoot(page, 'boxes');
  await page.click('.turn:first-of-type .figures summary');
  await page.$eval('.turn:first-of-type .seen', (seen) => seen.scrollIntoView({ block: 'end' }));
  await shoot(page, 'seen');
  await page.click('#open-settings');
  await shoot(page, 'settings');
  await page.$eval('#settings', (dialog) => dialog.scrollTo(0, dialog.scrollHeight));
  await shoot(page, 'settings-end');
  await page.close();

  page = await open({ ...wide, dark: true });
  await shoot(page, 'dark-empty');
  await askOnPage(page, 'Describe the picture.', { file: sample('three.jpg') });
  await shoot(page, 'dark');
  await page.close();

  page = await open(wide);
  await askOnPage(page, 'What is this?', { file: fileURLToPath(import.meta.url) });
  await shoot(page, 'error');
  await page.close();

  page = await open(phone);
  await shoot(page, 'phone-empty');
  await askOnPage(page, 'What does it say?', { file: sample('word.jpg') });
  await shoot(page, 'phone');
  await page.close();

  // A model that cuts pictures into tiles, before and while it looks: the same weights, allowed more of them, in one
  // thread, so that there is time for a picture.
  page = await open(wide);
  await page.evaluate(async () => {
    const { pocketvl } = /** @type {any} */ (globalThis);
    await pocketvl.loadModel('models/demo/manifest.json', { threads: 1 });
    pocketvl.info.settings.maxTiles = 12;
  });
  const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
    await page.$('#file')
  );
  await input.uploadFile(sample('three.jpg'), sample('bars-letters.jpg'));
  await page.waitForSelector('#cost .choice', { timeout: 30_000 });
  await page.type('#question', 'What is in these pictures?');
  await page.waitForFunction(() => document.querySelector('#cost')?.textContent?.includes('about'));
  await page.click('#cost .choice:nth-of-type(2)');
  await shoot(page, 'detail');
  await page.click('#ask');
  await page.waitForFunction(() => document.querySelectorAll('.tiles .looked').length > 2, {
    timeout: 60_000,
  });
  await shoot(page, 'looking');
  await page.click('#stop');
  await page.close();

  page = await open({ ...phone, language: 'zh' });
  await shoot(page, 'phone-zh');
  await page.close();

  // While it loads: the network is slowed down.
  page = await (await browser.createBrowserContext()).newPage();
  await page.setViewport(wide);
  const context = await page.createCDPSession();
  await context.send('Network.enable');
  await context.send('Network.emulateNetworkConditions', {
    offline: false,
    latency: 20,
    downloadThroughput: 700_000,
    uploadThroughput: 700_000,
  });
  await page.goto(server.url);
  await page.waitForFunction(
    () => Number(document.querySelector('#bar:not([hidden])')?.getAttribute('aria-valuenow')) > 25,
    { timeout: 60_000 },
  );
  await shoot(page, 'loading');
  await page.close();
} finally {
  await browser.close();
  await server.close();
}
