"""What a split holds by its reader's own count, held against what the sink was told: every ordinal, each once."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Unaccounted(AssertionError):
    """A job lost a row, told it twice or made it up: a bug of the job, which commits nothing."""


class Census:
    """Counts one split twice: `expects` and `splits` say what there is, `hear` what the job told of it."""

    def __init__(self, key_of: Callable[[int], str]):
        self._key_of = self._usual_key = key_of
        self._expected: np.ndarray | None = None
        self._more: list[tuple[int, int]] = []  # (ordinal, rows beyond its first)
        self._told: list[np.ndarray] = []
        self._parts: list[pa.Table] = []
        self.records = 0
        self.unread = 0  # records that the ledger row of another speaks for

    def expects(self, ordinals: np.ndarray, key_of: Callable[[int], str] | None, limit: int | None) -> None:
        """Take the ordinals of the records, ascending, of which the job reads the first `limit`; once for a split.

        An ordinal that stands several times is a record of so many rows.
        """
        if self._expected is not None:
            raise Unaccounted("the records of a split were counted twice")
        self._expected, self._key_of = np.asarray(ordinals, np.int64)[:limit], key_of or self._usual_key
        # Not np.unique, which takes two hundred times as long; the ordinals ascend.
        self.records = int(np.count_nonzero(np.diff(self._expected))) + bool(len(self._expected))

    def splits(self, ordinal: int, into: int) -> None:
        """Take it that a record (or a part of it) becomes `into` rows, each under a key of its own."""
        if into < 1:
            raise Unaccounted(f"{self._name(ordinal)} becomes {into} rows: it would vanish")
        if into > 1:
            self._more.append((ordinal, into - 1))

    def strikes(self, ordinal: int, rows: int) -> None:
        """Take it that nobody can read `rows` records from `ordinal` on: the ledger row of the first speaks for all."""
        lost = (self._expected > ordinal) & (self._expected < ordinal + rows)
        self._expected = self._expected[~lost]
        self.unread += int(np.count_nonzero(lost))

    def hear(self, table: pa.Table) -> None:
        """Note which records a table of ledger rows speaks of."""
        self._told.append(table["row"].to_numpy())
        if self._more or (self._expected is not None and self.records < len(self._expected)):
            self._parts.append(table.select(["row", "key"]))

    def check(self) -> int:
        """Return the number of rows that the records become. Raises Unaccounted, naming those that went wrong."""
        if self._expected is None:
            raise Unaccounted("the job never said how many records the split holds (sink.expects)")
        told = np.concatenate([np.zeros(0, np.int64), *self._told])
        expected = self._expected
        if self._more:
            ordinals, times = np.array(self._more, np.int64).T
            expected = np.sort(np.concatenate([expected, np.repeat(ordinals, times)]))
        if not np.array_equal(told, expected) and not np.array_equal(np.sort(told), np.sort(expected)):
            raise Unaccounted(self._difference(told, expected))
        self._refuse_namesakes()
        return len(expected)

    def _difference(self, told: np.ndarray, expected: np.ndarray) -> str:
        ordinals, which = np.unique(np.concatenate([told, expected]), return_inverse=True)
        heard = np.bincount(which[: len(told)], minlength=len(ordinals))
        there = np.bincount(which[len(told) :], minlength=len(ordinals))
        kinds = {
            "lost": ordinals[heard < there],
            "told more than once": ordinals[(heard > there) & (there > 0)],
            "made up": ordinals[(heard > there) & (there == 0)],
        }
        told_of = [f"{self._names(wrong)} {kind}" for kind, wrong in kinds.items() if len(wrong)]
        return f"{len(expected)} rows in, {len(told)} told: {'; '.join(told_of)}"

    def _refuse_namesakes(self) -> None:
        """Refuse two rows of one record under one key: one of its parts was told twice in another's place."""
        if self._parts:
            groups = (
                pa.concat_tables(self._parts).group_by(["row", "key"], use_threads=False).aggregate([([], "count_all")])
            )
            twice = groups.filter(pc.greater(groups["count_all"], 1))["key"].to_pylist()
            if twice:
                raise Unaccounted(f"{', '.join(sorted(twice)[:3])} told more than once, and another part lost")

    def _names(self, ordinals: np.ndarray) -> str:
        more = f" and {len(ordinals) - 3} more" if len(ordinals) > 3 else ""
        return ", ".join(self._name(int(ordinal)) for ordinal in ordinals[:3]) + more

    def _name(self, ordinal: int) -> str:
        try:
            return f"row {ordinal} ({self._key_of(ordinal)})"
        except LookupError:  # an ordinal that is made up
            return f"row {ordinal} ({self._usual_key(ordinal)})"
