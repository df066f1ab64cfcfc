"""Boxes and quads drawn into the picture they speak of."""

from PIL import Image, ImageDraw, ImageFont

from corpus.geometry import pixels
from corpus.parsing import Parsed, Region

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
# The first has Chinese; Pillow looks for a name in the system's font folders. Its own face is the last resort.
_FACES = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf")


def draw_regions(image: Image.Image, parsed: Parsed) -> Image.Image:
    """Return a copy with every region's boxes and quads (in the format's integers), each phrase in its own colour."""
    out = image.convert("RGB")
    pen, unit = ImageDraw.Draw(out), max(1, min(out.size) // 250)
    font = _font(max(11, min(out.size) // 28))
    for number, region in enumerate(parsed.regions):
        for corners in outlines(region, out.size):
            colour = COLOURS[number % len(COLOURS)]
            pen.polygon(corners, outline=colour, width=2 * unit)
            _label(pen, corners[0], region.text, colour, font)
    return out


def outlines(region: Region, size: tuple[int, int]) -> list[list[tuple[float, float]]]:
    """Return the corners, in pixels of an image of this (width, height), of a region's boxes and quads."""
    boxes = [((x0, y0), (x1, y0), (x1, y1), (x0, y1)) for x0, y0, x1, y1 in region.boxes]
    return [[(pixels(x, size[0]), pixels(y, size[1])) for x, y in corners] for corners in [*boxes, *region.quads]]


def _label(pen: ImageDraw.ImageDraw, corner, text: str, colour: str, font) -> None:
    if not text.strip():
        return
    left, top, right, bottom = pen.textbbox(corner, text.strip(), font=font)
    up = min(bottom - corner[1] + 3, corner[1])  # above the corner, but inside the picture
    pen.rectangle((left - 2, top - up - 2, right + 2, bottom - up + 2), fill=colour)
    pen.text((corner[0], corner[1] - up), text.strip(), fill="white", font=font)


def _font(size: int):
    for name in _FACES:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
