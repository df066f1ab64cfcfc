"""The rules of rendered pages as tables. Apart from what draws pages: every job's start-up reads all tables."""

from collections.abc import Mapping

from cleaners import personal
from corpus.rules import Parameter, Rule, RuleTable, no_number
from renderers import rules

WORDS = RuleTable("page", personal.RULES)  # judge the words of a window; off until they are named
# The ledger column that holds what a rule measured.
COLUMN_OF_RULE = {
    "too_small": "short_side", "blank": "lines", "too_few_characters": "characters",
    "too_many_characters": "characters", "latin_extended": "latin_extended", "private_use": "private_use",
    "undecodable": "undecodable", "missing_font": "missing_font", "elongated": "aspect", "narrow_text": "advance",
    "low_text": "ink_height", "scrambled_letters": "letter_surprise", "rare_han": "rare_han_share",
    "mojibake": "mojibake", "boilerplate": "boilerplate_share",
}  # fmt: skip


def table(defaults: Mapping[str, float]) -> RuleTable:
    """Return the rules of renderers/rules.py as a table: each has one threshold, and the column it is compared with."""
    own = [
        Rule(name=name, says=rules.SAYS[name], on=True, parameters={"threshold": _threshold(name, value)})
        for name, value in defaults.items()
    ]
    before = [Rule(name=name, fixed=True) for name in ("http_status", "not_pdf", "not_html")]
    return RuleTable("page", [*before, *own, Rule(name="window_too_long", fixed=True), *WORDS.values()])


def _threshold(name: str, value: float) -> Parameter:
    bound = "min" if name in rules.AT_LEAST else "above" if name in rules.AT_MOST else "max"
    return Parameter(default=value, score=COLUMN_OF_RULE.get(name), bound=bound, wrong=no_number)


def thresholds(known: RuleTable, given: Mapping[str, Mapping]) -> dict[str, float | None]:
    """Return rule -> threshold, None where a rule is off, of the rules that judge what is drawn."""
    active = known.active(given)
    names = [name for name, rule in known.items() if not rule.fixed and name not in WORDS]
    return {name: active[name]["threshold"] if name in active else None for name in names}
