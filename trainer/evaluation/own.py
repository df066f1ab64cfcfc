"""A user's own questions: JSON lines (or JSON, CSV, parquet) of an image and what is asked and expected of it.

Boxes are corners in pixels of the stored image, x0, y0, x1, y1.
"""

from collections.abc import Callable, Iterator

from corpus.readers.rows import BadFile, BadRow, ImageRef
from corpus.readers.slices import plan, read
from trainer.evaluation.questions import Question

FIELDS = {
    "vqa": "image, question, answer (or answers: a list, any of which is right)",
    "caption": "image, caption (or captions: a list)",
    "referring": "image, text, box (or boxes: a list, any of which is right)",
    "ocr": "image, lines: a list of {text, quad: four points, or box}",
}


def load_own(path: str, beside: str | None, reader: str, metric: str) -> Iterator[tuple[str, Question]]:
    """Yield (split, question) of every record; `reader` is one of FIELDS. Raises BadFile for one that lacks a field."""
    if beside:
        raise BadFile(f"--benchmark {reader} reads one file of {FIELDS[reader]}: leave out --annotations")
    for piece in plan(path, 100_000):
        for row, record in read(piece):
            where = f"{path}, record {row}"
            if isinstance(record, BadRow):
                raise BadFile(f"{where}: {record.kind}: {record.detail}")
            if not isinstance(record, dict):
                raise BadFile(f"{where}: an object with {FIELDS[reader]} is expected, not {str(record)[:80]!r}")
            yield str(record.get("split") or "all"), _question(record, row, reader, metric, where)


def _question(record: dict, row: int, task: str, metric: str, where: str) -> Question:
    try:
        image, more = record["image"], _ASKED[task](record)
        if not isinstance(image, str) or not image:
            raise ValueError("`image` is no file name")
    except KeyError as error:
        has = ", ".join(map(str, record)) or "nothing"
        raise BadFile(f"{where} has no {error.args[0]!r}; needed are {FIELDS[task]}; it has {has}") from None
    except (ValueError, TypeError) as error:
        raise BadFile(f"{where}: {error}; needed are {FIELDS[task]}") from None
    language = str(record.get("language") or "en")
    return Question(
        key=f"{row}/{image}", task=task, metric=metric, image=ImageRef(names=(image,)), language=language,
        group=str(record.get("group") or ""), **more,
    )  # fmt: skip


def _vqa(record: dict) -> dict:
    return {"text": str(record["question"]), "references": [str(one) for one in _one_or_more(record, "answer")]}


def _caption(record: dict) -> dict:
    return {"references": [str(one) for one in _one_or_more(record, "caption")]}


def _referring(record: dict) -> dict:
    boxes = [record["box"]] if record.get("box") is not None else record["boxes"]
    return {"text": str(record["text"]), "references": [_box(box) for box in boxes]}


def _ocr(record: dict) -> dict:
    return {"references": [(str(line["text"]), _quad(line)) for line in record["lines"]]}


def _one_or_more(record: dict, name: str) -> list:
    if record.get(name) is not None:
        return [record[name]]
    if not isinstance(record.get(f"{name}s", []), list) or record.get(f"{name}s") == []:
        raise ValueError(f"`{name}s` is no list of one or more")
    if f"{name}s" not in record:
        raise KeyError(name)
    return record[f"{name}s"]


def _box(box) -> list[float]:
    x0, y0, x1, y1 = (float(value) for value in box)
    if not (x0 < x1 and y0 < y1):
        raise ValueError(f"the box {list(box)} is not x0, y0, x1, y1 with x0 < x1 and y0 < y1")
    return [x0, y0, x1, y1]


def _quad(line: dict) -> list[list[float]]:
    if line.get("box") is not None:
        x0, y0, x1, y1 = _box(line["box"])
        return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    quad = [[float(x), float(y)] for x, y in line["quad"]]
    if len(quad) != 4:
        raise ValueError(f"a quad has four points, not {len(quad)}")
    return quad


_ASKED: dict[str, Callable[[dict], dict]] = {"vqa": _vqa, "caption": _caption, "referring": _referring, "ocr": _ocr}
