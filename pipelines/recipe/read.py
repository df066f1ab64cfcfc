"""`recipe.yaml` -> a checked recipe and the datasets it means, or all that is wrong with it, each with its line."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ValidationError

from corpus.catalog import CatalogError, Dataset, load_catalog, unfit
from corpus.languages import shipped
from corpus.marked import BadYaml, Document
from corpus.records import TASKS
from corpus.rules import hint, listed
from pipelines.recipe import flags as job_flags
from pipelines.recipe.shape import DatasetPart, Entry, Model, Recipe, StagePart
from pipelines.work.datasets import JOBS

VERBS = {"fetch": "fetch_images", "score": "score_clip", "dedup": "dedup"}
VERB_OF = {"clean": "clean", "render": "render", "make": "synthesise"}  # the first word of a job's name -> its verb
MAKERS = ("make_demo_crawl",)  # jobs that make a raw crawl
_PARTS: Mapping[str, type[BaseModel]] = {"datasets": DatasetPart, "stages": StagePart}
_LINE = re.compile(r":(\d+)$")


class WrongRecipe(ValueError):
    """All that is wrong with a recipe, a line each."""

    def __init__(self, problems: Sequence[tuple[str, str]]):
        lines = sorted(dict.fromkeys(problems), key=lambda problem: _order(problem[0]))
        super().__init__("\n".join(f"{place}: {says}" for place, says in lines))


def _order(place: str) -> tuple[str, int]:
    found = _LINE.search(place)
    return (place[: found.start()], int(found[1])) if found else (place, 0)


@dataclass
class Reading:
    """A recipe that is being read: `problems` are (FILE:LINE, what is wrong). `catalog` is the catalog with the
    recipe's datasets and mixtures laid over it, `chains` the steps of each dataset: (verb, job, flags)."""

    document: Document
    recipe: Recipe | None = None
    base: dict[str, Dataset] = field(default_factory=dict)
    catalog: dict[str, Dataset] = field(default_factory=dict)
    chains: dict[str, list[tuple[str, str, dict]]] = field(default_factory=dict)
    problems: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what is to be known before a run, and wrong is not

    def wrong(self, path: Sequence, message: str) -> None:
        """Note what is wrong at a path of the document."""
        self.problems.append((self.document.place(path), message))

    def refuse(self) -> None:
        """Raise WrongRecipe where anything is wrong."""
        if self.problems:
            raise WrongRecipe(self.problems)


def read(path: str | Path, changes: Sequence[str] = ()) -> Reading:
    """Read a recipe with `--set` changes. Raises WrongRecipe only where it is no YAML at all."""
    reading = Reading(_document(path, changes))
    reading.problems += [(place, says) for place, _, says in (each.partition(": ") for each in reading.document.twice)]
    try:
        reading.recipe = Recipe.model_validate(reading.document.tree or {})
    except ValidationError as error:
        reading.problems += _told(reading.document, error)
        reading.recipe = _what_is_right(reading.document.tree, error)
    if reading.recipe:
        _read_catalog(reading, reading.recipe)
    return reading


def _document(path: str | Path, changes: Sequence[str]) -> Document:
    try:
        document = Document(path)
        if not isinstance(document.tree, dict):
            raise BadYaml(f"{path}: a recipe is a mapping: output, datasets, stages; see docs/recipes.md")
        for change in changes:
            document.set(change)
    except (FileNotFoundError, IsADirectoryError):
        raise WrongRecipe([(str(path), "there is no such recipe")]) from None
    except BadYaml as error:
        place, _, says = str(error).partition(": ")
        raise WrongRecipe([(place, says)]) from None
    return document


# --- What pydantic found ---


def _told(document: Document, error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield (place, message): one for each value, whatever the number of types it might have had."""
    wanted: dict[tuple, list[str]] = {}
    inputs = {}
    for each in error.errors(include_url=False, include_context=False):
        path = _inside(document.tree, each["loc"])
        if each["type"] == "extra_forbidden":
            yield document.place(path), _unknown(path)
        elif each["type"] == "missing":
            yield document.place(path), f"{_dotted(each['loc'])} is missing"
        else:
            wanted.setdefault(path, []).append(each["msg"].removeprefix("Input should be ").removeprefix("a valid "))
            inputs[path] = each["input"]
    for path, says in wanted.items():
        ways = " or ".join(dict.fromkeys(says))
        yield document.place(path), f"{_dotted(path)}: {ways} expected, found {str(inputs[path])[:80]!r}"


def _inside(tree, loc: Sequence) -> tuple:
    """The part of a place that is in the document; pydantic adds which type of a union it tried."""
    path = []
    for step in loc:
        inside = (isinstance(tree, dict) and step in tree) or (
            isinstance(tree, list) and isinstance(step, int) and step < len(tree)
        )
        if not inside:
            break
        path.append(step)
        tree = tree[step]
    return tuple(path)


def _unknown(path: Sequence) -> str:
    known = _settings_at(path[:-1])
    return (
        f"{_dotted(path[:-1]) or 'a recipe'} has no setting {path[-1]!r}{hint(path[-1], known)}; known: {listed(known)}"
    )


def _settings_at(path: Sequence) -> list[str]:
    shape = Recipe if not path else Model if path[0] == "model" else _PARTS.get(path[0], Recipe)
    return [each.alias or name for name, each in shape.model_fields.items()]


def _dotted(path: Sequence) -> str:
    return ".".join(map(str, path))


def _what_is_right(tree: dict, error: ValidationError) -> Recipe | None:
    """A recipe without the values that are wrong, so that all else is checked as well; None where nothing is left."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    wrong, tree = {_inside(tree, each["loc"]) for each in errors if each["type"] != "missing"}, _copy(tree)
    for path in wrong:
        _drop(tree, path)
    try:
        return Recipe.model_validate({"output": "-", **tree})
    except ValidationError:
        return None


def _copy(value):
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    return list(map(_copy, value)) if isinstance(value, list) else value


def _drop(tree, path: tuple) -> None:
    """Remove a value; of a list, as of a mapping of flags, the whole."""
    while path and isinstance(_at(tree, path[:-1]), list):
        path = path[:-1]
    if path and (block := _at(tree, path[:-1])):
        block.pop(path[-1], None)


def _at(tree, path: Sequence):
    """What stands at a path, None where it has been removed."""
    for step in path:
        tree = tree.get(step) if isinstance(tree, dict) else tree[step] if tree is not None else None
    return tree


# --- Datasets ---


def _read_catalog(reading: Reading, recipe: Recipe) -> None:
    try:
        reading.base = load_catalog(recipe.catalog, JOBS)
    except CatalogError as error:
        reading.wrong(("catalog",), str(error))
        return
    reading.catalog = dict(reading.base)
    for name, part in recipe.datasets.items():
        if dataset := _dataset(reading, name, part):
            reading.catalog[name] = dataset
            reading.chains[name] = list(_chain(reading, name, part, dataset))
    for number, stage in recipe.stages.items():
        if stage.mixture is not None:
            _mix(reading, number, stage.mixture)
        _check_flags(reading, ("stages", number, "build"), "build_stage", stage.build)
        _check_flags(reading, ("stages", number, "train"), "trainer", stage.train or {})
    if isinstance(recipe.raw, dict):
        _check_maker(reading, recipe.raw)


def _dataset(reading: Reading, name: str, part: DatasetPart) -> Dataset | None:
    """A recipe's dataset: its catalog entry, or that of `like`, with what the recipe says laid over it."""
    path, origin = ("datasets", name), part.like or name
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        reading.wrong(path, f"{name!r}: a dataset's name is lower-case letters, digits, - and _")
    over = {key: value for key, value in part.model_dump(include=set(Entry.model_fields)).items() if value is not None}
    if origin not in reading.base:
        lacking = [key for key in ("language", "licence", "job", "reader", "tasks") if key not in over]
        if part.like or lacking:
            where, why = (
                ((*path, "like"), "") if part.like else (path, f"; one of your own needs {listed(lacking)}, or `like`")
            )
            reading.wrong(where, f"no dataset {origin!r} in the catalog{hint(origin, reading.base)}{why}")
            return None
        languages = next((each.languages for each in reading.base.values()), {})
        base = Dataset(
            name=name, language="en", licence="", job="", reader="", tasks=(), output="", languages=languages
        )  # fmt: skip
    else:
        base = replace(reading.base[origin], name=name)
    columns = {ours: theirs for ours, theirs in {**base.columns, **over.pop("columns", {})}.items() if theirs}
    over = {key: value for key, value in over.items() if key not in ("input", "images", "output")}
    languages = {**shipped(), **base.languages}
    if over.get("language", base.language) not in languages:
        known = f"languages are {listed(languages)}; a catalog can add more (docs/datasets.md)"
        reading.wrong((*path, "language"), f"language {over.pop('language')!r}; {known}")
    rules, tasks = _rules(base.rules, over.pop("rules", {})), tuple(over.pop("tasks", base.tasks))
    passed = tuple(over.pop("passthrough", base.passthrough))
    dataset = replace(base, **over, columns=columns, rules=rules, tasks=tasks, passthrough=passed)
    return dataset if _check_entry(reading, path, part, dataset) else None


def _rules(base: Mapping, over: Mapping) -> dict:
    """Rules laid over others, parameter by parameter; a rule that is off says so, null takes one away."""
    rules = dict(base)
    for name, given in over.items():
        if given is None and name in rules:
            del rules[name]
            continue
        before = rules.get(name) or {}
        rules[name] = False if given in (False, "off") else {**before, **given} if isinstance(given, dict) else (
            before if given in (None, True, "on") else given
        )  # fmt: skip
    return rules


def _check_entry(reading: Reading, path: tuple, part: DatasetPart, dataset: Dataset) -> bool:
    """Whether an entry is one that its job takes; what is wrong with it is noted."""
    for where, says in unfit(dataset, JOBS):
        reading.wrong((*path, *where), says)
    if dataset.job not in JOBS:
        return False
    for i, task in enumerate(dataset.tasks):
        if task not in TASKS:
            reading.wrong((*path, "tasks", i), f"no task {task!r}{hint(task, TASKS)}; tasks are {listed(TASKS)}")
    for stage, weights in (part.stages or {}).items():
        _check_tasks(reading, (*path, "stages", stage), dataset, weights)
    return True


def _check_tasks(reading: Reading, path: tuple, dataset: Dataset, weights: Mapping) -> None:
    for task in weights:
        if task not in dataset.tasks:
            known = f"{hint(task, dataset.tasks)}; its tasks are {listed(dataset.tasks)}"
            reading.wrong((*path, task), f"{dataset.name} has no task {task!r}{known}")


def _chain(reading: Reading, name: str, part: DatasetPart, dataset: Dataset) -> Iterator[tuple[str, str, dict]]:
    """Yield (verb, job, flags) of the steps of a dataset."""
    own = VERB_OF[dataset.job.partition("_")[0]]
    verbs = {own: dataset.job, **VERBS}
    for i, step in enumerate(part.do or [own]):
        path, given = ("datasets", name, "do", i), step if isinstance(step, dict) else {step: {}}
        if len(given) != 1:
            reading.wrong(path, f"a step is one word with its flags, not {listed(given)}: begin each with its own -")
            continue
        ((verb, flags),) = given.items()
        if verb not in verbs:
            known = f"{hint(verb, verbs)}; steps of {name}, which {dataset.job} reads: {listed(verbs)}"
            reading.wrong(path, f"no step {verb!r}{known}")
            continue
        flags = dict(flags or {})
        if "language" in job_flags.actions(verbs[verb]):
            flags = {"language": dataset.language, **flags}
        _check_flags(reading, (*path, verb), verbs[verb], flags)
        images = part.images or dataset.images
        if verb == own and images and job_flags.takes(dataset.job, "images"):
            flags = {"images": images, **flags}
        yield verb, verbs[verb], flags
    if part.images and not job_flags.takes(dataset.job, "images"):
        reading.wrong(("datasets", name, "images"), f"{dataset.job} takes no images")


def _check_flags(reading: Reading, path: tuple, job: str, flags: Mapping) -> None:
    for name, says in job_flags.wrong(job, flags):
        reading.wrong((*path, name) if name else path, says)


def _mix(reading: Reading, number: int, mixture: Mapping) -> None:
    """Lay a stage's mixture over the catalog: these datasets and no others."""
    for name, dataset in reading.catalog.items():
        if number in dataset.stages:
            reading.catalog[name] = replace(dataset, stages={k: v for k, v in dataset.stages.items() if k != number})
    for name, given in mixture.items():
        path = ("stages", number, "mixture", name)
        if name not in reading.chains:
            known = reading.recipe.datasets if reading.recipe else ()
            if name not in known:  # else it is wrong itself, which has been said
                reading.wrong(path, f"the recipe has no dataset {name!r}{hint(name, known)}; it has {listed(known)}")
            continue
        dataset = reading.catalog[name]
        if not isinstance(given, dict) and len(dataset.tasks) != 1:
            reading.wrong(path, f"{name} has tasks {listed(dataset.tasks)}: say how many of each, {{TASK: NUMBER}}")
            continue
        weights = given if isinstance(given, dict) else {dataset.tasks[0]: given}
        _check_tasks(reading, path, dataset, weights)
        reading.catalog[name] = replace(dataset, stages={**dataset.stages, number: weights})


def _check_maker(reading: Reading, raw: Mapping) -> None:
    if len(raw) != 1 or next(iter(raw)) not in MAKERS:
        reading.wrong(("raw",), f"a job that makes raw data is one of {listed(MAKERS)}, with its flags; else a folder")
        return
    ((job, flags),) = raw.items()
    _check_flags(reading, ("raw", job), job, flags or {})
