"""What the page asks of a folder's rows, as SQL over `Ledgers`: the funnel at moved thresholds, rows, a plane.

The engine of judgement is that of `pipelines.work.judged`, in the rules' order: the first rule that fails drops a row;
a score that is missing does not fail; errors, and what a rule without a threshold dropped, stay what they are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from corpus.ledger import Counts
from corpus.verdicts import DROPPED, ERROR, KEPT
from pipelines.engine.report import funnel, histogram
from pipelines.explorer.database import quoted
from pipelines.explorer.ledgers import Ledgers

COMPARED = {"min": "<", "max": ">", "above": "<="}  # as corpus.rules.BOUNDS: what lies so of a threshold falls
PAGE = 24
CELLS = 48  # of a plane's side
OUTCOMES = (KEPT, DROPPED, ERROR)


@dataclass(frozen=True)
class Filter:
    """Which rows: of an outcome, a rule, with scores in ranges [low, high], changed by a cleaner, at given places."""

    outcome: str | None = None
    rule: str | None = None
    changed: bool = False
    ranges: Sequence[tuple[str, float, float]] = ()
    places: str | None = None  # a table of (split, line)


@dataclass
class Where:
    """A condition in SQL, and the values bound in it."""

    text: list[str] = field(default_factory=lambda: ["true"])
    values: list = field(default_factory=list)

    def __str__(self) -> str:
        return " AND ".join(self.text)


def fails(ledgers: Ledgers, active: Mapping[str, Mapping]) -> tuple[str, list[float]]:
    """Return an expression for the number of the first of `active` rules that drops a row, or NULL; and its values."""
    cases, values = [], []
    for number, (rule, parameters) in enumerate(active.items()):
        for parameter, limit in ledgers.opened.table[rule].limits.items():
            cases.append(f"WHEN {quoted(str(limit.score))} {COMPARED[limit.bound]} ?::DOUBLE THEN {number}")
            values.append(float(parameters[parameter]))
    return (f"CASE {' '.join(cases)} END" if cases else "NULL::INTEGER"), values


def count(ledgers: Ledgers, changes: Iterable[str], exact: bool) -> dict:
    """Return the funnel with thresholds moved, over the whole or the sample: `kept`, `back` (rows that may be kept
    again: no threshold drops them now, one did), `fell` (kept before, dropped now), and what was counted.
    """
    active = ledgers.opened.active(changes)
    expression, values = fails(ledgers, active)
    (table, about), rules = ledgers.seen(exact), list(active)
    kept, back, fell = 0, 0, 0
    dropped: Counter = Counter()
    errors: Counter = Counter()
    query = f"SELECT was, {expression} AS now, count(*) FROM {quoted(table)} GROUP BY ALL"
    for code, now, rows in ledgers.database.rows(query, values):
        was = ledgers.was[code]
        if was.outcome == ERROR:
            errors[was.rule] += rows
        elif now is not None:
            dropped[rules[now]] += rows
            fell += rows if was.outcome == KEPT else 0
        elif was.outcome == KEPT:
            kept += rows
        elif was.by_threshold:
            back += rows
        else:
            dropped[was.rule] += rows
    total = kept + back + sum(dropped.values()) + sum(errors.values())
    counts = Counts(total, kept, dict(dropped), dict(errors))
    told = {"rows": total, "kept": kept, "back": back, "fell": fell, "errors": dict(sorted(errors.items()))}
    return told | {"funnel": funnel(counts, dict(ledgers.opened.settings)), **about}


def edge(ledgers: Ledgers, changes: Iterable[str], rule: str, parameter: str, exact: bool) -> dict:
    """Return the places nearest to a threshold on both sides: `falls`, dropped by this rule now, and `stays`, dropped
    by none. On each side those that would come or go come first, marked.
    """
    active, limit = ledgers.opened.active(changes), ledgers.opened.table[rule].limits[parameter]
    expression, values = fails(ledgers, active)
    kept = ", ".join(map(str, ledgers.codes(KEPT, None)))
    judged = ", ".join(str(i) for i, was in enumerate(ledgers.was) if was.outcome == KEPT or was.by_threshold)
    score, number = quoted(str(limit.score)), list(active).index(rule)
    table, sides = ledgers.seen(exact)
    for side, condition in (("falls", f"now = {number}"), ("stays", "now IS NULL")):
        moves = f"(was IN ({kept}))" if side == "falls" else f"(was NOT IN ({kept}))"
        query = (
            f"SELECT split, line, {moves} AS moves, score FROM "
            f"(SELECT split, line, was, {score} AS score, {expression} AS now FROM {quoted(table)}) "
            f"WHERE {condition} AND was IN ({judged}) AND score IS NOT NULL "
            f"ORDER BY moves DESC, abs(score - ?::DOUBLE), split, line LIMIT {PAGE // 2}"
        )
        found = ledgers.database.rows(query, [*values, float(active[rule][parameter])])
        sides[side] = [{"split": split, "at": at, "moves": moves} for split, at, moves, _ in found]
    return sides


def where(ledgers: Ledgers, wanted: Filter) -> Where:
    """Return a filter's condition. KeyError for a score that the ledgers do not have."""
    made = Where()
    if wanted.outcome or wanted.rule:
        codes = ", ".join(map(str, ledgers.codes(wanted.outcome, wanted.rule))) or "NULL"
        made.text.append(f"was IN ({codes})")
    if wanted.changed:
        made.text.append("changed")
    for score, low, high in wanted.ranges:
        made.text.append(f"{_column(ledgers, score)} BETWEEN ?::DOUBLE AND ?::DOUBLE")
        made.values += [low, high]
    if wanted.places is not None:
        made.text.append(f"(split, line) IN (SELECT (split, line) FROM {quoted(wanted.places)})")
    return made


def rows(ledgers: Ledgers, wanted: Filter, order: str, page: int, exact: bool) -> dict:
    """Return a page of the places of rows that a filter wants, and how many there are.

    `order`: "row", "random", or a score, "-" before it for the highest first.
    """
    condition, (name, about) = where(ledgers, wanted), ledgers.seen(exact)
    table = quoted(name)
    total = ledgers.database.rows(f"SELECT count(*) FROM {table} WHERE {condition}", condition.values)[0][0]
    if order == "random":
        by = "hash(split * 1000003 + line)"
    elif order != "row":
        by = f"{_column(ledgers, order.removeprefix('-'))} {'DESC' if order[0] == '-' else 'ASC'} NULLS LAST"
    by = f"{by}, split, line" if order != "row" else "split, line"
    query = f"SELECT split, line FROM {table} WHERE {condition} ORDER BY {by} LIMIT {PAGE} OFFSET {page * PAGE}"
    found = [{"split": split, "at": at} for split, at in ledgers.database.rows(query, condition.values)]
    return {"total": total, "places": found, "page": page, "pages": -(-total // PAGE), **about}


def plane(ledgers: Ledgers, wanted: Filter, x: dict, y: dict, exact: bool) -> dict:
    """Return the rows by two scores: `cells`, [column, row, count] of CELLS x CELLS, from `low` to `high` of each axis
    (`x` and `y`: name, low, high); `outside` are the rows beyond.
    """
    condition, (table, about) = where(ledgers, wanted), ledgers.seen(exact)
    cell, values = [], []
    for axis in (x, y):
        score, low, high = _column(ledgers, axis["name"]), float(axis["low"]), float(axis["high"])
        cell.append(f"least({CELLS - 1}, floor(({score} - ?::DOUBLE) * {CELLS} / ?::DOUBLE))::INTEGER")
        values += [low, (high - low) or 1.0]
        condition.text.append(f"{score} IS NOT NULL")
    inside = f"x BETWEEN 0 AND {CELLS - 1} AND y BETWEEN 0 AND {CELLS - 1}"
    query = (
        f"SELECT CASE WHEN {inside} THEN x END AS a, CASE WHEN {inside} THEN y END AS b, count(*) FROM (SELECT "
        f"CASE WHEN {quoted(x['name'])} <= ?::DOUBLE THEN {cell[0]} END AS x, "
        f"CASE WHEN {quoted(y['name'])} <= ?::DOUBLE THEN {cell[1]} END AS y "
        f"FROM {quoted(table)} WHERE {condition}) GROUP BY ALL"
    )
    bound = [float(x["high"]), *values[:2], float(y["high"]), *values[2:], *condition.values]
    found = ledgers.database.rows(query, bound)
    cells = [[a, b, number] for a, b, number in found if a is not None]
    outside = sum(number for a, _, number in found if a is None)
    return {"cells": sorted(cells), "outside": outside, "side": CELLS, **about}


def histograms(ledgers: Ledgers) -> dict[str, dict]:
    """Return a histogram of every score of the sample, by name: counts, low, high, rows."""
    thresholds: dict[str, list[float]] = {}
    for slider in ledgers.opened.sliders():
        thresholds.setdefault(slider["score"], []).append(float(slider["value"]))
    found = {}
    for name in ledgers.opened.scores:
        query = f"SELECT {quoted(name)} FROM {quoted(ledgers.sample)} WHERE {quoted(name)} IS NOT NULL"
        values = pa.chunked_array([pa.array(ledgers.database.column(query))])
        if drawn := histogram(name, values, thresholds.get(name, [])):
            found[name] = drawn | {"whole": bool(pc.all(pc.equal(values, pc.floor(values))).as_py())}
    return found


def _column(ledgers: Ledgers, score: str) -> str:
    if score not in ledgers.opened.scores:
        raise KeyError(score)
    return quoted(score)
