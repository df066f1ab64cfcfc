"""Readers of grounding sets: record -> GroundingRows and BadRows, boxes in the owner's convention.

Field-level sources: GRIT (microsoft/unilm kosmos-2/README.md: rows [start, end, x0, y0, x1, y1, score], offsets are
Python character offsets, corners 0..1); Visual Genome region_descriptions.json and image_data.json
(ranjaykrishna/visual_genome_python_driver local.py, utils.py); RefCOCO, RefCOCO+, RefCOCOg refs(*).p with COCO's
instances.json (lichengunc/refer refer.py); their MDETR versions (ashkamath/mdetr refexp_coco_format.py); COCO instances
(cocodataset.org, format-data); Qwen-VL's own jsonl {image, sent, bbox, width, height} (QwenLM/Qwen-VL eval_mm).
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired

import numpy as np
import pyarrow as pa
from typing_extensions import TypedDict

from corpus.bugs import why_data
from corpus.readers.captions import CocoImage, coco_names
from corpus.readers.json_scan import CutJson, scan
from corpus.readers.names import split_of
from corpus.readers.parquet import DAMAGED, records, text_column
from corpus.readers.refs_pickle import load_refs
from corpus.readers.rows import BadFile, BadRow, GroundingRow, ImageRef, Phrase
from corpus.readers.slices import Slice, detect, open_file, parquet_batches, plan, plan_all, read
from corpus.shapes import Id, Number, misfit
from corpus.values import valid

_BOXES = pa.list_(pa.list_(pa.float64()))


class GritPair(TypedDict):
    """A row of GRIT; `items` are the phrases of both its lists, noun chunks first."""

    caption: str
    items: list
    chunks: NotRequired[int]  # how many of the items are noun chunks; all where it is missing
    id: NotRequired[Id | None]
    key: NotRequired[Id | None]
    url: NotRequired[str | None]


class Region(TypedDict):
    """An element of Visual Genome's `regions`."""

    x: Number
    y: Number
    width: Number
    height: Number
    phrase: Id
    image_id: NotRequired[Id]


class RegionImage(TypedDict):
    """An image of Visual Genome's region_descriptions.json; its regions are looked at one by one."""

    regions: list
    id: NotRequired[Id]
    image_id: NotRequired[Id]


class CocoOwner(TypedDict):
    """An entry of image_data.json."""

    coco_id: Id
    image_id: NotRequired[Id]
    id: NotRequired[Id]


class Sentence(TypedDict, total=False):
    """A sentence of a ref."""

    sent: str | None
    raw: str | None


class Ref(TypedDict):
    """A ref of RefCOCO's pickles."""

    ann_id: Id
    image_id: Id
    sentences: list[Sentence]
    ref_id: NotRequired[Id | None]
    file_name: NotRequired[str]
    split: NotRequired[str]


class CocoBox(TypedDict):
    """An entry of COCO's annotations[]; whose id and whose category is asked where that is used."""

    bbox: list[Number]
    id: NotRequired[Id]
    image_id: NotRequired[Id]
    category_id: NotRequired[Id]


class Category(TypedDict):
    """An entry of COCO's categories[]."""

    id: Id
    name: str


class Expression(TypedDict):
    """An entry of MDETR's images[]."""

    id: Id
    file_name: str
    caption: NotRequired[str | None]
    original_id: NotRequired[Id | None]
    dataset_name: NotRequired[str | None]


class Boxed(TypedDict):
    """Qwen-VL's own record."""

    image: str
    sent: Id
    bbox: list[Number]
    split: NotRequired[str]


@dataclass(frozen=True)
class GroundingReader:
    """How a layout is read: where its records stand, the function, and what it looks up in the files beside them."""

    parse: Callable[[object, Mapping, str], Iterator[GroundingRow | BadRow]]
    shape: type  # of a record
    array: str | None = None
    tables: Callable[[list[str]], Mapping] | None = None  # of the files beside, or of the file itself
    own_tables: bool = False  # what it looks up stands in the file of the records itself
    read: Callable[..., Iterator[tuple[int, object]]] = read
    picks_columns: bool = False  # `read` is told which columns are carried: it reads those that it knows alone
    plan: Callable[[str, int], Iterator[Slice]] | None = None
    rows_per_split: int = 20_000
    visual_genome: bool = False  # its images are Visual Genome's, of which some are COCO photos
    without_pickles: str | None = None  # the layout of a set of pickles, where no file *.p is among the input

    def slices(self, paths: list[str]) -> Iterator[Slice]:
        """Cut files with records into slices."""
        yield from plan_all(paths, self._slices)

    def _slices(self, path: str) -> Iterable[Slice]:
        if self.plan:
            return self.plan(path, self.rows_per_split)
        return plan(path, self.rows_per_split, self.array if detect(path) == "json" else None)


_refs = functools.lru_cache(maxsize=1)(load_refs)


def _plan_refs(path: str, rows: int) -> Iterator[Slice]:
    total = len(_refs(path))
    for at in range(0, total, rows):
        yield Slice((path,), "refs", at, min(at + rows, total), at)


def _read_refs(piece: Slice) -> Iterator[tuple[int, object]]:
    yield from enumerate(_refs(piece.paths[0])[piece.start : piece.stop], piece.row)


def read_grit(piece: Slice, carried: Sequence[str] = ()) -> Iterator[tuple[int, dict | BadRow]]:
    """Yield (row, record) of a slice of GRIT's parquet; `items` are noun_chunks and ref_exps together.

    Of its other columns those that are `carried` come along.

    Works on whole Arrow columns: boxing every float of the two nested lists one by one would cost more than the rest.
    """
    row = piece.row
    for batch in parquet_batches(piece):
        for record in [batch] if isinstance(batch, BadRow) else _grit_records(batch, carried):
            yield row, record
            row += record.rows if isinstance(record, BadRow) else 1


def _grit_records(batch: pa.RecordBatch, carried: Sequence[str]) -> list[dict | BadRow]:
    try:
        texts = {name: _texts(batch[name]) for name in ("caption", "url", "id", "key") if name in batch.schema.names}
        boxes = [_nested(batch[name].cast(_BOXES)) for name in ("noun_chunks", "ref_exps")]
    except Exception as error:
        return [BadRow(DAMAGED, f"no rows of GRIT: {why_data(error)}", rows=batch.num_rows)]
    columns = [dict(zip(texts, values, strict=True)) for values in zip(*texts.values(), strict=True)]
    told = _carried(batch, carried)
    return [
        told[i] | record | {"items": boxes[0](i) + boxes[1](i), "chunks": len(boxes[0](i))}
        for i, record in enumerate(columns)
    ]


def _carried(batch: pa.RecordBatch, carried: Sequence[str]) -> list[dict]:
    there = [name for name in carried if name in batch.schema.names]
    found = records(batch.select(there)) if there else [{}] * batch.num_rows
    return [{} if isinstance(row, BadRow) else row for row in found]


def _texts(column: pa.Array) -> list:
    return [valid(v) for v in (text_column(column) if pa.types.is_string(column.type) else column).to_pylist()]


def _nested(column) -> Callable[[int], list[list[float]]]:
    """Return a function: row -> its list of lists, for a column list<list<double>> (nulls are empty lists)."""
    outer = column.offsets.to_numpy()
    # A batch is a window on a larger column, whose values lie outside it for the most part.
    inner = column.values.offsets.to_numpy()[outer[0] : outer[-1] + 1]
    values = np.asarray(column.values.values)[inner[0] : inner[-1]].tolist()
    outer, inner = (outer - outer[0]).tolist(), (inner - inner[0]).tolist()
    valid = column.is_valid().to_pylist()

    def at(i: int) -> list[list[float]]:
        if not valid[i]:
            return []
        return [values[inner[j] : inner[j + 1]] for j in range(outer[i], outer[i + 1])]

    return at


def grit(record: Mapping, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """GRIT: caption, url, id, key and `items`, [start, end, x0, y0, x1, y1, score] of noun_chunks and ref_exps."""
    caption, phrases = record["caption"], []
    for place, item in enumerate(record["items"]):
        if len(item) < 6:
            yield BadRow("bad_record", f"a phrase of {len(item)} numbers, where 7 were expected")
            return
        start, end = int(item[0]), int(item[1])
        if not 0 <= start < end <= len(caption):
            yield BadRow("bad_span", f"[{start}, {end}) of a caption of {len(caption)} characters: was it changed?")
            return
        score, expression = item[6] if len(item) > 6 else 1.0, place >= record.get("chunks", len(record["items"]))
        phrases.append(Phrase(caption[start:end], _box(item[2:6]), start, end, score, expression))
    source = {name: record[name] for name in ("id", "key", "url") if record.get(name) is not None}
    names = tuple(str(record[name]) for name in ("key", "id") if record.get(name) is not None)
    image = ImageRef(names=names, ids=(f"coyo:{record.get('id')}",), url=record.get("url"))
    yield GroundingRow(image=image, phrases=phrases, convention="xyxy_unit", caption=caption, source=source)


def _box(values: Iterable) -> tuple[float, float, float, float]:
    """Four finite numbers. Raises ValueError for others."""
    box = tuple(map(float, values))
    if len(box) != 4 or not all(map(math.isfinite, box)):
        raise ValueError(f"a box of {[*values][:5]}, where four numbers were expected")
    return box


def visual_genome(record, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """Visual Genome: [{id, regions: [{region_id | id, image_id, phrase, x, y, width, height}]}]."""
    image = record.get("id", record.get("image_id"))
    if image is None and record["regions"] and isinstance(record["regions"][0], dict):
        image = record["regions"][0].get("image_id")
    coco = tables.get("coco_ids", {}).get(str(image))
    ids = (f"vg:{image}",) + ((f"coco:{coco}",) if coco is not None else ())
    phrases = []
    for region in record["regions"]:
        if why := misfit(region, Region):
            yield BadRow("bad_record", f"image {image}, a region: {why}")
            continue
        try:
            box = _box([region[name] for name in ("x", "y", "width", "height")])
            phrases.append(Phrase(" ".join(str(region["phrase"]).split()), box))
        except (ValueError, OverflowError) as error:
            yield BadRow("bad_record", f"image {image}, region {region.get('region_id')}: {error}")
    yield GroundingRow(
        image=ImageRef(names=(f"{image}.jpg",), ids=ids), phrases=phrases, convention="xywh", source={"image_id": image}
    )


def visual_genome_images(paths: list[str]) -> dict:
    """Return {"coco_ids": {VG image id: COCO id}} of image_data.json: how VG images are told to be COCO's test
    images."""
    coco = {}
    for path in paths:
        for found in _scan_whole(path):
            if not misfit(found.value, CocoOwner):
                coco[str(found.value.get("image_id", found.value.get("id")))] = found.value["coco_id"]
    return {"coco_ids": coco}


def refcoco(record, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """A ref of refs(unc).p: {ref_id, ann_id, image_id, split, file_name, sentences: [{sent}]}; the box from
    instances."""
    box = tables["boxes"].get(str(record["ann_id"]))
    if box is None:
        yield BadRow("no_annotation", f"ref {record.get('ref_id')}: ann_id {record['ann_id']} is not in instances.json")
        return
    stem = str(record.get("file_name", "")).rpartition(".")[0]  # COCO_train2014_000000581857_16.jpg: less the _16
    first = stem.rpartition("_")[0] if stem.count("_") == 3 else stem or None
    ref = ImageRef(names=coco_names(record["image_id"], first), ids=(f"coco:{record['image_id']}",))
    yield GroundingRow(
        image=ref, phrases=[Phrase(str(s.get("sent") or s.get("raw") or "").strip(), box) for s in record["sentences"]],
        convention="xywh", split=str(record.get("split", "train")),
        source={"ref_id": record.get("ref_id"), "image_id": record["image_id"]},
    )  # fmt: skip


def coco_boxes(paths: list[str]) -> dict:
    """Return {"boxes": {annotation id: box}} of COCO instances files."""
    boxes = {}
    for path in paths:
        for found in _scan_whole(path):
            if found.key == "annotations" and (box := _box_of(found.value, "id")):
                boxes[str(found.value["id"])] = box
    return {"boxes": boxes}


def _box_of(annotation, *needed: str) -> tuple[float, float, float, float] | None:
    """The box of an annotation that has the `needed` ids; None where it is not fit for use: its rows will miss it."""
    if misfit(annotation, CocoBox) or not annotation.keys() >= set(needed):
        return None
    try:
        return _box(annotation["bbox"])
    except (ValueError, OverflowError):
        return None


def coco_instances(record, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """A COCO image with its annotations: the category's name is the phrase. Crowds have no one box."""
    phrases = []
    for category, box in tables["by_image"].get(str(record["id"]), []):
        if category not in tables["categories"]:
            yield BadRow("bad_record", f"image {record['id']}: category {category} is not listed")
        else:
            phrases.append(Phrase(tables["categories"][category], box))
    names = coco_names(record["id"], record["file_name"].rpartition(".")[0])
    yield GroundingRow(
        image=ImageRef(names=names, ids=(f"coco:{record['id']}",)), phrases=phrases, convention="xywh",
        source={"image_id": record["id"]},
    )  # fmt: skip


def coco_annotations(paths: list[str]) -> dict:
    """Return {"by_image": {image id: [(category id, box)]}, "categories": {id: name}} of a COCO instances file."""
    tables: dict[str, dict] = {"by_image": {}, "categories": {}}
    for path in paths:
        for found in _scan_whole(path):
            value = found.value
            if found.key == "annotations" and (box := _box_of(value, "image_id", "category_id")):
                if not value.get("iscrowd"):
                    tables["by_image"].setdefault(str(value["image_id"]), []).append((value["category_id"], box))
            elif found.key == "categories" and not misfit(value, Category):
                tables["categories"][value["id"]] = value["name"]
    return tables


def mdetr(record, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """An MDETR image {id, file_name, caption, original_id, dataset_name} with its one annotation's box."""
    boxes = tables["by_image"].get(str(record.get("id")), [])
    if not boxes or not isinstance(record.get("caption"), str):
        yield BadRow(
            "no_annotation", f"image {record.get('id')!r} has {len(boxes)} boxes, caption {record.get('caption')!r}"
        )
        return
    coco = record.get("original_id")
    name = record["file_name"].rpartition("/")[2]
    digits = name.rpartition("_")[2].partition(".")[0]
    number = coco if coco is not None else digits
    known = str(number).isdigit()
    yield GroundingRow(
        image=ImageRef(names=(name, *(coco_names(number) if known else ())), ids=(f"coco:{int(number)}",) if known
        else ()),
        phrases=[Phrase(record["caption"].strip(), box) for box in boxes], convention="xywh", split=split_of(path),
        source={"id": record.get("id"), "image_id": coco, "dataset": record.get("dataset_name")},
    )  # fmt: skip


def mdetr_boxes(paths: list[str]) -> dict:
    """Return {"by_image": {image id: [boxes]}} of an MDETR file."""
    by_image: dict[str, list] = {}
    for path in paths:
        for found in _scan_whole(path):
            if found.key == "annotations" and (box := _box_of(found.value, "image_id")):
                by_image.setdefault(str(found.value["image_id"]), []).append(box)
    return {"by_image": by_image}


def qwen(record, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """In-house jsonl {image, sent, bbox}; the convention is the catalog's, by default corners in pixels."""
    name, phrase = record["image"], Phrase(str(record["sent"]).strip(), _box(record["bbox"]))
    ref = ImageRef(names=(name,), ids=(f"file:{name.rpartition('/')[2]}",))
    yield GroundingRow(image=ref, phrases=[phrase], convention="xyxy", split=record.get("split", "train"))


def _scan_whole(path: str):
    with open_file(path) as file:
        try:
            yield from scan(file)
        except CutJson as error:
            raise BadFile(
                f"{path}: {error}; half of what is looked up there would be missing, fetch it again"
            ) from None


READERS = {
    "grit": GroundingReader(grit, GritPair, read=read_grit, picks_columns=True),
    "visual-genome": GroundingReader(
        visual_genome, RegionImage, tables=visual_genome_images, rows_per_split=1000, visual_genome=True
    ),
    "refcoco": GroundingReader(
        refcoco, Ref, tables=coco_boxes, read=_read_refs, plan=_plan_refs, without_pickles="mdetr"
    ),
    "mdetr": GroundingReader(mdetr, Expression, array="images", tables=mdetr_boxes, own_tables=True),
    "coco-instances": GroundingReader(
        coco_instances, CocoImage, array="images", tables=coco_annotations, own_tables=True
    ),
    "qwen": GroundingReader(qwen, Boxed),
}
