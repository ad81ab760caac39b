// What every store has to do. Runs in Node.js for the one in memory and in browsers for IndexedDB, so it imports nothing.

/**
 * @param {import('../../web/lib/store.js').Store} store empty
 * @param {{deepEqual: (a: any, b: any, m?: string) => void, equal: (a: any, b: any, m?: string) => void}} assert
 */
export async function storeConformance(store, assert) {
  const hash = { sha256: 'a'.repeat(64), sample: -5 };
  const get = async (/** @type {[string, number, number]} */ at, /** @type {number} */ n) => {
    const read = await store.openChunk(at, n);
    if (!read) return null;
    /** @type {number[]} */
    const all = [];
    const count = await read((piece) => void all.push(...piece));
    assert.equal(count, n, 'all of it came');
    return new Uint8Array(all);
  };
  const bytes = (/** @type {number} */ n, /** @type {number} */ fill) =>
    new Uint8Array(n).fill(fill);
  assert.deepEqual(await store.models(), []);
  assert.equal(await store.model('m'), undefined);
  assert.equal(await get(['m', 0, 0], 10), null);

  // The caller may reuse its buffer at once.
  const buffer = bytes(1000, 1);
  const written = store.putChunk(['m', 0, 0], buffer, hash);
  buffer.fill(9);
  await written;
  const got = await get(['m', 0, 0], 1000);
  assert.equal(got?.length, 1000);
  assert.equal(got?.[999], 1, 'the data as it was when it was put');

  // Another size than expected is as if it were missing.
  assert.equal(await get(['m', 0, 0], 999), null);

  // Two chunks may be open at once, and larger ones come in pieces, all of them, in their order.
  const large = new Uint8Array(3_000_000).map((_, i) => i * 7 + (i >> 13));
  await store.putChunk(['m', 0, 1], large, hash);
  const [one, two] = [
    await store.openChunk(['m', 0, 1], large.length),
    await store.openChunk(['m', 0, 0], 1000),
  ];
  let at = 0;
  let same = true;
  await one?.((piece) => {
    for (const b of piece) same &&= b === large[at++];
  });
  assert.equal(at, large.length);
  assert.equal(same, true);
  assert.equal(await two?.(() => {}), 1000);
  await store.deleteChunk(['m', 0, 1]);

  // Models do not see each other's chunks, also where one name begins with the other.
  await Promise.all([
    store.putChunk(['m', 0, 10], bytes(5, 2), hash),
    store.putChunk(['m', 1, 0], bytes(6, 3), hash),
    store.putChunk(['mm', 0, 0], bytes(7, 4), hash),
    store.putChunk(['m', 0, 2], bytes(8, 5), hash),
  ]);
  const keys = [...(await store.records('m')).keys()].sort();
  assert.deepEqual(keys, ['0/0', '0/10', '0/2', '1/0']);
  assert.deepEqual((await store.records('m')).get('1/0'), { bytes: 6, ...hash });
  assert.equal((await store.records('none')).size, 0);

  // Over-writing.
  await store.putChunk(['m', 0, 0], bytes(20, 6), { sha256: 'b'.repeat(64) });
  assert.equal((await get(['m', 0, 0], 20))?.[0], 6);
  assert.equal((await store.records('m')).get('0/0')?.sha256, 'b'.repeat(64));

  const manifest = { format: /** @type {1} */ (1), name: 'm', files: [] };
  const record = { key: 'm', manifest, complete: true, created: 1, used: 2 };
  await store.putModel(record);
  await store.putModel({ ...record, key: 'mm' });
  assert.deepEqual(await store.model('m'), record);
  assert.equal((await store.models()).length, 2);

  await store.deleteChunk(['m', 0, 2]);
  assert.equal(await get(['m', 0, 2], 8), null);
  await store.deleteModel('m');
  assert.equal(await store.model('m'), undefined);
  assert.equal((await store.records('m')).size, 0);
  assert.equal((await get(['mm', 0, 0], 7))?.[6], 4, 'the other model is still there');
  await store.deleteModel('mm');
  await store.deleteModel('never there');
  assert.deepEqual(await store.models(), []);
  store.close();
}
