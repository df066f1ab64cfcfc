"""A user's own rules: a Python file that a catalog names under `plugins`, with a list `RULES`."""

import functools
import hashlib
import runpy
from pathlib import Path

from corpus.rules import Rule


class BadPlugin(ValueError):
    """A plugin that cannot be used; the message names the file."""


@functools.cache
def load_rules(path: str) -> tuple[Rule, ...]:
    """Run a plugin once in this process and return its rules. Raises BadPlugin."""
    try:
        found = runpy.run_path(path, run_name=f"gristmill_plugin_{Path(path).stem}").get("RULES")
    except FileNotFoundError:
        raise BadPlugin(f"no plugin {path}") from None
    except Exception as error:  # the user's own code may raise anything
        raise BadPlugin(f"plugin {path}: {type(error).__name__}: {error}") from error
    if not isinstance(found, list | tuple) or not all(isinstance(rule, Rule) for rule in found):
        raise BadPlugin(f"plugin {path}: RULES must be a list of corpus.rules.Rule")
    if unable := [rule.name for rule in found if rule.measure is None or not rule.limits]:
        raise BadPlugin(f"plugin {path}: {', '.join(unable)}: a rule needs measure= and a parameter with a score")
    return tuple(found)


def plugin_digests(paths: tuple[str, ...]) -> dict[str, str]:
    """Return file name -> SHA-256, for a job's settings: a changed rule is another run."""
    return {Path(path).name: hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths}
