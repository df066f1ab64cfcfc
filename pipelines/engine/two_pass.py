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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.folder import OutputFolder
from corpus.rules import RuleTable
from corpus.splits import Sink, Split
from pipelines.engine import job


def first_pass(
    name: str, args: argparse.Namespace, splits: Sequence[Split], settings: Mapping, work: Callable, *,
    scores: Mapping[str, pa.DataType], rules: RuleTable, part_of: str,
) -> OutputFolder:  # fmt: skip
    """Run `work` as a job of tables, part of another, in the folder `.NAME` of the output folder; return that."""
    inner = copy.copy(args)
    inner.output = f"{str(args.output).rstrip('/')}/.{name}"
    print(f"pass 1 of 2: {name}")
    job.run(name, inner, splits, settings, work, scores=scores, rules=rules, table=True, part_of=part_of)
    print("\npass 2 of 2")
    return OutputFolder(inner.output if "://" in inner.output else str(Path(inner.output).resolve()))


def keep_rows(sink: Sink, rows: Sequence[Mapping], schema: pa.Schema) -> None:
    """Record kept rows in the first pass: ledger rows, and a table with the columns of `schema`, key and row too."""
    if rows:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        sink.write_table(table)
        kept = {"outcome": pa.array(["kept"] * len(rows)), "rule": pa.nulls(len(rows), pa.string())}
        sink.rows(pa.table({"key": table["key"], "row": table["row"], **kept}))


@contextmanager
def stored(folder: OutputFolder, make: Callable[[pa.Table], np.ndarray]) -> Iterator[list[np.ndarray]]:
    """Yield `make(table of a split)` for every split in order, as memory maps of temporary files."""
    with tempfile.TemporaryDirectory(prefix="first-pass-") as temporary:
        arrays = []
        for split in sorted(folder.manifests()):
            path = Path(temporary) / f"{split}.npy"
            np.save(path, make(_table(folder, split)))
            arrays.append(np.load(path, mmap_mode="r"))
        yield arrays


def _table(folder: OutputFolder, split: str) -> pa.Table:
    with folder.fs.open(folder.path(f"{split}.urls.parquet"), "rb") as file:
        return pq.read_table(file)


def decided(folder: OutputFolder, splits: Sequence[Split], decisions: Sequence[np.ndarray]) -> list[Split]:
    """Write each split's decision into the first pass's folder, and return the splits of the second pass."""
    result = []
    for split, decision in zip(splits, decisions, strict=True):
        buffer = io.BytesIO()
        np.save(buffer, decision)
        data = buffer.getvalue()
        folder.write(f"{split.id}.npy", data)
        mark = split.fingerprint | {"decision": hashlib.sha256(data).hexdigest()}
        result.append(replace(split, fingerprint=mark))
    return result


def decision_of(split: Split, folder: str) -> np.ndarray:
    """Return what the reduction decided for a split; `folder` is the first pass's."""
    return np.load(io.BytesIO(OutputFolder(folder).read(f"{split.id}.npy")))
