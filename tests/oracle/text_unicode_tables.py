"""Writes src/text/unicode_tables.c: character classes and normalisation data of Unicode 15.0.

    pip install unicodedata2==15.0.0
    python tests/oracle/text_unicode_tables.py > src/text/unicode_tables.c

The tokenizer's vectors were made with Unicode 15.0, whichever version the running Python has, so the
data come from the package unicodedata2, which is Python's own unicodedata at a stated version.
"""

import sys

import unicodedata2 as ud

VERSION = "15.0.0"
LETTER, NUMBER, SPACE, NOT_NFC = 1, 2, 4, 8  # as in unicode.h and unicode_internal.h
# White_Space is not in unicodedata: PropList.txt, unchanged since Unicode 6.3.
WHITE_SPACE = [*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F,
               0x3000]
CODES = 0x110000
HANGUL = range(0xAC00, 0xD7A4)


def is_surrogate(cp):
    return 0xD800 <= cp < 0xE000


def decompositions():
    """cp -> one or two code points, canonical, one level; Hangul left out (it is arithmetic)."""
    out = {}
    for cp in range(CODES):
        text = "" if is_surrogate(cp) or cp in HANGUL else ud.decomposition(chr(cp))
        if text and not text.startswith("<"):
            out[cp] = tuple(int(part, 16) for part in text.split())
            assert len(out[cp]) <= 2
    return out


def compositions(decomposed):
    """(first, second) -> cp of the primary composites: exclusions are those that NFC takes apart."""
    out = {}
    for cp, parts in decomposed.items():
        if len(parts) == 2 and ud.normalize("NFC", chr(cp)) == chr(cp):
            assert parts not in out
            out[parts] = cp
    return out


def records(composed):
    """(flags, combining class) of every code point."""
    seconds = {second for _, second in composed} | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    white = set(WHITE_SPACE)
    out = []
    for cp in range(CODES):
        if is_surrogate(cp):
            out.append((0, 0))
            continue
        c = chr(cp)
        major = ud.category(c)[0]
        flags = (LETTER if major == "L" else 0) | (NUMBER if major == "N" else 0) | (SPACE if cp in white else 0)
        if cp in seconds or ud.normalize("NFC", c) != c:
            flags |= NOT_NFC
        out.append((flags, ud.combining(c)))
    return out


def two_stage(values, shift):
    size = 1 << shift
    blocks, index = {}, []
    for start in range(0, CODES, size):
        block = tuple(values[start:start + size])
        index.append(blocks.setdefault(block, len(blocks)))
    return index, [v for block in blocks for v in block], len(blocks)


def array(kind, name, values, form="{}"):
    print(f"const {kind} {name}[{len(values)}] = {{")
    line = "   "
    for v in values:
        item = " " + form.format(v) + ","
        if len(line) + len(item) > 100:
            print(line)
            line = "   "
        line += item
    print(line)
    print("};")
    print()


def main():
    assert ud.unidata_version == VERSION, f"unicodedata2 {VERSION} needed, found {ud.unidata_version}"
    decomposed = decompositions()
    composed = compositions(decomposed)
    distinct = sorted(set(recs := records(composed)))
    assert len(distinct) < 256
    number = {r: i for i, r in enumerate(distinct)}
    values = [number[r] for r in recs]
    shift = 7  # the smallest of the sizes that need at most 256 different blocks
    index, data, count = two_stage(values, shift)
    assert count <= 256
    keys = sorted(decomposed)
    place = {cp: i for i, cp in enumerate(keys)}
    order = [place[composed[pair]] for pair in sorted(composed)]
    print(f"/* Made by tests/oracle/text_unicode_tables.py from Unicode {VERSION} data. Do not edit. */")
    print("/* clang-format off */")
    print('#include "text/unicode_internal.h"')
    print()
    print(f"_Static_assert(PVL_UNICODE_SHIFT == {shift}, \"the tables were made for another block size\");")
    print(f"_Static_assert(PVL_DECOMPOSITIONS == {len(keys)}, \"count of decompositions\");")
    print(f"_Static_assert(PVL_COMPOSITIONS == {len(order)}, \"count of compositions\");")
    print()
    array("uint8_t", "pvl_unicode_index", index)
    array("uint8_t", "pvl_unicode_blocks", data)
    print(f"const pvl_unicode_record pvl_unicode_records[{len(distinct)}] = {{")
    for flags, ccc in distinct:
        print(f"    {{{flags}, {ccc}}},")
    print("};")
    print()
    array("uint32_t", "pvl_decomposition_of", keys, "0x{:X}")
    array("uint32_t", "pvl_decomposition_first", [decomposed[cp][0] for cp in keys], "0x{:X}")
    array("uint32_t", "pvl_decomposition_second", [(*decomposed[cp], 0)[1] for cp in keys], "0x{:X}")
    array("uint16_t", "pvl_composition_order", order)
    print(f"shift {shift}, {count} blocks, {len(keys)} decompositions, {len(order)} compositions, "
          f"{len(distinct)} records", file=sys.stderr)


if __name__ == "__main__":
    main()
