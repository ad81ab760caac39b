// The npm package as a developer meets it: packed, installed in a folder of its own, used with bundlers, without one,
// in Node.js and from TypeScript. The applications are the ones of web/examples, and each has to answer.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build, createServer } from 'vite';
import { PocketVL, picture } from '../../web/lib/node/index.js';
import { serve } from '../../web/serve.mjs';
import { chromium } from './browser.mjs';
import { plainServer } from './plain.mjs';

const root = fileURLToPath(new URL('../..', import.meta.url));
const examples = join(root, 'web', 'examples');
const PICTURE = join(root, 'web', 'samples', 'three.jpg');
const QUESTION = 'How many shapes are there?';
const work = mkdtempSync(join(tmpdir(), 'pocketvl-package-'));
/** A developer's project: the package installed, the model published beside. */
const app = join(work, 'app');
/** @type {import('puppeteer-core').Browser} */
let browser;
/** What the library answers to the question about the picture. */
let truth = '';
/** @type {{path: string, size: number}[]} */
let packed = [];

const npm = (/** @type {string[]} */ args, /** @type {string} */ cwd) =>
  execFileSync('npm', args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, npm_config_loglevel: 'error' },
  });

before(async () => {
  const [report] = JSON.parse(npm(['pack', '--json', '--pack-destination', work], root));
  packed = report.files;
  mkdirSync(app);
  writeFileSync(join(app, 'package.json'), '{ "private": true, "type": "module" }\n');
  npm(['install', '--ignore-scripts', '--offline', join(work, report.filename)], app);
  cpSync(join(root, 'web/models'), join(app, 'models'), { recursive: true });
  mkdirSync(join(app, 'public'));
  symlinkSync('../models', join(app, 'public/models'));
  for (const name of ['page', 'react', 'captions']) {
    cpSync(join(examples, name), join(app, name), { recursive: true });
  }
  // What a developer of such an application has installed, too.
  for (const name of [
    'react',
    'react-dom',
    'scheduler',
    '@types/react',
    '@types/node',
    'csstype',
    'undici-types',
  ]) {
    mkdirSync(join(app, 'node_modules', name, '..'), { recursive: true });
    symlinkSync(join(root, 'node_modules', name), join(app, 'node_modules', name));
  }
  const vl = await PocketVL.load(join(root, 'web/models/demo'), { threads: 1 });
  const content = [
    { type: 'image', image: await picture(PICTURE) },
    { type: 'text', text: QUESTION },
  ];
  truth = await vl.chat(/** @type {any} */ ([{ role: 'user', content }])).text();
  vl.dispose();
  assert.ok(truth.length > 0);
  browser = await chromium();
});

after(async () => {
  await browser?.close();
  rmSync(work, { recursive: true, force: true });
});

/**
 * Opens the ten-line page, gives it the picture and reads what it answers.
 * @param {string} url
 * @returns {Promise<{text: string, isolated: boolean}>}
 */
async function ask(url) {
  const page = await browser.newPage();
  /** @type {string[]} */
  const troubles = [];
  page.on('pageerror', (error) => troubles.push(String(error)));
  try {
    await page.goto(url);
    await page
      .waitForFunction(
        () => document.querySelector('output')?.textContent === 'Choose a picture.',
        { timeout: 60_000 },
      )
      .catch((error) => assert.fail(`${error.message} ${troubles.join(' ')}`));
    const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
      await page.$('input')
    );
    await input.uploadFile(PICTURE);
    await page.waitForFunction(
      (text) => document.querySelector('output')?.textContent === text,
      { timeout: 60_000 },
      truth,
    );
    assert.deepEqual(troubles, []);
    return await page.evaluate(() => ({
      text: document.querySelector('output')?.textContent ?? '',
      isolated: crossOriginIsolated,
    }));
  } finally {
    await page.close();
  }
}

/** Asks on a site that sends the isolation headers and on one that sends none: with threads and without. */
async function askTwice(/** @type {string} */ folder) {
  const site = await serve({ folder, port: 0, isolate: true });
  const plain = await plainServer(folder, { path: '/some/where/' });
  try {
    assert.equal((await ask(site.url)).isolated, true);
    assert.equal((await ask(plain.url)).isolated, false);
    assert.deepEqual(
      plain.log.filter(({ status, path }) => status !== 200 && !path.endsWith('favicon.ico')),
      [],
    );
  } finally {
    await site.close();
    await plain.close();
  }
}

test('the tarball holds what is needed and nothing else', () => {
  const names = packed.map(({ path }) => path);
  for (const name of [
    'LICENSE',
    'README.md',
    'web/lib/pocketvl.js',
    'web/lib/worker.js',
    'web/lib/node/worker.js',
  ]) {
    assert.ok(names.includes(name), name);
  }
  for (const variant of ['relaxed', 'simd']) {
    for (const end of ['js', 'wasm'])
      assert.ok(names.includes(`web/wasm/pocketvl-${variant}.${end}`));
  }
  // Types for every module, and no file of the page, the tests or the tools.
  for (const name of names.filter(
    (path) => /^web\/lib\/.*\.js$/.test(path) && !path.includes('/cli'),
  )) {
    assert.ok(names.includes(name.replace('web/lib', 'web/types').replace(/\.js$/, '.d.ts')), name);
  }
  const known =
    /^(LICENSE|README\.md|package\.json|web\/(README\.md|API\.md|licences\.txt|(lib|types|vendor|wasm)\/.*))$/;
  assert.deepEqual(
    names.filter((name) => !known.test(name)),
    [],
  );
  const size = packed.reduce((sum, file) => sum + file.size, 0);
  assert.ok(size < 2e6, `${size} bytes`);
});

test('nothing is installed beside it, and the page thread loads no other package', () => {
  const installed = JSON.parse(
    readFileSync(join(app, 'node_modules/pocketvl/package.json'), 'utf8'),
  );
  assert.deepEqual(installed.dependencies ?? {}, {});
  const seen = new Set();
  const visit = (/** @type {string} */ file) => {
    if (seen.has(file)) return;
    seen.add(file);
    const text = readFileSync(file, 'utf8');
    for (const [, name] of text.matchAll(/^(?:import|export)\b[^;]*?from '([^']+)'/gms)) {
      assert.match(name, /^\.\.?\//, `${file} imports ${name}`);
      visit(join(file, '..', name));
    }
  };
  visit(join(app, 'node_modules/pocketvl/web/lib/pocketvl.js'));
  assert.ok(seen.size > 4);
  for (const file of seen) assert.ok(!/vendor|service|runtime|store/.test(file), file);
});

test('Vite, without any setting: the ten-line page answers, isolated and not', async () => {
  const outDir = join(work, 'vite');
  await build({ root: join(app, 'page'), publicDir: join(app, 'public'), base: './', configFile: false, logLevel: 'error', build: { outDir, emptyOutDir: true } }); // prettier-ignore
  const scripts = readdirSync(join(outDir, 'assets')).filter((name) => /^index-.*\.js$/.test(name));
  assert.equal(scripts.length, 1);
  assert.ok(
    statSync(join(outDir, 'assets', scripts[0])).size < 40_000,
    'the page thread pays for more than the library',
  );
  await askTwice(outDir);
});

test("Vite's development server", async () => {
  const server = await createServer({
    root: join(app, 'page'),
    publicDir: join(app, 'public'),
    configFile: false,
    logLevel: 'error',
    cacheDir: join(work, 'vite-cache'),
    server: { port: 0, host: 'localhost', fs: { allow: [app] } },
    optimizeDeps: { exclude: ['pocketvl'] },
  });
  await server.listen();
  try {
    await ask(/** @type {any} */ (server.resolvedUrls).local[0]);
  } finally {
    await server.close();
  }
});

test('webpack, without any setting: the ten-line page answers, isolated and not', async () => {
  const webpack = createRequire(import.meta.url)('webpack');
  const path = join(work, 'webpack');
  const compiler = webpack({
    mode: 'production',
    context: join(app, 'page'),
    entry: './main.js',
    output: { path },
    performance: false,
  });
  const stats = await new Promise((done, fail) =>
    compiler.run((/** @type {Error | null} */ error, /** @type {any} */ result) =>
      error ? fail(error) : done(result),
    ),
  );
  await new Promise((done) => compiler.close(done));
  assert.ok(!stats.hasErrors() && !stats.hasWarnings(), stats.toString());
  cpSync(join(app, 'models'), join(path, 'models'), { recursive: true });
  writeFileSync(join(path, 'index.html'), '<!doctype html><title>w</title><input type="file"><output></output><script type="module" src="main.js"></script>'); // prettier-ignore
  await askTwice(path);
});

test('no bundler: an import map and <script type="module">', async () => {
  const folder = join(work, 'plain');
  cpSync(join(app, 'page'), folder, { recursive: true });
  cpSync(join(app, 'models'), join(folder, 'models'), { recursive: true });
  cpSync(join(app, 'node_modules/pocketvl'), join(folder, 'node_modules/pocketvl'), {
    recursive: true,
  });
  await askTwice(folder);
});

test('the React component answers', async () => {
  const outDir = join(work, 'react');
  await build({ root: join(app, 'react'), publicDir: join(app, 'public'), base: './', configFile: false, logLevel: 'error', esbuild: { jsx: 'automatic' }, build: { outDir, emptyOutDir: true } }); // prettier-ignore
  const site = await serve({ folder: outDir, port: 0, isolate: true });
  const page = await browser.newPage();
  try {
    await page.goto(site.url);
    await page.waitForFunction(() => document.querySelector('[role=status]')?.textContent === '', {
      timeout: 60_000,
    });
    const input = /** @type {import('puppeteer-core').ElementHandle<HTMLInputElement>} */ (
      await page.$('input[type=file]')
    );
    await input.uploadFile(PICTURE);
    await page.waitForSelector('form > button:not([disabled])');
    await page.click('form > button');
    await page.waitForFunction(
      (text) => document.querySelector('[aria-live]')?.textContent === text,
      { timeout: 60_000 },
      truth,
    );
  } finally {
    await page.close();
    await site.close();
  }
});

test('Node.js: a folder of pictures is captioned; a bad one costs only itself', () => {
  const folder = join(work, 'pictures');
  mkdirSync(folder);
  for (const name of ['one.jpg', 'three.jpg'])
    cpSync(join(root, 'web/samples', name), join(folder, name));
  writeFileSync(join(folder, 'not-a-picture.png'), 'hello');
  writeFileSync(join(folder, 'notes.txt'), 'hello');
  const done = spawnSync(process.execPath, ['captions/captions.mjs', folder, 'models/demo'], { cwd: app, encoding: 'utf8', timeout: 120_000 }); // prettier-ignore
  const lines = done.stdout
    .trim()
    .split('\n')
    .map((line) => line.split('\t'));
  assert.deepEqual(
    lines.map(([name]) => name),
    ['one.jpg', 'three.jpg'],
    done.stderr,
  );
  for (const [, caption] of lines) assert.ok(caption.length > 5, caption);
  assert.match(done.stderr, /^not-a-picture\.png: This file is not a picture/m);
  assert.equal(done.status, 1);
});

test('TypeScript: strict, with both ways of resolving, libraries checked too', () => {
  const source = `
import { PocketVL, PocketVLError, parseBoxes, type Message, type Box } from 'pocketvl';
const controller = new AbortController();
const vl = await PocketVL.load('models/demo/manifest.json', { signal: controller.signal, onProgress: (p) => console.log(p.loaded.toFixed()) });
const messages: Message[] = [{ role: 'user', content: [{ type: 'image', image: new Blob() }, { type: 'text', text: 'What?' }] }];
const answer = vl.chat(messages, { maxTokens: 4, stop: ['.'], seed: 1, signal: controller.signal });
for await (const piece of answer) console.log(piece.toUpperCase());
const boxes: Box[] = answer.boxes;
const tokens: number = answer.stats!.generatedTokens;
const name: string = vl.info.name;
console.log(boxes, tokens, name, parseBoxes('').length);
try { await vl.tokenize('x'); } catch (error) { if (error instanceof PocketVLError && error.code === 'STATE') throw error; }
// @ts-expect-error a role that does not exist
vl.chat([{ role: 'robot', content: 'x' }]);
// @ts-expect-error an option of the wrong type
vl.chat('x', { maxTokens: 'many' });
`;
  writeFileSync(join(app, 'app.ts'), source);
  writeFileSync(join(app, 'app-node.ts'), `import { PocketVL, picture } from 'pocketvl';\nconst image: Blob = await picture('a.jpg');\nconsole.log(image, PocketVL);\n`); // prettier-ignore
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const common = [
    '--noEmit',
    '--strict',
    '--target',
    'ES2022',
    '--lib',
    'ES2023,DOM,DOM.Iterable,DOM.AsyncIterable',
  ];
  for (const args of [
    ['app.ts', '--module', 'ESNext', '--moduleResolution', 'bundler'],
    [
      'app.ts',
      'app-node.ts',
      '--module',
      'NodeNext',
      '--moduleResolution',
      'NodeNext',
      '--types',
      'node',
    ],
  ]) {
    const done = spawnSync(process.execPath, [tsc, ...common, ...args], {
      cwd: app,
      encoding: 'utf8',
    });
    assert.equal(done.stdout, '', args.join(' '));
    assert.equal(done.status, 0);
  }
});
