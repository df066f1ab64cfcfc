#!/usr/bin/env python
"""Find near-duplicate images in a cleaned folder: of evaluation images (Qwen-VL, Table 13), or of each other.

Evaluation images are given as folders, WebDataset shards, or lists of perceptual hashes; --list writes such a list,
which the cleaning jobs take as --exclude too. What is found is removed through the ledger, or with --mark only noted.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa
import xxhash

from cleaners.copies import MIN_LIKENESS
from cleaners.dedup import (
    MAX_DISTANCE,
    PROBE_VIEWS,
    Matcher,
    Rows,
    first_of_equals,
    near_pairs,
    probe_keys,
)
from cleaners.phash import LONG_BYTES, VIEWS, Hashes, hash_views
from corpus.folder import OutputFolder, digest
from corpus.readers.slices import Slice
from corpus.records import BadImage, Sample, decode_image, from_shard
from corpus.shards import RawSample, read_samples
from corpus.splits import Sink, Split
from pipelines.engine import job, two_pass
from pipelines.engine.thumbnails import Thumbnails, side_by_side
from pipelines.work import annotated, guards
from pipelines.work.datasets import DEDUPLICATED
from pipelines.work.hash_lists import lines_of, load, store, write_list
from pipelines.work.lookalikes import compare_all, image_at, judge_all

SCORES = {
    "distance": pa.int32(),  # to the nearest evaluation image, in bits of 255; null above MAX_DISTANCE
    "pair_distance": pa.int32(),  # to the sample it was compared with, in bits of 255
    "likeness": pa.float64(),  # to that sample, by cleaners/copies.py
}
ONE_SAMPLE_PER_IMAGE = ("caption", "grounded_caption", "ocr")  # elsewhere several samples rightly share an image
_FIRST_PASS = pa.schema(
    [
        ("key", pa.string()), ("row", pa.int64()), ("digest", pa.uint64()), ("single", pa.bool_()),
        ("probes", pa.binary()), ("long", pa.binary()),  # empty for images without structure
    ]
)  # fmt: skip
_DECISION = [
    ("row", "<i8"), ("goes", "?"), ("of_row", "<i8"), ("exact", "?"),
    ("bits", "<i2"), ("likeness", "<f4"), ("path", "U6"),
]  # fmt: skip
CANDIDATE = 80  # of 255 bits: what is looked at; `cleaners/copies.py` decides
NONE: tuple[np.ndarray, int] = np.zeros((0, 3), np.int64), 0
_EXAMPLE = (
    "python pipelines/dedup.py --input 'cleaned/coyo/*.tar' --against nocaps/images --output cleaned/coyo-apart\n"
    "  python pipelines/dedup.py --list --input 'nocaps/images/*.jpg' --output nocaps.txt"
)


def main() -> None:
    args = make_parser().parse_args()
    inputs = job.find_inputs(args.input)
    with annotated.user_errors():
        if args.list:
            write_list(args.output, inputs)
            return
        if not (args.against or args.each_other):
            raise job.UserError("nothing to compare with: give --against EVALUATION_IMAGES, --each-other, or both")
        _run(args, inputs)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, dataset="dedup", reads_images=True)
    parser.add_argument(
        "--against", nargs="+", action="extend", default=[], metavar="IMAGES",
        help="evaluation images: folders, shards, or hash lists",
    )  # fmt: skip
    parser.add_argument("--each-other", action="store_true", help="keep the first of near-duplicates within the input")
    parser.add_argument("--mark", action="store_true", help="keep what is found, with `near_duplicate` in its source")
    parser.add_argument("--list", action="store_true", help="write the hashes of the input images to the file --output")
    return parser


def _run(args, inputs: Sequence[str]) -> None:
    if strange := [path for path in inputs if not path.endswith(".tar")]:
        raise job.UserError(f"{strange[0]}: the input is a cleaned folder's shards, such as 'cleaned/coyo/*.tar'")
    splits = annotated.as_splits(args, (Slice((path,), "tar") for path in inputs))
    lines = [line for place in args.against for line in lines_of(place)]
    settings = guards.of_inputs(inputs) | {
        "against": digest(lines), "each_other": args.each_other, "mark": args.mark,
        "order": DEDUPLICATED.order(),
        "thresholds": {"distance": [MAX_DISTANCE], "pair_distance": [CANDIDATE], "likeness": [MIN_LIKENESS]},
    }  # fmt: skip
    options = {"evaluation": store(args.output, lines), "limit": args.limit}
    judged_by = {"scores": SCORES, "rules": DEDUPLICATED}
    if args.each_other:
        measure = annotated.as_work(measure_split, **options)
        folder = two_pass.first_pass("images", args, splits, settings, measure, part_of="dedup", **judged_by)
        splits = two_pass.decided(folder, splits, _decide(folder, splits))
        options["decisions"] = folder.url
    job.run("dedup", args, splits, settings, annotated.as_work(clean_split, mark=args.mark, **options), **judged_by)


@dataclass(slots=True)
class _Judged:
    """A sample of the input, its first image's hashes, and the evaluation image it is near to."""

    row: int
    raw: RawSample
    sample: Sample | None = None
    hashes: Hashes | None = None
    near: tuple[str, int] | None = None  # (name, distance in bits)
    error: tuple[str, str] | None = None


def judge(split: Split, *, evaluation: str | None, limit: int | None = None) -> Iterator[_Judged]:
    """Yield every sample of a shard with its hashes and the nearest evaluation image, in order."""
    for row, raw in annotated.limited(enumerate(read_samples(split.source["url"])), limit):
        judged = _Judged(row, raw)
        try:
            _examine(judged, load(evaluation))
        except BadImage as error:
            judged.error = error.kind, str(error)
        except ValueError as error:
            judged.error = raw.problem or "bad_sample", raw.detail or str(error)
        yield judged


def _examine(judged: _Judged, evaluation: tuple[Matcher, list[str]] | None) -> None:
    judged.sample = from_shard(judged.raw.key, judged.raw.members)
    for i, image in enumerate(judged.sample.images):
        hashes = hash_views(decode_image(image.data))
        judged.hashes = hashes if i == 0 else judged.hashes
        found = evaluation[0].nearest(hashes) if evaluation and hashes else None
        if found and (judged.near is None or found[1] < judged.near[1]):
            judged.near = evaluation[1][found[0]], found[1]


def measure_split(split: Split, sink: Sink, **options) -> None:
    """First pass: write the hashes of every sample that is not near an evaluation image."""
    waiting = []
    for judged in judge(split, **options):
        if judged.error or judged.near:
            _record_loss(judged, sink)
            continue
        hashes, images = judged.hashes, judged.sample.images
        data = images[0].data if images else judged.sample.key.encode()
        waiting.append(
            {"key": judged.sample.key, "row": judged.row, "digest": xxhash.xxh3_64_intdigest(data),
             "single": judged.sample.task in ONE_SAMPLE_PER_IMAGE,
             "probes": probe_keys(hashes).tobytes() if hashes else b"",
             "long": hashes.long.tobytes() if hashes else b""}
        )  # fmt: skip
    two_pass.keep_rows(sink, waiting, _FIRST_PASS)


def _decide(folder: OutputFolder, splits: Sequence[Split]) -> Iterator[tuple[str, np.ndarray]]:
    """Decide which samples go. Memory: some 50 bytes a sample and one range of keys; hashes stay on disk."""
    with (
        two_pass.stored(folder, splits, lambda _, table: _identities(table)) as identities,
        two_pass.stored(folder, splits, lambda _, table: _matrix(table, "probes", np.uint64)) as probes,
        two_pass.stored(folder, splits, lambda _, table: _matrix(table, "long", np.uint8)) as long,
    ):
        owner, names, every = identities.owners(), identities.names(), np.array(identities.rows)
        first = first_of_equals(every["digest"])
        hashed = np.flatnonzero((first == np.arange(len(first))) & every["hashed"])
        position = np.cumsum(every["hashed"]) - 1  # of a sample among those that have hashes
        rows = position[hashed]
        found = near_pairs(Rows(probes.rows, rows), Rows(long.rows, rows), within=CANDIDATE) if len(rows) else NONE
    pairs, full = found
    pairs[:, :2] = hashed[pairs[:, :2]]
    if full:
        print(f"{full} buckets held so many images that they were not looked into: near-copies among those may remain")
    urls = {split.id: split.source["url"] for split in splits}

    def place(sample: int) -> tuple[str, int]:
        return urls[names[owner[sample]]], int(every["row"][sample])

    verdict = judge_all(every["single"], first, list(compare_all(pairs, place)))
    form = [*_DECISION, ("of_split", names.dtype), ("of_url", f"U{max(map(len, urls.values()))}")]
    for split, here in identities.cut(np.arange(len(every))):
        here = here[verdict.shown[here]]
        decision, other = np.empty(len(here), form), verdict.others(here)
        decision["row"], decision["goes"] = every["row"][here], verdict.goes[here]
        decision["exact"] = verdict.root[here] == first[here]
        decision["of_split"], decision["of_row"] = names[owner[other]], every["row"][other]
        decision["of_url"] = [urls[name] for name in decision["of_split"].tolist()]
        for column, values in zip(("bits", "likeness", "path"), verdict.measured(first[here]), strict=True):
            decision[column] = values
        yield split, decision


def _identities(table: pa.Table) -> np.ndarray:
    found = np.empty(table.num_rows, [("row", "<i8"), ("digest", "<u8"), ("single", "?"), ("hashed", "?")])
    if table.num_rows:
        found["row"], found["digest"] = table["row"].to_numpy(), table["digest"].to_numpy()
        found["single"] = table["single"].to_numpy()
        found["hashed"] = [len(value) > 0 for value in table["long"].to_pylist()]
    return found


def _matrix(table: pa.Table, column: str, kind: type) -> np.ndarray:
    values = [value for value in table[column].to_pylist() if value] if table.num_rows else []
    width = len(PROBE_VIEWS) if column == "probes" else VIEWS * LONG_BYTES
    return np.frombuffer(b"".join(values), kind).reshape(-1, width)


def clean_split(split: Split, sink: Sink, *, mark: bool, decisions: str | None = None, **options) -> None:
    """Second pass, or the only one: write what stays, byte for byte as it was, and a ledger row for every sample."""
    compared, thumbnails = {}, Thumbnails()
    if decisions:
        compared = {int(decision["row"]): decision for decision in two_pass.decision_of(split, decisions)}
    for judged in judge(split, **options):
        decision = compared.get(judged.row)
        rule, detail = _verdict(judged, decision)
        columns = {"distance": judged.near[1]} if judged.near else _measured(decision)
        if judged.error:
            _record_loss(judged, sink)
        elif rule and mark:
            judged.sample.source["near_duplicate"] = {"rule": rule, "of": detail}
            sink.keep(judged.sample, judged.row, detail=f"{rule}: {detail}", **columns)
        elif rule:
            value = {"value": judged.near[1], "threshold": MAX_DISTANCE} if judged.near else {}
            columns["thumbnail"] = _shown(judged, rule, decision, thumbnails)
            sink.drop(judged.sample.key, judged.row, rule, detail=detail, **columns, **value)
        else:
            sink.keep(judged.sample, judged.row, detail=detail, **columns)


def _measured(decision: np.void | None) -> dict:
    """Return the ledger's columns of a comparison."""
    if decision is None or decision["bits"] < 0:
        return {}
    return {"pair_distance": int(decision["bits"]), "likeness": round(float(decision["likeness"]), 3)}


def _shown(judged: _Judged, rule: str, decision: np.void | None, thumbnails: Thumbnails) -> bytes | None:
    """Return a thumbnail of what goes, beside that of what is kept in its place."""
    data = judged.sample.images[0].data if judged.sample.images else None
    if rule != "near_duplicate" or decision is None or data is None:
        return thumbnails.of(rule, data)
    if not thumbnails.wanted(rule):
        return None
    return side_by_side(data, image_at(str(decision["of_url"]), int(decision["of_row"])))


def _verdict(judged: _Judged, decision: np.void | None) -> tuple[str | None, str]:
    if judged.near:
        return "near_evaluation_image", judged.near[0]
    if decision is not None:
        other = f"sample {int(decision['of_row'])} of split {decision['of_split']}"
        if not decision["goes"]:
            return None, f"not a copy of {other}, compared as {decision['path']}"
        by = f", compared as {decision['path']}" if decision["path"] else ""
        return ("exact_duplicate", f"of {other}") if decision["exact"] else ("near_duplicate", f"of {other}{by}")
    return None, ""


def _record_loss(judged: _Judged, sink: Sink) -> None:
    key = judged.sample.key if judged.sample else judged.raw.key
    if judged.error:
        sink.error(key, judged.row, *judged.error)
    else:
        sink.drop(key, judged.row, "near_evaluation_image", detail=judged.near[0], value=judged.near[1])


if __name__ == "__main__":
    job.main(main)
