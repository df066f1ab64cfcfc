#!/usr/bin/env python
"""Clean visual question answering sets (Qwen-VL A.2): GQA, VGQA, VQAv2, DVQA, OCR-VQA, DocVQA, TextVQA, ChartQA, AI2D.

Name the files as their owners publish them: questions and, where they are apart, annotations, all under --input. Only
training data is kept unless --splits says otherwise; --exclude keeps test and validation images out.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow as pa

from cleaners.draw import draw_labels
from cleaners.vqa import METHODS
from corpus.bugs import why_data
from corpus.catalog import Dataset
from corpus.readers import vqa
from corpus.readers.json_scan import CutJson, scan
from corpus.readers.rows import BadFile, BadRow, VqaRow
from corpus.readers.slices import open_file
from corpus.records import BadImage, EncodedImage, Sample, decode_image
from corpus.splits import Sink, Split
from corpus.verdicts import Lost, dropped, failed
from pipelines.engine import job
from pipelines.engine.thumbnails import Thumbnails
from pipelines.work import annotated
from pipelines.work.datasets import add_rule_flag, rules_of
from pipelines.work.places import clean_each

TWO_PART = "vqav2"  # the layout of a file with questions and one with annotations
SCORES = annotated.IMAGE_SCORES | {"answers": pa.int32(), "agreement": pa.float64()}
_EXAMPLE = (
    "python pipelines/clean_vqa.py --dataset vqav2 --images coco/train2014 --output cleaned/vqav2 \\\n"
    "      --input v2_OpenEnded_mscoco_train2014_questions.json v2_mscoco_train2014_annotations.json \\\n"
    "      --exclude captions_val2014.json"
)


def main() -> None:
    args = make_parser().parse_args()
    clean_each("clean_vqa", args, _clean)


def _clean(args: argparse.Namespace, dataset: Dataset) -> None:
    inputs = job.find_inputs(args.input)
    with annotated.user_errors():
        annotated.check_images(args, dataset, needed=True)
        annotated.check_owners(args, dataset, inputs)
        layout, rows, beside = divide(inputs, dataset.reader)
        splits = annotated.as_splits(args, vqa.READERS[layout].slices(rows), beside)
    splits_kept = annotated.kept_splits(args)
    work = annotated.as_work(
        clean_split, dataset=dataset, layout=layout, answer=args.answer, keep=tuple(splits_kept), limit=args.limit,
        pictures=annotated.image_options(args, dataset),
    )  # fmt: skip
    settings = (
        annotated.common_settings(dataset)
        | annotated.image_settings(args, dataset)
        | {
            "answer": args.answer,
            "splits": splits_kept,
            "layout": layout,
        }
    )
    table = rules_of(dataset)
    job.run("clean_vqa", args, splits, settings, work, scores=table.scores() | SCORES, rules=table)


def make_parser() -> argparse.ArgumentParser:
    parser = job.parser(__doc__, _EXAMPLE, from_catalog=True, reads_images=True)
    annotated.add_image_flags(parser)
    annotated.add_split_flag(parser)
    add_rule_flag(parser)
    parser.add_argument(
        "--answer", choices=METHODS, default="max_confidence",
        help="which of several answers is the label (default: max_confidence; see cleaners/vqa.py)",
    )  # fmt: skip
    return parser


def divide(inputs: list[str], reader: str) -> tuple[str, list[str], list[str]]:
    """Return (layout, files with the questions, files that these are looked up in).

    Many sets exist in VQAv2's format too; files in it are told by their keys. Raises BadFile when a needed kind is
    missing, naming it.
    """
    beside = [path for path in inputs if path.endswith(f"/{annotated.VG_IMAGES}")]
    rest = [path for path in inputs if path not in beside]
    if folder := vqa.READERS[reader].beside_folder:
        notes = [path for path in rest if f"/{folder}/" in path]
        return reader, *_both([p for p in rest if p not in notes], notes, "questions/*.json", f"{folder}/*.json")
    keys = {path: _first_keys(path) for path in rest if path.endswith(".json")}
    if not vqa.READERS[reader].side and not any({"questions", "annotations"} & found for found in keys.values()):
        return reader, rest, beside
    notes = [path for path, found in keys.items() if "annotations" in found]
    rows = [path for path in rest if path not in notes]
    return TWO_PART, *_both(rows, notes, "a file with questions", "a file with annotations")


def _both(rows: list[str], beside: list[str], first: str, second: str) -> tuple[list[str], list[str]]:
    for found, what in ((rows, first), (beside, second)):
        if not found:
            raise BadFile(f"--input lacks {what}; this dataset comes in two parts, name both")
    return rows, beside


def _first_keys(path: str) -> set[str]:
    """Return a JSON object's keys up to its first list."""
    keys = set()
    with open_file(path) as file:
        try:
            for found in scan(file):
                keys.add(found.key)
                if found.array is not None:
                    break
        except (BadFile, CutJson):
            pass  # whoever reads the file says what is wrong with it
    return keys


def clean_split(
    split: Split, sink: Sink, *, dataset: Dataset, layout: str, pictures: Mapping, answer: str,
    keep: tuple[str, ...], limit: int | None = None,
) -> None:  # fmt: skip
    """Clean one slice of questions: every question goes to the sink once, in input order."""
    cleaner = _Cleaner(sink, dataset, annotated.Pictures(**pictures), METHODS[answer], keep)
    reader, url = vqa.READERS[layout], split.source["url"]
    beside = annotated.opened(reader.beside, tuple(split.source["beside"]), str(split.fingerprint["beside"]))
    records = annotated.records(split, sink, limit)
    for row, part, question in annotated.parts(records, lambda r: reader.parse(r, beside, url), sink, reader.shape):
        key = annotated.key_of(dataset, split, row, part)
        if isinstance(question, BadRow):
            sink.error(key, row, question.kind, question.detail)
        else:
            cleaner.clean(question, key, row)


class _Cleaner:
    """Judges the questions of a split and writes what becomes of them."""

    def __init__(self, sink: Sink, dataset: Dataset, pictures: annotated.Pictures, choose: Callable, keep):
        self._sink, self._dataset, self._pictures, self._choose, self._keep = sink, dataset, pictures, choose, keep
        self._table, self._thumbnails = rules_of(dataset), Thumbnails()
        self._active = self._table.active(dataset.rules)

    def clean(self, question: VqaRow, key: str, row: int) -> None:
        """Write a question's sample, or why there is none."""
        columns: dict[str, float] = {"answers": len(question.answers)}
        try:
            label = self._label(question)
            words = f"{question.question}\n{label}"
            columns |= self._table.of_words(self._active, words, self._dataset.language)
            if verdict := self._table.judge(self._active, columns):
                raise Lost(verdict)
            picture = _with_labels(self._pictures.load(question.image), question)
        except Lost as lost:
            self._sink.lose(key, row, lost.verdict, text_before=question.question, **columns)
            return
        agreement = sum(a.strip().lower() == label.lower() for a, _ in question.answers) / len(question.answers)
        columns |= {"width": picture.width, "height": picture.height, "agreement": agreement}
        if verdict := self._table.judge(self._active, columns):
            shown = self._thumbnails.of(verdict.rule, picture.image.data)
            self._sink.lose(key, row, verdict, text_before=question.question, thumbnail=shown, **columns)
            return
        sample = Sample(
            key=key, dataset=self._dataset.name, task=self._dataset.tasks[0], language=self._dataset.language,
            width=picture.width, height=picture.height, images=[picture.image],
            scores={"agreement": round(agreement, 3)}, source=_source(question, row),
            annotations={"question": question.question.strip(), "answer": label},
        )  # fmt: skip
        self._sink.keep(sample, row, **columns)

    def _label(self, question: VqaRow) -> str:
        if question.split not in self._keep:
            raise Lost(dropped("split", detail=question.split))
        if not question.question.strip():
            raise Lost(dropped("no_question"))
        return self._choose(question.answers, question.preferred)


def _with_labels(picture: annotated.Picture, question: VqaRow) -> annotated.Picture:
    """Draw the letters that a question speaks of; without any, the image stays as its bytes are."""
    if not question.labels:
        return picture
    try:
        drawn = draw_labels(decode_image(picture.image.data), question.labels)
    except BadImage:
        raise
    except Exception as error:  # a label that no font can draw
        raise Lost(failed("bad_label", why_data(error))) from None
    return annotated.Picture(EncodedImage(drawn, "png", picture.image.ids), picture.width, picture.height)


def _source(question: VqaRow, row: int) -> dict:
    redrawn = {"redrawn": [text for text, _ in question.labels]} if question.labels else {}
    return {**question.source, "split": question.split, "row": row, **redrawn}


if __name__ == "__main__":
    job.main(main)
