// The plainest of static hosts: files under a path of its own, their type, and no other header; no byte ranges.
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';

const TYPES = /** @type {Record<string, string>} */ ({
  '.html': 'text/html',
  '.css': 'text/css',
  '.js': 'text/javascript',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.webmanifest': 'application/manifest+json',
});

/**
 * @param {string} folder
 * @param {{path?: string, headers?: Record<string, string>, lost?: RegExp}} [options] path: such as '/some/where/'; lost: the
 *   first request for each such path gets no answer
 * @returns {Promise<{url: string, origin: string, log: {path: string, status: number}[], close: () => Promise<void>}>}
 */
export async function plainServer(folder, { path = '/', headers = {}, lost } = {}) {
  /** @type {{path: string, status: number}[]} */
  const log = [];
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    const answer = (
      /** @type {number} */ status,
      /** @type {string | Buffer} */ body,
      type = '',
    ) => {
      log.push({ path: pathname, status });
      response.writeHead(status, type ? { 'Content-Type': type, ...headers } : headers).end(body);
    };
    if (lost?.test(pathname) && !log.some((entry) => entry.path === pathname)) {
      log.push({ path: pathname, status: 0 });
      return;
    }
    if (!pathname.startsWith(path)) return answer(404, 'There is nothing here.');
    const name = normalize(decodeURIComponent(pathname.slice(path.length))).replace(/\/$/, '');
    if (name.startsWith('..')) return answer(404, 'There is nothing here.');
    const file = join(folder, /(^|\/)\.?$/.test(name) ? `${name}/index.html` : name);
    const body = await readFile(file).catch(() => null);
    if (!body) return answer(404, 'There is no such file.');
    answer(200, body, TYPES[extname(file)]);
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', () => done(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  const origin = `http://localhost:${port}`;
  const close = () =>
    /** @type {Promise<void>} */ (
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      })
    );
  return { url: origin + path, origin, log, close };
}
