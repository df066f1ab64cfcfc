"""What is handed on: the samples of cleaned or of stage folders, split by split, each verified as it is read."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice

import numpy as np
import pyarrow as pa

from corpus import packs
from corpus.inputs import names
from corpus.ledger import KEPT, schema
from corpus.packs import StageFolder
from corpus.shards import keys_in, read_samples
from corpus.splits import Sink, Split
from corpus.tars import RawSample
from pipelines.engine.inputs import UserError
from pipelines.explorer.folders import Opened, open_folders

ROWS = "rows.parquet"  # the suffix of a split's records
_BATCH_BYTES = 64 << 20  # of records that are held before they are written
_BATCH_ROWS = 1000


def open_sources(paths: Iterable[str], *, one_kind: bool) -> list[Opened]:
    """Open the folders with shards at or below `paths`; of `one_kind`: all are cleaned, or all are stage folders."""
    opened = [folder for folder in open_folders(paths) if any("tar" in each.files for each in folder.manifests)]
    if not opened:
        raise UserError(f"{' '.join(paths)}: no shards there; folders of URLs have to be downloaded first")
    unfinished = [folder.folder.url for folder in opened if is_stage(folder) and folder.stage is None]
    if unfinished:
        raise UserError(f"{unfinished[0]} is no finished stage folder: build_stage.py writes {packs.CORPUS} last")
    if filling := [folder.folder.url for folder in opened if folder.folder.planned() is not None]:
        raise UserError(f"{filling[0]} is not finished: run its command to the end")
    if one_kind and len({is_stage(folder) for folder in opened}) > 1:
        raise UserError("cleaned folders and stage folders together: name the one kind or the other")
    return opened


def is_stage(opened: Opened) -> bool:
    """Whether a folder holds packs of tokens."""
    return opened.settings.get("job") == "build_stage"


def plan(opened: Iterable[Opened]) -> list[Split]:
    """Return one split for each shard, named after it, and told apart by the digest of its bytes."""
    shards = {
        f"{each.folder.url}/{manifest.split}.tar": (each, manifest)
        for each in opened for manifest in each.manifests if "tar" in manifest.files and manifest.counts.kept
    }  # fmt: skip
    called = names(shards)
    return [
        Split(
            called[url],
            {"url": url} | ({"stage": each.folder.url} if is_stage(each) else {}),
            {"tar": manifest.files["tar"]},
        )
        for url, (each, manifest) in shards.items()
    ]


@lru_cache(maxsize=2)
def stage_of(url: str) -> StageFolder:
    """Open a stage folder, once in a process."""
    return StageFolder(url)


def rows_of(split: Split, sink: Sink, limit: int | None) -> Iterator[tuple[int, RawSample]]:
    """Yield (row, sample) of a shard, every one verified; those that are damaged go to the sink as errors."""
    url = split.source["url"]
    keys = keys_in(url)
    sink.expects(np.arange(len(keys)), lambda row: keys[row], limit)
    for row, raw in enumerate(islice(read_samples(url), limit)):
        if raw.problem:
            sink.error(raw.key or f"{split.id}/{row:06d}", row, raw.problem, raw.detail)
        else:
            yield row, raw


class Records:
    """Collects kept records and their ledger rows, and writes them in batches of bounded size."""

    def __init__(self, sink: Sink, columns: pa.Schema, scores: Mapping[str, pa.DataType]):
        self._sink, self._columns, self._ledger = sink, columns, schema(scores)
        self._records: list[dict] = []
        self._rows: list[dict] = []
        self._bytes = 0
        sink.write_table(columns.empty_table())  # a split of which nothing is kept has a table too

    def keep(self, key: str, row: int, record: Mapping, size: int, **columns) -> None:
        """Take one record of about `size` bytes."""
        self._records.append(dict(record))
        self._rows.append({"key": key, "row": row, "outcome": KEPT, **columns})
        self._bytes += size
        if self._bytes >= _BATCH_BYTES or len(self._rows) >= _BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if self._rows:
            self._sink.write_table(pa.Table.from_pylist(self._records, schema=self._columns))
            self._sink.rows(pa.Table.from_pylist(self._rows, schema=self._ledger))
        self._records, self._rows, self._bytes = [], [], 0
