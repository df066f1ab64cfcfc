"""One image from text, faces, a photo and a seed: SynthDoG's composition, with a quad for every line.

A page of paper with text on it is drawn flat, tilted, laid over a photo, and the whole is degraded. The quads come from
the ink on the flat page and go through the same matrix as its pixels; what follows does not move anything.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from corpus.legibility import Legibility, is_full_width
from corpus.verdicts import Lost, failed
from synth_ocr import effects, textures
from synth_ocr.geometry import Placed, inside, longest_visible, rectangle
from synth_ocr.glyphs import Typeface
from synth_ocr.layout import Cell, Grid, stack_grids
from synth_ocr.settings import Canvas, Page, Settings, Text
from synth_ocr.textbox import Drawn, LineSetter, Passage, distort

_ALONE = re.compile("[\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")  # Han, kana, hangul, wide forms
# Of a row's height, in most faces: the advance of a Latin letter, of a full-width character, and the ink.
_ADVANCE, _WIDE_ADVANCE, _INK_HEIGHT = 0.40, 0.75, 0.68
_FACTORS = (1.0, 1.4, 2.0)  # by which rows grow until a line is legible
_SKIP = 64  # characters that are stepped over where no face covers the text


class NoText(Lost):
    """No line came to stand on the page: an error of `kind`."""

    def __init__(self, kind: str, message: str):
        super().__init__(failed(kind, message))


@dataclass(frozen=True)
class Word:
    """A part of a line and its quad (4 x 2, pixels of the image)."""

    text: str
    quad: np.ndarray


@dataclass(frozen=True)
class Line:
    """A line as it can be seen. Quads are 4 x 2, pixels of the image, clockwise from top-left as the text reads.

    `quad` hugs the ink; `box` is the line's advance box, as high as its row. A vertical line's first corner is the
    top-left one too. `words` is empty unless asked for.
    """

    text: str
    quad: np.ndarray
    box: np.ndarray
    face: str
    vertical: bool = False
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Picture:
    """An image (uint8, height x width x 3, RGB), its lines in reading order, and the quality to store it with."""

    pixels: np.ndarray
    lines: list[Line]
    page: np.ndarray  # the sheet's quad
    jpeg_quality: int
    skipped: int = 0  # characters of the passage that no face covers
    cut: int = 0  # lines that the edge of the canvas cuts or hides
    unprinted: int = 0  # lines left out because nobody could read them at the training size
    faces: list[str] = field(default_factory=list)


def compose(
    seed: Sequence[int],
    text: str,
    photo: np.ndarray,
    papers: Sequence[np.ndarray],
    faces: Sequence[Typeface],
    s: Settings,
) -> Picture:
    """Make one image; a pure function of its arguments.

    `photo` is uint8, height x width x 3, RGB; `papers` are grey textures, uint8, height x width. Raises NoText
    (`no_face_covers`, `no_text`) when there is nothing to label.
    """
    rng, grain = np.random.default_rng([*seed, 0]), np.random.default_rng([*seed, 1])
    canvas = _canvas_size(rng, s.canvas)
    sheet = _sheet_size(rng, canvas, s.page)
    placed = Placed(rng, sheet, canvas, s.page)
    for factor in _FACTORS:  # narrow faces and steep tilts may need more than most
        passage = Passage(text)
        larger = _enlarged(s, placed, sheet, canvas, passage, factor)
        drawn, skipped = _set_text(rng, sheet, passage, faces, larger)
        legible = [entry for entry in drawn if _is_legible(entry[0], placed, sheet, canvas, s.legibility)]
        if legible:
            break
    page = _print(rng, grain, sheet, papers, legible, s)
    pixels = textures.background(photo, canvas, effects.whole(rng, s.canvas.background_blur))
    placed.warp(page, pixels)
    pixels = effects.finish(pixels, rng, s.finish)
    lines, cut = _label(legible, placed, sheet, canvas, s.words)
    if not lines:
        raise NoText("no_text", f"none of {len(drawn)} lines can be seen, {len(drawn) - len(legible)} are illegible")
    quality = effects.whole(rng, s.canvas.jpeg_quality)
    used = sorted({line.face for line in lines})
    return Picture(pixels, lines, placed.quad, quality, skipped, cut, len(drawn) - len(legible), used)


def _canvas_size(rng: np.random.Generator, s: Canvas) -> tuple[int, int]:
    landscape, short = rng.random() < s.landscape, effects.whole(rng, s.short_side)
    long = int(short * rng.uniform(*s.aspect_ratio))
    return (long, short) if landscape else (short, long)


def _sheet_size(rng: np.random.Generator, canvas: tuple[int, int], s: Page) -> tuple[int, int]:
    if rng.random() < s.fullscreen:
        return canvas
    landscape, least = rng.random() < s.landscape, min(canvas)
    short = effects.whole(rng, (min(least, s.short_side[0]), min(least, s.short_side[1])))
    longest = canvas[0 if landscape else 1] / short
    long = int(short * rng.uniform(min(longest, s.aspect_ratio[0]), min(longest, s.aspect_ratio[1])))
    return (long, short) if landscape else (short, long)


def _enlarged(s: Settings, placed: Placed, sheet, canvas: tuple[int, int], passage: Passage, factor: float) -> Settings:
    """Return settings whose smallest rows of most faces can be read at the training size."""
    wide = sum(map(is_full_width, passage.sample())) > 0.3 * len(passage.sample())
    length, ink = s.legibility.needs("字" * 8 if wide else "text")
    along, across = _mean_scales(placed, sheet, canvas, s.legibility.train_size)
    row = max(length / (8 * _WIDE_ADVANCE if wide else 4 * _ADVANCE) / along, ink / _INK_HEIGHT / across)
    low = max(s.layout.text_scale[0], factor * row / (0.9 * min(sheet)))  # margins take a tenth of the sheet
    high = max(s.layout.text_scale[1], 1.3 * low)
    return replace(s, layout=replace(s.layout, text_scale=(low, high)))


def _mean_scales(placed: Placed, sheet, canvas: tuple[int, int], train_size: int) -> tuple[float, float]:
    """Return how many pixels of the squashed image a pixel of the sheet has along x and y, on average."""
    squash = np.array([train_size / canvas[0], train_size / canvas[1]])
    corners = rectangle(0, 0, *sheet) * 0.8 + np.array(sheet) * 0.1
    here = placed.project(corners)
    steps = [placed.project(corners + np.array(step)) - here for step in ((1.0, 0.0), (0.0, 1.0))]
    along, across = (np.hypot(*(step * squash).T).mean() for step in steps)
    return float(along), float(across)


def _is_legible(line: Drawn, placed: Placed, sheet, canvas: tuple[int, int], legibility: Legibility) -> bool:
    quad = _quad(line.ink(), placed, sheet)
    if quad is None:
        return True
    advance, ink = legibility.measure(line.text, quad.tolist(), *canvas)
    return advance >= legibility.advance and ink >= legibility.ink


def _set_text(rng, sheet: tuple[int, int], passage: Passage, faces: Sequence[Typeface], s: Settings):
    """Return the lines that the passage fills the page's cells with, each with its colour, and how much was skipped."""
    vertical = s.vertical > 0 and rng.random() < s.vertical
    faces = [face for face in faces if face.upright] if vertical else faces
    lines: list[tuple[Drawn, tuple[int, int, int]]] = []
    skipped = 0
    for grid in _grids(rng, sheet, vertical, s):
        face, missed = _choose_face(rng, faces, passage, grid, s.text.least_coverage)
        skipped += missed
        if face is None:
            break
        setter = LineSetter(face, grid[0].width if vertical else grid[0].height, vertical)
        for line in _fill(rng, grid, passage, setter, s.text):
            lines.append((line, _colour(rng, s.text.line_colour, s.text)))
    if not lines:
        raise _nothing_set(passage, faces, skipped)
    if rng.random() < s.text.page_colour:
        colour = _colour(rng, 1.0, s.text)
        lines = [(line, colour) for line, _ in lines]
    return lines, skipped


def _grids(rng: np.random.Generator, sheet: tuple[int, int], vertical: bool, s: Settings) -> list[Grid]:
    width, height = sheet
    left, top = width * rng.uniform(*s.page.margin), height * rng.uniform(*s.page.margin)
    width, height = max(width - 2 * left, 0), max(height - 2 * top, 0)
    if not vertical:
        return stack_grids(rng, left, top, width, height, s.layout)
    # Columns from right to left are rows from top to bottom, turned by a quarter.
    turned = stack_grids(rng, 0, 0, height, width, s.layout)
    return [
        [
            Cell(left + width - cell.top - cell.height, top + cell.left, cell.height, cell.width, cell.alignment)
            for cell in grid
        ]
        for grid in turned
    ]


def _choose_face(rng, faces: Sequence[Typeface], passage: Passage, grid: Grid, least: float):
    """Return a face, at random among those that cover the text coming for this grid, and the characters skipped."""
    ahead = int(math.fsum(max(cell.width / cell.height, cell.height / cell.width) for cell in grid)) + 20
    order, skipped = rng.permutation(len(faces)), 0
    while passage.rest():
        for i in order:
            if passage.coverage(faces[i], ahead) >= least:
                return faces[i], skipped
        passage.skip(_SKIP)
        skipped += _SKIP
    return None, skipped


def _fill(rng: np.random.Generator, grid: Grid, passage: Passage, setter: LineSetter, s: Text) -> Iterator[Drawn]:
    for cell in grid:
        room = cell.height if setter.vertical else cell.width
        text = passage.take(setter, min(max(room * rng.uniform(*s.fill), setter.row), room))
        spare = {"left": 0.0, "center": 0.5, "right": 1.0}[cell.alignment] * (room - setter.length(text))
        left, top = (cell.left, cell.top + spare) if setter.vertical else (cell.left + spare, cell.top)
        if text and (line := setter.draw(text, left, top)):
            yield line


def _colour(rng: np.random.Generator, probability: float, s: Text) -> tuple[int, int, int]:
    if rng.random() >= probability:
        return (0, 0, 0)
    return effects.dark_colour(rng, effects.whole(rng, s.darkness))


def _nothing_set(passage: Passage, faces: Sequence[Typeface], skipped: int) -> NoText:
    if not faces:
        return NoText("no_face_covers", "no face has glyph forms for vertical setting")
    if skipped:
        return NoText("no_face_covers", f"{len(faces)} faces, none of which covers the passage: {passage.sample()!r}")
    return NoText("no_text", "the passage is empty")


def _print(rng, grain, sheet: tuple[int, int], papers: Sequence[np.ndarray], drawn: list, s: Settings) -> np.ndarray:
    """Return the flat page: paper, text in its colours, noise. The coverage of each line is distorted in place."""
    texture = papers[rng.integers(len(papers))]
    page = Image.fromarray(textures.paper(texture, rng, sheet, rng.uniform(*s.page.texture_alpha)))
    alpha, sigma = rng.uniform(*s.page.elastic_alpha), rng.uniform(*s.page.elastic_sigma)
    for line, colour in drawn:
        if not s.straight:
            line.coverage = distort(line.coverage, grain, alpha, sigma)
        page.paste(colour, (line.left, line.top), Image.fromarray(line.coverage))
    return effects.add_noise(np.asarray(page), grain, rng.uniform(*s.page.noise))


def _label(drawn: list, placed: Placed, sheet: tuple[int, int], canvas: tuple[int, int], words: bool):
    """Return the visible lines and how many are cut or hidden by the canvas' edge."""
    lines, cut = [], 0
    for line, _ in drawn:
        quad = _quad(line.ink(), placed, sheet)
        start, end = 0, len(line.text)
        if quad is not None and not inside(quad, canvas):
            start, end, quad = _visible_part(line, placed, sheet, canvas)
            cut += 1
        if quad is None:
            continue
        box = placed.project(rectangle(*line.box))
        face, vertical = line.setter.face.face.name, line.setter.vertical
        parts = _words(line, (start, end), placed, sheet) if words else ()
        lines.append(Line(line.text[start:end], quad, box, face, vertical, tuple(parts)))
    return lines, cut


def _quad(ink: tuple[int, int, int, int] | None, placed: Placed, sheet: tuple[int, int]) -> np.ndarray | None:
    """Return the canvas quad of a rectangle of ink; what lies beyond the sheet was never printed."""
    if ink is None:
        return None
    left, top, right, bottom = max(ink[0], 0), max(ink[1], 0), min(ink[2], sheet[0]), min(ink[3], sheet[1])
    return placed.project(rectangle(left, top, right, bottom)) if left < right and top < bottom else None


def _visible_part(line: Drawn, placed: Placed, sheet: tuple[int, int], canvas: tuple[int, int]):
    """Return (start, end, quad) of the longest run of characters that lie on the canvas as a whole; quad None: none."""
    parts = [(i, i + 1) for i in range(len(line.text))]
    spans = line.spans(parts)
    quads = [_quad(line.ink(*span), placed, sheet) for span in spans]
    blank = [char == " " for char in line.text]
    seen = [b or (q is not None and bool(inside(q, canvas))) for b, q in zip(blank, quads, strict=True)]
    start, end = longest_visible(seen)
    while start < end:
        quad = _quad(line.ink(spans[start][0], spans[end - 1][1]), placed, sheet)
        if not blank[start] and not blank[end - 1] and quad is not None and inside(quad, canvas):
            return start, end, quad
        # A quad is as high as its highest character everywhere: the last or first one may have to go for that.
        at_end = blank[end - 1] or (not blank[start] and not inside(quad[[1, 2]], canvas))
        start, end = (start, end - 1) if at_end else (start + 1, end)
    return 0, 0, None


def _words(line: Drawn, bounds: tuple[int, int], placed: Placed, sheet: tuple[int, int]) -> Iterator[Word]:
    parts = list(word_bounds(line.text, *bounds))
    for (start, end), span in zip(parts, line.spans(parts), strict=True):
        quad = _quad(line.ink(*span), placed, sheet)
        if quad is not None:
            yield Word(line.text[start:end], quad)


def word_bounds(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the words in `text[start:end]`: runs between blanks; Han, kana and hangul one by one."""
    begin = None
    for i in range(start, end + 1):
        char = text[i] if i < end else " "
        alone = _ALONE.match(char)
        if begin is not None and (alone or char == " "):
            yield begin, i
            begin = None
        if alone:
            yield i, i + 1
        elif begin is None and char != " ":
            begin = i
