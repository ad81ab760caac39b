// The stages of bench.mjs done by onnxruntime-web in a worker.
import { answer } from './rpc.mjs';

answer({
  /**
   * Loads a model and runs it, once to warm up.
   * @param {{base: string, url: string, input: number[], threads: number, repeat: number}} o
   */
  async run({ base, url, input, threads, repeat }) {
    const ort = await import(`${base}dist/ort.wasm.min.mjs`);
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = `${base}dist/`;
    const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
    const start = performance.now();
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ['wasm'] });
    const loaded = performance.now() - start;
    const values = Float32Array.from(
      { length: input[0] * input[1] },
      (_, i) => ((i * 7919) % 1000) / 500 - 1,
    );
    const samples = [];
    for (let i = 0; i <= repeat; i++) {
      const x = new ort.Tensor('float32', values, input);
      const begun = performance.now();
      const result = await session.run({ x });
      if (i) samples.push(performance.now() - begun);
      for (const tensor of Object.values(result)) {
        const sum = tensor.data.reduce(
          (/** @type {number} */ a, /** @type {number} */ b) => a + b,
          0,
        );
        if (!Number.isFinite(sum)) throw new Error('The result is not finite.');
      }
    }
    await session.release();
    return { load_ms: loaded, samples };
  },
});
