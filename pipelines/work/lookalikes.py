"""Candidates of near-duplicates, compared by their pictures: which pairs are copies, and what was measured."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from cleaners.copies import Likeness, Picture, compare, prepare
from cleaners.dedup import Groups, first_of_each
from corpus.records import decode_image, from_members
from corpus.shards import indexed, read_samples

AT_ONCE = 256  # pairs, between which it is asked anew which samples are connected already


class Compared(NamedTuple):
    """Two samples (numbers, a < b), the bits in which their hashes differ, and their likeness."""

    a: int
    b: int
    bits: int
    likeness: Likeness

    def other(self, sample: int) -> int:
        """Return the sample that one was compared with."""
        return self.a if sample == self.b else self.b


def compare_all(pairs: np.ndarray, place: Callable[[int], tuple[str, int]]) -> Iterator[Compared]:
    """Compare candidates (a, b, bits), the nearest first; pairs of samples that others connect are left out.

    `place` says in which shard a sample is, and which of it: both images are read again there.
    """
    groups = Groups()
    order = np.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(order), AT_ONCE):
            chunk = [tuple(map(int, pairs[i])) for i in order[start : start + AT_ONCE]]
            open_pairs = [pair for pair in chunk if groups.first(pair[0]) != groups.first(pair[1])]
            found = pool.map(lambda pair: compare(_picture(*place(pair[0])), _picture(*place(pair[1]))), open_pairs)
            for (a, b, bits), likeness in zip(open_pairs, found, strict=True):
                if likeness.copies:
                    groups.join(a, b)
                yield Compared(a, b, bits, likeness)


def telling(compared: Iterable[Compared]) -> dict[int, Compared]:
    """Return for each sample the comparison that tells most of it: with a copy if there is one, else the nearest."""
    best: dict[int, Compared] = {}
    for each in compared:
        for sample in (each.a, each.b):
            if sample not in best or each.likeness.copies > best[sample].likeness.copies:
                best[sample] = each
    return best


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of the samples of all splits, by their numbers."""

    root: np.ndarray  # [samples] the sample that stands for this one
    goes: np.ndarray  # [samples] whether it is removed
    shown: np.ndarray  # [samples] whether the ledger tells of a comparison
    told: dict[int, Compared]

    def others(self, samples: np.ndarray) -> np.ndarray:
        """Return the number of the sample that each of `samples` was compared with."""
        pairs = zip(samples.tolist(), self.goes[samples].tolist(), strict=True)
        return np.array([self.root[i] if goes else self.told[i].other(i) for i, goes in pairs], np.int64)

    def measured(self, samples: np.ndarray) -> Iterator[tuple]:
        """Return bits, likeness and path of the comparison of each of `samples`, or what stands for none."""
        pairs = map(self.told.get, samples.tolist())
        found = [(each.bits, each.likeness.value, each.likeness.path) if each else (-1, np.nan, "") for each in pairs]
        return zip(*found, strict=True) if found else iter(((), (), ()))


def judge_all(single: np.ndarray, first: np.ndarray, compared: Sequence[Compared]) -> Judged:
    """Say which samples go.

    single: [samples] whether a sample alone may hold its image. first: [samples] the first sample of the same bytes.
    """
    same = np.array([[each.a, each.b] for each in compared if each.likeness.copies], np.int64).reshape(-1, 2)
    told = telling(compared)
    root = first_of_each(len(first), same)[first]
    # The same bytes in a question set are several questions about one image: they stand or fall together.
    goes = np.where(root == first, (first != np.arange(len(first))) & single, True)
    shown = goes.copy()
    shown[list(told)] = True
    return Judged(root, goes, shown, told)


@functools.lru_cache(maxsize=512)
def _picture(url: str, row: int) -> Picture:
    return prepare(decode_image(image_at(url, row)))


def image_at(url: str, row: int) -> bytes:
    """Return the first image of a sample of a shard: by the shard's index, or, without one, read up to it."""
    shard = _shard(url)
    members = shard[row][1] if shard else next(islice(read_samples(url), row, None)).members
    return from_members(members).images[0].data


@functools.lru_cache(maxsize=64)
def _shard(url: str):
    return indexed(url)
