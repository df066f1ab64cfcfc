"""Photos and textures as arrays: decoded once, reduced to the size that can show, or made on the spot."""

import io
import warnings

import cv2
import numpy as np
from PIL import Image

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

    Folds of all sizes are creases in a height field, |distance to a line|; its slope towards the light is the picture.
    """
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / max(size)
    x, y = _ripple(rng, x, y), _ripple(rng, y, x)
    surface = np.zeros((height, width), np.float32)
    for fold in range(40):
        angle, at = rng.uniform(0, np.pi), rng.uniform(-0.2, 1.2)
        surface += np.abs(x * np.cos(angle) + y * np.sin(angle) - at) * rng.normal() / (1 + fold / 12)
    light = rng.uniform(0, 2 * np.pi)
    slope = np.cos(light) * np.gradient(surface, axis=1) + np.sin(light) * np.gradient(surface, axis=0)
    slope = cv2.GaussianBlur(slope, (0, 0), rng.uniform(1, 4)) + 0.08 * slope.std() * _clouds(rng, size)
    grain = rng.normal(0, 0.03, (height, width)).astype(np.float32)
    return _spread_levels(slope / slope.std() + grain)


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
        cells = 2**octave
        noise = rng.normal(size=(cells, cells)).astype(np.float32)
        total += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC) / cells
    return (total - total.mean()) / total.std()


def _ripple(rng: np.random.Generator, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Bend coordinates a little, so that folds are not ruler-straight."""
    frequency, phase = rng.uniform(4, 12), rng.uniform(0, 2 * np.pi)
    return along + 0.02 * np.sin(frequency * across + phase) + 0.01 * np.sin(2.7 * frequency * along + phase)


def _spread_levels(values: np.ndarray) -> np.ndarray:
    """Scale to 0..255 and equalise the histogram."""
    low, high = np.percentile(values, (0.1, 99.9))
    return cv2.equalizeHist((np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8))
