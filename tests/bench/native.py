"""Prefill and decode of a language model file in llama.cpp, as one line of JSON.

    python3 tests/bench/native.py --model FILE.gguf --threads 2 --prompt 512 --tokens 33 --repeat 3

Needs llama-cpp-python; exit code 3 where it is not installed.
"""

import argparse
import json
import random
import statistics
import sys
import time


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--prompt", type=int, default=512)
    arguments.add_argument("--tokens", type=int, default=33)
    arguments.add_argument("--repeat", type=int, default=3)
    options = arguments.parse_args()
    try:
        import llama_cpp
    except ImportError:
        return 3

    start = time.perf_counter()
    model = llama_cpp.Llama(
        model_path=options.model,
        n_ctx=options.prompt + options.tokens + 16,
        n_batch=512,
        n_threads=options.threads,
        n_threads_batch=options.threads,
        verbose=False,
    )
    load = (time.perf_counter() - start) * 1e3
    rng = random.Random(1)
    prefill, decode = [], []
    for turn in range(options.repeat + 1):
        model.reset()
        ids = [rng.randrange(1000, 20000) for _ in range(options.prompt)]
        start = time.perf_counter()
        model.eval(ids)
        took = (time.perf_counter() - start) * 1e3
        times = []
        for _ in range(options.tokens):
            start = time.perf_counter()
            model.eval([rng.randrange(1000, 20000)])
            times.append((time.perf_counter() - start) * 1e3)
        if turn:  # the first turn reads the file into memory
            prefill.append(took)
            decode.extend(times)
    print(
        json.dumps(
            {
                "version": llama_cpp.__version__,
                "threads": options.threads,
                "load_ms": load,
                "prefill_ms": prefill,
                "decode_ms": statistics.median(decode),
                "prefill_tokens_per_second": options.prompt / statistics.median(prefill) * 1e3,
                "decode_tokens_per_second": 1e3 / statistics.median(decode),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
