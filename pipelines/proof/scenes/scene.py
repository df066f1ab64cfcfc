"""Drawn scenes whose content is known exactly: shapes, colours, counts, positions and printed words.

Three users: the tiny CLIP is trained on (image, caption) pairs, the demo crawl is made of them, and the
learning proof needs the boxes and quads too. A scene is a pure function of its seed and settings; only Pillow
is needed, and words are set in Pillow's bundled face, so no system font matters.

Frames: pixels of the image, floats, origin top-left; boxes [x0, y0, x1, y1]; quads [[x, y] * 4] clockwise from
the text's own top-left corner. `regions_*` are in the form of a sample's `annotations["regions"]`: spans are
character offsets [start, end) into the caption of that language.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image

from pipelines.proof.scenes.brush import SCALE, Brush, PrintedWord, Thing, jitter
from pipelines.proof.scenes.names import BACKGROUNDS, COLOURS, NUMBERS, PLACES, PLURALS, RELATIONS, SHAPES, WORDS
from pipelines.proof.scenes.shapes import bounds

KINDS = ("single", "group", "pair", "several", "word", "sign")


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
    brush = Brush(rng, size, shapes, colours, words, max_objects, max_tilt, lettering, grid, one_wording)
    kind = rng.choice(list(kinds))
    english, chinese = _COMPOSE[kind](brush)
    return _finish(brush, kind, english, chinese)


# A caption under construction: plain strings, and (text, boxes) pairs for phrases that name something drawn.
_Parts = list


def _finish(brush: Brush, kind: str, english: _Parts, chinese: _Parts) -> Scene:
    caption_en, regions_en = _assemble(english)
    caption_zh, regions_zh = _assemble(chinese)
    return Scene(
        image=brush.image.reduce(SCALE), kind=kind, background=brush.background,
        caption_en=caption_en[0].upper() + caption_en[1:], caption_zh=caption_zh,
        objects=brush.objects, words=brush.words, regions_en=regions_en, regions_zh=regions_zh,
    )  # fmt: skip


def _compose_single(brush: Brush) -> tuple[_Parts, _Parts]:
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


def _compose_group(brush: Brush) -> tuple[_Parts, _Parts]:
    shape, colour = brush.pick()
    count = brush.rng.randint(2, min(max(NUMBERS), max(2, brush.max_objects)))
    side = brush.rng.uniform(0.15, 0.24)
    boxes = [brush.draw(shape, colour, side).box for _ in range(count)]
    number_en, number_zh = NUMBERS[count]
    plural = PLURALS.get(shape, shape + "s")
    opening = brush.word_as(("", "there are ", "a picture of "))
    english = [opening, (f"{number_en} {colour} {plural}", boxes)]
    return english, ["图中有", (f"{number_zh}个{COLOURS[colour][0]}{SHAPES[shape]}", boxes)]


def _compose_pair(brush: Brush) -> tuple[_Parts, _Parts]:
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


def _compose_several(brush: Brush) -> tuple[_Parts, _Parts]:
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


def _compose_word(brush: Brush) -> tuple[_Parts, _Parts]:
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


def _compose_sign(brush: Brush) -> tuple[_Parts, _Parts]:
    text, colour = brush.rng.choice(brush.vocabulary), brush.rng.choice(brush.colours)
    width, height = brush.rng.uniform(0.55, 0.9), brush.rng.uniform(0.26, 0.4)
    board = brush.place(width, height)
    brush.taken.clear()  # the word goes on the board, not beside it
    box = tuple(round(v * brush.size, 2) for v in board)
    fill = jitter(brush.rng, COLOURS[colour][1], 12)
    brush.pen.rounded_rectangle([v * SCALE for v in box], radius=0.03 * brush.size * SCALE, fill=fill)
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


def _a(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
