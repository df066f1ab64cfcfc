"""The picture of a window: a crop of the page in which nothing reads that is not in its label."""

from collections.abc import Sequence

import cv2
import numpy as np

from renderers.ink import CONTRAST
from renderers.page import Rect, bounds
from renderers.windows import Window

_UNIFORM = 0.6  # share of the pixels around a box that must be paper for the box to be painted over
_RING = 2  # pixels
_OVERLAP = 0.3  # of the height of a line's box, that may lie over another line


def window_pixels(pixels: np.ndarray, window: Window) -> tuple[np.ndarray, int]:
    """Crop uint8 [height, width, 3] and cover the lines of other windows that reach into it with paper.

    Also returns how many of them could not be covered, because they lie on a picture, a pattern or a line of the label.
    """
    x0, y0, x1, y1 = window.box
    crop = pixels[y0:y1, x0:x1]
    if not window.others:
        return crop, 0
    crop, left = crop.copy(), 0
    own = np.array([bounds(line.quad) for line in window.lines])
    for other, near in zip(window.others, _near(np.array(window.others), own), strict=True):
        left += not _cover(crop, other, own[near])
    return crop, left


def _near(others: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return bool [others, own]: which boxes lie beside or over each other."""
    a, b = others[:, None], own[None]
    return np.asarray(((a[..., :2] - _RING < b[..., 2:]) & (b[..., :2] < a[..., 2:] + _RING)).all(axis=2))


def _cover(crop: np.ndarray, box: Rect, near: np.ndarray) -> bool:
    """Paint paper over a box, but not over the lines of the label that are `near`."""
    height, width = crop.shape[:2]
    box = _beside(box, near) if len(near) else box
    if box is None:
        return False
    reach = 0 if len(near) and _touches(box, near, _RING) else _RING
    x0, y0 = max(int(box[0]) - reach, 0), max(int(box[1]) - reach, 0)
    x1, y1 = min(int(np.ceil(box[2])) + reach, width), min(int(np.ceil(box[3])) + reach, height)
    # Edges where the crop itself cuts through the box are not around it.
    edges = [
        edge.reshape(-1, 3)
        for edge, around in (
            (crop[max(y0 - 1, 0), x0:x1], y0 > 0), (crop[min(y1, height - 1), x0:x1], y1 < height),
            (crop[y0:y1, max(x0 - 1, 0)], x0 > 0), (crop[y0:y1, min(x1, width - 1)], x1 < width),
        )
        if around
    ]  # fmt: skip
    inside = crop[y0:y1, x0:x1]
    ring = np.concatenate(edges) if edges else inside.reshape(-1, 3)
    if not ring.size:
        return True
    paper = _paper(ring, inside)
    if paper is None:
        return False
    cv2.rectangle(crop, (x0, y0), (x1 - 1, y1 - 1), paper, cv2.FILLED)
    return True


def _paper(ring: np.ndarray, inside: np.ndarray) -> Sequence[float] | None:
    """The colour that most of a box and of the pixels around it have; None: too little of what is around has it."""
    colour = tuple(ring[0].tolist())
    if inside.size and (ring == ring[0]).all():  # nearly always, and an exact short cut of what follows
        same = len(ring) + cv2.countNonZero(cv2.inRange(inside, colour, colour))
        if 2 * same > len(ring) + inside.size // 3:
            return colour
    paper = np.median(np.concatenate([ring, inside.reshape(-1, 3)]), axis=0)  # ink is less than half
    return paper.tolist() if (np.abs(ring - paper).max(axis=1) <= CONTRAST).mean() >= _UNIFORM else None


def _beside(box: Rect, own: np.ndarray) -> Rect | None:
    """Draw a box back from lines whose own boxes it overlaps a little, as tightly set lines do; None: not a little."""
    x0, y0, x1, y1 = box
    most = _OVERLAP * (y1 - y0)
    for a0, b0, a1, b1 in own[(own[:, 0] < x1) & (own[:, 2] > x0) & (own[:, 1] < y1) & (own[:, 3] > y0)].tolist():
        if b1 - y0 <= most:
            y0 = max(y0, b1)
        elif y1 - b0 <= most:
            y1 = min(y1, b0)
        elif a1 - x0 <= most:
            x0 = max(x0, a1)
        elif x1 - a0 <= most:
            x1 = min(x1, a0)
        else:
            return None
    return x0, y0, x1, y1


def _touches(box: Rect, own: np.ndarray, reach: float) -> bool:
    x0, y0, x1, y1 = box
    return bool(((own[:, 0] < x1 + reach) & (own[:, 2] > x0 - reach)
                 & (own[:, 1] < y1 + reach) & (own[:, 3] > y0 - reach)).any())  # fmt: skip
