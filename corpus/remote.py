"""Reads from object stores, where a request costs tens of milliseconds however little it asks for.

A small file is one request; samples that lie side by side are read together, and ahead of their use.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from tempfile import TemporaryFile
from typing import TypeVar

from fsspec.implementations.local import LocalFileSystem

BLOCK_BYTES = 8 << 20  # of one request
PART_BYTES = 16 << 20  # of an upload
GAP_BYTES = 1 << 20  # are read and thrown away rather than asked around: they come in less than an answer's time
AHEAD = 4  # requests under way while their user works
Item = TypeVar("Item")
Result = TypeVar("Result")


def is_local(fs) -> bool:
    """Whether a file system is the machine's own."""
    return isinstance(fs, LocalFileSystem)


def protocols(fs) -> tuple[str, ...]:
    """Return the names that a file system goes by."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def get(fs, path: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return a file's bytes, or those from `start` to `end`, by one request."""
    if start is None and "s3" in protocols(fs):
        return fs.cat_file(path, max_concurrency=1)  # by default s3fs asks for the size before
    return fs.cat_file(path, start=start, end=end)


def put(fs, local: str, path: str) -> None:
    """Copy a local file to a store; a large one in parts, of which few are under way, and in memory, at a time."""
    parts = {"chunksize": PART_BYTES, "max_concurrency": 2 * AHEAD} if "s3" in protocols(fs) else {}
    fs.put_file(local, path, **parts)


def prefetched(work: Callable[[Item], Result], items: Iterable[Item], ahead: int = AHEAD) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order, so many of them begun ahead in threads; 0: none, as map does."""
    if not ahead:
        yield from map(work, items)
        return
    pool, begun = ThreadPoolExecutor(ahead), deque[Future[Result]]()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def runs(offsets: Sequence[int], indices: Iterable[int]) -> Iterator[list[int]]:
    """Cut ascending indices into runs that one request reads: sample i lies at offsets[i] to offsets[i + 1]."""
    run: list[int] = []
    for i in indices:
        apart = run and offsets[i] - offsets[run[-1] + 1] > GAP_BYTES
        if apart or (run and offsets[i + 1] - offsets[run[0]] > BLOCK_BYTES):
            yield run
            run = []
        run.append(i)
    if run:
        yield run


class Spool:
    """What was read of a file, at its own place in a nameless temporary file, to be read again from there."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 - closed with the object
        self._held: set[int] = set()

    def put(self, starts: Iterable[int], at: int, data: bytes) -> None:
        """Keep `data`, which begins at byte `at` of the file; pieces of it may be asked for by their `starts`."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file.fileno(), view, at)
            view, at = view[written:], at + written
        self._held.update(starts)

    def get(self, start: int, end: int) -> bytes | None:
        """Return the bytes from `start` to `end`; None where no kept piece starts there."""
        return os.pread(self._file.fileno(), end - start, start) if start in self._held else None
