"""The size of raw data that are there: files by a listing, rows and images by looking into a few of them."""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from corpus.inputs import fingerprint
from corpus.records import IMAGE_EXTENSIONS
from corpus.tars import read_shard
from pipelines.engine.inputs import UserError, find_inputs

LOOKED_INTO = 8  # files, evenly spread over the list
SAMPLES = 500  # of a tar
_IMAGES = (*IMAGE_EXTENSIONS, "jpeg", "gif", "bmp")
# What an unreadable file makes the readers raise.
_UNREADABLE = (OSError, EOFError, ValueError, pa.ArrowException, tarfile.TarError)


@dataclass(frozen=True)
class Size:
    """Rows are counted in `looked_into` files and extrapolated by bytes. `image_bytes`: of a mean one, None without."""

    files: int
    bytes: float
    rows: float
    image_bytes: float | None
    looked_into: int


def size_of(patterns: Sequence[str]) -> Size:
    """Return the size of tars or parquets. UserError for other files, and where no row can be read."""
    urls = [url for url in find_inputs(patterns) if url.endswith((".tar", ".parquet"))]
    tars = [url for url in urls if url.endswith(".tar")]
    urls = tars or urls  # img2dataset writes a parquet beside each tar
    if not urls:
        raise UserError(f"{' '.join(patterns)}: rows can be counted in .tar and .parquet files alone; say --rows")
    total = float(sum(fingerprint(url)["size"] for url in urls))
    found = [each for url in urls[:: max(1, -(-len(urls) // LOOKED_INTO))] if (each := _look(url))]
    rows, read = sum(each[0] for each in found), sum(each[1] for each in found)
    if not rows:
        raise UserError(f"{' '.join(patterns)}: no row in the {len(found)} files that could be read; say --rows")
    images, image_bytes = sum(each[2] for each in found), sum(each[3] for each in found)
    return Size(len(urls), total, total * rows / read, image_bytes / images if images else None, len(found))


def _look(url: str) -> tuple[int, float, int, float] | None:
    """Return (rows, the bytes that hold them, images, their bytes) of a file or its beginning; None: unreadable."""
    try:
        with fsspec.open(url, "rb") as file:
            return _look_into_table(file) if url.endswith(".parquet") else _look_into_tar(file)
    except _UNREADABLE:
        return None


def _look_into_tar(file) -> tuple[int, float, int, float]:
    rows, images, image_bytes = 0, 0, 0.0
    for sample in islice(read_shard(file), SAMPLES):
        rows += 1
        found = [len(data) for name, data in sample.members.items() if name.rpartition(".")[2].lower() in _IMAGES]
        images, image_bytes = images + len(found), image_bytes + sum(found)
    return rows, float(file.tell()), images, image_bytes


def _look_into_table(file) -> tuple[int, float, int, float]:
    table = pq.ParquetFile(file)
    held = float(sum(table.metadata.row_group(i).total_byte_size for i in range(table.num_row_groups)))
    rows, size = table.metadata.num_rows, float(file.seek(0, 2))
    has_images = any(pa.types.is_binary(kind) or pa.types.is_struct(kind) for kind in table.schema_arrow.types)
    return rows, size, rows if has_images else 0, held if has_images else 0.0
