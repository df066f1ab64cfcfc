"""From the pieces a page's producer emitted to lines as a reader sees them.

PDF producers place words, cells and single characters one by one, and browsers give a box per inline element: pieces
that follow each other on one baseline with no more than a word's gap between them are one line.
"""

import re
from dataclasses import dataclass, replace

from renderers.characters import is_right_to_left, is_wide
from renderers.page import Line, Quad, Rect, bounds, clip_quad, turned_quad, union

JOIN_GAP = 0.45  # of the font size: a wider gap separates columns; word gaps are 0.2 to 0.4
SPACE_GAP = 0.17  # of the font size: a narrower gap is kerning within a word
_WIDE_SPACE_GAP = 0.25  # the same beside a full-width character, whose own box may end short of its square
_SPACED_GAP = 0.1  # the same where the source has white space
_STOP_BLANK = 0.5  # of the font size: the empty half of the square of a full-width stop or bracket
_HALF_BLANK = re.compile("[\u3001\u3002\u3008-\u3011\u3014-\u301b\uff01\uff08\uff09\uff0c\uff0e\uff1a\uff1b\uff1f]")
_OVERLAP = 0.5  # share of the lower run's height that two runs of one line have in common


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of a line: cleaned text, quad in pixels, font size in pixels.

    `turns` is the number of clockwise quarter turns of the glyphs, None when slanted (never merged); `vertical` is
    True for text set from top to bottom with upright glyphs; `spaced` tells whether the raw text began and ended
    with white space; runs of different `block`s (paragraphs, table cells), where the source has such, never join.
    `breaks`, `unseen` and `misdrawn` are those of a line (`renderers.page.Line`).
    """

    text: str
    quad: Quad
    size: float
    turns: int | None
    vertical: bool
    spaced: tuple[bool, bool]
    block: int = 0
    breaks: tuple[tuple[int, float, float], ...] = ()
    unseen: int = 0
    misdrawn: int = 0


def merge_runs(runs: list[Run], width: int, height: int) -> list[Line]:
    """Merge neighbours in the given order and return lines clipped to an image of `width` x `height` pixels."""
    merged: list[Run] = []
    for run in runs:
        joined = merged and _join(merged[-1], run)
        if joined:
            merged[-1] = joined
        else:
            merged.append(run)
    return [Line(run.text, clip_quad(run.quad, width, height), run.breaks, run.unseen, run.misdrawn) for run in merged]


def _join(a: Run, b: Run) -> Run | None:
    """Return both as one run, or None where they are not neighbours on one line."""
    if a.turns is None or (a.turns, a.vertical, a.block) != (b.turns, b.vertical, b.block):
        return None
    box_a, box_b = bounds(a.quad), bounds(b.quad)
    flow = (a.turns + a.vertical + 2 * (is_right_to_left(a.text) and is_right_to_left(b.text))) % 4
    gap, overlap = _along(box_a, box_b, flow)
    em = max(a.size, b.size)
    blank = _STOP_BLANK * em if _HALF_BLANK.match(a.text[-1]) or _HALF_BLANK.match(b.text[0]) else 0.0
    if overlap < _OVERLAP or not -0.3 * em - blank <= gap <= JOIN_GAP * em + blank or min(a.size, b.size) < 0.4 * em:
        return None
    space = " " if _needs_space(a, b, (gap - blank) / em) else ""
    quad = turned_quad(union(box_a, box_b), a.turns)
    offset = len(a.text) + len(space)
    breaks = (*a.breaks, *(((offset, box_a[2], box_b[0]),) if space and flow == 0 else ()))
    breaks += tuple((at + offset, end, start) for at, end, start in b.breaks)
    return replace(
        a, text=a.text + space + b.text, quad=quad, size=em, spaced=(a.spaced[0], b.spaced[1]), breaks=breaks,
        unseen=a.unseen + b.unseen, misdrawn=a.misdrawn + b.misdrawn,
    )  # fmt: skip


def _needs_space(a: Run, b: Run, gap: float) -> bool:
    if is_wide(a.text[-1]) or is_wide(b.text[0]):
        return gap > (_SPACED_GAP if a.spaced[1] or b.spaced[0] else _WIDE_SPACE_GAP)
    return gap > SPACE_GAP or a.spaced[1] or b.spaced[0]


def _along(a: Rect, b: Rect, flow: int) -> tuple[float, float]:
    """Return the gap from a's end to b's start along the direction of flow, and their overlap across it.

    `flow` is 0 for left to right, 1 downwards, 2 right to left, 3 upwards; the overlap is a share of the smaller.
    """
    start, end = (0, 2) if flow % 2 == 0 else (1, 3)
    low, high = (1, 3) if flow % 2 == 0 else (0, 2)
    gap = b[start] - a[end] if flow < 2 else a[start] - b[end]
    common = min(a[high], b[high]) - max(a[low], b[low])
    return gap, common / max(min(a[high] - a[low], b[high] - b[low]), 1e-6)
