"""Arrow string arrays as numpy sees them: repair, byte positions, lengths, and work on a few rows out of many.

Scanning the shared byte buffer with numpy costs 10-20 ns per row, a regular expression 200 ns, a Python function
2,000 ns and more. The text rules stay fast by asking these questions in that order, each about fewer rows.
"""

from collections.abc import Callable

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


def rows_of(positions: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return the sorted distinct rows that hold the given byte positions."""
    return np.unique(np.searchsorted(starts, positions, side="right") - 1)


def rows_with_bytes(texts: pa.StringArray, wanted: str) -> np.ndarray:
    """Return the rows that contain at least one of the ASCII characters in `wanted`."""
    data, starts = utf8_bytes(texts)
    if not len(data):
        return np.zeros(0, np.int64)
    hit = data == ord(wanted[0])
    for character in wanted[1:]:
        hit |= data == ord(character)
    return rows_of(np.flatnonzero(hit), starts)


def rows_not_ascii(texts: pa.StringArray) -> np.ndarray:
    """Return the rows with a character beyond ASCII."""
    return np.flatnonzero(~pc.string_is_ascii(texts).to_numpy(zero_copy_only=False))


def rows_matching(texts: pa.StringArray, pattern: str) -> np.ndarray:
    """Return the rows in which the RE2 pattern matches somewhere."""
    return np.flatnonzero(pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False))


def rows_with_run(texts: pa.StringArray, length: int) -> np.ndarray:
    """Return all rows (and perhaps a few more) in which one character stands `length` times in a row.

    The first bytes of equal neighbours stand 1, 2, 3 or 4 bytes apart, as wide as the character is in UTF-8, and are
    equal; looking for that finds every run. RE2 cannot: it has no back-references.
    """
    data, starts = utf8_bytes(texts)
    found = [np.zeros(0, np.int64)]
    for width in (1, 2, 3, 4) if (data >= 0x80).any() else (1,):
        if len(data) <= width * (length - 1):
            continue
        same = data[width:] == data[:-width]
        run = same[: len(same) - width * (length - 2)].copy()
        for step in range(1, length - 1):
            run &= same[step * width : step * width + len(run)]
        found.append(np.flatnonzero(run))
    return rows_of(np.concatenate(found), starts)


def count_chars(texts: pa.StringArray) -> np.ndarray:
    """Return each row's number of Unicode characters."""
    return pc.utf8_length(texts).to_numpy(zero_copy_only=False)


def count_words(texts: pa.StringArray) -> np.ndarray:
    """Return each row's number of words: runs of bytes other than ASCII white space."""
    data, starts = utf8_bytes(texts)
    counts = np.zeros(len(texts), np.int64)
    if not len(data):
        return counts
    word = (data > 0x20) | ((data < 0x09) | (data > 0x0D)) & (data != 0x20)
    begins = word.copy()
    begins[1:] &= ~word[:-1]
    first = starts[:-1][starts[:-1] < starts[1:]]
    begins[first] = word[first]
    filled = np.flatnonzero(starts[:-1] < starts[1:])
    counts[filled] = np.add.reduceat(begins, first, dtype=np.int64)
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
    return put_rows(texts, rows, change(texts.take(pa.array(rows)))) if len(rows) else texts


def each(change: Callable[[str], str]) -> Callable[[pa.StringArray], pa.StringArray]:
    """Turn a function of one string into a function of an array; for the few rows that need Python."""
    return lambda texts: pa.array([change(text) for text in texts.to_pylist()], pa.string())
