"""What a folder's manifests say, of many at once: from a few index files and one listing, not from every manifest.

Each file of `.index/` tells of thousands of committed splits. What it tells of one holds while the listing says of the
split's manifest what it said then: size, and ETag or the time it was written. Otherwise, and where there is no index,
the manifest is read; when many had to be, they are written down in an index file.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.damage import Damaged, how_to_mend
from corpus.folder import INDEX, Listing, Manifest, OutputFolder
from corpus.ledger import Counts

BATCH = 1000  # splits that one index file tells of, at least
MOST_FILES = 64  # then they are joined
READERS = 32
_AT_ONCE = 10_000
_SCHEMA = pa.schema([
    ("mark", pa.string()), ("split", pa.string()), ("settings_digest", pa.string()), ("input", pa.string()),
    ("files", pa.string()), ("counts", pa.string()), ("seconds", pa.float64()), ("changed", pa.int64()),
])  # fmt: skip


class Entry(NamedTuple):
    """A committed split. `input`, `files` (suffix -> size, null where unknown) and `counts` are JSON."""

    split: str
    settings_digest: str
    input: str
    files: str
    counts: str
    seconds: float
    changed: int

    def is_of(self, fingerprint: Mapping, settings_digest: str) -> bool:
        """Whether the split was made from this input with these settings."""
        return self.settings_digest == settings_digest and self.input == _text(fingerprint)

    def complete(self, sizes: Mapping[str, int]) -> bool:
        """Whether the split's files are there, of the sizes that its manifest lists; `sizes` are the folder's."""
        for suffix, size in json.loads(self.files).items():
            there = sizes.get(f"{self.split}.{suffix}")
            if there is None or size not in (None, there):
                return False
        return True


def _text(value) -> str:
    return json.dumps(value, sort_keys=True)


class Total:
    """A sum of many counts, without a new sum for each."""

    def __init__(self) -> None:
        self._sum = Counts(dropped=Counter(), errors=Counter(), unjudged=Counter())

    def add(self, counts: Mapping) -> None:
        """Add counts as a manifest tells them."""
        for name, value in counts.items():
            if isinstance(value, int):
                setattr(self._sum, name, getattr(self._sum, name) + value)
            else:
                getattr(self._sum, name).update(value)

    def counts(self) -> Counts:
        """Return the sum."""
        return self._sum + Counts()


def entries(folder: OutputFolder, listing: Listing) -> Iterator[Entry]:
    """Yield what is known of every committed split of a folder, in no order. Raises Damaged.

    Reads the manifests that no index file tells of; each BATCH of them or more makes a new one.
    """
    left = set(listing.marks)
    for table in _indexed(folder, listing):
        splits = table["split"].to_pylist()
        fresh = table.filter(pa.array((split in left for split in splits), pa.bool_()))
        yield from map(Entry._make, zip(*(column.to_pylist() for column in fresh.columns[1:]), strict=True))
        left.difference_update(splits)
    unknown = sorted(left)
    for start in range(0, len(unknown), _AT_ONCE):
        read = _read(folder, unknown[start : start + _AT_ONCE])
        yield from read
        if len(read) >= BATCH:
            columns = zip(*((listing.marks[entry.split], *entry) for entry in read), strict=True)
            _write(folder, pa.table(list(map(pa.array, columns)), names=_SCHEMA.names).cast(_SCHEMA))


def _indexed(folder: OutputFolder, listing: Listing) -> Iterator[pa.Table]:
    """Yield what the index files tell of splits as they are now; when the files are many, they are joined."""
    if INDEX not in listing.sizes:
        return
    inner, told = OutputFolder(f"{folder.url}/{INDEX}"), []
    files = [name for name in inner.names() if name.endswith(".parquet")]
    for name in files:
        raw = inner.read(name)
        if name != _name(raw):  # it was cut or altered: the manifests are read
            continue
        for batch in pq.ParquetFile(pa.BufferReader(raw)).iter_batches(_AT_ONCE, use_threads=False):
            table = _valid(pa.Table.from_batches([batch]), listing)
            told += [table] if len(files) >= MOST_FILES else []
            yield table
    if told:
        _write(folder, pa.concat_tables(told), files)


def _valid(table: pa.Table, listing: Listing) -> pa.Table:
    pairs = zip(table["split"].to_pylist(), table["mark"].to_pylist(), strict=True)
    return table.filter(pa.array((listing.marks.get(split) == mark for split, mark in pairs), pa.bool_()))


def _read(folder: OutputFolder, splits: list[str]) -> list[Entry]:
    with ThreadPoolExecutor(min(READERS, len(splits))) as pool:
        return list(pool.map(lambda split: _entry(folder, folder.manifest(split)), splits))


def _entry(folder: OutputFolder, manifest: Manifest) -> Entry:
    changed = _changed(folder, manifest.split) if manifest.changed is None else manifest.changed
    files = manifest.sizes or dict.fromkeys(manifest.files)
    counts = _text(vars(manifest.counts))
    return Entry(manifest.split, manifest.settings_digest, _text(manifest.input), _text(files), counts,
                 manifest.seconds, changed)  # fmt: skip


def _changed(folder: OutputFolder, split: str) -> int:
    """Count the rows whose text a cleaner changed, of a split whose manifest is too old to say."""
    try:
        with folder.fs.open(folder.path(f"{split}.parquet"), "rb") as file:
            metadata = pq.ParquetFile(file).metadata
        column = metadata.schema.to_arrow_schema().get_field_index("text_after")
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        return sum(group.num_rows - group.column(column).statistics.null_count for group in groups)
    except (pa.ArrowException, OSError, AttributeError) as error:
        where = f"{folder.url}/{split}.parquet"
        raise Damaged(f"{where} cannot be read ({error}): {how_to_mend(where)}") from None


def _write(folder: OutputFolder, table: pa.Table, replaced: Sequence[str] = ()) -> None:
    inner, file = OutputFolder(f"{folder.url}/{INDEX}"), io.BytesIO()
    pq.write_table(table.take(pc.sort_indices(table["split"])), file, compression="zstd")
    inner.fs.makedirs(inner.root, exist_ok=True)
    inner.write(name := _name(file.getvalue()), file.getvalue())
    inner.remove([old for old in replaced if old != name])


def _name(raw: bytes) -> str:
    return f"{hashlib.sha256(raw).hexdigest()[:24]}.parquet"
