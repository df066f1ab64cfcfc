"""The way back: generated text or tokens -> plain text, and phrases with their boxes and quads.

Tolerant of what a model may write: a broken coordinate, a phrase that never closes or a box without a phrase costs that
item (counted in `malformed`), never the rest. Coordinates are the format's integers in [0, 1000).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from corpus.geometry import RANGE
from corpus.tokens import BOX, BOX_END, IMG, IMG_END, QUAD, QUAD_END, REF, REF_END, SPECIALS, Tokenizer

_SPECIAL = re.compile("(" + "|".join(map(re.escape, SPECIALS)) + ")")
_POINT = r"\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)"
_POINTS = {
    count: re.compile(r"\s*" + r"\s*,?\s*".join([_POINT] * count) + r"\s*") for count in (2, 4)
}  # one box is two points, one quad four
_CLOSING = {REF: REF_END, BOX: BOX_END, QUAD: QUAD_END, IMG: IMG_END}


@dataclass(slots=True)
class Region:
    """A phrase, where it stands in the plain text, and its boxes (x0, y0, x1, y1) and quads ((x, y) * 4)."""

    text: str
    span: tuple[int, int]
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    quads: list[tuple[tuple[int, int], ...]] = field(default_factory=list)


@dataclass(slots=True)
class Parsed:
    """`text` is free of special tokens and coordinates. A box or quad without a phrase is a region with text ""."""

    text: str
    regions: list[Region]
    malformed: int = 0

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """All boxes, in order."""
        return [box for region in self.regions for box in region.boxes]

    @property
    def quads(self) -> list[tuple[tuple[int, int], ...]]:
        """All quads, in order."""
        return [quad for region in self.regions for quad in region.quads]


def parse_text(text: str) -> Parsed:
    """Parse decoded text, in which special tokens stand by name."""
    parts = _SPECIAL.split(text)
    return _parse((part, "") if i % 2 else (None, part) for i, part in enumerate(parts) if part)


def parse_tokens(tokens: Iterable[int], tokenizer: Tokenizer) -> Parsed:
    """Parse token ids. Unlike `parse_text` it never takes a special token's name in a text for the token itself."""
    return _parse(tokenizer.segments(tokens))


def _parse(segments: Iterable[tuple[str | None, str]]) -> Parsed:
    parsed = Parsed("", [])
    adjacent = False  # whether a box or quad here belongs to the last phrase
    for kind, content, closed in _items(segments):
        if kind is None:
            adjacent = adjacent and not content.strip()
            parsed.text += content
        elif kind == REF:
            start = len(parsed.text)
            parsed.text += content
            if closed:
                parsed.regions.append(Region(content, (start, len(parsed.text))))
            parsed.malformed += not closed
            adjacent = closed
        elif kind in (BOX, QUAD):
            adjacent = _add_shape(parsed, kind, content if closed else "", adjacent)
    return parsed


def _add_shape(parsed: Parsed, kind: str, content: str, adjacent: bool) -> bool:
    points = _points(content, 2 if kind == BOX else 4)
    if points is None:
        parsed.malformed += 1
        return adjacent
    if not adjacent:
        parsed.regions.append(Region("", (len(parsed.text), len(parsed.text))))
    region = parsed.regions[-1]
    if kind == BOX:
        region.boxes.append((*points[0], *points[1]))
    else:
        region.quads.append(points)
    return True


def _points(content: str, count: int) -> tuple[tuple[int, int], ...] | None:
    match = _POINTS[count].fullmatch(content)
    if not match:
        return None
    numbers = [int(group) for group in match.groups()]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True)) if max(numbers) < RANGE else None


def _items(segments: Iterable[tuple[str | None, str]]) -> Iterator[tuple[str | None, str, bool]]:
    """Yield (None, text, True) and (opening token, what it encloses, whether it closes)."""
    opening, enclosed = None, ""
    for name, text in segments:
        if name is None and opening is None:
            yield None, text, True
        elif name is None:
            enclosed += text
        elif name == _CLOSING.get(opening):
            yield opening, enclosed, True
            opening, enclosed = None, ""
        elif name in _CLOSING:
            if opening is not None:
                yield opening, enclosed, False
            opening, enclosed = name, ""
    if opening is not None:
        yield opening, enclosed, False
