// `npm run accuracy`: asks the demonstration model every question of the held-out set through the C core (the shipped,
// quantized file, the command line tool) and prints how many answers are right, per kind and overall.
//
//   npm run accuracy -- [--model FILE] [--kv q8] [--f32] [--limit N] [--wrong] [--record]
//
// --kv q8 and --f32 as of `pocketvl ask`: what a choice of precision costs in answers. --wrong also lists the wrong answers; --record keeps the result as what `npm test` holds the shipped file to.
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { commandLineTool, demoModel } from './native.mjs';
import { Trouble, isMain, main, root, say } from './shell.mjs';

/** What the model is meant to reach: share of right answers overall and in each kind. */
export const GOAL = { overall: 0.9, kind: 0.8 };

/** What the shipped file reached when it was made; `npm test` holds it to that. */
const REACHED = join(root, 'tests', 'demo', 'reached.json');

/** Compilers round sums differently: some answers may change sides from machine to machine. */
const SLACK = { overall: 0.01, kind: 0.03 };

const FOLDER = join(root, 'tests', 'demo', 'heldout');

/**
 * @typedef {object} Question a line of questions.jsonl: one of accept, must, boxes says what is right
 * @property {string} id
 * @property {string} image
 * @property {string} kind
 * @property {string} question
 * @property {string} answer
 * @property {string[]} [accept]
 * @property {string[]} [must]
 * @property {number[][]} [boxes]
 */

/** Intersection over union of two boxes x1, y1, x2, y2. */
export function overlap(/** @type {number[]} */ a, /** @type {number[]} */ b) {
  const width = Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0]));
  const height = Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const area = (/** @type {number[]} */ r) => (r[2] - r[0]) * (r[3] - r[1]);
  const union = area(a) + area(b) - width * height;
  return union > 0 ? (width * height) / union : 0;
}

const plain = (/** @type {string} */ text) =>
  text
    .trim()
    .toLowerCase()
    .replace(/[.!?。！？]+$/, '')
    .trim();

/**
 * Is the answer right? Boxes: as many as there are things, each overlapping its own by half. `must`: all pieces
 * occur. Else: equal to an accepted answer but for case and the closing stop.
 * @param {Question} item
 * @param {string} answer
 */
export function isRight(item, answer) {
  if (item.boxes) {
    const found = [...answer.matchAll(/\[(\d+), (\d+), (\d+), (\d+)\]/g)].map((match) =>
      match.slice(1).map(Number),
    );
    const truth = item.boxes;
    return found.length === truth.length && found.every((box, i) => overlap(box, truth[i]) >= 0.5);
  }
  if (item.must)
    return item.must.every((part) => answer.toLowerCase().includes(part.toLowerCase()));
  return (item.accept || [item.answer]).some((good) => plain(good) === plain(answer));
}

/** One answer of the command line tool. */
function ask(
  /** @type {string} */ tool,
  /** @type {string} */ model,
  /** @type {string[]} */ how,
  /** @type {Question} */ item,
) {
  return /** @type {Promise<string>} */ (
    new Promise((done, fail) => {
      const args = [
        'ask',
        '-m',
        model,
        ...how,
        '--max-tokens',
        '96',
        join(FOLDER, item.image),
        item.question,
      ];
      const child = spawn(tool, args, { stdio: ['ignore', 'pipe', 'pipe'] });
      let out = '';
      let err = '';
      child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
      child.stderr.setEncoding('utf8').on('data', (text) => (err += text));
      child.on('error', (error) => fail(new Trouble(`${tool} could not start: ${error.message}.`)));
      child.on('close', (code) => {
        if (code === 0) done(out.trim());
        else fail(new Trouble(`Question ${item.id} ended with exit code ${code}: ${err.trim()}`));
      });
    })
  );
}

/**
 * Asks the questions and counts.
 * @param {{model?: string, how?: string[], limit?: number}} [options] how: further options of `pocketvl ask`
 */
export async function measure(options = {}) {
  const tool = await commandLineTool();
  /** @type {Question[]} */
  let items = readFileSync(join(FOLDER, 'questions.jsonl'), 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
  if (options.limit) items = items.slice(0, options.limit);
  /** @type {Record<string, {right: number, asked: number}>} */
  const kinds = {};
  /** @type {{item: Question, answer: string}[]} */
  const wrong = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const item = items[next++];
      const answer = await ask(tool, options.model || demoModel, options.how || [], item);
      const count = (kinds[item.kind] ||= { right: 0, asked: 0 });
      count.asked++;
      if (isRight(item, answer)) count.right++;
      else wrong.push({ item, answer });
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  const right = items.length - wrong.length;
  return { kinds, wrong, right, asked: items.length, share: right / items.length };
}

/**
 * The kinds below what is asked of them, and 'overall'.
 * @param {Awaited<ReturnType<typeof measure>>} result
 * @param {(name: string) => number} least share of right answers by kind, or 'overall'
 */
function below(result, least) {
  const names = Object.keys(result.kinds).filter(
    (kind) => result.kinds[kind].right / result.kinds[kind].asked < least(kind),
  );
  return result.share < least('overall') ? ['overall', ...names] : names;
}

/** The kinds below the goal, and 'overall'. */
export function belowGoal(/** @type {Awaited<ReturnType<typeof measure>>} */ result) {
  return below(result, (name) => (name === 'overall' ? GOAL.overall : GOAL.kind));
}

/** The kinds in which the shipped file is worse than when it was made, and 'overall'; a kind unheard of counts. */
export function belowReached(/** @type {Awaited<ReturnType<typeof measure>>} */ result) {
  /** @type {Record<string, number>} */
  const reached = JSON.parse(readFileSync(REACHED, 'utf8'));
  return below(result, (name) => {
    const share = reached[name] ?? 1;
    return name === 'overall'
      ? Math.min(GOAL.overall, share - SLACK.overall)
      : Math.min(GOAL.kind, share - SLACK.kind);
  });
}

/** Keeps a result as what the shipped file reached. */
export function record(/** @type {Awaited<ReturnType<typeof measure>>} */ result) {
  const share = (/** @type {number} */ x) => Math.floor(x * 1000) / 1000;
  const kinds = Object.keys(result.kinds).sort();
  const reached = Object.fromEntries([
    ['overall', share(result.share)],
    ...kinds.map((kind) => [kind, share(result.kinds[kind].right / result.kinds[kind].asked)]),
  ]);
  writeFileSync(REACHED, `${JSON.stringify(reached, null, 2)}\n`);
}

/** The table of a result. */
export function table(/** @type {Awaited<ReturnType<typeof measure>>} */ result) {
  const row = (
    /** @type {string} */ name,
    /** @type {number} */ right,
    /** @type {number} */ asked,
  ) =>
    `${name.padEnd(10)} ${`${right}/${asked}`.padStart(9)} ${((100 * right) / asked).toFixed(1).padStart(6)} %`;
  const rows = Object.keys(result.kinds)
    .sort()
    .map((kind) => row(kind, result.kinds[kind].right, result.kinds[kind].asked));
  return [...rows, row('overall', result.right, result.asked)].join('\n');
}

if (isMain(import.meta.url)) {
  await main(async () => {
    const args = process.argv.slice(2);
    const value = (/** @type {string} */ name) =>
      args.includes(name) ? args[args.indexOf(name) + 1] : '';
    const how = value('--kv') ? ['--kv', value('--kv')] : [];
    if (args.includes('--f32')) how.push('--f32');
    const limit = Number(value('--limit')) || 0;
    const result = await measure({ model: value('--model'), how, limit });
    if (args.includes('--wrong')) {
      for (const { item, answer } of result.wrong) {
        console.log(
          `${item.id} ${item.image} ${item.question}\n  answered ${answer}\n  right is ${item.answer}`,
        );
      }
    }
    console.log(table(result));
    if (args.includes('--record')) record(result);
    const short = belowGoal(result);
    if (short.length) {
      say(
        `Below the goal of ${GOAL.overall * 100} % overall or ${GOAL.kind * 100} % in a kind: ${short.join(', ')}.`,
      );
      return 1;
    }
  });
}
