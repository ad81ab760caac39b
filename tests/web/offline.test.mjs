// Visits after the first: no request at all, new releases all the same, and never a mixture of two.
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach } from 'node:test';
import { fileURLToPath } from 'node:url';
import { writePrecache } from '../../wasm/tools/precache.mjs';
import { serve } from '../../web/serve.mjs';
import { askOnPage, modelReady } from './browser.mjs';
import { inBrowsers } from './pages.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const SHAPES = join(root, 'web', 'samples', 'shapes.jpg');
/** What a browser looks at by itself, to learn whether there is a new release: the worker and what it imports. */
const LOOKS = ['/sw.js', '/precache.js', '/page/policy.js'];

const both = inBrowsers();

/** @typedef {import('puppeteer-core').Page} Page */

/** @type {string} */
let folder;

beforeEach(() => {
  // A host's copy of the page, which the test may change.
  folder = mkdtempSync(join(tmpdir(), 'pocketvl-release-'));
  cpSync(join(root, 'web'), join(folder, 'web'), {
    recursive: true,
    filter: (path) => !/\.gguf$|web\/dist/.test(path),
  });
  const gguf = 'models/demo/pocketvl-demo.gguf';
  symlinkSync(join(root, 'web', gguf), join(folder, 'web', gguf));
  writePrecache(join(folder, 'web'));
});

/**
 * @param {import('node:test').TestContext} t
 * @param {import('puppeteer-core').BrowserContext} context whose visits these are
 * @param {string} [caching] the Cache-Control of the host
 */
async function host(t, context, caching) {
  const site = await serve({ port: 0, folder });
  /** @type {string[]} */
  const log = [];
  /** @type {Promise<void> | undefined} until then no browser learns of a new release */
  let silence;
  const [answer] = site.server.listeners('request');
  site.server.removeAllListeners('request');
  site.server.on('request', async (request, response) => {
    const path = String(request.url).replace('/web', '');
    log.push(path);
    if (LOOKS.includes(path)) await silence;
    const { writeHead } = response;
    if (caching)
      response.writeHead = (/** @type {number} */ status, /** @type {any} */ headers) =>
        writeHead.call(response, status, { ...headers, 'Cache-Control': caching });
    answer.call(site.server, request, response);
  });
  /** Leaves browsers that look for a new release waiting, until what it returns is called. */
  const silent = () => {
    /** @type {() => void} */
    let end = () => {};
    silence = new Promise((done) => (end = done));
    return end;
  };
  const mine = folder;
  t.after(async () => {
    await site.close();
    rmSync(mine, { recursive: true, force: true });
  });
  return { url: `${site.url}web/`, log, site, context, silent };
}

/** @param {Awaited<ReturnType<typeof host>>} at */
async function visit(at) {
  const page = await at.context.newPage();
  page.setDefaultTimeout(60_000);
  await page.goto(at.url);
  await page.waitForFunction(() => crossOriginIsolated, { timeout: 30_000 });
  await modelReady(page);
  return page;
}

/** Until the service worker of the newest release has all of it. @param {Page} page */
const settled = (page) =>
  page.evaluate(async () => {
    const registration = await navigator.serviceWorker.ready;
    while (registration.installing) await new Promise((done) => setTimeout(done, 50));
  });

/**
 * A new release on the host.
 * @param {string} title
 */
function publish(title) {
  const file = join(folder, 'web', 'index.html');
  writeFileSync(file, readFileSync(file, 'utf8').replace(/<title>.*?</, `<title>${title}<`));
  writePrecache(join(folder, 'web'));
}

both(
  'a second visit asks the host for nothing at all, and then works without it',
  async ({ t, context }) => {
    const at = await host(t, context, 'max-age=600');
    const first = await visit(at);
    await settled(first);
    await first.close();
    at.log.length = 0;
    const second = await visit(at);
    assert.ok((await askOnPage(second, 'How many shapes are there?', { file: SHAPES })).length > 0);
    const stats = await second.evaluate(() => /** @type {any} */ (globalThis).pocketvl.stats);
    assert.equal(stats.tiles > 0, true);
    await second.reload();
    await modelReady(second);
    assert.deepEqual(at.log, []);
    await second.close();
    await at.site.close();
    const third = await visit(at);
    assert.ok((await askOnPage(third, 'How many shapes are there?', { file: SHAPES })).length > 0);
  },
);

both(
  'where the host isolates the page, the service worker comes after the model, and serves all the same',
  async ({ t, context }) => {
    const site = await serve({ port: 0, folder: join(folder, 'web'), isolate: true });
    t.after(() => site.close());
    const page = await context.newPage();
    await page.evaluateOnNewDocument(() => {
      const { register } = ServiceWorkerContainer.prototype;
      ServiceWorkerContainer.prototype.register = function (
        /** @type {string | URL} */ script,
        /** @type {RegistrationOptions | undefined} */ options,
      ) {
        const status = document.querySelector('#status-dot')?.className;
        Object.assign(globalThis, { registeredAt: status });
        return register.call(this, script, options);
      };
    });
    await page.goto(site.url);
    await page.waitForFunction(() => 'registeredAt' in globalThis, { timeout: 60_000 });
    const at = await page.evaluate(() => /** @type {any} */ (globalThis).registeredAt);
    assert.equal(at, 'dot ready');
    await settled(page);
    await page.close();
    await site.close();
    const later = await context.newPage();
    await later.goto(site.url);
    await modelReady(later);
    assert.ok((await askOnPage(later, 'How many shapes are there?', { file: SHAPES })).length > 0);
  },
);

both(
  'where the host forbids caching, the browser looks for a new release, and that is all',
  async ({ t, context }) => {
    const at = await host(t, context);
    const first = await visit(at);
    await settled(first);
    await first.close();
    at.log.length = 0;
    const second = await visit(at);
    assert.ok((await askOnPage(second, 'How many shapes are there?', { file: SHAPES })).length > 0);
    assert.deepEqual(
      at.log.filter((path) => !LOOKS.includes(path)),
      [],
    );
  },
);

both(
  'a new release: fetched behind a visit, shown as a whole at the next',
  async ({ t, context }) => {
    const at = await host(t, context);
    let page = await visit(at);
    await settled(page);
    // Browsers look a moment after a page is there, which may be after the next line.
    const heard = at.silent();
    publish('Second release');
    await page.close();
    page = await visit(at);
    assert.equal(await page.title(), 'PocketVL', 'this visit is still the old release');
    heard();
    const update = () =>
      page.evaluate(async () => {
        const registration = await navigator.serviceWorker.ready;
        await registration.update();
        while (registration.installing) await new Promise((done) => setTimeout(done, 50));
        return registration.waiting !== null;
      });
    assert.equal(await update(), true, 'the new release waits');
    // Another tab of the old release keeps it; alone, a reload is enough.
    const other = await visit(at);
    assert.equal(await other.title(), 'PocketVL');
    await other.close();
    await page.evaluate(() => location.reload());
    await page.waitForFunction(() => document.title === 'Second release', { timeout: 30_000 });
    await modelReady(page);
    // And when all tabs were closed meanwhile, the next visit has it from its first moment.
    publish('Third release');
    assert.equal(await update(), true);
    await page.close();
    await new Promise((done) => setTimeout(done, 500));
    page = await visit(at);
    await page.waitForFunction(() => document.title === 'Third release', { timeout: 30_000 });
    await modelReady(page);
  },
);

both(
  'a host in the middle of an upload: what does not belong together is not kept',
  async ({ t, context }) => {
    const file = join(folder, 'web', 'page', 'strings.js');
    writeFileSync(file, `${readFileSync(file, 'utf8')}// already the next release\n`);
    const at = await host(t, context);
    const page = await visit(at);
    await settled(page);
    const kept = await page.evaluate(async () => {
      const names = (await caches.keys()).filter((name) =>
        /^pocketvl-page .* [0-9a-f]+$/.test(name),
      );
      const cache = await caches.open(names[0]);
      return (await cache.keys()).map(({ url }) => new URL(url).pathname);
    });
    assert.ok(kept.includes('/web/app.js'), kept.join(' '));
    assert.ok(!kept.includes('/web/page/strings.js'));
    await page.close();
    at.log.length = 0;
    await visit(at);
    assert.ok(at.log.includes('/page/strings.js'), 'the host is asked for that file');
    assert.ok(!at.log.includes('/app.js'));
  },
);
