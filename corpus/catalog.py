"""`catalog.yaml` -> typed, validated datasets. Every mistake names the line and what would have been right."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml

from corpus.records import TASKS

DEFAULT = Path(__file__).resolve().parent.parent / "catalog.yaml"
LANGUAGES = ("en", "zh")  # zh means Chinese and English


class CatalogError(ValueError):
    """A mistake in a catalog file; the message starts with FILE:LINE."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset. The comment on each field is its meaning in `catalog.yaml`."""

    name: str
    language: str  # en | zh
    licence: str
    job: str  # the script in pipelines/ that reads it
    reader: str  # the published layout, as that job names it
    tasks: tuple[str, ...]  # what its samples become (DESIGN: nine tasks)
    columns: Mapping[str, str] = field(default_factory=dict)  # our name -> the owner's column or key
    rules: Mapping[str, Mapping] = field(default_factory=dict)  # rule -> parameters; an absent rule is off
    original: int | None = None  # the paper's Table 2: rows before and after cleaning
    cleaned: int | None = None
    stages: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # stage -> task -> samples in the paper


_KEYS = tuple(f.name for f in fields(Dataset) if f.name != "name")
_REQUIRED = ("language", "licence", "job", "reader", "tasks")


def load_catalog(
    path: str | Path | None = None, rules: Mapping[str, Iterable[str]] | None = None
) -> dict[str, Dataset]:
    """Read a catalog, by default the checkout's own. `rules`: each known rule's parameters; None checks no rule.

    Raises CatalogError for an unknown key, rule, parameter, task or language, naming the line and the known ones.
    """
    path = path or DEFAULT
    loader = _Loader(path)
    tree = loader.load()
    if not isinstance(tree, dict) or not tree:
        raise CatalogError(f"{path}: a catalog is a mapping from dataset names to settings")
    return {name: _dataset(loader, name, entry, rules, tree) for name, entry in tree.items()}


def find(catalog: Mapping[str, Dataset], name: str, *, job: str | None = None) -> Dataset:
    """Return the named dataset. CatalogError names those there are (for `job`, if given)."""
    fitting = [d.name for d in catalog.values() if job in (None, d.job)]
    if name not in catalog:
        known = ", ".join(fitting)
        raise CatalogError(f"no dataset {name!r} in the catalog{_hint(name, fitting)}; datasets are {known}")
    if job not in (None, catalog[name].job):
        raise CatalogError(f"dataset {name!r} is read by pipelines/{catalog[name].job}.py; here: {', '.join(fitting)}")
    return catalog[name]


def _dataset(loader: "_Loader", name: str, entry: dict, rules, tree: dict) -> Dataset:
    if not isinstance(entry, dict):
        raise loader.error(tree, name, f"{name}: expected a mapping of settings")
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name != name.lower():
        raise loader.error(tree, name, f"{name!r}: a dataset's name is lower-case letters, digits, - and _")
    _only_known(loader, entry, _KEYS, f"{name}: no setting")
    if missing := [key for key in _REQUIRED if key not in entry]:
        raise loader.error(tree, name, f"{name}: {', '.join(missing)} missing")
    if entry["language"] not in LANGUAGES:
        raise loader.error(entry, "language", f"{name}: language {entry['language']!r}; languages are en, zh")
    tasks, rule_block, stages = entry["tasks"], entry.get("rules") or {}, entry.get("stages") or {}
    for task in tasks:
        if task not in TASKS:
            known = ", ".join(TASKS)
            raise loader.error(entry, "tasks", f"{name}: no task {task!r}{_hint(task, TASKS)}; tasks are {known}")
    _check_stages(loader, name, stages, tasks)
    checked = {rule: _parameters(loader, name, rule_block, rule, rules) for rule in rule_block}
    return Dataset(name=name, **entry | {"tasks": tuple(tasks), "rules": checked, "stages": stages})


def _parameters(loader: "_Loader", name: str, block: dict, rule: str, known) -> dict:
    parameters = block[rule] or {}
    if known is None:
        return parameters
    _only_known(loader, block, tuple(known), f"{name}: no rule")
    if not isinstance(parameters, dict):
        raise loader.error(block, rule, f"{name}: rule {rule!r} takes a mapping of parameters, such as {{}}")
    _only_known(loader, parameters, tuple(known[rule]), f"{name}: rule {rule!r} has no parameter")
    return parameters


def _check_stages(loader: "_Loader", name: str, stages: dict, tasks: tuple[str, ...]) -> None:
    _only_known(loader, stages, (1, 2, 3), f"{name}: no stage")
    for stage, weights in stages.items():
        if not isinstance(weights, dict):
            raise loader.error(stages, stage, f"{name}: stage {stage} maps tasks to numbers of samples")
        _only_known(loader, weights, tasks, f"{name}: stage {stage}: its tasks do not include")


def _only_known(loader: "_Loader", block: dict, known: tuple, message: str) -> None:
    for key in block:
        if key not in known:
            names = ", ".join(map(str, known)) or "none"
            raise loader.error(block, key, f"{message} {key!r}{_hint(key, known)}; known: {names}")


def _hint(name, known: Iterable) -> str:
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


class _Loader:
    """A safe YAML reader that remembers the line of every key and refuses a key given twice."""

    def __init__(self, path: str | Path):
        self._path, self._lines, self._kept = path, {}, []

    def load(self):
        try:
            text = Path(self._path).read_text(encoding="utf-8")
            return self._plain(yaml.compose(text, Loader=yaml.SafeLoader))
        except FileNotFoundError:
            raise CatalogError(f"{self._path}: no such catalog; see --catalog") from None
        except yaml.YAMLError as error:
            raise CatalogError(f"{self._path}: not valid YAML: {error}") from None

    def error(self, block: dict, key, message: str) -> CatalogError:
        line = self._lines.get(id(block), {}).get(key)
        return CatalogError(f"{self._path}:{line}: {message}" if line else f"{self._path}: {message}")

    def _plain(self, node):
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node)
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(child) for child in node.value]
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode) -> dict:
        result, lines, own = {}, {}, set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                result = self._plain(value_node) | result
                continue
            key = self._plain(key_node)
            if key in own:
                raise CatalogError(f"{self._path}:{line}: {key!r} is given twice")
            own.add(key)
            result[key], lines[key] = self._plain(value_node), line
        self._lines[id(result)] = lines
        self._kept.append(result)  # keeps id() unique
        return result


def _scalar(node):
    constructor = yaml.SafeLoader("")
    try:
        return constructor.construct_object(node) if node is not None else None
    finally:
        constructor.dispose()
