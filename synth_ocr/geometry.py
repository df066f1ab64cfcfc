"""The page's way onto the canvas: synthtiger tilts and places a layer, and everything on the page follows it.

Coordinates are continuous: the pixel in column i covers i to i + 1. Quads are clockwise from top-left.
"""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from synth_ocr.compat import import_synthtiger
from synth_ocr.settings import Page


class Placed:
    """The page on a canvas. `matrix` (3 x 3) maps flat page coordinates to canvas coordinates; `quad` is the page's."""

    def __init__(self, rng: np.random.Generator, size: tuple[int, int], canvas: tuple[int, int], page: Page):
        layers = import_synthtiger().layers
        sheet = layers.Layer(np.zeros((1, 1, 4), np.float32))  # a layer is an image and a quad; only the quad is used
        sheet.bbox = [0, 0, *size]
        _tilt(rng, sheet, page)
        space = np.clip(np.array(canvas) - sheet.size, 0, None)
        sheet.topleft = [rng.integers(int(room) + 1) for room in space]
        self.quad = sheet.quad.astype(np.float64)
        self.matrix = cv2.getPerspectiveTransform(rectangle(0, 0, *size).astype(np.float32), sheet.quad)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Map points (..., 2) of the flat page to the canvas."""
        flat = np.asarray(points, np.float64).reshape(1, -1, 2)
        return cv2.perspectiveTransform(flat, self.matrix).reshape(points.shape)

    def warp(self, page: np.ndarray, onto: np.ndarray) -> None:
        """Draw the flat page (uint8, height x width x 3) over the canvas `onto`, in place, with smooth edges."""
        height, width = onto.shape[:2]
        left, top = np.floor(self.quad.min(0)).astype(int).clip(0, (width, height))
        right, bottom = np.ceil(self.quad.max(0)).astype(int).clip(0, (width, height))
        if right <= left or bottom <= top:
            return
        # OpenCV counts from pixel centres, we from corners.
        to_corner, to_centre = _shift(0.5, 0.5), _shift(-0.5 - left, -0.5 - top)
        matrix, size = to_centre @ self.matrix @ to_corner, (int(right - left), int(bottom - top))
        tilted = cv2.warpPerspective(page, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        _lay_over(onto[top:bottom, left:right], tilted, _mask(self.quad - (left, top), size))


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """Return the corners (4 x 2) of a rectangle, clockwise from top-left."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def inside(quads: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Tell for each quad (..., 4, 2) whether all of it lies on a canvas of `size` (width, height)."""
    return ((quads >= 0) & (quads <= np.array(size))).all(axis=(-1, -2))


def longest_visible(visible: Sequence[bool]) -> tuple[int, int]:
    """Return (start, end) of the first longest run of true values; (0, 0) when there is none."""
    best, start = (0, 0), None
    for i, value in enumerate([*visible, False]):
        if value and start is None:
            start = i
        elif not value and start is not None:
            best, start = max(best, (start, i), key=lambda run: run[1] - run[0]), None
    return best


def _tilt(rng: np.random.Generator, sheet, page: Page) -> None:
    kind = rng.choice(len(page.tilts), p=np.array(page.tilt_weights) / np.sum(page.tilt_weights))
    values = {
        "pxs": None,
        "percents": tuple(rng.uniform(*span) for span in page.tilts[kind]),
        "aligns": tuple(rng.uniform(-1, 1, 4)),
    }  # every value is given: synthtiger's own would come from numpy's global state
    _perspective().apply([sheet], values)


@cache
def _perspective():
    return import_synthtiger().components.Perspective()


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], np.float64)


def _mask(quad: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the coverage (uint8) of a quad given in continuous coordinates, with an anti-aliased edge."""
    mask = np.zeros(size[::-1], np.uint8)
    points = np.round((quad - 0.5) * 256).astype(np.int32)
    cv2.fillConvexPoly(mask, points, 255, cv2.LINE_AA, shift=8)
    return mask


def _lay_over(below: np.ndarray, above: np.ndarray, mask: np.ndarray) -> None:
    cv2.copyTo(above, cv2.compare(mask, 255, cv2.CMP_EQ), below)
    edge = cv2.findNonZero(cv2.inRange(mask, 1, 254))
    if edge is None:  # the sheet's edges lie on pixel borders
        return
    edge = tuple(edge.reshape(-1, 2).T[::-1])  # OpenCV 4 and 5 shape it differently; (x, y) to (row, column)
    share = mask[edge][:, None] / np.float32(255)
    below[edge] = np.round(below[edge] * (1 - share) + above[edge] * share)
