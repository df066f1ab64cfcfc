"""Lists of image URLs with their texts: parquet, TSV and CSV as the datasets' owners publish them.

CC12M and CC3M are TSV without a header (`url TAB caption`, `caption TAB url`), SBU is JSON of parallel arrays; every
other TSV and CSV names its columns in its first line. Parquet may come from clean_laion.py's metadata mode, whose keys
are carried on.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow.parquet as pq

from corpus.readers.boundary import made_of
from corpus.readers.captions import READERS
from corpus.readers.pairs import KEY_COLUMN, found_key
from corpus.readers.rows import BadFile, BadRow
from corpus.readers.slices import Slice, detect, held, open_file, plan, plan_arrays, read
from corpus.values import valid_text

_HEADERLESS = ("cc12m", "cc3m")
_LONGEST_HEADER = 1 << 16


@dataclass(frozen=True, slots=True)
class UrlRow:
    """One URL. `key` is what the list calls the row (its key in an earlier job), `clip_score` its owner's."""

    url: str
    text: str = ""
    key: str | None = None
    clip_score: float | None = None
    columns: Mapping | None = field(default=None, compare=False)  # all that its list says of it, where that has columns


def plan_urls(path: str, columns: Mapping[str, str], reader: str, rows: int) -> list[Slice]:
    """Cut a file into slices of at most `rows` rows. Raises BadFile when it has no column of URLs."""
    if reader == "sbu":
        return plan_arrays(path, rows, READERS["sbu"].arrays)
    if reader not in _HEADERLESS:
        _check_columns(path, columns)
    return plan(path, rows)


def read_urls(piece: Slice, columns: Mapping[str, str], reader: str) -> Iterator[tuple[int, UrlRow | BadRow]]:
    """Yield (ordinal in the file, row). In text formats that is the line's number, from 0; a header is no row."""
    if reader in (*_HEADERLESS, "sbu"):
        parse, first = partial(_caption_row, reader=reader), 0
    elif piece.format == "lines":
        parse, first = partial(_cells_row, header=_tsv_header(piece.paths[0]), columns=columns), 1
    else:
        parse, first = partial(_record_row, columns=columns), 0
    for row, record in read(piece):
        if row >= first:
            (found,) = made_of(record, lambda record: [parse(record)])
            yield row, found


def held_urls(piece: Slice, reader: str) -> np.ndarray:
    """Return the ordinals that `read_urls` owes, by a count of their own."""
    ordinals = held(piece)
    has_heading = piece.format == "lines" and reader not in (*_HEADERLESS, "sbu")
    return ordinals[ordinals > 0] if has_heading else ordinals


def _check_columns(path: str, columns: Mapping[str, str]) -> None:
    names = _column_names(path)
    if columns.get("url") not in names:
        wanted = f"no column {columns['url']!r}" if "url" in columns else "the catalog entry names no `url` column"
        has = ", ".join(names[:20])
        raise BadFile(f"{path}: {wanted}; the file has {has}. Choose another --dataset, or set the entry's `columns`")


def _column_names(path: str) -> list[str]:
    kind = detect(path)
    if kind == "parquet":
        with open_file(path) as file:
            return pq.read_schema(file).names
    if kind not in ("lines", "csv"):
        raise BadFile(f"{path}: expected a list of URLs as .parquet, .tsv or .csv")
    return _tsv_header(path, "," if kind == "csv" else "\t")


def _tsv_header(path: str, separator: str = "\t") -> list[str]:
    with open_file(path) as file:
        line = valid_text(file.readline(_LONGEST_HEADER).decode("utf-8-sig", "replace"))
    return [name.strip().strip('"') for name in line.split(separator)]


def _caption_row(record, reader: str) -> UrlRow | BadRow:
    found = next(READERS[reader].parse(record, {}, {}))
    return found if isinstance(found, BadRow) else UrlRow(found.image.url, found.text)


def _cells_row(line: str, header: list[str], columns: Mapping[str, str]) -> UrlRow | BadRow:
    cells = line.split("\t")
    if len(cells) != len(header):
        return BadRow("bad_line", f"{len(cells)} cells under {len(header)} headings: {cells[:4]}"[:200])
    return _record_row(dict(zip(header, cells, strict=True)), columns)


def _record_row(record, columns: Mapping[str, str]) -> UrlRow | BadRow:
    url, text, key = record.get(columns["url"]), record.get(columns.get("text")), record.get(KEY_COLUMN)
    if not isinstance(url, str) or not url.strip():
        return BadRow("no_url", f"column {columns['url']!r} holds {str(url)[:80]!r}")
    if isinstance(text, bytes):
        text = valid_text(text.decode("utf-8", "replace"))
    text = text if isinstance(text, str) else ""
    return UrlRow(url.strip(), text, found_key(key), _number(record.get(columns.get("clip_score"))), record)


def _number(value) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
