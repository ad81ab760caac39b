// `npm run bench`: stage times and fractions of the machine's ceilings, natively and in WebAssembly under Node.js.
//
//   npm run bench -- [NAME]... [-- ARGUMENTS]      names of benchmarks (bench_NAME); all when none is given
//
// Run it on a quiet machine: the ceilings are measured in the same run, but neighbours still blur the ratios.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { build, buildFolder } from './build.mjs';
import { setup } from './setup.mjs';
import { Trouble, environment, main, relaxedFlags, root } from './shell.mjs';

await main(async () => {
  const args = process.argv.slice(2);
  const cut = args.indexOf('--');
  const names = cut < 0 ? args : args.slice(0, cut);
  const rest = cut < 0 ? [] : args.slice(cut + 1);
  await build(['native', 'page'], await setup(['native', 'page']));
  const native = readdirSync(buildFolder('native'))
    .filter((name) => /^bench_\w+$/.test(name))
    .map((name) => ({ name, command: [join(buildFolder('native'), name)] }));
  const folder = join(root, 'tests', 'bench');
  const scripts = (existsSync(folder) ? readdirSync(folder) : [])
    .filter((name) => /^bench_\w+\.mjs$/.test(name))
    .map((name) => ({
      name: name.replace('.mjs', ''),
      command: [process.execPath, ...relaxedFlags, join(folder, name)],
    }));
  const all = [...native, ...scripts];
  const wanted = names.length
    ? all.filter(({ name }) => names.includes(name.replace('bench_', '')))
    : all;
  if (wanted.length === 0) {
    const known = all.map(({ name }) => name.replace('bench_', '')).join(', ');
    throw new Trouble(`There is no such benchmark: there are ${known || 'none yet'}.`);
  }
  let failed = 0;
  for (const { name, command } of wanted) {
    console.log(`== ${name}`);
    const done = spawnSync(command[0], [...command.slice(1), ...rest], {
      cwd: root,
      env: environment(),
      stdio: 'inherit',
    });
    if (done.status !== 0) failed++;
  }
  if (failed) throw new Trouble(`${failed} of ${wanted.length} benchmarks failed.`);
});
