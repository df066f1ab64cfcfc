"""The ledgers of one output folder as a table in memory: where each row stands, what became of it, all its scores.

A sample is there at once: row groups from splits spread over the folder. The whole is read meanwhile, split by split.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.damage import Damaged
from corpus.verdicts import DROPPED, ERROR, KEPT
from pipelines.explorer.database import Database, TooLarge
from pipelines.explorer.folders import Opened
from pipelines.work.judged import by_threshold

SAMPLE_ROWS = 100_000
_SAMPLED_SPLITS = 24
_MARK = "\x1f"  # between outcome and rule
_READ = ["outcome", "rule", "value", "threshold", "text_after"]


@dataclass(frozen=True)
class Was:
    """What the ledger says of a row, and whether a rule with a threshold said it."""

    outcome: str
    rule: str | None
    by_threshold: bool


class Ledgers:
    """The rows of a folder in `database`: the table `sample`, and the table `whole` once `ready`."""

    def __init__(self, opened: Opened, database: Database):
        self.opened, self.database = opened, database
        self.sample, self.whole = f"sample {opened.number}", f"whole {opened.number}"
        self.sampled, self.read, self.ready = 0, 0, False
        self.problem: str | None = None
        counts = opened.counts
        kinds = [(KEPT, "")] + [(DROPPED, rule) for rule in counts.dropped] + [(ERROR, kind) for kind in counts.errors]
        self._kinds = pa.array([outcome + _MARK + rule for outcome, rule in kinds])
        self.was = [Was(outcome, rule or None, by) for outcome, rule in kinds for by in (False, True)]
        self._stopped = threading.Event()

    @property
    def rows(self) -> int:
        """How many rows the folder holds."""
        return self.opened.counts.rows

    def start(self) -> None:
        """Take the sample, and begin to read the rest beside. A folder of few rows is read whole at once."""
        if self.rows <= SAMPLE_ROWS:
            self.sample = self.whole
            self._read_all()
            if self.problem:
                raise Damaged(f"{self.opened.folder.url}: {self.problem}")
            self.sampled = self.rows
            return
        for part in self._sampled():
            self.database.add(self.sample, part)
            self.sampled += part.num_rows
        threading.Thread(target=self._read_all, daemon=True).start()

    def stop(self) -> None:
        """Read no further, and give the memory back."""
        self._stopped.set()
        self.ready = False
        self.database.drop(self.whole)
        self.database.drop(self.sample)

    def seen(self, exact: bool) -> tuple[str, dict]:
        """Return the table that an answer counts, the whole if it is asked for and there, and what to say of it."""
        whole = self.ready and (exact or self.sample == self.whole)
        about = {"exact": whole, "of": self.rows, "sampled": self.rows if whole else self.sampled, "read": self.read}
        return self.whole if whole else self.sample, about | {"ready": self.ready, "problem": self.problem}

    def codes(self, outcome: str | None, rule: str | None) -> list[int]:
        """Return the codes in column `was` of an outcome and a rule; None is any."""
        fits = lambda each: outcome in (None, each.outcome) and rule in (None, each.rule)  # noqa: E731
        return [code for code, each in enumerate(self.was) if fits(each)]

    def _read_all(self) -> None:
        try:
            for number in range(len(self.opened.splits)):
                if self._stopped.is_set():
                    return
                self._read_split(number)
            self.ready = not self._stopped.is_set()
        except TooLarge:
            self.database.drop(self.whole)
            self.problem = f"{self.rows:,} rows are more than --memory holds"
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            self.problem = f"{type(error).__name__}: {error}"[:300]

    def _read_split(self, number: int) -> None:
        file = self.opened.footer(number)
        for group in range(file.num_row_groups):
            part = self._narrow(number, file, group)
            self.database.add(self.whole, part)
            self.read += part.num_rows

    def _sampled(self) -> Iterator[pa.Table]:
        random, splits = np.random.default_rng(0), len(self.opened.splits)
        chosen = np.sort(random.choice(splits, min(splits, _SAMPLED_SPLITS), replace=False)).tolist()
        for number in chosen:
            file = self.opened.footer(number)
            groups = random.permutation(file.num_row_groups)[: -(-_SAMPLED_SPLITS // splits)].tolist()
            each = max(1, SAMPLE_ROWS // len(chosen) // len(groups))
            for group in groups:
                yield self._narrow(number, file, group, each)

    def _narrow(self, split: int, file: pq.ParquetFile, group: int, most: int = 1 << 30) -> pa.Table:
        """Return the rows of a row group, or the first of them, as they lie in the table."""
        first = sum(file.metadata.row_group(i).num_rows for i in range(group))
        size = min(most, file.metadata.row_group(group).num_rows)
        columns = [*_READ, *self.opened.scores]
        table = pa.Table.from_batches(
            [next(file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False))]
        )
        return pa.table(
            {
                "split": pa.array(np.full(size, split, np.uint32)),
                "line": pa.array(np.arange(first, first + size, dtype=np.uint32)),
                "was": self._codes(table),
                "changed": table["text_after"].is_valid(),
                **{name: _score(table[name]) for name in self.opened.scores},
            }
        )

    def _codes(self, table: pa.Table) -> pa.Array:
        named = pc.binary_join_element_wise(table["outcome"], pc.fill_null(table["rule"], ""), _MARK)
        kinds = pc.index_in(named, self._kinds)
        if kinds.null_count:
            raise ValueError("a ledger holds other rules than its manifest counts: run pipelines/verify.py")
        judged = by_threshold(table, self.opened.table)
        return pa.array(2 * kinds.to_numpy().astype(np.uint16) + judged.astype(np.uint16))


def _score(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A score as float64; what is no number is null, as it was not judged."""
    column = column.cast(pa.float64())
    return pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
