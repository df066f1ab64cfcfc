"""Candidates of near-duplicates, compared by their pictures: which pairs are copies, and what was measured."""

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np

from cleaners.copies import Likeness, Picture, compare, prepare
from cleaners.dedup import Groups
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
