"""Cut a page into windows: crops that hold whole lines only and few enough of them for a training sample.

A dense page has more text than fits the model's sequence (2,048 tokens, of which the image takes 258). Dropping it
would waste the pages that teach reading best; cutting its label would teach the model to stop early. So the page is
cut where no line is in the way, as a reader would fold it: between columns, paragraphs or lines.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from itertools import accumulate

from renderers.characters import estimate_tokens
from renderers.page import Line, Rect, bounds, shift_quad, union

MARGIN = 8  # pixels of paper left around a window's lines, where its neighbours leave them


@dataclass(frozen=True)
class Budget:
    """What one window may hold.

    `tokens` is compared with `line_tokens` per line plus an estimate of its text. A line's tags and eight coordinates
    are 35 tokens with Qwen's tokenizer, which writes every digit separately. `height` is in pixels; None: no limit.
    """

    tokens: float = 1720  # 2048 - 258 for the image - 10 for the prompt and the end - 60 in reserve
    line_tokens: float = 36
    height: int | None = None


@dataclass(frozen=True)
class Window:
    """`box` is the crop in whole pixels of the page; the quads of `lines` are in pixels of the crop."""

    box: tuple[int, int, int, int]
    lines: list[Line]
    tokens: float


@dataclass(frozen=True)
class _Item:
    """A line with its place in the reading order, its bounds and its estimated tokens."""

    order: int
    line: Line
    box: Rect
    cost: float


def cut(lines: list[Line], width: int, height: int, budget: Budget) -> list[Window]:
    """Return windows that together hold every line once, in the order of their first lines.

    A page that fits is one window, uncropped. A line that alone exceeds the budget makes a window of its own, over
    the budget: the caller drops it by rule. Where every cut would run through a line (overlapping, slanted or turned
    text), the cut goes between line centres, and the crops overlap.
    """
    items = [
        _Item(order, line, bounds(line.quad), budget.line_tokens + estimate_tokens(line.text))
        for order, line in enumerate(lines)
    ]
    page = (0.0, 0.0, float(width), float(height))
    if _fits(items, page, budget):
        return [Window((0, 0, width, height), list(lines), _tokens(items))]
    parts = sorted(_split(items, page, budget), key=lambda part: part[0][0].order)
    return [_window(items, region) for items, region in parts]


def _fits(items: list[_Item], region: Rect, budget: Budget) -> bool:
    return _tokens(items) <= budget.tokens and (budget.height is None or region[3] - region[1] <= budget.height)


def _split(items: list[_Item], region: Rect, budget: Budget) -> list[tuple[list[_Item], Rect]]:
    """Halve the region until every part fits; a region is what a part's crop must not leave."""
    done, todo = [], [(items, region)]
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


def _around(items: list[_Item], region: Rect) -> Rect:
    """The box around the items with a margin, within the region."""
    box = items[0].box
    for item in items[1:]:
        box = union(box, item.box)
    return (
        max(box[0] - MARGIN, region[0]), max(box[1] - MARGIN, region[1]),
        min(box[2] + MARGIN, region[2]), min(box[3] + MARGIN, region[3]),
    )  # fmt: skip


def _tokens(items: list[_Item]) -> float:
    """The exact sum, rounded once: the built-in one adds floats in another way since Python 3.12."""
    return math.fsum(item.cost for item in items)


def _best_cut(items: list[_Item], region: Rect, budget: Budget):
    """Return (items before, items after, axis, end of the first region, start of the second).

    Among the gaps that no line crosses, the one that divides the tokens (or, when only the height is too much, the
    height) most evenly, wide gaps preferred: the gap between two columns over one between two lines.
    """
    tall = _tokens(items) <= budget.tokens
    axes = (1,) if tall else (0, 1)
    cuts = [found for axis in axes for found in _gaps(items, axis, tall)]
    if not cuts:
        return _forced_cut(items, region)
    _, axis, at, start, end = min(cuts, key=lambda found: found[0])
    ordered = sorted(items, key=lambda item: item.box[axis])
    middle = (start + end) / 2
    low, high = sorted(ordered[:at], key=_order), sorted(ordered[at:], key=_order)
    return low, high, axis, middle, middle


def _gaps(items: list[_Item], axis: int, by_height: bool):
    """Yield (badness, axis, number of items before, gap start, gap end) for every clean cut across an axis."""
    ordered = sorted(items, key=lambda item: item.box[axis])
    weights = [item.box[3] - item.box[1] if by_height else item.cost for item in ordered]
    total, before, reach = math.fsum(weights), 0.0, float("-inf")
    typical = sorted(item.box[3] - item.box[1] for item in items)[len(items) // 2]
    for at, (item, weight) in enumerate(zip(ordered, weights, strict=True)):
        if at and item.box[axis] >= reach:
            imbalance = abs(2 * before / total - 1)
            width = min((item.box[axis] - reach) / max(typical, 1.0), 2.0)
            yield imbalance - 0.15 * width, axis, at, reach, item.box[axis]
        before += weight
        reach = max(reach, item.box[axis + 2])


def _forced_cut(items: list[_Item], region: Rect):
    """Divide at the middle of the tokens along the longer side, through whatever is there."""
    axis = 0 if region[2] - region[0] > region[3] - region[1] else 1
    ordered = sorted(items, key=lambda item: item.box[axis] + item.box[axis + 2])
    before = list(accumulate(item.cost for item in ordered))
    at = min(bisect_left(before, before[-1] / 2) + 1, len(ordered) - 1)
    low, high = sorted(ordered[:at], key=_order), sorted(ordered[at:], key=_order)
    end_of_low = max(item.box[axis + 2] for item in low)
    start_of_high = min(item.box[axis] for item in high)
    return low, high, axis, end_of_low, start_of_high


def _order(item: _Item) -> int:
    return item.order


def _window(items: list[_Item], region: Rect) -> Window:
    # A fraction of a pixel belongs to the window whose line it touches, so crops round outwards.
    x0, y0 = int(region[0]), int(region[1])
    x1, y1 = -int(-region[2] // 1), -int(-region[3] // 1)
    lines = [Line(item.line.text, shift_quad(item.line.quad, -x0, -y0)) for item in items]
    return Window((x0, y0, x1, y1), lines, _tokens(items))
