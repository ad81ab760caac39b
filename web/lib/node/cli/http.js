// One HTTP request as it is on the wire: nothing is decoded, every redirect is seen.
import { Buffer } from 'node:buffer';
import http from 'node:http';
import https from 'node:https';
import { PocketVLError, aborted } from '../../errors.js';

const REDIRECTS = 5;
const PATIENCE = 30_000; // ms without a byte

/**
 * @typedef {object} Answer
 * @property {string} url where the answer came from, after redirects
 * @property {number} status
 * @property {http.IncomingHttpHeaders} headers
 * @property {Buffer} body its beginning, as far as `most` goes
 * @property {number} bytes of the body that were read
 */

/**
 * @param {string} url
 * @param {{method?: string, headers?: Record<string, string>, most?: number, take?: (piece: Buffer) => void,
 *   signal?: AbortSignal}} [options] most: bytes of the body to keep, after which the connection is dropped;
 *   take: gets the whole body instead
 * @returns {Promise<Answer>}
 */
export async function request(url, options = {}) {
  for (let left = REDIRECTS; ; left--) {
    const answer = await once(url, options);
    const { location } = answer.headers;
    if (answer.status < 300 || answer.status > 399 || !location) return answer;
    if (!left) throw new PocketVLError('NETWORK', `${url} redirects in a circle.`);
    url = new URL(location, url).href;
  }
}

/**
 * @param {string} url
 * @param {NonNullable<Parameters<typeof request>[1]>} options
 * @returns {Promise<Answer>}
 */
function once(url, { method = 'GET', headers = {}, most = 1 << 20, take, signal }) {
  return new Promise((done, fail) => {
    const broken = (/** @type {Error} */ error) =>
      fail(
        signal?.aborted
          ? aborted()
          : new PocketVLError('NETWORK', `${url} cannot be reached: ${error.message}.`),
      );
    const { request: open } = url.startsWith('https:') ? https : http;
    const call = open(url, { method, headers, signal, timeout: PATIENCE }, (response) => {
      /** @type {Buffer[]} */
      const kept = [];
      let bytes = 0;
      const end = () =>
        done({
          url,
          status: response.statusCode ?? 0,
          headers: response.headers,
          body: Buffer.concat(kept).subarray(0, most),
          bytes,
        });
      response.on('data', (/** @type {Buffer} */ piece) => {
        bytes += piece.length;
        if (take && (response.statusCode ?? 0) < 300) return take(piece);
        kept.push(piece);
        if (bytes < most) return;
        end();
        response.destroy();
      });
      response.on('end', end);
      response.on('error', broken);
    });
    call.on('timeout', () => call.destroy(new Error(`no byte for ${PATIENCE / 1000} s`)));
    call.on('error', broken);
    call.end();
  });
}
