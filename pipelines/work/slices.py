"""Slices of cleaned splits, as build_stage.py reads them: chosen samples in order, from a store in runs and ahead."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc

from corpus.folder import OutputFolder
from corpus.ledger import KEPT
from corpus.mixture import copies, positions
from corpus.remote import AHEAD, prefetched
from corpus.shards import IndexedShard
from pipelines.work.licensing import RowLicence

_SLICES_AHEAD = 2  # opened while the one before is read


@dataclass(slots=True)
class SliceRow:
    """A sample of a slice; `place`: (number of the slice, index in its shard)."""

    key: str
    mark: str  # -x1, -x2, ... of a copy
    row: int
    dataset: str
    place: tuple[int, int]
    licensed: RowLicence | None = None


@dataclass
class Slice:
    """A slice of a cleaned split: its samples' keys, their places in the mixture and whether they are chosen, [N] each.

    Its first sample has the index `start` in the shard and the ordinal `first_row` in the split that is built.
    """

    dataset: str
    start: int
    weight: float
    copy: int
    licence: RowLicence | None
    shard: IndexedShard
    keys: list[str]
    places: np.ndarray
    chosen: np.ndarray
    number: int = field(default=0, init=False)
    first_row: int = field(default=0, init=False)

    @property
    def mark(self) -> str:
        """What is added to the keys of copies."""
        return f"-x{self.copy}" if self.copy else ""

    def row(self, i: int) -> SliceRow:
        """Return the row of the shard's sample `i`."""
        n = i - self.start
        return SliceRow(self.keys[n], self.mark, self.first_row + n, self.dataset, (self.number, i), self.licence)


Found = list[tuple[int, bytes]]  # indices in the shard, bytes of the samples


def read_slices(pieces: list[dict], task: str, seed: int, limit: int | None) -> Iterator[tuple[Slice, Found | None]]:
    """Yield each slice with None, and then again with its chosen samples, a run of them at a time.

    Slices of an object store are opened, and runs fetched, by threads that are ahead of the reader.
    """
    stored = any("://" in piece["folder"] for piece in pieces)
    slices = prefetched(lambda piece: _open(piece, task, seed, limit), pieces, _SLICES_AHEAD if stored else 0)
    return prefetched(lambda part: (part[0], _fetched(*part)), _runs(slices), AHEAD if stored else 0)


def _open(piece: dict, task: str, seed: int, limit: int | None) -> Slice:
    keys = kept_keys(piece["folder"], piece["split"])[piece["start"] : piece["stop"]][:limit]
    shard = IndexedShard(f"{piece['folder']}/{piece['split']}.tar").spool()
    places, licence = positions(keys, task, seed), RowLicence(**piece["licence"]) if "licence" in piece else None
    chosen = copies(places, piece["weight"]) > piece["copy"]
    about = piece["dataset"], piece["start"], piece["weight"], piece["copy"]
    return Slice(*about, licence, shard, keys, places, chosen)


def _runs(slices: Iterable[Slice]) -> Iterator[tuple[Slice, Sequence[int] | None]]:
    first_row = 0
    for number, piece in enumerate(slices):
        piece.number, piece.first_row = number, first_row
        first_row += len(piece.keys)
        yield piece, None
        for run in piece.shard.runs((piece.start + np.flatnonzero(piece.chosen)).tolist()):
            yield piece, run


def _fetched(piece: Slice, run: Sequence[int] | None) -> Found | None:
    return None if run is None else list(zip(run, piece.shard.fetch(run), strict=True))


@functools.lru_cache(maxsize=2 + _SLICES_AHEAD)
def kept_keys(folder: str, split: str) -> list[str]:
    """Return the keys of a cleaned split's samples, in the order of its shard, from its ledger."""
    output = OutputFolder(folder)
    table = output.table(output.manifest(split), columns=["key", "outcome"])
    return table["key"].filter(pc.equal(table["outcome"], KEPT)).to_pylist()
