// The C core as JavaScript sees it: structs by name, strings, and errors that are thrown. The layouts
// come from the module itself (pvlx_abi), no number is copied by hand. Views of the memory are made
// fresh whenever it has grown.
import { PocketVLError } from './errors.js';

/** @typedef {import('./errors.js').ErrorCode} ErrorCode */
/** @typedef {'bool' | 'i32' | 'u32' | 'u64' | 'f32' | 'f64' | 'text' | 'string' | 'pointer'} Kind */
/** @typedef {{size: number, fields: Record<string, [number, Kind]>}} Layout */
/** @typedef {Record<string, (...args: any[]) => any>} Exports */

/** The functions of wasm/exports.txt that this folder calls. */
export const IMPORTS = Object.freeze([
  'malloc',
  'free',
  'pvlx_abi',
  'pvlx_session_report',
  'pvl_loader_new',
  'pvl_loader_begin_file',
  'pvl_loader_push_async',
  'pvl_loader_wait',
  'pvl_loader_finish',
  'pvl_loader_free',
  'pvl_engine_free',
  'pvl_engine_get_info',
  'pvl_engine_tiling',
  'pvl_engine_tokenize',
  'pvl_engine_token_text',
  'pvl_estimate',
  'pvl_image_decode',
  'pvl_image_from_rgba',
  'pvl_image_width',
  'pvl_image_height',
  'pvl_image_pixels',
  'pvl_image_free',
  'pvl_session_new',
  'pvl_session_free',
  'pvl_session_prepare',
  'pvl_session_prompt',
  'pvl_session_count',
  'pvl_session_next',
  'pvl_session_cancel_flag',
  'pvl_session_get_stats',
]);

const encoder = new TextEncoder();
const decoder = new TextDecoder();

export class Abi {
  /**
   * @param {Exports} module an instance of pocketvl-*.mjs
   * @param {WebAssembly.Memory} memory
   */
  constructor(module, memory) {
    this.module = module;
    this.memory = memory;
    /** @type {Uint8Array<ArrayBufferLike>} */
    this.u8 = new Uint8Array(memory.buffer);
    this.view = new DataView(memory.buffer);
    for (const name of IMPORTS) {
      if (typeof module[`_${name}`] !== 'function') {
        throw new PocketVLError(
          'INTERNAL',
          `The module has no function ${name}: library and wasm differ.`,
        );
      }
    }
    const length = module._pvlx_abi(0, 0);
    const at = this.malloc(length + 1);
    module._pvlx_abi(at, length + 1);
    /** @type {{version: string, status: string[], constants: Record<string, number>, structs: Record<string, Layout>}} */
    this.layout = JSON.parse(this.text(at, length));
    this.free(at);
    this.constants = this.layout.constants;
    this.error = this.malloc(this.sizeof('pvl_error'));
    this.out = this.malloc(64);
  }

  /** Views over the memory as it is now. */
  refresh() {
    if (this.u8.buffer !== this.memory.buffer) {
      this.u8 = new Uint8Array(this.memory.buffer);
      this.view = new DataView(this.memory.buffer);
    }
    return this.u8;
  }

  /** @param {string} name */
  sizeof(name) {
    return this.layout.structs[name].size;
  }

  /**
   * @param {number} bytes
   * @returns {number}
   */
  malloc(bytes) {
    const at = this.module._malloc(Math.max(bytes, 1)) >>> 0;
    if (!at) {
      throw new PocketVLError(
        'MEMORY',
        `The browser has no ${Math.ceil(bytes / 1048576)} MiB of memory left for this page; close other tabs or take a smaller model.`,
        { details: { bytes } },
      );
    }
    this.refresh();
    return at;
  }

  /** @param {number} at */
  free(at) {
    this.module._free(at);
  }

  /**
   * UTF-8 at an address as a string. Copies first: decoders refuse shared memory.
   * @param {number} at
   * @param {number} bytes
   */
  text(at, bytes) {
    return decoder.decode(this.refresh().slice(at, at + bytes));
  }

  /**
   * A terminated string.
   * @param {number} at
   */
  string(at) {
    if (!at) return '';
    const u8 = this.refresh();
    let end = at;
    while (u8[end]) end++;
    return this.text(at, end - at);
  }

  /**
   * Bytes in the module's memory; the caller frees the address.
   * @param {Uint8Array<ArrayBufferLike> | Uint8ClampedArray<ArrayBufferLike>} bytes
   */
  copyIn(bytes) {
    const at = this.malloc(bytes.length);
    this.refresh().set(bytes, at);
    return at;
  }

  /**
   * A terminated UTF-8 copy; the caller frees `at`. `bytes` counts without the terminator.
   * @param {string} value
   */
  newString(value) {
    const utf8 = encoder.encode(value);
    const at = this.malloc(utf8.length + 1);
    const u8 = this.refresh();
    u8.set(utf8, at);
    u8[at + utf8.length] = 0;
    return { at, bytes: utf8.length };
  }

  /**
   * Writes fields into a struct; fields that are not named become zero.
   * @param {string} name
   * @param {number} at
   * @param {Record<string, number | bigint | boolean | undefined>} values
   */
  write(name, at, values) {
    const layout = this.layout.structs[name];
    this.refresh().fill(0, at, at + layout.size);
    for (const [field, value] of Object.entries(values)) {
      if (value === undefined) continue;
      const [offset, kind] = layout.fields[field];
      const to = at + offset;
      if (kind === 'bool') this.view.setUint8(to, value ? 1 : 0);
      else if (kind === 'i32') this.view.setInt32(to, Number(value), true);
      else if (kind === 'u64') this.view.setBigUint64(to, BigInt(value), true);
      else if (kind === 'f32') this.view.setFloat32(to, Number(value), true);
      else if (kind === 'f64') this.view.setFloat64(to, Number(value), true);
      else this.view.setUint32(to, Number(value), true);
    }
  }

  /**
   * A struct as an object; strings are read, pointers stay addresses, 64-bit numbers become doubles.
   * @param {string} name
   * @param {number} at
   * @returns {Record<string, any>}
   */
  read(name, at) {
    this.refresh();
    /** @type {Record<string, any>} */
    const result = {};
    for (const [field, [offset, kind]] of Object.entries(this.layout.structs[name].fields)) {
      const from = at + offset;
      if (kind === 'bool') result[field] = this.view.getUint8(from) !== 0;
      else if (kind === 'i32') result[field] = this.view.getInt32(from, true);
      else if (kind === 'u64') result[field] = Number(this.view.getBigUint64(from, true));
      else if (kind === 'f32') result[field] = this.view.getFloat32(from, true);
      else if (kind === 'f64') result[field] = this.view.getFloat64(from, true);
      else if (kind === 'text') result[field] = this.string(from);
      else if (kind === 'string') result[field] = this.string(this.view.getUint32(from, true));
      else result[field] = this.view.getUint32(from, true);
    }
    return result;
  }

  /**
   * Calls a fallible function with our error slot behind the arguments; throws what it reports.
   * @param {string} name
   * @param {...(number | bigint)} args
   */
  call(name, ...args) {
    this.write('pvl_error', this.error, {});
    const status = this.module[`_${name}`](...args, this.error);
    this.refresh();
    if (status === 0) return;
    const { message } = this.read('pvl_error', this.error);
    const code = /** @type {ErrorCode} */ (this.layout.status[status] ?? 'INTERNAL');
    throw new PocketVLError(code, message || `${name} failed with ${code}.`);
  }

  /**
   * The address that a function wrote into its first argument.
   * @param {string} name
   * @param {...(number | bigint)} args what follows the out-parameter
   * @returns {number}
   */
  create(name, ...args) {
    this.view.setUint32(this.out, 0, true);
    this.call(name, this.out, ...args);
    return this.view.getUint32(this.out, true);
  }
}
