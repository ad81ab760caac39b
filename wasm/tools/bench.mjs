// `npm run bench`: what the engine reaches, as fractions of the machine's ceilings measured in the same run.
//
//   npm run bench -- [OPTIONS]            in headless Chromium: stages of the models (tests/bench, --help lists options)
//   npm run bench -- kernels [OPTIONS]    natively: each kernel at the models' shapes
//
// Run it on a quiet machine: neighbours blur the ratios.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { build, buildFolder } from './build.mjs';
import { setup } from './setup.mjs';
import { Trouble, environment, main, relaxedFlags, root } from './shell.mjs';

await main(async () => {
  const args = process.argv.slice(2);
  const native = args.length > 0 && /^[a-z]/.test(args[0]);
  let command;
  if (native) {
    await build(['native'], await setup(['native']));
    command = [join(buildFolder('native'), `bench_${args.shift()}`)];
    if (!existsSync(command[0])) throw new Trouble(`There is no ${command[0]}.`);
  } else {
    await build(['page', 'bench'], await setup(['test']));
    command = [process.execPath, ...relaxedFlags, join(root, 'tests', 'bench', 'bench.mjs')];
  }
  const done = spawnSync(command[0], [...command.slice(1), ...args], {
    cwd: root,
    env: environment(),
    stdio: 'inherit',
  });
  return done.status ?? 1;
});
