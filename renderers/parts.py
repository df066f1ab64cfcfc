"""Lines as the cutting of a page sees them, and what becomes of those too long for any square: parts between words.

A line that no legible window can hold is divided at a seam that runs down its whole column, so that windows on either
side of it are columns again.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from corpus.legibility import Legibility, is_column, squashed
from renderers.characters import estimate_tokens
from renderers.page import Line, Quad, Rect, bounds, rect_quad, union

MARGIN = 8  # pixels of paper left around a window's lines, where its neighbours leave them


@dataclass(frozen=True)
class Budget:
    """What one window may hold.

    `tokens` is compared with `line_tokens` per line plus an estimate of its text. A line's tags and eight coordinates
    are 35 tokens with Qwen's tokenizer, which writes every digit separately. `height` is in pixels; None: no limit.
    `longest` is the longer side over the shorter. `advance` and `ink` are the least pixels of a half-width character
    and of a line's ink after the squash to `train_size`; see `corpus.legibility`.
    """

    tokens: float = 1720  # 2048 - 258 for the image - 10 for the prompt and the end - 60 in reserve
    line_tokens: float = 36
    height: int | None = None
    longest: float = 3.0
    train_size: int = Legibility.train_size
    advance: float = Legibility.advance
    ink: float = Legibility.ink

    @cached_property
    def legibility(self) -> Legibility:
        return Legibility(self.train_size, self.advance, self.ink)


@dataclass(frozen=True)
class Item:
    """A line or part of one: place in the reading order, bounds, tokens, and the largest window to read it in.

    `place` is where cuts may not go: the bounds, but for a part of a line, whose cut end is the seam of its paragraph.
    `part` says which characters of its line a part holds.
    """

    order: float
    line: Line
    box: Rect
    place: Rect
    cost: float
    room: tuple[float, float]
    part: tuple[int, int] | None = None


def item_of(order: float, line: Line, budget: Budget) -> Item:
    box = bounds(line.quad)
    room = _room(line.text, line.quad, budget.legibility)
    return Item(order, line, box, box, budget.line_tokens + estimate_tokens(line.text), room)


def _room(text: str, quad: Quad, legibility: Legibility) -> tuple[float, float]:
    """Return the widest and the highest window in which the line can be read."""
    length, ink = legibility.needs(text)
    along, across = squashed(text, quad, legibility.train_size, legibility.train_size)
    along, across = along / length if length else math.inf, across / ink if ink else math.inf
    (x0, y0), (x1, y1) = quad[0], quad[1]
    flat, steep = abs(y1 - y0) <= 0.03 * abs(x1 - x0), abs(x1 - x0) <= 0.03 * abs(y1 - y0)
    if not (flat or steep):  # slanted: whichever way it is squashed
        return min(along, across), min(along, across)
    return (along, across) if flat != is_column(text, quad) else (across, along)


# --- long lines in parts ------------------------------------------------------------------------------------------


def parted(items: list[Item], budget: Budget) -> list[Item]:
    """Divide lines that no window could show legibly, and their neighbours, at the seams of their column."""
    for x0, y0, x1, y1, seams in _columns([item for item in items if _is_long(item)]):
        divided = []
        for item in items:
            within = item.box[1] < y1 and item.box[3] > y0 and item.box[0] < x1 and item.box[2] > x0
            divided += _pieces(item, seams, budget) if within else [item]
        items = divided
    return sorted(items, key=lambda item: item.order)


def _is_long(item: Item) -> bool:
    return bool(item.line.breaks) and item.box[2] - item.box[0] + 2 * MARGIN > item.room[0]


def _columns(long: list[Item]) -> list[tuple[float, float, float, float, list[float]]]:
    """Group long lines that stand above each other; return for each group its box and where it is to be divided."""
    groups: list[list[Item]] = []
    for item in sorted(long, key=lambda item: item.box[0] - item.box[2]):
        for group in groups:
            x0, x1 = group[0].box[0], group[0].box[2]
            if min(x1, item.box[2]) - max(x0, item.box[0]) > 0.8 * (item.box[2] - item.box[0]):
                group.append(item)
                break
        else:
            groups.append([item])
    return [_column(group) for group in groups]


def _column(group: list[Item]) -> tuple[float, float, float, float, list[float]]:
    boxes = np.array([item.box for item in group])
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    room = min(item.room[0] for item in group)
    count = int(np.ceil((x1 - x0) * 1.04 / max(room - 2 * MARGIN, 1)))  # ragged seams cost some of the room
    return x0, y0, x1, y1, [x0 + (x1 - x0) * i / count for i in range(1, count)]


def _pieces(item: Item, seams: list[float], budget: Budget) -> list[Item]:
    """Cut an item at the break nearest to each seam; what cannot be cut belongs to the side where its middle is."""
    x0, y0, x1, y1 = item.place
    crossed = [seam for seam in seams if x0 < seam < x1]
    if not crossed:
        return [item]
    if not item.line.breaks:
        bounds_ = [x0, *crossed, x1]
        side = next(i for i, edge in enumerate(bounds_[1:]) if (x0 + x1) / 2 <= edge)
        return [replace(item, place=(bounds_[side], y0, bounds_[side + 1], y1))]
    first, last = item.part or (0, len(item.line.text))
    ends = [(0, item.box[0], item.box[0], x0)]  # characters before, end before, start after, seam
    for seam in crossed:
        at, before, after = min(item.line.breaks, key=lambda found: abs((found[1] + found[2]) / 2 - seam))
        if at > ends[-1][0]:
            ends.append((at, before, after, seam))
    ends.append((last - first, item.box[2], item.box[2], x1))
    pieces = []
    for (a, _, left, seam_a), (b, right, _, seam_b) in pairwise(ends):
        quad = ((left, item.box[1]), (right, item.box[1]), (right, item.box[3]), (left, item.box[3]))
        inner = tuple((at - a, end, start) for at, end, start in item.line.breaks if a < at < b)
        line = Line(item.line.text[a:b].strip(), quad, inner, item.line.unseen, item.line.misdrawn)
        part = first + a, first + b
        made = item_of(int(item.order) + part[0] / (part[0] + 1) / 2, line, budget)
        pieces.append(replace(made, place=(seam_a, y0, seam_b, y1), part=part))
    return pieces


def rejoined(items: list[Item], lines: list[Line], width: float, height: float, budget: Budget) -> list[Item]:
    """Put parts that follow each other in one window of this size together again, where it is legible for the whole."""
    joined: list[Item] = []
    for item in items:
        last = joined[-1] if joined else None
        both = _both(last, item, lines[int(item.order)], budget) if last else None
        if both and width <= both.room[0] and height <= both.room[1]:
            joined[-1] = both
        else:
            joined.append(item)
    return joined


def _both(a: Item, b: Item, line: Line, budget: Budget) -> Item | None:
    (start, middle), (next_start, end) = a.part or (0, 0), b.part or (0, 0)
    if int(a.order) != int(b.order) or not middle or middle != next_start:
        return None
    text, quad = line.text[start:end].strip(), rect_quad(union(a.box, b.box))
    return replace(item_of(a.order, replace(line, text=text, quad=quad), budget), part=(start, end))
