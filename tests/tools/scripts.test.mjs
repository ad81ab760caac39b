// The scripts around the build: judging answers, and a test driver that cannot be fooled.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { belowGoal, isRight, overlap } from '../../wasm/tools/accuracy.mjs';
import { root } from '../../wasm/tools/shell.mjs';

/** A question with its truth. */
const item = (/** @type {object} */ truth) => ({
  id: 'q',
  image: 'x.png',
  kind: 'shape',
  question: '?',
  answer: 'red',
  ...truth,
});

test('answers are judged by the rule of the held-out set', () => {
  const accepted = item({ accept: ['The star is red.', 'red'] });
  assert.ok(isRight(accepted, ' Red. '));
  assert.ok(isRight(accepted, 'the star is red'));
  assert.ok(!isRight(accepted, 'dark red'));
  assert.ok(!isRight(accepted, ''));
  const pieces = item({ must: ['two', 'Circle'] });
  assert.ok(isRight(pieces, 'Two blue circles.'));
  assert.ok(!isRight(pieces, 'A circle.'));
  assert.ok(isRight(item({ accept: ['红色。'] }), '红色'));
});

test('boxes have to overlap by half, one each', () => {
  assert.equal(overlap([0, 0, 10, 10], [0, 0, 10, 10]), 1);
  assert.equal(overlap([0, 0, 10, 10], [20, 20, 30, 30]), 0);
  assert.equal(overlap([5, 5, 5, 5], [5, 5, 5, 5]), 0);
  const boxes = item({ boxes: [[100, 100, 200, 200]] });
  assert.ok(isRight(boxes, '<box>[[100, 100, 200, 190]]</box>'));
  assert.ok(!isRight(boxes, '<box>[[100, 100, 140, 200]]</box>'));
  assert.ok(!isRight(boxes, 'no box'));
  assert.ok(!isRight(boxes, '[100, 100, 200, 200] [100, 100, 200, 200]'));
});

test('the goal looks at every kind and at the whole', () => {
  const kinds = { a: { right: 79, asked: 100 }, b: { right: 100, asked: 100 } };
  const result = { kinds, wrong: [], right: 179, asked: 200, share: 179 / 200 };
  assert.deepEqual(belowGoal(result), ['overall', 'a']);
  assert.deepEqual(belowGoal({ ...result, kinds: { b: kinds.b }, share: 0.9 }), []);
});

test('an unknown slice fails with one sentence and a closing line', () => {
  const done = spawnSync(process.execPath, [join(root, 'tests', 'run.mjs'), 'nosuch'], {
    encoding: 'utf8',
  });
  assert.equal(done.status, 1);
  assert.match(done.stderr, /^pocketvl: There is no slice nosuch: /m);
  assert.match(done.stdout, /^0 passed, 1 failed$/m);
});
