"""Which datasets, and which of their rows, a stage may take by their licences, and what cannot be met together.

A dataset whose `columns` name a `licence` has one for each row; where a row has none, the dataset's own counts.
"""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from corpus.catalog import LICENCE, Dataset
from corpus.folder import Manifest, OutputFolder
from corpus.formats import Unfit
from corpus.licences import allowed, clashes, read_licence
from corpus.passthrough import PASSTHROUGH
from corpus.records import Sample
from pipelines.engine.inputs import UserError

COLUMN = {LICENCE: pa.string()}  # of a stage's ledgers, where rows have licences


@dataclass(frozen=True)
class RowLicence:
    """Where a dataset's samples have their licence: the column, what counts without, which are allowed (None: any)."""

    column: str
    otherwise: str
    only: str | None = None

    def of(self, sample: Sample) -> str:
        """Return the name of a sample's licence. Raises Unfit for one that is not allowed."""
        said = (sample.source.get(PASSTHROUGH) or {}).get(self.column)
        licence = read_licence(str(said) if said not in (None, "") else self.otherwise)
        if self.only is not None and not allowed(licence, self.only.split(",")):
            raise Unfit(LICENCE, detail=licence.name)
        return licence.name


def row_licence(dataset: Dataset, only: str | None) -> RowLicence | None:
    """Return where a dataset's rows have their licences; None where all have the dataset's. `only` is --licences."""
    column = dataset.columns.get(LICENCE)
    return RowLicence(column, dataset.licence, only) if column else None


def licences_of(folder: OutputFolder, manifests: Iterable[Manifest]) -> dict[str, dict[str, dict[str, int]]]:
    """Return dataset -> licence -> samples and tokens, of a stage folder's packed rows that have licences."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for manifest in manifests:
        table = folder.table(manifest, columns=["dataset", LICENCE, "tokens"])
        table = table.filter(table[LICENCE].is_valid())
        summed = table.group_by(["dataset", LICENCE], use_threads=False).aggregate(
            [("tokens", "sum"), ([], "count_all")]
        )
        for row in summed.to_pylist():
            counts = found.setdefault(row["dataset"], {}).setdefault(row[LICENCE], {"samples": 0, "tokens": 0})
            counts["samples"] += row["count_all"]
            counts["tokens"] += row["tokens_sum"]
    return {name: dict(sorted(licences.items())) for name, licences in sorted(found.items())}


def licensed(datasets: Mapping[str, Dataset], names: str | None) -> dict[str, Dataset]:
    """Return the datasets whose licence is one of `names`, written with commas, or whose rows have their own; None is
    any.

    UserError names the licences that there are.
    """
    if names is None:
        return dict(datasets)
    licences = {name: read_licence(dataset.licence) for name, dataset in datasets.items()}
    patterns = names.split(",")
    found = {
        name: each for name, each in datasets.items() if LICENCE in each.columns or allowed(licences[name], patterns)
    }
    if not found:
        known = ", ".join(sorted({licence.name for licence in licences.values()}))
        raise UserError(f"--licences {names}: no dataset is under one of these; theirs are {known}")
    return found


def print_clashes(datasets: Iterable[Dataset]) -> None:
    """Say aloud which licences of a mixture cannot be met together."""
    for clash in clashes({each.name: read_licence(each.licence) for each in datasets}):
        print(textwrap.fill(f"LICENCES {clash}", 110, subsequent_indent="  ", break_on_hyphens=False))
