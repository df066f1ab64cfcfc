"""Cut a page into windows: crops that hold whole lines only, few enough for a training sample, and legible in it.

A dense page has more text than fits the model's sequence (2,048 tokens, of which the image takes 258), and the trainer
squashes every image to a small square, where a whole page of text is a grey blur. So the page is cut where no line is
in the way, as a reader would fold it: between columns, paragraphs or lines; and where lines are longer than can be read
in one square, between their words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from renderers.page import Line, Rect, shift_quad, union
from renderers.parts import MARGIN, Budget, Item, item_of, parted, rejoined


@dataclass(frozen=True)
class Window:
    """`box` is the crop in whole pixels of the page; the quads of `lines` are in pixels of the crop.

    `others` are the boxes, in pixels of the crop, of lines that reach into it and belong to another window or to none.
    """

    box: tuple[int, int, int, int]
    lines: list[Line]
    tokens: float
    others: list[Rect]


def cut(lines: list[Line], width: int, height: int, budget: Budget, unlabelled: Sequence[Rect] = ()) -> list[Window]:
    """Return windows that together hold every line once, in the order of their first lines.

    `unlabelled` are boxes of text that no window may show.

    A page that fits is one window, uncropped. A line that alone exceeds the budget makes a window of its own, over the
    budget: the caller drops it by rule. Where every cut would run through a line (overlapping, slanted or turned text),
    the cut goes between line centres, and the crops overlap.
    """
    items = [item_of(order, line, budget) for order, line in enumerate(lines)]
    page = (0.0, 0.0, float(width), float(height))
    if items and _fits(items, page, budget):
        return [Window((0, 0, width, height), list(lines), _tokens(items), list(unlabelled))]
    items = parted(items, budget)
    boxes = np.array([item.box for item in items]).reshape(-1, 4)
    parts = sorted(_split(items, page, budget), key=lambda part: part[0][0].order)
    parts = _merged(parts, boxes, budget)
    obstacles = np.concatenate([boxes, np.array(unlabelled).reshape(-1, 4)])
    return [_window(part, region, items, obstacles, lines, (width, height), budget) for part, region in parts]


# --- cutting ------------------------------------------------------------------------------------------------------


def _fits(items: list[Item], region: Rect, budget: Budget) -> bool:
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


def _split(items: list[Item], region: Rect, budget: Budget) -> list[tuple[list[Item], Rect]]:
    """Halve the region until every part fits; a region is what a part's crop must not leave."""
    done, todo = [], [(items, region)] if items else []
    while todo:
        items, region = todo.pop()
        region = _around(items, region)
        if len(items) < 2 or _fits(items, region, budget):
            done.append((items, region))
            continue
        low, high, axis, start, end = _best_cut(items, region, budget)
        x0, y0, x1, y1 = region
        first, second = (
            ((x0, y0, start, y1), (end, y0, x1, y1)) if axis == 0 else ((x0, y0, x1, start), (x0, end, x1, y1))
        )
        todo += [(low, first), (high, second)]
    return done


def _merged(parts: list, boxes: np.ndarray, budget: Budget) -> list[tuple[list[Item], Rect]]:
    """Join parts again that follow each other, fit together, and have no line of another part between them."""
    merged: list[tuple[list[Item], Rect]] = []
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


def _around(items: list[Item], region: Rect) -> Rect:
    """The box around the items with a margin, within the region; cut ends of lines may stick out of a region."""
    boxes = np.array([item.box for item in items])
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    return (
        min(max(x0 - MARGIN, region[0]), x0), min(max(y0 - MARGIN, region[1]), y0),
        max(min(x1 + MARGIN, region[2]), x1), max(min(y1 + MARGIN, region[3]), y1),
    )  # fmt: skip


def _tokens(items: list[Item]) -> float:
    """The exact sum, rounded once: the built-in one adds floats in another way since Python 3.12."""
    return math.fsum(item.cost for item in items)


def _best_cut(items: list[Item], region: Rect, budget: Budget):
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


def _gaps(items: list[Item], axis: int, by_height: bool, budget: Budget):
    """Yield (badness, axis, number of items before, gap start, gap end) for every clean cut across an axis."""
    ordered = sorted(items, key=lambda item: item.place[axis])
    starts = np.array([item.place[axis] for item in ordered])
    reach = np.maximum.accumulate([item.place[axis + 2] for item in ordered])
    cuts = np.flatnonzero(starts[1:] >= reach[:-1]) + 1
    if not len(cuts):
        return
    weights = [item.box[3] - item.box[1] if by_height else item.cost for item in ordered]
    total, before = math.fsum(weights), np.cumsum(weights)
    typical = sorted(item.box[3] - item.box[1] for item in items)[len(items) // 2]
    for at, blurred in zip(cuts.tolist(), _illegible_shares(ordered, cuts, budget).tolist(), strict=True):
        start, end = float(reach[at - 1]), float(starts[at])
        imbalance = abs(2 * float(before[at - 1]) / total - 1)
        width = min((end - start) / max(typical, 1.0), 2.0)
        yield imbalance - 0.15 * width + 2 * blurred, axis, at, start, end


def _illegible_shares(ordered: list[Item], cuts: np.ndarray, budget: Budget) -> np.ndarray:
    """Return, for every cut before item `cuts[i]`, the share of items that cannot be read in the part they are in."""
    boxes, room = np.array([item.box for item in ordered]), np.array([item.room for item in ordered])
    first = np.concatenate([np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])], axis=1)
    back = boxes[::-1]
    second = np.concatenate([np.minimum.accumulate(back[:, :2]), np.maximum.accumulate(back[:, 2:])], axis=1)[::-1]
    before = np.arange(len(ordered))[None, :] < cuts[:, None]
    shares = np.zeros(len(cuts))
    for part, rows in ((first[cuts - 1], before), (second[cuts], ~before)):
        size = part[:, 2:] - part[:, :2] + 2 * MARGIN
        size = np.maximum(size, size[:, ::-1] / budget.longest)
        blurred = (size[:, None, :] > room[None, :, :]).any(axis=2)
        shares += (blurred & rows).sum(axis=1) / len(ordered)
    return shares


def _forced_cut(items: list[Item], region: Rect):
    """Divide at the middle of the tokens along the longer side, through whatever is there."""
    axis = 0 if region[2] - region[0] > region[3] - region[1] else 1
    ordered = sorted(items, key=lambda item: item.box[axis] + item.box[axis + 2])
    before = list(accumulate(item.cost for item in ordered))
    at = min(int(np.searchsorted(before, before[-1] / 2)) + 1, len(ordered) - 1)
    low, high = sorted(ordered[:at], key=_order), sorted(ordered[at:], key=_order)
    end_of_low = max(item.box[axis + 2] for item in low)
    start_of_high = min(item.box[axis] for item in high)
    return low, high, axis, end_of_low, start_of_high


def _order(item: Item) -> float:
    return item.order


# --- the crop -----------------------------------------------------------------------------------------------------


def _window(
    items: list[Item], region: Rect, everything: list[Item], boxes, lines: list[Line], page: tuple[int, int], budget
) -> Window:
    # A fraction of a pixel belongs to the window whose line it touches, so crops round outwards.
    x0, x1 = _lengthened(int(region[0]), -int(-region[2] // 1), region[3] - region[1], page[0], budget)
    y0, y1 = _lengthened(int(region[1]), -int(-region[3] // 1), region[2] - region[0], page[1], budget)
    own = {id(item) for item in items}
    reaching = (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)
    others = [boxes[i] for i in np.flatnonzero(reaching) if i >= len(everything) or id(everything[i]) not in own]
    moved = [(a - x0, b - y0, c - x0, d - y0) for a, b, c, d in map(np.ndarray.tolist, others)]
    whole = rejoined(items, lines, x1 - x0, y1 - y0, budget)
    shifted = [replace(item.line, quad=shift_quad(item.line.quad, -x0, -y0)) for item in whole]
    return Window((x0, y0, x1, y1), shifted, _tokens(whole), moved)


def _lengthened(start: int, end: int, other: float, most: int, budget: Budget) -> tuple[int, int]:
    """Grow an interval on both sides, within the page, until the crop is not too long for its `other` side."""
    missing = int(np.ceil(other / budget.longest)) - (end - start)
    if missing <= 0:
        return start, end
    start = max(min(start - missing // 2, most - (end - start) - missing), 0)
    return start, min(start + max(int(np.ceil(other / budget.longest)), end - start), most)
