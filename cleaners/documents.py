"""Rules for pure text: broken Unicode, length, exact duplicates and near-duplicates by MinHash.

Near-duplicates follow the usual recipe for web text (datasketch's MinHash; shingles of five words, of five characters
where a script has no spaces; Jaccard similarity of at least 0.8).
"""

import functools
from collections.abc import Iterator

import ftfy
import numpy as np
import regex
import xxhash

from cleaners import personal
from corpus.rules import Parameter, Rule

PERMUTATIONS, BANDS, ROWS = 128, 16, 8  # 16 bands of 8: half of all pairs with similarity 0.70 meet, 99.9 % with 0.85
SHINGLE = 5
MIN_SIMILARITY = 0.8
NEIGHBOURS = 64  # of a bucket that a document is compared with
MAX_SHINGLED = 100_000  # characters of a document that its signature is made of
BROKEN = regex.compile(r"[\uFFFD\p{Co}\p{Cs}]|[\p{Cc}--[\t\n\r]]", flags=regex.VERSION1)
_UNITS = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]|\w+")
_BLANK_LINES = regex.compile(r"\n{3,}")

RULES = [
    Rule(
        name="broken_unicode", says="documents with too large a share of lost characters", on=True,
        parameters={"max": Parameter(default=0.001, score="broken")},
    ),
    Rule(
        name="too_short", says="documents of too few characters", on=True,
        parameters={"min_characters": Parameter(default=200, score="characters", bound="min")},
    ),
    Rule(
        name="too_long", says="documents of too many characters", on=True,
        parameters={"max_characters": Parameter(default=1_000_000, score="characters")},
    ),
    *personal.RULES,
    Rule(name="exact_duplicate", says="all but the first of equal documents", on=True, compares=True),
    Rule(name="near_duplicate", says="all but the first of similar documents (MinHash)", on=True, compares=True),
]  # fmt: skip


def mend(text: str) -> str:
    """Repair mojibake and line ends, put characters into composed form; keep the paragraphs."""
    mended = ftfy.fix_text(
        text, unescape_html=False, normalization="NFC", uncurl_quotes=False, fix_character_width=False
    )
    lines = (line.rstrip() for line in mended.split("\n"))
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip()


def broken_share(text: str) -> float:
    """Return the share of characters that stand for lost ones: replacement, private use, surrogates, control codes."""
    return len(BROKEN.findall(text)) / len(text) if text else 0.0


def exact_key(text: str) -> int:
    """Hash what a document says: case and white space do not count. 64 bits, as int64 of the same bits."""
    return (
        np.uint64(xxhash.xxh3_64_intdigest(" ".join(text.lower().split()).encode("utf-8", "replace")))
        .astype(np.int64)
        .item()
    )


def shingles(text: str) -> Iterator[bytes]:
    """Yield runs of five words (of five characters in scripts without spaces); a shorter text is one run."""
    units = _UNITS.findall(text[:MAX_SHINGLED].lower())
    for i in range(max(1, len(units) - SHINGLE + 1)):
        yield " ".join(units[i : i + SHINGLE]).encode("utf-8", "replace")


def signature(text: str) -> np.ndarray:
    """Return a document's MinHash signature (uint32 [128])."""
    sketch = _empty_sketch().copy()
    sketch.update_batch(list(set(shingles(text))))
    return sketch.hashvalues.astype(np.uint32)


@functools.cache
def _empty_sketch():
    from datasketch import MinHash  # brings a good part of scipy along, and every job reads the rules above

    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")


def similar_pairs(signatures) -> np.ndarray:
    """Find near-duplicates among n documents: pairs int64 [m, 2], smaller index first.

    `signatures` uint32 [n, 128], an array or cleaners.dedup.Rows. Documents meet where a band of their
    signatures is equal; each is compared with the NEIGHBOURS before it in such a bucket, so that the cost stays linear
    however many copies there are (copies of copies are joined through each other).
    """
    found = [np.zeros((0, 2), np.int64)]
    for band in range(BANDS):
        rows = np.ascontiguousarray(signatures[slice(None), slice(band * ROWS, (band + 1) * ROWS)])
        keys = rows.view(np.dtype((np.void, rows.dtype.itemsize * ROWS))).ravel()
        _, bucket = np.unique(keys, return_inverse=True)
        found += _similar_neighbours(bucket, signatures)
    return np.unique(np.concatenate(found), axis=0)


def _similar_neighbours(bucket: np.ndarray, signatures) -> Iterator[np.ndarray]:
    order = np.argsort(bucket, kind="stable")
    sorted_buckets = bucket[order]
    for step in range(1, min(NEIGHBOURS + 1, len(order))):
        together = np.flatnonzero(sorted_buckets[step:] == sorted_buckets[:-step])
        if not len(together):
            return
        a, b = order[together], order[together + step]
        alike = _similarity(signatures, a, b) >= MIN_SIMILARITY
        yield np.stack([a[alike], b[alike]], axis=1)


def _similarity(signatures, a: np.ndarray, b: np.ndarray, size: int = 65_536) -> np.ndarray:
    parts = [np.zeros(0)]
    for at in range(0, len(a), size):
        parts.append((signatures[a[at : at + size]] == signatures[b[at : at + size]]).mean(axis=1))
    return np.concatenate(parts)
