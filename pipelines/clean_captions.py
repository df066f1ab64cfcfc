#!/usr/bin/env python
"""Clean academic and in-house captions (Qwen-VL A.1): CC12M, CC3M, SBU, COCO Caption, COCO-CN, LAION-COCO, your own.

Inputs: the owners' files with --images beside them, or WebDataset shards that hold the images already. Captions with
special tags go first, before HTML cleaning would hide them; of several texts for one image the longest is kept, over
the whole dataset.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa
import xxhash

from cleaners import rules
from cleaners.captions import CANDIDATE, longest_per_image
from corpus.catalog import Dataset, find, load_catalog
from corpus.folder import OutputFolder
from corpus.ledger import DROPPED
from corpus.readers import captions
from corpus.readers.rows import BadRow, CaptionRow
from corpus.readers.slices import Slice, detect, plan, plan_arrays, read
from corpus.records import BadImage, Sample
from corpus.splits import Sink, Split
from pipelines.engine import job, two_pass
from pipelines.work import annotated

ROWS_PER_SPLIT = 20_000
ROWS_AT_ONCE = 512
OF_OLD_LINKS = ("cc12m", "cc3m", "sbu", "laion-coco")  # an image that is gone from the web is no fault here
ACADEMIC = ("cc12m", "cc3m", "sbu", "coco", "coco-cn")  # whose images may have several texts
SCORES = {name: kind for name, kind in rules.SCORES.items() if name != "clip_score"} | annotated.IMAGE_SCORES
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
    "      --input annotations/captions_train2014.json --output cleaned/coco-caption"
)


def main() -> None:
    args = _parser().parse_args()
    known = {name: rule.defaults for name, rule in rules.RULES.items()}
    dataset = find(load_catalog(args.catalog, known), args.dataset, job="clean_captions")
    args.allow_missing |= dataset.reader in OF_OLD_LINKS
    inputs = job.find_inputs(args.input)
    with annotated.user_errors():
        annotated.check_images(args, needed=_needs_images(inputs, dataset))
        splits = annotated.as_splits(piece for path in inputs for piece in _slices(path, dataset.reader))
    longest = args.texts_per_image == "longest" or (args.texts_per_image is None and dataset.reader in ACADEMIC)
    options = {"dataset": dataset, "limit": args.limit, "pictures": annotated.image_options(args)}
    settings = annotated.common_settings(
        dataset, [*annotated.GUARD_RULES, "no_text", *rules.RULES, "longer_text_exists"]
    )
    settings |= annotated.image_settings(args) | {
        "rules": {name: dict(parameters) for name, parameters in dataset.rules.items()},
        "thresholds": rules.thresholds(dataset.rules),
        "texts_per_image": "longest" if longest else "all",
    }
    if longest:
        first = annotated.as_work(measure_split, **options)
        folder = two_pass.first_pass("texts", args, splits, settings, first, scores=SCORES, part_of="clean_captions")
        splits = two_pass.decided(folder, splits, _longest(folder))
        options["decisions"] = folder.url
    second = annotated.as_work(clean_split, **options)
    job.run("clean_captions", args, splits, settings, second, scores=SCORES)


def _parser():
    parser = job.parser(__doc__, _EXAMPLE)
    annotated.add_image_flags(parser)
    parser.add_argument(
        "--texts-per-image", choices=("longest", "all"),
        help="default: longest for academic sets (CC12M, CC3M, SBU, COCO), all for others",
    )  # fmt: skip
    return parser


def _needs_images(inputs: Sequence[str], dataset: Dataset) -> bool:
    return dataset.reader != "generic" and not all(detect(path) == "tar" for path in inputs)


def _slices(path: str, reader: str) -> Iterator[Slice]:
    layout = captions.READERS[reader]
    kind = detect(path)
    if kind == "json" and layout.arrays:
        yield from plan_arrays(path, ROWS_PER_SPLIT, layout.arrays)
    else:
        yield from plan(path, ROWS_PER_SPLIT, layout.array if kind == "json" else None)


def _longest(folder: OutputFolder) -> list[np.ndarray]:
    """Return each split's rows that are the longest text of their image, told by id and then by the image's bytes."""
    with two_pass.stored(folder, lambda table: _candidates(table, "image_id")) as by_id:
        of_id = longest_per_image(by_id)
    tables = iter(of_id)
    with two_pass.stored(folder, lambda table: _candidates(table, "digest", next(tables))) as by_digest:
        return longest_per_image(by_digest)


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
    for verdict in judge(split, **options):
        if verdict.problem is not None:
            verdict.record(sink)
            continue
        row, data = verdict.caption, verdict.picture.image.data
        digest = xxhash.xxh3_64_intdigest(data)
        identity = next(iter(row.image.ids), None) or row.image.url or next(iter(row.image.names), None)
        image_id = xxhash.xxh3_64_intdigest(identity.encode()) if identity else digest
        waiting.append(
            {
                "key": verdict.key,
                "row": verdict.row,
                "image_id": image_id,
                "digest": digest,
                "length": len(verdict.text),
            }
        )
    two_pass.keep_rows(sink, waiting, _FIRST_PASS)


def clean_split(split: Split, sink: Sink, *, dataset: Dataset, decisions: str | None = None, **options) -> None:
    """Second pass, or the only one: write the samples of a split and a ledger row for every row of it."""
    chosen = set(two_pass.decision_of(split, decisions).tolist()) if decisions else None
    for verdict in judge(split, dataset=dataset, **options):
        if verdict.problem is not None:
            verdict.record(sink)
        elif chosen is not None and verdict.row not in chosen:
            columns = verdict.columns | {"value": len(verdict.text), "text_before": verdict.caption.text}
            sink.drop(verdict.key, verdict.row, "longer_text_exists", **columns)
        else:
            picture, text = verdict.picture, verdict.text
            sample = Sample(
                key=verdict.key, dataset=dataset.name, task="caption", language=dataset.language, text=text,
                width=picture.width, height=picture.height, images=[picture.image],
                source={**verdict.caption.source, "row": verdict.row},
            )  # fmt: skip
            before = verdict.caption.text
            changed = {"text_before": before, "text_after": text} if before != text else {}
            sink.keep(sample, verdict.row, **verdict.columns, **changed)


class Verdict:
    """A row and what the rules made of it: either `problem` = (outcome, rule, columns), or a picture and a text."""

    def __init__(self, key: str, row: int, caption: CaptionRow | None = None, problem=None):
        self.key, self.row, self.caption, self.problem = key, row, caption, problem
        self.picture, self.text, self.columns = None, "", {}

    def record(self, sink: Sink) -> None:
        """Write the ledger row of a row that was not kept."""
        outcome, rule, columns = self.problem
        before = {"text_before": self.caption.text} if self.caption else {}
        if outcome == DROPPED:
            sink.drop(self.key, self.row, rule, **before, **columns)
        else:
            sink.error(self.key, self.row, rule, **before, **columns)


def judge(
    split: Split, *, dataset: Dataset, pictures: Mapping, limit: int | None = None,
) -> Iterator[Verdict]:  # fmt: skip
    """Yield a verdict for every row of a split, in order: every rule that needs no other row."""
    finder, batch = annotated.Pictures(**pictures), []
    for row, caption in annotated.limited(_rows(split, dataset), limit):
        key = annotated.key_of(dataset, split, row)
        is_bad = isinstance(caption, BadRow)
        batch.append(
            Verdict(key, row, problem=("error", caption.kind, {"detail": caption.detail})) if is_bad
            else Verdict(key, row, caption)
        )  # fmt: skip
        if len(batch) == ROWS_AT_ONCE:
            yield from _judged(batch, dataset, finder)
            batch = []
    yield from _judged(batch, dataset, finder)


def _rows(split: Split, dataset: Dataset) -> Iterator[tuple[int, CaptionRow | BadRow]]:
    piece, url = annotated.slice_of(split), split.source["url"]
    layout = captions.READERS["shards" if piece.format == "tar" else dataset.reader]
    if piece.format in ("parquet", "jsonl", "csv") and dataset.reader != "coco":
        layout = captions.READERS["generic" if layout.columns is None else dataset.reader]
    columns = dict(layout.columns or captions.READERS[dataset.reader].mirror or {}) | dict(dataset.columns)
    tables = layout.tables(url) if layout.tables else {}
    for row, record in read(piece):
        if isinstance(record, BadRow):
            yield row, record
        else:
            yield from ((row, caption) for caption in layout.parse(record, columns, tables))


def _judged(batch: list[Verdict], dataset: Dataset, pictures: annotated.Pictures) -> list[Verdict]:
    """Find the images, then run the rules over all rows that have one."""
    for verdict in batch:
        if verdict.problem is None:
            _find_picture(verdict, pictures)
    whole = [verdict for verdict in batch if verdict.problem is None]
    table = pa.table(
        {
            "text": pa.array([v.caption.text for v in whole], pa.string()),
            "width": pa.array([v.picture.width for v in whole], pa.int32()),
            "height": pa.array([v.picture.height for v in whole], pa.int32()),
        }
    )
    found = rules.clean(table, dataset.rules, language=dataset.language).to_pylist() if whole else []
    for verdict, result in zip(whole, found, strict=True):
        outcome, rule, verdict.text = (result.pop(name) for name in ("outcome", "rule", "text_after"))
        size = {"width": verdict.picture.width, "height": verdict.picture.height}
        if outcome == DROPPED:
            verdict.problem = (DROPPED, rule, result | size)
        else:
            verdict.columns = {name: value for name, value in result.items() if name in SCORES} | size
    return batch


def _find_picture(verdict: Verdict, pictures: annotated.Pictures) -> None:
    try:
        verdict.picture = pictures.load(verdict.caption.image)
    except annotated.Banned as banned:
        columns = {"value": banned.value, "threshold": banned.threshold, "detail": str(banned)}
        verdict.problem = (DROPPED, banned.rule, columns)
    except BadImage as error:
        verdict.problem = ("error", error.kind, {"detail": str(error)})


if __name__ == "__main__":
    job.main(main)
