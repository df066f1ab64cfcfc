"""Evaluation of a user's own files: right answers score full marks, wrong ones nothing; a wrong file is explained."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.readers.rows import BadFile
from tests.test_evaluate import AnyImage, constant, score_of
from trainer.evaluation.benchmarks import load

QUAD = [[1, 1], [6, 1], [6, 3], [1, 3]]


def put(path, *records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize("task, records, right", [
    ("vqa", [{"image": "a.jpg", "question": "How many?", "answer": 3},
             {"image": "b.jpg", "question": "How many?", "answers": ["three", "3"]}], "3"),
    ("caption", [{"image": f"{w}.jpg", "captions": [f"a {w} dog runs home", "a cat"]} for w in "abc"], None),
    ("referring", [{"image": "a.jpg", "text": "the cup", "box": [0, 0, 4, 4]},
                   {"image": "a.jpg", "text": "a cup", "boxes": [[5, 5, 8, 8], [0, 0, 4, 4]]}],
     "<box>(0,0),(499,499)</box>"),
    ("ocr", [{"image": "a.jpg", "lines": [{"text": "Exit", "quad": QUAD}]},
             {"image": "b.jpg", "lines": [{"text": "Exit", "box": [1, 1, 6, 3]}]}],
     "<ref>Exit</ref><quad>(125,125),(750,125),(750,375),(125,375)</quad>"),
])  # fmt: skip
def test_right_answers_score_and_wrong_ones_do_not(tmp_path, task, records, right):
    questions = load(task, put(tmp_path / "mine.jsonl", *records))
    assert len(questions) == len(records) and {q.task for q in questions} == {task}
    store = AnyImage()  # 8 x 8 pixels
    said = constant(right) if right else lambda qs, _: [{"answer": q.references[0]} for q in qs]
    assert score_of(questions, said, tmp_path, store) >= 99.9
    assert score_of(questions, constant("nothing of it"), tmp_path, store) < 1


def test_other_formats_splits_and_metrics(tmp_path):
    rows = [{"image": "a.jpg", "question": "?", "answer": "eleven", "split": "val"},
            {"image": "a.jpg", "question": "?", "answer": "x", "split": "test"}]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "mine.parquet")
    (tmp_path / "mine.json").write_text(json.dumps(rows))
    for name in ("mine.parquet", "mine.json"):
        with pytest.raises(BadFile, match="holds the splits test, val"):
            load("vqa", str(tmp_path / name))
        (question,) = load("vqa", str(tmp_path / name), split="val", metric="anls")
        assert question.metric == "anls"
        assert 60 < score_of([question], constant("elevn"), tmp_path, AnyImage()) < 100


@pytest.mark.parametrize("task, record, message", [
    ("vqa", {"image": "a.jpg", "question": "?"}, "record 0 has no 'answer'; needed are image, .*; it has image"),
    ("vqa", {"image": "a.jpg", "question": "?", "answers": []}, "`answers` is no list of one or more"),
    ("vqa", {"image": {"bytes": 1}, "question": "?", "answer": "x"}, "`image` is no file name"),
    ("caption", {"image": "a.jpg", "text": "x"}, "has no 'caption'"),
    ("referring", {"image": "a.jpg", "text": "x", "box": [5, 5, 4, 4]}, "not x0, y0, x1, y1"),
    ("referring", {"image": "a.jpg", "text": "x", "box": [5, 5]}, "not enough values"),
    ("ocr", {"image": "a.jpg", "lines": [{"text": "x", "quad": QUAD[:3]}]}, "four points, not 3"),
    ("ocr", {"image": "a.jpg", "lines": [{"text": "x"}]}, "has no 'quad'"),
])  # fmt: skip
def test_a_record_that_lacks_something_is_named(tmp_path, task, record, message):
    with pytest.raises(BadFile, match=message):
        load(task, put(tmp_path / "mine.jsonl", record))


@pytest.mark.parametrize("name", ["gqa", "ocr-vqa", "scienceqa"])
def test_another_layout_than_the_benchmarks_is_refused_in_words(tmp_path, name):
    with pytest.raises(
        BadFile, match="missing; it has image, question, answer|by their ids is expected|problems by id is expected"
    ):
        load(name, put(tmp_path / "mine.jsonl", {"image": "a.jpg", "question": "?", "answer": "x"}))
