"""Boxes and quads: pixels of the stored image <-> the integers of the text format.

Pixels are floats, origin top-left, x to the right, y down. The text format's integers are in [0, 1000), relative to the
image's width or height; only `normalise` makes them.
"""

import math
from collections.abc import Sequence

RANGE = 1000  # the paper's range is [0, 1000)

Box = tuple[float, float, float, float]  # x0, y0, x1, y1
Quad = tuple[tuple[float, float], ...]  # four corners, clockwise from the text's top-left


def normalise(value: float, size: float) -> int:
    """Turn a pixel coordinate into the format's integer: floor(1000 * value / size), clamped to 0..999."""
    return min(max(math.floor(RANGE * value / size), 0), RANGE - 1)


def pixels(value: int, size: float) -> float:
    """Turn the format's integer back into pixels: the middle of the interval that `normalise` maps to it."""
    return (value + 0.5) * size / RANGE


def xywh_to_xyxy(box: Sequence[float]) -> Box:
    """Turn (left, top, width, height), as in COCO, into (x0, y0, x1, y1)."""
    x, y, width, height = box
    return x, y, x + width, y + height


def clip_box(box: Sequence[float], width: float, height: float) -> Box | None:
    """Return the part of a box that lies in the image; None when it is empty, inverted or not four finite numbers."""
    numbers = _finite(box, 4)
    if numbers is None:
        return None
    x0, y0, x1, y1 = numbers
    if x0 >= x1 or y0 >= y1:
        return None
    clipped = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    return clipped if clipped[0] < clipped[2] and clipped[1] < clipped[3] else None


def normalise_box(box: Sequence[float], width: float, height: float) -> tuple[int, int, int, int] | None:
    """Clip a box in pixels and normalise it; None when it has no area, in pixels or in the format's integers."""
    clipped = clip_box(box, width, height)
    if clipped is None:
        return None
    x0, y0, x1, y1 = (normalise(v, size) for v, size in zip(clipped, (width, height) * 2, strict=True))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def normalise_quad(quad: Sequence[Sequence[float]], width: float, height: float) -> tuple[tuple[int, int], ...] | None:
    """Normalise four corners in pixels; None when, clamped to the image, they no longer go clockwise around an area."""
    numbers = _finite([v for corner in quad for v in corner], 8) if _is_nested(quad) else None
    if numbers is None:
        return None
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    if signed_area([(min(max(x, 0), width), min(max(y, 0), height)) for x, y in corners]) <= 0:
        return None
    normal = tuple((normalise(x, width), normalise(y, height)) for x, y in corners)
    return normal if signed_area(normal) > 0 else None


def signed_area(corners: Sequence[Sequence[float]]) -> float:
    """Return a polygon's area, positive where its corners go clockwise on the screen (y points down)."""
    after = list(corners[1:]) + [corners[0]]
    return math.fsum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(corners, after, strict=True)) / 2


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over union of two boxes (x0, y0, x1, y1) in the same frame; 0 where neither has area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = _area(a) + _area(b) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Sequence[float]) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def _is_nested(quad) -> bool:
    return isinstance(quad, Sequence) and all(isinstance(corner, Sequence) and len(corner) == 2 for corner in quad)


def _finite(values, count: int) -> list[float] | None:
    """Return `count` finite floats, or None where crawled data holds something else."""
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None
