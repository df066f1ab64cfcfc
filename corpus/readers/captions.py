"""Readers of caption sets, one function per published layout: record -> CaptionRows and BadRows.

Layouts: CC12M `url TAB caption` and CC3M `caption TAB url`, both without a header (owners' READMEs); SBU's
sbu-captions-all.json with the parallel arrays image_urls and captions; COCO captions JSON (cocodataset.org,
format-data); COCO-CN `COCO_train2014_000000000009#0 TAB caption` (li-xirong/coco-cn); LAION-COCO parquet (URL,
top_caption); WebDataset shards as img2dataset and this project's fetch job write them; and jsonl, csv or parquet with
columns of your choice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from typing_extensions import TypedDict

from corpus.readers.json_scan import CutJson, scan
from corpus.readers.rows import BadFile, BadRow, CaptionRow, ImageRef
from corpus.readers.slices import open_file
from corpus.records import IMAGE_EXTENSIONS
from corpus.shapes import Id, misfit
from corpus.values import load_json, valid_text


class CocoCaption(TypedDict):
    """An entry of COCO's annotations[]."""

    image_id: Id
    caption: str


class CocoImage(TypedDict):
    """An entry of COCO's images[]."""

    id: Id
    file_name: str


class ParallelPair(TypedDict):
    """An entry of SBU's parallel arrays."""

    image_urls: str
    captions: str


@dataclass(frozen=True)
class CaptionReader:
    """How a layout is read: the JSON array its records stand under, the function, and the tables it looks up in."""

    parse: Callable[[object, Mapping, Mapping], Iterator[CaptionRow | BadRow]]
    shape: type | None = None  # of a record; None: the function tells by itself
    array: str | None = None
    arrays: tuple[str, ...] = ()  # parallel arrays of strings, for the one owner who publishes such
    tables: Callable[[str], Mapping] | None = None
    columns: Mapping[str, str] | None = None  # defaults, for layouts whose columns can be named
    mirror: Mapping[str, str] | None = None  # the columns of the set's copies as parquet, jsonl or csv
    old_links: bool = False  # an image that is gone from the web is no fault here
    several_texts: bool = False  # an image may have several texts, of which the longest is wanted
    own_images: bool = False  # the records may hold their images
    tabular: bool = True  # its copies as parquet, jsonl or csv are tables of texts and images


def layout_of(reader: str, file_format: str) -> tuple[CaptionReader, dict[str, str]]:
    """Return how a file of a set is read, whose owners' layout is `reader`, and its columns' usual names."""
    own = READERS[reader]
    if file_format == "tar":
        layout = READERS["shards"]
    elif file_format in ("parquet", "jsonl", "csv") and own.tabular and own.columns is None:
        layout = READERS["generic"]
    else:
        layout = own
    return layout, dict(layout.columns or own.mirror or {})


def url_then_caption(record, columns: Mapping, tables: Mapping) -> Iterator[CaptionRow | BadRow]:
    """CC12M: two tab-separated columns, the URL first."""
    yield _url_row(record, 0, 1)


def caption_then_url(record, columns: Mapping, tables: Mapping) -> Iterator[CaptionRow | BadRow]:
    """CC3M: two tab-separated columns, the caption first."""
    yield _url_row(record, 1, 0)


def _url_row(line, url: int, text: int) -> CaptionRow | BadRow:
    cells = line.split("\t")
    if len(cells) != 2:
        return BadRow("bad_line", f"{len(cells)} tab-separated columns where two were expected: {line[:120]!r}")
    if not cells[url].startswith(("http://", "https://")):
        hint = "; is it the opposite column order?" if cells[text].startswith("http") else ""
        return BadRow("bad_url", f"column {url + 1} is {cells[url][:80]!r}{hint}")
    return CaptionRow(image=ImageRef(url=cells[url]), text=cells[text], source={"url": cells[url]})


def coco(record, columns: Mapping, tables: Mapping) -> Iterator[CaptionRow | BadRow]:
    """COCO captions: annotations[{id, image_id, caption}], images[{id, file_name}]. Ids may be numbers or strings."""
    image = tables["images"].get(str(record["image_id"]))
    if image is None:
        yield BadRow("unknown_image", f"image_id {record['image_id']!r} is not among the file's images")
        return
    ref = ImageRef(names=(image,), ids=(f"coco:{record['image_id']}",))
    yield CaptionRow(
        image=ref, text=record["caption"], source={"id": _plain(record.get("id")), "image_id": record["image_id"]}
    )


def coco_images(path: str) -> dict[str, dict]:
    """Return {"images": {id as a string: file name}} of a COCO file."""
    with open_file(path) as file:
        try:
            images = {
                str(found.value["id"]): found.value["file_name"]
                for found in scan(file)
                if found.key == "images" and not misfit(found.value, CocoImage)
            }
        except CutJson as error:
            raise BadFile(f"{path}: {error}; the list of images cannot be trusted, fetch the file again") from None
    return {"images": images}


def coco_cn(record, columns: Mapping, tables: Mapping) -> Iterator[CaptionRow | BadRow]:
    """COCO-CN: `COCO_train2014_000000000009#0 TAB caption`."""
    name, tab, text = record.partition("\t")
    image, _, number = name.partition("#")
    digits = image.rpartition("_")[2]
    if not tab or not digits.isdigit():
        yield BadRow("bad_line", f"no `COCO_SPLIT_ID#N TAB caption`: {record[:120]!r}")
        return
    ref = ImageRef(names=coco_names(digits, image), ids=(f"coco:{int(digits)}",))
    yield CaptionRow(image=ref, text=text, source={"image_id": int(digits), "name": name})


def coco_names(number: str | int, first: str | None = None) -> tuple[str, ...]:
    """Return the file names of a COCO image: the 2014 releases put the split before the number, the 2017 ones do
    not."""
    digits = f"{int(number):012d}"
    names = (f"COCO_train2014_{digits}.jpg", f"{digits}.jpg", f"COCO_val2014_{digits}.jpg")
    return tuple(dict.fromkeys(([f"{first}.jpg"] if first else []) + list(names)))


def columns_of_choice(record, columns: Mapping, tables: Mapping) -> Iterator[CaptionRow | BadRow]:
    """In-house jsonl, csv or parquet; `columns` maps text, image (path or bytes), url and id to the file's columns."""
    if not isinstance(record, dict):
        yield BadRow("bad_record", f"not an object with columns: {str(record)[:120]}")
        return
    text = record.get(columns.get("text", "text"))
    if not isinstance(text, str):
        names = ", ".join(map(str, record))[:120]
        yield BadRow("no_text", f"column {columns.get('text', 'text')!r} holds {type(text).__name__}; columns: {names}")
        return
    url, image = record.get(columns.get("url", "url")), record.get(columns.get("image", "image"))
    ref = _image_cell(image, url if isinstance(url, str) else None)
    if ref is None:
        yield BadRow(
            "no_image", f"neither {columns.get('image', 'image')!r} nor {columns.get('url', 'url')!r} is given"
        )
        return
    identity = _plain(record.get(columns.get("id", "id")))
    source = {"url": ref.url, "image": ref.names[0] if ref.names else None, "id": identity}
    yield CaptionRow(image=ref, text=text, source={k: v for k, v in source.items() if v is not None})


def _plain(identity) -> Id | None:
    """An id as a sample's source may hold it."""
    return identity if isinstance(identity, (int, str)) else None


def _image_cell(image, url: str | None) -> ImageRef | None:
    if isinstance(image, dict):  # how the Hugging Face hub stores images: {"bytes", "path"}
        image = image.get("bytes") or image.get("path")
    if isinstance(image, (bytes, bytearray)):
        return ImageRef(data=bytes(image), url=url)
    names = (image,) if isinstance(image, str) and image else ()
    return ImageRef(names=names, url=url) if names or url else None


def shard_sample(record, columns: Mapping, tables: Mapping) -> Iterator[CaptionRow | BadRow]:
    """A WebDataset sample: one image, and its text as .txt or under `columns["text"]` of .json."""
    if record.problem:
        yield BadRow(record.problem, f"{record.key}: {record.detail}")
        return
    images = [ext for ext in record.members if ext in (*IMAGE_EXTENSIONS, "jpeg")]
    if len(images) != 1:
        yield BadRow("no_image", f"{record.key} has members {sorted(record.members)}")
        return
    try:
        meta = load_json(record.members.get("json", b"{}"))
    except ValueError as error:
        yield BadRow("bad_json", f"{record.key}: {error}")
        return
    meta = meta if isinstance(meta, dict) else {}
    inner = meta.get("source") if isinstance(meta.get("source"), dict) else {}
    texts = (meta.get(columns.get("text")), valid_text(record.members.get("txt", b"").decode("utf-8", "replace")),
             meta.get("text"))  # fmt: skip
    url = _first_text(meta.get("url"), inner.get("url"))
    yield CaptionRow(
        image=ImageRef(data=record.members[images[0]], url=url), text=_first_text(*texts) or "",
        source={"key": record.key} | ({"url": url} if url else {}),
    )  # fmt: skip


def _first_text(*values) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)


def sbu(record, columns: Mapping, tables: Mapping) -> Iterator[CaptionRow | BadRow]:
    """SBU: an entry of the parallel arrays image_urls and captions."""
    yield CaptionRow(
        image=ImageRef(url=record["image_urls"]), text=record["captions"], source={"url": record["image_urls"]}
    )


_MIRROR = {"text": "caption", "url": "image_url"}
READERS = {
    "cc12m": CaptionReader(url_then_caption, str, mirror=_MIRROR, old_links=True, several_texts=True),
    "cc3m": CaptionReader(caption_then_url, str, mirror=_MIRROR, old_links=True, several_texts=True),
    "sbu": CaptionReader(
        sbu, ParallelPair, arrays=("image_urls", "captions"), mirror=_MIRROR, old_links=True, several_texts=True
    ),
    "coco": CaptionReader(
        coco, CocoCaption, array="annotations", tables=coco_images, several_texts=True, tabular=False
    ),
    "coco-cn": CaptionReader(coco_cn, str, several_texts=True),
    "laion-coco": CaptionReader(columns_of_choice, columns={"text": "top_caption", "url": "URL"}, old_links=True),
    "generic": CaptionReader(columns_of_choice, own_images=True),
    "shards": CaptionReader(shard_sample),
}
