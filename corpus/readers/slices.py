"""Published annotation files, cut into slices that can be read alone, and the records of a slice.

A slice of a JSON, JSON lines, TSV, CSV or text file is a range of bytes; of a parquet file, a range of rows; a tar is
one slice; many small JSON files of one record each are one slice together.
"""

import csv
import functools
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import fsspec
import numpy as np

from corpus.bugs import why_data
from corpus.inputs import grouped
from corpus.readers.json_scan import CHUNK, CutJson, scan
from corpus.readers.parquet import batches, group_rows, records
from corpus.readers.rows import BadFile, BadRow, WrongKind
from corpus.readers.steady import SteadyReader
from corpus.shards import keys_in, read_samples
from corpus.values import is_hard, load_json, raw_value, valid_text

MAX_SLICE_BYTES = 64 << 20
MAX_LINE_BYTES = 64 << 20
csv.field_size_limit(MAX_LINE_BYTES)  # by default 128 KiB: one longer field would end the file
UNREADABLE = "unreadable"  # the format of a slice that stands for a file
_NO_RECORD = object()  # an empty line, a heading: counted, not yielded
_BETWEEN = re.compile(r"\s*([:,]?)\s*")
_BY_NAME = {
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "tsv": "lines",
    "txt": "lines",
    "csv": "csv",
    "parquet": "parquet",
    "tar": "tar",
}


@dataclass(frozen=True)
class Slice:
    """Records `row` .. of `paths`: bytes or parquet rows `start` .. `stop`; `damage` says why nothing follows."""

    paths: tuple[str, ...]
    format: str  # json | jsonl | lines | csv | parquet | tar | files | arrays | document | unreadable
    start: int = 0
    stop: int = -1
    row: int = 0
    damage: str | None = None
    arrays: tuple[str, ...] = ()
    records: int = 0  # of JSON alone, as the plan counted them


def open_file(path: str):
    """Open a file or fsspec URL for reading bytes, decompressed where its name says so (.gz, .bz2, .zst, .xz).

    A compressed file that is damaged ends where the damage begins, and then has the reason in `raw.broken`.
    """
    file = fsspec.open(path, "rb", compression="infer").open()
    if fsspec.utils.infer_compression(path) is None:
        return file
    return io.BufferedReader(SteadyReader(file), 1 << 16)


def _broken(file) -> str | None:
    """Say why a compressed file ended before its time, or None."""
    return getattr(getattr(file, "raw", None), "broken", None)


def detect(path: str) -> str:
    """Tell a file's format by its name, and for .json by its content: JSON lines are often named .json."""
    parts = path.rpartition("/")[2].lower().split(".")
    suffix = parts[-2] if parts[-1] in ("gz", "bz2", "zst", "xz") and len(parts) > 2 else parts[-1]
    if suffix in _BY_NAME:
        return _BY_NAME[suffix]
    if suffix != "json":
        raise WrongKind(f"{path}: no reader for .{suffix}; readable are .json, {', '.join('.' + s for s in _BY_NAME)}")
    return "jsonl" if _holds_lines(path) else "json"


def _holds_lines(path: str) -> bool:
    with open_file(path) as file:
        first, second = file.readline(CHUNK), b""
        while first and not second.strip() and (line := file.readline(CHUNK)):
            second = line
    try:
        load_json(first)
    except ValueError:
        return False
    return second.lstrip()[:1] in (b"{", b"[")


def plan_all(paths: Iterable[str], plan_one: Callable[[str], Iterable[Slice]]) -> list[Slice]:
    """Plan files one by one; a file that cannot be read becomes a slice of one error row.

    Raises BadFile with the reasons when none can be read, and WrongKind for a file that no reader is for.
    """
    slices, reasons, paths = [], [], list(paths)
    for path in paths:
        try:
            slices += list(plan_one(path))
            continue
        except WrongKind:
            raise
        except BadFile as error:
            reasons.append(str(error))
        except Exception as error:
            reasons.append(f"{path}: {why_data(error)}")
        slices.append(Slice((path,), UNREADABLE, damage=reasons[-1]))
    if reasons and len(reasons) == len(paths):
        more = f" (and {len(reasons) - 3} files more)" if len(reasons) > 3 else ""
        raise BadFile(f"no file of the input can be read: {'; '.join(reasons[:3])}{more}")
    return slices


def plan(path: str, rows: int, array: str | None = None) -> list[Slice]:
    """Cut a file into slices of at most `rows` records; `array` is the top-level key a JSON's records stand under.

    Raises BadFile when the file has no such records.
    """
    kind = detect(path)
    if kind == "json":
        return _plan_json(path, rows, array)
    if kind == "parquet":
        with open_file(path) as file:
            total = sum(group_rows(file, path))
        return [Slice((path,), kind, at, min(at + rows, total), at) for at in range(0, max(total, 1), rows)]
    if kind == "tar":
        return [Slice((path,), kind)]
    return _plan_lines(path, rows, kind)


def plan_files(paths: list[str], about: int) -> list[Slice]:
    """Group small JSON files of one record each, about so many in a slice."""
    return [Slice(tuple(group), "files") for group in grouped(paths, about)]


def plan_arrays(path: str, rows: int, names: tuple[str, ...]) -> list[Slice]:
    """Cut a JSON of parallel arrays of strings into ranges of their indices."""
    total = len(_arrays(path, names)[0])
    return [Slice((path,), "arrays", at, min(at + rows, total), at, arrays=names) for at in range(0, total, rows)]


def read(piece: Slice) -> Iterator[tuple[int, object]]:
    """Yield (ordinal in the file, record): dicts, for `lines` strings, for `tar` RawSamples; BadRow where unreadable.

    A record of a JSON object of records is the pair (key, value). In formats of lines the ordinal is the line's number,
    from 0; empty lines and a CSV's heading are counted, and are no records.
    """
    row = piece.row
    for record in _READ[piece.format](piece):
        if record is not _NO_RECORD:
            yield row, record
        row += record.rows if isinstance(record, BadRow) else 1
    if piece.damage:
        kind = "cut_json" if piece.format == "json" else "unreadable_rest" if row else "unreadable_file"
        yield row, BadRow(kind, piece.damage)


def held(piece: Slice) -> np.ndarray:
    """Return the ordinals that `read` owes for a slice, by a count of their own."""
    return piece.row + _HELD.get(piece.format, _held_range)(piece)


def _held_range(piece: Slice) -> np.ndarray:
    return np.arange(piece.stop - piece.start)


def _held_json(piece: Slice) -> np.ndarray:
    return np.arange(piece.records + (piece.damage is not None))


def _held_lines(piece: Slice) -> np.ndarray:
    """Return the numbers of the lines that are not empty."""
    data = np.frombuffer(_bytes(piece), np.uint8)
    ends = np.flatnonzero(data == 10) + 1
    ends = ends if len(data) == 0 or (len(ends) and ends[-1] == len(data)) else np.append(ends, len(data))
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(ends) else ends
    while len(long := np.flatnonzero(ends - starts > MAX_LINE_BYTES)):
        ends = np.insert(ends, long, starts[long] + MAX_LINE_BYTES)
        starts = np.concatenate([[0], ends[:-1]])
    if not len(starts):
        return starts
    space = (data == 32) | ((data >= 9) & (data <= 13))
    return np.flatnonzero(np.add.reduceat(~space, starts, dtype=np.int64) > 0)


def _held_csv(piece: Slice) -> np.ndarray:
    return np.array([i for i, cells in enumerate(_cells(piece)) if cells and (i or piece.start)], np.int64)


def _held_tar(piece: Slice) -> np.ndarray:
    return np.arange(len(keys_in(piece.paths[0])))


def _held_paths(piece: Slice) -> np.ndarray:
    return np.arange(len(piece.paths))


def _plan_json(path: str, rows: int, array: str | None) -> list[Slice]:
    ranges: list[list[int]] = []  # of each its first byte, the byte after it, its records
    keys, damage, run = set(), None, None
    with open_file(path) as file:
        try:
            for found in scan(file):
                if len(keys) < 8:  # for the message alone: ids may be keys, by the million
                    keys.add(found.key)
                if found.key != array if array else found.key is not None and found.array is not None:
                    continue
                full = ranges and (ranges[-1][2] == rows or ranges[-1][1] - ranges[-1][0] > MAX_SLICE_BYTES)
                if not ranges or full or found.array != run:
                    ranges.append([found.start, found.stop, 0])
                run, ranges[-1][1:] = found.array, (found.stop, ranges[-1][2] + 1)
        except CutJson as error:
            why = f"{_broken(file) or error}; {sum(records for *_, records in ranges)} records before it were read"
            damage = f"{path}: {why}, every later one is lost: fetch the file again"
        except BadFile as error:
            raise BadFile(f"{path}: {error}") from None
    if not ranges and not damage:
        where = f"under {array!r}" if array else "at the top"
        raise BadFile(f"{path}: no records {where}; its keys are {sorted(map(str, keys))}")
    return _json_slices(path, ranges or [[0, 0, 0]], damage)


def _json_slices(path: str, ranges: list[list[int]], damage: str | None) -> list[Slice]:
    slices, row = [], 0
    for start, stop, count in ranges:
        slices.append(Slice((path,), "json", start, stop, row, records=count))
        row += count
    slices[-1] = replace(slices[-1], damage=damage)
    return slices


def _plan_lines(path: str, rows: int, kind: str) -> list[Slice]:
    """Cut after every `rows`-th line end (for CSV: line ends outside quotes), or sooner where lines are long."""
    slices, start, first, count, base, last, open_quotes = [], 0, 0, 0, 0, 0, 0
    with open_file(path) as file:
        while chunk := file.read(CHUNK):
            data = np.frombuffer(chunk, np.uint8)
            ends = data == 10
            if kind == "csv":
                quotes = np.cumsum(data == 34) + open_quotes
                ends &= quotes % 2 == 0
                open_quotes = int(quotes[-1] % 2)
            ends = np.flatnonzero(ends) + base + 1
            at = 0
            while at < len(ends):
                step = min(rows - (count - first), len(ends) - at)
                at, count = at + step, count + step
                end = int(ends[at - 1])
                if count - first == rows or end - start > MAX_SLICE_BYTES:
                    slices.append(Slice((path,), kind, start, end, first))
                    start, first = end, count
            last = int(ends[-1]) if len(ends) else last
            base += len(chunk)
        broken = _broken(file)
    end = last if broken else base  # half a line is no record
    if end > start or not (slices or broken):
        slices.append(Slice((path,), kind, start, end, first))
    if broken:
        why = f"{path}: {broken}; {count} lines before it were read, every later one is lost: fetch the file again"
        slices.append(Slice((path,), UNREADABLE, row=count, damage=why))
    return slices


def _read_json(piece: Slice) -> Iterator[object]:
    text = _bytes(piece).decode("utf-8", "replace") if piece.stop > piece.start else ""
    at = 0
    while at < len(text):
        key, (value, at) = None, _decoded(text, at)
        if (colon := _BETWEEN.match(text, at)) and colon.group(1) == ":":
            key, (value, at) = value, _decoded(text, colon.end())
        if key is None:
            yield value
        elif text[colon.end()] != "[":  # arrays beside the records are none
            yield value if isinstance(value, BadRow) else (key, value)
        at = _BETWEEN.match(text, at).end()


def _decoded(text: str, start: int) -> tuple[object, int]:
    """Decode one value as `load_json` does; return it, or a BadRow, and where it ends."""
    value, end = raw_value(text, start)
    if not is_hard(raw := text[start:end]):
        return value, end
    try:
        return load_json(raw), end
    except ValueError as error:
        return BadRow("bad_json", f"{error} in {raw[:80]!r}"), end


def _read_jsonl(piece: Slice) -> Iterator[object]:
    for line in _lines(piece):
        try:
            yield load_json(line) if line.strip() else _NO_RECORD
        except ValueError as error:
            yield BadRow("bad_json", f"{error} in {line[:80]!r}")


def _read_text(piece: Slice) -> Iterator[object]:
    for line in _lines(piece):
        yield valid_text(line.decode("utf-8-sig", "replace")) if line.strip() else _NO_RECORD


def _lines(piece: Slice) -> Iterator[bytes]:
    """Yield the lines of a slice without their ends."""
    with open_file(piece.paths[0]) as file:
        file.seek(piece.start)
        left = piece.stop - piece.start
        while left > 0 and (line := file.readline(min(left, MAX_LINE_BYTES))):
            left -= len(line)
            yield line.rstrip(b"\r\n")


def _read_csv(piece: Slice) -> Iterator[object]:
    with open_file(piece.paths[0]) as file:
        header = next(_csv(file.readline(CHUNK).decode("utf-8-sig", "replace")), [])
    for i, cells in enumerate(_cells(piece)):
        if not cells or (i == 0 and piece.start == 0):
            yield _NO_RECORD
        elif len(cells) != len(header):
            yield BadRow("bad_csv", f"{len(cells)} cells under {len(header)} headings: {cells[:4]}"[:200])
        else:
            yield dict(zip(header, cells, strict=True))


def _cells(piece: Slice) -> Iterator[list[str]]:
    return _csv(_bytes(piece).decode("utf-8", "replace"))


def _csv(text: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(valid_text(text), newline=""))  # which takes a lone \r for the end of a line, too


def _read_parquet(piece: Slice) -> Iterator[object]:
    for batch in parquet_batches(piece):
        yield from [batch] if isinstance(batch, BadRow) else records(batch)


def parquet_batches(piece: Slice, size: int = 4096):
    """Yield a parquet slice as Arrow record batches of at most `size` rows, and a BadRow for rows that are damaged."""
    with open_file(piece.paths[0]) as file:
        yield from batches(file, piece.start, piece.stop, size)


def _read_tar(piece: Slice) -> Iterator[object]:
    yield from read_samples(piece.paths[0])


def _read_files(piece: Slice) -> Iterator[object]:
    for path in piece.paths:
        with open_file(path) as file:
            data = file.read(MAX_SLICE_BYTES)
        try:
            yield load_json(data)
        except ValueError as error:
            yield BadRow("bad_json", f"{path}: {error}")


def _read_arrays(piece: Slice) -> Iterator[object]:
    columns = _arrays(piece.paths[0], piece.arrays)
    for i in range(piece.start, piece.stop):
        yield {name: column[i] for name, column in zip(piece.arrays, columns, strict=True)}


@functools.lru_cache(maxsize=1)
def _arrays(path: str, names: tuple[str, ...]) -> list[list[str]]:
    columns = {name: [] for name in names}
    with open_file(path) as file:
        try:
            for found in scan(file):
                if found.key in columns and found.array is not None:
                    columns[found.key].append(str(found.value))
        except CutJson as error:
            raise BadFile(f"{path}: {error}; its arrays no longer run in parallel, fetch the file again") from None
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        raise BadFile(f"{path}: parallel arrays expected, found {lengths}")
    return list(columns.values())


def _read_document(piece: Slice) -> Iterator[object]:
    with open_file(piece.paths[0]) as file:
        text = valid_text(file.read(MAX_SLICE_BYTES).decode("utf-8-sig", "replace"))
        yield BadRow("unreadable_rest", f"{piece.paths[0]}: {why}") if (why := _broken(file)) else text


def _bytes(piece: Slice) -> bytes:
    with open_file(piece.paths[0]) as file:
        file.seek(piece.start)
        return file.read(piece.stop - piece.start)


_HELD = {
    "json": _held_json, "jsonl": _held_lines, "lines": _held_lines, "csv": _held_csv, "tar": _held_tar,
    "files": _held_paths, "document": _held_paths, UNREADABLE: _held_json,
}  # fmt: skip
_READ = {
    "json": _read_json, "jsonl": _read_jsonl, "lines": _read_text, "csv": _read_csv,
    "parquet": _read_parquet, "tar": _read_tar, "files": _read_files,
    "arrays": _read_arrays, "document": _read_document, UNREADABLE: lambda piece: iter(()),
}  # fmt: skip
