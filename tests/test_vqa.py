"""VQA readers on the published schemas, and the choice of one answer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cleaners.vqa import METHODS, majority, max_confidence, most_sure, normal, published
from corpus.readers import vqa
from corpus.readers.beside import Files, Side
from corpus.readers.boundary import made_of
from corpus.readers.rows import BadRow, VqaRow
from corpus.verdicts import Lost

ANSWERS = st.lists(
    st.tuples(st.sampled_from(["yes", "Yes.", "no", "2", "two"]), st.sampled_from(["yes", "maybe", "no"])), min_size=1
)


@given(ANSWERS)
def test_every_method_takes_an_answer_that_was_given(answers):
    for choose in (max_confidence, most_sure, majority):
        assert choose(answers, "two") in [a for a, _ in answers]


@given(ANSWERS)
def test_maximum_confidence_is_the_highest_sum_of_weights(answers):
    weight = {"yes": 1, "maybe": 0.5, "no": 0}
    total = {}
    for answer, confidence in answers:
        total[normal(answer)] = total.get(normal(answer), 0) + weight[confidence]
    assert total[normal(max_confidence(answers))] == max(total.values())


def test_the_methods_differ_where_they_should():
    answers = [("net", "maybe")] * 3 + [("fence", "yes")] * 2 + [("screen", "no")] * 4
    assert max_confidence(answers) == "fence" and most_sure(answers) == "fence"
    assert majority(answers) == "screen" and published(answers, "mesh") == "mesh"
    assert max_confidence([("a", "yes"), ("b", "yes")], "B.") == "b"
    assert max_confidence([("a", "no"), ("b", "no"), ("b", "no")]) == "b"
    assert set(METHODS) == {"max_confidence", "most_sure", "majority", "published"}


@pytest.mark.parametrize("answers", [[], [("", "yes")], [("a", "certainly")]])
def test_answers_that_cannot_be_chosen_from(answers):
    with pytest.raises(Lost):
        max_confidence(answers)


def one(rows) -> VqaRow:
    (row,) = rows
    return row


class Nothing:
    def get(self, key):
        return None


def test_gqa():
    """lmms-lab/GQA, mdetr gqa_coco_format.py: {id: {question, answer, fullAnswer, imageId (string)}}."""
    entry = {"question": "What is it?", "answer": "picture", "fullAnswer": "It is a picture.", "imageId": "n578564"}
    row = one(vqa.gqa(("202218649", entry), {"n578564": 12}, "train_balanced_questions.json"))
    assert row.answers == [("picture", None)] and row.image.names == ("n578564.jpg",) and row.split == "train"
    assert row.image.ids == ("vg:n578564", "coco:12")
    assert one(vqa.gqa(("1", {"question": "?", "imageId": "1"}), {}, "test_all_questions.json")).kind == "no_answer"
    assert one(vqa.gqa(("1", entry), {}, "/gqa/testdev_balanced_questions.json")).split == "test"


def test_vgqa():
    """visual_genome_python_driver: question_answers.json [{id, qas: [{qa_id, image_id, question, answer}]}]."""
    qa = {"qa_id": 9, "image_id": 1, "question": "What color?", "answer": "Green.", "q_objects": [], "a_objects": []}
    first, bad = vqa.vgqa({"id": 1, "qas": [qa, {"qa_id": 10, "answer": "No."}]}, {}, "")
    assert first.answers == [("Green", None)] and first.image.ids == ("vg:1",) and isinstance(bad, BadRow)


def test_dvqa():
    """kushalkafle/DVQA_dataset README: [{image, question, answer, question_type, bbox_answer, question_id}]."""
    record = {
        "image": "bar_train_00000001.png",
        "question": "How many?",
        "answer": "two",
        "question_id": 4,
        "bbox_answer": [],
    }
    assert one(vqa.dvqa(record, {}, "train_qa.json")).answers == [("two", None)]
    assert one(vqa.dvqa(record, {}, "val_easy_qa.json")).split == "val"


def test_chartqa():
    """vis-nlp/ChartQA: [{imgname, query, label}]; a list as a string is written out."""
    record = {"imgname": "1.png", "query": "Values?", "label": "[4, 9]"}
    assert one(vqa.chartqa(record, {}, "train_human.json")).answers == [("4, 9", None)]
    assert one(vqa.chartqa({**record, "label": "[red"}, {}, "train_human.json")).answers == [("[red", None)]
    assert one(vqa.chartqa(record, {}, "ChartQA/val/data.json")).split == "val"


def test_ocr_vqa():
    """pix2struct convert_ocrvqa.py: {id: {questions, answers, split 1 | 2 | 3, imageURL, title, ...}}."""
    book = {"questions": ["What is the title?", "Who wrote it?"], "answers": ["Asi Se Dice!", "Me"], "split": 1}
    rows = list(vqa.ocr_vqa(("0078883946", book), {}, "dataset.json"))
    assert [r.answers[0][0] for r in rows] == ["Asi Se Dice!", "Me"] and rows[0].split == "train"
    assert one(vqa.ocr_vqa(("1", {**book, "split": "3", "questions": ["?"], "answers": ["x"]}), {}, "")).split == "test"
    assert one(vqa.ocr_vqa(("1", {**book, "answers": []}), {}, "")).kind == "bad_record"


def test_docvqa():
    """pix2struct convert_docvqa.py: data[{questionId, question, image "documents/x.png", answers, data_split}]."""
    record = {
        "questionId": 1,
        "question": "Date?",
        "image": "documents/x.png",
        "answers": ["1/8/93", "1/8"],
        "data_split": "train",
    }
    row = one(vqa.docvqa(record, {}, "train_v1.0.json"))
    assert row.image.ids == ("docvqa:x.png",) and max_confidence(row.answers, row.preferred) == "1/8/93"
    assert one(vqa.docvqa({**record, "answers": []}, {}, "test_v1.0.json")).kind == "no_answer"


def test_textvqa():
    """textvqa.org: data[{question_id, question, image_id, answers: ten strings, set_name}]; no confidences."""
    record = {"question_id": 1, "question": "brand?", "image_id": "003a8ae2ef43b901", "set_name": "train"}
    row = one(vqa.textvqa(record | {"answers": ["dakota"] * 6 + ["nous"] * 4}, {}, ""))
    assert max_confidence(row.answers) == "dakota" and row.image.ids == ("openimages:003a8ae2ef43b901",)


def ai2d_files(folder):
    """allenai AI2D; pix2struct convert_ai2d.py: questions/N.png.json, annotations/N.png.json with text blocks."""
    questions = {
        "imageName": "0.png",
        "questions": {
            text: {"abcLabel": letters, "answerTexts": options, "correctAnswer": right, "questionId": f"0.png-{i}"}
            for i, (text, letters, options, right) in enumerate(
                [("What does A show?", True, ["leaf", "root"], 1), ("What is shown?", False, ["a plant", "a dog"], 0),
                 ("Broken?", False, ["x"], 3)]
            )
        },
    }  # fmt: skip
    blocks = {
        "T0": {"rectangle": [[20, 30], [80, 60]], "replacementText": "A", "value": "root", "id": "T0"},
        "T1": {"rectangle": [[200, 30], [260, 60]], "replacementText": "B", "value": "leaf", "id": "T1"},
    }
    for kind, content in (("questions", questions), ("annotations", {"imageName": "0.png", "text": blocks})):
        (folder / kind).mkdir(parents=True)
        (folder / kind / "0.png.json").write_text(json.dumps(content))
    return folder


def test_ai2d(tmp_path):
    folder = ai2d_files(tmp_path)
    record = json.loads((folder / "questions/0.png.json").read_text())
    letters, plain, broken = vqa.ai2d(record, Files([str(folder / "annotations/0.png.json")]), "")
    assert letters.answers == [("root", None)] and [t for t, _ in letters.labels] == ["A", "B"]
    assert letters.labels[0][1] == [20, 30, 80, 60]
    assert plain.labels == [] and plain.answers == [("a plant", None)] and broken.kind == "bad_record"
    assert next(vqa.ai2d(record, Nothing(), "")).kind == "no_annotation"


@pytest.mark.parametrize("question_id", [458752000, "458752000"])
def test_vqav2_ids_as_strings_and_numbers(tmp_path, question_id):
    """visualqa.org/download.html: questions[{image_id, question, question_id}], annotations[{question_id, answers}]."""
    note = {
        "question_id": 458752000,
        "multiple_choice_answer": "net",
        "answers": [{"answer": "net", "answer_confidence": "yes"}],
    }
    (tmp_path / "a.json").write_text(json.dumps({"info": {}, "annotations": [note]}))
    side = Side([str(tmp_path / "a.json")], "annotations", "question_id")
    record = {"image_id": 458752, "question": "What?", "question_id": question_id}
    row = one(vqa.vqav2(record, side, "v2_OpenEnded_mscoco_train2014_questions.json"))
    assert row.answers == [("net", "yes")] and row.preferred == "net" and row.split == "train"
    assert row.image.ids == ("coco:458752",) and "COCO_train2014_000000458752.jpg" in row.image.names
    assert one(vqa.vqav2({**record, "question_id": 5}, side, "")).kind == "no_annotation"
    assert one(vqa.vqav2(record, side, "v2_OpenEnded_mscoco_val2014_questions.json")).split == "val"


@pytest.mark.parametrize("record", [None, 3, "x", [], {}, {"question": "?"}])
def test_records_that_are_none_are_bad_rows(record):
    for name in ("vgqa", "dvqa", "docvqa", "textvqa", "chartqa", "ai2d", "qwen", "vqav2"):
        assert all(isinstance(row, BadRow) for row in parsed(name, record)), name
    for name in ("gqa", "ocr-vqa"):
        assert all(isinstance(row, BadRow) for row in parsed(name, ("1", record))), name


def parsed(name: str, record) -> list:
    return made_of(record, lambda record: vqa.READERS[name].parse(record, Nothing(), "x.json"), vqa.READERS[name].shape)
