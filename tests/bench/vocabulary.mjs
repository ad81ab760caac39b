// Vocabularies of the real sizes and kinds, with the real special tokens at their real ids; all other pieces are
// made: every string of one to three letters that fits. Texts of digits have one token a digit.

/** @typedef {import('./gguf.mjs').ValueType} ValueType */
/** @typedef {[key: string, type: ValueType, value: any]} Row */

const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;
const BYTE = 6;

const LETTERS = [...'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'];
const PICTURE_TOKENS = [
  '<img>',
  '</img>',
  '<IMG_CONTEXT>',
  '<quad>',
  '</quad>',
  '<ref>',
  '</ref>',
  '<box>',
  '</box>',
];

/** The printable characters that stand for the 256 bytes in byte-level BPE, in Qwen2's order of ids. */
export function byteSpellings() {
  const same = (/** @type {number} */ b) =>
    (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  const bytes = Array.from({ length: 256 }, (_, b) => b);
  const own = bytes.filter(same).map((b) => String.fromCodePoint(b));
  const others = bytes.filter((b) => !same(b)).map((_, i) => String.fromCodePoint(0x100 + i));
  return [...own, ...others];
}

/**
 * Pieces of two and three letters, each with the pair that merges into it.
 * @param {string} space what a space is spelled as
 * @returns {Generator<{piece: string, merge: string}>}
 */
function* madePieces(space) {
  const alphabet = [space, ...LETTERS];
  for (const a of alphabet) for (const b of LETTERS) yield { piece: a + b, merge: `${a} ${b}` };
  for (const a of alphabet) {
    for (const b of LETTERS)
      for (const c of LETTERS) yield { piece: a + b + c, merge: `${a + b} ${c}` };
  }
  // Four letters: more than any vocabulary here needs.
  for (const a of alphabet) {
    for (const b of LETTERS) {
      for (const c of LETTERS)
        for (const d of LETTERS) yield { piece: a + b + c + d, merge: `${a + b + c} ${d}` };
    }
  }
}

/** @param {number} count */
function bpe(count) {
  const base = 151643;
  const tokens = byteSpellings();
  /** @type {string[]} */
  const merges = [];
  for (const { piece, merge } of madePieces('Ġ')) {
    if (tokens.length === base) break;
    tokens.push(piece);
    merges.push(merge);
  }
  const added = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', ...PICTURE_TOKENS];
  tokens.push(...added);
  if (tokens.length !== count)
    throw new Error(`The vocabulary has ${tokens.length} tokens, not ${count}.`);
  const types = tokens.map((_, id) => (id < base ? NORMAL : CONTROL));
  /** @type {Row[]} */
  const rows = [
    ['tokenizer.ggml.model', 'string', 'gpt2'],
    ['tokenizer.ggml.pre', 'string', 'qwen2'],
    ['tokenizer.ggml.tokens', 'string[]', tokens],
    ['tokenizer.ggml.token_type', 'i32[]', types],
    ['tokenizer.ggml.merges', 'string[]', merges],
    ['tokenizer.ggml.eos_token_id', 'u32', 151645],
    ['tokenizer.ggml.padding_token_id', 'u32', 151643],
    ['tokenizer.ggml.add_bos_token', 'bool', false],
  ];
  return { rows, silent: added.map((_, i) => base + i) };
}

/**
 * SentencePiece: unknown, control and byte pieces, then made ones, then what `tail` says.
 * @param {number} base ids of ordinary pieces end here
 * @param {{text: string, type: number, score: number}[]} tail
 * @param {Row[]} own further keys
 */
function sentencePiece(base, tail, own) {
  const pieces = [
    { text: '<unk>', type: UNKNOWN, score: 0 },
    { text: '<s>', type: CONTROL, score: 0 },
    { text: '</s>', type: CONTROL, score: 0 },
  ];
  for (let b = 0; b < 256; b++) {
    pieces.push({
      text: `<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`,
      type: BYTE,
      score: 0,
    });
  }
  const single = ['▁'];
  for (let c = 33; c < 127; c++) single.push(String.fromCharCode(c));
  let rank = 0;
  for (const { piece } of madePieces('▁')) {
    if (pieces.length + single.length === base) break;
    pieces.push({ text: piece, type: NORMAL, score: -rank++ });
  }
  for (const text of single) pieces.push({ text, type: NORMAL, score: -rank++ });
  pieces.push(...tail);
  /** @type {Row[]} */
  const rows = [
    ['tokenizer.ggml.model', 'string', 'llama'],
    ['tokenizer.ggml.pre', 'string', 'default'],
    ['tokenizer.ggml.tokens', 'string[]', pieces.map((piece) => piece.text)],
    ['tokenizer.ggml.scores', 'f32[]', pieces.map((piece) => piece.score)],
    ['tokenizer.ggml.token_type', 'i32[]', pieces.map((piece) => piece.type)],
    ['tokenizer.ggml.bos_token_id', 'u32', 1],
    ['tokenizer.ggml.unknown_token_id', 'u32', 0],
    ['tokenizer.ggml.add_bos_token', 'bool', true],
    ...own,
  ];
  const silent = pieces.flatMap(({ type }, id) =>
    [UNKNOWN, CONTROL, UNUSED].includes(type) ? [id] : [],
  );
  return { rows, silent, count: pieces.length };
}

const control = (/** @type {string} */ text) => ({ text, type: CONTROL, score: -1000 });

function internlm2() {
  const renamed = [
    '<|plugin|>',
    '<|interpreter|>',
    '<|action_end|>',
    '<|action_start|>',
    '<|im_end|>',
    '<|im_start|>',
  ];
  const tail = [];
  for (let i = 0; i < 45; i++) tail.push({ text: `[made-${i}]`, type: USER_DEFINED, score: 0 });
  for (let i = 0; i < 141; i++) tail.push({ text: `[UNUSED_TOKEN_${i}]`, type: UNUSED, score: 0 });
  tail.push(...[...renamed, ...PICTURE_TOKENS].map(control));
  return sentencePiece(92352, tail, [
    ['tokenizer.ggml.eos_token_id', 'u32', 92542],
    ['tokenizer.ggml.padding_token_id', 'u32', 2],
    ['tokenizer.ggml.add_space_prefix', 'bool', false],
  ]);
}

function phi3() {
  const base = 32000;
  const own = [
    '<|endoftext|>',
    '<|assistant|>',
    '<|placeholder1|>',
    '<|placeholder2|>',
    '<|placeholder3|>',
    '<|placeholder4|>',
    '<|system|>',
    '<|end|>',
    '<|placeholder5|>',
    '<|placeholder6|>',
    '<|user|>',
  ];
  const tail = [...own, ...PICTURE_TOKENS].map(control);
  return sentencePiece(base, tail, [
    ['tokenizer.ggml.eos_token_id', 'u32', base],
    ['tokenizer.ggml.padding_token_id', 'u32', base],
    ['pocketvl.tokenizer.rstrip_ids', 'i32[]', [2, ...own.slice(1).map((_, i) => base + 1 + i)]],
  ]);
}

/**
 * The tokenizer's metadata, and the ids that a made model must never prefer (they would end its answer).
 * @param {'qwen2' | 'internlm2' | 'phi3'} arch
 * @param {number} count
 */
export function vocabulary(arch, count) {
  if (arch === 'qwen2') return bpe(count);
  const made = arch === 'internlm2' ? internlm2() : phi3();
  if (made.count !== count)
    throw new Error(`The vocabulary has ${made.count} tokens, not ${count}.`);
  return made;
}
