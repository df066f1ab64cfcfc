"""WebDataset shards: a deterministic writer, a reader that loses nothing in silence, random access by `.idx`.

A sample is the run of adjacent tar members that share a base name (the name up to the first dot of its last part).
An `.idx` file holds the byte offset of every sample in the tar and the offset of the end, as little-endian uint64.
"""

import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import fsspec
import numpy as np

BLOCK = 512
MAX_MEMBER_BYTES = 1 << 28  # a declared size above this is taken for damage or malice, and the member is stepped over
_ZEROS = bytes(BLOCK)
_PLAIN_HEADER = bytes(1) + tarfile.TarInfo("x").tobuf(tarfile.PAX_FORMAT)[1:]
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)


@dataclass(slots=True)
class RawSample:
    """A base name, its members by extension, and the error kind and detail where the tar itself is at fault."""

    key: str
    members: dict[str, bytes]
    problem: str | None = None
    detail: str = ""


class ShardWriter:
    """Write samples to a binary file; `offsets` becomes the index. Same samples, same bytes."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._position = 0
        self.offsets: list[int] = []

    def __len__(self) -> int:
        return len(self.offsets)

    def write(self, key: str, members: Iterable[tuple[str, bytes]]) -> None:
        """Append one sample; `members` are (extension, bytes) and keep their order."""
        if "." in key.rpartition("/")[2]:
            raise ValueError(f"key {key!r} has a dot: WebDataset would cut it there")
        self.offsets.append(self._position)
        for ext, data in members:
            self._put(_header(f"{key}.{ext}", len(data)))
            self._put(data)
            self._put(_ZEROS[: -len(data) % BLOCK])

    def close(self) -> None:
        """Write the end-of-archive marker. The file itself stays open: who opened it commits it."""
        self.offsets.append(self._position)
        self._put(_ZEROS * 2)

    def index(self) -> bytes:
        """Return the content of the `.idx` file; call after `close`."""
        return np.asarray(self.offsets, dtype="<u8").tobytes()

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._position += len(data)


def _header(name: str, size: int) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) < 100 and name.isascii() and size < 8**11:  # tarfile needs four times as long for the same bytes
        block = bytearray(_PLAIN_HEADER)
        block[0 : len(raw)], block[124:135], block[148:156] = raw, b"%011o" % size, b" " * 8
        block[148:155] = b"%06o\0" % sum(block)
        return bytes(block)
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def read_shard(file: BinaryIO) -> Iterator[RawSample]:
    """Yield every sample of a tar, in order. Damage shows as a sample with a `problem`, never as a silent end."""
    sample, done = None, set()
    for name, data, problem, detail in _members(file):
        key, _, ext = name.rpartition("/")[2].partition(".")
        key = f"{name.rpartition('/')[0]}/{key}".lstrip("/")
        if sample is None or key != sample.key or problem == "truncated_shard":
            if sample is not None:
                yield sample
                done.add(sample.key)
            sample = RawSample(key, {})
            if key in done:
                sample.problem, sample.detail = "duplicate_key", "the same base name stands earlier in the shard"
        if ext in sample.members:
            problem, detail = "duplicate_member", f"two members .{ext}"
        if data is not None:
            sample.members[ext.lower()] = data
        if problem:
            sample.problem, sample.detail = problem, detail
    if sample is not None:
        yield sample


def _members(file: BinaryIO) -> Iterator[tuple[str, bytes | None, str | None, str]]:
    """Yield (name, data, problem, detail) for every regular file; the end marker is required."""
    long_name = None
    while True:
        block = file.read(BLOCK)
        if block == _ZEROS:
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            yield "", None, "truncated_shard", f"the tar ends or breaks without its end marker: {error}"
            return
        if info.size > MAX_MEMBER_BYTES:
            yield _printable(info.name), None, "member_too_large", f"declares {info.size} bytes"
            _skip(file, info.size)
            continue
        data = file.read(info.size)
        file.read(-info.size % BLOCK)
        if len(data) < info.size:
            yield "", None, "truncated_shard", f"{_printable(info.name)} is cut after {len(data)} of {info.size} bytes"
            return
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
            long_name = _long_name(info.type, data) or long_name
        elif info.type in _REGULAR:
            yield _printable(long_name or info.name), data, None, ""
            long_name = None


def sample_keys(file: BinaryIO) -> list[str]:
    """Return the key of every sample that `read_shard` owes, damaged ones ("") included, by the tar's headers alone.

    A count to hold a reader against. Shares its parsing of names with nobody, and reads no data where a size is known.
    """
    keys, long_name, last = [], None, None
    end, at = getattr(file, "size", None), 0  # of a decompressing file nobody knows the size
    while (block := file.read(BLOCK)) != _ZEROS:
        header = _plain_header(block) or _any_header(block)
        if header is None:
            return [*keys, ""]
        name, size, kind = header
        padded = size + (-size % BLOCK)
        at += BLOCK + padded
        if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE) and size <= MAX_MEMBER_BYTES:
            data = file.read(padded)[:size]
            long_name, cut = _long_name(kind, data) or long_name, len(data) < size
        else:
            cut = _step_over(file, size, padded, at, end)
        if cut and size <= MAX_MEMBER_BYTES:
            return [*keys, ""]
        if size > MAX_MEMBER_BYTES or kind in _REGULAR:
            folder, slash, base = _printable(name if size > MAX_MEMBER_BYTES else long_name or name).rpartition("/")
            key = f"{folder}{slash}{base.partition('.')[0]}".lstrip("/")
            if key != last:
                keys.append(key)
            last, long_name = key, long_name if size > MAX_MEMBER_BYTES else None
    return keys


def _plain_header(block: bytes) -> tuple[str, int, bytes] | None:
    """Return (name, size, type) of the header that nearly every member has; None where tarfile has to look at it."""
    try:
        sound = int(block[148:156].rstrip(b"\0 "), 8) == sum(block) - sum(block[148:156]) + 256
        name, size = block[:100].rstrip(b"\0").decode("ascii"), int(block[124:136].rstrip(b"\0 "), 8)
    except ValueError:
        return None
    plain = sound and len(block) == BLOCK and block[156:157] == tarfile.REGTYPE and not block[345] and "\0" not in name
    return (name, size, tarfile.REGTYPE) if plain and size >= 0 else None


def _any_header(block: bytes) -> tuple[str, int, bytes] | None:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return info.name, info.size, info.type


def _step_over(file: BinaryIO, size: int, padded: int, at: int, end: int | None) -> bool:
    """Pass a member's data; True when the file ends within them."""
    if size < 0 or (end is None and size <= MAX_MEMBER_BYTES):
        return len(file.read(padded if size >= 0 else -1)) < size
    if end is None:
        _skip(file, size)
        return False
    file.seek(at)
    return at - padded + size > end


def _long_name(kind: bytes, data: bytes) -> str | None:
    if kind == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "replace")
    for line in data.split(b"\n"):  # pax records are "length key=value\n"
        _, _, record = line.partition(b" ")
        if record.startswith(b"path="):
            return record[5:].decode("utf-8", "replace")
    return None


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode().removeprefix("./")


def _skip(file: BinaryIO, size: int) -> None:
    left = size + (-size % BLOCK)
    while left > 0 and (chunk := file.read(min(left, 1 << 20))):
        left -= len(chunk)


class IndexedShard:
    """Random access to a shard through its `.idx`: `len(shard)`, `shard[i]`. Local path or any fsspec URL."""

    def __init__(self, path: str):
        self.path = str(path)
        self._fs, self._root = fsspec.core.url_to_fs(self.path)
        raw = self._fs.cat_file(self._root.removesuffix(".tar") + ".idx")
        self._offsets = np.frombuffer(raw, dtype="<u8")
        if len(raw) % 8 or not len(self._offsets):
            raise ValueError(f"{self.path}: its .idx holds {len(raw)} bytes, which is no list of uint64 offsets")
        self._descriptor = None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, i: int) -> tuple[str, dict[str, bytes]]:
        """Return (key, members by extension) of sample `i`. Raises ValueError, naming the shard, on damage."""
        start, end = int(self._offsets[i]), int(self._offsets[i + 1])
        samples = list(read_shard(_Slice(self._read(start, end))))
        if len(samples) != 1 or samples[0].problem:
            why = samples[0].detail if samples else "there is nothing at its offset"
            raise ValueError(f"{self.path}: sample {i} cannot be read ({why}); the shard is damaged, build it again")
        return samples[0].key, samples[0].members

    def _read(self, start: int, end: int) -> bytes:
        if not isinstance(self._fs, fsspec.implementations.local.LocalFileSystem):
            return self._fs.cat_file(self._root, start=start, end=end)
        if self._descriptor is None:
            self._descriptor = os.open(self._root, os.O_RDONLY)
        return os.pread(self._descriptor, end - start, start)

    def __del__(self):
        if getattr(self, "_descriptor", None) is not None:
            os.close(self._descriptor)

    def __getstate__(self):  # a loader worker opens its own descriptor
        return self.__dict__ | {"_descriptor": None}


class _Slice:
    """Bytes of a tar read as a file that ends with the end-of-archive marker."""

    def __init__(self, data: bytes):
        self._data, self._at = memoryview(data), 0

    def read(self, size: int) -> bytes:
        if self._at >= len(self._data):
            return _ZEROS[:size]
        chunk = bytes(self._data[self._at : self._at + size])
        self._at += size
        return chunk
