"""The longest text of those that share an image (Qwen-VL A.1, academic captions), over a whole dataset.

Special tags, the other rule of those sets, are `special_tags` of cleaners/rules.py.
"""

from collections.abc import Iterator, Sequence

import numpy as np

# A text that takes part: a 64-bit hash of what tells its image, its length in characters, its row in its split.
CANDIDATE = np.dtype([("image", "<u8"), ("length", "<i8"), ("row", "<i8")])


def longest_per_image(splits: Sequence[np.ndarray], *, rows_at_once: int = 4_000_000) -> list[np.ndarray]:
    """Return, for each split, the sorted rows (int64) whose text is the longest of all texts of its image.

    `splits` hold CANDIDATEs sorted by `image`, and may be memory maps: the images are taken by ranges of their hash,
    about `rows_at_once` rows at a time, so memory holds that many besides the rows that win. Of equally long texts the
    first in the order of (split, row) wins.
    """
    total = sum(len(split) for split in splits)
    winners: list[list[np.ndarray]] = [[] for _ in splits]
    for low, high in _hash_ranges(max(1, -(-total // rows_at_once))):
        for split, rows in _longest_in_range(splits, low, high):
            winners[split].append(rows)
    return [np.sort(np.concatenate([np.zeros(0, np.int64), *rows])) for rows in winners]


def _hash_ranges(count: int) -> Iterator[tuple[int, int]]:
    edges = [(i << 64) // count for i in range(count + 1)]
    yield from zip(edges[:-1], edges[1:], strict=True)


def _longest_in_range(splits: Sequence[np.ndarray], low: int, high: int) -> Iterator[tuple[int, np.ndarray]]:
    parts = []
    for split in splits:
        first = np.searchsorted(split["image"], np.uint64(low), "left")
        last = np.searchsorted(split["image"], np.uint64(high - 1), "right")
        parts.append(split[first:last])
    rows = np.concatenate(parts)
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    # The last key counts most: by image, then the longest, then the order of reading.
    order = np.lexsort((rows["row"], owner, -rows["length"], rows["image"]))
    first_of_image = np.ones(len(order), bool)
    first_of_image[1:] = rows["image"][order[1:]] != rows["image"][order[:-1]]
    best = order[first_of_image]
    for split in np.unique(owner[best]):
        yield int(split), rows["row"][best[owner[best] == split]]
