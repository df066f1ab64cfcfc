"""The metrics against what their official implementations give, and against their definitions spelt out anew.

Numbers marked "official" were computed once with GT-Vision-Lab/VQA vqaEval.py and with pycocoevalcap 1.2 (PTBTokenizer
of Stanford CoreNLP 3.4.1, Cider).
"""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluation.cider import cider, tokenize
from trainer.evaluation.metrics import (
    anls,
    box_match,
    edit_distance,
    exact_match,
    grounding_match,
    interval,
    normalise_answer,
    ocr_match,
    relaxed_match,
    vqa_score,
)

# ---------------------------------------------------------------- VQA score


@pytest.mark.parametrize(
    "answer, official",
    [
        ("The red, white-and blue one!", "red white and blue 1"),
        ("1,000 people", "1000 people"),
        ("a-b", "b"),  # the hyphen becomes a blank, and "a" an article
        ("10:30 a.m.", "10:30 am"),
        ("$3.50", "$3.50"),
        ("dont know, whats up", "don't know what's up"),
        ("None", "0"),
        ("somebody'd", "somebodyd"),
        ("couldn'tve", "couldn't've"),
        ("st. james' park?", "st james' park"),
        ("yes/no", "yes no"),
        ("." * 40, "." * 8),
    ],
)
def test_answers_are_normalised_as_officially(answer, official):
    assert normalise_answer(answer) == official


def by_definition(prediction: str, answers: list[str]) -> float:
    """visualqa.org: the mean over all 10 choose 9 sets of annotators of min(#annotators who said so / 3, 1)."""
    sets = list(itertools.combinations(answers, len(answers) - 1))
    return sum(min(one.count(prediction) / 3, 1) for one in sets) / len(sets)


@given(st.lists(st.sampled_from(["red", "blue", "green"]), min_size=10, max_size=10), st.sampled_from(["red", "grey"]))
@settings(max_examples=60)
def test_vqa_score_is_the_mean_over_nine_of_ten(answers, prediction):
    assert vqa_score(prediction, answers) == pytest.approx(by_definition(prediction, answers))


def test_unanimous_answers_are_compared_to_the_letter():
    """The official evaluation normalises nothing where all ten answers are the same string."""
    assert vqa_score("the cat", ["cat"] * 10) == 0 and vqa_score("cat\n", ["cat"] * 10) == 1
    assert vqa_score("the cat", ["cat"] * 9 + ["a dog"]) == 1


FILES = {
    "textvqa": "annotations/textvqa/val_annotations_vqa_format.json",
    "vizwiz": "annotations/vizwiz/val_annotations_vqa_format.json",
    "vqav2": "annotations/allennlp_vqav2/annotations.json",
}


def answers_of(path) -> list[list[str]]:
    return [[a["answer"] for a in one["answers"]] for one in json.loads(path.read_text())["annotations"]]


@pytest.mark.parametrize(
    "name, constant, official",
    [
        ("textvqa", "unanswerable", 6.9186875892), ("textvqa", "yes", 5.9058487874),
        ("vizwiz", "unanswerable", 71.2428571429), ("vizwiz", "yes", 7.3142857143), ("vqav2", "net", 33.3333333333),
    ],
)  # fmt: skip
def test_constant_answers_on_real_files_score_as_officially(shared_data, name, constant, official):
    questions = answers_of(shared_data(FILES[name]))
    assert 100 * sum(vqa_score(constant, a) for a in questions) / len(questions) == pytest.approx(official, abs=1e-9)


@pytest.mark.parametrize("name, official", [("textvqa", 98.2310984308), ("vizwiz", 93.6285714286), ("vqav2", 100.0)])
def test_the_best_of_ten_answers_scores_as_officially(shared_data, name, official):
    best = [max(vqa_score(own, answers) for own in answers) for answers in answers_of(shared_data(FILES[name]))]
    assert 100 * sum(best) / len(best) == pytest.approx(official, abs=1e-9)


# ---------------------------------------------------------------- CIDEr

CAPTIONS = [
    "A dog is sitting on the grass.", "two men don't ride a bike near the U.S. flag", "",
    "a red-and-white train, at the station",
]  # fmt: skip
REFERENCES = [
    ["A dog sits on the green grass.", "A brown dog sitting on grass in a park."],
    ["Two men riding bikes.", "A man and another man ride near a flag (U.S.)."],
    ["A plate of food."],
    ["A train at the station.", "The red and white train is parked at a station; nobody's there."],
]


def test_cider_is_the_official_one():
    official = [2.1413622711286933, 0.8070400178403769, 0.0, 3.427905012563563]
    assert cider(CAPTIONS, REFERENCES) == pytest.approx(official, rel=1e-12)


def test_cider_of_real_captions_is_the_official_one(shared_data):
    record = json.loads(shared_data("image_text/coco/captions_train2017.json").read_text())
    by_image: dict = {}
    for annotation in record["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation["caption"])
    images = [by_image[key] for key in sorted(by_image) if len(by_image[key]) > 1]
    first = cider([texts[0] for texts in images], [texts[1:] for texts in images])
    constant = cider(["a plate of food"] * len(images), [texts[1:] for texts in images])
    assert len(images) == 25
    assert sum(first) / 25 == pytest.approx(1.113485805492795) and sum(constant) / 25 == pytest.approx(0.03415405927164)


@pytest.mark.parametrize(
    "caption, official",
    [
        ("People don't stop; they'll can't-wait.", "people do n't stop they 'll ca n't wait"),
        ('A sign that says "Abbey Road NW8" (London).', "a sign that says abbey road nw8 -lrb- london -rrb-"),
        ("St. James St. at 10:30, for $1,000.50..", "st. james st. at 10:30 for $ 1,000.50"),
        ("parked.A water hydrant, co-owned by the U.S. army", "parked.a water hydrant co-owned by the u.s. army"),
        ("A cat's toy -- 3/4 of it -- cannot be seen...", "a cat 's toy 3/4 of it can not be seen"),
    ],
)
def test_captions_are_cut_as_officially(caption, official):
    assert " ".join(tokenize(caption)) == official


def test_cider_needs_references():
    with pytest.raises(ValueError):
        cider(["a"], [[]])


# ---------------------------------------------------------------- the others


def test_exact_match():
    assert exact_match(" Two\n", ["2", "two"]) == 1 and exact_match("two dogs", ["two"]) == 0


def test_anls():
    assert anls("Hello", ["hello", "x"]) == 1 and anls("", ["abc"]) == 0
    assert anls("helo", ["hello"]) == pytest.approx(0.8)
    assert anls("ab", ["abcd"]) == 0.5 and anls("a", ["abcd"]) == 0  # the threshold itself counts
    assert anls("a  b", ["a b"]) == 1


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
@settings(max_examples=60)
def test_edit_distance_is_the_shortest_way(a, b):
    def slow(x, y):
        if not x or not y:
            return len(x) + len(y)
        return min(slow(x[1:], y) + 1, slow(x, y[1:]) + 1, slow(x[1:], y[1:]) + (x[0] != y[0]))

    assert edit_distance(a, b) == slow(a, b)


@pytest.mark.parametrize(
    "prediction, answer, right",
    [
        ("104.9", "100", 1), ("105.1", "100", 0), ("5%", "0.05", 1), ("5", "5%", 0), ("0", "0", 1), ("0.0", "0", 0),
        ("Yes ", "yes", 1), ("12 cats", "12", 0), ("-95", "-100", 1),
    ],
)  # fmt: skip
def test_relaxed_match(prediction, answer, right):
    assert relaxed_match(prediction, [answer]) == right


def test_boxes_match_from_one_half_on():
    assert box_match((0, 0, 10, 5), [(0, 0, 10, 10)]) == 1 and box_match((0, 0, 10, 4.9), [(0, 0, 10, 10)]) == 0
    assert box_match(None, [(0, 0, 1, 1)]) == 0
    assert box_match((0, 0, 1, 1), [(5, 5, 6, 6), (0, 0, 1, 1)]) == 1


def quad(x, y, width=10, height=4):
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def test_text_counts_where_it_stands():
    lines = [("STOP", quad(0, 0)), ("go", quad(50, 50))]
    assert ocr_match(lines, lines) == 1
    assert ocr_match([("STOP", quad(50, 50)), ("go", quad(0, 0))], lines) == 0
    assert ocr_match([("ST0P", quad(1, 0))], lines) == pytest.approx(0.75 / 2)
    assert ocr_match([*lines, ("made up", quad(90, 90))], lines) == pytest.approx(2 / 3)
    assert ocr_match([], lines) == 0


def test_grounded_phrases_need_words_and_boxes():
    regions = [("a cat", [(0, 0, 10, 10)]), ("two dogs", [(20, 20, 30, 30), (40, 40, 50, 50)])]
    assert grounding_match(regions, regions) == 1
    assert grounding_match([("a cat", [(0, 0, 10, 10)]), ("two dogs", [(20, 20, 30, 30)])], regions) == 0.5
    assert grounding_match([("A cat", [(20, 20, 30, 30)])], regions) == 0


def test_an_interval_holds_its_mean_and_narrows():
    wide, narrow = interval([1, 0] * 10), interval([1, 0] * 1000)
    assert wide[0] < narrow[0] < 0.5 < narrow[1] < wide[1]
    assert interval([1.0] * 20)[1] == 1 and interval([1.0] * 20)[0] == pytest.approx(0.8389, abs=1e-4)  # Wilson
