"""Which datasets a stage may take by their licences, and what cannot be met together."""

import textwrap
from collections.abc import Iterable, Mapping

from corpus.catalog import Dataset
from corpus.licences import allowed, clashes, read_licence
from pipelines.engine.inputs import UserError


def licensed(datasets: Mapping[str, Dataset], names: str | None) -> dict[str, Dataset]:
    """Return the datasets whose licence is one of `names`, written with commas; None is any.

    UserError names the licences that there are.
    """
    if names is None:
        return dict(datasets)
    licences = {name: read_licence(dataset.licence) for name, dataset in datasets.items()}
    found = {name: each for name, each in datasets.items() if allowed(licences[name], names.split(","))}
    if not found:
        known = ", ".join(sorted({licence.name for licence in licences.values()}))
        raise UserError(f"--licences {names}: no dataset is under one of these; theirs are {known}")
    return found


def print_clashes(datasets: Iterable[Dataset]) -> None:
    """Say aloud which licences of a mixture cannot be met together."""
    for clash in clashes({each.name: read_licence(each.licence) for each in datasets}):
        print(textwrap.fill(f"LICENCES {clash}", 110, subsequent_indent="  ", break_on_hyphens=False))
