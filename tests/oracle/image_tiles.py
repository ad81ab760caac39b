"""Writes tests/fixtures/image/tiles.csv: grids chosen by the published tiling algorithm.

    python3 tests/oracle/image_tiles.py

Needs nothing but Python. The algorithm is InternVL's `dynamic_preprocess` as its users know it: collect the ratios
(i, j) with min_num <= i*j <= max_num, sort them by i*j, take the closest to width/height; on equal distance take the later
one if the picture's area is more than half of that grid's. It is written down here on its own, loops and set included.

Lines `grid,W,H,tile,max,columns,rows` are single cases. Lines `sum,max,tile,cases,checksum` stand for thousands: the
sizes come from the generator below (the C test has the same), the checksum is FNV-1a over columns and rows.
"""

import os

OUT = os.path.join(os.path.dirname(__file__), '..', 'fixtures', 'image', 'tiles.csv')
NAMED = [
    (448, 448), (224, 224), (633, 633), (1, 1), (634, 634), (640, 640), (777, 777), (1000, 1000), (640, 480),
    (800, 600), (1024, 768), (480, 640), (1280, 720), (1920, 1080), (3840, 2160), (1080, 1920), (500, 333),
    (1500, 1000), (896, 448), (600, 300), (1344, 448), (2688, 896), (1000, 100), (4000, 100), (100, 1000),
    (20000, 1), (1, 20000), (65535, 1831), (4032, 3024), (3024, 4032), (10000, 10000), (2, 1), (3, 2),
]


def choose(width, height, tile, max_num, min_num=1):
    ratios = set()
    for n in range(min_num, max_num + 1):
        for i in range(1, n + 1):
            for j in range(1, n + 1):
                if min_num <= i * j <= max_num:
                    ratios.add((i, j))
    return closest(width, height, tile, sorted(ratios, key=lambda r: r[0] * r[1]))


def closest(width, height, tile, ratios):
    aspect = width / height
    best, best_diff = (1, 1), float('inf')
    for ratio in ratios:
        diff = abs(aspect - ratio[0] / ratio[1])
        if diff < best_diff:
            best, best_diff = ratio, diff
        elif diff == best_diff and width * height > 0.5 * tile * tile * ratio[0] * ratio[1]:
            best = ratio
    return best


def sizes(count):
    """Pairs of sides from a 32-bit generator: exponents spread evenly, so that small and large sizes both come."""
    state, out = 12345, []
    for _ in range(count):
        pair = []
        for _ in range(2):
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            bits = 1 + (state >> 24) % 14
            pair.append(1 + ((state >> 8) & 0xFFFF) % (1 << bits))
        # Every fourth pair has a simple ratio, where ties between grids happen.
        if state >> 30 == 0:
            pair[1] = pair[0] * (1 + (state >> 9) % 4) // (1 + (state >> 5) % 4) + 1 - (state >> 7) % 2
            pair[1] = max(1, pair[1])
        out.append(tuple(pair))
    return out


def main():
    lines = []
    for width, height in NAMED:
        for tile, max_num in ((448, 1), (448, 6), (448, 12), (448, 24), (448, 40), (224, 6)):
            i, j = choose(width, height, tile, max_num)
            lines.append(f'grid,{width},{height},{tile},{max_num},{i},{j}')
    cases = sizes(2000)
    for tile in (448, 224):
        for max_num in range(1, 41):
            ratios = sorted({(i, j) for i in range(1, 41) for j in range(1, 41) if i * j <= max_num},
                            key=lambda r: r[0] * r[1])
            h = 0xCBF29CE484222325
            for width, height in cases:
                for v in closest(width, height, tile, ratios):
                    h = ((h ^ v) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
            lines.append(f'sum,{max_num},{tile},{len(cases)},{h:016x}')
    with open(OUT, 'w') as f:
        f.write('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
