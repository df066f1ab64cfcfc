"""A job's flags as its own parser has them: what a recipe may say of them, and the words of a command line."""

import argparse
import importlib
from collections.abc import Iterator, Mapping
from functools import cache

from corpus.rules import hint

# What the recipe says elsewhere, and what would undo its bookkeeping.
OWN = {"help", "dataset", "input", "images", "output", "catalog", "rule", "overwrite", "list", "retry-failed"}
OWN_OF = {
    "build_stage": {"data", "stage", "queries", "tokenizer"},
    "trainer": {"data", "stage", "init", "resume", "size", "queries", "vision", "vision-weights", "language"},
}
# Flags whose values are files, folders or globs of the user's; those without `*` may be made by the job.
PATHS = {"images", "exclude", "against", "corpus", "backgrounds", "papers", "fonts", "settings", "font-dir"}


@cache
def parser_of(job: str) -> argparse.ArgumentParser:
    """Return a job's parser; that of the trainer knows the flags of pipelines/train.py too."""
    if job != "trainer":
        return importlib.import_module(f"pipelines.{job}").make_parser()
    from pipelines import train

    return train.make_parser()


def actions(job: str) -> dict[str, argparse.Action]:
    """Return what a recipe may set, flag without dashes -> its action."""
    found = {
        option.removeprefix("--"): action for action in parser_of(job)._actions for option in action.option_strings
    }
    return {name: action for name, action in found.items() if name not in _own(job) and not name.startswith("-")}


def _own(job: str) -> set[str]:
    return OWN | OWN_OF.get(job, set())


def takes(job: str, flag: str) -> bool:
    """Whether a job has a flag."""
    return f"--{flag}" in parser_of(job)._option_string_actions


def wrong(job: str, flags: Mapping) -> Iterator[tuple[str | None, str]]:
    """Yield (flag, what is wrong with it) for a recipe's flags of a job; None stands for those that are missing."""
    known = actions(job)
    for name, value in flags.items():
        if name not in known:
            why = "is said elsewhere in the recipe" if name in _own(job) else f"is no flag of {job}{hint(name, known)}"
            yield name, f"{name!r} {why}; its flags are {', '.join(known)}"
        elif problem := _problem(known[name], value):
            yield name, f"{name} must be {problem}, not {value!r}"
    if missing := [name for name, action in known.items() if action.required and name not in flags]:
        yield None, f"{job} needs {', '.join(missing)}"


def _problem(action: argparse.Action, value) -> str | None:
    """Return what a flag's value should be, or None where it will do."""
    if action.nargs == 0:
        return None if isinstance(value, bool) else "true or false"
    several = action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction)
    if isinstance(value, list) and not several:
        return "one value"
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, (bool, dict, list)) or each is None:
            return "a list of words" if several else "a word or a number"
        if problem := _problem_of_one(action, _word(each)):
            return problem
    return None


def _problem_of_one(action: argparse.Action, word: str) -> str | None:
    kind = action.type if callable(action.type) else str
    try:
        found = kind(word)
    except (ValueError, argparse.ArgumentTypeError) as error:
        named = {"int": "a whole number", "float": "a number"}.get(getattr(kind, "__name__", ""))
        return named or (str(error) if isinstance(error, argparse.ArgumentTypeError) else "a whole number")
    if action.choices is not None and found not in action.choices:
        return f"one of {', '.join(map(str, action.choices))}"
    return None


def words(flags: Mapping) -> list[str]:
    """Return flags as the words of a command line."""
    made: list[str] = []
    for name, value in flags.items():
        if value is True:
            made.append(f"--{name}")
        elif value is not False and value is not None:
            made += [f"--{name}", *map(_word, value if isinstance(value, list) else [value])]
    return made


def _word(value) -> str:
    """A number as flags take it: 1e3 is a whole number."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)
