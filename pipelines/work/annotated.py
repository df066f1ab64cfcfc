"""What the jobs over annotated datasets share: their flags, slices as splits, images by name, the leakage guard."""

import argparse
import functools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import pyarrow as pa

from cleaners.boxes import WrongConvention
from corpus.catalog import Dataset
from corpus.folder import digest
from corpus.inputs import fingerprint, names
from corpus.passthrough import PASSTHROUGH
from corpus.readers.boundary import made_of
from corpus.readers.images import open_images
from corpus.readers.rows import BadFile, BadRow, ImageRef
from corpus.readers.slices import Slice, held, read
from corpus.records import BadImage, EncodedImage, image_header, verify_image
from corpus.splits import Sink, Split
from corpus.verdicts import Lost, dropped
from pipelines.engine import job
from pipelines.work import guards
from pipelines.work.datasets import JOBS, rule_settings, rules_of

IMAGE_SCORES = {"width": pa.int32(), "height": pa.int32()}
VG_IMAGES = "image_data.json"  # Visual Genome's list of images, which names the COCO photo that an image is


def add_image_flags(parser: argparse.ArgumentParser) -> None:
    """Add --images, --exclude, --no-guard, --allow-missing and --decode."""
    parser.add_argument(
        "--images", metavar="DIR_OR_SHARDS", help="folder (however nested), .tar or glob of .tar with the images"
    )
    parser.add_argument(
        "--exclude", nargs="+", action="extend", default=[], metavar="FILE",
        help="images that must not be trained on: lists of ids and perceptual hashes, RefCOCO's refs(*).p, COCO JSON",
    )  # fmt: skip
    guards.add_guard_flag(parser)
    parser.add_argument(
        "--allow-missing", action="store_true", help="drop rows whose image is not there; by default that is an error"
    )  # fmt: skip
    parser.add_argument("--decode", action="store_true", help="decode every kept image, to find damage inside")


def add_split_flag(parser: argparse.ArgumentParser) -> None:
    """Add --splits."""
    parser.add_argument(
        "--splits", nargs="+", action="extend", metavar="NAME", help="splits to keep (default: train alone)"
    )  # fmt: skip


def kept_splits(args: argparse.Namespace) -> list[str]:
    """Return what --splits keeps, sorted."""
    return sorted(set(args.splits or ["train"]))


def image_settings(args: argparse.Namespace, dataset: Dataset) -> dict:
    """Return what the image flags add to a job's settings."""
    return {
        "images": _absolute(args.images),
        guards.GUARD: guards.settings(args, dataset),
        "decode": args.decode,
        "allow_missing": args.allow_missing,
    }


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn what the user can mend (a wrong file, a wrong convention, a wrong setting) into the job's kind of error."""
    try:
        yield
    except (BadFile, WrongConvention) as error:
        raise job.UserError(str(error)) from None


def as_work(function: Callable, *, limit: int | None, **options) -> Callable:
    """Return `work(split, sink)` for `pipelines.engine.job.run`, with the errors of `user_errors`.

    The sink hears from the readers which records the slice holds before `function` reads them.
    """

    def work(split: Split, sink: Sink) -> None:
        with user_errors():
            sink.expects(held(slice_of(split)), limit=limit)
            function(split, sink, limit=limit, **options)

    return work


def as_splits(args: argparse.Namespace, slices: Iterable[Slice], beside: Sequence[str] = ()) -> list[Split]:
    """Make slices splits, named after their file (many in one: the first) and their number in it.

    What they are read from, the files beside them included, is their fingerprint.
    """
    slices = list(slices)
    identify = functools.cache(functools.partial(fingerprint, by_content=args.by_content))
    name_of, number, splits = names(piece.paths[0] for piece in slices), Counter(), []
    beside_marks = [identify(path) for path in beside]
    for piece in slices:
        url = piece.paths[0]
        files = [identify(path) for path in piece.paths]
        place = {"format": piece.format, "start": piece.start, "stop": piece.stop}
        marks = {"files": files if len(files) == 1 else digest(files), "beside": beside_marks, **place}
        source = {"url": url, "slice": asdict(piece), "beside": list(beside)}
        whole = piece.format in ("tar", "files", "document")
        splits.append(Split(name_of[url] if whole else f"{name_of[url]}-{number[url]:05d}", source, marks))
        number[url] += 1
    return splits


def slice_of(split: Split) -> Slice:
    """Return the slice that a split reads."""
    fields = split.source["slice"]
    return Slice(**fields | {"paths": tuple(fields["paths"]), "arrays": tuple(fields["arrays"])})


@functools.lru_cache(maxsize=1)
def opened(open_files: Callable[[list[str]], Mapping], paths: tuple[str, ...], content: str) -> Mapping:
    """Open what rows are looked up in; once per process and `content`, the fingerprint of the files.

    It stands here, not in the jobs: Ray's workers do not find what is cached in a script's own module.
    """
    return open_files(list(paths))


def records(
    split: Split, sink: Sink, limit: int | None, read: Callable[[Slice], Iterator] = read
) -> Iterator[tuple[int, object]]:
    """Yield (ordinal, record) of a split's slice, at most `limit`; the sink hears which records nobody can read."""
    for row, record in limited(read(slice_of(split)), limit):
        if isinstance(record, BadRow) and record.rows > 1:
            sink.strikes(row, record.rows)
        sink.passes(row, record)
        yield row, record


def limited(rows: Iterator, limit: int | None) -> Iterator:
    """Yield rows of at most `limit` records, of which a BadRow may stand for many; None means all."""
    left = limit
    for row in rows:
        if left is not None and left <= 0:
            return
        yield row
        if left is not None:
            left -= row[1].rows if isinstance(row[1], BadRow) else 1


def parts(
    records: Iterator, parse: Callable, sink: Sink, shape: type | None = None
) -> Iterator[tuple[int, int, object]]:
    """Yield (ordinal, number of the part, part) for all that `parse` makes of records; the sink hears how many."""
    for row, record in records:
        found = made_of(record, parse, shape)
        found = found or [BadRow("empty_record", f"nothing in it to read: {str(record)[:120]}")]
        sink.splits(row, len(found))
        yield from ((row, number, part) for number, part in enumerate(found))


def key_of(dataset: Dataset, split: Split, row: int, part: int = 0) -> str:
    """Return a sample's key; `part` tells apart the samples of one record."""
    return f"{dataset.name}/{split.id}/{row:06d}" + (f"-{part}" if part else "")


@dataclass(slots=True)
class Picture:
    """An image as it will be stored, with its size in pixels."""

    image: EncodedImage
    width: int
    height: int


class Pictures:
    """Finds images, checks their headers and keeps excluded ones out; remembers the last few, since rows share them."""

    def __init__(self, *, location: str | None, guard: Mapping, decode: bool, allow_missing: bool):
        self._location, self._decode, self._allow_missing = location, decode, allow_missing
        self._guard = guards.Guard(**guard)
        self._load = functools.lru_cache(maxsize=8)(self._checked)

    def load(self, ref: ImageRef) -> Picture:
        """Return the image of a ref. Raises Lost: an error, or a drop where it must not be used."""
        self._guard.check(ref)
        result = self._load(ref)
        if isinstance(result, Exception):
            raise result.with_traceback(None)
        return result

    def _checked(self, ref: ImageRef) -> Picture | Exception:
        try:
            name, data = ("", ref.data) if ref.data is not None else self._find(ref)
            self._guard.check_name(name)
            ext, width, height = image_header(data)
            if self._decode:
                verify_image(data)
            if self._guard.looks:
                self._guard.check_looks(data)
            return Picture(EncodedImage(data, ext, guards.all_ids(ref)), width, height)
        except Lost as lost:
            missing = lost.kind == "image_missing" and self._allow_missing
            return Lost(dropped("image_missing", detail=str(lost))) if missing else lost

    def _find(self, ref: ImageRef) -> tuple[str, bytes]:
        if self._location is None:
            raise BadImage(
                "image_missing", f"no --images given, but the row names {' or '.join(ref.names) or ref.url}"[:200]
            )
        return open_images(self._location).find(ref)


def image_options(args: argparse.Namespace, dataset: Dataset) -> dict:
    """Return the arguments of a split's Pictures."""
    return {
        "location": _absolute(args.images), "guard": guards.options(args, dataset), "decode": args.decode,
        "allow_missing": args.allow_missing,
    }  # fmt: skip


def _absolute(path: str | None) -> str | None:
    return path if path is None or "://" in path else os.path.abspath(path)  # a worker may run elsewhere


def check_images(args: argparse.Namespace, dataset: Dataset, needed: bool) -> None:
    """Fail at once, not a split at a time: images or lists that cannot be read, evaluation images that nobody knows."""
    with user_errors():
        if args.images is not None:
            open_images(args.images)
        elif needed:
            raise job.UserError("--images is missing: name the folder or the shards that hold the dataset's images")
        guards.kept_out(args, dataset)


def check_owners(args: argparse.Namespace, dataset: Dataset, inputs: Sequence[str]) -> None:
    """Refuse to guard Visual Genome images by COCO ids without the table that says which COCO photo each one is."""
    by_coco = any(identity.startswith("coco:") for identity in guards.kept_out(args, dataset))
    reader = JOBS[dataset.job].readers[dataset.reader]
    if reader.visual_genome and by_coco and not _named(inputs, VG_IMAGES):
        raise job.UserError(
            f"the exclusion lists name COCO images, and {dataset.name} has Visual Genome's: add {VG_IMAGES} to "
            "--input, it says which of them are the same"
        )


def _named(inputs: Sequence[str], name: str) -> list[str]:
    return [path for path in inputs if path.rpartition("/")[2] == name]


def common_settings(dataset: Dataset) -> dict:
    """Return the settings every one of these jobs has: columns, rules, what the paper kept."""
    return {
        "reader": dataset.reader,
        **row_settings(dataset),
        "language": dataset.language,
        **rule_settings(rules_of(dataset), dataset.rules, dataset.plugins),
        "paper": {"original": dataset.original, "cleaned": dataset.cleaned, "stages": _plain(dataset.stages)},
    }


def row_settings(dataset: Dataset) -> dict:
    """Return what a dataset's columns, and a language that does not ship, add to a job's settings."""
    passed = {PASSTHROUGH: list(dataset.carried)} if dataset.carried else {}
    return {"columns": dict(dataset.columns), **passed, **dataset.own_language}


def _plain(stages: Mapping) -> dict:
    return {str(stage): dict(tasks) for stage, tasks in stages.items()}
