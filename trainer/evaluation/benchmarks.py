"""The datasets of Table 9 in their published files, as lists of Questions.

Files that do not belong together, or of which a part is missing, raise BadFile: a score over the wrong questions would
look like any other.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from corpus.geometry import xywh_to_xyxy
from corpus.readers import captions, grounding, vqa
from corpus.readers.boundary import made_of
from corpus.readers.refs_pickle import load_refs
from corpus.readers.rows import BadFile, BadRow, GroundingRow, ImageRef, VqaRow
from corpus.readers.slices import detect, plan, read
from trainer.evaluation.own import load_own
from trainer.evaluation.questions import Question

CAPTION_PROMPT = "Descripe the image in English:"  # so spelt in the paper
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """How a published dataset is read and scored. `reader` is the layout where the files do not tell it themselves."""

    load: Callable[[str, str | None, str, str], Iterator[tuple[str, Question]]]  # yields (split, question)
    metric: str
    reader: str
    max_tokens: int


def load(
    name: str, questions: str, annotations: str | None = None, split: str | None = None, metric: str | None = None
) -> list[Question]:
    """Read a benchmark's published files. `split` chooses among those that the files hold, `metric` replaces its own.

    Raises BadFile when a record cannot be read, or questions and annotations do not match.
    """
    benchmark = BENCHMARKS[name]
    found = list(benchmark.load(questions, annotations, benchmark.reader, metric or benchmark.metric))
    return [question for _, question in _in_split(found, split, questions)]


def _in_split(found: list[tuple[str, Question]], split: str | None, path: str) -> list[tuple[str, Question]]:
    splits = sorted({name for name, _ in found})
    if split is None and len(splits) > 1:
        raise BadFile(f"{path} holds the splits {', '.join(splits)}: choose one with --split")
    if split is not None and split not in splits:
        raise BadFile(f"{path} holds no split {split!r}; it has {', '.join(splits) or 'nothing'}")
    return [one for one in found if split in (None, one[0])]


def _load_vqa(path: str, beside: str | None, reader: str, metric: str) -> Iterator[tuple[str, Question]]:
    if reader == "vqav2" and not beside:
        raise BadFile(f"{path} comes without its answers: name the file that has them with --annotations")
    # TextVQA, GQA and others are passed on in VQAv2's two files too.
    side = _matching_annotations(path, beside) if beside else {}
    layout = vqa.READERS["vqav2" if beside else reader]
    for number, record in enumerate(_records(path, layout.array)):
        for part, row in enumerate(_good(made_of(record, lambda r: layout.parse(r, side, path), layout.shape), path)):
            yield row.split, _vqa_question(row, metric, f"{number}/{part}/{row.source.get('question_id')}")


def _vqa_question(row: VqaRow, metric: str, key: str) -> Question:
    if row.labels:
        raise BadFile(
            f"question {row.source}: its picture needs letters drawn into it; clean the set with clean_vqa.py --splits "
            "test, which draws them, and evaluate the shards"
        )
    references = [answer for answer, _ in row.answers]
    return Question(key=key, task="vqa", metric=metric, image=row.image, text=row.question, references=references)


def _matching_annotations(questions: str, annotations: str) -> dict:
    """Annotations by question id, once it is certain that they are those of these questions and of no others."""
    asked = _by_id(questions, "questions")
    answered = _by_id(annotations, "annotations")
    for one, other, what in ((asked, answered, "annotation"), (answered, asked, "question")):
        if missing := one.keys() - other.keys():
            raise BadFile(
                f"{questions} and {annotations} do not belong together: {len(missing)} of {len(one)} ids have no "
                f"{what}, such as {min(missing)}"
            )
    for number, record in answered.items():
        image, other = record.get("image_id"), asked[number].get("image_id")
        if image is not None and str(image) != str(other):
            raise BadFile(f"question {number} is about image {other} in {questions}, about {image} in {annotations}")
    return answered


class _ById(dict):
    """Records by id, whether a file writes it as a number or a string."""

    def get(self, key, default=None):
        return super().get(str(key), default)


def _by_id(path: str, array: str) -> _ById:
    found = _ById()
    for record in _records(path, array):
        if not isinstance(record, dict) or "question_id" not in record:
            raise BadFile(f"{path}: a record under {array!r} without question_id: {str(record)[:120]}")
        if str(record["question_id"]) in found:
            raise BadFile(f"{path}: question_id {record['question_id']} stands there twice")
        found[str(record["question_id"])] = record
    return found


def _load_captions(path: str, beside: str | None, reader: str, metric: str) -> Iterator[tuple[str, Question]]:
    """COCO's caption format, which NoCaps has too, or Karpathy's dataset_flickr30k.json."""
    if "sentences" in next(_records(path, "images"), {}):
        yield from _karpathy(path, metric)
        return
    layout = captions.READERS[reader]
    tables, by_image = layout.tables(path), {}
    for record in _records(path, layout.array):
        for row in _good(made_of(record, lambda r: layout.parse(r, {}, tables), layout.shape), path):
            by_image.setdefault(row.image.names[0], (row.image, []))[1].append(row.text)
    for name, (image, texts) in by_image.items():
        yield "all", _caption_question(name, image, texts, metric)


def _caption_question(key: str, image: ImageRef, texts: list[str], metric: str) -> Question:
    return Question(key=key, task="plain", metric=metric, image=image, text=CAPTION_PROMPT, references=texts)


def _karpathy(path: str, metric: str) -> Iterator[tuple[str, Question]]:
    """karpathy/deep-visual: images[{filename, split, sentences: [{raw}]}]."""
    for record in _records(path, "images"):
        name, texts = record["filename"], [sentence["raw"] for sentence in record["sentences"]]
        yield record["split"], _caption_question(name, ImageRef(names=(name,)), texts, metric)


def _load_referring(path: str, beside: str | None, reader: str, metric: str) -> Iterator[tuple[str, Question]]:
    """refs(*).p with instances.json beside it, MDETR's .json, or Qwen-VL's .jsonl."""
    suffix = path.rpartition(".")[2]
    reader = {"p": "refcoco", "jsonl": "qwen"}.get(suffix, "mdetr")
    if suffix == "p" and not beside:
        raise BadFile(f"{path} has no boxes: name its instances.json with --annotations")
    layout = grounding.READERS[reader]
    tables = layout.tables([beside or path]) if layout.tables else {}
    records = load_refs(path) if suffix == "p" else _records(path, layout.array)
    for number, record in enumerate(records):
        for row in _good(made_of(record, lambda r: layout.parse(r, tables, path), layout.shape), path):
            for part, phrase in enumerate(row.phrases):
                yield row.split, Question(
                    key=f"{number}/{part}", task="referring", metric=metric, image=row.image, text=phrase.text,
                    references=[_corners(row, phrase.box)],
                )  # fmt: skip


def _corners(row: GroundingRow, box) -> list[float]:
    return list(xywh_to_xyxy(box) if row.convention == "xywh" else box)


def _load_scienceqa(path: str, beside: str | None, reader: str, metric: str) -> Iterator[tuple[str, Question]]:
    """ScienceQA problems.json (lupantech/ScienceQA): {id: {question, choices, answer, hint, image, split}}."""
    for record in _records(path, None):
        if not isinstance(record, tuple):
            raise BadFile(f"{path}: an object of problems by id is expected, not {str(record)[:80]!r}")
        number, problem = record
        if not problem.get("image"):
            continue
        options = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, problem["choices"], strict=False)]
        lines = [f"Context: {problem.get('hint') or 'N/A'}", f"Question: {problem['question']}"]
        text = "\n".join([*lines, "Options: " + "\n".join(options), "Answer:"])
        name = f"{problem['split']}/{number}/{problem['image']}"
        yield problem["split"], Question(
            key=str(number), task="choice", metric=metric, image=ImageRef(names=(name,)), text=text,
            references=[LETTERS[problem["answer"]]], options=list(LETTERS[: len(options)]),
        )  # fmt: skip


def _records(path: str, array: str | None) -> Iterator[object]:
    array = array if detect(path) == "json" else None
    for piece in plan(path, 100_000, array):
        yield from (_whole(record, path) for _, record in read(piece))


def _whole(record, path: str):
    if isinstance(record, BadRow):
        raise BadFile(f"{path}: {record.kind}: {record.detail}")
    return record


def _good(rows: Iterable, path: str) -> Iterator:
    return (_whole(row, path) for row in rows)


# The first four are a user's own files. Of the others, metrics and lengths of answers are as in the paper's Table 9 and
# its authors' own evaluation.
BENCHMARKS = {
    **{
        name: Benchmark(load=load_own, metric=metric, reader=name, max_tokens=length)
        for name, metric, length in (
            ("vqa", "exact_match", 100), ("caption", "cider", 60), ("referring", "iou", 28), ("ocr", "ocr", 1024),
        )
    },
    **{
        name: Benchmark(load=_load_captions, metric="cider", reader="coco", max_tokens=30)
        for name in ("nocaps", "flickr30k", "coco-captions")
    },
    **{
        name: Benchmark(load=_load_vqa, metric=metric, reader=reader, max_tokens=length)
        for name, metric, reader, length in (
            ("vqav2", "vqa_score", "vqav2", 10), ("okvqa", "vqa_score", "vqav2", 10),
            ("vizwiz", "vqa_score", "vqav2", 10), ("textvqa", "vqa_score", "textvqa", 10),
            ("gqa", "exact_match", "gqa", 10), ("docvqa", "anls", "docvqa", 100),
            ("chartqa", "relaxed_match", "chartqa", 100), ("ocr-vqa", "exact_match", "ocr-vqa", 100),
            ("ai2d", "exact_match", "qwen", 10),
        )
    },
    **{
        name: Benchmark(load=_load_referring, metric="iou", reader="refcoco", max_tokens=28)
        for name in ("refcoco", "refcoco+", "refcocog", "grit-refexp")
    },
    "scienceqa": Benchmark(load=_load_scienceqa, metric="choice", reader="scienceqa", max_tokens=1),
}  # fmt: skip
