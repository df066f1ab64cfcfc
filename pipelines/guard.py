#!/usr/bin/env python
"""Name what must not be trained on: evaluation sets, by ids, perceptual hashes and hashed n-grams of their texts.

`add NAME FILES` puts what FILES hold (COCO's or Karpathy's JSON, refs(*).p, questions, images, folders, shards, lists)
into evaluation/lists/NAME.txt, which every cleaning job then keeps out. Without a command: what is known of which set.
"""

import argparse
import re
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from cleaners.phash import VIEWS
from corpus.evaluation import EvaluationSet, evaluation_sets, list_path
from corpus.folder import OutputFolder
from corpus.readers.exclude import Excluded, load_excluded
from pipelines.engine import job
from pipelines.work.annotated import user_errors
from pipelines.work.evaluation_lists import lines, read_set, union

_EXAMPLE = "python pipelines/guard.py add refcoco 'refcoco/refs(unc).p'"


def main() -> None:
    args = make_parser().parse_args()
    if args.command == "add":
        with user_errors():
            add(args.name, args.files)
    for one in evaluation_sets().values():
        print(f"{one.name:<16}{_state(one):<44}{one.says}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    adding = commands.add_parser("add", help="add what FILES hold to a set's list", description="Extend a set's list.")
    adding.add_argument("name", metavar="NAME", help="a set of evaluation/sets.yaml, or a new one")
    adding.add_argument("files", nargs="+", metavar="FILES", help="published files, images, folders, shards, lists")
    return parser


def add(name: str, files: list[str]) -> None:
    """Extend the list of a set. Raises UserError or BadFile; the list then stays as it was."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name):
        raise job.UserError(f"{name!r}: a set's name is lower-case letters, digits and -")
    path, found = list_path(name), read_set(files)
    known = load_excluded([str(path)]) if path.exists() else Excluded()
    path.parent.mkdir(parents=True, exist_ok=True)
    written = "".join(f"{line}\n" for line in lines(union([known, found])))
    OutputFolder(str(path.parent)).write(path.name, written.encode())


def _state(one: EvaluationSet) -> str:
    if one.listed:
        held = load_excluded([str(list_path(one.name))])
        return f"{len(held.ids)} ids, {len(held.hashes) // VIEWS} images, {len(held.texts)} texts"
    return "known by its file names" if one.complete else "NO LIST"


if __name__ == "__main__":
    job.main(main)
