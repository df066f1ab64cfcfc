"""Jobs whose rules look at a whole dataset: a first pass writes what the rule compares, a reduction decides, and a
second pass over the same splits writes what is kept.

The first pass is a job of its own, in a folder inside the output folder, so a killed run resumes in either pass; the
reduction reads its tables and is made again on every start. What it decided for a split is part of that split's
fingerprint in the second pass.
"""

import argparse
import copy
import hashlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from corpus.damage import Damaged
from corpus.folder import OutputFolder
from corpus.rules import RuleTable
from corpus.splits import URLS, Sink, Split
from pipelines.engine import job


def first_pass(
    name: str, args: argparse.Namespace, splits: Sequence[Split], settings: Mapping, work: Callable, *,
    scores: Mapping[str, pa.DataType], rules: RuleTable, part_of: str,
) -> OutputFolder:  # fmt: skip
    """Run `work` as a job of tables, part of another, in the folder `.NAME` of the output folder; return that."""
    inner = copy.copy(args)
    inner.output = f"{str(args.output).rstrip('/')}/.{name}"
    print(f"pass 1 of 2: {name}")
    job.run(name, inner, splits, settings, work, scores=scores, rules=rules, table=URLS, part_of=part_of)
    print("\npass 2 of 2")
    return OutputFolder(inner.output if "://" in inner.output else str(Path(inner.output).resolve()))


def keep_rows(sink: Sink, rows: Sequence[Mapping], schema: pa.Schema) -> None:
    """Record kept rows in the first pass: ledger rows, and a table with the columns of `schema`, key and row too."""
    if rows:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        sink.write_table(table)
        kept = {"outcome": pa.array(["kept"] * len(rows)), "rule": pa.nulls(len(rows), pa.string())}
        sink.rows(pa.table({"key": table["key"], "row": table["row"], **kept}))


@dataclass(frozen=True)
class Store:
    """What the first pass found: the `rows` of all splits, one after another, and where those of each split end."""

    rows: np.ndarray
    ends: dict[str, int]

    def owners(self) -> np.ndarray:
        """Return the split of each row, as an index into `names`: int64 [n]."""
        ends = np.fromiter(self.ends.values(), np.int64)
        return np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))

    def names(self) -> np.ndarray:
        """Return the ids of the splits, in order."""
        return np.array(list(self.ends), str)

    def cut(self, rows: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (id of a split, its part) of an array that has a place for every row."""
        yield from zip(self.ends, np.split(rows, list(self.ends.values())[:-1]), strict=True)

    def parts(self) -> list[np.ndarray]:
        """Return the rows of each split, in order."""
        return [part for _, part in self.cut(self.rows)]


@contextmanager
def stored(
    folder: OutputFolder, splits: Sequence[Split], make: Callable[[str, pa.Table], np.ndarray]
) -> Iterator[Store]:
    """Yield `make(id, table)` of every split, in the order of `splits`: joined, one memory map of a temporary file."""
    ends, kind = [], None
    with tempfile.TemporaryFile(prefix="first-pass-") as file:
        for split in splits:
            array = make(split.id, _table(folder, split.id))
            kind = kind or (array.dtype, array.shape[1:])
            file.write(np.ascontiguousarray(array))
            ends.append((ends[-1] if ends else 0) + len(array))
        file.flush()
        shape = (ends[-1] if ends else 0, *(kind[1] if kind else ()))
        rows = np.memmap(file, kind[0], "r", shape=shape) if shape[0] else np.zeros(shape, kind and kind[0])
        yield Store(rows, dict(zip((split.id for split in splits), ends, strict=True)))


def _table(folder: OutputFolder, split: str) -> pa.Table:
    return folder.table(folder.manifest(split), URLS)


def decided(folder: OutputFolder, splits: Sequence[Split], decisions: Iterable[tuple[str, np.ndarray]]) -> list[Split]:
    """Write each split's decision into the first pass's folder, and return the splits of the second pass.

    `decisions` are (id of a split, its decision), one of every split in any order.
    """
    by_id, result = {split.id: split for split in splits}, {}
    for name, decision in decisions:
        split, buffer = by_id.pop(name), io.BytesIO()
        np.save(buffer, decision)
        data = buffer.getvalue()
        folder.write(f"{split.id}.npy", data)
        mark = split.fingerprint | {"decision": hashlib.sha256(data).hexdigest()}
        result[name] = replace(split, fingerprint=mark)
    if by_id:
        raise AssertionError(f"{len(by_id)} splits were not decided on, such as {min(by_id)}")
    return [result[split.id] for split in splits]


def decision_of(split: Split, folder: str) -> np.ndarray:
    """Return what the reduction decided for a split; `folder` is the first pass's."""
    data = OutputFolder(folder).read(f"{split.id}.npy")
    if hashlib.sha256(data).hexdigest() != split.fingerprint["decision"]:
        raise Damaged(f"{folder}/{split.id}.npy was altered while the job ran: run it again")
    return np.load(io.BytesIO(data))
