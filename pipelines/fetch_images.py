#!/usr/bin/env python
"""Download the images of URL lists (parquet, TSV, CSV) into WebDataset shards of their original bytes.

Meant for the output of clean_laion.py's metadata mode, so that nothing is downloaded that a cheap rule would drop; raw
lists do as well. Samples keep the order of the rows. Every URL has its ledger row with what became of it;
--retry-failed tries the failed ones of an existing folder again and leaves everything else as it is.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow as pa

from corpus.catalog import Dataset, find
from corpus.folder import OutputFolder
from corpus.inputs import fingerprint, names
from corpus.ledger import Fuse
from corpus.readers.slices import plan_all
from corpus.readers.urls import plan_urls
from corpus.splits import Split
from pipelines.engine import job
from pipelines.fetch.answers import ROBOTS
from pipelines.fetch.client import Limits
from pipelines.fetch.guard import DnsCache
from pipelines.fetch.run import fetch_split
from pipelines.work.annotated import row_settings, user_errors
from pipelines.work.datasets import whole_catalog

ROWS_PER_SPLIT = 10_000
SCORES = {
    "width": pa.int32(), "height": pa.int32(), "bytes": pa.int64(), "clip_score": pa.float64(),
    "sha256": pa.string(), "url": pa.string(),
}  # fmt: skip
_EXAMPLE = "python pipelines/fetch_images.py --dataset laion-en --input 'cleaned/*.urls.parquet' --output fetched"


def main() -> None:
    args = make_parser().parse_args()
    dataset = find(whole_catalog(args.catalog), args.dataset)
    splits = list(_plan(job.find_inputs(args.input), dataset, args.by_content))
    limits = Limits(
        total=args.timeout, retries=args.retries, max_bytes=args.max_bytes, connections=args.connections,
        per_host=args.per_host, allow_private=args.allow_private, user_agent=args.user_agent,
        robots=() if args.ignore_robots_tag else ROBOTS,
    )  # fmt: skip
    output = args.output if "://" in args.output else str(Path(args.output).resolve())
    again = _splits_with_errors(output, splits) if args.retry_failed else set()
    job.run(
        "fetch_images", args, splits, _settings(dataset, args, limits),
        lambda split, sink, dns: fetch_split(
            split, sink, dns, dataset, limits, max_side=args.max_side, limit=args.limit,
            earlier=output if split.id in again else None,
        ),
        scores=SCORES, setup=DnsCache, fuse=Fuse(in_a_row=sys.maxsize, share=1.0), redo=again,
    )  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    parser, limits = job.parser(__doc__, _EXAMPLE, reads_images=True), Limits()
    add = parser.add_argument
    add("--connections", type=int, default=limits.connections, metavar="N", help="open at a time, per worker")
    add("--per-host", type=int, default=limits.per_host, metavar="N", help="of these, to one host")
    add("--timeout", type=float, default=limits.total, metavar="S", help="seconds for one attempt, redirects included")
    add("--retries", type=int, default=limits.retries, metavar="N", help="of what may pass: 429, 503, lost connections")
    add("--max-bytes", type=int, default=limits.max_bytes, metavar="N", help="the largest image file")
    add("--max-side", type=int, metavar="PIXELS", help="scale larger images down and store them as JPEG")
    add("--user-agent", default=limits.user_agent, metavar="TEXT", help="say who you are and how to reach you")
    add("--ignore-robots-tag", action="store_true", help=f"keep images whose X-Robots-Tag says {', '.join(ROBOTS)}")
    add("--allow-private", action="store_true", help="private networks and loopback too (never link-local)")
    add("--retry-failed", action="store_true", help="only fetch what failed in --output, keep the rest")
    return parser


def _settings(dataset: Dataset, args, limits: Limits) -> dict:
    """What the outputs depend on. Patience is not among it: a retry may be more patient than the first run."""
    return {
        **row_settings(dataset), "reader": dataset.reader, "language": dataset.language,
        "max_bytes": limits.max_bytes, "max_side": args.max_side, "robots": list(limits.robots),
    }  # fmt: skip


def _plan(inputs: list[str], dataset: Dataset, by_content: bool) -> Iterator[Split]:
    with user_errors():
        pieces = plan_all(inputs, lambda url: plan_urls(url, dataset.columns, dataset.reader, ROWS_PER_SPLIT))
    name_of = names(inputs)
    for url, of_file in groupby(pieces, key=lambda piece: piece.paths[0]):
        mark = fingerprint(url, by_content=by_content)
        for number, piece in enumerate(of_file):
            where = {"start": piece.start, "stop": piece.stop}
            yield Split(f"{name_of[url]}-{number:05d}", {"url": url, "slice": asdict(piece)}, mark | where)


def _splits_with_errors(output: str, splits: list[Split]) -> set[str]:
    manifests = OutputFolder(output).manifests()
    same = [s.id for s in splits if s.id in manifests and manifests[s.id].input == s.fingerprint]
    return {name for name in same if manifests[name].counts.errors}


if __name__ == "__main__":
    job.main(main)
