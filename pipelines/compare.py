#!/usr/bin/env python
"""Compare two runs over the same input row by row, or two stage folders by dataset and sample.

Of runs: which rows changed fate, from which rule to which, and some of them; captions of rows that both kept and that
read differently; how far every score drifted. Rows are matched by their keys. Of stages: samples, tokens, and how many
samples both hold. --html writes the same as a page.
"""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import jinja2

from corpus import packs
from corpus.folder import OutputFolder
from corpus.packs import StageFolder
from pipelines.engine import job
from pipelines.work.compared import Line, Runs, compare_runs, compare_stages

_EXAMPLE = "python pipelines/compare.py cleaned/laion-en cleaned/laion-en-030 --html changes.html"


def main() -> None:
    args = make_parser().parse_args()
    folders = [OutputFolder(each) for each in (args.a, args.b)]
    stages = [folder.fs.exists(folder.path(packs.CORPUS)) for folder in folders]
    if stages[0] != stages[1]:
        raise job.UserError(f"{args.a} and {args.b}: one is a stage folder and one is not")
    if stages[0]:
        runs, lines = None, compare_stages(StageFolder(args.a), StageFolder(args.b))
        _print_stages(lines)
    else:
        for folder in folders:
            folder.settings()
        runs, lines = compare_runs(*folders), []
        if not runs.matrix:
            raise job.UserError(f"{args.a} and {args.b} have no row in common: they were not made from the same input")
        _print_runs(runs)
    if args.html:
        Path(args.html).write_text(page(args.a, args.b, runs, lines), encoding="utf-8")
        print(f"page: {args.html}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("a", metavar="A", help="output folder: local path or fsspec URL")
    parser.add_argument("b", metavar="B", help="the other one")
    parser.add_argument("--html", metavar="FILE", help="write a page, too")
    return parser


def _print_runs(runs: Runs) -> None:
    total, same = sum(runs.matrix.values()), sum(n for (a, b), n in runs.matrix.items() if a == b)
    print(
        f"{total:,} rows in both, {total - same:,} with another fate; {runs.only_a:,} in A alone, {runs.only_b:,} in B"
    )
    if runs.changes:
        print(f"\n{'in A':<28}{'in B':<28}{'rows':>12}")
    for (a, b), rows in runs.changes:
        print(f"{a:<28}{b:<28}{rows:>12,}")
        for row in runs.examples[a, b][:2]:
            print(f"    {row['key']}: {row['reads_b'] or row['reads_a'] or ''}"[:110])
    print(f"\n{runs.reread:,} rows that both kept have captions that read differently")
    for row in runs.captions:
        print(f"    {row['key']}\n      A {row['reads_a']}\n      B {row['reads_b']}")
    print(f"\n{'score':<22}{'in both':>12}{'moved':>12}{'mean':>12}{'most':>12}{'A alone':>10}{'B alone':>10}")
    for name, drift in runs.drift.items():
        numbers = f"{drift.rows:>12,}{drift.moved:>12,}{drift.mean:>12.4g}{drift.most:>12.4g}"
        print(f"{name:<22}{numbers}{drift.only_a:>10,}{drift.only_b:>10,}")


def _print_stages(lines: list[Line]) -> None:
    print(f"{'dataset':<20}{'task':<18}{'samples A':>12}{'B':>12}{'in both':>12}{'tokens A':>14}{'B':>14}")
    for line in lines:
        samples = f"{line.samples[0]:>12,}{line.samples[1]:>12,}{line.both:>12,}"
        print(f"{line.dataset:<20}{line.task:<18}{samples}{line.tokens[0]:>14,}{line.tokens[1]:>14,}")


def page(a: str, b: str, runs: Runs | None, lines: list[Line]) -> str:
    """Return the HTML page: self-contained, nothing fetched, all data escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("compare.html.jinja").render(a=a, b=b, runs=runs, lines=lines)


if __name__ == "__main__":
    job.main(main)
