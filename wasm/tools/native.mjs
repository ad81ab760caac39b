// The native command line tool, built when it is needed.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { build, buildFolder } from './build.mjs';
import { setup } from './setup.mjs';
import { Trouble, root } from './shell.mjs';

/** The model that comes with the repository. */
export const demoModel = join(root, 'web', 'models', 'demo', 'pocketvl-demo.gguf');

/** Path of the command line tool, after setting up and building what is needed for it. */
export async function commandLineTool() {
  await build(['native'], await setup(['native']));
  const tool = join(buildFolder('native'), 'pocketvl');
  if (!existsSync(tool))
    throw new Trouble('The build made no command line tool: is src/tools/pocketvl.c there?');
  return tool;
}
