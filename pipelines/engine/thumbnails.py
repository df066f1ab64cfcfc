"""Small JPEGs for reports: a few of the rows that each rule drops."""

import io
from collections import Counter

from PIL import Image

from corpus.records import BadImage, decode_image

SIDE = 128  # of the longer side, in pixels
PER_RULE = 3  # in each split


def thumbnail(data: bytes, side: int = SIDE) -> bytes | None:
    """Return a JPEG whose longer side is at most `side` pixels, or None where the image cannot be decoded."""
    try:
        image = decode_image(data)
    except BadImage:
        return None
    image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def side_by_side(first: bytes, second: bytes, side: int = SIDE) -> bytes | None:
    """Return one JPEG of two images beside one another, or None where either cannot be decoded."""
    try:
        images = [decode_image(data) for data in (first, second)]
    except BadImage:
        return None
    for image in images:
        image.thumbnail((side, side))
    both = Image.new("RGB", (sum(image.width for image in images) + 4, max(image.height for image in images)), "white")
    both.paste(images[0], (0, 0))
    both.paste(images[1], (images[0].width + 4, 0))
    file = io.BytesIO()
    both.save(file, "JPEG", quality=80)
    return file.getvalue()


class Thumbnails:
    """Makes thumbnails of the first rows of a split that each rule drops."""

    def __init__(self, per_rule: int = PER_RULE):
        self._per_rule, self._made = per_rule, Counter()

    def of(self, rule: str, data: bytes | None) -> bytes | None:
        """Return a thumbnail of an image, None once the rule has enough of them or where there is no image."""
        if data is None or not self.wanted(rule):
            return None
        return thumbnail(data)

    def wanted(self, rule: str) -> bool:
        """Count a row that `rule` drops; tell whether it is among the first."""
        self._made[rule] += 1
        return self._made[rule] <= self._per_rule
