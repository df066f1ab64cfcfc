#!/usr/bin/env python
"""Show the paper's Tables 2 and 3 with the counts of cleaned folders beside them."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from corpus.catalog import Dataset
from corpus.folder import OutputFolder
from corpus.ledger import Counts
from pipelines.engine import job
from pipelines.work.datasets import whole_catalog

_EXAMPLE = "python pipelines/paper_tables.py cleaned/*"
# Table 3's rows: the paper's total and the tasks of catalog.yaml that make it up.
TABLE_3 = {
    "Captioning": (19_700_000, ("caption",)),
    "VQA": (3_600_000, ("vqa", "ocr_vqa")),
    "Grounding": (3_500_000, ("grounded_caption",)),
    "Ref grounding": (8_700_000, ("referring",)),
    "Grounded captioning": (8_700_000, ("region_caption",)),
    "OCR": (24_800_000, ("ocr",)),
    "Pure text": (7_800_000, ("text",)),
}


def main() -> None:
    args = make_parser().parse_args()
    catalog = whole_catalog(args.catalog)
    counts = read_counts(args.folders, catalog)
    print("\n".join([*table_2(catalog, counts), "", *table_3(catalog, counts)]))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", help="output folders of cleaning jobs")
    parser.add_argument("--catalog", metavar="FILE", help="default: the catalog.yaml of this checkout")
    return parser


def read_counts(folders: Sequence[str], catalog: Mapping[str, Dataset]) -> dict[str, Counts]:
    """Add up the counts of cleaned folders by dataset. UserError for a folder of no dataset of the catalog."""
    counts: dict[str, Counts] = {}
    for url in folders:
        folder = OutputFolder(url)
        name = folder.settings().get("dataset")
        if name not in catalog:
            raise job.UserError(f"{url} was made of {name!r}, which is not in the catalog; it is no cleaned dataset")
        found = sum((manifest.counts for manifest in folder.manifests().values()), Counts())
        counts[name] = counts.get(name, Counts()) + found
    return counts


def table_2(catalog: Mapping[str, Dataset], counts: Mapping[str, Counts]) -> Iterator[str]:
    """Yield the lines of Table 2 (stage 1): rows before and after cleaning, the paper's and ours."""
    yield "Table 2, stage 1" + f"{'the paper':>42}{'ours':>36}"
    yield f"{'':4}{'dataset':<14}" + 2 * f"{'original':>15}{'cleaned':>15}{'%':>6}"
    total = [0, 0, 0, 0]
    for dataset in (d for d in catalog.values() if d.original):
        ours = counts.get(dataset.name)
        numbers = [dataset.original, dataset.cleaned, *((ours.rows, ours.kept) if ours else (None, None))]
        total = [a + (b or 0) for a, b in zip(total, numbers, strict=True)]
        yield _line(dataset.language, dataset.name, numbers)
    yield _line("", "total", total)


def _line(language: str, name: str, numbers: Sequence[int | None]) -> str:
    halves = []
    for original, cleaned in (numbers[:2], numbers[2:]):
        share = f"{100 * cleaned / original:>6.0f}" if original else f"{'':>6}"
        halves.append(f"{_number(original):>15}{_number(cleaned):>15}{share}")
    return f"{language:<4}{name:<14}" + "".join(halves)


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def table_3(catalog: Mapping[str, Dataset], counts: Mapping[str, Counts]) -> Iterator[str]:
    """Yield the lines of Table 3 (stage 2): samples by task, the paper's and ours.

    A grounding sample serves each of its dataset's tasks, and build_stage.py makes several of its phrases, so it is
    counted once under each of them here.
    """
    yield f"{'Table 3, stage 2':<22}{'the paper':>14}{'ours':>14}  datasets"
    for title, (paper, tasks) in TABLE_3.items():
        fitting = [d for d in catalog.values() if set(d.tasks) & set(tasks) and set(d.stages.get(2, {})) & set(tasks)]
        there = [d for d in fitting if d.name in counts]
        ours = sum(counts[d.name].kept for d in there) if there else None
        names = ", ".join(f"{d.name} {counts[d.name].kept:,}" for d in there) or "-"
        missing = (
            f"; not here: {', '.join(d.name for d in fitting if d.name not in counts)}"
            if len(there) < len(fitting)
            else ""
        )
        yield f"{title:<22}{paper:>14,}{_number(ours):>14}  {names}{missing}"


if __name__ == "__main__":
    job.main(main)
