"""catalog.yaml: what ships is valid, and every mistake names its line and the known names."""

import pytest

from corpus.catalog import DEFAULT, CatalogError, find, load_catalog
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
        (("mine:", "My Set:"), r":1: My Set: a dataset's name is lower-case"),
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


# --- One catalog over another ---


def layered(tmp_path, text, base=GOOD):
    (tmp_path / "base").mkdir(exist_ok=True)
    (tmp_path / "base" / "catalog.yaml").write_text(base)
    return load(tmp_path, text)


def test_a_catalog_over_the_shipped_one_changes_what_it_names_and_nothing_else(tmp_path):
    mine = load(tmp_path, "extends: default\ncc3m:\n  stages: {2: {caption: 7}}\ncoyo: null\n")
    shipped = load_catalog()
    assert mine.keys() == shipped.keys() - {"coyo"}
    assert mine["cc3m"].stages == {1: {"caption": 3_000_000}, 2: {"caption": 7}}
    assert [name for name in mine if mine[name] != shipped[name]] == ["cc3m"]


def test_null_takes_a_key_away_and_mappings_are_laid_over_one_another(tmp_path):
    base = GOOD.replace("{clip_score: {min: 0.3}}", "{clip_score: {min: 0.3, missing: drop}, emoji: {}, html: {}}")
    text = "extends: base/catalog.yaml\nmine: {rules: {clip_score: {min: 0.2}, emoji: null, html: off, language:}}\n"
    rules = layered(tmp_path, text, base)["mine"].rules
    assert rules == {"clip_score": {"min": 0.2, "missing": "drop"}, "html": False, "language": {}}


def test_three_layers_and_a_path_below_the_file_that_says_it(tmp_path):
    layered(tmp_path, "extends: default", GOOD + "  input: raw/*.tar\n  output: clean\n")
    (tmp_path / "middle.yaml").write_text("extends: base/catalog.yaml\nmine: {output: out, images: s3://b/i.tar}\n")
    mine = load(tmp_path, "extends: middle.yaml\nmine: {licence: CC0}\n")["mine"]
    assert (mine.licence, mine.input) == ("CC0", (f"{tmp_path}/base/raw/*.tar",))
    assert (mine.output, mine.images) == (f"{tmp_path}/out", "s3://b/i.tar")
    there = load(tmp_path, "extends: middle.yaml\ndata: s3://bucket/all\n")["mine"]
    assert (there.input, there.output) == (("s3://bucket/all/raw/*.tar",), "s3://bucket/all/out")


def test_each_mistake_stands_at_its_line_in_the_right_file_all_at_once(tmp_path):
    base = GOOD.replace("columns", "colums") + GOOD.replace("mine:", "other:").replace("0.3", "high")
    text = (
        "extends: base/catalog.yaml\nmine:\n  rules: {clip_score: {mni: 1}, emojy: {}}\n"
        "  stages: {1: {caption: many}}\n  languag: en\nmore: {}\n"
    )
    with pytest.raises(CatalogError) as told:
        layered(tmp_path, text, base)
    here, below = tmp_path / "catalog.yaml", tmp_path / "base" / "catalog.yaml"
    starts = [problem.split(": no ")[0].split(": stage")[0] for problem in told.value.problems]
    assert starts[:2] == [f"{here}:5: mine", f"{here}:4: mine"]
    assert any(p.startswith(f"{below}:14: other: clip_score.min must be a number") for p in told.value.problems)
    assert any(p.startswith(f"{here}:6: more: language, licence, job") for p in told.value.problems)
    (tmp_path / "catalog.yaml").write_text(text.replace("  languag: en\n", "").replace("many", "5"))
    with pytest.raises(CatalogError) as told:
        load_catalog(tmp_path / "catalog.yaml", JOBS)
    starts = sorted(problem.partition(": mine: ")[0] for problem in told.value.problems if ": mine: " in problem)
    assert starts == sorted([f"{below}:5", f"{here}:3", f"{here}:3"])


@pytest.mark.parametrize("text, message", [
    ("extends: catalog.yaml\n", r":1: catalog.yaml extends this catalog in turn"),
    ("extends: nowhere.yaml\n", r":1: no such catalog: .*nowhere.yaml"),
    ("extends: [default]\n", r":1: extends names one catalog"),
    ("extends: default\ndata: 3\n", r":2: data is the folder"),
    (GOOD + "  input: {a: b}\n", r":8: mine: input must be a path, a glob, a URL or a list"),
])  # fmt: skip
def test_what_cannot_be_laid_over_says_so(tmp_path, text, message):
    with pytest.raises(CatalogError, match=message):
        load(tmp_path, text)


def test_an_unknown_dataset_names_those_of_the_job(tmp_path):
    with pytest.raises(CatalogError, match=r"no dataset 'laion_en'.*did you mean 'laion-en'.*coyo"):
        find(load_catalog(), "laion_en", job="clean_laion")
    with pytest.raises(CatalogError, match="clean_captions.py"):
        find(load_catalog(), "cc12m", job="clean_laion")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(CatalogError, match="no such catalog"):
        load_catalog(tmp_path / "none.yaml")


def test_the_catalog_of_the_docs_is_one(tmp_path):
    page = (DEFAULT.parent / "docs" / "datasets.md").read_text()
    mine = load(tmp_path, page.partition("```yaml\n# mine.yaml\n")[2].partition("```")[0])
    assert "coyo" not in mine and mine["cc3m"].stages[2] == {"caption": 100_000}
    assert "emoji" not in mine["laion-en"].rules and mine["laion-en"].rules["clip_score"] == {"min": 0.3}
    assert mine["photos"].input == ("/data/vl/raw/photos/*.parquet",)
    assert mine["laion-zh"].output == "/data/vl/cleaned/laion-zh"
