"""What a listing says of input files: names for their splits, and marks that tell whether a file has changed.

A split is named after its file, never after its place in a list: a crawl that grows keeps the names it has, and no
order of names carries meaning.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import fsspec

_last: dict[str, Any] = {}  # the listing that was asked last, and its entries by name
_HASH = 12  # hexadecimal digits: half a million files with one name in as many folders do not meet
_READABLE = 32  # characters
_OF_OURS = re.compile(rf"-[0-9a-f]{{{_HASH}}}(?=-\d{{5}}$|$)")  # what an earlier job added to the name
_COMPRESSED = re.compile(r"\.(gz|bz2|xz|zst)$")
# What file systems call the version of a file, the surest first.
_MARKS = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "last_modified", "updated", "modificationTime")


def names(urls: Iterable[str]) -> dict[str, str]:
    """Return a name for each file: readable, then a hash of its folder's name and its own.

    Where the crawl lies does not matter. Files that share folder and name are told apart by the folders above.
    """
    depth = dict.fromkeys(urls, 2)
    while True:
        found = {url: _name(url, parts) for url, parts in depth.items()}
        shared = {name for name, files in Counter(found.values()).items() if files > 1}
        if not shared:
            return found
        depth.update({url: depth[url] + 1 for url, name in found.items() if name in shared})


def _name(url: str, parts: int) -> str:
    place = "/".join(url.split("/")[-parts:])
    return f"{_readable(place.rpartition('/')[2])}-{_sha256(place).hexdigest()[:_HASH]}"


def _sha256(text: str):
    return hashlib.sha256(text.encode("utf-8", "surrogatepass"))  # file names may be no text


def _readable(file: str) -> str:
    stem = PurePosixPath(_COMPRESSED.sub("", file.lower())).stem.removesuffix(".urls")
    words = re.sub(r"[^a-z0-9_]+", "-", _OF_OURS.sub("", stem)).strip("-")
    return words[-_READABLE:].lstrip("-") or "file"


def fingerprint(url: str, *, by_content: bool = False) -> dict:
    """Tell a file's version: its size, and its ETag or the time it was written; `by_content`, its SHA-256.

    One that its server says nothing about is read.
    """
    fs, path = fsspec.core.url_to_fs(str(url))
    info = listed(fs, path) or fs.info(path)
    name, value = version(info)
    if name and not by_content:
        return {"size": info["size"], name.lower(): value if isinstance(value, (int, float)) else str(value)}
    with fs.open(path, "rb", block_size=1 << 22) as file:
        return {"size": info["size"], "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def version(entry: Mapping[str, Any]) -> tuple[str, Any]:
    """Return what an entry of a listing says of a file's version: the name that its file system has for it, the value.

    Two empty texts where it says nothing.
    """
    return next(((name, entry[name]) for name in _MARKS if entry.get(name)), ("", ""))


def listed(fs, path: str) -> dict | None:
    """Return what a listing that the file system keeps says of a file, None where it keeps none.

    fsspec itself looks through the whole listing for every file.
    """
    folder = path.rpartition("/")[0]
    if not fs.dircache or folder not in fs.dircache:
        return None
    listing = fs.dircache[folder]
    if _last.get("listing") is not listing:
        _last.update(listing=listing, by_name={entry["name"]: entry for entry in listing})
    return _last["by_name"].get(path)


def grouped(urls: Sequence[str], about: int) -> Iterator[list[str]]:
    """Cut a sorted list of files into groups of some `about` files, at most four times as many.

    A group begins where the hash of a name says so: one file more or less changes the group it is in, and no other.
    """
    group: list[str] = []
    for url in urls:
        begins = int.from_bytes(_sha256(url.rpartition("/")[2]).digest()[:8]) % about == 0
        if group and (begins or len(group) == 4 * about):
            yield group
            group = []
        group.append(url)
    if group:
        yield group
