"""One line of text: how much of it fits a cell, its ink, and where each character's ink is."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from synth_ocr.glyphs import Typeface

_INK = 32  # coverage (of 255) from which a pixel counts as ink
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]")
_MARGIN = 3  # pixels: distortion moves ink by one at most, and cubic interpolation looks two further
_LONGEST = 512  # characters that one line is cut from


class Passage:
    """Running text and a reading position: single spaces, nothing invisible; what a face lacks is stepped over."""

    def __init__(self, text: str):
        self._text = " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", text)).split())
        self._codes = np.frombuffer(self._text.encode("utf-32-le"), np.uint32).astype(np.int64)
        self._codes = np.minimum(self._codes, 0x2FFFF)  # never assigned, so no face covers it
        self.at = 0

    def rest(self) -> int:
        """Return how many characters are left."""
        return len(self._codes) - self.at

    def coverage(self, face: Typeface, length: int) -> float:
        """Return the share of the next `length` characters that `face` can draw; blanks count as nothing."""
        codes = self._codes[self.at : self.at + length]
        codes = codes[codes != 0x20]
        return float(np.mean(face.advances[codes] > 0)) if len(codes) else 0.0

    def skip(self, length: int) -> None:
        """Move on by `length` characters."""
        self.at = min(self.at + length, len(self._codes))

    def take(self, setter: "LineSetter", width: float) -> str:
        """Return the characters that fit `width` pixels, without blanks at the ends, and move on."""
        while self.rest() and self._codes[self.at] == 0x20:
            self.at += 1
        advances = setter.face.advances[self._codes[self.at : self.at + _LONGEST]] * setter.size
        count = int(np.searchsorted(np.cumsum(advances), width, side="right"))
        count = max(count, min(1, len(advances)))  # a glyph wider than its cell must not stop the text
        shown = self._shown(count, advances)
        while count > 1 and setter.length(shown) > width + 1:  # hinting rounds advances to whole pixels
            count -= 1
            shown = self._shown(count, advances)
        self.at += count
        return shown

    def _shown(self, count: int, advances: np.ndarray) -> str:
        taken = self._text[self.at : self.at + count]
        return "".join(c for c, advance in zip(taken, advances, strict=False) if advance).strip()

    def sample(self) -> str:
        """Return the beginning of the passage, for messages."""
        return self._text[:60]


@dataclass
class Drawn:
    """A line on the page: its text, its coverage (uint8, height x width), the page position of the coverage's corner.

    `start` is where the text begins along the line, in pixels of `coverage`; a vertical line runs down.
    `box` is the advance box on the page: left, top, right, bottom.
    """

    text: str
    coverage: np.ndarray
    left: int
    top: int
    start: float
    box: tuple[float, float, float, float]
    setter: "LineSetter"

    def ink(self, low: float = 0.0, high: float | None = None) -> tuple[int, int, int, int] | None:
        """Return the page rectangle (left, top, right, bottom) around the ink; None when there is none.

        `low` and `high` bound the part of the line that is looked at, in pixels of `coverage` along it.
        """
        first = max(round(low), 0)
        part = slice(first, None if high is None else max(round(high), 0))
        ink = self.coverage[part] if self.setter.vertical else self.coverage[:, part]
        if ink.size == 0:
            return None
        x, y, w, h = cv2.boundingRect(cv2.threshold(ink, _INK - 1, 255, cv2.THRESH_BINARY)[1])
        if not w:
            return None
        x, y = (x, y + first) if self.setter.vertical else (x + first, y)
        return self.left + x, self.top + y, self.left + x + w, self.top + y + h

    def spans(self, parts: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
        """Return for each `text[start:end]` the bounds (low, high) that `ink` takes, halfway into the blanks around."""
        starts = [self.start + self.setter.length(self.text[:start]) for start, _ in parts]
        ends = [self.start + self.setter.length(self.text[:end]) for _, end in parts]
        inner = [(end + start) / 2 for end, start in zip(ends, starts[1:], strict=False)]
        along = self.coverage.shape[0 if self.setter.vertical else 1]
        # Ink that overhangs the ends of a line belongs to it.
        first = 0.0 if parts[0][0] == 0 else starts[0]
        last = along if parts[-1][1] == len(self.text) else ends[-1]
        return list(zip([first, *inner], [*inner, last], strict=True))


class LineSetter:
    """Sets lines of one face at one row height (pixels): a row holds the face's ascent and descent exactly."""

    def __init__(self, face: Typeface, row: float, vertical: bool = False):
        self.face, self.row, self.vertical = face, row, vertical
        self.size = row if vertical else row / (face.ascent + face.descent)
        self._font = face.font(self.size)
        self._companion = face.companion_font(self.size) if face.companion else None
        self._lengths: dict[str, float] = {}

    def length(self, text: str) -> float:
        """Return the advance of `text` in pixels, with kerning."""
        if text not in self._lengths:
            self._lengths[text] = sum(font.getlength(run, **self._options()) for run, font in self._runs(text))
        return self._lengths[text]

    def draw(self, text: str, left: float, top: float) -> Drawn | None:
        """Draw a line whose advance box starts at (left, top) on the page; None when it leaves no ink."""
        pad = int(self.row / 2) + 2  # italics and swashes reach beyond their advance box
        x, y = int(np.floor(left)) - pad, int(np.floor(top)) - pad
        length = self.length(text)
        across, along = int(self.row) + 2 * pad + 2, int(length) + 2 * pad + 2
        picture = Image.new("L", (across, along) if self.vertical else (along, across))
        self._draw_runs(ImageDraw.Draw(picture), text, left - x, top - y)
        x, y, coverage = _trim(picture, x, y)
        wide, high = (self.row, length) if self.vertical else (length, self.row)
        box = (left, top, left + wide, top + high)
        line = Drawn(text, coverage, x, y, top - y if self.vertical else left - x, box, self)
        return line if line.ink() else None

    def _draw_runs(self, draw: ImageDraw.ImageDraw, text: str, x: float, y: float) -> None:
        for run, font in self._runs(text):
            if self.vertical:
                draw.text((x + self.row / 2, y), run, 255, font, anchor="mt", **self._options())
            else:
                draw.text((x, y + self.face.ascent * self.size), run, 255, font, anchor="ls", **self._options())
            if len(run) < len(text):  # another run follows or went before
                advance = font.getlength(run, **self._options())
                x, y = (x, y + advance) if self.vertical else (x + advance, y)

    def _runs(self, text: str) -> Iterator[tuple[str, ImageFont.FreeTypeFont]]:
        if self._companion is None:
            yield text, self._font
            return
        own = [c == " " or bool(self.face.owner[ord(c)]) for c in text]
        start = 0
        for end in range(1, len(text) + 1):
            if end == len(text) or own[end] != own[start]:
                yield text[start:end], self._font if own[start] else self._companion
                start = end

    def _options(self) -> dict:
        return {"direction": "ttb"} if self.vertical else {"direction": "ltr"}


def _trim(picture: Image.Image, x: int, y: int) -> tuple[int, int, np.ndarray]:
    """Cut off what is blank; return the corner's new position and the rest, with the margin that `distort` reaches."""
    left, top, right, bottom = picture.getbbox() or (0, 0, 1, 1)
    left, top = max(left - _MARGIN, 0), max(top - _MARGIN, 0)
    trimmed = picture.crop((left, top, min(right + _MARGIN, picture.width), min(bottom + _MARGIN, picture.height)))
    return x + left, y + top, np.asarray(trimmed)


def distort(coverage: np.ndarray, rng: np.random.Generator, alpha: float, sigma: float) -> np.ndarray:
    """Move each pixel by up to `alpha` pixels at random; `sigma` (pixels) smooths the moves. Elastic distortion."""
    height, width = coverage.shape
    moves = np.frombuffer(rng.bytes(2 * height * width), np.int8).reshape(2, height, width).astype(np.float32)
    moves *= alpha / 128
    if sigma > 0.15:  # below, a 5 x 5 kernel is the identity in float32
        for move in moves:
            cv2.GaussianBlur(move, (5, 5), sigma, dst=move)
    moves[0] += np.arange(width, dtype=np.float32)
    moves[1] += np.arange(height, dtype=np.float32)[:, None]
    return cv2.remap(coverage, moves[0], moves[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
