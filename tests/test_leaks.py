"""Planted leaks are found in a finished corpus, each by what was planted, and nothing else is."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cleaners.overlap import Texts, entry, words_of
from corpus.records import EncodedImage
from pipelines import leaks
from tests.cleaned import sample, write_cleaned
from tests.published import picture, put_json
from tests.test_build_stage import build

QUESTION = "What is the number {} painted in white on the left door of the second red truck?"


def changed(image: Image.Image, number: int) -> EncodedImage:
    """An image as a crawl has it: smaller, cut by 5 %, grey or squashed, and recompressed."""
    width, height = image.size
    cut = image.crop((round(0.05 * width), 0, width, height))
    made = [image.resize((width // 2, height // 2)), cut, image.convert("L"), image.resize((224, 224))][number % 4]
    file = io.BytesIO()
    made.save(file, "JPEG", quality=50)
    return EncodedImage(file.getvalue(), "jpg")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A stage of 150 questions, with 50 leaks: 18 by id, 16 by looks, 16 by text; and the evaluation's files."""
    root, made = tmp_path_factory.mktemp("leaks"), [sample("gqa", "vqa", i) for i in range(150)]
    for i in range(18):
        made[i].images = [EncodedImage(made[i].images[0].data, made[i].images[0].ext, (f"vg:{i}", f"coco:{1000 + i}"))]
    (root / "images").mkdir()
    for i in range(16):
        picture(i).save(root / f"images/{i}.png")
        made[40 + i].images = [changed(picture(i), i)]
        made[40 + i].width = made[40 + i].height = None
        made[80 + i].annotations["question"] = QUESTION.format(100 + i)
    made[100].annotations["question"] = "What is the number painted there?"
    made[101].images = [EncodedImage(made[101].images[0].data, made[101].images[0].ext, ("coco:999999",))]
    write_cleaned(root / "cleaned", "gqa", made, splits=2)
    build(root / "cleaned", root / "stage", "--dataset", "gqa")
    questions = [{"question_id": i, "image_id": 1000 + i, "question": QUESTION.format(100 + i)} for i in range(18)]
    put_json(root / "questions.json", {"questions": questions})
    return root


def run(root, *flags):
    against = [str(root / "questions.json"), str(root / "images")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["leaks.py", str(root / "stage"), "--against", *against, "--output",
                                   str(root / "leaks.json"), *flags])  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            leaks.main()
    return ended.value.code, json.loads((root / "leaks.json").read_text())


@pytest.mark.parametrize("workers", [0, 2])
def test_fifty_planted_leaks_are_found_and_no_other(planted, capsys, workers):
    status, found = run(planted, "--workers", str(workers))
    by = {kind: {int(leak["sample"].rpartition("/")[2]) for leak in found if leak["by"] == kind} for kind in
          ("id", "image", "text")}  # fmt: skip
    assert status == 1
    assert by == {"id": set(range(18)), "image": set(range(40, 56)), "text": set(range(80, 96))}
    assert sum(map(len, by.values())) == 50
    said = capsys.readouterr().out
    assert "150 samples against 18 ids, 16 images, 18 texts" in said and "18 samples hold 18 of them" in said


def test_a_corpus_without_leaks_ends_well(planted, tmp_path, capsys):
    (tmp_path / "ids.txt").write_text("coco:1\nvg:77777\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["leaks.py", str(planted / "stage"), "--against", str(tmp_path / "ids.txt"),
                                   "--workers", "0"])  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            leaks.main()
    assert ended.value.code == 0 and "150 samples" in capsys.readouterr().out


def test_a_text_is_found_inside_a_longer_one_and_with_other_marks():
    texts = Texts([entry("A man riding on a skateboard, on the sidewalk in Rome.")])
    assert texts.within("User: a MAN riding on a skateboard on the sidewalk in Rome? Yes") == [0]
    assert texts.within("a man riding on a skateboard on the sidewalk of a town") == []
    assert texts.within("") == []


def test_most_of_a_text_is_enough():
    words = [f"word{i}" for i in range(30)]
    texts = Texts([entry(" ".join(words))])
    assert texts.within(" ".join(words[:24])) == [0]  # 17 of 23 runs of eight: 74 %
    assert texts.within(" ".join(words[:22])) == []  # 15 of 23


def test_short_texts_must_stand_whole_and_can_be_left_out():
    written = entry("the left red truck")
    assert entry("left truck here") is None and written.startswith("4:")
    assert Texts([written]).within("see the left red truck there") == [0]
    assert Texts([written], fewest=8).within("see the left red truck there") == []


@pytest.mark.parametrize("text", ["一只红色的猫坐在木头桌子上看书", "ねこがつくえのうえでほんをよむ"])
def test_writing_without_spaces_is_cut_into_characters(text):
    assert len(words_of(text)) == len(text) and Texts([entry(text)]).within(f"看，{text}。") == [0]


@given(st.lists(st.text("abcdef", min_size=1, max_size=6), min_size=4, max_size=40), st.text(max_size=30))
def test_a_text_always_finds_itself(words, around):
    text = " ".join(words)
    assert Texts([entry(text)]).within(f"{around} {text} {around}") == [0]
