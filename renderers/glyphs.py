"""From MuPDF's characters to pieces of lines: painted, at their glyphs' places, once, in the order they are read.

What a file says of its text is not what its reader sees: the same word printed twice for boldness, columns beside their
glyphs, words of right-to-left scripts in the order they were set. `renderers.witness` asks the picture for the rest.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter

import numpy as np

from renderers.bidi import has_right_to_left, logical_order
from renderers.characters import is_unseen
from renderers.ink import Ink
from renderers.page import Rect, union

_PAINTED = 16 | 32 | 64  # char_flags: filled, stroked, or a clip for something painted later; none = invisible text
_BBOX, _CHARACTER = itemgetter("bbox"), itemgetter("c")
_NO_LETTER = re.compile("[\ufffd\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd]")
_COLUMN_SHIFT = -0.88  # em: one glyph up, and 0.12 down again, which is what most CJK fonts have below the line


@dataclass(slots=True)
class Piece:
    """A line as MuPDF found it: `texts[i]` stands in `boxes[i]` (pixels of the page), one to a few characters each."""

    texts: list[str]
    boxes: np.ndarray  # float [n, 4]
    size: float  # of the font, in pixels
    turns: int | None  # clockwise quarter turns of the glyphs
    column: bool  # upright glyphs from top to bottom
    direction: tuple[float, float]
    font: str
    misdrawn: int = 0
    right_to_left: bool = field(default=False)

    @property
    def along(self) -> int:
        """The axis that the text runs along: 0 for x, 1 for y."""
        return (self.turns or 0) % 2 ^ self.column


def pieces_of(blocks: list[dict], scale: float, turns_of, misdrawn_of) -> list[Piece]:
    """Return the painted text of MuPDF's raw dictionary as pieces, in the file's order."""
    lines = [(line, spans) for block in blocks for line in block.get("lines", ()) if (spans := _painted(line))]
    chars = [char for _, spans in lines for span in spans for char in span["chars"]]
    boxes = np.fromiter(chain.from_iterable(map(_BBOX, chars)), float, 4 * len(chars)).reshape(-1, 4) * scale
    found, start = [], 0
    for line, spans in lines:
        end = start + sum(len(span["chars"]) for span in spans)
        piece = _piece(line, spans, chars[start:end], boxes[start:end], scale, turns_of(line["dir"]), misdrawn_of)
        if "".join(piece.texts).strip():
            found.append(piece)
        start = end
    return found


def _painted(line: dict) -> list[dict]:
    return [span for span in line["spans"] if span["alpha"] and span["char_flags"] & _PAINTED and span["chars"]]


def _piece(
    line: dict, spans: list[dict], chars: list[dict], boxes: np.ndarray, scale: float, turns: int | None, misdrawn_of
) -> Piece:
    texts = list(map(_CHARACTER, chars))
    text, column = "".join(texts), bool(line["wmode"])
    size = max(span["size"] for span in spans) * scale
    turned = None if turns is None else (turns - column) % 4
    piece = Piece(texts, boxes, size, turned, column, line["dir"], spans[0]["font"])
    if text.isascii() and text.isprintable():
        return piece
    if has_right_to_left(text):
        piece.boxes = np.array([_box(char) for char in chars]) * scale
    piece.misdrawn = sum(map(misdrawn_of, spans))
    piece.texts = [_shown(text) for text in texts]
    if turns is not None and _NO_LETTER.search(text):
        _blank_without_outline(piece)
    return piece


def _box(char: dict) -> Rect:
    """The box of a character; a later letter of a right-to-left ligature has none of its own, slanted or not."""
    x0, y0, x1, y1 = char["bbox"]
    (x, y), high = char["origin"], y1 - y0
    if not has_right_to_left(char["c"]) or x1 - x0 > 0.4 * high or y1 - y < 0.1 * high:  # it has ascent and descent
        return x0, y0, x1, y1
    slant = (x1 - x0) / max(high, 1e-6)
    slanted_line = max(abs(x0 - x - slant * (y - y1)), abs(x1 - x - slant * (y - y0))) < 0.01
    return (x, y0, x, y1) if slanted_line else (x0, y0, x1, y1)


def _shown(char: str) -> str:
    return "-" if char == "\xad" else "" if is_unseen(char) else char


def _blank_without_outline(piece: Piece) -> None:
    """An undecodable glyph that has a width and no outline is a space."""
    across = piece.boxes[:, 3 - piece.along] - piece.boxes[:, 1 - piece.along]
    along = piece.boxes[:, 2 + piece.along] - piece.boxes[:, piece.along]
    for i in np.flatnonzero((across < 0.01) & (along > 0.01)):
        if _NO_LETTER.match(piece.texts[i]):
            piece.texts[i] = " "


# --- vertical writing ---------------------------------------------------------------------------------------------


def settle_columns(pieces: list[Piece], ink: Ink) -> None:
    """Move the boxes of vertical text up to their glyphs, by a share of the font size estimated for each font.

    MuPDF takes the place after a glyph for its origin, and leaves out how far the font's glyphs stand below theirs.
    """
    fonts: dict[str, list[Piece]] = {}
    for piece in pieces:
        if piece.column and piece.turns == 0:
            fonts.setdefault(piece.font, []).append(piece)
    for columns in fonts.values():
        shift = _estimated_shift(columns, ink)
        for piece in columns:
            piece.boxes[:, 1::2] += shift * piece.size


def join_columns(pieces: list[Piece], join_gap: float) -> list[Piece]:
    """Join characters that stand below each other in vertical text: to MuPDF each is a line of its own."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last and last.column and piece.column and last.turns == piece.turns == 0:
            a, b, em = last.boxes[-1], piece.boxes[0], max(last.size, piece.size)
            middle = abs(a[0] + a[2] - b[0] - b[2]) / 2
            if middle < 0.3 * em and -0.5 * em <= b[1] - a[3] <= join_gap * em:
                last.texts += piece.texts
                last.boxes = np.vstack([last.boxes, piece.boxes])
                last.misdrawn += piece.misdrawn
                continue
        joined.append(piece)
    return joined


def _estimated_shift(columns: list[Piece], ink: Ink) -> float:
    """The shift at which the least ink lies on the upper and lower edges of the boxes; few glyphs tell nothing."""
    boxes = [(box, piece.size) for piece in columns for text, box in zip(piece.texts, piece.boxes, strict=True)
             if text.strip() and box[3] > box[1]]  # fmt: skip
    if len(boxes) < 20:
        return _COLUMN_SHIFT
    shifts = _COLUMN_SHIFT + np.arange(-0.2, 0.21, 0.02)
    height, width = ink.mask.shape
    edges = np.zeros(len(shifts))
    for (x0, y0, x1, y1), size in boxes[:: max(len(boxes) // 200, 1)]:
        for edge in (y0, y1):
            rows = np.clip(np.round(edge + shifts * size).astype(int), 0, height - 1)
            edges += ink.mask[rows, max(int(x0), 0) : min(int(x1) + 1, width)].mean(axis=1)
    best = np.flatnonzero(edges <= edges.min() + 0.02 * max(edges.max() - edges.min(), 1e-9))
    return float(shifts[best].mean())


def without_overprints(pieces: list[Piece]) -> list[Piece]:
    """Leave out pieces that print the same text on the same place again, a hair's breadth aside: poor man's bold."""
    texts = ["".join(piece.texts) for piece in pieces]
    times, kept = Counter(texts), []
    printed: dict[str, list[Rect]] = defaultdict(list)
    for text, piece in zip(texts, pieces, strict=True):
        if times[text] > 1:
            box = bounds_of(piece)
            if any(_same_place(box, other, piece.size) for other in printed[text]):
                continue
            printed[text].append(box)
        kept.append(piece)
    return kept


def bounds_of(piece: Piece) -> Rect:
    return (*piece.boxes[:, :2].min(axis=0).tolist(), *piece.boxes[:, 2:].max(axis=0).tolist())


def _same_place(a: Rect, b: Rect, size: float) -> bool:
    return all(abs(p - q) < 0.15 * size for p, q in zip(a, b, strict=True))


# --- right-to-left lines ------------------------------------------------------------------------------------------


def join_right_to_left(pieces: list[Piece], join_gap: float) -> list[Piece]:
    """Join the pieces of each line that holds right-to-left letters, and put its characters in reading order.

    MuPDF gives words and numbers of such a line in the order they were set, each turned round on its own.
    """
    if not any(has_right_to_left("".join(piece.texts)) for piece in pieces):
        return pieces
    done: list[Piece] = []
    for row in _rows(pieces, join_gap):
        if len(row) > 1 or has_right_to_left("".join(row[0].texts)):
            done += _reordered(row)
        else:
            done += row
    return done


def _rows(pieces: list[Piece], join_gap: float) -> list[list[Piece]]:
    rows: list[list[Piece]] = []
    for piece in pieces:
        row = next((row for row in reversed(rows[-12:]) if _beside(row, piece, join_gap)), None)
        if row:
            row.append(piece)
        else:
            rows.append([piece])
    return rows


def _beside(row: list[Piece], piece: Piece, join_gap: float) -> bool:
    if piece.turns != 0 or piece.column or row[0].turns != 0 or row[0].column:
        return False
    if not has_right_to_left("".join("".join(part.texts) for part in [*row, piece])):
        return False
    b = bounds_of(piece)
    for part in row:
        a = bounds_of(part)
        gap = max(a[0], b[0]) - min(a[2], b[2])
        common = min(a[3], b[3]) - max(a[1], b[1])
        em = max(part.size, piece.size)
        alike = min(part.size, piece.size) > 0.6 * em
        if alike and gap <= join_gap * em and common > 0.5 * min(a[3] - a[1], b[3] - b[1]):
            return True
    return False


def _reordered(row: list[Piece]) -> list[Piece]:
    """Return the pieces of a line as one; as none where no letter takes up room."""
    clusters = [cluster for piece in row for cluster in _clusters(piece)]
    size = max(piece.size for piece in row)
    order = logical_order(clusters, size)
    if not order:
        return []
    boxes, misdrawn = np.array([box for _, box in order]), sum(piece.misdrawn for piece in row)
    return [Piece([text for text, _ in order], boxes, size, 0, False, row[0].direction, row[0].font, misdrawn, True)]


def _clusters(piece: Piece) -> list[tuple[str, Rect]]:
    """Return glyphs with all their characters: ligatures whole and in logical order, marks with their letter.

    The later characters of a ligature have no width; MuPDF puts them at its right end, and before it where it has
    turned the line round.
    """
    clusters: list[tuple[str, Rect]] = []
    waiting = ""
    for text, box in zip(piece.texts, piece.boxes.tolist(), strict=True):
        if not text:
            continue
        mark = unicodedata.combining(text[0]) > 0
        thin = box[2] - box[0] < 0.01 and not text.isspace()
        if clusters and mark:
            last, where = clusters[-1]
            clusters[-1] = (last + text, where if thin else union(where, box))
        elif thin and has_right_to_left(text):
            waiting = text + waiting
        elif thin and clusters:
            last, where = clusters[-1]
            clusters[-1] = (last + text, where)
        else:
            clusters.append((text + waiting, tuple(box)))
            waiting = ""
    if waiting and clusters:
        clusters[-1] = (clusters[-1][0] + waiting, clusters[-1][1])
    return clusters
