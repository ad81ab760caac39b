// `npm run icons`: the PNG icons of the installed page, drawn from web/icon.svg.
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { chromium } from './browser.mjs';

const web = fileURLToPath(new URL('../../web', import.meta.url));
const folder = join(web, 'icons');
const svg = readFileSync(join(web, 'icon.svg'), 'utf8');
const GROUND = '#f6f5f1';

/** Names with their side, and how much of it the drawing takes: systems cut the edges of some icons off. */
const ICONS = /** @type {const} */ ([
  ['any-192', 192, 1, 'transparent'],
  ['any-512', 512, 1, 'transparent'],
  ['maskable-512', 512, 0.8, GROUND],
  ['apple-180', 180, 0.9, GROUND],
]);

mkdirSync(folder, { recursive: true });
const browser = await chromium({ args: ['--force-device-scale-factor=1'] });
try {
  const page = await browser.newPage();
  for (const [name, side, part, ground] of ICONS) {
    await page.setViewport({ width: side, height: side });
    const image = `data:image/svg+xml;base64,${Buffer.from(svg).toString('base64')}`;
    await page.setContent(
      `<body style="margin:0;display:grid;place-items:center;height:100vh;background:${ground}">` +
        `<img src="${image}" style="width:${100 * part}vw">`,
    );
    const path = /** @type {`${string}.png`} */ (join(folder, `${name}.png`));
    await page.screenshot({ path, omitBackground: true });
    console.log(path);
  }
} finally {
  await browser.close();
}
