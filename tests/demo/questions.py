"""Questions and answers about a scene, in English and Chinese.

`ask(rng, scene, kind)` returns one question as a dict, or None when the scene does not allow one:
    kind, lang, question, answer and how to grade: `accept` (strings), `boxes` or `must` (phrases)
The wording of the question alone decides the form of the answer (a word or a sentence), so that
there is one right answer to learn.
"""

from draw import COLOURS, SHAPES

KINDS = ["shape", "colour", "count", "position", "word", "digits", "chart", "box", "describe", "scope"]

ZH_SHAPE = dict(zip(SHAPES, "圆形 正方形 三角形 星形 心形 长方形 椭圆形 五边形 六边形 菱形 十字形".split()))
ZH_COLOUR = dict(zip(COLOURS, "红色 橙色 黄色 绿色 蓝色 紫色 粉色 棕色 黑色 白色 灰色".split()))
PLURAL = {s: s + "s" for s in SHAPES} | {"cross": "crosses"}
ZONES = {
    (0, 0): ("top left", "左上角"), (1, 0): ("top", "上方"), (2, 0): ("top right", "右上角"),
    (0, 1): ("left", "左边"), (1, 1): ("centre", "中间"), (2, 1): ("right", "右边"),
    (0, 2): ("bottom left", "左下角"), (1, 2): ("bottom", "下方"), (2, 2): ("bottom right", "右下角"),
}  # fmt: skip

HONEST = (
    "I am a small demonstration model: I only know drawn shapes, colours, counts, places, short words, digits and bar charts.",
    "我是一个小型演示模型，只认识画出来的形状、颜色、数量、位置、短单词、数字和柱状图。",
)
HELLO = (
    "Hello! Show me a picture with shapes, a short word, digits or a bar chart, and ask me about it.",
    "你好！给我一张有形状、短单词、数字或柱状图的图片，然后向我提问吧。",
)
SCOPE_EN = [
    "Who won the election?", "What is the capital of France?", "Write a poem.", "Tell me a joke.", "Who are you?",
    "What can you do?", "What is the weather today?", "How old is the person?", "Who is this?", "What brand is this car?",
    "Translate this into German.", "What is the meaning of life?", "Is this food healthy?", "What breed is the dog?",
    "Write a program in Python.", "What is 12 times 7?", "Which country is this?", "How much does it cost?",
    "What time is it?", "Who painted this?", "What are you?", "Can you help me?", "What is your name?", "Are you a robot?",
    "Who made you?", "Explain quantum physics.", "What is the news today?", "Is there a cat in the photo?",
    "Which city is this?", "Solve this equation.", "What happened in 1990?", "Do you like music?", "Help me with my homework.",
    "What animal is this?", "What is the person doing?", "Summarise this document.", "What kind of plant is this?",
]  # fmt: skip
SCOPE_ZH = [
    "谁赢得了选举？", "法国的首都是哪里？", "写一首诗。", "讲个笑话。", "你是谁？", "你能做什么？", "今天天气怎么样？",
    "这个人多大了？", "这是谁？", "这辆车是什么牌子？", "把这个翻译成德语。", "人生的意义是什么？", "这种食物健康吗？",
    "这只狗是什么品种？", "用Python写一个程序。", "这是哪个国家？", "这个多少钱？", "现在几点？", "这是谁画的？",
    "你会什么？", "你叫什么名字？", "你是机器人吗？", "谁创造了你？", "今天有什么新闻？", "照片里有猫吗？", "这是哪个城市？",
    "这是什么动物？", "这个人在做什么？", "总结这份文件。", "这是什么植物？", "帮我做作业。",
]  # fmt: skip
HELLO_EN = ["Hello", "Hello!", "Hi", "Hi!", "Hey", "Good morning", "Good evening", "Hello there", "hello", "hi"]
HELLO_ZH = ["你好", "你好！", "您好", "早上好", "嗨", "大家好", "晚上好"]

# Wordings that only the held-out set has: a quarter of its questions out of scope.
HELD_SCOPE = ["Who is the president?", "What is the largest ocean?", "Write a story.", "世界上最高的山是什么？", "写一个故事。",
              "When did the war end?", "Who wrote this book?", "这本书是谁写的？"]  # fmt: skip

TOPICS_EN = """song film team king queen teacher doctor moon sun sea mountain city river company game book house train
phone computer recipe law bank hotel airport language church army tree bird fish horse history money""".split()
PLACES_EN = "Spain Italy China Japan India Brazil Canada Egypt Kenya Peru Norway Poland Turkey Mexico Greece Cuba".split()
TOPICS_ZH = "歌曲 电影 球队 国王 老师 医生 月亮 太阳 大海 城市 河流 公司 游戏 手机 电脑 菜谱 法律 银行 酒店 语言 历史".split()
PLACES_ZH = "西班牙 意大利 中国 日本 印度 巴西 加拿大 埃及 秘鲁 挪威 波兰 墨西哥 希腊".split()


def off_topic(rng, zh):
    """A question that the model cannot know anything about."""
    if rng.random() < 0.4:
        return rng.choice(SCOPE_ZH if zh else SCOPE_EN)
    if zh:
        t, p = rng.choice(TOPICS_ZH), rng.choice(PLACES_ZH)
        return rng.choice([f"谁发明了{t}？", f"{p}的首都是哪里？", f"给我讲讲{t}。", f"谁是{p}的总统？", f"写一篇关于{t}的文章。", f"最好的{t}是什么？",
                           f"{p}有多少人？", f"{t}是谁的？", f"为什么{t}很重要？", f"{p}最高的山是什么？", f"怎么去{p}？", f"推荐一个{t}。"])  # fmt: skip
    t, p = rng.choice(TOPICS_EN), rng.choice(PLACES_EN)
    return rng.choice([f"Who made the {t}?", f"What is the capital of {p}?", f"Tell me about the {t}.", f"Who is the president of {p}?",
                       f"Write a letter about the {t}.", f"What is the best {t}?", f"How many people live in {p}?", f"Who owns the {t}?",
                       f"Why is the {t} important?", f"What is the oldest {t} in {p}?", f"How do I get to {p}?", f"When did the {t} begin?",
                       f"Who found {p}?", f"Is the {t} expensive?", f"Write a song about {p}.", f"What is the history of the {t}?"])  # fmt: skip


def a(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def listing(parts, last, comma=", "):
    return parts[0] if len(parts) == 1 else comma.join(parts[:-1]) + last + parts[-1]


def one(kind, zh, question, answer, *accept, **more):
    qa = {"kind": kind, "lang": "zh" if zh else "en", "question": question, "answer": answer}
    qa.update(more or {"accept": [answer, *accept]})
    return qa


def centre(o):
    x1, y1, x2, y2 = o["box"]
    return (x1 + x2) / 2, (y1 + y2) / 2


def extremes(objs):
    """{(en, zh): object} for objects that are clearly the furthest to one side."""
    out = {}
    if len(objs) < 2:
        return out
    for names, axis, sign in (
        (("leftmost", "最左边"), 0, 1), (("rightmost", "最右边"), 0, -1), (("topmost", "最上面"), 1, 1), (("bottommost", "最下面"), 1, -1),
    ):  # fmt: skip
        order = sorted(objs, key=lambda o: sign * centre(o)[axis])
        if sign * (centre(order[1])[axis] - centre(order[0])[axis]) > 0.07:
            out[names] = order[0]
    return out


def referents(scene):
    """(English, Chinese, object) of every way to name exactly one object."""
    objs, out = scene["objs"], []
    for o in objs:
        same = [p for p in objs if p["shape"] == o["shape"]]
        if sum(p["colour"] == o["colour"] for p in same) == 1:
            out.append((f"{o['colour']} {o['shape']}", ZH_COLOUR[o["colour"]] + ZH_SHAPE[o["shape"]], o))
            if len(same) == 1:
                out.append((o["shape"], ZH_SHAPE[o["shape"]], o))
    return out


def shape(rng, scene, zh):
    if scene["type"] != "shapes":
        return None
    objs = scene["objs"]
    form = rng.random()
    if form < 0.16:  # yes or no
        real = {(o["colour"], o["shape"]) for o in objs}
        if rng.random() < 0.5:
            c, s = rng.choice(sorted(real))
        else:
            c, s = rng.choice(objs)["colour"], rng.choice(SHAPES)
            if rng.random() < 0.5:
                c, s = rng.choice(COLOURS), rng.choice(objs)["shape"]
        yes = (c, s) in real
        en = f"Is there {a(c + ' ' + s)}" + rng.choice(["?", " in the picture?"])
        cn = rng.choice(["图中有{}{}吗？", "有没有{}{}？"]).format(ZH_COLOUR[c], ZH_SHAPE[s])
        return one("shape", zh, cn if zh else en, ("有" if yes else "没有") if zh else ("Yes" if yes else "No"))
    if len(objs) == 1:
        s = objs[0]["shape"]
        if form < 0.3:
            q = rng.choice(["请说出图中的形状。", "请告诉我这是什么形状。"]) if zh else rng.choice(["Tell me what shape this is.", "Please name the shape."])
            return one("shape", zh, q, f"这是{ZH_SHAPE[s]}。" if zh else f"It is {a(s)}.", ZH_SHAPE[s] if zh else s)
        q = rng.choice(["这是什么形状？", "图中是什么形状？", "这是什么图形？", "什么形状？", "图里画的是什么形状？"]) if zh else rng.choice(
            ["What shape is this?", "What shape is it?", "Which shape is in the picture?", "What shape is drawn here?", "Which shape do you see?",
             "What is the shape?", "What shape is in the image?", "What shape is shown?"])  # fmt: skip
        return one("shape", zh, q, ZH_SHAPE[s] if zh else s)
    ends = extremes(objs)
    unique = [o for o in objs if sum(p["colour"] == o["colour"] for p in objs) == 1]
    if ends and (form < 0.45 or not unique):
        (en, cn), o = rng.choice(sorted(ends.items(), key=lambda e: e[0]))
        q = rng.choice([f"{cn}的是什么形状？", f"{cn}的图形是什么形状？"]) if zh else rng.choice(
            [f"What shape is the {en} object?", f"Which shape is the {en} one?", f"What is the {en} shape?"])  # fmt: skip
    elif unique:
        o = rng.choice(unique)
        c, k = o["colour"], ZH_COLOUR[o["colour"]]
        q = rng.choice([f"{k}的是什么形状？", f"{k}的图形是什么形状？", f"什么形状是{k}的？"]) if zh else rng.choice(
            [f"What shape is the {c} object?", f"Which shape is {c}?", f"What shape is the {c} one?", f"What is the {c} shape?", f"What shape is {c}?"])  # fmt: skip
    else:
        return None
    return one("shape", zh, q, ZH_SHAPE[o["shape"]] if zh else o["shape"])


def grey_too(c):
    return ["gray"] if c == "grey" else []


def colour(rng, scene, zh):
    word = rng.choice(["colour", "color"])
    if scene["type"] == "text":
        c = scene["ink"]
        q = rng.choice(["文字是什么颜色？", "字是什么颜色的？"]) if zh else rng.choice(
            [f"What {word} is the text?", f"What {word} are the letters?" if scene["kind"] == "word" else f"What {word} are the digits?", f"Which {word} is the writing?"])  # fmt: skip
        return one("colour", zh, q, ZH_COLOUR[c] if zh else c, *grey_too(c))
    if scene["type"] == "chart":
        if scene["by"] != "label":
            return None
        c = scene["bars"][0]["colour"]
        q = "柱子是什么颜色？" if zh else f"What {word} are the bars?"
        return one("colour", zh, q, ZH_COLOUR[c] if zh else c, *grey_too(c))
    objs = scene["objs"]
    form = rng.random()
    unique = [o for o in objs if sum(p["shape"] == o["shape"] for p in objs) == 1]
    if form < 0.15 and unique:
        o = rng.choice(unique)
        yes = rng.random() < 0.5
        c = o["colour"] if yes else rng.choice([k for k in COLOURS if k != o["colour"]])
        q = f"{ZH_SHAPE[o['shape']]}是{ZH_COLOUR[c]}的吗？" if zh else f"Is the {o['shape']} {c}?"
        return one("colour", zh, q, ("是" if yes else "不是") if zh else ("Yes" if yes else "No"))
    if len(objs) == 1 and form < 0.6:
        c = objs[0]["colour"]
        q = rng.choice(["这是什么颜色？", "图形是什么颜色？", "它是什么颜色的？", "什么颜色？"]) if zh else rng.choice(
            [f"What {word} is it?", f"What {word} is this shape?", f"What {word} is the shape?", f"What {word} is this?", f"Which {word} is it?",
             f"What {word} is the object?"])  # fmt: skip
        return one("colour", zh, q, ZH_COLOUR[c] if zh else c, *grey_too(c))
    ends = extremes(objs)
    if ends and (form < 0.35 or not unique):
        (en, cn), o = rng.choice(sorted(ends.items(), key=lambda e: e[0]))
        q = f"{cn}的图形是什么颜色？" if zh else rng.choice([f"What {word} is the {en} object?", f"What {word} is the {en} shape?"])
        return one("colour", zh, q, ZH_COLOUR[o["colour"]] if zh else o["colour"], *grey_too(o["colour"]))
    if not unique:
        return None
    o = rng.choice(unique)
    s, z, c = o["shape"], ZH_SHAPE[o["shape"]], o["colour"]
    if form > 0.88:
        q = rng.choice([f"请告诉我{z}的颜色。", f"请说出{z}的颜色。"]) if zh else f"Tell me the {word} of the {s}."
        return one("colour", zh, q, f"{z}是{ZH_COLOUR[c]}的。" if zh else f"The {s} is {c}.", ZH_COLOUR[c] if zh else c)
    q = rng.choice([f"{z}是什么颜色？", f"{z}是什么颜色的？", f"图中的{z}是什么颜色？"]) if zh else rng.choice(
        [f"What {word} is the {s}?", f"Which {word} is the {s}?", f"What {word} is the {s} in the picture?", f"What is the {word} of the {s}?"])  # fmt: skip
    return one("colour", zh, q, ZH_COLOUR[c] if zh else c, *grey_too(c))


def count(rng, scene, zh):
    if scene["type"] != "shapes":
        return None
    objs, form = scene["objs"], rng.random()
    if form < 0.4:
        n = len(objs)
        if rng.random() < 0.15:
            q = "请数一数图形的数量。" if zh else "Count the shapes."
            return one("count", zh, q, f"一共有{n}个图形。" if zh else f"There {'is 1 shape' if n == 1 else f'are {n} shapes'}.", str(n))
        q = rng.choice(["图中有几个图形？", "一共有多少个形状？", "有几个图形？", "图里有多少个图形？"]) if zh else rng.choice(
            ["How many shapes are there?", "How many objects are there?", "How many shapes are in the picture?", "How many objects do you see?",
             "How many objects are in the picture?", "How many shapes do you see?", "How many things are there?"])  # fmt: skip
        return one("count", zh, q, str(n))
    if form < 0.72:
        s = rng.choice(objs)["shape"] if rng.random() < 0.9 else rng.choice(SHAPES)
        n = sum(o["shape"] == s for o in objs)
        if rng.random() < 0.12:
            q = f"请数一数{ZH_SHAPE[s]}的数量。" if zh else f"Count the {PLURAL[s]}."
            return one("count", zh, q, f"一共有{n}个{ZH_SHAPE[s]}。" if zh else f"There {'is 1 ' + s if n == 1 else f'are {n} {PLURAL[s]}'}.", str(n))
        q = rng.choice(["有几个{}？", "图中有多少个{}？", "图里有几个{}？"]).format(ZH_SHAPE[s]) if zh else rng.choice(
            ["How many {} are there?", "How many {} are in the picture?", "How many {} do you see?", "How many {} can you see?"]).format(PLURAL[s])  # fmt: skip
        return one("count", zh, q, str(n))
    c = rng.choice(objs)["colour"] if rng.random() < 0.9 else rng.choice(COLOURS)
    n = sum(o["colour"] == c for o in objs)
    q = rng.choice(["有几个{}的图形？", "图中有多少个{}的图形？", "{}的图形有几个？"]).format(ZH_COLOUR[c]) if zh else rng.choice(
        ["How many {} objects are there?", "How many {} shapes are there?", "How many {} shapes are in the picture?", "How many objects are {}?"]).format(c)  # fmt: skip
    return one("count", zh, q, str(n))


def zone(x, y, margin=0.045):
    out = []
    for v in (x, y):
        if min(abs(v - 1 / 3), abs(v - 2 / 3)) < margin:
            return None
        out.append(int(v * 3))
    return ZONES[tuple(out)]


def position(rng, scene, zh):
    if scene["type"] == "text":
        b = [c[1] for c in scene["chars"]]
        place = zone((min(x[0] for x in b) + max(x[2] for x in b)) / 2, (min(x[1] for x in b) + max(x[3] for x in b)) / 2)
        q = "文字在图片的哪个部分？" if zh else rng.choice(["In which part of the picture is the text?", "Which part of the picture has the text?"])
        return place and one("position", zh, q, place[zh])
    if scene["type"] != "shapes":
        return None
    refs = referents(scene)
    if not refs:
        return None
    en, cn, o = rng.choice(refs)
    others = [r for r in refs if r[2] is not o]
    if not others or rng.random() < 0.5:
        place = zone(*centre(o))
        if not place:
            return None
        q = rng.choice([f"{cn}在图片的哪个部分？", f"{cn}在图中的哪个位置？", f"{cn}在图片的哪一边？"]) if zh else rng.choice(
            [f"In which part of the picture is the {en}?", f"Which part of the picture is the {en} in?", f"At which place in the picture is the {en}?",
             f"In which part of the image is the {en}?"])  # fmt: skip
        more = {"centre": ["center", "middle"]}.get(place[0], [])
        return one("position", zh, q, place[zh], *([] if zh else more))
    en2, cn2, o2 = rng.choice(others)
    axis = rng.randrange(2)
    delta = centre(o2)[axis] - centre(o)[axis]
    if abs(delta) < 0.08:
        return None
    side = rng.randrange(2)
    yes = (delta > 0) == (side == 0)
    if rng.random() < 0.3:
        q = (f"哪个更靠{'左上右下'[axis + 2 * side]}，{cn}还是{cn2}？" if zh else
             f"Which is {[['further left', 'higher'], ['further right', 'lower']][side][axis]}, the {en} or the {en2}?")  # fmt: skip
        win = (cn if yes else cn2) if zh else f"the {en if yes else en2}"
        return one("position", zh, q, win, *([] if zh else [win[4:]]))
    rel = [["left of", "above"], ["right of", "below"]][side][axis]
    q = f"{cn}在{cn2}的{['左边', '上面', '右边', '下面'][axis + 2 * side]}吗？" if zh else rng.choice(
        [f"Is the {en} {rel} the {en2}?", f"Is the {en} {'to the ' + rel if axis == 0 else rel} the {en2}?"])  # fmt: skip
    return one("position", zh, q, ("是" if yes else "不是") if zh else ("Yes" if yes else "No"))


def reading(rng, scene, zh):
    if scene["type"] != "text":
        return None
    t, kind = scene["text"], scene["kind"]
    form = rng.random()
    if form < 0.1 and len(t) > 1:
        last = rng.random() < 0.5
        if kind == "word":
            q = f"{'最后一个' if last else '第一个'}字母是什么？" if zh else f"What is the {'last' if last else 'first'} letter?"
        else:
            q = f"{'最后一位' if last else '第一位'}数字是什么？" if zh else f"What is the {'last' if last else 'first'} digit?"
        return one(kind, zh, q, t[-1] if last else t[0])
    if form < 0.28:
        q = rng.choice(["请读出图中的文字。", "牌子上写着什么？"]) if zh else rng.choice(["What does the sign say?", "Please read the text in the picture."])
        return one(kind, zh, q, f"图中写着“{t}”。" if zh else f'It says "{t}".', t)
    both_en = ["What does it say?", "What is written here?", "Read the text.", "What is the text?", "What is written in the picture?", "What text do you see?"]
    both_zh = ["写的是什么？", "图中写着什么？", "上面写着什么？"]
    if kind == "word":
        q = rng.choice(both_zh + ["这是什么单词？", "读出这个单词。", "图中的单词是什么？"]) if zh else rng.choice(
            both_en + ["What word is this?", "Read the word.", "Which word is written here?", "What is the word?", "What word do you see?"])  # fmt: skip
    else:
        q = rng.choice(both_zh + ["这是什么数字？", "读出这个数字。", "图中的数字是多少？"]) if zh else rng.choice(
            both_en + ["What number is this?", "Read the number.", "Which number is written here?", "What is the number?", "What digits do you see?"])  # fmt: skip
    return one(kind, zh, q, t)


def chart(rng, scene, zh):
    if scene["type"] != "chart":
        return None
    bars, label = scene["bars"], scene["by"] == "label"
    order = sorted(bars, key=lambda b: b["value"])

    def name(b):
        return b["label"] if label else (ZH_COLOUR[b["colour"]] if zh else b["colour"])

    def bar(b):
        return (f"{b['label']}柱" if label else f"{ZH_COLOUR[b['colour']]}的柱子") if zh else (f"bar {b['label']}" if label else f"the {b['colour']} bar")

    form = rng.random()
    if form < 0.36:
        top = rng.random() < 0.55
        b = order[-1] if top else order[0]
        q = rng.choice([f"哪个柱子最{'高' if top else '低'}？", f"哪一根柱子最{'高' if top else '矮'}？", f"最{'高' if top else '低'}的柱子是哪个？"]) if zh else rng.choice(
            [f"Which bar is the {w}?" for w in (["highest", "tallest"] if top else ["lowest", "shortest"])]
            + [f"Which bar has the {'highest' if top else 'lowest'} value?", f"What is the {'highest' if top else 'lowest'} bar?"])  # fmt: skip
        accept = [f"bar {name(b)}", *grey_too(name(b))] if label or not zh else []
        return one("chart", zh, q, name(b), *accept)
    if form < 0.7:
        b = rng.choice(bars)
        q = rng.choice([f"{bar(b)}的值是多少？", f"{bar(b)}有多高？", f"{bar(b)}是多少？"]) if zh else rng.choice(
            [f"What is the value of {bar(b)}?", f"How high is {bar(b)}?", f"What value has {bar(b)}?", f"What value does {bar(b)} have?"])  # fmt: skip
        return one("chart", zh, q, str(b["value"]))
    if form < 0.82:
        q = rng.choice(["有几根柱子？", "图中有多少根柱子？"]) if zh else rng.choice(["How many bars are there?", "How many bars does the chart have?", "How many bars do you see?"])
        return one("chart", zh, q, str(len(bars)))
    if form < 0.91:
        top = rng.random() < 0.6
        q = rng.choice([f"最{'大' if top else '小'}值是多少？", f"最{'高' if top else '低'}的柱子的值是多少？"]) if zh else rng.choice(
            [f"What is the {'highest' if top else 'lowest'} value?", f"What is the {'maximum' if top else 'minimum'}?"])  # fmt: skip
        return one("chart", zh, q, str((order[-1] if top else order[0])["value"]))
    b, b2 = rng.sample(bars, 2)
    higher = rng.random() < 0.5
    yes = (b["value"] > b2["value"]) == higher
    q = f"{bar(b)}比{bar(b2)}{'高' if higher else '低'}吗？" if zh else f"Is {bar(b)} {'higher' if higher else 'lower'} than {bar(b2)}?"
    return one("chart", zh, q, ("是" if yes else "不是") if zh else ("Yes" if yes else "No"))


def box(rng, scene, zh):
    if scene["type"] == "shapes":
        refs = [(en, cn, o["box"]) for en, cn, o in referents(scene)]
    elif scene["type"] == "text":
        b = [c[1] for c in scene["chars"]]
        whole = [min(x[0] for x in b), min(x[1] for x in b), max(x[2] for x in b), max(x[3] for x in b)]
        refs = [("text", "文字", whole)]
        if scene["kind"] == "word":
            refs.append(("word", "单词", whole))
        else:
            refs.append(("number", "数字", whole))
    elif scene["by"] == "colour":
        refs = [(f"{b['colour']} bar", f"{ZH_COLOUR[b['colour']]}柱子", b["box"]) for b in scene["bars"]]
    else:
        refs = [(f"bar {b['label']}", f"{b['label']}柱", b["box"]) for b in scene["bars"]]
    if not refs:
        return None
    en, cn, b = rng.choice(refs)
    b = [min(1000, max(0, round(1000 * v))) for v in b]
    name = cn if zh else en
    the = en if en.startswith("bar ") else f"the {en}"
    q = rng.choice([f"{cn}在哪里？", f"{cn}在哪？", f"请给出{cn}的边界框。", f"请提供这句话描述的区域的边界框坐标：<ref>{cn}</ref>"]) if zh else rng.choice(
        [f"Where is {the}?", f"Where is {the}?", f"Find {the}.", f"Locate {the}.", f"Give the box of {the}.", f"Where is {the} in the picture?",
         f"Please provide the bounding box coordinate of the region this sentence describes: <ref>{en}</ref>"])  # fmt: skip
    return one("box", zh, q, f"<ref>{name}</ref><box>[[{b[0]}, {b[1]}, {b[2]}, {b[3]}]]</box>", boxes=[b])


def describe(rng, scene, zh):
    q = rng.choice(["描述这张图片。", "图里有什么？", "你看到了什么？", "请描述图片。", "图中有什么？", "这是什么？"]) if zh else rng.choice(
        ["Describe the picture.", "What is in the picture?", "What do you see?", "Describe this image.", "What is this?", "What does the picture show?",
         "Please describe the image shortly.", "What can you see?"])  # fmt: skip
    if scene["type"] == "text":
        t, c = scene["text"], scene["ink"]
        word = scene["kind"] == "word"
        ans = (f"{ZH_COLOUR[c]}的{'文字' if word else '数字'}“{t}”。" if zh else f'The {"word" if word else "number"} "{t}" in {c}.')
        return one("describe", zh, q, ans, must=[t, ZH_COLOUR[c] if zh else c])
    if scene["type"] == "chart":
        n = len(scene["bars"])
        return one("describe", zh, q, f"有{n}根柱子的柱状图。" if zh else f"A bar chart with {n} bars.", must=[f"{n}根柱子" if zh else f"{n} bars", "柱状图" if zh else "bar chart"])
    objs = sorted(scene["objs"], key=lambda o: centre(o)[0])
    if len(objs) > 4:
        n = len(objs)
        return one("describe", zh, q, f"图中有{n}个图形。" if zh else f"There are {n} shapes.", must=[f"{n}个图形" if zh else f"{n} shapes"])
    if any(centre(p)[0] - centre(o)[0] < 0.04 for o, p in zip(objs, objs[1:])):
        return None
    parts = [ZH_COLOUR[o["colour"]] + ZH_SHAPE[o["shape"]] if zh else f"{o['colour']} {o['shape']}" for o in objs]
    ans = listing(parts, "和", "、") + "。" if zh else (listing([a(p) for p in parts], " and ") + ".").capitalize()
    return one("describe", zh, q, ans, must=sorted(set(parts)))


def scope(rng, scene, zh, held=False):
    """What the model does not know, and what is not in the picture."""
    form = rng.random()
    if form < 0.4 or held:
        q = rng.choice([s for s in HELD_SCOPE if (s[0] > "z") == bool(zh)]) if held else off_topic(rng, zh)
        return one("scope", zh, q, HONEST[zh], must=["小型演示模型" if zh else "small demonstration model"])
    if form < 0.5:
        return one("scope", zh, rng.choice(HELLO_ZH if zh else HELLO_EN), HELLO[zh])
    if scene["type"] == "text":
        s = rng.choice(SHAPES)
        q = f"{ZH_SHAPE[s]}是什么颜色？" if zh else f"What colour is the {s}?"
        if rng.random() < 0.4:
            q = rng.choice(["哪个柱子最高？", "有几根柱子？"]) if zh else rng.choice(["Which bar is the highest?", "How many bars are there?"])
            return one("scope", zh, q, "图中没有柱状图。" if zh else "There is no bar chart in the picture.")
        return one("scope", zh, q, f"图中没有{ZH_SHAPE[s]}。" if zh else f"There is no {s} in the picture.")
    if scene["type"] == "chart":
        q = rng.choice(["这是什么单词？", "读出这个单词。"]) if zh else rng.choice(["What word is this?", "Read the word.", "What is the word?"])
        return one("scope", zh, q, "图中没有单词。" if zh else "There is no word in the picture.")
    form = rng.random()
    if form < 0.3:
        q = rng.choice(["这是什么单词？", "读出这个单词。", "写的是什么？"]) if zh else rng.choice(["What word is this?", "Read the word.", "What does it say?"])
        return one("scope", zh, q, "图中没有单词。" if zh else "There is no word in the picture.")
    if form < 0.5:
        q = rng.choice(["哪个柱子最高？", "有几根柱子？"]) if zh else rng.choice(["Which bar is the highest?", "How many bars are there?"])
        return one("scope", zh, q, "图中没有柱状图。" if zh else "There is no bar chart in the picture.")
    s = rng.choice([s for s in SHAPES if s not in {o["shape"] for o in scene["objs"]}])
    q = rng.choice([f"{ZH_SHAPE[s]}是什么颜色？", f"{ZH_SHAPE[s]}在哪里？"]) if zh else rng.choice([f"What colour is the {s}?", f"Where is the {s}?"])
    return one("scope", zh, q, f"图中没有{ZH_SHAPE[s]}。" if zh else f"There is no {s} in the picture.")


MAKERS = {"shape": shape, "colour": colour, "count": count, "position": position, "word": reading, "digits": reading,
          "chart": chart, "box": box, "describe": describe, "scope": scope}  # fmt: skip
POSSIBLE = {"shapes": ["shape", "colour", "count", "position", "box", "describe", "scope"],
            "text": ["reading", "colour", "position", "box", "describe", "scope"],
            "chart": ["chart", "colour", "box", "describe", "scope"]}  # fmt: skip


def kinds_of(scene):
    """Kinds of question that can be put to a scene."""
    return [scene["kind"] if k == "reading" else k for k in POSSIBLE[scene["type"]]]


def ask(rng, scene, kind, zh=None):
    zh = rng.random() < 0.42 if zh is None else zh
    for _ in range(6):
        qa = MAKERS[kind](rng, scene, int(zh))
        if qa:
            return qa
    return None


def chat(rng):
    """A question without a picture."""
    zh = int(rng.random() < 0.45)
    if rng.random() < 0.5:
        return one("chat", zh, rng.choice(HELLO_ZH if zh else HELLO_EN), HELLO[zh])
    return one("chat", zh, off_topic(rng, zh), HONEST[zh])
