"""Near-duplicates without comparing all pairs: perceptual hashes and MinHash signatures meet in buckets of equal bands.

A band is a part of a hash. Two images are compared only where a band of one's plain hash equals a band of any view of
the other (or differs in its weakest bits alone): buckets first, the long hash decides.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cleaners.phash import LONG_BYTES, SHORT_BITS, VIEWS, Hashes, distance

BANDS, BAND_BITS = 3, SHORT_BITS // 3
MAX_DISTANCE = 64  # of 255 bits; of 20,000 pairs of unrelated photos the nearest differ in 86
FULL_BUCKET = 2048  # members (an image may be several); a larger one tells nothing and would cost its square
WEAK, WEAK_OF_VIEWS = 3, 2  # bits of a band that are flipped: of the image as it is, singly and in pairs; of its views
_FLIPS = np.array(
    [[i in flip for i in range(WEAK)] for n in (1, 2) for flip in combinations(range(WEAK), n)], np.uint64
)
_ALL = np.arange(VIEWS)
PROBE_VIEWS = np.concatenate(
    [np.repeat(_ALL, BANDS), np.zeros(BANDS * len(_FLIPS), int), np.repeat(_ALL[1:], BANDS * WEAK_OF_VIEWS)]
)  # of each probe
_PLACES = np.uint64(1) << np.arange(BAND_BITS, dtype=np.uint64)


def plain_keys(short: np.ndarray) -> np.ndarray:
    """Return the band keys (uint64 [..., 3]) of short hashes (bool [..., 63])."""
    bands = short.reshape(*short.shape[:-1], BANDS, BAND_BITS)
    return bands @ _PLACES | np.arange(BANDS, dtype=np.uint64) << np.uint64(BAND_BITS)


def probe_keys(hashes: Hashes) -> np.ndarray:
    """Return an image's probes (uint64 [len(PROBE_VIEWS)]): the bands of all views, then with weak bits flipped."""
    plain = plain_keys(hashes.short)
    weakest = np.argsort(hashes.weakness.reshape(VIEWS, BANDS, BAND_BITS), axis=2, kind="stable")[..., :WEAK]
    bits = np.uint64(1) << weakest.astype(np.uint64)
    whole = plain[0] ^ (_FLIPS @ bits[0].T)
    views = plain[1:, :, None] ^ bits[1:, :, :WEAK_OF_VIEWS]
    return np.concatenate([plain.ravel(), whole.ravel(), views.ravel()])


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
        keys = probe_keys(hashes)
        first = np.searchsorted(self._keys, keys, "left")
        counts = np.searchsorted(self._keys, keys, "right") - first
        entries = self._entries[_ranges(first, counts)]
        if not len(entries):
            return None
        distances = distance(hashes.long[np.repeat(PROBE_VIEWS, counts)], self._long[entries])
        best = np.lexsort((entries, distances))[0]
        return (int(entries[best]), int(distances[best])) if distances[best] <= MAX_DISTANCE else None


def _ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Concatenate arange(start, start + count) for all starts."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - counts), counts)


class Groups:
    """Sets of connected items, which grow pair by pair (union-find); a set is named after its smallest member."""

    def __init__(self):
        self._parent: dict[int, int] = {}

    def first(self, item: int) -> int:
        """Return the smallest item that one is connected with."""
        while (above := self._parent.get(item, item)) != item:
            self._parent[item] = self._parent.get(above, above)
            item = above
        return item

    def join(self, a: int, b: int) -> None:
        """Connect two items."""
        low, high = sorted((self.first(a), self.first(b)))
        self._parent[high] = low


class Rows:
    """Chosen rows of an array, which may be a memory map: [rows] or [rows, columns] reads what it is asked for."""

    def __init__(self, array: np.ndarray, rows: np.ndarray | None = None):
        self._array, self._rows = array, np.arange(len(array)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index) -> np.ndarray:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        return np.asarray(self._array[self._rows[rows], columns])


def near_pairs(
    probes: Rows, long: Rows, *, within: int = MAX_DISTANCE, keys_at_once: int = 20_000_000
) -> tuple[np.ndarray, int]:
    """Find pairs of near-duplicate images among n, in time linear in n as long as buckets stay below FULL_BUCKET.

    `probes` uint64 [n, len(PROBE_VIEWS)] as from `probe_keys`, `long` uint8 [n, VIEWS * 32] the long hashes of all
    views. Keys are taken by ranges, about `keys_at_once` at a time; only those and the pairs found are in memory.
    Returns (pairs int64 [m, 3]: smaller index, larger, their distance of at most `within` bits, sorted; number of full
    buckets, which were not looked into).
    """
    parts = max(1, -(-len(probes) * len(PROBE_VIEWS) // keys_at_once))
    pairs, full = [np.zeros((0, 3), np.int64)], 0
    at_home_of = _plain_table(probes)
    for part in range(parts):
        keys, images, columns = _keys_of_part(probes, part, parts, at_home_of)
        at_home = np.flatnonzero(columns < BANDS)  # the first probes are the plain bands of the image as it is
        first = np.searchsorted(keys, keys[at_home], "left")
        counts = np.searchsorted(keys, keys[at_home], "right") - first
        full += np.unique(first[counts > FULL_BUCKET]).size
        counts[counts > FULL_BUCKET] = 0
        pairs += [
            _near(*chunk, long, within)
            for chunk in _chunks(images[at_home], first, counts, images, PROBE_VIEWS[columns])
        ]
    return _nearest_of_each(np.concatenate(pairs)), full


def _nearest_of_each(pairs: np.ndarray) -> np.ndarray:
    """Keep each pair once, at its smallest distance."""
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    return pairs[np.r_[True, (pairs[1:, :2] != pairs[:-1, :2]).any(axis=1)]] if len(pairs) else pairs


def _plain_table(probes: Rows, rows: int = 100_000) -> np.ndarray:
    """Return for each key whether some image has it as it is: no other key can be met."""
    table = np.zeros(BANDS << BAND_BITS, bool)
    for at in range(0, len(probes), rows):
        table[probes[slice(at, at + rows)][:, :BANDS].ravel()] = True
    return table


def _keys_of_part(probes: Rows, part: int, parts: int, plain: np.ndarray, rows: int = 100_000):
    """Return (keys, images, columns) of the probes in a part of the key space that `plain` knows, sorted by key."""
    found = []
    for at in range(0, max(1, len(probes)), rows):
        block = probes[slice(at, at + rows)]
        images, columns = np.nonzero(plain[block] & (block % np.uint64(parts) == part))
        found.append((block[images, columns], images + at, columns.astype(np.uint16)))
    keys, images, columns = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(keys, kind="stable")
    return keys[order], images[order], columns[order]


def _chunks(owners, first, counts, images, views, size: int = 65_536) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield (image as it is, other image, view of the other) of all that share a bucket."""
    for at in range(0, len(owners), size):
        rows = _ranges(first[at : at + size], counts[at : at + size])
        a, b, view = np.repeat(owners[at : at + size], counts[at : at + size]), images[rows], views[rows]
        yield a[a != b], b[a != b], view[a != b]


def _near(a: np.ndarray, b: np.ndarray, view: np.ndarray, long: Rows, within: int) -> np.ndarray:
    pairs = np.unique(np.stack([a, b, view], axis=1), axis=0)
    if not len(pairs):
        return np.zeros((0, 3), np.int64)
    whole = long[pairs[:, 0]].reshape(-1, VIEWS, LONG_BYTES)[:, 0]
    other = long[pairs[:, 1]].reshape(-1, VIEWS, LONG_BYTES)[np.arange(len(pairs)), pairs[:, 2]]
    bits = distance(whole, other)
    near = bits <= within
    return _nearest_of_each(np.column_stack([np.sort(pairs[near, :2], axis=1), bits[near]]))


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


def first_of_equals(values: np.ndarray) -> np.ndarray:
    """Return, for each item, the smallest index of an item with the same value."""
    _, index, inverse = np.unique(values, return_index=True, return_inverse=True)
    return index[inverse.ravel()]


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
