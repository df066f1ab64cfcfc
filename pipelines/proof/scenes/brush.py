"""The canvas that scenes are drawn on: it finds free places, draws things and words there, and knows where they are."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from pipelines.proof.scenes.names import BACKGROUNDS, COLOURS
from pipelines.proof.scenes.shapes import DRAW

SCALE = 2  # drawn at twice the size and reduced, which smooths edges without moving them
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


class Brush:
    """The canvas of one scene, the random choices made on it, and what has been drawn so far."""

    def __init__(self, rng, size, shapes, colours, words, max_objects, max_tilt, lettering, grid, one_wording):
        self.rng, self.size, self.max_objects, self.max_tilt = rng, size, max_objects, max_tilt
        self.lettering, self.grid, self.one_wording = lettering, grid, one_wording
        self.shapes, self.colours, self.vocabulary = list(shapes), list(colours), list(words)
        self.background = rng.choice(list(BACKGROUNDS))
        self.image = Image.new("RGB", (size * SCALE,) * 2, jitter(rng, BACKGROUNDS[self.background][1], 6))
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
        fill = jitter(self.rng, COLOURS[colour][1], 12)
        exact = DRAW[shape](self.pen, [v * SCALE for v in box], fill)
        self.objects.append(Thing(shape, colour, tuple(round(v / SCALE, 2) for v in exact)))
        return self.objects[-1]

    def print_word(self, text: str, colour: str, height: float, area, fill=None) -> PrintedWord:
        """Print `text`, its ink about `height` (a fraction of the side) high, at a free place inside `area`."""
        unit = self.size * SCALE
        mask = _ink(text, max(8, round(self._letter_height(height) * unit)))
        tilt = self.rng.uniform(-self.max_tilt, self.max_tilt)
        turned = mask.rotate(tilt, Image.Resampling.BICUBIC, expand=True) if tilt else mask
        # A long word shrinks to the width of its area, and once more to the free place that was found.
        fit = min(1.0, (area[2] - area[0] - 3 * _MARGIN) * unit / turned.width)
        free = self.place(fit * turned.width / unit, fit * turned.height / unit, area)
        fit = min(1.0, (free[2] - free[0]) * unit / turned.width)
        mask, turned = _resized(mask, fit), _resized(turned, fit)
        left, top = round(free[0] * unit), round(free[1] * unit)
        self.image.paste(fill or jitter(self.rng, COLOURS[colour][1], 12), (left, top), turned)
        centre = (left + turned.width / 2, top + turned.height / 2)
        self.words.append(PrintedWord(text, colour, _quad(centre, mask.size, tilt)))
        return self.words[-1]


def _resized(image: Image.Image, ratio: float) -> Image.Image:
    return image.resize((max(1, int(image.width * ratio)), max(1, int(image.height * ratio))))


def _overlap(a, b, gap: float = 0.02) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def jitter(rng: random.Random, colour: tuple[int, int, int], amount: int) -> tuple[int, int, int]:
    """A colour like this one."""
    return tuple(min(255, max(0, c + rng.randint(-amount, amount))) for c in colour)


def _quad(centre, extent, degrees: float) -> tuple[tuple[float, float], ...]:
    """Corners of an `extent` rectangle turned counter-clockwise about `centre`, in pixels of the final image."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half_w, half_h = extent[0] / 2, extent[1] / 2
    corners = [(-half_w, -half_h), (half_w, -half_h), (half_w, half_h), (-half_w, half_h)]
    turned = [(centre[0] + x * cos + y * sin, centre[1] - x * sin + y * cos) for x, y in corners]
    return tuple((round(x / SCALE, 2), round(y / SCALE, 2)) for x, y in turned)


@lru_cache(maxsize=64)
def _font(pixels: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(pixels)


def _ink(text: str, pixels: int) -> Image.Image:
    """The text as an "L" mask cropped to its ink."""
    font = _font(pixels)
    mask = Image.new("L", (int(font.getlength(text)) + 2 * pixels, 3 * pixels))
    ImageDraw.Draw(mask).text((pixels, pixels), text, fill=255, font=font)
    return mask.crop(mask.getbbox())
