"""Irregular patterns as data, and how they are found in many captions at once.

One RE2 expression made of all the patterns' gates tells which captions may hold anything irregular; the others come
out as they went in after that single scan. Only the suspicious ones are looked at group by group and pattern by
pattern, and only where a pattern needs it does Python see a caption.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cleaners.text.arrays import map_rows, put_rows, rows_matching, rows_not_ascii, rows_with_bytes

FEW = 2_000  # below it, compiling a gate takes longer than asking every pattern
MAX_ROUNDS = 8  # markup in markup in markup: no honest caption needs more than three


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One kind of dirt. In captions where `find` (RE2) matches, every match becomes `replace`; or `change` rewrites
    the captions.

    The rest only saves time. `gate`: a simpler RE2 that matches wherever `find` does (RE2 is slow once counted
    repeats fill its state cache; gates have few). `needs`: ASCII characters of which every match holds at least one.
    `beyond_ascii`: every match holds a character beyond ASCII. `rows`: finds, among captions beyond ASCII, all that
    `change` would change, where no RE2 can.
    """

    name: str
    find: str
    cleans: tuple[str, str]  # a caption that shows the dirt -> what is left
    keeps: str  # a caption that looks alike and stays
    replace: str = ""
    change: Callable[[pa.StringArray], pa.StringArray] | None = None
    gate: str = ""
    needs: str = ""
    beyond_ascii: bool = False
    rows: Callable[[pa.StringArray], np.ndarray] | None = None
    apart: bool = False  # asked by itself: inside the joint expression it would cost more than all others together
    languages: frozenset[str] | None = None  # None: all


Groups = tuple[tuple[Pattern, ...], ...]  # in the order in which they run; each group has a gate of its own


def clean_texts(texts: pa.StringArray, groups: Groups, among: np.ndarray | None = None) -> pa.StringArray:
    """Clean all patterns out of the captions (of those rows only that the mask `among` names), over and over where
    captions still change: so that cleaning what is clean changes nothing."""
    rows = suspicious(texts, groups)
    rows = rows if among is None else rows[among[rows]]
    return map_rows(texts, rows, lambda few: _until_clean(few, groups))


def _until_clean(texts: pa.StringArray, groups: Groups) -> pa.StringArray:
    cleaned, rows = texts, np.arange(len(texts))
    for _ in range(MAX_ROUNDS):
        before, texts = texts, clean_once(texts, groups)
        changed = np.flatnonzero(pc.not_equal(before, texts).to_numpy(zero_copy_only=False))
        if not len(changed):
            break
        cleaned = put_rows(cleaned, rows[changed], texts.take(pa.array(changed)))
        again = changed if len(changed) < FEW else changed[suspicious(texts.take(pa.array(changed)), groups)]
        rows, texts = rows[again], texts.take(pa.array(again))
    return cleaned


def clean_once(texts: pa.StringArray, groups: Groups) -> pa.StringArray:
    """Clean the patterns of each group, in order, once."""
    for group in groups:
        rows = np.arange(len(texts)) if len(texts) < FEW else suspicious(texts, (group,))
        texts = map_rows(texts, rows, lambda few, group=group: _clean_group(few, group))
    return texts


def suspicious(texts: pa.StringArray, groups: Groups) -> np.ndarray:
    """Return a superset of the rows in which any pattern of `groups` matches; cleaning changes no other row."""
    patterns = tuple(pattern for group in groups for pattern in group)
    found = np.zeros(len(texts), bool)
    if gate := _union(patterns, False):
        found[rows_matching(texts, gate)] = True
    for pattern in patterns:
        if pattern.apart:
            found[find_rows(texts, pattern, wide=np.zeros(0, np.int64))] = True
    if gate := _union(patterns, True):
        wide = rows_not_ascii(texts)
        beyond = texts.take(pa.array(wide))
        found[wide[rows_matching(beyond, gate)]] = True
        for pattern in patterns:
            if pattern.rows:
                found[wide[pattern.rows(beyond)]] = True
    return np.flatnonzero(found)


@cache
def _union(patterns: tuple[Pattern, ...], beyond_ascii: bool) -> str:
    gates = [p.gate or p.find for p in patterns if p.beyond_ascii == beyond_ascii and not p.rows and not p.apart]
    return "|".join(f"(?:{gate})" for gate in gates)


def _clean_group(texts: pa.StringArray, group: tuple[Pattern, ...]) -> pa.StringArray:
    """Find first, change then: what one change uncovers for a later pattern is left to the next round of cleaning."""
    wide = rows_not_ascii(texts) if any(pattern.beyond_ascii for pattern in group) else np.zeros(0, np.int64)
    finds = [find_rows(texts, pattern, wide) for pattern in group]
    dirty = np.zeros(len(texts), bool)
    for rows in finds:
        dirty[rows] = True
    place = np.cumsum(dirty) - 1
    return map_rows(texts, np.flatnonzero(dirty), lambda few: _change(few, group, [place[rows] for rows in finds]))


def _change(texts: pa.StringArray, group: tuple[Pattern, ...], finds: list[np.ndarray]) -> pa.StringArray:
    for pattern, rows in zip(group, finds, strict=True):
        texts = map_rows(texts, rows, rewrite(pattern))
    return texts


def find_rows(texts: pa.StringArray, pattern: Pattern, wide: np.ndarray) -> np.ndarray:
    """Return the rows in which `pattern` matches, asking the cheapest question first. `wide`: the rows not ASCII."""
    if pattern.beyond_ascii:
        rows = wide
    elif pattern.needs:
        rows = rows_with_bytes(texts, pattern.needs)
    else:
        return rows_matching(texts, pattern.find)
    few = texts.take(pa.array(rows)) if len(rows) else texts.slice(0, 0)
    return rows[pattern.rows(few) if pattern.rows else rows_matching(few, pattern.find)] if len(rows) else rows


def rewrite(pattern: Pattern) -> Callable[[pa.StringArray], pa.StringArray]:
    """Return what makes captions in which `pattern` matches those without it."""
    return pattern.change or (lambda texts: pc.replace_substring_regex(texts, pattern.find, pattern.replace))
