"""An output folder and its commit protocol, on a local disk or any fsspec URL.

A split's files are written under temporary names, flushed to disk and renamed; its manifest `ID.json` is renamed (on an
object store: PUT) last. A split without a manifest has not happened. `job.json`, written first, holds the settings
that every split of the folder shares.
"""

import hashlib
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.damage import Damaged, how_to_mend
from corpus.inputs import version
from corpus.ledger import Counts
from corpus.remote import get, is_local, protocols, put
from corpus.seals import SEAL, digest

VERSION = "0.1.0"
INDEX = ".index"  # corpus/folder_index.py
JOB = "job.json"
UNFINISHED = "unfinished.json"  # stands from a run's first split to its last: how many are planned
QUARANTINED = "quarantined.json"  # the suffix of what is told of a split that a system error kept from happening
_NO_MANIFESTS = (
    JOB, UNFINISHED, "report.json", "corpus.json", "croissant.json", "llava.json", "sharegpt.json", "dataset_info.json",
)  # fmt: skip
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss"}
_TEMPORARY = re.compile(r"^\..+\.tmp$")
_OURS = re.compile(
    r"^(?P<split>[a-z0-9_-]+)\.(tar|tar\.idx|idx|parquet|(urls|rows)\.parquet|json|quarantined\.json)$"
    r"|^report\.(html|json)$|^(DATACARD|README)\.md$"
)
_MANIFEST = re.compile(r"^[a-z0-9_-]+\.json$")


class NoBucket(Exception):
    """An output folder in a bucket that does not exist."""


class SettingsDiffer(Exception):
    """The folder was made with other settings."""


@dataclass(frozen=True)
class Manifest:
    """What a committed split holds: counts, SHA-256 by file suffix, and what it was made from."""

    split: str
    counts: Counts
    files: dict[str, str]
    settings_digest: str
    input: dict  # fingerprint of the input
    source: dict  # where it was read from
    version: str
    seconds: float
    records: int | None = None  # in the input, by the reader's own count; a record may be several rows
    sizes: dict[str, int] | None = None  # in bytes, by file suffix; folders of earlier versions have none
    changed: int | None = None  # rows whose text a cleaner changed; folders of earlier versions do not say

    @classmethod
    def from_json(cls, raw: bytes, where: str) -> "Manifest":
        """Parse a manifest. Raises Damaged, naming the file, when it is none or not as it was written."""
        try:
            record = json.loads(raw)
            seal = record.pop(SEAL, None)  # folders of earlier versions have none
            manifest = cls(**record | {"counts": Counts(**record["counts"])})
            if seal not in (None, manifest.seal()):
                raise ValueError("its content does not match its own digest")
            return manifest
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Damaged(f"{where} is no manifest of ours, or altered ({error}): {how_to_mend(where)}") from None

    def seal(self) -> str:
        """Return the digest of all that it says, the time it took aside."""
        told = asdict(self) | {"seconds": 0}
        return digest({name: value for name, value in told.items() if (name, value) != ("changed", None)})

    def to_json(self) -> bytes:
        """Return the content of the manifest's file."""
        return json.dumps(asdict(self) | {SEAL: self.seal()}, sort_keys=True, indent=1).encode()


@dataclass(frozen=True)
class Listing:
    """What one listing says of a folder: the size of every file by name, and of every manifest a mark of its version.

    `marks` are by split, in order; `sizes` in none.
    """

    sizes: dict[str, int]
    marks: dict[str, str]


class OutputFolder:
    """A job's output folder: which splits are done, and writers for those that are not."""

    def __init__(self, url: str):
        self.url = str(url).rstrip("/")
        self.fs, self.root = fsspec.core.url_to_fs(self.url)
        self.local = is_local(self.fs)

    def path(self, name: str) -> str:
        """Return the file system's path of a file in the folder."""
        return f"{self.root}/{name}"

    def names(self) -> list[str]:
        """List the folder's files, sorted; an absent folder is empty."""
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Return the size of each of the folder's files by name, from one listing."""
        return self.listing().sizes

    def listing(self) -> Listing:
        """List the folder once."""
        sizes, marks = {}, {}
        for name, size, mark in self._listed():
            sizes[name] = size
            if name.endswith(".json") and name not in _NO_MANIFESTS and _MANIFEST.match(name):
                marks[name[:-5]] = f"{size} {mark}"
        return Listing(sizes, {split: marks[split] for split in sorted(marks)})

    def _listed(self) -> Iterator[tuple[str, int, object]]:
        """Yield (name, size, mark of the version) of every file."""
        if self.local:
            # A million entries of fsspec's would take gigabytes.
            with os.scandir(self.root) if os.path.isdir(self.root) else nullcontext(()) as found:
                for file in found:
                    about = file.stat()
                    yield file.name, about.st_size, about.st_mtime_ns
            return
        self.fs.invalidate_cache()
        for entry in self.fs.ls(self.root, detail=True) if self.fs.isdir(self.root) else ():
            yield entry["name"].rstrip("/").rpartition("/")[2], entry["size"], version(entry)[1]

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        return get(self.fs, self.path(name))

    def atomic(self, name: str) -> "_Temporary":
        """Open a file to write to its `stream`; `commit` gives it its name, leaving the context without removes it."""
        return _Temporary(self, name)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file atomically."""
        with self.atomic(name) as file:
            file.stream.write(data)
            file.commit()

    def prepare(self, settings: dict, *, overwrite: bool = False) -> Listing:
        """Make the folder ready for a run with `settings`: refuse another run's, sweep what a killed one left.

        Returns what is there then.
        """
        self._refuse_new_bucket()
        self.fs.makedirs(self.root, exist_ok=True)
        names = (listing := self.listing()).sizes
        if overwrite:
            self.remove([name for name in names if _OURS.match(name) or name == JOB])
            if INDEX in names:
                self.fs.rm(self.path(INDEX), recursive=True)
        elif JOB in names:
            _refuse_other_settings(self.url, self.settings(), settings)
        elif strangers := [name for name in names if not name.startswith(".")]:
            raise SettingsDiffer(
                f"{self.url} holds files but no {JOB}, so no job of ours made it ({', '.join(sorted(strangers)[:3])}); "
                "name an empty folder"
            )
        self.remove([name for name in names if _TEMPORARY.match(name)])
        if not overwrite and JOB in names:
            return listing
        self.write(JOB, json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False).encode())
        return self.listing()

    def start(self, planned: int) -> None:
        """Note that a run of so many splits is under way, for those who read the folder meanwhile or after a crash."""
        self.write(UNFINISHED, json.dumps({"planned": planned}).encode())

    def end(self) -> None:
        """Note that all splits of the run have happened, or are in quarantine."""
        if self.fs.exists(self.path(UNFINISHED)):
            self.fs.rm_file(self.path(UNFINISHED))

    def planned(self) -> int | None:
        """Return how many splits the unfinished run has that fills the folder; None when it is finished."""
        try:
            return json.loads(self.read(UNFINISHED))["planned"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise Damaged(f"{self.url}/{UNFINISHED} is damaged: run the folder's command again") from None

    def _refuse_new_bucket(self) -> None:
        """Making a folder in an object store would make its bucket too, were the name misspelt."""
        bucket = self.root.strip("/").partition("/")[0]
        if not _OBJECT_STORES.isdisjoint(protocols(self.fs)) and not self.fs.exists(bucket):
            raise NoBucket(f"{self.url}: there is no bucket {bucket!r}, or it is not yours: mend the name, or make it")

    def sweep(self) -> None:
        """Remove the temporary files of workers that were killed; only while none is at work."""
        self.remove([name for name in self.names() if _TEMPORARY.match(name)])

    def settings(self) -> dict:
        """Return the settings of the run that made the folder. FileNotFoundError says so when there is none."""
        try:
            return json.loads(self.read(JOB))
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.url} is no output folder of ours: it has no {JOB}") from None
        except ValueError as error:
            raise Damaged(f"{self.url}/{JOB} is damaged ({error}): use --overwrite to start anew") from None

    def manifests(self) -> dict[str, Manifest]:
        """Return the committed splits by id, in order."""
        splits = self.splits()
        with ThreadPoolExecutor(min(32, len(splits) or 1)) as pool:
            return dict(zip(splits, pool.map(self.manifest, splits), strict=True))

    def splits(self) -> list[str]:
        """Return the ids of the committed splits, in order."""
        return list(self.listing().marks)

    def manifest(self, split: str) -> Manifest:
        """Return a committed split's manifest. Raises Damaged; FileNotFoundError for a split that has not happened."""
        return Manifest.from_json(self.read(f"{split}.json"), f"{self.url}/{split}.json")

    def table(self, manifest: Manifest, suffix: str = "parquet", columns: Sequence[str] | None = None) -> pa.Table:
        """Read a split's ledger, or another table of it, and verify it by the manifest. Raises Damaged."""
        parquet = pq.ParquetFile(pa.BufferReader(self.verified(manifest, suffix)))
        names = parquet.schema_arrow.names if columns is None else list(columns)
        return parquet.read(names, use_threads=False).select(names)

    def verified(self, manifest: Manifest, suffix: str) -> bytes:
        """Return the bytes of a split's file, which are those that its manifest lists. Raises Damaged."""
        where = f"{self.url}/{manifest.split}.{suffix}"
        try:
            raw = self.read(f"{manifest.split}.{suffix}")
        except FileNotFoundError:
            raise Damaged(f"{where} is missing: {how_to_mend(where)}") from None
        if hashlib.sha256(raw).hexdigest() != manifest.files[suffix]:
            raise Damaged(f"{where} is not what its manifest says, cut or altered: {how_to_mend(where)}")
        return raw

    def remove_splits(self, splits: Collection[str]) -> None:
        """Remove all files of splits."""
        self.remove([n for n in self.names() if (ours := _OURS.match(n)) and ours["split"] in splits])

    def withdraw(self, split: str) -> None:
        """Remove a split's manifest: from here until a new one stands, the split has not happened."""
        self.fs.rm_file(self.path(f"{split}.json"))

    def begin(self, split: str, suffixes: tuple[str, ...]) -> "SplitFiles":
        """Open temporary files `split`.SUFFIX for writing; use as a context manager and call `commit`."""
        return SplitFiles(self, split, suffixes)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files; manifests first: a split that loses its files before its manifest would look finished."""
        for name in sorted(names, key=lambda n: not n.endswith(".json")):
            self.fs.rm_file(self.path(name))


def _refuse_other_settings(url: str, theirs: dict, ours: dict) -> None:
    ours = json.loads(json.dumps(ours))
    differing = [f"{path}: {a!r} there, {b!r} now" for path, a, b in _differences(theirs, ours)]
    if differing:
        raise SettingsDiffer(
            f"{url} was made with other settings ({'; '.join(differing[:5])}). "
            "Name another --output, or use --overwrite to remove what is there and start anew."
        )


def _differences(a, b, path: str = "") -> Iterator[tuple[str, object, object]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(a.keys() | b.keys()):
            yield from _differences(a.get(name), b.get(name), f"{path}.{name}" if path else name)
    elif isinstance(a, list) and isinstance(b, list) and (_lacks(a, b) or _lacks(b, a)):
        yield f"{path} differs by", _lacks(b, a), _lacks(a, b)
    elif a != b:
        yield path, a, b


def _lacks(some: list, others: list) -> list:
    return [each for each in others if each not in some]


class SplitFiles:
    """The files of one split while they are written. Leaving the context without `commit` removes them."""

    def __init__(self, folder: OutputFolder, split: str, suffixes: tuple[str, ...]):
        self._folder, self.split, self._started = folder, split, time.monotonic()
        self._files = {suffix: _Temporary(folder, f"{split}.{suffix}") for suffix in suffixes}

    def __enter__(self) -> "SplitFiles":
        return self

    def __exit__(self, *_):
        for file in self._files.values():
            file.discard()

    def __getitem__(self, suffix: str) -> BinaryIO:
        return self._files[suffix].stream

    def commit(
        self, counts: Counts, records: int, settings_digest: str, fingerprint: dict, source: dict, changed: int
    ) -> Manifest:
        """Make the split happen: data files first, the manifest last."""
        counts.check(self.split)
        written = {suffix: file.commit() for suffix, file in self._files.items()}
        files, sizes = ({suffix: told[i] for suffix, told in written.items()} for i in (0, 1))
        seconds = round(time.monotonic() - self._started, 3)
        about = (settings_digest, fingerprint, source, VERSION, seconds, records, sizes)
        manifest = Manifest(self.split, counts, files, *about, changed=changed)
        self._folder.write(f"{self.split}.json", manifest.to_json())
        return manifest


class _Hashing:
    """A binary stream that hashes what is written through it."""

    def __init__(self, file: BinaryIO):
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data) -> int:
        self.sha256.update(data)
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


class _Temporary:
    """A file under a temporary name: in the folder itself on a local disk, in the system's temporary one otherwise."""

    def __init__(self, folder: OutputFolder, name: str):
        self._folder, self._name = folder, name
        # A unique name, so that a worker believed dead cannot write into its successor's file.
        temporary = f".{name}.{uuid.uuid4().hex[:8]}.tmp"
        self._path = os.path.join(folder.root if folder.local else tempfile.gettempdir(), temporary)
        self._file = open(self._path, "wb", buffering=1 << 20)  # noqa: SIM115 - closed by commit or discard
        self.stream = _Hashing(self._file)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.discard()

    def commit(self) -> tuple[str, int]:
        """Flush to disk and move to the final name; return the content's SHA-256 and size."""
        self._file.flush()
        if self._folder.local:
            os.fsync(self._file.fileno())
        size = os.fstat(self._file.fileno()).st_size
        self._file.close()
        target = self._folder.path(self._name)
        if self._folder.local:
            os.replace(self._path, target)
            _fsync_directory(self._folder.root)
        else:
            put(self._folder.fs, self._path, target)
            os.unlink(self._path)
        return self.stream.sha256.hexdigest(), size

    def discard(self) -> None:
        """Close and remove the file unless it was committed."""
        self._file.close()
        if os.path.exists(self._path):
            os.unlink(self._path)


def _fsync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
