// WebKitGTK for the tests: its MiniBrowser on a display of its own (Xvfb), driven through WebKitWebDriver. As it is shipped it
// has neither threads nor relaxed SIMD, so it takes the page's fallbacks for real.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Builder, Capabilities } from 'selenium-webdriver';
import { miniBrowserPath } from '../../wasm/tools/browsers.mjs';
import { which } from '../../wasm/tools/shell.mjs';

/** A port that is free now. */
async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  server.close();
  await once(server, 'close');
  return port;
}

/**
 * Starts a program and ends it with the tests.
 * @param {string} name
 * @param {string[]} args
 * @param {import('node:child_process').SpawnOptions} options
 */
function start(name, args, options) {
  const child = spawn(which(name), args, options);
  const ended = once(child, 'exit').catch(() => {});
  return {
    child,
    ended,
    async stop() {
      child.kill();
      await Promise.race([ended, sleep(5000, undefined, { ref: false })]);
      child.kill('SIGKILL');
    },
  };
}

/**
 * @returns {Promise<{driver: import('selenium-webdriver').WebDriver, close: () => Promise<void>}>}
 */
export async function webkit() {
  const home = mkdtempSync(join(tmpdir(), 'pocketvl-webkit-'));
  // The server chooses a free display and writes its number.
  const screen = start(
    'Xvfb',
    ['-displayfd', '3', '-screen', '0', '1280x900x24', '-nolisten', 'tcp'],
    { stdio: ['ignore', 'ignore', 'ignore', 'pipe'] },
  );
  const numbers = /** @type {import('node:stream').Readable} */ (screen.child.stdio[3]);
  const [display] = await Promise.race([
    once(createInterface(numbers), 'line'),
    screen.ended.then(() => ['']),
    sleep(30_000, [''], { ref: false }),
  ]);
  if (!display) throw new Error('Xvfb did not start.');
  const port = await freePort();
  const driving = start('WebKitWebDriver', [`--port=${port}`], {
    stdio: 'ignore',
    env: {
      ...process.env,
      HOME: home,
      DISPLAY: `:${display}`,
      GDK_BACKEND: 'x11',
      LC_ALL: 'C.UTF-8',
      WEBKIT_DISABLE_COMPOSITING_MODE: '1',
    },
  });
  const close = async () => {
    await driving.stop();
    await screen.stop();
    rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  };
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; !(await fetch(`${url}/status`).then(Boolean, () => false)); tries++) {
    if (tries === 150 || driving.child.exitCode !== null) {
      await close();
      throw new Error('WebKitWebDriver did not start.');
    }
    await sleep(200);
  }
  const wanted = new Capabilities()
    .set('browserName', 'MiniBrowser')
    .set('webkitgtk:browserOptions', { binary: miniBrowserPath(), args: ['--automation'] });
  const driver = await new Builder().usingServer(url).withCapabilities(wanted).build();
  await driver.manage().setTimeouts({ script: 180_000, pageLoad: 120_000 });
  return {
    driver,
    async close() {
      await driver.quit().catch(() => {});
      await close();
    },
  };
}
