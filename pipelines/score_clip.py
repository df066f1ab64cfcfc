#!/usr/bin/env python
"""Score image-text pairs with CLIP and drop those below the dataset's threshold.

Input: shards that a job of this project wrote (fetched or cleaned). Every score goes into the ledger and into its
sample, where clean_laion.py finds it; a dataset without the rule `clip_score` keeps every pair. Images that fail to
decode are errors, not low scores.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice, tee
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa

from cleaners import clip
from corpus.catalog import Dataset
from corpus.inputs import fingerprint, names
from corpus.records import BadImage, Sample, from_shard
from corpus.shards import RawSample, keys_in, read_samples
from corpus.splits import Sink, Split
from pipelines.engine import job
from pipelines.engine.thumbnails import thumbnail
from pipelines.work import guards, scoring
from pipelines.work.datasets import SCORED, dataset_of, rule_settings

SCORES = {"clip_score": pa.float64(), "width": pa.int32(), "height": pa.int32()}
_THUMBNAILS = 6  # of pairs dropped, in each split
_EXAMPLE = (
    "python pipelines/score_clip.py --dataset laion-en --clip ViT-B-32:laion2b_s34b_b79k "
    "--input 'fetched/*.tar' --output scored"
)


def main() -> None:
    args = make_parser().parse_args()
    dataset = dataset_of(args)
    inputs = job.find_inputs(args.input)
    marks = {url: fingerprint(url, by_content=args.by_content) for url in inputs}
    splits = [Split(name, {"url": url}, marks[url]) for url, name in names(inputs).items()]
    rules = {name: given for name, given in dataset.rules.items() if name in SCORED}
    floor = SCORED.active(rules).get("clip_score", {}).get("min")
    settings = rule_settings(SCORED, rules) | scoring.settings(args) | guards.of_inputs(inputs)
    job.run(
        "score_clip", args, splits, settings,
        lambda split, sink, model: score_split(
            split, sink, model, floor=floor, decoders=args.decoders, limit=args.limit, dataset=dataset
        ),
        scores=SCORES, rules=SCORED, **scoring.options(args),
    )  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, reads_images=True)
    scoring.add_flags(parser, required=True)
    return parser


def score_split(
    split: Split, sink: Sink, model: clip.Clip, *,
    dataset: Dataset, floor: float | None, decoders: int, limit: int | None = None,
) -> None:  # fmt: skip
    """Score one shard: every sample of it goes to the sink once, in order."""
    keys = keys_in(split.source["url"])
    sink.expects(np.arange(len(keys)), keys.__getitem__, limit)
    rows = (_read(raw) for raw in islice(read_samples(split.source["url"]), limit))
    rows, again = tee(rows)
    scores = clip.score_stream(model, _pairs(again), decoders)
    shown = 0
    for row, sample in enumerate(rows):
        if isinstance(sample, BadImage):
            sink.error(f"{dataset.name}/{split.id}/{row:06d}", row, sample.kind, str(sample))
            continue
        score = next(scores)
        if isinstance(score, BadImage):
            sink.error(sample.key, row, score.kind, str(score), text_before=sample.text)
            continue
        shown += _judge(sink, sample, row, round(score, 6), floor, shown < _THUMBNAILS)


def _judge(sink: Sink, sample: Sample, row: int, score: float, floor: float | None, show: bool) -> bool:
    """Keep or drop a scored sample; True when it was dropped."""
    columns = {"clip_score": score, "width": sample.width, "height": sample.height}
    if floor is None or score >= floor:
        sample.scores["clip"] = score
        sink.keep(sample, row, **columns)
        return False
    columns |= {"value": score, "threshold": floor, "text_before": sample.text}
    picture = thumbnail(sample.images[0].data) if show else None
    sink.drop(sample.key, row, "clip_score", thumbnail=picture, **columns)
    return True


def _read(raw: RawSample) -> Sample | BadImage:
    """A pair of the shard, or why it is none."""
    if raw.problem:
        return BadImage(raw.problem, f"{raw.key}: {raw.detail}")
    try:
        sample = from_shard(raw.key, raw.members)
    except ValueError as error:
        return BadImage("not_a_sample", f"{raw.key}: {error}")
    if len(sample.images) != 1 or not sample.text:
        return BadImage("not_a_pair", f"{raw.key}: {len(sample.images)} images, {len(sample.text)} characters")
    return sample


def _pairs(rows: Iterator[Sample | BadImage]) -> Iterator[tuple[bytes, str]]:
    for sample in rows:
        if not isinstance(sample, BadImage):
            yield sample.images[0].data, sample.text


if __name__ == "__main__":
    job.main(main)
