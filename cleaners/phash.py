"""Perceptual hashes of images that survive resizing, recompression, greyscale, bars, mirrors and crops.

The hash is the sign of low-frequency cosine coefficients against their median, at two sizes: 63 bits of an 8 x 8 block
find candidates, 255 bits of a 16 x 16 block decide. A crop shifts everything, so the image is also hashed as it would
look with up to 20 % cut off, in each direction, mirrored, slightly turned, and with its bars: near-duplicates are found
when one image as it is, bars trimmed, meets any of the other's `views`. A crop is linear in the pixels: its
coefficients come from two small matrices, so that fifty cost little more than one.
"""

import functools
from typing import NamedTuple

import cv2
import numpy as np

SHORT_BITS, LONG_BITS = 63, 255
LONG_BYTES = 32
FLAT = 2.0  # grey levels: an image whose thumbnail deviates less has no structure to hash
_SIDE = 128
_BAR = 20  # grey levels between which all of a row of a bar lies
_RIPPLES = 8  # pixels
_TURNS = (-3.0, 3.0)  # degrees
_SIDES = ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
_CORNERS = ((1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 1, 1), (1, 0, 0, 1))
# Of the sides that are cut together: (left, top, right, bottom) shares of the width and height.
_CROPS: list[tuple[float, ...]] = [(0.0,) * 4, (0.025,) * 4, (0.05,) * 4]
_CROPS += [tuple(share * on for on in sides) for share in (0.05, 0.1, 0.15) for sides in (*_SIDES, *_CORNERS)]
_CROPS += [tuple(0.2 * on for on in sides) for sides in _SIDES] + [(0.075,) * 4, (0.1,) * 4]
_PLACES = (0.0, 0.025, 0.05, 0.075, 0.1)  # of windows of 90 %, wherever they lie; those in the corners stand above
_CROPS += [(x, y, 0.1 - x, 0.1 - y) for x in _PLACES for y in _PLACES if {x, y} - {0.0, 0.1} and (x, y) != (0.05, 0.05)]
VIEWS = len(_CROPS) + 2 + len(_TURNS)  # and the mirrored image, the one with its bars, the turned ones


class Hashes(NamedTuple):
    """Hashes of the views of one image; view 0 is the image as it is, less its bars."""

    short: np.ndarray  # bool [VIEWS, 63]
    weakness: (
        np.ndarray
    )  # float32 [VIEWS, 63]: distance of each coefficient from the median; small means a doubtful bit
    long: np.ndarray  # uint8 [VIEWS, 32]: 255 bits and a zero


def hash_views(image) -> Hashes | None:
    """Hash the views of a Pillow image; None for an image without structure (one colour)."""
    if max(image.size) > 1024:  # long sides shrink cheaply first; fine detail plays no part
        image = image.reduce(max(image.size) // 512)
    grey = np.asarray(image.convert("L"))
    whole, inner = _thumbnail(grey), _thumbnail(without_bars(grey))
    if whole.std() < FLAT:
        return None
    turned = [_thumbnail(without_bars(_turned(whole, angle, grey.shape))) for angle in _TURNS]
    coefficients = _cropped(inner)
    mirrored = coefficients[0] * np.where(np.arange(16) % 2, -1, 1)
    others = [mirrored, _plain(whole), *(_plain(each) for each in turned)]
    coefficients = np.concatenate([coefficients, np.stack(others)])
    low = coefficients[:, :8, :8].reshape(VIEWS, 64)[:, 1:]
    high = coefficients.reshape(VIEWS, 256)[:, 1:]
    middle = np.median(low, axis=1, keepdims=True)
    long = np.packbits(high > np.median(high, axis=1, keepdims=True), axis=1)
    return Hashes(low > middle, np.abs(low - middle).astype(np.float32), long)


def bars_cut(grey: np.ndarray) -> tuple[slice, slice]:
    """Return the (rows, columns) less bars of one shade (letterbox, border), at most 30 % a side.

    What lies inside bars above and below is cut at its sides only where these have the same shade: beyond begins the
    picture's own ground.
    """
    top, bottom = _bars(grey)
    inner = grey[top : len(grey) - bottom]
    left, right = _bars(inner.T)
    if top + bottom and left + right:
        bar, side = grey[0 if top else -1], inner[:, 0 if left else -1]
        if abs(float(bar.mean()) - float(side.mean())) > _BAR:
            left = right = 0
    return slice(top, grey.shape[0] - bottom), slice(left, grey.shape[1] - right)


def without_bars(grey: np.ndarray) -> np.ndarray:
    """Cut bars of one shade off; an image that is all bar stays."""
    return grey[bars_cut(grey)]


def _bars(rows: np.ndarray) -> tuple[int, int]:
    """Return how many rows at the start and at the end are of the shade of the outermost."""
    most = int(0.3 * len(rows))
    found = []
    for side in (rows[:most], rows[::-1][:most]):
        low, high = side.min(axis=1).astype(int), side.max(axis=1).astype(int)
        within = np.maximum.accumulate(high) - np.minimum.accumulate(low) <= _BAR
        found.append(_edge(side, int(within.sum())) if not within.all() else 0)
    return found[0], found[1]


def _edge(side: np.ndarray, end: int) -> int:
    """Return where the bar of `end` rows really ends: JPEG's ripples beside an edge reach a few rows into it."""
    near = side[max(0, end - 1) : end + _RIPPLES].astype(int)
    steps = np.median(np.abs(np.diff(near, axis=0)), axis=1)
    return end + int(steps.argmax()) if end and steps.size and steps.max() > _BAR else end


def _thumbnail(grey: np.ndarray) -> np.ndarray:
    return cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _turned(small: np.ndarray, angle: float, shape: tuple[int, ...]) -> np.ndarray:
    """Turn a thumbnail as the image of `shape` (height, width) that it was squashed from would turn."""
    turn, aspect, middle = np.radians(angle), shape[0] / shape[1], (_SIDE - 1) / 2
    matrix = np.array([[np.cos(turn), np.sin(turn) * aspect], [-np.sin(turn) / aspect, np.cos(turn)]])
    moved = np.array([middle, middle]) - matrix @ [middle, middle]
    return cv2.warpAffine(small, np.column_stack([matrix, moved]), (_SIDE, _SIDE), borderMode=cv2.BORDER_REPLICATE)


@functools.cache
def _basis(start: float, end: float) -> np.ndarray:
    """Return float32 [16, 128]: the first cosine coefficients of the part of a line between two shares of it."""
    pixels = np.arange(_SIDE)
    first, last = start * _SIDE, (1 - end) * _SIDE
    weights = np.clip(np.minimum(pixels + 1, last) - np.maximum(pixels, first), 0, 1)
    places = (np.clip(pixels + 0.5, first, last) - first) / (last - first)
    waves = np.cos(np.pi * np.arange(16)[:, None] * places) * weights / (last - first)
    return (waves * np.where(np.arange(16), np.sqrt(2), 1)[:, None]).astype(np.float32)


@functools.cache
def _bases() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (bases of all distinct cuts of rows, joined; of each crop, which of them; its basis of columns)."""
    cuts = list(dict.fromkeys((top, bottom) for _, top, _, bottom in _CROPS))
    rows = np.concatenate([_basis(*cut) for cut in cuts])
    which = np.array([cuts.index((top, bottom)) for _, top, _, bottom in _CROPS])
    return rows, which, np.stack([_basis(left, right).T for left, _, right, _ in _CROPS])


def _cropped(small: np.ndarray) -> np.ndarray:
    """Return the coefficients [crops, 16, 16] of all crops of a thumbnail."""
    rows, which, columns = _bases()
    return (rows @ small).reshape(-1, 16, _SIDE)[which] @ columns


def _plain(small: np.ndarray) -> np.ndarray:
    return _basis(0.0, 0.0) @ small @ _basis(0.0, 0.0).T


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count differing bits of long hashes, uint8 [..., 32] against uint8 [..., 32]."""
    return np.bitwise_count(np.bitwise_xor(a, b)).sum(axis=-1, dtype=np.int64)
