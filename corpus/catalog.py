"""`catalog.yaml` -> typed, validated datasets. Every mistake names the line and what would have been right."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from corpus.marked import BadYaml, Document
from corpus.plugins import BadPlugin, load_rules
from corpus.records import TASKS
from corpus.rules import RuleTable, WrongRule, hint, listed
from corpus.stages import STAGES

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
    plugins: tuple[str, ...] = ()  # of the whole catalog: files with rules of the user's own


class JobKind(NamedTuple):
    """What a catalog may say of the datasets that a job reads."""

    rules: RuleTable
    readers: Collection[str]


_KEYS = tuple(f.name for f in fields(Dataset) if f.name not in ("name", "plugins"))
_REQUIRED = ("language", "licence", "job", "reader", "tasks")
PLUGINS = "plugins"  # the one key of a catalog that is no dataset


def load_catalog(path: str | Path | None = None, jobs: Mapping[str, JobKind] | None = None) -> dict[str, Dataset]:
    """Read a catalog, by default the checkout's own. `jobs`: what each job takes; None checks neither that nor rules.

    Raises CatalogError for an unknown key, job, reader, rule, parameter, task or language and for a value of the wrong
    type, naming the line and the known ones.
    """
    path = Path(path or DEFAULT)
    loader = _Loader(path)
    tree = loader.tree
    if not isinstance(tree, dict) or not tree:
        raise CatalogError(f"{path}: a catalog is a mapping from dataset names to settings")
    plugins = _plugins(loader, tree, path.parent)
    return {name: _dataset(loader, name, entry, jobs, tree, plugins) for name, entry in tree.items() if name != PLUGINS}


def _plugins(loader: "_Loader", tree: dict, folder: Path) -> tuple[str, ...]:
    named = tree.get(PLUGINS, [])
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise loader.error(tree, PLUGINS, "plugins is a list of Python files")
    files = tuple(str((folder / each).resolve()) for each in named)
    try:
        for file in files:
            load_rules(file)
    except BadPlugin as error:
        raise loader.error(tree, PLUGINS, str(error)) from None
    return files


def find(catalog: Mapping[str, Dataset], name: str, *, job: str | None = None) -> Dataset:
    """Return the named dataset. CatalogError names those there are (for `job`, if given)."""
    fitting = [d.name for d in catalog.values() if job in (None, d.job)]
    if name not in catalog:
        known = ", ".join(fitting)
        raise CatalogError(f"no dataset {name!r} in the catalog{hint(name, fitting)}; datasets are {known}")
    if job not in (None, catalog[name].job):
        raise CatalogError(f"dataset {name!r} is read by pipelines/{catalog[name].job}.py; here: {', '.join(fitting)}")
    return catalog[name]


def _dataset(loader: "_Loader", name: str, entry: dict, jobs, tree: dict, plugins: tuple[str, ...]) -> Dataset:
    if not isinstance(entry, dict):
        raise loader.error(tree, name, f"{name}: expected a mapping of settings")
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or name != name.lower():
        raise loader.error(tree, name, f"{name!r}: a dataset's name is lower-case letters, digits, - and _")
    _only_known(loader, entry, _KEYS, f"{name}: no setting")
    if missing := [key for key in _REQUIRED if key not in entry]:
        raise loader.error(tree, name, f"{name}: {', '.join(missing)} missing")
    if entry["language"] not in LANGUAGES:
        raise loader.error(entry, "language", f"{name}: language {entry['language']!r}; languages are en, zh")
    _check_types(loader, name, entry)
    tasks, stages = entry["tasks"], entry.get("stages") or {}
    for task in tasks:
        if task not in TASKS:
            known = ", ".join(TASKS)
            raise loader.error(entry, "tasks", f"{name}: no task {task!r}{hint(task, TASKS)}; tasks are {known}")
    _check_stages(loader, name, stages, tasks)
    rules = {rule: _given(parameters) for rule, parameters in (entry.get("rules") or {}).items()}
    checked = entry | {"tasks": tuple(tasks), "rules": rules, "stages": stages, "columns": entry.get("columns") or {}}
    dataset = Dataset(name=name, **checked, plugins=plugins)
    if jobs is not None:
        _check_job(loader, entry, dataset, jobs)
    return dataset


def _given(parameters):
    """What a catalog says of a rule: parameters, or False for one that is off."""
    if parameters is False or parameters == "off":
        return False
    return {} if parameters in (None, True, "on") else parameters


_TYPES = {
    "licence": (str, "a text"),
    "job": (str, "a text"),
    "reader": (str, "a text"),
    "tasks": (list, "a list"),
    "columns": (dict, "a mapping"),
    "rules": (dict, "a mapping"),
    "stages": (dict, "a mapping"),
    "original": (int, "a whole number"),
    "cleaned": (int, "a whole number"),
}


def _check_types(loader: "_Loader", name: str, entry: dict) -> None:
    for key, (kind, called) in _TYPES.items():
        if entry.get(key) is not None and (not isinstance(entry[key], kind) or isinstance(entry[key], bool)):
            raise loader.error(entry, key, f"{name}: {key} must be {called}, not {entry[key]!r}")


def _check_job(loader: "_Loader", entry: dict, dataset: Dataset, jobs: Mapping[str, JobKind]) -> None:
    name = dataset.name
    if dataset.job not in jobs:
        known = f"{hint(dataset.job, jobs)}; jobs: {listed(jobs)}"
        raise loader.error(entry, "job", f"{name}: no job {dataset.job!r}{known}")
    kind = jobs[dataset.job]
    if dataset.reader not in kind.readers:
        known = f"{hint(dataset.reader, kind.readers)}; readers of {dataset.job}: {listed(kind.readers)}"
        raise loader.error(entry, "reader", f"{name}: no reader {dataset.reader!r}{known}")
    try:
        table_of(dataset, jobs).check(dataset.rules)
    except WrongRule as error:
        rule, parameter = error.where
        block = entry["rules"].get(rule) if parameter is not None else None
        where = (block, parameter) if isinstance(block, dict) else (entry["rules"], rule)
        raise loader.error(*where, f"{name}: {error}") from None


def table_of(dataset: Dataset, jobs: Mapping[str, JobKind]) -> RuleTable:
    """Return the rules that judge a dataset: those of its job, and of its catalog's plugins. Raises WrongRule."""
    return jobs[dataset.job].rules.with_rules(rule for file in dataset.plugins for rule in load_rules(file))


def _check_stages(loader: "_Loader", name: str, stages: dict, tasks: tuple[str, ...]) -> None:
    _only_known(loader, stages, tuple(STAGES), f"{name}: no stage")
    for stage, weights in stages.items():
        if not isinstance(weights, dict):
            raise loader.error(stages, stage, f"{name}: stage {stage} maps tasks to numbers of samples")
        _only_known(loader, weights, tasks, f"{name}: stage {stage}: its tasks do not include")


def _only_known(loader: "_Loader", block: dict, known: tuple, message: str) -> None:
    for key in block:
        if key not in known:
            raise loader.error(block, key, f"{message} {key!r}{hint(key, known)}; known: {listed(known)}")


class _Loader(Document):
    """A catalog's text, whose first mistake is an error."""

    def __init__(self, path: Path):
        try:
            super().__init__(path)
        except FileNotFoundError:
            raise CatalogError(f"{path}: no such catalog; see --catalog") from None
        except BadYaml as error:
            raise CatalogError(str(error)) from None
        if self.twice:
            raise CatalogError(self.twice[0])

    def error(self, block: dict, key, message: str) -> CatalogError:
        return CatalogError(f"{self.place_in(block, key)}: {message}")
