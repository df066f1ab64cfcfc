"""A witness of ink for each glyph: what shows of a page's pieces of text, as runs with boxes drawn in to their ink.

Characters of fonts that lack them and halves of lines under a white box are in a file's text and in no reader's eye.
The glyphs of a whole page are looked at together.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from renderers.bidi import has_right_to_left
from renderers.characters import clean_text, is_wide
from renderers.glyphs import Piece
from renderers.ink import Ink, tight
from renderers.lines import Run
from renderers.page import Rect, turned_quad

_SLACK = 0.08  # of the font size: how far outlines may stick out of the box MuPDF gives (hinting, stroke width)
_HIDDEN_SHARE = 0.9  # of the glyphs of a piece without ink: nothing of it shows


def runs_of(pieces: list[Piece], ink: Ink) -> list[Run | None]:
    """Return what shows of each piece as a run; None: nothing does."""
    upright = [piece for piece in pieces if piece.turns is not None]
    runs = iter(_upright_runs(_Glyphs(upright), ink) if upright else ())
    return [slanted_run(piece, ink) if piece.turns is None else next(runs) for piece in pieces]


class _Glyphs:
    """The glyphs of upright pieces, all in one: glyph i stands in `boxes[i]` and belongs to piece `owner[i]`."""

    def __init__(self, pieces: list[Piece]):
        self.pieces = pieces
        counts = np.array([len(piece.texts) for piece in pieces])
        self.first = np.cumsum(counts) - counts  # glyph of each piece
        self.owner = np.repeat(np.arange(len(pieces)), counts)
        self.boxes = np.concatenate([piece.boxes for piece in pieces])
        self.texts = [text for piece in pieces for text in piece.texts]
        self.solid = np.fromiter(map(bool, map(str.strip, self.texts)), bool, len(self.texts))
        self.blank = np.fromiter(map(str.isspace, self.texts), bool, len(self.texts))
        self.slack = np.array([[_SLACK * piece.size] for piece in pieces])

    def of(self, number: int, mask: np.ndarray) -> list:
        """The part of a list over all glyphs that is piece `number`'s."""
        start = self.first[number]
        return mask[start : start + len(self.pieces[number].texts)].tolist()

    def counts(self, mask: np.ndarray) -> np.ndarray:
        """How many glyphs of each piece are in the mask."""
        return np.add.reduceat(mask.astype(int), self.first)

    def bounds(self, mask: np.ndarray) -> list[Rect]:
        """The box around the glyphs of each piece that are in the mask, with room for what sticks out."""
        low = np.where(mask[:, None], self.boxes[:, :2], np.inf)
        high = np.where(mask[:, None], self.boxes[:, 2:], -np.inf)
        low, high = np.minimum.reduceat(low, self.first), np.maximum.reduceat(high, self.first)
        return np.hstack([low - self.slack, high + self.slack]).tolist()


def _upright_runs(glyphs: _Glyphs, ink: Ink) -> Iterator[Run | None]:
    patches = [ink.patch(box) for box in glyphs.bounds(glyphs.solid)]
    seen = glyphs.solid & _seen(glyphs, patches)
    shown, whole = glyphs.counts(seen), glyphs.counts(glyphs.solid)
    shows = (shown > (1 - _HIDDEN_SHARE) * whole).tolist()
    partly = (shown < whole).tolist()
    boxes = glyphs.bounds(seen) if any(partly) else []
    breaks = _breaks(glyphs, seen)
    for number, piece in enumerate(glyphs.pieces):
        box = shows[number] and (ink.fit(boxes[number]) if partly[number] else tight(*patches[number]))
        yield _run(glyphs, number, piece, box, partly[number] and seen, breaks[number]) if box else None


def _run(glyphs: _Glyphs, number: int, piece: Piece, box: Rect, seen, breaks: list) -> Run:
    raw, missing, texts = "".join(piece.texts), 0, piece.texts
    if seen is not False:
        kept = glyphs.of(number, seen | ~glyphs.solid)
        missing = sum(len(text) for text, keep in zip(texts, kept, strict=True) if not keep)
        texts = [text for text, keep in zip(texts, kept, strict=True) if keep]
    text = clean_text("".join(texts))
    return Run(
        text, turned_quad(box, piece.turns or 0), piece.size, piece.turns, piece.column, _spaced(raw),
        breaks=() if has_right_to_left(text) else tuple(breaks), unseen=missing, misdrawn=piece.misdrawn,
    )  # fmt: skip


def _spaced(raw: str) -> tuple[bool, bool]:
    """Whether white space begins and ends a piece; files put it after every full-width character, where none shows."""
    inner = raw.strip()
    return raw[:1].isspace() and not is_wide(inner[:1]), raw[-1:].isspace() and not is_wide(inner[-1:])


def _seen(glyphs: _Glyphs, patches: list[tuple[np.ndarray, int, int]]) -> np.ndarray:
    """Tell for each glyph whether ink shows between its ends; one without a width belongs to the one before."""
    axes = [piece.along for piece in glyphs.pieces]
    profiles = [_profile(patch, axis) for (patch, *_), axis in zip(patches, axes, strict=True)]
    lengths = np.array([len(profile) for profile in profiles])
    inked = np.concatenate([[0], np.cumsum(np.concatenate(profiles))])  # before each row or column of each patch
    offsets = np.array([place[axis] for (_, *place), axis in zip(patches, axes, strict=True)])
    before, owner = np.cumsum(lengths) - lengths, glyphs.owner
    turned = np.array(axes, bool)[owner, None]
    x0, y0, x1, y1 = np.where(turned, glyphs.boxes[:, [1, 0, 3, 2]], glyphs.boxes).T
    start, end = (
        before[owner] + np.clip(edge.astype(int) - offsets[owner], 0, lengths[owner])
        for edge in (np.floor(x0), np.ceil(x1))
    )
    seen = (inked[end] > inked[start]) & (y1 - y0 > 0.01)
    counts = np.bincount(owner)
    for i in np.flatnonzero(x1 - x0 < 0.01).tolist():
        is_first = i == glyphs.first[owner[i]]
        seen[i] = seen[i - 1] if not is_first else counts[owner[i]] > 1 and seen[i + 1]
    return seen


def _profile(patch: np.ndarray, axis: int) -> np.ndarray:
    """Whether each column (axis 0) or row (axis 1) of a patch has ink."""
    return cv2.reduce(patch, axis, cv2.REDUCE_MAX).ravel() > 0 if patch.size else np.zeros(0, bool)


def _breaks(glyphs: _Glyphs, seen: np.ndarray) -> list[list[tuple[int, float, float]]]:
    """Return where each piece of horizontal text that runs to the right may be divided: before words, and before
    full-width characters."""
    breaks: list[list] = [[] for _ in glyphs.pieces]
    divisible = np.array([piece.turns == 0 and not piece.column and not piece.right_to_left for piece in glyphs.pieces])
    places = np.flatnonzero(seen & divisible[glyphs.owner])
    if len(places) < 2:
        return breaks
    owner, boxes = glyphs.owner[places], glyphs.boxes[places]
    inner = np.concatenate([[False], owner[1:] == owner[:-1]])
    blanks = np.cumsum(glyphs.blank)[places]
    spaced = inner & (blanks != np.roll(blanks, 1))
    ends = _ends_before(boxes[:, 2], inner)
    may = inner & (spaced | _wide([glyphs.texts[place] for place in places.tolist()])) & (boxes[:, 0] >= ends - 1)
    count = np.arange(len(places)) + np.cumsum(spaced) - spaced
    count -= np.repeat(count[~inner], np.diff(np.flatnonzero(np.append(~inner, True))))
    found = np.flatnonzero(may)
    for number, *place in zip(*(values[found].tolist() for values in (owner, count, ends, boxes[:, 0])), strict=True):
        breaks[number].append(tuple(place))
    return breaks


def _ends_before(ends: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """How far right the glyphs before each one in its piece reach."""
    reach = np.maximum(ends, 0.0)
    for part in np.split(reach, np.flatnonzero(~inner)[1:]):
        np.maximum.accumulate(part, out=part)
    return np.roll(reach, 1)


def _wide(texts: list[str]) -> np.ndarray | bool:
    """Whether each of these glyphs is full-width."""
    wide = {text for text in set(texts) if is_wide(text)}
    return np.array([text in wide for text in texts]) if wide else False


def slanted_run(piece: Piece, ink: Ink) -> Run | None:
    """Return a slanted piece as a run whose quad is drawn in to its ink; None: nothing shows."""
    solid = np.array([bool(text.strip()) for text in piece.texts])
    cos, sin = piece.direction
    turn = np.array([[cos, sin], [-sin, cos]])  # page to text: x along the line
    x0, y0, x1, y1 = piece.boxes[solid].T
    corners = np.stack([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]).transpose(0, 2, 1).reshape(-1, 2)
    centres = np.stack([(x0 + x1) / 2, (y0 + y1) / 2], axis=1) @ turn.T
    along = corners @ turn.T
    # Boxes of slanted glyphs are upright: too wide at the ends and too high everywhere.
    low = np.array([along[:, 0].min(), centres[:, 1].min() - 0.75 * piece.size])
    high = np.array([along[:, 0].max(), centres[:, 1].max() + 0.75 * piece.size])
    fitted = ink.fit_turned(turn, low, high)
    if fitted is None:
        return None
    (a0, b0), (a1, b1) = fitted
    first, second, third, fourth = map(tuple, (np.array([(a0, b0), (a1, b0), (a1, b1), (a0, b1)]) @ turn).tolist())
    text = clean_text("".join(piece.texts))
    quad = first, second, third, fourth
    return Run(text, quad, piece.size, None, False, (False, False), misdrawn=piece.misdrawn) if text else None
