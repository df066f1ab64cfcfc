"""Images by the names that annotations give them: from a folder, however nested, or from WebDataset shards.

Names come from data and are never joined to a path: the folder is walked once, and a name is looked up in what is
there.
"""

import fnmatch
import functools
import glob
import os
import tarfile
from pathlib import PurePosixPath

from corpus.damage import CorruptSample, how_to_mend
from corpus.readers.rows import BadFile, ImageRef
from corpus.records import IMAGE_EXTENSIONS, BadImage
from corpus.shards import indexed
from corpus.values import load_json

MAX_IMAGE_BYTES = 64 << 20
_EXTENSIONS = (*IMAGE_EXTENSIONS, "jpeg", "gif", "bmp", "tif", "tiff")


@functools.lru_cache(maxsize=4)
def open_images(location: str) -> "ImageFolder | ImageShards":
    """Index a folder, a tar or a glob of tars; once per process.

    Raises BadFile, saying what to do, when nothing is there or it holds no images.
    """
    if os.path.isdir(location):
        shards = sorted(glob.glob(os.path.join(glob.escape(location), "*.tar")))
        store = ImageShards(shards) if shards else ImageFolder(location)
    elif shards := sorted(glob.glob(location)):
        store = ImageShards(shards)
    else:
        raise BadFile(f"--images {location}: no such folder or shard; name the folder that holds the dataset's images")
    if not len(store):
        raise BadFile(f"--images {location}: no images there (looked for {', '.join(_EXTENSIONS)} and .tar)")
    return store


class ImageFolder:
    """Files below a folder by name. Namesakes in several folders are told apart by the rest of the path asked for."""

    def __init__(self, root: str):
        self._root, self._by_stem = root, {}
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in fnmatch.filter(files, "*.*"):
                stem, ext = os.path.splitext(name)
                if ext[1:].lower() in _EXTENSIONS:
                    self._by_stem.setdefault(stem, []).append((folder, name))

    def __len__(self) -> int:
        return len(self._by_stem)

    def read(self, ref: ImageRef) -> bytes:
        """Return the bytes of the first of the ref's names that is there. Raises BadImage `image_missing` or kin."""
        return self.find(ref)[1]

    def find(self, ref: ImageRef) -> tuple[str, bytes]:
        """Return the name under which an image lies here, and its bytes. Raises BadImage."""
        for name in ref.names:
            if found := self._find(PurePosixPath(name)):
                return os.path.basename(found), _read_whole(found)
        raise BadImage("image_missing", " or ".join(ref.names)[:200])

    def _find(self, wanted: PurePosixPath) -> str | None:
        if wanted.suffix[1:].lower() in _EXTENSIONS:
            named = [f for f in self._by_stem.get(wanted.stem, []) if f[1] == wanted.name]
        else:  # some sets leave the extension out, and a dot may then belong to the name
            named = self._by_stem.get(wanted.name, [])
        if len(named) > 1:
            best = max(_common_tail(folder, wanted.parent) for folder, _ in named)
            named = [f for f in named if _common_tail(f[0], wanted.parent) == best]
        if len(named) > 1:
            raise BadImage("ambiguous_image", f"{wanted} may be any of {sorted(os.path.join(*f) for f in named)[:3]}")
        return os.path.join(*named[0]) if named else None


def _common_tail(folder: str, wanted: PurePosixPath) -> int:
    have, want, common = PurePosixPath(folder).parts[::-1], wanted.parts[::-1], 0
    while common < min(len(have), len(want)) and have[common] == want[common]:
        common += 1
    return common


def _read_whole(path: str) -> bytes:
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_IMAGE_BYTES:
            raise BadImage("image_too_large", f"{path}: {size} bytes")
        return file.read()


class ImageShards:
    """Images in WebDataset shards by member name, and by the `url` of their JSON member (as downloaders write it)."""

    def __init__(self, shards: list[str]):
        self._by_name: dict[str, tuple] = {}
        self._by_url: dict[str, str] = {}
        self._ambiguous: set[str] = set()
        self._indexed = {shard: indexed(shard) for shard in shards}
        for shard in shards:
            self._scan(shard)

    def __len__(self) -> int:
        return len(self._by_name)

    def read(self, ref: ImageRef) -> bytes:
        """Return the bytes of the image with one of the ref's names, else with its URL. Raises BadImage."""
        return self.find(ref)[1]

    def find(self, ref: ImageRef) -> tuple[str, bytes]:
        """Return the name under which an image lies here, and its bytes. Raises BadImage."""
        if ref.url in self._by_url:
            return self._by_url[ref.url], self._bytes(self._by_url[ref.url])
        for name in ref.names:
            for candidate in (name.rpartition(".")[0], name, PurePosixPath(name).stem, PurePosixPath(name).name):
                if candidate in self._ambiguous:
                    raise BadImage("ambiguous_image", f"{name} stands in several shards")
                if candidate in self._by_name:
                    return candidate, self._bytes(candidate)
        raise BadImage("image_missing", " or ".join([*ref.names, *([ref.url] if ref.url else [])])[:200])

    def _scan(self, shard: str) -> None:
        try:
            with tarfile.open(shard, "r:") as tar:
                for member in tar:
                    if member.isreg():
                        self._add(shard, tar, member)
        except tarfile.TarError as error:
            raise BadFile(f"--images {shard}: {error}; write or fetch the shard again") from None

    def _add(self, shard: str, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        folder, _, base = member.name.removeprefix("./").rpartition("/")
        stem, _, ext = base.partition(".")
        key = f"{folder}/{stem}".lstrip("/")
        if ext.lower() in _EXTENSIONS:
            place = (shard, member.offset_data, member.size)
            self._by_name[key] = place
            if stem != key:  # a bare name is enough as long as it is the only one
                self._ambiguous.update({stem} if stem in self._by_name else ())
                self._by_name.setdefault(stem, place)
        elif ext == "json" and member.size < 1 << 20 and (url := _url(tar.extractfile(member).read())):
            self._by_url[url] = key

    def _bytes(self, key: str) -> bytes:
        if key not in self._by_name:
            raise BadImage("image_missing", f"{key} has no image in its shard")
        shard, offset, size = self._by_name[key]
        if size > MAX_IMAGE_BYTES:
            raise BadImage("image_too_large", f"{key} in {shard}: {size} bytes")
        if self._indexed[shard] and not self._indexed[shard].whole_at(offset):
            raise BadImage(CorruptSample.kind, f"{key} in {shard} does not match its checksum: {how_to_mend(shard)}")
        with open(shard, "rb") as file:
            file.seek(offset)
            return file.read(size)


def _url(data: bytes) -> str | None:
    try:
        record = load_json(data)
    except ValueError:
        return None
    source = record.get("source") if isinstance(record, dict) else None
    urls = [each.get("url") for each in (source, record) if isinstance(each, dict)]
    return next((url for url in urls if isinstance(url, str) and url), None)
