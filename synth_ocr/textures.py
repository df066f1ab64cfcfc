"""Photos and textures as arrays: decoded once, reduced to the size that can show, or made on the spot."""

import io
import warnings

import cv2
import numpy as np
from PIL import Image

from corpus.bugs import raise_ours
from corpus.records import BadImage, image_header
from synth_ocr.effects import blur

LONGEST_SIDE = 2048  # of the default settings' canvas; more pixels than these could not show


def decode_photo(data: bytes, grey: bool = False) -> np.ndarray:
    """Decode image bytes to uint8, height x width (x 3 RGB unless `grey`), no side above LONGEST_SIDE. BadImage."""
    image_header(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data))
            factor = max(image.size) / LONGEST_SIDE
            if factor > 1:  # a JPEG can be decoded at a half, a quarter or an eighth of its size
                image.draft("L" if grey else "RGB", tuple(int(side / factor) for side in image.size))
            image = image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ...
        raise_ours(error)
        raise BadImage("undecodable_image", f"{type(error).__name__}: {error}"[:200]) from None
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image.convert("L") if grey else image)


def background(photo: np.ndarray, size: tuple[int, int], sigma: float) -> np.ndarray:
    """Stretch a photo to the canvas (width, height) and blur it by `sigma` pixels."""
    return blur(cv2.resize(photo, size), sigma)


def paper(texture: np.ndarray, rng: np.random.Generator, size: tuple[int, int], alpha: float) -> np.ndarray:
    """Return a sheet (uint8, height x width x 3): a random crop of a grey texture laid over white."""
    height, width = texture.shape
    w, h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    levels = np.round(255 - alpha * (255 - np.arange(256))).astype(np.uint8)
    return cv2.cvtColor(cv2.LUT(cv2.resize(texture[y : y + h, x : x + w], size), levels), cv2.COLOR_GRAY2RGB)


def crumpled_paper(rng: np.random.Generator, size: tuple[int, int] = (576, 768)) -> np.ndarray:
    """Make the picture (uint8, height x width) of a crumpled sheet in raking light, its levels spread evenly.

    Creases of all sizes are where smooth noise changes its sign, |noise|; the slope of their sum is what light shows.
    """
    width, height = size
    surface = _creases(rng, size)
    towards = rng.uniform(0, 2 * np.pi)
    slope = np.cos(towards) * np.gradient(surface, axis=1) + np.sin(towards) * np.gradient(surface, axis=0)
    slope = cv2.GaussianBlur(slope, (0, 0), rng.uniform(2, 4))
    light = _smooth_noise(rng, 3, size) * rng.uniform(0.5, 1.5)
    grain = rng.normal(0, 0.04, (height, width)).astype(np.float32)
    return _spread_levels(slope / slope.std() + light + grain)


def _creases(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Return a height field, turned by a random angle, so that the noise's grid does not show."""
    side = int(1.5 * max(size))
    surface = np.zeros((side, side), np.float32)
    for cells in (3, 5, 8, 13, 21):
        noise = _smooth_noise(rng, cells, (side, side)) + 0.3 * rng.normal()
        surface += np.abs(noise) * rng.uniform(0.5, 1.5) / cells**1.5
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(0, 360), 1)
    turn[:, 2] -= (side - size[0]) / 2, (side - size[1]) / 2
    return cv2.warpAffine(surface, turn, size, borderMode=cv2.BORDER_REFLECT)


def colour_clouds(rng: np.random.Generator, size: tuple[int, int] = (640, 640)) -> np.ndarray:
    """Make a soft, coloured texture (uint8, height x width x 3): a background where photos are few."""
    ends = rng.integers(0, 256, (2, 3)).astype(np.float32)
    share = _spread_levels(_clouds(rng, size))[..., None] / np.float32(255)
    grain = rng.normal(0, rng.uniform(0, 6), (size[1], size[0], 1)).astype(np.float32)
    return np.clip(ends[0] * (1 - share) + ends[1] * share + grain, 0, 255).astype(np.uint8)


def _clouds(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Sum noise over octaves: zero mean, unit deviation."""
    total = np.zeros((size[1], size[0]), np.float32)
    for octave in range(1, 8):
        total += _smooth_noise(rng, 2**octave, size) / 2**octave
    return (total - total.mean()) / total.std()


def _smooth_noise(rng: np.random.Generator, cells: int, size: tuple[int, int]) -> np.ndarray:
    return cv2.resize(rng.normal(size=(cells, cells)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)


def _spread_levels(values: np.ndarray) -> np.ndarray:
    """Scale to 0..255 and equalise the histogram."""
    low, high = np.percentile(values, (0.1, 99.9))
    return cv2.equalizeHist((np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8))
