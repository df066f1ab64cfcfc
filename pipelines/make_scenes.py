#!/usr/bin/env python
"""Make drawn scenes as cleaned samples of one task: what the learning proof trains and tests on.

Sample i is a pure function of (task, part, seed, i, level). Held-out data is --part val: the same kinds of scenes, of
other seeds. The datasets, one per task, and their weights per stage stand in pipelines/scenes.yaml.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import pyarrow as pa
from PIL import features

from corpus.catalog import find
from corpus.splits import Sink, Split
from pipelines.engine import job
from pipelines.proof.scenes.tasks import LEVELS, scene_sample
from pipelines.work.datasets import whole_catalog

CATALOG = Path(__file__).resolve().parent / "scenes.yaml"
PARTS = ("train", "val")
SCORES = {"width": pa.int32(), "height": pa.int32(), "images": pa.int32(), "characters": pa.int32()}
_EXAMPLE = "python pipelines/make_scenes.py --dataset scenes-vqa --count 1000 --output scenes/train/scenes-vqa"


def main() -> None:
    args = make_parser().parse_args()
    args.catalog = args.catalog or str(CATALOG)
    dataset = find(whole_catalog(args.catalog), args.dataset, job="make_scenes")
    (task,) = dataset.tasks
    settings = LEVELS[args.level] | ({"size": args.size} if args.size else {})
    seed = f"{args.part}/{args.seed}"
    work = partial(make_split, task=task, dataset=dataset.name, seed=seed, settings=settings, limit=args.limit,
                   shuffled=args.shuffled)  # fmt: skip
    record = {
        "task": task, "part": args.part, "seed": args.seed, "scenes": {n: _plain(v) for n, v in settings.items()},
        "samples_per_shard": args.samples_per_shard, "shuffled": args.shuffled,
        # Pixels and letters differ between versions of these.
        "libraries": {name: features.version(name) for name in ("pil", "freetype2")},
    }  # fmt: skip
    job.run(
        "make_scenes", args, _plan(args.count, args.samples_per_shard), record,
        lambda split, sink: work(split, sink), scores=SCORES,  # Ray refuses partial objects
    )  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, reads_input=False)
    parser.add_argument("--count", type=int, required=True, metavar="N", help="samples 0 to N - 1; may grow later")
    parser.add_argument("--part", choices=PARTS, default="train", help="val: held-out scenes; default: train")
    parser.add_argument("--level", choices=sorted(LEVELS), default="full", help="of difficulty; default: full")
    parser.add_argument("--shuffled", action="store_true", help="labels of other pictures: a baseline to train on")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="side of the images; default: by level")
    parser.add_argument("--samples-per-shard", type=int, default=2000, metavar="N", help="default: 2000")
    return parser


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def _plan(count: int, per_shard: int) -> list[Split]:
    if count < 1 or per_shard < 1:
        raise job.UserError("--count and --samples-per-shard are at least 1")
    ranges = [{"first": first, "end": min(first + per_shard, count)} for first in range(0, count, per_shard)]
    return [Split(f"{number:05d}", source, source) for number, source in enumerate(ranges)]


def make_split(
    split: Split,
    sink: Sink,
    *,
    task: str,
    dataset: str,
    seed: str,
    settings: dict,
    limit: int | None = None,
    shuffled: bool = False,
) -> None:
    """Make the samples of one split, in order."""
    first, end = split.source["first"], split.source["end"]
    sink.expects(np.arange(end - first), limit=limit)
    for row, i in enumerate(range(first, end if limit is None else min(end, first + limit))):
        sample = scene_sample(task, f"{seed}/{i}", f"{dataset}/{split.id}/{row:06d}", dataset, settings, shuffled)
        scores = {"width": sample.width, "height": sample.height, "images": len(sample.images)}
        sink.keep(sample, row, **scores, characters=len(sample.text))


if __name__ == "__main__":
    job.main(main)
