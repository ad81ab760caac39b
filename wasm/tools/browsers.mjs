// Where the browsers for the tests are: the machine's own, or what setup unpacked for the user.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { architecture } from './apt.mjs';
import { cacheBin, which } from './shell.mjs';

/** The first of some programs that is there, or ''. */
const first = (/** @type {string[]} */ ...names) => names.map(which).find(Boolean) || '';

/** $CHROMIUM, or the first of the usual names; '' where there is none. */
export const chromiumPath = () =>
  process.env.CHROMIUM ||
  first('chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome');

/** $FIREFOX, or the first of the usual names; '' where there is none. */
export const firefoxPath = () => process.env.FIREFOX || first('firefox-esr', 'firefox');

/** WebKitGTK's browser, which is on no PATH; '' where one of the three programs that it takes is lacking. */
export function miniBrowserPath() {
  if (!which('WebKitWebDriver') || !which('Xvfb')) return '';
  const { triple } = architecture();
  const folders = ['4.1', '4.0'].map((version) => `/usr/lib/${triple}/webkit2gtk-${version}`);
  const files = [...folders, cacheBin].map((folder) => join(folder, 'MiniBrowser'));
  return files.find((file) => existsSync(file)) || '';
}
