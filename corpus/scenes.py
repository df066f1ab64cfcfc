"""Drawn scenes whose content is known exactly: shapes, colours, counts, positions and printed words.

Three users: the tiny CLIP is trained on (image, caption) pairs, the demo crawl is made of them, and the
learning proof needs the boxes and quads too. A scene is a pure function of its seed and settings; only Pillow
is needed, and words are set in Pillow's bundled face, so no system font matters.

Frames: pixels of the image, floats, origin top-left; boxes [x0, y0, x1, y1]; quads [[x, y] * 4] clockwise from
the text's own top-left corner. `regions_*` are in the form of a sample's `annotations["regions"]`: spans are
character offsets [start, end) into the caption of that language.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from corpus.scene_shapes import DRAW, bounds

# English and Chinese name, base RGB. The hues are far enough apart to survive the jitter below.
COLOURS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "red": ("红色", (214, 36, 36)),
    "orange": ("橙色", (246, 140, 24)),
    "yellow": ("黄色", (244, 218, 40)),
    "green": ("绿色", (36, 150, 60)),
    "blue": ("蓝色", (40, 84, 214)),
    "purple": ("紫色", (130, 50, 170)),
    "pink": ("粉色", (250, 140, 190)),
    "brown": ("棕色", (120, 72, 32)),
    "black": ("黑色", (24, 24, 24)),
}
BACKGROUNDS: dict[str, tuple[str, tuple[int, int, int]]] = {
    "white": ("白色", (250, 250, 250)),
    "grey": ("灰色", (196, 196, 200)),
    "cream": ("米色", (250, 240, 214)),
    "pale blue": ("浅蓝色", (208, 228, 248)),
}
SHAPES: dict[str, str] = {
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "五角星", "diamond": "菱形",
    "cross": "十字", "ring": "圆环", "heart": "心形", "hexagon": "六边形", "moon": "月亮",
}  # fmt: skip
PLURALS = {"cross": "crosses"}
NUMBERS = {2: ("two", "两"), 3: ("three", "三"), 4: ("four", "四"), 5: ("five", "五"), 6: ("six", "六")}
PLACES: dict[tuple[int, int], tuple[str, str]] = {
    (0, 0): ("in the top left corner", "左上角"), (1, 0): ("at the top", "上方"),
    (2, 0): ("in the top right corner", "右上角"), (0, 1): ("on the left", "左边"),
    (1, 1): ("in the middle", "中间"), (2, 1): ("on the right", "右边"),
    (0, 2): ("in the bottom left corner", "左下角"), (1, 2): ("at the bottom", "下方"),
    (2, 2): ("in the bottom right corner", "右下角"),
}  # fmt: skip
RELATIONS = {
    "left": ("to the left of", "的左边"), "right": ("to the right of", "的右边"),
    "above": ("above", "的上方"), "below": ("below", "的下方"),
}  # fmt: skip
_WORD_LIST = (
    "apple bread chair dance eagle flour grape horse island juice knife lemon music night ocean paper queen river "
    "sugar table uncle voice water yellow zebra beach cloud dream earth field garden house image jacket kitchen "
    "light market north orange piano quick radio stone train under valley window winter young anchor bridge candle "
    "dinner engine forest guitar hammer inside jungle kettle ladder mirror needle office pencil rocket silver ticket "
    "OPEN CLOSED EXIT SALE STOP TAXI HOTEL BANK CAFE BUS METRO PARK SHOP FREE NEW HOT COLD PUSH PULL SLOW"
)
WORDS: tuple[str, ...] = tuple(_WORD_LIST.split())
KINDS = ("single", "group", "pair", "several", "word", "sign")

_SCALE = 2  # drawn at twice the size and reduced, which smooths edges without moving them
_MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn object. `box` is the exact extent of its outline."""

    name: str
    colour: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class PrintedWord:
    """One printed word. `quad` hugs its ink."""

    text: str
    colour: str
    quad: tuple[tuple[float, float], ...]


@dataclass(slots=True)
class Scene:
    """A drawn image with everything that is true of it."""

    image: Image.Image
    kind: str
    background: str
    caption_en: str = ""
    caption_zh: str = ""
    objects: list[Thing] = field(default_factory=list)
    words: list[PrintedWord] = field(default_factory=list)
    regions_en: list[dict] = field(default_factory=list)
    regions_zh: list[dict] = field(default_factory=list)


def scene(
    seed: int | str,
    size: int = 224,
    *,
    kinds: Sequence[str] = KINDS,
    shapes: Sequence[str] = tuple(SHAPES),
    colours: Sequence[str] = tuple(COLOURS),
    words: Sequence[str] = WORDS,
    max_objects: int = 5,
    max_tilt: float = 0.0,
    lettering: float = 1.0,
    grid: int | None = None,
    one_wording: bool = False,
) -> Scene:
    """Draw the scene of `seed`: a square RGB image of `size` pixels, its captions, objects and words.

    kinds: what may be drawn: `single` (one object and where it is), `group` (2 to `max_objects` equal ones),
    `pair` (two and their relation), `several` (2 to `max_objects` different ones), `word` (a printed word and
    perhaps an object), `sign` (a word on a coloured board). max_tilt: printed words turn by up to so many degrees.
    lettering: printed words are so many times larger, as far as there is room. grid: things are whole cells of a grid
    of so many cells a side, and words begin at its corners. one_wording: a picture has one caption, which a model can
    be held to: things from left to right, no phrase that might as well be missing.
    The names in `shapes`, `colours` and `kinds` must be among SHAPES, COLOURS and KINDS (KeyError otherwise);
    `several` and `pair` need at least two colours or shapes.
    """
    rng = random.Random(f"scene/{seed}")
    brush = _Brush(rng, size, shapes, colours, words, max_objects, max_tilt, lettering, grid, one_wording)
    kind = rng.choice(list(kinds))
    english, chinese = _COMPOSE[kind](brush)
    return brush.finish(kind, english, chinese)


# A caption under construction: plain strings, and (text, boxes) pairs for phrases that name something drawn.
_Parts = list


class _Brush:
    """The canvas of one scene and the random choices made on it; `finish` turns it into a Scene."""

    def __init__(self, rng, size, shapes, colours, words, max_objects, max_tilt, lettering, grid, one_wording):
        self.rng, self.size, self.max_objects, self.max_tilt = rng, size, max_objects, max_tilt
        self.lettering, self.grid, self.one_wording = lettering, grid, one_wording
        self.shapes, self.colours, self.vocabulary = list(shapes), list(colours), list(words)
        self.background = rng.choice(list(BACKGROUNDS))
        self.image = Image.new("RGB", (size * _SCALE,) * 2, _jitter(rng, BACKGROUNDS[self.background][1], 6))
        self.pen = ImageDraw.Draw(self.image)
        self.objects: list[Thing] = []
        self.words: list[PrintedWord] = []
        self.taken: list[tuple[float, float, float, float]] = []

    def word_as(self, choices: Sequence):
        """One of several ways to say it; the first where there is to be one wording."""
        return choices[0] if self.one_wording else self.rng.choice(choices)

    def pick(self) -> tuple[str, str]:
        return self.rng.choice(self.shapes), self.rng.choice(self.colours)

    def pick_distinct(self, count: int) -> list[tuple[str, str]]:
        """`count` different (shape, colour) pairs, fewer when there are not so many."""
        every = [(shape, colour) for shape in self.shapes for colour in self.colours]
        return self.rng.sample(every, min(count, len(every)))

    def place(self, width: float, height: float, area=(0.0, 0.0, 1.0, 1.0)) -> tuple[float, float, float, float]:
        """A free box of about width x height (fractions of the side) inside `area`; shrinks until one is found."""
        for attempt in range(1000):
            shrink = 0.97 ** max(0, attempt - 20)
            box = (self._on_grid if self.grid else self._anywhere)(width * shrink, height * shrink, area)
            if box and not any(_overlap(box, other) for other in self.taken):
                self.taken.append(box)
                return box
        raise AssertionError("shrinking always finds a place")

    def _anywhere(self, w: float, h: float, area) -> tuple[float, float, float, float] | None:
        x = self.rng.uniform(area[0] + _MARGIN, max(area[0] + _MARGIN, area[2] - _MARGIN - w))
        y = self.rng.uniform(area[1] + _MARGIN, max(area[1] + _MARGIN, area[3] - _MARGIN - h))
        fits = x + w <= area[2] - _MARGIN / 2 and y + h <= area[3] - _MARGIN / 2
        return (x, y, x + w, y + h) if fits else None

    def _on_grid(self, w: float, h: float, area) -> tuple[float, float, float, float] | None:
        """Whole cells inside `area`."""
        columns, rows = (max(1, math.ceil(side * self.grid - 0.01)) for side in (w, h))
        lefts, tops = (range(math.ceil(area[i] * self.grid), int(area[i + 2] * self.grid) + 1 - cells)
                       for i, cells in enumerate((columns, rows)))  # fmt: skip
        if not lefts or not tops:
            return None
        x, y = self.rng.choice(lefts), self.rng.choice(tops)
        return (x / self.grid, y / self.grid, (x + columns) / self.grid, (y + rows) / self.grid)

    def _letter_height(self, height: float) -> float:
        height *= self.lettering
        return round(height * 2 * self.grid) / (2 * self.grid) if self.grid else height

    def draw(self, shape: str, colour: str, side: float, area=(0.0, 0.0, 1.0, 1.0)) -> Thing:
        """Draw one object of about `side` (a fraction of the image's side) at a free place inside `area`."""
        side = max(1, round(side * self.grid)) / self.grid if self.grid else side
        box = tuple(v * self.size for v in self.place(side, side, area))
        fill = _jitter(self.rng, COLOURS[colour][1], 12)
        exact = DRAW[shape](self.pen, [v * _SCALE for v in box], fill)
        self.objects.append(Thing(shape, colour, tuple(round(v / _SCALE, 2) for v in exact)))
        return self.objects[-1]

    def print_word(self, text: str, colour: str, height: float, area, fill=None) -> PrintedWord:
        """Print `text`, its ink about `height` (a fraction of the side) high, at a free place inside `area`."""
        unit = self.size * _SCALE
        mask = _ink(text, max(8, round(self._letter_height(height) * unit)))
        tilt = self.rng.uniform(-self.max_tilt, self.max_tilt)
        turned = mask.rotate(tilt, Image.Resampling.BICUBIC, expand=True) if tilt else mask
        # A long word shrinks to the width of its area, and once more to the free place that was found.
        fit = min(1.0, (area[2] - area[0] - 3 * _MARGIN) * unit / turned.width)
        free = self.place(fit * turned.width / unit, fit * turned.height / unit, area)
        fit = min(1.0, (free[2] - free[0]) * unit / turned.width)
        mask, turned = _resized(mask, fit), _resized(turned, fit)
        left, top = round(free[0] * unit), round(free[1] * unit)
        self.image.paste(fill or _jitter(self.rng, COLOURS[colour][1], 12), (left, top), turned)
        centre = (left + turned.width / 2, top + turned.height / 2)
        self.words.append(PrintedWord(text, colour, _quad(centre, mask.size, tilt)))
        return self.words[-1]

    def finish(self, kind: str, english: _Parts, chinese: _Parts) -> Scene:
        caption_en, regions_en = _assemble(english)
        caption_zh, regions_zh = _assemble(chinese)
        return Scene(
            image=self.image.reduce(_SCALE), kind=kind, background=self.background,
            caption_en=caption_en[0].upper() + caption_en[1:], caption_zh=caption_zh,
            objects=self.objects, words=self.words, regions_en=regions_en, regions_zh=regions_zh,
        )  # fmt: skip


def _compose_single(brush: _Brush) -> tuple[_Parts, _Parts]:
    shape, colour = brush.pick()
    column, row = brush.rng.randrange(3), brush.rng.randrange(3)
    big = brush.rng.random() < 0.5
    side = brush.rng.uniform(0.26, 0.32) if big else brush.rng.uniform(0.12, 0.16)
    area = (column / 3, row / 3, (column + 1) / 3, (row + 1) / 3)
    thing = brush.draw(shape, colour, side, area)
    where_en, where_zh = PLACES[column, row]
    size_en, size_zh = ("large", "大") if big else ("small", "小")
    english = [(f"a {size_en} {colour} {shape}", [thing.box]), f" {where_en}"]
    chinese = [f"{where_zh}有", (f"一个{size_zh}的{COLOURS[colour][0]}{SHAPES[shape]}", [thing.box])]
    if not brush.one_wording and brush.rng.random() < 0.5:
        english += [f" on a {brush.background} background"]
        chinese += [f"，背景是{BACKGROUNDS[brush.background][0]}"]
    return english, chinese


def _compose_group(brush: _Brush) -> tuple[_Parts, _Parts]:
    shape, colour = brush.pick()
    count = brush.rng.randint(2, min(max(NUMBERS), max(2, brush.max_objects)))
    side = brush.rng.uniform(0.15, 0.24)
    boxes = [brush.draw(shape, colour, side).box for _ in range(count)]
    number_en, number_zh = NUMBERS[count]
    plural = PLURALS.get(shape, shape + "s")
    opening = brush.word_as(("", "there are ", "a picture of "))
    english = [opening, (f"{number_en} {colour} {plural}", boxes)]
    return english, ["图中有", (f"{number_zh}个{COLOURS[colour][0]}{SHAPES[shape]}", boxes)]


def _compose_pair(brush: _Brush) -> tuple[_Parts, _Parts]:
    (shape_a, colour_a), (shape_b, colour_b) = brush.pick_distinct(2)
    relation = brush.rng.choice(["left", "above"] if brush.one_wording else list(RELATIONS))
    low, high = ((0.0, 0.2, 0.48, 0.8), (0.52, 0.2, 1.0, 0.8))  # left and right half; transposed below
    if relation in ("above", "below"):
        low, high = (tuple(half[i] for i in (1, 0, 3, 2)) for half in (low, high))
    areas = (low, high) if relation in ("left", "above") else (high, low)
    a = brush.draw(shape_a, colour_a, brush.rng.uniform(0.2, 0.36), areas[0])
    b = brush.draw(shape_b, colour_b, brush.rng.uniform(0.2, 0.36), areas[1])
    by_en, by_zh = RELATIONS[relation]
    english = [(_a(f"{colour_a} {shape_a}"), [a.box]), f" {by_en} ", (_a(f"{colour_b} {shape_b}"), [b.box])]
    chinese = [
        (f"一个{COLOURS[colour_a][0]}{SHAPES[shape_a]}", [a.box]), "在",
        (f"一个{COLOURS[colour_b][0]}{SHAPES[shape_b]}", [b.box]), by_zh,
    ]  # fmt: skip
    return english, chinese


def _compose_several(brush: _Brush) -> tuple[_Parts, _Parts]:
    chosen = brush.pick_distinct(brush.rng.randint(2, max(2, brush.max_objects)))
    things = [brush.draw(shape, colour, brush.rng.uniform(0.16, 0.28)) for shape, colour in chosen]
    things = sorted(things, key=lambda thing: thing.box) if brush.one_wording else things
    english: _Parts = []
    chinese: _Parts = ["图中有"]
    for i, thing in enumerate(things):
        last = i == len(things) - 1
        english += [" and " if last and i else ", " if i else ""]
        english += [(_a(f"{thing.colour} {thing.name}"), [thing.box])]
        chinese += ["和" if last and i else "、" if i else ""]
        chinese += [(f"一个{COLOURS[thing.colour][0]}{SHAPES[thing.name]}", [thing.box])]
    return english, chinese


def _compose_word(brush: _Brush) -> tuple[_Parts, _Parts]:
    text, (shape, colour) = brush.rng.choice(brush.vocabulary), brush.pick()
    ink = brush.rng.choice(brush.colours)
    upper = brush.rng.random() < 0.5
    word_area, thing_area = (0.0, 0.0, 1.0, 0.42), (0.0, 0.46, 1.0, 1.0)
    if not upper:
        word_area, thing_area = (0.0, 0.58, 1.0, 1.0), (0.0, 0.0, 1.0, 0.54)
    word = brush.print_word(text, ink, brush.rng.uniform(0.12, 0.2), word_area)
    span = bounds(word.quad)
    english = [(f'the word "{text}"', [span]), f" in {ink}"]
    chinese = [f"{COLOURS[ink][0]}的", (f"单词“{text}”", [span])]
    if brush.rng.random() < 0.6:
        thing = brush.draw(shape, colour, brush.rng.uniform(0.22, 0.4), thing_area)
        by_en, by_zh = ("above", "下方") if upper else ("below", "上方")
        english += [f" {by_en} ", (_a(f"{colour} {shape}"), [thing.box])]
        chinese += [f"，{by_zh}有", (f"一个{COLOURS[colour][0]}{SHAPES[shape]}", [thing.box])]
    return english, chinese


def _compose_sign(brush: _Brush) -> tuple[_Parts, _Parts]:
    text, colour = brush.rng.choice(brush.vocabulary), brush.rng.choice(brush.colours)
    width, height = brush.rng.uniform(0.55, 0.9), brush.rng.uniform(0.26, 0.4)
    board = brush.place(width, height)
    brush.taken.clear()  # the word goes on the board, not beside it
    box = tuple(round(v * brush.size, 2) for v in board)
    fill = _jitter(brush.rng, COLOURS[colour][1], 12)
    brush.pen.rounded_rectangle([v * _SCALE for v in box], radius=0.03 * brush.size * _SCALE, fill=fill)
    brush.objects.append(Thing("sign", colour, box))
    # 0.299 R + 0.587 G + 0.114 B is the eye's brightness (ITU-R BT.601): light words on dark boards and the reverse.
    dark = 0.299 * fill[0] + 0.587 * fill[1] + 0.114 * fill[2] < 140
    ink = "white" if dark else "black"
    word = brush.print_word(text, ink, height * 0.5, board, fill=(250, 250, 250) if dark else (20, 20, 20))
    says = brush.word_as(("that says", "reading", "with the word"))
    english = [(_a(f"{colour} sign"), [box]), f" {says} ", (f'"{text}"', [bounds(word.quad)])]
    chinese = [(f"一块{COLOURS[colour][0]}的牌子", [box]), "，上面写着", (f"“{text}”", [bounds(word.quad)])]
    return english, chinese


_COMPOSE: dict[str, Callable] = {
    "single": _compose_single, "group": _compose_group, "pair": _compose_pair,
    "several": _compose_several, "word": _compose_word, "sign": _compose_sign,
}  # fmt: skip


def _assemble(parts: _Parts) -> tuple[str, list[dict]]:
    """Join caption parts; every phrase with boxes becomes a region with its character span."""
    text, regions = "", []
    for part in parts:
        phrase, boxes = part if isinstance(part, tuple) else (part, None)
        if boxes:
            span = [len(text), len(text) + len(phrase)]
            regions.append({"text": phrase, "span": span, "boxes": [list(box) for box in boxes]})
        text += phrase
    return text, regions


def _resized(image: Image.Image, ratio: float) -> Image.Image:
    return image.resize((max(1, int(image.width * ratio)), max(1, int(image.height * ratio))))


def _a(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _overlap(a, b, gap: float = 0.02) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def _jitter(rng: random.Random, colour: tuple[int, int, int], amount: int) -> tuple[int, int, int]:
    return tuple(min(255, max(0, c + rng.randint(-amount, amount))) for c in colour)


def _quad(centre, extent, degrees: float) -> tuple[tuple[float, float], ...]:
    """Corners of an `extent` rectangle turned counter-clockwise about `centre`, in pixels of the final image."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_w, half_h = extent[0] / 2, extent[1] / 2
    corners = [(-half_w, -half_h), (half_w, -half_h), (half_w, half_h), (-half_w, half_h)]
    turned = [(centre[0] + x * cos + y * sin, centre[1] - x * sin + y * cos) for x, y in corners]
    return tuple((round(x / _SCALE, 2), round(y / _SCALE, 2)) for x, y in turned)


@lru_cache(maxsize=64)
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(pixels)


def _ink(text: str, pixels: int) -> Image.Image:
    """The text as an "L" mask cropped to its ink."""
    font = _font(pixels)
    mask = Image.new("L", (int(font.getlength(text)) + 2 * pixels, 3 * pixels))
    ImageDraw.Draw(mask).text((pixels, pixels), text, fill=255, font=font)
    return mask.crop(mask.getbbox())
