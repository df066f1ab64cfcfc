"""A language is a table: a third one, in a catalog of one's own, from captions to packs, and not a line of code."""

# ruff: noqa: E501 - a caption stands on a line
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from corpus.catalog import CatalogError, load_catalog
from corpus.languages import Language, language_of, read_language, shipped
from corpus.packs import StageFolder
from pipelines import build_stage, clean_captions, clean_grounding, clean_laion, make_ocr
from pipelines.engine import job
from pipelines.recipe.plan import make_plan
from pipelines.recipe.run import run
from pipelines.work.datasets import JOBS
from tests.every_face import has_raqm
from tests.published import jpeg, outcomes, put_images, run_job, samples
from tests.test_recipe import problems

GREEK = """\
extends: default
languages:
  el: {name: Greek, caption: "Γράψε τη λεζάντα στα ελληνικά:", characters: [U+0370-03FF, U+1F00-1FFF], with: [en]}
  th: {name: Thai, characters: [U+0E00-0E7F], spaced: false}
photos: {language: el, licence: CC0-1.0, job: clean_captions, reader: generic, tasks: [caption], stages: {1: {caption: 100}}}
thai: {language: th, licence: CC0-1.0, job: clean_captions, reader: generic, tasks: [caption], stages: {1: {caption: 100}}}
crawl: {language: el, licence: CC0-1.0, job: clean_laion, reader: columns, tasks: [caption], columns: {text: text}, rules: {language: on}}
boxes: {language: el, licence: CC0-1.0, job: clean_grounding, reader: qwen, tasks: [grounded_caption], rules: {language: on}, stages: {2: {grounded_caption: 9}}}
"""
RULES = "{language: on, text_length: {min_words: 4, min_characters: 2}, patterns: on, html: on}"
KEPT = ["Ένας άντρας περπατά στην παραλία", "Το σπίτι του Dvořák δίπλα στη λίμνη", "ΜΙΑ ΠΑΛΙΑ ΓΕΦΥΡΑ ΣΤΟ ΧΩΡΙΟ"]
LOST = ["Ένα σπίτι", "Ένα σπίτι дом δίπλα στη λίμνη", "一座老桥在村子里"]
THAI = ["ผู้ชายเดินบนชายหาด"]


@pytest.fixture
def mine(tmp_path):
    text = GREEK.replace("tasks: [caption], stages", f"rules: {RULES}, tasks: [caption], stages")
    (tmp_path / "mine.yaml").write_text(text)
    return tmp_path / "mine.yaml"


def captions(path: Path, texts) -> Path:
    pq.write_table(pa.table({"text": texts, "image": [jpeg(i) for i in range(len(texts))]}), path)
    return path


def test_a_third_language_from_captions_to_packs_by_data_alone(tmp_path, mine):
    for name, texts in (("photos", KEPT + LOST), ("thai", [*THAI, "Some English words here 房"])):
        flags = ["--dataset", name, "--catalog", mine, "--input", captions(tmp_path / f"{name}.parquet", texts)]
        run_job(clean_captions, *flags, "--output", tmp_path / "cleaned" / name)
    assert [each.text for each in samples(tmp_path / "cleaned/photos").values()] == KEPT
    assert outcomes(tmp_path / "cleaned/photos") == {"kept": 3, "language": 2, "text_length": 1}
    assert outcomes(tmp_path / "cleaned/thai") == {"kept": 1, "language": 1}, (
        "no words to count: Thai writes none apart"
    )
    flags = ["--stage", "1", "--queries", "4", "--catalog", mine, "--data", tmp_path / "cleaned"]
    run_job(build_stage, *flags, "--output", tmp_path / "stage1")
    stage = StageFolder(str(tmp_path / "stage1"))
    tokenizer = stage.tokenizer()
    texts = "".join(tokenizer.decode(pack.tokens.tolist()) for pack in stage)
    assert texts.count("Γράψε τη λεζάντα στα ελληνικά: ") == 3 and KEPT[0] in texts
    assert f"Generate the caption in Thai: {THAI[0]}" in texts
    header = yaml.safe_load((tmp_path / "stage1" / "DATACARD.md").read_text().split("---")[1])
    assert header["language"] == ["el", "en", "th"]
    settings = json.loads((tmp_path / "stage1" / "job.json").read_text())
    assert settings["languages"]["th"] == {
        "name": "Thai", "caption": "Generate the caption in Thai:", "spaced": False, "characters": ["U+0E00-0E7F"],
        "grounded_caption": "Generate the caption in Thai with grounding:",
    }  # fmt: skip
    assert json.loads((tmp_path / "cleaned/photos/job.json").read_text())["languages"].keys() == {"el"}


def test_a_recipe_speaks_it_too(tmp_path, mine, monkeypatch):
    monkeypatch.chdir(tmp_path)
    captions(tmp_path / "a.parquet", KEPT + LOST)
    recipe = "output: out\ncatalog: mine.yaml\nmodel: {queries: 4}\ndatasets: {greek: {like: in-house, language: el, input: a.parquet}}\n"
    Path("r.yaml").write_text(f"{recipe}stages: {{1: {{mixture: {{greek: 9}}}}}}\n")
    run(make_plan("r.yaml"), workers=0)
    assert len(samples("out/cleaned/greek")) == 6, "in-house asks nothing of the letters"
    assert "Γράψε" in "".join(
        StageFolder("out/stage1").tokenizer().decode(p.tokens.tolist()) for p in StageFolder("out/stage1")
    )
    assert [task.todo for task in make_plan("r.yaml").tasks] == ["done", "done"]
    Path("mine.yaml").write_text(GREEK.replace("Γράψε", "Πες"))
    assert [task.todo for task in make_plan("r.yaml").tasks] == ["again", "again"]
    assert problems(recipe.replace("language: el", "language: ell"))[0].startswith(
        "r.yaml:4: language 'ell'; languages are en, zh, el, th; a catalog can add more"
    )


def test_pairs_and_boxes_are_judged_by_it(tmp_path, mine):
    flags = ["--catalog", mine, "--output"]
    crawl = captions(tmp_path / "c.parquet", [KEPT[0], LOST[2]])
    run_job(clean_laion, "--dataset", "crawl", "--input", crawl, *flags, tmp_path / "crawl")
    assert outcomes(tmp_path / "crawl") == {"kept": 1, "language": 1}
    record = {"image": "a.jpg", "sent": "ένας άντρας", "bbox": [1, 2, 90, 80]}
    (tmp_path / "b.jsonl").write_text(f"{json.dumps(record)}\n")
    images = put_images(tmp_path / "images", ["a.jpg"])
    run_job(
        clean_grounding,
        "--dataset",
        "boxes",
        "--input",
        tmp_path / "b.jsonl",
        "--images",
        images,
        *flags,
        tmp_path / "boxes",
    )
    assert outcomes(tmp_path / "boxes") == {"kept": 1}


def test_greek_letters_stay_quantities_in_english_and_are_words_in_greek():
    from cleaners import rules

    def dropped(text: str, language) -> bool:
        table = pa.table({"text": [text]})
        return rules.clean(table, {"language": {}}, language=language)["outcome"].to_pylist() == ["dropped"]

    greek = read_language("el", {"name": "Greek", "characters": ["U+0370-03FF"]})
    assert not dropped("an α-helix of 5 kΩ", "en") and dropped("the word λόγος", "en") and dropped("αβγ", "zh")
    assert not dropped("αβγ and English", greek) and dropped("αβγ и", greek)


def test_synthetic_text_in_a_language_without_a_built_in_corpus_asks_for_one(tmp_path, mine):
    has_raqm()
    text = mine.read_text() + "signs: {language: el, licence: own, job: make_ocr, reader: generated, tasks: [ocr]}\n"
    mine.write_text(text)
    faces = tmp_path / "faces.csv"
    latin = (Path(make_ocr.__file__).parent.parent / "synth_ocr/faces.csv").read_text().splitlines()
    faces.write_text(
        "\n".join(
            [latin[0], *(line.replace(",en,", ",el,") for line in latin[1:] if line.startswith("DejaVu Sans Book,"))]
        )
    )
    flags = ["--language", "el", "--dataset", "signs", "--catalog", mine, "--count", "1", "--fonts", faces]
    with pytest.raises(job.UserError, match="no text in 'el' comes with this checkout: name a --corpus"):
        run_job(make_ocr, *flags, "--output", tmp_path / "ocr")
    with pytest.raises(job.UserError, match="dataset 'signs' is el, but --language is en"):
        run_job(make_ocr, *flags, "--language", "en", "--output", tmp_path / "ocr")


@pytest.mark.parametrize(
    "entry, line, said",
    [
        ("{nam: Greek}", 3, "languages.el: a language has no 'nam' (did you mean 'name'?); known: name, caption"),
        ("{caption: x}", 3, "languages.el: its name is missing, with which prompts ask for captions"),
        ("Greek", 3, "languages.el: a language is a mapping with at least its name"),
        ("{name: Greek, characters: U+0370}", 3, "languages.el: characters is a list, not 'U+0370'"),
        ("{name: Greek, characters: [U+0400-0370]}", 3, "languages.el: 'U+0400-0370' is neither characters nor a range"),
        ("{name: Greek, spaced: no}", 3, "languages.el: spaced is true or false, not 'no'"),
        ("{name: Greek,\n    patterns: fr}", 4, "languages.el: patterns of 'fr': there are those of en, zh"),
        ("{name: ''}", 3, "languages.el: name is a text, not ''"),
    ],
)  # fmt: skip
def test_a_wrong_language_is_told_with_its_line(tmp_path, entry, line, said):
    (tmp_path / "mine.yaml").write_text(f"extends: default\nlanguages:\n  el: {entry}\n")
    with pytest.raises(CatalogError) as wrong:
        load_catalog(tmp_path / "mine.yaml", JOBS)
    assert str(wrong.value).startswith(f"{tmp_path}/mine.yaml:{line}: {said}")


def test_a_language_says_of_itself_what_was_read():
    for language in (
        *shipped().values(),
        read_language("xx", {"name": "X", "characters": ["abc", "U+0E00"], "with": ["en"]}),
    ):
        assert isinstance(language, Language) and read_language(language.code, language.entry()) == language
    assert language_of("zh").name == "Chinese" and shipped()["en"].entry()["name"] == "English"
    with pytest.raises(ValueError, match="no characters known for language 'el'; languages are en, zh"):
        language_of("el")
