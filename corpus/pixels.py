"""Decoded pictures as arrays. What a training sample and a question to the model have done to their pixels."""

import numpy as np
from PIL import Image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return a Pillow image of any mode as RGB: transparency over white, 16-bit greyscale scaled."""
    if image.mode.startswith("I"):  # 16-bit greyscale: convert() would clip it to white
        image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def squash(image: Image.Image, size: int) -> np.ndarray:
    """Scale an RGB image to size x size, bicubic, as CLIP's preprocessing does but without a crop: uint8 [3, S, S]."""
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
