"""The eight rules of Qwen-VL A.1 over Arrow tables of image-text pairs, and the order in which they run.

Cleaners change captions, filters measure and drop. Cleaners come first, because they change what the filters see; then
whatever costs nothing; the CLIP score comes last. A filter sees only the rows that all earlier ones kept, and what it
measured stays in the ledger, so that its threshold can be moved without measuring again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from cleaners import filters
from cleaners.rule_batch import Batch
from cleaners.text import scripts
from cleaners.text.html import HTML
from cleaners.text.patterns import PATTERNS, patterns_for
from cleaners.text.removal import Groups

ROWS_AT_ONCE = 131_072  # each batch pays some 50 ms to compile its patterns; many more rows outgrow the caches
MAX_RAW_BYTES = 200_000  # no cleaner looks at a longer caption where `text_length` would drop it anyway


@dataclass(frozen=True)
class Limit:
    """A parameter that is a threshold: the score it is compared with, and whether it is that score's "min" or "max"."""

    score: str
    bound: str


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule. A filter's `apply` is one of `cleaners.filters`. A cleaner's `apply(language=, **parameters)`
    returns the patterns that it cleans out of captions."""

    name: str
    kind: str  # "clean" | "filter"
    apply: Callable
    needs: frozenset[str]  # of {"text", "width", "height", "clip_score"}
    measures: str | None = None  # its score in the ledger; `limits` names further ones
    defaults: Mapping = field(default_factory=dict)
    limits: Mapping[str, Limit] = field(default_factory=dict)


# --- Cleaners ---


def html(*, language: str) -> Groups:
    """Rule 7: tags with their attributes, comments, scripts, entities. See `cleaners.text.html`."""
    return (HTML,)


def patterns(*, language: str, skip: Iterable[str]) -> Groups:
    """Rule 8: all irregular patterns but those in `skip`. See `cleaners.text.patterns`."""
    return patterns_for(language, frozenset(skip))


# --- The table ---

_TEXT, _SIZE = frozenset({"text"}), frozenset({"width", "height"})
_TABLE = (
    # Before `html`. The tags of CC12M; SBU documents none (dataset cards).
    Rule("special_tags", "filter", filters.special_tags, _TEXT, "special_tags", {"tags": "<[A-Z_]{2,}>", "max": 0},
         {"max": Limit("special_tags", "max")}),
    Rule("html", "clean", html, _TEXT),
    Rule("patterns", "clean", patterns, _TEXT, None, {"skip": ()}),
    # DataComp's "basic" filter and COYO-700M: aspect ratio at most 3, shorter side at least 200 pixels.
    Rule("aspect_ratio", "filter", filters.aspect_ratio, _SIZE, "aspect_ratio", {"max_ratio": 3.0},
         {"max_ratio": Limit("aspect_ratio", "max")}),
    Rule("image_size", "filter", filters.image_size, _SIZE, "short_side", {"min_side": 200},
         {"min_side": Limit("short_side", "min")}),
    # Qwen-VL A.1: no such character at all, no emoji at all.
    Rule("language", "filter", filters.language, _TEXT, "foreign_characters", {"max_foreign": 0},
         {"max_foreign": Limit("foreign_characters", "max")}),
    Rule("emoji", "filter", filters.emoji, _TEXT, "emoji_count", {"max": 0}, {"max": Limit("emoji_count", "max")}),
    # COYO-700M: more than 5 characters, at most 1000, 3 to 256 words; DataComp's "basic" filter has the same minima.
    Rule("text_length", "filter", filters.text_length, _TEXT, "characters",
         {"min_characters": 6, "max_characters": 1000, "min_words": 3, "max_words": 256},
         {"min_characters": Limit("characters", "min"), "max_characters": Limit("characters", "max"),
          "min_words": Limit("words", "min"), "max_words": Limit("words", "max")}),
    # LAION-5B, English, ViT-B/32; every dataset that ships another model's score needs its own.
    Rule("clip_score", "filter", filters.clip_score, frozenset({"clip_score"}), "clip_score",
         {"min": 0.28, "missing": "keep"},
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
    if parameter == "tags" and not _is_re2(value):
        raise ValueError(f"{rule.name}.tags is no RE2 pattern: {value!r}")


def _is_re2(pattern) -> bool:
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except (pa.ArrowInvalid, TypeError):
        return False
    return True


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


def _clean_slice(table: pa.Table, active: Mapping[Rule, dict], language: str) -> pa.Table:
    batch = Batch(table, [name for rule in active for name in _scores(rule)])
    if any("text" in rule.needs for rule in active):
        batch.drop_textless()
    if limits := active.get(RULES["text_length"]):
        batch.drop_oversized(MAX_RAW_BYTES, limits["max_characters"])
    for step in _steps(active):
        if step[0][0].kind == "clean":
            groups = [rule.apply(language=language, **parameters) for rule, parameters in step]
            batch.clean(tuple(group for each in groups for group in each))
        else:
            batch.filter(*step[0], language)
    return batch.verdicts()


def _steps(active: Mapping[Rule, dict]) -> list[list[tuple[Rule, dict]]]:
    """Group neighbouring cleaners into one step, since they repeat together; a filter is a step by itself."""
    steps: list[list[tuple[Rule, dict]]] = []
    for rule, parameters in active.items():
        if steps and rule.kind == steps[-1][0][0].kind == "clean":
            steps[-1].append((rule, parameters))
        else:
            steps.append([(rule, parameters)])
    return steps
