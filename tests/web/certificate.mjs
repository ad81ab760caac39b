// A certificate for a test's own https server, made for the run and signed by itself. Node.js has no call for that, so its
// few fields are written out (X.509 in DER).
import { generateKeyPairSync, randomBytes, sign } from 'node:crypto';

/** @param {number} tag @param {...Uint8Array} parts */
function der(tag, ...parts) {
  const body = Buffer.concat(parts);
  const n = body.length;
  const length = n < 128 ? [n] : n < 256 ? [0x81, n] : [0x82, n >> 8, n & 255];
  return Buffer.concat([Buffer.from([tag, ...length]), body]);
}
const sequence = (/** @type {Uint8Array[]} */ ...parts) => der(0x30, ...parts);
const bits = (/** @type {Uint8Array} */ bytes) => der(0x03, Buffer.from([0]), bytes);
const hex = (/** @type {string} */ text) => Buffer.from(text, 'hex');

/** Object identifiers: ecdsa-with-SHA256, commonName, subjectAltName. */
const ECDSA = sequence(hex('06082a8648ce3d040302'));
const COMMON_NAME = hex('0603550403');
const ALTERNATIVE = hex('0603551d11');

/**
 * @param {string[]} hosts
 * @returns {{key: string, cert: string}} in PEM
 */
export function certificateFor(hosts) {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
  const name = sequence(der(0x31, sequence(COMMON_NAME, der(0x0c, Buffer.from(hosts[0])))));
  const time = (/** @type {number} */ days) => {
    const text = new Date(Date.now() + days * 86_400_000).toISOString();
    return der(0x17, Buffer.from(`${text.slice(2, 19).replace(/[-:T]/g, '')}Z`));
  };
  const names = sequence(...hosts.map((host) => der(0x82, Buffer.from(host))));
  const body = sequence(
    der(0xa0, hex('020102')), // version 3
    der(0x02, Buffer.from([1]), randomBytes(8)),
    ECDSA,
    name,
    sequence(time(-1), time(30)),
    name,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(sequence(ALTERNATIVE, der(0x04, names)))),
  );
  const signed = sequence(body, ECDSA, bits(sign('sha256', body, privateKey)));
  const lines = /** @type {string[]} */ (signed.toString('base64').match(/.{1,64}/g));
  return {
    key: String(privateKey.export({ type: 'pkcs8', format: 'pem' })),
    cert: `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`,
  };
}
