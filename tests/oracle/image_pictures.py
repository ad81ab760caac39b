"""Writes the picture files of tests/fixtures/image/ and what Pillow sees in them (pictures.csv).

    python3 tests/oracle/image_pictures.py          (numpy, Pillow 13)

Lines of pictures.csv:
  `exact,FILE,W,H,checksum`        decoded with defaults (upright, alpha over white), FNV-1a over RGB bytes
  `hidden,FILE,W,H,checksum`       with keep_hidden_colour: Pillow's convert("RGB")
  `asis,FILE,W,H,checksum`         with ignore_orientation
  `near,FILE,REFERENCE,max,mean`   lossy: REFERENCE.png holds Pillow's pixels; bounds of the largest and mean difference
The pixels come from Pillow (ImageOps.exif_transpose, convert); alpha over white and the upper byte of 16-bit grey, which
Pillow's convert does not do, are computed here.
"""

import io
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps

OUT = os.path.join(os.path.dirname(__file__), '..', 'fixtures', 'image')
LINES = []


def path(name):
    return os.path.join(OUT, name)


def fnv(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def expect(kind, name, rgb):
    rgb = np.ascontiguousarray(rgb, dtype=np.uint8)
    LINES.append(f'{kind},{name},{rgb.shape[1]},{rgb.shape[0]},{fnv(rgb.tobytes()):016x}')


def over_white(rgba):
    rgba = np.asarray(rgba).astype(np.float64)
    a = rgba[..., 3:] / 255
    return np.floor(rgba[..., :3] * a + 255 * (1 - a) + 0.5).astype(np.uint8)


def scene(width, height, seed):
    """Something like a photograph: sky, ground, round things, a sign with letters, blur and grain."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    rgb = np.stack([120 + 100 * y, 150 + 40 * x * y, 230 - 140 * y], -1)
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(9):
        cx, cy, r = rng.integers(0, width), rng.integers(0, height), rng.integers(3, max(4, height // 4))
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    image = image.filter(ImageFilter.GaussianBlur(1.2))
    draw = ImageDraw.Draw(image)
    draw.rectangle([width // 4, height // 2, width * 3 // 4, height * 3 // 4], fill=(250, 250, 240))
    draw.text((width // 4 + 3, height // 2 + 2), 'EXIT 42', fill=(180, 20, 20))
    grain = rng.normal(0, 3, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8))


# Largest and mean difference per byte between stb_image and Pillow's libjpeg-turbo 3, measured on these pictures and rounded
# up. Chroma stored at half size is where they differ (measured: 4:2:0 at most 3, mean 0.12; 4:2:2 at most 14, in the
# last column alone, mean 0.12); the rest is rounding in the inverse DCT and the colour conversion (at most 2, mean 0.03).
BOUNDS = {'photo_422.jpg': (15, 0.15), 'photo_420.jpg': (4, 0.15), 'photo_progressive.jpg': (4, 0.15),
          'photo_low.jpg': (4, 0.15), 'photo_restart.jpg': (4, 0.15), 'wide.jpg': (3, 0.1)}


def near(name, upright=False):
    image = Image.open(path(name))
    if upright:
        image = ImageOps.exif_transpose(image)
    reference = name.rsplit('.', 1)[0] + '.ref.png'
    image.convert('RGB').save(path(reference), optimize=True)
    largest, mean = BOUNDS.get(name, (2, 0.05))
    LINES.append(f'near,{name},{reference},{largest},{mean}')


def exif(orientation, order='MM'):
    e = '>' if order == 'MM' else '<'
    make = b'PocketVL\0'
    ifd = struct.pack(e + 'H', 2)
    ifd += struct.pack(e + 'HHII', 0x010F, 2, len(make), 8 + 2 + 24 + 4)
    ifd += struct.pack(e + 'HHIHH', 0x0112, 3, 1, orientation, 0)
    return order.encode() + struct.pack(e + 'HI', 42, 8) + ifd + struct.pack(e + 'I', 0) + make


def jpegs():
    photo = scene(121, 93, 1)
    variants = {
        'photo_444.jpg': (photo, dict(quality=90, subsampling=0)),
        'photo_422.jpg': (photo, dict(quality=85, subsampling=1)),
        'photo_420.jpg': (photo, dict(quality=75, subsampling=2)),
        'photo_progressive.jpg': (photo, dict(quality=80, progressive=True)),
        'photo_low.jpg': (photo, dict(quality=20)),
        'photo_restart.jpg': (photo, dict(quality=80, restart_marker_blocks=3)),
        'photo_rgb.jpg': (photo, dict(quality=85, keep_rgb=True)),
        'photo_grey.jpg': (photo.convert('L'), dict(quality=85)),
        'photo_cmyk.jpg': (photo.convert('CMYK'), dict(quality=85)),
        'one.jpg': (Image.new('RGB', (1, 1), (200, 100, 50)), dict(quality=95)),
        'wide.jpg': (scene(1500, 2, 3), dict(quality=60)),
    }
    for name, (image, options) in variants.items():
        image.save(path(name), **options)
        near(name)
    small = scene(40, 26, 2)
    for orientation in range(1, 9):
        name = f'turned_{orientation}.jpg'
        raw = exif(orientation, 'MM' if orientation % 2 else 'II')
        small.save(path(name), quality=90, subsampling=0, exif=b'Exif\0\0' + raw)
        near(name, upright=True)


def chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def png(rows, width, height, depth, colour, interlace=0, extra=b''):
    """A PNG from ready scanline bytes (filter 0 is put before each), for what Pillow does not write."""
    raw = b''.join(b'\0' + row for row in rows)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, interlace))
            + extra + chunk(b'IDAT', zlib.compress(raw, 9)) + chunk(b'IEND', b''))


def pillow_rgb(name):
    with Image.open(path(name)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))


def write(name, data):
    with open(path(name), 'wb') as f:
        f.write(data)


def pngs():
    photo = scene(61, 47, 4)
    rng = np.random.default_rng(5)
    photo.save(path('photo.png'), optimize=True)
    expect('exact', 'photo.png', np.asarray(photo))

    rgba = photo.convert('RGBA')
    ramp = np.tile(np.linspace(0, 255, 61).round().astype(np.uint8), (47, 1))
    rgba.putalpha(Image.fromarray(ramp))
    rgba.save(path('alpha.png'), optimize=True)
    expect('exact', 'alpha.png', over_white(rgba))
    expect('hidden', 'alpha.png', pillow_rgb('alpha.png'))

    la = Image.merge('LA', (photo.convert('L'), Image.fromarray(ramp)))
    la.save(path('grey_alpha.png'))
    expect('exact', 'grey_alpha.png', over_white(la.convert('RGBA')))
    expect('hidden', 'grey_alpha.png', pillow_rgb('grey_alpha.png'))

    for colours in (2, 4, 16, 256):
        palette = photo.quantize(colours)
        name = f'palette_{colours}.png'
        palette.save(path(name), bits={2: 1, 4: 2, 16: 4, 256: 8}[colours])
        expect('exact', name, pillow_rgb(name))
    palette.save(path('palette_clear.png'), transparency=7)
    with Image.open(path('palette_clear.png')) as image:
        expect('exact', 'palette_clear.png', over_white(image.convert('RGBA')))

    photo.convert('L').save(path('grey.png'))
    expect('exact', 'grey.png', pillow_rgb('grey.png'))
    photo.convert('1').save(path('bits.png'))
    expect('exact', 'bits.png', pillow_rgb('bits.png'))

    deep = rng.integers(0, 65536, (47, 61)).astype(np.uint16)
    Image.fromarray(deep).save(path('grey_16.png'))
    expect('exact', 'grey_16.png', np.repeat((deep >> 8)[..., None], 3, -1))
    deep = (np.asarray(photo).astype(np.uint16) << 8) | rng.integers(0, 256, (47, 61, 3)).astype(np.uint16)
    write('rgb_16.png', png([r.astype('>u2').tobytes() for r in deep], 61, 47, 16, 2))
    expect('exact', 'rgb_16.png', pillow_rgb('rgb_16.png'))

    # Interlaced: seven passes, each a small picture.
    pixels, rows = np.asarray(photo), []
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        rows += [r.tobytes() for r in pixels[y0::dy, x0::dx]]
    write('interlaced.png', png(rows, 61, 47, 8, 2, interlace=1))
    expect('exact', 'interlaced.png', pillow_rgb('interlaced.png'))
    assert (pillow_rgb('interlaced.png') == pixels).all()

    turned = scene(9, 5, 6)
    write('turned_6.png', png([r.tobytes() for r in np.asarray(turned)], 9, 5, 8, 2, extra=chunk(b'eXIf', exif(6))))
    expect('exact', 'turned_6.png', np.rot90(np.asarray(turned), -1))
    expect('asis', 'turned_6.png', np.asarray(turned))
    assert (pillow_rgb('turned_6.png') == np.rot90(np.asarray(turned), -1)).all()

    Image.new('RGB', (1, 1), (3, 2, 1)).save(path('one.png'))
    expect('exact', 'one.png', pillow_rgb('one.png'))
    line = rng.integers(0, 2, (1, 20000)).astype(bool)
    Image.fromarray(line).save(path('line.png'), optimize=True)
    expect('exact', 'line.png', pillow_rgb('line.png'))


def gifs():
    photo = scene(61, 47, 7)
    photo.quantize(64).save(path('photo.gif'))
    expect('exact', 'photo.gif', pillow_rgb('photo.gif'))
    photo.quantize(32).save(path('interlaced.gif'), interlace=1)
    expect('exact', 'interlaced.gif', pillow_rgb('interlaced.gif'))
    frames = [scene(30, 20, 10 + k).quantize(16) for k in range(3)]
    frames[0].save(path('animated.gif'), save_all=True, append_images=frames[1:], duration=80, loop=0)
    expect('exact', 'animated.gif', pillow_rgb('animated.gif'))
    clear = photo.quantize(16)
    clear.save(path('clear.gif'), transparency=3)
    with Image.open(path('clear.gif')) as image:
        expect('exact', 'clear.gif', over_white(image.convert('RGBA')))


def bmps():
    photo = scene(31, 23, 8)
    photo.save(path('photo.bmp'))
    expect('exact', 'photo.bmp', np.asarray(photo))
    photo.quantize(200).save(path('palette.bmp'))
    expect('exact', 'palette.bmp', pillow_rgb('palette.bmp'))
    photo.convert('1').save(path('bits.bmp'))
    expect('exact', 'bits.bmp', pillow_rgb('bits.bmp'))
    # 32 bits without masks: the fourth byte is padding, whatever is in it. Rows from the top.
    pixels = np.asarray(photo)[..., ::-1]
    body = np.concatenate([pixels, np.full((23, 31, 1), 77, np.uint8)], -1).tobytes()
    head = struct.pack('<IiiHHIIiiII', 40, 31, -23, 1, 32, 0, len(body), 2835, 2835, 0, 0)
    write('padded.bmp', b'BM' + struct.pack('<IHHI', 54 + len(body), 0, 0, 54) + head + body)
    expect('exact', 'padded.bmp', np.asarray(photo))
    assert (pillow_rgb('padded.bmp') == np.asarray(photo)).all()
    # With masks and alpha (version 4 header).
    alpha = np.linspace(0, 255, 31).round().astype(np.uint8)
    rgba = np.concatenate([np.asarray(photo), np.tile(alpha, (23, 1))[..., None]], -1)
    body = rgba[::-1][..., [2, 1, 0, 3]].tobytes()
    head = struct.pack('<IiiHHIIiiII4I', 108, 31, 23, 1, 32, 3, len(body), 2835, 2835, 0, 0,
                       0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b'BGRs' + bytes(48)
    write('alpha.bmp', b'BM' + struct.pack('<IHHI', 14 + len(head) + len(body), 0, 0, 14 + len(head)) + head + body)
    expect('exact', 'alpha.bmp', over_white(rgba))


def large():
    # 10000 x 10000 at one bit: white with a black square in the middle.
    rows = []
    for y in range(10000):
        inside = 4000 <= y < 6000
        rows.append(b'\xff' * 500 + b'\0' * 250 + b'\xff' * 500 if inside else b'\xff' * 1250)
    write('huge.png', png(rows, 10000, 10000, 1, 0))
    # 8 x 8 pixels by its header, 64 MB unpacked.
    write('bomb.png', png([bytes(64_000_000)], 8, 8, 8, 2))


def main():
    os.makedirs(OUT, exist_ok=True)
    large()
    jpegs()
    pngs()
    gifs()
    bmps()
    with open(path('pictures.csv'), 'w') as f:
        for line in LINES:
            f.write(line + '\n')


if __name__ == '__main__':
    main()
