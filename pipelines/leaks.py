#!/usr/bin/env python
"""Look for evaluation data in a finished stage folder: by the ids of images, by their looks, and by text.

--against takes names of sets that have a list (pipelines/guard.py), published files, images, folders, shards, lists.
Every sample of every pack is looked at. Ends with status 1 where anything was found.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from cleaners.dedup import MAX_DISTANCE, Matcher, matcher_of_hex
from cleaners.overlap import FEWEST, RUN, Texts
from cleaners.phash import VIEWS, hash_views
from corpus.packs import Pack, StageFolder, WrongCorpus
from corpus.readers.exclude import Excluded
from corpus.records import BadImage, decode_image
from corpus.tokens import BOX, BOX_END, QUAD, QUAD_END
from pipelines.engine import job
from pipelines.work.annotated import user_errors
from pipelines.work.evaluation_lists import read_set

PACKS_AT_ONCE = 64
SHOWN = 20
_EXAMPLE = "python pipelines/leaks.py demo/stage2 --against refcoco nocaps/images --output leaks.json"


def main() -> None:
    args = make_parser().parse_args()
    try:
        stage = StageFolder(args.stage)
    except WrongCorpus as error:
        raise job.UserError(str(error)) from None
    with user_errors():
        evaluation = read_set(args.against)
    found = list(search(stage, evaluation, args.words, args.workers))
    if args.output:
        Path(args.output).write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    _print(found, evaluation, stage)
    sys.exit(1 if found else 0)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", metavar="STAGE", help="folder that build_stage.py made")
    parser.add_argument(
        "--against", nargs="+", action="extend", required=True, metavar="FILES", help="what must not be in there"
    )
    parser.add_argument("--output", metavar="FILE", help="write every leak to this JSON file")
    parser.add_argument(
        "--words", type=int, default=RUN, metavar="N",
        help=f"look for texts of N words or more (default: {RUN}, at least {FEWEST}: short ones are asked anywhere)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="0: in this process")
    return parser


def search(stage: StageFolder, evaluation: Excluded, words: int = RUN, workers: int = 0) -> Iterator[dict]:
    """Yield leaks: `sample` (its key), `pack`, `by` ("id", "image" or "text"), `of` (the entry), in order of packs."""
    starts = range(0, len(stage), PACKS_AT_ONCE)
    if not workers:
        _open(stage.path, evaluation, words)
        yield from (leak for start in starts for leak in _search(start))
        return
    with ProcessPoolExecutor(workers, initializer=_open, initargs=(stage.path, evaluation, words)) as pool:
        yield from (leak for leaks in pool.map(_search, starts) for leak in leaks)


_searchers: list["Searcher"] = []  # the last is this process's


def _open(path: str, evaluation: Excluded, words: int) -> None:
    _searchers.append(Searcher(StageFolder(path), evaluation, words))


def _search(start: int) -> list[dict]:
    searcher = _searchers[-1]
    return [leak for i in range(start, min(start + PACKS_AT_ONCE, len(searcher.stage))) for leak in searcher.of(i)]


class Searcher:
    """Looks into the packs of a stage for what an evaluation's list names."""

    def __init__(self, stage: StageFolder, evaluation: Excluded, words: int = RUN):
        self.stage, self._evaluation, self._tokenizer = stage, evaluation, stage.tokenizer()
        self._texts = Texts(evaluation.texts, words)
        self._matcher = matcher_of_hex(evaluation.hashes) if evaluation.hashes else None

    def of(self, number: int) -> Iterator[dict]:
        """Yield the leaks of a pack."""
        pack = self.stage[number]
        near = [self._near(data, self._matcher) for data in pack.images] if self._matcher else []
        for sample in pack.samples:
            where = {"sample": sample["key"], "pack": pack.key}
            for identity in sample.get("ids", []):
                if identity in self._evaluation.ids:
                    yield where | {"by": "id", "of": identity}
            for image in sample["images"]:
                if near and near[image]:
                    yield where | {"by": "image", "of": near[image][0], "distance": near[image][1]}
            for entry in self._texts.within(self._text(pack, sample)):
                yield where | {"by": "text", "of": f"text {entry}"}

    def _near(self, data: bytes, matcher: Matcher) -> tuple[str, int] | None:
        try:
            hashes = hash_views(decode_image(data))
        except BadImage:
            return None
        found = matcher.nearest(hashes) if hashes else None
        return (f"image {found[0] // VIEWS}", found[1]) if found else None

    def _text(self, pack: Pack, sample: dict) -> str:
        """Return what a sample says, without control tokens and coordinates."""
        words, inside = [], False
        tokens = pack.tokens[sample["start"] : sample["start"] + sample["length"]]
        for name, text in self._tokenizer.segments(tokens.tolist()):
            inside = name in (BOX, QUAD) or (inside and name not in (BOX_END, QUAD_END))
            words += [text] if name is None and not inside else []
        return " ".join(words)


def _print(found: list[dict], evaluation: Excluded, stage: StageFolder) -> None:
    images, texts = len(evaluation.hashes) // VIEWS, len(evaluation.texts)
    print(f"{stage.num_samples:,} samples against {len(evaluation.ids):,} ids, {images:,} images, {texts:,} texts")
    samples = {by: len({leak["sample"] for leak in found if leak["by"] == by}) for by in ("id", "image", "text")}
    entries = Counter(by for by, _ in {(leak["by"], leak["of"]) for leak in found})
    for by, count in samples.items():
        print(f"  by {by:<6}{count:>9,} samples hold {entries[by]:,} of them")
    for leak in found[:SHOWN]:
        near = f" ({leak['distance']} of 255 bits, at most {MAX_DISTANCE})" if "distance" in leak else ""
        print(f"  {leak['sample']}  {leak['by']}: {leak['of']}{near}")
    if len(found) > SHOWN:
        print(f"  and {len(found) - SHOWN:,} more; --output FILE writes them all")


if __name__ == "__main__":
    job.main(main)
