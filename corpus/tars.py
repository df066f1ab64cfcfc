"""Tars as WebDataset means them: headers, and a reader of samples that loses nothing in silence.

A sample is the run of adjacent tar members that share a base name (the name up to the first dot of its last part).
"""

import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
MAX_MEMBER_BYTES = 1 << 28  # a declared size above this is taken for damage or malice, and the member is stepped over
_ZEROS = bytes(BLOCK)
END = 2 * _ZEROS  # the end-of-archive marker
_PLAIN_HEADER = bytes(1) + tarfile.TarInfo("x").tobuf(tarfile.PAX_FORMAT)[1:]
_MOST_PADDING = 64  # MiB
_OF_THE_TAR = ("truncated_shard", "damaged_stream", "data_after_end")
_DAMAGE = (EOFError, zlib.error, lzma.LZMAError, OSError)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_ABOUT_OTHERS = (*_PAX, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_KINDS = {
    tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link", tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a FIFO",
}  # fmt: skip


@dataclass(slots=True)
class RawSample:
    """A base name, its members by extension, and the error kind and detail where the tar itself is at fault."""

    key: str
    members: dict[str, bytes]
    problem: str | None = None
    detail: str = ""


def header(name: str, size: int) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) < 100 and name.isascii() and size < 8**11:  # tarfile needs four times as long for the same bytes
        return _plain_block(raw, b"%011o" % size)
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _plain_block(name: bytes, size: bytes) -> bytes:
    block = bytearray(_PLAIN_HEADER)
    block[0 : len(name)], block[124:135], block[148:156] = name, size, b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


def read_shard(file: BinaryIO, end: bytes = _ZEROS) -> Iterator[RawSample]:
    """Yield every sample of a tar, in order. Damage shows as a sample with a `problem`, never as a silent end.

    Folders in the tar are no samples and are stepped over; links, FIFOs and devices are problems (`not_a_file`).
    `end` is the block that ends it: b"" for a part of a tar, without the end marker.
    """
    return once(_grouped(_members(file, end)))


def once(samples: Iterator[RawSample]) -> Iterator[RawSample]:
    """Mark samples whose key came before."""
    done = set()
    for sample in samples:
        if sample.key in done and sample.problem is None:
            sample.problem, sample.detail = "duplicate_key", "the same base name stands earlier in the shard"
        done.add(sample.key)
        yield sample


def _grouped(members: Iterator[tuple[str, bytes | None, str | None, str]]) -> Iterator[RawSample]:
    sample = None
    for name, data, problem, detail in members:
        key, _, ext = name.rpartition("/")[2].partition(".")
        key, ext = f"{name.rpartition('/')[0]}/{key}".lstrip("/"), ext.lower()
        if sample is None or key != sample.key or problem in _OF_THE_TAR:
            if sample is not None:
                yield sample
            sample = RawSample(key, {})
        if ext in sample.members:
            problem, detail = "duplicate_member", f"two members .{ext}"
        if data is not None:
            sample.members[ext] = data
        if problem:
            sample.problem, sample.detail = problem, detail
    if sample is not None:
        yield sample


def _members(file: BinaryIO, end: bytes) -> Iterator[tuple[str, bytes | None, str | None, str]]:
    """Yield (name, data, problem, detail) for every file; the end marker is required, and nothing may follow it."""
    try:
        if (yield from _walk(file, end)):
            yield from _after_the_end(file)
    except _DAMAGE as error:
        _raise_the_systems(error)
        kind = "truncated_shard" if isinstance(error, EOFError) else "damaged_stream"
        yield "", None, kind, f"what it is compressed with reports: {error}"


def _raise_the_systems(error: Exception) -> None:
    """Raise an error again unless a decompressor raised it, which gives no number to its own."""
    if isinstance(error, OSError) and (error.errno or type(error) not in (OSError, gzip.BadGzipFile)):
        raise error


def _walk(file: BinaryIO, end: bytes) -> Generator[tuple[str, bytes | None, str | None, str], None, bool]:
    """Yield members as `_members` does; return whether the end was reached."""
    long_name = None
    while (block := file.read(BLOCK)) != end:
        try:
            name, size, kind = _parse_header(block)
        except tarfile.HeaderError as error:
            yield "", None, "truncated_shard", f"the tar ends or breaks without its end marker: {error}"
            return False
        name = name if long_name is None or kind in _ABOUT_OTHERS else long_name
        if size > MAX_MEMBER_BYTES:
            yield _printable(name), None, "member_too_large", f"declares {size} bytes"
            _skip(file, size)
            long_name = None
            continue
        data = file.read(size)
        file.read(-size % BLOCK)
        if len(data) < size:
            yield "", None, "truncated_shard", f"{_printable(name)} is cut after {len(data)} of {size} bytes"
            return False
        if kind in _ABOUT_OTHERS:
            long_name = _long_name(kind, data) or long_name
            continue
        long_name = None
        if kind in _REGULAR:
            yield _printable(name), data, None, ""
        elif kind != tarfile.DIRTYPE:
            yield _printable(name), None, "not_a_file", _KINDS.get(kind, f"an entry of type {kind!r}")
    return True


def _parse_header(block: bytes) -> tuple[str, int, bytes]:
    """Return (name, size, type) of a header. Raises tarfile.HeaderError."""
    if block[100:124] == _PLAIN_HEADER[100:124] and block[156:] == _PLAIN_HEADER[156:]:  # ours, in all likelihood
        name, size = block[:100].rstrip(b"\0"), block[124:135]
        if name.isascii() and size.isdigit() and _plain_block(name, size) == block:
            return name.decode(), int(size, 8), tarfile.REGTYPE
    info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    if info.size < 0:
        raise tarfile.InvalidHeaderError(f"it declares {info.size} bytes")
    return info.name, info.size, info.type


def _after_the_end(file: BinaryIO) -> Iterator[tuple[str, bytes | None, str | None, str]]:
    """Read on to the end of the file: a compressed one has its checksum there, and zeros alone may stand before it."""
    for _ in range(_MOST_PADDING):
        chunk = file.read(1 << 20)
        if not chunk:
            return
        if chunk.strip(b"\0"):
            break
    yield "", None, "data_after_end", "more than zeros follows the tar's end marker; is it two tars in one?"


def _long_name(kind: bytes, data: bytes) -> str | None:
    if kind == tarfile.GNUTYPE_LONGNAME:
        return data.rstrip(b"\0").decode("utf-8", "replace")
    if kind not in _PAX:
        return None
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


def sample_keys(file: BinaryIO) -> list[str]:
    """Return the key of every sample that `read_shard` owes, damaged ones ("") included, by the tar's headers alone.

    A count to hold a reader against. Shares its parsing of names with nobody, and reads no data where a size is known.
    """
    keys = []
    try:
        whole = _scan(file, keys) and not any(_after_the_end(file))
    except _DAMAGE as error:
        _raise_the_systems(error)
        whole = False
    return keys if whole else [*keys, ""]


def _scan(file: BinaryIO, keys: list[str]) -> bool:
    """Append the keys of a tar's samples; return whether its end was reached."""
    long_name, last = None, None
    end, at = getattr(file, "size", None), 0  # of a decompressing file nobody knows the size
    while (block := file.read(BLOCK)) != _ZEROS:
        found = _plain_header(block) or _any_header(block)
        if found is None:
            return False
        name, size, kind = found
        padded = size + (-size % BLOCK)
        at += BLOCK + padded
        about_others = kind in _ABOUT_OTHERS and size <= MAX_MEMBER_BYTES
        if about_others:
            data = file.read(padded)[:size]
            long_name, cut = _long_name(kind, data) or long_name, len(data) < size
        else:
            cut = _step_over(file, size, padded, at, end)
        if cut and size <= MAX_MEMBER_BYTES:
            return False
        if about_others:
            continue
        name, long_name = name if kind in _ABOUT_OTHERS else long_name or name, None
        if kind != tarfile.DIRTYPE or size > MAX_MEMBER_BYTES:
            if _key_of(name) != last:
                keys.append(_key_of(name))
            last = _key_of(name)
    return True


def first_key(data: bytes) -> str:
    """Return the key of the sample that begins with `data`, "" where its header is damaged."""
    found = _plain_header(data[:BLOCK])
    return _key_of(found[0]) if found else (sample_keys(io.BytesIO(data)) or [""])[0]


def is_plain(block: bytes) -> bool:
    """Whether a block is the header that nearly every member has, which holds the whole name."""
    return _plain_header(block) is not None


def _key_of(name: str) -> str:
    folder, slash, base = _printable(name).rpartition("/")
    return f"{folder}{slash}{base.partition('.')[0]}".lstrip("/")


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
    return (info.name, info.size, info.type) if info.size >= 0 else None


def _step_over(file: BinaryIO, size: int, padded: int, at: int, end: int | None) -> bool:
    """Pass a member's data; True when the file ends within them."""
    if end is None and size <= MAX_MEMBER_BYTES:
        return len(file.read(padded)) < size
    if end is None:
        _skip(file, size)
        return False
    file.seek(at)
    return at - padded + size > end
