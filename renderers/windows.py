"""Cut a page into windows: crops that hold whole lines only, few enough for a training sample, and legible in it.

A dense page has more text than fits the model's sequence (2,048 tokens, of which the image takes 258), and the trainer
squashes every image to a small square, where a whole page of text is a grey blur. So the page is cut where no line is
in the way, as a reader would fold it: between columns, paragraphs or lines; and where lines are longer than can be read
in one square, between their words.
"""

import math
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from corpus.legibility import Legibility, is_column, squashed
from renderers.characters import estimate_tokens
from renderers.page import Line, Quad, Rect, bounds, shift_quad, union

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

    @property
    def legibility(self) -> Legibility:
        return Legibility(self.train_size, self.advance, self.ink)


@dataclass(frozen=True)
class Window:
    """`box` is the crop in whole pixels of the page; the quads of `lines` are in pixels of the crop.

    `others` are the boxes, in pixels of the crop, of lines that reach into it and belong to another window.
    """

    box: tuple[int, int, int, int]
    lines: list[Line]
    tokens: float
    others: list[Rect]


@dataclass(frozen=True)
class _Item:
    """A line, its place in the reading order, its bounds, its tokens, and the largest window to read it in.

    `place` is where cuts may not go: the bounds, but for a part of a line, whose cut end is the seam of its paragraph.
    """

    order: float
    line: Line
    box: Rect
    place: Rect
    cost: float
    room: tuple[float, float]


def cut(lines: list[Line], width: int, height: int, budget: Budget) -> list[Window]:
    """Return windows that together hold every line once, in the order of their first lines.

    A page that fits is one window, uncropped. A line that alone exceeds the budget makes a window of its own, over the
    budget: the caller drops it by rule. Where every cut would run through a line (overlapping, slanted or turned text),
    the cut goes between line centres, and the crops overlap.
    """
    items = [_item(order, line, budget) for order, line in enumerate(lines)]
    page = (0.0, 0.0, float(width), float(height))
    if items and _fits(items, page, budget):
        return [Window((0, 0, width, height), list(lines), _tokens(items), [])]
    items = _parted(items, budget)
    boxes = np.array([item.box for item in items]).reshape(-1, 4)
    parts = sorted(_split(items, page, budget), key=lambda part: part[0][0].order)
    parts = _merged(parts, boxes, budget)
    return [_window(part, region, items, boxes, (width, height), budget) for part, region in parts]


def _item(order: float, line: Line, budget: Budget) -> _Item:
    box = bounds(line.quad)
    room = _room(line.text, line.quad, budget.legibility)
    return _Item(order, line, box, box, budget.line_tokens + estimate_tokens(line.text), room)


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


def _parted(items: list[_Item], budget: Budget) -> list[_Item]:
    """Divide lines that no window could show legibly, and their neighbours, at the seams of their column."""
    for x0, y0, x1, y1, seams in _columns([item for item in items if _is_long(item)]):
        divided = []
        for item in items:
            within = item.box[1] < y1 and item.box[3] > y0 and item.box[0] < x1 and item.box[2] > x0
            divided += _pieces(item, seams, budget) if within else [item]
        items = divided
    return sorted(items, key=_order)


def _is_long(item: _Item) -> bool:
    return bool(item.line.breaks) and item.box[2] - item.box[0] + 2 * MARGIN > item.room[0]


def _columns(long: list[_Item]) -> list[tuple[float, float, float, float, list[float]]]:
    """Group long lines that stand above each other; return for each group its box and where it is to be divided."""
    groups: list[list[_Item]] = []
    for item in sorted(long, key=lambda item: item.box[0] - item.box[2]):
        for group in groups:
            x0, x1 = group[0].box[0], group[0].box[2]
            if min(x1, item.box[2]) - max(x0, item.box[0]) > 0.8 * (item.box[2] - item.box[0]):
                group.append(item)
                break
        else:
            groups.append([item])
    return [_column(group) for group in groups]


def _column(group: list[_Item]) -> tuple[float, float, float, float, list[float]]:
    boxes = np.array([item.box for item in group])
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    room = min(item.room[0] for item in group)
    count = int(np.ceil((x1 - x0) * 1.04 / max(room - 2 * MARGIN, 1)))  # ragged seams cost some of the room
    return x0, y0, x1, y1, [x0 + (x1 - x0) * i / count for i in range(1, count)]


def _pieces(item: _Item, seams: list[float], budget: Budget) -> list[_Item]:
    """Cut an item at the break nearest to each seam; what cannot be cut belongs to the side where its middle is."""
    x0, y0, x1, y1 = item.place
    crossed = [seam for seam in seams if x0 < seam < x1]
    if not crossed:
        return [item]
    if not item.line.breaks:
        bounds_ = [x0, *crossed, x1]
        side = next(i for i, edge in enumerate(bounds_[1:]) if (x0 + x1) / 2 <= edge)
        return [replace(item, place=(bounds_[side], y0, bounds_[side + 1], y1))]
    ends = [(0, item.box[0], item.box[0], x0)]  # characters before, end before, start after, seam
    for seam in crossed:
        at, before, after = min(item.line.breaks, key=lambda found: abs((found[1] + found[2]) / 2 - seam))
        if at > ends[-1][0]:
            ends.append((at, before, after, seam))
    ends.append((len(item.line.text), item.box[2], item.box[2], x1))
    pieces = []
    for number, ((a, _, left, seam_a), (b, right, _, seam_b)) in enumerate(zip(ends, ends[1:], strict=False)):
        quad = ((left, item.box[1]), (right, item.box[1]), (right, item.box[3]), (left, item.box[3]))
        inner = tuple((at - a, end, start) for at, end, start in item.line.breaks if a < at < b)
        line = replace(item.line, text=item.line.text[a:b].strip(), quad=quad, breaks=inner)
        made = _item(item.order + number / len(ends) / 2, line, budget)
        pieces.append(replace(made, place=(seam_a, y0, seam_b, y1)))
    return pieces


# --- cutting ------------------------------------------------------------------------------------------------------


def _fits(items: list[_Item], region: Rect, budget: Budget) -> bool:
    width, height = _grown(region[2] - region[0], region[3] - region[1], budget)
    return (
        _tokens(items) <= budget.tokens
        and (budget.height is None or region[3] - region[1] <= budget.height)
        and max(width, height) <= budget.longest * min(width, height) + 1
        and width <= min(item.room[0] for item in items)
        and height <= min(item.room[1] for item in items)
    )


def _grown(width: float, height: float, budget: Budget) -> tuple[float, float]:
    """The size of a crop with paper added until it is not too long."""
    return max(width, height / budget.longest), max(height, width / budget.longest)


def _split(items: list[_Item], region: Rect, budget: Budget) -> list[tuple[list[_Item], Rect]]:
    """Halve the region until every part fits; a region is what a part's crop must not leave."""
    done, todo = [], [(items, region)] if items else []
    while todo:
        items, region = todo.pop()
        region = _around(items, region)
        if len(items) < 2 or _fits(items, region, budget):
            done.append((items, region))
            continue
        low, high, axis, start, end = _best_cut(items, region, budget)
        first, second = list(region), list(region)
        first[axis + 2], second[axis] = start, end
        todo += [(low, tuple(first)), (high, tuple(second))]
    return done


def _merged(parts: list, boxes: np.ndarray, budget: Budget) -> list[tuple[list[_Item], Rect]]:
    """Join parts again that follow each other, fit together, and have no line of another part between them."""
    merged: list[tuple[list[_Item], Rect]] = []
    for items, region in parts:
        if merged:
            joined = merged[-1][0] + items
            around = _around(joined, union(merged[-1][1], region))
            inside = _count_inside(boxes, around)
            if inside == len(joined) and _fits(joined, around, budget):
                merged[-1] = joined, around
                continue
        merged.append((items, region))
    return merged


def _count_inside(boxes: np.ndarray, box: Rect) -> int:
    x0, y0, x1, y1 = box
    return int(((boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)).sum())


def _around(items: list[_Item], region: Rect) -> Rect:
    """The box around the items with a margin, within the region; cut ends of lines may stick out of a region."""
    boxes = np.array([item.box for item in items])
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    return (
        min(max(x0 - MARGIN, region[0]), x0), min(max(y0 - MARGIN, region[1]), y0),
        max(min(x1 + MARGIN, region[2]), x1), max(min(y1 + MARGIN, region[3]), y1),
    )  # fmt: skip


def _tokens(items: list[_Item]) -> float:
    """The exact sum, rounded once: the built-in one adds floats in another way since Python 3.12."""
    return math.fsum(item.cost for item in items)


def _best_cut(items: list[_Item], region: Rect, budget: Budget):
    """Return (items before, items after, axis, end of the first region, start of the second).

    Among the gaps that no line crosses, the one that leaves the fewest lines illegible in their part and divides the
    tokens (or, when only the height is too much, the height) most evenly, wide gaps preferred: the gap between two
    columns over one between two lines.
    """
    tall = budget.height is not None and region[3] - region[1] > budget.height
    tall &= _tokens(items) <= budget.tokens
    cuts = [found for axis in ((1,) if tall else (0, 1)) for found in _gaps(items, axis, tall, budget)]
    if not cuts:
        return _forced_cut(items, region)
    _, axis, at, start, end = min(cuts, key=lambda found: found[0])
    ordered = sorted(items, key=lambda item: item.place[axis])
    middle = (start + end) / 2
    return sorted(ordered[:at], key=_order), sorted(ordered[at:], key=_order), axis, middle, middle


def _gaps(items: list[_Item], axis: int, by_height: bool, budget: Budget):
    """Yield (badness, axis, number of items before, gap start, gap end) for every clean cut across an axis."""
    ordered = sorted(items, key=lambda item: item.place[axis])
    weights = [item.box[3] - item.box[1] if by_height else item.cost for item in ordered]
    total, before, reach = math.fsum(weights), 0.0, float("-inf")
    typical = sorted(item.box[3] - item.box[1] for item in items)[len(items) // 2]
    blurred = _illegible_shares(ordered, budget)
    for at, (item, weight) in enumerate(zip(ordered, weights, strict=True)):
        if at and item.place[axis] >= reach:
            imbalance = abs(2 * before / total - 1)
            width = min((item.place[axis] - reach) / max(typical, 1.0), 2.0)
            yield imbalance - 0.15 * width + 2 * blurred[at], axis, at, reach, item.place[axis]
        before += weight
        reach = max(reach, item.place[axis + 2])


def _illegible_shares(ordered: list[_Item], budget: Budget) -> np.ndarray:
    """Return, for every cut before item `at`, the share of items that cannot be read in the part that they are in."""
    boxes, room = np.array([item.box for item in ordered]), np.array([item.room for item in ordered])
    first = np.concatenate([np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])], axis=1)
    back = boxes[::-1]
    second = np.concatenate([np.minimum.accumulate(back[:, :2]), np.maximum.accumulate(back[:, 2:])], axis=1)[::-1]
    shares = np.zeros(len(ordered))
    for part, rows in ((first[:-1], np.tri(len(ordered) - 1, len(ordered), 0, bool)),
                       (second[1:], ~np.tri(len(ordered) - 1, len(ordered), 0, bool))):  # fmt: skip
        size = part[:, 2:] - part[:, :2] + 2 * MARGIN
        size = np.maximum(size, size[:, ::-1] / budget.longest)
        blurred = (size[:, None, :] > room[None, :, :]).any(axis=2)
        shares[1:] += (blurred & rows).sum(axis=1) / len(ordered)
    return shares


def _forced_cut(items: list[_Item], region: Rect):
    """Divide at the middle of the tokens along the longer side, through whatever is there."""
    axis = 0 if region[2] - region[0] > region[3] - region[1] else 1
    ordered = sorted(items, key=lambda item: item.box[axis] + item.box[axis + 2])
    before = list(accumulate(item.cost for item in ordered))
    at = min(int(np.searchsorted(before, before[-1] / 2)) + 1, len(ordered) - 1)
    low, high = sorted(ordered[:at], key=_order), sorted(ordered[at:], key=_order)
    end_of_low = max(item.box[axis + 2] for item in low)
    start_of_high = min(item.box[axis] for item in high)
    return low, high, axis, end_of_low, start_of_high


def _order(item: _Item) -> float:
    return item.order


# --- the crop -----------------------------------------------------------------------------------------------------


def _window(items: list[_Item], region: Rect, everything: list[_Item], boxes, page: tuple[int, int], budget) -> Window:
    # A fraction of a pixel belongs to the window whose line it touches, so crops round outwards.
    x0, x1 = _lengthened(int(region[0]), -int(-region[2] // 1), region[3] - region[1], page[0], budget)
    y0, y1 = _lengthened(int(region[1]), -int(-region[3] // 1), region[2] - region[0], page[1], budget)
    own = {id(item) for item in items}
    reaching = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
    others = [everything[i].box for i in np.flatnonzero(reaching) if id(everything[i]) not in own]
    moved = [(a - x0, b - y0, c - x0, d - y0) for a, b, c, d in others]
    lines = [replace(item.line, quad=shift_quad(item.line.quad, -x0, -y0)) for item in items]
    return Window((x0, y0, x1, y1), lines, _tokens(items), moved)


def _lengthened(start: int, end: int, other: float, most: int, budget: Budget) -> tuple[int, int]:
    """Grow an interval on both sides, within the page, until the crop is not too long for its `other` side."""
    missing = int(np.ceil(other / budget.longest)) - (end - start)
    if missing <= 0:
        return start, end
    start = max(min(start - missing // 2, most - (end - start) - missing), 0)
    return start, min(start + max(int(np.ceil(other / budget.longest)), end - start), most)
