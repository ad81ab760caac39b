// Words from strangers (models, file names, manifests, addresses, kept conversations) cannot become markup or script:
// a corpus of the ways in which they try, through every door of the page. Nothing may run, and no element may appear that
// the page does not make itself.
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import { serve } from '../../web/serve.mjs';
import { askOnPage, modelReady } from './browser.mjs';
import {
  answerWith,
  answered,
  give,
  inBrowsers,
  isolated,
  openSettings,
  siteWith,
} from './pages.mjs';

const CORPUS = [
  '<script>globalThis.hit=1</script>',
  '<img src=x onerror="globalThis.hit=1">',
  '<svg onload=globalThis.hit=1>',
  '<svg><script>globalThis.hit=1</script></svg>',
  '<svg><animate onbegin=globalThis.hit=1 attributeName=x dur=1s>',
  '<iframe src="javascript:parent.hit=1"></iframe>',
  '<iframe srcdoc="<script>parent.hit=1</script>">',
  '<a href="javascript:globalThis.hit=1" autofocus onfocus=globalThis.hit=1>x</a>',
  '[click](javascript:globalThis.hit=1)',
  '[click]( javascript&#58;globalThis.hit=1 "t")',
  '![x](x" onerror="globalThis.hit=1)',
  '![x](https://evil.example/pixel.png)',
  '<https://evil.example/>',
  '[ref]: javascript:globalThis.hit=1\n[ref]',
  '`<img src=x onerror=globalThis.hit=1>`',
  '```html\n<script>globalThis.hit=1</script>\n```',
  '```"><img src=x onerror=globalThis.hit=1>\nx\n```',
  '**<b onmouseover=globalThis.hit=1>bold</b>**',
  '# <style>@import "https://evil.example/x.css";</style>',
  '- <details open ontoggle=globalThis.hit=1>',
  '1. <input autofocus onfocus=globalThis.hit=1>',
  '<body onload=globalThis.hit=1>',
  '<math><mtext><table><mglyph><style><img src=x onerror=globalThis.hit=1>',
  '<noscript><p title="</noscript><img src=x onerror=globalThis.hit=1>">',
  '<template><script>globalThis.hit=1</script></template>',
  '<form action="https://evil.example"><button>send</button></form>',
  '<base href="https://evil.example/">',
  '<meta http-equiv="refresh" content="0;url=https://evil.example/">',
  '<link rel=stylesheet href="https://evil.example/x.css">',
  '<object data="data:text/html,<script>parent.hit=1</script>"></object>',
  '&lt;script&gt;globalThis.hit=1&lt;/script&gt;',
  '\u0000<scr\u0000ipt>globalThis.hit=1</script>',
  '<ref><img src=x onerror=globalThis.hit=1></ref><box>[[1,2,300,400]]</box>',
  '<ref>"><script>globalThis.hit=1</script></ref><box>[[10,20,700,800]]</box>',
  '<box>[[1,2,300,400]]<script>globalThis.hit=1</script></box>',
  "';globalThis.hit=1;//",
  '{{constructor.constructor("globalThis.hit=1")()}}',
  '${globalThis.hit=1}',
  '\u202Egnp.exe <img src=x onerror=globalThis.hit=1>',
];

/** Elements that an answer may consist of, all without attributes. */
const ALLOWED = ['P', 'BR', 'CODE', 'PRE', 'STRONG', 'EM', 'UL', 'OL', 'LI', 'H3'];

/** @typedef {import('puppeteer-core').Page} Page */

/** @type {Awaited<ReturnType<typeof serve>>} */
let site;
const evil = CORPUS.filter((text) => text.startsWith('<')).join(' ');
/** The page with a model whose manifest is the corpus. @type {Awaited<ReturnType<typeof siteWith>>} */
let hostile;

before(async () => {
  site = await serve({ port: 0 });
  hostile = await siteWith((manifest) => {
    manifest.title = evil;
    manifest.name = evil;
    manifest.license = evil;
    manifest.template = 'hermes-2';
  });
});
after(async () => {
  await site?.close();
  await hostile?.close();
});

const both = inBrowsers();

/** Writes down what the page tries; from before its first script. @param {Page} page */
async function watch(page) {
  await page.evaluateOnNewDocument(() => {
    const seen = /** @type {any} */ (globalThis);
    seen.tried = [];
    document.addEventListener('securitypolicyviolation', (event) =>
      seen.tried.push(`${event.violatedDirective} ${event.blockedURI}`),
    );
  });
  page.on('dialog', (dialog) => void dialog.dismiss());
}

/** Nothing ran, nothing was tried, nothing strange is in the page. @param {Page} page @param {string} where */
async function clean(page, where) {
  const found = await page.evaluate(() => {
    const strange =
      'iframe,object,embed,base,form:not(#composer,#settings form,#camera-dialog form),svg script,style,template,math,a:not(.skip),link:not(head link),meta:not(head meta)';
    const handlers = [...document.querySelectorAll('*')].flatMap((e) =>
      e.getAttributeNames().filter((n) => n.startsWith('on')),
    );
    const images = [...document.images]
      .map((i) => i.src)
      .filter((src) => !/^blob:|\/samples\//.test(src));
    return {
      hit: /** @type {any} */ (globalThis).hit ?? 0,
      tried: /** @type {any} */ (globalThis).tried,
      strange: [...document.querySelectorAll(strange)].map((e) => e.outerHTML.slice(0, 200)),
      scripts: document.scripts.length,
      handlers,
      images,
    };
  });
  assert.deepEqual(
    found,
    { hit: 0, tried: [], strange: [], scripts: 2, handlers: [], images: [] },
    where,
  );
}

both(
  'answers: only the elements of the renderer, with nothing on them, and the text whole',
  async ({ context }) => {
    const page = await context.newPage();
    await watch(page);
    await page.goto(site.url);
    await isolated(page);
    await modelReady(page);
    const results = await page.evaluate(async (corpus) => {
      const { markdown } = await import(/** @type {any} */ ('/page/markdown.js'));
      return corpus.map((text) => {
        // Streamed: every beginning of it is drawn once.
        const cuts = Array.from({ length: text.length }, (_, i) => text.slice(0, i + 1));
        const elements = new Set();
        const attributes = new Set();
        let words = '';
        for (const cut of cuts) {
          const box = document.createElement('div');
          box.append(markdown(cut));
          document.body.append(box);
          for (const e of box.querySelectorAll('*')) {
            elements.add(e.tagName);
            for (const name of e.getAttributeNames()) attributes.add(name);
          }
          words = box.textContent ?? '';
          box.remove();
        }
        return { text, elements: [...elements], attributes: [...attributes], words };
      });
    }, CORPUS);
    for (const { text, elements, attributes, words } of results) {
      assert.deepEqual(
        elements.filter((name) => !ALLOWED.includes(name)),
        [],
        text,
      );
      assert.deepEqual(attributes, [], text);
      // What stands behind the mark of a code block names its language.
      if (text.includes('hit') && !text.startsWith('```'))
        assert.ok(words.includes('hit'), `the words are shown: ${text}`);
    }
    await clean(page, 'renderer');
  },
);

both(
  'through the whole page: answers, boxes, questions, file names, the export, a reload',
  async ({ context }) => {
    const page = await context.newPage();
    page.setDefaultTimeout(60_000);
    await watch(page);
    await page.goto(site.url);
    await isolated(page);
    await modelReady(page);
    await answerWith(
      page,
      CORPUS.map((text) => `${text}\n\n`),
    );
    // Names of files, all of the corpus in eights, as a drop gives them.
    for (let i = 0; i < CORPUS.length; i += 8) {
      const names = CORPUS.slice(i, i + 7);
      await give(page, 'drop', [
        ...names.map((name) => ({ name, from: 'samples/one.jpg' })),
        { name: `${names[0]}.png`, type: 'image/png', text: 'no picture' },
      ]);
      await page.waitForSelector('#pictures li');
      await page.$eval(
        '#question',
        (box, text) => {
          /** @type {HTMLTextAreaElement} */ (box).value = text;
        },
        CORPUS.slice(i, i + 8).join('\n'),
      );
      await page.focus('#question');
      await page.keyboard.press('Enter');
      await answered(page);
      await page.click('.turn:last-of-type .figures summary');
      await page.waitForSelector('.turn:last-of-type .seen');
    }
    await clean(page, 'conversation');
    const elements = await page.$$eval('.words *', (list) => [
      ...new Set(list.flatMap((e) => [e.tagName, ...e.getAttributeNames()])),
    ]);
    assert.deepEqual(
      elements.filter((name) => !ALLOWED.includes(name)),
      [],
    );
    const labels = await page.$$eval('.box', (boxes) =>
      boxes.map((box) => box.querySelectorAll('span *').length),
    );
    assert.ok(labels.length > 0 && labels.every((n) => n === 0), 'labels are words');
    const markdown = await page.evaluate(async () => {
      const { toMarkdown } = await import(/** @type {any} */ ('/page/export.js'));
      const kept = JSON.parse(
        Object.entries(localStorage).find(([key]) => key.startsWith('pocketvl-chat:'))?.[1] ?? '',
      );
      return toMarkdown(kept.turns, '<script>hit=1</script>');
    });
    const outside = markdown.replace(/```[\s\S]*?(?:```|$)|`[^`\n]*`/g, '');
    assert.doesNotMatch(outside, /(^|[^\\])<\w/, 'no HTML in the saved file');
    assert.doesNotMatch(outside, /(^|[^\\])\]\(/, 'no links in it');
    await page.evaluate(() => location.reload());
    await isolated(page);
    await page.waitForSelector('.turn');
    await modelReady(page);
    await clean(page, 'after a reload');
  },
);

both('manifests, addresses and what else is kept', async ({ context }) => {
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  await watch(page);
  await page.goto(hostile.url);
  await isolated(page);
  await modelReady(page);
  await openSettings(page);
  assert.ok((await page.$eval('#models', (list) => list.textContent ?? '')).includes('<script>'));
  await clean(page, 'manifest');
  for (const address of [
    'javascript:globalThis.hit=1',
    'data:text/html,<script>globalThis.hit=1</script>',
    'blob:https://evil.example/1',
    'file:///etc/passwd',
    'https://evil.example/"><script>hit=1</script>/manifest.json',
    'nothing-here/<img src=x onerror=hit=1>.json',
    '//evil.example/<svg onload=hit=1>',
  ]) {
    if (!(await page.$('#settings[open]'))) await openSettings(page);
    await page.$eval(
      '#model-url',
      (input, text) => {
        /** @type {HTMLInputElement} */ (input).value = text;
      },
      address,
    );
    await page.click('#load-url');
    await page.waitForFunction(() => document.querySelector('#host-dialog[open], #notices > *'));
    await clean(page, address);
    if (await page.$('#host-dialog[open]')) await page.click('#host-cancel');
    await page.evaluate(() => {
      document.querySelector('#notices')?.replaceChildren();
    });
  }
  // Kept by another version, or by someone who could write there.
  await page.evaluate((text) => {
    localStorage.setItem(
      'pocketvl-settings',
      JSON.stringify({ language: text, detail: text, model: text, rates: { a: text } }),
    );
    const turn = {
      question: text,
      answer: text,
      shots: [{ key: text, name: text }],
      state: text,
      stats: { tiles: text, generatedTokens: text },
      pictures: [
        { width: text, height: text, tiling: { columns: 2, rows: 2, tiles: 5, tokens: 9 } },
      ],
      model: text,
      build: text,
      threads: text,
    };
    sessionStorage.setItem('pocketvl-chat', 'x');
    localStorage.setItem('pocketvl-chat:x', JSON.stringify({ id: 'x', time: 1, turns: [turn] }));
  }, evil);
  await page.evaluate(() => location.reload());
  await isolated(page);
  await page.waitForSelector('.turn');
  await page.waitForFunction(() => document.querySelector('#status-dot.ready'));
  await clean(page, 'kept words');
});

both('a model’s file is as little to be trusted as its manifest', async ({ open }) => {
  const page = await open(site.url);
  const name = '<img src=x onerror=globalThis.hit=1>.gguf';
  await give(page, 'drop', [{ name, type: '', text: 'GGUF<script>globalThis.hit=1</script>' }]);
  await page.waitForSelector('#notices .error');
  assert.equal(await page.evaluate(() => /** @type {any} */ (globalThis).hit), undefined);
  assert.equal(await page.$('#notices img'), null);
  // The step offered brings the page's own model back.
  await page.click('#notices .error button');
  await modelReady(page);
  assert.ok((await askOnPage(page, 'What can you do?')).length > 0);
});
