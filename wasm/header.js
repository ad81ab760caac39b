// @ts-nocheck -- glue code made by Emscripten; wasm/README.md says how.
