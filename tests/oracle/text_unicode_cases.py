"""Writes tests/fixtures/text/unicode.tsv: expectations of test_unicode.c, from Python.

    pip install unicodedata2==15.0.0
    python tests/oracle/text_unicode_cases.py > tests/fixtures/text/unicode.tsv

Rows: kind, input, expectation; texts as hexadecimal UTF-8, "-" is empty.
    nfc      NFC of a text: composition exclusions, reordering, Hangul, long runs of marks, random mixes
    replace  bytes decoded with errors="replace"
    strip    str.strip()
    digest   FNV-1a, 64 bits, over all code points but surrogates: `class` of one byte each (1 letter, 2 number,
             4 white space, 8 Python's isspace), `nfc` of the UTF-8 of each one's NFC
"""

import random

import unicodedata2 as ud

from text_unicode_tables import VERSION, WHITE_SPACE

FNV, PRIME, MASK = 0xCBF29CE484222325, 0x100000001B3, (1 << 64) - 1


def row(kind, data, expected):
    print(kind, data.hex() or "-", expected.hex() if isinstance(expected, bytes) and expected else expected or "-",
          sep="\t")


def main():
    assert ud.unidata_version == VERSION
    rng = random.Random(20240611)
    points = [cp for cp in range(0x110000) if not 0xD800 <= cp < 0xE000]
    marks = [cp for cp in points if ud.combining(chr(cp))]
    decomposing = [cp for cp in points if ud.decomposition(chr(cp)) and not ud.decomposition(chr(cp)).startswith("<")]
    some = lambda pool, n: "".join(chr(rng.choice(pool)) for _ in range(rng.randint(0, n)))

    nfc = ["", "abc", "A\u030A", "\u212B", "\u0958", "\u0915\u093C", "\u1100\u1161", "\u1100\u1161\u11A8", "\uAC00\u11A8",
           "\uAC01\u11A8", "\u1100\u11A8", "a\u0323\u0307", "a\u0307\u0323", "\u1E0B\u0323", "q\u0307\u0323", "\u0344", "\u0390",
           "\u03B9\u0308\u0301", "\u1F82", "\u09C7\u09BE", "\u0308a", "\u0338", ">\u0338", "\U0001D15E", "\uFB1D", "\u2ADC",
           "a\u0301\u0301", "a\u0327\u0301", "\u0DD9\u0DCF\u0DCA", "a" + "\u0323\u0307" * 40, "\u0307\u0323" * 30]
    for _ in range(400):
        parts = [rng.choice([some(decomposing, 2), some(marks, 5), some(range(0x1100, 0x1200), 3), some(range(97, 123), 2),
                             some(range(0xAC00, 0xD7A4), 1), some(points, 2)]) for _ in range(rng.randint(1, 5))]
        nfc.append(rng.choice([lambda s: s, lambda s: ud.normalize("NFD", s)])("".join(parts)))
    for text in nfc:
        row("nfc", text.encode(), ud.normalize("NFC", text).encode())

    pool = b"a\xc2\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\x80\xc0\xc1\xf5\xff\xf4\x90\x8f\xe0\x9f\xa0\xf1\x80\xbf\xef\xbf\xbd"
    for _ in range(300):
        data = bytes(rng.choice(pool) for _ in range(rng.randint(1, 9)))
        row("replace", data, data.decode("utf-8", "replace").encode())

    ends = [9, 10, 13, 28, 31, 32, 0x85, 0xA0, 0x2003, 0x3000, 0x200B, 0x41, 0x4F60]
    for _ in range(60):
        text = some(ends, 4) + some([0x61, 0x20, 0x4F60], 3) + some(ends, 4)
        row("strip", text.encode(), text.strip().encode())

    white = set(WHITE_SPACE)
    classes = compositions = FNV
    for cp in points:
        c = chr(cp)
        major = ud.category(c)[0]
        value = (major == "L") | (major == "N") << 1 | (cp in white) << 2 | c.isspace() << 3
        classes = (classes ^ value) * PRIME & MASK
        for byte in ud.normalize("NFC", c).encode():
            compositions = (compositions ^ byte) * PRIME & MASK
    row("digest", b"class", f"{classes:016x}")
    row("digest", b"nfc", f"{compositions:016x}")


if __name__ == "__main__":
    main()
