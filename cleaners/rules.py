"""The eight rules of Qwen-VL A.1 over Arrow tables of image-text pairs, and the order in which they run.

Cleaners change captions, filters measure and drop. Cleaners come first, because they change what the filters see; then
whatever costs nothing; the CLIP score comes last. A filter sees only the rows that all earlier ones kept, and what it
measured stays in the ledger, so that its threshold can be moved without measuring again.
"""

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from cleaners import filters, identify, personal
from cleaners.rule_batch import Batch
from cleaners.text.html import HTML
from cleaners.text.patterns import PATTERNS, patterns_for
from cleaners.text.removal import Groups
from corpus.languages import Language, language_of
from corpus.rules import Parameter, Rule, RuleTable, listed

ROWS_AT_ONCE = 131_072  # each batch pays some 50 ms to compile its patterns; many more rows outgrow the caches
MAX_RAW_BYTES = 200_000  # no cleaner looks at a longer caption where `text_length` would drop it anyway


# --- Cleaners ---


def html(*, language: Language) -> Groups:
    """Rule 7: tags with their attributes, comments, scripts, entities. See `cleaners.text.html`."""
    return (HTML,)


def patterns(*, language: Language, skip: Iterable[str]) -> Groups:
    """Rule 8: all irregular patterns but those in `skip`. See `cleaners.text.patterns`."""
    return patterns_for(language.patterns, frozenset(skip))


# --- What their parameters may be ---


def _no_policy(value) -> str | None:
    return None if value in ("keep", "drop") else "'keep' or 'drop'"


def _no_switch(value) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def _no_patterns(value) -> str | None:
    listable = not isinstance(value, str) and isinstance(value, Iterable)
    if listable and all(isinstance(name, str) and name in PATTERNS for name in value):
        return None
    return f"a list of patterns ({listed(PATTERNS)})"


def _no_re2(pattern) -> str | None:
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except (pa.ArrowInvalid, TypeError):
        return "an RE2 pattern"
    return None


# --- The table ---

_SIZE, _CLIP = frozenset({"width", "height"}), frozenset({"clip_score"})
_NSFW, _WATERMARK, _TOXICITY = frozenset({"nsfw"}), frozenset({"watermark"}), frozenset({"toxicity"})
_LAION_SUBSETS = "LAION's own subsets (punsafe < 0.5, pwatermark < 0.8)"
_COYO = "COYO-700M; DataComp's basic filter has the same"
_PAPER = "Qwen-VL A.1: none at all"


def _limit(default: float, score: str, bound: str, source: str) -> Parameter:
    return Parameter(default=default, score=score, bound=bound, source=source)


RULES = RuleTable(
    "pair",
    [
        # Before `html`, to which a tag of CC12M is markup. SBU documents none (dataset cards).
        Rule(
            name="special_tags", says="captions with a dataset's special tags", apply=filters.special_tags,
            parameters={
                "tags": Parameter(default="<[A-Z_]{2,}>", wrong=_no_re2, source="the tags of CC12M"),
                "max": _limit(0, "special_tags", "max", "Qwen-VL A.1, academic captions"),
            },
        ),
        Rule(name="html", says="takes markup out of captions", kind="clean", apply=html),
        Rule(
            name="patterns", says="takes irregular patterns out of captions", kind="clean", apply=patterns,
            parameters={"skip": Parameter(default=(), wrong=_no_patterns)},
        ),
        Rule(
            name="aspect_ratio", says="banners and slivers: long side / short side", needs=_SIZE,
            apply=filters.aspect_ratio, parameters={"max_ratio": _limit(3.0, "aspect_ratio", "max", _COYO)},
        ),
        Rule(
            name="image_size", says="images whose shorter side has too few pixels", needs=_SIZE,
            apply=filters.image_size, parameters={"min_side": _limit(200, "short_side", "min", _COYO)},
        ),
        Rule(
            name="language", says="captions with characters that are not the language's", apply=filters.language,
            parameters={
                "max_foreign": _limit(0, "foreign_characters", "max", _PAPER),
                "strict_latin": Parameter(default=False, wrong=_no_switch, source="true: the letters of ASCII alone"),
            },
        ),
        Rule(
            name="emoji", says="captions with emoji", apply=filters.emoji,
            parameters={"max": _limit(0, "emoji_count", "max", _PAPER)},
        ),
        Rule(
            name="text_length", says="captions that are too short or too long", apply=filters.text_length,
            parameters={
                "min_characters": _limit(6, "characters", "min", _COYO),
                "max_characters": _limit(1000, "characters", "max", "COYO-700M"),
                "min_words": _limit(3, "words", "min", _COYO),
                "max_words": _limit(256, "words", "max", "COYO-700M"),
            },
        ),
        # Not the paper's: scores that datasets ship. Off unless a catalog or --rule names them.
        Rule(
            name="nsfw", says="pairs whose image its dataset's own classifier takes for unsafe", needs=_NSFW,
            measure=lambda *, nsfw, language: nsfw, parameters={"max": _limit(0.5, "nsfw", "max", _LAION_SUBSETS)},
        ),
        Rule(
            name="watermark", says="pairs whose image bears a watermark, says its dataset", needs=_WATERMARK,
            measure=lambda *, watermark, language: watermark,
            parameters={"max": _limit(0.8, "watermark", "max", _LAION_SUBSETS)},
        ),
        Rule(
            name="toxicity", says="pairs whose caption its owner's classifier takes for toxic", needs=_TOXICITY,
            measure=lambda *, toxicity, language: toxicity,
            parameters={"max": _limit(0.5, "toxicity", "max", "ours; every classifier needs its own")},
        ),
        *personal.RULES,
        identify.RULE,
        # LAION-5B, English, ViT-B/32; every dataset that ships another model's score needs its own.
        Rule(
            name="clip_score", says="pairs whose image and text disagree", needs=_CLIP, apply=filters.clip_score,
            parameters={
                "min": _limit(0.28, "clip_score", "min", "LAION-5B, English, ViT-B/32"),
                "missing": Parameter(default="keep", wrong=_no_policy),
            },
        ),
    ],
)  # fmt: skip
SCORES: Mapping[str, pa.DataType] = RULES.scores()
# The two phases of a crawl: before the images are fetched, and after.
TEXT_RULES = frozenset(name for name, rule in RULES.items() if rule.needs == {"text"})
IMAGE_RULES = frozenset(RULES) - TEXT_RULES


# --- Running them ---


def clean(
    table: pa.Table,
    settings: Mapping[str, Mapping],
    *,
    language: str | Language,
    rules: Iterable[str] | None = None,
    known: RuleTable = RULES,
) -> pa.Table:
    """Run the rules that `settings` names over pairs and return one row per pair, in the same order.

    `table`: `text`, and where known `width`, `height` (pixels; 0 and null mean unknown) and the shipped scores
    `clip_score`, `nsfw`, `watermark` and `toxicity`. `settings`: rule -> parameters; an absent rule is off. `rules`
    narrows that to a subset, such as TEXT_RULES. `known` are the rules there are: these and a user's own.

    Returns outcome ("kept" | "dropped" | "error"), rule, value, threshold, detail, text_after, and the scores of the
    rules that ran, null where not measured. A null or emptied caption is dropped by "no_text"; a row that makes a rule
    raise is the error "rule_raised". Raises WrongRule as
    `RuleTable.check` does, and ValueError for an unknown language or a missing `text` column.
    """
    known.check(settings)
    chosen = set(settings) if rules is None else set(settings) & set(rules)
    active = {known[name]: parameters for name, parameters in known.active(settings).items() if name in chosen}
    spoken = language_of(language)
    if any("text" in rule.needs for rule in active) and "text" not in table.column_names:
        raise ValueError(f"the text rules need a column 'text'; the table has {', '.join(table.column_names)}")
    starts = range(0, max(1, table.num_rows), ROWS_AT_ONCE)
    return pa.concat_tables([_clean_slice(table.slice(start, ROWS_AT_ONCE), active, spoken) for start in starts])


def _clean_slice(table: pa.Table, active: Mapping[Rule, dict], language: Language) -> pa.Table:
    batch = Batch(table, [name for rule in active for name in rule.measures])
    if any("text" in rule.needs for rule in active):
        batch.drop_textless()
    if limits := active.get(RULES["text_length"]):
        batch.drop_oversized(MAX_RAW_BYTES, limits["max_characters"])
    for step in _steps(active):
        if step[0][0].kind == "clean":
            groups = [rule.apply(language=language, **parameters) for rule, parameters in step]
            batch.clean([rule.name for rule, _ in step], tuple(group for each in groups for group in each))
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
