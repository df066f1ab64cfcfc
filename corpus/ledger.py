"""The ledger: one row for every input row of a split, kept or not, as a parquet file.

Conservation law: rows in = kept + sum(dropped by rule) + sum(errors by kind), where `rows in` is the reader's own count
(corpus/census.py). The k-th kept row of a ledger is the k-th sample of the split's shard.
"""

import re
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.census import Census
from corpus.verdicts import DROPPED, ERROR, KEPT

ROWS_PER_GROUP = 65_536
_UNIQUE = ("key", "row", "source_key", "text_before", "text_after", "thumbnail")

BASE = pa.schema(
    [
        ("key", pa.string()),
        ("row", pa.int64()),  # ordinal in the input split
        ("source_key", pa.string()),  # what the input calls the row: its key in an earlier step, its name in a tar
        ("outcome", pa.string()),
        ("rule", pa.string()),  # the rule that dropped the row, or the kind of error
        ("value", pa.float64()),  # what that rule measured
        ("threshold", pa.float64()),
        ("detail", pa.string()),
        ("text_before", pa.string()),  # both null where no cleaner changed the text
        ("text_after", pa.string()),
        ("thumbnail", pa.binary()),  # small JPEG of a few rows per rule, for the report
    ]
)


def schema(scores: Mapping[str, pa.DataType]) -> pa.Schema:
    """Return the ledger schema of a job that measures `scores` (name -> Arrow type)."""
    return pa.schema(list(BASE) + [pa.field(name, kind) for name, kind in scores.items()])


@dataclass
class Counts:
    """What became of the rows of a split, or of many: `a + b` adds them up."""

    rows: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    unjudged: dict[str, int] = field(default_factory=dict)  # by rule: rows that reached it without a score to judge
    unread: int = 0  # records in damaged parts of files, beyond the error row that stands for each such part

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.rows + other.rows, self.kept + other.kept,
            _added(self.dropped, other.dropped), _added(self.errors, other.errors),
            _added(self.unjudged, other.unjudged), self.unread + other.unread,
        )  # fmt: skip

    def check(self, where: str) -> None:
        """Raise AssertionError when a row was lost or counted twice."""
        accounted = self.kept + sum(self.dropped.values()) + sum(self.errors.values())
        if self.rows != accounted:
            raise AssertionError(f"{where}: {self.rows} rows in, but {accounted} accounted for: {asdict(self)}")


def _added(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(a) + Counter(b)).items()))


def unjudged(table: pa.Table, judged: Mapping[str, str]) -> dict[str, int]:
    """Count, by rule, the ledger rows that reached it and had no score: `judged` is rule -> score, in running order.

    A row that another rule than these dropped may not have got that far, and does not count.
    """
    if not judged:
        return {}
    # A kept row has no rule, and got past all of them; a rule that is none of these ended it before the first.
    ended_by = table["rule"]
    place = pc.fill_null(pc.index_in(ended_by, pa.array(list(judged), pa.string())), -1).to_numpy()
    place = np.where(ended_by.is_null().to_numpy(), len(judged), place)
    found = {}
    for i, (rule, score) in enumerate(judged.items()):
        if table[score].null_count and (number := int((table[score].is_null().to_numpy() & (place > i)).sum())):
            found[rule] = number
    return found


def count(table: pa.Table) -> Counts:
    """Count the outcomes of ledger rows."""
    groups = table.group_by(["outcome", "rule"], use_threads=False).aggregate([([], "count_all")]).to_pylist()
    by = {outcome: Counter() for outcome in (KEPT, DROPPED, ERROR)}
    for group in groups:
        by[group["outcome"]][group["rule"]] += group["count_all"]
    kept = sum(by[KEPT].values())
    return Counts(table.num_rows, kept, dict(sorted(by[DROPPED].items())), dict(sorted(by[ERROR].items())))


class BlownFuse(Exception):
    """Row after row failed: the setup is broken, not the data."""


@dataclass(frozen=True)
class Fuse:
    """When to stop a job whose rows fail one after another; a job of old links sets its own.

    `alike`: a split of at least so many rows stops it when all of them fail for one reason: one kind and one detail but
    for numbers and quotations, none of them damaged. None: never.
    """

    in_a_row: int = 1000
    share: float = 0.5
    least_rows: int = 200
    alike: int | None = None


# Errors that speak for a file or the rest of one.
OF_FILES = {"unreadable_file", "unreadable_rest", "unreadable_rows", "unreadable_sidecar", "cut_json"}
OF_FILES |= {"truncated_shard", "damaged_stream"}
_DAMAGE = {"bad_json", "unreadable_file"}
_SPECIFIC = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")


class LedgerWriter:
    """Write ledger rows to a parquet file in row groups of fixed size, counting them and watching the fuse."""

    def __init__(
        self,
        file: BinaryIO,
        ledger_schema: pa.Schema,
        fuse: Fuse,
        census: Census,
        judged: Mapping[str, str] | None = None,
    ):
        self.counts, self._census, self._judged = Counts(), census, judged or {}
        self._schema, self._names, self._fuse = ledger_schema, frozenset(ledger_schema.names), fuse
        # Columns of values that hardly repeat gain nothing from a dictionary, and building one takes half the time.
        repeating = [name for name in ledger_schema.names if name not in _UNIQUE]
        self._writer = pq.ParquetWriter(file, ledger_schema, compression="zstd", use_dictionary=repeating)
        self._pending: list[pa.Table] = []
        self._rows: list[dict] = []
        self.changed = 0  # rows whose text a cleaner changed
        self._failing = 0
        self._last_detail = ""
        self._examples: list[str] = []
        self._reasons: set[str] = set()  # the first failure's kind, and that with its detail
        self._alike = 0

    def add(self, row: Mapping) -> None:
        """Append one row; columns not given are null, columns the ledger lacks are an error."""
        self._refuse_unknown(row.keys())
        self._rows.append(row)
        if len(self._rows) >= 4096:
            self._turn_rows_into_table()

    def add_table(self, table: pa.Table) -> None:
        """Append many rows; columns not given are null, columns the ledger lacks are an error."""
        self._turn_rows_into_table()
        self._refuse_unknown(set(table.column_names))
        self._watch(table)
        self.counts += count(table)
        columns = [
            table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
            for f in self._schema
        ]
        whole = pa.table(columns, schema=self._schema)
        self.counts += Counts(unjudged=unjudged(whole, self._judged))
        self.changed += whole.num_rows - whole["text_after"].null_count
        self._census.hear(whole)
        self._pending.append(whole)
        if sum(t.num_rows for t in self._pending) >= ROWS_PER_GROUP:
            self._flush(last=False)

    def close(self) -> Counts:
        """Write what is pending and the parquet footer; check the fuse over the split and the conservation law."""
        self._turn_rows_into_table()
        self._flush(last=True)
        self._writer.close()
        failed = sum(self.counts.errors.values())
        if self.counts.rows >= self._fuse.least_rows and failed > self._fuse.share * self.counts.rows:
            share = f"{failed} of {self.counts.rows} rows failed"
            raise BlownFuse(f"{share} ({self.counts.errors}); last: {self._last_detail}")
        self._refuse_one_reason()
        self.counts.check("ledger")
        return self.counts

    def _refuse_one_reason(self) -> None:
        rows = self.counts.rows
        if self._fuse.alike and rows >= self._fuse.alike and self._alike == rows and not self._reasons & _DAMAGE:
            raise BlownFuse(f"all {rows} rows failed alike, {'; '.join(self._examples)}")

    def _compare(self, failures: pa.Table) -> None:
        """Count the rows that fail as the first did, and keep three of them as examples."""
        for kind, detail in zip(failures["rule"].to_pylist(), failures["detail"].to_pylist(), strict=True):
            reason = f"{kind}: {_SPECIFIC.sub('', detail or '')}"
            self._reasons = self._reasons or {kind, reason}
            if reason not in self._reasons:
                break
            self._alike += 1
            if len(self._examples) < 3:
                self._examples.append(f"{kind}: {detail}")

    def abandon(self) -> None:
        """Close the parquet file as it is; for splits that are not committed."""
        self._writer.close()

    def _refuse_unknown(self, names: Set[str]) -> None:
        if unknown := names - self._names:
            raise ValueError(f"the ledger has no column {sorted(unknown)}; it has {sorted(self._names)}")

    def _turn_rows_into_table(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self.add_table(pa.Table.from_pylist(rows, schema=self._schema))

    def _flush(self, last: bool) -> None:
        if not self._pending:
            return
        table = pa.concat_tables(self._pending)
        whole = table.num_rows if last else table.num_rows // ROWS_PER_GROUP * ROWS_PER_GROUP
        for start in range(0, whole, ROWS_PER_GROUP):
            self._writer.write_table(table.slice(start, min(ROWS_PER_GROUP, whole - start)))
        self._pending = [table.slice(whole)] if whole < table.num_rows else []

    def _watch(self, table: pa.Table) -> None:
        failed = pc.equal(table["outcome"], ERROR).to_numpy(zero_copy_only=False)
        if not failed.any():
            self._failing = 0
            return
        if "detail" in table.column_names:
            self._last_detail = table["detail"][int(np.flatnonzero(failed)[-1])].as_py()
            if self._fuse.alike and failed.all():
                self._compare(table)
        good = np.flatnonzero(~failed)
        ends = np.concatenate([[-1 - self._failing], good, [len(failed)]])
        if np.diff(ends).max() - 1 >= self._fuse.in_a_row:
            raise BlownFuse(f"{self._fuse.in_a_row} rows failed one after another; last: {self._last_detail}")
        self._failing = int(len(failed) - 1 - ends[-2])
