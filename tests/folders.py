"""The files of a job's output folder, by the order of its splits: their names come from the inputs'."""

from pathlib import Path

import pyarrow.parquet as pq

from corpus.folder import OutputFolder


def split_ids(folder) -> list[str]:
    """The committed splits, in order."""
    return list(OutputFolder(str(folder)).manifests())


def of_split(folder, suffix: str, number: int = 0) -> Path:
    """The file `SPLIT.suffix` of the folder's number-th split."""
    return Path(folder) / f"{split_ids(folder)[number]}.{suffix}"


def ledger(folder) -> list[dict]:
    """The rows of all ledgers, in order."""
    tables = (pq.read_table(f"{folder}/{split}.parquet") for split in split_ids(folder))
    return [row for table in tables for row in table.to_pylist()]
