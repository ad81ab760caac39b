// The reference in the repository is the one that the comments of web/lib make.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { apiFile, reference } from '../../wasm/tools/api.mjs';

test('web/API.md is made from the comments as they are, and tells of everything public', async () => {
  const text = await reference();
  for (const name of ['load', 'loadModel', 'chat', 'tokenize', 'tiling', 'estimate', 'dispose']) {
    assert.match(text, new RegExp(`^#+ (static )?${name}\\(\\)`, 'm'), name);
  }
  assert.doesNotMatch(text, /loadPosted|revive/);
  assert.equal(readFileSync(apiFile, 'utf8'), text, 'npm run api makes it anew');
});
