"""Scenes as samples: every answer is true, every phrase fits one thing, held-out scenes are others."""

import re

import numpy as np
import pytest

from corpus.catalog import load_catalog
from corpus.formats import Formatted, format_sample
from corpus.geometry import iou
from pipelines import make_scenes
from pipelines.proof.scenes.tasks import KINDS, LEVELS, draw, scene_sample
from tests import published
from trainer.evaluation.questions import load_shards

EASY = LEVELS["easy"] | {"size": 32}


def samples(task, count=60, settings=EASY):
    return [scene_sample(task, f"t/{i}", f"s/{task}/{i}", "s", settings) for i in range(count)]


def redrawn(sample, number=0):
    return draw(sample.task, f"{sample.task}/{sample.source['seed']}/{number}", EASY)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("task", KINDS)
def test_every_sample_fits_its_training_format(task, level):
    for made in samples(task, 8, LEVELS[level]):
        assert all(isinstance(one, Formatted) and not one.shapes_dropped for one in format_sample(made, task))
        assert made.width == LEVELS[level]["size"]


def test_answers_are_true():
    """Judged by the captions' phrases ("two red circles"), which the questions are not made from."""
    kinds = set()
    for made in samples("vqa", 300):
        drawn, question, answer = redrawn(made), made.annotations["question"], made.annotations["answer"]
        phrases = [region["text"] for region in drawn.regions_en]
        words = question.rstrip("?").split()
        kinds.add(" ".join(words[:2]))
        if question.startswith("Is there"):
            assert (answer == "Yes") == any(" ".join(words[3:]) in phrase for phrase in phrases)
        elif question.startswith("What colour"):
            (phrase,) = [phrase for phrase in phrases if words[-1] in phrase]
            assert answer in phrase.split()
        elif question.startswith("How many"):
            assert int(answer) == sum(len(r["boxes"]) for r in drawn.regions_en if _singular(words[2]) in r["text"])
        elif question.startswith("What does"):
            assert f'the word "{answer}"' in phrases
        elif question.startswith("Is the"):
            _check_place(drawn, question, answer)
        else:
            (phrase,) = [phrase for phrase in phrases if words[-1] in phrase.split()]
            assert answer.removeprefix("the ") in phrase
    assert kinds == {"Is there", "What colour", "How many", "What does", "Is the", "What is"}


def _singular(plural):
    return "cross" if plural == "crosses" else plural.removesuffix("s")


def _check_place(drawn, question, answer):
    pattern = r"Is the (.*) (?:left or right of|above or below) the (.*)\?"
    first, second = re.fullmatch(pattern, question).groups()
    boxes = [next(r["boxes"][0] for r in drawn.regions_en if name in r["text"]) for name in (first, second)]
    axis, sign = {"left": (0, 1), "right": (0, -1), "above": (1, 1), "below": (1, -1)}[answer]
    assert sign * (boxes[1][axis] - boxes[0][axis]) > 0


def test_a_referring_phrase_fits_one_thing():
    for made in samples("referring"):
        texts = [region["text"] for region in made.annotations["regions"]]
        assert len(set(texts)) == len(texts) and all(len(r["boxes"]) == 1 for r in made.annotations["regions"])


def test_dialogues_of_two_pictures_name_the_right_one():
    two = [made for made in samples("chat", 80) if len(made.images) == 2]
    assert 8 <= len(two) <= 45
    for made in two:
        asked, told = made.annotations["turns"]
        phrases = [{region["text"] for region in redrawn(made, i).regions_en} for i in range(2)]
        if told["text"] == "Yes.":
            continue
        number = int(re.search(r"[Pp]icture (\d)", told["text"])[1]) - 1
        phrase = re.fullmatch(r"(?:Which picture shows|Where is) (.*)\?", asked["text"])[1]
        assert phrase in phrases[number] and phrase not in phrases[1 - number]


def test_half_of_the_dialogues_end_with_a_thing_and_its_boxes_in_the_right_picture():
    made = samples("chat", 120)
    ends = [(each, each.annotations["turns"][-2:]) for each in made]
    pointing = [(each, *turns) for each, turns in ends if turns[1].get("regions")]
    assert 40 <= len(pointing) <= 80
    assert {len(each.images) for each, _, _ in pointing} == {1, 2}
    for each, asked, told in pointing:
        (region,) = told["regions"]
        drawn = redrawn(each, region["image"])
        phrase = told["text"][slice(*region["span"])]
        assert asked["text"] == f"Where is {phrase}?" and tuple(region["size"]) == drawn.image.size
        assert region["boxes"] == next(r["boxes"] for r in drawn.regions_en if r["text"] == phrase)


def test_words_are_where_their_quads_are():
    for made in samples("ocr", 20):
        (line,), (word,) = made.annotations["lines"], redrawn(made).words
        assert line["text"] == word.text and [tuple(p) for p in line["quad"]] == list(word.quad)


def test_the_job_repeats_grows_and_holds_out(tmp_path):
    def run(name, *flags):
        flags = ["--dataset", "scenes-referring", "--level", "easy", "--samples-per-shard", 4, *flags]
        published.run_job(make_scenes, *flags, "--output", tmp_path / name)
        return published.samples(tmp_path / name)

    first, again, longer = run("a", "--count", 6), run("b", "--count", 6), run("c", "--count", 10)
    assert (
        len(first) == 6
        and first == again
        and (tmp_path / "a/00000.tar").read_bytes() == (tmp_path / "c/00000.tar").read_bytes()
    )
    assert all(longer[key] == made for key, made in first.items())
    held_out, other_seed = run("d", "--count", 6, "--part", "val"), run("e", "--count", 6, "--seed", "1")
    pictures = [{made.images[0].data for made in folder.values()} for folder in (first, held_out, other_seed)]
    assert not pictures[0] & pictures[1] and not pictures[0] & pictures[2]


def test_held_out_scenes_can_be_asked(tmp_path):
    for dataset in ("scenes-vqa", "scenes-chat"):
        flags = ["--dataset", dataset, "--level", "easy", "--count", 5, "--part", "val"]
        published.run_job(make_scenes, *flags, "--output", tmp_path / dataset)
        questions = load_shards([str(tmp_path / dataset / "00000.tar")])
        assert len(questions) == 5 and all(question.references for question in questions)


def test_the_catalog_has_a_dataset_for_each_task():
    catalog = load_catalog(make_scenes.CATALOG)
    assert sorted(task for dataset in catalog.values() for task in dataset.tasks) == sorted(KINDS)
    assert {stage for dataset in catalog.values() for stage in dataset.stages} == {1, 2, 3}
    assert all(dataset.job == "make_scenes" for dataset in catalog.values())


def test_boxes_hold_what_is_drawn():
    """Pixels that differ from the background lie in the boxes, up to antialiasing."""
    for made in samples("referring", 10, LEVELS["easy"]):
        pixels = np.asarray(draw("referring", f"referring/{made.source['seed']}/0", LEVELS["easy"]).image, int)
        background = np.median(pixels, axis=(0, 1))
        rows, columns = np.nonzero(np.abs(pixels - background).sum(-1) > 90)
        ink = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        boxes = np.array([region["boxes"][0] for region in made.annotations["regions"]])
        assert iou(ink, (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))) > 0.8


def test_things_of_an_easy_scene_are_whole_cells_of_its_grid():
    for i in range(200):
        drawn = draw("vqa", str(i), LEVELS["easy"])
        edges = np.array([thing.box for thing in drawn.objects] + [word.quad[0] + (0, 0) for word in drawn.words])
        assert np.allclose(edges % (112 / 8), 0)


def test_an_easy_picture_has_one_caption():
    """Its words follow from what is there: the number of things, and for two of one kind of scene their relation."""
    told = {"single": "in|on|at", "pair": "to the left of|above", "word": "word"}
    for i in range(200):
        drawn = draw("caption", str(i), LEVELS["easy"])
        assert re.search(told[drawn.kind], drawn.caption_en)
        assert not re.search("background|right of", drawn.caption_en)
        assert (len(drawn.objects) == 2) == (drawn.kind == "pair")


def test_shuffled_samples_keep_their_labels_and_show_other_pictures():
    for task in KINDS:
        for made in samples(task, 5):
            seed = made.source["seed"]
            shuffled = scene_sample(task, seed, made.key, "s", EASY, shuffled=True)
            assert (shuffled.text, shuffled.annotations) == (made.text, made.annotations)
            assert len(shuffled.images) == len(made.images)
            assert all(a.data != b.data for a, b in zip(shuffled.images, made.images, strict=True))
