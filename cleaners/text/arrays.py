"""Arrow string arrays as numpy sees them: repair, byte positions, lengths, and work on a few rows out of many.

Scanning the shared byte buffer with numpy costs 10-20 ns per row, a regular expression 200 ns, a Python function
2,000 ns and more. The text rules stay fast by asking these questions in that order, each about fewer rows.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def as_utf8(column: pa.Array) -> pa.StringArray:
    """Return a column of captions as valid UTF-8, nulls kept; broken bytes become U+FFFD.

    Accepts string, large_string, binary, dictionary and all-null columns. Parquet readers do not check that a "string"
    holds UTF-8, and RE2 stops at the first byte that is not.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type) or _is_binary(column.type)):
        raise TypeError(f"captions must be a string or binary column, not {column.type}")
    try:
        text = column.cast(pa.string())
        text.validate(full=True)
    except pa.ArrowInvalid:
        rows = column.cast(pa.large_binary()).to_pylist()
        text = pa.array([None if row is None else row.decode("utf-8", "replace") for row in rows], pa.string())
    return text


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def utf8_bytes(texts: pa.StringArray) -> tuple[np.ndarray, np.ndarray]:
    """Return (uint8 bytes of all rows, int32 offsets of n + 1 row starts), sharing the memory of `texts`."""
    _, offsets, data = texts.buffers()
    if offsets is None or len(texts) == 0:
        return np.zeros(0, np.uint8), np.zeros(len(texts) + 1, np.int32)
    starts = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    raw = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(0, np.uint8)
    return raw[starts[0] : starts[-1]], starts - starts[0]


def rows_where(hit: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the sorted rows of which any byte is hit, given one bool per byte."""
    if np.count_nonzero(hit) * 4 < len(starts):
        return _rows_at(np.flatnonzero(hit), starts)
    filled = np.flatnonzero(starts[:-1] < starts[1:])
    return filled[np.bitwise_or.reduceat(hit.view(np.uint8), starts[filled]) != 0]


def _rows_at(positions: np.ndarray, starts: np.ndarray) -> np.ndarray:
    rows = np.searchsorted(starts, positions, side="right") - 1
    return rows[np.r_[True, rows[1:] != rows[:-1]]] if len(rows) else rows


def rows_with_bytes(texts: pa.StringArray, wanted: str) -> np.ndarray:
    """Return the rows that contain at least one of the ASCII characters in `wanted`."""
    data, starts = utf8_bytes(texts)
    hit = np.zeros(len(data), bool)
    for first, last in _spans(wanted):
        # Below `first` the difference wraps around to a large number.
        hit |= data == first if first == last else data - np.uint8(first) <= last - first
    return rows_where(hit, starts)


@lru_cache(maxsize=256)
def _spans(wanted: str) -> tuple[tuple[int, int], ...]:
    """Group characters into spans of neighbours: "0129" -> (48, 50), (57, 57)."""
    spans: list[tuple[int, int]] = []
    for code in sorted(map(ord, wanted)):
        spans.append((spans.pop()[0], code) if spans and spans[-1][1] == code - 1 else (code, code))
    return tuple(spans)


def rows_not_ascii(texts: pa.StringArray) -> np.ndarray:
    """Return the rows with a character beyond ASCII."""
    return np.flatnonzero(~pc.string_is_ascii(texts).to_numpy(zero_copy_only=False))


def rows_matching(texts: pa.StringArray, pattern: str) -> np.ndarray:
    """Return the rows in which the RE2 pattern matches somewhere."""
    return np.flatnonzero(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False))


def rows_with_run(texts: pa.StringArray, length: int) -> np.ndarray:
    """Return all rows (and perhaps a few more) in which one character beyond ASCII stands `length` times in a row.

    Such characters are 2, 3 or 4 bytes wide in UTF-8, so the bytes of a run equal those that far on. RE2 cannot look
    for that: it has no back-references.
    """
    found = np.zeros(len(texts), bool)
    data, starts = utf8_bytes(texts)
    for width in (2, 3, 4):
        run = data[width:] == data[:-width]
        # Every byte of the character repeats; the first alone would find all words of one script.
        for step in [width] * (length - 2) + [1] * (width - 1):
            run = run[step:] & run[:-step]
        found[_rows_at(np.flatnonzero(run), starts)] = True
    return np.flatnonzero(found)


def count_chars(texts: pa.StringArray) -> np.ndarray:
    """Return each row's number of Unicode characters."""
    return pc.utf8_length(texts).to_numpy(zero_copy_only=False)


def count_words(texts: pa.StringArray) -> np.ndarray:
    """Return each row's number of words: runs of bytes above the space, which keeps control characters apart too."""
    data, starts = utf8_bytes(texts)
    word = data > 0x20
    begins = word.copy()
    np.greater(word[1:], word[:-1], out=begins[1:])
    filled = np.flatnonzero(starts[:-1] < starts[1:])
    begins[starts[filled]] = word[starts[filled]]
    counts = np.zeros(len(texts), np.int64)
    counts[filled] = np.add.reduceat(begins.view(np.uint8), starts[filled], dtype=np.uint32)
    return counts


def put_rows(texts: pa.StringArray, rows: np.ndarray, values: pa.StringArray) -> pa.StringArray:
    """Return `texts` with the given (sorted) rows replaced by `values`."""
    if not len(rows):
        return texts
    mask = np.zeros(len(texts), bool)
    mask[rows] = True
    return pc.replace_with_mask(texts, pa.array(mask), values)


def map_rows(texts: pa.StringArray, rows: np.ndarray, change: Callable[[pa.StringArray], pa.StringArray]):
    """Return `texts` with `change` applied to the given (sorted) rows only."""
    if len(rows) == len(texts):
        return change(texts) if len(rows) else texts
    return put_rows(texts, rows, change(texts.take(pa.array(rows)))) if len(rows) else texts


def each(change: Callable[[str], str]) -> Callable[[pa.StringArray], pa.StringArray]:
    """Turn a function of one string into a function of an array; for the few rows that need Python."""
    return lambda texts: pa.array([change(text) for text in texts.to_pylist()], pa.string())
