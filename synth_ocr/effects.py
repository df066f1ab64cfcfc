"""Effects on pixels, in place of synthtiger's: one pass over bytes each, where those go through float32 RGBA and back.

Given the same parameters they compute what synthtiger's components compute (tests compare the two). Pictures are uint8,
height x width x 3, RGB.
"""

from functools import cache
from statistics import NormalDist

import cv2
import numpy as np

from synth_ocr.settings import Finish


def finish(picture: np.ndarray, rng: np.random.Generator, s: Finish) -> np.ndarray:
    """Apply tint, shadow, contrast and brightness, motion blur and blur, in SynthDoG's order, drawn from `rng`."""
    height, width = picture.shape[:2]
    if rng.random() < s.tint:
        picture = tint(picture, rng.integers(0, 256, 3), rng.uniform(*s.tint_alpha))
    amount, smoothing, angle = rng.uniform(*s.shadow_amount), rng.uniform(*s.shadow_smoothing), rng.uniform(0, 360)
    picture = darken(picture, shadow((width, height), whole(rng, s.shadow_intensity), amount, smoothing, angle))
    picture = cv2.LUT(picture, tone(rng.uniform(*s.contrast), whole(rng, s.brightness)))
    if rng.random() < s.motion_blur:
        size = whole(rng, s.motion_blur_size)
        picture = cv2.filter2D(picture, -1, motion_kernel(size, rng.uniform(0, 360), rng.random()))
    return blur(picture, whole(rng, s.blur))


def whole(rng: np.random.Generator, span: tuple[int, int]) -> int:
    """Draw a whole number; both ends are possible."""
    return int(rng.integers(span[0], span[1] + 1))


def tint(picture: np.ndarray, colour: np.ndarray, alpha: float) -> np.ndarray:
    """Lay a colour over the picture."""
    ramp = np.arange(256, dtype=np.float32)[:, None] * (1 - alpha) + np.asarray(colour, np.float32) * alpha
    return cv2.LUT(picture, np.round(ramp).astype(np.uint8)[None])


def shadow(size: tuple[int, int], intensity: int, amount: float, smoothing: float, angle: float) -> np.ndarray:
    """Return the opacity (uint8, height x width) of a shadow that covers `amount` of the picture from one side.

    `angle` is in degrees, `smoothing` the half-width of its edge as a share of the smaller part.
    """
    width, height = size
    side = max(size)
    edge = min(amount, 1 - amount) * smoothing
    begin, end = int(side * (1 - amount - edge)), int(side * (1 - amount + edge))
    profile = np.zeros(side)
    profile[begin:end] = _ease(np.linspace(0, 1, end - begin))
    profile[end:] = 1
    row = (profile * intensity).astype(np.uint8)[None]
    # The profile lies on a square, which is turned, enlarged to cover its corners and squeezed into the picture.
    radians = np.deg2rad(angle)
    scale = abs(np.sin(radians)) + abs(np.cos(radians))
    turn = cv2.invertAffineTransform(cv2.getRotationMatrix2D((side / 2, side / 2), angle, scale))[0]
    squeeze = np.array([side / width, side / height])
    offset = turn @ [*(squeeze / 2 - 0.5), 1]
    backwards = np.array([[turn[0] * squeeze[0], turn[1] * squeeze[1], offset], [0, 0, 0]])
    return cv2.warpAffine(
        row, backwards, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )


def _ease(t: np.ndarray) -> np.ndarray:
    return np.where(t < 0.5, 2 * t * t, 1 - 2 * (1 - t) ** 2)


def darken(picture: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lay black of the given opacity (uint8, height x width) over the picture."""
    return cv2.multiply(picture, cv2.cvtColor(255 - opacity, cv2.COLOR_GRAY2RGB), scale=1 / 255)


def tone(contrast: float, brightness: int) -> np.ndarray:
    """Return the table (256) of a change of contrast around 128 and then of brightness, both clipped."""
    levels = np.clip(contrast * np.arange(256) - 128 * (contrast - 1), 0, 255)
    return np.clip(levels + brightness, 0, 255).astype(np.uint8)  # rounded down, as SynthDoG's are


def motion_kernel(size: int, angle: float, direction: float) -> np.ndarray:
    """Return a blur kernel (odd size): a line at `angle` degrees, fading along it unless `direction` is 0.5."""
    size |= 1
    line = np.zeros((size, size), np.float32)
    line[:, size // 2] = np.linspace(direction, 1 - direction, size)
    centre = (size - 1) / 2
    kernel = cv2.warpAffine(line, cv2.getRotationMatrix2D((centre, centre), -angle, 1), (size, size))
    return kernel / kernel.sum()


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Blur with a Gaussian of `sigma` pixels in a window of about 95 % of its weight; 0 leaves the picture as it is."""
    if sigma <= 0:
        return picture
    reach = 3.3 if sigma < 3 else 2.9 if sigma < 5 else 2.6
    window = max(int(reach * sigma), 5) | 1
    return cv2.GaussianBlur(picture, (window, window), sigma, borderType=cv2.BORDER_REFLECT_101)


def add_noise(picture: np.ndarray, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Add Gaussian noise, the same in all channels."""
    height, width = picture.shape[:2]
    levels = np.round(_normal_quantiles() * deviation).astype(np.int16)
    noise = np.take(levels, np.frombuffer(rng.bytes(2 * height * width), np.uint16)).reshape(height, width)
    return cv2.add(picture, cv2.merge([noise, noise, noise]), dtype=cv2.CV_8U)


@cache
def _normal_quantiles() -> np.ndarray:
    """Return 65,536 equally likely values of a standard normal: drawing one is drawing two random bytes."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / 65536) for i in range(65536)], np.float32)


def dark_colour(rng: np.random.Generator, luminance: int) -> tuple[int, int, int]:
    """Draw a colour of the given luminance (0 to 255): red and green at random among those that leave a blue."""
    colours = _colours(luminance)
    return tuple(int(c) for c in colours[rng.integers(len(colours))])


@cache
def _colours(luminance: int) -> np.ndarray:
    red, green = np.mgrid[0:256, 0:256]
    blue = np.round((luminance - 0.2989 * red - 0.587 * green) / 0.114)
    possible = (blue >= 0) & (blue < 256)
    return np.stack([red[possible], green[possible], blue[possible]], -1).astype(np.uint8)
