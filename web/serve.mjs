// A small static server for the page: files as they are, right types, byte ranges.
//
//   node web/serve.mjs [--port N] [--host NAME] [--isolate] [--quiet]
//
// Any static server does as well: the page's service worker adds the headers for isolation. With --isolate
// this one sends them itself, as a host that can set headers would.
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const TYPES = /** @type {Record<string, string>} */ ({
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.webmanifest': 'application/manifest+json',
  '.map': 'application/json',
  '.wasm': 'application/wasm',
  '.gguf': 'application/octet-stream',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.gif': 'image/gif',
  '.bmp': 'image/bmp',
  '.webp': 'image/webp',
  '.avif': 'image/avif',
  '.ico': 'image/x-icon',
  '.txt': 'text/plain; charset=utf-8',
  '.md': 'text/markdown; charset=utf-8',
  '.csv': 'text/csv; charset=utf-8',
  '.woff2': 'font/woff2',
});

/** Ports tried after the wanted one before giving up. */
const TRIES = 50;

/**
 * The part of a file that a Range header asks for.
 * @param {string | undefined} header
 * @param {number} size
 * @returns {{start: number, end: number} | 'all' | 'none'} `end` is the last byte; 'none': not satisfiable
 */
export function parseRange(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header || '');
  if (!match || (match[1] === '' && match[2] === '')) return 'all'; // several ranges: the whole file is a right answer
  if (match[1] === '') {
    const length = Math.min(Number(match[2]), size);
    return length > 0 ? { start: size - length, end: size - 1 } : 'none';
  }
  const start = Number(match[1]);
  const end = match[2] === '' ? size - 1 : Math.min(Number(match[2]), size - 1);
  if (match[2] !== '' && Number(match[2]) < start) return 'all';
  return start < size ? { start, end } : 'none';
}

/**
 * Answers one request from the folder.
 * @param {string} folder
 * @param {boolean} isolate
 * @param {import('node:http').IncomingMessage} request
 * @param {import('node:http').ServerResponse} response
 */
async function answer(folder, isolate, request, response) {
  const fail = (/** @type {number} */ status, /** @type {string} */ text, headers = {}) => {
    response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8', ...headers });
    response.end(request.method === 'HEAD' ? '' : `${text}\n`);
  };
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    return fail(405, 'Only GET and HEAD are answered here.', { Allow: 'GET, HEAD' });
  }
  let path, search;
  try {
    const url = new URL(request.url || '/', 'http://localhost');
    path = decodeURIComponent(url.pathname);
    search = url.search;
  } catch {
    return fail(400, 'The address is not well formed.');
  }
  let file = resolve(join(folder, path));
  const hidden = path.split('/').some((part) => part.startsWith('.'));
  if ((file !== folder && !file.startsWith(folder + sep)) || hidden || path.includes('\0')) {
    return fail(404, 'There is no such file.');
  }
  let info = await stat(file).catch(() => null);
  if (info?.isDirectory()) {
    if (!path.endsWith('/')) {
      // Never `//name`, which would be another host.
      return fail(301, 'Moved.', { Location: encodeURI(path).replace(/^\/+/, '/') + '/' + search });
    }
    file = join(file, 'index.html');
    info = await stat(file).catch(() => null);
  }
  if (!info?.isFile()) return fail(404, 'There is no such file.');

  /** @type {Record<string, string | number>} */
  const headers = {
    'Content-Type': TYPES[extname(file).toLowerCase()] || 'application/octet-stream',
    'Accept-Ranges': 'bytes',
    'Last-Modified': info.mtime.toUTCString(),
    'Cache-Control': 'no-cache',
    'X-Content-Type-Options': 'nosniff',
  };
  if (isolate) {
    headers['Cross-Origin-Opener-Policy'] = 'same-origin';
    headers['Cross-Origin-Embedder-Policy'] = 'require-corp';
    headers['Cross-Origin-Resource-Policy'] = 'same-origin';
  }
  const since = Date.parse(request.headers['if-modified-since'] || '');
  if (!request.headers.range && Math.floor(info.mtimeMs / 1000) * 1000 <= since) {
    response.writeHead(304, headers);
    return response.end();
  }
  const range = parseRange(request.headers.range, info.size);
  if (range === 'none') {
    return fail(416, 'The file is shorter than that.', { 'Content-Range': `bytes */${info.size}` });
  }
  const part = range === 'all' ? { start: 0, end: info.size - 1 } : range;
  headers['Content-Length'] = part.end - part.start + 1;
  if (range !== 'all') headers['Content-Range'] = `bytes ${part.start}-${part.end}/${info.size}`;
  response.writeHead(range === 'all' ? 200 : 206, headers);
  if (request.method === 'HEAD' || info.size === 0) return response.end();
  const stream = createReadStream(file, part);
  stream.on('error', () => response.destroy());
  response.on('close', () => stream.destroy());
  stream.pipe(response);
}

/**
 * Starts the server; a busy port makes it take the next free one.
 * @param {{folder?: string, port?: number, host?: string, isolate?: boolean}} [options] port 0: any free one
 * @returns {Promise<{server: import('node:http').Server, port: number, url: string, close: () => Promise<void>}>}
 */
export async function serve(options = {}) {
  const folder = resolve(options.folder || fileURLToPath(new URL('.', import.meta.url)));
  const name = options.host || 'localhost';
  const host = name === 'localhost' ? '127.0.0.1' : name; // the name may stand for IPv6 alone
  const server = createServer((request, response) => {
    answer(folder, Boolean(options.isolate), request, response).catch((error) => {
      if (!response.headersSent) response.writeHead(500, { 'Content-Type': 'text/plain' });
      response.end(`${error.message}\n`);
    });
  });
  const wanted = options.port ?? 8080;
  for (let port = wanted; ; port++) {
    try {
      await new Promise((done, fail) => {
        server.once('error', fail);
        server.listen(port, host, () => {
          server.off('error', fail);
          done(undefined);
        });
      });
      break;
    } catch (error) {
      const code = /** @type {NodeJS.ErrnoException} */ (error).code;
      if (code !== 'EADDRINUSE' || wanted === 0 || port >= Math.min(wanted + TRIES, 65535))
        throw error;
    }
  }
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  const shown = name.includes(':') ? `[${name}]` : name;
  const close = () =>
    /** @type {Promise<void>} */ (
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      })
    );
  return { server, port, url: `http://${shown}:${port}/`, close };
}

/**
 * Reads the command line; a mistake in it is an Error with one sentence.
 * @param {string[]} args
 */
export function parseArguments(args) {
  const options = { port: 8080, host: 'localhost', isolate: false, quiet: false };
  for (let i = 0; i < args.length; i++) {
    const [name, inline] = args[i].split(/=(.*)/s);
    const value = () => inline ?? args[++i];
    if (name === '--port') {
      const text = value();
      options.port = Number(text);
      if (!/^\d+$/.test(text || '') || options.port > 65535) {
        throw new Error(`--port wants a number from 0 to 65535, not "${text ?? ''}".`);
      }
    } else if (name === '--host') {
      options.host = value() || '';
      if (!options.host) throw new Error('--host wants a name or an address.');
    } else if (name === '--isolate') options.isolate = true;
    else if (name === '--quiet') options.quiet = true;
    else
      throw new Error(
        `Unknown option ${args[i]}: there are --port N, --host NAME, --isolate, --quiet.`,
      );
  }
  return options;
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url)) {
  try {
    const options = parseArguments(process.argv.slice(2));
    const { port, url } = await serve(options);
    if (!options.quiet) {
      if (options.port !== 0 && port !== options.port) {
        console.log(`Port ${options.port} is taken, so this is the next free one.`);
      }
      console.log(`PocketVL is at ${url}  (Ctrl+C ends it)`);
    }
    for (const signal of /** @type {NodeJS.Signals[]} */ (['SIGINT', 'SIGTERM'])) {
      process.on(signal, () => process.exit(0));
    }
  } catch (error) {
    console.error(`pocketvl: ${/** @type {Error} */ (error).message}`);
    process.exitCode = 1;
  }
}
