"""catalog.yaml: what ships is valid, and every mistake names its line and the known names."""

import pytest

from corpus.catalog import CatalogError, find, load_catalog
from corpus.records import TASKS
from pipelines.work.datasets import JOBS

GOOD = """\
mine:
  language: en
  licence: yours
  job: clean_laion
  reader: columns
  tasks: [caption]
  rules: {clip_score: {min: 0.3}}
"""


def load(tmp_path, text):
    path = tmp_path / "catalog.yaml"
    path.write_text(text)
    return load_catalog(path, JOBS)


def test_the_catalog_that_ships_holds_tables_2_and_3():
    catalog = load_catalog()
    first = sum(sum(d.stages.get(1, {}).values()) for d in catalog.values())
    assert first == sum(d.cleaned for d in catalog.values() if d.cleaned) == pytest.approx(1.4e9, rel=0.21)
    second = {task: sum(d.stages.get(2, {}).get(task, 0) for d in catalog.values()) for task in TASKS}
    vqa = second["vqa"] + second["ocr_vqa"]
    assert vqa == pytest.approx(3.6e6, rel=0.01)
    assert second["caption"] == pytest.approx(19.7e6, rel=0.01)
    assert second["grounded_caption"] == pytest.approx(3.5e6, rel=0.01)
    assert second["referring"] == second["region_caption"] == pytest.approx(8.7e6, rel=0.01)
    assert second["ocr"] == pytest.approx(24.8e6, rel=0.01)
    assert second["text"] == pytest.approx(7.8e6, rel=0.01)
    assert 2 not in catalog["laion-coco"].stages


def test_a_good_catalog_is_typed(tmp_path):
    mine = load(tmp_path, GOOD)["mine"]
    assert (mine.name, mine.tasks, mine.rules["clip_score"]["min"], mine.stages) == ("mine", ("caption",), 0.3, {})


@pytest.mark.parametrize(
    "change, message",
    [
        (("reader:", "raeder:"), r":5: mine: no setting 'raeder' \(did you mean 'reader'\?\); known: language"),
        (("{clip_score", "{clip_skore"), r":7: mine: no rule 'clip_skore' \(did you mean 'clip_score'\?\).*emoji"),
        (
            ("{min", "{mix"),
            r":7: mine: rule 'clip_score' has no parameter 'mix' \(did you mean 'min'\?\); it has min, missing",
        ),
        (("{min: 0.3}", "0.3"), r":7: mine: rule 'clip_score' takes a mapping"),
        (("{min: 0.3}", "{min: high}"), r":7: mine: clip_score.min must be a number, not 'high'"),
        (
            ("rules: {clip_score: {min: 0.3}}", "rules:\n    clip_score:\n      min: abc"),
            r":9: mine: clip_score.min must be",
        ),
        (("reader: columns", "reader: colums"), r":5: mine: no reader 'colums' \(did you mean 'columns'\?\)"),
        (("clean_laion", "clean_lion"), r":4: mine: no job 'clean_lion' \(did you mean 'clean_laion'\?\)"),
        (
            ("job: clean_laion\n  reader: columns", "job: clean_text\n  reader: text"),
            r":7: mine: no rule 'clip_score'.*too_short",
        ),
        (("[caption]", "caption"), r":6: mine: tasks must be a list"),
        (("[caption]", "[captions]"), r":6: mine: no task 'captions' \(did you mean 'caption'\?\)"),
        (("language: en", "language: fr"), r":2: mine: language 'fr'"),
        (("licence: yours\n  ", ""), r"mine: licence missing"),
        (("mine:", "My Set:"), r":1: 'My Set'"),
        (("tasks:", "reader: x\n  tasks:"), r":6: 'reader' is given twice"),
        (("mine:", "mine: ]"), "not valid YAML"),
    ],
)
def test_a_mistake_names_its_line_and_the_known_names(tmp_path, change, message):
    with pytest.raises(CatalogError, match=message):
        load(tmp_path, GOOD.replace(*change))


def test_stages_must_fit_the_tasks(tmp_path):
    with pytest.raises(CatalogError, match=r":8: mine: stage 2: its tasks do not include 'vqa'.*known: caption"):
        load(tmp_path, GOOD + "  stages: {2: {vqa: 5}}\n")


def test_merge_keys_override(tmp_path):
    text = GOOD.replace("rules: {", "rules: &r {") + GOOD.replace("mine", "other").replace(
        "{clip_score: {min: 0.3}}", "{<<: *r, emoji: {}}"
    )
    assert dict(load(tmp_path, text)["other"].rules) == {"clip_score": {"min": 0.3}, "emoji": {}}


def test_an_unknown_dataset_names_those_of_the_job(tmp_path):
    with pytest.raises(CatalogError, match=r"no dataset 'laion_en'.*did you mean 'laion-en'.*coyo"):
        find(load_catalog(), "laion_en", job="clean_laion")
    with pytest.raises(CatalogError, match="clean_captions.py"):
        find(load_catalog(), "cc12m", job="clean_laion")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(CatalogError, match="no such catalog"):
        load_catalog(tmp_path / "none.yaml")
