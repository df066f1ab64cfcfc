"""A damaged compressed file, read up to the damage: every reader sees the same bytes, however large its reads."""

import io
from typing import BinaryIO

from corpus.bugs import why_data

_STEP = 1 << 16  # what a decompressor gives before damage depends on how much it is asked for


class SteadyReader(io.RawIOBase):
    """Reads a decompressing file in steps of one size; where it breaks it ends, and `broken` says why."""

    def __init__(self, file: BinaryIO):
        self._file, self._left, self._at, self.broken = file, b"", 0, None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if not self._left:
            self._left = self._step()
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        self._at += size
        return size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        offset += self._at if whence == io.SEEK_CUR else 0
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of a compressed file is known when it has been read")
        if offset < self._at:
            self._file.seek(0)
            self._left, self._at, self.broken = b"", 0, None
        skipped = bytearray(_STEP)
        while self._at < offset and self.readinto(memoryview(skipped)[: offset - self._at]):
            pass
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()

    def _step(self) -> bytes:
        try:
            return b"" if self.broken else self._file.read1(_STEP)
        except Exception as error:
            self.broken = why_data(error)
            return b""
