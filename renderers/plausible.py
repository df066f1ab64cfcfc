"""Whether text can be what the page says, or its codes stand for other letters than it shows.

A PDF whose font maps to the wrong characters shows "Jacob Morrison" and says "IZbna Lnqqhrnm"; ink is there, and
nothing else sees the difference. Three measures, none of which needs to know the language.
"""

import codecs
import re
import unicodedata
from functools import cache

import numpy as np
from ftfy.badness import badness

# Bits of surprise at each letter after each other (row, then column; the first is the border of a word), in the
# language of seventeen where it is least. Made by `benchmarks/letter_table.py`.
_BITS = """
933333344454344436433444854
234348454454342457333335744
224571776267256269245369935
226572791332555269433386953
116651688255564259445467943
144444646354342768233567554
138753367178478297333387867
227851734254453249344279924
128741867246464289362428949
235342546534242355333546775
317531569272243154634149984
115651456364354289333365935
225752646265244356834468947
224852669386335339756459959
137432525265554379832359946
145444335464332338234333854
228452454378356239233459955
176533579697577769545179827
127532656254545275543455943
137372674243557347642447933
227672772275565358353366944
234432446243332449332365554
217671678298644289545569937
218651633198564259546592738
136452457396536427552685366
114342654554334339312444946
116441546196454242753275933
"""
_SURPRISE = np.array([[int(bits) for bits in row] for row in _BITS.splitlines() if row])
_ACCENTS = re.compile("[\u0300-\u036f]")
_CODES = np.array([code - 96 if 97 <= code <= 122 else 0 for code in range(256)])
_HAN = re.compile("[\u4e00-\u9fff]")
# The first levels of these standards, by their first byte. Looked up here: where pages are parsed, no file opens later.
_LEVELS = tuple(
    (codecs.getencoder(codec), first, last)
    for codec, first, last in (("gb2312", 0xB0, 0xD7), ("big5", 0xA4, 0xC6), ("shift_jis", 0x88, 0x97))
)
LEAST_LETTERS = 150  # pairs of letters below which nothing is judged
LEAST_SHARE = 0.3  # of the characters of a text of several scripts
LEAST_HAN = 50


def letter_pairs(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the Latin letters of a text, 1 for a to 26 for z, without accents, and what follows each; 0: no letter."""
    folded = text.lower() if text.isascii() else _ACCENTS.sub("", unicodedata.normalize("NFKD", text.lower()))
    codes = _CODES[np.frombuffer(f" {folded} ".encode("latin-1", "replace"), np.uint8)]
    within = (codes[:-1] > 0) | (codes[1:] > 0)
    return codes[:-1][within], codes[1:][within]


def letter_surprise(text: str) -> float:
    """Return the mean surprise of Latin letters in bits: 2.4 to 3.0 in real languages, 4 and more in others' letters.

    0 where there are too few to judge: abbreviations and addresses in a Chinese page are no language.
    """
    before, after = letter_pairs(text)
    enough = len(before) >= max(LEAST_LETTERS, LEAST_SHARE * len(text))
    return float(_SURPRISE[before, after].mean()) if enough else 0.0


def rare_han_share(text: str) -> float:
    """Return the share of Han characters that no standard counts among the common ones; 0: too few to judge."""
    found = _HAN.findall(text)
    return sum(not _is_common(char) for char in found) / len(found) if len(found) >= LEAST_HAN else 0.0


@cache
def _is_common(char: str) -> bool:
    """Whether the first level of GB 2312, Big5 or JIS X 0208, some 3,000 to 5,400 characters each, holds it."""
    for encode, first, last in _LEVELS:
        code = encode(char, "ignore")[0]
        if code and first <= code[0] <= last:
            return True
    return False


def mojibake(text: str) -> float:
    """Return signs of one encoding read as another, for every 100 characters."""
    sample = text.replace("\ufffd", "")[:4000]  # what cannot be decoded is counted by a rule of its own
    return 100 * badness(sample) / len(sample) if not sample.isascii() else 0.0
