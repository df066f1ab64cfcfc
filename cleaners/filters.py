"""The filters of Qwen-VL A.1 over columns of image-text pairs: each measures some rows and says which to drop.

Every filter takes (columns, rows, *, language, its parameters): `columns` hold all pairs of a batch, `rows` the
positions of those still in the race, and the answer has one entry per position. Sizes and scores are float64, NaN where
unknown; what is unknown is not dropped unless a parameter says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cleaners.text import scripts
from cleaners.text.arrays import count_chars, count_words, rows_matching, rows_not_ascii
from cleaners.text.emoji import count_emoji, list_emoji
from corpus.languages import Language
from corpus.rules import Rule, failing, measure, taken

DETAIL_CHARACTERS = 16


@dataclass(frozen=True)
class Judged:
    """What a filter found: per row whether to drop it, the value, the threshold and the scores. `detail` takes the
    places, among those rows, of some that are dropped and returns why."""

    drop: np.ndarray
    value: np.ndarray
    threshold: np.ndarray | float
    scores: Mapping[str, np.ndarray]
    detail: Callable[[np.ndarray], pa.StringArray] | None = None


def measured(rule: Rule, columns: Mapping, rows: np.ndarray, *, language: Language, **parameters) -> Judged:
    """Judge by a rule that only measures: what it returns for its `needs` against its thresholds."""
    here = taken({name: columns[name] for name in sorted(rule.needs)}, rows)
    scores = dict.fromkeys(rule.measures, measure(rule, here, language.code))
    return Judged(*failing(rule, parameters, scores), scores)


def special_tags(columns: Mapping, rows: np.ndarray, *, language: Language, tags: str, max: float) -> Judged:
    """Drop captions with a dataset's special tags, such as CC12M's `<PERSON>` (A.1, academic captions)."""
    counts = pc.count_substring_regex(columns["text"].take(pa.array(rows)), tags)
    return _over(counts.to_numpy(zero_copy_only=False).astype(np.float64), max, "special_tags")


def aspect_ratio(columns: Mapping, rows: np.ndarray, *, language: Language, max_ratio: float) -> Judged:
    """Rule 1: drop banners and slivers: long side / short side above `max_ratio`."""
    width, height = columns["width"][rows], columns["height"][rows]
    return _over(np.maximum(width, height) / np.minimum(width, height), max_ratio, "aspect_ratio")


def image_size(columns: Mapping, rows: np.ndarray, *, language: Language, min_side: float) -> Judged:
    """Rule 2: drop images whose shorter side is below `min_side` pixels."""
    side = np.minimum(columns["width"][rows], columns["height"][rows])
    return Judged(side < min_side, side, min_side, {"short_side": side})


def clip_score(columns: Mapping, rows: np.ndarray, *, language: Language, min: float, missing: str) -> Judged:
    """Rule 3: drop pairs whose CLIP score is below `min`. `missing`: what becomes of pairs without one, "keep" (the
    score stays null in the ledger, a later run may judge it) or "drop"."""
    score = columns["clip_score"][rows]
    unknown = np.isnan(score)
    drop = (score < min) | (unknown & (missing == "drop"))
    return Judged(
        drop, score, min, {"clip_score": score},
        lambda lost: pa.array(np.where(unknown[lost], "no score", None), pa.string()),
    )  # fmt: skip


def language(
    columns: Mapping, rows: np.ndarray, *, language: Language, max_foreign: float, strict_latin: bool
) -> Judged:
    """Rule 4: drop captions with characters that are not the dataset language's. See `cleaners.text.scripts`."""
    count = np.zeros(len(columns["text"]))
    texts, wide = _beyond_ascii(columns, rows)
    few = rows_matching(texts, scripts.foreign(language, strict_latin)) if len(wide) else wide
    strange = pc.replace_substring_regex(texts.take(pa.array(few)), scripts.native(language, strict_latin), r"\1")
    count[wide[few]] = count_chars(strange)

    def detail(lost: np.ndarray) -> pa.StringArray:
        return _shown(strange.take(pa.array(np.searchsorted(wide[few], rows[lost]))))

    return _over(count[rows], max_foreign, "foreign_characters", detail)


def emoji(columns: Mapping, rows: np.ndarray, *, language: Language, max: float) -> Judged:
    """Rule 5: drop captions with emoji. See `cleaners.text.emoji`."""
    count = np.zeros(len(columns["text"]))
    texts, wide = _beyond_ascii(columns, rows)
    count[wide] = count_emoji(texts)

    def detail(lost: np.ndarray) -> pa.StringArray:
        return _shown(list_emoji(columns["text"].take(pa.array(rows[lost]))))

    return _over(count[rows], max, "emoji_count", detail)


def text_length(
    columns: Mapping, rows: np.ndarray, *, language: Language,
    min_characters: float, max_characters: float, min_words: float, max_words: float,
) -> Judged:  # fmt: skip
    """Rule 6: drop captions that are too short or too long: in characters, and in words where these stand apart.

    The value is the length that fails, in the parameters' order; the detail names the parameter.
    """
    characters = count_chars(columns["text"])[rows].astype(np.float64)
    words = count_words(columns["text"])[rows].astype(np.float64)
    checks = [
        ("min_characters", characters, characters < min_characters, min_characters),
        ("max_characters", characters, characters > max_characters, max_characters),
    ]
    if language.spaced:
        checks.append(("min_words", words, words < min_words, min_words))
        checks.append(("max_words", words, words > max_words, max_words))
    failed = np.full(len(rows), -1, np.int8)
    value, threshold = np.full(len(rows), np.nan), np.full(len(rows), np.nan)
    for place, (_, measured, fails, limit) in enumerate(checks):
        new = np.flatnonzero(fails & (failed < 0))
        failed[new], value[new], threshold[new] = place, measured[new], limit
    names = pa.array([name for name, *_ in checks])
    scores = {"characters": characters, "words": words}
    return Judged(failed >= 0, value, threshold, scores, lambda lost: names.take(pa.array(failed[lost])))


def _over(value: np.ndarray, limit: float, score: str, detail: Callable | None = None) -> Judged:
    return Judged(value > limit, value, limit, {score: value}, detail)


def _beyond_ascii(columns: dict, rows: np.ndarray) -> tuple[pa.StringArray, np.ndarray]:
    """Return the texts beyond ASCII among `rows`, and their positions: foreign characters and emoji are never ASCII."""
    here = np.zeros(len(columns["text"]), bool)
    here[rows] = True
    if "beyond_ascii" not in columns:
        columns["beyond_ascii"] = rows_not_ascii(columns["text"])  # two rules ask
    wide = columns["beyond_ascii"][here[columns["beyond_ascii"]]]
    return columns["text"].take(pa.array(wide)), wide


def _shown(found: pa.StringArray) -> pa.StringArray:
    return pc.utf8_slice_codeunits(found, 0, DETAIL_CHARACTERS)
