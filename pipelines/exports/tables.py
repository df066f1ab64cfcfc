"""Parquet that `datasets` opens with its pictures shown: one file for each shard, images as they were stored.

A cleaned sample is a row with typed columns and, as text, its whole JSON; a pack is a row with tokens and loss mask.
"""

import json
from collections.abc import Mapping

import pyarrow as pa

from corpus.folder import OutputFolder
from corpus.formats import BadSample
from corpus.packs import pack_from_members
from corpus.records import IMAGE_EXTENSIONS, Sample, from_shard
from corpus.splits import Sink, Split
from corpus.tars import RawSample
from corpus.verdicts import Lost
from pipelines.exports.sources import ROWS, Records, rows_of

_TEXT, _INT, _FLOAT = pa.string(), pa.int32(), pa.float64()
_IMAGES = pa.list_(pa.struct([("bytes", pa.binary()), ("path", _TEXT)]))
_NUMBERS = pa.list_(_FLOAT)
_BOXES = pa.list_(_NUMBERS)
_REGIONS = pa.list_(pa.struct([("text", _TEXT), ("span", pa.list_(_INT)), ("boxes", _BOXES)]))
_LINES = pa.list_(pa.struct([("text", _TEXT), ("quad", _BOXES)]))
_TURNS = pa.list_(pa.struct([("role", _TEXT), ("text", _TEXT), ("images", pa.list_(_INT))]))
_PACKED = pa.list_(
    pa.struct([("key", _TEXT), ("dataset", _TEXT), ("start", _INT), ("length", _INT), ("images", pa.list_(_INT))])
)
_DATASETS = {_TEXT: "string", _INT: "int32", _FLOAT: "float64", pa.bool_(): "bool", pa.binary(): "binary"}


def _feature(kind: pa.DataType):
    """Return what `datasets` calls a type, in the JSON of its Features; a struct of bytes and path is an Image."""
    if kind == _IMAGES.value_type:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": _DATASETS[kind], "_type": "Value"}


def _schema(columns: Mapping[str, pa.DataType]) -> pa.Schema:
    features = {name: _feature(kind) for name, kind in columns.items()}
    return pa.schema(list(columns.items()), {"huggingface": json.dumps({"info": {"features": features}})})


SAMPLES = _schema({
    "key": _TEXT, "dataset": _TEXT, "task": _TEXT, "language": _TEXT, "images": _IMAGES, "text": _TEXT,
    "width": _INT, "height": _INT, "question": _TEXT, "answer": _TEXT, "regions": _REGIONS, "lines": _LINES,
    "turns": _TURNS, "json": _TEXT,
})  # fmt: skip
PACKS = _schema({
    "key": _TEXT, "task": _TEXT, "images": _IMAGES, "tokens": pa.list_(_INT), "loss": pa.list_(pa.bool_()),
    "samples": _PACKED,
})  # fmt: skip


def export_split(split: Split, sink: Sink, limit: int | None) -> None:
    """Write the table of one shard."""
    of_pack = "stage" in split.source
    records = Records(sink, PACKS if of_pack else SAMPLES, {})
    for row, raw in rows_of(split, sink, limit):
        try:
            record = _pack_row(raw) if of_pack else _sample_row(raw)
        except Lost as lost:
            sink.lose(raw.key, row, lost.verdict)
            continue
        records.keep(raw.key, row, record, sum(map(len, raw.members.values())))
    records.flush()


def _sample_row(raw: RawSample) -> dict:
    try:
        sample = from_shard(raw.key, raw.members)
        return _typed(sample) | {"images": _images(raw), "json": raw.members["json"].decode()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise BadSample("unreadable_sample", f"{type(error).__name__}: {error}"[:300]) from None


def _typed(sample: Sample) -> dict:
    told = sample.annotations
    row = {name: getattr(sample, name) for name in ("key", "dataset", "task", "language", "text", "width", "height")}
    row |= {name: told.get(name) for name in ("question", "answer")}
    for name, kind in (("regions", _REGIONS), ("lines", _LINES), ("turns", _TURNS)):
        row[name] = pa.array([told.get(name)], kind)[0].as_py()  # raises here what would fail with the whole batch
    return row


def _pack_row(raw: RawSample) -> dict:
    pack = pack_from_members(raw.key, raw.members)
    return {
        "key": raw.key, "task": pack.task, "images": _images(raw), "tokens": pack.tokens, "loss": pack.loss,
        "samples": pack.samples,
    }  # fmt: skip


def _images(raw: RawSample) -> list[dict]:
    names = [name for name in sorted(raw.members) if name.rpartition(".")[2] in IMAGE_EXTENSIONS]
    stem = raw.key.replace("/", "-")
    return [{"bytes": raw.members[name], "path": f"{stem}.{name}"} for name in names]


def finish(folder: OutputFolder) -> None:
    """Tell `datasets` which files are the data: a header in README.md, as the hub's cards have it."""
    folder.write("README.md", _CARD.encode())


_CARD = f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: "*.{ROWS}"
---
Exported by Gristmill. Beside each `NAME.{ROWS}` stand its ledger (`NAME.parquet`) and its manifest (`NAME.json`), which
are no data; `datasets.load_dataset` of this folder reads the rows alone.
"""
