// `npm run ask -- IMAGE "QUESTION"`: the answer on standard output, all else on standard error, from the page's
// WebAssembly in Node.js. Further options go to the package's command as they are; without -m the demonstration model answers.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { build } from './build.mjs';
import { setup } from './setup.mjs';
import { Trouble, main, root } from './shell.mjs';

await main(async () => {
  const args = process.argv.slice(2);
  if (args.length === 0) {
    throw new Trouble(
      'usage: npm run ask -- IMAGE "QUESTION" [-m MODEL] [other options; -h lists them]',
    );
  }
  await build(['page'], await setup(['page']));
  const command = join(root, 'web', 'lib', 'node', 'cli', 'main.js');
  const named = args.some((arg) => /^(-m|--model)/.test(arg));
  const model = named ? [] : ['-m', join(root, 'web', 'models', 'demo')];
  // npm changes to the repository; paths are meant from where the person is.
  const cwd = process.env.INIT_CWD || process.cwd();
  const done = spawnSync(process.execPath, [command, 'ask', ...model, ...args], {
    cwd,
    stdio: 'inherit',
  });
  if (done.error) throw new Trouble(`Node.js could not start: ${done.error.message}.`);
  if (done.signal) throw new Trouble(`The answer was ended by ${done.signal}.`);
  return done.status ?? 1;
});
