"""Files that are cut, hostile, incomplete or not what they seem stop the job or land in the ledger, and say why."""

import json

import pytest

from pipelines import clean_captions, clean_grounding, clean_vqa
from pipelines.engine import job
from tests.published import evil_pickle, jpeg, outcomes, put_images, refcoco, run_job


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    images = put_images(tmp_path / "images", ["a.jpg"])
    _, instances = refcoco(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes(evil_pickle(tmp_path / "ran"))
    with pytest.raises(job.UserError, match="refused, it asks for .*system"):
        run_job(clean_grounding, "--dataset", "refcoco", "--images", images, "--input",
                tmp_path / "refs(unc).p", instances,
                "--output", tmp_path / "out")  # fmt: skip
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("keep", [1, 60, 200])
def test_a_cut_pickle_is_named_damaged(tmp_path, keep):
    images = put_images(tmp_path / "images", ["a.jpg"])
    refs, instances = refcoco(tmp_path)
    (tmp_path / "refs(unc).p").write_bytes((tmp_path / "refs(unc).p").read_bytes()[:keep])
    with pytest.raises(job.UserError, match="damaged pickle|refused"):
        run_job(
            clean_grounding,
            "--dataset",
            "refcoco",
            "--images",
            images,
            "--input",
            refs,
            instances,
            "--output",
            tmp_path / "o",
        )


def test_a_cut_side_file_stops_and_a_cut_main_file_is_in_the_ledger(shared_data, tmp_path):
    folder = shared_data("annotations/allennlp_vqav2")
    for name in ("questions", "annotations"):
        (tmp_path / f"{name}.json").write_bytes((folder / f"{name}.json").read_bytes())
    flags = ["--dataset", "vqav2", "--images", folder / "images", "--input", tmp_path / "*.json"]
    whole = (tmp_path / "questions.json").read_bytes()
    (tmp_path / "questions.json").write_bytes(whole[:-120])
    run_job(clean_vqa, *flags, "--output", tmp_path / "main")
    assert outcomes(tmp_path / "main") == {"cut_json": 1, "kept": 2}
    (tmp_path / "questions.json").write_bytes(whole)
    (tmp_path / "annotations.json").write_bytes((tmp_path / "annotations.json").read_bytes()[:-400])
    with pytest.raises(job.UserError, match="annotations.json: .*at byte.*fetch the file again"):
        run_job(clean_vqa, *flags, "--output", tmp_path / "side")


@pytest.mark.parametrize(
    ("images", "message"),
    [("nowhere", "no such folder or shard"), ("empty", "no images there"), (None, "--images is missing")],
)
def test_missing_images_are_told_at_once(shared_data, tmp_path, images, message):
    (tmp_path / "empty").mkdir()
    flags = ["--images", tmp_path / images] if images else []
    with pytest.raises(job.UserError, match=message):
        run_job(clean_vqa, "--dataset", "vqav2", *flags, "--input",
                shared_data("annotations/allennlp_vqav2") / "*.json",
                "--output", tmp_path / "out")  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_half_of_a_dataset_names_the_other_half(shared_data, tmp_path):
    folder = shared_data("annotations/allennlp_vqav2")
    with pytest.raises(job.UserError, match="lacks a file with annotations"):
        run_job(clean_vqa, "--dataset", "vqav2", "--images", folder / "images", "--input", folder / "questions.json",
                "--output", tmp_path / "out")  # fmt: skip


def test_boxes_in_another_convention_stop_the_job_with_a_hint(tmp_path):
    names = [f"{i}.jpg" for i in range(60)]
    images = put_images(tmp_path / "images", names)
    rows = [{"image": n, "sent": "it", "bbox": [100 + i, 90, 110, 120], "width": 320} for i, n in enumerate(names)]
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))  # left, top, width, height
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text("mine: {language: en, licence: mine, job: clean_grounding, reader: qwen, tasks: [referring]}")
    flags = ["--catalog", catalog, "--dataset", "mine", "--images", images, "--input", tmp_path / "boxes.jsonl"]
    for i, row in enumerate(rows):
        row["bbox"][2] = 40 if i % 4 else 110  # as corners, most are inverted
    (tmp_path / "boxes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(job.UserError, match="read as xyxy.*--boxes xywh"):
        run_job(clean_grounding, *flags, "--output", tmp_path / "out")
    run_job(clean_grounding, *flags, "--boxes", "xywh", "--output", tmp_path / "right")
    assert outcomes(tmp_path / "right") == {"kept": 60}


@pytest.mark.parametrize("entry", ["coco9", "phash:00", "cocoa:9", "phash:" + "g" * 80])
def test_an_exclusion_list_with_a_strange_line_is_refused_by_line(shared_data, tmp_path, entry):
    (tmp_path / "list.txt").write_text(f"coco:1 # fine\n\n{entry}\n")
    folder = shared_data("annotations/allennlp_vqav2")
    with pytest.raises(job.UserError, match="list.txt:3: .* is no entry"):
        run_job(clean_vqa, "--dataset", "vqav2", "--images", folder / "images", "--input", folder / "*.json",
                "--exclude", tmp_path / "list.txt", "--output", tmp_path / "out")  # fmt: skip


def test_names_from_data_never_leave_the_folder(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(jpeg(1))
    images = put_images(tmp_path / "images", ["x/same.jpg", "y/same.jpg"])
    names = ["../secret.jpg", str(tmp_path / "secret.jpg"), "same.jpg", "y/same.jpg"]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"text": f"text {n}", "image": n}) for n in names))
    run_job(
        clean_captions,
        "--dataset",
        "in-house",
        "--images",
        images,
        "--input",
        tmp_path / "rows.jsonl",
        "--output",
        tmp_path / "o",
    )
    assert outcomes(tmp_path / "o") == {"ambiguous_image": 1, "image_missing": 2, "kept": 1}
