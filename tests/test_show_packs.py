"""What show_packs.py draws comes from the tokens, and a wrong mask shows."""

import dataclasses
import re

import pytest

from corpus.geometry import normalise_box
from corpus.packs import StageFolder, WrongCorpus
from pipelines import show_packs
from tests.cleaned import SIZE, sample, write_cleaned
from tests.test_build_stage import build

HOSTILE = "<script>alert(1)</script> <img> </pre>"


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    root = tmp_path_factory.mktemp("shown")
    write_cleaned(root / "cleaned", "grit", [sample("grit", "grounded_caption", i) for i in range(6)])
    write_cleaned(
        root / "cleaned", "gqa", [sample("gqa", "vqa", 0, annotations={"question": HOSTILE, "answer": "yes"})]
    )
    return build(root / "cleaned", root / "stage2")


def first(stage: StageFolder, task: str):
    return next(pack for pack in map(stage.__getitem__, range(len(stage))) if pack.task == task)


def run(stage, *flags, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["show_packs.py", stage.path, *flags])
        show_packs.main()
    return capsys.readouterr().out


def _corners(points: str) -> tuple[int, ...]:
    numbers = [int(v) for v in re.split("[ ,]", points)]
    return *numbers[:2], *numbers[4:6]


def test_shapes_are_the_boxes_of_the_sample(stage):
    pack = first(stage, "grounded_caption")
    for one in pack.samples:
        source = sample("grit", "grounded_caption", int(one["key"].rpartition("/")[2]))
        shown = show_packs.show_sample(pack, one, stage.tokenizer(), stage.queries)
        drawn = [(_corners(s.points), s.label) for s in shown.shapes]
        regions = source.annotations["regions"]
        assert drawn == [
            (normalise_box(box, SIZE, SIZE), source.text[slice(*r["span"])]) for r in regions for box in r["boxes"]
        ]
        assert {s.image for s in shown.shapes} == set(one["images"])
        masked = "".join(r.text for r in shown.runs if not r.supervised)
        assert masked == "Generate the caption in English with grounding:"
        assert shown.problems == []


def test_the_terminal_marks_what_is_supervised(stage, capsys):
    out = run(stage, "--task", "vqa", capsys=capsys)
    assert f"[image 0]{HOSTILE} Answer:⟦ yes<|endoftext|>⟧" in out
    assert "1 samples, 1 images" in out and "caption" not in out


def test_the_page_is_self_contained_and_escaped(stage, tmp_path, capsys):
    run(stage, "--html", str(tmp_path / "page.html"), "--quiet", capsys=capsys)
    html = (tmp_path / "page.html").read_text()
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert html.count("<polygon") == sum(len(s.shapes) for s in every_sample(stage))
    assert html.count('<img src="data:image/jpeg') == stage.record["images"]


def every_sample(stage):
    for pack in map(stage.__getitem__, range(len(stage))):
        for one in pack.samples:
            yield show_packs.show_sample(pack, one, stage.tokenizer(), stage.queries)


def test_wrong_masks_and_slots_are_pointed_out(stage):
    pack, tokenizer = first(stage, "vqa"), stage.tokenizer()
    loss = pack.loss.copy()
    loss[:3] = True
    wrong = dataclasses.replace(pack, loss=loss)
    problems = show_packs.show_sample(wrong, pack.samples[0], tokenizer, stage.queries).problems
    assert problems == ["supervised tokens inside an image slot", "the first token is supervised"]
    problems = show_packs.show_sample(pack, pack.samples[0], tokenizer, 256).problems
    assert problems == ["image slot of 16 tokens, expected 256"]
    problems = show_packs.show_sample(pack, pack.samples[0] | {"images": []}, tokenizer, stage.queries).problems
    assert problems == ["1 image slots, 0 images"]


def test_mistakes_are_explained(stage, capsys):
    with pytest.raises(WrongCorpus, match="no task 'orc'; its tasks are grounded_caption, referring"):
        run(stage, "--task", "orc", capsys=capsys)
    with pytest.raises(IndexError, match="pack 999"):
        run(stage, "--pack", "999", capsys=capsys)
