#!/usr/bin/env python
"""Clean visual question answering sets (Qwen-VL A.2): GQA, VGQA, VQAv2, DVQA, OCR-VQA, DocVQA, TextVQA, ChartQA, AI2D.

Name the files as their owners publish them: questions and, where they are apart, annotations, all under --input. Only
training data is kept unless --splits says otherwise; --exclude keeps test and validation images out.
"""

import functools
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow as pa

from cleaners.draw import draw_labels
from cleaners.vqa import METHODS, NoAnswer
from corpus.catalog import Dataset, find, load_catalog
from corpus.readers import vqa
from corpus.readers.grounding import visual_genome_images
from corpus.readers.json_scan import CutJson, scan
from corpus.readers.rows import BadFile, BadRow, VqaRow
from corpus.readers.slices import Slice, detect, open_file, plan, plan_files, read
from corpus.records import BadImage, EncodedImage, Sample, decode_image
from corpus.splits import Sink, Split
from pipelines.engine import job
from pipelines.work import annotated

ROWS_PER_SPLIT = 20_000
SCORES = annotated.IMAGE_SCORES | {"answers": pa.int32(), "agreement": pa.float64()}
_EXAMPLE = (
    "python pipelines/clean_vqa.py --dataset vqav2 --images coco/train2014 --output cleaned/vqav2 \\\n"
    "      --input v2_OpenEnded_mscoco_train2014_questions.json v2_mscoco_train2014_annotations.json"
)


def main() -> None:
    args = _parser().parse_args()
    dataset = find(load_catalog(args.catalog), args.dataset, job="clean_vqa")
    inputs = job.find_inputs(args.input)
    with annotated.user_errors():
        annotated.check_images(args, needed=True)
        annotated.check_owners(args, dataset, inputs)
        layout, rows, beside = divide(inputs, dataset.reader)
        splits = annotated.as_splits(_slices(rows, layout), beside)
    work = annotated.as_work(
        clean_split, dataset=dataset, layout=layout, answer=args.answer, keep=tuple(args.splits), limit=args.limit,
        pictures=annotated.image_options(args),
    )  # fmt: skip
    settings = annotated.common_settings(dataset, [*annotated.GUARD_RULES, "no_answer", "no_question"])
    settings |= annotated.image_settings(args) | {
        "answer": args.answer,
        "splits": sorted(args.splits),
        "layout": layout,
    }
    job.run("clean_vqa", args, splits, settings, work, scores=SCORES)


def _parser():
    parser = job.parser(__doc__, _EXAMPLE)
    annotated.add_image_flags(parser)
    annotated.add_split_flag(parser)
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
    if reader == "ai2d":
        notes = [path for path in rest if "/annotations/" in path]
        return "ai2d", *_both([p for p in rest if p not in notes], notes, "questions/*.json", "annotations/*.json")
    keys = {path: _first_keys(path) for path in rest if path.endswith(".json")}
    if reader != "vqav2" and not any({"questions", "annotations"} & found for found in keys.values()):
        return reader, rest, beside
    notes = [path for path, found in keys.items() if "annotations" in found]
    rows = [path for path in rest if path not in notes]
    return "vqav2", *_both(rows, notes, "a file with questions", "a file with annotations")


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
                if found.in_array:
                    break
        except (BadFile, CutJson):
            pass  # whoever reads the file says what is wrong with it
    return keys


def _slices(paths: list[str], reader: str) -> Iterator[Slice]:
    if reader == "ai2d":
        yield from plan_files(paths, 500)
        return
    for path in paths:
        array = vqa.READERS[reader].array if detect(path) == "json" else None
        yield from plan(path, ROWS_PER_SPLIT, array)


@functools.lru_cache(maxsize=1)
def _beside(paths: tuple[str, ...], reader: str, content: str) -> Mapping:
    """Open what questions are looked up in; once per process and `content`, the fingerprint of the files."""
    layout = vqa.READERS[reader]
    if reader == "ai2d":
        return vqa.Files(paths)
    if layout.side:
        return vqa.Side(list(paths), layout.side, layout.side_id)
    return visual_genome_images(list(paths))["coco_ids"] if paths else {}


def clean_split(
    split: Split, sink: Sink, *, dataset: Dataset, layout: str, pictures: Mapping, answer: str,
    keep: tuple[str, ...], limit: int | None = None,
) -> None:  # fmt: skip
    """Clean one slice of questions: every question goes to the sink once, in input order."""
    finder = annotated.Pictures(**pictures)
    beside = _beside(tuple(split.source["beside"]), layout, str(split.fingerprint["beside"]))
    parse = vqa.READERS[layout].parse
    records = annotated.limited(read(annotated.slice_of(split)), limit)
    for row, part, question in annotated.parts(records, lambda r: parse(r, beside, split.source["url"]), sink):
        key = annotated.key_of(dataset, split, row, part)
        if isinstance(question, BadRow):
            sink.error(key, row, question.kind, question.detail)
        else:
            _clean(question, key, row, sink, dataset, finder, METHODS[answer], keep)


def _clean(question: VqaRow, key: str, row: int, sink: Sink, dataset: Dataset, pictures, choose, keep) -> None:
    scores = {"answers": len(question.answers), "text_before": question.question}
    if question.split not in keep:
        sink.drop(key, row, "split", detail=question.split, **scores)
        return
    if not question.question.strip():
        sink.drop(key, row, "no_question", **scores)
        return
    try:
        label = choose(question.answers, question.preferred)
        picture = _with_labels(pictures.load(question.image), question)
    except NoAnswer as error:
        sink.drop(key, row, "no_answer", detail=str(error), **scores)
    except annotated.Banned as banned:
        annotated.drop_banned(sink, key, row, banned, **scores)
    except BadImage as error:
        sink.error(key, row, error.kind, str(error), **scores)
    else:
        agreement = sum(a.strip().lower() == label.lower() for a, _ in question.answers) / len(question.answers)
        sample = Sample(
            key=key, dataset=dataset.name, task=dataset.tasks[0], language=dataset.language,
            width=picture.width, height=picture.height, images=[picture.image],
            scores={"agreement": round(agreement, 3)}, source=_source(question, row),
            annotations={"question": question.question.strip(), "answer": label},
        )  # fmt: skip
        columns = {"width": picture.width, "height": picture.height, "answers": len(question.answers)}
        sink.keep(sample, row, agreement=agreement, **columns)


def _with_labels(picture: annotated.Picture, question: VqaRow) -> annotated.Picture:
    """Draw the letters that a question speaks of; without any, the image stays as its bytes are."""
    if not question.labels:
        return picture
    drawn = draw_labels(decode_image(picture.image.data), question.labels)
    return annotated.Picture(EncodedImage(drawn, "png"), picture.width, picture.height)


def _source(question: VqaRow, row: int) -> dict:
    redrawn = {"redrawn": [text for text, _ in question.labels]} if question.labels else {}
    return {**question.source, "split": question.split, "row": row, **redrawn}


if __name__ == "__main__":
    job.main(main)
