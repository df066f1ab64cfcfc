"""What keeps evaluation images out of a job's output: lists, rules about names, and the refusal to go without."""

import argparse
import functools
from collections.abc import Iterable, Mapping, Sequence

from corpus.catalog import Dataset
from corpus.evaluation import OWNERS, EvaluationSet, evaluation_sets, list_path, named_as
from corpus.folder import OutputFolder
from corpus.inputs import fingerprint
from corpus.readers.exclude import Excluded, load_excluded
from corpus.readers.names import owners_ids
from corpus.readers.rows import BadFile, ImageRef
from corpus.verdicts import Lost, dropped
from pipelines.engine import job

GUARD = "guard"  # the key of job.json, and `guards` of corpus.json: dataset -> what is below it there


def add_guard_flag(parser: argparse.ArgumentParser) -> None:
    """Add --no-guard."""
    parser.add_argument(
        "--no-guard", nargs="*", action="extend", metavar="SET",
        help="do not keep out the images of these evaluation sets (pipelines/guard.py names them); none named: of any",
    )  # fmt: skip


def excluded_lists(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the files of --exclude."""
    return tuple(job.find_inputs(args.exclude)) if getattr(args, "exclude", None) else ()


def settings(args: argparse.Namespace, dataset: Dataset) -> dict:
    """Return the guards of a job as its folder records them, with digests; lists count by their content.

    Raises UserError where the dataset shares images with an evaluation set of which nothing is known here.
    """
    sets, off = evaluation_sets(), _off(args)
    shared = {name: one for name, one in sets.items() if one.shares(dataset.pools)}
    lists = excluded_lists(args)
    open_sets = {name: one for name, one in shared.items() if not one.known() and not off & {name, "*"}}
    if open_sets and not lists:
        raise job.UserError(_refusal(dataset, open_sets))
    on = {} if "*" in off else {n: one for n, one in sets.items() if n not in off and (one.listed or one.names)}
    return {
        "sets": {name: one.mark() for name, one in on.items()},
        "exclude": [fingerprint(path, by_content=True) for path in lists],
        "unguarded": sorted(name for name, one in shared.items() if name not in on or not one.known()),
    }


def _off(args: argparse.Namespace) -> set[str]:
    named = args.no_guard
    if strange := sorted(set(named or ()) - evaluation_sets().keys()):
        raise job.UserError(f"--no-guard: no evaluation set {strange[0]!r}; sets are {', '.join(evaluation_sets())}")
    return set() if named is None else set(named) or {"*"}


def _refusal(dataset: Dataset, sets: Mapping[str, EvaluationSet]) -> str:
    missing = "\n".join(f"  {name}: {one.says}; from {one.files or 'its files'}" for name, one in sets.items())
    first = next(iter(sets))
    return (
        f"{dataset.name} has images of {' and '.join(dataset.pools)}, as these evaluation sets have, and nothing here "
        f"says which images are theirs:\n{missing}\nAdd each once (python pipelines/guard.py add {first} FILES), name "
        "lists of your own with --exclude, or train on them knowingly: --no-guard, or --no-guard SET ..."
    )


def options(args: argparse.Namespace, dataset: Dataset) -> dict:
    """Return the arguments of the Guard of a worker."""
    told = settings(args, dataset)
    unmet = [owner for owner, pool in OWNERS.items() if pool not in dataset.pools and _unknown(pool)]
    return {
        "exclude": excluded_lists(args), "sets": tuple(told["sets"].items()), "pools": dataset.pools,
        "watched": () if args.no_guard is not None or told["exclude"] else tuple(unmet),
    }  # fmt: skip


def _unknown(pool: str) -> bool:
    return any(pool in one.pools and not one.known() for one in evaluation_sets().values())


class Guard:
    """Refuses images of evaluation sets, by id, by file name and by looks.

    `sets` are (name, mark): each worker reads the lists of its own checkout. `watched` are owners of ids ("coco") of
    whose images the dataset has none by the catalog, while nothing tells the evaluation's apart.
    """

    def __init__(
        self, *, exclude: Sequence[str] = (), sets: Sequence[tuple[str, str]] = (), pools: Sequence[str] = (),
        watched: Sequence[str] = (),
    ):  # fmt: skip
        known = evaluation_sets()
        self._sets, self._watched = {name: known[name] for name, _ in sets}, frozenset(watched)
        self._lists = _lists(tuple(exclude), tuple(sets), tuple(pools))
        self.looks = bool(self._lists.hashes)

    def check(self, image: ImageRef) -> None:
        """Raise Lost for an image that a list names; BadFile for one that the catalog does not expect."""
        ids = all_ids(image)
        if found := self._lists.match(ids):
            raise Lost(dropped("excluded_image", detail=found))
        if strange := [identity for identity in ids if identity.partition(":")[0] in self._watched]:
            pool = OWNERS[strange[0].partition(":")[0]]
            raise BadFile(
                f"{strange[0]} is an image of {pool}, from which the dataset has none by the catalog; evaluation sets "
                f"have some, and no list is here: declare `pools: [{pool}]` in the catalog, name lists with "
                "--exclude, or give --no-guard"
            )

    def check_name(self, file_name: str) -> None:
        """Raise Lost where a file's name says that it belongs to an evaluation set."""
        if found := next(named_as(file_name, self._sets), None):
            raise Lost(dropped("excluded_image", detail=f"{found}: {file_name}"[:200]))

    def check_looks(self, data: bytes) -> None:
        """Raise Lost when an image is nearly the same as one whose perceptual hash is on a list."""
        from cleaners.dedup import MAX_DISTANCE
        from cleaners.phash import hash_views
        from corpus.records import decode_image

        hashes = self._lists.hashes
        views = hash_views(decode_image(data))
        near = _matcher(tuple(hashes)).nearest(views) if views else None
        if near:
            raise Lost(dropped("near_excluded_image", near[1], MAX_DISTANCE, f"phash:{hashes[near[0]]}"))


def all_ids(image: ImageRef) -> tuple[str, ...]:
    """Return the ids that a row gives, and those that the name or the address of its image gives away."""
    told = [identity for place in (*image.names[:1], image.url) if place for identity in owners_ids(place)]
    return tuple(dict.fromkeys((*image.ids, *told)))


@functools.lru_cache(maxsize=2)
def _lists(exclude: tuple[str, ...], sets: tuple[tuple[str, str], ...], pools: tuple[str, ...]) -> Excluded:
    """Read lists once per process. Ids of all sets count; hashes only of those that may share images."""
    merged, known = load_excluded(list(exclude)), evaluation_sets()
    for name, mark in sets:
        if known[name].mark() != mark:
            raise BadFile(f"{list_path(name)} is not the list that the job started with: give all machines the same")
        if not known[name].listed:
            continue
        found = load_excluded([str(list_path(name))])
        merged.ids |= found.ids
        merged.hashes += found.hashes if known[name].shares(pools) else []
    return merged


def kept_out(args: argparse.Namespace, dataset: Dataset) -> set[str]:
    """Return the ids that a job keeps out."""
    told = options(args, dataset)
    return _lists(told["exclude"], told["sets"], dataset.pools).ids


@functools.lru_cache(maxsize=2)
def _matcher(hashes: tuple[str, ...]):
    from cleaners.dedup import matcher_of_hex

    return matcher_of_hex(hashes)


# --- Guards of folders that exist ---


def of_folder(url: str) -> dict | None:
    """Return the guards that a cleaned folder records; None where it records none."""
    folder = OutputFolder(url)
    return folder.settings().get(GUARD) if folder.fs.exists(folder.path("job.json")) else None


def of_inputs(paths: Iterable[str]) -> dict:
    """Return {"guard": ...} of the cleaned folder that shards lie in, for a job that passes samples on; {} if none."""
    guards = [of_folder(folder) for folder in sorted({path.rpartition("/")[0] for path in paths})]
    if any(guard != guards[0] for guard in guards):
        raise job.UserError("the input's folders were cleaned with different guards: pass on one at a time")
    return {GUARD: guards[0]} if guards and guards[0] is not None else {}


def of_stage(args: argparse.Namespace, datasets: Iterable[tuple[Dataset, str]]) -> dict[str, dict | None]:
    """Return dataset -> recorded guards, for (dataset, folder of its cleaned data).

    Raises UserError where a dataset shares images with evaluation sets and its folder records no guard.
    """
    found, off, sets = {}, _off(args), evaluation_sets()
    for dataset, folder in datasets:
        found[dataset.name] = guard = of_folder(folder)
        shared = [n for n, one in sets.items() if not off & {n, "*"} and set(one.pools) & set(dataset.pools)]
        if guard is None and shared:
            raise job.UserError(
                f"{folder}: {dataset.name} has images of {' and '.join(dataset.pools)}, as the evaluation sets "
                f"{', '.join(shared)} have, and the folder does not record what was kept out: clean it again, or "
                "train on it knowingly with --no-guard"
            )
    return found
