// `npm start`: sets everything up, builds, serves the page and prints its address.
//
//   npm start -- [--port N] [--host NAME] [--isolate]
import { parseArguments, serve } from '../../web/serve.mjs';
import { build } from './build.mjs';
import { setup } from './setup.mjs';
import { Trouble, main, say } from './shell.mjs';

await main(async () => {
  let options;
  try {
    options = parseArguments(process.argv.slice(2));
  } catch (error) {
    throw new Trouble(/** @type {Error} */ (error).message);
  }
  await build(['page'], await setup(['page']));
  const { port, url } = await serve(options).catch((error) => {
    throw new Trouble(`The page cannot be served on port ${options.port}: ${error.message}.`);
  });
  if (options.port !== 0 && port !== options.port) {
    say(`[pocketvl] Port ${options.port} is taken, so this is the next free one.`);
  }
  console.log(`PocketVL is at ${url}  (Ctrl+C ends it)`);
  for (const signal of /** @type {NodeJS.Signals[]} */ (['SIGINT', 'SIGTERM'])) {
    process.on(signal, () => process.exit(0));
  }
});
