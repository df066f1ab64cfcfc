"""The shapes of scenes: each is drawn into a box and reports the exact bounds of what it drew."""

import math
from collections.abc import Callable, Sequence

from corpus.geometry import Box


def bounds(points: Sequence[tuple[float, float]]) -> Box:
    """The smallest box [x0, y0, x1, y1] around the points."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return (min(xs), min(ys), max(xs), max(ys))


def _polygon(points: Sequence[tuple[float, float]]) -> Callable:
    """A drawing function for a polygon given in the unit square; it returns the exact bounds it drew."""

    def draw(pen, box, fill):
        x0, y0, x1, y1 = box
        corners = [(x0 + x * (x1 - x0), y0 + y * (y1 - y0)) for x, y in points]
        pen.polygon(corners, fill=fill)
        return bounds(corners)

    return draw


def _circle(pen, box, fill):
    pen.ellipse(box, fill=fill)
    return box


def _square(pen, box, fill):
    pen.rectangle(box, fill=fill)
    return box


def _ring(pen, box, fill):
    pen.ellipse(box, outline=fill, width=max(2, round((box[2] - box[0]) * 0.2)))
    return box


def _turn(count: int, radii: Sequence[float], start: float = -90.0) -> list[tuple[float, float]]:
    """`count` points around the centre of the unit square, their radii taken from `radii` in turn."""
    angles = [math.radians(start + 360 * i / count) for i in range(count)]
    return [(0.5 + radii[i % len(radii)] * math.cos(a), 0.5 + radii[i % len(radii)] * math.sin(a))
            for i, a in enumerate(angles)]  # fmt: skip


def _heart_points() -> list[tuple[float, float]]:
    """The usual parametric heart, x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, in the unit square."""
    turns = [2 * math.pi * i / 48 for i in range(48)]
    xs = [16 * math.sin(t) ** 3 for t in turns]
    ys = [-(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) for t in turns]
    return [((x + 16) / 32, (y - min(ys)) / (max(ys) - min(ys))) for x, y in zip(xs, ys, strict=True)]


def _moon_points() -> list[tuple[float, float]]:
    """A crescent: the outer arc of one circle and, back, the arc of a smaller one shifted to the right."""
    outer = [math.radians(60 + 240 * i / 24) for i in range(25)]
    inner = [math.radians(300 - 240 * i / 24) for i in range(25)]
    points = [(0.5 + 0.5 * math.cos(a), 0.5 + 0.5 * math.sin(a)) for a in outer]
    return points + [(0.58 + 0.34 * math.cos(a), 0.5 + 0.43 * math.sin(a)) for a in inner[1:-1]]


DRAW: dict[str, Callable] = {
    "circle": _circle,
    "square": _square,
    "ring": _ring,
    "triangle": _polygon([(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)]),
    "diamond": _polygon([(0.5, 0.0), (0.9, 0.5), (0.5, 1.0), (0.1, 0.5)]),
    "cross": _polygon([(0.34, 0), (0.66, 0), (0.66, 0.34), (1, 0.34), (1, 0.66), (0.66, 0.66),
                       (0.66, 1), (0.34, 1), (0.34, 0.66), (0, 0.66), (0, 0.34), (0.34, 0.34)]),
    "star": _polygon(_turn(10, (0.5, 0.2))),
    "hexagon": _polygon(_turn(6, (0.5,), start=0.0)),
    "heart": _polygon(_heart_points()),
    "moon": _polygon(_moon_points()),
}  # fmt: skip
