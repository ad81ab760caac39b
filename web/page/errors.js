// How a failure is shown: what happened, and the one step that helps.
import { $, button, make } from './dom.js';
import { t } from './strings.js';

/** @typedef {import('../lib/pocketvl.js').PocketVLError} PocketVLError */
/** @typedef {{label: string, run: () => unknown}} Step */

/** @param {string} code */
function title(code) {
  const titles = /** @type {Record<string, string>} */ ({
    IMAGE: t('errIMAGE'),
    NETWORK: t('errNETWORK'),
    QUOTA: t('errQUOTA'),
    STORAGE: t('errSTORAGE'),
    MEMORY: t('errMEMORY'),
    WORKER: t('errWORKER'),
    CONTEXT: t('errCONTEXT'),
    LIMIT: t('errLIMIT'),
    ARGUMENT: t('errARGUMENT'),
    INTEGRITY: t('errINTEGRITY'),
    FORMAT: t('errMODEL'),
    MODEL: t('errMODEL'),
    UNSUPPORTED: t('errMODEL'),
    UNSUPPORTED_BROWSER: t('errUNSUPPORTED_BROWSER'),
  });
  return titles[code] ?? t('errOther');
}

/**
 * @param {PocketVLError} error
 * @param {Step | null} step
 * @param {string} [heading] where the code alone does not tell what is wrong
 */
export function errorBox(error, step, heading = title(error.code)) {
  const box = make('div', 'error');
  box.setAttribute('role', 'alert');
  box.dataset.code = error.code;
  box.append(
    make('strong', '', heading),
    make('span', '', error.message),
    make('code', '', error.code),
  );
  if (step) {
    box.append(
      button(step.label, 'ghost', () => {
        box.remove();
        return step.run();
      }),
    );
  }
  return box;
}

/**
 * Something to know that stops nothing.
 * @param {{code: string, message: string}} notice
 * @param {Step | null} [step]
 */
export function showNotice(notice, step = null) {
  const p = make('p', 'notice');
  p.dataset.code = notice.code;
  p.append(make('span', '', notice.message));
  if (step) {
    p.append(
      button(step.label, 'ghost', () => {
        p.remove();
        return step.run();
      }),
    );
  }
  $('notices').replaceChildren(p);
}

/** @param {PocketVLError} error @param {Step | null} step */
export function showError(error, step) {
  $('notices').replaceChildren(errorBox(error, step));
}

export function clearNotices() {
  $('notices').replaceChildren();
}
