// Models of the Hugging Face hub by the addresses that people paste. The hub is a server of the test's own that does what
// the real one does: it lists a repository, and hands downloads on to another host. Browsers reach it under the real names
// through a proxy of the test's own, so that the page's policy is held against those names.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, beforeEach } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { askOnPage, modelReady } from './browser.mjs';
import { certificateFor } from './certificate.mjs';
import { inBrowsers, isolated, lessPatience, openSettings, reload, sample, web } from './pages.mjs';

const HUB = 'huggingface.co';
const STORE = 'cas-bridge.xethub.hf.co';
const ELSEWHERE = 'elsewhere.example';
const MODEL = readFileSync(join(web, 'models/demo/pocketvl-demo.gguf'));

/** What each repository holds, and which host its files come from. */
const REPOSITORIES = /** @type {Record<string, {files: string[], from: string}>} */ ({
  'owner/name-GGUF': { files: ['README.md', 'name-f16.gguf', 'name-Q8_0.gguf'], from: STORE },
  'owner/far-GGUF': { files: ['far.gguf'], from: ELSEWHERE },
  'owner/plain': { files: ['README.md', 'model.safetensors'], from: STORE },
});

/** Requests as `host path`. @type {string[]} */
const asked = [];

/** @type {import('node:http').RequestListener} */
function answer(request, response) {
  const host = String(request.headers.host).split(':')[0];
  const path = String(request.url).split('?')[0];
  const cors = {
    'Access-Control-Allow-Origin': request.headers.origin ?? '*',
    'Access-Control-Allow-Headers': 'range',
    'Access-Control-Expose-Headers': 'content-range',
  };
  asked.push(`${host} ${path}`);
  if (request.method === 'OPTIONS') return void response.writeHead(204, cors).end();
  const about = /^\/api\/models\/(.+)\/revision\/main$/.exec(path);
  const file = /^\/([^/]+\/[^/]+)\/resolve\/main\/(.+)$/.exec(path);
  const repository = REPOSITORIES[about?.[1] ?? file?.[1] ?? ''];
  if (host === HUB && about && repository) {
    const siblings = repository.files.map((rfilename) => ({ rfilename }));
    return void response.writeHead(200, cors).end(JSON.stringify({ siblings }));
  }
  if (host === HUB && file && repository?.files.includes(file[2])) {
    const Location = `https://${repository.from}/${file[2]}?signed=1`;
    return void response.writeHead(302, { ...cors, Location }).end();
  }
  if (host === HUB) return void response.writeHead(404, cors).end();
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const [first, last] = range
    ? [Number(range[1]), Number(range[2] || MODEL.length - 1)]
    : [0, MODEL.length - 1];
  const part = MODEL.subarray(first, last + 1);
  const length = { ...cors, 'Content-Length': part.length };
  const headers = range
    ? { ...length, 'Content-Range': `bytes ${first}-${last}/${MODEL.length}` }
    : length;
  response.writeHead(range ? 206 : 200, headers).end(request.method === 'HEAD' ? '' : part);
}

/** @param {import('node:net').Server} server @returns {Promise<number>} its port */
const listening = (server) =>
  new Promise((done) =>
    server.listen(0, '127.0.0.1', () => {
      done(/** @type {import('node:net').AddressInfo} */ (server.address()).port);
    }),
  );

const hub = createSecureServer(certificateFor([HUB, STORE, ELSEWHERE]), answer);
const hubPort = await listening(hub);
/** Leads to the hub under its names; there is nothing else behind it. */
const proxy = createServer().on('connect', (request, client, head) => {
  client.on('error', () => {});
  if (![HUB, STORE, ELSEWHERE].includes(String(request.url).replace(/:443$/, '')))
    return void client.end('HTTP/1.1 502 Bad Gateway\r\n\r\n');
  const server = connect(hubPort, '127.0.0.1', () => {
    client.write('HTTP/1.1 200 Connection established\r\n\r\n');
    server.write(head);
    server.pipe(client).pipe(server);
  });
  server.on('error', () => client.destroy());
});
const both = inBrowsers({ proxy: await listening(proxy) });

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;

before(async () => {
  site = await serve({ port: 0 });
});
after(async () => {
  await site?.close();
  for (const server of [hub, proxy]) {
    server.close();
    server.closeAllConnections();
  }
});
beforeEach(() => {
  asked.length = 0;
});

/** Pastes an address and allows what the page asks. @param {import('puppeteer-core').Page} page @param {string} address */
async function openAndAllow(page, address) {
  await openSettings(page);
  await page.type('#model-url', address);
  await page.keyboard.press('Enter');
  await page.waitForSelector('#host-dialog[open]');
  const words = await page.$eval('#host-dialog', (dialog) => dialog.textContent ?? '');
  assert.ok(words.includes(`https://${HUB}`), words);
  assert.match(words, /other servers of hf\.co/);
  assert.deepEqual(asked, [], 'nothing was asked before the person said so');
  await page.evaluate(() => Object.assign(globalThis, { before: true }));
  await page.click('#host-allow');
  await page.waitForFunction(() => !('before' in globalThis));
  await isolated(page);
  await modelReady(page);
}

/** @param {import('puppeteer-core').Page} page */
const status = (page) => page.$eval('#status-text', (e) => e.textContent ?? '');

both(
  'a repository by its name: its best file, over the hub’s own redirect, and kept',
  async ({ open }) => {
    const page = await open(site.url);
    await openAndAllow(page, 'owner/name-GGUF');
    assert.equal(await status(page), 'Ready · name-Q8_0');
    assert.ok(asked.includes(`${HUB} /owner/name-GGUF/resolve/main/name-Q8_0.gguf`));
    assert.ok(asked.includes(`${STORE} /name-Q8_0.gguf`));
    assert.ok(!asked.some((line) => line.startsWith(ELSEWHERE)));
    assert.ok((await askOnPage(page, 'How many shapes?', { file: sample('shapes') })).length > 0);
    asked.length = 0;
    await reload(page);
    assert.equal(await status(page), 'Ready · name-Q8_0');
    assert.deepEqual(asked, [], 'the next visit has it in the browser and asks nobody');
    // What was allowed is these hosts and no other.
    const reaches = (/** @type {string} */ host) =>
      page.evaluate(
        (name) =>
          fetch(`https://${name}/x.gguf`).then(
            () => true,
            () => false,
          ),
        host,
      );
    assert.deepEqual([await reaches(STORE), await reaches(ELSEWHERE)], [true, false]);
  },
);

both('the page that shows a file is as good as the file', async ({ open }) => {
  const page = await open(site.url);
  await openAndAllow(page, `https://${HUB}/owner/name-GGUF/blob/main/name-f16.gguf`);
  assert.equal(await status(page), 'Ready · name-f16');
  assert.ok(
    asked.every((line) => line.endsWith('/name-f16.gguf')),
    asked.join('\n'),
  );
});

both(
  'a redirect to a host that was not allowed: refused, and said which host sent there',
  async ({ name, open }) => {
    const page = await open(site.url);
    await lessPatience(page);
    await openAndAllow(page, `hf.co/owner/far-GGUF/resolve/main/far.gguf`);
    assert.match(await status(page), /demonstration/);
    const words = await page.$eval('#notices', (e) => e.textContent ?? '');
    assert.match(words, /far\.gguf could not be loaded, so the demonstration model is in use/);
    // What refused it, Firefox does not tell a worker behind a service worker.
    assert.match(
      words,
      name === 'Chromium'
        ? /policy allows no connection to huggingface\.co, or to where it sends on/
        : /huggingface\.co sends on to another host, which .* content policy does not allow/,
    );
    assert.ok(asked.some((line) => line.startsWith(HUB)));
    assert.ok(!asked.some((line) => line.startsWith(ELSEWHERE)));
  },
);

for (const [name, words] of /** @type {const} */ ([
  ['owner/plain', /owner\/plain at https:\/\/huggingface\.co holds no GGUF file/],
  ['owner/nothing', /no open repository owner\/nothing \(HTTP 404\)/],
])) {
  both(`${name}: the page says what is wrong, and goes on with its own model`, async ({ open }) => {
    const page = await open(site.url);
    await openAndAllow(page, name);
    assert.match(await status(page), /demonstration/);
    assert.match(await page.$eval('#notices', (e) => e.textContent ?? ''), words);
    assert.ok((await askOnPage(page, 'What can you do?')).length > 0);
  });
}
