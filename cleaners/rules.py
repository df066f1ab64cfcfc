"""The eight rules of Qwen-VL A.1 over Arrow tables of image-text pairs, and the order in which they run.

Cleaners change captions, filters measure and drop. Cleaners come first, because they change what the filters see; then
whatever costs nothing; the CLIP score comes last. A filter sees only the rows that all earlier ones kept, and what it
measured stays in the ledger, so that its threshold can be moved without measuring again.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cleaners import scripts
from cleaners.emoji_text import count_emoji, list_emoji
from cleaners.html_text import clean_html, with_html
from cleaners.patterns import PATTERNS, patterns_for
from cleaners.text_arrays import as_utf8, count_chars, count_words, map_rows, put_rows, rows_matching, rows_not_ascii
from cleaners.text_pattern import clean_patterns, suspicious

KEPT, DROPPED = "kept", "dropped"
NO_TEXT = "no_text"  # the outcome of a caption that is null, or of which nothing is left
ROWS_AT_ONCE = 131_072  # few enough to stay in the processor's cache, enough to make calls cheap
MAX_ROUNDS = 8  # markup in markup in markup: no honest caption needs more than three
MAX_RAW_BYTES = 200_000  # no cleaner looks at a longer caption where `text_length` would drop it anyway
DETAIL_CHARACTERS = 16


@dataclass(frozen=True)
class Limit:
    """A parameter that is a threshold: the score it is compared with, and whether it is that score's "min" or "max"."""

    score: str
    bound: str


@dataclass(frozen=True)
class Judged:
    """What a filter found: per row whether to drop it, the value, the threshold and the scores; `detail` takes the
    positions of the rows that are dropped and returns why."""

    drop: np.ndarray
    value: np.ndarray
    threshold: np.ndarray | float
    scores: Mapping[str, np.ndarray]
    detail: Callable[[np.ndarray], pa.StringArray] | None = None


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule. A filter's `apply(columns, language=, **parameters)` returns a `Judged`, where NaN is a score that
    could not be measured. A cleaner's `apply(texts, language=, **parameters)` returns the cleaned texts; it is exact
    and slow, and `suspects`, with the same arguments, finds the rows that it may change."""

    name: str
    kind: str  # "clean" | "filter"
    apply: Callable
    needs: frozenset[str]  # of {"text", "width", "height", "clip_score"}
    measures: str | None = None  # its score in the ledger; `limits` names further ones
    defaults: Mapping = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)
    suspects: Callable | None = None


# --- Cleaners ---


def html(texts: pa.StringArray, *, language: str) -> pa.StringArray:
    """Rule 7: take off tags with their attributes and decode entities. See `cleaners.html_text`."""
    return clean_html(texts)


def patterns(texts: pa.StringArray, *, language: str, skip: Iterable[str]) -> pa.StringArray:
    """Rule 8: clean irregular patterns. See `cleaners.patterns`."""
    return clean_patterns(texts, patterns_for(language, frozenset(skip)))


def _html_suspects(texts: pa.StringArray, *, language: str) -> np.ndarray:
    return with_html(texts)


def _pattern_suspects(texts: pa.StringArray, *, language: str, skip: Iterable[str]) -> np.ndarray:
    return suspicious(texts, patterns_for(language, frozenset(skip)))


# --- Filters ---


def special_tags(columns: Mapping, *, language: str, tags: str, max: float) -> Judged:
    """Drop captions with a dataset's special tags, such as CC12M's `<PERSON>` (Qwen-VL A.1, academic captions)."""
    count = _counts(columns["text"], tags)
    return _over(count, max, "special_tags")


def aspect_ratio(columns: Mapping, *, language: str, max_ratio: float) -> Judged:
    """Rule 1: drop banners and slivers: long side / short side above `max_ratio`. Unknown sizes are not judged."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.maximum(columns["width"], columns["height"]) / np.minimum(columns["width"], columns["height"])
    return _over(ratio, max_ratio, "aspect_ratio")


def image_size(columns: Mapping, *, language: str, min_side: float) -> Judged:
    """Rule 2: drop images whose shorter side is below `min_side` pixels. Unknown sizes are not judged."""
    side = np.minimum(columns["width"], columns["height"])
    return Judged(side < min_side, side, min_side, {"short_side": side})


def language(columns: Mapping, *, language: str, max_foreign: float) -> Judged:
    """Rule 4: drop captions with characters that are not the dataset language's. See `cleaners.scripts`."""
    texts = columns["text"]
    count = np.zeros(len(texts))
    rows = rows_not_ascii(texts)
    if len(rows):
        rows = rows[rows_matching(texts.take(pa.array(rows)), scripts.foreign(language))]
    if len(rows):
        count[rows] = count_chars(_strange(texts, rows, language))
    return _over(count, max_foreign, "foreign_characters", lambda rows: _shown(_strange(texts, rows, language)))


def _strange(texts: pa.StringArray, rows: np.ndarray, language: str) -> pa.StringArray:
    return pc.replace_substring_regex(texts.take(pa.array(rows)), f"[{scripts.allowed(language)}]+", "")


def _shown(found: pa.StringArray) -> pa.StringArray:
    return pc.utf8_slice_codeunits(found, 0, DETAIL_CHARACTERS)


def emoji(columns: Mapping, *, language: str, max: float) -> Judged:
    """Rule 5: drop captions with emoji. See `cleaners.emoji_text`."""
    texts = columns["text"]
    count = count_emoji(texts).astype(np.float64)
    return _over(count, max, "emoji_count", lambda rows: _shown(list_emoji(texts.take(pa.array(rows)))))


def text_length(
    columns: Mapping, *, language: str,
    min_characters: float, max_characters: float, min_words: float, max_words: float,
) -> Judged:  # fmt: skip
    """Rule 6: drop captions that are too short or too long: in characters and words, in Chinese in characters alone.

    The value is the length that fails, in the parameters' order; the detail names the parameter.
    """
    texts = columns["text"]
    characters, words = count_chars(texts).astype(np.float64), count_words(texts).astype(np.float64)
    fails = {"min_characters": characters < min_characters, "max_characters": characters > max_characters}
    limits = {"min_characters": min_characters, "max_characters": max_characters}
    if language != "zh":
        fails |= {"min_words": words < min_words, "max_words": words > max_words}
        limits |= {"min_words": min_words, "max_words": max_words}
    drop, value = np.zeros(len(texts), bool), np.full(len(texts), math.nan)
    threshold, names = np.full(len(texts), math.nan), np.full(len(texts), None, object)
    for name, fail in fails.items():
        first = fail & ~drop
        value[first] = (characters if name.endswith("characters") else words)[first]
        threshold[first], names[first], drop = limits[name], name, drop | fail
    scores = {"characters": characters, "words": words}
    return Judged(drop, value, threshold, scores, lambda rows: pa.array(names[rows], pa.string()))


def clip_score(columns: Mapping, *, language: str, min: float, missing: str) -> Judged:
    """Rule 3: drop pairs whose CLIP score is below `min`. `missing`: what becomes of pairs without one, "keep" (the
    score stays null in the ledger, a later run may judge it) or "drop"."""
    score = columns["clip_score"]
    unknown = np.isnan(score)
    drop = (score < min) | (unknown & (missing == "drop"))
    return Judged(
        drop, score, min, {"clip_score": score},
        lambda rows: pa.array(np.where(unknown[rows], "no score", None), pa.string()),
    )  # fmt: skip


def _over(value: np.ndarray, limit: float, score: str, detail: Callable | None = None) -> Judged:
    return Judged(value > limit, value, limit, {score: value}, detail)


def _counts(texts: pa.StringArray, pattern: str) -> np.ndarray:
    return pc.count_substring_regex(texts, pattern).to_numpy(zero_copy_only=False).astype(np.float64)


# --- The table ---

_TEXT, _SIZE = frozenset({"text"}), frozenset({"width", "height"})
_TABLE = (
    # Before `html`. The tags of CC12M; SBU documents none (dataset cards).
    Rule("special_tags", "filter", special_tags, _TEXT, "special_tags", {"tags": "<[A-Z_]{2,}>", "max": 0},
         {"max": Limit("special_tags", "max")}),
    Rule("html", "clean", html, _TEXT, suspects=_html_suspects),
    Rule("patterns", "clean", patterns, _TEXT, None, {"skip": ()}, suspects=_pattern_suspects),
    # DataComp's "basic" filter and COYO-700M: aspect ratio at most 3, shorter side at least 200 pixels.
    Rule("aspect_ratio", "filter", aspect_ratio, _SIZE, "aspect_ratio", {"max_ratio": 3.0},
         {"max_ratio": Limit("aspect_ratio", "max")}),
    Rule("image_size", "filter", image_size, _SIZE, "short_side", {"min_side": 200},
         {"min_side": Limit("short_side", "min")}),
    # Qwen-VL A.1: no such character at all, no emoji at all.
    Rule("language", "filter", language, _TEXT, "foreign_characters", {"max_foreign": 0},
         {"max_foreign": Limit("foreign_characters", "max")}),
    Rule("emoji", "filter", emoji, _TEXT, "emoji_count", {"max": 0}, {"max": Limit("emoji_count", "max")}),
    # COYO-700M: more than 5 characters, at most 1000, 3 to 256 words; DataComp's "basic" filter has the same minima.
    Rule("text_length", "filter", text_length, _TEXT, "characters",
         {"min_characters": 6, "max_characters": 1000, "min_words": 3, "max_words": 256},
         {"min_characters": Limit("characters", "min"), "max_characters": Limit("characters", "max"),
          "min_words": Limit("words", "min"), "max_words": Limit("words", "max")}),
    # LAION-5B, English, ViT-B/32; every dataset that ships another model's score needs its own.
    Rule("clip_score", "filter", clip_score, frozenset({"clip_score"}), "clip_score", {"min": 0.28, "missing": "keep"},
         {"min": Limit("clip_score", "min")}),
)  # fmt: skip
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _TABLE}


def _scores(rule: Rule) -> list[str]:
    names = [rule.measures, *(limit.score for limit in rule.limits.values())]
    return [name for name in dict.fromkeys(names) if name]


SCORES: Mapping[str, pa.DataType] = {score: pa.float64() for rule in _TABLE for score in _scores(rule)}
# The two phases of a crawl: before the images are fetched, and after.
TEXT_RULES = frozenset(rule.name for rule in _TABLE if rule.needs == _TEXT)
IMAGE_RULES = frozenset(RULES) - TEXT_RULES


def validate(settings: Mapping[str, Mapping]) -> None:
    """Raise ValueError for an unknown rule, parameter or pattern, naming the known ones, or for an impossible value."""
    for name, parameters in settings.items():
        if name not in RULES:
            raise ValueError(f"no rule {name!r}; rules are {', '.join(RULES)}")
        for parameter, value in (parameters or {}).items():
            _check(RULES[name], parameter, value)


def _check(rule: Rule, parameter: str, value) -> None:
    if parameter not in rule.defaults:
        known = ", ".join(rule.defaults) or "none"
        raise ValueError(f"rule {rule.name!r} has no parameter {parameter!r}; it has {known}")
    if parameter in rule.limits and (isinstance(value, bool) or not isinstance(value, int | float) or value != value):
        raise ValueError(f"{rule.name}.{parameter} must be a number, not {value!r}")
    if parameter == "missing" and value not in ("keep", "drop"):
        raise ValueError(f"{rule.name}.missing must be 'keep' or 'drop', not {value!r}")
    if parameter == "skip" and (isinstance(value, str) or set(value) - set(PATTERNS)):
        raise ValueError(f"{rule.name}.skip is a list of patterns, not {value!r}; patterns are {', '.join(PATTERNS)}")


def thresholds(settings: Mapping[str, Mapping]) -> dict[str, list[float]]:
    """Return score -> the thresholds it is compared with under `settings`, for histograms."""
    lines: dict[str, list[float]] = {}
    for name, parameters in settings.items():
        for parameter, limit in RULES[name].limits.items():
            lines.setdefault(limit.score, []).append((RULES[name].defaults | (parameters or {}))[parameter])
    return lines


# --- Running them ---


def clean(
    table: pa.Table, settings: Mapping[str, Mapping], *, language: str, rules: Iterable[str] | None = None
) -> pa.Table:
    """Run the rules that `settings` names over pairs and return one row per pair, in the same order.

    `table`: `text`, and where known `width`, `height` (pixels; 0 and null mean unknown) and `clip_score`. `settings`:
    rule -> parameters; an absent rule is off. `rules` narrows that to a subset, such as TEXT_RULES.

    Returns outcome ("kept" | "dropped"), rule, value, threshold, detail, text_after, and the scores of the rules that
    ran, null where not measured. A null or emptied caption is dropped by "no_text". Raises ValueError as `validate`
    does, and for an unknown language or a missing `text` column.
    """
    validate(settings)
    chosen = set(settings) if rules is None else set(settings) & set(rules)
    active = {rule: dict(rule.defaults) | dict(settings[name] or {}) for name, rule in RULES.items() if name in chosen}
    scripts.allowed(language)
    if any("text" in rule.needs for rule in active) and "text" not in table.column_names:
        raise ValueError(f"the text rules need a column 'text'; the table has {', '.join(table.column_names)}")
    starts = range(0, max(1, table.num_rows), ROWS_AT_ONCE)
    return pa.concat_tables([_clean_slice(table.slice(start, ROWS_AT_ONCE), active, language) for start in starts])


class _Batch:
    """Rows on their way through the rules."""

    def __init__(self, table: pa.Table, active: Mapping[Rule, dict]):
        self.size = table.num_rows
        self.alive = np.arange(self.size)
        self.given = _caption_column(table)
        self.texts = pc.fill_null(self.given, "") if self.given is not None else None
        self.numbers = {name: _numbers(table, name) for name in ("width", "height", "clip_score")}
        self.rule = np.full(self.size, -1)  # position in `names`
        self.names: list[str] = []
        self.value, self.threshold = np.full(self.size, math.nan), np.full(self.size, math.nan)
        self.details: list[tuple[np.ndarray, pa.StringArray]] = []
        self.scores = {name: np.full(self.size, math.nan) for rule in active for name in _scores(rule)}

    def drop(self, name: str, rows: np.ndarray, value, threshold, detail: pa.StringArray | None) -> None:
        if not len(rows):
            return
        self.rule[rows], self.value[rows], self.threshold[rows] = len(self.names), value, threshold
        self.names.append(name)
        if detail is not None:
            self.details.append((rows, detail))
        self.alive = self.alive[self.rule[self.alive] < 0]

    def drop_textless(self, why: str, rows: np.ndarray) -> None:
        self.drop(NO_TEXT, rows, 0, 1, pa.array([why] * len(rows), pa.string()))

    def columns(self, needs: frozenset[str]) -> dict:
        found = {name: self.numbers[name][self.alive] for name in needs - {"text"}}
        if "text" in needs:
            found["text"] = self.texts if len(self.alive) == self.size else self.texts.take(pa.array(self.alive))
        return found


def _caption_column(table: pa.Table) -> pa.StringArray | None:
    if "text" not in table.column_names:
        return None
    column = table["text"].combine_chunks()
    return as_utf8(column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks))


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as float64, NaN where null or absent; sizes that are not positive are unknown too."""
    if name not in table.column_names:
        return np.full(table.num_rows, math.nan)
    values = table[name].cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
    return values if name == "clip_score" else np.where(values > 0, values, math.nan)


def _clean_slice(table: pa.Table, active: Mapping[Rule, dict], language: str) -> pa.Table:
    batch = _Batch(table, active)
    if any("text" in rule.needs for rule in active):
        missing = batch.given.is_null().to_numpy(zero_copy_only=False)
        batch.drop_textless("null caption", np.flatnonzero(missing))
        size = pc.binary_length(batch.texts).to_numpy(zero_copy_only=False)
        batch.drop_textless("empty caption", np.flatnonzero(~missing & (size == 0)))
        _drop_oversized(batch, active)
    cleaners = [(rule, parameters) for rule, parameters in active.items() if rule.kind == "clean"]
    cleaned = not cleaners
    for rule, parameters in active.items():
        if rule.kind == "filter":
            _filter(batch, rule, parameters, language)
        elif not cleaned:
            _clean_texts(batch, cleaners, language)
            cleaned = True
    return _verdicts(batch)


def _drop_oversized(batch: _Batch, active: Mapping[Rule, dict]) -> None:
    """Drop megabyte captions before any cleaner spends time on them, if `text_length` is on."""
    if RULES["text_length"] in active:
        size = pc.binary_length(batch.texts).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(size > MAX_RAW_BYTES)
        length = count_chars(batch.texts.take(pa.array(rows)))
        why = pa.array(["max_characters, before cleaning"] * len(rows), pa.string())
        batch.drop("text_length", rows, length, active[RULES["text_length"]]["max_characters"], why)


def _clean_texts(batch: _Batch, cleaners: list[tuple[Rule, dict]], language: str) -> None:
    """Run the cleaners, over and over on the captions that still change, so that cleaning twice changes nothing."""
    suspect = np.zeros(len(batch.alive), bool)
    texts = batch.columns(_TEXT)["text"]
    for rule, parameters in cleaners:
        suspect[rule.suspects(texts, language=language, **parameters)] = True
    places = np.flatnonzero(suspect)
    rows, texts = batch.alive[places], texts.take(pa.array(places))
    for _ in range(MAX_ROUNDS):
        if not len(rows):
            break
        before = texts
        for rule, parameters in cleaners:
            few = rule.suspects(texts, language=language, **parameters)
            texts = map_rows(texts, few, lambda dirty: rule.apply(dirty, language=language, **parameters))  # noqa: B023
        changed = np.flatnonzero(pc.not_equal(before, texts).to_numpy(zero_copy_only=False))
        rows, texts = rows[changed], texts.take(pa.array(changed))
        batch.texts = put_rows(batch.texts, rows, texts)
    empty = pc.binary_length(batch.texts).to_numpy(zero_copy_only=False) == 0
    batch.drop_textless("empty after cleaning", batch.alive[empty[batch.alive]])


def _filter(batch: _Batch, rule: Rule, parameters: dict, language: str) -> None:
    judged = rule.apply(batch.columns(rule.needs), language=language, **parameters)
    for name, score in judged.scores.items():
        batch.scores[name][batch.alive] = score
    lost = np.flatnonzero(judged.drop)
    threshold = judged.threshold[lost] if isinstance(judged.threshold, np.ndarray) else judged.threshold
    detail = judged.detail(lost) if judged.detail is not None and len(lost) else None
    batch.drop(rule.name, batch.alive[lost], judged.value[lost], threshold, detail)


def _verdicts(batch: _Batch) -> pa.Table:
    kept = batch.rule < 0
    columns = {
        "outcome": pa.array([KEPT, DROPPED]).take(pa.array((~kept).astype(np.int8))),
        "rule": pa.array(batch.names, pa.string()).take(pa.array(batch.rule, mask=kept)),
        "value": pa.array(batch.value, from_pandas=True),
        "threshold": pa.array(batch.threshold, from_pandas=True),
        "detail": _details(batch),
        "text_after": _texts_after(batch),
    }
    return pa.table(columns | {name: pa.array(score, from_pandas=True) for name, score in batch.scores.items()})


def _details(batch: _Batch) -> pa.StringArray:
    if not batch.details:
        return pa.nulls(batch.size, pa.string())
    place = np.full(batch.size, -1)
    place[np.concatenate([rows for rows, _ in batch.details])] = np.arange(sum(len(rows) for rows, _ in batch.details))
    return pa.concat_arrays([detail for _, detail in batch.details]).take(pa.array(place, mask=place < 0))


def _texts_after(batch: _Batch) -> pa.StringArray:
    if batch.given is None:
        return pa.nulls(batch.size, pa.string())
    return pc.if_else(batch.given.is_valid(), batch.texts, None) if batch.given.null_count else batch.texts
