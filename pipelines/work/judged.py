"""Ledger rows judged anew by moved thresholds, from the scores that they hold: what retune.py and explore.py do."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus.rules import RuleTable, failing
from corpus.verdicts import DROPPED, KEPT


class Judged(NamedTuple):
    """What moved thresholds say of ledger rows, one entry a row."""

    rule: np.ndarray  # the first rule that drops it, "" where none does
    value: np.ndarray
    threshold: np.ndarray
    kept: np.ndarray  # it was kept before
    dropped: np.ndarray  # a rule dropped it before
    passed: np.ndarray  # the rule that dropped it before does not any more

    @property
    def fails(self) -> np.ndarray:
        """A rule drops it."""
        return self.rule != ""


def judge(ledger: pa.Table, table: RuleTable, settings: Mapping[str, Mapping]) -> Judged:
    """Judge ledger rows by their scores."""
    size = ledger.num_rows
    rule, value, limit = np.full(size, "", object), np.full(size, np.nan), np.full(size, np.nan)
    for name, parameters in table.active(settings).items():
        if not table[name].limits:
            continue
        scores = {score: numbers(ledger[score]) for score in table[name].measures}
        drop, values, limits = failing(table[name], parameters, scores)
        new = drop & (rule == "")
        rule[new], value[new], limit[new] = name, values[new], limits[new]
    outcome = {each: pc.equal(ledger["outcome"], each).to_numpy(zero_copy_only=False) for each in (KEPT, DROPPED)}
    # A rule without a threshold (a missing score, no text) has no score to judge by: its verdict stands.
    passed = outcome[DROPPED] & (rule == "") & by_threshold(ledger, table)
    return Judged(rule, value, limit, outcome[KEPT], outcome[DROPPED], passed)


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a score as float64, NaN where a row was not judged."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(float)


def by_threshold(ledger: pa.Table, table: RuleTable) -> np.ndarray:
    """Whether a rule with a threshold dropped a row, one entry a row."""
    with_score = pc.and_(ledger["value"].is_valid(), ledger["threshold"].is_valid())
    known = pa.array([name for name, rule in table.items() if rule.limits], pa.string())
    return pc.and_(with_score, pc.is_in(ledger["rule"], value_set=known)).to_numpy(zero_copy_only=False)
