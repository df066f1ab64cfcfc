"""synthtiger 1.2.1 (2022) on today's numpy, Pillow and OpenCV.

Two things broke since its last release: imgaug, which it imports, reads `np.sctypes` (gone in numpy 2), and its text
layer calls `FreeTypeFont.getsize` (gone in Pillow 10). Never use synthtiger's own generator: it retries every exception
for ever and says nothing.
"""

from types import ModuleType

import numpy as np
from PIL import ImageFont


def import_synthtiger() -> ModuleType:
    """Return the synthtiger package, made to work; its import takes seconds, so it happens at the first call."""
    if not hasattr(np, "sctypes"):
        np.sctypes = {
            "int": [np.int8, np.int16, np.int32, np.int64],
            "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
            "float": [np.float16, np.float32, np.float64],
            "complex": [np.complex64, np.complex128],
            "others": [bool, object, bytes, str, np.void],
        }
    if not hasattr(ImageFont.FreeTypeFont, "getsize"):
        ImageFont.FreeTypeFont.getsize = _getsize
    import synthtiger

    return synthtiger


def _getsize(font: ImageFont.FreeTypeFont, text: str, direction: str | None = None, **options) -> tuple[int, int]:
    # The old size counted from the origin, not from the ink: right and bottom, not right - left.
    return font.getbbox(text, direction=direction, **options)[2:]
