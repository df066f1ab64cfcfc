"""What an archived page may use: style sheets and pictures of the same WARC, zip or folder, and nothing else."""

import posixpath
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import fsspec

from corpus.bugs import raise_ours

SUFFIXES = (".css", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp")
_TYPES = ("text/css", "image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp", "image/jpg")
_MOST = 2 << 20  # bytes of one
_FILE = "file:///"  # of pages that never had an address: the root of their folder or archive


class Folder:
    """The files below the folder of a loose page; no link leads out of it."""

    def __init__(self, page: str):
        self._base, _, name = page.rpartition("/")
        self.address = _FILE + name

    def find(self, address: str) -> bytes | None:
        """Return the bytes of a style sheet or picture, None where there is none."""
        name = _name(address)
        if name is None or not self._base:
            return None
        system, inside = fsspec.core.url_to_fs(f"{self._base}/{name}")
        if "file" in system.protocol and not _is_below(Path(inside), Path(inside.removesuffix(name))):
            return None
        try:
            with system.open(inside, "rb") as file:
                return _at_most(file)
        except OSError:
            return None


class Zip:
    """The members of an archive; `member` is the page's own name in it."""

    def __init__(self, archive: zipfile.ZipFile, member: str):
        self._archive, self.address = archive, _FILE + member

    def find(self, address: str) -> bytes | None:
        """Return the bytes of a style sheet or picture, None where there is none that can be read."""
        name = _name(address)
        try:
            with self._archive.open(name or "") as member:
                return _at_most(member)
        except Exception as error:  # KeyError where there is none; zipfile's and zlib's own on damaged ones
            raise_ours(error)
            return None


class Warc:
    """The responses of a WARC, found again by their place in it; the index is made at the first question."""

    def __init__(self, url: str):
        self._url = url
        self._places: dict[str, int] | None = None

    def of(self, target: str) -> "WarcPage":
        """Return the archive as the page at `target` sees it."""
        return WarcPage(self, target)

    def find(self, address: str) -> bytes | None:
        """Return the body of a response, None where there is none that can be read."""
        if self._places is None:
            self._places = _warc_index(self._url)
        place = self._places.get(address)
        if place is None:
            return None
        from warcio.archiveiterator import ArchiveIterator

        try:
            with fsspec.open(self._url, "rb") as file:
                file.seek(place)
                return _at_most(next(iter(ArchiveIterator(file, arc2warc=True))).content_stream())
        except Exception as error:
            raise_ours(error)
            return None


@dataclass(frozen=True)
class WarcPage:
    """The archive of one page of a WARC."""

    warc: Warc
    address: str

    def find(self, address: str) -> bytes | None:
        """Return the body of a response, None where there is none that can be read."""
        return self.warc.find(address)


def _warc_index(url: str) -> dict[str, int]:
    from warcio.archiveiterator import ArchiveIterator

    places: dict[str, int] = {}
    try:
        with fsspec.open(url, "rb") as file:
            records = ArchiveIterator(file, arc2warc=True)
            for record in records:
                if record.rec_type in ("response", "resource") and _is_wanted(record):
                    target = urldefrag(record.rec_headers.get_header("WARC-Target-URI") or "").url
                    places.setdefault(target, records.get_record_offset())
    except Exception as error:  # the archive breaks off here for its pages as well, which the ledger tells
        raise_ours(error)
    return places


def _is_wanted(record) -> bool:
    headers = record.http_headers
    declared = (headers.get_header("Content-Type") if headers else record.content_type) or ""
    return (not headers or headers.get_statuscode() == "200") and declared.lower().startswith(_TYPES)


def _name(address: str) -> str | None:
    """The name below the root that an address of ours means; None: it means something else."""
    if not address.startswith(_FILE):
        return None
    name = posixpath.normpath(unquote(urlsplit(address).path).lstrip("/"))
    outside = name.startswith("..") or "\0" in name or "\\" in name
    return name if name.lower().endswith(SUFFIXES) and not outside else None


def _is_below(file: Path, folder: Path) -> bool:
    try:
        return file.resolve().is_relative_to(folder.resolve())
    except OSError:
        return False


def _at_most(stream) -> bytes | None:
    data = stream.read(_MOST + 1)
    return data if len(data) <= _MOST else None
