"""From datasets to amounts: how many rows, images, bytes and files each step of a recipe would be given."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from corpus.catalog import Dataset
from pipelines.costs.rates import Rates
from pipelines.recipe.read import Reading

Chain = Sequence[tuple[str, str, Mapping]]  # (verb, job, flags) of each step
# Without a recipe: pairs of which only a list of links is there, and pairs whose images are there already.
FROM_LINKS: Chain = (("clean", "clean_laion", {}), ("fetch", "fetch_images", {}))
FROM_IMAGES: Chain = (("clean", "clean_laion", {"clip": "ViT-B-32", "device": "cuda"}), ("dedup", "dedup", {}))
_PAGES = {"render_pdf": "windows of a PDF page", "render_html": "windows of a web page"}


@dataclass(frozen=True, eq=False)
class Source:
    """A dataset. `kept` of its `rows` are what its last step leaves; `told`: where the number of rows comes from."""

    name: str
    chain: Chain
    rows: float
    kept: float
    image_bytes: float
    told: str
    files: float = 0
    stages: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Training:
    """What of a stage's training decides what it takes; `flags` as trainer.estimate has them."""

    stage: int
    size: str
    gpus: int
    flags: Mapping = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """Datasets, samples of each stage that is packed by dataset and task, and the trainings."""

    sources: Sequence[Source]
    stages: Mapping[int, Mapping[str, Mapping[str, float]]]
    trainings: Sequence[Training] = ()


@dataclass(frozen=True)
class Work:
    """What one step is given: `amounts` by the names that units have for them (rates.AMOUNTS)."""

    step: str
    what: str  # a dataset, or a stage
    amounts: Mapping[str, float]


def of_recipe(reading: Reading, sizes: Mapping[str, Source], rates: Rates) -> Project:
    """Return what a checked recipe comes to. `sizes`: what is known of its datasets' rows, files and images."""
    assert reading.recipe is not None
    sources = [_source(reading.catalog[name], chain, sizes.get(name), rates) for name, chain in reading.chains.items()]
    parts = sorted(reading.recipe.stages.items())
    stages: dict[int, dict] = {number: _mixture(sources, number, part.build.get("samples")) for number, part in parts}
    size = reading.recipe.model.size or "tiny"
    trainings = [
        Training(number, size, int(str(part.train.get("ranks", 1))), part.train)
        for number, part in parts if part.train is not None
    ]  # fmt: skip
    return Project(sources, stages, trainings)


def _mixture(sources: Sequence[Source], number: int, samples) -> dict[str, Mapping[str, float]]:
    """Samples of a stage by dataset and task: at most those that are kept, or scaled to as many as are asked for."""
    wanted = {source: source.stages.get(number, {}) for source in sources}
    total = sum(sum(tasks.values()) for tasks in wanted.values())
    scale = float(samples) / total if samples and total else None
    return {
        source.name: {task: scale * count if scale else min(count, source.kept) for task, count in tasks.items()}
        for source, tasks in wanted.items() if tasks
    }  # fmt: skip


def _source(dataset: Dataset, chain: Sequence, known: Source | None, rates: Rates) -> Source:
    """Rows are those that are known, else those of the catalog, else those that the stages ask for."""
    share = _share_of(chain, rates)
    if dataset.original and dataset.cleaned:
        share = dataset.cleaned / dataset.original
    wanted = max((number for tasks in dataset.stages.values() for number in tasks.values()), default=0.0)
    counts = [flags["count"] for _, _, flags in chain if "count" in flags]
    rows, told = (
        (known.rows, known.told) if known and known.told
        else (float(counts[0]), "its `count`") if counts
        else (float(dataset.original), "the catalog") if dataset.original
        else (wanted / share, "what the stages ask for")
    )  # fmt: skip
    image_bytes = known.image_bytes if known else rates.assumed["image bytes"].value
    return Source(
        dataset.name, chain, rows, rows if counts else rows * share, image_bytes, told,
        known.files if known else 0, dataset.stages,
    )  # fmt: skip


def _share_of(chain: Chain, rates: Rates) -> float:
    share = 1.0
    for verb, job, _ in chain:
        share *= _left_by(verb, job, rates)
    return share


def _left_by(verb: str, job: str, rates: Rates) -> float:
    """The share that a step is assumed to leave."""
    name = (
        "answering links" if verb == "fetch" else "unlike images" if verb == "dedup"
        else "kept images" if job in ("clean_laion", "score_clip") else "kept others"
    )  # fmt: skip
    return 1.0 if verb in ("render", "synthesise") else rates.assumed[name].value


def works(project: Project, rates: Rates) -> Iterator[Work]:
    """Yield every step of a project with what it is given."""
    for source in project.sources:
        yield from _of_source(source, rates)
    for number, mixture in project.stages.items():
        yield _build(number, mixture, {source.name: source for source in project.sources}, rates)


def _of_source(source: Source, rates: Rates) -> Iterator[Work]:
    """The steps of a dataset. What the first leaves follows from what is kept in the end and what the others leave."""
    rows, kept = source.rows, _kept_by_step(source, rates)
    for i, (_, job, flags) in enumerate(source.chain):
        is_table = job == "clean_laion" and any(later[0] == "fetch" for later in source.chain[i + 1 :])
        files = source.files if i == 0 else 0
        given = _given(job, source, rows, kept[i], files, rates, is_table)
        yield Work(
            f"{job} of {'a table' if is_table else 'images'}" if job == "clean_laion" else job, source.name, given
        )
        if model := flags.get("clip"):
            where = "" if flags.get("device") == "cuda" else " on cpu"
            yield Work(f"clip {str(model).partition(':')[0]}{where}", source.name, given)
        rows = kept[i]


def _kept_by_step(source: Source, rates: Rates) -> list[float]:
    kept = [source.kept]
    for verb, job, _ in reversed(source.chain[1:]):
        kept.insert(0, min(source.rows, kept[0] / _left_by(verb, job, rates)))
    return kept


def _given(
    job: str, source: Source, rows: float, kept: float, files: float, rates: Rates, is_table: bool
) -> dict[str, float]:
    pictures = not is_table and job != "clean_text"
    per_file = rates.assumed["rows per table" if is_table else "rows per shard"].value
    amounts = {"row": rows, "kept row": kept, "file": max(files, rows / per_file)}
    if pictures:
        amounts |= {"image": rows, "kept image": kept, "image byte": rows * source.image_bytes,
                    "kept image byte": kept * source.image_bytes}  # fmt: skip
    elif not is_table:
        amounts |= {"text": rows, "character": rows * rates.assumed["characters"].value}
    if job in _PAGES:
        amounts["page"] = kept / rates.assumed[_PAGES[job]].value
    return amounts


def _build(number: int, mixture: Mapping[str, Mapping[str, float]], sources: Mapping, rates: Rates) -> Work:
    """What a stage packs. The first pass over a cleaned folder reads its ledgers whole; that is in its bytes."""
    samples, texts, size = 0.0, 0.0, 0.0
    for name, tasks in mixture.items():
        for task, count in tasks.items():
            samples += count
            texts += count if task == "text" else 0.0
            size += 0.0 if task == "text" else count * sources[name].image_bytes
    files = samples / rates.assumed["rows per shard"].value
    amounts = {"row": samples, "kept row": samples, "sample": samples, "text": texts, "image": samples - texts,
               "image byte": size, "file": files}  # fmt: skip
    return Work("build_stage", f"stage {number}", amounts)


def without_recipe(source: Source, size: str, gpus: int, batch: float) -> Project:
    """Return a project of one dataset: packed for stage 1, and trained for one epoch in steps of `batch` samples."""
    steps = round(source.kept / batch)
    stages = {1: {source.name: {"caption": source.kept}}} if source.kept else {}
    trainings = [Training(1, size, gpus, {"steps": steps})] if steps else []
    return Project([replace(source, stages={})], stages, trainings)
