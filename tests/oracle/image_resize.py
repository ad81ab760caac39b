"""Writes tests/fixtures/image/resize.csv: checksums of pictures resized by Pillow, and of tiles as floats by torch.

    python3 tests/oracle/image_resize.py          (numpy, torch, Pillow 13)

The source pictures are not stored: `picture` below makes them from a generator that the C test has too. Lines
`resize,KIND,W,H,W2,H2,checksum` are `Image.resize((W2, H2), BICUBIC)`; `across,...` are the same in two calls, the first
changing the width alone, which is what Pillow up to version 12 computes in one. `tiles,KIND,W,H,columns,rows,tile,checksum`
are all tiles, the thumbnail last, as torchvision's ToTensor and Normalize make them (written out in torch: both are a few
float operations). `values,checksum` are the floats of the 256 levels under each channel. Checksums are 64-bit FNV-1a over
the bytes, floats as little-endian.
"""

import os

import numpy as np
import torch
from PIL import Image

OUT = os.path.join(os.path.dirname(__file__), '..', 'fixtures', 'image', 'resize.csv')
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PAIRS = [
    (16, 16, 16, 16), (1, 1, 448, 448), (2, 3, 5, 4), (7, 5, 16, 12), (16, 12, 7, 5), (640, 480, 448, 448),
    (640, 480, 1344, 896), (333, 500, 448, 896), (500, 333, 1344, 448), (1920, 1080, 448, 448),
    (1080, 1920, 448, 448), (1080, 1920, 448, 896), (448, 1000, 448, 448), (1000, 448, 448, 448), (448, 448, 224, 224),
    (225, 224, 224, 224), (224, 225, 224, 224), (3, 301, 20, 100), (5, 2000, 448, 448), (20000, 1, 448, 448),
    (1, 20000, 448, 448), (20000, 1, 5376, 448), (65535, 2, 17, 3), (2, 65535, 3, 17), (1, 2, 65, 1), (2000, 1500, 1792, 1344),
    (60, 100, 50, 80), (60, 100, 50, 79), (1000, 3000, 100, 3100), (2500, 2500, 448, 448), (100, 100, 1, 1), (4000, 30, 2240, 448),
]
TILES = [('scene', 640, 480, 3, 2, 448), ('noise', 100, 60, 1, 1, 224), ('edges', 301, 907, 1, 3, 224),
         ('noise', 224, 224, 1, 1, 224), ('scene', 1000, 100, 6, 1, 28)]


def fnv(data):
    h = np.uint64(0xCBF29CE484222325)
    value = int(h)
    for b in data:
        value = ((value ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def picture(kind, width, height):
    n = width * height * 3
    i = np.arange(n, dtype=np.uint64)
    x, y, c = (i // 3) % width, i // 3 // width, i % 3
    noise = ((i * 2654435761 + 12345) & 0xFFFFFFFF) ^ (((i * 2654435761) & 0xFFFFFFFF) >> 15)
    noise = ((noise * 2246822519) & 0xFFFFFFFF) >> 24
    if kind == 'noise':
        v = noise
    elif kind == 'edges':
        v = np.where(((x + 2 * y + 5 * c) // 37) % 2 == 1, 255, 0)
    else:
        v = (x * 255 // width + y * (c + 1) + noise // 16) & 255
    return Image.fromarray(v.astype(np.uint8).reshape(height, width, 3))


def floats(image):
    t = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    mean, std = torch.tensor(MEAN, dtype=torch.float32), torch.tensor(STD, dtype=torch.float32)
    return t.sub_(mean[:, None, None]).div_(std[:, None, None]).numpy().astype('<f4').tobytes()


def main():
    lines = []
    for k, (w, h, w2, h2) in enumerate(PAIRS):
        kind = ('noise', 'edges', 'scene')[k % 3]
        source = picture(kind, w, h)
        lines.append(f'resize,{kind},{w},{h},{w2},{h2},{fnv(source.resize((w2, h2), Image.BICUBIC).tobytes()):016x}')
        old = source.resize((w2, h), Image.BICUBIC).resize((w2, h2), Image.BICUBIC)
        if w2 * h < 5_000_000:
            lines.append(f'across,{kind},{w},{h},{w2},{h2},{fnv(old.tobytes()):016x}')
    for kind, w, h, columns, rows, tile in TILES:
        source, data = picture(kind, w, h), b''
        grid = source.resize((tile * columns, tile * rows), Image.BICUBIC)
        for k in range(columns * rows):
            x, y = k % columns * tile, k // columns * tile
            data += floats(grid.crop((x, y, x + tile, y + tile)))
        if columns * rows > 1:
            data += floats(source.resize((tile, tile), Image.BICUBIC))
        lines.append(f'tiles,{kind},{w},{h},{columns},{rows},{tile},{fnv(data):016x}')
    levels = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    lines.append(f'values,{fnv(floats(Image.fromarray(levels))):016x}')
    with open(OUT, 'w') as f:
        f.write('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
