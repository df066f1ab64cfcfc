#!/usr/bin/env python
"""What a recipe or a dataset would take: core-hours, GPU-hours, requests, terabytes and money, step by step.

With a recipe: of its datasets those rows that their files hold where they are there, else those that the catalog names.
Without: of so many pairs (--rows), or of those files (--input), cleaned, packed and trained on for an epoch of stage 1.
What rests on a rate that was never measured is marked *. Nothing is run and nothing written. docs/scale.md has the
paper's five billion pairs.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from corpus.rules import hint, listed
from pipelines.costs.amounts import FROM_IMAGES, FROM_LINKS, Project, Source, of_recipe, without_recipe
from pipelines.costs.costing import costs_of
from pipelines.costs.rates import Tables, read_tables
from pipelines.costs.sizes import Size, size_of
from pipelines.costs.table import lines_of, record_of
from pipelines.engine import job
from pipelines.engine.inputs import UserError, is_there
from pipelines.recipe.read import Reading, WrongRecipe, read
from pipelines.recipe.steps import steps_of

_EXAMPLES = """\
examples:
  python pipelines/cost.py recipes/qwen_vl.yaml
  python pipelines/cost.py --rows 5e9 --image-bytes 90e3 --files 500000 --prices mine.yaml
  python pipelines/cost.py --input 'raw/*.tar' --size 2b --gpus 8 --json
"""
PAIRS = "pairs"


def main() -> None:
    args = make_parser().parse_args()
    tables = read_tables(args.rates, args.prices, args.gpu)
    try:
        project = _of_recipe(args, tables) if args.recipe else _of_dataset(args, tables)
    except WrongRecipe as error:
        raise UserError(str(error)) from None
    costs = costs_of(project, tables)
    if args.json:
        print(json.dumps(record_of(project, costs, tables), indent=1))
    else:
        print("\n".join(lines_of(project, costs, tables)))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("recipe", nargs="?", metavar="RECIPE", help="see docs/recipes.md; default: one dataset of pairs")
    add("--set", action="append", default=[], metavar="KEY.KEY=VALUE", help="change the recipe")
    add("--rows", nargs="+", action="extend", default=[], metavar="[DATASET=]N", help="raw rows, such as 5e9")
    add("--image-bytes", nargs="+", action="extend", default=[], metavar="[DATASET=]N", help="of a mean image")
    add("--files", nargs="+", action="extend", default=[], metavar="[DATASET=]N", help="that the rows lie in")
    add("--input", nargs="+", action="extend", default=[], metavar="GLOB_OR_URL", help="raw files to measure instead")
    add("--size", default="qwen-vl", help="of the model, without a recipe; default: qwen-vl")
    add("--gpus", type=int, default=64, metavar="N", help="that it trains on, without a recipe; default: 64")
    add("--gpu", default="h100", help="kind of GPU; default: h100")
    add("--prices", metavar="FILE", help="laid over pipelines/costs/prices.yaml, whose keys it has")
    add("--rates", metavar="FILE", help="laid over pipelines/costs/rates.yaml, whose keys it has")
    add("--json", action="store_true", help="for machines, with every dataset's every step and rate")
    return parser


def _of_recipe(args: argparse.Namespace, tables: Tables) -> Project:
    if args.input:
        raise UserError("--input goes without a recipe, which names its own")
    reading = read(args.recipe, args.set)
    reading.refuse()
    known = _known(reading, _given(args, list(reading.chains)), tables)
    return of_recipe(reading, known, tables.rates)


def _given(args: argparse.Namespace, names: list[str]) -> dict[str, dict[str, float]]:
    return {flag: _numbers(getattr(args, flag), flag, names) for flag in ("rows", "image_bytes", "files")}


def _numbers(words: list[str], flag: str, names: list[str]) -> dict[str, float]:
    """Read `N` or `DATASET=N`; N alone is of all of them."""
    found: dict[str, float] = {}
    for word in words:
        name, _, text = word.rpartition("=")
        shown = f"--{flag.replace('_', '-')} {word}"
        try:
            number = float(text)
        except ValueError:
            raise UserError(f"{shown}: a number was expected, such as 5e9") from None
        if not (math.isfinite(number) and number >= 0):
            raise UserError(f"{shown}: a number from 0 was expected")
        if name and name not in names:
            raise UserError(f"{shown}: no dataset {name!r}{hint(name, names)}; there are {listed(names)}")
        found |= dict.fromkeys([name] if name else names, number)
    return found


def _known(reading: Reading, given: Mapping[str, Mapping[str, float]], tables: Tables) -> dict[str, Source]:
    """What is known of each dataset of a recipe: what flags say, else what its files hold where they can be counted."""
    inputs = {step.dataset: step.inputs for step in reversed(steps_of(reading)) if step.dataset}
    return {
        name: _described(name, chain, None if name in given["rows"] else _counted(inputs.get(name, [])), given, tables)
        for name, chain in reading.chains.items()
    }


def _counted(patterns: list[str]) -> Size | None:
    there = [pattern for pattern in patterns if is_there(pattern)]
    try:
        return size_of(there) if there else None
    except UserError:
        return None


def _described(name: str, chain: Sequence, size: Size | None, given: Mapping, tables: Tables) -> Source:
    rows, image_bytes, files, told = 0.0, tables.rates.assumed["image bytes"].value, 0.0, ""
    if name in given["rows"]:
        rows, told = given["rows"][name], "--rows"
    elif size:
        rows, files, image_bytes = size.rows, float(size.files), size.image_bytes or image_bytes
        told = f"{size.files:,} files of {size.bytes / 1e9:,.3g} GB, {size.looked_into} looked into"
    image_bytes, files = given["image_bytes"].get(name, image_bytes), given["files"].get(name, files)
    return Source(name, chain, rows, rows * tables.rates.assumed["kept pairs"].value, image_bytes, told, files)


def _of_dataset(args: argparse.Namespace, tables: Tables) -> Project:
    """One dataset of pairs, of which a table of links is there unless the files hold images."""
    from trainer.sizes import SIZES
    from trainer.stages import make_settings

    if args.size not in SIZES:
        raise UserError(f"--size {args.size}: no such size{hint(args.size, SIZES)}; sizes are {listed(SIZES)}")
    if bool(args.rows) == bool(args.input) or args.set:
        raise UserError("give a recipe, or --rows, or --input; --set goes with a recipe")
    if args.gpus < 1:
        raise UserError(f"--gpus {args.gpus}: at least 1")
    given = _given(args, [PAIRS])
    size = size_of(args.input) if args.input else None
    chain = FROM_IMAGES if size and size.image_bytes else (*FROM_LINKS, *FROM_IMAGES)
    source = _described(PAIRS, chain, size, given, tables)
    return without_recipe(source, args.size, args.gpus, make_settings(1, args.size).batch)


if __name__ == "__main__":
    job.main(main)
