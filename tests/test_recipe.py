"""A recipe is checked whole before any work: all that is wrong with it, each with its line, and nothing written."""

# ruff: noqa: E501 - a line of a problem stands on a line
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpus.catalog import load_catalog
from corpus.marked import Document
from corpus.shards import ShardWriter
from pipelines.doctor import BROWSER, FRIBIDI, Lack
from pipelines.recipe import checks, schema, weights
from pipelines.recipe.plan import make_plan
from pipelines.recipe.read import WrongRecipe, read
from pipelines.recipe.state import Record, State
from pipelines.recipe.steps import TITLES, keys_of, steps_of
from pipelines.work.datasets import JOBS

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in with a user's raw data: a parquet of images, a crawl's shard, dialogues."""
    monkeypatch.chdir(tmp_path)
    table = {"title": ["a"], "photo": [b""], "terms": ["CC0"]}
    (tmp_path / "raw").mkdir()
    pq.write_table(pa.table(table), tmp_path / "raw" / "shop.parquet")
    (tmp_path / "raw" / "0.tar").write_bytes(bytes(10240))
    (tmp_path / "raw" / "talk.json").write_text("[]")
    (tmp_path / "raw" / "more").mkdir()
    with open(tmp_path / "raw" / "more" / "own.tar", "wb") as file:
        writer = ShardWriter(file)
        writer.write("0", [("json", b'{"caption": "a", "terms": "CC0"}')])
        writer.close()
    (tmp_path / "raw" / "notes.jsonl").write_text('{"text": "x", "id": 1}\n')
    return tmp_path


def problems(text: str, *changes: str) -> list[str]:
    Path("r.yaml").write_text(text)
    with pytest.raises(WrongRecipe) as wrong:
        make_plan("r.yaml", changes)
    return str(wrong.value).splitlines()


GOOD = """\
output: out
raw: raw
model: {size: tiny, queries: 16}
datasets:
  crawl: {like: laion-en, input: "*.tar"}
  shop:
    like: in-house
    input: shop.parquet
    columns: {text: title, image: photo}
  talk: {like: chat-sft, input: talk.json}
stages:
  1: {mixture: {crawl: 100, shop: 50}, train: {steps: 2}}
  3: {train: {steps: 1e1, peak-lr: 1e-3}}
"""


def test_a_good_recipe_becomes_commands(here):
    Path("r.yaml").write_text(GOOD)
    plan = make_plan("r.yaml")
    words = {task.step.name: " ".join(task.step.words) for task in plan.tasks}
    over = "--catalog out/catalog.yaml"
    assert words == {
        "cleaned/crawl": f"clean_laion --dataset crawl --input raw/*.tar --output out/cleaned/crawl {over}",
        "cleaned/shop": f"clean_captions --dataset shop --input raw/shop.parquet --output out/cleaned/shop {over}",
        "cleaned/talk": f"clean_chat --dataset talk --input raw/talk.json --output out/cleaned/talk {over}",
        "stage1": f"build_stage --stage 1 --data out/cleaned --output out/stage1 --queries 16 {over}",
        "runs/stage1": "trainer --stage 1 --data out/stage1 --size tiny --output out/runs/stage1 --steps 2 --resume auto",
        "stage3": f"build_stage --stage 3 --data out/cleaned --output out/stage3 --queries 16 {over}",
        "runs/stage3": "trainer --stage 3 --data out/stage3 --init out/runs/stage1 --output out/runs/stage3 --steps 10 "
                       "--peak-lr 0.001 --resume auto",
    }  # fmt: skip
    assert {task.step.name: task.step.needs for task in plan.tasks if task.step.needs} == {
        "stage1": ["cleaned/crawl", "cleaned/shop"], "runs/stage1": ["stage1"],
        "stage3": ["cleaned/talk"], "runs/stage3": ["stage3", "runs/stage1"],
    }  # fmt: skip
    assert not Path("out").exists(), "a plan writes nothing"


WRONG = {
    "words": (
        "output: out\nraw: raw\ndatasetz: {}\ndatasets:\n  laion-em: {input: '*.tar'}\n  cc3m: {input: shop.parquet, lik: x}\n"
        "model: {size: 3, querys: 16}\nstages: {4: {}}\n",
        [r":3: a recipe has no setting 'datasetz' \(did you mean 'datasets'\?\); known: output, raw",
         r":5: no dataset 'laion-em' in the catalog \(did you mean 'laion-en'\?\); one of your own needs language",
         r":6: datasets.cc3m has no setting 'lik' \(did you mean 'like'\?\)",
         r":7: model.size: string expected, found '3'",
         r":7: model has no setting 'querys' \(did you mean 'queries'\?\)",
         r":8: stages.4: 1, 2 or 3 expected, found '4'"],
    ),
    "twice": (
        GOOD.replace("raw: raw", "raw: raw\nraw: no").replace("columns:", "input: shop.parquet\n    columns:"),
        [r":3: 'raw' is given twice", r":10: 'input' is given twice"],
    ),
    "rules": (
        GOOD.replace('input: "*.tar"}', 'input: "*.tar",\n    rules: {emojy: off,\n      text_length: {min_words: no, max_word: 3},\n'
                     '      image_size: 200, clip_score: {min: 012, max: 1}}}'),
        [r":6: no rule 'emojy' \(did you mean 'emoji'\?\)", r":7: text_length.min_words must be a number, not 'no'",
         r":7: rule 'text_length' has no parameter 'max_word' \(did you mean 'max_words'\?\)",
         r":8: rule 'image_size' takes a mapping", r":8: rule 'clip_score' has no parameter 'max'"],
    ),
    "files": (
        GOOD.replace("*.tar", "*.zip").replace("shop.parquet", "[shop.parquet, none/x.parquet]").replace(
            "talk.json}", "talk.json,\n    images: photos, do: [clean: {exclude: [a.txt, talk.json]}]}\n"
            "  boxes: {like: grit, input: shop.parquet}\n  coyo:"),
        [r":5: 'raw/\*.zip' matches no file: try '.*/raw/\*.parquet' .*in quotes",
         r":8: 'raw/none/x.parquet' matches no file: there is no folder", r":11: images: there is no raw/photos",
         r":11: exclude: there is no raw/a.txt", r":12: boxes has no `images`: the folder or shards",
         r":13: coyo has no `input`: .*; the catalog's are not there: .*raw/coyo/\*.tar"],
    ),
    "columns": (
        GOOD.replace("image: photo}", "image: photos}").replace(
            "  talk:", "  urls: {like: coyo, input: shop.parquet}\n  words: {like: in-house-text, input: notes.jsonl,\n"
            "    columns: {text: txt}}\n  talk:"),
        [r":9: .*shop.parquet has no column 'photos' \(did you mean 'photo'\?\); it has title, photo, terms",
         r":10: .*shop.parquet: no column 'text', 'url'; it has title, photo, terms",
         r":12: .*notes.jsonl has no column 'txt' \(did you mean 'text'\?\); it has text, id"],
    ),
    "passthrough": (
        GOOD.replace("photo}", "photo, licence: licences}\n    passthrough: [terms, artist]").replace(
            "  talk:", "  words: {like: in-house-text, input: notes.jsonl, passthrough: [id, ids]}\n  pages: {like: common-crawl-pdf, input: '*.json',\n"
            "    passthrough: [a]}\n  shard: {like: coyo, input: more/own.tar, passthrough: [terms, seen]}\n  talk:"),
        [r":9: .*shop.parquet has no column 'licences'; it has title, photo, terms",
         r":10: .*shop.parquet has no artist, which `passthrough` names; columns are title, photo, terms",
         r":11: .*notes.jsonl has no ids, which `passthrough` names \(did you mean 'id'\?\); columns are text, id",
         r":13: render_pdf reads no rows with columns", r":14: .*own.tar has no seen, which .*; columns are caption, terms"],
    ),
    "flags": (
        GOOD.replace("input: talk.json}", "input: talk.json,\n    do: [clean: {decode: 1, overwrite: true, excluded: x}]}")
        .replace("steps: 2", "steps: two, device: gpu, size: tiny").replace("{crawl: 100, shop: 50}, ",
                 "{crawl: 100}, build: {samples: [1, 2], of: here},\n    "),
        [r":11: decode must be true or false, not 1", r":11: 'overwrite' is said elsewhere in the recipe",
         r":11: 'excluded' is no flag of clean_chat \(did you mean 'exclude'\?\); its flags are",
         r":13: samples must be one value, not \[1, 2\]", r":13: of must be one of listed, present, not 'here'",
         r":14: steps must be a whole number, not 'two'", r":14: device must be one of cpu, cuda, not 'gpu'",
         r":14: 'size' is said elsewhere in the recipe"],
    ),
    "mixture": (
        GOOD.replace("{crawl: 100, shop: 50}", "{crawl: {vqa: 3}, shopp: 50,\n    talk: many, grit: 7}").replace(
            "\n  talk:", "\n  boxes: {like: visual-genome, input: talk.json, images: .}\n  talk:").replace(
            "  3: {train", "  2: {mixture: {boxes: 5}}\n  3: {train"),
        [r":10: boxes has images of visual-genome and coco, as these evaluation sets have",
         r":13: crawl has no task 'vqa'; its tasks are caption", r":13: the recipe has no dataset 'shopp' \(did you mean 'shop'\?\)",
         r":14: stages.1.mixture.talk: number or dictionary expected, found 'many'", r":14: the recipe has no dataset 'grit'",
         r":15: boxes has tasks referring, region_caption: say how many of each"],
    ),
    "model": (
        GOOD.replace("queries: 16}", "queries: 600,\n  tokenizer: none.tiktoken}"),
        [r":3: queries 600: an image must leave room for text in a sample of 512", r":4: none.tiktoken: no such tokenizer"],
    ),
    "steps": (
        GOOD.replace('"*.tar"}', '"*.tar", do: [render, fetch: {}, clean: {},\n    {clean: {}, fetch: {}}]}').replace(
            "talk.json}", "talk.json, reader: chatt, tasks: [chat, talking]}\n  drawn: {like: synthdog-en, input: x,\n"
            "    do: [synthesise]}"),
        [r":5: no step 'render'; steps of crawl, which clean_laion reads: clean, fetch", r":6: a step is one word with its flags",
         r":11: no reader 'chatt' \(did you mean 'chat'\?\)", r":11: no task 'talking'", r":12: make_ocr reads no files: leave `input` out",
         r":13: make_ocr needs count"],
    ),
    "place": (
        GOOD.replace("output: out", "output: s3://none/out").replace('"*.tar"', "s3://none-of-ours/*.tar").replace(
            "steps: 2", "steps: 2, device: cuda"),
        [r":1: s3://none/out: the root is a folder", r":5: 's3://none-of-ours/\*.tar' cannot be listed: .*AWS_ACCESS_KEY_ID",
         r":12: there is no NVIDIA GPU here"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_recipe_is_told_all_its_problems_at_once(here, name, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(checks, "_gpu", lambda: False)
    monkeypatch.setattr(checks, "lacks", lambda: iter([]))
    text, wanted = WRONG[name]
    began, before = time.process_time(), {*Path().rglob("*")}
    found = problems(text)
    assert time.process_time() - began < 5
    assert {*Path().rglob("*")} - before == {Path("r.yaml")}, "nothing is written"
    for pattern in wanted:
        assert [line for line in found if re.match(f"r.yaml{pattern}", line)], f"{pattern}\n" + "\n".join(found)
    assert len(found) == len(wanted), "\n".join(found)
    lines = [int(line.split(":")[1]) for line in found]
    assert lines == sorted(lines)


def test_what_a_machine_lacks_is_a_problem_unless_the_dataset_is_optional(here, monkeypatch):
    there = [Lack(BROWSER, "pages", "get one"), Lack(FRIBIDI, "text", "get it"), Lack("35 of 41 English faces", "", "")]
    monkeypatch.setattr(checks, "lacks", lambda: iter(there))
    own = "  synthdog-en: {do: [synthesise: {count: 3}], optional: X}\n  common-crawl-html: {input: '*.json', optional: X}\n"
    text = GOOD.replace("  talk:", own + "  talk:")
    found = problems(text.replace("X", "false"))
    assert [line.split(": ")[0] for line in found] == ["r.yaml:10", "r.yaml:10", "r.yaml:11"]
    assert "needs the library FriBiDi" in found[0] and "35 of 41 English faces are not here" in found[1]
    assert "render_html needs a browser: get one; `optional: true` leaves the dataset out" in found[2]
    Path("r.yaml").write_text(text.replace("X", "true"))
    plan = make_plan("r.yaml")
    assert plan.left_out == ["synthdog-en", "common-crawl-html"]
    assert not {"cleaned/synthdog-en", "cleaned/common-crawl-html"} & {task.step.name for task in plan.tasks}


def test_images_of_evaluation_sets_that_nothing_tells_apart_are_a_problem(here):
    own = "  coco-caption: {input: talk.json, images: more, do: [clean: {X}]}\n"
    text = GOOD.replace("  talk:", own + "  talk:")
    (found,) = problems(text.replace("X", ""))
    assert found.startswith("r.yaml:10: coco-caption has images of coco, as these evaluation sets have")
    assert "pipelines/guard.py add" in found and "--no-guard" in found
    Path("r.yaml").write_text(text.replace("X", "no-guard: []"))
    assert "cleaned/coco-caption" in {task.step.name for task in make_plan("r.yaml").tasks}


def test_what_was_packed_stays_what_it_was(here, monkeypatch):
    """A browser that came or went after the packing changes nothing."""
    monkeypatch.setattr(checks, "lacks", lambda: iter([Lack(BROWSER, "pages", "get one")]))
    own = "  common-crawl-html: {input: '*.json', optional: true}\n"
    Path("r.yaml").write_text(GOOD.replace("  talk:", own + "  talk:"))
    there = State("out")
    there.write(Record("stage1", "", "", "begun", {}))
    there.write(Record("cleaned/common-crawl-html", "", "", "done", {}))
    assert make_plan("r.yaml").left_out == []
    monkeypatch.setattr(checks, "lacks", lambda: iter([]))
    Path("out/steps/cleaned--common-crawl-html.json").unlink()
    assert make_plan("r.yaml").left_out == ["common-crawl-html"]


def test_a_disk_without_room_is_a_problem(here, monkeypatch):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    assert problems(GOOD) == [
        "r.yaml:1: the disk of out has 0.0 GB free, and 0.0 GB of raw data, of which copies are kept"
    ]


@pytest.mark.parametrize(
    "text, said",
    [
        ("- a\n", "r.yaml: a recipe is a mapping"),
        ("a: [", "r.yaml:1: not valid YAML"),
        ("", "r.yaml: a recipe is a mapping"),
    ],
)
def test_what_is_no_recipe_at_all_says_so(here, text, said):
    assert problems(text)[0].startswith(said)


def test_set_is_checked_like_the_file(here):
    found = problems(GOOD, "stages.1.train.steps=many", "model.size=", "datasets.shop.rules.html=of")
    assert [line.partition(": ")[0] for line in found] == [
        "--set datasets.shop.rules.html=of", "--set stages.1.train.steps=many",
    ]  # fmt: skip


def test_no_such_recipe(here):
    with pytest.raises(WrongRecipe, match="none.yaml: there is no such recipe"):
        make_plan("none.yaml")


# --- What a change touches ---


def touched(before: str, after: str) -> set[str]:
    keys = []
    for text in (before, after):
        Path("r.yaml").write_text(text)
        reading = read("r.yaml")
        reading.refuse()
        keys.append(keys_of(steps_of(reading)))
    return {name for name in keys[0].keys() | keys[1].keys() if keys[0].get(name) != keys[1].get(name)}


ALL_OF_STAGE_1 = {"stage1", "runs/stage1", "runs/stage3"}


@pytest.mark.parametrize(
    "change, steps",
    [
        (("raw: raw", "raw: raw  # a remark"), set()),
        (('"*.tar"}', '"*.tar", rules: {image_size: {min_side: 9}}}'), {"cleaned/crawl"} | ALL_OF_STAGE_1),
        (('"*.tar"}', '"*.tar", do: [clean: {workers: 3}]}'), set()),
        (('"*.tar"}', '"*.tar", do: [clean: {decode: true}]}'), {"cleaned/crawl"} | ALL_OF_STAGE_1),
        (("shop: 50", "shop: 60"), ALL_OF_STAGE_1),
        (("talk.json}", "talk.json, rules: {too_many_images: {max: 2}}}"), {"cleaned/talk", "stage3", "runs/stage3"}),
        (("steps: 2", "steps: 3"), {"runs/stage1", "runs/stage3"}),
        (("peak-lr: 1e-3", "peak-lr: 1e-4"), {"runs/stage3"}),
        (("peak-lr: 1e-3", "peak-lr: 0.001, save-every: 5"), set()),
        (("queries: 16", "queries: 32"), ALL_OF_STAGE_1 | {"stage3"}),
        (("size: tiny", "size: small"), {"runs/stage1", "runs/stage3"}),
    ],
)  # fmt: skip
def test_a_change_touches_what_depends_on_it_and_nothing_else(here, change, steps):
    assert GOOD.replace(*change) != GOOD
    assert touched(GOOD, GOOD.replace(*change)) == steps


def test_rules_do_not_touch_what_they_do_not_judge(here):
    """A download, a score or a comparison of images is not done again for a threshold that comes later."""
    chain = GOOD.replace('"*.tar"}', '"*.tar", do: [fetch, score: {clip: tiny}, clean, dedup: {each-other: true}]}')
    steps = touched(chain, chain.replace("do: [fetch", "rules: {image_size: {min_side: 9}}, do: [fetch"))
    assert steps - ALL_OF_STAGE_1 == {"work/crawl/3-clean", "cleaned/crawl"}
    steps = touched(chain, chain.replace("do: [fetch", "rules: {clip_score: {min: 0.1}}, do: [fetch"))
    assert "work/crawl/2-score" in steps and "work/crawl/1-fetch" not in steps


def test_a_step_after_one_that_is_made_anew_is_made_anew_too(here):
    """Its folder cannot be gone on with: the splits that it read are gone."""
    made = []
    for rules in ("{}", "{image_size: {min_side: 9}}"):
        Path("r.yaml").write_text(
            GOOD.replace('"*.tar"}', f'"*.tar", rules: {rules}, do: [clean, dedup: {{each-other: true}}]}}')
        )
        made.append({name: made for name, (made, _) in keys_of(steps_of(read("r.yaml"))).items()})
    assert {name for name in made[0] if made[0][name] != made[1][name]} == {
        "work/crawl/1-clean", "cleaned/crawl"
    } | ALL_OF_STAGE_1  # fmt: skip


def test_new_raw_data_touch_what_is_made_of_them(here):
    Path("r.yaml").write_text(GOOD)
    before = keys_of(steps_of(read("r.yaml")))
    (here / "raw" / "1.tar").write_bytes(bytes(10240))
    after = keys_of(steps_of(read("r.yaml")))
    assert {name for name in before if before[name][1] != after[name][1]} == {"cleaned/crawl"} | ALL_OF_STAGE_1
    assert {name: made for name, (made, _) in before.items()} == {name: made for name, (made, _) in after.items()}


# --- What ships ---


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_ship_are_right(path):
    assert read(path).problems == []


def test_the_papers_recipe_has_every_dataset_of_tables_2_and_3():
    reading, catalog = read(ROOT / "recipes" / "qwen_vl.yaml"), load_catalog()
    listed = {name for name, dataset in catalog.items() if dataset.stages or dataset.original}
    assert set(reading.chains) == listed
    assert reading.catalog == catalog, "the paper's own numbers"
    trained = [step.words for step in steps_of(reading) if step.name.startswith("runs/")]
    assert [words[2] for words in trained] == ["1", "2", "3"] and not any("--steps" in words for words in trained)


def test_a_hub_that_does_not_answer_is_asked_for_a_tokenizer_once(here, monkeypatch):
    asked = []

    def away(self, name, timeout):
        asked.append((name, timeout))
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", away)
    monkeypatch.setattr(weights, "load_tokenizer", lambda name: pytest.fail("its library tries again for a minute"))
    (told,) = problems(GOOD.replace("queries: 16}", "queries: 16, tokenizer: nobody/nothing}"))
    assert "no tokenizer 'nobody/nothing'" in told and told.endswith("Hugging Face cannot be asked: no route")
    assert asked == [("nobody/nothing", 3)]


def put_in_cache(cache: Path, name: str, *files: str) -> None:
    folder = cache / f"models--{name.replace('/', '--')}"
    for file in files:
        path = folder / "snapshots" / "abc" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("abc")


def test_weights_that_are_neither_here_nor_to_be_had_are_problems(here, monkeypatch):
    from huggingface_hub import constants, errors

    def refuse(self, name, timeout):
        raise errors.RepositoryNotFoundError.__new__(
            errors.RepositoryNotFoundError
        )  # whose arguments differ by version

    def away(self, name, timeout):
        asked.append(name)
        raise ConnectionError("no route")

    def told(model: str) -> list[str]:
        return problems(GOOD.replace("size: tiny, queries: 16", f"queries: 16, {model}"))

    asked: list[str] = []
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", away)
    here_and_not = "init: raw, language: nobody/nothing, vision: ViT-H-15, vision-weights: no.pt"
    assert told(here_and_not) == [
        "r.yaml:3: raw holds no model: no config.json, nor export/config.json",
        "r.yaml:3: no weights 'nobody/nothing': no folder, not in the cache; Hugging Face cannot be asked: no route",
        told(here_and_not)[2], "r.yaml:3: there is no no.pt",
    ]  # fmt: skip
    assert told(here_and_not)[2].startswith(
        "r.yaml:3: no vision tower 'ViT-H-15' (did you mean 'ViT-H-16'?); known are "
    )
    assert told("init: ./none") == ["r.yaml:3: there is no ./none"]
    asked.clear()
    assert len(told("init: a/b, language: c/d, tokenizer: e/f")) == 3 and asked == ["e/f"], "away is away"
    put_in_cache(here / "cache", "a/b", "config.json")
    assert "no weights 'a/b'" in told("init: a/b")[0], "its config alone is no model"
    put_in_cache(here / "cache", "a/b", "config.json", "model.safetensors")
    Path("r.yaml").write_text(GOOD.replace("size: tiny, queries: 16", "queries: 16, init: a/b"))
    assert make_plan("r.yaml").reading.notes == []
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    assert told("init: c/d") == [
        "r.yaml:3: no weights 'c/d': no folder, not in the cache; the hub does not have it, or not for you"
    ]
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda self, name, timeout: None)
    Path("r.yaml").write_text(GOOD.replace("size: tiny, queries: 16", "queries: 16, init: c/d"))
    assert make_plan("r.yaml").reading.notes == [
        "model.init: c/d is not here; it is downloaded when the training begins"
    ]


def test_every_job_has_a_title():
    assert set(JOBS) <= set(TITLES)


@pytest.mark.parametrize("of", ["recipe", "catalog"])
def test_the_schema_is_that_of_the_code(of):
    text = (ROOT / "recipes" / f"{of}.schema.json").read_text()
    assert text == schema.text_of(of), f"./gristmill schema {of} > recipes/{of}.schema.json"


def as_json(tree):
    """A tree of YAML as an editor sees it: keys are texts."""
    if isinstance(tree, dict):
        return {str(key): as_json(value) for key, value in tree.items()}
    return [as_json(each) for each in tree] if isinstance(tree, list) else tree


def complaints(of: str, tree) -> list[str]:
    checker = jsonschema.Draft202012Validator(json.loads((ROOT / "recipes" / f"{of}.schema.json").read_text()))
    return [error.message for error in checker.iter_errors(as_json(tree))]


def test_editors_accept_what_ships_and_refuse_what_is_wrong(here):
    for path in RECIPES:
        assert complaints("recipe", Document(path).tree) == []
        assert path.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    for path in ("catalog.yaml", "pipelines/scenes.yaml"):
        assert complaints("catalog", Document(ROOT / path).tree) == []
    for name in ("words", "rules", "flags", "mixture", "steps"):
        assert complaints("recipe", Document("r.yaml", WRONG[name][0]).tree), name
    assert complaints("recipe", Document("r.yaml", GOOD).tree) == []


def test_a_dataset_without_one_right_step_is_told_as_such(here):
    assert problems(GOOD.replace('"*.tar"}', '"*.tar", do: [render]}'))[0].startswith("r.yaml:5: no step 'render'")


def test_the_readme_shows_the_demos_recipe():
    lines = (ROOT / "recipes" / "demo.yaml").read_text().splitlines()
    assert "\n".join(line for line in lines if not line.startswith("#")) in (ROOT / "README.md").read_text()
