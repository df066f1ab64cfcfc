"""Lists of evaluation sets, made from their published files: ids, perceptual hashes, hashed n-grams of their texts."""

import os
from collections.abc import Iterable, Iterator, Sequence

from cleaners import overlap
from cleaners.phash import VIEWS
from corpus.evaluation import evaluation_sets, list_path
from corpus.readers.exclude import Excluded, load_excluded, records_of
from corpus.readers.refs_pickle import load_refs
from corpus.readers.rows import BadFile
from pipelines.engine import job
from pipelines.work.hash_lists import lines_of

_TEXTS = ("question", "caption", "raw", "sent", "expression", "phrase")


def read_set(places: Iterable[str]) -> Excluded:
    """Read what identifies evaluation data: lists, published JSON, refs(*).p, images, shards, folders, names of sets.

    Raises BadFile or UserError, naming what cannot be read.
    """
    parts, sets = [], evaluation_sets()
    for place in places:
        if place in sets and not os.path.exists(place):
            if not sets[place].listed:
                raise job.UserError(f"{place} has no list yet: python pipelines/guard.py add {place} FILES")
            parts.append(load_excluded([str(list_path(place))]))
        else:
            parts.append(_of_place(place))
    return union(parts)


def union(parts: Sequence[Excluded]) -> Excluded:
    """Put lists together; an image's hashes stay together, and count once."""
    images = dict.fromkeys(image for part in parts for image in _grouped(part.hashes))
    texts = dict.fromkeys(text for part in parts for text in part.texts)
    return Excluded(set().union(*(part.ids for part in parts)), [view for image in images for view in image], [*texts])


def _grouped(hashes: Sequence[str]) -> Iterator[tuple[str, ...]]:
    yield from (tuple(hashes[i : i + VIEWS]) for i in range(0, len(hashes), VIEWS))


def _of_place(place: str) -> Excluded:
    if place.endswith((".p", ".json", ".txt")):
        paths = job.find_inputs([place])
        found = Excluded() if place.endswith(".json") else load_excluded(paths)
        for path in paths:
            found.ids |= _ids(path) if path.endswith(".json") else set()
            found.texts += filter(None, map(overlap.entry, _texts(path)))
    else:
        hashes = [line.partition("#")[0].strip() for line in lines_of(place)]
        found = Excluded(hashes=[line.removeprefix("phash:") for line in hashes if line.startswith("phash:")])
    if not (found.ids or found.hashes or found.texts):
        raise BadFile(f"{place}: nothing in it that identifies an evaluation set: no ids, no images, no texts")
    return found


def _ids(path: str) -> set[str]:
    """Return a JSON's ids; a file with texts alone has none."""
    try:
        return load_excluded([path]).ids
    except BadFile:
        if next(_texts(path), None) is None:
            raise
        return set()


def _texts(path: str) -> Iterator[str]:
    """Yield the questions, captions and expressions of a published file."""
    if path.endswith(".p"):
        records = (sent for ref in load_refs(path) if ref.get("split") != "train" for sent in ref["sentences"])
    elif path.endswith(".json"):
        records = (inner for _, record in records_of(path) for inner in (record, *_inner(record)))
    else:
        return
    for record in records:
        yield from (record[name] for name in _TEXTS if isinstance(record, dict) and isinstance(record.get(name), str))


def _inner(record: dict) -> list:
    sentences = record.get("sentences")
    return sentences if isinstance(sentences, list) else []


def lines(found: Excluded) -> Iterator[str]:
    """Write a list as its file holds it, in one order whatever the order of its sources."""
    yield from sorted(found.ids)
    yield from (f"phash:{value}" for value in found.hashes)
    yield from (f"text:{value}" for value in sorted(found.texts))
