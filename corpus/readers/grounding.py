"""Readers of grounding sets: record -> GroundingRows and BadRows, boxes in the owner's convention.

Field-level sources: GRIT (microsoft/unilm kosmos-2/README.md: rows [start, end, x0, y0, x1, y1, score], offsets are
Python character offsets, corners 0..1); Visual Genome region_descriptions.json and image_data.json
(ranjaykrishna/visual_genome_python_driver local.py, utils.py); RefCOCO, RefCOCO+, RefCOCOg refs(*).p with COCO's
instances.json (lichengunc/refer refer.py); their MDETR versions (ashkamath/mdetr refexp_coco_format.py); COCO instances
(cocodataset.org, format-data); Qwen-VL's own jsonl {image, sent, bbox, width, height} (QwenLM/Qwen-VL eval_mm).
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from corpus.readers.captions import coco_names
from corpus.readers.json_scan import CutJson, scan
from corpus.readers.names import split_of
from corpus.readers.refs_pickle import load_refs
from corpus.readers.rows import BadFile, BadRow, GroundingRow, ImageRef, Phrase
from corpus.readers.slices import Slice, detect, open_file, parquet_batches, plan, read


@dataclass(frozen=True)
class GroundingReader:
    """How a layout is read: where its records stand, the function, and what it looks up in the files beside them."""

    parse: Callable[[object, Mapping, str], Iterator[GroundingRow | BadRow]]
    array: str | None = None
    tables: Callable[[list[str]], Mapping] | None = None  # of the files beside, or of the file itself
    own_tables: bool = False  # what it looks up stands in the file of the records itself
    read: Callable[[Slice], Iterator[tuple[int, object]]] = read
    plan: Callable[[str, int], Iterator[Slice]] | None = None
    rows_per_split: int = 20_000
    visual_genome: bool = False  # its images are Visual Genome's, of which some are COCO photos
    without_pickles: str | None = None  # the layout of a set of pickles, where no file *.p is among the input

    def slices(self, paths: list[str]) -> Iterator[Slice]:
        """Cut files with records into slices."""
        for path in paths:
            if self.plan:
                yield from self.plan(path, self.rows_per_split)
            else:
                yield from plan(path, self.rows_per_split, self.array if detect(path) == "json" else None)


_refs = functools.lru_cache(maxsize=1)(load_refs)


def _plan_refs(path: str, rows: int) -> Iterator[Slice]:
    total = len(_refs(path))
    for at in range(0, total, rows):
        yield Slice((path,), "refs", at, min(at + rows, total), at)


def _read_refs(piece: Slice) -> Iterator[tuple[int, object]]:
    yield from enumerate(_refs(piece.paths[0])[piece.start : piece.stop], piece.row)


def read_grit(piece: Slice) -> Iterator[tuple[int, GroundingRow | BadRow]]:
    """Yield (row, GroundingRow) of a slice of GRIT's parquet; phrases are noun_chunks and ref_exps together.

    Works on whole Arrow columns: boxing every float of the two nested lists one by one would cost more than the rest.
    """
    row = piece.row
    for batch in parquet_batches(piece):
        columns = {name: batch[name].to_pylist() for name in ("caption", "url", "id") if name in batch.schema.names}
        if "key" in batch.schema.names:
            columns["key"] = batch["key"].to_pylist()
        boxes = [_nested(batch[name]) for name in ("noun_chunks", "ref_exps")]
        for i in range(batch.num_rows):
            record = {name: values[i] for name, values in columns.items()}
            yield row, grit_row(record, boxes[0](i) + boxes[1](i))
            row += 1


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


def grit_row(record: Mapping, items: list[list[float]]) -> GroundingRow | BadRow:
    """Build a row from GRIT's fields; `items` are [start, end, x0, y0, x1, y1, score] of both columns."""
    caption = record.get("caption")
    if not isinstance(caption, str):
        return BadRow("bad_record", f"caption is {type(caption).__name__}")
    phrases = []
    for item in items:
        if len(item) < 6:
            return BadRow("bad_record", f"a phrase of {len(item)} numbers, where 7 were expected")
        start, end = int(item[0]), int(item[1])
        if not 0 <= start < end <= len(caption):
            return BadRow("bad_span", f"[{start}, {end}) of a caption of {len(caption)} characters: was it changed?")
        phrases.append(Phrase(caption[start:end], tuple(item[2:6]), start, end, item[6] if len(item) > 6 else 1.0))
    source = {name: record[name] for name in ("id", "key", "url") if record.get(name) is not None}
    names = tuple(str(record[name]) for name in ("key", "id") if record.get(name) is not None)
    image = ImageRef(names=names, ids=(f"coyo:{record.get('id')}",), url=record.get("url"))
    return GroundingRow(image=image, phrases=phrases, convention="xyxy_unit", caption=caption, source=source)


def visual_genome(record, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """Visual Genome: [{id, regions: [{region_id | id, image_id, phrase, x, y, width, height}]}]."""
    if not isinstance(record, dict) or not isinstance(record.get("regions"), list):
        yield BadRow("bad_record", f"no regions: {str(record)[:120]}")
        return
    image = record.get("id", record.get("image_id"))
    if image is None and record["regions"]:
        image = record["regions"][0].get("image_id")
    coco = tables.get("coco_ids", {}).get(str(image))
    ids = (f"vg:{image}",) + ((f"coco:{coco}",) if coco is not None else ())
    phrases = []
    for region in record["regions"]:
        try:
            box = tuple(float(region[name]) for name in ("x", "y", "width", "height"))
            phrases.append(Phrase(" ".join(str(region["phrase"]).split()), box))
        except (KeyError, TypeError, ValueError) as error:
            yield BadRow("bad_record", f"image {image}, region {region.get('region_id')}: {error!r}")
    yield GroundingRow(
        image=ImageRef(names=(f"{image}.jpg",), ids=ids), phrases=phrases, convention="xywh", source={"image_id": image}
    )


def visual_genome_images(paths: list[str]) -> dict:
    """Return {"coco_ids": {VG image id: COCO id}} of image_data.json: how VG images are told to be COCO's test
    images."""
    coco = {}
    for path in paths:
        for found in _scan_whole(path):
            if isinstance(found.value, dict) and found.value.get("coco_id") is not None:
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
            if found.key == "annotations" and found.value.get("bbox"):
                boxes[str(found.value["id"])] = tuple(float(v) for v in found.value["bbox"])
    return {"boxes": boxes}


def coco_instances(record, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """A COCO image with its annotations: the category's name is the phrase. Crowds have no one box."""
    if not isinstance(record, dict) or not {"id", "file_name"} <= record.keys():
        yield BadRow("bad_record", f"no id and file_name: {str(record)[:120]}")
        return
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
            if found.key == "annotations" and value.get("bbox") and not value.get("iscrowd"):
                boxes = tables["by_image"].setdefault(str(value["image_id"]), [])
                boxes.append((value["category_id"], tuple(float(v) for v in value["bbox"])))
            elif found.key == "categories":
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
            if found.key == "annotations":
                by_image.setdefault(str(found.value["image_id"]), []).append(
                    tuple(float(v) for v in found.value["bbox"])
                )
    return {"by_image": by_image}


def qwen(record, tables: Mapping, path: str) -> Iterator[GroundingRow | BadRow]:
    """In-house jsonl {image, sent, bbox}; the convention is the catalog's, by default corners in pixels."""
    try:
        box = tuple(float(v) for v in record["bbox"])
        if len(box) != 4:
            raise ValueError(f"{len(box)} numbers in bbox")
        name, phrase = record["image"], Phrase(str(record["sent"]).strip(), box)
    except (KeyError, TypeError, ValueError) as error:
        yield BadRow("bad_record", f"{error!r} in {str(record)[:120]}")
        return
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
    "grit": GroundingReader(lambda record, tables, path: iter([record]), read=read_grit),
    "visual-genome": GroundingReader(
        visual_genome, tables=visual_genome_images, rows_per_split=1000, visual_genome=True
    ),
    "refcoco": GroundingReader(refcoco, tables=coco_boxes, read=_read_refs, plan=_plan_refs, without_pickles="mdetr"),
    "mdetr": GroundingReader(mdetr, array="images", tables=mdetr_boxes, own_tables=True),
    "coco-instances": GroundingReader(coco_instances, array="images", tables=coco_annotations, own_tables=True),
    "qwen": GroundingReader(qwen),
}
