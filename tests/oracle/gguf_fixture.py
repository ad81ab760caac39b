"""A small GGUF file written by the `gguf` Python package, with every type of metadata value.

    python3 tests/oracle/gguf_fixture.py        (needs: pip install gguf numpy)

Writes tests/fixtures/small.gguf. Tensor values: element i of tensor k is k + i / 8 (exact in all types used).
"""

from pathlib import Path

import gguf
import numpy as np

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "small.gguf"


def main():
    w = gguf.GGUFWriter(OUT, "qwen2")
    w.add_name("Kleines Modell äöü 模型")
    w.add_uint8("t.u8", 200)
    w.add_int8("t.i8", -100)
    w.add_uint16("t.u16", 60000)
    w.add_int16("t.i16", -30000)
    w.add_uint32("t.u32", 4000000000)
    w.add_int32("t.i32", -2000000000)
    w.add_float32("t.f32", 1.5e-6)
    w.add_bool("t.yes", True)
    w.add_bool("t.no", False)
    w.add_uint64("t.u64", 2**63 + 5)
    w.add_int64("t.i64", -(2**62))
    w.add_float64("t.f64", 0.1)
    w.add_array("t.strings", ["", "a", "é", "two words", "\u0000x"])
    w.add_array("t.i32s", [1, -2, 3])
    w.add_array("t.f32s", [0.5, 1.25, -3.0])
    w.add_array("t.bools", [True, False, True])
    shapes = {"a.weight": (3, 64), "b.bias": (5,), "c.conv": (2, 3, 4, 5), "d.half": (7, 3)}
    for k, (name, shape) in enumerate(shapes.items()):
        x = k + np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 8
        w.add_tensor(name, x.astype(np.float16) if name == "d.half" else x)
    q = (np.arange(64, dtype=np.float32) - 31).reshape(2, 32)
    w.add_tensor("e.q8", gguf.quants.quantize(q, gguf.GGMLQuantizationType.Q8_0),
                 raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(f"{OUT}: {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
