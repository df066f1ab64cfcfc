"""Blocks of what lies in an object store on the node's disk, shared by its processes, and fetched ahead of their use.

A block is there whole or not at all. Above the bound those go first whose last use lies longest back.
"""

import errno
import fcntl
import os
import queue
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCKS = 256
_LONGEST_WRITE = 3600.0  # seconds, of one block
_FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoom(ValueError):
    """The disk of a cache is full, or its folder is not ours; the message says what to do."""


def usual_folder() -> Path:
    """Return the folder of the cache where none is named: this user's, in the system's folder for temporary files."""
    return Path(tempfile.gettempdir()) / f"gristmill-blocks-{os.getuid()}"


class BlockCache:
    """A folder of at most `most` bytes, but for the blocks that are being written. Raises NoRoom."""

    def __init__(self, folder: Path | str, most: int):
        self.folder, self.most = Path(folder), most
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.folder.stat().st_uid != os.getuid():
            raise NoRoom(f"{self.folder} is another user's: name a folder of your own with --cache-dir")

    def holds(self, name: str) -> bool:
        """Whether a block is there."""
        return (self.folder / name).exists()

    def read(self, name: str, fetch: Callable[[], bytes], start: int = 0, end: int | None = None) -> bytes:
        """Return bytes of a block, which one process fetches as a whole where it is not there."""
        found = self._cut(name, start, end)
        return self._fetched(name, fetch)[start:end] if found is None else found

    def drop(self, name: str) -> None:
        """Forget a block."""
        (self.folder / name).unlink(missing_ok=True)

    def clear(self, prefix: str) -> None:
        """Forget all blocks whose names begin so."""
        for path in self.folder.glob(f"{prefix}*"):
            path.unlink(missing_ok=True)

    def _cut(self, name: str, start: int, end: int | None) -> bytes | None:
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            os.utime(descriptor)
            return os.pread(descriptor, (os.fstat(descriptor).st_size if end is None else end) - start, start)
        finally:
            os.close(descriptor)

    def _fetched(self, name: str, fetch: Callable[[], bytes]) -> bytes:
        with self._locked(name):
            if (found := self._cut(name, 0, None)) is not None:  # by another process, meanwhile
                return found
            self._write(name, data := fetch())
            return data

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with open(self.folder / f".lock-{zlib.crc32(name.encode()) % _LOCKS}", "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _write(self, name: str, data: bytes) -> None:
        self._make_room(len(data))
        temporary = self.folder / f"{name}.{os.getpid()}-{threading.get_ident()}.tmp"
        try:
            temporary.write_bytes(data)
            temporary.replace(self.folder / name)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in _FULL:
                raise
            text = "the disk is full: give the cache another --cache-dir, or less than --cache-gb"
            raise NoRoom(f"{self.folder}: {text} {self.most / 1e9:.3g}") from None

    def _make_room(self, size: int) -> None:
        held = sorted(self._held())
        total = size + sum(each for _, each, _ in held)
        for _, each, name in held:
            if total <= self.most:
                return
            self.drop(name)
            total -= each

    def _held(self) -> Iterator[tuple[int, int, str]]:
        """Yield (last use, size, name) of every block, and of what killed processes were writing."""
        with os.scandir(self.folder) as files:
            for file in files:
                with suppress(FileNotFoundError):  # another process has dropped it
                    about = file.stat()
                    writing = file.name.endswith(".tmp") and time.time() - about.st_mtime < _LONGEST_WRITE
                    if not (writing or file.name.startswith(".lock-")):
                        yield about.st_mtime_ns, about.st_size, file.name


class Fetchers:
    """Threads that do what is asked of them, in order; what there is no room for is forgotten, and so are errors.

    They end with the process, whatever they are at.
    """

    def __init__(self, threads: int, room: int):
        self._asked: set[str] = set()
        self._waiting: queue.Queue[tuple[str, Callable[[], object]]] = queue.Queue(room)
        self.process = os.getpid()  # threads do not survive a fork
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def ask(self, name: str, work: Callable[[], object]) -> None:
        """Have `work` done, unless it was asked for under this name and is not done yet."""
        if name in self._asked:
            return
        self._asked.add(name)
        try:
            self._waiting.put_nowait((name, work))
        except queue.Full:
            self._asked.discard(name)

    def _work(self) -> None:
        while True:
            name, work = self._waiting.get()
            with suppress(Exception):  # who needs it meets the error himself
                work()
            self._asked.discard(name)
