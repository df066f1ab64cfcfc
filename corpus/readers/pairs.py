"""Image-text pairs as LAION, COYO and DataComp publish them: URL parquet, image parquet, img2dataset shards.

Every reader yields batches; a batch holds one `Pair` or table row for every input row, the broken ones included.
Schemas: the datasets' own repositories; img2dataset's layout: its README.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from corpus.bugs import why_data
from corpus.passthrough import columns_of
from corpus.readers.parquet import records, text_chunks, whole_groups
from corpus.readers.rows import BadRow
from corpus.records import IMAGE_EXTENSIONS, BadImage, image_header
from corpus.shards import RawSample, read_samples
from corpus.values import load_json, valid_text

BATCH_ROWS = 1024
BATCH_BYTES = 64 << 20
TABLE_ROWS = 65_536  # of tables that may hold images
URL_ROWS = 131_072  # of tables without: fewer batches, since Arrow compiles every pattern anew for each
KEY_COLUMN = "sample_key"  # carries a row's key from metadata mode through a downloader
SHIPPED = ("clip_score", "nsfw", "watermark", "toxicity")  # scores that come with a dataset
_NUMBER = r"^[+-]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})([eE][+-]?[0-9]{1,2})?$"
LONGEST_KEY = 500  # of those found in data
# img2dataset and Hugging Face name the bytes so; a struct has the fields `bytes` and `path`.
_IMAGE_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "image_path", "path")
# The joined LAION releases add these and carry WIDTH and HEIGHT the right way round; the raw ones have them swapped.
_JOINED_COLUMNS = {"hash", "pwatermark", "punsafe"}


@dataclass(frozen=True)
class PairReader:
    """How a table's columns are meant. `swapped`: width stands for height, unless `joined` columns are there too."""

    swapped: bool = False


READERS = {"laion": PairReader(swapped=True), "laion-joined": PairReader(), "columns": PairReader()}


class MissingColumns(ValueError):
    """A table lacks a column that the catalog names."""


@dataclass(slots=True)
class Pair:
    """One input row with its image. `problem` is the error kind where it cannot be used, `detail` what was seen."""

    row: int
    text: str | None = None
    image: bytes | None = None
    ext: str = ""
    width: int | None = None
    height: int | None = None
    clip_score: float | None = None
    nsfw: float | None = None
    watermark: float | None = None
    toxicity: float | None = None
    key: str | None = None  # the job's; what the data calls the row is in `source`: `key` (its tar) and `sample_key`
    source: dict = field(default_factory=dict)
    columns: Mapping | BadRow | None = None  # its owner's; a BadRow: nobody can read them. None where none is carried
    problem: str | None = None
    detail: str = ""


# --- img2dataset shards ---


def shard_pairs(url: str, columns: Mapping[str, str], carried: Sequence[str] = ()) -> Iterator[list[Pair]]:
    """Yield batches of pairs of a WebDataset shard, in its order; `columns` maps our names to keys of its JSON.

    Those that are `carried` come along in `Pair.columns`.
    """
    pairs = (_shard_pair(row, raw, columns, bool(carried)) for row, raw in enumerate(read_samples(url)))
    return _batches(pairs)


def _shard_pair(row: int, raw: RawSample, columns: Mapping[str, str], carries: bool) -> Pair:
    pair = Pair(row, source={"key": raw.key}, problem=raw.problem, detail=raw.detail)
    pair.columns = columns_of(raw) if carries else None
    if pair.problem:
        return pair
    images = [data for ext, data in raw.members.items() if ext.rpartition(".")[2] in (*IMAGE_EXTENSIONS, "jpeg", "gif")]
    if len(images) != 1:
        pair.problem, pair.detail = "no_image", f"{len(images)} images among members {sorted(raw.members)}"
        return pair
    try:
        record = load_json(raw.members.get("json", b"{}"))
        _take_record(pair, record if isinstance(record, dict) else {}, raw.members, columns)
    except ValueError as error:
        pair.problem, pair.detail = "bad_json", str(error)
        return pair
    return _with_image(pair, images[0])


def _take_record(pair: Pair, record: dict, members: Mapping[str, bytes], columns: Mapping[str, str]) -> None:
    text = record.get(columns["text"])
    if text is None and "txt" in members:
        text = valid_text(members["txt"].decode("utf-8", "replace"))
    if text is None:
        text = record.get("caption", record.get("text"))
    pair.text = text if isinstance(text, str) else None
    scores = record.get("scores") if isinstance(record.get("scores"), dict) else {}
    pair.clip_score = _number(record.get(columns.get("clip_score"), scores.get("clip")))
    for name in ("nsfw", "watermark", "toxicity"):
        setattr(pair, name, _number(record.get(columns.get(name))))
    if found := found_key(record.get(KEY_COLUMN)):
        pair.source[KEY_COLUMN] = found
    source = record.get("source") if isinstance(record.get("source"), dict) else {}
    url = record.get("url") or record.get(columns.get("url")) or source.get("url")
    if isinstance(url, str):
        pair.source["url"] = url


def _number(value) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None


def found_key(value) -> str | None:
    """What the data calls a row, fit for a ledger; None where it is no string. Never a key of ours."""
    if not isinstance(value, str) or not value:
        return None
    return value[:LONGEST_KEY].encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _with_image(pair: Pair, data: bytes) -> Pair:
    try:
        pair.ext, pair.width, pair.height = image_header(data)
        pair.image = data
    except BadImage as error:
        pair.problem, pair.detail = error.kind, str(error)
    return pair


def _batches(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    batch, size = [], 0
    for pair in pairs:
        batch.append(pair)
        size += len(pair.image or b"")
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def lost_downloads(tar: str, seen: set[str]) -> list[tuple[str, str, str]]:
    """Return what `failed_downloads` finds in the parquet beside a tar; nothing where none lies there.

    One that cannot be read is one `unreadable_sidecar`: which rows the tar lacks, nobody knows.
    """
    fs, path = fsspec.core.url_to_fs(tar.removesuffix(".tar") + ".parquet")
    if not fs.isfile(path):
        return []
    try:
        with fs.open(path, "rb") as file:
            return list(failed_downloads(file, seen))
    except Exception as error:
        return [(PurePosixPath(path).name, "unreadable_sidecar", f"{path}: {why_data(error)}")]


def failed_downloads(sidecar: BinaryIO, seen: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield (key, kind, detail) for the rows of the downloader's parquet that the tar does not hold.

    The parquet is img2dataset's, or the ledger of fetch_images.py. `seen` are the tar's base names. `not_downloaded`:
    the downloader recorded a failure. `missing_from_shard`: it recorded success, so the tar lost the sample.
    """
    parquet = pq.ParquetFile(sidecar)  # pq.read_table would import pandas, and take longer than all of a small shard
    names = parquet.schema_arrow.names
    ours = {"outcome", "sha256"} <= set(names)
    if not ours and "status" not in names:  # the ledger of a job that downloaded nothing
        return
    columns = ["key", "outcome", "rule", "detail"] if ours else ["key", "status", "error_message"]
    table = parquet.read(columns, use_threads=False)
    for row in pa.table({name: text_chunks(table[name]) for name in columns}).to_pylist():
        if ours and row["outcome"] != "kept":
            yield row["key"], "not_downloaded", f"{row['rule']}: {row['detail']}"
        elif not ours and row["status"] != "success":
            yield row["key"], "not_downloaded", f"{row['status']}: {row['error_message']}"
        elif row["key"] not in seen:
            yield row["key"], "missing_from_shard", "the downloader's parquet lists it as a success"


# --- Parquet ---


@dataclass(frozen=True)
class TableLayout:
    """How to read a parquet file: our column -> its column, and where its images are, if anywhere."""

    columns: Mapping[str, str]
    image: str | None


def table_layout(schema: pa.Schema, columns: Mapping[str, str], reader: str, where: str) -> TableLayout:
    """Match a file's schema with the catalog. Raises MissingColumns, naming what is there."""
    found = {ours: theirs for ours, theirs in columns.items() if theirs in schema.names}
    image = columns.get("image") or next((n for n in _IMAGE_COLUMNS if n in schema.names), None)
    if "text" not in found or (image is None and "url" not in found):
        lacking = [theirs for ours, theirs in columns.items() if ours in ("text", "url") and ours not in found]
        raise MissingColumns(
            f"{where}: no column {', '.join(map(repr, lacking))}; it has {', '.join(schema.names)}. "
            "Choose another --dataset, or set the entry's `columns` in a catalog of your own (--catalog)"
        )
    if twice := [name for name in (*found.values(), image) if name and schema.names.count(name) > 1]:
        raise MissingColumns(f"{where}: two columns are named {twice[0]!r}, which of them is meant?")
    if READERS[reader].swapped and not _JOINED_COLUMNS & set(schema.names) and {"width", "height"} <= found.keys():
        found = found | {"width": found["height"], "height": found["width"]}
    return TableLayout(found, image if image in schema.names else None)


def tables(file: BinaryIO, row_groups: Sequence[int], rows: int = TABLE_ROWS) -> Iterator[pa.Table | BadRow]:
    """Yield the rows of some row groups as tables of bounded size, all columns; a BadRow for rows that are damaged."""
    for batch in whole_groups(file, row_groups, rows):
        yield batch if isinstance(batch, BadRow) else pa.Table.from_batches([batch])


def rule_columns(table: pa.Table, layout: TableLayout) -> pa.Table:
    """Return text (string), width, height (int32) and the shipped scores (float64) as the rules take them."""
    made = {"text": text_chunks(table[layout.columns["text"]])}
    for name, kind in (("width", pa.int32()), ("height", pa.int32()), *((each, pa.float64()) for each in SHIPPED)):
        if name in layout.columns:
            made[name] = _numeric(table[layout.columns[name]], kind)
    return pa.table(made)


def _numeric(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Return a column as numbers; null where it holds something else ("n/a", "")."""
    try:
        numbers = pc.cast(column, pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        texts = pc.utf8_trim_whitespace(text_chunks(column))
        numbers = pc.cast(pc.if_else(pc.match_substring_regex(texts, _NUMBER), texts, None), pa.float64())
    usable = pc.and_(pc.is_finite(numbers), pc.less(pc.abs(numbers), 2**31))
    return pc.cast(pc.if_else(usable, numbers, None), kind, safe=False)


def table_pairs(
    table: pa.Table, layout: TableLayout, first_row: int, images: Path | None, carried: Sequence[str] = ()
) -> Iterator[list[Pair]]:
    """Yield batches of pairs of a table whose image column holds bytes, or paths below the folder `images`."""
    rules = rule_columns(table, layout).to_pylist()
    urls = text_chunks(table[layout.columns["url"]]).to_pylist() if "url" in layout.columns else [None] * len(rules)
    keys = text_chunks(table[KEY_COLUMN]).to_pylist() if KEY_COLUMN in table.column_names else [None] * len(rules)
    values = table[layout.image]
    told: Sequence[Mapping | BadRow | None] = list(carried_of(table, carried)) or [None] * len(rules)

    def pairs() -> Iterator[Pair]:
        for i, (rule_row, url, key) in enumerate(zip(rules, urls, keys, strict=True)):
            pair = Pair(first_row + i, rule_row["text"], **{name: rule_row.get(name) for name in SHIPPED})
            pair.columns = told[i]
            pair.source = {"url": url} if url else {}
            if found := found_key(key):
                pair.source[KEY_COLUMN] = found
            yield _with_cell(pair, values[i], images)

    return _batches(pairs())


def carried_of(table: pa.Table, carried: Sequence[str]) -> Iterator[Mapping | BadRow]:
    """Yield each row's columns that are `carried`, the others' names with them; nothing where none is."""
    if not carried:
        return
    others = dict.fromkeys(name for name in table.column_names if name not in carried)
    there = [table.column_names.index(name) for name in carried if name in table.column_names]
    if not there:
        yield from [others] * table.num_rows
    for batch in table.select(there).to_batches() if there else ():
        yield from (row if isinstance(row, BadRow) else row | others for row in records(batch))


def _with_cell(pair: Pair, cell: pa.Scalar, images: Path | None) -> Pair:
    try:
        value = cell.as_py()
    except Exception as error:  # a path that is no UTF-8
        pair.problem, pair.detail = "no_image", why_data(error)
        return pair
    return _with_stored_image(pair, value, images)


def _with_stored_image(pair: Pair, value, images: Path | None) -> Pair:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        value = _read_below(pair, value, images)
    if pair.problem is None and not isinstance(value, bytes):
        pair.problem, pair.detail = "no_image", "the image column is null"
    return pair if pair.problem else _with_image(pair, value)


def _read_below(pair: Pair, name: str, images: Path | None) -> bytes | None:
    """Read a file that the data names, but only from below the folder that the user named."""
    if images is None:
        pair.problem, pair.detail = "image_path_not_allowed", f"{name!r}: name the folder of images with --images"
        return None
    try:
        path = (images / name.replace("\0", "\ufffd")).resolve()
        found = path.is_file()
    except (OSError, RuntimeError) as error:  # a name too long for any file, a loop of links
        pair.problem, pair.detail = "image_file_missing", f"{name[:200]!r}: {error}"[:300]
        return None
    if not path.is_relative_to(images.resolve()):
        pair.problem, pair.detail = "path_outside_images", repr(name)
    elif not found:
        pair.problem, pair.detail = "image_file_missing", repr(name)
    else:
        return path.read_bytes()
    return None
