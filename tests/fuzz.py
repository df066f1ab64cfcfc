"""Inputs that no crawl should hold and every crawl does: files of a job, changed at random by a seed."""

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

DEEP = "[" * 3000 + "]" * 3000
HUGE = "9" * 5000
# As JSON text: what stands in the place of a value.
VALUES = (
    "null", "true", "0", "-1", "1.5", '""', '"x"', '"n/a"', "[]", "{}", "[null]", '{"a": null}', "1e999", "NaN",
    "-Infinity", HUGE, "123456789012345678901234567890", DEEP, '"\\ud800"', '"\\udfff x"', '"\\u0000"', '"a/\\u0000/b"',
    '"../../etc/passwd"', '"' + "x" * 200_000 + '"', '[["a"], 3]', '{"bytes": 3, "path": []}', '"http://[::1"',
    '"\\u202e\\ufeff"', "[1, 2, 3]", "[1e300, -1e300, 1e300, 1e300]", '{"": {"": {}}}',
)  # fmt: skip
_HOLE = "\u2063hole\u2063"


def mutate(path: Path, rng: random.Random) -> str:
    """Change a file in place; return what was done."""
    how = rng.choice(_WAYS.get(path.suffix, ()) + (flip, flip, cut, blot, splice))
    path.write_bytes(how(path.read_bytes(), rng))
    return f"{how.__name__} of {path.name}"


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 4, 32]) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.choice([0, 1, rng.randrange(len(data) + 1), max(len(data) - rng.randrange(1, 40), 0)])]


def blot(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data) + 1), rng.choice([8, 40, 400])
    return data[:at] + rng.choice([bytes(size), rng.randbytes(size), b"\xff" * size]) + data[at + size :]


def splice(data: bytes, rng: random.Random) -> bytes:
    a, b = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    return data[:a] + data[min(a, b) : b][:5000] + data[a:]


def json_values(data: bytes, rng: random.Random) -> bytes:
    """Put a value of another kind at a random place, in a JSON file or in a line of JSON lines."""
    lines = data.decode().split("\n")
    whole = _parsed(data.decode())
    records = [whole] if whole is not None else [_parsed(line) for line in lines]
    which = rng.choice([i for i, each in enumerate(records) if each is not None] or [0])
    if records[which] is None:
        return flip(data, rng)
    text = json.dumps(_with_hole(records[which], rng), ensure_ascii=False)
    text = text.replace(json.dumps(_HOLE, ensure_ascii=False), rng.choice(VALUES))
    if whole is not None:
        return text.encode()
    lines[which] = text
    return "\n".join(lines).encode()


def _parsed(text: str):
    try:
        return json.loads(text)
    except ValueError:
        return None


def _with_hole(value, rng: random.Random):
    """Return the value with a hole in the place of one that it holds, or without that."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return _HOLE
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, copy = rng.choice(keys), value.copy()
    if rng.random() < 0.1:
        del copy[key]
    elif isinstance(value, dict) and rng.random() < 0.05:
        copy[rng.choice(["\0", "", "key", "x" * 3000])] = copy.pop(key)
    else:
        copy[key] = _with_hole(value[key], rng)
    return copy


def cells(data: bytes, rng: random.Random) -> bytes:
    """Put something else into a cell of CSV or TSV, or break its quotes."""
    strange = ["", '"', '""', "\0", "\x85", "x" * 140_000, "n/a", "\ufeff", "\udcff", '"a\n', "9" * 500, "http://[::1"]
    text = data.decode("utf-8", "surrogateescape")
    places = [i for i, c in enumerate(text) if c in ",\t\n"] or [0]
    at = rng.choice(places) + 1
    return (text[:at] + rng.choice(strange) + text[at + rng.choice([0, 3]) :]).encode("utf-8", "surrogateescape")


def columns(data: bytes, rng: random.Random) -> bytes:
    """Give a column of a parquet file another type, other values or another name."""
    table = pq.read_table(pa.BufferReader(data))
    i, rows = rng.randrange(table.num_columns), table.num_rows
    no_text = pa.array([b"\xff\xfea", b"\xed\xa0\x80", b"a\0b"] * rows)
    made = rng.choice([
        lambda: pa.array(["n/a", "", "12", "1e5", None, "9" * 400] * rows, pa.string()),
        lambda: pa.Array.from_buffers(pa.string(), rows, no_text.buffers()),
        lambda: pa.array([[["a"]], [], None] * rows),
        lambda: pa.array([{"bytes": None, "path": "a\0b"}, None] * rows),
        lambda: pa.array([float("nan"), float("inf"), -1e300] * rows),
        lambda: pa.array([2**62, -(2**62), 0] * rows),
        lambda: pa.array([2**62] * rows, pa.timestamp("ns")),
        lambda: pa.array([True, None] * rows),
        lambda: pa.nulls(rows),
    ])().slice(0, rows)  # fmt: skip
    name = rng.choice([table.column_names[i]] * 5 + ["", "other", table.column_names[0]])
    table = table.set_column(i, name, made)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=max(rows // 3, 1), use_dictionary=rng.random() < 0.5)
    return sink.getvalue().to_pybytes()


def packed(data: bytes, rng: random.Random) -> bytes:
    """Change what a gzip file holds, and perhaps the file too."""
    inner = json_values(gzip.decompress(data), rng)
    return rng.choice([lambda d: d, lambda d: flip(d, rng), lambda d: cut(d, rng)])(gzip.compress(inner))


_WAYS = {
    ".json": (json_values,) * 12, ".jsonl": (json_values,) * 12, ".gz": (packed,) * 5, ".csv": (cells,) * 5,
    ".tsv": (cells,) * 5, ".parquet": (columns,) * 5,
}  # fmt: skip
