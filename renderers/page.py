"""What a renderer yields: a page's pixels and its visible lines of text.

Coordinates are pixels of the page's image: floats, origin top-left, x to the right, y down. A quad has four corners,
clockwise from the top-left corner OF THE TEXT as a reader holds it: for a line that runs upwards the first corner is
at the bottom left of the image. That is SynthDoG's order and the order of the paper's Box B.1.
"""

from dataclasses import dataclass, field

import numpy as np

from corpus.verdicts import Lost, failed

Point = tuple[float, float]
Quad = tuple[Point, Point, Point, Point]
Rect = tuple[float, float, float, float]  # x0, y0, x1, y1


class BadDocument(Lost):
    """A document or page that cannot be rendered: an error of `kind`."""

    def __init__(self, kind: str, message: str):
        super().__init__(failed(kind, message))


@dataclass(frozen=True, slots=True)
class Line:
    """One visual line of text and its quad in pixels.

    `breaks` are the places where the line may be divided, between words, of horizontal text that runs to the right:
    (characters before, x where the ink before ends, x where the ink after begins). `unseen` counts characters that
    were cut from the text because no ink shows where they should be, though something of the line shows; `misdrawn`
    those whose picture is wrong because a font is missing.
    """

    text: str
    quad: Quad
    breaks: tuple[tuple[int, float, float], ...] = ()
    unseen: int = 0
    misdrawn: int = 0

    def at(self, quad: Quad) -> "Line":
        """Return the line in another place."""
        return Line(self.text, quad, self.breaks, self.unseen, self.misdrawn)


@dataclass(slots=True)
class Page:
    """`pixels` is uint8 [height, width, 3], blue first: OpenCV's order, whose JPEG encoder takes it as it is."""

    number: int  # from 0, in the document
    pixels: np.ndarray
    lines: list[Line]
    hidden: int = 0  # lines left out because no ink shows where they are
    faint: list[Rect] = field(default_factory=list)  # where some of those can be seen all the same, but hardly

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def height(self) -> int:
        return self.pixels.shape[0]


def rect_quad(rect: Rect) -> Quad:
    """Return an upright rectangle as a quad."""
    x0, y0, x1, y1 = rect
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)


def turned_quad(rect: Rect, quarter_turns: int) -> Quad:
    """Return the rectangle as the quad of text turned clockwise by `quarter_turns` x 90 degrees."""
    corners = rect_quad(rect)
    start = quarter_turns % 4
    return corners[start:] + corners[:start]


def bounds(quad: Quad) -> Rect:
    """Return the smallest upright rectangle around a quad."""
    xs = [x for x, _ in quad]
    ys = [y for _, y in quad]
    return min(xs), min(ys), max(xs), max(ys)


def union(a: Rect, b: Rect) -> Rect:
    """Return the smallest rectangle around both."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def clip_quad(quad: Quad, width: float, height: float) -> Quad:
    """Move corners that stick out of the image onto its border."""
    return tuple((min(max(x, 0.0), width), min(max(y, 0.0), height)) for x, y in quad)


def shift_quad(quad: Quad, dx: float, dy: float) -> Quad:
    """Move a quad by (dx, dy) pixels."""
    return tuple((x + dx, y + dy) for x, y in quad)
