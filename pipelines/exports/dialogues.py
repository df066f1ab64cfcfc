"""LLaVA and ShareGPT JSON: one list of dialogues, images in folders beside it.

Every shard is a split with a ledger of its own; its images are written as they are, its dialogues into a table. At the
end one JSON file is made of all tables, row by row.
"""

import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from corpus.folder import OutputFolder
from corpus.formats import BadSample, Unfit, format_sample
from corpus.packs import pack_from_members
from corpus.records import BadImage, EncodedImage, from_shard, image_header
from corpus.splits import Sink, Split
from corpus.tars import RawSample
from corpus.verdicts import Lost
from pipelines.exports.dialects import Dialect, Written, write
from pipelines.exports.sources import ROWS, Records, rows_of, stage_of
from pipelines.exports.turns import pieces_of, turns_of

SCORES = {name: pa.int32() for name in ("quads_lost", "boxes_lost", "system_lost")}
IMAGES = "images"
_TABLE = pa.schema([("key", pa.string()), ("record", pa.string())])
_READ_ROWS = 10_000
_Part = tuple[str, Written | Lost, list[int]]  # key, the dialogue or why there is none, which images it uses


def export_split(split: Split, sink: Sink, dialect: Dialect, folder: OutputFolder, limit: int | None) -> None:
    """Write the dialogues and images of one shard."""
    records = Records(sink, _TABLE, SCORES)
    _empty(folder, split.id)
    for row, raw in rows_of(split, sink, limit):
        try:
            images, parts = _parts(split, raw, dialect)
        except Lost as lost:
            sink.lose(raw.key, row, lost.verdict)
            continue
        sink.splits(row, len(parts))
        names: dict[int, str] = {}
        for key, made, used in parts:
            if isinstance(made, Lost):
                sink.lose(key, row, made.verdict)
                continue
            names |= {i: _put_image(folder, split.id, row, i, images[i]) for i in used if i not in names}
            record = json.dumps(_record(dialect, key, made, [names[i] for i in used]), ensure_ascii=False)
            records.keep(key, row, {"key": key, "record": record}, len(record), **made.lost)
    records.flush()


def _parts(split: Split, raw: RawSample, dialect: Dialect) -> tuple[list[EncodedImage], list[_Part]]:
    try:
        read = _of_pack if "stage" in split.source else _of_sample
        return read(split, raw, dialect)
    except BadImage as error:
        raise BadSample(error.kind, str(error)) from None
    except ValueError as error:
        raise BadSample("unreadable_sample", str(error)) from None


def _of_sample(split: Split, raw: RawSample, dialect: Dialect) -> tuple[list[EncodedImage], list[_Part]]:
    sample = from_shard(raw.key, raw.members)
    sizes = [image_header(image.data)[1:] for image in sample.images]
    if sample.task == "text":
        return [], [(raw.key, Unfit("no_dialogue", detail="pure text has no question"), [])]
    parts: list[_Part] = []
    for made in format_sample(sample, sample.task):
        said = made if isinstance(made, Lost) else _written(dialect, sample.task, made.pieces, sizes)
        parts.append((raw.key + made.suffix, said, list(range(len(sizes)))))
    return sample.images, parts


def _of_pack(split: Split, raw: RawSample, dialect: Dialect) -> tuple[list[EncodedImage], list[_Part]]:
    pack, tokenizer = pack_from_members(raw.key, raw.members), stage_of(split.source["stage"]).tokenizer()
    images = [EncodedImage(data, image_header(data)[0]) for data in pack.images]
    parts: list[_Part] = []
    for sample in pack.samples:
        inside = slice(sample["start"], sample["start"] + sample["length"])
        sizes = [image_header(pack.images[i])[1:] for i in sample["images"]]
        pieces = list(pieces_of(pack.tokens[inside], pack.loss[inside], tokenizer))
        parts.append((f"{pack.task}/{sample['key']}", _written(dialect, pack.task, pieces, sizes), sample["images"]))
    return images, parts


def _written(dialect: Dialect, task: str, pieces: list, sizes: list[tuple[int, int]]) -> Written | Lost:
    try:
        return write(dialect, task, turns_of(task, pieces), sizes)
    except Unfit as unfit:
        return unfit


def _empty(folder: OutputFolder, split: str) -> None:
    """Make a split's folder of images, without those of a run that was killed or of an input that has changed."""
    path = folder.path(f"{IMAGES}/{split}")
    if folder.fs.exists(path):
        folder.fs.rm(path, recursive=True)
    folder.fs.makedirs(path, exist_ok=True)


def _put_image(folder: OutputFolder, split: str, row: int, i: int, image: EncodedImage) -> str:
    name = f"{IMAGES}/{split}/{row:06d}-{i}.{image.ext}"
    folder.fs.pipe_file(folder.path(name), image.data)
    return name


def _record(dialect: Dialect, key: str, made: Written, images: list[str]) -> dict:
    """One entry of the list: LLaVA's has `image`, and none where there is no picture; ShareGPT's a list of them."""
    if dialect.most_images == 1:
        return {"id": key, **({"image": images[0]} if images else {}), "conversations": made.conversations}
    return {"id": key, "conversations": made.conversations, "images": images}


def finish(folder: OutputFolder, dialect: str) -> int:
    """Write the list of all dialogues, and for LLaMA-Factory how to read it; return how many there are."""
    _remove_strangers(folder)
    count = 0
    with folder.atomic(f"{dialect}.json") as file:
        for count, record in enumerate(_all_records(folder), 1):
            file.stream.write(b",\n" if count > 1 else b"[\n")
            file.stream.write(record.encode())
        file.stream.write(b"\n]\n" if count else b"[]\n")
        file.commit()
    if dialect == "sharegpt":
        folder.write("dataset_info.json", json.dumps(_INFO, indent=1).encode())
    return count


def _remove_strangers(folder: OutputFolder) -> None:
    """Remove the images of splits that are no more."""
    there = folder.fs.ls(folder.path(IMAGES), detail=False) if folder.fs.exists(folder.path(IMAGES)) else []
    splits = set(folder.splits())
    for path in there:
        if path.rstrip("/").rpartition("/")[2] not in splits:
            folder.fs.rm(path, recursive=True)


def _all_records(folder: OutputFolder) -> Iterator[str]:
    for split in folder.splits():
        with folder.fs.open(folder.path(f"{split}.{ROWS}"), "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(_READ_ROWS, columns=["record"], use_threads=False):
                yield from batch["record"].to_pylist()


_INFO = {
    "gristmill": {
        "file_name": "sharegpt.json", "formatting": "sharegpt",
        "columns": {"messages": "conversations", "images": "images"},
        "tags": {"role_tag": "from", "content_tag": "value", "user_tag": "human", "assistant_tag": "gpt",
                 "system_tag": "system"},
    }
}  # fmt: skip
