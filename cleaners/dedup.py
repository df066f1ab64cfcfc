"""Near-duplicates without comparing all pairs: perceptual hashes and MinHash signatures meet in buckets of equal bands.

A band is a part of a hash. Two images are compared only where a band of one's plain hash equals a band of any view of
the
other (or one that differs in its weakest bits): buckets first, the long hash decides.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cleaners.phash import LONG_BYTES, SHORT_BITS, Hashes, distance

BANDS, BAND_BITS = 3, SHORT_BITS // 3
MAX_DISTANCE = 64  # of 255 bits; of 20,000 pairs of unrelated photos the nearest differ in 86
FULL_BUCKET = 512  # members; a larger bucket tells nothing about its members and would cost their square
_FLIPS = [flip for count in range(3) for flip in combinations(range(3), count)]  # of the three weakest bits
_PLACES = np.uint64(1) << np.arange(BAND_BITS, dtype=np.uint64)


def plain_keys(short: np.ndarray) -> np.ndarray:
    """Return the band keys (uint64 [..., 3]) of short hashes (bool [..., 63])."""
    bands = short.reshape(*short.shape[:-1], BANDS, BAND_BITS)
    return bands @ _PLACES | np.arange(BANDS, dtype=np.uint64) << np.uint64(BAND_BITS)


def probe_keys(hashes: Hashes) -> tuple[np.ndarray, np.ndarray]:
    """Return (keys, view of each): the plain bands of all views, and of view 0 those with its weakest bits flipped."""
    plain = plain_keys(hashes.short)
    weakest = np.argsort(hashes.weakness[0].reshape(BANDS, BAND_BITS), axis=1)[:, :3].astype(np.uint64)
    masks = np.stack(
        [sum((np.uint64(1) << weakest[:, w] for w in flip), np.zeros(BANDS, np.uint64)) for flip in _FLIPS[1:]]
    )
    keys = np.concatenate([plain.ravel(), (plain[0] ^ masks).ravel()])
    views = np.repeat(np.arange(len(plain) + len(masks)), BANDS)
    return keys, np.where(views < len(plain), views, 0)


class Matcher:
    """Finds, among hashes held in memory (evaluation images, an exclusion list), those near an image."""

    def __init__(self, short: np.ndarray, long: np.ndarray):
        """Index `short` bool [n, 63] and `long` uint8 [n, 32]."""
        self._long = long
        keys = plain_keys(short).ravel() if len(short) else np.zeros(0, np.uint64)
        order = np.argsort(keys, kind="stable")
        self._keys, self._entries = keys[order], order // BANDS

    def nearest(self, hashes: Hashes) -> tuple[int, int] | None:
        """Return (index, distance in bits) of the nearest hash within MAX_DISTANCE, or None."""
        keys, views = probe_keys(hashes)
        first = np.searchsorted(self._keys, keys, "left")
        counts = np.searchsorted(self._keys, keys, "right") - first
        entries = self._entries[_ranges(first, counts)]
        if not len(entries):
            return None
        distances = distance(hashes.long[np.repeat(views, counts)], self._long[entries])
        best = np.lexsort((entries, distances))[0]
        return (int(entries[best]), int(distances[best])) if distances[best] <= MAX_DISTANCE else None


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenate arange(start, start + count) for all starts."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


def near_pairs(
    home: np.ndarray, probes: np.ndarray, views: np.ndarray, long: np.ndarray, *, keys_at_once: int = 20_000_000
) -> tuple[np.ndarray, int]:
    """Find pairs of near-duplicate images among n, in time linear in n as long as buckets stay below FULL_BUCKET.

    `home` uint64 [n, 3] are the plain keys of the images as they are, `probes` uint64 [n, k] all their keys, `views`
    int [k] the view of each probe, `long` uint8 [n, VIEWS, 32]; all may be memory maps. Keys are taken by ranges, so
    that about `keys_at_once` are sorted at a time. Returns (pairs int64 [m, 2] with the smaller index first, sorted,
    without repetitions; number of buckets left out because they were full).
    """
    parts = max(1, -(-probes.size // keys_at_once))
    pairs, full = [np.zeros((0, 2), np.int64)], 0
    for part in range(parts):
        candidates, left_out = _candidates(home, probes, views, part, parts)
        full += left_out
        pairs += [_verified(chunk, long) for chunk in candidates]
    return np.unique(np.concatenate(pairs), axis=0), full


def _candidates(home, probes, views, part: int, parts: int) -> tuple[Iterator[np.ndarray], int]:
    """Return ([image with the home key, image with the probe, view of the probe] chunks, full buckets) of a key
    range."""
    images, columns = np.nonzero(probes % np.uint64(parts) == part)
    keys = probes[images, columns]
    order = np.argsort(keys, kind="stable")
    keys, images, columns = keys[order], images[order], columns[order]
    owners, bands = np.nonzero(home % np.uint64(parts) == part)
    first = np.searchsorted(keys, home[owners, bands], "left")
    counts = np.searchsorted(keys, home[owners, bands], "right") - first
    full = np.unique(first[counts > FULL_BUCKET]).size
    counts = np.where(counts > FULL_BUCKET, 0, counts)
    return _chunks(owners, first, counts, images, views[columns]), full


def _chunks(owners, first, counts, images, views, size: int = 65_536) -> Iterator[np.ndarray]:
    for at in range(0, len(owners), size):
        rows = _ranges(first[at : at + size], counts[at : at + size])
        pairs = np.stack([np.repeat(owners[at : at + size], counts[at : at + size]), images[rows], views[rows]], axis=1)
        yield pairs[pairs[:, 0] != pairs[:, 1]]


def _verified(candidates: np.ndarray, long: np.ndarray) -> np.ndarray:
    if not len(candidates):
        return np.zeros((0, 2), np.int64)
    a, b, view = candidates.T
    near = distance(long[a, 0], long[b, view]) <= MAX_DISTANCE
    return np.unique(np.sort(candidates[near, :2], axis=1), axis=0)


def first_of_each(count: int, pairs: np.ndarray) -> np.ndarray:
    """Return, for each of `count` items, the smallest index that pairs connect it with (int64 [count])."""
    first = np.arange(count)
    if len(pairs):
        members, compact = np.unique(pairs, return_inverse=True)
        compact = compact.reshape(pairs.shape)
        graph = coo_array((np.ones(len(pairs), bool), (compact[:, 0], compact[:, 1])), shape=(len(members),) * 2)
        _, labels = connected_components(graph, directed=False)
        smallest = np.full(labels.max() + 1, count)
        np.minimum.at(smallest, labels, members)
        first[members] = smallest[labels]
    return first


def pack_short(short: np.ndarray) -> np.ndarray:
    """Pack short hashes, bool [n, 63], into uint8 [n, 8]."""
    return np.packbits(short, axis=-1)


def to_hex(hashes: Hashes) -> list[str]:
    """Write the views of an image as exclusion lists hold them: 80 hexadecimal digits each, short hash then long."""
    rows = np.concatenate([pack_short(hashes.short), hashes.long], axis=1)
    return [row.tobytes().hex() for row in rows]


def matcher_of_hex(lines: Sequence[str]) -> Matcher:
    """Build a Matcher of the entries of an exclusion list."""
    data = np.frombuffer(bytes.fromhex("".join(lines)), np.uint8).reshape(-1, 8 + LONG_BYTES)
    return Matcher(np.unpackbits(data[:, :8], axis=1)[:, :SHORT_BITS].astype(bool), data[:, 8:])
