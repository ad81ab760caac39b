"""Blocks of every element type with the floats that the `gguf` Python package makes of them.

    python3 tests/oracle/dtype_fixtures.py        (needs: pip install gguf numpy)

Writes tests/fixtures/dtype.bin, little-endian: "PVLD", u32 records; each record: u32 type (ggml's number), u32 direction
(0 = blocks to floats, 1 = floats to blocks), u32 floats, u32 bytes of blocks, the blocks, the floats. Both directions must
agree bit for bit with the C code.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "dtype.bin"
rng = np.random.default_rng(20240611)

# Where the half-precision fields stand in a block.
HALVES = {
    T.Q4_0: [0],
    T.Q4_1: [0, 2],
    T.Q5_0: [0],
    T.Q5_1: [0, 2],
    T.Q8_0: [0],
    T.Q2_K: [80, 82],
    T.Q3_K: [108],
    T.Q4_K: [0, 2],
    T.Q5_K: [0, 2],
    T.Q6_K: [208],
    T.IQ4_NL: [0],
    T.IQ4_XS: [0],
}
# Zero, smallest and largest subnormal, one, largest, and both signs.
EXTREME = [0x0000, 0x8000, 0x0001, 0x83FF, 0x3C00, 0xBC00, 0x7BFF, 0xFBFF]


def blocks_of(t):
    length, size = GGML_QUANT_SIZES[t]
    if t in (T.F32, T.F16, T.BF16):
        size_of = {T.F32: 4, T.F16: 2, T.BF16: 2}[t]
        bits = rng.integers(0, 1 << (8 * size_of), 256, dtype=np.uint64)
        # No infinities and NaN: their payloads are nobody's concern.
        exponent = {T.F32: 0x7F800000, T.F16: 0x7C00, T.BF16: 0x7F80}[t]
        bits = np.where((bits & exponent) == exponent, bits & ~np.uint64(exponent), bits)
        bits[:4] = [0, 1, 1 << (8 * size_of - 1), exponent - 1]
        return bits.astype({4: np.uint32, 2: np.uint16}[size_of]).view(np.uint8)
    n = 8
    b = rng.integers(0, 256, (n, size), dtype=np.uint8)
    b[1, :] = 0
    b[2, :] = 255
    b[3, :] = 0x80
    for i in range(n):
        for at in HALVES[t]:
            if i < 4:
                half = int(EXTREME[rng.integers(len(EXTREME))])
            else:
                half = int(np.float16(rng.normal() * 0.05).view(np.uint16))
            b[i, at] = half & 255
            b[i, at + 1] = half >> 8
    return b.reshape(-1)


def to_floats(t, blocks):
    if t == T.F32:
        return blocks.view(np.float32).copy()
    if t == T.F16:
        return blocks.view(np.float16).astype(np.float32)
    return np.asarray(quants.dequantize(blocks.reshape(1, -1), t), dtype=np.float32).reshape(-1)


def floats_to_quantize():
    rows = [rng.normal(size=32) * s for s in (1, 0.02, 3e4, 1e-3, 1e-6)]
    rows += [
        np.zeros(32),
        np.full(32, 0.7),
        np.full(32, -0.7),
        np.arange(-16, 16) / 4,  # halves to round
        np.where(np.arange(32) % 2, 1.0, -1.0),  # two values of equal magnitude
        np.abs(rng.normal(size=32)),
        -np.abs(rng.normal(size=32)),
        np.eye(1, 32, 5)[0] * 12,
        rng.uniform(-1, 1, 32) ** 7,
        np.round(rng.normal(size=32) * 8) / 8,
        rng.standard_cauchy(32),
    ]
    return np.concatenate(rows).astype(np.float32)


def main():
    records = []
    for t in (T.F32, T.F16, T.BF16, *HALVES):
        blocks = blocks_of(t)
        records.append((t, 0, blocks, to_floats(t, blocks)))
    x = floats_to_quantize()
    for t in (T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1):
        with np.errstate(all="ignore"):
            if t == T.F16:
                b = x.astype(np.float16).view(np.uint8)
            else:
                b = np.asarray(quants.quantize(x.reshape(1, -1), t)).view(np.uint8).reshape(-1)
        records.append((t, 1, b, x))
    with OUT.open("wb") as f:
        f.write(b"PVLD" + struct.pack("<I", len(records)))
        for t, direction, b, y in records:
            assert np.all(np.isfinite(y)), t
            f.write(struct.pack("<4I", int(t), direction, y.size, b.size))
            f.write(b.tobytes() + y.astype("<f4").tobytes())
    print(f"{OUT}: {len(records)} records, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
