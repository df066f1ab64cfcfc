"""Boxes as their owners write them -> corners in pixels of the stored image; a wrong convention is noticed."""

from collections.abc import Callable, Sequence

from corpus.geometry import Box, clip_box, xywh_to_xyxy


def _centre_to_xyxy(box: Sequence[float]) -> Box:
    x, y, width, height = box
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _scaled(box: Sequence[float], width: float, height: float) -> Box:
    return box[0] * width, box[1] * height, box[2] * width, box[3] * height


# name -> (box, image width, image height) -> (x0, y0, x1, y1) in pixels
CONVENTIONS: dict[str, Callable[[Sequence[float], float, float], Box]] = {
    "xyxy": lambda box, width, height: tuple(box),
    "xywh": lambda box, width, height: xywh_to_xyxy(box),
    "cxcywh": lambda box, width, height: _centre_to_xyxy(box),
    "xyxy_unit": lambda box, width, height: _scaled(box, width, height),
    "xywh_unit": lambda box, width, height: _scaled(xywh_to_xyxy(box), width, height),
    "xyxy_1000": lambda box, width, height: _scaled([v / 1000 for v in box], width, height),
    "yxyx_unit": lambda box, width, height: _scaled((box[1], box[0], box[3], box[2]), width, height),
}
OUTSIDE = 0.02  # of the side: how far a box may stick out before it counts as outside
MOST = 0.5
ENOUGH = 50


class WrongConvention(Exception):
    """Most boxes lie outside their images: they are written in another convention than the reader takes them for."""


def in_pixels(box: Sequence[float], convention: str, width: int, height: int) -> Box | None:
    """Return a box as (x0, y0, x1, y1) in pixels, cut at the image's borders; None when nothing of it is inside."""
    return clip_box(CONVENTIONS[convention](box, width, height), width, height)


def fits(box: Sequence[float], convention: str, width: int, height: int) -> bool:
    """Tell whether a box, read in a convention, is upright, of one pixel at least, and inside its image (about)."""
    x0, y0, x1, y1 = CONVENTIONS[convention](box, width, height)
    dx, dy = OUTSIDE * width + 1, OUTSIDE * height + 1
    return -dx <= x0 and -dy <= y0 and x1 <= width + dx and y1 <= height + dy and x1 - x0 >= 1 and y1 - y0 >= 1


class Watch:
    """Counts boxes outside their images and stops the job once most of `ENOUGH` are."""

    def __init__(self, convention: str):
        self._convention, self._seen, self._outside = convention, [], 0

    def see(self, box: Sequence[float], width: int, height: int) -> None:
        """Count one box. Raises WrongConvention, with a hint at the convention that would fit."""
        if len(self._seen) >= 4 * ENOUGH:
            return
        self._seen.append((tuple(box), width, height))
        self._outside += not fits(box, self._convention, width, height)
        if len(self._seen) >= ENOUGH and self._outside > MOST * len(self._seen):
            raise WrongConvention(self._hint())

    def _hint(self) -> str:
        share = {name: sum(fits(b, name, w, h) for b, w, h in self._seen) / len(self._seen) for name in CONVENTIONS}
        best = max(share, key=share.get)
        box, width, height = next(s for s in self._seen if not fits(s[0], self._convention, s[1], s[2]))
        advice = (
            f"as {best}, {100 * share[best]:.0f} % fit: --boxes {best}"
            if share[best] > 0.9
            else "no known convention fits; are these the images that were annotated, at their original size?"
        )
        return (
            f"{self._outside} of {len(self._seen)} boxes lie outside their images when read as {self._convention}, "
            f"such as {list(box)} in an image of {width} x {height}; {advice} (known: {', '.join(CONVENTIONS)})"
        )
