#!/usr/bin/env python
"""Hand cleaned or stage folders on: to Megatron Energon, LLaVA, LLaMA-Factory (ShareGPT), or Hugging Face `datasets`.

`--to energon` writes `.nv-meta` beside the shards, which stay as they are. `--to llava DIR` and `--to sharegpt DIR`
write one JSON list of dialogues and the images in folders, `--to parquet DIR` tables with an Image feature. Every
sample is verified as it is read; what a format cannot hold is in the ledger of DIR, and told at the end.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow.compute as pc

from corpus.folder import OutputFolder
from pipelines.engine import job
from pipelines.engine.inputs import UserError
from pipelines.explorer.folders import Opened
from pipelines.exports import dialogues, energon, tables
from pipelines.exports.dialects import DIALECTS
from pipelines.exports.sources import ROWS, is_stage, open_sources, plan

FORMATS = ("energon", *DIALECTS, "parquet")
_EXAMPLE = "python pipelines/export.py demo/cleaned --to sharegpt demo/sharegpt"


def main() -> None:
    args = make_parser().parse_args()
    form, args.output = _target(args.to)
    opened = open_sources(args.folder, one_kind=form != "energon")
    if form == "energon":
        energon.prepare_all(opened)
        return
    folder = OutputFolder(args.output if "://" in args.output else str(Path(args.output).resolve()))
    args.output = folder.url
    _refuse_inside(folder, opened)
    _export(form, args, opened, folder)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folder", nargs="+", metavar="INPUT", help="cleaned folders, or stage folders, or folders above such ones"
    )
    parser.add_argument(
        "--to", nargs="+", action="extend", required=True, metavar="WORD",
        help=f"FORMAT DIR; the formats are {', '.join(FORMATS)}; energon takes no DIR",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="read at most N samples of each shard, for a quick look")
    parser.add_argument("--workers", type=int, metavar="N", help="0: in this process; default: every core")
    parser.add_argument("--overwrite", action="store_true", help="remove what another run left in DIR")
    job.add_quarantine_flag(parser)
    return parser


def _target(words: Sequence[str]) -> tuple[str, str]:
    """Return (format, output folder, "" for energon). Raises UserError."""
    form, places = words[0], words[1:]
    if form not in FORMATS:
        raise UserError(f"--to {form}: no such format; formats are {', '.join(FORMATS)}")
    if form == "energon" and places:
        raise UserError("--to energon takes no DIR: it writes .nv-meta beside the shards")
    if form != "energon" and len(places) != 1:
        raise UserError(f"--to {form} takes one DIR to write into")
    return form, places[0] if places else ""


def _refuse_inside(folder: OutputFolder, opened: Sequence[Opened]) -> None:
    if any(f"{each.folder.url}/".startswith(f"{folder.url}/") for each in opened):
        raise UserError(f"{folder.url} holds the data that are handed on: name another DIR")


def _export(form: str, args: argparse.Namespace, opened: Sequence[Opened], folder: OutputFolder) -> None:
    names = sorted({name for each in opened for name in _datasets(each)})
    args.dataset = names[0] if len(names) == 1 else names
    if args.overwrite and folder.fs.exists(folder.path(dialogues.IMAGES)):
        folder.fs.rm(folder.path(dialogues.IMAGES), recursive=True)
    splits = plan(opened)
    run = partial(job.run, "export", args, splits, {"to": form, "packs": is_stage(opened[0])}, table=ROWS)
    if form == "parquet":
        counts = run(lambda split, sink: tables.export_split(split, sink, args.limit), scores={})
        tables.finish(folder)
        print(f"{counts.kept:,} rows: datasets.load_dataset({folder.url!r})")
        return
    dialect = DIALECTS[form]
    work = lambda split, sink: dialogues.export_split(split, sink, dialect, folder, args.limit)  # noqa: E731
    counts = run(work, scores=dialogues.SCORES)
    written = dialogues.finish(folder, form)
    if written != counts.kept:
        raise AssertionError(f"{written} dialogues in {form}.json, {counts.kept} in the ledgers")
    _print_lost(folder)
    print(f"{written:,} dialogues: {folder.url}/{form}.json")


def _datasets(opened: Opened) -> Sequence[str]:
    """Return the names of a folder's datasets; of a stage folder all that are mixed in it."""
    if opened.stage is not None:
        return sorted(opened.stage.record.get("datasets", {}))
    name = opened.settings.get("dataset")
    return [name] if isinstance(name, str) else [opened.folder.url.rpartition("/")[2]]


def _print_lost(folder: OutputFolder) -> None:
    """Tell what was left out of dialogues that were kept."""
    for name in dialogues.SCORES:
        columns = [folder.table(manifest, columns=[name])[name] for manifest in folder.manifests().values()]
        total = sum(pc.sum(column).as_py() or 0 for column in columns)
        inside = sum(pc.sum(pc.greater(column, 0)).as_py() or 0 for column in columns)
        if total:
            print(f"left out of {inside:,} dialogues: {total:,} {name.removesuffix('_lost')}")


if __name__ == "__main__":
    job.main(main)
