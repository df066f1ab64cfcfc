"""Letters drawn into diagrams: AI2D's questions about "A" or "B" are posed about an image in which those stand.

This is the one cleaning step that changes an image; the result is stored as PNG, so that nothing else in it changes.
"""

import io
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw, ImageFont

_PADDING = 2  # pixels around the text that is covered


def draw_labels(image: Image.Image, labels: Iterable[tuple[str, Sequence[float]]]) -> bytes:
    """Cover each rectangle [x0, y0, x1, y1] (pixels) with white and write its text into it; return PNG bytes."""
    canvas = image.convert("RGB")
    draw = ImageDraw.Draw(canvas)
    for text, (x0, y0, x1, y1) in labels:
        left, right = sorted(min(max(x, 0), canvas.width) for x in (x0, x1))
        top, bottom = sorted(min(max(y, 0), canvas.height) for y in (y0, y1))
        draw.rectangle([left - _PADDING, top - _PADDING, right + _PADDING, bottom + _PADDING], fill="white")
        font = _fitting_font(text, right - left, bottom - top)
        draw.text(((left + right) / 2, (top + bottom) / 2), text, fill="black", font=font, anchor="mm")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()


def _fitting_font(text: str, width: float, height: float):
    """Return the bundled font, as high as the rectangle, smaller where the text would be too wide."""
    size = max(10, round(height))
    length = ImageFont.load_default(size).getlength(text)
    if length > max(width, 1):
        size = max(10, int(size * width / length))
    return ImageFont.load_default(size)
