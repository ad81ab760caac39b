// Messages between the page and its worker. Both sides import this file.
//
//   page -> worker   { id, verb, args }            a call; `abort` names the call to stop in args.id
//   worker -> page   { id, event, value }          progress and piece any number of times, then result or error
//                    { event: 'ready' }            once, when the worker can take calls
//
// The page sends one long call at a time (client.js holds the queue), so an abort always means the running call.

/** @typedef {'load' | 'chat' | 'tokenize' | 'count' | 'tiling' | 'estimate' | 'dispose' | 'abort'} Verb */
/** @typedef {'ready' | 'progress' | 'piece' | 'result' | 'error'} EventName */

/** @type {readonly Verb[]} */
export const VERBS = Object.freeze([
  'load',
  'chat',
  'tokenize',
  'count',
  'tiling',
  'estimate',
  'dispose',
  'abort',
]);
/** @type {readonly EventName[]} */
export const EVENTS = Object.freeze(['ready', 'progress', 'piece', 'result', 'error']);

/**
 * @typedef {object} Call
 * @property {number} id
 * @property {Verb} verb
 * @property {any} args
 */

/**
 * @typedef {object} Reply
 * @property {number} id
 * @property {EventName} event
 * @property {any} value
 */

/**
 * @param {unknown} data
 * @returns {data is Call}
 */
export function isCall(data) {
  const call = /** @type {any} */ (data);
  return (
    typeof call === 'object' &&
    call !== null &&
    Number.isInteger(call.id) &&
    VERBS.includes(call.verb) &&
    typeof call.args === 'object' &&
    call.args !== null
  );
}

/**
 * @param {unknown} data
 * @returns {data is Reply}
 */
export function isReply(data) {
  const reply = /** @type {any} */ (data);
  return (
    typeof reply === 'object' &&
    reply !== null &&
    Number.isInteger(reply.id) &&
    EVENTS.includes(reply.event)
  );
}

/**
 * What a worker needs of its surroundings: the browser's and Node.js's differ.
 * @typedef {object} Port
 * @property {(message: Reply, transfer?: Transferable[]) => void} post
 * @property {(listener: (data: unknown) => void) => void} listen
 * @property {() => void} close
 */
