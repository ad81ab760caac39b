"""Writes tests/fixtures/text/json.tsv: texts, and whether each is one JSON object, by Python's own json.

    python tests/oracle/text_json_cases.py > tests/fixtures/text/json.tsv

Objects made at random and written in several styles, and the same with a byte or two changed, taken out, doubled or put
in. Columns: 1 or 0, bytes in hexadecimal. Python's NaN and Infinity are refused, as RFC 8259 has none.
"""

import json
import random

ALPHABET = b'{}[],:"\\/ \t\r\n0123456789-+.eEtrufalsn\x00\x1f\x7f\x80\xbf\xc2\xe0\xed\xf4\xff'
TEXTS = ['', 'a', 'red star', 'Größe', '图中有三个', '\U0001f98a', '"', '\\', 'a/b', '\n\t', '\x00', '\ud83d', 'null', '{}']


def refuse(constant):
    raise ValueError(constant)


def is_object(data):
    try:
        return isinstance(json.loads(data.decode('utf-8'), parse_constant=refuse), dict)
    except ValueError:  # UnicodeDecodeError and JSONDecodeError are
        return False


def value(rng, depth):
    kind = rng.randrange(8 if depth else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, -0.0, -1, 10, 1e300, 1e-7, -2.5, 12345678901234567890, 0.1])
    if kind < 6:
        return ''.join(rng.choice(TEXTS) for _ in range(rng.randrange(3)))
    if kind == 6:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return members(rng, depth - 1)


def members(rng, depth):
    return {rng.choice(TEXTS): value(rng, depth) for _ in range(rng.randrange(4))}


def written(rng, thing):
    escaped = rng.random() < 0.5
    text = json.dumps(thing, ensure_ascii=escaped, indent=rng.choice([None, None, 1, 2, '\t']),
                      separators=rng.choice([(',', ':'), (', ', ': '), (' ,', ' :\r\n')]))
    return text.encode('utf-8', 'replace' if not escaped else 'strict')


def changed(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2])):
        at = rng.randrange(len(data) + 1)
        byte = rng.choice(ALPHABET)
        how = rng.randrange(4)
        if how == 0:
            data[at:at] = bytes([byte])
        elif how == 1:
            data[at:at + 1] = bytes([byte])
        elif how == 2:
            del data[at:at + 1]
        else:
            data[at:at] = data[max(0, at - rng.randrange(1, 4)):at]
    return bytes(data)


def main():
    rng = random.Random(11)
    seen = set()
    named = [b'', b'{', b'{}', b' {} ', b'[]', b'1', b'"a"', b'{}{}', b'{"a":NaN}', b'{"a":Infinity}', b'{"a":01}', b'{"a":-0}',
             b'{"a":1.}', b'{"a":.5}', b'{"a":1e}', b'{"a":1E+2}', b'{"a":1e2}', b'{"a":1e2.5}', b'{"a":+1}', b'{"a":-}',
             b'{"a":0x1}', b'{"a":1,}', b'{,}', b'{"a":[1,]}', b'{"a":[,]}', b"{'a':1}", b'{a:1}', b'{"a"}', b'{"a":}',
             b'{"a":1 "b":2}', b'{"a":1;"b":2}', b'{"a":"\\u12G4"}', b'{"a":"\\uD83D\\uDE00"}', b'{"a":"\\x41"}',
             b'{"a":"\n"}', b'{"a":tru}', b'{"a":True}', b'{"a":nulll}', b'{"a":1]', b'{"a":[1}', b'\xef\xbb\xbf{}',
             b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\xe2\x82"}', b'{"a":"\xe2\x82\xac"}',
             b'{/**/}', b'{"a":1}//', b'{}\x00', b'{}\x0c', b'\xc2\xa0{}']
    cases = list(named)
    while len(cases) < 700:
        data = written(rng, members(rng, 3))
        if 2 < len(data) < 120:
            cases.append(data)
    for data in cases[len(named):] * 2:
        cases.append(changed(rng, data))
    for data in cases:
        if data not in seen:
            seen.add(data)
            print(int(is_object(data)), data.hex(), sep='\t')


main()
