"""Parquet by row group: a damaged group costs its own rows, and a damaged value its own row."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.bugs import why_data
from corpus.readers.rows import BadFile, BadRow
from corpus.values import valid

_SPELT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
DAMAGED = "unreadable_rows"
MOST_ROWS_PER_BYTE = 1000  # a column of one value compresses well, but not without end


def group_rows(file: BinaryIO, where: str) -> list[int]:
    """Return the rows of each group, as the footer has them. Raises BadFile for a footer that cannot be true.

    It asks for no column's metadata: Arrow ends the process where those are damaged.
    """
    footer = pq.ParquetFile(file).metadata
    groups = [footer.row_group(i) for i in range(footer.num_row_groups)]
    rows = [group.num_rows for group in groups]
    whole = all(group.num_columns == footer.num_columns and group.num_rows >= 0 for group in groups)
    if not whole or sum(rows) != footer.num_rows:
        raise BadFile(f"{where}: its footer is damaged, it tells several numbers of rows; fetch the file again")
    if sum(rows) > MOST_ROWS_PER_BYTE * file.seek(0, 2):
        raise BadFile(f"{where}: its footer tells of {sum(rows)} rows, which no file of its size holds")
    return rows


def batches(file: BinaryIO, start: int, stop: int, size: int) -> Iterator[pa.RecordBatch | BadRow]:
    """Yield the rows from `start` to `stop` in batches of at most `size`; a BadRow for a damaged group's rest."""
    parquet, at = pq.ParquetFile(file), 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        first, last = max(start - at, 0), min(stop - at, rows)
        if first < last:
            yield from _of_group(parquet, group, at, first, last, size)
        at += rows


def _of_group(
    parquet: pq.ParquetFile, group: int, at: int, first: int, last: int, size: int
) -> Iterator[pa.RecordBatch | BadRow]:
    """Yield the rows `first` to `last` of a group whose first row is row `at` of the file."""
    row, why = 0, "it holds fewer rows than the footer says"
    try:
        for batch in parquet.iter_batches(size, row_groups=[group], use_threads=False):
            batch.validate()
            here = batch.slice(max(first - row, 0), max(min(last, row + batch.num_rows) - max(first, row), 0))
            row += batch.num_rows
            if here.num_rows:
                yield here
            if row >= last:
                return
    except Exception as error:
        why = why_data(error)
    row = max(row, first)
    detail = f"rows {at + row} to {at + last - 1}, in row group {group}: {why}"
    yield BadRow(DAMAGED, detail, rows=last - row)


def records(batch: pa.RecordBatch) -> Iterator[dict | BadRow]:
    """Yield the rows of a batch with values that can be written; a BadRow where one cannot be read."""
    try:
        rows = batch.to_pylist()
    except Exception as error:
        why_data(error)
        rows = [_record(batch.slice(i, 1)) for i in range(batch.num_rows)]
    yield from (row if isinstance(row, BadRow) else valid(row) for row in rows)


def _record(row: pa.RecordBatch) -> dict | BadRow:
    try:
        columns = [text_column(c) if c.type in (pa.string(), pa.large_string()) else c for c in row.columns]
        return pa.RecordBatch.from_arrays(columns, row.schema.names).to_pylist()[0]
    except Exception as error:
        return BadRow("bad_record", why_data(error))


def whole_groups(file: BinaryIO, groups: Sequence[int], size: int) -> Iterator[pa.RecordBatch | BadRow]:
    """Yield the rows of some groups in batches of at most `size`; a BadRow for a damaged group's rest.

    Group by group from the damage on, and not before: batches that end where groups do would be many.
    """
    parquet, read = pq.ParquetFile(file), 0
    try:
        for batch in parquet.iter_batches(size, row_groups=list(groups), use_threads=False):
            batch.validate()
            read += batch.num_rows
            yield batch
    except Exception as error:
        why_data(error)
    rows = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
    for group in groups:
        if read < rows[group]:
            yield from _of_group(parquet, group, sum(rows[:group]), read, rows[group], size)
        read = max(read - rows[group], 0)


def text_column(column: pa.Array) -> pa.Array:
    """Return a string column: what is no UTF-8 is U+FFFD, and null what is no text at all."""
    try:
        text = column.cast(pa.string())
        text.validate(full=True)
        return text
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if not any(is_kind(column.type) for is_kind in _SPELT):
            return pa.nulls(len(column), pa.string())
        raw = pc.cast(column, pa.binary()).to_pylist()
        return pa.array([value if value is None else value.decode("utf-8", "replace") for value in raw], pa.string())


def text_chunks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Do as `text_column` does."""
    return pa.chunked_array([text_column(chunk) for chunk in column.chunks], pa.string())
