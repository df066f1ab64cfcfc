#!/usr/bin/env python
"""Clean academic and in-house captions (Qwen-VL A.1): CC12M, CC3M, SBU, COCO Caption, COCO-CN, LAION-COCO, your own.

Inputs: the owners' files with --images beside them, or WebDataset shards that hold the images already. Captions with
special tags go first, before HTML cleaning would hide them; of several texts for one image the longest is kept, over
the whole dataset.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa
import xxhash

from cleaners import rules
from cleaners.captions import CANDIDATE, longest_per_image
from corpus.catalog import Dataset
from corpus.folder import OutputFolder
from corpus.readers import captions
from corpus.readers.boundary import looked_up, lost, made_of
from corpus.readers.rows import BadRow, CaptionRow
from corpus.readers.slices import UNREADABLE, Slice, detect, plan, plan_all, plan_arrays, read
from corpus.records import Sample
from corpus.rules import RuleTable
from corpus.splits import Sink, Split
from corpus.verdicts import KEPT, Lost, Verdict, dropped, failed
from pipelines.engine import job, two_pass
from pipelines.engine.thumbnails import Thumbnails
from pipelines.work import annotated
from pipelines.work.datasets import add_rule_flag, add_strict_latin, rules_of
from pipelines.work.places import clean_each

ROWS_PER_SPLIT = 20_000
ROWS_AT_ONCE = 512
_FIRST_PASS = pa.schema(
    [
        ("key", pa.string()),
        ("row", pa.int64()),
        ("image_id", pa.uint64()),
        ("digest", pa.uint64()),
        ("length", pa.int64()),
    ]
)
_EXAMPLE = (
    "python pipelines/clean_captions.py --dataset coco-caption --images coco/train2014 \\\n"
    "      --input annotations/captions_train2014.json --output cleaned/coco-caption \\\n"
    "      --exclude annotations/captions_val2014.json"
)


def main() -> None:
    args = make_parser().parse_args()
    clean_each("clean_captions", args, _clean)


def _clean(args: argparse.Namespace, dataset: Dataset) -> None:
    layout = captions.READERS[dataset.reader]
    args.allow_missing |= layout.old_links
    inputs = job.find_inputs(args.input)
    with annotated.user_errors():
        annotated.check_images(
            args, dataset, needed=not (layout.own_images or all(detect(path) == "tar" for path in inputs))
        )
        splits = annotated.as_splits(args, plan_all(inputs, lambda path: _slices(path, layout)))
    longest = args.texts_per_image == "longest" or (args.texts_per_image is None and layout.several_texts)
    options = {"dataset": dataset, "limit": args.limit, "pictures": annotated.image_options(args, dataset)}
    settings = annotated.common_settings(dataset) | annotated.image_settings(args, dataset)
    settings["texts_per_image"] = "longest" if longest else "all"
    judged_by = {"scores": scores_of(dataset), "rules": rules_of(dataset)}
    if longest:
        first = annotated.as_work(measure_split, **options)
        folder = two_pass.first_pass("texts", args, splits, settings, first, part_of="clean_captions", **judged_by)
        splits = two_pass.decided(folder, splits, _longest(folder, splits))
        options["decisions"] = folder.url
    second = annotated.as_work(clean_split, **options)
    job.run("clean_captions", args, splits, settings, second, **judged_by)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, from_catalog=True, reads_images=True)
    annotated.add_image_flags(parser)
    add_rule_flag(parser)
    add_strict_latin(parser)
    parser.add_argument(
        "--texts-per-image", choices=("longest", "all"),
        help="default: longest for academic sets (CC12M, CC3M, SBU, COCO), all for others",
    )  # fmt: skip
    return parser


def scores_of(dataset: Dataset) -> dict[str, pa.DataType]:
    """Return the ledger's columns of what is measured on a caption and its image."""
    return rules_of(dataset).scores() | annotated.IMAGE_SCORES


def _slices(path: str, layout: captions.CaptionReader) -> Iterator[Slice]:
    kind = detect(path)
    if kind == "json" and layout.arrays:
        yield from plan_arrays(path, ROWS_PER_SPLIT, layout.arrays)
    else:
        yield from plan(path, ROWS_PER_SPLIT, layout.array if kind == "json" else None)


def _longest(folder: OutputFolder, splits: Sequence[Split]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each split's rows that are the longest text of their image, told by id and then by the image's bytes."""
    with two_pass.stored(folder, splits, lambda _, table: _candidates(table, "image_id")) as by_id:
        of_id = dict(zip(by_id.ends, longest_per_image(by_id.parts()), strict=True))
    digests = two_pass.stored(folder, splits, lambda split, table: _candidates(table, "digest", of_id[split]))
    with digests as by_digest:
        yield from zip(by_digest.ends, longest_per_image(by_digest.parts()), strict=True)


def _candidates(table: pa.Table, image: str, among: np.ndarray | None = None) -> np.ndarray:
    found = np.empty(table.num_rows, CANDIDATE)
    if table.num_rows:
        found["image"], found["length"], found["row"] = (table[name].to_numpy() for name in (image, "length", "row"))
    if among is not None:
        found = found[np.isin(found["row"], among)]
    return np.sort(found, order=["image", "row"])


def measure_split(split: Split, sink: Sink, **options) -> None:
    """First pass: judge every row, and of those that would be kept note the image and the length of the text."""
    waiting = []
    for judged in judge(split, sink, **options):
        if judged.verdict is not None:
            judged.record(sink)
            continue
        row, data = judged.caption, judged.picture.image.data
        digest = xxhash.xxh3_64_intdigest(data)
        identity = next(iter(row.image.ids), None) or row.image.url or next(iter(row.image.names), None)
        image_id = xxhash.xxh3_64_intdigest(identity.encode()) if identity else digest
        found = {"image_id": image_id, "digest": digest, "length": len(judged.text)}
        waiting.append({"key": judged.key, "row": judged.row} | found)
    two_pass.keep_rows(sink, waiting, _FIRST_PASS)


def clean_split(split: Split, sink: Sink, *, dataset: Dataset, decisions: str | None = None, **options) -> None:
    """Second pass, or the only one: write the samples of a split and a ledger row for every row of it."""
    chosen = set(two_pass.decision_of(split, decisions).tolist()) if decisions else None
    thumbnails = Thumbnails()
    for judged in judge(split, sink, dataset=dataset, **options):
        if judged.verdict is None and chosen is not None and judged.row not in chosen:
            judged.verdict = dropped("longer_text_exists", len(judged.text))
        if judged.verdict is not None:
            judged.record(sink, thumbnails)
            continue
        picture, before = judged.picture, judged.caption.text
        sample = Sample(
            key=judged.key, dataset=dataset.name, task="caption", language=dataset.language, text=judged.text,
            width=picture.width, height=picture.height, images=[picture.image],
            source={**judged.caption.source, "row": judged.row},
        )  # fmt: skip
        changed = {"text_before": before, "text_after": judged.text} if before != judged.text else {}
        sink.keep(sample, judged.row, **judged.columns, **changed)


@dataclass(slots=True)
class _Judged:
    """A row and what the rules made of it: a verdict, or a picture and a text."""

    key: str
    row: int
    caption: CaptionRow | None = None
    verdict: Verdict | None = None
    picture: annotated.Picture | None = None
    text: str = ""
    columns: dict = field(default_factory=dict)

    def record(self, sink: Sink, thumbnails: Thumbnails | None = None) -> None:
        """Write the ledger row of a row that was not kept."""
        before = {"text_before": self.caption.text} if self.caption else {}
        data = self.picture.image.data if self.picture and thumbnails else None
        shown = thumbnails.of(self.verdict.rule, data) if data else None
        sink.lose(self.key, self.row, self.verdict, thumbnail=shown, **before, **self.columns)


def judge(
    split: Split, sink: Sink, *, dataset: Dataset, pictures: Mapping, limit: int | None = None,
) -> Iterator[_Judged]:  # fmt: skip
    """Yield every row of a split, judged by every rule that needs no other row, in order."""
    finder, known = annotated.Pictures(**pictures), rules_of(dataset)
    rows = _rows(split, sink, dataset, limit)
    while batch := list(islice(rows, ROWS_AT_ONCE)):
        judged = [_read(annotated.key_of(dataset, split, row), row, caption, finder) for row, caption in batch]
        _run_rules([each for each in judged if each.verdict is None], dataset, known)
        yield from judged


def _rows(split: Split, sink: Sink, dataset: Dataset, limit: int | None) -> Iterator[tuple[int, CaptionRow | BadRow]]:
    piece, url = annotated.slice_of(split), split.source["url"]
    layout, columns = captions.layout_of(dataset.reader, piece.format)
    tables, why = looked_up(lambda: layout.tables(url) if layout.tables and piece.format != UNREADABLE else {})
    columns |= dataset.columns
    for row, record in annotated.records(split, sink, limit, read if why is None else partial(lost, why=why)):
        (caption,) = made_of(record, lambda record: layout.parse(record, columns, tables), layout.shape)
        yield row, caption


def _read(key: str, row: int, caption: CaptionRow | BadRow, pictures: annotated.Pictures) -> _Judged:
    if isinstance(caption, BadRow):
        return _Judged(key, row, verdict=failed(caption.kind, caption.detail))
    try:
        return _Judged(key, row, caption, picture=pictures.load(caption.image))
    except Lost as lost:
        return _Judged(key, row, caption, lost.verdict)


def _run_rules(judged: list[_Judged], dataset: Dataset, known: RuleTable) -> None:
    if not judged:
        return
    table = pa.table(
        {
            "text": pa.array([each.caption.text for each in judged], pa.string()),
            "width": pa.array([each.picture.width for each in judged], pa.int32()),
            "height": pa.array([each.picture.height for each in judged], pa.int32()),
        }
    )
    found = rules.clean(table, dataset.rules, language=dataset.spoken, known=known)
    for each, result in zip(judged, found.to_pylist(), strict=True):
        verdict = Verdict(*(result.pop(name) for name in ("outcome", "rule", "value", "threshold", "detail")))
        each.text = result.pop("text_after")
        each.verdict = None if verdict.outcome == KEPT else verdict
        each.columns = result | {"width": each.picture.width, "height": each.picture.height}


if __name__ == "__main__":
    job.main(main)
