"""Draws the sample pictures that the page offers: web/samples/*.jpg and samples.json.

    python tests/demo/samples.py
"""

import json
import os
import random

import draw

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "web", "samples")

# file, seed, kind of scene, what to draw, size, question in English and Chinese, alternative text
SAMPLES = [
    ("shapes", 11, "shapes", 5, (640, 480), "How many shapes are there?", "图中有几个图形？", "Several coloured shapes"),
    ("three", 23, "shapes", 3, (640, 480), "Describe the picture.", "描述这张图片。", "Three coloured shapes"),
    ("one", 31, "shapes", 1, (480, 480), "What shape is this?", "这是什么形状？", "One large shape"),
    ("two", 47, "shapes", 2, (640, 480), "What is in the picture?", "图中有什么？", "Two coloured shapes"),
    ("word", 5, "text", ("word", "Planet"), (640, 400), "What does it say?", "图中写着什么？", "A printed word"),
    ("digits", 8, "text", ("digits", "2048"), (560, 420), "What number is this?", "这是什么数字？", "A printed number"),
    ("bars-letters", 2, "chart", ("label", "number"), (640, 480), "Which bar is the highest?", "哪个柱子最高？", "A bar chart with letters"),
    ("bars-colours", 9, "chart", ("colour", "axis"), (640, 480), "How many bars are there?", "有几根柱子？", "A bar chart with coloured bars"),
]


def main():
    os.makedirs(FOLDER, exist_ok=True)
    entries = []
    for name, seed, kind, what, size, en, zh, alt in SAMPLES:
        rng = random.Random(seed)
        keep, draw.size_of = draw.size_of, lambda *_, size=size: size
        while True:
            if kind == "chart":
                img, scene = draw.chart_scene(rng, False)
                good = (scene["by"], scene["shown"]) == what
            elif kind == "text":
                img, scene = draw.text_scene(rng, False, what)
                chars = [c[1] for c in scene["chars"]]
                good = chars[-1][2] - chars[0][0] > 0.5
            else:
                img, scene = draw.shapes_scene(rng, False, what)
                pairs = {(o["colour"], o["shape"]) for o in scene["objs"]}
                good = len(pairs) == what == len(scene["objs"])
            if good:
                break
        draw.size_of = keep
        file = f"{name}.jpg"
        img.save(os.path.join(FOLDER, file), quality=90)
        if name == "two":
            o = scene["objs"][0]
            from questions import ZH_COLOUR, ZH_SHAPE

            en, zh = f"Where is the {o['colour']} {o['shape']}?", f"{ZH_COLOUR[o['colour']]}{ZH_SHAPE[o['shape']]}在哪里？"
        entries.append({"file": file, "width": img.width, "height": img.height, "alt": alt, "question": {"en": en, "zh": zh}})
    with open(os.path.join(FOLDER, "samples.json"), "w", encoding="utf-8") as f:
        json.dump({"samples": entries}, f, ensure_ascii=False, indent=2)
        f.write("\n")


if __name__ == "__main__":
    main()
