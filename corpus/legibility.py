"""Whether a line of text can still be read after the trainer has squashed its image to a square.

The measure of every source of OCR samples: how much room a character has along the line, and how high the ink is, in
pixels of the squashed image. Measured with tesseract at 448 pixels: English at 2 to 3 pixels a character reads 0.88 of
what it reads at full size, at 5 and more 0.985; Chinese at 6 to 8 pixels 0.54, at 10 to 12 pixels 0.96.
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from math import hypot, inf

Quad = tuple[tuple[float, float], ...]  # top-left, top-right, bottom-right, bottom-left, as the text reads

# Letters whose ink is only x-height: a line of nothing else has two thirds of the ink of "Ag" at the same font size.
_LOW_ONLY = re.compile(r"[acemnorsuvwxzαειοσυωавгдежзиклмнопстхчшъыьэюя\W_]*")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_LOW_SHARE = 0.8
_WIDE = 5 / 3  # of a half-width character's room, a full-width one needs


@dataclass(frozen=True)
class Legibility:
    """The side of the square that the trainer squashes images to, and the least that a line must have there.

    Pixels of advance for a half-width character (Latin, Arabic; a full-width one, Han, kana, hangul, needs 5/3 of it),
    and of ink across the line.
    """

    train_size: int = 448
    advance: float = 6.0
    ink: float = 10.0

    def needs(self, text: str) -> tuple[float, float]:
        """Return the least length and the least height of a line with this text, in pixels of the square.

        A height of 0 for text without letters and digits: a dash is low in any size. One character alone is judged by
        its height only: "1" and "l" are narrow in any size.
        """
        length, height = _needs(text)
        return self.advance * length, self.ink * height

    def measure(self, text: str, quad: Quad, width: float, height: float) -> tuple[float, float]:
        """Return the advance of a half-width character and the ink height of a line in an image of `width` x `height`.

        In pixels of the square, comparable with `advance` and `ink`: a full-width character counts as 5/3 half-width
        ones, the ink of a line of low letters by its font size. What needs no length or height has no end of it.
        """
        length, ink = self.needs(text)
        along, across = squashed(text, quad, self.train_size / width, self.train_size / height)
        return (self.advance * along / length if length else inf), (self.ink * across / ink if ink else inf)


@lru_cache(maxsize=1 << 14)  # asked of the same line when its page is cut and when its window is judged
def _needs(text: str) -> tuple[float, float]:
    """Return the least length in half-width characters, and the least height as a share of the least ink."""
    narrow, wide = widths(text)
    low = _LOW_SHARE if _LOW_ONLY.fullmatch(text) else 1.0
    length = narrow + _WIDE * wide if narrow + 2 * wide > 1 else 0.0
    return length, low if _LETTER_OR_DIGIT.search(text) else 0.0


def widths(text: str) -> tuple[int, int]:
    """Return how many half-width and how many full-width characters the text has; combining marks are none."""
    if text.isascii():
        return len(text), 0
    wide = sum(map(is_full_width, text))
    return len(text) - wide - sum(map(_takes_no_room, text)), wide


@cache
def is_full_width(character: str) -> bool:
    """Whether the character fills a square: Han, kana, hangul, full-width forms."""
    return unicodedata.east_asian_width(character) in "WF"


@cache
def _takes_no_room(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me", "Cf")


def squashed(text: str, quad: Quad, x_scale: float, y_scale: float) -> tuple[float, float]:
    """Return the length along the text and the height across it of a quad after scaling."""
    top, left = _side(quad, 1, x_scale, y_scale), _side(quad, 3, x_scale, y_scale)
    return (left, top) if is_column(text, quad) else (top, left)


def is_column(text: str, quad: Quad) -> bool:
    """Whether the text is set from top to bottom with upright characters: full-width text in an upright tall quad."""
    return (
        is_full_width(text[0]) and len(text) > 1 and _side(quad, 3) > 1.3 * _side(quad, 1) and quad[0][0] < quad[1][0]
    )


def _side(quad: Quad, corner: int, x_scale: float = 1.0, y_scale: float = 1.0) -> float:
    (x0, y0), (x1, y1) = quad[0], quad[corner]
    return hypot((x1 - x0) * x_scale, (y1 - y0) * y_scale)
