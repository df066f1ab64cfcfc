"""`catalog.yaml` -> typed, validated datasets. Every mistake names its file and line and what would have been right."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

from corpus.evaluation import POOLS
from corpus.languages import Language, WrongLanguage, read_language, shipped
from corpus.layers import Layers
from corpus.marked import BadYaml
from corpus.plugins import BadPlugin, load_rules
from corpus.records import TASKS
from corpus.rules import RuleTable, WrongRule, hint, listed
from corpus.stages import STAGES

DEFAULT = Path(__file__).resolve().parent.parent / "catalog.yaml"


class CatalogError(ValueError):
    """Mistakes in catalog files: each of `problems` starts with FILE:LINE, and the message has one in a line."""

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset. The comment on each field is its meaning in `catalog.yaml`."""

    name: str
    language: str  # the code of one that ships (corpus/languages.yaml), or of one of the catalog's own
    licence: str
    job: str  # the script in pipelines/ that reads it
    reader: str  # the published layout, as that job names it
    tasks: tuple[str, ...]  # what its samples become (DESIGN: nine tasks)
    input: tuple[str, ...] = ()  # its raw files: paths, globs or URLs; relative ones lie below `data`
    images: str | None = None  # folder or shards with the images, where they lie beside `input`
    pools: tuple[str, ...] = ()  # whose images they are, where evaluation sets have some too (corpus/evaluation.py)
    output: str  # where the cleaned data go; default: cleaned/NAME
    columns: Mapping[str, str] = field(default_factory=dict)  # our name -> the owner's column or key
    passthrough: tuple[str, ...] = ()  # the owner's columns that no rule reads and every sample keeps
    rules: Mapping[str, Mapping] = field(default_factory=dict)  # rule -> parameters; an absent rule is off
    original: int | None = None  # the paper's Table 2: rows before and after cleaning
    cleaned: int | None = None
    stages: Mapping[int, Mapping[str, float]] = field(default_factory=dict)  # stage -> task -> samples in the paper
    plugins: tuple[str, ...] = ()  # of the whole catalog: files with rules of the user's own
    languages: Mapping[str, Language] = field(default_factory=dict)  # of the whole catalog: those that do not ship

    @property
    def spoken(self) -> Language:
        """Its language, with all that is to be known of it."""
        return self.languages[self.language] if self.language in self.languages else shipped()[self.language]

    @property
    def own_language(self) -> dict:
        """What a language that does not ship adds to a job's settings: its entry. Nothing for one that does."""
        own = self.languages.get(self.language)
        return {"languages": {own.code: own.entry()}} if own else {}

    @property
    def carried(self) -> tuple[str, ...]:
        """The owner's columns that go into samples and ledgers: those of `passthrough`, and each row's licence."""
        licence = self.columns.get(LICENCE)
        return tuple(dict.fromkeys((*self.passthrough, *([licence] if licence else []))))


class JobKind(NamedTuple):
    """What a catalog may say of the datasets that a job reads."""

    rules: RuleTable
    readers: Collection[str]
    reads_rows: bool = True  # with columns of their owner's; not documents, nor nothing at all


LICENCE = "licence"  # of `columns`: the column that holds each row's own licence
EXTENDS = "extends"  # `default` or a file: the catalog that this one lies over
DATA = "data"  # the folder or URL below which relative `input`, `images` and `output` lie; default: the catalog's own
PLUGINS = "plugins"
LANGUAGES = "languages"
_OF_THE_WHOLE = (EXTENDS, DATA, PLUGINS, LANGUAGES)  # the keys of a catalog that are no datasets
_KEYS = tuple(f.name for f in fields(Dataset) if f.name not in ("name", "plugins", "languages"))
_LISTS = ("tasks", "pools", "passthrough")
_REQUIRED = ("language", "licence", "job", "reader", "tasks")
_NAME = re.compile(r"[a-z0-9_-]*[a-z0-9][a-z0-9_-]*")
_TEXT, _MAPPING, _COUNT = (str, "a text"), (dict, "a mapping"), (int, "a whole number")
_TYPES = {
    **dict.fromkeys(("language", "licence", "job", "reader", "images", "output"), _TEXT),
    **dict.fromkeys(("columns", "rules", "stages"), _MAPPING),
    **dict.fromkeys(("original", "cleaned"), _COUNT),
    **dict.fromkeys(_LISTS, (list, "a list")),
    "input": (str | list, "a path, a glob, a URL or a list of these"),
}  # fmt: skip


def load_catalog(path: str | Path | None = None, jobs: Mapping[str, JobKind] | None = None) -> dict[str, Dataset]:
    """Read a catalog, by default the checkout's own, and those that it extends. `jobs`: what each job takes; None
    checks neither that nor rules.

    Raises CatalogError with all unknown keys, jobs, readers, rules, parameters, tasks and languages and all values of
    the wrong type, each with its file and line and the known ones.
    """
    layers, path = Layers(), Path(path or DEFAULT)
    tree = _layered(layers, path, ())
    plugins, data = tuple(tree.get(PLUGINS) or ()), tree.get(DATA)
    problems: list[str] = []
    languages, found = _languages(layers, tree, problems), {}
    for name, entry in tree.items():
        if name in _OF_THE_WHOLE:
            continue
        try:
            found[name] = _dataset(layers, name, entry, jobs, tree, data, plugins, languages)
        except CatalogError as error:
            problems += error.problems
    if problems:
        raise CatalogError(*problems)
    return found


def find(catalog: Mapping[str, Dataset], name: str, *, job: str | None = None) -> Dataset:
    """Return the named dataset. CatalogError names those there are (for `job`, if given)."""
    fitting = [d.name for d in catalog.values() if job in (None, d.job)]
    if name not in catalog:
        known = ", ".join(fitting)
        raise CatalogError(f"no dataset {name!r} in the catalog{hint(name, fitting)}; datasets are {known}")
    if job not in (None, catalog[name].job):
        raise CatalogError(f"dataset {name!r} is read by pipelines/{catalog[name].job}.py; here: {', '.join(fitting)}")
    return catalog[name]


def table_of(dataset: Dataset, jobs: Mapping[str, JobKind]) -> RuleTable:
    """Return the rules that judge a dataset: those of its job, and of its catalog's plugins. Raises WrongRule."""
    return jobs[dataset.job].rules.with_rules(rule for file in dataset.plugins for rule in load_rules(file))


# --- One catalog over another ---


def _layered(layers: Layers, path: Path, above: tuple[Path, ...]) -> dict:
    """Read a catalog and lay it over the one that it extends; the paths of both are absolute then."""
    tree = _read(layers, path)
    base = tree.get(EXTENDS)
    problems = [*_settle_data(layers, tree, path), *_settle_plugins(layers, tree, path)]
    if base is not None and not isinstance(base, str):
        problems.append(_at(layers, tree, EXTENDS, f"extends names one catalog: default, or a file, not {base!r}"))
    if problems:
        raise CatalogError(*problems)
    if base is None:
        return tree
    below, here = DEFAULT if base == "default" else path.parent / base, (*above, path.resolve())
    if below.resolve() in here:
        raise CatalogError(_at(layers, tree, EXTENDS, f"{base} extends this catalog in turn"))
    if not below.is_file():
        raise CatalogError(_at(layers, tree, EXTENDS, f"no such catalog: {below}"))
    return layers.overlay(_layered(layers, below, here), tree)


def _read(layers: Layers, path: Path) -> dict:
    try:
        tree = layers.read(path)
    except FileNotFoundError:
        raise CatalogError(f"{path}: no such catalog; see --catalog") from None
    except BadYaml as error:
        raise CatalogError(*str(error).split("\n")) from None
    if not isinstance(tree, dict) or not tree:
        raise CatalogError(f"{path}: a catalog is a mapping from dataset names to settings")
    return tree


def _settle_data(layers: Layers, tree: dict, path: Path) -> Iterator[str]:
    data = tree.get(DATA)
    if data is not None and not isinstance(data, str):
        yield _at(layers, tree, DATA, f"data is the folder or URL where all data lie, not {data!r}")
    elif data is not None:
        tree[DATA] = _below(str(path.resolve().parent), data)


def _settle_plugins(layers: Layers, tree: dict, path: Path) -> Iterator[str]:
    named = tree.get(PLUGINS) or []
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        yield _at(layers, tree, PLUGINS, "plugins is a list of Python files")
        return
    files = [str((path.parent / each).resolve()) for each in named]
    for file in files:
        try:
            load_rules(file)
        except BadPlugin as error:
            yield _at(layers, tree, PLUGINS, str(error))
    if files:
        tree[PLUGINS] = files


def _at(layers: Layers, block: dict, key, message: str) -> str:
    place = layers.place(block, key)
    return f"{place.line}: {message}" if place else message


# --- One dataset ---


def _languages(layers: Layers, tree: dict, problems: list[str]) -> dict[str, Language]:
    """Read the languages that a catalog adds; what is wrong with them is noted."""
    entries, found = tree.get(LANGUAGES) or {}, {}
    if not isinstance(entries, dict):
        problems.append(_at(layers, tree, LANGUAGES, "languages maps codes to languages (docs/datasets.md)"))
        return {}
    for code, entry in entries.items():
        try:
            found[code] = read_language(code, entry)
        except WrongLanguage as error:
            block, key = (entry, error.key) if error.key else (entries, code)
            problems.append(_at(layers, block, key, f"languages.{code}: {error}"))
    return found


def _dataset(
    layers: Layers, name: str, entry, jobs, tree: dict, data: str | None, plugins: tuple,
    languages: Mapping[str, Language],
) -> Dataset:  # fmt: skip
    """Return an entry as a Dataset. Raises CatalogError with all that is wrong with it."""
    wrong = list(_mistakes(name, entry, tree, {**shipped(), **languages}))
    if wrong:
        raise CatalogError(*(_at(layers, block, key, f"{name}: {said}") for block, key, said in wrong))
    given = {key: value for key, value in entry.items() if value is not None}
    given |= _places(layers, entry, data) | {key: tuple(given[key]) for key in _LISTS if key in given}
    given["rules"] = {rule: _given(parameters) for rule, parameters in given.get("rules", {}).items()}
    output = given.pop("output", None) or _below(data or _folder(layers, tree, name), f"cleaned/{name}")
    dataset = Dataset(name=name, output=output, **given, plugins=plugins, languages=languages)
    if jobs is not None:
        wrong = [(*_block_at(entry, path), said) for path, said in unfit(dataset, jobs)]
    if wrong:
        raise CatalogError(*(_at(layers, block, key, f"{name}: {said}") for block, key, said in wrong))
    return dataset


def _places(layers: Layers, entry: dict, data: str | None) -> dict:
    """Return `input`, `images` and `output` as absolute paths and URLs, where the entry has them."""
    found: dict = {}
    for key in ("input", "images", "output"):
        if (given := entry.get(key)) is not None:
            root = data or _folder(layers, entry, key)
            paths = tuple(_below(root, path) for path in ([given] if isinstance(given, str) else given))
            found[key] = paths if key == "input" else paths[0]
    return found


def _folder(layers: Layers, block: dict, key) -> str:
    place = layers.place(block, key)
    return str(Path(place.file if place else DEFAULT).resolve().parent)


def _given(parameters):
    """What a catalog says of a rule: parameters, or False for one that is off."""
    if parameters is False or parameters == "off":
        return False
    return {} if parameters in (None, True, "on") else parameters


def _below(root: str, path: str) -> str:
    """Return an absolute path or URL; relative ones lie below `root`."""
    whole = "://" in path or path.startswith(("/", "@/"))
    listing = "@" * path.startswith("@")
    return path if whole else f"{listing}{root.rstrip('/')}/{path.removeprefix('@')}"


def _mistakes(name: str, entry, tree: dict, languages: Collection[str]) -> Iterator[tuple[dict, object, str]]:
    """Yield what is wrong with an entry whatever job it is for: the mapping, its key, what to say of it."""
    if not _NAME.fullmatch(str(name)):
        yield tree, name, "a dataset's name is lower-case letters, digits, - and _"
    if not isinstance(entry, dict):
        yield tree, name, "expected a mapping of settings"
        return
    yield from _unknown(entry, _KEYS, "no setting")
    if missing := [key for key in _REQUIRED if entry.get(key) is None]:
        yield tree, name, f"{', '.join(missing)} missing"
    unfit = dict(_wrong_types(entry))
    yield from ((entry, key, said) for key, said in unfit.items())
    sound = {key: value for key, value in entry.items() if key not in unfit and value is not None}
    if (language := sound.get("language")) and language not in languages:
        yield entry, "language", f"language {language!r}; languages are {listed(languages)}"
    for task in sound.get("tasks", ()):
        if task not in TASKS:
            yield entry, "tasks", f"no task {task!r}{hint(task, TASKS)}; tasks are {listed(TASKS)}"
    for pool in sound.get("pools", ()):
        if pool not in POOLS:
            yield entry, "pools", f"no pool {pool!r}{hint(pool, POOLS)}; pools are {listed(POOLS)}"
    yield from _wrong_stages(sound.get("stages", {}), sound.get("tasks", ()))


def _wrong_types(entry: dict) -> Iterator[tuple[str, str]]:
    for key, (kind, called) in _TYPES.items():
        value = entry.get(key)
        wrong = value is not None and (not isinstance(value, kind) or isinstance(value, bool))
        if wrong or (isinstance(value, list) and not all(isinstance(each, str) for each in value)):
            yield key, f"{key} must be {called}, not {value!r}"


def _wrong_stages(stages: dict, tasks: list[str]) -> Iterator[tuple[dict, object, str]]:
    yield from _unknown(stages, tuple(STAGES), "no stage")
    for stage, weights in stages.items():
        if not isinstance(weights, dict):
            yield stages, stage, f"stage {stage} maps tasks to numbers of samples"
            continue
        yield from _unknown(weights, tasks, f"stage {stage}: its tasks do not include")
        for task, samples in weights.items():
            if isinstance(samples, bool) or not isinstance(samples, int | float) or not samples >= 0:
                yield weights, task, f"stage {stage}: samples of {task} are a number, not {samples!r}"


def unfit(dataset: Dataset, jobs: Mapping[str, JobKind]) -> Iterator[tuple[tuple, str]]:
    """Yield what the job of a dataset does not take of its entry: the keys that lead there, what to say of it."""
    if dataset.job not in jobs:
        yield ("job",), f"no job {dataset.job!r}{hint(dataset.job, jobs)}; jobs: {listed(jobs)}"
        return
    readers = jobs[dataset.job].readers
    if dataset.reader not in readers:
        known = f"{hint(dataset.reader, readers)}; readers of {dataset.job}: {listed(readers)}"
        yield ("reader",), f"no reader {dataset.reader!r}{known}"
    if dataset.carried and not jobs[dataset.job].reads_rows:
        yield ("passthrough",), f"{dataset.job} reads no rows with columns that could be passed through"
    if twice := [name for i, name in enumerate(dataset.passthrough) if name in dataset.passthrough[:i] or not name]:
        yield ("passthrough",), f"passthrough names {twice[0]!r}" + (" twice" if twice[0] else ", which no column is")
    try:
        table = table_of(dataset, jobs)
    except WrongRule as error:
        yield ("rules",), str(error)
        return
    for rule, given in dataset.rules.items():
        parts = [{name: value} for name, value in given.items()] if isinstance(given, dict) else [given]
        wrong = (_wrong_rule(table, rule, part) for part in parts or [{}])
        yield from {str(why): (("rules", *filter(None, why.where)), str(why)) for why in wrong if why}.values()


def _wrong_rule(table: RuleTable, rule: str, given) -> WrongRule | None:
    try:
        table.check({rule: given})
    except WrongRule as error:
        return error
    return None


def _block_at(entry: dict, path: tuple) -> tuple[dict, object]:
    """Return the innermost mapping on a path of keys, and its key."""
    for step in path[:-1]:
        if not isinstance(entry.get(step), dict):
            return entry, step
        entry = entry[step]
    return entry, path[-1]


def _unknown(block: dict, known: Collection, message: str) -> Iterator[tuple[dict, object, str]]:
    for key in block:
        if key not in known:
            yield block, key, f"{message} {key!r}{hint(key, known)}; known: {listed(known)}"
