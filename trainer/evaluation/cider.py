"""CIDEr-D of captions (Vedantam, Zitnick and Parikh, 2015), as pycocoevalcap computes it, without its Java.

Captions are cut like the Stanford PTBTokenizer 3.4.1 does with -lowerCase, and lose the punctuation that the COCO
evaluation drops; rules for e-mail addresses, dates, smileys and the like are left out.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np

SIGMA, ORDERS = 6.0, 4

# The COCO evaluation drops these. Brackets are among its punctuation too, as -LRB-, but arrive in lower case and stay.
_DROPPED = {'"', "''", "'", "``", "`", ".", "..", "?", "!", ",", ":", "-", "--", "...", ";"}
_RENAMED = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-", "£": "#"}
# Words whose full stop is theirs; others lose it.
_ABBREVIATIONS = (
    "mr mrs ms dr prof rev gen sen rep gov lt col sgt capt st jr sr co corp inc ltd bros vs etc jan feb mar apr jun "
    "jul aug sep sept oct nov dec mon tue tues wed thu thurs fri mt ave blvd rd approx dept est fig ft"
)
_SPLIT_WORDS = {
    "cannot": ("can", "not"), "gonna": ("gon", "na"), "gotta": ("got", "ta"), "lemme": ("lem", "me"),
    "gimme": ("gim", "me"), "wanna": ("wan", "na"), "'tis": ("'t", "is"), "'twas": ("'t", "was"),
}  # fmt: skip
_TOKEN = re.compile(
    r"""
    n't\b | '(?:s|m|d|re|ve|ll)\b | 't(?:is|was)\b
  | (?:[^\W\d_]\.){2,}(?:[^\W\d_]\b)?                           # u.s.
  | (?:%s|[^\W\d_])\.(?=\s+\S) | (?:%s)\.(?=\s*$)            # st. james, a. daniels
  | (?<!\w)[+-]?(?:\d+(?:[.,:]\d+)*|\.\d+)(?![\w/-])         # -1.5, 1,000, 10:30
  | \d+(?:[.,:]\d+)+(?=[^\W\d_])                              # the number in 46.4gb
  | \d+/\d+/\d+ | \d+/\d+                                    # dates and fractions
  | @?\w+(?:-\w+|'(?!(?:s|m|d|re|ve|ll)\b)\w+|/\w+|\.(?=[^\W\d_])\w+|(?<=\d)[.,:]\d+)*
  | --+ | \.\.+ | ''|`` | .
    """
    % (("|".join(_ABBREVIATIONS.split()),) * 2),
    re.VERBOSE,
)
_NOT = re.compile(r"(?<=\w)(?=n't\b)")


def tokenize(caption: str) -> list[str]:
    """Cut a caption into the tokens that CIDEr counts."""
    text = caption.lower().replace("’", "'").replace("‘", "'").replace("“", '"').replace("”", '"')
    tokens = []
    for match in _TOKEN.finditer(_NOT.sub(" ", text)):
        token = match.group()
        if not token.isspace():
            tokens += _SPLIT_WORDS.get(token) or (_RENAMED.get(token, token),)
    return [token for token in tokens if token not in _DROPPED]


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Return CIDEr-D (0 to 10) of each image's caption; their mean is the score, by custom times 100.

    How much an n-gram weighs hangs on the number of images whose references have it, so scores of a subset differ.
    Raises ValueError when an image has no reference.
    """
    if len(candidates) != len(references) or not all(references):
        raise ValueError(f"{len(candidates)} captions, {len(references)} images, some without references")
    found = [_ngrams(tokenize(text)) for text in candidates]
    wanted = [[_ngrams(tokenize(text)) for text in texts] for texts in references]
    frequency = Counter(chain.from_iterable(set().union(*image) for image in wanted))
    weigh = _Weigher(frequency, len(wanted))
    return [_score(weigh(one), [weigh(ngrams) for ngrams in image]) for one, image in zip(found, wanted, strict=True)]


def _ngrams(tokens: list[str]) -> Counter:
    return Counter(tuple(tokens[i : i + n]) for n in range(1, ORDERS + 1) for i in range(len(tokens) - n + 1))


class _Weigher:
    """Counts of n-grams -> (their TF-IDF weights per order, the norms of these, how many bigrams there are)."""

    def __init__(self, frequency: Counter, images: int):
        self._frequency, self._images = frequency, np.log(images)

    def __call__(self, ngrams: Counter) -> tuple[list[dict], list[float], int]:
        weights: list[dict] = [{} for _ in range(ORDERS)]
        for ngram, count in ngrams.items():
            weights[len(ngram) - 1][ngram] = count * (self._images - np.log(max(1, self._frequency[ngram])))
        norms = [sum(weight**2 for weight in order.values()) ** 0.5 for order in weights]
        return weights, norms, sum(count for ngram, count in ngrams.items() if len(ngram) == 2)


def _score(candidate, references) -> float:
    return 10 * float(np.mean([_similarity(candidate, reference) for reference in references]))


def _similarity(a, b) -> float:
    """Clipped cosine similarity, averaged over the orders, less where the lengths differ (in bigrams, as official)."""
    cosines = []
    for weights, others, norm, other_norm in zip(a[0], b[0], a[1], b[1], strict=True):
        shared = sum(min(weight, others.get(ngram, 0)) * others.get(ngram, 0) for ngram, weight in weights.items())
        cosines.append(shared / (norm * other_norm) if norm and other_norm else shared)
    return float(np.mean(cosines) * np.exp(-((a[2] - b[2]) ** 2) / (2 * SIGMA**2)))
