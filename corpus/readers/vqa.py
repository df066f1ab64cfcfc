"""Readers of visual question answering sets: record -> VqaRows and BadRows, answers as published.

Field-level sources: VQAv2 and whatever has its format (visualqa.org/download.html; GT-Vision-Lab/VQA vqa.py); GQA
(mdetr gqa_coco_format.py); VGQA (ranjaykrishna/visual_genome_python_driver); DVQA (kushalkafle/DVQA_dataset README);
OCR-VQA, DocVQA, ChartQA, AI2D (google-research/pix2struct converters); TextVQA (textvqa.org); Qwen-VL's own jsonl
(QwenLM/Qwen-VL eval_mm).
"""

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from corpus.readers.beside import Files, Side
from corpus.readers.captions import coco_names
from corpus.readers.grounding import visual_genome_images
from corpus.readers.names import split_of
from corpus.readers.rows import BadRow, ImageRef, VqaRow
from corpus.readers.slices import Slice, detect, plan, plan_all, plan_files
from corpus.readers.vqa_records import (
    Book,
    ChartQuestion,
    Diagram,
    DiagramNotes,
    DocQuestion,
    DvqaQuestion,
    GqaQuestion,
    PlainQuestion,
    TextQuestion,
    VisualGenomeImage,
    VisualGenomeQa,
    VqaAnnotation,
    VqaQuestion,
)
from corpus.shapes import Number, misfit

ROWS_PER_SPLIT = 20_000


@dataclass(frozen=True)
class VqaReader:
    """How a layout is read. `array`: the key its records stand under; `side`: the key of a second file's records."""

    parse: Callable[[object, Side, str], Iterator[VqaRow | BadRow]]
    shape: type  # of a record
    array: str | None = None
    side: str | None = None
    side_id: str | None = None  # records of the second file are looked up by this field
    beside_folder: str | None = None  # of small JSON files, one per image; those with the questions lie elsewhere
    files_per_split: int | None = None  # where every file is one record
    visual_genome: bool = False  # its images are Visual Genome's, of which some are COCO photos

    def slices(self, paths: list[str]) -> Iterator[Slice]:
        """Cut files with questions into slices."""
        if self.files_per_split:
            yield from plan_files(paths, self.files_per_split)
            return
        yield from plan_all(
            paths, lambda path: plan(path, ROWS_PER_SPLIT, self.array if detect(path) == "json" else None)
        )

    def beside(self, paths: list[str]) -> Mapping:
        """Open what questions are looked up in."""
        if self.beside_folder:
            return Files(paths)
        if self.side:
            return Side(paths, self.side, self.side_id)
        return visual_genome_images(paths)["coco_ids"] if paths else {}


def vqav2(record, side: Side, path: str) -> Iterator[VqaRow | BadRow]:
    """VQAv2 questions with their annotations; OK-VQA, and TextVQA and VizWiz in the same format."""
    annotation = side.get(record["question_id"])
    if annotation is None:
        yield BadRow("no_annotation", f"question_id {record['question_id']!r} has no annotation")
        return
    if why := misfit(annotation, VqaAnnotation):
        yield BadRow("bad_record", f"annotation of question {record['question_id']}: {why}")
        return
    image = record["image_id"]
    is_coco = str(image).isdigit()
    yield VqaRow(
        image=ImageRef(names=coco_names(image), ids=(f"coco:{image}",)) if is_coco else _named(str(image)),
        question=record["question"],
        answers=[(str(a["answer"]), a.get("answer_confidence")) for a in annotation.get("answers", [])],
        preferred=annotation.get("multiple_choice_answer"),
        split=split_of(path),
        source={"question_id": record["question_id"], "image_id": image},
    )


def gqa(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """GQA: {question id: {question, answer, fullAnswer, imageId}}; the short answer is the label."""
    number, question = record
    if "answer" not in question:
        yield BadRow("no_answer", f"question {number}: the test splits are published without answers")
        return
    image = question["imageId"]
    yield VqaRow(
        image=_vg_image(image, side), question=question["question"],
        answers=[(question["answer"], None)], split=split_of(path), source={"question_id": number, "image_id": image},
    )  # fmt: skip


def vgqa(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """Visual Genome question_answers.json: [{id, qas: [{qa_id, image_id, question, answer}]}]."""
    for qa in record["qas"]:
        if why := misfit(qa, VisualGenomeQa):
            yield BadRow("bad_record", why)
            continue
        image = qa.get("image_id", record.get("id", record.get("image_id")))
        yield VqaRow(
            image=_vg_image(image, side), question=qa["question"],
            answers=[(qa["answer"].removesuffix("."), None)],  # every VG answer is written as a sentence: "Green."
            source={"question_id": qa.get("qa_id"), "image_id": image},
        )  # fmt: skip


def dvqa(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """DVQA: [{image, question, answer, question_id}]; numerals and number words differ in meaning, so both stay."""
    yield _plain(record, path, "image", "question", "answer", "question_id")


def chartqa(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """ChartQA: [{imgname, query, label}]; a label may be a list written as a string, "[4, 9]"."""
    row = _plain(record, path, "imgname", "query", "label", "imgname")
    if isinstance(row, VqaRow):
        row.answers = [(_unlist(row.answers[0][0]), None)]
    yield row


def _unlist(label: str) -> str:
    if not (label.startswith("[") and label.endswith("]")):
        return label
    try:
        return ", ".join(str(v) for v in ast.literal_eval(label))
    except (ValueError, SyntaxError, TypeError):
        return label


def ocr_vqa(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """OCR-VQA dataset.json: {image id: {questions, answers, split 1 | 2 | 3 = train, val, test}}."""
    image, book = record
    split = {"1": "train", "2": "val", "3": "test"}.get(str(book["split"]), str(book["split"]))
    if len(book["questions"]) != len(book["answers"]):
        yield BadRow("bad_record", f"{image}: {len(book['questions'])} questions, {len(book['answers'])} answers")
        return
    for number, (question, answer) in enumerate(zip(book["questions"], book["answers"], strict=True)):
        yield VqaRow(
            image=ImageRef(names=(image,), ids=(f"ocr_vqa:{image}",)), question=question, answers=[(str(answer), None)],
            split=split, source={"image_id": image, "question": number},
        )  # fmt: skip


def docvqa(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """DocVQA {split}_v1.0.json: data[{questionId, question, image, answers, data_split}]; test has no answers."""
    answers = [(str(a), None) for a in record.get("answers") or []]
    if not answers:
        yield BadRow("no_answer", f"question {record.get('questionId')}: the test split is published without answers")
        return
    yield VqaRow(
        image=ImageRef(names=(record["image"],), ids=(f"docvqa:{record['image'].rpartition('/')[2]}",)),
        question=record["question"], answers=answers, preferred=answers[0][0],
        split=record.get("data_split") or split_of(path), source={"question_id": record.get("questionId")},
    )  # fmt: skip


def textvqa(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """TextVQA_0.5.1_{split}.json: data[{question_id, question, image_id, answers: ten strings, set_name}]."""
    answers = [(str(a), None) for a in record.get("answers") or []]
    if not answers:
        yield BadRow("no_answer", f"question {record.get('question_id')}: the test split is published without answers")
        return
    image = record["image_id"]
    yield VqaRow(
        image=ImageRef(names=(f"{image}.jpg",), ids=(f"openimages:{image}",)), question=record["question"],
        answers=answers, split=record.get("set_name") or split_of(path),
        source={"question_id": record.get("question_id"), "image_id": image},
    )  # fmt: skip


def ai2d(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """AI2D questions/N.png.json: {imageName, questions: {text: {abcLabel, answerTexts, correctAnswer, questionId}}}.

    `side` maps an image's name to annotations/N.png.json, whose text blocks {replacementText, rectangle} are drawn into
    the image where a question's `abcLabel` says that it speaks of the letters.
    """
    for text, question in record["questions"].items():
        options, right = question.get("answerTexts") or [], question.get("correctAnswer")
        if not isinstance(right, int) or not 0 <= right < len(options):
            yield BadRow("bad_record", f"{question.get('questionId')}: correctAnswer {right!r} of {len(options)}")
            continue
        labels = _ai2d_labels(side.get(record["imageName"])) if question.get("abcLabel") else []
        if question.get("abcLabel") and not labels:
            yield BadRow("no_annotation", f"{question.get('questionId')}: letters asked for, but no annotation of them")
            continue
        yield VqaRow(
            image=_named(record["imageName"], "ai2d"), question=text, answers=[(str(options[right]), None)],
            labels=labels, source={"question_id": question.get("questionId"), "options": options},
        )  # fmt: skip


def _ai2d_labels(annotation: dict | None) -> list[tuple[str, list[float]]]:
    """Raises ValueError for what is no annotation."""
    if why := misfit(annotation or {}, DiagramNotes):
        raise ValueError(f"annotation of the image: {why}")
    blocks = (annotation or {}).get("text") or {}
    return [
        (block["replacementText"], _rectangle(block["rectangle"]))
        for _, block in sorted(blocks.items())
        if block.get("replacementText") and len(block.get("rectangle") or []) == 2
    ]


def _rectangle(corners: list[list[Number]]) -> list[float]:
    values = [float(v) for corner in corners for v in corner]
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise ValueError(f"rectangle {corners} is not two corners")
    return values


def qwen(record, side, path: str) -> Iterator[VqaRow | BadRow]:
    """In-house jsonl {image, question, answer[, question_id]}, as Qwen-VL's evaluation data, and OCRBench's JSON."""
    if "image_path" in record:  # Yuliang-Liu/MultimodalOCR OCRBench.json
        yield _plain(record, path, "image_path", "question", "answers", "id")
        return
    yield _plain(record, path, "image", "question", "answer", "question_id")


def _plain(record, path: str, image: str, question: str, answer: str, number: str) -> VqaRow | BadRow:
    if missing := [name for name in (image, question, answer) if record.get(name) is None]:
        return BadRow("bad_record", f"{', '.join(missing)} missing; it has {', '.join(record)}"[:300])
    given = record[answer] if isinstance(record[answer], list) else [record[answer]]
    return VqaRow(
        image=_named(record[image]), question=record[question], answers=[(str(a), None) for a in given],
        preferred=str(given[0]) if given else None, split=split_of(path), source={"question_id": record.get(number)},
    )  # fmt: skip


def _named(name: str, owner: str = "file") -> ImageRef:
    return ImageRef(names=(name,), ids=(f"{owner}:{name.rpartition('/')[2]}",))


def _vg_image(image, coco_ids: Mapping) -> ImageRef:
    """Name a Visual Genome image, and the COCO photo it is, where image_data.json says so."""
    coco = coco_ids.get(str(image))
    return ImageRef(names=(f"{image}.jpg",), ids=(f"vg:{image}",) + ((f"coco:{coco}",) if coco is not None else ()))


READERS = {
    "vqav2": VqaReader(vqav2, VqaQuestion, array="questions", side="annotations", side_id="question_id"),
    "gqa": VqaReader(gqa, tuple[str, GqaQuestion], visual_genome=True),
    "vgqa": VqaReader(vgqa, VisualGenomeImage, visual_genome=True),
    "dvqa": VqaReader(dvqa, DvqaQuestion),
    "ocr-vqa": VqaReader(ocr_vqa, tuple[str, Book]),
    "docvqa": VqaReader(docvqa, DocQuestion, array="data"),
    "textvqa": VqaReader(textvqa, TextQuestion, array="data"),
    "chartqa": VqaReader(chartqa, ChartQuestion),
    "ai2d": VqaReader(ai2d, Diagram, beside_folder="annotations", files_per_split=500),
    "qwen": VqaReader(qwen, PlainQuestion),
}
