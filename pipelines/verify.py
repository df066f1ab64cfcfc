#!/usr/bin/env python
"""Check that committed data is as it was written: cleaned and stage folders, checkpoints, exports, wherever they lie.

Every file is read whole and compared with the digest that its manifest (checkpoint, export) tells. What is wrong is
named, file by file, with the command that mends it; the exit status is then 1. DIR is the output folder of a job, a
training run, or any folder above such ones. --discard withdraws the manifests of what is damaged, so that the command
that made a folder, given again, makes exactly those splits anew, byte for byte.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from corpus import packs
from corpus.damage import Damaged
from corpus.folder import JOB, Manifest, OutputFolder
from corpus.seals import digest, read_sealed, wrong_files
from corpus.shards import IndexedShard
from corpus.tokens import load_tokenizer
from pipelines.engine import job

_EXAMPLE = "python pipelines/verify.py demo/cleaned demo/stage1 runs/stage1"
_DEEPEST = 6  # folders below DIR that are looked into
_CHUNK = 8 << 20
_NAMED = 5  # damaged samples of a shard that are named


@dataclass
class Finding:
    """What is wrong with one thing that can be made again, how that is done, and how it is marked."""

    problems: list[str]
    mend: str
    discard: Callable[[], None] | None = None


def main() -> None:
    args = make_parser().parse_args()
    checks = [check for folder in args.folder for check in _checks(_absolute(folder))]
    if not checks:
        raise job.UserError(f"{' '.join(args.folder)}: nothing there that a job or a training of ours has committed")
    with ThreadPoolExecutor(args.workers) as pool:
        found = [finding for finding in pool.map(lambda check: check(), checks) if finding]
    for finding in found:
        _tell(finding, args.discard)
    print(f"checked {len(checks):,} splits, checkpoints and exports: {len(found):,} damaged")
    if found:
        sys.exit(1)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", metavar="DIR", help="a local path or an fsspec URL")
    parser.add_argument("--discard", action="store_true", help="mark what is damaged, so that it is made again")
    parser.add_argument("--workers", type=int, default=16, metavar="N", help="files read at a time; default: 16")
    return parser


def _absolute(folder: str) -> str:
    return folder if "://" in folder else str(Path(folder).resolve())


def _tell(finding: Finding, discard: bool) -> None:
    for problem in finding.problems:
        print(f"DAMAGED {problem}")
    if discard and finding.discard:
        finding.discard()
        print(f"  discarded; now {finding.mend}")
    else:
        print(f"  to mend it: {'run this with --discard, then ' if finding.discard else ''}{finding.mend}")


def _checks(url: str, depth: int = 0) -> Iterator[Callable[[], Finding | None]]:
    """Yield a check for everything committed in a folder and those below it."""
    folder = OutputFolder(url)
    names, inside = _listed(folder)
    if JOB in names:
        yield from _checks_of_job(folder, names)
    elif any(name.endswith(".distcp") for name in names) or "state.json" in names:
        yield partial(
            _check_files, url, "state.json", "a training resumed goes on from the checkpoint before by itself"
        )
    elif "config.json" in names and any(name.endswith(".safetensors") for name in names):
        yield partial(_check_files, url, "config.json", "remove the export and resume the training: it is written anew")
    for name in inside if depth < _DEEPEST else ():
        yield from _checks(f"{url}/{name}", depth + 1)


def _listed(folder: OutputFolder) -> tuple[list[str], list[str]]:
    """The files and the folders in a folder."""
    if not folder.fs.isdir(folder.root):
        raise job.UserError(f"{folder.url}: no such folder")
    files, folders = [], []
    for entry in folder.fs.ls(folder.root, detail=True):
        name = entry["name"].rstrip("/").rpartition("/")[2]
        (folders if entry["type"] == "directory" else files).append(name)
    return sorted(files), sorted(folders)


def _checks_of_job(folder: OutputFolder, names: list[str]) -> Iterator[Callable[[], Finding | None]]:
    mend, splits = _command(folder), folder.splits()
    yield partial(_check_settings, folder)
    for split in splits:
        yield partial(_check_split, folder, split, mend)
    if packs.CORPUS in names:
        yield partial(_check_corpus, folder, splits, mend)
    if open_ended := {name.partition(".")[0] for name in names if name.endswith((".tar", ".parquet"))} - set(splits):
        print(f"NOTE {folder.url}: {len(open_ended):,} splits are not committed: {mend}")


def _command(folder: OutputFolder) -> str:
    """Say what makes the folder's splits; those of a first pass are made by the job around it."""
    outer = folder.url.rpartition("/")[0] if folder.url.rpartition("/")[2].startswith(".") else folder.url
    try:
        name = OutputFolder(outer).settings().get("job")
    except (ValueError, FileNotFoundError, AttributeError):
        name = None
    script = f"python pipelines/{name}.py ... --output {outer}" if name else f"the command with --output {outer}"
    return f"run again, with the same arguments: {script}"


def _check_settings(folder: OutputFolder) -> Finding | None:
    mend = "give the command that made the folder with --overwrite: what its splits were made with is no longer known"
    try:
        told = digest(folder.settings())
        used = {manifest.settings_digest for manifest in folder.manifests().values()} - {""}
    except Damaged as error:
        return Finding([str(error)], mend) if JOB in str(error) else None
    return (
        Finding([f"{folder.url}/{JOB} was altered: the manifests tell other settings"], mend) if used - {told} else None
    )


def _check_split(folder: OutputFolder, split: str, mend: str) -> Finding | None:
    try:
        manifest = folder.manifest(split)
        problems = [text for suffix in manifest.files for text in _compare(folder, split, suffix, manifest)]
    except Damaged as error:
        problems = [str(error)]
    return Finding(problems, mend, partial(_discard, folder, split)) if problems else None


def _compare(folder: OutputFolder, split: str, suffix: str, manifest: Manifest) -> Iterator[str]:
    name = f"{split}.{suffix}"
    if not folder.fs.isfile(folder.path(name)):
        yield f"{folder.url}/{name} is missing"
        return
    total, size = hashlib.sha256(), 0
    with folder.fs.open(folder.path(name), "rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
            size += len(chunk)
    if total.hexdigest() != manifest.files[suffix]:
        wanted = (manifest.sizes or {}).get(suffix, size)
        what = "was altered" if size == wanted else f"has {size:,} bytes instead of {wanted:,}"
        yield f"{folder.url}/{name} {what}{_samples(folder, split) if suffix == 'tar' else ''}"


def _samples(folder: OutputFolder, split: str) -> str:
    """Say which samples of a damaged shard are, where its index is whole and has checksums."""
    try:
        shard = IndexedShard(f"{folder.url}/{split}.tar")
    except (Damaged, FileNotFoundError):
        return ""
    hit = [i for i in range(len(shard)) if not shard.whole(i)]
    more = f" and {len(hit) - _NAMED:,} more" if len(hit) > _NAMED else ""
    return f" (sample {', '.join(map(str, hit[:_NAMED]))}{more} of {len(shard):,})" if hit else ""


def _discard(folder: OutputFolder, split: str) -> None:
    """Withdraw a split, and the list of a stage's shards with it; build_stage.py writes that last."""
    folder.withdraw(split)
    if folder.fs.exists(folder.path(packs.CORPUS)):
        folder.fs.rm_file(folder.path(packs.CORPUS))


def _check_corpus(folder: OutputFolder, splits: list[str], mend: str) -> Finding | None:
    problems = []
    try:
        record = packs.read_corpus(folder.url)
        if packs.corpus_digest(record) != record["digest"]:
            problems.append(f"{folder.url}/{packs.CORPUS}: its digest is not that of the shards it lists")
        for shard in record["shards"]:
            if shard["id"] not in splits or folder.manifest(shard["id"]).files["tar"] != shard["sha256"]:
                problems.append(f"{folder.url}/{shard['id']}.tar is not the shard that {packs.CORPUS} lists")
        if load_tokenizer(f"{folder.url}/{packs.TOKENIZER}").fingerprint != record["tokenizer"]["fingerprint"]:
            problems.append(f"{folder.url}/{packs.TOKENIZER} is not the tokenizer that the packs were made with")
    except (ValueError, KeyError, OSError) as error:
        problems.append(f"{folder.url}/{packs.CORPUS}: {error}")
    discard = partial(folder.fs.rm_file, folder.path(packs.CORPUS))
    return Finding(problems, mend, discard) if problems else None


def _check_files(url: str, record: str, mend: str) -> Finding | None:
    """Check a checkpoint or an export by the record in it."""
    try:
        told = read_sealed(OutputFolder(url).read(record), f"{url}/{record}", mend)
    except FileNotFoundError:
        return Finding([f"{url}/{record} is missing"], mend)
    except Damaged as error:
        return Finding([str(error)], mend)
    if "files" not in told:
        print(f"NOTE {url} was made by an earlier version, without checksums: nothing to compare with")
    problems = list(wrong_files(url, told.get("files", {})))
    return Finding(problems, mend) if problems else None


if __name__ == "__main__":
    job.main(main)
