"""The order in which training sees the packs of a corpus: pure functions of a position, without a list of a billion.

`in_packs`: every pack stands anywhere. `in_blocks`, for corpora that are read from object stores: BLOCK packs that lie
side by side are read together, and WINDOW blocks, drawn anywhere from the corpus, are shuffled with one another, pack
by pack. Within a window each position belongs to a lane, its number modulo LANES, and no two lanes share a block:
ranks that take every r-th position, r a divisor of LANES, read no block of each other's.
"""

import functools
import hashlib

BLOCK = 32  # packs
WINDOW = 512  # blocks: 16,384 packs
LANES = 64
_WINDOW = WINDOW * BLOCK
_SLOTS = WINDOW // LANES  # blocks of a lane in a window


def in_packs(position: int, packs: int, key: str) -> int:
    """Return which of `packs` packs stands at a position of the epoch that `key` names."""
    return permuted(position, packs, key)


def in_blocks(position: int, packs: int, key: str) -> int:
    """Return which of `packs` packs stands at a position of the epoch that `key` names.

    A corpus of one window or less is shuffled as `in_packs` does.
    """
    if packs <= _WINDOW:
        return in_packs(position, packs, key)
    window, inside = divmod(position, _WINDOW)
    size = min(_WINDOW, packs - window * _WINDOW)
    if size == _WINDOW:
        turn, lane = divmod(inside, LANES)
        inside = lane * _SLOTS * BLOCK + permuted(turn, _SLOTS * BLOCK, f"{key}/{window}/{lane}")
    else:
        inside = permuted(inside, size, f"{key}/{window}")
    slot, pack = divmod(window * _WINDOW + inside, BLOCK)
    blocks = packs // BLOCK  # what is left over stands in the last window
    return (permuted(slot, blocks, f"{key}/blocks") if slot < blocks else slot) * BLOCK + pack


ORDERS = {"packs": in_packs, "blocks": in_blocks}


def permuted(position: int, size: int, key: str) -> int:
    """Return the image of `position` under a pseudo-random permutation of range(size) chosen by `key`.

    A Feistel network over the next power of four; positions that fall outside the range walk on along their cycle
    (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Nothing is materialised, whatever the size.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask, keys = (1 << half) - 1, _round_keys(key)
    while True:
        left, right = position >> half, position & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right ^ round_key) & mask)
        position = left << half | right
        if position < size:
            return position


@functools.lru_cache(maxsize=4 * LANES)
def _round_keys(key: str) -> tuple[int, ...]:
    raw = hashlib.blake2b(key.encode(), digest_size=64).digest()
    return tuple(int.from_bytes(raw[i : i + 8], "little") for i in range(0, 64, 8))


def _mix(x: int) -> int:
    """The finaliser of SplitMix64: every input bit reaches every output bit."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    x = (x ^ x >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return x ^ x >> 31
