"""Rules as data: which records a rule judges, which scores it measures, its parameters, their defaults and sources.

A table holds a job's rules in the order in which they run. Whatever does not judge reads tables alone: the validation
of catalogs, the funnel's order, the lines in histograms, the count of rows that a rule had nothing to judge in, retune.
"""

import difflib
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from corpus.bugs import why_data
from corpus.verdicts import Lost, Verdict, dropped, failed

BOUNDS: Mapping[str, Callable] = {
    "min": lambda value, threshold: value < threshold,
    "max": lambda value, threshold: value > threshold,
    "above": lambda value, threshold: value <= threshold,
}


RAISED = "rule_raised"  # the error of a row that makes a rule raise


class WrongMeasure(TypeError):
    """A rule of a plugin that does not return one number a row: a mistake of its author's, not of the data."""


class WrongRule(ValueError):
    """A setting that no rule has, or a value that it cannot take; `where` is (rule, parameter or None)."""

    def __init__(self, message: str, where: tuple[str, str | None]):
        super().__init__(message)
        self.where = where


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A setting of a rule. `source` says who gave its default.

    One with a `score` is a threshold: that column of the ledger is dropped below it ("min"), beyond it ("max"), or
    unless it lies "above" it. `wrong` takes a value and returns what it should be instead, or None.
    """

    default: object
    score: str | None = None
    bound: str = "max"
    source: str = ""
    wrong: Callable[[object], str | None] | None = None

    def problem(self, value) -> str | None:
        """Return what `value` should be, or None when it will do."""
        if self.wrong is not None:
            return self.wrong(value)
        return no_number(value) if self.score is not None else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """One rule. `says` is a sentence for people.

    `on`: it judges unless it is switched off; else only where a catalog names it. `fixed`: it has no switch, since
    nothing could be made of the rows it drops. `compares`: it looks at other rows of the dataset too.

    How it judges: `apply` is the business of the engine that runs it (for pairs `cleaners.rules`). A rule with
    `measure` needs no engine's help: it is called with one Arrow array or float64 array for each of `needs`, and
    `language=`, and returns float64 scores, NaN where there is nothing to judge, of the thresholds' score.
    """

    name: str
    says: str = ""
    kind: str = "filter"  # | "clean"
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    scores: tuple[str, ...] = ()  # measured besides those of the thresholds
    needs: frozenset[str] = frozenset({"text"})
    on: bool = False
    fixed: bool = False
    compares: bool = False
    apply: Callable | None = None
    measure: Callable | None = None
    judges: tuple[str, ...] = ("pair", "document")  # of a rule from a plugin: the tables it joins

    @cached_property
    def limits(self) -> dict[str, Parameter]:
        """The parameters that are thresholds."""
        return {name: each for name, each in self.parameters.items() if each.score is not None}

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """The ledger's columns that it fills."""
        return tuple(dict.fromkeys([*(limit.score for limit in self.limits.values()), *self.scores]))

    @property
    def defaults(self) -> dict:
        """Parameter -> default."""
        return {name: each.default for name, each in self.parameters.items()}


class RuleTable(Mapping[str, Rule]):
    """Rules by name, in the order in which they run. `judges` names the kind of record they are for."""

    def __init__(self, judges: str, rules: Iterable[Rule]):
        self.judges = judges
        self._rules = {rule.name: rule for rule in rules}

    def __getitem__(self, name: str) -> Rule:
        return self._rules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)

    def with_rules(self, more: Iterable[Rule]) -> "RuleTable":
        """Return the table with further rules at its end. WrongRule when a name is taken."""
        more = [rule for rule in more if self.judges in rule.judges]
        for rule in more:
            if rule.name in self._rules:
                raise WrongRule(f"a rule {rule.name!r} is there already", (rule.name, None))
        return RuleTable(self.judges, [*self._rules.values(), *more])

    def check(self, settings: Mapping[str, Mapping | None | bool]) -> None:
        """Raise WrongRule for an unknown rule or parameter, naming the known ones, or for an impossible value."""
        known = [name for name, rule in self._rules.items() if not rule.fixed]
        for name, given in settings.items():
            if name not in known:
                raise WrongRule(f"no rule {name!r}{hint(name, known)}; rules are {listed(known)}", (name, None))
            if given is False or given == "off":
                continue
            if not isinstance(given or {}, Mapping):
                raise WrongRule(f"rule {name!r} takes a mapping of parameters, such as {{}}, or off", (name, None))
            for parameter, value in (given or {}).items():
                self._check_value(self._rules[name], parameter, value)

    def _check_value(self, rule: Rule, parameter: str, value) -> None:
        where = (rule.name, parameter)
        if parameter not in rule.parameters:
            known = list(rule.parameters)
            raise WrongRule(
                f"rule {rule.name!r} has no parameter {parameter!r}{hint(parameter, known)}; it has {listed(known)}",
                where,
            )
        if problem := rule.parameters[parameter].problem(value):
            raise WrongRule(f"{rule.name}.{parameter} must be {problem}, not {value!r}", where)

    def active(self, settings: Mapping[str, Mapping | None | bool]) -> dict[str, dict]:
        """Return rule -> all its parameters, for the rules that judge under `settings`, in order."""
        chosen = {}
        for name, rule in self._rules.items():
            given = settings.get(name, {} if rule.on or rule.fixed else False)
            if given is not False and given != "off":
                chosen[name] = rule.defaults | dict(given or {})
        return chosen

    def thresholds(self, settings: Mapping[str, Mapping | None | bool]) -> dict[str, list[float]]:
        """Return score -> the thresholds it is compared with under `settings`, for histograms."""
        lines: dict[str, list[float]] = {}
        for name, parameters in self.active(settings).items():
            for parameter, limit in self._rules[name].limits.items():
                lines.setdefault(limit.score, []).append(parameters[parameter])
        return lines

    def order(self) -> list[str]:
        """Return the rules that drop rows, in the order of the funnel."""
        return [name for name, rule in self._rules.items() if rule.kind == "filter"]

    def scores(self) -> dict[str, pa.DataType]:
        """Return the ledger's columns for what the rules measure."""
        return {score: pa.float64() for rule in self._rules.values() for score in rule.measures}

    def measured(
        self, active: Mapping[str, Mapping], columns: Mapping, language: str
    ) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Run the active rules that measure by themselves over Arrow columns of rows.

        Returns score -> float64 values, and row -> why, for rows that make a rule raise.
        """
        found: dict[str, np.ndarray] = {}
        raised: dict[int, str] = {}
        for rule in (self._rules[name] for name in active if self._rules[name].measure is not None):
            given = {name: columns[name] for name in sorted(rule.needs)}
            values = np.full(len(next(iter(given.values()))), np.nan)
            judge = lambda rows, rule=rule, given=given: measure(rule, taken(given, rows), language)  # noqa: E731
            for rows, score, why in isolated(judge, np.arange(len(values))):
                if why is None:
                    values[rows] = score
                else:
                    raised |= {int(row): f"{rule.name}: {why}" for row in rows if row not in raised}
            found |= dict.fromkeys(rule.measures, values)
        return found, raised

    def of_words(self, active: Mapping[str, Mapping], words: str, language: str) -> dict[str, float]:
        """Return what the active rules that measure by themselves say of one record's words. Lost where one raises."""
        found, raised = self.measured(active, {"text": pa.array([words], pa.string())}, language)
        if raised:
            raise Lost(failed(RAISED, raised[0]))
        return {name: float(values[0]) for name, values in found.items()}

    def judge(self, active: Mapping[str, Mapping], values: Mapping[str, float | None]) -> Verdict | None:
        """Return the verdict of the first of the `active` rules that drops a record with these scores.

        A score that is None or absent is not judged.
        """
        for name, parameters in active.items():
            for parameter, limit in self._rules[name].limits.items():
                value, threshold = values.get(limit.score), parameters[parameter]
                if value is not None and BOUNDS[limit.bound](value, threshold):
                    return dropped(name, value, threshold)
        return None


def isolated(judge: Callable, rows: np.ndarray) -> Iterator[tuple[np.ndarray, Any, str | None]]:
    """Yield (rows, what `judge` says of them, None), in order; rows that make it raise come alone: (rows, None, why).

    Halves what raises until the row that does it stands alone. A mistake of ours and the system's errors are raised,
    and so is WrongMeasure: of a single row it might look right.
    """
    try:
        yield rows, judge(rows), None
        return
    except WrongMeasure:
        raise
    except Exception as error:
        why = why_data(error)
    if len(rows) <= 1:
        yield rows, None, why
        return
    middle = len(rows) // 2
    yield from isolated(judge, rows[:middle])
    yield from isolated(judge, rows[middle:])


def taken(columns: Mapping, rows: np.ndarray) -> dict:
    """Return the rows of columns, of which `text` is an Arrow array and the others are numpy's."""
    return {name: each.take(pa.array(rows)) if name == "text" else each[rows] for name, each in columns.items()}


def measure(rule: Rule, columns: Mapping, language: str) -> np.ndarray:
    """Return what a rule with `measure` says of rows, float64. WrongMeasure when it is not one number a row."""
    rows = len(next(iter(columns.values())))
    score = np.asarray(rule.measure(**columns, language=language), np.float64)
    if score.shape != (rows,):
        raise WrongMeasure(f"rule {rule.name!r}: its measure returned shape {score.shape} for {rows} rows")
    return score


def failing(
    rule: Rule, parameters: Mapping, scores: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, per row, (does a threshold of `rule` drop it, the value that fails, the threshold); NaN never fails."""
    size = len(next(iter(scores.values())))
    drop, value, threshold = np.zeros(size, bool), np.full(size, np.nan), np.full(size, np.nan)
    for parameter, limit in rule.limits.items():
        measured = scores[limit.score]
        new = BOUNDS[limit.bound](measured, parameters[parameter]) & ~drop
        drop |= new
        value[new], threshold[new] = measured[new], parameters[parameter]
    return drop, value, threshold


def no_number(value) -> str | None:
    """What a parameter that is a number should be instead of `value`, or None."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool) and value == value
    return None if number else "a number"


def hint(name, known: Iterable) -> str:
    """Return " (did you mean ...?)" when a known name is close."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listed(names: Iterable) -> str:
    """Write names with commas."""
    return ", ".join(map(str, names)) or "none"
