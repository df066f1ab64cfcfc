"""The `.idx` beside a shard: where every sample lies, and a checksum of each.

Version 2, little-endian uint64 throughout: eight bytes of magic; the byte offset in the tar of every sample and of the
end; the xxh3-64 of every sample's bytes (headers and padding included); the xxh3-64 of all that. Version 1 is the
offsets alone; it begins with eight zero bytes, the offset of the first sample, which no magic does.
"""

from dataclasses import dataclass

import numpy as np
import xxhash

from corpus.damage import Damaged, how_to_mend

MAGIC = b"\x93GMIDX2\n"
_U8 = "<u8"


@dataclass(frozen=True)
class ShardIndex:
    """Offsets of a shard's n samples and of its end, and n checksums (None where the index is of version 1)."""

    offsets: np.ndarray
    checksums: np.ndarray | None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def to_bytes(self) -> bytes:
        """Return the content of the `.idx` file, always of version 2."""
        body = MAGIC + np.asarray(self.offsets, _U8).tobytes() + np.asarray(self.checksums, _U8).tobytes()
        return body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")

    def matches(self, i: int, data: bytes) -> bool:
        """Whether `data` are the bytes that were written as sample `i`; True where there is no checksum to tell."""
        return self.checksums is None or xxhash.xxh3_64_intdigest(data) == self.checksums[i]


def read_index(raw: bytes, path: str) -> ShardIndex:
    """Parse the content of `path`, an `.idx` file. Raises Damaged."""
    if raw.startswith(MAGIC) and len(raw) >= 24 and len(raw) % 16 == 8:
        if int.from_bytes(raw[-8:], "little") == xxhash.xxh3_64_intdigest(raw[:-8]):
            values = np.frombuffer(raw, _U8)[1:-1]
            size = len(values) // 2 + 1
            return ShardIndex(values[:size], values[size:])
    elif raw[:8] == bytes(8) and len(raw) % 8 == 0:
        offsets = np.frombuffer(raw, _U8)
        if (offsets[1:] > offsets[:-1]).all() and not (offsets % 512).any():
            return ShardIndex(offsets, None)
    raise Damaged(f"{path} ({len(raw)} bytes) is cut or altered, or no index of ours: {how_to_mend(path)}")
