#!/usr/bin/env python
"""Clean raw image-text pairs (LAION-en, LAION-zh, LAION-COCO, DataComp, COYO) by the eight rules of Qwen-VL A.1.

Inputs: img2dataset-style WebDataset shards, parquet with an image column, or parquet of URLs alone. The last is
metadata mode: every rule that needs no image runs, and the output is the cleaned parquet (ID.urls.parquet), ready for
fetch_images.py; a later run over the downloaded shards completes the rules, and the `source_key` of its
ledger leads back to the first one's `key`.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cleaners import clip, rules
from corpus.bugs import why_data
from corpus.catalog import Dataset
from corpus.inputs import fingerprint, names
from corpus.ledger import KEPT
from corpus.readers import pairs
from corpus.readers.pairs import Pair
from corpus.readers.parquet import group_rows, text_chunks
from corpus.readers.rows import BadFile, BadRow
from corpus.shards import keys_in
from corpus.splits import URLS, Sink, Split
from pipelines.engine import job
from pipelines.work import scoring
from pipelines.work.annotated import row_settings
from pipelines.work.clip_rule import ClipRule
from pipelines.work.datasets import add_rule_flag, add_strict_latin, rule_settings, rules_of
from pipelines.work.pairs import PairCleaner, with_texts
from pipelines.work.places import clean_each

ROWS_PER_SPLIT = 1_000_000  # of a parquet file; a fixed number, so that splits do not depend on the workers
_EXAMPLE = "python pipelines/clean_laion.py --dataset laion-en --input 'raw/*.tar' --output cleaned/laion-en"


def main() -> None:
    args = make_parser().parse_args()
    clean_each("clean_laion", args, _clean)


def _clean(args: argparse.Namespace, dataset: Dataset) -> None:
    inputs = _without_sidecars(job.find_inputs(args.input))
    splits = list(_plan(inputs, dataset, args.by_content))
    if splits and all(split.source["kind"] == "unreadable" for split in splits):
        raise job.UserError("; ".join(split.source["detail"] for split in splits[:3]))
    metadata = {split.source["kind"] for split in splits} - {"unreadable"} == {"urls"}
    if not metadata and any(split.source["kind"] == "urls" for split in splits):
        raise job.UserError("the input mixes parquet of URLs alone with images: clean them into two folders")
    if args.clip and (metadata or "clip_score" not in dataset.rules):
        raise job.UserError(f"--clip needs images, and a threshold: the rule clip_score in the entry {dataset.name!r}")
    options = {"limit": args.limit, "decode": args.decode, "images": args.images, "decoders": args.decoders}
    job.run(
        "clean_laion", args, splits, _settings(dataset, args) | scoring.settings(args),
        lambda split, sink, *model: clean_split(split, sink, dataset, *model, **options),
        scores=rules_of(dataset).scores(), rules=rules_of(dataset), table=URLS if metadata else None,
        **scoring.options(args),
    )  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, from_catalog=True, reads_images=True)
    parser.add_argument("--images", metavar="DIR", help="folder below which a parquet's image paths lie")
    parser.add_argument("--decode", action="store_true", help="decode every kept image, to find damage inside")
    scoring.add_flags(parser)
    add_rule_flag(parser)
    add_strict_latin(parser)
    return parser


def _settings(dataset: Dataset, args) -> dict:
    return {
        "language": dataset.language,
        **row_settings(dataset),
        "decode": args.decode,
        **rule_settings(rules_of(dataset), dataset.rules, dataset.plugins),
        "paper": {"original": dataset.original, "cleaned": dataset.cleaned},
    }


def _without_sidecars(inputs: list[str]) -> list[str]:
    """Leave out the parquet that img2dataset writes beside each tar: it is read with its tar."""
    tars = {path.removesuffix(".tar") for path in inputs if path.endswith(".tar")}
    return [path for path in inputs if not path.endswith("_stats.json") and path.removesuffix(".parquet") not in tars]


def _plan(inputs: list[str], dataset: Dataset, by_content: bool) -> Iterator[Split]:
    """Yield one split per tar and one per `ROWS_PER_SPLIT` rows of parquet."""
    for url, name in names(inputs).items():
        print_of_file = fingerprint(url, by_content=by_content)
        for number, source in enumerate(_sources(url, dataset)):
            whole = source["kind"] == "shard"
            mark = print_of_file | {"row_groups": source.get("row_groups")}
            yield Split(name if whole else f"{name}-{number:05d}", source, mark)


def _sources(url: str, dataset: Dataset) -> Iterator[dict]:
    if url.endswith((".tar", ".tar.gz", ".tgz")):
        yield {"kind": "shard", "url": url}
        return
    if not url.endswith(".parquet"):
        raise job.UserError(f"{url}: expected a .tar, .tar.gz or .parquet file")
    rows = 1  # that one error speaks for, as long as no footer has told
    try:
        with fsspec.open(url, "rb") as file:
            groups_of = group_rows(file, url)
            rows = max(1, sum(groups_of))
            layout = pairs.table_layout(pq.read_schema(file), dataset.columns, dataset.reader, url)
            kind = "table" if layout.image else "urls"
            for groups, first_row in _slices(groups_of):
                yield {"kind": kind, "url": url, "row_groups": groups, "first_row": first_row}
    except Exception as error:
        told = isinstance(error, (BadFile, pairs.MissingColumns))
        detail = str(error) if told else f"{url}: {why_data(error)}"
        yield {"kind": "unreadable", "url": url, "rows": rows, "detail": detail}


def _slices(rows_by_group: list[int]) -> Iterator[tuple[list[int], int]]:
    """Yield (row groups, first row) of slices of at least `ROWS_PER_SPLIT` rows."""
    groups, first, end = [], 0, 0
    for group, rows in enumerate(rows_by_group):
        groups.append(group)
        end += rows
        if end - first >= ROWS_PER_SPLIT or group == len(rows_by_group) - 1:
            yield groups, first
            groups, first = [], end


def clean_split(
    split: Split,
    sink: Sink,
    dataset: Dataset,
    model: clip.Clip | None = None,
    *,
    limit: int | None = None,
    decode: bool = False,
    images: str | None = None,
    decoders: int = 2,
) -> None:
    """Clean one split: every row of it goes to the sink once, in input order."""
    source = split.source
    sink.expects(_held(source, limit), limit=None if source["kind"] == "unreadable" else limit)
    if source["kind"] == "unreadable":
        sink.strikes(0, source["rows"])
        sink.error(f"{dataset.name}/{split.id}/000000", 0, "unreadable_file", source["detail"])
    elif source["kind"] == "urls":
        _clean_urls(split, sink, dataset, limit)
    else:
        scorer = ClipRule(model, dataset, decoders) if model else None
        cleaner = PairCleaner(split, sink, dataset, decode, scorer)
        is_shard = source["kind"] == "shard"
        batches = _shard_batches(split, dataset) if is_shard else _table_batches(split, dataset, images)
        for batch in _limited(batches, limit):
            if isinstance(batch, BadRow):
                cleaner.lose(batch)
            else:
                cleaner.clean(batch)
        if is_shard and limit is None:
            cleaner.account_for_sidecar()


def _held(source: Mapping, limit: int | None) -> np.ndarray:
    """Return the ordinals of a split's rows by a count of their own: from the footer, or from the tar's headers."""
    if source["kind"] == "unreadable":
        return np.arange(source["rows"])
    if source["kind"] == "shard":
        keys = keys_in(source["url"])
        lost = [] if limit is not None else pairs.lost_downloads(source["url"], set(keys))
        return np.arange(len(keys) + len(lost))
    with fsspec.open(source["url"], "rb") as file:
        footer = pq.read_metadata(file)
    rows = sum(footer.row_group(group).num_rows for group in source["row_groups"])
    return (source["first_row"] if source["kind"] == "table" else 0) + np.arange(rows)


def _limited(batches, limit: int | None):
    left = limit
    for batch in batches:
        bad = isinstance(batch, BadRow)
        yield batch if left is None or bad else batch[:left]
        if left is not None and (left := left - (batch.rows if bad else len(batch))) <= 0:
            return


# --- Pairs with images ---


def _shard_batches(split: Split, dataset: Dataset) -> Iterator[list[Pair]]:
    yield from pairs.shard_pairs(split.source["url"], dataset.columns, dataset.carried)


def _table_batches(split: Split, dataset: Dataset, images: str | None) -> Iterator[list[Pair]]:
    source = split.source
    with fsspec.open(source["url"], "rb") as file:
        layout = pairs.table_layout(pq.read_schema(file), dataset.columns, dataset.reader, source["url"])
        row = source["first_row"]
        for table in pairs.tables(file, source["row_groups"]):
            if isinstance(table, BadRow):
                yield table
                row += table.rows
                continue
            yield from pairs.table_pairs(table, layout, row, Path(images) if images else None, dataset.carried)
            row += table.num_rows


# --- Metadata mode ---


def _clean_urls(split: Split, sink: Sink, dataset: Dataset, limit: int | None) -> None:
    source = split.source
    with fsspec.open(source["url"], "rb") as file:
        layout = pairs.table_layout(pq.read_schema(file), dataset.columns, dataset.reader, source["url"])
        row = 0
        for table in pairs.tables(file, source["row_groups"], pairs.URL_ROWS):
            if limit is not None and row >= limit:
                return
            if isinstance(table, BadRow):
                sink.unreadable(f"{dataset.name}/{split.id}/{row:06d}", row, table.rows, table.detail)
                row += table.rows
                continue
            table = table.slice(0, None if limit is None else limit - row)
            _clean_table(table, layout, split, sink, dataset, row)
            row += table.num_rows


def _clean_table(
    table: pa.Table, layout: pairs.TableLayout, split: Split, sink: Sink, dataset: Dataset, row: int
) -> None:
    columns = pairs.rule_columns(table, layout)
    verdicts = rules.clean(columns, dataset.rules, language=dataset.spoken, known=rules_of(dataset))
    keys = _keys(f"{dataset.name}/{split.id}", row, table.num_rows)
    kept = pc.equal(verdicts["outcome"], KEPT)
    text_column = layout.columns["text"]
    cleaned = table.set_column(table.column_names.index(text_column), text_column, verdicts["text_after"])
    if pairs.KEY_COLUMN in cleaned.column_names:
        found = [pairs.found_key(value) for value in text_chunks(cleaned[pairs.KEY_COLUMN]).to_pylist()]
        verdicts = verdicts.append_column("source_key", pa.array(found, pa.string()))
        cleaned = cleaned.drop_columns([pairs.KEY_COLUMN])
    sink.write_table(cleaned.append_column(pairs.KEY_COLUMN, keys).filter(kept))
    for number, record in enumerate(pairs.carried_of(table, dataset.carried), row):
        sink.passes(number, record)
    rows = pa.array(range(row, row + table.num_rows), pa.int64())
    sink.rows(with_texts(verdicts.add_column(0, "key", keys).add_column(1, "row", rows), columns["text"]))


def _keys(prefix: str, first: int, rows: int) -> pa.Array:
    numbers = pc.utf8_lpad(pc.cast(pa.array(range(first, first + rows), pa.int64()), pa.string()), 6, "0")
    return pc.binary_join_element_wise(pa.scalar(prefix), numbers, "/")


if __name__ == "__main__":
    job.main(main)
