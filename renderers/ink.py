"""Ink: where a rendered page differs from its background.

A label is only worth its picture: a line is kept when ink shows inside its box, and the box is drawn in until it
touches the ink. The same measure, taken independently over whole pages, is the numeric check of all boxes.
"""

import math

import cv2
import numpy as np

from renderers.page import Quad, Rect, bounds

# A pixel is ink when its luminance differs by more than this from the background beside the text. Antialiased edges
# and JPEG noise stay below; pale grey text (#cccccc on white differs by 51) is above.
CONTRAST = 32
FAINT = 10  # what differs by less cannot be seen at all

cv2.setNumThreads(1)  # one process per core already; OpenCV's own threads only fight over the cores


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Return uint8 [height, width] of BGR uint8 [height, width, 3]."""
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)


def crop(grey: np.ndarray, rect: Rect, margin: float = 0.0) -> tuple[np.ndarray, int, int]:
    """Return the pixels touched by `rect` grown by `margin`, and the offset (x, y) of that crop in the image."""
    height, width = grey.shape
    x0, y0 = max(int(rect[0] - margin), 0), max(int(rect[1] - margin), 0)
    x1, y1 = min(math.ceil(rect[2] + margin), width), min(math.ceil(rect[3] + margin), height)
    return grey[y0 : max(y1, y0), x0 : max(x1, x0)], x0, y0


def background(patch: np.ndarray) -> int:
    """Return the luminance behind the text: the middle one of the four corners, the brighter of two candidates."""
    corners = sorted((int(patch[0, 0]), int(patch[0, -1]), int(patch[-1, 0]), int(patch[-1, -1])))
    return corners[2] if corners[2] - corners[1] <= CONTRAST else corners[3]


def ink_mask(patch: np.ndarray, paper: int) -> np.ndarray:
    """Return uint8 [height, width], 255 where the patch differs from the luminance `paper` by more than CONTRAST."""
    if paper + CONTRAST >= 255:  # white paper: nothing is brighter, and one pass is enough
        return cv2.threshold(patch, paper - CONTRAST - 1, 255, cv2.THRESH_BINARY_INV)[1]
    return cv2.threshold(cv2.absdiff(patch, float(paper)), CONTRAST, 255, cv2.THRESH_BINARY)[1]


class Ink:
    """The ink of one page, ready to be asked about many boxes."""

    def __init__(self, pixels: np.ndarray):
        self.grey = luminance(pixels)
        # One mask against the commonest luminance of the page serves nearly every line.
        counts = np.bincount(self.grey[::16, ::16].ravel(), minlength=256)
        self.mask = ink_mask(self.grey, int(counts.argmax()))

    def patch(self, rect: Rect) -> tuple[np.ndarray, int, int]:
        """Return the mask of ink (255) of the pixels touched by `rect`, and where it lies in the image (x, y)."""
        patch, left, top = crop(self.mask, rect)
        if patch.size and patch[0, 0] and patch[-1, -1]:  # on paper of another colour than the page's
            patch, left, top = crop(self.grey, rect)
            patch = ink_mask(patch, background(patch))
        return patch, left, top

    def fit(self, rect: Rect) -> Rect | None:
        """Draw a box in to the ink inside it; None when nothing shows there.

        Over a photo, a gradient or a table's rules everything is ink and the box stays as it is.
        """
        return tight(*self.patch(rect))

    def is_faint(self, rect: Rect) -> bool:
        """Whether something shows in a box, though too little of it to be ink: grey on grey."""
        patch = crop(self.grey, rect)[0]
        return patch.size > 0 and int(patch.max()) - int(patch.min()) > FAINT

    def fit_turned(self, turn: np.ndarray, low: np.ndarray, high: np.ndarray):
        """Draw a turned box in to its ink; None when nothing shows.

        `turn` (2 x 2) maps coordinates of the page to those of the box, in which `low` and `high` bound it.
        """
        size = np.clip(np.ceil(high - low), 1, 8192).astype(int)
        matrix = np.hstack([turn.T, (turn.T @ low)[:, None]])  # from the upright patch to the page
        patch = cv2.warpAffine(self.mask, matrix, size.tolist(), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        x, y, width, height = cv2.boundingRect(patch)
        if width == 0:
            return None
        return low + (x, y), low + (x + width, y + height)


def tight(patch: np.ndarray, left: int, top: int) -> Rect | None:
    """Return the box around the ink of a patch that lies at (left, top) in the image; None: there is none."""
    if patch.size == 0:
        return None
    x, y, width, height = cv2.boundingRect(patch)
    return (float(left + x), float(top + y), float(left + x + width), float(top + y + height)) if width else None


def fill(shape: tuple[int, int], quads: list[Quad], value: int = 1) -> np.ndarray:
    """Paint quads into an empty uint8 image of (height, width)."""
    canvas = np.zeros(shape, np.uint8)
    for quad in quads:
        cv2.fillConvexPoly(canvas, np.round(np.asarray(quad) - 0.5).astype(np.int32), value)
    return canvas


def ink_report(grey: np.ndarray, quads: list[Quad]) -> dict[str, float]:
    """Compare the ink inside the quads with the ink just outside, over one page.

    `inside` and `outside` are the shares of pixels that are ink, in the quads and in a ring around them a quarter of
    a line high (pixels of other quads left out). `caught` is the share of the ink of both that lies inside: 1.0 when
    no stroke crosses a box's border and nothing unlabelled lies beside it.
    """
    inked = in_ring = area = ring_area = 0
    everything = fill(grey.shape, quads)
    for quad in quads:
        box = bounds(quad)
        reach = max(2.0, 0.25 * min(box[2] - box[0], box[3] - box[1]))
        patch, left, top = crop(grey, box, reach)
        if patch.size == 0:
            continue
        moved = [(x - left, y - top) for x, y in quad]
        own = fill(patch.shape, [moved])
        size = 2 * int(round(reach)) + 1
        ring = cv2.dilate(own, np.ones((size, size), np.uint8))
        ring[everything[top : top + patch.shape[0], left : left + patch.shape[1]] > 0] = 0
        ink = ink_mask(patch, _paper(patch)) > 0
        inked, area = inked + int((ink & (own > 0)).sum()), area + int(own.sum())
        in_ring, ring_area = in_ring + int((ink & (ring > 0)).sum()), ring_area + int(ring.sum())
    return {
        "inside": inked / max(area, 1),
        "outside": in_ring / max(ring_area, 1),
        "caught": inked / max(inked + in_ring, 1),
    }


def _paper(patch: np.ndarray) -> int:
    """The commonest luminance, in steps of 8."""
    counts = np.bincount((patch >> 3).ravel(), minlength=32)
    return int(counts.argmax()) * 8 + 4
