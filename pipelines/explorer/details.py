"""What a row is, for people: its ledger's columns, its sample's text, its picture and the shapes on it."""

import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from corpus.damage import Damaged
from corpus.records import Sample, from_members
from corpus.shards import IndexedShard
from corpus.verdicts import KEPT
from pipelines.engine.drawing import outlines, words
from pipelines.engine.thumbnails import thumbnail
from pipelines.explorer.folders import Opened
from pipelines.show_packs import show_sample

LONGEST = 4_000  # characters of a text that are sent
SHAPES = 400  # that are sent of one sample
CARD, LARGE = 320, 1024  # longer sides of pictures, in pixels
_SEARCHED = ("key", "source_key", "text_before", "text_after", "detail")
MOST_FOUND = 20_000  # rows that a search stops at


def cards(opened: Opened, places: Sequence[dict]) -> list[dict]:
    """Return what is shown of the rows at `places` ({"split", "at", ...}), in their order."""
    by_split: dict[int, list[int]] = {}
    for place in places:
        by_split.setdefault(place["split"], []).append(place["at"])
    found = {(split, row["at"]): row for split, rows in by_split.items() for row in _ledger_rows(opened, split, rows)}
    return [place | _card(opened, place["split"], found[place["split"], place["at"]]) for place in places]


def _ledger_rows(opened: Opened, split: int, rows: Sequence[int]) -> Iterator[dict]:
    file, first = opened.footer(split), 0
    columns = [name for name in file.schema_arrow.names if name != "thumbnail"]
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        inside = [at for at in rows if first <= at < first + size]
        if inside:
            table = file.read_row_group(group, columns, use_threads=False).take(pa.array([at - first for at in inside]))
            yield from (row | {"at": at} for at, row in zip(inside, table.to_pylist(), strict=True))
        first += size


def _card(opened: Opened, split: int, row: dict) -> dict:
    ledger = {name: _plain(value) for name, value in row.items() if name != "at"}
    card: dict = {
        "ledger": ledger,
        "name": opened.splits[split],
        "text": None,
        "shapes": [],
        "images": 0,
        "problem": None,
    }
    if row["outcome"] != KEPT or opened.stage is not None or "tar" not in opened.manifests[split].files:
        return card
    try:
        sample = read_sample(opened, split, row["at"])
    except (Damaged, ValueError, OSError) as error:
        return card | {"problem": str(error)[:300]}
    shapes = [{"points": points, "label": label[:200]} for points, label in outlines(sample.annotations)]
    size = {"width": sample.width, "height": sample.height, "images": len(sample.images)}
    return card | size | {"text": words(sample)[:LONGEST], "shapes": shapes[:SHAPES], "task": sample.task}


def _plain(value):
    """A ledger's value as JSON can hold it, texts cut."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[:LONGEST]}… ({len(value):,} characters)"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):  # columns that were passed through
        return _plain("; ".join(f"{name}: {each}" for name, each in value.items() if each is not None))
    return value.hex()[:100] if isinstance(value, bytes) else value


def read_sample(opened: Opened, split: int, at: int) -> Sample:
    """Return the sample that a kept row became. Raises Damaged, IndexError and ValueError."""
    kept = _kept(opened, split)
    if not 0 <= at < len(kept) or not kept[at]:
        raise IndexError(at)
    shard = IndexedShard(f"{opened.folder.url}/{opened.splits[split]}.tar")
    return from_members(shard[int(np.count_nonzero(kept[:at]))][1])


@functools.lru_cache(maxsize=16)
def _kept(opened: Opened, split: int) -> np.ndarray:
    outcomes = opened.footer(split).read(["outcome"])["outcome"]
    return pc.equal(outcomes, KEPT).to_numpy(zero_copy_only=False)


def picture(opened: Opened, split: int, at: int, number: int, large: bool) -> bytes | None:
    """Return a JPEG of a kept row's image, or the thumbnail that the ledger has of a dropped one; else None."""
    if not 0 <= at < len(_kept(opened, split)):
        raise IndexError(at)
    if not _kept(opened, split)[at]:
        stored = _ledger_thumbnail(opened, split, at)
        return thumbnail(stored, CARD) if stored else None
    images = read_sample(opened, split, at).images
    return thumbnail(images[number].data, LARGE if large else CARD) if number < len(images) else None


def _ledger_thumbnail(opened: Opened, split: int, at: int) -> bytes | None:
    file, first = opened.footer(split), 0
    for group in range(file.num_row_groups):
        size = file.metadata.row_group(group).num_rows
        if at < first + size:
            return file.read_row_group(group, ["thumbnail"], use_threads=False)["thumbnail"][at - first].as_py()
        first += size
    return None


def search(opened: Opened, text: str) -> tuple[pa.Table, int]:
    """Return the places (split, line) of rows whose keys, texts or details hold `text`, in any case, and how many
    splits were searched: it ends at MOST_FOUND rows. Kept captions that no cleaner changed are in no ledger.
    """
    found, total, number = [], 0, 0
    for number in range(len(opened.splits)):
        file, first = opened.footer(number), 0
        for batch in file.iter_batches(columns=list(_SEARCHED), use_threads=False):
            hits = np.zeros(batch.num_rows, bool)
            for column in batch.columns:
                match = pc.match_substring(column, text, ignore_case=True)
                hits |= pc.fill_null(match, False).to_numpy(zero_copy_only=False)
            at = (first + np.flatnonzero(hits)).astype(np.uint32)
            found.append(pa.table({"split": np.full(len(at), number, np.uint32), "line": at}))
            first, total = first + batch.num_rows, total + len(at)
        if total >= MOST_FOUND:
            break
    return pa.concat_tables(found) if found else pa.table({"split": [], "line": []}), number + 1


def pack(opened: Opened, number: int) -> dict:
    """Return pack `number` of a stage folder, decoded from its tokens. Raises IndexError and Damaged."""
    stage = opened.packs
    read = stage[number]
    samples = []
    for entry in read.samples:
        shown = show_sample(read, entry, opened.tokenizer, stage.queries)
        runs = [{"text": run.text, "supervised": run.supervised, "image": run.image} for run in shown.runs]
        shapes = [vars(shape) for shape in shown.shapes[:SHAPES]]
        told = {name: getattr(shown, name) for name in ("key", "dataset", "tokens", "supervised", "images", "problems")}
        samples.append(told | {"runs": runs, "shapes": shapes})
    counts = {"tokens": len(read.tokens), "supervised": int(read.loss.sum()), "images": len(read.images)}
    about = {"number": number, "packs": len(stage), "max_tokens": stage.max_tokens, "task": read.task, "key": read.key}
    return about | counts | {"samples": samples}


def pack_picture(opened: Opened, number: int, image: int) -> bytes | None:
    """Return a JPEG of an image of a pack. Raises IndexError."""
    return thumbnail(opened.packs[number].images[image], CARD)
