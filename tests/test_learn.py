"""The learning proof in its short form, how it judges, and that its deliberate bugs are what they are called."""

import json
import time

import numpy as np
import pytest
import torch

from benchmarks import learning, learning_patches
from corpus import formats
from corpus.pieces import text_of
from pipelines.learn import learn, side_by_side
from pipelines.proof.forms import FORMS, TASKS
from pipelines.proof.report import compare
from pipelines.proof.scenes.tasks import LEVELS, scene_sample
from trainer import adapter, attention, vision
from trainer.evaluation.scores import score_all
from trainer.sizes import TOWERS


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The folder of a finished short form; a minute on two cores."""
    out = tmp_path_factory.mktemp("learn")
    assert learn(FORMS["short"], out)
    return out


@pytest.mark.timeout(400)
def test_a_minute_of_training_beats_no_training_and_shuffled_labels(short):
    scores = json.loads((short / "scores.json").read_text())
    baselines = [scores["runs"][name]["caption"]["high"] for name in ("untrained", "shuffled labels, stage 1")]
    assert scores["runs"]["stage 1"]["caption"]["low"] > max(baselines)
    page = (short / "report.html").read_text()
    assert page.count('class="card"') == 16 and "data:image/png" in page


@pytest.mark.slow
def test_a_finished_proof_is_not_done_again(short):
    """Each step in metrics.jsonl has the time it took: were it taken again, that would differ."""
    before = [path.read_bytes() for path in sorted(short.rglob("metrics.jsonl"))]
    predictions = [path.stat().st_mtime_ns for path in sorted(short.rglob("predictions-*.jsonl"))]
    assert learn(FORMS["short"], short)
    assert [path.read_bytes() for path in sorted(short.rglob("metrics.jsonl"))] == before
    assert [path.stat().st_mtime_ns for path in sorted(short.rglob("predictions-*.jsonl"))] == predictions


def test_a_step_that_fails_stops_the_other_lane_and_says_why(tmp_path):
    slow = "python -c 'import time; time.sleep(60)' --output {0}/slow"
    bad = "python -c 'print(\"no such thing\"); raise SystemExit(3)' --output {0}/bad"
    began = time.monotonic()
    with pytest.raises(SystemExit, match="status 3(.|\n)*no such thing"):
        side_by_side([[slow.format(tmp_path)], [bad.format(tmp_path)]], tmp_path, 2)
    assert time.monotonic() - began < 30


def results(low, high):
    return {"vqa": {"score": (low + high) / 2, "low": low, "high": high, "questions": 100}}


def test_intervals_that_touch_prove_nothing():
    scores = {"untrained": results(0, 4), "shuffled labels, stage 2": results(30, 40)}
    for low, proven in ((39, False), (40, False), (41, True)):
        learned = {"stage 1": results(1, 2), "stage 2": results(low, 60)}
        row = compare(scores | learned, list(learned))["vqa"]
        assert row == {"best": "stage 2", "bar": 40, "beats": proven}


def test_every_form_draws_what_its_stages_train_on():
    for form in FORMS.values():
        assert set(form.pictures) <= set(TASKS)
        assert "caption" in form.pictures and (3 not in form.stages or "chat" in form.pictures)


def test_variants_train_as_they_say(tmp_path):
    form = FORMS["cpu"]
    for name, variant in learning.VARIANTS.items():
        steps = list(learning.commands(form, tmp_path, name))
        trained = [step for step in steps if "trainer --stage" in step]
        assert len(trained) == (2 if variant.steps[0] else 1) and f"--steps {variant.steps[1]} " in trained[-1]
        patched = variant.patch is not None and "train" in variant.patched
        assert ("benchmarks.learning_patches" in trained[-1]) == patched
    (pack, *_) = learning.commands(form, tmp_path, "bug-swapped")
    assert "learning_patches boxes_swapped pipelines.build_stage" in pack


@pytest.fixture
def unpatched(monkeypatch):
    """Put back what a patch replaces."""
    for module, name in (
        (attention, "targets"), (formats, "normalise_box"), (formats, "normalise_quad"), (adapter, "sincos_table"),
        (vision.Attention, "forward"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, getattr(module, name))


def test_the_mask_bug_loses_the_first_token_of_an_answer(unpatched):
    tokens, answer = np.arange(10, 16), np.array([False, False, True, True, False, False])
    right = attention.targets(tokens, answer, np.ones(6))
    learning_patches.mask_off_by_one()
    wrong = attention.targets(tokens, answer, np.ones(6))
    assert list(right) == [-100, 12, 13, -100, -100, -100]
    assert list(wrong) == [-100, -100, 13, 14, -100, -100]


def test_the_box_bug_swaps_x_and_y(unpatched):
    sample = scene_sample("referring", "t/1", "k", "d", LEVELS["easy"])
    (right, *_) = formats.format_sample(sample, "referring")
    learning_patches.boxes_swapped()
    (wrong, *_) = formats.format_sample(sample, "referring")
    before, after = ([int(v) for v in _numbers(text_of(made.pieces))] for made in (right, wrong))
    assert after == [before[1], before[0], before[3], before[2]] and after != before


def _numbers(text):
    return text.partition("<box>")[2].partition("</box>")[0].replace("(", "").replace(")", "").split(",")


def test_without_positions_an_adapter_cannot_tell_where_things_lie(unpatched):
    torch.manual_seed(0)
    patches = torch.randn(1, 64, 32)
    moved = patches[:, torch.randperm(64)]

    def difference():
        made = adapter.Adapter(32, 64, 16, 4)
        torch.nn.init.normal_(made.query)
        return (made(patches) - made(moved)).abs().max()

    assert difference() > 1e-3
    learning_patches.no_positions()
    assert difference() < 1e-5


def test_windows_keep_what_happens_in_one_from_the_others(unpatched):
    learning_patches.windows()
    block = vision.Attention(TOWERS["tiny-14"].width, 3)
    patches = torch.randn(1, 64, TOWERS["tiny-14"].width)
    changed = patches.clone()
    changed[0, 0] += 1  # the top left patch
    moved = (block(patches) - block(changed)).abs().amax(-1).view(8, 8) > 0
    assert moved[:4, :4].all() and moved.sum() == 16


def test_a_swapped_box_scores_nothing():
    """The score, not the reader of the table, must notice."""
    from trainer.evaluation.questions import Question

    question = Question(key="q", task="referring", metric="iou", image=None, references=[[0, 0, 28, 56]])
    answers = {"<box>(0,0),(250,500)</box>": 100, "<box>(0,0),(500,250)</box>": 0}
    for answer, score in answers.items():
        found = score_all([question], {"q": {"answer": answer, "size": (112, 112)}})
        assert found["results"]["referring"]["score"] == score
