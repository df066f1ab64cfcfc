"""GRIT's recursive boxes (Qwen-VL A.3), and captions that keep their spans through text cleaning.

A caption's candidates are the noun chunks and the referring expressions together: "bees" [0, 4) with its two boxes lies
inside "bees gathering nectars from an apricot flower" with the same two. Text cannot be tagged twice, so a set of spans
is chosen that neither contain nor overlap each other and carry the most boxes.
"""

import bisect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from corpus.geometry import Box


class Span(NamedTuple):
    """A phrase of a caption: characters [start, end), its boxes without repetitions, the sum of their scores."""

    start: int
    end: int
    boxes: tuple[Box, ...]
    score: float = 0.0


def group(phrases: Iterable[tuple[int, int, Box, float]]) -> list[Span]:
    """Group (start, end, box, score) by span, in order of position; the same box twice counts once."""
    spans: dict[tuple[int, int], dict[Box, float]] = {}
    for start, end, box, score in phrases:
        boxes = spans.setdefault((start, end), {})
        if score > boxes.get(box, float("-inf")):
            boxes[box] = score
    return [Span(*key, tuple(boxes), math.fsum(boxes.values())) for key, boxes in sorted(spans.items())]


def greedy(spans: Sequence[Span]) -> list[Span]:
    """Choose spans: drop the one with the most conflicts until none is left, then take back what fits after all.

    Among equals the one with the fewest boxes goes, then the one with the fewest characters, so that "a man in a red
    shirt" wins over "a man" where the shirt has no box of its own. `spans` are sorted, as from `group`; so is the
    result.
    """
    rivals = _conflicts(spans)
    if not rivals:
        return list(spans)
    dropped = []
    live = {i: set(others) for i, others in rivals.items()}
    while live:
        worst = min(live, key=lambda i: (-len(live[i]), _merit(spans[i]), -i))
        dropped.append(worst)
        for other in live.pop(worst):
            live[other].discard(worst)
            if not live[other]:
                del live[other]
    kept = set(range(len(spans))).difference(dropped)
    for i in sorted(dropped, key=lambda i: _merit(spans[i]), reverse=True):
        if kept.isdisjoint(rivals[i]):
            kept.add(i)
    return [spans[i] for i in sorted(kept)]


def _conflicts(spans: Sequence[Span]) -> dict[int, set[int]]:
    """Return, for every span that overlaps another, the indices of those it overlaps."""
    rivals: dict[int, set[int]] = {}
    for i, span in enumerate(spans):
        for j in range(i + 1, len(spans)):
            if spans[j].start >= span.end:
                break
            rivals.setdefault(i, set()).add(j)
            rivals.setdefault(j, set()).add(i)
    return rivals


def _merit(span: Span) -> tuple[int, int, float]:
    return len(span.boxes), span.end - span.start, span.score


def exact(spans: Sequence[Span]) -> list[Span]:
    """Choose the spans with the most boxes in all (then characters, then score): weighted interval scheduling.

    O(n log n) dynamic programming over ends; `spans` as for `greedy`.
    """
    order = sorted(spans, key=lambda span: (span.end, span.start))
    ends = [span.end for span in order]
    best: list[tuple[int, int, float]] = [(0, 0, 0.0)]  # of the first i spans
    before = [bisect.bisect_right(ends, span.start) for span in order]
    for i, span in enumerate(order):
        with_it = tuple(a + b for a, b in zip(best[before[i]], _merit(span), strict=True))
        best.append(max(best[i], with_it))
    chosen, i = [], len(order)
    while i > 0:
        if best[i] == best[i - 1]:
            i -= 1
        else:
            chosen.append(order[i - 1])
            i = before[i - 1]
    return chosen[::-1]


METHODS: dict[str, Callable[[Sequence[Span]], list[Span]]] = {"greedy": greedy, "exact": exact}


def boxes_in(spans: Iterable[Span]) -> int:
    """Count the boxes of spans."""
    return sum(len(span.boxes) for span in spans)


def pieces_of(caption: str, spans: Sequence[Span]) -> list[str]:
    """Cut a caption at its spans: text, phrase, text, phrase, ..., text. Spans must be sorted and apart."""
    pieces, at = [], 0
    for span in spans:
        pieces += [caption[at : span.start], caption[span.start : span.end]]
        at = span.end
    return [*pieces, caption[at:]]


def join_pieces(pieces: Sequence[str]) -> tuple[str, list[tuple[int, int] | None]]:
    """Put cleaned pieces back together: (caption, the phrases' new spans; None for a phrase of which nothing is left).

    White space at the borders of the pieces is settled here: one space at most, none at the ends.
    """
    text, spans = "", []
    for i, piece in enumerate(pieces):
        body = piece.strip()
        if piece[:1].isspace() and text and not text[-1].isspace():
            text += " "
        is_phrase = i % 2 == 1
        if is_phrase:
            spans.append((len(text), len(text) + len(body)) if body else None)
        text += body
        if piece[-1:].isspace() and text and not text[-1].isspace():
            text += " "
    return text.rstrip(), spans
