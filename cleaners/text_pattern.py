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

from cleaners.text_arrays import map_rows, rows_matching, rows_not_ascii, rows_with_bytes


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """One kind of dirt. In captions where `find` (RE2) matches, every match becomes `replace`; or `change` rewrites
    the captions.

    The rest only saves time. `gate`: a simpler RE2 that matches wherever `find` does (RE2 is slow once counted
    repeats fill its state cache; gates have few). `needs`: ASCII characters of which every match holds at least one.
    `beyond_ascii`: every match holds a character beyond ASCII. `rows`: finds every caption in which `find` matches,
    where no gate could.
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
    languages: frozenset[str] | None = None  # None: all


Groups = tuple[tuple[Pattern, ...], ...]  # in the order in which they run; each group has a gate of its own

def clean_patterns(texts: pa.StringArray, groups: Groups) -> pa.StringArray:
    """Clean the patterns out of every caption, one after the other, once."""
    for group in groups:
        texts = map_rows(texts, suspicious(texts, (group,)), lambda few, group=group: _clean_group(few, group))
    return texts


def suspicious(texts: pa.StringArray, groups: Groups) -> np.ndarray:
    """Return a superset of the rows in which any pattern of `groups` matches; cleaning changes no other row."""
    patterns = tuple(pattern for group in groups for pattern in group)
    found = np.zeros(len(texts), bool)
    if gate := _union(patterns, False):
        found[rows_matching(texts, gate)] = True
    wide = rows_not_ascii(texts)
    if len(wide) and (gate := _union(patterns, True)):
        found[wide[rows_matching(texts.take(pa.array(wide)), gate)]] = True
    for pattern in patterns:
        if pattern.rows:
            found[pattern.rows(texts)] = True
    return np.flatnonzero(found)


@cache
def _union(patterns: tuple[Pattern, ...], beyond_ascii: bool) -> str:
    gates = [p.gate or p.find for p in patterns if p.beyond_ascii == beyond_ascii and not p.rows]
    return "|".join(f"(?:{gate})" for gate in gates)


def _clean_group(texts: pa.StringArray, group: tuple[Pattern, ...]) -> pa.StringArray:
    for pattern in group:
        texts = map_rows(texts, find_rows(texts, pattern), pattern.change or _replace(pattern))
    return texts


def find_rows(texts: pa.StringArray, pattern: Pattern) -> np.ndarray:
    """Return the rows in which `pattern` matches, asking the cheapest question first."""
    if pattern.rows:
        rows = pattern.rows(texts)
    elif pattern.beyond_ascii:
        rows = rows_not_ascii(texts)
    elif pattern.needs:
        rows = rows_with_bytes(texts, pattern.needs)
    else:
        return rows_matching(texts, pattern.find)
    return rows[rows_matching(texts.take(pa.array(rows)), pattern.find)] if len(rows) else rows


def _replace(pattern: Pattern) -> Callable[[pa.StringArray], pa.StringArray]:
    return lambda texts: pc.replace_substring_regex(texts, pattern.find, pattern.replace)
