"""What can be known before any work: are files, columns, tokenizer, fonts, browser, room, credentials there?

Each check notes what is wrong, with the recipe's line; none of them stops another.
"""

import argparse
import glob
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from corpus.bugs import raise_ours
from corpus.inputs import fingerprint
from corpus.rules import listed
from pipelines.doctor import BROWSER, FRIBIDI, Lack, lacks
from pipelines.engine import job
from pipelines.recipe import columns, weights
from pipelines.recipe import flags as job_flags
from pipelines.recipe.read import Reading
from pipelines.recipe.steps import Step
from pipelines.work import guards

IMAGES_BESIDE = ("clean_vqa", "clean_grounding")  # whose files never hold images
NEEDS = {"make_ocr": FRIBIDI, "render_html": BROWSER}


def lacking(reading: Reading) -> tuple[list[Lack], list[str]]:
    """Return (what this machine lacks of what the recipe needs, optional datasets that need it)."""
    jobs = {name: {job for _, job, _ in chain} for name, chain in reading.chains.items()}
    if not any(NEEDS.keys() & found for found in jobs.values()):
        return [], []
    there = list(lacks())
    missing = {lack.what for lack in there}
    needed = [job for job, what in NEEDS.items() if what in missing]
    optional = [name for name, found in jobs.items() if reading.recipe and reading.recipe.datasets[name].optional
                and found & set(needed)]  # fmt: skip
    return there, optional


def check(reading: Reading, steps: Sequence[Step], missing: Sequence[Lack], done: Collection[str] = ()) -> int:
    """Note all that is wrong with what the steps need. Return the bytes of raw data that they read.

    `missing` is what this machine lacks, which steps that are `done` need no more.
    """
    assert reading.recipe is not None
    _check_output(reading, reading.recipe.output)
    files: dict[str, int] = {}
    for step in steps:
        _check_reads(reading, step)
        _check_machine(reading, step, missing if step.name not in done else ())
        for flag, path in step.paths:
            if not _is_there(path):
                where = ("datasets", step.dataset) if flag == "images" else step.place
                reading.wrong((*where, flag), f"{flag}: there is no {path}")
        found = list(_inputs(reading, step))
        columns.check(reading, step, found)
        _check_guard(reading, step)
        files |= {url: int(_size(url)) for url in found}
    if reading.recipe.stages:
        weights.check(reading)
    for number, stage in reading.recipe.stages.items():
        _check_build(reading, number, stage.build)
        if (stage.train or {}).get("device") == "cuda" and "ranks" not in (stage.train or {}) and not _gpu():
            reading.wrong(
                ("stages", number, "train", "device"), "there is no NVIDIA GPU here; with `ranks`, a cluster's"
            )
    _check_room(reading, sum(files.values()))
    return sum(files.values())


def _check_output(reading: Reading, output: str) -> None:
    if "://" in output:
        reading.wrong(
            ("output",), f"{output}: the root is a folder, on a disk that all nodes share; raw data may be URLs"
        )
        return
    there = _standing(output)
    if not there.is_dir():
        reading.wrong(("output",), f"{there} is a file, not a folder")
    elif not os.access(there, os.W_OK):
        reading.wrong(("output",), f"{there} cannot be written to")


def _standing(path: str) -> Path:
    """The nearest folder above that exists."""
    place = Path(path).absolute()
    while not place.exists():
        place = place.parent
    return place


def _check_reads(reading: Reading, step: Step) -> None:
    if step.place[0] != "datasets":
        return
    part = reading.recipe.datasets[step.dataset] if reading.recipe else None
    first = step.words[step.words.index("--dataset") + 2] != "--input"
    if job_flags.takes(step.job, "input") and first:
        looked = listed(reading.catalog[step.dataset].input)
        why = "" if looked == "none" else f"; the catalog's are not there: {looked}"
        reading.wrong(("datasets", step.dataset), f"{step.dataset} has no `input`: its files, a glob or a URL{why}")
    elif step.job in IMAGES_BESIDE and "--images" not in step.words:
        reading.wrong(
            ("datasets", step.dataset), f"{step.dataset} has no `images`: the folder or shards that hold them"
        )
    elif part and part.input and not job_flags.takes(step.job, "input"):
        reading.wrong(("datasets", step.dataset, "input"), f"{step.job} reads no files: leave `input` out")


def _check_guard(reading: Reading, step: Step) -> None:
    """Evaluation sets that share images with a dataset must be known, or given up, before its cleaning begins."""
    lists = [path for flag, path in step.paths if flag == "exclude"]
    if not step.dataset or not job_flags.takes(step.job, "no-guard") or not all(map(_is_there, lists)):
        return
    parser = argparse.ArgumentParser(add_help=False)
    guards.add_guard_flag(parser)
    try:
        found, _ = parser.parse_known_args(step.words[1:], argparse.Namespace(exclude=lists))
        guards.settings(found, reading.catalog[step.dataset])
    except job.UserError as error:
        reading.wrong(("datasets", step.dataset), " ".join(str(error).split()))


def _check_machine(reading: Reading, step: Step, missing: Sequence[Lack]) -> None:
    what = NEEDS.get(step.job)
    for lack in missing:
        if lack.what == what:
            optional = "; `optional: true` leaves the dataset out"
            reading.wrong(step.place, f"{step.job} needs {lack.what}: {lack.otherwise}{optional}")
    if step.job == "make_ocr" and "--fonts" not in step.words and "--font-dir" not in step.words:
        language = reading.catalog[step.dataset].spoken.name
        for lack in missing:
            if lack.what.endswith(f"{language} faces") and _too_few(lack.what, "--available-faces" in step.words):
                ways = "`gristmill doctor --install` gets them; available-faces: true draws with those that are here"
                reading.wrong(step.place, f"{step.job}: {lack.what} are not here: {ways}")


def _too_few(what: str, available: bool) -> bool:
    """Whether "N of M faces" missing are too many."""
    lost, _, whole = what.split()[:3]
    return not available or lost == whole


def _is_there(path: str) -> bool:
    return "://" in path or Path(path).exists() or bool(glob.glob(path, recursive=True))


def _inputs(reading: Reading, step: Step) -> Iterator[str]:
    """Yield the raw files of a step; a pattern that has none is noted."""
    path = ("datasets", step.dataset, "input")
    several = (
        isinstance(reading.recipe.datasets[step.dataset].input, list) if reading.recipe and step.dataset else False
    )
    for i, pattern in enumerate(step.inputs):
        try:
            yield from job.find_inputs([pattern])
        except job.UserError as error:
            reading.wrong((*path, i) if several else path, str(error).removeprefix("--input "))
        except Exception as error:  # a store's, of which there are many kinds; ours are raised
            raise_ours(error)
            says = f"{pattern!r} cannot be listed: {error}. {job.CREDENTIALS}"
            reading.wrong((*path, i) if several else path, says)


def _size(url: str) -> float:
    return fingerprint(url)["size"]


def _check_build(reading: Reading, number: int, flags: Mapping) -> None:
    """Is there room for text beside an image?"""
    from pipelines import build_stage

    queries = reading.recipe.model.queries if reading.recipe else 1
    flags = {name: value for name, value in flags.items() if not list(job_flags.wrong("build_stage", {name: value}))}
    words = ["--stage", str(number), "--data", "-", "--output", "-", *job_flags.words({"queries": queries} | flags)]
    try:
        build_stage.recipe_of(job_flags.parser_of("build_stage").parse_args(words))
    except job.UserError as error:
        reading.wrong(("model", "queries"), str(error).removeprefix("--"))


def _check_room(reading: Reading, raw: int) -> None:
    assert reading.recipe is not None
    if "://" not in reading.recipe.output:
        free = shutil.disk_usage(_standing(reading.recipe.output)).free
        if free < raw:
            said = f"{free / 1e9:,.1f} GB free, and {raw / 1e9:,.1f} GB of raw data, of which copies are kept"
            reading.wrong(("output",), f"the disk of {reading.recipe.output} has {said}")


def _gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()
