"""Answers to questions, appended to a file as they are made, so that nothing is asked twice."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from corpus.records import BadImage, decode_image
from trainer.evaluation.questions import Question

# A predictor answers a batch: for each question, the images' bytes -> a record with "answer", the raw text.
Predictor = Callable[[Sequence[Question], Sequence[list[bytes]]], list[dict]]


def predict(
    questions: Sequence[Question], predictor: Predictor, store, path: Path, batch: int, report: Callable[[int], None]
) -> None:
    """Append a record for every question that `path` has no answer of: its answer, or why there is none."""
    cut_torn_line(path)
    todo = unanswered(questions, path)
    with open(path, "a", encoding="utf-8") as file:
        for group in (todo[i : i + batch] for i in range(0, len(todo), batch)):
            file.writelines(
                json.dumps(record, ensure_ascii=False) + "\n" for record in answers(group, predictor, store)
            )
            file.flush()
            report(len(group))


def answers(group: Sequence[Question], predictor: Predictor, store) -> Iterator[dict]:
    """Yield a record for every question of a group, which is asked at once: its answer, or why there is none."""
    usable, images = [], []
    for question in group:
        try:
            data, size = images_of(question, store)
        except BadImage as error:
            yield {"key": question.key, "error": error.kind, "detail": str(error)}
            continue
        usable.append((question, size))
        images.append(data)
    if usable:
        found = predictor([question for question, _ in usable], images)
        for (question, size), record in zip(usable, found, strict=True):
            yield {"key": question.key, "size": size, **record}


def images_of(question: Question, store) -> tuple[list[bytes], tuple[int, int] | None]:
    """Return the question's images, and (width, height) of the one that it is about."""
    if question.image is None:
        images = question.images
    elif question.image.data is not None:
        images = [question.image.data]
    else:
        images = [store.read(question.image)]
    sizes = [decode_image(data).size for data in images]
    return images, sizes[-1] if sizes else None


def unanswered(questions: Sequence[Question], path: Path) -> list[Question]:
    """Return the questions without an answer in `path`; those whose image could not be used are asked again."""
    found = read_predictions([path])
    return [question for question in questions if "answer" not in found.get(question.key, ())]


def read_predictions(paths: Sequence[Path]) -> dict[str, dict]:
    """Read predictions by key; of several for one key the last counts. The line being written does not count yet."""
    found = {}
    for path in paths:
        data = path.read_bytes() if path.exists() else b""
        found |= {record["key"]: record for record in map(json.loads, data[: data.rfind(b"\n") + 1].splitlines())}
    return found


def cut_torn_line(path: Path) -> None:
    """Cut off what a crash left of a line."""
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
