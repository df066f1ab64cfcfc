"""Evaluation images stay out of training data by default: jobs refuse, or keep them out, and the corpus tells which."""

import json
from typing import get_args

import pytest

from corpus import evaluation
from corpus.catalog import CatalogError, load_catalog
from corpus.evaluation import evaluation_sets
from corpus.folder import OutputFolder
from corpus.packs import read_corpus
from corpus.readers.exclude import load_excluded
from corpus.readers.names import owners_ids
from pipelines import build_stage, clean_captions, clean_chat, clean_grounding, clean_vqa, dedup, guard
from pipelines.engine import job
from pipelines.recipe.shape import Entry
from tests.published import jpeg, outcomes, picture, put_images, put_json, refcoco, run_job, samples

COCO_SETS = ("coco-val2014", "refcoco", "refcoco-plus", "refcocog")


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A registry of its own, with the checkout's sets and no lists."""
    root = tmp_path / "evaluation"
    root.mkdir()
    (root / "sets.yaml").write_bytes((evaluation.ROOT / "sets.yaml").read_bytes())
    monkeypatch.setattr(evaluation, "ROOT", root)
    return root


def add(name, *files):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["guard.py", "add", name, *map(str, files)])
        guard.main()


def refs(tmp_path, output="out"):
    """The flags of a job over RefCOCO's files: images 7 and 8 are of its training split, 9 of testA."""
    images = put_images(tmp_path / "images", [f"COCO_train2014_{i:012d}.jpg" for i in (7, 8, 9)])
    inputs = refcoco(tmp_path)
    return ("--dataset", "refcoco", "--images", images, "--input", *inputs, "--output", tmp_path / output)


def test_a_set_that_shares_images_is_not_cleaned_without_lists(registry, tmp_path):
    flags = refs(tmp_path)
    with pytest.raises(job.UserError) as refused:
        run_job(clean_grounding, *flags, guarded=True)
    assert all(f"\n  {name}: " in str(refused.value) for name in COCO_SETS)
    assert "coco-test2015" not in str(refused.value) and not (tmp_path / "out").exists()
    assert "guard.py add coco-val2014 FILES" in str(refused.value) and "--no-guard" in str(refused.value)


def test_all_datasets_of_shared_pools_are_refused_and_no_other(registry, tmp_path):
    catalog = load_catalog()
    sharing = {name for name, dataset in catalog.items() if dataset.pools}
    assert sharing == {
        "coco-caption", "coco-cn", "sbu", "gqa", "vgqa", "vqav2", "textvqa", "vizwiz", "visual-genome", "refcoco",
        "refcoco-plus", "refcocog", "coco-instances",
    }  # fmt: skip
    for module in (clean_captions, clean_vqa, clean_grounding, clean_chat):
        for dataset in catalog.values():
            if dataset.job != module.__name__.rpartition(".")[2]:
                continue
            images = put_images(tmp_path / "images", ["a.jpg"])
            source = put_json(tmp_path / "data.json", [])
            refused = f"^{dataset.name} has images of" if dataset.pools and dataset.name != "vizwiz" else None
            if refused:
                with pytest.raises(job.UserError, match=refused):
                    run_job(module, "--dataset", dataset.name, "--images", images, "--input", source, "--output",
                            tmp_path / dataset.name, guarded=True)  # fmt: skip


def test_a_corpus_without_a_flag_holds_no_excluded_image(registry, tmp_path):
    """RefCOCOg's test image 8 is in RefCOCO's training split: with the lists at hand no flag is needed."""
    flags = refs(tmp_path)
    add("coco-val2014", put_json(tmp_path / "val.json", {"images": [{"id": 262148}]}))
    for name in ("refcoco", "refcoco-plus"):
        add(name, tmp_path / "refs(unc).p")
    (tmp_path / "ids.txt").write_text("coco:8  # of RefCOCOg's test split\n")
    add("refcocog", tmp_path / "ids.txt")
    run_job(clean_grounding, *flags, guarded=True)
    assert outcomes(tmp_path / "out") == {"excluded_image": 1, "kept": 1, "split": 1}
    assert [one.images[0].ids for one in samples(tmp_path / "out").values()] == [("coco:7",)]
    recorded = OutputFolder(str(tmp_path / "out")).settings()["guard"]
    assert set(COCO_SETS) < set(recorded["sets"]) and recorded["unguarded"] == []
    assert recorded["sets"]["refcocog"] == evaluation_sets()["refcocog"].mark()
    (tmp_path / "cleaned").mkdir()
    (tmp_path / "out").rename(tmp_path / "cleaned/refcoco")
    stage = ("--stage", 2, "--data", tmp_path / "cleaned", "--queries", 16, "--output", tmp_path / "stage")
    run_job(build_stage, *stage)
    assert read_corpus(str(tmp_path / "stage"))["guards"] == {"refcoco": recorded}


def test_a_list_of_ones_own_or_no_guard_lets_the_job_run_and_is_recorded(registry, tmp_path, capsys):
    flags = refs(tmp_path)
    (tmp_path / "mine.txt").write_text("coco:8\n")
    run_job(clean_grounding, *flags, "--exclude", tmp_path / "mine.txt")
    recorded = OutputFolder(str(tmp_path / "out")).settings()["guard"]
    assert len(recorded["exclude"]) == 1 and recorded["unguarded"] == sorted(COCO_SETS)
    assert outcomes(tmp_path / "out") == {"excluded_image": 1, "kept": 1, "split": 1}
    run_job(clean_grounding, *refs(tmp_path, "bare"), "--no-guard", guarded=True)
    recorded = OutputFolder(str(tmp_path / "bare")).settings()["guard"]
    assert recorded["sets"] == {} and set(COCO_SETS) < set(recorded["unguarded"])
    assert outcomes(tmp_path / "bare") == {"kept": 2, "split": 1}


def test_single_sets_can_be_left_unguarded_by_name(registry, tmp_path):
    add("coco-val2014", put_json(tmp_path / "val.json", {"images": [{"id": 7}]}))
    with pytest.raises(job.UserError, match="\n  refcocog: "):
        run_job(clean_grounding, *refs(tmp_path), "--no-guard", "refcoco", "refcoco-plus", guarded=True)
    run_job(clean_grounding, *refs(tmp_path), "--no-guard", *COCO_SETS[1:], guarded=True)
    assert outcomes(tmp_path / "out") == {"excluded_image": 1, "kept": 1, "split": 1}
    with pytest.raises(job.UserError, match="no evaluation set 'refcoc'"):
        run_job(clean_grounding, *refs(tmp_path), "--no-guard", "refcoc", guarded=True)


def test_a_changed_list_makes_the_folder_another(registry, tmp_path):
    (tmp_path / "mine.txt").write_text("coco:8\n")
    add("mine", tmp_path / "mine.txt")
    run_job(clean_grounding, *refs(tmp_path), "--no-guard", *COCO_SETS, guarded=True)
    (tmp_path / "mine.txt").write_text("coco:7\n")
    add("mine", tmp_path / "mine.txt")
    with pytest.raises(Exception, match="guard.sets.mine"):
        run_job(clean_grounding, *refs(tmp_path), "--no-guard", *COCO_SETS, guarded=True)


def test_names_tell_validation_images_in_any_dataset(registry, tmp_path):
    images = put_images(tmp_path / "images", ["COCO_val2014_000000000009.jpg", "plain.jpg"])
    rows = [{"image": name, "question": "?", "answer": "x"} for name in ("COCO_val2014_000000000009.jpg", "plain.jpg")]
    (tmp_path / "q.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "catalog.yaml").write_text(
        "mine: {language: en, licence: mine, job: clean_vqa, reader: qwen, tasks: [vqa], pools: [coco]}"
    )
    flags = ("--catalog", tmp_path / "catalog.yaml", "--dataset", "mine", "--images", images, "--input",
             tmp_path / "q.jsonl", "--output", tmp_path / "out")  # fmt: skip
    (tmp_path / "list.txt").write_text("coco:1\n")
    run_job(clean_vqa, *flags, "--exclude", tmp_path / "list.txt")
    assert outcomes(tmp_path / "out") == {"excluded_image": 1, "kept": 1}


def dialogue(image):
    return [{"image": image, "conversations": [{"from": "human", "value": "<image>\nWhat?"},
                                               {"from": "gpt", "value": "A cat."}]}]  # fmt: skip


@pytest.mark.parametrize("image", ["coco/train2017/000000000009.jpg", "gqa/images/2331963.jpg"])
def test_a_dialogue_about_a_shared_image_stops_a_job_that_declares_none(registry, tmp_path, image):
    flags = ("--images", put_images(tmp_path / "images", [image, "own/1.jpg"]), "--output", tmp_path / "out")
    data = put_json(tmp_path / "chat.json", dialogue(image))
    with pytest.raises(job.UserError, match="from which the dataset has none by the catalog"):
        run_job(clean_chat, *flags, "--input", data, guarded=True)
    run_job(clean_chat, *flags, "--input", put_json(tmp_path / "own.json", dialogue("own/1.jpg")), "--overwrite",
            guarded=True)  # fmt: skip
    assert outcomes(tmp_path / "out") == {"kept": 1}


def test_a_list_finds_the_photos_of_other_peoples_dialogues(registry, tmp_path):
    for name in COCO_SETS:
        add(name, put_json(tmp_path / "val.json", {"images": [{"id": 9}]}))
    images = put_images(tmp_path / "images", ["coco/train2017/000000000009.jpg"])
    data = put_json(tmp_path / "chat.json", dialogue("coco/train2017/000000000009.jpg"))
    run_job(clean_chat, "--images", images, "--input", data, "--output", tmp_path / "out", guarded=True)
    assert outcomes(tmp_path / "out") == {"excluded_image": 1}


@pytest.mark.parametrize(
    ("place", "ids"),
    [
        ("coco/train2017/000000033471.jpg", ["coco:33471"]), ("COCO_train2014_000000581857.jpg", ["coco:581857"]),
        ("vg/VG_100K_2/107.jpg", ["vg:107"]), ("gqa/images/n16.jpg", ["vg:n16"]),
        ("textvqa/train_images/003a8ae2ef43b901.jpg", ["openimages:003a8ae2ef43b901"]),
        ("http://static.flickr.com/2723/4385058960_b0f291553e.jpg", ["flickr:4385058960"]),
        ("http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg", ["flickr:2970773875"]),
        ("000000033471.jpg", []), ("photos/train/12.jpg", []), ("http://example.org/4385058960_b0.jpg", []),
    ],
)  # fmt: skip
def test_ids_that_names_and_addresses_give_away(place, ids):
    assert list(owners_ids(place)) == ids


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        ({"images": [{"id": 9, "flickr_url": "http://farm4.staticflickr.com/31/29707_16_z.jpg"}]},
         {"coco:9", "flickr:29707"}),
        ({"images": [{"cocoid": 5, "filename": "a.jpg", "split": "test", "sentids": []},
                     {"cocoid": 6, "filename": "b.jpg", "split": "restval", "sentids": []}]}, {"coco:5"}),
        ({"images": [{"filename": "1000092795.jpg", "split": "val", "sentids": [1], "imgid": 0},
                     {"filename": "10.jpg", "split": "train", "sentids": [2], "imgid": 1}]}, {"flickr:1000092795"}),
        ({"data": [{"image_id": "003a8ae2ef43b901", "question": "what?"}]}, {"openimages:003a8ae2ef43b901"}),
        ({"q1": {"imageId": "n161313", "question": "Is it?"}}, {"vg:n161313"}),
        ({"questions": [{"question_id": 1, "image_id": 42, "question": "Is it?"}]}, {"coco:42"}),
        ({"images": [{"id": 0, "open_images_id": "0013ea2087020901"}]}, {"openimages:0013ea2087020901"}),
    ],
)  # fmt: skip
def test_published_files_serve_as_lists(tmp_path, data, ids):
    assert load_excluded([put_json(tmp_path / "set.json", data)]).ids == ids


def test_what_is_added_holds_ids_images_and_texts_and_is_the_same_in_any_order(registry, tmp_path):
    question = "What is the man in the red shirt holding in his hand?"
    asked = {"question_id": 1, "image_id": 42, "question": question}
    questions = put_json(tmp_path / "q.json", {"questions": [asked]})
    picture(1).save(tmp_path / "eval.png")
    add("one", questions, tmp_path / "eval.png")
    add("two", tmp_path / "eval.png")
    add("two", questions)
    lists = [(registry / "lists" / f"{name}.txt").read_text() for name in ("one", "two")]
    assert lists[0] == lists[1]
    found = load_excluded([str(registry / "lists/one.txt")])
    assert found.ids == {"coco:42"} and found.hashes and len(found.texts) == 1
    add("one", questions)
    assert (registry / "lists/one.txt").read_text() == lists[0]


def test_hashes_of_a_set_of_ones_own_are_looked_for_in_every_dataset(registry, tmp_path):
    (tmp_path / "eval.jpg").write_bytes(jpeg(1, width=200, height=150))
    add("mine", tmp_path / "eval.jpg")
    images = put_images(tmp_path / "images", ["0.jpg", "1.jpg"])
    (tmp_path / "data.jsonl").write_text("".join(f'{{"image": "{i}.jpg", "text": "a dog"}}\n' for i in (0, 1)))
    run_job(clean_captions, "--dataset", "in-house", "--images", images, "--input", tmp_path / "data.jsonl",
            "--output", tmp_path / "out", guarded=True)  # fmt: skip
    assert outcomes(tmp_path / "out") == {"kept": 1, "near_excluded_image": 1}


def test_guards_are_passed_on_by_jobs_that_pass_samples_on(registry, tmp_path):
    run_job(clean_grounding, *refs(tmp_path), "--no-guard", guarded=True)
    run_job(dedup, "--each-other", "--input", tmp_path / "out/*.tar", "--output", tmp_path / "unique")
    told = [OutputFolder(str(tmp_path / name)).settings()["guard"] for name in ("out", "unique")]
    assert told[0] == told[1] and told[0]["unguarded"]


def test_a_stage_is_not_built_of_data_whose_guards_nobody_recorded(registry, tmp_path):
    run_job(clean_grounding, *refs(tmp_path), "--no-guard", guarded=True)
    (tmp_path / "cleaned").mkdir()
    cleaned = (tmp_path / "out").rename(tmp_path / "cleaned/refcoco")
    told = json.loads((cleaned / "job.json").read_text())
    (cleaned / "job.json").write_text(json.dumps({key: told[key] for key in told if key != "guard"}))
    stage = ("--stage", 2, "--data", tmp_path / "cleaned", "--queries", 16, "--output", tmp_path / "stage")
    with pytest.raises(job.UserError, match="does not record what was kept out"):
        run_job(build_stage, *stage)
    run_job(build_stage, *stage, "--no-guard")
    assert read_corpus(str(tmp_path / "stage"))["guards"] == {"refcoco": None}


@pytest.mark.parametrize("name", ["../evil", "Capital", "a/b", ""])
def test_a_set_is_never_a_path(registry, tmp_path, name):
    (tmp_path / "ids.txt").write_text("coco:8\n")
    with pytest.raises(job.UserError, match="a set's name"):
        add(name, tmp_path / "ids.txt")


@pytest.mark.parametrize("content", ["coco9\n", "text:8:12\n", "text:x:0123456789abcdef\n", ""])
def test_a_file_that_identifies_nothing_changes_no_list(registry, tmp_path, content):
    (tmp_path / "bad.txt").write_text(content)
    with pytest.raises(job.UserError):
        add("mine", tmp_path / "bad.txt")
    assert not (registry / "lists/mine.txt").exists()


def test_the_catalog_knows_the_pools(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "mine: {language: en, licence: mine, job: clean_vqa, reader: qwen, tasks: [vqa], pools: [cocoa]}"
    )
    with pytest.raises(CatalogError, match="no pool 'cocoa'.*did you mean 'coco'"):
        load_catalog(tmp_path / "c.yaml")


def test_recipes_know_the_same_pools():
    (names,) = [kind for kind in get_args(Entry.__annotations__["pools"]) if kind is not type(None)]
    assert get_args(get_args(names)[0]) == evaluation.POOLS
