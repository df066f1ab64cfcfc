"""Are the columns that a recipe names in its raw data? A look into the first file of each step."""

import csv
from collections.abc import Iterator, Sequence
from itertools import islice

import fsspec
import pyarrow.parquet as pq

from corpus.bugs import raise_ours
from corpus.passthrough import columns_of, no_such
from corpus.readers import pairs
from corpus.readers.json_scan import scan
from corpus.readers.slices import detect, open_file
from corpus.rules import hint, listed
from corpus.shards import read_samples
from corpus.values import load_json
from pipelines.recipe.read import Reading
from pipelines.recipe.steps import Step
from pipelines.work.datasets import JOBS

TABLES = (".parquet", ".jsonl", ".csv", ".tsv")
RECORDS = 100  # are looked at where each may have columns of its own


def check(reading: Reading, step: Step, files: Sequence[str]) -> None:
    """Note columns that the entry names and the first of its files lacks."""
    if step.dataset and files:
        _check_named(reading, step, files)
        _check_carried(reading, step, files[0])


def _check_named(reading: Reading, step: Step, files: Sequence[str]) -> None:
    """Look into the first file that has columns: are those that the entry names there?"""
    file = next((url for url in files if url.endswith(TABLES)), None)
    if file is None or reading.recipe is None:
        return
    path, dataset = ("datasets", step.dataset, "columns"), reading.catalog[step.dataset]
    try:
        names = _columns_in(file)
        if step.job == "clean_laion" and file.endswith(".parquet"):
            with fsspec.open(file, "rb") as stream:
                pairs.table_layout(pq.read_schema(stream), dataset.columns, dataset.reader, file)
    except pairs.MissingColumns as error:
        reading.wrong(path, str(error).partition(". Choose")[0])
        names = _columns_in(file)
    except Exception as error:
        raise_ours(error)
        reading.wrong(path[:2], f"{file} cannot be read: {error}")
        return
    for ours, theirs in (reading.recipe.datasets[step.dataset].columns or {}).items():
        if names and theirs not in names:
            reading.wrong(
                (*path, ours), f"{file} has no column {theirs!r}{hint(theirs, names)}; it has {listed(names)}"
            )


def _check_carried(reading: Reading, step: Step, file: str) -> None:
    """Those that are passed through: the job stops where no record has one."""
    dataset = reading.catalog[step.dataset]
    carried = dataset.passthrough if file.endswith(TABLES) else dataset.carried
    if not carried:
        return
    try:
        names = list(_columns_of_records(file, step.job, dataset.reader))
    except Exception as error:  # a file that cannot be read is told of by others
        raise_ours(error)
        return
    if names and (lacking := [name for name in carried if name not in names]):
        reading.wrong(("datasets", step.dataset, "passthrough"), f"{file} has no {no_such(lacking, names)}")


def _columns_of_records(file: str, job: str, reader: str) -> dict[str, None]:
    """Return the columns that the first records of a file have."""
    if file.endswith((".parquet", ".csv", ".tsv")):
        return dict.fromkeys(_columns_in(file))
    return {name: None for record in islice(_records(file, job, reader), RECORDS) for name in columns_of(record)}


def _records(file: str, job: str, reader: str) -> Iterator[object]:
    """Yield the records of a JSON, JSON lines or tar; none of a JSON whose records may come after much else."""
    if file.endswith((".tar", ".tar.gz", ".tgz")):
        yield from read_samples(file)
        return
    readers = JOBS[job].readers if job in JOBS else {}
    layout = readers.get(reader) if isinstance(readers, dict) else None
    kind = detect(file)
    with open_file(file) as stream:
        if kind == "jsonl":
            yield from (load_json(line) for line in stream if line.strip())
        elif kind == "json" and not getattr(layout, "array", None) and not getattr(layout, "arrays", None):
            yield from (found.value for found in scan(stream))


def _columns_in(file: str) -> list[str]:
    """Return the names of a table's columns; of JSON lines, those of the first."""
    if file.endswith(".parquet"):
        with fsspec.open(file, "rb") as stream:
            return pq.read_schema(stream).names
    with fsspec.open(file, "rt", encoding="utf-8", errors="replace") as stream:
        line = next(iter(stream), "")
    if file.endswith(".jsonl"):
        record = load_json(line.encode())
        return list(record) if isinstance(record, dict) else []
    return next(csv.reader([line], delimiter="\t" if file.endswith(".tsv") else ","), [])
