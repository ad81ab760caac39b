// `npm run ask -- IMAGE "QUESTION"`: the answer on standard output, all else on standard error.
// Further options go to the command line tool as they are; without -m the demonstration model answers.
import { spawnSync } from 'node:child_process';
import { commandLineTool, demoModel, threads } from './native.mjs';
import { Trouble, main } from './shell.mjs';

await main(async () => {
  const args = process.argv.slice(2);
  if (args.length === 0) {
    throw new Trouble(
      'usage: npm run ask -- IMAGE "QUESTION" [-m MODEL.gguf] [other options; -h lists them]',
    );
  }
  const tool = await commandLineTool();
  const has = (/** @type {string} */ name) => args.includes(name);
  const model = has('-m') ? [] : ['-m', demoModel];
  const workers = has('--threads') ? [] : ['--threads', threads()];
  // npm changes to the repository; paths are meant from where the person is.
  const cwd = process.env.INIT_CWD || process.cwd();
  const done = spawnSync(tool, ['ask', ...model, ...workers, ...args], { cwd, stdio: 'inherit' });
  if (done.error) throw new Trouble(`${tool} could not start: ${done.error.message}.`);
  if (done.signal) throw new Trouble(`${tool} was ended by ${done.signal}.`);
  return done.status ?? 1;
});
