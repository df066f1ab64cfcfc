"""A recipe as a graph of jobs: what each step runs, what it needs, and what its output depends on."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from corpus.catalog import Dataset
from corpus.folder import VERSION
from corpus.inputs import fingerprint
from corpus.plugins import plugin_digests
from corpus.seals import digest
from pipelines.engine.inputs import UserError, find_inputs
from pipelines.recipe import flags as job_flags
from pipelines.recipe.read import Reading
from pipelines.recipe.shape import StagePart

CATALOG = "catalog.yaml"
TITLES = {
    "make_demo_crawl": "A raw crawl: photos, drawings, captions, pages, and dirt",
    "fetch_images": "Download the images of {dataset}",
    "clean_laion": "Clean the {language} pairs by the eight rules (Qwen-VL A.1)",
    "clean_captions": "Clean the captions of {dataset} (A.1)",
    "clean_vqa": "Clean the questions of {dataset} (A.2)",
    "clean_grounding": "Clean the boxes of {dataset} (A.3)",
    "clean_text": "Clean the texts of {dataset}",
    "clean_chat": "Clean dialogues",
    "score_clip": "Score {dataset} with CLIP",
    "dedup": "Remove near-duplicates from {dataset}",
    "render_pdf": "Render pages of PDF with every line's place (A.4)",
    "render_html": "Render pages of HTML with every line's place (A.4)",
    "make_ocr": "Draw synthetic text to read (A.4)",
    "make_scenes": "Draw scenes for {dataset}",
}
# Flags that change how long a step takes and not what comes out.
PATIENCE = {
    "workers", "connections", "per-host", "timeout", "retries", "user-agent", "decoders", "by-content", "save-every",
    "max-quarantined", "keep",
}  # fmt: skip
# What of a catalog entry a job's output depends on, where it is not everything; rules by name.
_OF_ENTRY: Mapping[str, tuple[str, ...]] = {
    "fetch_images": ("columns", "reader", "language", "passthrough"), "score_clip": ("clip_score",), "dedup": (),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command. `name` is the folder below the root that it makes; `mark` a file there that stands when it is done.

    `made_of`: all that the output depends on besides the input. `inputs`: raw files, as globs. `paths`: (flag, file or
    folder) that its flags name. `grows`: it may go on in its folder when the raw data have grown.
    """

    name: str
    title: str
    words: list[str]
    made_of: dict
    mark: str
    place: tuple  # in the recipe
    needs: list[str] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    paths: list[tuple[str, str]] = field(default_factory=list)
    grows: bool = True
    dataset: str = ""
    job: str = ""


def steps_of(reading: Reading, left_out: Iterable[str] = ()) -> list[Step]:
    """Return the steps of a checked recipe in an order in which they can run; `left_out` are datasets to do without."""
    return list(_Graph(reading, set(left_out)).steps())


class _Graph:
    def __init__(self, reading: Reading, left_out: set[str]):
        assert reading.recipe is not None
        self.reading, self.recipe = reading, reading.recipe
        self.root = self.recipe.output.rstrip("/")
        self.left_out = left_out
        self.last: dict[str, str] = {}  # dataset -> its last step
        self._outputs: dict[str, str] = {}  # step -> its folder

    def steps(self) -> Iterator[Step]:
        if isinstance(self.recipe.raw, dict):
            ((job, flags),) = self.recipe.raw.items()
            yield self._made("raw", job, flags or {}, ("raw",))
        for name, chain in self.reading.chains.items():
            if name not in self.left_out:
                yield from self._dataset(name, chain)
        before = None
        for number, stage in sorted(self.recipe.stages.items()):
            yield self._build(number, stage)
            if stage.train is not None:
                yield (step := self._train(number, stage, before))
                before = step.name

    def _made(self, name: str, job: str, flags: dict, place: tuple) -> Step:
        self._outputs[name] = os.path.abspath(f"{self.root}/{name}")
        words = [job, "--output", f"{self.root}/{name}", *job_flags.words(flags)]
        return Step(
            name=name, title=TITLES[job], words=words, made_of=_lasting(job, flags), mark="", place=place, grows=False,
            job=job,
        )  # fmt: skip

    def _dataset(self, name: str, chain: Sequence) -> Iterator[Step]:
        before, dataset = None, self.reading.catalog[name]
        for i, (verb, job, flags) in enumerate(chain):
            folder = f"cleaned/{name}" if i == len(chain) - 1 else f"work/{name}/{i + 1}-{verb}"
            inputs = self._inputs(name, job, before)
            paths = {flag: _each(self.under_raw, value) for flag, value in flags.items() if flag in job_flags.PATHS}
            named = [(flag, path) for flag, value in paths.items() for path in _listed(value)]
            needs, raw = self._needs([*inputs, *(path for _, path in named)])
            words = [job, "--dataset", name, *(["--input", *inputs] if inputs else []),
                     "--output", f"{self.root}/{folder}",
                     *self._catalog(), *job_flags.words(flags | paths)]  # fmt: skip
            title = TITLES[job].format(dataset=name, language=dataset.language)
            made_of = _lasting(job, flags | paths) | _of_entry(job, dataset)
            if files := [path for _, path in named if Path(path).is_file()]:
                made_of["files"] = [fingerprint(path, by_content=True) for path in files]
            yield Step(
                name=folder, title=title, words=words, made_of=made_of, mark="report.json", needs=needs,
                inputs=[each for each in raw if each in inputs], dataset=name, job=job,
                place=self._place(name, i, verb), paths=[(flag, path) for flag, path in named if path in raw],
            )  # fmt: skip
            before = folder
            self._outputs[folder] = os.path.abspath(f"{self.root}/{folder}")
        if chain:
            self.last[name] = f"cleaned/{name}"

    def _place(self, name: str, i: int, verb: str) -> tuple:
        return ("datasets", name, "do", i, verb) if self.recipe.datasets[name].do else ("datasets", name)

    def _inputs(self, name: str, job: str, before: str | None) -> list[str]:
        if before:
            return [f"{self.root}/{before}/{'*.urls.parquet' if job == 'fetch_images' else '*.tar'}"]
        if not job_flags.takes(job, "input"):
            return []
        said = self.recipe.datasets[name].input
        return [self.under_raw(each) for each in _listed(said)] if said else _there(self.reading.catalog[name].input)

    def under_raw(self, path: str) -> str:
        """A path of the recipe, below the folder of raw data unless it says where it is."""
        if "://" in path or path.startswith(("/", "@", "~")) or self.recipe.raw is None:
            return os.path.expanduser(path)
        return f"{self.recipe.raw.rstrip('/') if isinstance(self.recipe.raw, str) else f'{self.root}/raw'}/{path}"

    def _needs(self, paths: Iterable[str]) -> tuple[list[str], list[str]]:
        """Return (steps that make some of the paths, the paths that none makes)."""
        needs, raw = {}, []
        for path in paths:
            makers = [
                name for name, output in self._outputs.items() if f"{os.path.abspath(path)}/".startswith(f"{output}/")
            ]
            needs.update(dict.fromkeys(makers))
            raw += [path] if not makers else []
        return list(needs), raw

    def _catalog(self) -> list[str]:
        if self.reading.catalog != self.reading.base:
            return ["--catalog", f"{self.root}/{CATALOG}"]
        return ["--catalog", self.recipe.catalog] if self.recipe.catalog else []

    def _build(self, number: int, stage: StagePart) -> Step:
        model, catalog = self.recipe.model, self.reading.catalog
        own = [name for name in self.reading.chains if number in catalog[name].stages]
        listed = catalog if "samples" in stage.build else own
        told = {"queries": model.queries} | ({"tokenizer": model.tokenizer} if model.tokenizer else {})
        words = ["build_stage", "--stage", str(number), "--data", f"{self.root}/cleaned",
                 "--output", f"{self.root}/stage{number}", *job_flags.words(told),
                 *self._catalog(), *job_flags.words(stage.build)]  # fmt: skip
        weights = {name: dict(catalog[name].stages[number]) for name in listed if number in catalog[name].stages}
        return Step(
            name=f"stage{number}", title=f"Pack the samples of stage {number}", words=words, grows=False,
            made_of=_lasting("build_stage", stage.build) | told | {"stage": number, "weights": weights},
            mark="corpus.json", needs=[self.last[name] for name in own if name in self.last],
            place=("stages", number), job="build_stage",
        )  # fmt: skip

    def _train(self, number: int, stage: StagePart, before: str | None) -> Step:
        flags, model = stage.train or {}, self.recipe.model
        start = {"init": f"{self.root}/{before}"} if before else _start(model)
        job = "train" if "ranks" in flags else "trainer"
        words = [job, "--stage", str(number), "--data", f"{self.root}/stage{number}", *job_flags.words(start),
                 "--output", f"{self.root}/runs/stage{number}",
                 *job_flags.words(flags), "--resume", "auto"]  # fmt: skip
        return Step(
            name=f"runs/stage{number}", title=f"Train stage {number}", words=words, grows=False,
            made_of=_lasting("trainer", flags) | ({} if before else start) | {"stage": number},
            mark="export/config.json", needs=[f"stage{number}", *([before] if before else [])],
            place=("stages", number, "train"), job=job,
        )  # fmt: skip


def _start(model) -> dict:
    given = model.model_dump(by_alias=True, exclude={"queries", "tokenizer"})
    return {name: value for name, value in given.items() if value is not None}


def _there(patterns: Sequence[str]) -> list[str]:
    """Those of a catalog's patterns that match something: it names every form that a dataset may have."""
    found = []
    for pattern in patterns:
        with suppress(UserError):
            found += [pattern] if find_inputs([pattern]) else []
    return found


def _listed(value) -> list:
    return value if isinstance(value, list) else [value]


def _each(function, value):
    return [function(str(each)) for each in value] if isinstance(value, list) else function(str(value))


def _lasting(job: str, flags: Mapping) -> dict:
    return {"job": job, "version": VERSION, "flags": {name: v for name, v in flags.items() if name not in PATIENCE}}


def _of_entry(job: str, dataset: Dataset) -> dict:
    entry = asdict(dataset) | {"plugins": plugin_digests(dataset.plugins), "languages": dataset.own_language}
    keys = _OF_ENTRY.get(job, [key for key in entry if key not in ("stages", "input", "images", "output")])
    told = {key: entry[key] if key in entry else dataset.rules.get(key) for key in keys}
    return {"entry": {key: value for key, value in told.items() if value or key not in ("passthrough", "languages")}}


def keys_of(steps: Sequence[Step]) -> dict[str, tuple[str, str]]:
    """Return, by step, two digests: of its settings and those before it, and of its input files as well."""
    keys: dict[str, tuple[str, str]] = {}
    for step in steps:
        made = digest([step.made_of, [keys[name][0] for name in step.needs]])
        files = {url: fingerprint(url) for url in (find_inputs(step.inputs) if step.inputs else ())}
        keys[step.name] = made, digest([made, files, [keys[name][1] for name in step.needs]])
    return keys
