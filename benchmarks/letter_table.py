"""Make the table of `renderers/plausible.py`: how surprising each letter is after each other, in the Latin alphabet.

  python -m benchmarks.letter_table enwiki.txt de.txt fr.txt ...

Every file is running text of one language, UTF-8 (the table in place was made from English Wikipedia and Debian's
manual pages in Czech, Danish, Dutch, Finnish, French, German, Hungarian, Indonesian, Italian, Norwegian, Polish,
Portuguese, Romanian, Spanish, Swedish, Turkish). A pair of letters is as surprising as in the language where it is
least so, in bits, 1 to 9.
"""

import sys
from pathlib import Path

import numpy as np

from renderers.plausible import letter_pairs

MOST = 1_500_000  # characters of each language


def main() -> None:
    """Print the table: a row for each letter (first: the border of a word), a digit for each letter after it."""
    shares = []
    for path in sys.argv[1:]:
        counts = np.full((27, 27), 0.02)
        np.add.at(counts, letter_pairs(Path(path).read_text(encoding="utf-8")[:MOST]), 1)
        shares.append(counts / counts.sum(axis=1, keepdims=True))
    bits = np.clip(np.round(-np.log2(np.max(shares, axis=0))), 1, 9).astype(int)
    print("\n".join("".join(map(str, row)) for row in bits))


if __name__ == "__main__":
    main()
