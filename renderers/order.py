"""The order in which a page is read: recursive cuts along the white between its parts (XY-cut).

A file says in which order text was placed, not in which it is read: headers come last, columns line by line. Gutters
divide a page into columns, white bands into what is above and below; cells of tables are read row by row. Text that is
turned otherwise than most (stamps, margins) is read after the rest.
"""

from collections import defaultdict

import numpy as np

from corpus.legibility import is_column, widths
from renderers.bidi import has_right_to_left
from renderers.page import Line, bounds

_GUTTER = 0.5  # of the typical line height: narrower white between lines side by side is no gutter
_CROSSING = 0.25  # of a column's number of lines may cross its gutter: titles, wide tables
_BAND = 0.5  # of the line height: white between paragraphs
_PROSE = 16  # half-width characters in a column's lines: fewer are the cells of a table
_DEEPEST = 40  # cuts within cuts
_APART = 1.2  # of the line height: white between the head or foot of a page and its columns
_FEW = 0.1  # of the lines are its head, or its foot


def reading_order(lines: list[Line]) -> list[Line]:
    """Return the lines in reading order."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, line in enumerate(lines):
        groups[_setting(line)].append(i)
    if len(groups["columns"]) > len(groups["right"]):  # a character alone stands in a column of one
        alone = [i for i in groups["right"] if len(lines[i].text) == 1]
        groups["right"] = [i for i in groups["right"] if i not in alone]
        groups["columns"] = sorted(groups["columns"] + alone)
    few, many = sorted(("right", "left"), key=lambda setting: len(groups[setting]))
    groups[many] = sorted(groups[many] + groups.pop(few))  # an address in an Arabic page stands in its place there
    groups = {setting: part for setting, part in groups.items() if part}
    order: list[int] = []
    for setting in sorted(groups, key=lambda name: (-len(groups[name]), name)):
        part = np.array(groups[setting])
        boxes = _upright([bounds(lines[i].quad) for i in part], setting)
        lengths = np.array([sum(widths(lines[i].text)) for i in part])
        height = float(np.median(boxes[:, 3] - boxes[:, 1]))
        order += part[_cut(boxes, lengths, np.arange(len(part)), height, 0)].tolist()
    return [lines[i] for i in order]


def _setting(line: Line) -> str:
    """Which way a line runs: right, left (Arabic), down, up, over (upside down), columns."""
    if is_column(line.text, line.quad):
        return "columns"
    (x0, y0), (x1, y1) = line.quad[0], line.quad[1]
    if abs(x1 - x0) >= abs(y1 - y0):
        return "over" if x1 < x0 else "left" if has_right_to_left(line.text) else "right"
    return "down" if y1 > y0 else "up"


def _upright(boxes: list, setting: str) -> np.ndarray:
    """Turn boxes so that lines run to the right and follow each other downwards."""
    x0, y0, x1, y1 = np.array(boxes).T
    turned = {
        "right": (x0, y0, x1, y1), "left": (-x1, y0, -x0, y1), "over": (-x1, -y1, -x0, -y0),
        "down": (y0, -x1, y1, -x0), "up": (-y1, x0, -y0, x1), "columns": (y0, -x1, y1, -x0),
    }  # fmt: skip
    return np.stack(turned[setting], axis=1)


def _cut(boxes: np.ndarray, lengths: np.ndarray, part: np.ndarray, height: float, depth: int) -> list[int]:
    """Order the lines of a part: head and foot apart, columns where a gutter is, else by bands, else row by row."""
    if len(part) < 2:
        return part.tolist()
    pieces = None
    if depth < _DEEPEST:
        pieces = _ends(boxes, lengths, part, height) if depth == 0 else None
        pieces = pieces or _columns(boxes, lengths, part, height) or _bands(boxes, part, height)
    if pieces is None:
        return _rows(boxes, part)
    return [i for piece in pieces for i in _cut(boxes, lengths, piece, height, depth + 1)]


def _columns(boxes: np.ndarray, lengths: np.ndarray, part: np.ndarray, height: float) -> list[np.ndarray] | None:
    """Divide at a gutter: left column, right column, between each two lines that cross it."""
    x0, x1, middle = boxes[part, 0], boxes[part, 2], (boxes[part, 1] + boxes[part, 3]) / 2
    for at in _gutters(x0, x1, height):
        crossing, left, right = (x0 < at) & (x1 > at), x1 <= at, x0 >= at
        if not _are_columns(boxes[part], lengths[part], left, right, height):
            continue
        beside = np.abs(middle[:, None] - middle[crossing][None, :]).min(axis=1, initial=np.inf) < 0.3 * height
        across = _row_list(boxes, part[crossing | beside])
        pieces, edges = [], [min((boxes[i, 1] + boxes[i, 3]) / 2 for i in row) for row in across]
        stripe = np.searchsorted(edges, middle)
        for number in range(len(edges) + 1):
            here = (stripe == number) & ~beside
            pieces += [part[side] for side in (here & left, here & right) if side.any()]
            pieces += [np.array(across[number])] if number < len(edges) else []
        return pieces if len(pieces) > 1 else None
    return None


def _ends(boxes: np.ndarray, lengths: np.ndarray, part: np.ndarray, height: float) -> list[np.ndarray] | None:
    """Divide the head and the foot of a page from what is between: few lines, far away, no columns of running text."""
    ordered = part[np.argsort(boxes[part, 1], kind="stable")]
    gaps = boxes[ordered[1:], 1] - np.maximum.accumulate(boxes[ordered, 3])[:-1]
    few = int(_FEW * len(part))
    if not few:
        return None
    start, end = int(np.argmax(gaps[:few])) + 1, len(part) - int(np.argmax(gaps[::-1][:few])) - 1
    if gaps[start - 1] <= _APART * height or _running_text_beside(
        boxes[ordered[:start]], lengths[ordered[:start]], height
    ):
        start = 0
    if gaps[end - 1] <= _APART * height or _running_text_beside(boxes[ordered[end:]], lengths[ordered[end:]], height):
        end = len(part)
    pieces = [ordered[:start], ordered[start:end], ordered[end:]]
    return [piece for piece in pieces if len(piece)] if end - start < len(part) else None


def _running_text_beside(boxes: np.ndarray, lengths: np.ndarray, height: float) -> bool:
    for at in _gutters(boxes[:, 0], boxes[:, 2], height):
        left, right = boxes[:, 2] <= at, boxes[:, 0] >= at
        if min(left.sum(), right.sum()) > 1 and min(_typical(lengths[left]), _typical(lengths[right])) >= _PROSE:
            return True
    return False


def _gutters(x0: np.ndarray, x1: np.ndarray, height: float):
    """Yield the middles of white strips that few lines cross, those that fewest cross and the widest first."""
    step = max(height / 4, 1e-3)
    low = x0.min()
    bins = int((x1.max() - low) / step) + 2
    if bins > 100_000:
        return
    change = np.zeros(bins + 1)
    np.add.at(change, ((x0 - low) / step).astype(int), 1)
    np.add.at(change, ((x1 - low) / step).astype(int) + 1, -1)
    covered = np.cumsum(change)[:bins]
    clear = covered <= _CROSSING * covered.max()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], clear, [False]]).astype(int)))
    strips = [
        (covered[a:b].min(), -(b - a), low + (a + int(np.argmin(covered[a:b])) + 0.5) * step)
        for a, b in edges.reshape(-1, 2)
        if a > 0 and b < bins - 1 and (b - a + 1) * step >= _GUTTER * height
    ]
    for _, _, at in sorted(strips):
        yield at


def _are_columns(boxes, lengths, left: np.ndarray, right: np.ndarray, height: float) -> bool:
    """Whether both sides hold running text beside each other, rather than the cells of rows or a stray number."""
    if left.sum() < 2 or right.sum() < 2:
        return False
    a, b = boxes[left], boxes[right]
    if min(a[:, 3].max(), b[:, 3].max()) - max(a[:, 1].min(), b[:, 1].min()) < height:
        return False
    if min(_typical(lengths[left]), _typical(lengths[right])) >= _PROSE:
        return True
    few, many = (a, b) if len(a) < len(b) else (b, a)
    apart = np.abs((few[:, None, 1] + few[:, None, 3]) - (many[None, :, 1] + many[None, :, 3])).min(axis=1) / 2
    return bool((apart < 0.3 * height).mean() < 0.5)


def _typical(lengths: np.ndarray) -> float:
    """The length of the lines that half of the characters stand in."""
    ordered = np.sort(lengths)
    return float(ordered[np.searchsorted(np.cumsum(ordered), ordered.sum() / 2)])


def _bands(boxes: np.ndarray, part: np.ndarray, height: float) -> list[np.ndarray] | None:
    """Divide at the widest white band that no line crosses."""
    ordered = part[np.argsort(boxes[part, 1], kind="stable")]
    reach = np.maximum.accumulate(boxes[ordered, 3])
    gaps = boxes[ordered[1:], 1] - reach[:-1]
    at = int(np.argmax(gaps))
    return [ordered[: at + 1], ordered[at + 1 :]] if gaps[at] > _BAND * height else None


def _rows(boxes: np.ndarray, part: np.ndarray) -> list[int]:
    """Order lines from top to bottom, and from left to right where they stand side by side."""
    return [i for row in _row_list(boxes, part) for i in row]


def _row_list(boxes: np.ndarray, part: np.ndarray) -> list[list[int]]:
    rows: list[list[int]] = []
    for i in part[np.argsort(boxes[part, 1], kind="stable")].tolist():
        last = boxes[rows[-1][0]] if rows else None
        if last is not None and (boxes[i, 1] + boxes[i, 3]) / 2 < last[3]:
            rows[-1].append(i)
        else:
            rows.append([i])
    return [sorted(row, key=lambda i: boxes[i, 0]) for row in rows]
