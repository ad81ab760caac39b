// The C programs that run kernels, as WebAssembly in Chromium: the engine that they are shipped for, with every kernel set.
// Node.js runs all the C programs, but its version 20 has a defect in the relaxed dot and passes that set over.
import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { serve } from '../../web/serve.mjs';
import { chromium } from '../web/browser.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const BUILT = 'build/wasm/tests-web.js';
const LIMIT = { timeout: 300_000 };

/** @type {import('puppeteer-core').Browser} */
let browser;
/** @type {Awaited<ReturnType<typeof serve>>} */
let site;

before(async () => {
  site = await serve({ port: 0, folder: root, isolate: true });
  browser = await chromium();
}, LIMIT);
after(async () => {
  await browser?.close();
  await site?.close();
}, LIMIT);

/**
 * @param {string} name of a program
 * @param {string[]} fixtures what it reads, from the root
 * @returns {Promise<{code: number, output: string}>}
 */
async function run(name, fixtures) {
  const page = await browser.newPage();
  page.setDefaultTimeout(LIMIT.timeout);
  await page.goto(`${site.url}web/icon.svg`); // a page of the origin with nothing on it
  const result = await page.evaluate(
    async (script, program, files) => {
      const contents = await Promise.all(
        files.map(async (path) => new Uint8Array(await (await fetch(`/${path}`)).arrayBuffer())),
      );
      return new Promise((done) => {
        let output = '';
        const say = (/** @type {string} */ line) => void (output += `${line}\n`);
        const put = () => {
          const { FS } = /** @type {any} */ (globalThis);
          for (const [i, path] of files.entries()) {
            FS.mkdirTree(path.slice(0, path.lastIndexOf('/')));
            FS.writeFile(path, contents[i]);
          }
        };
        const end = (/** @type {number} */ code) => done({ code, output });
        const failed = (/** @type {any} */ reason) => {
          say(String(reason));
          end(-1);
        };
        Object.assign(globalThis, {
          Module: {
            arguments: [program],
            print: say,
            printErr: say,
            preRun: [put],
            onExit: end,
            onAbort: failed,
          },
        });
        const element = document.createElementNS('http://www.w3.org/1999/xhtml', 'script');
        element.setAttribute('src', script);
        element.addEventListener('error', () => failed(`${script} did not load`));
        document.documentElement.append(element);
      });
    },
    `/${BUILT}`,
    name,
    fixtures,
  );
  await page.close();
  return /** @type {any} */ (result);
}

/** All that a folder of fixtures holds. @param {string} folder */
const held = (folder) => readdirSync(join(root, folder)).map((name) => `${folder}/${name}`);

for (const folder of ['kernels', 'model']) {
  const names = readdirSync(join(root, 'tests', folder)).filter((name) =>
    /^test_\w+\.c$/.test(name),
  );
  for (const source of names.sort()) {
    const name = source.replace('.c', '');
    test(`${folder}/${name}`, LIMIT, async () => {
      assert.ok(existsSync(join(root, BUILT)), 'build it: npm run build -- tests');
      const fixtures = [...held('tests/fixtures/model'), 'web/models/demo/pocketvl-demo.gguf'];
      const { code, output } = await run(name, folder === 'model' ? fixtures : []);
      const closing = /^(\d+) passed, (\d+) failed$/m.exec(output);
      assert.ok(closing && Number(closing[1]) > 0 && closing[2] === '0', output);
      assert.equal(code, 0, output);
      if (name === 'test_gemm') assert.match(output, /choose one of .*\brelaxed-dot\b/);
    });
  }
}
