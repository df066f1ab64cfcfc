"""Boxes that a dialogue's owner wrote into its words: read where the owner is trusted, words and shapes apart.

Text from outside never becomes control tokens. Where a user vouches for a file, its notation is turned into structured
regions, and the format writes those by id. Qwen-VL: `<ref>dog</ref><box>(10,20),(500,600)</box>`, `<quad>` with four
corners, per mille (QwenLM/Qwen-VL README). Shikra: `the dog [0.010,0.020,0.500,0.600]`, several boxes apart by `;`,
units of 1 (arXiv 2306.15195). Kosmos-2: `<phrase>dog</phrase><object><patch_index_0032><patch_index_0863></object>`,
cells of a 32 x 32 grid (arXiv 2306.14824).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corpus.geometry import RANGE, pixels, signed_area
from corpus.verdicts import Lost, failed

COORDINATES = {"permille": 1000.0, "unit": 1.0, "pixel": None}
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_PICTURE = re.compile(r"\bPicture (\d{1,3})\b")
_CELLS = 32


@dataclass(frozen=True)
class Notation:
    """`find`: a group `text`, the words or nothing, and a group `shapes`. `shape`: one of them. `left`: what must not
    be left when all are read. `coordinates`: what the numbers mean unless the user says otherwise."""

    find: re.Pattern
    shape: re.Pattern
    left: re.Pattern
    coordinates: str


_QWEN = r"<box>[^<>]{1,80}</box>|<quad>[^<>]{1,160}</quad>"
_FRACTIONS = r"-?\d*\.?\d+(?:\s?,\s?-?\d*\.?\d+){3}"
_PATCHES = r"<patch_index_\d{1,4}><patch_index_\d{1,4}>"
NOTATIONS = {
    "qwen-vl": Notation(
        re.compile(rf"(?:<ref>(?P<text>[^<>]*)</ref>)?(?P<shapes>(?:{_QWEN})+)"), re.compile(_QWEN),
        re.compile(r"</?(?:ref|box|quad)>"), "permille",
    ),
    "shikra": Notation(
        re.compile(rf"(?P<text>)\[(?P<shapes>{_FRACTIONS}(?:;{_FRACTIONS})*)\]"), re.compile(_FRACTIONS),
        re.compile(r"\[\d*\.\d+,"), "unit",
    ),
    "kosmos2": Notation(
        re.compile(
            rf"(?:<phrase>(?P<text>[^<>]*)</phrase>)?<object>"
            rf"(?P<shapes>{_PATCHES}(?:</delimiter_of_multi_objects/>{_PATCHES})*)</object>"
        ),
        re.compile(_PATCHES), re.compile(r"</?(?:phrase|object)>|<patch_index_"), "unit",
    ),
}  # fmt: skip


def grounded(turns: Sequence[dict], sizes: Sequence[tuple[int, int]], notation: str, coordinates: str | None) -> list:
    """Return turns whose written boxes became `regions`: [{span, image, size, boxes, quads}].

    `span`: [start, end) of the words in the turn's text, empty where boxes stand alone. `image`: an index of `sizes`,
    (width, height) of the dialogue's images in pixels; `size` is that pair. Boxes and quads are pixels. Boxes speak of
    the "Picture N" named last before them in their turn, else in the turn before, else of the only picture.
    Raises Lost with kind bad_box, bad_notation or which_picture.
    """
    how = NOTATIONS[notation]
    limit = COORDINATES[coordinates or how.coordinates]
    done, before = [], ""
    for turn in turns:
        done.append(_turn(turn, before, sizes, how, limit))
        before = turn["text"]
    return done


def _turn(turn: dict, before: str, sizes: Sequence, how: Notation, limit: float | None) -> dict:
    text, plain, regions, at = turn["text"], "", [], 0
    for found in how.find.finditer(text):
        plain += text[at : found.start()]
        words = found["text"] or ""
        image = _picture(text[: found.start()], before, len(sizes))
        shapes = [_shape(each[0], sizes[image], limit) for each in how.shape.finditer(found["shapes"])]
        regions.append(
            {
                "span": [len(plain), len(plain) + len(words)], "image": image, "size": list(sizes[image]),
                "boxes": [shape for shape in shapes if len(shape) == 4 and not isinstance(shape[0], list)],
                "quads": [shape for shape in shapes if isinstance(shape[0], list)],
            }
        )  # fmt: skip
        plain, at = plain + words, found.end()
    plain += text[at:]
    if left := how.left.search(plain):
        raise Lost(failed("bad_notation", f"{plain[max(0, left.start() - 20) : left.end() + 40]!r}"))
    return turn | {"text": plain, "regions": regions} if regions else turn


def _picture(said: str, before: str, pictures: int) -> int:
    if pictures == 1:
        return 0
    named = _PICTURE.findall(said) or _PICTURE.findall(before)
    if not named or not 1 <= int(named[-1]) <= pictures:
        raise Lost(failed("which_picture", f"a box, and {pictures} pictures: none is named before it"))
    return int(named[-1]) - 1


def _shape(written: str, size: tuple[int, int], limit: float | None) -> list:
    """Return a box [x0, y0, x1, y1] or a quad [[x, y] * 4] in pixels."""
    if written.startswith("<patch"):
        return _checked([v * s for v, s in zip(_cells(written), size * 2, strict=True)], written)
    numbers = [float(each) for each in _NUMBER.findall(written)]
    if len(numbers) != (8 if written.startswith("<quad>") else 4):
        raise Lost(failed("bad_box", f"{len(numbers)} numbers in {written[:80]!r}"))
    values = [_pixels(value, size[i % 2], limit, written) for i, value in enumerate(numbers)]
    return _checked(values, written)


def _pixels(value: float, size: int, limit: float | None, written: str) -> float:
    """Return pixels; a whole per mille becomes the middle of its interval, so that it is written as it was."""
    if not 0 <= value <= (limit or size):
        raise Lost(failed("bad_box", f"{value:g} is outside 0 to {limit or size:g} in {written[:80]!r}"))
    if limit == RANGE and value == int(value) and value < RANGE:
        return pixels(int(value), size)
    return value * size / limit if limit else value


def _cells(written: str) -> Iterator[float]:
    """Yield x0, y0, x1, y1 in units of 1, as Kosmos-2 decodes them: middles of cells; of one row or column, all."""
    first, last = (divmod(int(each), _CELLS) for each in re.findall(r"\d+", written.replace("patch_index_", "")))
    if not all(0 <= each < _CELLS for each in (*first, *last)):
        raise Lost(failed("bad_box", f"no such cell: {written[:80]!r}"))
    (top, left), (bottom, right) = first, last
    start, end = (0.0, 1.0) if top == bottom or left == right else (0.5, 0.5)
    yield from ((each + more) / _CELLS for each, more in ((left, start), (top, start), (right, end), (bottom, end)))


def _checked(values: list[float], written: str) -> list:
    if len(values) == 4:
        if values[0] >= values[2] or values[1] >= values[3]:
            raise Lost(failed("bad_box", f"no area: {written[:80]!r}"))
        return values
    corners = list(zip(values[::2], values[1::2], strict=True))
    if signed_area(corners) <= 0:
        raise Lost(failed("bad_box", f"corners not clockwise around an area: {written[:80]!r}"))
    return [list(corner) for corner in corners]
