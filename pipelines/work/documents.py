"""Crawled documents, one by one, from files, tars, zips and WARC: bytes and where they came from, or why not.

Every archive member that may be a document yields exactly one Document, damaged ones included, and an archive that
breaks off yields one more that says so. Names inside archives are labels: nothing is ever written under them.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import fsspec
import numpy as np

from corpus.bugs import raise_ours
from corpus.inputs import fingerprint, grouped, names
from corpus.splits import Split
from pipelines.work.resources import Folder, Warc, WarcPage, Zip

FILES_PER_SPLIT = 64  # of loose files, about
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".warc", ".warc.gz")


@dataclass(frozen=True)
class Document:
    """One document: its `data`, or None and the `kind` of error (or, where `dropped`, the rule) with a `detail`."""

    name: str
    data: bytes | None = None
    kind: str | None = None
    detail: str = ""
    dropped: bool = False
    source: dict = field(default_factory=dict)  # url, content type
    archive: Folder | Zip | WarcPage | None = None  # what a web page was saved with


@dataclass(frozen=True)
class Kind:
    """What counts as a document: by the end of its name, or in WARC by its declared content type."""

    suffixes: tuple[str, ...]
    content_types: tuple[str, ...]
    foreign: str  # the rule that drops a WARC response of another type
    max_bytes: int


PDF = Kind((".pdf",), ("application/pdf", "application/x-pdf"), "not_pdf", 100 << 20)
HTML = Kind(
    (".html", ".htm", ".xhtml", ".shtml"), ("text/html", "application/xhtml+xml"), "not_html", 4 << 20
)  # fmt: skip


def plan(inputs: Iterable[str], by_content: bool = False) -> Iterator[Split]:
    """Yield one split per archive and one per group of some FILES_PER_SPLIT loose files, named after its first."""
    name_of = names(inputs)
    loose = [url for url in name_of if not url.lower().endswith(ARCHIVES)]
    archives = [[url] for url in name_of if url.lower().endswith(ARCHIVES)]
    for urls in (*archives, *grouped(loose, FILES_PER_SPLIT)):
        marks = {"files": [fingerprint(url, by_content=by_content) for url in urls]}
        yield Split(name_of[urls[0]], {"url": urls[0], "urls": urls}, marks)


def read(urls: Iterable[str], kind: Kind) -> Iterator[Document]:
    """Yield the documents of loose files and archives, in order."""
    for url in urls:
        name = url.lower()
        if name.endswith(".zip"):
            yield from _read_zip(url, kind)
        elif name.endswith((".warc", ".warc.gz")):
            yield from _read_warc(url, kind)
        elif name.endswith(ARCHIVES):
            yield from _read_tar(url, kind)
        else:
            yield _read_file(url, kind)


def held(urls: Iterable[str], kind: Kind) -> np.ndarray:
    """Return the ordinals of the documents that `read` owes: a pass of its own, whose cost is small beside drawing."""
    return np.arange(sum(1 for _ in read(urls, kind)))


def _read_file(url: str, kind: Kind) -> Document:
    name = PurePosixPath(url).name
    with fsspec.open(url, "rb") as file:
        return _bounded(name, file, kind, Folder(url))


def _bounded(name: str, stream, kind: Kind, archive=None, **source) -> Document:
    """Read one document, and never more of it than is allowed, whatever size was declared."""
    data = stream.read(kind.max_bytes + 1)
    if len(data) > kind.max_bytes:
        return Document(name, None, "too_large", f"more than {kind.max_bytes} bytes", source=source)
    return Document(name, data, source=source, archive=archive)


def _is_wanted(name: str, kind: Kind) -> bool:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix in kind.suffixes or not suffix


def _read_zip(url: str, kind: Kind) -> Iterator[Document]:
    with fsspec.open(url, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            yield _broken(url, error)
            return
        for info in archive.infolist():
            if not info.is_dir() and _is_wanted(info.filename, kind):
                yield _zip_member(archive, info, kind)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, kind: Kind) -> Document:
    if info.flag_bits & 1:
        return Document(info.filename, None, "encrypted_member", "the archive's member needs a password")
    try:
        with archive.open(info) as member:
            return _bounded(info.filename, member, kind, Zip(archive, info.filename))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        return Document(info.filename, None, "damaged_member", f"{type(error).__name__}: {error}"[:200])


def _read_tar(url: str, kind: Kind) -> Iterator[Document]:
    last = ""
    with fsspec.open(url, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in archive:
                    last = member.name
                    if member.isfile() and _is_wanted(member.name, kind):
                        yield _tar_member(archive, member, kind)
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            yield _broken(url, error, last)


def _tar_member(archive: tarfile.TarFile, member: tarfile.TarInfo, kind: Kind) -> Document:
    if member.size > kind.max_bytes:
        return Document(member.name, None, "too_large", f"{member.size} bytes, more than {kind.max_bytes}")
    return _bounded(member.name, archive.extractfile(member), kind)


def _read_warc(url: str, kind: Kind) -> Iterator[Document]:
    from warcio.archiveiterator import ArchiveIterator

    last, warc = "", Warc(url)
    with fsspec.open(url, "rb") as file:
        try:
            for record in ArchiveIterator(file, arc2warc=True):
                if record.rec_type in ("response", "resource"):
                    last = record.rec_headers.get_header("WARC-Target-URI") or ""
                    yield _warc_record(record, last, kind, warc.of(last))
        except Exception as error:  # warcio raises its own, zlib's and many built-in exceptions on damaged files
            raise_ours(error)
            yield _broken(url, error, last)


def _warc_record(record, target: str, kind: Kind, archive: WarcPage) -> Document:
    headers = record.http_headers
    status = headers.get_statuscode() if headers else "200"
    declared = (headers.get_header("Content-Type") if headers else record.content_type) or ""
    source = {"url": target, "content_type": declared}
    if status != "200":
        return Document(target, None, "http_status", f"status {status}", dropped=True, source=source)
    if not declared.lower().startswith(kind.content_types):
        return Document(target, None, kind.foreign, declared[:80], dropped=True, source=source)
    try:
        return _bounded(target, record.content_stream(), kind, archive, **source)
    except Exception as error:  # a damaged gzip or brotli body
        raise_ours(error)
        return Document(target, None, "damaged_member", f"{type(error).__name__}: {error}"[:200], source=source)


def _broken(url: str, error: Exception, last: str = "") -> Document:
    where = f" after {last!r}" if last else ""
    name = PurePosixPath(url).name
    return Document(name, None, "broken_archive", f"{name}{where}: {type(error).__name__}: {error}"[:300])
