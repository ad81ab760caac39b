// A server that does to downloads what networks and hosts do.
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { gzipSync } from 'node:zlib';

/**
 * How the server treats requests of one path; all fields may change while it runs.
 * @typedef {object} Behaviour
 * @property {Buffer} body
 * @property {number[]} [cuts] the nth answer ends after so many bytes, with the connection
 * @property {boolean} [noRange] answers 200 and everything to a Range request
 * @property {number[]} [statuses] the nth answer is this status instead (0: as usual)
 * @property {boolean} [gzip] compresses, without being asked
 * @property {number} [stallAt] sends nothing more after so many bytes, once
 * @property {{at: number, times: number}} [wrongByte] flips a byte in the first answers
 * @property {boolean} [noHead] 405 to HEAD
 * @property {number} [contentLength] a wrong one, in the first answer to GET
 * @property {number} [headLength] a wrong one, in answers to HEAD
 * @property {boolean} [noCors] no other site may read it
 * @property {string} [lastModified]
 * @property {string} [redirect] to this path
 * @property {number} [slow] ms between pieces of 64 KiB
 * @property {string} [etag]
 */

/** @returns {Promise<{url: string, paths: Map<string, Behaviour>, log: {method: string, path: string, range: string, sent: number}[], close: () => Promise<void>}>} */
export async function faultServer() {
  /** @type {Map<string, Behaviour>} */
  const paths = new Map();
  /** @type {{method: string, path: string, range: string, sent: number}[]} */
  const log = [];
  const server = createServer((request, response) => {
    const path = (request.url ?? '').split('?')[0];
    const b = paths.get(path);
    const entry = {
      method: request.method ?? '',
      path,
      range: request.headers.range ?? '',
      sent: 0,
    };
    log.push(entry);
    /** @type {Record<string, string>} */
    const cors = b?.noCors
      ? {}
      : { 'Access-Control-Allow-Origin': '*', 'Cross-Origin-Resource-Policy': 'cross-origin' };
    if (!b) return void response.writeHead(404, cors).end();
    if (b.redirect) return void response.writeHead(302, { ...cors, Location: b.redirect }).end();
    const status = request.method === 'HEAD' ? 0 : (b.statuses?.shift() ?? 0);
    if (status) return void response.writeHead(status, { ...cors, 'Retry-After': '0' }).end();
    if (request.method === 'HEAD' && b.noHead) return void response.writeHead(405, cors).end();
    const range = /^bytes=(\d+)-(\d*)$/.exec(entry.range);
    let [start, end] = [0, b.body.length];
    let code = 200;
    /** @type {Record<string, string | number>} */
    const headers = { ...cors, 'Content-Type': 'application/octet-stream' };
    if (b.etag) headers.ETag = b.etag;
    if (b.lastModified) headers['Last-Modified'] = b.lastModified;
    if (range && !b.noRange) {
      start = Number(range[1]);
      end = range[2] ? Math.min(Number(range[2]) + 1, end) : end;
      if (start >= b.body.length) {
        return void response
          .writeHead(416, { ...cors, 'Content-Range': `bytes */${b.body.length}` })
          .end();
      }
      code = 206;
      headers['Content-Range'] = `bytes ${start}-${end - 1}/${b.body.length}`;
    }
    let body = b.body.subarray(start, end);
    if (b.wrongByte && b.wrongByte.times > 0 && b.wrongByte.at >= start && b.wrongByte.at < end) {
      b.wrongByte.times--;
      body = Buffer.from(body);
      body[b.wrongByte.at - start] ^= 0x40;
    }
    if (b.gzip) {
      body = gzipSync(body);
      headers['Content-Encoding'] = 'gzip';
    }
    headers['Content-Length'] = body.length;
    if (request.method === 'HEAD') {
      headers['Content-Length'] = b.headLength ?? body.length;
      return void response.writeHead(code, headers).end();
    }
    const wrongLength = b.contentLength;
    b.contentLength = undefined;
    if (wrongLength !== undefined) headers['Content-Length'] = wrongLength;
    response.writeHead(code, headers);
    const cut = b.cuts?.shift();
    const most = cut === undefined ? body.length : Math.min(cut, body.length);
    const stall = b.stallAt;
    if (stall !== undefined) b.stallAt = undefined;
    let at = 0;
    const pump = () => {
      if (response.destroyed) return;
      while (at < most) {
        if (stall !== undefined && at >= stall) return; // nothing more, the connection stays
        const piece = body.subarray(at, Math.min(at + 65536, most, stall ?? Infinity));
        at += piece.length;
        entry.sent += piece.length;
        const more = response.write(piece);
        if (b.slow) return void setTimeout(pump, b.slow);
        if (!more) return void response.once('drain', pump);
      }
      // What was written goes out before the connection breaks.
      if ((cut !== undefined && most < body.length) || wrongLength !== undefined)
        setTimeout(() => response.destroy(), 30);
      else response.end();
    };
    pump();
  });
  await new Promise((done) => server.listen(0, '127.0.0.1', () => done(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}`,
    paths,
    log,
    close: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

/**
 * A manifest over bodies.
 * @param {Record<string, Buffer>} files
 * @param {number} chunk bytes
 */
export function manifestOver(files, chunk) {
  return {
    format: 1,
    name: 'made',
    title: 'Made for a test',
    files: Object.entries(files).map(([name, body]) => {
      const chunks = [];
      for (let at = 0; at < body.length; at += chunk) {
        const part = body.subarray(at, at + chunk);
        chunks.push({
          bytes: part.length,
          sha256: createHash('sha256').update(part).digest('hex'),
        });
      }
      return { name, bytes: body.length, chunks };
    }),
  };
}
