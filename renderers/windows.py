"""Cut a page into windows: crops that hold whole lines only, few enough for a training sample, and legible in it.

A dense page has more text than fits the model's sequence (2,048 tokens, of which the image takes 258), and the trainer
squashes every image to a small square, where a whole page of text is a grey blur. So the page is cut where no line is
in the way, as a reader would fold it: between columns, paragraphs or lines; and where lines are longer than can be read
in one square, between their words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    whole = _Sheet(items)
    if items and _fits(whole, np.arange(len(items)), page, budget):
        return [Window((0, 0, width, height), list(lines), _tokens(items), list(unlabelled))]
    sheet = _Sheet(parted(items, budget))
    parts = sorted(_split(sheet, page, budget), key=lambda found: found[0][0])
    parts = _merged(sheet, parts, budget)
    obstacles = np.concatenate([sheet.boxes, np.array(unlabelled).reshape(-1, 4)])
    return [_window(sheet, part, region, obstacles, lines, (width, height), budget) for part, region in parts]


class _Sheet:
    """The items of a page, in reading order, and what is asked of many of them at once as arrays [items, ...].

    A part of the page is an array of items' numbers.
    """

    def __init__(self, items: list[Item]):
        self.items = items
        self.boxes = np.array([item.box for item in items]).reshape(-1, 4)
        self.places = np.array([item.place for item in items]).reshape(-1, 4)
        self.rooms = np.array([item.room for item in items]).reshape(-1, 2)
        self.costs = np.array([item.cost for item in items], float)

    def tokens(self, part: np.ndarray) -> float:
        return math.fsum(self.costs[part].tolist())


# --- cutting ------------------------------------------------------------------------------------------------------


def _fits(sheet: _Sheet, part: np.ndarray, region: Rect, budget: Budget) -> bool:
    x0, y0, x1, y1 = region
    width, height = _grown(x1 - x0, y1 - y0, budget)
    widest, highest = sheet.rooms[part].min(axis=0).tolist()
    return (
        sheet.tokens(part) <= budget.tokens
        and (budget.height is None or y1 - y0 <= budget.height)
        and max(width, height) <= budget.longest * min(width, height) + 1
        and width <= widest
        and height <= highest
    )


def _grown(width: float, height: float, budget: Budget) -> tuple[float, float]:
    """The size of a crop with paper added until it is not too long."""
    return max(width, height / budget.longest), max(height, width / budget.longest)


def _split(sheet: _Sheet, region: Rect, budget: Budget) -> list[tuple[np.ndarray, Rect]]:
    """Halve the region until every part fits; a region is what a part's crop must not leave."""
    done, todo = [], [(np.arange(len(sheet.items)), region)] if sheet.items else []
    while todo:
        part, region = todo.pop()
        region = _around(sheet, part, region)
        if len(part) < 2 or _fits(sheet, part, region, budget):
            done.append((part, region))
            continue
        low, high, axis, start, end = _best_cut(sheet, part, region, budget)
        x0, y0, x1, y1 = region
        first, second = (
            ((x0, y0, start, y1), (end, y0, x1, y1)) if axis == 0 else ((x0, y0, x1, start), (x0, end, x1, y1))
        )
        todo += [(np.sort(low), first), (np.sort(high), second)]
    return done


def _merged(sheet: _Sheet, parts: list, budget: Budget) -> list[tuple[np.ndarray, Rect]]:
    """Join parts again that follow each other, fit together, and have no line of another part between them."""
    merged: list[tuple[np.ndarray, Rect]] = []
    for part, region in parts:
        if merged:
            joined = np.concatenate([merged[-1][0], part])
            around = _around(sheet, joined, union(merged[-1][1], region))
            if _reaching(sheet.boxes, around).sum() == len(joined) and _fits(sheet, joined, around, budget):
                merged[-1] = joined, around
                continue
        merged.append((part, region))
    return merged


def _reaching(boxes: np.ndarray, box: Rect) -> np.ndarray:
    """Which boxes reach into a box."""
    x0, y0, x1, y1 = box
    return (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)


def _around(sheet: _Sheet, part: np.ndarray, region: Rect) -> Rect:
    """The box around a part with a margin, within the region; cut ends of lines may stick out of a region."""
    boxes = sheet.boxes[part]
    x0, y0, *_ = boxes.min(axis=0).tolist()
    *_, x1, y1 = boxes.max(axis=0).tolist()
    return (
        min(max(x0 - MARGIN, region[0]), x0), min(max(y0 - MARGIN, region[1]), y0),
        max(min(x1 + MARGIN, region[2]), x1), max(min(y1 + MARGIN, region[3]), y1),
    )  # fmt: skip


def _tokens(items: list[Item]) -> float:
    """The exact sum, rounded once: the built-in one adds floats in another way since Python 3.12."""
    return math.fsum(item.cost for item in items)


def _best_cut(sheet: _Sheet, part: np.ndarray, region: Rect, budget: Budget):
    """Return (items before, items after, axis, end of the first region, start of the second).

    Among the gaps that no line crosses, the one that leaves the fewest lines illegible in their part and divides the
    tokens (or, when only the height is too much, the height) most evenly, wide gaps preferred: the gap between two
    columns over one between two lines.
    """
    tall = budget.height is not None and region[3] - region[1] > budget.height
    tall = tall and sheet.tokens(part) <= budget.tokens
    cuts = [_best_gap(sheet, part, axis, tall, budget) for axis in ((1,) if tall else (0, 1))]
    found = min((cut for cut in cuts if cut), key=lambda cut: cut[0], default=None)
    return found[1:] if found else _forced_cut(sheet, part, region)


def _best_gap(sheet: _Sheet, part: np.ndarray, axis: int, by_height: bool, budget: Budget):
    """Return (badness, items before, items after, axis, and twice the middle) of the best clean cut across an axis."""
    ordered = part[np.argsort(sheet.places[part, axis], kind="stable")]
    starts = sheet.places[ordered, axis]
    reach = np.maximum.accumulate(sheet.places[ordered, axis + 2])
    cuts = np.flatnonzero(starts[1:] >= reach[:-1]) + 1
    if not len(cuts):
        return None
    boxes = sheet.boxes[ordered]
    heights = boxes[:, 3] - boxes[:, 1]
    weights = heights if by_height else sheet.costs[ordered]
    imbalance = np.abs(2 * np.cumsum(weights)[cuts - 1] / math.fsum(weights.tolist()) - 1)
    start, end = reach[cuts - 1], starts[cuts]
    width = np.minimum((end - start) / max(float(np.sort(heights)[len(heights) // 2]), 1.0), 2.0)
    badness = imbalance - 0.15 * width + 2 * _illegible_shares(boxes, sheet.rooms[ordered], cuts, budget)
    best = int(np.argmin(badness))
    middle = float((start[best] + end[best]) / 2)
    return float(badness[best]), ordered[: cuts[best]], ordered[cuts[best] :], axis, middle, middle


def _illegible_shares(boxes: np.ndarray, room: np.ndarray, cuts: np.ndarray, budget: Budget) -> np.ndarray:
    """Return, for every cut before item `cuts[i]`, the share of items that cannot be read in the part they are in."""
    first = np.concatenate([np.minimum.accumulate(boxes[:, :2]), np.maximum.accumulate(boxes[:, 2:])], axis=1)
    back = boxes[::-1]
    second = np.concatenate([np.minimum.accumulate(back[:, :2]), np.maximum.accumulate(back[:, 2:])], axis=1)[::-1]
    before = np.arange(len(boxes))[None, :] < cuts[:, None]
    shares = np.zeros(len(cuts))
    for part, rows in ((first[cuts - 1], before), (second[cuts], ~before)):
        size = part[:, 2:] - part[:, :2] + 2 * MARGIN
        size = np.maximum(size, size[:, ::-1] / budget.longest)
        blurred = (size[:, None, :] > room[None, :, :]).any(axis=2)
        shares += (blurred & rows).sum(axis=1) / len(boxes)
    return shares


def _forced_cut(sheet: _Sheet, part: np.ndarray, region: Rect):
    """Divide at the middle of the tokens along the longer side, through whatever is there."""
    axis = 0 if region[2] - region[0] > region[3] - region[1] else 1
    boxes = sheet.boxes[part]
    ordered = part[np.argsort(boxes[:, axis] + boxes[:, axis + 2], kind="stable")]
    before = np.cumsum(sheet.costs[ordered])
    at = min(int(np.searchsorted(before, before[-1] / 2)) + 1, len(ordered) - 1)
    low, high = ordered[:at], ordered[at:]
    return low, high, axis, float(sheet.boxes[low, axis + 2].max()), float(sheet.boxes[high, axis].min())


# --- the crop -----------------------------------------------------------------------------------------------------


def _window(
    sheet: _Sheet, part: np.ndarray, region: Rect, obstacles: np.ndarray, lines: list[Line], page: tuple[int, int],
    budget: Budget,
) -> Window:  # fmt: skip
    # A fraction of a pixel belongs to the window whose line it touches, so crops round outwards.
    x0, x1 = _lengthened(int(region[0]), -int(-region[2] // 1), region[3] - region[1], page[0], budget)
    y0, y1 = _lengthened(int(region[1]), -int(-region[3] // 1), region[2] - region[0], page[1], budget)
    reaching = _reaching(obstacles, (x0, y0, x1, y1))
    reaching[part] = False
    others = [tuple(box) for box in (obstacles[reaching] - (x0, y0, x0, y0)).tolist()]
    whole = rejoined([sheet.items[i] for i in part.tolist()], lines, x1 - x0, y1 - y0, budget)
    shifted = [item.line.at(shift_quad(item.line.quad, -x0, -y0)) for item in whole]
    return Window((x0, y0, x1, y1), shifted, _tokens(whole), others)


def _lengthened(start: int, end: int, other: float, most: int, budget: Budget) -> tuple[int, int]:
    """Grow an interval on both sides, within the page, until the crop is not too long for its `other` side."""
    missing = int(np.ceil(other / budget.longest)) - (end - start)
    if missing <= 0:
        return start, end
    start = max(min(start - missing // 2, most - (end - start) - missing), 0)
    return start, min(start + max(int(np.ceil(other / budget.longest)), end - start), most)
