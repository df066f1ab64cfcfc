"""The shell that every job uses: one set of flags, resume, progress, the run's report."""

import argparse
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from corpus.bugs import Bug
from corpus.catalog import CatalogError
from corpus.damage import CorruptSample, Damaged
from corpus.folder import VERSION, Listing, Manifest, NoBucket, OutputFolder, SettingsDiffer, digest
from corpus.folder_index import Total, entries
from corpus.ledger import BlownFuse, Counts, Fuse
from corpus.passthrough import PASSTHROUGH, NoSuchColumn
from corpus.rules import RuleTable, WrongMeasure
from corpus.splits import Sink, Split
from pipelines.engine import cluster
from pipelines.engine.inputs import UserError, find_inputs, is_there
from pipelines.engine.progress import Progress
from pipelines.engine.quarantine import SHARE, STATUS, Quarantine, Quarantined, attempted
from pipelines.engine.report import print_funnel, write_report
from renderers.browsers import NoBrowser
from renderers.confine import NotConfined
from renderers.image_process import lock_up_images

__all__ = ["Quarantined", "UserError", "find_inputs", "is_there", "main", "parser", "run"]
_STORES = ("botocore", "aiobotocore", "gcsfs", "google", "azure")  # whose errors are nobody's bug
CREDENTIALS = (
    "For S3, set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE; for a public bucket, FSSPEC_S3_ANON=true; "
    "for a store of your own, AWS_ENDPOINT_URL"
)


def parser(
    description: str,
    example: str,
    *,
    dataset: str | None = None,
    reads_input: bool = True,
    many_datasets: bool = False,
    from_catalog: bool = False,
    reads_images: bool = False,
) -> argparse.ArgumentParser:
    """Return a parser with the flags all jobs share. `dataset` is the default name; `--help` ends with `example`.

    A job that makes its samples out of nothing (`reads_input` false) has no --input, one that `reads_images` a sandbox
    for them. `many_datasets`: --dataset takes
    several names and may be left out. `from_catalog`: what --input, --output and --dataset leave open, the catalog
    says (pipelines/work/places.py).
    """
    make = argparse.ArgumentParser(
        description=description, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    places = "; default: those that its catalog entry names" if from_catalog else ""
    if reads_input:
        make.add_argument(
            "--input", nargs="+", action="extend", required=not from_catalog, metavar="GLOB_OR_URL",
            help=f"input files{places}",
        )  # fmt: skip
        make.add_argument(
            "--by-content", action="store_true",
            help="tell by its bytes whether an input has changed, not by size and date; reads all before it starts",
        )  # fmt: skip
    make.add_argument(
        "--output", required=not from_catalog, metavar="DIR",
        help=f"output folder: a local path or an fsspec URL{places.replace('those', 'the one')}",
    )  # fmt: skip
    if many_datasets:
        make.add_argument(
            "--dataset", nargs="+", action="extend", metavar="NAME", help="only these catalog entries; default: all"
        )
    elif from_catalog:
        every = "; without --input, all of this job whose raw data are there"
        usual = f"catalog entry (default: {dataset}{every})" if dataset else f"catalog entry{every}"
        make.add_argument("--dataset", metavar="NAME", help=usual)
        make.set_defaults(example=example, usual_dataset=dataset)
    else:
        make.add_argument("--dataset", default=dataset, required=dataset is None, metavar="NAME", help="catalog entry")
    make.add_argument("--catalog", metavar="FILE", help="default: the catalog.yaml of this checkout")
    make.add_argument("--workers", type=_count, metavar="N", help="0: in this process; default: every core")
    if reads_images:
        make.add_argument("--sandbox-images", action="store_true", help="read images in a process behind locks")
    make.add_argument(
        "--limit", type=_count, metavar="N", help="read at most N records of each split, for a quick look"
    )
    make.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    make.add_argument("--overwrite", action="store_true", help="remove what another run left in --output")
    add_quarantine_flag(make)
    return make


def add_quarantine_flag(make: argparse.ArgumentParser) -> None:
    """Add --max-quarantined, which `run` looks at."""
    make.add_argument(
        "--max-quarantined", type=float, default=SHARE, metavar="PERCENT",
        help="stop when more splits than this share fail for reasons outside their data, such as a store that answers "
        "for none of their tries; one may always, but for 0, which stops at the first; default: 1",
    )  # fmt: skip


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} is negative")
    return value


def run(
    name: str,
    args: argparse.Namespace,
    splits: Sequence[Split],
    settings: Mapping,
    work: Callable,
    *,
    scores: Mapping[str, pa.DataType],
    rules: RuleTable | None = None,
    setup: Callable | None = None,
    fuse: Fuse | None = None,
    table: str | None = None,
    gpus_per_worker: float = 0,
    redo: Collection[str] = (),
    part_of: str | None = None,
) -> Counts:
    """Run `work(split, sink)` (with `setup`: `work(split, sink, state)`) on every split that is not committed yet.

    `settings` are all that the outputs depend on besides the input; they go into `job.json` and guard the folder.
    `scores` are the ledger columns that the job measures, `rules` what drops its rows. `table`: the splits hold
    rows instead of samples, in files of this suffix. `redo` names splits that are run although they are committed;
    `part_of` the job that this one is a pass of.
    Returns the counts of the whole folder and leaves `report.html` and `report.json` in it. Raises Quarantined after
    that when splits failed for reasons outside their data.
    """
    told_as = f"{part_of}, pass {name}" if part_of else name
    settings = {"job": name, "version": VERSION, "dataset": args.dataset, "limit": args.limit, **settings}
    folder = OutputFolder(_output_url(args.output))
    listing = folder.prepare(settings, overwrite=args.overwrite)
    quarantine = Quarantine(folder, len(splits), args.max_quarantined, listing.sizes)
    todo, done = _divide(folder, listing, splits, digest(settings), redo)
    sink_options = {
        "scores": dict(scores), "settings_digest": digest(settings), "fuse": fuse or Fuse(), "table": table,
        "judged": {} if part_of else _judged(rules, settings), "job": told_as,
        "dataset": args.dataset if isinstance(args.dataset, str) else "",
        "passthrough": () if part_of else settings.get(PASSTHROUGH, ()),
    }  # fmt: skip

    locked = getattr(args, "sandbox_images", False)
    lock_up_images(locked)

    def run_one(split: Split, *state) -> Counts | cluster.Failed:
        lock_up_images(locked)  # of a worker, too
        return attempted(lambda: _run_split(work, folder.url, split, sink_options, state))

    touched = quarantine.tidy([split.id for split in todo]) or bool(todo) or len(listing.marks) != len(splits)
    if todo:
        folder.start(len(splits))
    with Progress(name, len(splits), len(splits) - len(todo), done) as progress:
        results = cluster.run_splits(
            run_one, todo, workers=args.workers, setup=setup, gpus_per_worker=gpus_per_worker, copies=not redo
        )
        for split, result in results:
            if isinstance(result, cluster.Failed):
                progress.fail(split.id, result.error)
                quarantine.add(split, result)
            else:
                quarantine.release(split.id)
                progress.add(result)
    folder.end()
    if touched:
        folder.sweep()
        listing = folder.listing()
    counts = _finish(folder, listing)
    quarantine.close(told_as)
    return counts


def _run_split(work: Callable, url: str, split: Split, sink_options: dict, state: tuple) -> Counts:
    with Sink(OutputFolder(url), split, **sink_options) as sink:
        try:
            work(split, sink, *state)
            return sink.commit().counts
        except NoSuchColumn as error:
            raise UserError(f"split {split.id} ({split.source.get('url', '')}): {error}") from None
        except BlownFuse as error:
            raise BlownFuse(f"split {split.id} ({split.source.get('url', '')}): {error}") from None


def _judged(rules: RuleTable | None, settings: Mapping) -> dict[str, str]:
    """Return rule -> the score it judges by, for the rules that measure one, in the order in which they run."""
    active = rules.active(settings.get("rules", {})) if rules else {}
    return {name: rules[name].measures[0] for name in active if rules[name].limits}


def _output_url(output: str) -> str:
    if "://" in output:
        return output
    path = output if Path(output).is_absolute() else str(Path(output).resolve())
    if cluster.in_uploaded_folder() and Path(path).is_relative_to(cluster.ROOT):
        raise UserError(
            f"--output {output!r} lies in Ray's own copy of the working directory, which is removed at the end: give "
            "an absolute path or a URL, or say `data: /path` in the catalog"
        )
    return path


def _divide(
    folder: OutputFolder, listing: Listing, splits: Sequence[Split], settings_digest: str, redo: Collection[str]
) -> tuple[list[Split], Counts]:
    """Return (splits to run, counts of those that are done). A split whose files are gone or cut is not done.

    The manifest of a split that is made anew is withdrawn, unless the job means to read what it redoes.
    """
    planned, done, total, gone = {split.id: split for split in splits}, set(), Total(), []
    for entry in entries(folder, listing):
        split, counts = planned.get(entry.split), json.loads(entry.counts)
        if split is None:
            gone.append(entry.split)
        elif (
            split.id not in redo
            and entry.is_of(split.fingerprint, settings_digest)
            and entry.complete(listing.sizes)
            and CorruptSample.kind not in counts["errors"]  # its input may be mended by now
        ):
            done.add(split.id)
            total.add(counts)
    if gone:
        files = {url for split in splits for url in _files_of(split.source)}
        _remove_superseded(folder, {name: folder.manifest(name) for name in gone}, files)
    todo = [split for split in splits if split.id not in done]
    for split in todo:
        if split.id in listing.marks and split.id not in redo:
            folder.withdraw(split.id)
    return todo, total.counts()


def _remove_superseded(folder: OutputFolder, gone: Mapping[str, Manifest], files: set[str]) -> None:
    """Remove splits that are planned no more, because their files are now cut otherwise. Refuse to lose any others."""
    if any(name.isdigit() and any(_files_of(manifest.source)) for name, manifest in gone.items()):
        raise UserError(
            f"{folder.url} was made when splits were numbered by their place in the list of inputs; now their names "
            "come from the input's. It can be read and trained on as it is, but not continued: name another --output, "
            "or use --overwrite to make it anew."
        )
    if lost := sorted(name for name, manifest in gone.items() if not files.issuperset(_files_of(manifest.source))):
        raise UserError(
            f"{folder.url} holds splits that the input no longer has ({', '.join(lost[:5])}): "
            "name the whole input again, or another --output"
        )
    folder.remove_splits(gone)


def _files_of(source: Mapping) -> Sequence[str]:
    """Return the input files of a split's source; [""], which no input is, for a job that has none."""
    return source.get("urls") or source.get("slice", {}).get("paths") or [source.get("url", "")]


def _finish(folder: OutputFolder, listing: Listing) -> Counts:
    summary = write_report(folder, listing)
    print_funnel(summary)
    print(f"\nreport: {folder.url}/report.html")
    return summary.counts


def main(function: Callable[[], None]) -> None:
    """Run a job's main function; print what the user can mend without a traceback and exit with status 1.

    Status 3: all is done but splits in quarantine.
    """
    try:
        function()
    except (UserError, SettingsDiffer, NoBucket, CatalogError, WrongMeasure, Damaged, BlownFuse) as error:
        sys.exit(f"error: {error}")
    except (cluster.SplitFailed, NoBrowser, NotConfined) as error:
        sys.exit(f"error: {error}")
    except Quarantined as error:
        print(error, file=sys.stderr)
        sys.exit(STATUS)
    except Bug as error:
        sys.exit(
            f"error: this is a mistake in Gristmill, not in the data; nothing was counted. Please report it.\n{error}"
        )
    except PermissionError as error:
        sys.exit(f"error: no permission: {error}")
    except FileNotFoundError as error:
        sys.exit(f"error: not found: {error.filename or error}")
    except OSError as error:
        if error.errno is None:
            raise
        sys.exit(f"error: {error.strerror or error}: {error.filename or ''}. {_what_to_do(error.errno)}")
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _STORES:
            raise
        sys.exit(f"error: the object store cannot be used: {error}. {CREDENTIALS}")
    except KeyboardInterrupt:
        sys.exit("stopped; what is committed stays, the same command goes on from there")
    finally:
        lock_up_images(False)
        cluster.stop()


def _what_to_do(errno: int) -> str:
    import errno as codes

    if errno in (codes.ENOSPC, codes.EDQUOT):
        return "The disk is full: make room and run the same command again, committed splits are kept."
    return "Mend it and run the same command again; committed splits are kept."
