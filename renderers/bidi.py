"""Reading order within a line of Arabic, Hebrew and their like: from where glyphs stand to logical text.

Unicode's algorithm goes from logical to visual order; a renderer needs the way back. `tests/test_bidi.py` holds the two
against each other.
"""

import re
import unicodedata

from renderers.page import Rect

_RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]")
_MIRRORED = str.maketrans("()[]{}<>«»", ")(][}{><»«")
_OPENING, _CLOSING = "([{«", ")]}»"
_SPACE_GAP = 0.17  # of the font size, as in `renderers.lines`

Cluster = tuple[str, Rect]


def has_right_to_left(text: str) -> bool:
    """Whether any character belongs to a right-to-left script."""
    return not text.isascii() and bool(_RIGHT_TO_LEFT.search(text))


def logical_order(clusters: list[Cluster], size: float) -> list[Cluster]:
    """Order the glyphs of one line as they are read, with spaces where gaps show; `size` is the font's, in pixels."""
    visual = _spaced(
        sorted((c for c in clusters if c[0].strip()), key=lambda c: (c[1][0] + c[1][2]) / 2), clusters, size
    )
    kinds = [_kind(text) for text, _ in visual]
    if kinds.count("L") > 2 * kinds.count("R"):  # a few right-to-left words in a line that runs to the right
        order = _turned(visual, kinds, "R")
    else:
        order = _turned(visual[::-1], kinds[::-1], "L")
    return _with_brackets(order)


def _spaced(inked: list[Cluster], clusters: list[Cluster], size: float) -> list[Cluster]:
    """Put a space into every gap that is wide enough, or that the file has a space for."""
    blanks = [(box[0] + box[2]) / 2 for text, box in clusters if not text.strip() and box[2] - box[0] > 0.1 * size]
    spaced: list[Cluster] = []
    for text, box in inked:
        if spaced:
            before = spaced[-1][1]
            gap = box[0] - before[2]
            meant = any(before[2] - 0.1 * size <= blank <= box[0] + 0.1 * size for blank in blanks)
            if gap > _SPACE_GAP * size or (meant and gap > -0.15 * size):
                spaced.append((" ", (before[2], before[1], box[0], before[3])))
        spaced.append((text, box))
    return spaced


def _kind(text: str) -> str:
    """L or R for letters, N for digits, S for what joins digits, else a blank."""
    direction = unicodedata.bidirectional(text[0])
    if direction in ("R", "AL"):
        return "R"
    return {"L": "L", "EN": "N", "AN": "N", "CS": "S", "ES": "S", "ET": "S"}.get(direction, " ")


def _turned(order: list[Cluster], kinds: list[str], against: str) -> list[Cluster]:
    """Turn the runs round that are read against the line: words of the other direction, and numbers in both."""
    strong = {"L": "LN", "R": "R"}[against]
    joins = {"L": " S", "R": " SN"}[against]
    done, at = [], 0
    while at < len(order):
        if kinds[at] not in strong:
            done.append(order[at])
            at += 1
            continue
        end = at + 1
        letters = kinds[at] in "LR"
        for i in range(at + 1, len(order)):
            if kinds[i] in strong:
                end = i + 1
                letters |= kinds[i] in "LR"
            elif kinds[i] not in joins or not (kinds[i] == "S" or letters or _letters_ahead(kinds, i, strong, joins)):
                break
        done += order[at:end][::-1]
        at = end
    return done


def _letters_ahead(kinds: list[str], start: int, strong: str, joins: str) -> bool:
    """Whether the run goes on to a letter: only then does a space belong to it; two numbers are two runs."""
    for kind in kinds[start:]:
        if kind in "LR" and kind in strong:
            return True
        if kind not in strong and kind not in joins:
            return False
    return False


def _with_brackets(order: list[Cluster]) -> list[Cluster]:
    """Some files name a bracket by its shape, some by its meaning: one that closes before it opens was a shape."""
    brackets = [text for text, _ in order if text in _OPENING + _CLOSING]
    if not brackets or _unmatched(brackets) <= _unmatched([text.translate(_MIRRORED) for text in brackets]):
        return order
    return [(text.translate(_MIRRORED) if text in _OPENING + _CLOSING else text, box) for text, box in order]


def _unmatched(brackets: list[str]) -> int:
    stack, wrong = [], 0
    for bracket in brackets:
        if bracket in _OPENING:
            stack.append(_OPENING.index(bracket))
        elif stack and stack[-1] == _CLOSING.index(bracket):
            stack.pop()
        else:
            wrong += 1
    return wrong + len(stack)
