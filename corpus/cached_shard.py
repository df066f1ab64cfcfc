"""A shard of an object store that is read through a cache of blocks: its index, and runs of neighbouring samples."""

from collections.abc import Callable

from corpus.blocks import BlockCache
from corpus.patience import patiently
from corpus.remote import get
from corpus.shard_index import ShardIndex, read_index
from corpus.shards import IndexedShard, checked_index


class CachedShard(IndexedShard):
    """An IndexedShard whose samples come in blocks of `block`; `first` is its first sample's number in the corpus.

    `name` is what its blocks are called in the cache. `admit` is called before its index is fetched, once for all
    processes of the node, and may raise.
    """

    def __init__(self, path: str, cache: BlockCache, name: str, block: int, first: int, admit: Callable[[], None]):
        self._cache, self._name, self._block, self._first, self._admit = cache, name, block, first, admit
        super().__init__(path)

    def _read_index(self) -> ShardIndex:
        name = f"{self._name}.idx"
        try:
            return read_index(self._cache.read(name, self._fetch_index), name)
        except ValueError:  # damaged on the node's disk, or in the store, of which the next try tells
            self._cache.drop(name)
            return read_index(self._cache.read(name, self._fetch_index), name)

    def _fetch_index(self) -> bytes:
        self._admit()
        raw = patiently(lambda: get(self._fs, self._root.removesuffix(".tar") + ".idx"))
        patiently(lambda: checked_index(raw, self._fs, self._root, self.path))
        return raw

    def _sample(self, i: int) -> bytes:
        data = self._through_cache(i)
        if not self._index.matches(i, data):  # the node's disk may be at fault
            self._cache.drop(self._block_of(i)[0])
            data = self._through_cache(i)
        return data

    def have(self, i: int) -> None:
        """Fetch the block of sample `i` unless the cache has it."""
        name, start, end = self._block_of(i)
        self._cache.read(name, lambda: self._fetch_block(start, end), 0, 0)

    def _through_cache(self, i: int) -> bytes:
        name, start, end = self._block_of(i)
        begins, ends = int(self._index.offsets[i]), int(self._index.offsets[i + 1])
        return self._cache.read(name, lambda: self._fetch_block(start, end), begins - start, ends - start)

    def _block_of(self, i: int) -> tuple[str, int, int]:
        """Return the name of a sample's block, and the bytes of the shard where it begins and ends."""
        begin = block_begin(i, self._block, self._first)
        end = min(len(self), (self._first + i) // self._block * self._block + self._block - self._first)
        return f"{self._name}-{begin}", int(self._index.offsets[begin]), int(self._index.offsets[end])

    def _fetch_block(self, start: int, end: int) -> bytes:
        return patiently(lambda: get(self._fs, self._root, start, end))


def block_begin(i: int, block: int, first: int) -> int:
    """Return the first sample of a shard's sample `i`'s block, where blocks of `block` are cut across all shards."""
    return max(0, (first + i) // block * block - first)
