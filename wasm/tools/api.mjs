// web/API.md: the reference of the library, made by TypeDoc from the JSDoc of web/lib.
//
//   node wasm/tools/api.mjs
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { OptionDefaults } from 'typedoc';
import { vendor } from './build.mjs';
import { setup } from './setup.mjs';
import { isMain, main, root, run, say } from './shell.mjs';

export const apiFile = join(root, 'web', 'API.md');

const OPTIONS = {
  plugin: ['typedoc-plugin-markdown'],
  blockTags: [...OptionDefaults.blockTags, '@implements'],
  excludeTags: [...OptionDefaults.excludeTags, '@implements'],
  entryPoints: ['web/lib/pocketvl.js'],
  tsconfig: 'web/lib/tsconfig.json',
  name: 'pocketvl',
  readme: 'none',
  router: 'module',
  entryFileName: 'API',
  disableSources: true,
  excludeInternal: true,
  excludeExternals: true,
  hideBreadcrumbs: true,
  hidePageHeader: true,
  useCodeBlocks: true,
  parametersFormat: 'table',
  interfacePropertiesFormat: 'table',
  typeAliasPropertiesFormat: 'table',
  sort: ['kind', 'static-first', 'alphabetical'],
  gitRevision: 'main',
  treatWarningsAsErrors: true,
  validation: { notExported: false, invalidLink: true, notDocumented: false },
};

/** The reference as text. */
export async function reference() {
  vendor();
  const folder = mkdtempSync(join(tmpdir(), 'pocketvl-api-'));
  try {
    const file = join(folder, 'typedoc.json');
    writeFileSync(file, JSON.stringify({ ...OPTIONS, entryPoints: OPTIONS.entryPoints.map((name) => join(root, name)), tsconfig: join(root, OPTIONS.tsconfig), basePath: root, out: folder })); // prettier-ignore
    const typedoc = join(root, 'node_modules/typedoc/bin/typedoc');
    await run(process.execPath, [typedoc, '--options', file], {
      what: 'Making the reference (TypeDoc)',
    });
    const text = readFileSync(join(folder, 'API.md'), 'utf8').trimEnd();
    return `<!-- Made by \`npm run api\` from the comments of web/lib. -->\n\n${text}\n`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (isMain(import.meta.url)) {
  await main(async () => {
    await setup(['page']);
    writeFileSync(apiFile, await reference());
    say('[pocketvl] web/API.md is made.');
  });
}
