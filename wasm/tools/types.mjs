// The types of the package: web/types, made by the TypeScript compiler from the JSDoc of web/lib.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { newest, root, run } from './shell.mjs';
import { filesOf } from './site.mjs';

export async function makeTypes() {
  const out = join(root, 'web', 'types');
  const lib = join(root, 'web', 'lib');
  const sources = filesOf(lib).map((name) => join(lib, name));
  if (newest(sources) < newest([join(out, 'pocketvl.d.ts')])) return;
  rmSync(out, { recursive: true, force: true });
  const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  await run(process.execPath, [tsc, '-p', lib], { what: 'Making the types of the package (tsc)' });
}
