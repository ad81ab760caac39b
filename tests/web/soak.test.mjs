// A short soak: memory after the first ten questions, and many chats at once. `npm run soak` is the long one.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { after, before } from 'node:test';
import { fileURLToPath } from 'node:url';
import { PocketVL } from '../../web/lib/node/index.js';
import { crowd, crowdIsFair, questions } from '../bench/soak.mjs';

const DEMO = join(fileURLToPath(new URL('../..', import.meta.url)), 'web', 'models', 'demo');

/** @type {PocketVL} */
let vl;
before(async () => {
  vl = await PocketVL.load(DEMO);
});
after(() => vl.dispose());

test('40 questions over 8 pictures: nothing grows after the tenth, no answer changes', async () => {
  const { engine, changed, tokens } = await questions(vl, { questions: 40, pictures: 8 });
  assert.equal(engine, 0);
  assert.equal(changed, 0);
  assert.ok(tokens >= 40);
});

test('20 chats at once: in the order of asking, and those that are stopped end alone', async () => {
  const { ends, order } = await crowd(vl, 20);
  assert.ok(crowdIsFair(ends, order), ends.join(' '));
  assert.ok(['ABORTED', 'answered'].includes(ends[0]));
  assert.equal(order.length, ends.filter((end) => end === 'answered').length);
  // The one after them works as ever.
  const again = await crowd(vl, 2);
  assert.equal(again.ends[1], 'answered');
});
