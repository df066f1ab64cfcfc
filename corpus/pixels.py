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
    return image if image.mode == "RGB" else image.convert("RGB")  # convert() would copy it


def squash(image: Image.Image, size: int) -> np.ndarray:
    """Scale an RGB image to size x size, bicubic, as CLIP's preprocessing does but without a crop: uint8 [3, S, S].

    By torch's antialiased resize on bytes that lie channels last: Pillow's pixels but for some roundings, in a third to
    a fifth of its time (docs/benchmarks.md).
    """
    import torch  # seconds, which what only opens images should not cost
    from torch.nn.functional import interpolate

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return interpolate(pixels[None], (size, size), mode="bicubic", antialias=True)[0].numpy()
