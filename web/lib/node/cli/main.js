#!/usr/bin/env node
// The npm package's command. It knows what Node.js can do; what only the native command of the same name can do
// (convert, quantize, ...) is handed on to it where it has been built.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { PocketVLError } from '../../errors.js';
import { ask } from './ask.js';
import { check } from './check.js';
import { parseSize, publish } from './publish.js';

const NATIVE = {
  convert: "a published model's folder to GGUF files and a manifest",
  quantize: 'a GGUF file in other element types',
  inspect: 'what a GGUF file holds',
  tokens: 'a table of texts as token ids',
  precision: 'what quantized weights and 8-bit activations cost, in nats',
};

const USAGE = {
  check: `usage: pocketvl check URL... [--origin URL] [--quick]
  URL              a published page, a manifest.json or a GGUF file
  --origin URL     of the page that loads the model, where it lies on another host
  --quick          hash the first 16 MiB of every file instead of all
Exit status: 0 nothing to fix, 1 something to fix, 2 wrong command line.`,
  publish: `usage: pocketvl publish FROM... TO [--part-size SIZE] [--title TEXT] [--license TEXT]
  FROM             a folder that pocketvl convert made, or GGUF files (of a split one the first)
  TO               a folder to upload, such as build/site/models/NAME
  --part-size SIZE files larger than this are cut into parts: 48M`,
  ask: `usage: pocketvl ask -m MODEL [options] [IMAGE ...] QUESTION
  -m MODEL         a GGUF file (of a split model the first part), a folder with a manifest, or an address; a pair: -m twice
  --threads N, --context N, --kv q8, --tiles N, --max-tokens N, --temperature T, --top-k K, --top-p P,
  --repetition-penalty R, --seed N, --stop TEXT, --json, --variant relaxed|simd, --verbose`,
};

const HELP = `pocketvl ${version()}: questions about pictures, answered by Mini-InternVL

usage: pocketvl COMMAND ...

  ask        a picture and a question in, the answer out
  check      looks at a published page or model and says what to fix on the host
  publish    a converted model as a folder for static hosts

of the native command, which is built from the sources:

${Object.entries(NATIVE)
  .map(([name, text]) => `  ${name.padEnd(10)} ${text}`)
  .join('\n')}

pocketvl COMMAND --help tells more.`;

function version() {
  const file = new URL('../../../../package.json', import.meta.url);
  return JSON.parse(readFileSync(file, 'utf8')).version;
}

/** A mistake in the command line. */
class Wrong extends Error {}

/** The native command: named by $POCKETVL_NATIVE, or built in the checkout that this file is part of. */
function native(/** @type {string[]} */ args) {
  const built = fileURLToPath(new URL('../../../../build/native/pocketvl', import.meta.url));
  const command = process.env.POCKETVL_NATIVE || built;
  if (!existsSync(command)) {
    throw new PocketVLError(
      'UNSUPPORTED',
      `${args[0]} is part of the native command, which is built from PocketVL's sources: \`npm run build\` there makes ` +
        'build/native/pocketvl. Call that, or name it in POCKETVL_NATIVE.',
    );
  }
  const done = spawnSync(command, args, { stdio: 'inherit' });
  if (done.error)
    throw new PocketVLError('IO', `${command} could not start: ${done.error.message}.`);
  return done.status ?? 1;
}

/**
 * @param {string[]} args
 * @param {Record<string, {type: 'string' | 'boolean', short?: string, multiple?: boolean}>} options
 */
function parse(args, options) {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    throw new Wrong(/** @type {Error} */ (error).message);
  }
}

/**
 * @param {Record<string, any>} values
 * @param {string} name
 * @returns {number | undefined}
 */
function number(values, name) {
  if (values[name] === undefined) return undefined;
  const value = Number(values[name]);
  if (values[name] === '' || !Number.isFinite(value)) throw new Wrong(`--${name} wants a number.`);
  return value;
}

/** @type {Record<string, (args: string[], signal: AbortSignal) => Promise<number>>} */
const COMMANDS = {
  async check(args, signal) {
    const { values, positionals } = parse(args, {
      origin: { type: 'string' },
      quick: { type: 'boolean' },
    });
    if (!positionals.length) throw new Wrong('Which address?');
    for (const url of [...positionals, values.origin ?? positionals[0]]) {
      if (!/^https?:\/\/[^/]/.test(String(url)))
        throw new Wrong(`"${url}" is not an http or https address.`);
    }
    let fixes = 0;
    const first = String(positionals[0]);
    // A page given before models is the page that loads them.
    const page = /\.(json|gguf)$/i.test(new URL(first).pathname) ? undefined : first;
    for (const url of positionals) {
      let told = 0;
      await check(
        url,
        (level, text) => {
          if (level === 'fix') fixes++;
          console.log(`${level.padEnd(4)} ${text}`);
        },
        {
          origin: values.origin || page ? new URL(String(values.origin ?? page)).origin : undefined,
          quick: Boolean(values.quick),
          signal,
          onProgress: (done, total) => {
            if (!process.stderr.isTTY || Date.now() - told < 200) return;
            told = Date.now();
            process.stderr.write(
              `\r     ${Math.floor((100 * done) / total)} % of the model read\r`,
            );
          },
        },
      );
    }
    console.log(fixes ? `${fixes} to fix.` : 'Nothing to fix.');
    return fixes ? 1 : 0;
  },

  async publish(args, signal) {
    const { values, positionals } = parse(args, {
      'part-size': { type: 'string' },
      title: { type: 'string' },
      license: { type: 'string' },
    });
    const to = positionals.pop();
    if (!to || !positionals.length) throw new Wrong('A model and the folder to make are wanted.');
    const partSize =
      values['part-size'] === undefined ? undefined : parseSize(String(values['part-size']));
    if (partSize !== undefined && !(partSize >= 1))
      throw new Wrong('--part-size wants a size such as 24M.');
    const { title, license } = /** @type {Record<string, string | undefined>} */ (values);
    const say = (/** @type {string} */ text) => console.error(text);
    await publish(positionals, to, { partSize, title, license, signal, say });
    console.log(`${to}/manifest.json`);
    return 0;
  },

  async ask(args, signal) {
    const text = /** @type {const} */ ({ type: 'string' });
    const { values, positionals } = parse(args, {
      model: { type: 'string', short: 'm', multiple: true },
      threads: text,
      context: text,
      kv: text,
      tiles: text,
      'max-tokens': text,
      temperature: text,
      'top-k': text,
      'top-p': text,
      'repetition-penalty': text,
      seed: text,
      stop: { type: 'string', multiple: true },
      json: { type: 'boolean' },
      variant: text,
      verbose: { type: 'boolean' },
    });
    const question = positionals.pop();
    if (question === undefined) throw new Wrong('What is the question?');
    if (!values.model) throw new Wrong('Which model? Name it with -m.');
    await ask({
      models: /** @type {string[]} */ (values.model),
      pictures: positionals,
      question,
      load: {
        threads: number(values, 'threads'),
        context: number(values, 'context'),
        kvType: /** @type {'q8' | 'f32' | undefined} */ (values.kv),
        variant: /** @type {'relaxed' | 'simd' | undefined} */ (values.variant),
        signal,
      },
      chat: {
        maxTiles: number(values, 'tiles'),
        maxTokens: number(values, 'max-tokens'),
        temperature: number(values, 'temperature'),
        topK: number(values, 'top-k'),
        topP: number(values, 'top-p'),
        repetitionPenalty: number(values, 'repetition-penalty'),
        seed: number(values, 'seed'),
        stop: /** @type {string[] | undefined} */ (values.stop),
        responseFormat: values.json ? { type: 'json_object' } : undefined,
        signal,
      },
      verbose: Boolean(values.verbose),
    });
    return 0;
  },
};

/** @param {string[]} args */
async function main([name, ...args]) {
  if (name === undefined || ['help', '--help', '-h'].includes(name)) {
    (name === undefined ? console.error : console.log)(HELP);
    return name === undefined ? 2 : 0;
  }
  if (name === '--version') return void console.log(version());
  if (Object.hasOwn(NATIVE, name)) return native([name, ...args]);
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : null;
  if (!command) {
    console.error(`pocketvl: there is no command ${name}.\n\n${HELP}`);
    return 2;
  }
  const usage = USAGE[/** @type {keyof typeof USAGE} */ (name)];
  if (args.includes('--help') || args.includes('-h')) return void console.log(usage);
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  try {
    return await command(args, stop.signal);
  } catch (error) {
    if (error instanceof Wrong) {
      console.error(`pocketvl: ${error.message}\n${usage}`);
      return 2;
    }
    throw error;
  }
}

try {
  process.exitCode = (await main(process.argv.slice(2))) ?? 0;
} catch (error) {
  if (!(error instanceof PocketVLError)) throw error;
  console.error(`pocketvl: ${error.message}`);
  process.exitCode = error.code === 'ABORTED' ? 130 : 1;
}
