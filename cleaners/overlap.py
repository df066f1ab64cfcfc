"""Texts of evaluation sets, found again in training texts by hashed runs of words (n-grams).

A text is a sequence of words: runs of letters and digits, lower-case, each Han or kana character a word of its own. One
of eight words or more is found where 70 % of its runs of eight stand in one sample (PaLM, section 8 and appendix C);
a shorter one where it stands whole.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

RUN = 8  # words
SHARE = 0.7
FEWEST = 4  # words: shorter texts are everywhere
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


def words_of(text: str) -> list[str]:
    """Return the words of a text, composed and lower-case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def runs(words: Sequence[str], length: int) -> list[int]:
    """Hash every run of `length` words (64 bits each)."""
    return [
        xxhash.xxh3_64_intdigest(" ".join(words[i : i + length]).encode("utf-8", "replace"))
        for i in range(len(words) - length + 1)
    ]


def entry(text: str) -> str | None:
    """Write a text as lists hold it, "N:HEX"; None for one of fewer than FEWEST words."""
    words = words_of(text)
    if len(words) < FEWEST:
        return None
    length = min(len(words), RUN)
    return f"{length}:" + "".join(f"{value:016x}" for value in dict.fromkeys(runs(words, length)))


class Texts:
    """Finds which of many evaluation texts, given as entries, stand in a training text."""

    def __init__(self, entries: Iterable[str], fewest: int = FEWEST):
        self._needed, self._lengths = [], set()
        self._owners: dict[int, list[int]] = {}
        for number, (length, hashes) in enumerate(map(_read, entries)):
            self._needed.append(max(1, int(np.ceil(SHARE * len(hashes) - 1e-9))))
            if length + len(hashes) - 1 >= fewest:
                self._lengths.add(length)
                for value in hashes:
                    self._owners.setdefault(value, []).append(number)

    def __len__(self) -> int:
        return len(self._needed)

    def within(self, text: str) -> list[int]:
        """Return the numbers of the entries that stand in a text, in order."""
        words, found = words_of(text), Counter[int]()
        for length in self._lengths:
            for value in set(runs(words, length)):
                for number in self._owners.get(value, ()):
                    found[number] += 1
        return sorted(number for number, count in found.items() if count >= self._needed[number])


def _read(entry: str) -> tuple[int, list[int]]:
    length, _, digits = entry.partition(":")
    return int(length), [int(digits[i : i + 16], 16) for i in range(0, len(digits), 16)]
