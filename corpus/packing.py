"""Pack whole samples into sequences under two caps, tokens and images. Pure: it sees lengths and image counts alone.

Two planners run and the better plan wins. Best-fit-decreasing is near-optimal where small samples can fill what
large ones leave. Captions leave it no small ones: with 258 tokens for the image, every sample is a sixth or seventh of
a pack, and filling one pack after another ends in gaps that nothing fits. The levelled planner decides beforehand how
many packs hold k samples and how many k + 1, so that both kinds come out full, and then evens them out by exchanges.
"""

import numpy as np

_SWEEPS = 16  # of exchanges; most data needs fewer
_NEAR_OPTIMAL = 1.0005  # packs, against the bound below: no need to plan again
_SLACK = 1  # tokens per pack that the levelled planner leaves free, so that evening out has room


def plan_packs(
    lengths: np.ndarray, images: np.ndarray, max_tokens: int, max_images: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """Return the pack of each sample, int64 [n]: whole samples, at most `max_tokens` and `max_images` in a pack.

    No two samples of one group (int64 [n]: copies of one sample) share a pack. Packs are numbered in the order of their
    first samples. The plan depends on nothing but the arguments. Raises ValueError when a sample alone breaks a cap:
    such samples have to be dropped, and accounted for, beforehand.
    """
    lengths, images = np.asarray(lengths, np.int64), np.asarray(images, np.int64)
    if len(lengths) == 0:
        return np.zeros(0, np.int64)
    if lengths.min() < 1 or lengths.max() > max_tokens or images.max() > max_images:
        raise ValueError(
            f"samples of {lengths.min()} to {lengths.max()} tokens and up to {images.max()} images do not fit "
            f"packs of {max_tokens} tokens and {max_images} images"
        )
    plan = best_fit(lengths, images, max_tokens, max_images)
    fluid = lower_bound(lengths, images, max_tokens, max_images)
    if plan.max() + 1 > _NEAR_OPTIMAL * fluid and (images == images[0]).all():
        plan = min(plan, levelled(lengths, int(images[0]), max_tokens, max_images), key=np.max)
    if groups is not None:
        plan = apart(plan, groups, lengths, images, max_tokens, max_images)
    return _renumbered(plan)


def lower_bound(lengths: np.ndarray, images: np.ndarray, max_tokens: int, max_images: int) -> int:
    """Return a number of packs that no plan can go below: that of either cap, were samples fluid."""
    return int(max(-(-np.sum(lengths) // max_tokens), -(-np.sum(images) // max_images)))


def apart(plan, groups, lengths, images, max_tokens: int, max_images: int) -> np.ndarray:
    """Change a plan until no pack holds two samples of one group.

    A repeated sample is exchanged with the one of another pack that is nearest in length; where none can take its
    place, it goes to the fullest pack that has room for it, or to a new one.
    """
    repeated = _repeated(plan, groups)
    packs, count, most = plan.copy(), plan.max() + 1, plan.max() + 1 + len(repeated)
    tokens = max_tokens - np.bincount(packs, lengths, most).astype(np.int64)  # room
    slots = max_images - np.bincount(packs, images, most).astype(np.int64)

    def move(sample: int, pack: int) -> None:
        tokens[packs[sample]] += lengths[sample]
        slots[packs[sample]] += images[sample]
        tokens[pack] -= lengths[sample]
        slots[pack] -= images[sample]
        packs[sample] = pack

    for i in repeated:
        pack = packs[i]
        closed = np.zeros(most, bool)  # packs with a sample of the group
        closed[packs[groups == groups[i]]] = True
        longer, more = lengths - lengths[i], images - images[i]
        fits = (longer <= tokens[pack]) & (-longer <= tokens[packs]) & (more <= slots[pack]) & (-more <= slots[packs])
        fits &= ~closed[packs] & ~np.isin(groups, groups[packs == pack])
        if fits.any():
            j = np.where(fits, np.abs(longer), max_tokens).argmin()
            other = packs[j]
            move(i, other)
            move(j, pack)
        else:
            closed |= (tokens < lengths[i]) | (slots < images[i])
            closed[count + 1 :] = True  # one new pack at a time
            move(i, np.where(closed, max_tokens + 1, tokens).argmin())
            count = max(count, packs[i] + 1)
    return packs


def _repeated(packs: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the samples whose pack holds an earlier one of their group."""
    order = np.lexsort((groups, packs))
    same = (np.diff(packs[order]) == 0) & (np.diff(groups[order]) == 0)
    return np.sort(order[1:][same])


def _renumbered(packs: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(packs, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]


def best_fit(lengths: np.ndarray, images: np.ndarray, max_tokens: int, max_images: int) -> np.ndarray:
    """Best-fit-decreasing: the longest first, each into the fullest pack that has room for it.

    Samples of equal length and images are placed together, and so are packs with equal room, which gives the same
    plan as one by one and takes time in the number of different lengths rather than of samples.
    """
    rooms = _Rooms(max_tokens, max_images, len(lengths))
    rooms.place_decreasing(np.arange(len(lengths)), lengths, images)
    return rooms.packs


class _Rooms:
    """Open packs by what they still have room for: (tokens, images) -> pack numbers."""

    def __init__(self, max_tokens: int, max_images: int, samples: int):
        self.packs = np.full(samples, -1, np.int64)
        self._empty = max_tokens, max_images
        self._count = 0
        self._open: dict[tuple[int, int], list[np.ndarray]] = {}
        # One bit for each number of free tokens, per number of free images: the best fit is the lowest bit.
        self._bits = [0] * (max_images + 1)

    def open(self, rows: np.ndarray, lengths: np.ndarray, images: int) -> None:
        """Add packs that hold samples already, int64 [P, k], each sample with `images` images; -1 is no sample."""
        held = np.where(rows >= 0, lengths[rows], 0).sum(axis=1)
        packs = self._new(len(rows))
        self.packs[rows[rows >= 0]] = np.repeat(packs, (rows >= 0).sum(axis=1))
        free = self._empty[1] - images * (rows >= 0).sum(axis=1)
        for room in np.unique(np.stack([self._empty[0] - held, free]), axis=1).T:
            self._put(packs[(self._empty[0] - held == room[0]) & (free == room[1])], int(room[0]), int(room[1]))

    def place_decreasing(self, samples: np.ndarray, lengths: np.ndarray, images: np.ndarray) -> None:
        """Place samples (indices into `lengths` and `images`), the longest first, then those with most images."""
        samples = samples[np.lexsort((-images[samples], -lengths[samples]))]
        kinds = np.stack([lengths[samples], images[samples]])
        starts = np.flatnonzero(np.r_[True, (np.diff(kinds) != 0).any(axis=0), True]) if len(samples) else [0]
        for start, end in zip(starts[:-1], starts[1:], strict=True):
            self._place(samples[start:end], int(kinds[0, start]), int(kinds[1, start]))

    def _place(self, samples: np.ndarray, length: int, images: int) -> None:
        while len(samples):
            room = self._best(length, images)
            tokens, free = room or self._empty
            each = min(tokens // length, free // images) if images else tokens // length
            wanted = -(-len(samples) // each)
            packs = self._take(room, wanted) if room else self._new(wanted)
            whole = min(len(packs), len(samples) // each)
            self._fill(samples[: whole * each], packs[:whole], tokens - each * length, free - each * images)
            samples, packs = samples[whole * each :], packs[whole:]
            if len(packs):  # the last pack takes fewer
                self._fill(samples, packs, tokens - len(samples) * length, free - len(samples) * images)
                return

    def _best(self, length: int, images: int) -> tuple[int, int] | None:
        best = None
        for free in range(images, len(self._bits)):
            if fitting := self._bits[free] >> length:
                tokens = length + (fitting & -fitting).bit_length() - 1
                if best is None or tokens < best[0]:
                    best = tokens, free
        return best

    def _fill(self, samples: np.ndarray, packs: np.ndarray, tokens: int, free: int) -> None:
        if len(packs):
            self.packs[samples] = np.repeat(packs, len(samples) // len(packs))
            self._put(packs, tokens, free)

    def _put(self, packs: np.ndarray, tokens: int, free: int) -> None:
        self._open.setdefault((tokens, free), []).append(packs)
        self._bits[free] |= 1 << tokens

    def _new(self, wanted: int) -> np.ndarray:
        self._count += wanted
        return np.arange(self._count - wanted, self._count)

    def _take(self, room: tuple[int, int], wanted: int) -> np.ndarray:
        packs = np.concatenate(self._open[room])
        self._open[room] = [packs[wanted:]] if len(packs) > wanted else []
        if not self._open[room]:
            self._bits[room[1]] &= ~(1 << room[0])
        return packs[:wanted]


def levelled(lengths: np.ndarray, images: int, max_tokens: int, max_images: int) -> np.ndarray:
    """Packs of k and of k + 1 samples, evened out; what does not fit then goes through best-fit.

    All samples have the same number of images.
    """
    most = max_images // images if images else max_tokens
    order = np.argsort(lengths, kind="stable")
    rooms = _Rooms(max_tokens, max_images, len(lengths))
    left = []
    for members, size in _split_by_size(lengths[order], max_tokens - _SLACK, most):
        whole = len(members) // size * size
        rows = _evened(lengths, order[members[:whole]].reshape(size, -1).T, max_tokens)
        left += [_cut_overflow(lengths, rows, max_tokens), order[members[whole:]]]
        rooms.open(rows, lengths, images)
    rooms.place_decreasing(np.concatenate(left), lengths, np.full(len(lengths), images))
    return rooms.packs


def _split_by_size(lengths: np.ndarray, capacity: int, most: int) -> list[tuple[np.ndarray, int]]:
    """Divide samples, sorted by length, into those for packs of k and of k + 1: [(positions, pack size)].

    Both kinds come out full where that is possible: packs of k + 1 get a window of the sorted samples whose mean is
    capacity / (k + 1), packs of k those on both sides, where long samples find short ones to go with.
    """
    n, total = len(lengths), int(lengths.sum())
    size = min(capacity * n // total, most)
    if size in (most, 0):
        return [(np.arange(n), max(size, 1))]
    sums = np.concatenate([[0], np.cumsum(lengths)])
    num_packs = -(-total // capacity)
    larger = max(0, n - size * num_packs)
    while larger and sums[larger * (size + 1)] > larger * capacity:  # even the shortest samples are too long
        larger -= -(-larger // 256)
    width = larger * (size + 1)
    windows = sums[width:] - sums[: n - width + 1]
    start = int(np.searchsorted(windows, larger * capacity, side="right")) - 1
    inside = np.arange(start, start + width)
    outside = np.concatenate([np.arange(start), np.arange(start + width, n)])
    return [(inside, size + 1), (outside, size)]


def _evened(lengths: np.ndarray, rows: np.ndarray, max_tokens: int) -> np.ndarray:
    """Exchange samples between packs, int64 [P, k], overflowing ones with the lightest, until none overflows."""
    rows = rows.copy()
    rows[:, 1::2] = rows[::-1, 1::2]  # columns ascend; turning every other one evens out most of it
    lengths = lengths.astype(np.int16 if max_tokens < 8192 else np.int64)
    for _ in range(_SWEEPS):
        sums = lengths[rows].sum(axis=1, dtype=lengths.dtype)
        over = min(np.count_nonzero(sums > max_tokens), len(rows) // 2)
        if over == 0:
            break
        order = np.argsort(sums, kind="stable")
        light, heavy = order[:over], order[::-1][:over]
        gap = (sums[heavy] - sums[light])[:, None, None]
        moved = lengths[rows[heavy]][:, :, None] - lengths[rows[light]][:, None, :]
        after = np.abs(gap - 2 * moved).reshape(over, -1)
        best = after.argmin(axis=1)
        better = after[np.arange(over), best] < gap[:, 0, 0]
        i, j = np.divmod(best[better], rows.shape[1])
        heavy, light = heavy[better], light[better]
        rows[heavy, i], rows[light, j] = rows[light, j], rows[heavy, i]
    return rows


def _cut_overflow(lengths: np.ndarray, rows: np.ndarray, max_tokens: int) -> np.ndarray:
    """Take samples out of packs, in place, until none overflows (-1 stands where one was); return those taken out."""
    taken = []
    while True:
        held = np.where(rows >= 0, lengths[rows], 0)
        over = held.sum(axis=1) - max_tokens
        bad = np.flatnonzero(over > 0)
        if not len(bad):
            return np.concatenate(taken) if taken else np.zeros(0, np.int64)
        # The shortest sample whose going is enough; the longest where none is.
        enough = np.where(held[bad] >= over[bad, None], held[bad], held.max() + 1)
        column = np.where(enough.min(axis=1) <= held.max(), enough.argmin(axis=1), held[bad].argmax(axis=1))
        taken.append(rows[bad, column])
        rows[bad, column] = -1
