"""WebDataset shards of ours: a deterministic writer, and readers that verify every sample against the `.idx`."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import fsspec
import numpy as np
import xxhash

from corpus.damage import CorruptSample, Damaged, how_to_mend
from corpus.remote import Spool, get, is_local, runs
from corpus.shard_index import ShardIndex, read_index
from corpus.tars import BLOCK, END, RawSample, first_key, header, is_plain, once, read_shard, sample_keys

_AT_ONCE = 16
_DALI = b"v1."  # its `.idx` files are text that begins with a version, and none of ours


class ShardWriter:
    """Write samples to a binary file, and make its index meanwhile. Same samples, same bytes."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._position = 0
        self._offsets: list[int] = []
        self._checksums: list[int] = []
        self._sum = xxhash.xxh3_64()
        self._last_key: str | None = None
        self.namesakes: str | None = None  # the first key that two samples in a row had

    def write(self, key: str, members: Iterable[tuple[str, bytes]]) -> None:
        """Append one sample; `members` are (extension, bytes) and keep their order."""
        if "." in key.rpartition("/")[2]:
            raise ValueError(f"key {key!r} has a dot: WebDataset would cut it there")
        if key == self._last_key:
            self.namesakes = self.namesakes or key
        self._last_key = key
        self._offsets.append(self._position)
        self._sum.reset()
        for ext, data in members:
            self._put(header(f"{key}.{ext}", len(data)))
            self._put(data)
            self._put(bytes(-len(data) % BLOCK))
        self._checksums.append(self._sum.intdigest())

    def close(self) -> None:
        """Write the end-of-archive marker. The file itself stays open: who opened it commits it."""
        if self.namesakes:
            raise ValueError(f"two samples have the key {self.namesakes!r}: WebDataset would read them as one")
        self._offsets.append(self._position)
        self._file.write(END)

    def index(self) -> bytes:
        """Return the content of the `.idx` file; call after `close`."""
        return ShardIndex(self._offsets, self._checksums).to_bytes()

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._sum.update(data)
        self._position += len(data)


def read_samples(url: str) -> Iterator[RawSample]:
    """Yield every sample of the shard at a path or URL, in order; decompressed where its name says so.

    Where an index of ours lies beside it each sample is verified, and damage costs only the samples it hit. Raises
    Damaged when the index itself is damaged, or does not belong to the tar.
    """
    index = _index_beside(url)
    with fsspec.open(url, "rb", compression="infer").open() as file:
        yield from read_shard(file) if index is None else once(_verified(file, index, url))


def keys_in(url: str) -> list[str]:
    """Return the key of every sample that `read_samples` owes, "" where damage hides it, without reading their data.

    A count to hold a reader against: by the tar's headers alone, or by the places that the index tells.
    """
    index = _index_beside(url)
    with fsspec.open(url, "rb", compression="infer").open() as file:
        return sample_keys(file) if index is None else [_key_at(file, index, i) for i in range(len(index))]


def _key_at(file: BinaryIO, index: ShardIndex, i: int) -> str:
    start, stop = int(index.offsets[i]), int(index.offsets[i + 1])
    file.seek(start)
    block = file.read(BLOCK)
    return first_key(block if is_plain(block) else block + file.read(stop - start - BLOCK))


def _index_beside(url: str) -> ShardIndex | None:
    fs, path = fsspec.core.url_to_fs(str(url))
    beside = path.removesuffix(".tar") + ".idx"
    if not path.endswith(".tar") or not fs.isfile(beside):
        return None
    raw = get(fs, beside)
    return None if raw.startswith(_DALI) else checked_index(raw, fs, path, str(url))


def checked_index(raw: bytes, fs, path: str, url: str) -> ShardIndex:
    """Parse the content of a shard's `.idx` and hold the shard's length and end against it. Raises Damaged."""
    index = read_index(raw, url.removesuffix(".tar") + ".idx")
    end = int(index.offsets[-1])
    if (tail := _tail(fs, path, end)) == END:
        return index
    if len(tail) != len(END):
        said = f"{url} has {fs.size(path)} bytes, its .idx says {end + len(END)}: it was cut, or replaced"
        raise Damaged(f"{said}; {how_to_mend(url)}")
    raise Damaged(f"{url} has no end marker: it was altered; {how_to_mend(url)}")


def _tail(fs, path: str, end: int) -> bytes:
    """Return what stands at the end marker's place, and a byte of what may follow it."""
    try:
        return get(fs, path, end, end + len(END) + 1)
    except OSError:
        if fs.size(path) <= end:  # stores refuse a range that begins behind the end
            return b""
        raise


def indexed(url: str) -> "IndexedShard | None":
    """Open a shard by the index beside it; None where there is none of ours. Raises Damaged."""
    return None if _index_beside(url) is None else IndexedShard(url)


def _verified(file: BinaryIO, index: ShardIndex, url: str) -> Iterator[RawSample]:
    for i in range(len(index)):
        data = file.read(int(index.offsets[i + 1] - index.offsets[i]))
        try:
            key, members = _unpack(data, index, i, url)
            yield RawSample(key, members)
        except CorruptSample as error:
            yield RawSample(first_key(data), {}, error.kind, str(error))


def _unpack(data: bytes, index: ShardIndex, i: int, url: str) -> tuple[str, dict[str, bytes]]:
    """Verify the bytes of sample `i` and return (key, members by extension). Raises CorruptSample."""
    samples = list(read_shard(io.BytesIO(data), end=b"")) if index.matches(i, data) else []
    if len(samples) != 1 or samples[0].problem:
        why = samples[0].detail if samples else "its bytes do not match their checksum"
        raise CorruptSample(f"{url}: sample {i} is damaged ({why}): {how_to_mend(url)}")
    return samples[0].key, samples[0].members


class IndexedShard:
    """Random access to a shard through its `.idx`: `len(shard)`, `shard[i]`. Local path or any fsspec URL.

    Raises Damaged when the index is damaged or does not belong to the tar, FileNotFoundError when there is none.
    """

    def __init__(self, path: str):
        self.path = str(path)
        self._fs, self._root = fsspec.core.url_to_fs(self.path)
        self.local = is_local(self._fs)
        self._index = self._read_index()
        self._descriptor: int | None = None
        self._spool: Spool | None = None

    def _read_index(self) -> ShardIndex:
        raw = get(self._fs, self._root.removesuffix(".tar") + ".idx")
        return checked_index(raw, self._fs, self._root, self.path)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def offsets(self) -> np.ndarray:
        """The byte offsets in the tar of every sample and of the end (uint64)."""
        return self._index.offsets

    def key(self, i: int) -> str:
        """Return the key of sample `i` by its header alone, "" where that is damaged."""
        return first_key(self._sample(i))

    def __getitem__(self, i: int) -> tuple[str, dict[str, bytes]]:
        """Return (key, members by extension) of sample `i`. Raises CorruptSample, naming shard and sample."""
        return self.unpack(i, self._sample(i))

    def unpack(self, i: int, data: bytes) -> tuple[str, dict[str, bytes]]:
        """Return (key, members by extension) of sample `i`, whose bytes are `data`. Raises CorruptSample."""
        return _unpack(data, self._index, i, self.path)

    def runs(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Cut ascending indices into runs for `fetch`: on a store what one request reads, else a few at a time."""
        if self.local:
            return (indices[i : i + _AT_ONCE] for i in range(0, len(indices), _AT_ONCE))
        return runs(self._index.offsets.tolist(), indices)

    def spool(self) -> "IndexedShard":
        """Keep what `fetch` reads from a store in a temporary file, from which those samples are then read."""
        self._spool = None if self.local else Spool()
        return self

    def fetch(self, run: Sequence[int]) -> list[bytes]:
        """Return the bytes of each sample of a run."""
        if self.local:
            return [self._sample(i) for i in run]
        starts, ends = self._index.offsets[list(run)].tolist(), self._index.offsets[[i + 1 for i in run]].tolist()
        data = get(self._fs, self._root, starts[0], ends[-1])
        if self._spool:
            self._spool.put(starts, starts[0], data)
        return [data[start - starts[0] : end - starts[0]] for start, end in zip(starts, ends, strict=True)]

    def whole(self, i: int) -> bool:
        """Whether sample `i` is as it was written."""
        return self._index.matches(i, self._sample(i))

    def whole_at(self, offset: int) -> bool:
        """Whether the sample that a byte of the tar belongs to is as it was written."""
        return self.whole(int(np.searchsorted(self._index.offsets, offset, side="right")) - 1)

    def _sample(self, i: int) -> bytes:
        return self._read(int(self._index.offsets[i]), int(self._index.offsets[i + 1]))

    def _read(self, start: int, end: int) -> bytes:
        if not self.local:
            held = self._spool.get(start, end) if self._spool else None
            return get(self._fs, self._root, start, end) if held is None else held
        if self._descriptor is None:
            self._descriptor = os.open(self._root, os.O_RDONLY)
        return os.pread(self._descriptor, end - start, start)

    def __del__(self, close=os.close):  # bound here: at the end of the process modules go before objects
        if getattr(self, "_descriptor", None) is not None:
            close(self._descriptor)

    def __getstate__(self):  # a loader worker opens its own descriptor
        return self.__dict__ | {"_descriptor": None, "_spool": None}
