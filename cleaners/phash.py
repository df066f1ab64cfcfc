"""Perceptual hashes of images that survive resizing, recompression, greyscale and small crops.

The hash is the sign of low-frequency cosine coefficients against their median, at two sizes: 63 bits of an 8 x 8 block
find candidates, 255 bits of a 16 x 16 block decide. A crop shifts everything, so the image is also hashed as it would
look with 5 and 10 % cut off, in each direction: near-duplicates are found when one image's `views` meet the other's
first.
"""

from typing import NamedTuple

import cv2
import numpy as np

SHORT_BITS, LONG_BITS = 63, 255
LONG_BYTES = 32
FLAT = 2.0  # grey levels: an image whose 64 x 64 thumbnail deviates less has no structure to hash
_SIDE = 64
# Of the sides that are cut together: (left, top, right, bottom) shares of the width and height.
_CROPS = [(0, 0, 0, 0), (0.025, 0.025, 0.025, 0.025), (0.05, 0.05, 0.05, 0.05)] + [
    tuple(0.05 * on for on in sides)
    for sides in (
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (0, 0, 1, 0),
        (0, 0, 0, 1),
        (1, 1, 0, 0),
        (0, 1, 1, 0),
        (0, 0, 1, 1),
        (1, 0, 0, 1),
    )
]
VIEWS = len(_CROPS)


class Hashes(NamedTuple):
    """Hashes of the views of one image; view 0 is the image as it is."""

    short: np.ndarray  # bool [VIEWS, 63]
    weakness: (
        np.ndarray
    )  # float32 [VIEWS, 63]: distance of each coefficient from the median; small means a doubtful bit
    long: np.ndarray  # uint8 [VIEWS, 32]: 255 bits and a zero


def hash_views(image, views: int = VIEWS) -> Hashes | None:
    """Hash the first `views` views of a Pillow image; None for an image without structure (one colour)."""
    if max(image.size) > 1024:  # long sides shrink cheaply first; detail above 64 pixels plays no part
        image = image.reduce(max(image.size) // 512)
    grey = np.asarray(image.convert("L"))
    small = [_thumbnail(grey, crop) for crop in _CROPS[:views]]
    if small[0].std() < FLAT:
        return None
    coefficients = np.stack([cv2.dct(view)[:16, :16] for view in small])
    low = coefficients[:, :8, :8].reshape(views, 64)[:, 1:]
    high = coefficients.reshape(views, 256)[:, 1:]
    middle = np.median(low, axis=1, keepdims=True)
    long = np.packbits(high > np.median(high, axis=1, keepdims=True), axis=1)
    return Hashes(low > middle, np.abs(low - middle).astype(np.float32), long)


def _thumbnail(grey: np.ndarray, crop: tuple[float, ...]) -> np.ndarray:
    height, width = grey.shape
    left, top, right, bottom = crop
    x0, x1 = int(width * left), max(int(width * left) + 1, width - int(width * right))
    y0, y1 = int(height * top), max(int(height * top) + 1, height - int(height * bottom))
    view = np.ascontiguousarray(grey[y0:y1, x0:x1], dtype=np.float32)
    return cv2.resize(view, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count differing bits of long hashes, uint8 [..., 32] against uint8 [..., 32]."""
    return np.bitwise_count(np.bitwise_xor(a, b)).sum(axis=-1, dtype=np.int64)
