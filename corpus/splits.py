"""A split of a job's input, and the sink that takes what becomes of its rows."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.census import Census, Unaccounted
from corpus.folder import Manifest, OutputFolder
from corpus.ledger import DROPPED, ERROR, KEPT, Fuse, LedgerWriter, schema
from corpus.passthrough import Passthrough, ledger_column
from corpus.records import Sample, to_members
from corpus.shards import ShardWriter
from corpus.verdicts import Verdict

URLS = "urls.parquet"  # the suffix of a table of rows that name their images


@dataclass(frozen=True, slots=True)
class Split:
    """One input file, or a fixed slice of one, named by corpus.inputs. `source` is what the work function reads.

    `fingerprint` tells the version of the input: a split whose fingerprint changed is done again.
    """

    id: str
    source: dict
    fingerprint: dict = field(default_factory=dict)


class Sink:
    """Takes every row of a split exactly once, in order: `keep`, `drop` or `error`; or many through `rows`.

    `expects` says which rows there are, by a count of the reader's own. Use as a context manager and call `commit` at
    the end, which refuses a split of which a row is missing, doubled or made up; without it nothing remains.
    """

    def __init__(
        self,
        folder: OutputFolder,
        split: Split,
        *,
        scores: Mapping[str, pa.DataType],
        settings_digest: str,
        fuse: Fuse,
        table: str | None = None,
        judged: Mapping[str, str] | None = None,
        job: str = "the job",
        dataset: str = "",
        passthrough: Sequence[str] = (),
    ):
        self._split, self._digest, self._job = split, settings_digest, job
        self._table = table or ""  # the suffix of a table of kept rows, which then stands in the shard's place
        self._files = folder.begin(split.id, (table, "parquet") if table else ("tar", "idx", "parquet"))
        self._census = Census(lambda row: f"{dataset}/{split.id}/{row:06d}".lstrip("/"))
        self._passthrough, columns = Passthrough(passthrough), {**scores, **ledger_column(passthrough)}
        self._ledger = LedgerWriter(self._files["parquet"], schema(columns), fuse, self._census, judged)
        self._shard = None if table else ShardWriter(self._files["tar"])
        self._table_writer, self._written = None, 0

    def __enter__(self) -> "Sink":
        return self

    def __exit__(self, *error):
        # Without a commit the parquet writers are still open, and would write to closed files when collected.
        for close in (self._ledger.abandon, self._table_writer and self._table_writer.close):
            with contextlib.suppress(OSError, ValueError):
                close and close()
        self._files.__exit__(*error)

    def expects(
        self, ordinals: np.ndarray, key_of: Callable[[int], str] | None = None, limit: int | None = None
    ) -> None:
        """Say which records the split holds, by a count that does not pass through the loop that tells of them.

        `key_of` names a record in an error message (by default DATASET/SPLIT/ROW); a job with a `limit` reads the first
        so many.
        """
        with self._accusing():
            self._census.expects(ordinals, key_of, limit)

    def passes(self, ordinal: int, record) -> None:
        """Note a record as it was read: the columns that the catalog passes through go with its rows and samples."""
        self._passthrough.take(ordinal, record)

    def splits(self, ordinal: int, into: int) -> None:
        """Say that a record becomes `into` rows under keys of their own (questions, pages); a page in turn windows."""
        with self._accusing():
            self._census.splits(ordinal, into)

    def strikes(self, ordinal: int, rows: int) -> None:
        """Say that nobody can read `rows` records from `ordinal` on, whose one ledger row, an error, says so."""
        self._census.strikes(ordinal, rows)

    def keep(self, sample: Sample, row: int, **columns) -> None:
        """Write a sample to the shard and its ledger row; `columns` are scores, text_before, thumbnail and so on."""
        self.write(sample, row)
        self._add({"key": sample.key, "row": row, "outcome": KEPT} | columns)

    def drop(self, key: str, row: int, rule: str, **columns) -> None:
        """Record that `rule` dropped a row; `columns` may give value, threshold, detail and more."""
        self._add({"key": key, "row": row, "outcome": DROPPED, "rule": rule} | columns)

    def error(self, key: str, row: int, kind: str, detail: str = "", **columns) -> None:
        """Record that a row could not be read; `kind` is a slug, `detail` says what was seen."""
        entry = {"key": key, "row": row, "outcome": ERROR, "rule": kind, "detail": detail[:500]}
        self._add(entry | columns)

    def _add(self, entry: dict) -> None:
        self._ledger.add(entry | self._passthrough.of_row(entry["row"], entry.get("detail")))

    def unreadable(self, key: str, row: int, rows: int, detail: str) -> None:
        """Record that nobody can read `rows` records from `row` on, by one error row."""
        self.strikes(row, rows)
        self.error(key, row, "unreadable_rows", detail)

    def lose(self, key: str, row: int, verdict: Verdict, **columns) -> None:
        """Record a row that is not kept, by its verdict."""
        if verdict.outcome == ERROR:
            self.error(key, row, verdict.rule, verdict.detail or "", **columns)
        else:
            found = {"value": verdict.value, "threshold": verdict.threshold, "detail": verdict.detail}
            self.drop(key, row, verdict.rule, **columns, **found)

    def rows(self, table: pa.Table) -> None:
        """Record many ledger rows at once. Their kept samples go through `write` (or `write_table`), in order."""
        self._ledger.add_table(self._passthrough.of_table(table))

    def write(self, sample: Sample, row: int | None = None) -> None:
        """Write a kept sample to the shard alone; its ledger row goes through `rows`."""
        sample.source |= self._passthrough.of_sample(row)
        self.write_members(sample.key, to_members(sample))

    def write_members(self, key: str, members: Iterable[tuple[str, bytes]], rows: int = 1) -> None:
        """Write a kept record that is not a Sample, such as a pack, which stands for `rows` kept ledger rows."""
        self._shard.write(key, members)
        self._written += rows

    def write_table(self, table: pa.Table) -> None:
        """Append kept rows to the split's table (jobs that keep rows of one instead of samples)."""
        if self._table_writer is None:
            options = {"compression": "zstd", "use_dictionary": False}  # URLs and captions do not repeat
            self._table_writer = pq.ParquetWriter(self._files[self._table], table.schema, **options)
        if table.num_rows:  # an empty group of rows is what `datasets` stumbles over
            self._table_writer.write_table(table)
        self._written += table.num_rows

    def commit(self) -> Manifest:
        """Close the files, check that every row is accounted for, and make the split happen."""
        self._passthrough.check()
        if self._shard is None and self._table_writer is None:
            self.write_table(pa.table({"key": pa.array([], pa.string())}))
        if self._table_writer is not None:
            self._table_writer.close()
        told = self._ledger.close()
        with self._accusing():
            counts = replace(told, rows=self._census.check(), unread=self._census.unread)
            if self._shard is not None:
                self._close_shard()
        if counts.kept != self._written:
            raise AssertionError(f"split {self._split.id}: {counts.kept} kept rows, {self._written} samples written")
        records = self._census.records
        about = self._split.fingerprint, self._split.source, self._ledger.changed
        return self._files.commit(counts, records, self._digest, *about)

    def _close_shard(self) -> None:
        if self._shard.namesakes:
            raise Unaccounted(f"two of its samples have the key {self._shard.namesakes}, and would be read as one")
        self._shard.close()
        self._files["idx"].write(self._shard.index())

    @contextlib.contextmanager
    def _accusing(self) -> Iterator[None]:
        """Name the job and the split where a row is not accounted for."""
        try:
            yield
        except Unaccounted as error:
            where = self._split.source.get("url", "")
            raise Unaccounted(
                f"{self._job}, split {self._split.id}{where and f' ({where})'}: {error}. Nothing of the split is "
                "committed: this is a bug of the job, please report it"
            ) from None
