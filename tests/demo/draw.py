"""Draws the pictures of the demonstration model, with exact knowledge of what is where.

A picture is a *scene*: a plain dict with the natural size and, in fractions of width and height,
everything that was drawn.  `draw(rng, heldout)` returns `(PIL image, scene)`.

Kinds of scene
    shapes  1 to 8 objects, each with `shape`, `colour`, `box` (x1, y1, x2, y2 in 0..1)
    text    `text`, `chars` [(character, box)], `ink` (colour name), `kind` "word" or "digits"
    page    many words, for the vision tower only
    chart   `bars` [{label, colour, value, box}], `by` "label" or "colour", `shown` "number" or "axis"

Held-out drawing (`heldout=True`) takes sub-bands of hue and lightness, sizes, aspect ratios,
fonts, words and backgrounds that training drawing never uses; see `HELD` below.
"""

import colorsys
import glob
import math
import os
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from words import HELD_WORDS, TRAIN_WORDS

SHAPES = ["circle", "square", "triangle", "star", "heart", "rectangle", "ellipse", "pentagon",
          "hexagon", "diamond", "cross"]  # fmt: skip
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white",
           "grey"]  # fmt: skip

# Colour name -> list of (hue range in degrees, saturation range, value range).
RANGES = {
    "red": [((350, 366), (0.80, 1.0), (0.70, 1.0))],
    "orange": [((22, 36), (0.85, 1.0), (0.90, 1.0))],
    "yellow": [((49, 60), (0.65, 1.0), (0.88, 1.0))],
    "green": [((95, 150), (0.50, 1.0), (0.40, 0.85))],
    "blue": [((205, 240), (0.60, 1.0), (0.55, 1.0))],
    "purple": [((266, 290), (0.50, 1.0), (0.42, 0.85))],
    "pink": [((318, 345), (0.32, 0.60), (0.92, 1.0))],
    "brown": [((16, 30), (0.55, 0.85), (0.32, 0.52))],
    "black": [((0, 360), (0.0, 0.25), (0.0, 0.12))],
    "white": [((0, 360), (0.0, 0.02), (0.97, 1.0))],
    "grey": [((0, 360), (0.0, 0.05), (0.42, 0.65))],
}

# What only the held-out set has: the middle fifth of every range of hue (or value, for black, white
# and grey), picture sides in these bands, one object size band, these fonts and the words of HELD_WORDS.
HELD = {
    "colour": (0.40, 0.60),
    "sides": [(330, 370), (500, 540)],
    "object": (0.23, 0.26),
    "fonts": ("FreeSansBold", "URWGothic", "NotoSans-", "LiberationSansNarrow"),
}

FONT_NAMES = """DejaVuSans DejaVuSans-Bold DejaVuSerif DejaVuSerif-Bold DejaVuSansMono DejaVuSansMono-Bold
DejaVuSansCondensed DejaVuSansCondensed-Bold LiberationSans-Regular LiberationSans-Bold
LiberationSans-Italic LiberationSerif-Regular LiberationSerif-Bold LiberationMono-Regular
LiberationMono-Bold NimbusSans-Regular NimbusSans-Bold NimbusRoman-Regular NimbusRoman-Bold
NimbusMonoPS-Bold C059-Roman C059-Bold P052-Roman P052-Bold FreeSans FreeSerif FreeSerifBold FreeMonoBold
NotoSansMono-Regular NotoSansMono-Bold FreeSansBold URWGothic-Book URWGothic-Demi URWBookman-Light
URWBookman-Demi NotoSans-Regular NotoSans-Bold LiberationSansNarrow-Regular
LiberationSansNarrow-Bold NimbusSansNarrow-Bold NotoSerif-Regular NotoSerif-Bold
Cabin-Regular Cabin-Bold Cantarell-Regular Cantarell-Bold Dosis-Medium Dosis-Bold EBGaramond12-Regular
EBGaramond12-Bold Prociono Junction LinBiolinum_R LinBiolinum_RB LinLibertine_R LinLibertine_RB Play-Regular
Play-Bold RobotoSlab-Regular RobotoSlab-Bold YanoneKaffeesatz-Regular YanoneKaffeesatz-Bold Andika-Regular
CharisSIL-Regular CharisSIL-Bold Comfortaa-Regular Comfortaa-Bold Caladea-Regular Caladea-Bold Carlito-Regular
Carlito-Bold FiraCode-Medium FiraCode-Bold GenBasR GenBasB GenBkBasR Hack-Regular Hack-Bold Inconsolata
JetBrainsMono-Regular JetBrainsMono-Bold Lato-Regular Lato-Bold Lato-Black
PTC55F PTC75F PTF55F PTF75F PTN57F PTN77F PTS55F PTS75F PTM75F Quicksand-Medium
Quicksand-Bold RobotoCondensed-Regular RobotoCondensed-Bold Roboto-Regular Roboto-Bold Roboto-Black
tuffy_regular tuffy_bold Vollkorn-Regular Vollkorn-Bold Karla-Regular Karla-Bold ClearSans-Regular
ClearSans-Bold Manrope-Medium Manrope-Bold AveriaSerifGWF-Regular Mplus1-Medium Mplus1-Bold Jura-Medium
Jura-Bold LeagueSpartan-Regular LeagueSpartan-Bold ComicNeue-Regular ComicNeue-Bold""".split()
FONT_DIRS = ["/usr/share/fonts/truetype", "/usr/share/fonts/opentype"]
FONT_PACKAGES = """fonts-dejavu fonts-liberation fonts-urw-base35 fonts-freefont-ttf fonts-noto-core fonts-noto-mono fonts-cabin fonts-cantarell
fonts-dosis fonts-ebgaramond fonts-prociono fonts-junction fonts-linuxlibertine fonts-play fonts-roboto-slab fonts-roboto-unhinted
fonts-yanone-kaffeesatz fonts-sil-andika fonts-sil-charis fonts-sil-gentium-basic fonts-comfortaa fonts-crosextra-caladea
fonts-crosextra-carlito fonts-firacode fonts-hack-ttf fonts-inconsolata fonts-jetbrains-mono fonts-lato fonts-paratype
fonts-quicksand fonts-tuffy fonts-vollkorn fonts-karla fonts-clear-sans fonts-manrope fonts-averia-serif-gwf fonts-mplus
fonts-jura fonts-league-spartan fonts-comic-neue"""


def find_fonts():
    """Paths of the installed fonts among FONT_NAMES: (training, held-out)."""
    paths = {}
    for folder in FONT_DIRS:
        for path in sorted(glob.glob(folder + "/**/*.[to]tf", recursive=True)):
            paths.setdefault(os.path.splitext(os.path.basename(path))[0], path)
    missing = [n for n in FONT_NAMES if n not in paths]
    if missing:
        raise SystemExit(f"draw.py misses the fonts {', '.join(missing[:5])}...: apt-get install {FONT_PACKAGES}")
    return [paths[n] for n in FONT_NAMES if not n_held(n)], [paths[n] for n in FONT_NAMES if n_held(n)]


def n_held(name):
    return name.startswith(HELD["fonts"])


TRAIN_FONTS, HELD_FONTS = find_fonts()
FONT_CACHE = {}


def font(path, size):
    key = (path, size)
    if key not in FONT_CACHE:
        if len(FONT_CACHE) > 2000:
            FONT_CACHE.clear()
        FONT_CACHE[key] = ImageFont.truetype(path, size)
    return FONT_CACHE[key]


def band(rng, lo, hi, heldout):
    """A number of lo..hi: inside the held-out band, or outside it."""
    a, b = HELD["colour"]
    if heldout:
        return lo + (hi - lo) * rng.uniform(a, b)
    u = rng.uniform(0, 1 - (b - a))
    return lo + (hi - lo) * (u if u < a else u + (b - a))


def shade(rng, name, heldout):
    """An RGB triple that goes by this colour name."""
    h, s, v = rng.choice(RANGES[name])
    grey = name in ("black", "white", "grey")
    hue = rng.uniform(*h) if grey else band(rng, *h, heldout)
    value = band(rng, *v, heldout) if grey else rng.uniform(*v)
    rgb = colorsys.hsv_to_rgb((hue % 360) / 360, rng.uniform(*s), value)
    return tuple(int(round(255 * c)) for c in rgb)


def distance(a, b):
    """Perceived difference of two colours, roughly 0..765."""
    m = (a[0] + b[0]) / 2
    r, g, bl = (x - y for x, y in zip(a, b))
    return math.sqrt((2 + m / 256) * r * r + 4 * g * g + (2 + (255 - m) / 256) * bl * bl)


def side(rng, heldout, lo=200, hi=640):
    bands = HELD["sides"]
    while True:
        n = rng.randint(lo, hi)
        if any(a <= n <= b for a, b in bands) == heldout:
            return n


def size_of(rng, heldout, loose):
    """Natural width and height; loose lets banners of 0.65 .. 2 through, otherwise 0.71 .. 1.4."""
    if not heldout and rng.random() < 0.25:
        return rng.choice([(640, 480), (480, 640), (224, 224), (400, 300), (300, 400), (448, 448)])
    while True:
        w, h = side(rng, heldout), side(rng, heldout)
        r = w / h
        if (0.65 if loose else 1 / 1.4) <= r <= (2.0 if loose else 1.4):
            return w, h


def background(rng, w, h, heldout):
    """A background picture and its mean colour."""
    kind = rng.random()
    if kind < 0.42:
        base = (255, 255, 255) if rng.random() < 0.7 else tuple(rng.randint(243, 255) for _ in range(3))
    elif kind < 0.68:
        hue = rng.random()
        base = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(hue, rng.uniform(0.03, 0.22), rng.uniform(0.86, 1)))
    elif kind < 0.76:
        base = (rng.randint(190, 225),) * 3
    elif kind < 0.93:
        base = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0, 0.5), rng.uniform(0.04, 0.26)))
    else:
        base = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.35), rng.uniform(0.6, 0.85)))
    style = rng.random()
    if style < 0.22:  # gradient
        k = rng.uniform(-0.16, 0.16)
        end = tuple(max(0, min(255, int(c * (1 + k) + rng.randint(-8, 8)))) for c in base)
        small = Image.new("RGB", (2, 2))
        small.putdata([base, end, base, end] if rng.random() < 0.5 else [base, base, end, end])
        img = small.resize((w, h), Image.BILINEAR)
        base = tuple((a + b) // 2 for a, b in zip(base, end))
    else:
        img = Image.new("RGB", (w, h), base)
        if style < 0.27:  # ruled or squared paper
            d = ImageDraw.Draw(img)
            line = tuple(int(c * 0.88) if sum(base) > 380 else min(255, c + 22) for c in base)
            step = rng.randint(max(10, h // 16), max(12, h // 7))
            for y in range(step // 2, h, step):
                d.line([(0, y), (w, y)], fill=line, width=max(1, h // 300))
            if rng.random() < 0.5:
                for x in range(step // 2, w, step):
                    d.line([(x, 0), (x, h)], fill=line, width=max(1, h // 300))
    return img, base


def pick_colours(rng, base, n, heldout, least=150, names=None):
    """n (name, rgb) pairs that stand out from the background; names may repeat."""
    out = []
    while len(out) < n:
        name = rng.choice(names or COLOURS)
        rgb = shade(rng, name, heldout)
        if distance(rgb, base) >= least:
            out.append((name, rgb))
    return out


# ---------------------------------------------------------------- shapes

def ring(n, phase=0.0):
    return [(math.cos(2 * math.pi * i / n + phase), math.sin(2 * math.pi * i / n + phase)) for i in range(n)]


def outline(rng, shape):
    """Corner points of a shape about the origin, radius about 1, and the rotation that is allowed."""
    if shape == "circle":
        return ring(72), 0
    if shape == "ellipse":
        r = rng.uniform(0.34, 0.5)
        pts = [(x, y * r) for x, y in ring(72)]
        return (pts if rng.random() < 0.7 else [(y, x) for x, y in pts]), 6
    if shape == "square":
        return [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)], 12
    if shape == "rectangle":
        r = rng.uniform(0.34, 0.5)
        pts = [(-1, -r), (1, -r), (1, r), (-1, r)]
        return (pts if rng.random() < 0.7 else [(y, x) for x, y in pts]), 8
    if shape == "triangle":
        k = rng.uniform(0.85, 1.15)
        return [(0, -k), (-0.87, 0.5 * k), (0.87, 0.5 * k)], rng.choice([15, 15, 180])
    if shape == "star":
        inner = rng.uniform(0.38, 0.5)
        return [(r * x, r * y) for i, (x, y) in enumerate(ring(10, -math.pi / 2)) for r in [1 if i % 2 == 0 else inner]], rng.choice([10, 36])
    if shape == "heart":
        pts = []
        for i in range(60):
            t = 2 * math.pi * i / 60
            x = 16 * math.sin(t) ** 3
            y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
            pts.append((x / 16.5, y / 16.5))
        return pts, 20
    if shape == "pentagon":
        return ring(5, -math.pi / 2), rng.choice([8, 36])
    if shape == "hexagon":
        return ring(6, rng.choice([0, math.pi / 2])), 12
    if shape == "diamond":
        k = rng.uniform(0.6, 1.0)
        return [(0, -1), (k, 0), (0, 1), (-k, 0)], 5
    k = rng.uniform(0.24, 0.36)  # cross
    pts = [(-k, -1), (k, -1), (k, -k), (1, -k), (1, k), (k, k), (k, 1), (-k, 1), (-k, k), (-1, k), (-1, -k), (-k, -k)]
    return pts, rng.choice([12, 12, 45])


def finer(pts, step=0.12):
    out = []
    for (x1, y1), (x2, y2) in zip(pts, pts[1:] + pts[:1]):
        n = max(1, int(math.hypot(x2 - x1, y2 - y1) / step))
        out += [(x1 + (x2 - x1) * i / n, y1 + (y2 - y1) * i / n) for i in range(n)]
    return out


def wobble(rng, pts, amount):
    """A hand's unsteadiness: low-frequency shifts along the outline."""
    pts = finer(pts)
    n = len(pts)
    waves = [(rng.randint(2, 9), rng.uniform(0, 6.3), rng.uniform(0, 6.3)) for _ in range(4)]
    out = []
    for i, (x, y) in enumerate(pts):
        t = 2 * math.pi * i / n
        out.append((x + amount * sum(math.sin(k * t + a) for k, a, _ in waves) / 2,
                    y + amount * sum(math.sin(k * t + b) for k, _, b in waves) / 2))  # fmt: skip
    return out


def place(pts, angle, cx, cy, r):
    c, s = math.cos(angle), math.sin(angle)
    return [(cx + r * (x * c - y * s), cy + r * (x * s + y * c)) for x, y in pts]


def bounds(pts, pad=0.0):
    xs, ys = [p[0] for p in pts], [p[1] for p in pts]
    return min(xs) - pad, min(ys) - pad, max(xs) + pad, max(ys) + pad


def object_radius(rng, count, heldout):
    """Half the extent of an object, as a part of the shorter side."""
    lo, hi = HELD["object"]
    if count == 1 and rng.random() < 0.5:
        return rng.uniform(0.27, 0.46) if not heldout else rng.uniform(lo, hi)
    top = {1: 0.30, 2: 0.23, 3: 0.21, 4: 0.19, 5: 0.17, 6: 0.155}.get(count, 0.145)
    while True:
        r = rng.uniform(0.085 if count > 4 else 0.095, top)
        if heldout or not lo <= r <= hi:
            return r


def shapes_scene(rng, heldout, count=None):
    w, h = size_of(rng, heldout, False)
    ss = 2 if max(w, h) < 420 else 1
    img, base = background(rng, w * ss, h * ss, heldout)
    d = ImageDraw.Draw(img)
    n = count or rng.choice([1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8])
    hand = rng.random() < 0.22
    empty = rng.random() < (0.6 if hand else 0.22)
    # Half of the scenes repeat a shape or a colour, which makes counting worth while.
    shapes = rng.sample(SHAPES, rng.choice([1, 2, 2, 3])) if n > 2 and rng.random() < 0.6 else SHAPES
    names = rng.sample(COLOURS, 4) if n > 2 and rng.random() < 0.5 else None
    if names and not any(distance(shade(rng, c, heldout), base) > 170 for c in names):
        names = None
    objs, m = [], min(w, h) * ss
    for _ in range(n):
        for attempt in range(40):
            shape = rng.choice(shapes)
            pts, turn = outline(rng, shape)
            if hand:
                pts = wobble(rng, pts, rng.uniform(0.012, 0.035))
            angle = math.radians(rng.uniform(-turn, turn))
            r = object_radius(rng, n, heldout) * m * (0.93 if attempt > 20 else 1)
            rel = bounds(place(pts, angle, 0, 0, r), 2 * ss)
            if rel[2] - rel[0] > 0.96 * w * ss or rel[3] - rel[1] > 0.96 * h * ss:
                continue
            cx = rng.uniform(-rel[0], w * ss - rel[2])
            cy = rng.uniform(-rel[1], h * ss - rel[3])
            if n == 1 and rng.random() < 0.3:
                cx, cy = w * ss * rng.uniform(0.45, 0.55), h * ss * rng.uniform(0.45, 0.55)
            box = (cx + rel[0], cy + rel[1], cx + rel[2], cy + rel[3])
            gap = 0.02 * m
            if box[0] < 0 or box[1] < 0 or box[2] > w * ss or box[3] > h * ss:
                continue
            if any(box[0] < o[2] + gap and box[2] > o[0] - gap and box[1] < o[3] + gap and box[3] > o[1] - gap
                   for o in (q["_px"] for q in objs)):  # fmt: skip
                continue
            name, rgb = pick_colours(rng, base, 1, heldout, 170 if names or not empty else 190, names)[0]
            p = place(pts, angle, cx, cy, r)
            line = max(2 * ss, int(r * rng.uniform(0.09, 0.2)))
            if empty:
                inset = place(pts, angle, cx, cy, r - line / 2)
                d.line(inset + inset[:2], fill=rgb, width=line, joint="curve")
            else:
                d.polygon(p, fill=rgb)
                if rng.random() < 0.15:
                    edge = tuple(int(c * 0.72) for c in rgb)
                    inset = place(pts, angle, cx, cy, r - line / 4)
                    d.line(inset + inset[:2], fill=edge, width=max(1, line // 2), joint="curve")
            tight = bounds(p)
            objs.append({"shape": shape, "colour": name, "_px": box,
                         "box": (tight[0] / w / ss, tight[1] / h / ss, tight[2] / w / ss, tight[3] / h / ss)})  # fmt: skip
            break
    for o in objs:
        del o["_px"]
    if ss == 2:
        img = img.resize((w, h), Image.BOX)
    return img, {"type": "shapes", "w": w, "h": h, "objs": objs, "empty": empty}


# ---------------------------------------------------------------- text

LOWER = "abcdefghijklmnopqrstuvwxyz"


def some_text(rng, heldout):
    """(kind, text): digits, a word of the list, or random letters."""
    if rng.random() < 0.36:
        n = rng.choice([1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
        return "digits", "".join(rng.choice("0123456789") for _ in range(n))
    if heldout or rng.random() < 0.45:
        word = rng.choice(HELD_WORDS if heldout else TRAIN_WORDS)
    else:
        while True:
            n = rng.choice([1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]) if rng.random() < 0.9 else 1
            word = "".join(rng.choice(LOWER) for _ in range(n))
            if word not in HELD_WORDS:
                break
    case = rng.random()
    word = word.upper() if case < 0.45 else word if case < 0.75 else word.capitalize()
    return "word", word


def text_scene(rng, heldout, text=None):
    w, h = size_of(rng, heldout, True)
    kind, text = text or some_text(rng, heldout)
    img, base = background(rng, w, h, heldout)
    path = rng.choice(HELD_FONTS if heldout else TRAIN_FONTS)
    unit = font(path, 100)
    extent = unit.getbbox(text)
    # Size: each character at least a 13th and at most a 3.5th of the picture's width.
    per = (extent[2] - extent[0]) / len(text)
    lo = max(100 * w / 13 / per, 100 * 22 * h / 224 / 72)
    hi = min(100 * 0.92 * w / (extent[2] - extent[0]), 100 * 0.85 * h / max(60, extent[3] - extent[1]), 100 * w / 3.5 / per)
    size = int(max(lo, lo + (hi - lo) * rng.random() ** 1.2))
    size = max(10, min(size, int(hi)))
    f = font(path, size)
    panel = None
    if rng.random() < 0.18:  # a sign: text on a coloured panel
        panel = pick_colours(rng, base, 1, heldout, 60)[0]
    ground = panel[1] if panel else base
    ink = pick_colours(rng, ground, 1, heldout, 270, ["black"] if rng.random() < 0.45 and sum(ground) > 330 else None)[0]
    x1, y1, x2, y2 = f.getbbox(text)
    tw, th = x2 - x1, y2 - y1
    ox = rng.uniform(0.02 * w, max(0.021 * w, 0.98 * w - tw)) - x1
    oy = rng.uniform(0.04 * h, max(0.041 * h, 0.96 * h - th)) - y1
    angle = rng.uniform(-5, 5) if rng.random() < 0.3 else 0.0
    mask = Image.new("L", (w, h), 0)
    ImageDraw.Draw(mask).text((ox, oy), text, font=f, fill=255)
    boxes, pen = [], ox
    for i, c in enumerate(text):
        a = ox + f.getlength(text[:i])
        b = ox + f.getlength(text[: i + 1])
        boxes.append((a, oy + y1, b, oy + y2))
    if angle:
        mx, my = ox + x1 + tw / 2, oy + y1 + th / 2
        half = math.radians(angle)
        if abs(math.sin(half)) * tw / 2 + th / 2 > min(my, h - my):
            angle = 0.0
        else:
            mask = mask.rotate(angle, Image.BICUBIC, center=(mx, my))
            c, s = math.cos(-half), math.sin(-half)
            turned = []
            for a, y, b, z in boxes:
                px, py = (a + b) / 2 - mx, (y + z) / 2 - my
                qx, qy = mx + px * c - py * s, my + px * s + py * c
                turned.append((qx - (b - a) / 2, qy - (z - y) / 2, qx + (b - a) / 2, qy + (z - y) / 2))
            boxes = turned
    if panel:
        pad = 0.3 * size
        full = (min(b[0] for b in boxes) - pad, min(b[1] for b in boxes) - pad, max(b[2] for b in boxes) + pad, max(b[3] for b in boxes) + pad)
        ImageDraw.Draw(img).rectangle(full, fill=panel[1])
    img.paste(ink[1], (0, 0), mask)
    chars = [(c, (b[0] / w, b[1] / h, b[2] / w, b[3] / h)) for c, b in zip(text, boxes)]
    return img, {"type": "text", "w": w, "h": h, "kind": kind, "text": text, "chars": chars, "ink": ink[0]}


def page_scene(rng, heldout):
    """Lines of words and digits over the whole picture: the vision tower learns letters from these.

    No questions are put to a page.  `chars` has (character, box, place in its word, ink) here.
    """
    w, h = size_of(rng, heldout, True)
    img, base = background(rng, w, h, heldout)
    d = ImageDraw.Draw(img)
    chars, y = [], rng.uniform(0, 0.06) * h
    while True:
        path = rng.choice(HELD_FONTS if heldout else TRAIN_FONTS)
        unit = font(path, 100)
        lo = max(100 * 16 * w / 224 / 60, 100 * 20 * h / 224 / 72)
        f = font(path, int(lo * rng.uniform(1, 2.2 if rng.random() < 0.8 else 3.5)))
        x, top, bottom = rng.uniform(0.01, 0.12) * w, None, y
        ink = pick_colours(rng, base, 1, heldout, 250, ["black"] if rng.random() < 0.4 and sum(base) > 330 else None)[0]
        while True:
            text = some_text(rng, heldout)[1]
            box = f.getbbox(text)
            if x + box[2] > 0.99 * w or y + box[3] - box[1] > 0.99 * h:
                text = text[: max(1, int(len(text) * (0.99 * w - x) / max(1, box[2])))]
                box = f.getbbox(text)
            if x + box[2] > 0.99 * w or y + box[3] - box[1] > 0.99 * h:
                break
            d.text((x, y - box[1]), text, font=f, fill=ink[1])
            for i, c in enumerate(text):
                a, b = x + f.getlength(text[:i]), x + f.getlength(text[: i + 1])
                chars.append((c, (a / w, y / h, b / w, (y + box[3] - box[1]) / h), i, ink[0]))
            top, bottom = y, max(bottom, y + box[3] - box[1])
            x += box[2] + f.size * rng.uniform(0.5, 1.2)
        if top is None:
            break
        y = bottom + h * rng.uniform(0.02, 0.08)
    return img, {"type": "page", "w": w, "h": h, "chars": chars, "objs": chars}


# ---------------------------------------------------------------- charts

def chart_scene(rng, heldout):
    w, h = size_of(rng, heldout, False)
    w, h = max(w, 260), max(h, 260)
    dark = rng.random() < 0.15
    base = (255, 255, 255) if rng.random() < 0.6 else tuple(rng.randint(240, 255) for _ in range(3))
    if dark:
        base = tuple(rng.randint(15, 45) for _ in range(3))
    fore = (235, 235, 235) if dark else (30, 30, 30)
    img = Image.new("RGB", (w, h), base)
    d = ImageDraw.Draw(img)
    n = rng.choice([3, 3, 4, 4, 5])
    by = rng.choice(["label", "colour"])
    shown = rng.choice(["number", "axis"])
    top = 20 if shown == "number" and rng.random() < 0.5 else 10
    values = rng.sample(range(1, top + 1), n)
    path = rng.choice([p for p in (HELD_FONTS if heldout else TRAIN_FONTS) if "Light" not in p and "Book" not in p and "Mono" not in p])
    f = font(path, max(10, int(rng.uniform(0.08, 0.1) * h)))
    fw = font(path, max(10, int(rng.uniform(0.065, 0.08) * h)))
    usable = [c for c in COLOURS if c not in ("white", "black")]
    if by == "colour":
        while True:
            names = rng.sample(usable, n)
            paint = [shade(rng, c, heldout) for c in names]
            if all(distance(p, base) > 120 for p in paint):
                break
    else:
        one = pick_colours(rng, base, 1, heldout, 160, usable)[0]
        names, paint = [one[0]] * n, [one[1]] * n
    start = rng.randint(0, 5)
    labels = rng.choice([LOWER.upper()[start : start + n], "".join(rng.sample(LOWER.upper(), n)), "ABCDE"[:n]])
    left = (0.15 if shown == "axis" else rng.uniform(0.04, 0.1)) * w
    right, bottom = w * rng.uniform(0.93, 0.98), h * (0.87 if by == "label" else rng.uniform(0.88, 0.95))
    ceiling = h * (rng.uniform(0.06, 0.1) if shown == "axis" else rng.uniform(0.14, 0.18))
    line = max(1, int(h / 200))
    unit = (bottom - ceiling) / top
    if shown == "axis":
        grid = tuple(int(0.82 * b + 0.18 * f_) for b, f_ in zip(base, fore))
        for v in range(0, top + 1, 2):
            y = bottom - v * unit
            if v:
                d.line([(left, y), (right, y)], fill=grid, width=line)
            d.text((left - 0.015 * w, y), str(v), font=fw, fill=fore, anchor="rm")
    d.line([(left, ceiling - 0.02 * h), (left, bottom), (right, bottom)], fill=fore, width=line)
    step = (right - left) / n
    width = step * rng.uniform(0.5, 0.8)
    bars = []
    for i in range(n):
        cx = left + (i + 0.5) * step
        y = bottom - values[i] * unit
        box = (cx - width / 2, y, cx + width / 2, bottom)
        d.rectangle(box, fill=paint[i])
        mark = None
        if shown == "number":
            d.text((cx, y - 0.01 * h), str(values[i]), font=f, fill=fore, anchor="mb")
        if by == "label":
            d.text((cx, bottom + 0.012 * h), labels[i], font=f, fill=fore, anchor="mt")
            mark = (cx / w, (bottom + 0.05 * h) / h)
        bars.append({"label": labels[i] if by == "label" else None, "colour": names[i], "value": values[i],
                     "box": (box[0] / w, y / h, box[2] / w, bottom / h), "mark": mark})  # fmt: skip
    return img, {"type": "chart", "w": w, "h": h, "bars": bars, "by": by, "shown": shown}


# ---------------------------------------------------------------- all together

def spoil(rng, img):
    """What cameras and files do: slight blur, noise is added later, JPEG."""
    import io

    if rng.random() < 0.12:
        img = img.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.1) * min(img.size) / 300))
    if rng.random() < 0.25:
        data = io.BytesIO()
        img.save(data, "JPEG", quality=rng.randint(45, 92))
        img = Image.open(data).convert("RGB")
    return img


def draw(rng, heldout=False, kind=None):
    u = rng.random()
    kind = kind or ("shapes" if u < 0.36 else "text" if u < 0.63 else "chart" if u < 0.79 else "page")
    img, scene = {"shapes": shapes_scene, "text": text_scene, "chart": chart_scene, "page": page_scene}[kind](rng, heldout)
    if not scene.get("objs", True):
        return draw(rng, heldout, kind)
    return spoil(rng, img), scene


def shrink(img, size):
    """The picture as the model sees it: stretched to a square with Pillow's bicubic filter."""
    return np.array(img.convert("RGB").resize((size, size), Image.BICUBIC))


# ---------------------------------------------------------------- dense labels for training

CHARS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
AUX = {"cls": 14, "col": 12, "ch": 63, "idx": 8, "ctr": 2, "all": 9, "same_shape": 9, "same_col": 9,
       "val": 21, "rank": 6, "label": 27, "bars": 6, "box": 4}  # fmt: skip
AUX_KEYS = [k for k in AUX if k != "box"]


def dense_labels(scene, grid):
    """uint8 [len(AUX_KEYS), grid, grid] of classes and float16 [4, grid, grid] of boxes; 0 means nothing."""
    lab = np.zeros((len(AUX_KEYS), grid, grid), np.uint8)
    box = np.zeros((4, grid, grid), np.float16)
    at = {k: i for i, k in enumerate(AUX_KEYS)}

    def cells(b, shrink_by=0.0):
        x1, y1, x2, y2 = b
        mx, my = (x2 - x1) * shrink_by, (y2 - y1) * shrink_by
        a = max(0, math.ceil((x1 + mx) * grid - 0.5)), max(0, math.ceil((y1 + my) * grid - 0.5))
        z = min(grid, math.floor((x2 - mx) * grid - 0.5) + 1), min(grid, math.floor((y2 - my) * grid - 0.5) + 1)
        cx, cy = min(grid - 1, max(0, int((x1 + x2) / 2 * grid))), min(grid - 1, max(0, int((y1 + y2) / 2 * grid)))
        if z[0] <= a[0]:
            a, z = (cx, a[1]), (cx + 1, z[1])
        if z[1] <= a[1]:
            a, z = (a[0], cy), (z[0], cy + 1)
        return slice(a[1], z[1]), slice(a[0], z[0]), (cy, cx)

    if scene["type"] == "shapes":
        objs = scene["objs"]
        for o in objs:
            ys, xs, mid = cells(o["box"], 0.08)
            for key, value in (
                ("cls", 1 + SHAPES.index(o["shape"])),
                ("col", 1 + COLOURS.index(o["colour"])),
                ("all", len(objs)),
                ("same_shape", sum(p["shape"] == o["shape"] for p in objs)),
                ("same_col", sum(p["colour"] == o["colour"] for p in objs)),
            ):
                lab[at[key], ys, xs] = value
            lab[at["ctr"]][mid] = 1
            box[:, ys, xs] = np.array(o["box"], np.float16)[:, None, None]
    elif scene["type"] in ("text", "page"):
        for i, (c, b, *more) in enumerate(scene["chars"]):
            i, ink = more or (i, scene["ink"] if "ink" in scene else None)
            ys, xs, mid = cells(b)
            lab[at["cls"], ys, xs] = 12
            lab[at["col"], ys, xs] = 1 + COLOURS.index(ink)
            lab[at["ch"], ys, xs] = 1 + CHARS.index(c)
            lab[at["idx"], ys, xs] = 1 + i
            lab[at["ctr"]][mid] = 1
        if scene["type"] == "text":
            lab[at["all"]][lab[at["cls"]] > 0] = len(scene["chars"])
    else:
        order = sorted((b["value"] for b in scene["bars"]), reverse=True)
        for i, b in enumerate(scene["bars"]):
            ys, xs, mid = cells(b["box"])
            for key, value in (
                ("cls", 13),
                ("col", 1 + COLOURS.index(b["colour"])),
                ("idx", 1 + i),
                ("val", b["value"]),
                ("rank", 1 + order.index(b["value"])),
                ("bars", len(order)),
                ("label", 1 + LOWER.upper().index(b["label"]) if b["label"] else 0),
            ):
                lab[at[key], ys, xs] = value
            box[:, ys, xs] = np.array(b["box"], np.float16)[:, None, None]
            if b["mark"]:
                cell = min(grid - 1, int(b["mark"][1] * grid)), int(b["mark"][0] * grid)
                lab[at["ch"]][cell] = 1 + CHARS.index(b["label"])
                for key in ("idx", "rank", "val"):
                    lab[at[key]][cell] = {"idx": 1 + i, "rank": 1 + order.index(b["value"]), "val": b["value"]}[key]
    return lab, box


if __name__ == "__main__":  # a contact sheet to look at: python draw.py OUT.png [held]
    import sys

    rng = random.Random(3)
    sheet = Image.new("RGB", (8 * 230, 6 * 230), (90, 90, 90))
    for i in range(48):
        picture, info = draw(rng, len(sys.argv) > 2)
        sheet.paste(Image.fromarray(shrink(picture, 224)), (230 * (i % 8) + 3, 230 * (i // 8) + 3))
    sheet.save(sys.argv[1])
